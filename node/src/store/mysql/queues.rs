//! What people order of queues: a row for each that anything was ever ordered of, written under its lock.

use sqlx::FromRow;

use super::literals::{instant, number_or_null, text, text_or_null};
use super::{MySqlStore, micros_of};
use crate::store::StoreError;
use crate::store::queues::{PausedQueue, QueueOrders, QueuePolicy};

impl QueueOrders for MySqlStore {
    async fn pause(&self, queue: &str) -> Result<bool, StoreError> {
        self.set_pause(queue, true).await
    }

    async fn resume(&self, queue: &str) -> Result<bool, StoreError> {
        let resumed = self.set_pause(queue, false).await?;
        self.inner.lanes.forget();
        Ok(resumed)
    }

    async fn put_policy(&self, queue: &str, policy: &QueuePolicy) -> Result<(), StoreError> {
        let (wait, wait_max, permanent) = policy.columns();
        let set = format!(
            "retry_wait_ms = {}, retry_wait_max_ms = {}, permanent_statuses = {}",
            number_or_null(wait),
            number_or_null(wait_max),
            text_or_null(permanent.as_deref())
        );
        let name = text(queue);
        self.run(format!(
            "INSERT INTO turnwise_queues SET name = {name}, {set} ON DUPLICATE KEY UPDATE {set}"
        ))
        .await
        .map(drop)
    }

    async fn policies(&self) -> Result<Vec<(String, QueuePolicy)>, StoreError> {
        type Columns = (String, Option<i64>, Option<i64>, Option<String>);
        let found = self
            .run(
                "SELECT name, retry_wait_ms, retry_wait_max_ms, permanent_statuses FROM turnwise_queues
                 WHERE COALESCE(retry_wait_ms, retry_wait_max_ms, permanent_statuses) IS NOT NULL ORDER BY name"
                    .to_owned(),
            )
            .await?;
        let found: Result<Vec<Columns>, _> = found.iter().map(FromRow::from_row).collect();
        let found = found.map_err(|error| self.trouble(error.into()))?;
        let policy = |(name, wait, wait_max, permanent): Columns| {
            (name, QueuePolicy::read((wait, wait_max, permanent)))
        };
        Ok(found.into_iter().map(policy).collect())
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
