//! Decides the offset, its rate and the transit, from the last exchanges: a line through them, in which late
//! ones count little. Proves nothing: what is certain is the interval's, in the parent module.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::units::LocalInstant;

/// So many exchanges are kept.
const KEPT: usize = 24;
/// The median of the delays is taken over so many.
const MEDIAN_OF: usize = 15;
/// With fewer exchanges than this, the rate may be wrong by 200 ppm; with more, by 10.
const FEW: usize = 4;
/// The rate of a clock: most likely within 50 ppm ...
const RATE_LIKELY: f64 = 5e-5;
/// ... and surely within 200.
const RATE_MAX: f64 = 2e-4;
/// So many transits in a row, all on one side of what was foretold and far from it, are a new road or a step.
const STRAYS: usize = 3;
/// Far is more than so many times the usual distance.
const FAR: i64 = 6;

/// One exchange, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Sample {
    pub(super) sent: LocalInstant,
    /// `t1 - t0`: the offset and the way there.
    pub(super) transit: i64,
    /// `t2 - t3`: the offset less the way back.
    pub(super) back: i64,
    pub(super) round_trip: i64,
    /// The stamps may be so much earlier than what they stand for.
    pub(super) resolution: i64,
    /// How far the transit was from what had been foretold; none for the first.
    pub(super) stray: Option<i64>,
}

/// The last exchanges and the line through them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Line {
    samples: VecDeque<Sample>,
    fit: Option<Fit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Fit {
    at: LocalInstant,
    offset: i64,
    transit: i64,
    /// Nanoseconds in a second.
    rate: i64,
}

impl Line {
    /// Forget everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Learn from an exchange. `stray` is filled in here.
    pub(super) fn push(&mut self, sample: Sample) {
        let stray = self.transit(sample.sent).map(|foretold| sample.transit - foretold);
        // The offset is between the two legs of every exchange: a line that runs outside of them, by more than
        // its rate may be wrong, is of another clock.
        let since = self.samples.back().map_or(0, |last| sample.sent.nanos_from(last.sent));
        let slack = if self.samples.len() < FEW { since / 5_000 } else { since / 100_000 };
        let outside = self.offset(sample.sent).is_some_and(|offset| {
            offset < sample.back - slack || offset > sample.transit + sample.resolution + slack
        });
        if self.samples.len() == KEPT {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { stray, ..sample });
        if outside {
            self.keep_last(1);
        } else if self.strays() {
            self.keep_last(STRAYS);
        }
        self.fit = Some(self.fitted(sample.sent));
    }

    pub(super) fn offset(&self, now: LocalInstant) -> Option<i64> {
        self.fit.map(|fit| fit.offset.saturating_add(fit.ahead(now)))
    }

    pub(super) fn transit(&self, now: LocalInstant) -> Option<i64> {
        self.fit.map(|fit| fit.transit.saturating_add(fit.ahead(now)))
    }

    /// The longest of the last few round trips.
    pub(super) fn longest_round_trip(&self) -> Option<i64> {
        self.samples.iter().rev().take(8).map(|sample| sample.round_trip).max()
    }

    fn keep_last(&mut self, kept: usize) {
        let old = self.samples.len().saturating_sub(kept);
        self.samples.drain(..old);
        for sample in &mut self.samples {
            sample.stray = None;
        }
    }

    fn strays(&self) -> bool {
        let strays: Option<Vec<i64>> =
            self.samples.iter().rev().take(STRAYS).map(|sample| sample.stray).collect();
        let Some(strays) = strays.filter(|strays| strays.len() == STRAYS) else { return false };
        let before = self.samples.iter().rev().skip(STRAYS).filter_map(|sample| sample.stray);
        let mut usual: Vec<_> = before.map(i64::abs).collect();
        if usual.len() < STRAYS {
            return false;
        }
        let far = FAR * median(&mut usual).max(1_000);
        strays.iter().all(|stray| *stray > far) || strays.iter().all(|stray| *stray < -far)
    }

    /// The line as of `at`: a regression of the middles of the legs, each weighed down by how much longer
    /// than the shortest its round trip was (as chrony weighs its samples), with the rate drawn towards zero
    /// as much as the noise makes it uncertain.
    fn fitted(&self, at: LocalInstant) -> Fit {
        let Some(last) = self.samples.back() else {
            return Fit { at, offset: 0, transit: 0, rate: 0 };
        };
        let base = middle(last);
        let delay = |sample: &Sample| (sample.transit - sample.back) as f64;
        let shortest = self.samples.iter().map(delay).fold(f64::INFINITY, f64::min);
        let count = self.samples.len() as f64;
        let spread = self.samples.iter().map(|s| delay(s) - shortest).sum::<f64>() / count;
        let spread = spread.max(1_000.0);
        let (mut w, mut wx, mut wy, mut wxx, mut wxy) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for sample in &self.samples {
            let late = (delay(sample) - shortest) / spread;
            let weight = 1.0 / (1.0 + late * late);
            let x = sample.sent.nanos_from(at) as f64;
            let y = (middle(sample) - base) as f64;
            w += weight;
            wx += weight * x;
            wy += weight * y;
            wxx += weight * x * x;
            wxy += weight * x * y;
        }
        let uncertain = spread / RATE_LIKELY;
        let slope = (w * wxy - wx * wy) / (w * wxx - wx * wx + w * uncertain * uncertain);
        let slope = slope.clamp(-RATE_MAX, RATE_MAX);
        let level = (wy - slope * wx) / w;
        let mut transits: Vec<_> = self
            .samples
            .iter()
            .rev()
            .take(MEDIAN_OF)
            .map(|sample| sample.transit - (slope * sample.sent.nanos_from(at) as f64) as i64)
            .collect();
        Fit {
            at,
            offset: base + level as i64,
            transit: median(&mut transits),
            rate: (slope * 1e9) as i64,
        }
    }
}

impl Fit {
    /// What the offset gains from the line's instant to `now`.
    fn ahead(&self, now: LocalInstant) -> i64 {
        let nanos = i128::from(now.nanos_from(self.at)) * i128::from(self.rate) / 1_000_000_000;
        i64::try_from(nanos).unwrap_or(0)
    }
}

fn middle(sample: &Sample) -> i64 {
    sample.back + (sample.transit - sample.back + sample.resolution) / 2
}

/// The lower median; 0 of nothing.
fn median(values: &mut [i64]) -> i64 {
    values.sort_unstable();
    let middle = values.len().saturating_sub(1) / 2;
    values.get(middle).copied().unwrap_or(0)
}
