//! Decides how likely a delay is: the law of what queues add to one way, seen from an uncertain start.

use core::f64::consts::FRAC_1_SQRT_2;

/// Below this many standard deviations a sample is as good as impossible, and the numbers end.
const FARTHEST: f64 = 37.0;
/// One over the root of two pi.
const INVERSE_ROOT: f64 = 0.398_942_280_401_432_7;
/// The queues' scale is no less than this, in nanoseconds.
const SCALE_MIN: f64 = 100.0;
/// What is less likely than this teaches nothing: its numbers are no longer exact.
const DENSITY_LEAST: f64 = 1e-200;
/// The tail: shares, and means in scales of the usual delay.
const TAILS: [(f64, f64); 2] = [(0.7, 6.0), (0.3, 60.0)];

/// The law of the delay that one way adds to its shortest, in nanoseconds.
///
/// Usually the sum of two waits, each exponential with mean `scale` (a gamma of shape 2); where `commit` is
/// not 0, of a third one too, with that mean. Now and then, with the share `tail`, anything: a Lomax of shape
/// 1, whose mean is infinite.
#[derive(Clone, Copy, Debug)]
pub(super) struct Law {
    pub(super) scale: f64,
    pub(super) commit: f64,
    pub(super) tail: f64,
}

/// How likely a lateness is, as a function of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    /// The density, per nanosecond.
    pub(super) density: f64,
    /// The slope of its logarithm.
    pub(super) slope: f64,
    /// The second derivative of its logarithm.
    pub(super) bend: f64,
    /// The part of the density that is not the tail's.
    pub(super) usual: f64,
}

/// A value with its first two derivatives by the lateness.
#[derive(Clone, Copy)]
struct Jet(f64, f64, f64);

impl Law {
    /// The evidence of a sample that is late by anything from `late` to `late + grain`, since its stamp was cut
    /// off to that; and where the start is uncertain by a normal error of `variance`.
    pub(super) fn evidence(&self, late: f64, grain: f64, variance: f64) -> Evidence {
        let deviation = libm::sqrt(variance);
        if grain < self.scale {
            let smooth = Smooth::new(late + grain / 2.0, variance, deviation);
            return self.of(self.usual(&smooth), self.tail(&smooth).0);
        }
        let [low, high] = [late, late + grain].map(|late| {
            let smooth = Smooth::new(late, variance, deviation);
            let all = smooth.below();
            (self.usual_sum(&smooth, all), self.tail_sum(&smooth, all))
        });
        let between = |low: Jet, high: Jet| {
            let share = (high.0 - low.0).max(0.0);
            Jet(share / grain, (high.1 - low.1) / grain, (high.2 - low.2) / grain)
        };
        self.of(between(low.0, high.0), between(low.1, high.1))
    }

    fn of(&self, usual: Jet, tail: Jet) -> Evidence {
        let sum = |a: f64, b: f64| (1.0 - self.tail) * a + self.tail * b;
        let density = sum(usual.0, tail.0);
        if density < DENSITY_LEAST || density.is_nan() {
            return Evidence { density: DENSITY_LEAST, slope: 0.0, bend: 0.0, usual: 0.0 };
        }
        let slope = sum(usual.1, tail.1) / density;
        Evidence {
            density,
            slope,
            bend: sum(usual.2, tail.2) / density - slope * slope,
            usual: (1.0 - self.tail) * usual.0 / density,
        }
    }

    /// The density of a usual delay, with its derivatives.
    fn usual(&self, smooth: &Smooth) -> Jet {
        let waits = smooth.waits(1.0 / self.scale);
        if self.commit > 0.0 {
            return self.with_commit(waits, smooth.waits(1.0 / self.commit).0);
        }
        self.without_commit(smooth, waits)
    }

    fn without_commit(&self, smooth: &Smooth, (e, g): (f64, f64)) -> Jet {
        let a = 1.0 / self.scale;
        let k = a * a;
        Jet(k * g, k * (e - a * g), k * (a * a * g - 2.0 * a * e + smooth.bell))
    }

    /// The sum of the two waits and the commit: with rates a and b its density is
    /// `a a b / (a - b)^2 (exp(-bx) - exp(-ax) (1 + (a - b) x))`.
    fn with_commit(&self, (e, g): (f64, f64), eb: f64) -> Jet {
        let (a, b) = (1.0 / self.scale, 1.0 / self.commit);
        let by = a - b;
        let k = a * a * b / (by * by);
        Jet(
            k * (eb - e - by * g),
            k * (a * e - b * eb - by * (e - a * g)),
            k * (b * b * eb - a * a * e - by * (a * a * g - 2.0 * a * e)),
        )
    }

    /// The share of usual delays below, with its derivatives.
    fn usual_sum(&self, smooth: &Smooth, all: f64) -> Jet {
        let a = 1.0 / self.scale;
        let waits = smooth.waits(a);
        let (e, g) = waits;
        if self.commit > 0.0 {
            let b = 1.0 / self.commit;
            let eb = smooth.waits(b).0;
            let usual = self.with_commit(waits, eb);
            let by = a - b;
            let k = a * a * b / (by * by);
            // The integrals of exp(-bx), exp(-ax) and x exp(-ax) from 0.
            let parts = (all - eb) / b - (all - e) / a - by * ((all - e) / (a * a) - g / a);
            return Jet(k * parts, usual.0, usual.1);
        }
        let usual = self.without_commit(smooth, waits);
        Jet(all - e - a * g, usual.0, usual.1)
    }

    /// The density of a delay that is not usual, with its derivatives; and the share of those above.
    fn tail(&self, smooth: &Smooth) -> (Jet, f64) {
        let scale = self.scale.max(self.commit / 2.0);
        let mut sum = Jet(0.0, 0.0, 0.0);
        let mut above = 0.0;
        for (share, scales) in TAILS {
            let a = 1.0 / (scales * scale);
            let e = smooth.waits(a).0;
            let k = share * a;
            let first = smooth.bell - a * e;
            above += share * e;
            sum.0 += k * e;
            sum.1 += k * first;
            sum.2 += k * (smooth.bell * -smooth.late / smooth.variance - a * first);
        }
        (sum, above)
    }

    fn tail_sum(&self, smooth: &Smooth, all: f64) -> Jet {
        let (tail, above) = self.tail(smooth);
        Jet(all - above, tail.0, tail.1)
    }
}

/// A normal error around a lateness.
struct Smooth {
    late: f64,
    variance: f64,
    deviation: f64,
    /// The density at 0.
    bell: f64,
}

impl Smooth {
    fn new(late: f64, variance: f64, deviation: f64) -> Self {
        let z = late / deviation;
        let far = z.abs() > FARTHEST;
        let bell = if far { 0.0 } else { libm::exp(-z * z / 2.0) * INVERSE_ROOT / deviation };
        Self { late, variance, deviation, bell }
    }

    /// The means of exp(-ax) and of x exp(-ax), over x > 0.
    fn waits(&self, a: f64) -> (f64, f64) {
        let centre = self.late - a * self.variance;
        let z = centre / self.deviation;
        if z < -8.0 {
            // Mills' ratio by its asymptotic series: the direct way would multiply nothing by infinity.
            let v = 1.0 / (z * z);
            let rest = v * (1.0 - v * (3.0 - v * (15.0 - v * (105.0 - v * 945.0))));
            let e = self.bell * self.deviation * (1.0 - rest) / -z;
            return (e, self.bell * self.variance * rest);
        }
        let factor = libm::exp(-a * (centre + a * self.variance / 2.0));
        let e = factor * normal_below(z);
        (e, (centre * e + self.variance * self.bell).max(0.0))
    }

    /// The share of the error that leaves the lateness above 0.
    fn below(&self) -> f64 {
        normal_below(self.late / self.deviation)
    }
}

fn normal_below(z: f64) -> f64 {
    if z > 8.0 {
        return 1.0;
    }
    libm::erfc(-z * FRAC_1_SQRT_2) / 2.0
}

/// What cannot be told from the cut of the stamps.
pub(super) fn least_scale(grain: f64) -> f64 {
    (grain / 20.0).max(SCALE_MIN)
}
