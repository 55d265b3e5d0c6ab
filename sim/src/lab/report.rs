//! Decides what a run amounts to: slots missed, arrivals beyond the first of a slot, gaps, turns.

use std::collections::BTreeMap;

use turnwise_engine::{NodeId, Period, Reason, Slot, TurnRow};

use super::Fault;

/// A beat that reached the database.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// True time since the start, in nanoseconds.
    pub at: u64,
    /// The slot that it fell into.
    pub slot: Slot,
    /// The slot that it was meant for.
    pub believed: Slot,
    /// Who sent it.
    pub node: NodeId,
    /// Whether the fence let it in.
    pub accepted: bool,
    /// Whether the row gives the slot to this node.
    pub in_turn: bool,
    /// Arrival minus boundary, in nanoseconds.
    pub error: i64,
}

/// What happened in a run.
#[derive(Clone, Debug)]
pub struct Report {
    period: Period,
    /// Every beat that reached the database, in order.
    pub arrivals: Vec<Arrival>,
    /// Statements on the turn row.
    pub statements: u64,
    /// When each fault happened.
    pub faults: Vec<(u64, Fault)>,
    /// When nodes came up.
    pub joined: Vec<(u64, NodeId)>,
    /// When nodes had left.
    pub left: Vec<(u64, NodeId)>,
    /// The row at the end.
    pub row: Option<TurnRow>,
    /// When the run ended.
    pub ended: u64,
    same_instant: BTreeMap<u32, (u64, Option<Reason>)>,
}

impl Report {
    pub(super) fn new(period: Period) -> Self {
        Self {
            period,
            arrivals: Vec::new(),
            statements: 0,
            faults: Vec::new(),
            joined: Vec::new(),
            left: Vec::new(),
            row: None,
            ended: 0,
            same_instant: BTreeMap::new(),
        }
    }

    pub(super) fn beat(&mut self, arrival: Arrival) {
        self.arrivals.push(arrival);
    }

    pub(super) fn sent(&mut self) {
        self.statements += 1;
    }

    pub(super) fn fault(&mut self, at: u64, fault: Fault) {
        self.faults.push((at, fault));
    }

    pub(super) fn joined(&mut self, at: u64, node: NodeId) {
        self.joined.push((at, node));
    }

    pub(super) fn left(&mut self, at: u64, node: NodeId) {
        self.left.push((at, node));
    }

    pub(super) fn end(&mut self, at: u64, row: TurnRow) {
        self.ended = at;
        self.row = Some(row);
    }

    /// Invariant 10: no timer is armed for ever at the same instant.
    pub(super) fn timer(&mut self, node: u32, at_once: bool, reason: Reason) {
        let entry = self.same_instant.entry(node).or_insert((0, None));
        *entry = if at_once { (entry.0 + 1, Some(reason)) } else { (0, None) };
        assert!(entry.0 < 100, "node {node} arms a timer for the same instant for ever: {reason}");
    }

    /// The accepted beats.
    pub fn accepted(&self) -> impl Iterator<Item = &Arrival> {
        self.arrivals.iter().filter(|arrival| arrival.accepted)
    }

    /// Slots in `[from, until)` of true time without an accepted beat, between the first and the last
    /// accepted beat there. Steps of the server's clock skip numbers: leave them out of the window.
    pub fn missed(&self, from: u64, until: u64) -> u64 {
        let mut last: Option<Slot> = None;
        let mut missed = 0;
        for beat in self.accepted().filter(|beat| (from..until).contains(&beat.at)) {
            if let Some(last) = last {
                missed += (beat.slot - last - 1).unsigned_abs();
            }
            last = Some(beat.slot);
        }
        missed
    }

    /// Beats that reached the database in `[from, until)` for a slot beyond its first.
    pub fn doubled(&self, from: u64, until: u64) -> usize {
        self.arrivals
            .iter()
            .filter(|arrival| !arrival.accepted && (from..until).contains(&arrival.at))
            .count()
    }

    /// The longest time between accepted beats in `[from, until)`, ends included, in nanoseconds.
    pub fn longest_gap(&self, from: u64, until: u64) -> u64 {
        let mut last = from;
        let mut longest = 0;
        for beat in self.accepted().filter(|beat| (from..until).contains(&beat.at)) {
            longest = longest.max(beat.at - last);
            last = beat.at;
        }
        longest.max(until - last)
    }

    /// The first thing in `[from, until)` that a calm farm does not do, in words: a slot without a beat, a
    /// second beat in a slot, a beat out of turn or outside its slot.
    pub fn disorder(&self, from: u64, until: u64) -> Option<String> {
        let mut last: Option<Slot> = None;
        let period = self.period.as_nanos();
        for arrival in self.arrivals.iter().filter(|a| (from..until).contains(&a.at)) {
            let wrong = if !arrival.accepted {
                Some("was refused")
            } else if arrival.slot != arrival.believed {
                Some("fell into another slot")
            } else if !arrival.in_turn {
                Some("was out of turn")
            } else if arrival.error.abs() > period / 2 {
                Some("was outside its slot")
            } else if last.is_some_and(|last| arrival.slot != last + 1) {
                Some("came after a missed slot")
            } else {
                None
            };
            if let Some(wrong) = wrong {
                return Some(format!("{arrival:?} {wrong} (the last was {last:?})"));
            }
            last = Some(arrival.slot);
        }
        if last.is_none() && until - from > 3 * period.unsigned_abs() {
            return Some("no beat at all".to_owned());
        }
        None
    }
}
