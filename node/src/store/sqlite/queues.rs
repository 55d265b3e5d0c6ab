//! What people order of queues: a row for each that anything was ever ordered of.

use super::{SqliteStore, Trouble};
use crate::sabotage::Sabotage;
use crate::store::StoreError;
use crate::store::queues::{PausedQueue, QueueOrders};

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
