//! Decides what a join, a leave, a removal, a takeover and a new period make of a row: the change that the
//! engine computes from the row that it has read. Whether it commits is the database's to compare.

use alloc::vec;
use alloc::vec::Vec;

use super::change::{Change, ChangeKind};
use super::roster::{Deputy, Roster, Version};
use super::row::TurnRow;
use crate::cadence::NextPeriod;
use crate::sabotage::{Bug, Sabotage, Sound};
use crate::units::{NodeId, Period, Slot};

impl Change {
    /// `node` takes its place at the end of the ring. None when it is in it already.
    pub fn join(row: &TurnRow, node: NodeId, now: Slot) -> Option<Self> {
        Self::join_with::<Sound>(row, node, now)
    }

    pub(crate) fn join_with<S: Sabotage>(row: &TurnRow, node: NodeId, now: Slot) -> Option<Self> {
        if row.roster.is_member(node) {
            return None;
        }
        let mut change = Self::on(row, ChangeKind::Join, now);
        let mut ring = change.order_from::<S>(row, now);
        ring.insert(0, node);
        change.publish::<S>(row, now, ring);
        Some(change)
    }

    /// `victims` leave the ring and `deputy` stands in for them, from the first slot that the last read
    /// of each cannot have licensed. None when no victim is in the ring or nobody would be left.
    pub fn remove(row: &TurnRow, deputy: NodeId, victims: &[NodeId], now: Slot) -> Option<Self> {
        Self::remove_with::<Sound>(row, deputy, victims, now)
    }

    pub(crate) fn remove_with<S: Sabotage>(
        row: &TurnRow,
        deputy: NodeId,
        victims: &[NodeId],
        now: Slot,
    ) -> Option<Self> {
        let ring = &row.roster.last()?.ring;
        let victims: Vec<_> = victims.iter().copied().filter(|v| ring.contains(v)).collect();
        if victims.is_empty() || victims.len() == ring.len() {
            return None;
        }
        let mut change = Self::on(row, ChangeKind::Remove, now);
        let order = change.order_from::<S>(row, now);
        let rest = order.into_iter().filter(|node| !victims.contains(node)).collect();
        let end = change.publish::<S>(row, now, rest);
        for victim in victims {
            let read = row.marks.get(&victim).map(|mark| mark.read);
            let after = read.unwrap_or(now - row.roster.grace_from(now));
            let licensed = row.roster.next_ring_turn(victim, after).unwrap_or(now);
            let from = match () {
                () if S::plants(Bug::DeputyBeginsLate) => now + row.roster.grace_from(now) + 1,
                () => now.max(licensed) + 1,
            };
            if !S::plants(Bug::RemovalNamesNoDeputy) {
                change.roster.deputies.push(Deputy { of: victim, deputy, from, end });
            }
            change.victims.push((victim, read));
        }
        Some(change)
    }

    /// `node`, whose beat was accepted in slot `beat`, leaves; the change is to arrive in slot `now`, and the
    /// owner of the slot after that stands in. None when a slot since `beat`, or the next one, is the node's
    /// own too (it then leaves after that one), or when it is not in the ring.
    pub fn leave(row: &TurnRow, node: NodeId, beat: Slot, now: Slot) -> Option<Self> {
        Self::leave_with::<Sound>(row, node, beat, now)
    }

    pub(crate) fn leave_with<S: Sabotage>(
        row: &TurnRow,
        node: NodeId,
        beat: Slot,
        now: Slot,
    ) -> Option<Self> {
        let ring = &row.roster.last().filter(|_| row.roster.is_member(node))?.ring;
        let successor = row.roster.owner(now + 1)?;
        let alone = ring.len() == 1;
        let mut turn = beat + 1;
        while turn <= now + 1 {
            if !alone && row.roster.owner(turn) == Some(node) {
                return None;
            }
            turn = turn + 1;
        }
        let mut change = Self::on(row, ChangeKind::Leave, now);
        change.forgets_sender = true;
        let order = change.order_from::<S>(row, now);
        let rest = order.into_iter().filter(|other| *other != node).collect();
        let end = change.publish::<S>(row, now, rest);
        let successor = match () {
            () if S::plants(Bug::LeaverNamesNoDeputy) => node,
            () if S::plants(Bug::LeaverNamesWrongDeputy) => ring[0],
            () => successor,
        };
        if successor != node {
            let office = Deputy { of: node, deputy: successor, from: now + 1, end };
            change.roster.deputies.push(office);
        }
        Some(change)
    }

    /// Everybody else is gone: a ring of `node` alone, from the next slot.
    pub fn takeover(row: &TurnRow, node: NodeId, now: Slot) -> Self {
        let mut change = Self::on(row, ChangeKind::Takeover, now);
        change.takeover = true;
        let alone = Version { from: now + 1, ring: vec![node] };
        change.roster = Roster { versions: vec![alone], deputies: Vec::new() };
        change
    }

    /// The same ring with another period, in force when a version published now would be. None while an
    /// earlier change of the period is pending.
    pub fn period(row: &TurnRow, period: Period, now: Slot) -> Option<Self> {
        if row.cadence.next.is_some() {
            return None;
        }
        let mut change = Self::on(row, ChangeKind::Period, now);
        let order = change.order_from::<Sound>(row, now);
        let from = change.publish::<Sound>(row, now, order);
        change.next_period = Some(NextPeriod { from, period });
        Some(change)
    }

    fn on(row: &TurnRow, kind: ChangeKind, now: Slot) -> Self {
        Self {
            kind,
            epoch: row.epoch,
            latest: now,
            victims: Vec::new(),
            takeover: false,
            forgets_sender: false,
            roster: row.roster.clone(),
            next_period: row.cadence.next,
        }
    }

    /// The first slot of a version published in slot `now`.
    fn effective<S: Sabotage>(row: &TurnRow, now: Slot) -> Slot {
        match row.roster.last() {
            None => now + 1,
            Some(last) if S::plants(Bug::VersionHoldsEarly) => (now + 2).max(last.from + 1),
            Some(last) => (now + last.grace()).max(last.from + 1),
        }
    }

    /// The last ring, turned so that the owner of the new version's first slot stands first.
    fn order_from<S: Sabotage>(&self, row: &TurnRow, now: Slot) -> Vec<NodeId> {
        let Some(last) = row.roster.last() else {
            return Vec::new();
        };
        let mut order = last.ring.clone();
        if !order.is_empty() && !S::plants(Bug::RingIsNotTurned) {
            let first = (Self::effective::<S>(row, now) - last.from).rem_euclid(order.len() as i64);
            order.rotate_left(first as usize);
        }
        order
    }

    /// Append a version, and forget versions and offices that ended two rounds ago.
    fn publish<S: Sabotage>(&mut self, row: &TurnRow, now: Slot, ring: Vec<NodeId>) -> Slot {
        let from = Self::effective::<S>(row, now);
        self.roster.versions.push(Version { from, ring });
        let largest = self.roster.versions.iter().map(|v| v.ring.len() as i64).max().unwrap_or(0);
        let mut old = now - 2 * largest.max(1);
        if S::plants(Bug::VersionsAreForgotten) {
            old = from;
        }
        let in_force = self.roster.versions.iter().rposition(|v| v.from <= old).unwrap_or(0);
        self.roster.versions.drain(..in_force);
        self.roster.deputies.retain(|office| office.end > old);
        from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u128) -> NodeId {
        NodeId::from_u128(number)
    }

    /// A ring of four since slot 10, none of whom reads any more.
    fn row() -> TurnRow {
        let mut row = TurnRow::new(Period::DEFAULT);
        let ring = (1..=4).map(node).collect();
        row.roster = Roster { versions: vec![Version { from: Slot(10), ring }], deputies: vec![] };
        row
    }

    #[test]
    fn versions_that_are_published_in_one_slot_hold_one_after_the_other() {
        let mut row = row();
        for victim in 2..=4 {
            let change = Change::remove(&row, node(1), &[node(victim)], Slot(30)).unwrap();
            assert!(row.change(Slot(30), Some(node(1)), &change));
        }
        let starts: Vec<_> = row.roster.versions.iter().map(|version| version.from).collect();
        assert!(starts.is_sorted_by(|a, b| a < b), "{starts:?}");
        assert_eq!(row.roster.last().unwrap().ring, [node(1)]);
    }

    #[test]
    fn whose_turns_they_were_is_known_for_two_rounds() {
        let mut row = row();
        let first = Change::remove(&row, node(1), &[node(2)], Slot(20)).unwrap();
        assert!(row.change(Slot(20), Some(node(1)), &first));
        let before = row.roster.clone();
        let second = Change::remove(&row, node(1), &[node(3)], Slot(30)).unwrap();
        assert!(row.change(Slot(30), Some(node(1)), &second));
        for slot in (30 - 2 * 4..=30).map(Slot) {
            assert_eq!(row.roster.owner(slot), before.owner(slot), "{slot}");
        }
        // And no longer: a row does not grow.
        let third = Change::join(&row, node(5), Slot(1_000)).unwrap();
        assert!(row.change(Slot(1_000), Some(node(5)), &third));
        assert!(row.roster.versions.len() == 2 && row.roster.deputies.is_empty());
    }
}
