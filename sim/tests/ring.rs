//! The bounds of the turn protocol, shown on the engine itself: what each event may cost in slots without
//! a beat and in beats that the fence refuses, and that the ring is whole again soon after.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use turnwise_engine::Period;
use turnwise_sim::lab::{Fault, Report, Scenario, run};

const SECOND: u64 = 1_000_000_000;

fn farm(nodes: u32, seed: u64) -> Scenario {
    Scenario {
        seed,
        period: Period::DEFAULT,
        nodes,
        base_latency: (Duration::from_millis(1), Duration::from_millis(80)),
        jitter: Duration::from_millis(2),
        drift_ppm: 50,
        duration: Duration::from_secs(120),
        faults: Vec::new(),
    }
}

/// Faults at 40 s and a bit, by which time any farm of these tests has long settled.
fn with(nodes: u32, seed: u64, faults: &[(f64, Fault)]) -> Scenario {
    let faults =
        faults.iter().map(|(at, fault)| (Duration::from_secs_f64(40.0 + at), *fault)).collect();
    Scenario { faults, ..farm(nodes, seed) }
}

const SETTLED: u64 = 35 * SECOND;

fn assert_costs(what: &str, scenario: &Scenario, missed: u64, doubled: usize) -> Report {
    let report = run(scenario);
    let calm = report.disorder(SETTLED, 40 * SECOND);
    assert_eq!(calm, None, "{what}, seed {}: before the fault", scenario.seed);
    let (from, until) = (SETTLED, report.ended);
    let costs = (report.missed(from, until), report.doubled(from, until));
    assert!(
        costs.0 <= missed && costs.1 <= doubled,
        "{what}, seed {}, {} nodes: missed and doubled {costs:?}, allowed ({missed}, {doubled})",
        scenario.seed,
        scenario.nodes
    );
    let late = report.disorder(80 * SECOND, report.ended);
    assert_eq!(late, None, "{what}, seed {}: after the fault", scenario.seed);
    report
}

#[test]
fn a_calm_farm_polls_once_a_slot_in_strict_alternation() {
    for nodes in 1..=8 {
        for seed in 0..20 {
            let report = run(&farm(nodes, seed));
            assert_eq!(report.disorder(SETTLED, report.ended), None, "{nodes} nodes, seed {seed}");
            let until = report.ended;
            assert!(report.longest_gap(SETTLED, until) < SECOND + SECOND / 20);
        }
    }
}

#[test]
fn an_idle_farm_sends_one_statement_a_period_whatever_its_size() {
    for nodes in [1, 3, 8, 20] {
        let short = run(&farm(nodes, 1)).statements;
        let long = Scenario { duration: Duration::from_secs(1120), ..farm(nodes, 1) };
        assert_eq!(run(&long).statements - short, 1_000, "{nodes} nodes");
    }
}

#[test]
fn joining_and_leaving_cost_nothing() {
    for nodes in 1..=6 {
        for seed in 0..30 {
            let at = seed as f64 / 30.0;
            assert_costs("join", &with(nodes, seed, &[(at, Fault::Join)]), 0, 0);
            if nodes > 1 {
                let node = seed as u32 % nodes;
                let report =
                    assert_costs("leave", &with(nodes, seed, &[(at, Fault::Leave(node))]), 0, 0);
                assert_eq!(report.left.len(), 1);
            }
        }
    }
}

#[test]
fn a_crash_costs_one_slot_and_its_gap_is_two_periods() {
    for nodes in 2..=7 {
        for seed in 0..60 {
            let at = seed as f64 / 20.0;
            let crash = (at, Fault::Crash(seed as u32 % nodes));
            let report = assert_costs("crash", &with(nodes, seed, &[crash]), 1, 0);
            let gap = report.longest_gap(SETTLED, report.ended);
            assert!(gap <= 2 * SECOND + SECOND / 20, "gap of {gap} ns");
        }
    }
}

#[test]
fn crashes_at_once_cost_a_slot_each() {
    for nodes in 3..=7 {
        for seed in 0..30 {
            let at = seed as f64 / 10.0;
            let crashes = [(at, Fault::Crash(0)), (at, Fault::Crash(nodes - 1))];
            assert_costs("two crashes", &with(nodes, seed, &crashes), 2, 0);
        }
    }
}

#[test]
fn a_lost_answer_costs_nothing_where_there_are_others() {
    for nodes in 1..=5 {
        for seed in 0..40 {
            let lost = (seed as f64 / 20.0, Fault::LoseAnswer(seed as u32 % nodes));
            let missed = u64::from(nodes == 1);
            assert_costs("lost answer", &with(nodes, seed, &[lost]), missed, 0);
        }
    }
}

#[test]
fn a_connection_that_died_while_it_was_idle_costs_nothing() {
    for nodes in 1..=5 {
        for seed in 0..40 {
            let resets: Vec<_> = (0..nodes).map(|node| (0.3, Fault::Reset(node))).collect();
            assert_costs("reset", &with(nodes, seed, &resets), 0, 0);
        }
    }
}

#[test]
fn a_lost_request_costs_one_slot() {
    for nodes in 1..=5 {
        for seed in 0..40 {
            let lost = (seed as f64 / 20.0, Fault::LoseRequest(seed as u32 % nodes));
            let missed = if nodes == 1 { 2 } else { 1 };
            assert_costs("lost request", &with(nodes, seed, &[lost]), missed, 1);
        }
    }
}

#[test]
fn an_outage_is_not_a_death() {
    for nodes in 1..=6 {
        for seed in 0..20 {
            let outage = Duration::from_millis(1_000 + seed * 750);
            let at = seed as f64 / 20.0;
            let scenario = with(nodes, seed, &[(at, Fault::Outage(outage))]);
            // After four failures a read is given more time than usual: the outage may end in it.
            let missed = outage.as_secs() + 1 + 2 + u64::from(outage.as_secs() >= 4);
            let report = assert_costs("outage", &scenario, missed, 1);
            let ring = report.row.unwrap().roster.last().unwrap().ring.len();
            assert_eq!(ring, nodes as usize, "somebody was removed");
        }
    }
}

#[test]
fn a_step_of_the_servers_clock_stops_nothing() {
    let hour = 3_600 * SECOND as i64;
    for nodes in 1..=5 {
        for seed in 0..20 {
            let at = seed as f64 / 20.0;
            for step in [hour, -hour, 1_500_000_000, -1_500_000_000, 200_000_000, -200_000_000] {
                let report = run(&with(nodes, seed, &[(at, Fault::Step(step))]));
                let gap = report.longest_gap(SETTLED, report.ended);
                assert!(gap <= 4 * SECOND, "step {step}, {nodes} nodes, seed {seed}: gap {gap}");
                let doubled = report.doubled(SETTLED, report.ended);
                assert!(doubled <= 3.max(nodes as usize), "step {step}: {doubled} doubled");
                let late = report.disorder(80 * SECOND, report.ended);
                assert_eq!(late, None, "step {step}, {nodes} nodes, seed {seed}");
                let ring = report.row.unwrap().roster.last().unwrap().ring.len();
                assert_eq!(ring, nodes as usize, "step {step}, seed {seed}: somebody was removed");
            }
        }
    }
}

#[test]
fn a_step_forward_makes_nobody_suspect_the_others() {
    for nodes in [3, 5, 13, 30] {
        let settled = run(&with(nodes, 1, &[])).row.unwrap().epoch;
        for step in [2_300_000_000, 7_000_000_000, 20_000_000_000] {
            let report = run(&with(nodes, 1, &[(0.3, Fault::Step(step))]));
            let changes = report.row.unwrap().epoch.0 - settled.0;
            assert_eq!(changes, 0, "{nodes} nodes, {step} ns: the ring was changed");
        }
    }
}

#[test]
fn a_database_that_has_become_slow_is_polled_all_the_same() {
    for seed in 0..10 {
        let slow = (0.3, Fault::Slow(Duration::from_millis(360)));
        let report = run(&with(3, seed, &[slow]));
        let late = report.disorder(90 * SECOND, report.ended);
        assert_eq!(late, None, "seed {seed}");
    }
}

#[test]
fn a_node_that_is_far_away_can_leave() {
    // Of two that are more than half a period away, the slot after the one in which a change can arrive is
    // always the leaver's own: it cannot leave without missing a slot.
    for nodes in [1, 3, 4] {
        for seed in 0..10 {
            let mut scenario = with(nodes, seed, &[(0.3, Fault::Leave(0))]);
            scenario.base_latency = (Duration::from_millis(250), Duration::from_millis(270));
            let report = run(&scenario);
            assert_eq!(report.left.len(), 1, "{nodes} nodes, seed {seed}: it did not leave");
            assert_eq!(report.missed(SETTLED, report.ended), 0, "{nodes} nodes, seed {seed}");
        }
    }
}

#[test]
fn a_lone_survivor_takes_every_slot() {
    for nodes in 2..=6 {
        for seed in 0..20 {
            let crashes: Vec<_> = (1..nodes).map(|node| (0.3, Fault::Crash(node))).collect();
            let report = run(&with(nodes, seed, &crashes));
            assert_eq!(report.disorder(80 * SECOND, report.ended), None);
            assert!(report.missed(SETTLED, report.ended) < u64::from(nodes));
        }
    }
}

#[test]
fn one_that_comes_to_a_ring_of_the_dead_takes_over() {
    for seed in 0..20 {
        let mut faults: Vec<_> = (0..3).map(|node| (0.3, Fault::Crash(node))).collect();
        faults.push((20.0 + seed as f64 / 20.0, Fault::Join));
        let report = run(&with(3, seed, &faults));
        let first = report.accepted().find(|beat| beat.at > 60 * SECOND).unwrap();
        assert!(first.at < 66 * SECOND, "seed {seed}: polling only from {}", first.at);
        assert_eq!(report.disorder(first.at, report.ended), None, "seed {seed}");
    }
}

#[test]
fn after_any_mixture_of_faults_the_ring_is_whole_again() {
    let seeds = std::env::var("TURNWISE_FUZZ_SEEDS").map_or(3_000, |seeds| seeds.parse().unwrap());
    for seed in 0..seeds {
        let scenario = mixture(seed);
        let report = run(&scenario);
        let slots: Vec<_> = report.accepted().map(|beat| beat.slot).collect();
        let slots = slots.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(slots, "seed {seed}: accepted slots did not increase");
        let crashed = |id: u32| {
            scenario.faults.iter().any(|(_, f)| *f == Fault::Crash(id) || *f == Fault::Leave(id))
        };
        let live = (0..report.joined.len() as u32).filter(|id| !crashed(*id)).count() as u64;
        if live == 0 {
            continue;
        }
        let last = scenario.faults.iter().map(|(at, fault)| {
            let lasts = match fault {
                Fault::Pause(_, lasts) | Fault::Outage(lasts) => *lasts,
                _ => Duration::ZERO,
            };
            (*at + lasts).as_nanos() as u64
        });
        let last = last.max().unwrap_or(0);
        let period = scenario.period.as_nanos().unsigned_abs();
        let settled = last + 2 * (report.joined.len() as u64 + live) * period + 2 * period;
        if let Some(disorder) = report.disorder(settled, report.ended) {
            panic!("seed {seed}, {live} alive, calm since {last}: {disorder}\n{scenario:#?}");
        }
    }
}

/// A farm with a random mixture of faults in its first minute.
fn mixture(seed: u64) -> Scenario {
    let mut random = Pcg64Mcg::seed_from_u64(seed ^ 0x5eed);
    let mut below = |bound: u64| random.next_u64() % bound;
    let nodes = 1 + below(6) as u32;
    let period = [100, 1_000, 1_000, 2_000][below(4) as usize];
    let fast = period == 100;
    let mut scenario = Scenario {
        period: Period::from_millis(period).unwrap(),
        base_latency: if fast {
            (Duration::from_micros(200), Duration::from_millis(5))
        } else {
            (Duration::from_millis(1), Duration::from_millis(80))
        },
        jitter: Duration::from_micros(below(2_000)),
        drift_ppm: below(200) as i64,
        ..farm(nodes, seed)
    };
    let unit = u64::from(period);
    scenario.duration = Duration::from_millis(unit * 160);
    let kinds = below(512);
    let mut up = nodes;
    for _ in 0..below(8) {
        let at = Duration::from_millis(unit * 5 + below(unit * 60));
        let node = below(u64::from(up)) as u32;
        let kind = below(9);
        if kinds & (1 << kind) == 0 {
            continue;
        }
        let fault = match kind {
            0 => {
                up += 1;
                Fault::Join
            }
            1 => Fault::Leave(node),
            2 => Fault::Crash(node),
            3 => Fault::Pause(node, Duration::from_millis(below(unit * 12))),
            4 => Fault::LoseRequest(node),
            5 => Fault::LoseAnswer(node),
            8 => Fault::Reset(node),
            6 => Fault::Step(below(40) as i64 * 500_000_000 - 10_000_000_000),
            _ => Fault::Outage(Duration::from_millis(below(unit * 10))),
        };
        scenario.faults.push((at, fault));
    }
    scenario.faults.sort_by_key(|(at, _)| *at);
    scenario
}
