//! Decides what could be known: a causal particle filter that is told the laws of the trace, but neither the
//! lengths of the ways nor anything that was drawn. The measure of what an estimator can reach.
//!
//! A particle is (u, d, f): the offset plus the shortest way there, the offset less the shortest way back, and
//! the rate of both. An exchange says `t1 - t0 = u + what queues added` and `t2 - t3 = d - what queues and the
//! commit added`. The likelihood is the law of the queues, integrated over the resolution of the stamps.
//! Changes of the route and steps of the clock are proposed from the sample itself (an optimal proposal,
//! Doucet 1998) and weighed by their prior; after each resampling the particles are spread by a kernel that
//! keeps their variance (Liu and West 2001).

use turnwise_engine::{Exchange, LocalInstant};

use super::rivals::{Estimator, minus};
use super::trace::{Queueing, Spec};
use crate::random::Stream;

/// How many particles.
const PARTICLES: usize = 20_000;
/// The share of particles that try each kind of event at each sample, where the laws have it.
const TRIED: f64 = 0.02;
/// The width of the kernel, in standard deviations.
const KERNEL: f64 = 0.05;

/// The oracle of one specification.
pub struct Oracle {
    queueing: Queueing,
    commit: f64,
    resolution: f64,
    drift: f64,
    wander: f64,
    routes: f64,
    route_width: f64,
    congestion: f64,
    step: f64,
    steps: f64,
    random: Stream,
    /// What the particles' numbers are relative to.
    base: i64,
    last: Option<LocalInstant>,
    particles: Vec<Particle>,
    spare: Vec<Particle>,
    weights: Vec<f64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Particle {
    u: f64,
    d: f64,
    f: f64,
    /// Samples of the congestion episode that are left.
    congested: u32,
}

impl Oracle {
    /// One that is told the laws.
    pub fn new(laws: &Spec) -> Self {
        let nanos = |duration: std::time::Duration| duration.as_secs_f64() * 1e9;
        Self {
            queueing: Queueing { scale: nanos(laws.jitter), tail: laws.tail },
            commit: nanos(laws.commit),
            resolution: nanos(laws.resolution).max(1.0),
            drift: laws.drift * 1e-6,
            wander: laws.wander * 1e-9,
            routes: nanos(laws.routes),
            route_width: nanos(laws.rtt) / 2.0,
            congestion: nanos(laws.congestion),
            step: nanos(laws.step),
            steps: nanos(laws.steps),
            random: Stream::new(laws.seed, "oracle"),
            base: 0,
            last: None,
            particles: Vec::new(),
            spare: Vec::new(),
            weights: Vec::new(),
        }
    }

    fn begin(&mut self, there: f64, back: f64) {
        for _ in 0..PARTICLES {
            let u = there + self.resolution * self.random.uniform()
                - self.queueing.draw_from(&mut self.random);
            let hidden = self.queueing.draw_from(&mut self.random)
                - self.commit * self.random.uniform().ln();
            let d = back + self.resolution * self.random.uniform() + hidden;
            let f = (2.0 * self.random.uniform() - 1.0) * self.drift;
            self.particles.push(Particle { u, d, f, congested: 0 });
        }
    }

    fn likelihood_there(&self, queued: f64, crowd: f64) -> f64 {
        let law = Queueing { scale: self.queueing.scale * crowd, ..self.queueing };
        (law.share_below(queued + self.resolution) - law.share_below(queued)) / self.resolution
    }

    /// The way back holds the queue's and the commit's delay: their sum, by its density.
    fn likelihood_back(&self, queued: f64, crowd: f64) -> f64 {
        let law = Queueing { scale: self.queueing.scale * crowd, ..self.queueing };
        if self.commit <= 0.0 {
            let below = |x: f64| law.share_below(x);
            return (below(queued) - below(queued - self.resolution)) / self.resolution;
        }
        if queued < 0.0 {
            return 0.0;
        }
        // The convolution of the law with an exponential, by the midpoint rule over the queue's delay.
        let most = queued.min(law.scale * 12.0);
        let parts = 12;
        let width = most / f64::from(parts);
        (0..parts)
            .map(|part| {
                let x = (f64::from(part) + 0.5) * width;
                law.density(x) * (-(queued - x) / self.commit).exp() / self.commit * width
            })
            .sum()
    }

    fn advance(&mut self, dt: f64) {
        for particle in &mut self.particles {
            particle.f += self.wander * (dt / 1e9).sqrt() * self.random.normal();
            particle.u += particle.f * dt;
            particle.d += particle.f * dt;
        }
    }

    fn weigh(&mut self, dt: f64, there: f64, back: f64) {
        let chance = |mean: f64| if mean > 0.0 { 1.0 - (-dt / mean).exp() } else { 0.0 };
        let (route, step, crowd) =
            (chance(self.routes), chance(self.steps), chance(self.congestion));
        let tried_route = if route > 0.0 { TRIED.max(route) } else { 0.0 };
        let tried_step = if step > 0.0 && self.step > 0.0 { TRIED.max(step) } else { 0.0 };
        self.weights.clear();
        for index in 0..PARTICLES {
            let mut particle = self.particles[index];
            let mut weight = 1.0;
            if particle.congested > 0 {
                particle.congested -= 1;
            } else if self.random.uniform() < crowd {
                particle.congested = 10;
            }
            let crowded = if particle.congested > 0 { 10.0 } else { 1.0 };
            let draw = self.random.uniform();
            let mut u_explained = false;
            let mut d_explained = false;
            if draw < tried_route {
                weight *= route / tried_route;
                let fresh = self.queueing.draw_from(&mut self.random) * crowded;
                if self.random.uniform() < 0.5 {
                    let jumped = there - fresh;
                    weight *= self.route_prior(jumped - particle.u);
                    particle.u = jumped;
                    u_explained = true;
                } else {
                    let commit = -self.commit * self.random.uniform().ln();
                    let jumped = back + fresh + commit;
                    weight *= self.route_prior(jumped - particle.d);
                    particle.d = jumped;
                    d_explained = true;
                }
            } else if draw < tried_route + tried_step {
                weight *= step / tried_step;
                let by = if self.random.uniform() < 0.5 { self.step } else { -self.step };
                particle.u += by;
                particle.d += by;
            } else {
                weight *= (1.0 - route - step).max(1e-9) / (1.0 - tried_route - tried_step);
            }
            if !u_explained {
                weight *= self.likelihood_there(there - particle.u, crowded);
            }
            if !d_explained {
                weight *= self.likelihood_back(particle.d - back, crowded);
            }
            self.particles[index] = particle;
            self.weights.push(weight);
        }
    }

    /// The density of a change of one way's length: the difference of two uniform lengths.
    fn route_prior(&self, change: f64) -> f64 {
        (1.0 - change.abs() / self.route_width).max(0.0) / self.route_width
    }

    fn resample(&mut self) -> bool {
        let total: f64 = self.weights.iter().sum();
        if !(total > 0.0 && total.is_finite()) {
            return false;
        }
        let each = total / PARTICLES as f64;
        let mut pointer = each * self.random.uniform();
        let (mut sum, mut index) = (self.weights[0], 0);
        self.spare.clear();
        for _ in 0..PARTICLES {
            while sum < pointer && index + 1 < PARTICLES {
                index += 1;
                sum += self.weights[index];
            }
            self.spare.push(self.particles[index]);
            pointer += each;
        }
        std::mem::swap(&mut self.particles, &mut self.spare);
        self.spread();
        true
    }

    /// Spread the particles by a normal kernel of their own covariance: each number by itself would take from
    /// them, little by little, what they know of the legs together.
    fn spread(&mut self) {
        let n = PARTICLES as f64;
        let mut mean = [0.0; 3];
        for particle in &self.particles {
            for (sum, value) in mean.iter_mut().zip([particle.u, particle.d, particle.f]) {
                *sum += value / n;
            }
        }
        let mut covariance = [[0.0; 3]; 3];
        for particle in &self.particles {
            let from = [particle.u - mean[0], particle.d - mean[1], particle.f - mean[2]];
            for row in 0..3 {
                for column in 0..=row {
                    covariance[row][column] += from[row] * from[column] / n;
                }
            }
        }
        let root = cholesky(covariance);
        let keep = (1.0 - KERNEL * KERNEL).sqrt();
        for particle in &mut self.particles {
            let draw = [self.random.normal(), self.random.normal(), self.random.normal()];
            let moved =
                |row: usize| KERNEL * (0..=row).map(|i| root[row][i] * draw[i]).sum::<f64>();
            particle.u = mean[0] + keep * (particle.u - mean[0]) + moved(0);
            particle.d = mean[1] + keep * (particle.d - mean[1]) + moved(1);
            particle.f = mean[2] + keep * (particle.f - mean[2]) + moved(2);
        }
    }

    fn median(
        &self,
        now: LocalInstant,
        value: impl Fn(usize, &Particle, f64) -> f64,
    ) -> Option<i64> {
        let dt = now.nanos_from(self.last?) as f64;
        let mut values: Vec<_> = self
            .particles
            .iter()
            .enumerate()
            .map(|(index, particle)| value(index, particle, particle.f * dt))
            .collect();
        let middle = values.len() / 2;
        let (_, median, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
        Some(self.base + *median as i64)
    }
}

/// The lower triangle whose square is the matrix; zero where that has no variance.
fn cholesky(matrix: [[f64; 3]; 3]) -> [[f64; 3]; 3] {
    let mut root = [[0.0; 3]; 3];
    for row in 0..3 {
        for column in 0..=row {
            let rest: f64 = (0..column).map(|i| root[row][i] * root[column][i]).sum();
            let left: f64 = matrix[row][column] - rest;
            root[row][column] = if row == column {
                left.max(0.0).sqrt()
            } else if root[column][column] > 0.0 {
                left / root[column][column]
            } else {
                0.0
            };
        }
    }
    root
}

impl Estimator for Oracle {
    fn offset(&self, now: LocalInstant) -> Option<i64> {
        self.median(now, |_, particle, ahead| f64::midpoint(particle.u, particle.d) + ahead)
    }

    fn transit(&self, now: LocalInstant) -> Option<i64> {
        let mut random = Stream::new(now.as_nanos(), "prediction");
        let draws: Vec<_> = (0..PARTICLES).map(|_| self.queueing.draw_from(&mut random)).collect();
        // A stamp is cut off at its resolution, half of which is lost on average.
        self.median(now, |index, particle, ahead| {
            let crowd = if particle.congested > 0 { 10.0 } else { 1.0 };
            particle.u + ahead + crowd * draws[index] - self.resolution / 2.0
        })
    }

    fn observe(&mut self, exchange: &Exchange) -> bool {
        let there = minus(exchange.arrived, exchange.sent);
        let back = minus(exchange.answered, exchange.received);
        match self.last {
            None => {
                self.base = there;
                self.begin(0.0, (back - there) as f64);
            }
            Some(last) => {
                let dt = exchange.sent.nanos_from(last) as f64;
                self.advance(dt);
                let (there, back) = ((there - self.base) as f64, (back - self.base) as f64);
                self.weigh(dt, there, back);
                if !self.resample() {
                    // Every particle is impossible: the sample tells the truth.
                    self.particles.clear();
                    self.begin(there, back);
                }
            }
        }
        self.last = Some(exchange.sent);
        false
    }
}
