//! Decides by which traces an estimator is judged, and on which it may be tuned.
//!
//! The seeds of the judging traces (7001 and up) are not to be looked at while an estimator is being made:
//! tune on [`tuning`], whose traces have the same laws and seeds below 120, and run the judge at the end.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::judge::{Score, floor, judge};
use super::trace::{Spec, generate};

/// The first seed of the judging traces.
const JUDGING_SEED: u64 = 7_001;

/// A trace to judge by.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// What is special about it.
    pub kind: &'static str,
    /// Its laws.
    pub spec: Spec,
}

/// The traces by which the figures of `docs/clock.md` are measured.
pub fn judging() -> Vec<Case> {
    cases(JUDGING_SEED)
}

/// Traces of the same laws for tuning: another set for each `round`, from 0 to 2.
pub fn tuning(round: u64) -> Vec<Case> {
    cases(1 + round.min(2) * 40)
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
    for rtt in [500, 5_000, 80_000] {
        for interval in [1, 3, 10, 60] {
            add("plain", road(rtt, interval));
        }
    }
    for (rtt, interval) in [(500, 1), (5_000, 3), (80_000, 10)] {
        let plain = road(rtt, interval);
        let half = plain.rtt / 2;
        let often = plain.interval * 100;
        add("asymmetry", Spec { asymmetry: 0.3, ..plain.clone() });
        add("commit", Spec { commit: half, ..plain.clone() });
        add("routes", Spec { routes: often, ..plain.clone() });
        add("congestion", Spec { congestion: often * 2, ..plain.clone() });
        add("1 ms stamps", Spec { resolution: Duration::from_millis(1), ..plain.clone() });
        add("small steps", Spec { step: half, steps: often, ..plain.clone() });
        add("large steps", Spec { step: Duration::from_secs(1), steps: often, ..plain });
    }
    add("steady clock", Spec { wander: 1.0, ..road(5_000, 3) });
    add("unsteady clock", Spec { wander: 20.0, ..road(500, 1) });
    cases
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
        let mut seeds: Vec<_> = judging().iter().map(|case| case.spec.seed).collect();
        seeds.extend((0..3).flat_map(tuning).map(|case| case.spec.seed));
        let count = seeds.len();
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), count);
        assert!(seeds.iter().all(|seed| *seed < 120 || *seed >= JUDGING_SEED));
    }
}
