//! What people order of queues. Decides nothing: a queue that is paused is passed over by every claim, in the database.

use std::future::Future;

use turnwise_engine::ServerInstant;

use super::{Store, StoreError};

/// A queue of which no job is claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PausedQueue {
    /// Its name.
    pub queue: String,
    /// Since when, by the server's clock.
    pub since: ServerInstant,
}

impl PausedQueue {
    pub(super) fn new((queue, since_us): (String, i64)) -> Self {
        Self { queue, since: ServerInstant::from_micros(since_us) }
    }
}

/// What can be ordered of a queue.
pub trait QueueOrders: Store {
    /// Claim no more jobs of this queue, on any node, until it is resumed. What runs goes on; what a node tries again waits
    /// too. Jobs may be enqueued all the while. False when it is paused already. A queue need not have jobs. Fails with
    /// [`StoreError::Failed`] when the name is longer than [`QUEUE_BYTES_MAX`](crate::job::QUEUE_BYTES_MAX) bytes.
    fn pause(&self, queue: &str) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Claim its jobs again. False when it is not paused.
    fn resume(&self, queue: &str) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// The queues that are paused, by name.
    fn paused(&self) -> impl Future<Output = Result<Vec<PausedQueue>, StoreError>> + Send;
}
