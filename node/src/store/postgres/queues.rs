//! What people order of queues: a row for each that anything was ever ordered of.

use sqlx::FromRow;

use super::PgStore;
use super::statement::Statement;
use crate::job::{SlowDown, millis};
use crate::store::StoreError;
use crate::store::queues::{
    PausedQueue, PolicyRow, QueueOrders, QueuePolicy, SlowedQueue, policy_columns,
};

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
            concat!(
                "INSERT INTO turnwise.queues (",
                policy_columns!(),
                ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
                 ON CONFLICT (name) DO UPDATE SET retry_wait_ms = excluded.retry_wait_ms,
                    retry_wait_max_ms = excluded.retry_wait_max_ms, permanent_statuses = excluded.permanent_statuses,
                    concurrency = excluded.concurrency, concurrency_per_key = excluded.concurrency_per_key,
                    rate_jobs = excluded.rate_jobs, rate_per_ms = excluded.rate_per_ms,
                    rate_burst = excluded.rate_burst, slow_down_ms = excluded.slow_down_ms,
                    slowed_until = NULL"
            ),
        );
        let statement = statement
            .bind(row.name)
            .bind(row.retry_wait_ms)
            .bind(row.retry_wait_max_ms)
            .bind(row.permanent_statuses)
            .bind(row.concurrency)
            .bind(row.concurrency_per_key)
            .bind(row.rate_jobs)
            .bind(row.rate_per_ms)
            .bind(row.rate_burst)
            .bind(row.slow_down_ms);
        self.ask(statement).await?;
        // Where a limit kept jobs back, there may be room.
        self.put_back();
        Ok(())
    }

    async fn policies(&self) -> Result<Vec<(String, QueuePolicy)>, StoreError> {
        let statement = Statement::of(concat!(
            "SELECT ",
            policy_columns!(),
            " FROM turnwise.queues q
             WHERE coalesce(q.retry_wait_ms, q.retry_wait_max_ms, q.concurrency, q.concurrency_per_key, q.rate_jobs,
                    q.slow_down_ms) IS NOT NULL
                OR q.permanent_statuses IS NOT NULL
             ORDER BY q.name COLLATE \"C\"",
        ));
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

    async fn slowed(&self) -> Result<Vec<SlowedQueue>, StoreError> {
        let statement = Statement::of(
            "SELECT q.name, turnwise.micros(q.slowed_until) FROM turnwise.queues q
             WHERE turnwise.is_held_back(q, turnwise.clock()) ORDER BY q.name COLLATE \"C\"",
        );
        let found = self.ask(statement).await?;
        let found: Result<Vec<_>, _> = found.iter().map(<(String, i64)>::from_row).collect();
        let found = found.map_err(|error| self.trouble(error.into()))?;
        Ok(found.into_iter().map(SlowedQueue::new).collect())
    }
}

impl PgStore {
    pub(super) async fn hold_back(&self, what: &SlowDown) -> Result<(), StoreError> {
        let statement = Statement::of("SELECT turnwise.queue_slow_down($1, $2::bigint)")
            .bind(what.queue.clone())
            .bind(millis(what.wait));
        self.ask(statement).await.map(drop)
    }
}
