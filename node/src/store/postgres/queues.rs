//! What people order of queues: a row for each that anything was ever ordered of.

use sqlx::FromRow;

use super::PgStore;
use super::statement::Statement;
use crate::store::StoreError;
use crate::store::queues::{PausedQueue, PolicyRow, QueueOrders, QueuePolicy};

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
        let row = policy.columns(queue);
        let statement = Statement::of(
            "INSERT INTO turnwise.queues (name, retry_wait_ms, retry_wait_max_ms, permanent_statuses,
                concurrency, rate_jobs, rate_per_ms, rate_burst)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (name) DO UPDATE SET retry_wait_ms = excluded.retry_wait_ms,
                retry_wait_max_ms = excluded.retry_wait_max_ms, permanent_statuses = excluded.permanent_statuses,
                concurrency = excluded.concurrency, rate_jobs = excluded.rate_jobs,
                rate_per_ms = excluded.rate_per_ms, rate_burst = excluded.rate_burst",
        );
        let statement = statement
            .bind(row.name)
            .bind(row.retry_wait_ms)
            .bind(row.retry_wait_max_ms)
            .bind(row.permanent_statuses)
            .bind(row.concurrency)
            .bind(row.rate_jobs)
            .bind(row.rate_per_ms)
            .bind(row.rate_burst);
        self.ask(statement).await?;
        // Where a limit kept jobs back, there may be room.
        self.put_back();
        Ok(())
    }

    async fn policies(&self) -> Result<Vec<(String, QueuePolicy)>, StoreError> {
        let statement = Statement::of(
            "SELECT q.name, q.retry_wait_ms, q.retry_wait_max_ms, q.permanent_statuses, q.concurrency, q.rate_jobs,
                q.rate_per_ms, q.rate_burst
             FROM turnwise.queues q
             WHERE coalesce(q.retry_wait_ms, q.retry_wait_max_ms, q.concurrency, q.rate_jobs) IS NOT NULL
                OR q.permanent_statuses IS NOT NULL
             ORDER BY q.name COLLATE \"C\"",
        );
        let found = self.ask(statement).await?;
        let found: Result<Vec<PolicyRow>, _> = found.iter().map(FromRow::from_row).collect();
        let found = found.map_err(|error| self.trouble(error.into()))?;
        Ok(found.into_iter().map(QueuePolicy::read).collect())
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
