//! Decides how long a node's lease lasts and how often it is renewed. Both follow from the period.

use core::time::Duration;

use crate::units::Period;

/// How long a node may run the jobs that it holds after its last check-in: 5/2 of the period, at least
/// 2.5 s.
///
/// After a crash the lease ends, at most one slot is missed (a gap of up to two periods), and the next beat
/// takes the jobs over: 2.5 + 2 periods, within the promised max(5 s, 5 periods). A slot that is missed while
/// the lease lasts makes it a period longer, since it may be the database that was away: 2.5 + 1 periods
/// and the next beat, 4.5 again.
pub const fn lease(period: Period) -> Duration {
    let millis = period.as_millis() as u64;
    let millis = if millis < 1_000 { 1_000 } else { millis };
    Duration::from_millis(millis * 5 / 2)
}

/// How often a node that holds jobs checks in: a third of the lease, at most 2 s, so that two renewals
/// in a row may be lost at the usual periods.
pub const fn renew_every(period: Period) -> Duration {
    let third = lease(period).as_millis() as u64 / 3;
    Duration::from_millis(if third > 2_000 { 2_000 } else { third })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_outlives_two_lost_renewals_and_its_end_is_noticed_in_time() {
        for millis in [50, 999, 1_000, 1_001, 2_400, 2_401, 5_000, 10_000] {
            let period = Period::from_millis(millis).unwrap();
            let (lease, every) = (lease(period), renew_every(period));
            let least = (period.as_duration() * 5 / 2).max(Duration::from_millis(2_500));
            assert!(lease.abs_diff(least) < Duration::from_millis(1), "{millis}: {lease:?}");
            let promised = (period.as_duration() * 5).max(Duration::from_secs(5));
            assert!(lease + 2 * period.as_duration() <= promised, "{millis}");
            assert!(every * 3 <= lease && every <= Duration::from_secs(2), "{millis}");
            assert!(every >= Duration::from_millis(800), "{millis}: a busy node asks too often");
        }
    }
}
