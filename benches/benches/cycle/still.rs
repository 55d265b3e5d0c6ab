//! A clock that moves only when every task waits, and a stage with one thread. Decides nothing.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use turnwise_engine::{LocalInstant, ServerInstant};
use turnwise_node::clock::Clock;
use turnwise_node::sabotage::Sound;
use turnwise_node::shell::Stage;
use turnwise_node::store::sqlite::ServerClock;

/// Where the node's clock begins, and how much later the server's is.
const BEGIN: u64 = 1_000_000_000;
const OFFSET: i64 = 1_780_000_000_000_000_000;

/// The node's and the server's in one: the runtime's own, paused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StillClock {
    begun: Instant,
}

impl StillClock {
    /// From within the runtime.
    pub(crate) fn start() -> Self {
        Self { begun: Instant::now() }
    }

    fn nanos(self) -> u64 {
        BEGIN + self.begun.elapsed().as_nanos() as u64
    }
}

impl Clock for StillClock {
    fn now(&self) -> LocalInstant {
        LocalInstant::from_nanos(self.nanos())
    }

    fn wall_micros(&self) -> i64 {
        (self.nanos() as i64 + OFFSET) / 1_000
    }

    async fn sleep_until(&self, until: LocalInstant) {
        let since = Duration::from_nanos(until.as_nanos().saturating_sub(BEGIN));
        tokio::time::sleep_until(self.begun + since).await;
    }

    async fn sleep_nearly_until(&self, until: LocalInstant) {
        self.sleep_until(until).await;
    }

    fn spin_until(&self, _: LocalInstant) {}
}

impl ServerClock for StillClock {
    fn now(&self) -> ServerInstant {
        ServerInstant::from_nanos(self.nanos() as i64 + OFFSET)
    }
}

/// Everything on the runtime's one thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OneThread;

impl Stage for OneThread {
    type Bugs = Sound;

    fn perform<F>(&self, engine: F) -> oneshot::Receiver<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (done, result) = oneshot::channel();
        tokio::spawn(async move {
            let _ = done.send(engine.await);
        });
        result
    }
}
