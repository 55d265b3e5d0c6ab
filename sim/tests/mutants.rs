//! What a mutant of the engine must get past first: a small selection of all the simulations, the quickest in front,
//! so that most mutants fall within a second. `scripts/mutants` runs it for each, and puts what passes to all the
//! other tests.

#![allow(clippy::unwrap_used)]

#[path = "mutants/figures.rs"]
mod figures;

use std::ops::Range;

use turnwise_sim::clock::judge::{floor, judge};
use turnwise_sim::clock::judging::tuning;
use turnwise_sim::clock::trace::generate;
use turnwise_sim::lab::{NEVER_REACHES, run};
use turnwise_sim::model::Farm;
use turnwise_sim::oracle::Marks;
use turnwise_sim::scenario::swarm;

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
    assert_the_clock_is_good();
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
