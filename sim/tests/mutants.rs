//! What a mutant of the engine must get past first: a small selection of all the simulations, the quickest in front,
//! so that most mutants fall within a second. `scripts/mutants` runs it for each, and puts what passes to all the
//! other tests.

#![allow(clippy::unwrap_used)]

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
/// What the clock has reached on each of the traces: made by `ACCURACY=write`, and looked at before it is committed.
const ACCURACY: &str = include_str!("mutants/accuracy.csv");
/// So much worse it may be on any of them: what is not worse at all differs by the last digits that are written down.
const ALLOWED: f64 = 1.005;
/// Traces on which nothing befalls the road.
const PLAIN: &[&str] = &["plain", "steady clock", "unsteady clock", "asymmetry", "commit"];
/// The head of the table.
const FIGURES: &str =
    "trace,rtt,interval,offset p50,offset p99,arrival p50,arrival p99,arrival max,recovery\n";
/// Traces on which the interval must hold.
const BOUNDED: &[&str] = &["plain", "routes", "small steps", "large steps"];

/// One test, since a test program runs all that it holds, and here the first failure is enough.
#[test]
fn simulations_find_no_fault() {
    let mut marks = Marks::default();
    assert_sound(0..FIRST_SEEDS, &mut marks);
    for members in 1..=3 {
        assert_searched(Farm::new(members, 1, 1));
    }
    assert_the_clock_is_good();
    assert_the_clock_is_as_good_as_before();
    assert_sound(FIRST_SEEDS..SEEDS, &mut marks);
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

/// On no trace is it worse than it was when its figures were written down, by which one knows a change that makes the clock worse by
/// less than its rivals or the channel's noise show. Who makes it better writes them anew.
fn assert_the_clock_is_as_good_as_before() {
    let mut now = String::from(FIGURES);
    for case in (0..3).flat_map(tuning) {
        let samples = generate(&case.spec);
        let own = judge(&samples, None).remove(0);
        let recovered = own.recovery.map_or((0, 0), |recovery| recovery);
        now += &format!(
            "{},{:?},{:?},{:.3},{:.3},{:.3},{:.3},{:.3},{}\n",
            case.kind,
            case.spec.rtt,
            case.spec.interval,
            own.offset.p50,
            own.offset.p99,
            own.arrival.p50,
            own.arrival.p99,
            own.arrival.max,
            recovered.0 + recovered.1
        );
    }
    if std::env::var("ACCURACY").is_ok_and(|asked| asked == "write") {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mutants/accuracy.csv");
        std::fs::write(path, &now).unwrap();
    }
    assert_eq!(now.lines().count(), ACCURACY.lines().count(), "not the same traces");
    for (now, before) in now.lines().zip(ACCURACY.lines()).skip(1) {
        let figures = |line: &str| -> Vec<f64> {
            line.split(',').skip(3).map(|figure| figure.parse().unwrap()).collect()
        };
        let traces =
            |line: &str| line.splitn(4, ',').take(3).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(traces(now), traces(before));
        for (place, (figure, was)) in figures(now).into_iter().zip(figures(before)).enumerate() {
            assert!(figure <= ALLOWED * was + 0.002, "figure {place} was {was}: {now}");
        }
    }
}
