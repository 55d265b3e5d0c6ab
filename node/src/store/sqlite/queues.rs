//! What people order of queues: a row for each that anything was ever ordered of.

use super::{SqliteStore, Trouble};
use crate::sabotage::Sabotage;
use crate::store::StoreError;
use crate::store::queues::{PausedQueue, PolicyRow, QueueOrders, QueuePolicy};

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
            "INSERT INTO turnwise_queues (name, retry_wait_ms, retry_wait_max_ms, permanent_statuses,
                concurrency, rate_jobs, rate_per_ms, rate_burst)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (name) DO UPDATE SET retry_wait_ms = ?2, retry_wait_max_ms = ?3, permanent_statuses = ?4,
                concurrency = ?5, rate_jobs = ?6, rate_per_ms = ?7, rate_burst = ?8",
        )
        .bind(row.name)
        .bind(row.retry_wait_ms)
        .bind(row.retry_wait_max_ms)
        .bind(row.permanent_statuses)
        .bind(row.concurrency)
        .bind(row.rate_jobs)
        .bind(row.rate_per_ms)
        .bind(row.rate_burst)
        .execute(&mut *connection)
        .await
        .map_err(Trouble::from);
        self.settle(connection, done).await.map(drop)
    }

    async fn policies(&self) -> Result<Vec<(String, QueuePolicy)>, StoreError> {
        let mut connection = self.connection().await?;
        let found: Result<Vec<PolicyRow>, sqlx::Error> = sqlx::query_as(
            "SELECT name, retry_wait_ms, retry_wait_max_ms, permanent_statuses, concurrency, rate_jobs, rate_per_ms,
                rate_burst
             FROM turnwise_queues
             WHERE coalesce(retry_wait_ms, retry_wait_max_ms, permanent_statuses, concurrency, rate_jobs) IS NOT NULL
             ORDER BY name",
        )
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
}
