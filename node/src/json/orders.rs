//! What became of an order about a queue or a schedule.

use serde::Serialize;
use utoipa::ToSchema;

/// What became of an order about a queue.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QueueOrdered {
    /// The queue.
    pub(crate) queue: String,
    /// `paused`, `paused-before`, `resumed` or `not-paused`.
    pub(crate) result: &'static str,
}

/// What became of an order about a schedule.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ScheduleOrdered {
    /// The schedule.
    pub(crate) name: String,
    /// `removed`, `paused`, `paused-before`, `resumed` or `not-paused`.
    pub(crate) result: &'static str,
}

/// The word for what became of an order to pause, or to go on: it was done, or was so before.
pub(crate) fn paused_or_resumed(done: bool, pause: bool) -> &'static str {
    match (done, pause) {
        (true, true) => "paused",
        (false, true) => "paused-before",
        (true, false) => "resumed",
        (false, false) => "not-paused",
    }
}
