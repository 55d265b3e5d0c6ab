//! What people order of queues: a row for each that anything was ever ordered of, written under its lock.

use sqlx::FromRow;

use super::literals::{instant, text};
use super::{MySqlStore, micros_of};
use crate::store::StoreError;
use crate::store::queues::{PausedQueue, QueueOrders};

impl QueueOrders for MySqlStore {
    async fn pause(&self, queue: &str) -> Result<bool, StoreError> {
        self.set_pause(queue, true).await
    }

    async fn resume(&self, queue: &str) -> Result<bool, StoreError> {
        let resumed = self.set_pause(queue, false).await?;
        self.inner.lanes.forget();
        Ok(resumed)
    }

    async fn paused(&self) -> Result<Vec<PausedQueue>, StoreError> {
        let found = self.run(format!(
            "SELECT name, {} FROM turnwise_queues WHERE paused_at IS NOT NULL ORDER BY name",
            micros_of!("paused_at")
        ));
        let found = found.await?;
        let found: Result<Vec<_>, _> = found.iter().map(<(String, i64)>::from_row).collect();
        let found = found.map_err(|error| self.trouble(error.into()))?;
        Ok(found.into_iter().map(PausedQueue::new).collect())
    }
}

impl MySqlStore {
    /// Whether that changed anything.
    async fn set_pause(&self, queue: &str, paused: bool) -> Result<bool, StoreError> {
        let name = text(queue);
        // The row is there before it is locked, so that two who order the same wait for each other.
        let make = format!(
            "INSERT INTO turnwise_queues (name) VALUES ({name}) ON DUPLICATE KEY UPDATE name = turnwise_queues.name"
        );
        let read = format!(
            "SELECT paused_at IS NOT NULL, {} FROM turnwise_queues WHERE name = {name} FOR UPDATE",
            self.now()
        );
        let (session, found) =
            self.begin(self.session().await?, &format!("{make}; {read}")).await?;
        let row = self.one(&found)?;
        let was_paused: bool = self.column(row, 0)?;
        let now: i64 = self.column(row, 1)?;
        let value = if paused { instant(now) } else { "NULL".to_owned() };
        let set = format!("UPDATE turnwise_queues SET paused_at = {value} WHERE name = {name}");
        self.commit(session, if was_paused == paused { Vec::new() } else { vec![set] }).await?;
        Ok(was_paused != paused)
    }
}
