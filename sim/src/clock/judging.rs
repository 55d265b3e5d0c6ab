//! Decides by which traces an estimator is judged, and on which it may be tuned.
//!
//! There are two tables. One has every road plain, and what may befall a road on three of them; the other crosses everything
//! that may befall a road with every road ([`crossed`]). The seeds of the judging traces (7001 and up, 8001 and up) are not
//! to be looked at while an estimator is being made: tune on [`tuning`] and [`crossed_tuning`], whose traces have the same
//! laws and seeds below 2,000, and run the judge at the end.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::judge::{Score, floor, judge};
use super::trace::{Spec, generate};

/// The first seed of the judging traces.
const JUDGING_SEED: u64 = 7_001;
/// The first seed of those that cross everything.
const CROSSED_SEED: u64 = 8_001;
/// The first seed of the traces for tuning that cross everything.
const CROSSED_TUNING_SEED: u64 = 1_001;
/// Sets of traces for tuning.
pub const TUNING_SETS: u64 = 3;
/// What may befall a road.
const KINDS: [&str; 8] = [
    "plain",
    "asymmetry",
    "commit",
    "routes",
    "congestion",
    "1 ms stamps",
    "small steps",
    "large steps",
];
/// Round trips, in microseconds.
const ROUND_TRIPS: [u64; 3] = [500, 5_000, 80_000];
/// One exchange in so many seconds.
const INTERVALS: [u64; 4] = [1, 3, 10, 60];

/// A trace to judge by.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// What is special about it.
    pub kind: &'static str,
    /// Its laws.
    pub spec: Spec,
}

/// The traces by which the first table of `docs/clock.md` is measured.
pub fn judging() -> Vec<Case> {
    cases(JUDGING_SEED)
}

/// Traces of the same laws for tuning: another set for each `round`, from 0 to 2.
pub fn tuning(round: u64) -> Vec<Case> {
    cases(1 + round.min(TUNING_SETS - 1) * 40)
}

/// The traces by which the second table of `docs/clock.md` is measured.
pub fn crossed() -> Vec<Case> {
    crossed_cases(CROSSED_SEED)
}

/// Traces of the same laws for tuning: another set for each `round`, from 0 to 2.
pub fn crossed_tuning(round: u64) -> Vec<Case> {
    crossed_cases(CROSSED_TUNING_SEED + round.min(TUNING_SETS - 1) * 200)
}

/// How everybody did on one trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The trace.
    pub case: Case,
    /// The engine's estimator first, the oracle last.
    pub scores: Vec<Score>,
    /// The channel's own noise, in microseconds.
    pub floor: f64,
}

/// Judge all estimators on all traces, on as many threads as there are processors.
pub fn judge_all(cases: &[Case]) -> Vec<Verdict> {
    let next = AtomicUsize::new(0);
    let verdicts = Mutex::new(Vec::new());
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let samples = generate(&case.spec);
            let scores = judge(&samples, Some(&case.spec));
            let verdict = Verdict { case: case.clone(), scores, floor: floor(&samples) };
            if let Ok(mut verdicts) = verdicts.lock() {
                verdicts.push(verdict);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut verdicts = verdicts.into_inner().unwrap_or_default();
    verdicts.sort_by_key(|verdict| verdict.case.spec.seed);
    verdicts
}

/// Roads from short to long, each with every interval, plain; and everything that may befall them on three.
fn cases(first_seed: u64) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |kind, spec: Spec| {
        let seed = first_seed + cases.len() as u64;
        cases.push(Case { kind, spec: Spec { seed, ..spec } });
    };
    for rtt in ROUND_TRIPS {
        for interval in INTERVALS {
            add("plain", road(rtt, interval));
        }
    }
    for (rtt, interval) in [(500, 1), (5_000, 3), (80_000, 10)] {
        for kind in KINDS.into_iter().skip(1) {
            add(kind, befallen(kind, rtt, interval));
        }
    }
    add("steady clock", Spec { wander: 1.0, ..road(5_000, 3) });
    add("unsteady clock", Spec { wander: 20.0, ..road(500, 1) });
    cases
}

/// Everything that may befall a road, on every road with every interval.
fn crossed_cases(first_seed: u64) -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in KINDS {
        for rtt in ROUND_TRIPS {
            for interval in INTERVALS {
                let seed = first_seed + cases.len() as u64;
                cases.push(Case { kind, spec: Spec { seed, ..befallen(kind, rtt, interval) } });
            }
        }
    }
    cases
}

/// The road of such a round trip and interval, and what befalls it.
fn befallen(kind: &str, rtt: u64, interval: u64) -> Spec {
    let plain = road(rtt, interval);
    let half = plain.rtt / 2;
    let often = plain.interval * 100;
    match kind {
        "asymmetry" => Spec { asymmetry: 0.3, ..plain },
        "commit" => Spec { commit: half, ..plain },
        "routes" => Spec { routes: often, ..plain },
        "congestion" => Spec { congestion: often * 2, ..plain },
        "1 ms stamps" => Spec { resolution: Duration::from_millis(1), ..plain },
        "small steps" => Spec { step: half, steps: often, ..plain },
        "large steps" => Spec { step: Duration::from_secs(1), steps: often, ..plain },
        _ => plain,
    }
}

fn road(rtt_micros: u64, interval_seconds: u64) -> Spec {
    let rtt = Duration::from_micros(rtt_micros);
    Spec {
        rtt,
        interval: Duration::from_secs(interval_seconds),
        jitter: (rtt / 100).max(Duration::from_micros(10)),
        ..Spec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_seed_is_both_for_tuning_and_for_judging() {
        let seeds = |cases: Vec<Case>| cases.into_iter().map(|case| case.spec.seed);
        let mut judged: Vec<_> = seeds(judging()).chain(seeds(crossed())).collect();
        let sets = (0..TUNING_SETS).flat_map(|set| [tuning(set), crossed_tuning(set)]);
        let tuned: Vec<_> = sets.flat_map(seeds).collect();
        assert!(judged.iter().all(|seed| *seed >= JUDGING_SEED));
        assert!(tuned.iter().all(|seed| *seed < 2_000));
        judged.extend(tuned);
        let count = judged.len();
        judged.sort_unstable();
        judged.dedup();
        assert_eq!(judged.len(), count);
    }

    #[test]
    fn everything_that_may_befall_a_road_befalls_it_on_every_road() {
        let cases = crossed();
        assert_eq!(cases.len(), KINDS.len() * ROUND_TRIPS.len() * INTERVALS.len());
        for case in &cases {
            let Spec { rtt, interval, .. } = case.spec;
            let plain = road(rtt.as_micros() as u64, interval.as_secs());
            let is_plain = Spec { seed: plain.seed, ..case.spec.clone() } == plain;
            assert_eq!(is_plain, case.kind == "plain", "{case:?}");
        }
    }
}
