//! Decides what a node's own clock is, and which one it has. The wall clock is never read for anything but display.
//!
//! - `boot`: the kernel's, which every node in production has;
//! - `wrong`: the kernel's, made wrong on purpose, to see what the farm makes of it.

mod boot;
mod wrong;

use std::future::Future;

use turnwise_engine::LocalInstant;

pub use self::boot::BootClock;
pub use self::wrong::WrongClock;

/// A node's own monotonic clock, which runs on while the machine is suspended. What the shell relies on is stated as
/// tests, in `node/tests/clock_contract/promises.rs`, which run against every kind of it.
pub trait Clock: Clone + Send + Sync + 'static {
    /// Now.
    fn now(&self) -> LocalInstant;

    /// The wall clock in microseconds since the Unix epoch: shown to people, never decided by.
    fn wall_micros(&self) -> i64;

    /// Wait until `until`, to within the runtime's timer: a few milliseconds late at the worst, when idle.
    fn sleep_until(&self, until: LocalInstant) -> impl Future<Output = ()> + Send;

    /// Wait until `until`, to within what the kernel takes to wake a thread: some tens of microseconds late, mostly. May
    /// block its thread for up to some milliseconds: for the thread that has nothing else to do.
    fn sleep_nearly_until(&self, until: LocalInstant) -> impl Future<Output = ()> + Send;

    /// Wait until `until` without giving up the thread: for half a millisecond at the most. A clock that stands still
    /// while a thread runs, as a simulated one does, waits for nothing.
    fn spin_until(&self, until: LocalInstant) {
        while self.now() < until {
            std::hint::spin_loop();
        }
    }
}

/// The clock of a node on a real machine.
#[derive(Clone, Debug)]
pub enum MachineClock {
    /// The kernel's.
    Boot(BootClock),
    /// Made wrong on purpose.
    Wrong(WrongClock),
}

impl Clock for MachineClock {
    fn now(&self) -> LocalInstant {
        match self {
            Self::Boot(clock) => clock.now(),
            Self::Wrong(clock) => clock.now(),
        }
    }

    fn wall_micros(&self) -> i64 {
        match self {
            Self::Boot(clock) => clock.wall_micros(),
            Self::Wrong(clock) => clock.wall_micros(),
        }
    }

    async fn sleep_until(&self, until: LocalInstant) {
        match self {
            Self::Boot(clock) => clock.sleep_until(until).await,
            Self::Wrong(clock) => clock.sleep_until(until).await,
        }
    }

    async fn sleep_nearly_until(&self, until: LocalInstant) {
        match self {
            Self::Boot(clock) => clock.sleep_nearly_until(until).await,
            Self::Wrong(clock) => clock.sleep_nearly_until(until).await,
        }
    }
}
