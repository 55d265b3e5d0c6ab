//! Decides what became of each slot: whose it was, whether its beat came, by whom, and how far from its boundary. Keeps
//! the rings that held a while ago, which the turn row itself forgets.

use std::collections::BTreeMap;

use turnwise_engine::{Cadence, Deputy, NodeId, Roster, ServerInstant, Slot};

use crate::store::BeatView;

/// So many slots are kept.
pub(super) const SLOTS_KEPT: i64 = 600;

/// What became of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotView {
    /// Its number.
    pub slot: Slot,
    /// Its boundary, as the server's clock was then.
    pub boundary: ServerInstant,
    /// Where it lies in the ring that held then; none when nobody knows any more, or nobody was in it.
    pub place: Option<Place>,
    /// Its beat; none: it was missed.
    pub beat: Option<BeatMark>,
}

/// Where a slot lies in its ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whose turn it was by the ring, deputies left out.
    pub owner: NodeId,
    /// The owner's place, from 0.
    pub rank: usize,
    /// How many nodes the ring had.
    pub of: usize,
}

/// A beat, as it is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeatMark {
    /// Whose.
    pub node: NodeId,
    /// When it arrived.
    pub arrived_at: ServerInstant,
    /// How long after the boundary, in microseconds; none when the clock has been set meanwhile.
    pub late_us: Option<i64>,
    /// The period of its slot, in microseconds.
    pub period_us: i64,
    /// Jobs that it claimed.
    pub claimed: u32,
}

impl SlotView {
    /// Who stood in for the owner; none when the owner beat itself, or nobody did, or it is not known.
    pub fn deputy(&self) -> Option<NodeId> {
        let beat = self.beat?;
        self.place.is_some_and(|place| place.owner != beat.node).then_some(beat.node)
    }
}

impl BeatMark {
    /// It came further from its boundary than a quarter of a period: early or late.
    pub fn is_off(&self) -> bool {
        self.late_us.is_some_and(|late| late.abs() > self.period_us / 4)
    }
}

/// The slots of the last while.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots {
    /// All rings that held, and the newest, by their first slots.
    roster: Roster,
    seen: BTreeMap<Slot, SlotView>,
}

impl Slots {
    /// The row's roster as of now: what it has is the truth from there on, what it forgot is kept.
    pub(super) fn learn(&mut self, roster: &Roster, now: Slot) {
        if let Some(first) = roster.versions.first() {
            self.roster.versions.retain(|version| version.from < first.from);
            self.roster.versions.extend(roster.versions.iter().cloned());
        }
        let keep = now - SLOTS_KEPT;
        let in_force = self.roster.versions.iter().rposition(|v| v.from <= keep).unwrap_or(0);
        self.roster.versions.drain(..in_force);
        let offices: &[Deputy] = &roster.deputies;
        self.roster.deputies.retain(|office| office.end > keep && !offices.contains(office));
        self.roster.deputies.extend_from_slice(offices);
    }

    /// A beat was accepted.
    pub(super) fn beat(&mut self, beat: &BeatView, cadence: &Cadence) -> SlotView {
        let boundary = cadence.boundary(beat.slot);
        let period_us = cadence.period_at(beat.slot).as_nanos() / 1_000;
        let late = beat.arrived_at.nanos_from(boundary) / 1_000;
        let late_us = (late.abs() <= period_us).then_some(late);
        let mark = BeatMark {
            node: beat.node,
            arrived_at: beat.arrived_at,
            late_us,
            period_us,
            claimed: beat.claimed,
        };
        let boundary = if late_us.is_some() { boundary } else { beat.arrived_at };
        let view = self.view(beat.slot, boundary, Some(mark));
        self.put(view);
        view
    }

    /// A slot passed without a beat. None when nobody was to beat in it.
    pub(super) fn missed(&mut self, slot: Slot, cadence: &Cadence) -> Option<SlotView> {
        // Before the first ring there is none to be missed by, unless that ring is only the first that is remembered.
        let version = self.roster.version_at(slot);
        let is_nobodys = version.map_or(self.seen.is_empty(), |version| version.ring.is_empty());
        if is_nobodys {
            return None;
        }
        let view = self.view(slot, cadence.boundary(slot), None);
        self.put(view);
        Some(view)
    }

    fn view(&self, slot: Slot, boundary: ServerInstant, beat: Option<BeatMark>) -> SlotView {
        let place = self.roster.version_at(slot).and_then(|version| {
            let owner = self.roster.ring_owner(slot)?;
            let rank = version.ring.iter().position(|node| *node == owner)?;
            Some(Place { owner, rank, of: version.ring.len() })
        });
        SlotView { slot, boundary, place, beat }
    }

    fn put(&mut self, view: SlotView) {
        self.seen.insert(view.slot, view);
        while self.seen.len() > SLOTS_KEPT as usize {
            self.seen.pop_first();
        }
    }

    /// Oldest first.
    pub(super) fn all(&self) -> impl DoubleEndedIterator<Item = &SlotView> {
        self.seen.values()
    }

    pub(super) fn has(&self, slot: Slot) -> bool {
        self.seen.contains_key(&slot)
    }

    pub(super) fn roster(&self) -> &Roster {
        &self.roster
    }
}

#[cfg(test)]
mod tests {
    use turnwise_engine::{Period, Version};

    use super::*;

    const A: NodeId = NodeId::from_u128(1);
    const B: NodeId = NodeId::from_u128(2);

    fn version(from: i64, ring: &[NodeId]) -> Version {
        Version { from: Slot(from), ring: ring.to_vec() }
    }

    fn beat(slot: i64, node: NodeId, late_ms: i64) -> BeatView {
        let arrived_at = ServerInstant::from_micros(slot * 1_000_000 + late_ms * 1_000);
        BeatView { slot: Slot(slot), node, arrived_at, claimed: 0 }
    }

    #[test]
    fn a_slot_is_drawn_in_the_ring_that_held_then() {
        let cadence = Cadence::new(Period::DEFAULT);
        let mut slots = Slots::default();
        let both = Roster { versions: vec![version(10, &[A, B])], deputies: vec![] };
        slots.learn(&both, Slot(10));
        assert_eq!(
            slots.beat(&beat(11, B, 3), &cadence).place,
            Some(Place { owner: B, rank: 1, of: 2 })
        );
        // The row forgets the old ring; what is pending is put in the place of what was pending before.
        slots.learn(
            &Roster { versions: vec![version(14, &[A]), version(20, &[A, B])], deputies: vec![] },
            Slot(14),
        );
        slots.learn(
            &Roster { versions: vec![version(14, &[A]), version(19, &[B])], deputies: vec![] },
            Slot(15),
        );
        assert_eq!(
            slots.missed(Slot(13), &cadence).unwrap().place,
            Some(Place { owner: B, rank: 1, of: 2 })
        );
        let covered = slots.beat(&beat(12, B, 0), &cadence);
        assert_eq!(covered.deputy(), Some(B));
        let alone = slots.beat(&beat(15, A, 260), &cadence);
        assert_eq!((alone.place.unwrap().of, alone.deputy()), (1, None));
        assert!(alone.beat.unwrap().is_off());
        assert_eq!(slots.beat(&beat(19, B, 0), &cadence).deputy(), None);
        assert_eq!(slots.roster().versions.len(), 3);
    }

    #[test]
    fn what_nobody_was_to_do_is_not_missed_and_only_so_much_is_kept() {
        let cadence = Cadence::new(Period::DEFAULT);
        let mut slots = Slots::default();
        slots.learn(
            &Roster { versions: vec![version(10, &[A]), version(12, &[])], deputies: vec![] },
            Slot(10),
        );
        assert!(slots.missed(Slot(9), &cadence).is_none(), "a farm that begins has missed nothing");
        assert!(slots.missed(Slot(11), &cadence).is_some());
        assert!(slots.missed(Slot(12), &cadence).is_none());
        // Before the first ring that is remembered nobody knows whose it was.
        assert_eq!(slots.missed(Slot(9), &cadence).unwrap().place, None);
        for slot in 20..20 + 2 * SLOTS_KEPT {
            slots.beat(&beat(slot, A, 0), &cadence);
        }
        assert_eq!(slots.all().count() as i64, SLOTS_KEPT);
    }

    #[test]
    fn a_beat_of_another_time_has_no_lateness() {
        let cadence = Cadence { bias: 3_600, ..Cadence::new(Period::DEFAULT) };
        let mut slots = Slots::default();
        let view = slots.beat(&beat(5_000, A, 0), &cadence);
        assert_eq!(view.beat.unwrap().late_us, None);
        assert_eq!(view.boundary, view.beat.unwrap().arrived_at);
    }
}
