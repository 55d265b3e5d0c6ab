//! Decides what a node answers over HTTP to other programs. The pages are the dashboard's, and so is the door before both.
//!
//! - `health`: whether it lives, whether it takes turns;
//! - `metrics`: its numbers;
//! - `v1`: which paths of `/v1` there are, and the document that describes them;
//! - `jobs`, `enqueue`, `batches`, `queues`, `schedules`, `nodes`, `events`, `audit`: what is answered under each;
//! - `new_job`: from JSON to a job; `idempotency`: the ids of a request that may be repeated;
//! - `params`, `bodies`: how a request is read, and how much of it; `orders`: what was begun is brought to its end;
//! - `problem`: how errors are told.

mod audit;
mod batches;
mod bodies;
mod enqueue;
mod events;
mod health;
mod idempotency;
mod jobs;
mod metrics;
mod new_job;
mod nodes;
mod orders;
mod params;
pub(crate) mod problem;
mod queues;
mod schedules;
mod v1;

use std::net::SocketAddr;

use tokio::net::TcpListener;

pub(crate) use batches::{ON_COMPLETE_PLACE, ON_SUCCESS_PLACE, jobs_of_lines};
pub use health::health;
pub(crate) use idempotency::Key;
pub use metrics::metrics;
pub use v1::v1;

/// What the paths of the API begin with.
pub(crate) const PREFIX: &str = "/v1";

/// Whether this path is one of the API's, there or not.
pub(crate) fn is_of_api(path: &str) -> bool {
    path.strip_prefix(PREFIX).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Take the address.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}
