//! Decides what the first exchanges say, before there are enough for the filters.

use super::Sample;
use super::filter::RATE_MAX;

/// So many exchanges are seen before the filters begin.
pub(super) const START: usize = 8;
/// Their rate is believed from so many on.
pub(super) const RATE_FROM: usize = 4;
/// So many exchanges that took alike show a road.
const SAME_ROAD: usize = 4;
/// So many times as far from them as they differ is another one.
const APART: i64 = 4;
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

/// How many of the first exchanges were on another road than those after them: each took longer or shorter
/// than all of the last few by more than these differ. A start that mixes two roads would take their difference
/// for queues, and it would take a hundred exchanges to unlearn that. The delays alone are looked at: no rate is
/// in them.
pub(super) fn other_road(first: &[Sample]) -> usize {
    let most = first.len().saturating_sub(SAME_ROAD);
    let apart = |split: usize| {
        let (before, after) = first.split_at(split);
        are_apart(before, after)
    };
    (1..=most).find(|split| apart(*split)).unwrap_or(0)
}

/// Whether the last few of the first exchanges may be the first on another road: the next ones will tell.
pub(super) fn is_undecided(first: &[Sample]) -> bool {
    (1..SAME_ROAD.min(first.len())).any(|last| {
        let (before, after) = first.split_at(first.len() - last);
        are_apart(after, before)
    })
}

/// Whether each of `some` took longer or shorter than all of a group, by more than these differ.
fn are_apart(some: &[Sample], group: &[Sample]) -> bool {
    let least = group.iter().map(Sample::delay).min().unwrap_or(0);
    let longest = group.iter().map(Sample::delay).max().unwrap_or(0);
    let grain = group.iter().map(|sample| sample.resolution).max().unwrap_or(0);
    let beyond = longest.saturating_sub(least).saturating_mul(APART).saturating_add(2 * grain);
    some.iter().all(|sample| {
        let delay = sample.delay();
        delay > longest.saturating_add(beyond) || delay < least.saturating_sub(beyond)
    })
}

/// The rate of the first samples in ns/s, and how wrong it may be: a regression of the middles, each weighed
/// down by its delay beyond the shortest, drawn towards zero by the noise. Where two that were both fast lie close
/// together, what they differ by is not the rate: it is no more than clocks drift apart.
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
    let rate = (wxy - wx * wy / w) / precision;
    (rate.clamp(-RATE_MAX, RATE_MAX), libm::sqrt(4.0 * noise / precision))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::law::least_scale;
    use crate::units::LocalInstant;

    fn took<const N: usize>(delays: [i64; N]) -> [Sample; N] {
        delays.map(|delay| Sample {
            sent: LocalInstant::from_nanos(0),
            transit: 7_000 + delay,
            back: 7_000,
            took: delay,
            resolution: 1,
        })
    }

    #[test]
    fn exchanges_from_before_a_change_of_the_road_are_told_apart() {
        assert_eq!(other_road(&took([900, 910, 905, 5_000, 5_020, 5_010, 5_005])), 3, "longer");
        assert_eq!(other_road(&took([5_000, 900, 910, 905, 920])), 1, "shorter");
        assert_eq!(other_road(&took([900, 90_000, 5_000, 5_020, 5_010, 5_005])), 2, "held between");
    }

    #[test]
    fn no_rate_is_beyond_what_clocks_do() {
        // Two that took the shortest time, an eighth of a second apart, and two that waited for 3 ms.
        let seen = [(0, 0, 122), (122, 3, 122), (5_546, 7, 125), (9_543, 8, 125)];
        let first = seen.map(|(sent, later, took)| Sample {
            sent: LocalInstant::from_nanos(sent * 1_000_000),
            transit: later * 1_000_000,
            back: (later - took) * 1_000_000,
            took: took * 1_000_000,
            resolution: 1_000,
        });
        let (rate, _) = first_rate(&first, 122_000_000, least_scale(1_000.0));
        assert_eq!(rate, RATE_MAX);
    }

    #[test]
    fn queues_and_too_few_exchanges_are_no_other_road() {
        assert_eq!(other_road(&took([900, 5_000, 5_020, 5_010])), 0, "three may be late by chance");
        assert_eq!(other_road(&took([990, 910, 950, 900, 930, 1_020, 905, 940])), 0, "queues");
        assert_eq!(
            other_road(&took([900, 5_000, 910, 5_010, 905, 5_020, 915, 5_005])),
            0,
            "commits"
        );
    }

    #[test]
    fn where_the_last_few_are_apart_the_next_ones_tell() {
        assert!(is_undecided(&took([900, 910, 905, 915, 920, 5_000, 5_020])), "longer");
        assert!(is_undecided(&took([5_000, 5_010, 5_005, 5_020, 900])), "shorter");
        assert!(!is_undecided(&took([900, 910, 905, 5_000, 5_020, 5_010, 5_005])), "decided");
        assert!(!is_undecided(&took([990, 910, 950, 900, 930, 1_020, 905, 940])), "queues");
    }
}
