//! Decides for how long a statement on the turn row is waited for.

use core::time::Duration;

use super::{Sent, Turns};
use crate::clock::Clock;
use crate::sabotage::{Bug, Sabotage};
use crate::units::{LocalInstant, Period, nanos};

/// A statement is given up after this share of a period, so that a read can follow in the next slot ...
const PATIENCE_OF_PERIOD: (i64, i64) = (3, 4);
/// ... but not before this many of the smallest round trips ...
const PATIENCE_ROUND_TRIPS: i64 = 8;
/// ... nor earlier than this, unless the read could then not precede the node's next turn ...
const PATIENCE_MIN: Duration = Duration::from_millis(100);
/// ... and in no case before this many of the longest of the last ones ...
const PATIENCE_LONGEST: i64 = 2;
/// ... and after every so many failures in a row one statement is given that much more of the period again, in case the
/// database has become slow: answers that were given up teach nothing ...
const PATIENCE_GROWS_AFTER: u32 = 4;
/// ... but no more than this, or so many periods: an outage that ends in the middle lasts so much longer for it ...
const PATIENCE_GROWN: Duration = Duration::from_secs(1);
const PATIENCE_GROWN_PERIODS: u32 = 2;
/// ... until so many have failed, more than a minute's at a period of a second: from then on one of so many has no such bound.
const PATIENCE_IS_FULL_AFTER: u32 = 64;
/// While nothing is known of the road, a statement is given up after a second or a period. In no case after more than this.
const PATIENCE_UNKNOWN: Duration = Duration::from_secs(5);

impl<S: Sabotage> Turns<S> {
    /// For how long the statement that leaves now is waited for, in a slot of this period.
    pub(super) fn patience(
        &self,
        now: LocalInstant,
        kind: Sent,
        period: Period,
        clock: &Clock<S>,
    ) -> Duration {
        let road = clock.round_trips();
        let patience = match road {
            None => period.as_duration().max(Duration::from_secs(1)),
            Some((shortest, longest)) => {
                let (part, whole) = PATIENCE_OF_PERIOD;
                let many = shortest.saturating_mul(PATIENCE_ROUND_TRIPS).max(nanos(PATIENCE_MIN));
                let nanos = (period.as_nanos() * part / whole)
                    .max(self.in_time(now, kind, clock).map_or(many, |in_time| many.min(in_time)))
                    .max(longest.saturating_mul(PATIENCE_LONGEST));
                Duration::from_nanos(nanos.unsigned_abs())
            }
        };
        let patience =
            self.grown(patience, period.as_duration(), road.is_some()).min(PATIENCE_UNKNOWN);
        if S::plants(Bug::PatienceIsEndless) {
            Duration::from_secs(1_000_000)
        } else if S::plants(Bug::PatienceIsShort) {
            Duration::from_micros(500)
        } else {
            patience
        }
    }

    /// For how long the answer to a beat may be waited for, in nanoseconds, if the read behind it is to arrive before this node's
    /// next turn begins; or before the one after that, if the next turn is the very next slot, which is lost in any case.
    fn in_time(&self, now: LocalInstant, kind: Sent, clock: &Clock<S>) -> Option<i64> {
        let (Sent::Beat(slot), Some(row)) = (kind, self.row()) else { return None };
        let turn = row.roster.next_turn(self.id, slot)?.max(slot + 2);
        // Half a period before its boundary the turn begins, and the read is put off by up to a fifth.
        let (part, whole) = PATIENCE_OF_PERIOD;
        let period = self.period_at(slot).max(self.period_at(turn)).as_nanos();
        let boundary = clock.send_time(row.cadence.boundary(turn))?;
        Some(boundary.nanos_from(now) - period * part / whole)
    }

    /// The usual patience, or more of it after many failures; on a road of which nothing is known there is no bound to it yet.
    fn grown(&self, usual: Duration, period: Duration, known: bool) -> Duration {
        let failures = self.failures;
        if failures == 0 || !failures.is_multiple_of(PATIENCE_GROWS_AFTER) {
            return usual;
        }
        let times = 1 + failures.min(1_000) / PATIENCE_GROWS_AFTER;
        if !known || failures.is_multiple_of(PATIENCE_IS_FULL_AFTER) {
            return usual.saturating_mul(times);
        }
        // It is the period's share that grows, and not the round trips: two periods are reached after eight failures on
        // every road.
        let (part, whole) = PATIENCE_OF_PERIOD;
        let share = (period * part as u32 / whole as u32).max(PATIENCE_MIN);
        let most = (period * PATIENCE_GROWN_PERIODS).max(PATIENCE_GROWN);
        share.saturating_mul(times).min(most).max(usual)
    }
}
