//! The cluster: what it found once it finds no more, it comes to the same twice, and it refuses what it cannot
//! express.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use turnwise_engine::journal::{Entry, replay};
use turnwise_sim::cluster::{fit, misfit, run_with_beats, run_with_journals};
use turnwise_sim::lab;
use turnwise_sim::oracle::Mark;
use turnwise_sim::scenario::{Fault, LocalClock, Planned, Retention, Scenario, Shift, Span};
use turnwise_sim::tier::Tier;

/// What the tier found in the shell, each a scenario that failed before the shell was mended.
#[test]
fn what_was_found_once_is_found_no_more() {
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let readme = std::fs::read_to_string(scenarios.join("README.md")).unwrap();
    let folder = scenarios.join("cluster");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(readme.contains(&format!("`cluster/{name}`")), "{name} is not in the README");
        let scenario = Scenario::from_json(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let report = Tier::Cluster.run(&scenario, false);
        assert!(report.violations.is_empty(), "{}: {:?}", path.display(), report.violations);
        count += 1;
    }
    let told = readme.matches("\n| `cluster/").count();
    assert_eq!(count, told, "the README names files that are not there");
}

/// Fixed ways of whole milliseconds, clocks that show whole milliseconds more than true time, statements that take
/// no time: then both tiers see the same turns. (A shell is up some round trips after its process, here within the
/// slot.)
#[test]
fn both_tiers_take_the_same_turns() {
    let mut scenario = Scenario::calm(5, 4, Span::from_secs(90));
    scenario.database.service = Span::ZERO;
    scenario.database.commit = Span::ZERO;
    for (number, node) in scenario.nodes.iter_mut().enumerate() {
        let number = number as u64;
        node.start = Span::from_millis(20 + 9_000 * number);
        node.clock = LocalClock { shows: Span::from_secs(100 * number), ..LocalClock::default() };
        node.there.base = Span::from_millis(2 + 11 * number);
        node.back.base = Span::from_millis(31 - 7 * number);
        node.there.spread = Span::ZERO;
        node.back.spread = Span::ZERO;
    }
    assert_eq!(misfit(&scenario), None);
    let (report, beats) = run_with_beats(&scenario, false);
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    let lab = lab::run_with::<lab::Product>(&scenario, true);
    assert!(lab.violations.is_empty(), "{:?}", lab.violations);
    let lab: Vec<_> = lab
        .picture
        .unwrap()
        .seen
        .into_iter()
        .filter_map(|(_, host, seen)| match seen {
            turnwise_sim::report::Seen::Beat { slot, accepted: true, .. } => Some((slot, host)),
            _ => None,
        })
        .collect();
    let beats: Vec<_> = beats.into_iter().map(|(slot, host)| (slot.0, host)).collect();
    assert_eq!(beats, lab);
    assert!(beats.len() > 80);
}

#[test]
fn a_run_is_decided_by_its_scenario() {
    for seed in [3, 8] {
        let scenario = Tier::Cluster.swarm(seed);
        let first = Tier::Cluster.run(&scenario, false);
        // Another run in between: nothing of it is left behind.
        Tier::Cluster.run(&Tier::Cluster.swarm(seed + 1), false);
        let second = Tier::Cluster.run(&scenario, false);
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
    }
}

/// What the shell recorded in a storm is what a fresh engine asks for, byte for byte.
#[test]
fn journals_of_simulated_nodes_are_replayed_without_a_difference() {
    let mut lives = 0;
    for seed in 0..6 {
        let scenario = Tier::Cluster.swarm(seed);
        for entries in run_with_journals(&scenario, false).1 {
            let text: Vec<_> =
                entries.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
            let mut read = text.iter().map(|line| serde_json::from_str(line).unwrap());
            let Some(Entry::Life(header)) = read.next() else { continue };
            lives += replay(&header, read).unwrap().lives;
        }
    }
    assert!(lives > 10, "{lives}");
}

#[test]
fn a_farm_with_load_is_served_in_turns() {
    let mut scenario = Scenario::calm(1, 5, Span::from_secs(60));
    scenario.load.every = Span::from_millis(100);
    scenario.load.until = Span::from_secs(40);
    let report = Tier::Cluster.run(&fit(scenario), false);
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    assert!(report.jobs.enqueued > 300, "{:?}", report.jobs);
    assert_eq!(report.jobs.succeeded, report.jobs.enqueued);
    assert_eq!((report.missed, report.doubled), (0, 0));
    assert!(report.marks.count(Mark::ClaimedWithBeat) > 0);
}

#[test]
fn what_it_cannot_express_is_refused_by_name() {
    let calm = || fit(Scenario::calm(1, 2, Span::from_secs(30)));
    let mut twice = calm();
    twice.nodes[1].back.duplicate_ppm = 5;
    let mut short = calm();
    short.nodes[0].there.base = Span::from_micros(300);
    let mut quick = calm();
    quick.period = turnwise_engine::Period::from_millis(50).unwrap();
    let mut many = calm();
    many.nodes = vec![many.nodes[0]; 500];
    for (scenario, words) in [
        (twice, ["nodes[1].back", "duplicate_ppm"]),
        (short, ["nodes[0].there", "1 ms"]),
        (quick, ["period", "200 ms"]),
        (many, ["500 nodes", "lab"]),
    ] {
        let said = misfit(&scenario).unwrap();
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
    assert_eq!(misfit(&calm()), None);
}

/// A farm at work that keeps what has ended for a minute has two minutes' jobs in its table, however long it runs.
#[test]
fn a_farm_that_keeps_jobs_for_a_minute_has_a_small_table() {
    let minute = Some(Span::from_secs(60));
    let mut scenario = Scenario::calm(3, 3, Span::from_secs(600));
    scenario.load.every = Span::from_millis(250);
    scenario.load.until = Span::from_secs(580);
    scenario.retention = Retention { succeeded: minute, dead: minute };
    let report = Tier::Cluster.run(&fit(scenario.clone()), false);
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    assert!(report.jobs.succeeded > 2_000, "{:?}", report.jobs);
    // Those of a minute, and of one more until somebody looks: four a second, by chance.
    assert!(report.jobs.most_kept < 4 * 150, "{:?}", report.jobs);
    let removed = report.marks.count(Mark::JobRemoved);
    assert!(removed > 1_700, "{removed} removed");

    scenario.retention = Retention::default();
    let report = Tier::Cluster.run(&fit(scenario), false);
    assert_eq!(report.marks.count(Mark::JobRemoved), 0);
}

/// Whoever has nothing to remove asks for it once a minute, one for the whole farm.
#[test]
fn an_idle_farm_looks_for_ended_jobs_once_a_minute() {
    for nodes in [1, 6] {
        let mut scenario = fit(Scenario::calm(1, nodes, Span::from_secs(310)));
        let without = Tier::Cluster.run(&scenario, false).statements;
        scenario.retention.succeeded = Some(Span::from_secs(3_600));
        let report = Tier::Cluster.run(&scenario, false);
        assert!(report.violations.is_empty(), "{:?}", report.violations);
        let looks = report.statements - without;
        assert!((4..=5).contains(&looks), "{looks} looks of {nodes} nodes in five minutes");
    }
}

/// By the clock all of them are an hour older; nobody has lived through it.
#[test]
fn jobs_are_not_removed_early_when_the_servers_clock_is_set_forward() {
    let mut scenario = Scenario::calm(1, 3, Span::from_secs(400));
    scenario.load.every = Span::from_millis(500);
    scenario.load.until = Span::from_secs(90);
    scenario.retention.succeeded = Some(Span::from_secs(240));
    let step = Fault::ServerStep { by: Shift(3_600_000_000_000) };
    scenario.faults = vec![Planned { at: Span::from_secs(100), fault: step }];
    let report = Tier::Cluster.run(&fit(scenario), false);
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    let removed = report.marks.count(Mark::JobRemoved);
    assert!(removed > 100, "{removed}: those that were four minutes old in the end");
}
