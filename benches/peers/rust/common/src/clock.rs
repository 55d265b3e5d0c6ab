//! The clock of all figures: one that every process of the machine reads alike.

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of the machine's monotonic clock.
///
/// # Panics
///
/// If the system has no such clock.
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a monotonic clock");
    let (seconds, nanoseconds) = (now.tv_sec().unsigned_abs(), now.tv_nsec().unsigned_abs());
    seconds * 1_000_000_000 + nanoseconds
}
