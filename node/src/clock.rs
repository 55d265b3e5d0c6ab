//! Decides how a node reads its own clock and how it waits for an instant of it. Never reads the wall
//! clock for anything but display.

use std::future::Future;
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};
use turnwise_engine::LocalInstant;

/// How long before the instant the runtime's timer is asked to fire: it has a tick of 1 ms and is late by
/// 1.1 ms at the median.
const COARSE_MARGIN: Duration = Duration::from_millis(3);
/// How long before the instant the kernel's sleep is asked to end; the rest is spun.
const FINE_MARGIN: Duration = Duration::from_micros(150);
/// The longest single wait on the runtime's timer, which stands still while the machine is suspended.
const COARSE_WAIT_MAX: Duration = Duration::from_secs(1);

/// A node's own monotonic clock, which runs on while the machine is suspended. What the shell relies on is stated as
/// tests, in `node/tests/clock_contract/promises.rs`, which run against every kind of it.
pub trait Clock: Clone + Send + Sync + 'static {
    /// Now.
    fn now(&self) -> LocalInstant;

    /// The wall clock in microseconds since the Unix epoch: shown to people, never decided by.
    fn wall_micros(&self) -> i64;

    /// Wait until `until`, to within the runtime's timer: a few milliseconds late at the worst, when idle.
    fn sleep_until(&self, until: LocalInstant) -> impl Future<Output = ()> + Send;

    /// Wait until `until`, to within microseconds. May block its thread for up to some milliseconds: for
    /// the thread that has nothing else to do.
    fn sleep_precisely_until(&self, until: LocalInstant) -> impl Future<Output = ()> + Send;
}

/// `CLOCK_BOOTTIME`.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

impl Clock for BootClock {
    fn now(&self) -> LocalInstant {
        // The call cannot fail for a clock that the kernel has; every Linux since 2.6.39 has this one.
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
        LocalInstant::from_nanos(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock that a simulator replaces")]
    fn wall_micros(&self) -> i64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    async fn sleep_until(&self, until: LocalInstant) {
        loop {
            let rest = until.since(self.now());
            if rest.is_zero() {
                return;
            }
            tokio::time::sleep(rest.min(COARSE_WAIT_MAX)).await;
        }
    }

    async fn sleep_precisely_until(&self, until: LocalInstant) {
        loop {
            let rest = until.since(self.now());
            if rest <= COARSE_MARGIN {
                break;
            }
            tokio::time::sleep((rest - COARSE_MARGIN).min(COARSE_WAIT_MAX)).await;
        }
        let rest = until.since(self.now());
        if rest > FINE_MARGIN {
            // A relative sleep, since an interposed clock need not agree with the kernel's about absolute
            // instants. An early return is made good by the spin.
            let nap = (rest - FINE_MARGIN).into();
            let _ = clock_nanosleep(ClockId::CLOCK_BOOTTIME, ClockNanosleepFlags::empty(), &nap);
        }
        while self.now() < until {
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_sleep_ends_early() {
        let clock = BootClock;
        for millis in [0, 1, 5, 20] {
            let until = clock.now() + Duration::from_millis(millis);
            clock.sleep_until(until).await;
            assert!(clock.now() >= until);
            let until = clock.now() + Duration::from_millis(millis);
            clock.sleep_precisely_until(until).await;
            assert!(clock.now() >= until);
        }
    }
}
