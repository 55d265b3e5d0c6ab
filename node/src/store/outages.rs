//! Decides how long the database was away, as far as its turn row knows: what counts neither for the time by which a job that goes on
//! elsewhere is to be heard of nor for its deadline. Knows no SQL.

use turnwise_engine::{Period, ServerInstant};

use super::lease_nanos;

/// Outages that lie no farther apart are told as one, in microseconds: after a long one some slots are missed.
pub(super) const APART_US: i64 = 60_000_000;

/// No end lies farther away (the year 2260): what is put off must not leave what a database can hold.
const FAR_US: i64 = 9_151_488_000_000_000;

/// What the turn row says of the time that nobody reached the database. Instants are microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outages {
    /// The last accepted beat.
    pub(super) beaten_at: Option<i64>,
    /// Of the last outages: the beat before the first, the beat after the last, and how long nobody beat in all.
    pub(super) last: Option<(i64, i64, i64)>,
    pub(super) period: Period,
}

impl Outages {
    /// How much of the time from `from` to `at` nobody beat.
    pub(super) fn between(&self, from: i64, at: i64) -> i64 {
        let over = self.last.map_or(0, |(first, until, in_all)| {
            in_all.min(until.min(at).saturating_sub(first.max(from))).max(0)
        });
        over.saturating_add(self.going_on(from, at))
    }

    /// How much of it belongs to an outage that the next accepted beat will find: those that wait are put off by it then.
    pub(super) fn going_on(&self, from: i64, at: i64) -> i64 {
        let two_periods = self.period.as_nanos() / 500;
        match self.beaten_at {
            Some(beaten_at) if at.saturating_sub(beaten_at) > two_periods => {
                at.saturating_sub(from.max(beaten_at)).max(0)
            }
            _ => 0,
        }
    }

    /// The end of an attempt that may take so many milliseconds and was accepted with 202 at `at`. The end of a call may be brought
    /// a lease late without anybody's fault.
    pub(super) fn end_of(&self, started_at: i64, deadline_ms: i64, within: i64, at: i64) -> i64 {
        let lease = lease_nanos(self.period) / 1_000;
        deadline_of(started_at, deadline_ms)
            .saturating_add(self.between(started_at, at))
            .max(at.saturating_add(within.min(lease)))
            .min(FAR_US)
    }
}

impl Default for Outages {
    fn default() -> Self {
        Self { beaten_at: None, last: None, period: Period::DEFAULT }
    }
}

/// The end of an attempt, if nobody was away.
pub(super) fn deadline_of(started_at: i64, deadline_ms: i64) -> i64 {
    started_at.saturating_add(deadline_ms.saturating_mul(1_000))
}

/// How long nobody beat, when one beat comes after the other; nothing when the clock was set back meanwhile.
pub(super) fn length(from: ServerInstant, to: ServerInstant) -> i64 {
    to.as_micros().saturating_sub(from.as_micros()).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn seen(beaten_at: i64, last: Option<(i64, i64, i64)>) -> Outages {
        let last = last.map(|(first, until, all)| (first * SECOND, until * SECOND, all * SECOND));
        Outages { beaten_at: Some(beaten_at * SECOND), last, ..Outages::default() }
    }

    #[test]
    fn what_was_over_counts_as_far_as_it_was_meanwhile() {
        let between =
            |seen: Outages, from: i64, at: i64| seen.between(from * SECOND, at * SECOND) / SECOND;
        assert_eq!(between(Outages::default(), 0, 100), 0);
        let seen_after = seen(99, Some((10, 40, 30)));
        assert_eq!(between(seen_after, 0, 100), 30);
        assert_eq!(between(seen_after, 20, 100), 20);
        assert_eq!(between(seen_after, 50, 100), 0);
        // Of two that are told as one it is not known when they were.
        assert_eq!(between(seen(99, Some((10, 60, 33))), 0, 100), 33);
        assert_eq!(between(seen(99, Some((10, 60, 33))), 50, 100), 10);
    }

    #[test]
    fn what_goes_on_counts_from_the_last_beat() {
        let going_on =
            |from: i64, at: i64| seen(10, None).going_on(from * SECOND, at * SECOND) / SECOND;
        assert_eq!(going_on(0, 12), 0, "a beat may be late");
        assert_eq!(going_on(0, 40), 30);
        assert_eq!(going_on(35, 40), 5);
        assert_eq!(going_on(0, 9), 0, "the clock was set back");
        assert_eq!(Outages::default().going_on(0, 40), 0);
    }

    #[test]
    fn an_end_that_is_brought_late_is_no_end_at_once() {
        let end = |seen: Outages, within: i64, at: i64| {
            seen.end_of(0, 15_000, within * SECOND, at * SECOND)
        };
        assert_eq!(end(seen(1, None), 60, 2), 15 * SECOND);
        assert_eq!(end(seen(31, Some((1, 31, 30))), 60, 32), 45 * SECOND);
        assert_eq!(end(seen(1, None), 60, 31), 45 * SECOND, "before the first beat");
        assert_eq!(end(seen(15, None), 60, 16), 18_500_000, "a lease");
        assert_eq!(end(seen(15, None), 1, 16), 17 * SECOND);
        assert_eq!(seen(1, None).end_of(0, i64::MAX, i64::MAX, 2), FAR_US);
    }
}
