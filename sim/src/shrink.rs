//! Decides what of a failing scenario can be left out: faults, nodes, load, time and imperfections, as long
//! as the same invariant fails (delta debugging: Zeller and Hildebrandt, 2002).

use crate::oracle::Invariant;
use crate::scenario::{LocalClock, Retention, Scenario, Span};
use crate::tier::Tier;

/// Make a scenario smaller while `fails` says that it fails in the same way. Returns the smallest found, and
/// how many runs it took.
pub fn shrink(scenario: &Scenario, fails: &dyn Fn(&Scenario) -> bool) -> (Scenario, u32) {
    let mut best = scenario.clone();
    let mut runs = 0;
    loop {
        let before = best.clone();
        shrink_faults(&mut best, fails, &mut runs);
        for simpler in simpler(&best) {
            runs += 1;
            if simpler != best && simpler.check().is_ok() && fails(&simpler) {
                best = simpler;
            }
        }
        if best == before {
            return (best, runs);
        }
    }
}

/// The invariants that a run of the product violates in a tier. A scenario that does not fit violates nothing.
pub fn violated(tier: Tier, scenario: &Scenario) -> Vec<Invariant> {
    if tier.misfit(scenario).is_some() {
        return Vec::new();
    }
    let report = tier.run(scenario, false);
    let mut found: Vec<_> = report.violations.iter().map(|found| found.invariant).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Leave out ever smaller groups of faults.
fn shrink_faults(best: &mut Scenario, fails: &dyn Fn(&Scenario) -> bool, runs: &mut u32) {
    let mut group = best.faults.len();
    while group > 0 {
        let mut from = 0;
        while from < best.faults.len() {
            let mut smaller = best.clone();
            let to = (from + group).min(smaller.faults.len());
            smaller.faults.drain(from..to);
            *runs += 1;
            if fails(&smaller) {
                *best = smaller;
            } else {
                from += group;
            }
        }
        group /= 2;
    }
}

/// Scenarios with one thing less.
fn simpler(scenario: &Scenario) -> Vec<Scenario> {
    let mut all = Vec::new();
    let mut add = |change: &dyn Fn(&mut Scenario)| {
        let mut simpler = scenario.clone();
        change(&mut simpler);
        all.push(simpler);
    };
    add(&|s| s.load.every = Span::ZERO);
    add(&|s| s.load.fails_ppm = 0);
    add(&|s| s.retention = Retention::default());
    add(&|s| s.orders.keyed_ppm = 0);
    add(&|s| s.orders.cancelled_ppm = 0);
    add(&|s| s.orders.pauses_every = Span::ZERO);
    add(&|s| s.orders.schedules = 0);
    add(&|s| s.orders.asynchronous_ppm = 0);
    add(&|s| s.orders.batches_every = Span::ZERO);
    add(&|s| s.orders.concurrency = 0);
    add(&|s| s.orders.concurrency_per_key = 0);
    add(&|s| s.orders.slow_down = 0);
    add(&|s| s.orders.rate = 0);
    add(&|s| {
        // The last node, if no fault names it.
        let last = s.nodes.len() as u32 - 1;
        if last > 0 && s.faults.iter().all(|planned| planned.fault.node() != Some(last)) {
            s.nodes.pop();
        }
    });
    add(&|s| {
        for node in &mut s.nodes {
            let shows = node.clock.shows;
            node.clock = LocalClock { shows, ..LocalClock::default() };
        }
    });
    add(&|s| {
        for node in &mut s.nodes {
            for road in [&mut node.there, &mut node.back] {
                (road.tail_ppm, road.spike_ppm, road.loss_ppm, road.duplicate_ppm) = (0, 0, 0, 0);
            }
        }
    });
    add(&|s| {
        for node in &mut s.nodes {
            node.there.spread = Span::ZERO;
            node.back.spread = Span::ZERO;
        }
    });
    add(&|s| s.database.resolution = Span(1));
    // The end comes sooner. What would come after it is left out.
    for part in [2, 4, 10] {
        add(&|s| {
            let end = Span(s.duration.0 - s.duration.0 / part);
            s.duration = end;
            s.faults.retain(|planned| planned.at <= end);
        });
    }
    // Everything begins sooner.
    let first = scenario.faults.iter().map(|planned| planned.at.0).min().unwrap_or(0);
    let starts = scenario.nodes.iter().map(|node| node.start.0).max().unwrap_or(0);
    let spare = first.saturating_sub(starts) / 2;
    add(&|s| {
        for planned in &mut s.faults {
            planned.at.0 -= spare;
        }
        s.duration.0 -= spare.min(s.duration.0 / 2);
    });
    all
}
