//! What people order of queues: a row for each that anything was ever ordered of.

use super::{SqliteStore, Trouble};
use crate::job::{SlowDown, millis};
use crate::sabotage::{Bug, Sabotage};
use crate::store::StoreError;
use crate::store::queues::{
    PausedQueue, PolicyRow, QueueOrders, QueuePolicy, SlowedQueue, policy_columns,
};

/// Whether a queue `q` is held back, at this time, since a target asks for it; by no more than its policy allows.
macro_rules! is_held_back {
    ($now:literal) => {
        concat!(
            "q.slowed_until > ",
            $now,
            " AND q.slowed_until <= ",
            $now,
            " + 1000 * q.slow_down_ms"
        )
    };
}
pub(super) use is_held_back;

impl<B: Sabotage> QueueOrders for SqliteStore<B> {
    async fn pause(&self, queue: &str) -> Result<bool, StoreError> {
        let mut connection = self.begin().await?;
        let done = sqlx::query(
            "INSERT INTO turnwise_queues (name, paused_at) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET paused_at = ?2 WHERE paused_at IS NULL",
        )
        .bind(queue)
        .bind(self.now().as_micros())
        .execute(&mut *connection)
        .await
        .map_err(Trouble::from);
        Ok(self.settle(connection, done).await?.rows_affected() > 0)
    }

    async fn resume(&self, queue: &str) -> Result<bool, StoreError> {
        let mut connection = self.begin().await?;
        let done = sqlx::query(
            "UPDATE turnwise_queues SET paused_at = NULL WHERE name = ?1 AND paused_at IS NOT NULL",
        )
        .bind(queue)
        .execute(&mut *connection)
        .await
        .map_err(Trouble::from);
        Ok(self.settle(connection, done).await?.rows_affected() > 0)
    }

    async fn put_policy(&self, queue: &str, policy: &QueuePolicy) -> Result<(), StoreError> {
        let row = policy.columns(queue);
        let mut connection = self.begin().await?;
        let done = sqlx::query(
            concat!(
                "INSERT INTO turnwise_queues (",
                policy_columns!(),
                ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
                 ON CONFLICT (name) DO UPDATE SET retry_wait_ms = ?2, retry_wait_max_ms = ?3, permanent_statuses = ?4,
                    concurrency = ?5, concurrency_per_key = ?6, rate_jobs = ?7, rate_per_ms = ?8, rate_burst = ?9,
                    slow_down_ms = ?10, slowed_until = NULL"
            ),
        )
        .bind(row.name)
        .bind(row.retry_wait_ms)
        .bind(row.retry_wait_max_ms)
        .bind(row.permanent_statuses)
        .bind(row.concurrency)
        .bind(row.concurrency_per_key)
        .bind(row.rate_jobs)
        .bind(row.rate_per_ms)
        .bind(row.rate_burst)
        .bind(row.slow_down_ms)
        .execute(&mut *connection)
        .await
        .map_err(Trouble::from);
        self.settle(connection, done).await.map(drop)
    }

    async fn policies(&self) -> Result<Vec<(String, QueuePolicy)>, StoreError> {
        let mut connection = self.connection().await?;
        let found: Result<Vec<PolicyRow>, sqlx::Error> = sqlx::query_as(concat!(
            "SELECT ",
            policy_columns!(),
            " FROM turnwise_queues
             WHERE coalesce(retry_wait_ms, retry_wait_max_ms, permanent_statuses, concurrency, concurrency_per_key,
                rate_jobs, slow_down_ms) IS NOT NULL
             ORDER BY name",
        ))
        .fetch_all(&mut *connection)
        .await;
        connection.give_back();
        let found = found.map_err(|error| self.trouble(error.into()))?;
        Ok(found.into_iter().map(QueuePolicy::read).collect())
    }

    async fn paused(&self) -> Result<Vec<PausedQueue>, StoreError> {
        let mut connection = self.connection().await?;
        let found: Result<Vec<(String, i64)>, sqlx::Error> = sqlx::query_as(
            "SELECT name, paused_at FROM turnwise_queues WHERE paused_at IS NOT NULL ORDER BY name",
        )
        .fetch_all(&mut *connection)
        .await;
        connection.give_back();
        let found = found.map_err(|error| self.trouble(error.into()))?;
        Ok(found.into_iter().map(PausedQueue::new).collect())
    }

    async fn slowed(&self) -> Result<Vec<SlowedQueue>, StoreError> {
        let mut connection = self.connection().await?;
        let found: Result<Vec<(String, i64)>, sqlx::Error> = sqlx::query_as(concat!(
            "SELECT q.name, q.slowed_until FROM turnwise_queues q WHERE ",
            is_held_back!("?1"),
            " ORDER BY q.name"
        ))
        .bind(self.now().as_micros())
        .fetch_all(&mut *connection)
        .await;
        connection.give_back();
        let found = found.map_err(|error| self.trouble(error.into()))?;
        Ok(found.into_iter().map(SlowedQueue::new).collect())
    }
}

impl<B: Sabotage> SqliteStore<B> {
    pub(super) async fn hold_back(&self, what: &SlowDown) -> Result<(), StoreError> {
        if B::plants(Bug::SlowDownIsIgnored) {
            return Ok(());
        }
        let mut connection = self.begin().await?;
        // Farther ahead than it can be: the clock was set back.
        let done = sqlx::query(
            "UPDATE turnwise_queues SET slowed_until = max(?2 + 1000 * min(?3, slow_down_ms),
                iif(slowed_until <= ?2 + 1000 * slow_down_ms, slowed_until, 0))
             WHERE name = ?1 AND slow_down_ms IS NOT NULL",
        )
        .bind(&what.queue)
        .bind(self.now().as_micros())
        .bind(millis(what.wait))
        .execute(&mut *connection)
        .await
        .map_err(Trouble::from);
        self.settle(connection, done).await.map(drop)
    }
}
