//! What is on each page, one file for each.

pub(super) mod audit;
pub(super) mod batches;
pub(super) mod bulk;
pub(super) mod drain;
pub(super) mod job;
pub(super) mod jobs;
pub(super) mod nodes;
pub(super) mod queues;
pub(super) mod ring;
pub(super) mod schedules;
pub(super) mod timeline;

use axum::response::Response;

use super::page;

/// The answer to an address that does not exist.
pub(super) async fn nowhere() -> Response {
    page::missing("There is no such page", "", "/", "To the ring")
}
