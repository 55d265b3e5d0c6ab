//! What people order of queues: a row for each that anything was ever ordered of.

use sqlx::FromRow;

use super::PgStore;
use super::statement::Statement;
use crate::store::StoreError;
use crate::store::queues::{PausedQueue, QueueOrders, QueuePolicy};

impl QueueOrders for PgStore {
    async fn pause(&self, queue: &str) -> Result<bool, StoreError> {
        let statement = Statement::of(
            "INSERT INTO turnwise.queues AS q (name, paused_at) VALUES ($1, turnwise.clock())
             ON CONFLICT (name) DO UPDATE SET paused_at = excluded.paused_at WHERE q.paused_at IS NULL
             RETURNING q.name",
        );
        Ok(!self.ask(statement.bind(queue.to_owned())).await?.is_empty())
    }

    async fn resume(&self, queue: &str) -> Result<bool, StoreError> {
        let statement = Statement::of(
            "UPDATE turnwise.queues SET paused_at = NULL WHERE name = $1 AND paused_at IS NOT NULL
             RETURNING name",
        );
        let resumed = !self.ask(statement.bind(queue.to_owned())).await?.is_empty();
        self.put_back();
        Ok(resumed)
    }

    async fn put_policy(&self, queue: &str, policy: &QueuePolicy) -> Result<(), StoreError> {
        let (wait, wait_max, permanent) = policy.columns();
        let statement = Statement::of(
            "INSERT INTO turnwise.queues (name, retry_wait_ms, retry_wait_max_ms, permanent_statuses)
             VALUES ($1, $2, $3, $4)
             ON CONFLICT (name) DO UPDATE SET retry_wait_ms = excluded.retry_wait_ms,
                retry_wait_max_ms = excluded.retry_wait_max_ms, permanent_statuses = excluded.permanent_statuses",
        );
        let statement = statement.bind(queue.to_owned()).bind(wait).bind(wait_max).bind(permanent);
        self.ask(statement).await.map(drop)
    }

    async fn policies(&self) -> Result<Vec<(String, QueuePolicy)>, StoreError> {
        type Columns = (String, Option<i64>, Option<i64>, Option<String>);
        let statement = Statement::of(
            "SELECT q.name, q.retry_wait_ms, q.retry_wait_max_ms, q.permanent_statuses FROM turnwise.queues q
             WHERE coalesce(q.retry_wait_ms, q.retry_wait_max_ms) IS NOT NULL OR q.permanent_statuses IS NOT NULL
             ORDER BY q.name COLLATE \"C\"",
        );
        let found = self.ask(statement).await?;
        let found: Result<Vec<Columns>, _> = found.iter().map(FromRow::from_row).collect();
        let found = found.map_err(|error| self.trouble(error.into()))?;
        let policy = |(name, wait, wait_max, permanent): Columns| {
            (name, QueuePolicy::read((wait, wait_max, permanent)))
        };
        Ok(found.into_iter().map(policy).collect())
    }

    async fn paused(&self) -> Result<Vec<PausedQueue>, StoreError> {
        let statement = Statement::of(
            "SELECT q.name, turnwise.micros(q.paused_at) FROM turnwise.queues q
             WHERE q.paused_at IS NOT NULL ORDER BY q.name COLLATE \"C\"",
        );
        let found = self.ask(statement).await?;
        let found: Result<Vec<_>, _> = found.iter().map(<(String, i64)>::from_row).collect();
        let found = found.map_err(|error| self.trouble(error.into()))?;
        Ok(found.into_iter().map(PausedQueue::new).collect())
    }
}
