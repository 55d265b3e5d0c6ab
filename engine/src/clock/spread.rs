//! Decides where the middle of the samples is and how wide they lie, whatever their law.

/// Over so many samples.
const OVER: f64 = 200.0;
/// Of two waits, in scales: the median, and the median distance from it.
const WAITS: (f64, f64) = (1.678, 0.84);
/// Of one wait.
const ONE_WAIT: (f64, f64) = (0.693, 0.481);

/// The median of the samples and the median of their distance from it, in nanoseconds, each moved by a small
/// step towards the side where a sample fell (Robbins and Monro, 1951): no sample counts more than another,
/// however far away it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spread {
    pub(super) centre: f64,
    pub(super) width: f64,
    count: f64,
}

impl Spread {
    pub(super) const NONE: Self = Self { centre: 0.0, width: 0.0, count: 0.0 };

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
        }
    }

    /// See a sample.
    pub(super) fn add(&mut self, value: f64) {
        self.count = (self.count + 1.0).min(OVER);
        // The steps that lose nothing for the laws that are usual.
        let step = 1.85 * self.width / self.count;
        let far = (value - self.centre).abs() > self.width;
        self.centre += if value > self.centre { step } else { -step };
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

    pub(super) fn numbers(&self) -> [f64; 3] {
        [self.centre, self.width, self.count]
    }
}
