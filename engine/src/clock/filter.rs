//! Decides what one model of the clock makes of an exchange: a filter over the two legs and the rate that they share.

use super::law::{Evidence, Law};

/// The rate is surely within this, in ns/s.
pub(super) const RATE_MAX: f64 = 500_000.0;

/// What one model believes: a normal law over (u, d, f), and how much the model itself is believed.
///
/// `u` is the offset and the shortest way there, `d` the offset less the shortest way back, both in
/// nanoseconds from a base that the owner keeps; `f` is the rate of both in nanoseconds a second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Belief {
    pub(super) u: f64,
    pub(super) d: f64,
    pub(super) f: f64,
    pub(super) uu: f64,
    pub(super) ud: f64,
    pub(super) dd: f64,
    pub(super) uf: f64,
    pub(super) df: f64,
    pub(super) ff: f64,
    /// The logarithm of the model's weight.
    pub(super) weight: f64,
}

/// The two legs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leg {
    There,
    Back,
}

impl Belief {
    pub(super) const NONE: Self = Self {
        u: 0.0,
        d: 0.0,
        f: 0.0,
        uu: 1.0,
        ud: 0.0,
        dd: 1.0,
        uf: 0.0,
        df: 0.0,
        ff: 1.0,
        weight: 0.0,
    };

    pub(super) fn new(u: f64, d: f64, variance: f64, rate: f64, rate_variance: f64) -> Self {
        Self {
            u,
            d,
            f: rate,
            uu: variance,
            ud: 0.0,
            dd: variance,
            uf: 0.0,
            df: 0.0,
            ff: rate_variance,
            weight: 0.0,
        }
    }

    /// `seconds` pass; the rate wanders by `wander` ns/s in a second, and each way by itself by `stray` ns.
    pub(super) fn advance(&mut self, seconds: f64, wander: f64, stray: [f64; 2]) {
        let q = wander * wander * seconds;
        let phase = q * seconds * seconds / 2.0;
        let (f, uf, df, ff) = (self.f, self.uf, self.df, self.ff);
        self.u += f * seconds;
        self.d += f * seconds;
        let square = ff * seconds * seconds + phase;
        self.uu += 2.0 * seconds * uf + square + stray[0] * stray[0];
        self.dd += 2.0 * seconds * df + square + stray[1] * stray[1];
        self.ud += seconds * (uf + df) + square;
        let cross = ff * seconds + q * seconds / 2.0;
        self.uf += cross;
        self.df += cross;
        self.ff += q;
    }

    /// The variance of a leg.
    pub(super) fn variance(&self, leg: Leg) -> f64 {
        match leg {
            Leg::There => self.uu,
            Leg::Back => self.dd,
        }
    }

    /// Learn from a leg: the likelihood has this slope and bend by the leg's lateness.
    fn learn(&mut self, leg: Leg, evidence: &Evidence) {
        let (own, cross, rate, sign) = match leg {
            Leg::There => (self.uu, self.ud, self.uf, -1.0),
            Leg::Back => (self.dd, self.ud, self.df, 1.0),
        };
        // The moments of the product of the normal law and the likelihood; more than all of the variance cannot go.
        let shift = sign * evidence.slope;
        let bend = evidence.bend.max(-(1.0 - 1e-12) / own);
        self.f = (self.f + rate * shift).clamp(-RATE_MAX, RATE_MAX);
        match leg {
            Leg::There => {
                self.u += own * shift;
                self.d += cross * shift;
                self.dd += cross * cross * bend;
                self.df += cross * rate * bend;
                self.uu += own * own * bend;
                self.uf += own * rate * bend;
                self.ud += own * cross * bend;
            }
            Leg::Back => {
                self.d += own * shift;
                self.u += cross * shift;
                self.uu += cross * cross * bend;
                self.uf += cross * rate * bend;
                self.dd += own * own * bend;
                self.df += own * rate * bend;
                self.ud += own * cross * bend;
            }
        }
        self.ff += rate * rate * bend;
    }

    /// How likely the legs of an exchange are, each by itself, under these laws: `t1 - t0` and `t2 - t3`, from
    /// the same base as `u` and `d`. Stamps are cut off to a `grain`.
    pub(super) fn expect(
        &self,
        there: f64,
        back: f64,
        grain: f64,
        laws: &[Law; 2],
    ) -> [Evidence; 2] {
        let [on_the_way, on_return] = laws;
        [
            on_the_way.evidence(there - self.u, grain, self.uu),
            on_return.evidence(self.d - back - grain, grain, self.dd),
        ]
    }

    /// See an exchange, and weigh the belief by it.
    pub(super) fn observe(&mut self, there: f64, back: f64, grain: f64, laws: &[Law; 2]) {
        let [on_the_way, on_return] = laws;
        let first = on_the_way.evidence(there - self.u, grain, self.uu);
        self.learn(Leg::There, &first);
        let second = on_return.evidence(self.d - back - grain, grain, self.dd);
        self.learn(Leg::Back, &second);
        self.weight += libm::log(first.density) + libm::log(second.density);
    }

    /// Both legs moved alike: the clock was set by about `by`, give or take `deviation`; and the rate may be wrong
    /// by `rate`. No rate explains an hour: without its limit a belief would get so wide that it is wrong by hours
    /// and yet not lost.
    pub(super) fn step(&mut self, by: f64, deviation: f64, rate: f64) {
        let variance = deviation * deviation;
        let rate = rate.clamp(-RATE_MAX, RATE_MAX);
        self.u += by;
        self.d += by;
        self.uu += variance;
        self.ud += variance;
        self.ff += rate * rate;
        self.dd += variance;
    }

    /// A way has another length now: what was known of this leg is void.
    pub(super) fn replace(&mut self, leg: Leg, value: f64, deviation: f64) {
        self.ud = 0.0;
        match leg {
            Leg::There => {
                self.u = value;
                self.uu = deviation * deviation;
                self.uf = 0.0;
            }
            Leg::Back => {
                self.d = value;
                self.dd = deviation * deviation;
                self.df = 0.0;
            }
        }
    }

    /// Whether all of it are numbers and its variances are positive.
    pub(super) fn is_sound(&self) -> bool {
        let positive = self.uu > 0.0 && self.dd > 0.0 && self.ff > 0.0;
        positive && self.numbers().into_iter().all(f64::is_finite)
    }

    /// Whether this is nowhere near a better belief.
    pub(super) fn is_lost(&self, better: &Self) -> bool {
        let (u, d) = (self.u - better.u, self.d - better.d);
        u * u > 64.0 * (self.uu + better.uu) || d * d > 64.0 * (self.dd + better.dd)
    }

    /// Count from another base.
    pub(super) fn rebase(&mut self, by: f64) {
        self.u -= by;
        self.d -= by;
    }

    pub(super) fn numbers(&self) -> [f64; 10] {
        let Self { u, d, f, uu, ud, dd, uf, df, ff, weight } = *self;
        [u, d, f, uu, ud, dd, uf, df, ff, weight]
    }
}
