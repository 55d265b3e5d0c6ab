//! Decides whether the interval that the engine claims ever lies: many checks of it against the truth, over
//! roads and clocks of all kinds, without steps.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use turnwise_engine::Clock;

use super::trace::{Spec, generate};
use crate::random::Stream;

/// Exchanges of one road.
const EXCHANGES: usize = 2_000;
/// One clock sees every exchange, the others every so many: their intervals are old when they are checked.
const STRIDES: [usize; 3] = [1, 7, 60];

/// What the checks came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// How often the truth was looked for in an interval.
    pub checks: u64,
    /// How often it was not there.
    pub violations: u64,
    /// Over so many roads.
    pub roads: u64,
    /// The seed of the first road that had a violation.
    pub first_bad: Option<u64>,
}

/// Check at least `checks` intervals, on as many threads as there are processors.
pub fn check(checks: u64) -> Checked {
    let roads = checks.div_ceil(checks_of_a_road());
    let next = AtomicU64::new(0);
    let all = Mutex::new(Checked::default());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= roads {
                return;
            }
            let (checks, violations) = check_road(seed);
            if let Ok(mut all) = all.lock() {
                all.checks += checks;
                all.violations += violations;
                all.roads += 1;
                if violations > 0 {
                    all.first_bad = Some(all.first_bad.map_or(seed, |bad| bad.min(seed)));
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    all.into_inner().unwrap_or_default()
}

fn checks_of_a_road() -> u64 {
    ((EXCHANGES - 1) * STRIDES.len()) as u64
}

fn check_road(seed: u64) -> (u64, u64) {
    let mut clocks = STRIDES.map(|stride| (stride, Clock::new()));
    let (mut checks, mut violations) = (0, 0);
    for (number, sample) in generate(&road(seed)).iter().enumerate() {
        for (stride, clock) in &mut clocks {
            if let Some((low, high)) = clock.bounds(sample.exchange.sent) {
                checks += 1;
                violations += u64::from(!(low..=high).contains(&sample.true_offset));
            }
            if number.is_multiple_of(*stride) {
                clock.observe(&sample.exchange);
            }
        }
    }
    (checks, violations)
}

/// The road of a seed: any length, pace, noise and clock, and a random subset of what may befall it; the server's
/// clock is never set, and the local one never more than 450 ppm wrong.
pub fn road(seed: u64) -> Spec {
    let mut random = Stream::new(seed, "road");
    let mut between = |least: f64, most: f64| least * (most / least).powf(random.uniform());
    let seconds = Duration::from_secs_f64;
    let rtt = between(1e-5, 2.0);
    let interval = between(0.02, 300.0).max(2.0 * rtt);
    let jitter = rtt * between(1e-4, 0.5);
    let rare = |mean: f64| seconds(interval * mean);
    let (routes, congestion) = (rare(between(20.0, 500.0)), rare(between(50.0, 500.0)));
    let (wander, drift, tail) = (between(0.1, 30.0), between(0.1, 400.0), between(0.001, 0.5));
    let commit = seconds(rtt * between(0.01, 3.0));
    let grain = between(1e-9, 1e-2);
    let mut now_and_then = |share: f64| random.uniform() < share;
    let spec = Spec {
        seed,
        samples: EXCHANGES,
        interval: seconds(interval),
        rtt: seconds(rtt),
        jitter: seconds(jitter.max(1e-7)),
        tail,
        drift,
        wander,
        commit: if now_and_then(0.3) { commit } else { Duration::ZERO },
        routes: if now_and_then(0.3) { routes } else { Duration::ZERO },
        congestion: if now_and_then(0.3) { congestion } else { Duration::ZERO },
        resolution: if now_and_then(0.3) { seconds(grain) } else { Duration::from_micros(1) },
        ..Spec::default()
    };
    let asymmetry = if now_and_then(0.5) { 0.0 } else { 2.0 * random.uniform() - 1.0 };
    Spec { asymmetry, ..spec }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_truth_is_always_in_the_interval() {
        let checked = check(300_000);
        assert!(checked.checks >= 300_000);
        assert_eq!(checked.violations, 0, "on the road {:?}", checked.first_bad.map(road));
    }

    #[test]
    fn an_interval_that_lies_is_found() {
        // A step that nobody told of: the check must see what a wrong interval would show.
        let lying = Spec {
            interval: Duration::from_millis(20),
            step: Duration::from_millis(5),
            steps: Duration::from_secs(1),
            jitter: Duration::from_micros(10),
            rtt: Duration::from_micros(100),
            ..Spec::default()
        };
        let mut clock = Clock::new();
        let mut outside = 0;
        for sample in generate(&lying) {
            if let Some((low, high)) = clock.bounds(sample.exchange.sent) {
                outside += usize::from(!(low..=high).contains(&sample.true_offset));
            }
            clock.observe(&sample.exchange);
        }
        assert!(outside > 0);
    }
}
