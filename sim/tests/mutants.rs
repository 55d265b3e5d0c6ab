//! What a mutant of the engine must get past first: a small selection of all the simulations, the quickest in front,
//! so that most mutants fall within a second. `scripts/mutants` runs it for each, and puts what passes to all the
//! other tests.

#![allow(clippy::unwrap_used)]

#[path = "mutants/figures.rs"]
mod figures;

use std::ops::Range;

use turnwise_engine::journal::{Entry, Summary, replay};
use turnwise_sim::clock::judge::{floor, judge};
use turnwise_sim::clock::judging::tuning;
use turnwise_sim::clock::trace::generate;
use turnwise_sim::lab::{Journal, NEVER_REACHES, run, run_with_journals};
use turnwise_sim::model::Farm;
use turnwise_sim::oracle::Marks;
use turnwise_sim::scenario::{Scenario, Span, swarm};

/// So many seeds find half of the planted bugs ...
const FIRST_SEEDS: u64 = 20;
/// ... and so many nearly all.
const SEEDS: u64 = 1_500;
/// Traces on which nothing befalls the road.
const PLAIN: &[&str] = &["plain", "steady clock", "unsteady clock", "asymmetry", "commit"];
/// Traces on which the interval must hold.
const BOUNDED: &[&str] = &["plain", "routes", "small steps", "large steps"];

/// One test, since a test program runs all that it holds, and here the first failure is enough.
#[test]
fn simulations_find_no_fault() {
    let mut marks = Marks::default();
    assert_sound(0..FIRST_SEEDS, &mut Marks::default());
    for members in 1..=3 {
        assert_searched(Farm::new(members, 1, 1));
    }
    assert_journals_are_replayed();
    assert_periods_are_checked();
    assert_the_clock_is_good();
    figures::assert_a_step_between_stamps_is_seen();
    figures::assert_the_clock_is_as_good_as_before();
    figures::assert_it_costs_no_more_than_before(&mut marks);
    assert_sound(figures::BEHIND_ALL..SEEDS, &mut marks);
    assert_eq!(marks.missing(), NEVER_REACHES, "of {SEEDS} seeds");
    assert_searched(Farm::new(1, 1, 2));
}

fn assert_sound(seeds: Range<u64>, marks: &mut Marks) {
    for seed in seeds {
        let report = run(&swarm(seed));
        marks.add(&report.marks);
        assert!(report.violations.is_empty(), "seed {seed}: {:#?}", report.violations);
    }
}

fn assert_searched(farm: Farm) {
    let found = farm.search(1);
    assert!(found.broken.is_empty(), "{found}");
    assert!(found.costliest().paths > 1, "nothing was searched");
}

/// What was told and asked for in two lives, one after the other, written down and read again.
fn assert_journals_are_replayed() {
    for seed in 0..FIRST_SEEDS {
        let (_, journals) = run_with_journals(&swarm(seed), false);
        let [Journal { header, entries: first, .. }, second, ..] = &journals[..] else { continue };
        let mut entries = first.clone();
        entries.push(Entry::Life(second.header.clone()));
        entries.extend(second.entries.iter().cloned());
        let text = serde_json::to_string(&entries).unwrap();
        let read: Vec<Entry> = serde_json::from_str(&text).unwrap();
        assert_eq!(read, entries, "seed {seed}");
        let count =
            |is: fn(&Entry) -> bool| entries.iter().filter(|entry| is(entry)).count() as u64;
        let until = entries.iter().rev().find_map(|entry| match entry {
            Entry::Input { at, .. } => Some(*at),
            _ => None,
        });
        let told = Summary {
            lives: 2,
            inputs: count(|entry| matches!(entry, Entry::Input { .. })),
            outputs: count(|entry| matches!(entry, Entry::Output(_))),
            until,
            ended: matches!(entries.last(), Some(Entry::End)),
        };
        assert_eq!(replay(header, read).unwrap(), told, "seed {seed}");
        let lost = entries.iter().position(|entry| matches!(entry, Entry::Input { .. })).unwrap();
        entries.remove(lost);
        assert!(replay(header, entries).is_err(), "seed {seed}: an input less makes no difference");
        // An output that the journal does not have is noticed at its end.
        let asked = first.iter().position(|entry| matches!(entry, Entry::Output(_))).unwrap();
        let entries = first[..asked].iter().cloned().chain([Entry::End]);
        assert!(
            replay(header, entries).is_err(),
            "seed {seed}: an output less makes no difference"
        );
    }
}

/// A scenario may have any period that a farm may have, and no other.
fn assert_periods_are_checked() {
    for (millis, may) in [(49, false), (50, true), (10_000, true), (10_001, false)] {
        let mut scenario = serde_json::to_value(Scenario::calm(1, 1, Span::from_secs(10))).unwrap();
        assert_eq!(scenario["period"], 1_000);
        scenario["period"] = millis.into();
        assert_eq!(Scenario::from_json(&scenario.to_string()).is_ok(), may, "{millis} ms");
    }
}

/// As `clock.rs` holds it, on other traces of the same kinds.
fn assert_the_clock_is_good() {
    for case in tuning(1) {
        let samples = generate(&case.spec);
        let scores = judge(&samples, None);
        let (own, rivals) = scores.split_first().unwrap();
        if BOUNDED.contains(&case.kind) {
            assert_eq!(own.interval_violations, 0, "{case:?}");
        }
        if PLAIN.contains(&case.kind) {
            let allowed = if case.spec.interval.as_secs() <= 10 { 1.1 } else { 1.4 };
            let ratio = own.arrival.p50 / floor(&samples);
            assert!(ratio < allowed, "{ratio:.2} x the noise, {case:?}");
        }
        let arrival = rivals.iter().map(|rival| rival.arrival.p50).fold(f64::INFINITY, f64::min);
        assert!(own.arrival.p50 < 1.1 * arrival, "arrival {own:?}, {case:?}");
        if let Some((median, worst)) = own.recovery.filter(|_| case.kind == "large steps") {
            assert!(median <= 1 && worst <= 3, "recovered in {median}, {worst}: {case:?}");
        }
    }
}
