//! What people order of queues: a row for each that anything was ever ordered of, written under its lock.

use sqlx::FromRow;

use super::literals::{instant, number_or_null, text, text_or_null};
use super::{MySqlStore, micros_of};
use crate::job::{SlowDown, millis};
use crate::store::StoreError;
use crate::store::queues::{
    PausedQueue, PolicyRow, QueueOrders, QueuePolicy, SlowedQueue, policy_columns,
};

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
        let row = policy.columns(queue);
        let set = format!(
            "retry_wait_ms = {}, retry_wait_max_ms = {}, permanent_statuses = {}, concurrency = {},
             concurrency_per_key = {}, rate_jobs = {}, rate_per_ms = {}, rate_burst = {}, slow_down_ms = {},
             slowed_until = NULL",
            number_or_null(row.retry_wait_ms),
            number_or_null(row.retry_wait_max_ms),
            text_or_null(row.permanent_statuses.as_deref()),
            number_or_null(row.concurrency),
            number_or_null(row.concurrency_per_key),
            number_or_null(row.rate_jobs),
            number_or_null(row.rate_per_ms),
            number_or_null(row.rate_burst),
            number_or_null(row.slow_down_ms)
        );
        let name = text(queue);
        self.run(format!(
            "INSERT INTO turnwise_queues SET name = {name}, {set} ON DUPLICATE KEY UPDATE {set}"
        ))
        .await
        .map(drop)
    }

    async fn policies(&self) -> Result<Vec<(String, QueuePolicy)>, StoreError> {
        let found = self
            .run(
                concat!(
                    "SELECT ",
                    policy_columns!(),
                    " FROM turnwise_queues
                     WHERE COALESCE(retry_wait_ms, retry_wait_max_ms, permanent_statuses, concurrency,
                        concurrency_per_key, rate_jobs, slow_down_ms) IS NOT NULL
                     ORDER BY name"
                )
                .to_owned(),
            )
            .await?;
        let found: Result<Vec<PolicyRow>, _> = found.iter().map(FromRow::from_row).collect();
        let found = found.map_err(|error| self.trouble(error.into()))?;
        Ok(found.into_iter().map(QueuePolicy::read).collect())
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

    async fn slowed(&self) -> Result<Vec<SlowedQueue>, StoreError> {
        let found = self.run(format!(
            "SELECT q.name, {} FROM turnwise_queues q WHERE {} ORDER BY q.name",
            micros_of!("q.slowed_until"),
            is_held_back(&self.inner.clock)
        ));
        let found = found.await?;
        let found: Result<Vec<_>, _> = found.iter().map(<(String, i64)>::from_row).collect();
        let found = found.map_err(|error| self.trouble(error.into()))?;
        Ok(found.into_iter().map(SlowedQueue::new).collect())
    }
}

/// Whether a queue `q` is held back, at this time, since a target asks for it; by no more than its policy allows.
pub(super) fn is_held_back(now: &str) -> String {
    format!(
        "q.slowed_until > {now} AND q.slowed_until <= {now} + INTERVAL q.slow_down_ms * 1000 MICROSECOND"
    )
}

impl MySqlStore {
    pub(super) async fn hold_back(&self, what: &SlowDown) -> Result<(), StoreError> {
        let clock = &self.inner.clock;
        // Farther ahead than it can be: the clock was set back.
        self.run(format!(
            "UPDATE turnwise_queues SET slowed_until = GREATEST(
                {clock} + INTERVAL LEAST({}, slow_down_ms) * 1000 MICROSECOND,
                IF(slowed_until <= {clock} + INTERVAL slow_down_ms * 1000 MICROSECOND, slowed_until, {clock}))
             WHERE name = {} AND slow_down_ms IS NOT NULL",
            millis(what.wait),
            text(&what.queue)
        ))
        .await
        .map(drop)
    }

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
