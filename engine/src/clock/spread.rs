//! Decides where the middle of the samples is and how wide they lie, whatever their law.

/// Over so many samples.
const OVER: f64 = 200.0;
/// After so many samples in a row on one side of the middle it is the middle that has moved: of two hundred, one
/// such row is chance.
const ASTRAY: u8 = 8;
/// Then it is believed no more than after so many samples, or half as much as before.
const OVER_LEAST: f64 = 5.0;
/// Of two waits, in scales: the median, and the median distance from it.
const WAITS: (f64, f64) = (1.678, 0.84);
/// Of one wait.
const ONE_WAIT: (f64, f64) = (0.693, 0.481);

/// The median of the samples and the median of their distance from it, in nanoseconds, each moved by a small
/// step towards the side where a sample fell (Robbins and Monro, 1951): no sample counts more than another,
/// however far away it is. The steps grow smaller with each sample, but where one side gets them all they grow
/// again (after Kesten, 1958): the line that lateness is counted from may have been moved away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spread {
    pub(super) centre: f64,
    pub(super) width: f64,
    count: f64,
    /// So many samples in a row fell on the side that the last one did, by more than the grain.
    same: u8,
    above: bool,
}

impl Spread {
    pub(super) const NONE: Self =
        Self { centre: 0.0, width: 0.0, count: 0.0, same: 0, above: false };

    /// What queues of a scale will show, stamps being cut off to a `grain`.
    pub(super) fn of_waits(scale: f64, grain: f64) -> Self {
        Self::around(WAITS, scale, grain)
    }

    /// The same of one wait.
    pub(super) fn of_one_wait(mean: f64, grain: f64) -> Self {
        Self::around(ONE_WAIT, mean, grain)
    }

    fn around((centre, width): (f64, f64), scale: f64, grain: f64) -> Self {
        Self {
            centre: centre * scale - grain / 2.0,
            width: width * scale + grain / 4.0,
            count: 5.0,
            same: 0,
            above: false,
        }
    }

    /// See a sample, of stamps that are cut off to a `grain`: within that, a slow clock stays on one side for long.
    pub(super) fn add(&mut self, value: f64, grain: f64) {
        let above = value > self.centre;
        let beyond = (value - self.centre).abs() > grain;
        let before = if above == self.above { self.same } else { 0 };
        self.same = if beyond { before.saturating_add(1) } else { 0 };
        self.above = above;
        self.count = match self.same >= ASTRAY {
            true => (self.count / 2.0).max(self.count.min(OVER_LEAST)),
            false => (self.count + 1.0).min(OVER),
        };
        // The steps that lose nothing for the laws that are usual.
        let step = 1.85 * self.width / self.count;
        let far = (value - self.centre).abs() > self.width;
        self.centre += if above { step } else { -step };
        let by = 1.5 / (self.count + 2.0);
        self.width *= if far { 1.0 + by } else { 1.0 - by };
    }

    /// A sample beyond this is late, as one in four is.
    pub(super) fn late(&self) -> f64 {
        self.centre + 1.2 * self.width
    }

    /// The scale of two waits that shows this width: from ... to ..., since part of the width is the stamps'
    /// grain.
    pub(super) fn scale_of_waits(&self, grain: f64) -> (f64, f64) {
        self.without(grain, WAITS.1)
    }

    /// The mean of one wait that shows it.
    pub(super) fn scale_of_one_wait(&self, grain: f64) -> (f64, f64) {
        self.without(grain, ONE_WAIT.1)
    }

    fn without(&self, grain: f64, width: f64) -> (f64, f64) {
        let cut = grain * grain / 16.0;
        let [low, high] = [1.5, 0.8]
            .map(|share| libm::sqrt((self.width * self.width - share * cut).max(0.0)) / width);
        (low, high)
    }

    pub(super) fn numbers(&self) -> [f64; 4] {
        let same = f64::from(self.same);
        [self.centre, self.width, self.count, if self.above { same } else { -same }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many samples of 10 around `middle` it takes to find that.
    fn takes(spread: &mut Spread, middle: f64) -> u32 {
        let mut taken = 0;
        while (spread.centre - middle).abs() > 11.0 && taken < 1_000 {
            spread.add(middle + if taken % 2 == 0 { 10.0 } else { -10.0 }, 1.0);
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_middle_that_was_moved_away_is_found_again() {
        let mut spread = Spread::of_waits(10.0, 0.0);
        for sample in 0..1_000_u32 {
            spread.add(if sample.is_multiple_of(2) { 10.0 } else { -10.0 }, 1.0);
        }
        assert!(spread.centre.abs() < 11.0, "{}", spread.centre);
        // By steps that only grow smaller it takes 270.
        let taken = takes(&mut spread, 500.0);
        assert!(taken < 40, "{taken}");
    }

    #[test]
    fn within_the_grain_of_the_stamps_nothing_is_astray() {
        let mut spread = Spread::of_waits(10.0, 0.0);
        let mut fine = spread;
        for _ in 0..8 {
            spread.add(60.0, 100.0);
            fine.add(60.0, 1.0);
        }
        assert!(spread.count > 12.0, "{}", spread.count);
        assert!(fine.count < 7.0, "{}", fine.count);
    }
}
