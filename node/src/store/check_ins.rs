//! Decides when the check-in that a claim or an end is has to be written: not each is worth a new version of its node's
//! row. A statement on the turn row and a renewal are always written.

use turnwise_engine::{Period, ServerInstant};

use super::lease_nanos;

/// Whether a check-in at `at` is to be written over the last one, which was made and gave a lease until then, in
/// microseconds since the Unix epoch: when the lease would be shorter by more than a fifth without it. (The period may
/// have become longer since.) A last one that lies in the future is of a clock that was set back.
pub(super) fn is_worth_writing(
    at: ServerInstant,
    period: Period,
    last_us: i64,
    lease_until_us: i64,
) -> bool {
    let lease = lease_nanos(period) / 1_000;
    let at = at.as_micros();
    let is_recent = (at - lease / 5..=at).contains(&last_us);
    !is_recent || lease_until_us < at + lease - lease / 5
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_800_000_000_000_000;

    fn is_worth(millis: i64, lease_millis: i64, period: u32) -> bool {
        let (at, period) = (ServerInstant::from_micros(NOON), Period::from_millis(period).unwrap());
        is_worth_writing(at, period, NOON + millis * 1_000, NOON + lease_millis * 1_000)
    }

    #[test]
    fn a_fifth_of_a_lease_goes_by_before_the_next_is_written() {
        assert!(!is_worth(0, 2_500, 1_000));
        assert!(!is_worth(-500, 2_000, 1_000));
        assert!(is_worth(-501, 1_999, 1_000));
        assert!(!is_worth(-500, 2_000, 50), "no lease is shorter than 2.5 s");
        assert!(!is_worth(-1_000, 4_000, 2_000));
    }

    #[test]
    fn a_clock_that_was_set_back_and_a_longer_period_are_worth_it() {
        assert!(is_worth(1, 2_501, 1_000));
        assert!(is_worth(-400, 2_100, 10_000));
        assert!(!is_worth(-400, 3_100, 1_000), "a lease that was made longer for a missed slot");
    }
}
