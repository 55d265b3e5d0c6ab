//! Decides how good an estimator is on a trace: of the predictions that it made before it saw each sample,
//! how far they were from the truth.

use super::oracle::Oracle;
use super::rivals::{Engine, Estimator, Kalman, Min8, Original, Regression, minus};
use super::trace::{Sample, Spec};

/// So many samples of a trace are seen before judging begins.
pub const WARM_UP: usize = 40;

/// Absolute errors, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Errors {
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

/// How one estimator did on one trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// Its name.
    pub name: &'static str,
    /// Of the offset.
    pub offset: Errors,
    /// Of the arrival: how far the predicted transit was from the next exchange's.
    pub arrival: Errors,
    /// How often the truth lay outside the interval that it claimed, while no clock had stepped since the
    /// oldest sample in use: after a step nothing counts until the estimator says that it found one.
    pub interval_violations: usize,
    /// How many exchanges it took after each step until the offset was good again, within a round trip (or the
    /// resolution of the stamps): the median and the worst.
    pub recovery: Option<(usize, usize)>,
}

/// The channel's own noise on the way there, in microseconds: the median of how far each transit is from the
/// median one, with the offset taken out by the truth. Nobody who aims at the middle arrives closer. Where the
/// routes change it says nothing.
pub fn floor(samples: &[Sample]) -> f64 {
    let mut ways: Vec<_> = samples
        .iter()
        .skip(WARM_UP)
        .map(|sample| minus(sample.exchange.arrived, sample.exchange.sent) - sample.true_offset)
        .collect();
    let count = ways.len();
    if count == 0 {
        return f64::NAN;
    }
    let (_, median, _) = ways.select_nth_unstable(count / 2);
    let median = *median;
    Errors::of(ways.into_iter().map(|way| (way - median).abs()).collect()).p50
}

/// Run every estimator over a trace. The oracle needs the laws.
pub fn judge(samples: &[Sample], laws: Option<&Spec>) -> Vec<Score> {
    let mut scores = vec![
        score("transit", &mut Engine::default(), samples),
        score("original", &mut Original::default(), samples),
        score("min8", &mut Min8::default(), samples),
        score("regression", &mut Regression::default(), samples),
        score("kalman", &mut Kalman::default(), samples),
    ];
    if let Some(laws) = laws {
        scores.push(score("oracle", &mut Oracle::new(laws), samples));
    }
    scores
}

/// Run one estimator over a trace.
pub fn score(name: &'static str, estimator: &mut dyn Estimator, samples: &[Sample]) -> Score {
    let mut offsets = Vec::new();
    let mut arrivals = Vec::new();
    let mut interval_violations = 0;
    let mut recoveries = Vec::new();
    let mut recovering: Option<usize> = None;
    let mut unproven = false;
    let mut last: Option<&Sample> = None;
    for (number, sample) in samples.iter().enumerate() {
        let Sample { exchange, true_offset } = sample;
        let stepped = last.is_some_and(|last| stepped(last, sample));
        let ask = exchange.sent;
        if number >= WARM_UP
            && let (Some(offset), Some(transit)) = (estimator.offset(ask), estimator.transit(ask))
        {
            offsets.push((offset - true_offset).abs());
            arrivals.push((minus(exchange.arrived, ask) - transit).abs());
            if !stepped
                && !unproven
                && let Some((low, high)) = estimator.bounds(ask)
                && !(low..=high).contains(true_offset)
            {
                interval_violations += 1;
            }
        }
        unproven |= stepped;
        if estimator.observe(exchange) {
            unproven = false;
        }
        if stepped {
            recovering = Some(0);
        }
        if let Some(taken) = recovering.take() {
            let delay = exchange.received.nanos_from(exchange.sent);
            let good = delay.max(i64::from(exchange.resolution));
            let now = estimator.offset(exchange.received).unwrap_or(i64::MAX);
            if (now - true_offset).abs() <= good {
                recoveries.push(taken + 1);
            } else {
                recovering = Some(taken + 1);
            }
        }
        last = Some(sample);
    }
    recoveries.sort_unstable();
    let recovery = recoveries.last().map(|worst| (recoveries[(recoveries.len() - 1) / 2], *worst));
    Score {
        name,
        offset: Errors::of(offsets),
        arrival: Errors::of(arrivals),
        interval_violations,
        recovery,
    }
}

/// Whether the offset moved between two samples by more than 500 ppm of the time explains.
fn stepped(last: &Sample, sample: &Sample) -> bool {
    let time = sample.exchange.sent.nanos_from(last.exchange.sent);
    (sample.true_offset - last.true_offset).abs() > time / 2_000 + 1_000
}

impl Errors {
    fn of(mut nanos: Vec<i64>) -> Self {
        nanos.sort_unstable();
        let at = |share: f64| {
            let index = ((nanos.len().saturating_sub(1)) as f64 * share).round() as usize;
            nanos.get(index).map_or(f64::NAN, |nanos| *nanos as f64 / 1e3)
        };
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}
