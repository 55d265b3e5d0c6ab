//! Decides which slot an instant of server time belongs to and where a slot's boundary lies, across
//! steps of the server's clock (`bias`) and a change of the period. Knows nothing of nodes.

use serde::{Deserialize, Serialize};

use crate::units::{Period, ServerInstant, Slot};

/// How slots lie on server time: the boundary of slot `s` is `(s - bias) · period`.
///
/// A change of the period takes effect at a slot, like a version of the roster: from slot `from` on the
/// boundaries lie on multiples of the new period, the first of them at or after the old boundary of
/// `from`. So slot numbers go on without a break, and the gap between the last beat of the old period and
/// the first of the new one is between the old period and the sum of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cadence {
    /// The period in force.
    pub period: Period,
    /// What is added to `round(clock / period)` so that slot numbers never go back.
    pub bias: i64,
    /// The period that follows, and the slot from which it holds.
    pub next: Option<NextPeriod>,
}

/// A change of the period that is published and not yet in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NextPeriod {
    /// The first slot of the new period.
    pub from: Slot,
    /// The new period.
    pub period: Period,
}

impl Cadence {
    /// Slots of `period` with no bias.
    pub const fn new(period: Period) -> Self {
        Self { period, bias: 0, next: None }
    }

    /// The boundary of `slot`: where a beat for it should arrive.
    pub fn boundary(&self, slot: Slot) -> ServerInstant {
        match self.after_change() {
            Some((from, after)) if slot >= from => after.boundary(slot),
            _ => ServerInstant::from_nanos((slot - Slot(self.bias)) * self.period.as_nanos()),
        }
    }

    /// The slot of an instant: `round(clock / period) + bias`.
    pub fn slot_at(&self, clock: ServerInstant) -> Slot {
        let here = Slot(rounded(clock, self.period) + self.bias);
        match self.after_change() {
            None => here,
            Some((from, after)) => {
                let there = after.slot_at(clock);
                if here >= from && there >= from { there } else { here.min(from - 1) }
            }
        }
    }

    /// The period in force at `slot`.
    pub fn period_at(&self, slot: Slot) -> Period {
        match self.next {
            Some(next) if slot >= next.from => next.period,
            _ => self.period,
        }
    }

    /// The same boundaries from the view of `slot`: a published change that holds by then is made.
    #[must_use]
    pub(crate) fn settled_at(self, slot: Slot) -> Self {
        match self.after_change() {
            Some((from, after)) if slot >= from => after,
            _ => self,
        }
    }

    /// This cadence with the bias that makes `slot` the slot of `clock`.
    #[must_use]
    pub(crate) fn rebased(self, slot: Slot, clock: ServerInstant) -> Self {
        Self { bias: slot.0 - rounded(clock, self.period), ..self }
    }

    fn after_change(&self) -> Option<(Slot, Self)> {
        let NextPeriod { from, period } = self.next?;
        let old_boundary = (from - Slot(self.bias)) * self.period.as_nanos();
        let first = -(-old_boundary).div_euclid(period.as_nanos());
        Some((from, Self { period, bias: from.0 - first, next: None }))
    }
}

/// `round(clock / period)`, a half rounded up.
fn rounded(clock: ServerInstant, period: Period) -> i64 {
    let period = period.as_nanos();
    (clock.as_nanos() + period / 2).div_euclid(period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> ServerInstant {
        ServerInstant::from_nanos(millis * 1_000_000)
    }

    fn period(millis: u32) -> Period {
        Period::from_millis(millis).unwrap()
    }

    #[test]
    fn a_beat_that_is_a_little_early_is_in_its_slot() {
        let cadence = Cadence::new(Period::DEFAULT);
        assert_eq!(cadence.slot_at(at(6_999)), Slot(7));
        assert_eq!(cadence.slot_at(at(7_499)), Slot(7));
        assert_eq!(cadence.slot_at(at(7_500)), Slot(8));
        assert_eq!(cadence.boundary(Slot(7)), at(7_000));
    }

    #[test]
    fn bias_moves_numbers_and_boundaries_alike() {
        let cadence = Cadence { bias: 3_600, ..Cadence::new(Period::DEFAULT) };
        assert_eq!(cadence.slot_at(at(5_000)), Slot(3_605));
        assert_eq!(cadence.boundary(Slot(3_605)), at(5_000));
    }

    #[test]
    fn a_change_of_the_period_leaves_no_slot_number_out() {
        for (old, new) in [(1_000, 250), (1_000, 10_000), (10_000, 50), (50, 10_000), (300, 700)] {
            let from = Slot(20);
            let before = Cadence { bias: -4, ..Cadence::new(period(old)) };
            let cadence =
                Cadence { next: Some(NextPeriod { from, period: period(new) }), ..before };
            let mut last = cadence.slot_at(at(0));
            for millis in 0..(i64::from(old) * 26 + i64::from(new) * 4) {
                let slot = cadence.slot_at(at(millis));
                assert!(slot == last || slot == last + 1, "{old} -> {new}: {last} then {slot}");
                assert_eq!(cadence.settled_at(slot).slot_at(at(millis)), slot);
                last = slot;
            }
            assert!(last > from + 1, "{old} -> {new} ended at {last}");
            let gap = cadence.boundary(from).nanos_from(cadence.boundary(from - 1));
            assert!(gap >= period(old).as_nanos());
            assert!(gap < period(old).as_nanos() + period(new).as_nanos());
            assert_eq!(cadence.slot_at(cadence.boundary(from)), from);
        }
    }
}
