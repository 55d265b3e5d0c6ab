//! Decides what the difference between two looks means: who came, went or was taken out, what was set, what was counted.
//! What became of the slots is told by `farm`.

use std::time::Duration;

use turnwise_engine::{Cadence, NodeId, Roster, Version};

use super::event::{Member, What};
use super::farm::Sight;
use super::names::Names;
use crate::rfc3339;
use crate::store::{Look, NodeView};

/// A difference between two clocks that is no step of either.
const STEP_MICROS: i64 = 100_000;

/// By how much the server's clock was set between two looks.
pub(super) fn clock(before: &Sight, after: &Sight) -> Option<What> {
    let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    let by_server = after.look.clock.nanos_from(before.look.clock) / 1_000;
    let by_us = by_server - micros(after.answered.saturating_sub(before.answered));
    let unsure = micros(before.took).saturating_add(micros(after.took)).saturating_add(STEP_MICROS);
    (by_us.saturating_abs() > unsure).then_some(What::ClockStepped { by_us })
}

/// How the newest ring differs from the newest of another roster; none when it is the same.
pub(super) fn ring(names: &Names, before: &Roster, after: &Sight) -> Option<What> {
    let row = &after.look.row;
    let now = row.roster.last()?;
    let old = before.last().map_or(&[][..], |version| &version.ring);
    if now.ring == old {
        return None;
    }
    let members = |nodes: &mut dyn Iterator<Item = NodeId>| -> Vec<Member> {
        nodes.map(|node| names.member(node)).collect()
    };
    let gone = || old.iter().copied().filter(|node| !now.ring.contains(node));
    // Who leaves takes its mark out of the row; who is taken out leaves it there until it lapses, or had lapsed.
    let has_left = |node: &NodeId| {
        let view = after.nodes.iter().find(|view| view.id == *node);
        let says_so = view.is_some_and(|view| view.state == "left");
        let has_mark = row.marks.contains_key(node);
        let was_here = view.is_some_and(|view| heard_of_lately(after, view));
        says_so || !has_mark && was_here
    };
    Some(What::Ring {
        epoch: row.epoch.0,
        from: now.from,
        ring: members(&mut now.ring.iter().copied()),
        joined: members(&mut now.ring.iter().copied().filter(|node| !old.contains(node))),
        left: members(&mut gone().filter(has_left)),
        removed: members(&mut gone().filter(|node| !has_left(node))),
    })
}

/// A ring of which nobody knows what was before: nobody joined, they are there.
pub(super) fn ring_that_holds(names: &Names, version: &Version, epoch: i64) -> What {
    let ring = version.ring.iter().map(|node| names.member(*node)).collect();
    What::Ring { epoch, from: version.from, ring, joined: vec![], left: vec![], removed: vec![] }
}

/// Whether the node has checked in within the last two periods.
fn heard_of_lately(sight: &Sight, view: &NodeView) -> bool {
    let Some(seen) = rfc3339::parse(&view.last_check_in) else { return false };
    let silence = sight.look.clock.nanos_from(seen);
    silence < 2 * sight.look.row.cadence.period.as_nanos()
}

/// What nodes do to their state, and who is new.
pub(super) fn nodes(before: &[NodeView], after: &[NodeView]) -> Vec<What> {
    let mut what = Vec::new();
    for node in after {
        let who = Member { node: node.id, name: node.name.clone() };
        let earlier = before.iter().find(|other| other.id == node.id);
        let Some(earlier) = earlier else {
            let again = before.iter().any(|other| other.name == node.name);
            what.push(What::Came { who, again });
            continue;
        };
        match (earlier.state.as_str(), node.state.as_str()) {
            (was, is) if was == is => {}
            (_, "lost") => what.push(What::Died { who }),
            (_, "left") => what.push(What::Left { who }),
            (_, "silent") => what.push(What::Silent { who }),
            ("silent", _) => what.push(What::Returned { who }),
            _ => {}
        }
    }
    what
}

/// The period that is to hold from a slot on.
pub(super) fn period(before: &Cadence, after: &Cadence) -> Option<What> {
    let next = after.next.filter(|next| before.next != Some(*next))?;
    Some(What::Period { period_ms: next.period.as_millis(), from: next.from })
}

/// What the turn row counts.
pub(super) fn counters(before: &Look, after: &Look) -> impl Iterator<Item = What> {
    let beats = after.refused - before.refused;
    let ends = after.stale_ends - before.stale_ends;
    let refused = (beats > 0).then_some(What::Refused { beats });
    refused.into_iter().chain((ends > 0).then_some(What::StaleEnds { ends }))
}
