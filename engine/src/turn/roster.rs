//! Decides whose turn a slot is, from the versions of the ring and the deputies.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::units::{NodeId, Slot};

/// The ring from a slot on, until the next version's first slot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// The first slot that it holds for.
    pub from: Slot,
    /// The nodes in the order of their turns; the first owns `from`. May be empty.
    pub ring: Vec<NodeId>,
}

impl Version {
    /// `G`: how many slots after its commit a change of this version takes effect, and for how many
    /// slots a read licenses a turn. Two more than the ring is long.
    pub fn grace(&self) -> i64 {
        self.ring.len() as i64 + 2
    }

    fn owner(&self, slot: Slot) -> Option<NodeId> {
        let len = self.ring.len() as i64;
        let index = (slot - self.from).checked_rem_euclid(len)?;
        self.ring.get(index as usize).copied()
    }
}

/// A node that takes another's turns for a while, since that one died or left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Deputy {
    /// Whose turns.
    pub of: NodeId,
    /// Who takes them.
    pub deputy: NodeId,
    /// The first slot of the office.
    pub from: Slot,
    /// The slot before which the office ends.
    pub end: Slot,
}

/// The versions of the ring, oldest first, and the deputies, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Roster {
    /// Versions with strictly growing `from`.
    pub versions: Vec<Version>,
    /// Deputies in the order in which they were named; the newest counts.
    pub deputies: Vec<Deputy>,
}

impl Roster {
    /// The version in force at `slot`.
    pub fn version_at(&self, slot: Slot) -> Option<&Version> {
        self.versions.iter().rev().find(|version| version.from <= slot)
    }

    /// The newest version, in force or pending.
    pub fn last(&self) -> Option<&Version> {
        self.versions.last()
    }

    /// Whether `node` is in the newest version.
    pub fn is_member(&self, node: NodeId) -> bool {
        self.last().is_some_and(|version| version.ring.contains(&node))
    }

    /// Whose turn `slot` is by the ring alone, deputies left out.
    pub fn ring_owner(&self, slot: Slot) -> Option<NodeId> {
        self.version_at(slot)?.owner(slot)
    }

    /// Whose turn `slot` is: the ring's owner, or whoever stands in for it.
    pub fn owner(&self, slot: Slot) -> Option<NodeId> {
        let mut owner = self.ring_owner(slot)?;
        // A chain of offices is no longer than their number; the bound stops a circle.
        for _ in 0..self.deputies.len() {
            let office = self
                .deputies
                .iter()
                .rev()
                .find(|d| d.of == owner && d.from <= slot && slot < d.end);
            let Some(office) = office else { break };
            owner = office.deputy;
        }
        Some(owner)
    }

    /// The first slot after `after` that is `node`'s, by the ring or as a deputy. None when the roster
    /// gives it no further turn.
    pub fn next_turn(&self, node: NodeId, after: Slot) -> Option<Slot> {
        self.first_after(after, |slot| self.owner(slot) == Some(node))
    }

    /// The first slot after `after` that the ring gives to `node`, deputies left out.
    pub fn next_ring_turn(&self, node: NodeId, after: Slot) -> Option<Slot> {
        self.first_after(after, |slot| self.ring_owner(slot) == Some(node))
    }

    /// The largest `G` of the versions that are in force at `slot` or pending. 2 without a version.
    pub fn grace_from(&self, slot: Slot) -> i64 {
        let in_force = self.versions.iter().rposition(|v| v.from <= slot).unwrap_or(0);
        self.versions.iter().skip(in_force).map(Version::grace).max().unwrap_or(2)
    }

    /// The length of the largest ring in force somewhere in `(after, until]`.
    pub fn largest_ring(&self, after: Slot, until: Slot) -> i64 {
        let first = self.versions.iter().rposition(|v| v.from <= after + 1).unwrap_or(0);
        self.versions
            .iter()
            .skip(first)
            .take_while(|version| version.from <= until)
            .map(|version| version.ring.len() as i64)
            .max()
            .unwrap_or(0)
    }

    /// All nodes of any retained version, and all that hold or held an office.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        let rings = self.versions.iter().flat_map(|version| version.ring.iter().copied());
        rings.chain(self.deputies.iter().map(|office| office.deputy))
    }

    fn first_after(&self, after: Slot, found: impl Fn(Slot) -> bool) -> Option<Slot> {
        let last = self.last()?;
        // Beyond this the last version alone repeats itself: every office ends where a version begins.
        let horizon = (after + 1).max(last.from) + last.ring.len() as i64;
        let mut slot = after + 1;
        while slot < horizon {
            if found(slot) {
                return Some(slot);
            }
            slot = slot + 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId::from_u128(0xa);
    const B: NodeId = NodeId::from_u128(0xb);
    const C: NodeId = NodeId::from_u128(0xc);

    fn roster() -> Roster {
        Roster {
            versions: alloc::vec![
                Version { from: Slot(10), ring: alloc::vec![A, B, C] },
                Version { from: Slot(20), ring: alloc::vec![C, A] },
            ],
            deputies: alloc::vec![Deputy { of: B, deputy: A, from: Slot(13), end: Slot(20) }],
        }
    }

    #[test]
    fn turns_go_round_and_a_deputy_stands_in() {
        let owners: Vec<_> = (10..24).map(|s| roster().owner(Slot(s)).unwrap()).collect();
        assert_eq!(owners, [A, B, C, A, A, C, A, A, C, A, C, A, C, A]);
        assert_eq!(roster().owner(Slot(9)), None);
    }

    #[test]
    fn the_next_turn_may_be_an_office() {
        assert_eq!(roster().next_turn(A, Slot(13)), Some(Slot(14)));
        assert_eq!(roster().next_ring_turn(A, Slot(13)), Some(Slot(16)));
        assert_eq!(roster().next_turn(B, Slot(11)), None);
        assert_eq!(roster().next_turn(C, Slot(18)), Some(Slot(20)));
    }

    #[test]
    fn a_circle_of_offices_ends() {
        let mut circle = roster();
        circle.deputies.push(Deputy { of: A, deputy: B, from: Slot(13), end: Slot(20) });
        assert!(circle.owner(Slot(14)).is_some());
    }

    #[test]
    fn grace_looks_at_what_is_in_force_and_pending() {
        assert_eq!(roster().grace_from(Slot(12)), 5);
        assert_eq!(roster().grace_from(Slot(20)), 4);
        assert_eq!(roster().largest_ring(Slot(18), Slot(21)), 3);
        assert_eq!(roster().largest_ring(Slot(19), Slot(21)), 2);
    }
}
