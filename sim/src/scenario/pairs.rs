//! Decides which misfortunes come together, the second making the first worse, in the scenarios that have nothing else.

use super::{Fault, Planned, Scenario, Span};
use crate::random::Stream;

/// One run of twelve has two misfortunes of which the second makes the first worse, and nothing else: whoever stands in for
/// the dead dies, or leaves; whoever removed a living node dies; all die, and one comes back; the removal of one that died, or
/// that only stood still, is long on its way.
pub(super) fn one_after_the_other(scenario: &mut Scenario) {
    // A stream of its own: what other seeds draw stays as it is.
    let mut random = Stream::new(scenario.seed, "swarm pairs");
    if random.below(12) > 0 {
        return;
    }
    let unit = scenario.period.as_nanos() as u64;
    let kind = if scenario.nodes.len() < 2 { 4 } else { random.below(7) };
    if kind == 3 {
        scenario.nodes.truncate(2);
    }
    let count = scenario.nodes.len() as u64;
    for node in &mut scenario.nodes {
        node.start.0 %= 2 * unit;
    }
    let (one, other) = (random.below(count), random.below(count));
    let other = if one == other { (one + 1) % count } else { other };
    let (one, other) = (one as u32, other as u32);
    let at = Span(40 * unit + random.below(20 * unit));
    let soon = |periods: u64, random: &mut Stream| Span(at.0 + random.below(periods * unit));
    let standstill = |random: &mut Stream| Span(unit / 2 + random.below(3 * unit));
    let rest = (0..count as u32).filter(|node| *node != one);
    let faults: Vec<_> = match kind {
        0 => {
            let dies = soon(count + 4, &mut random);
            vec![(at, Fault::Kill { node: one }), (dies, Fault::Kill { node: other })]
        }
        1 => {
            let dies = soon(4, &mut random);
            vec![(at, Fault::Drain { node: one }), (dies, Fault::Kill { node: other })]
        }
        2 => {
            let leaves = soon(4, &mut random);
            vec![(at, Fault::Kill { node: one }), (leaves, Fault::Drain { node: other })]
        }
        3 => {
            // Long enough to miss a turn, and the remover dies when it may have removed the other.
            let lasts = Span(standstill(&mut random).0 + unit);
            let dies = Span(soon(6, &mut random).0 + unit);
            vec![(at, Fault::Pause { node: one, lasts }), (dies, Fault::Kill { node: other })]
        }
        4 => {
            let after = Span(random.below((2 * count + 4) * unit));
            let returns = (at, Fault::Restart { node: one, after });
            rest.map(|node| (at, Fault::Kill { node })).chain([returns]).collect()
        }
        _ => {
            let lasts = standstill(&mut random);
            let removed = match kind {
                5 => Fault::Kill { node: one },
                _ => Fault::Pause { node: one, lasts },
            };
            // Whoever finds it missing.
            let held = rest.map(|node| {
                let lasts = Span(random.below(6 * unit));
                (at, Fault::HoldChange { node, lasts })
            });
            held.chain([(at, removed)]).collect()
        }
    };
    scenario.faults = faults.into_iter().map(|(at, fault)| Planned { at, fault }).collect();
}
