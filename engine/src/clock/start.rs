//! Decides what the first exchanges say, before there are enough for the filters.

use super::Sample;

/// So many exchanges are seen before the filters begin.
pub(super) const START: usize = 8;
/// Their rate is believed from so many on.
pub(super) const RATE_FROM: usize = 4;
/// Of the sum of four waits, both ways together: how far, in scales, the median of the first exchanges lies above
/// the least of them.
pub(super) const WAITS_FOUR: f64 = 1.9;
/// The rate of a clock that nothing is known of: the standard deviation in ns/s.
const RATE_DEVIATION: f64 = 50_000.0;

/// The lower median of a quantity of the first samples.
pub(super) fn median_of(samples: &[Sample], quantity: impl Fn(&Sample) -> i64) -> i64 {
    let mut values = [i64::MAX; START];
    for (value, sample) in values.iter_mut().zip(samples) {
        *value = quantity(sample);
    }
    values.sort_unstable();
    values[samples.len().saturating_sub(1) / 2]
}

/// The rate of the first samples in ns/s, and how wrong it may be: a regression of the middles, each weighed
/// down by its delay beyond the shortest, drawn towards zero by the noise.
pub(super) fn first_rate(first: &[Sample], shortest: i64, scale: f64) -> (f64, f64) {
    let [oldest, ..] = first else { return (0.0, RATE_DEVIATION) };
    let (mut w, mut wx, mut wy, mut wxx, mut wxy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for sample in first {
        let late = sample.delay().saturating_sub(shortest) as f64 / (4.0 * scale);
        let weight = 1.0 / (1.0 + late * late);
        let x = sample.sent.nanos_from(oldest.sent) as f64 / 1e9;
        let there = sample.transit.saturating_sub(oldest.transit) as f64;
        let back = sample.back.saturating_sub(oldest.transit) as f64;
        let y = f64::midpoint(there, back);
        w += weight;
        wx += weight * x;
        wy += weight * y;
        wxx += weight * x * x;
        wxy += weight * x * y;
    }
    let grain = oldest.resolution as f64;
    let noise = 4.0 * scale * scale + grain * grain / 12.0;
    let precision = wxx - wx * wx / w + noise / (RATE_DEVIATION * RATE_DEVIATION);
    ((wxy - wx * wy / w) / precision, libm::sqrt(4.0 * noise / precision))
}

/// The scale of the way there alone, of the first samples: the median of how far each is from the line between
/// its neighbours, which no rate disturbs.
pub(super) fn bent_scale(first: &[Sample; START], leg: fn(&Sample) -> i64) -> f64 {
    let mut bends = [0.0; START - 2];
    for (bend, three) in bends.iter_mut().zip(first.windows(3)) {
        let [a, b, c] = three else { continue };
        let whole = c.sent.nanos_from(a.sent).max(1) as f64;
        let part = b.sent.nanos_from(a.sent) as f64 / whole;
        let from = |sample: &Sample| leg(sample).saturating_sub(leg(b)) as f64;
        *bend = (from(a) * (1.0 - part) + from(c) * part).abs();
    }
    bends.sort_unstable_by(f64::total_cmp);
    bends[bends.len() / 2] / 1.2
}
