//! Decides what many numbers come to: the median, the 99th percentile and the largest; and what of a channel is noise.

use serde::Serialize;

/// Of absolute values, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// How many there were.
    pub count: usize,
    /// The median.
    pub p50: f64,
    /// The 99th percentile: of fewer than a hundred, the largest.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of signed values in nanoseconds; not a number where there are none.
    pub fn of_nanos(values: impl IntoIterator<Item = i64>) -> Self {
        let mut values: Vec<_> = values.into_iter().map(i64::unsigned_abs).collect();
        values.sort_unstable();
        let at = |part: f64| {
            let place = ((values.len() as f64 * part) as usize).min(values.len().saturating_sub(1));
            values.get(place).map_or(f64::NAN, |nanos| *nanos as f64 / 1_000.0)
        };
        Self { count: values.len(), p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

/// Of a few runs of the same thing: the middle one, and how far the others are from it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Runs {
    /// The median; of an even number, the lower of the two.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Runs {
    /// None where there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        Some(Self { median: values[(values.len() - 1) / 2], min, max })
    }
}

/// How far each transit of one node is from the line through them, in nanoseconds, in their order. The line takes out
/// what the two clocks differ by and how that changes; it is drawn through the medians of the first and the last third
/// (Tukey's resistant line), which a few late ones do not tilt. Nobody who aims at the middle arrives closer.
///
/// `transits`: when each was sent, and how much later by the server's clock it arrived, both in nanoseconds.
pub fn noise(transits: &[(i64, i64)]) -> Vec<i64> {
    let third = transits.len() / 3;
    let (Some(first), Some(last)) = (transits.get(..third), transits.get(transits.len() - third..))
    else {
        return Vec::new();
    };
    let (Some(first), Some(last)) = (middle(first), middle(last)) else { return Vec::new() };
    let slope = match last.0 - first.0 {
        0 => 0.0,
        long => (last.1 - first.1) as f64 / long as f64,
    };
    let flat = |(at, transit): &(i64, i64)| {
        transit - first.1 - (slope * (at - first.0) as f64).round() as i64
    };
    let mut rests: Vec<i64> = transits.iter().map(flat).collect();
    let mut sorted = rests.clone();
    sorted.sort_unstable();
    let median = sorted[sorted.len() / 2];
    rests.iter_mut().for_each(|rest| *rest -= median);
    rests
}

/// The median of both coordinates.
fn middle(points: &[(i64, i64)]) -> Option<(i64, i64)> {
    let median = |mut values: Vec<i64>| {
        values.sort_unstable();
        values.get(values.len() / 2).copied()
    };
    let (at, transit) = points.iter().copied().unzip();
    Some((median(at)?, median(transit)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_of_absolute_values() {
        let spread = Spread::of_nanos((-100..0).map(|value| value * 1_000));
        assert_eq!(spread, Spread { count: 100, p50: 51.0, p99: 100.0, max: 100.0 });
        assert!(Spread::of_nanos([]).p50.is_nan());
    }

    #[test]
    fn of_a_few_runs_the_middle_one_and_the_ends_are_told() {
        let runs = Runs::of([3.0, 1.0, 2.0, 9.0]).unwrap();
        assert_eq!(runs, Runs { median: 2.0, min: 1.0, max: 9.0 });
        assert_eq!(Runs::of([]), None);
    }

    #[test]
    fn a_clock_that_runs_fast_is_no_noise_and_a_late_answer_tilts_nothing() {
        let mut transits: Vec<_> =
            (0..90).map(|second| (second * 1_000_000_000, 7_000 + second * 40_000)).collect();
        assert!(noise(&transits).iter().all(|rest| *rest == 0));
        transits[80].1 += 5_000_000;
        let rests = noise(&transits);
        assert_eq!((rests[80], rests[0], rests[89]), (5_000_000, 0, 0));
        assert!(noise(&transits[..2]).is_empty());
    }
}
