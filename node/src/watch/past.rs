//! Decides what the first look tells of the time before it: the database keeps the beats of a while, the ring that holds
//! since a slot, and where nodes went. What it does not keep (when a node came, what the ring was before, a clock that was
//! set forward) is told only while somebody watches.

use turnwise_engine::{Cadence, ServerInstant, Slot};

use super::changes;
use super::event::{Event, Weight, What};
use super::farm::Sight;
use super::names::Names;
use super::slots::SLOTS_KEPT;
use crate::rfc3339;
use crate::store::{BeatView, NodeView};

/// What happened lately by what the first look shows, oldest first; `judged` is what became of the slots.
pub(super) fn news(names: &Names, sight: &Sight, judged: Vec<What>) -> Vec<Event> {
    let cadence = &sight.look.row.cadence;
    let now = sight.look.clock;
    let mut told: Vec<(ServerInstant, What)> = Vec::new();
    told.extend(judged.into_iter().filter_map(|what| Some((of_slot(&what, cadence)?, what))));
    told.extend(sight.nodes.iter().filter_map(|node| gone(names, node, now)));
    told.extend(ring(names, sight));
    told.extend(steps_back(&sight.beats, cadence));
    let since = now.offset(-SLOTS_KEPT.saturating_mul(cadence.period.as_nanos()));
    told.retain(|(at, what)| *at > since && *at <= now && what.weight() > Weight::Routine);
    told.sort_by_key(|(at, _)| *at);
    let event = |(at, what)| Event { at: Some(rfc3339::format(at)), what };
    told.into_iter().map(event).collect()
}

fn of_slot(what: &What, cadence: &Cadence) -> Option<ServerInstant> {
    match what {
        What::Beat { arrived_at, .. } => rfc3339::parse(arrived_at),
        What::Missed { slot, .. } => Some(cadence.boundary(*slot)),
        What::Gap { from, slots } => Some(cadence.boundary(*from + (*slots - 1))),
        _ => None,
    }
}

/// A node that takes no turns any more, and since when: by its lease where it said nothing itself.
fn gone(names: &Names, node: &NodeView, now: ServerInstant) -> Option<(ServerInstant, What)> {
    let who = names.member(node.id);
    let lease_end = node.lease_until.min(now);
    match node.state.as_str() {
        "lost" => Some((lease_end, What::Died { who })),
        "silent" => Some((lease_end, What::Silent { who })),
        "left" => Some((rfc3339::parse(&node.last_check_in)?, What::Left { who })),
        _ => None,
    }
}

/// The ring that holds, since its slot.
fn ring(names: &Names, sight: &Sight) -> Option<(ServerInstant, What)> {
    let row = &sight.look.row;
    let version = row.roster.version_at(row.high)?;
    let at = row.cadence.boundary(version.from);
    Some((at, changes::ring_that_holds(names, version, row.epoch.0)))
}

/// Where a beat arrived before the one of an earlier slot, the clock was set back between them.
fn steps_back(beats: &[BeatView], cadence: &Cadence) -> Vec<(ServerInstant, What)> {
    let step = |pair: &[BeatView]| {
        let [before, after] = pair else { return None };
        let passed = after.arrived_at.nanos_from(before.arrived_at);
        let due = (after.slot - before.slot).saturating_mul(period_nanos(cadence, after.slot));
        let by_us = passed.saturating_sub(due) / 1_000;
        (passed < 0).then_some((after.arrived_at, What::ClockStepped { by_us }))
    };
    beats.windows(2).filter_map(step).collect()
}

fn period_nanos(cadence: &Cadence, slot: Slot) -> i64 {
    cadence.period_at(slot).as_nanos()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use turnwise_engine::{NodeId, Period, TurnRow, Version};

    use super::*;
    use crate::store::Look;
    use crate::watch::Farm;

    const A: NodeId = NodeId::from_u128(0xa);
    const B: NodeId = NodeId::from_u128(0xb);

    fn at(ms: i64) -> ServerInstant {
        ServerInstant::from_micros(ms * 1_000)
    }

    fn node(id: NodeId, name: &str, state: &str, seen_ms: i64) -> NodeView {
        NodeView {
            state: state.to_owned(),
            last_check_in: rfc3339::format(at(seen_ms)),
            lease_until: at(seen_ms + 2_500),
            ..NodeView::of_a_test(id, name)
        }
    }

    /// What the first look tells: times in milliseconds of the server's clock, slots of a second.
    fn first_look(nodes: Vec<NodeView>, beats: &[(i64, NodeId, i64)]) -> Vec<String> {
        let mut row = TurnRow::new(Period::DEFAULT);
        row.roster.versions.push(Version { from: Slot(995), ring: vec![A] });
        (row.slot, row.high) = (Slot(1_000), Slot(1_000));
        let beats = beats.iter().map(|&(slot, node, ms)| BeatView {
            slot: Slot(slot),
            node,
            arrived_at: at(ms),
            claimed: 0,
        });
        let sight = Sight {
            look: Look { row, clock: at(1_000_100), refused: 0, stale_ends: 0 },
            beats: beats.collect(),
            nodes,
            answered: Duration::ZERO,
            took: Duration::ZERO,
        };
        let (farm, _) = Farm::begin(&sight);
        let words = |event: &Event| {
            let time = event.at.as_deref().and_then(|at| at.get(11..21)).unwrap_or_default();
            format!("{time} {}", event.what.words())
        };
        farm.news().map(words).collect()
    }

    #[test]
    fn what_happened_before_somebody_watched_is_told_where_the_database_keeps_it() {
        let nodes = vec![
            node(A, "a", "live", 1_000_000),
            node(B, "b", "lost", 990_000),
            node(NodeId::from_u128(0xc), "c", "left", 991_000),
            node(NodeId::from_u128(0xd), "d", "left", 100_000),
        ];
        let beats = [(994, A, 994_000), (996, A, 996_000), (997, A, 997_000), (998, A, 998_000)];
        assert_eq!(
            first_look(nodes, &beats),
            [
                "00:16:31.0 c left in good order",
                "00:16:32.5 b was declared lost: its jobs run again elsewhere",
                "00:16:35.0 slot 995 was missed: it was a's",
                "00:16:35.0 the ring is a",
                "00:16:39.0 slot 999 was missed: it was a's",
            ],
            "what was long ago is not"
        );
    }

    #[test]
    fn a_clock_that_was_set_back_is_seen_in_the_beats() {
        let nodes = vec![node(A, "a", "live", 1_000_000)];
        let beats = [(998, A, 1_008_000), (999, A, 999_000), (1_000, A, 1_000_000)];
        let told = first_look(nodes, &beats);
        assert!(
            told.contains(&"00:16:39.0 the server's clock was set back by 10.0 s".to_owned()),
            "{told:?}"
        );
    }
}
