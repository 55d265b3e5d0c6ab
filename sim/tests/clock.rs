//! The engine's estimator, held to what it has reached: on the traces for tuning, beside the rivals and the channel's
//! own noise, all computed in the same run. `turnwise-sim clock --judge` has the oracle too.

#![allow(clippy::unwrap_used)]

use turnwise_sim::clock::judge::{Score, floor, judge};
use turnwise_sim::clock::judging::{Case, tuning};
use turnwise_sim::clock::trace::generate;

struct Outcome {
    case: Case,
    own: Score,
    rivals: Vec<Score>,
    floor: f64,
}

impl Outcome {
    fn best(&self, quantity: fn(&Score) -> f64) -> f64 {
        self.rivals.iter().map(quantity).fold(f64::INFINITY, f64::min)
    }

    fn rival(&self, name: &str) -> &Score {
        self.rivals.iter().find(|score| score.name == name).unwrap()
    }
}

fn outcomes(kinds: &[&str]) -> Vec<Outcome> {
    let cases = tuning(2).into_iter().filter(|case| kinds.contains(&case.kind));
    cases
        .map(|case| {
            let samples = generate(&case.spec);
            let mut scores = judge(&samples, None);
            let own = scores.remove(0);
            assert_eq!(own.name, "transit");
            Outcome { case, own, rivals: scores, floor: floor(&samples) }
        })
        .collect()
}

#[test]
fn on_a_plain_road_a_beat_arrives_as_close_as_the_channel_lets_it() {
    for outcome in outcomes(&["plain", "steady clock", "unsteady clock", "asymmetry", "commit"]) {
        let Outcome { case, own, floor, .. } = &outcome;
        // Every minute the clock wanders by as much as a short road's noise.
        let allowed = if case.spec.interval.as_secs() <= 10 { 1.1 } else { 1.4 };
        let ratio = own.arrival.p50 / floor;
        assert!(ratio < allowed, "{}: {ratio:.2} x the noise, {case:?}", own.arrival.p50);
    }
}

#[test]
fn on_a_plain_road_the_offset_is_nearer_than_anybody_elses() {
    let outcomes = outcomes(&["plain", "steady clock", "unsteady clock", "commit"]);
    let mut sum = 0.0;
    for outcome in &outcomes {
        let (own, best) = (outcome.own.offset.p50, outcome.best(|score| score.offset.p50));
        assert!(own < 1.1 * best, "{own} us, a rival has {best}: {:?}", outcome.case);
        sum += (own / best).ln();
    }
    let mean = (sum / outcomes.len() as f64).exp();
    assert!(mean < 0.5, "{mean:.3} x the best rival on each trace, in the mean");
}

#[test]
fn whatever_befalls_the_road_arrivals_are_no_worse_than_anybody_elses() {
    let kinds = ["routes", "congestion", "1 ms stamps", "small steps", "large steps"];
    for outcome in outcomes(&kinds) {
        let (own, best) = (outcome.own.arrival.p50, outcome.best(|score| score.arrival.p50));
        assert!(own < 1.05 * best, "{own} us, a rival has {best}: {:?}", outcome.case);
        let original = outcome.rival("original").arrival.p99;
        let own = outcome.own.arrival.p99;
        assert!(own < 1.1 * original, "p99 {own} us, the original {original}: {:?}", outcome.case);
    }
}

#[test]
fn after_a_step_one_exchange_is_enough_and_the_interval_holds() {
    for outcome in outcomes(&["large steps", "small steps", "routes", "plain"]) {
        let Outcome { case, own, .. } = &outcome;
        assert_eq!(own.interval_violations, 0, "{case:?}");
        if case.kind == "large steps" {
            let (median, worst) = own.recovery.unwrap();
            assert!(median <= 1 && worst <= 3, "recovered in {median}, {worst}: {case:?}");
        }
    }
}
