//! Decides how the kernel's clock is read, and how an instant of it is waited for.

use std::time::{Duration, SystemTime};

use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};
use turnwise_engine::LocalInstant;

use super::Clock;

/// How long before the instant the runtime's timer is asked to fire: it has a tick of 1 ms and is late by
/// 1.1 ms at the median.
const COARSE_MARGIN: Duration = Duration::from_millis(3);
/// How long before the instant the kernel's sleep is asked to end; the rest is spun.
const FINE_MARGIN: Duration = Duration::from_micros(150);
/// The longest single wait on the runtime's timer, which stands still while the machine is suspended.
const COARSE_WAIT_MAX: Duration = Duration::from_secs(1);

/// `CLOCK_BOOTTIME`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

    async fn sleep_nearly_until(&self, until: LocalInstant) {
        loop {
            self.nap(until, Duration::ZERO).await;
            // An interposed clock need not agree with the kernel's about how long that was.
            if self.now() >= until {
                return;
            }
        }
    }
}

impl BootClock {
    /// Wait until `until`, to within microseconds, the last of them spinning.
    pub(crate) async fn sleep_precisely_until(&self, until: LocalInstant) {
        self.nap(until, FINE_MARGIN).await;
        self.spin_until(until);
    }

    /// Sleep until so long before `until`: far from it on the runtime's timer, near to it in the kernel.
    async fn nap(&self, until: LocalInstant, margin: Duration) {
        loop {
            let rest = until.since(self.now());
            if rest <= COARSE_MARGIN {
                break;
            }
            tokio::time::sleep((rest - COARSE_MARGIN).min(COARSE_WAIT_MAX)).await;
        }
        let rest = until.since(self.now());
        if rest > margin {
            // A relative sleep, since an interposed clock need not agree with the kernel's about absolute instants.
            let nap = (rest - margin).into();
            let _ = clock_nanosleep(ClockId::CLOCK_BOOTTIME, ClockNanosleepFlags::empty(), &nap);
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
