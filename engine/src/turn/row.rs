//! Decides what a statement does to the turn row once it holds the row's lock: the slot that it falls
//! into, whether a beat is accepted, whether a change commits.

use alloc::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::change::Change;
use super::roster::{Roster, Version};
use crate::cadence::Cadence;
use crate::sabotage::{Bug, Sabotage, Sound};
use crate::units::{Epoch, NodeId, Period, ServerInstant, Slot};

/// The one row on which the nodes take turns.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TurnRow {
    /// The number of the roster's content.
    pub epoch: Epoch,
    /// The highest slot that any statement was stamped with.
    pub high: Slot,
    /// The slot of the last accepted beat.
    pub slot: Slot,
    /// The slot of the accepted beat before that.
    pub previous: Slot,
    /// How slots lie on server time.
    pub cadence: Cadence,
    /// Who takes turns.
    pub roster: Roster,
    /// When each node read the row, and how long that may license it.
    pub marks: BTreeMap<NodeId, Mark>,
}

/// What a node's last read of the row left in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "(Slot, Slot)", into = "(Slot, Slot)")]
pub struct Mark {
    /// The slot of the read.
    pub read: Slot,
    /// The last slot that the read may license.
    pub until: Slot,
}

impl From<(Slot, Slot)> for Mark {
    fn from((read, until): (Slot, Slot)) -> Self {
        Self { read, until }
    }
}

impl From<Mark> for (Slot, Slot) {
    fn from(mark: Mark) -> Self {
        (mark.read, mark.until)
    }
}

impl TurnRow {
    /// The row of a new database: slot 0, nobody in it.
    pub fn new(period: Period) -> Self {
        Self {
            epoch: Epoch(0),
            high: Slot(0),
            slot: Slot(0),
            previous: Slot(0),
            cadence: Cadence::new(period),
            roster: Roster::default(),
            marks: BTreeMap::new(),
        }
    }

    /// What every statement does first, with the row locked: find its slot, never behind any other
    /// statement's, and note that its sender has read the row.
    ///
    /// `clock` is the server's clock, read after the lock was got. `sender` is none for a statement that
    /// comes from no node (the command line). `believed` is the slot that the sender takes it to be, which
    /// counts only when the server's clock was set back.
    pub fn stamp(
        &mut self,
        clock: ServerInstant,
        sender: Option<NodeId>,
        believed: Option<Slot>,
    ) -> Slot {
        self.stamp_with::<Sound>(clock, sender, believed)
    }

    /// [`TurnRow::stamp`] with a bug that a simulation plants.
    #[doc(hidden)]
    pub fn stamp_with<S: Sabotage>(
        &mut self,
        clock: ServerInstant,
        sender: Option<NodeId>,
        believed: Option<Slot>,
    ) -> Slot {
        let mut now = self.cadence.slot_at(clock);
        self.cadence = self.cadence.settled_at(now);
        if now + 1 < self.high && !S::plants(Bug::SlotsGoBack) {
            let grace = self.roster.last().map_or(2, Version::grace);
            let latest = match self.cadence.next {
                Some(next) => (self.high + grace).min(next.from - 1),
                None => self.high + grace,
            };
            now = believed.unwrap_or(self.high).min(latest).max(self.high);
            self.cadence = self.cadence.rebased(now, clock);
        }
        if !S::plants(Bug::SlotsGoBack) {
            now = now.max(self.high);
        }
        self.high = now;
        if let Some(node) = sender {
            let until = match S::plants(Bug::MarksEndEarly) {
                true => now,
                false => now + self.roster.grace_from(now) - 1,
            };
            self.marks.insert(node, Mark { read: now, until });
        }
        now
    }

    /// The fence: accept the beat that was stamped with `now`, unless its slot has had one.
    pub fn beat(&mut self, now: Slot) -> bool {
        self.beat_with::<Sound>(now)
    }

    /// [`TurnRow::beat`] with a bug that a simulation plants.
    #[doc(hidden)]
    pub fn beat_with<S: Sabotage>(&mut self, now: Slot) -> bool {
        if self.slot >= now && !(S::plants(Bug::FenceLetsSecondIn) && self.slot == now) {
            return false;
        }
        self.previous = self.slot;
        self.slot = now;
        true
    }

    /// Commit a change that was stamped with `now`, if nothing that it was computed from has moved.
    /// `sender` is none for a statement that comes from no node.
    pub fn change(&mut self, now: Slot, sender: Option<NodeId>, change: &Change) -> bool {
        self.change_with::<Sound>(now, sender, change)
    }

    /// [`TurnRow::change`] with a bug that a simulation plants.
    #[doc(hidden)]
    pub fn change_with<S: Sabotage>(
        &mut self,
        now: Slot,
        sender: Option<NodeId>,
        change: &Change,
    ) -> bool {
        let reads_as_seen = change
            .victims
            .iter()
            .all(|(node, read)| self.marks.get(node).map(|mark| mark.read) == *read);
        let holds = (self.epoch == change.epoch || S::plants(Bug::ChangeIgnoresEpoch))
            && (now <= change.latest || S::plants(Bug::ChangeIgnoresSlot))
            && (reads_as_seen || S::plants(Bug::RemovalIgnoresReads))
            && (!change.takeover
                || self.all_lapsed(now, sender)
                || S::plants(Bug::TakeoverIgnoresOthers));
        if !holds {
            return false;
        }
        self.epoch = Epoch(self.epoch.0 + 1);
        self.roster = change.roster.clone();
        // A change of the period that has been made since this was computed is not pending any more.
        self.cadence.next = change.next_period.filter(|next| now < next.from);
        if change.forgets_sender
            && let Some(node) = sender
        {
            self.marks.remove(&node);
        }
        let roster = &self.roster;
        self.marks.retain(|node, mark| mark.until >= now || roster.nodes().any(|n| n == *node));
        true
    }

    /// Whether no node but `except` can act any more on what it read, as of `now`.
    pub fn all_lapsed(&self, now: Slot, except: Option<NodeId>) -> bool {
        self.roster
            .nodes()
            .filter(|node| Some(*node) != except)
            .all(|node| self.marks.get(&node).is_none_or(|mark| mark.until < now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> ServerInstant {
        ServerInstant::from_nanos(millis * 1_000_000)
    }

    const A: NodeId = NodeId::from_u128(0xa);

    #[test]
    fn what_a_later_version_adds_is_read_over_but_not_kept_and_a_mark_takes_no_addition() {
        let mut row = TurnRow::new(Period::DEFAULT);
        let slot = row.stamp(at(10_000), Some(A), None);
        assert!(row.change(slot, Some(A), &Change::join(&row, A, slot).unwrap()));
        let json = serde_json::to_value(&row).unwrap();
        let mut later = json.clone();
        later["zone"] = "north".into();
        later["roster"]["deputing"] = true.into();
        later["roster"]["versions"][0]["weights"] = alloc::vec![1].into();
        assert_ne!(later, json);
        let read: TurnRow = serde_json::from_value(later.clone()).unwrap();
        assert_eq!(
            serde_json::to_value(read).unwrap(),
            json,
            "written back as this version knows it"
        );
        let mark = later["marks"].as_object_mut().unwrap().values_mut().next().unwrap();
        mark.as_array_mut().unwrap().push(7.into());
        assert!(serde_json::from_value::<TurnRow>(later).is_err());
    }

    #[test]
    fn a_slot_has_one_beat_and_numbers_never_go_back() {
        let mut row = TurnRow::new(Period::DEFAULT);
        let slot = row.stamp(at(10_000), Some(A), None);
        assert!(row.beat(slot));
        assert!(!row.beat(slot));
        let again = row.stamp(at(2_000), Some(A), Some(slot + 1));
        assert_eq!(again, slot + 1, "set back by eight slots, the sender's belief counts");
        assert_eq!(
            row.stamp(at(3_000), Some(A), None),
            slot + 2,
            "and the numbers go on from there"
        );
    }

    #[test]
    fn a_change_that_was_computed_before_the_period_changed_does_not_change_it_again() {
        let mut row = TurnRow::new(Period::DEFAULT);
        let slot = row.stamp(at(10_000), None, None);
        let fast = Period::from_millis(500).unwrap();
        let change = Change::period(&row, fast, slot).unwrap();
        assert!(row.change(slot, None, &change));
        let from = row.cadence.next.unwrap().from;
        // Computed for the very slot in which the new period begins.
        let join = Change::join(&row, A, from).unwrap();
        let now = row.stamp(at(1_000 * from.0), Some(A), None);
        assert_eq!((now, row.cadence.next), (from, None));
        assert!(row.change(now, Some(A), &join));
        assert_eq!(row.cadence.next, None);
        row.stamp(at(0), Some(A), None);
    }

    #[test]
    fn a_clock_that_was_set_back_moves_the_slot_by_no_more_than_anyone_can_believe() {
        let mut row = TurnRow::new(Period::DEFAULT);
        let slot = row.stamp(at(10_000), Some(A), None);
        assert_eq!(row.stamp(at(9_000), Some(A), Some(slot)), slot, "by one slot");
        assert!(row.change(slot, Some(A), &Change::join(&row, A, slot).unwrap()));
        let mut wild = row.clone();
        let latest = slot + Version { from: slot, ring: alloc::vec![A] }.grace();
        assert_eq!(wild.stamp(at(1_000), Some(A), Some(slot + 1_000)), latest);
        // Not beyond a new period either: its boundaries would be others.
        let fast = Period::from_millis(500).unwrap();
        assert!(row.change(slot, None, &Change::period(&row, fast, slot).unwrap()));
        let from = row.cadence.next.unwrap().from;
        assert_eq!(row.stamp(at(1_000), Some(A), Some(slot + 1_000)), from - 1);
    }

    #[test]
    fn everybody_has_lapsed_when_the_last_licence_is_over() {
        let mut row = TurnRow::new(Period::DEFAULT);
        let slot = row.stamp(at(10_000), Some(A), None);
        assert!(row.change(slot, Some(A), &Change::join(&row, A, slot).unwrap()));
        let until = row.marks[&A].until;
        assert!(!row.all_lapsed(until, None), "it may still act");
        assert!(row.all_lapsed(until + 1, None) && row.all_lapsed(until + 9, None));
        assert!(row.all_lapsed(slot, Some(A)), "there is nobody else");
        row.marks.clear();
        assert!(row.all_lapsed(slot, None), "who never read may not act");
    }
}
