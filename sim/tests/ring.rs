//! The bounds of the turn protocol, shown on the engine itself: what each event may cost in slots without a
//! beat and in beats that the fence refuses, and that the ring is whole again soon after. The judge of the lab
//! holds every run against the table; these tests make sure that each row of it is judged.

#![allow(clippy::unwrap_used)]

use turnwise_engine::Period;
use turnwise_sim::lab::{NEVER_REACHES, run};
use turnwise_sim::oracle::Mark;
use turnwise_sim::random::Stream;
use turnwise_sim::report::Report;
use turnwise_sim::scenario::{Fault, LocalClock, Node, Planned, Road, Scenario, Shift, Span};

const HOUR: i64 = 3_600_000_000_000;
/// By then any farm of these tests has long settled.
const SETTLED: u64 = 40_000_000_000;

/// A calm farm of nodes on roads of 1 to 80 ms, with clocks of their own.
fn farm(nodes: u32, seed: u64) -> Scenario {
    let mut draw = Stream::new(seed, "farm");
    let mut road = || Road {
        base: Span(1_000_000 + draw.below(79_000_000)),
        spread: Span(500_000),
        ..Road::default()
    };
    let nodes = (0..nodes).map(|number| Node {
        start: Span(u64::from(number) * 170_000_000 % 1_000_000_000),
        there: road(),
        back: road(),
        clock: LocalClock {
            shows: Span(u64::from(number + 1) * 777_777_777_777),
            drift_ppb: (i64::from(number) * 37_000 + seed as i64 * 11_000) % 50_000,
            ..LocalClock::default()
        },
        ..Node::default()
    });
    Scenario { nodes: nodes.collect(), ..Scenario::calm(seed, 0, Span::from_secs(120)) }
}

/// Faults at 40 s and a bit.
fn with(nodes: u32, seed: u64, faults: &[(f64, Fault)]) -> Scenario {
    let faults = faults
        .iter()
        .map(|(at, fault)| Planned { at: Span(SETTLED + (at * 1e9) as u64), fault: *fault });
    Scenario { faults: faults.collect(), ..farm(nodes, seed) }
}

/// Run it; nothing may be found.
fn sound(what: &str, scenario: &Scenario) -> Report {
    let report = run(scenario);
    let found = &report.violations;
    let (nodes, seed) = (scenario.nodes.len(), scenario.seed);
    assert!(
        found.is_empty(),
        "{what}, {nodes} nodes, seed {seed}: {found:#?}\n{:?}",
        scenario.faults
    );
    report
}

/// Run it; its fault must have been judged by its row of the table.
fn judged(what: &str, scenario: &Scenario) -> Report {
    let calm = run(&Scenario { faults: Vec::new(), ..scenario.clone() });
    let report = sound(what, scenario);
    let alone = report.marks.count(Mark::JudgedAlone) - calm.marks.count(Mark::JudgedAlone);
    assert!(alone >= 1, "{what}, seed {}: it was not judged", scenario.seed);
    report
}

#[test]
fn a_calm_farm_polls_once_a_slot_in_strict_alternation() {
    for nodes in 1..=8 {
        for seed in 0..20 {
            let report = sound("calm", &farm(nodes, seed));
            assert_eq!((report.missed, report.doubled), (0, 0));
            assert!(report.max_gap < 1_050_000_000, "{}", report.max_gap);
        }
    }
}

#[test]
fn an_idle_farm_sends_one_statement_a_period_whatever_its_size() {
    for nodes in [1, 3, 8, 20] {
        let short = run(&farm(nodes, 1)).statements;
        let long = Scenario { duration: Span::from_secs(1_120), ..farm(nodes, 1) };
        assert_eq!(run(&long).statements - short, 1_000, "{nodes} nodes");
    }
}

#[test]
fn joining_and_leaving_cost_nothing() {
    for nodes in 1..=6 {
        for seed in 0..30 {
            let at = seed as f64 / 30.0;
            let mut join = farm(nodes + 1, seed);
            join.nodes[nodes as usize].start = Span(SETTLED + (at * 1e9) as u64);
            let report = sound("join", &join);
            assert_eq!((report.missed, report.doubled), (0, 0));
            if nodes > 1 {
                let node = seed as u32 % nodes;
                let report = judged("leave", &with(nodes, seed, &[(at, Fault::Drain { node })]));
                assert_eq!((report.missed, report.doubled), (0, 0));
                assert_eq!(report.row.roster.last().unwrap().ring.len() as u32, nodes - 1);
            }
        }
    }
}

#[test]
fn a_new_version_is_rolled_out_without_a_slot_missed() {
    for nodes in 2..=7 {
        for seed in 0..30 {
            // From all nearly at once to one after the other.
            let lasts = Span::from_secs(2 * seed);
            let report = sound("deploy", &with(nodes, seed, &[(0.3, Fault::Deploy { lasts })]));
            assert_eq!((report.missed, report.doubled), (0, 0), "{nodes} nodes, seed {seed}");
            // Those who were there left, and as many came.
            assert_eq!(report.marks.count(Mark::Left), u64::from(nodes));
            assert_eq!(report.row.roster.last().unwrap().ring.len() as u32, nodes);
        }
    }
}

#[test]
fn a_crash_costs_one_slot_and_its_gap_is_two_periods() {
    for nodes in 2..=7 {
        for seed in 0..60 {
            let crash = (seed as f64 / 20.0, Fault::Kill { node: seed as u32 % nodes });
            judged("crash", &with(nodes, seed, &[crash]));
        }
    }
}

#[test]
fn crashes_at_once_cost_a_slot_each() {
    for nodes in 3..=7 {
        for seed in 0..30 {
            let at = seed as f64 / 10.0;
            let crashes = [(at, Fault::Kill { node: 0 }), (at, Fault::Kill { node: nodes - 1 })];
            judged("two crashes", &with(nodes, seed, &crashes));
        }
    }
}

#[test]
fn what_is_lost_on_the_way_costs_what_the_table_says() {
    for nodes in 1..=5 {
        for seed in 0..40 {
            let node = seed as u32 % nodes;
            let at = seed as f64 / 20.0;
            judged("lost answer", &with(nodes, seed, &[(at, Fault::LoseAnswer { node })]));
            judged("lost request", &with(nodes, seed, &[(at, Fault::LoseRequest { node })]));
            let stall = Fault::Stall { node, lasts: Span::from_millis(900) };
            judged("a beat a slot late", &with(nodes, seed, &[(at, stall)]));
        }
    }
}

#[test]
fn a_connection_that_died_while_it_was_idle_costs_nothing() {
    for nodes in 1..=5 {
        for seed in 0..40 {
            let resets: Vec<_> = (0..nodes).map(|node| (0.3, Fault::Reset { node })).collect();
            let report = sound("reset", &with(nodes, seed, &resets));
            assert_eq!((report.missed, report.doubled), (0, 0));
        }
    }
}

#[test]
fn an_outage_is_not_a_death() {
    for nodes in 1..=6 {
        for seed in 0..20 {
            let outage = Fault::Outage { lasts: Span::from_millis(1_000 + seed * 3_105) };
            let mut scenario = with(nodes, seed, &[(seed as f64 / 20.0, outage)]);
            scenario.duration.0 += 60_000_000_000;
            let report = judged("outage", &scenario);
            let ring = report.row.roster.last().unwrap().ring.len() as u32;
            assert_eq!(ring, nodes, "somebody was removed");
        }
    }
}

#[test]
fn a_step_of_the_servers_clock_stops_nothing() {
    for nodes in 1..=5 {
        for seed in 0..20 {
            let at = seed as f64 / 20.0;
            for step in [HOUR, -HOUR, 1_500_000_000, -1_500_000_000, 200_000_000, -200_000_000] {
                let fault = Fault::ServerStep { by: Shift(step) };
                let report = judged("step", &with(nodes, seed, &[(at, fault)]));
                let ring = report.row.roster.last().unwrap().ring.len() as u32;
                assert_eq!(ring, nodes, "step {step}: somebody was removed");
            }
        }
    }
}

#[test]
fn a_step_forward_makes_nobody_suspect_the_others() {
    for nodes in [3, 5, 13, 30] {
        let settled = run(&with(nodes, 1, &[])).row.epoch;
        for step in [2_300_000_000, 7_000_000_000, 20_000_000_000] {
            let fault = Fault::ServerStep { by: Shift(step) };
            let report = run(&with(nodes, 1, &[(0.3, fault)]));
            assert_eq!(report.row.epoch, settled, "{nodes} nodes, {step} ns: the ring was changed");
        }
    }
}

#[test]
fn a_database_that_has_become_slow_is_polled_all_the_same() {
    for seed in 0..10 {
        let slow = Fault::Slow { by: Span::from_millis(720), lasts: Span::from_secs(1_000) };
        let mut scenario = with(3, seed, &[(0.3, slow)]);
        scenario.duration = Span::from_secs(300);
        let report = run(&scenario);
        // While it lasts nothing is judged; but once a slot somebody polls.
        assert!(report.beats > 285, "seed {seed}: {} beats", report.beats);
    }
}

#[test]
fn a_node_that_is_far_away_can_leave() {
    // Of two that are more than half a period away, the slot after the one in which a change can arrive is
    // always the leaver's own: it cannot leave without missing a slot.
    for nodes in [1, 3, 4] {
        for seed in 0..10 {
            let mut scenario = with(nodes, seed, &[(0.3, Fault::Drain { node: 0 })]);
            for node in &mut scenario.nodes {
                node.there.base = Span::from_millis(250 + seed);
                node.back.base = Span::from_millis(260);
            }
            let report = sound("far", &scenario);
            assert_eq!(report.row.roster.last().unwrap().ring.len() as u32, nodes - 1);
            assert_eq!(report.missed, 0, "{nodes} nodes, seed {seed}");
        }
    }
}

#[test]
fn a_lone_survivor_takes_every_slot() {
    for nodes in 2..=6 {
        for seed in 0..20 {
            let crashes: Vec<_> = (1..nodes).map(|node| (0.3, Fault::Kill { node })).collect();
            let report = judged("lone survivor", &with(nodes, seed, &crashes));
            assert_eq!(report.row.roster.last().unwrap().ring.len(), 1);
        }
    }
}

#[test]
fn one_that_comes_to_a_ring_of_the_dead_takes_over() {
    for seed in 0..20 {
        let deaths: Vec<_> = (0..3).map(|node| (0.3, Fault::Kill { node })).collect();
        let mut scenario = with(4, seed, &deaths);
        scenario.nodes[3].start = Span(SETTLED + 20_000_000_000 + seed * 50_000_000);
        let report = sound("the dead", &scenario);
        assert_eq!(report.marks.count(Mark::TookOver), 2, "the first of all, and this one");
        // Silent from the deaths to its coming, and not for more than six slots after it.
        assert!(report.max_gap < 27_500_000_000, "seed {seed}: {}", report.max_gap);
    }
}

#[test]
fn any_mixture_of_faults_holds_every_invariant_and_reaches_every_mark() {
    let seeds = std::env::var("TURNWISE_FUZZ_SEEDS").map_or(3_000, |seeds| seeds.parse().unwrap());
    let mut marks = turnwise_sim::oracle::Marks::default();
    for seed in 0..seeds {
        let scenario = turnwise_sim::scenario::swarm(seed);
        let report = run(&scenario);
        marks.add(&report.marks);
        assert!(report.violations.is_empty(), "seed {seed}: {:#?}", report.violations);
    }
    assert_eq!(marks.missing(), NEVER_REACHES, "of {seeds} seeds");
}

#[test]
fn the_period_of_a_farm_may_be_short() {
    for seed in 0..20 {
        let mut scenario = farm(3, seed);
        scenario.period = Period::from_millis(100).unwrap();
        scenario.duration = Span::from_secs(30);
        for node in &mut scenario.nodes {
            node.there.base = Span(node.there.base.0 / 20);
            node.back.base = Span(node.back.base.0 / 20);
            node.there.spread = Span(20_000);
            node.back.spread = Span(20_000);
        }
        let report = sound("short", &scenario);
        assert_eq!((report.missed, report.doubled), (0, 0));
    }
}
