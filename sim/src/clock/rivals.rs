//! Decides how each rival estimates the offset and the transit. The engine's own is [`Engine`]; the others are
//! the yardsticks that others use.

use std::collections::VecDeque;

use turnwise_engine::{Clock, Exchange, Learned, LocalInstant, ServerInstant};

/// An estimator of the server's clock. It is asked before it sees a sample.
pub trait Estimator {
    /// Server minus local time at `now`, in nanoseconds.
    fn offset(&self, now: LocalInstant) -> Option<i64>;
    /// `t1 - t0` of an exchange that is sent at `now`, in nanoseconds.
    fn transit(&self, now: LocalInstant) -> Option<i64>;
    /// The interval that surely holds the offset, where the estimator claims one.
    fn bounds(&self, _now: LocalInstant) -> Option<(i64, i64)> {
        None
    }
    /// See a sample. True when the estimator found that a clock stepped.
    fn observe(&mut self, exchange: &Exchange) -> bool;
}

/// The engine's.
#[derive(Debug, Default)]
pub struct Engine(Clock);

impl Estimator for Engine {
    fn offset(&self, now: LocalInstant) -> Option<i64> {
        self.0.offset(now).map(|offset| offset.nanos)
    }

    fn transit(&self, now: LocalInstant) -> Option<i64> {
        self.0.transit(now)
    }

    fn bounds(&self, now: LocalInstant) -> Option<(i64, i64)> {
        self.0.bounds(now)
    }

    fn observe(&mut self, exchange: &Exchange) -> bool {
        self.0.observe(exchange) == Learned::Step
    }
}

/// The original design: one sample; the server's one stamp and half the round trip.
#[derive(Debug, Default)]
pub struct Original {
    last: Option<(i64, i64)>,
}

impl Estimator for Original {
    fn offset(&self, _: LocalInstant) -> Option<i64> {
        self.last.map(|(offset, _)| offset)
    }

    fn transit(&self, _: LocalInstant) -> Option<i64> {
        self.last.map(|(offset, way)| offset + way)
    }

    fn observe(&mut self, exchange: &Exchange) -> bool {
        let half = exchange.received.nanos_from(exchange.sent) / 2;
        self.last = Some((minus(exchange.arrived, exchange.received) + half, half));
        false
    }
}

/// NTP's clock filter: of the last eight samples the one with the shortest round trip (RFC 5905, section 10).
#[derive(Debug, Default)]
pub struct Min8 {
    last: VecDeque<Point>,
}

impl Estimator for Min8 {
    fn offset(&self, _: LocalInstant) -> Option<i64> {
        self.best().map(|point| point.offset)
    }

    fn transit(&self, _: LocalInstant) -> Option<i64> {
        self.best().map(|point| point.offset + point.delay / 2)
    }

    fn observe(&mut self, exchange: &Exchange) -> bool {
        keep(&mut self.last, Point::of(exchange), 8);
        false
    }
}

impl Min8 {
    fn best(&self) -> Option<&Point> {
        self.last.iter().min_by_key(|point| point.delay)
    }
}

/// A weighted regression over the last samples, as chrony does: the weight falls with the square of the
/// delay beyond the shortest.
#[derive(Debug, Default)]
pub struct Regression {
    last: VecDeque<Point>,
}

impl Estimator for Regression {
    fn offset(&self, now: LocalInstant) -> Option<i64> {
        let origin = self.last.back()?.at;
        let least = self.last.iter().map(|point| point.delay).min()? as f64;
        let mean = self.last.iter().map(|point| point.delay as f64 - least).sum::<f64>()
            / self.last.len() as f64;
        let base = self.last.back()?.offset;
        let (mut w, mut wx, mut wy, mut wxx, mut wxy) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for point in &self.last {
            let late = (point.delay as f64 - least) / mean.max(1.0);
            let weight = 1.0 / (1.0 + late * late);
            let x = point.at.nanos_from(origin) as f64;
            let y = (point.offset - base) as f64;
            w += weight;
            wx += weight * x;
            wy += weight * y;
            wxx += weight * x * x;
            wxy += weight * x * y;
        }
        let spread = w * wxx - wx * wx;
        let slope =
            if self.last.len() > 2 && spread > 0.0 { (w * wxy - wx * wy) / spread } else { 0.0 };
        let level = (wy - slope * wx) / w;
        Some(base + (level + slope * now.nanos_from(origin) as f64) as i64)
    }

    fn transit(&self, now: LocalInstant) -> Option<i64> {
        let mut delays: Vec<_> = self.last.iter().map(|point| point.delay).collect();
        delays.sort_unstable();
        Some(self.offset(now)? + delays.get(delays.len() / 2)? / 2)
    }

    fn observe(&mut self, exchange: &Exchange) -> bool {
        keep(&mut self.last, Point::of(exchange), 32);
        false
    }
}

/// A Kalman filter over offset and frequency, whose measurement noise is half the delay beyond the shortest.
#[derive(Debug, Default)]
pub struct Kalman {
    state: Option<KalmanState>,
    delays: VecDeque<i64>,
}

#[derive(Clone, Copy, Debug)]
struct KalmanState {
    base: i64,
    offset: f64,
    frequency: f64,
    variance: [[f64; 2]; 2],
    at: LocalInstant,
}

impl Estimator for Kalman {
    fn offset(&self, now: LocalInstant) -> Option<i64> {
        let state = self.state?;
        let ahead = state.frequency * now.nanos_from(state.at) as f64;
        Some(state.base + (state.offset + ahead) as i64)
    }

    fn transit(&self, now: LocalInstant) -> Option<i64> {
        let mut delays: Vec<_> = self.delays.iter().copied().collect();
        delays.sort_unstable();
        Some(self.offset(now)? + delays.get(delays.len() / 2)? / 2)
    }

    fn observe(&mut self, exchange: &Exchange) -> bool {
        let point = Point::of(exchange);
        keep(&mut self.delays, point.delay, 32);
        let Some(mut state) = self.state else {
            self.state = Some(KalmanState {
                base: point.offset,
                offset: 0.0,
                frequency: 0.0,
                variance: [[1e12, 0.0], [0.0, 1e-8]],
                at: point.at,
            });
            return false;
        };
        let dt = point.at.nanos_from(state.at) as f64;
        state.offset += state.frequency * dt;
        let [[a, b], [_, d]] = state.variance;
        let wander = 1e-17 * dt / 1e9;
        let a = a + 2.0 * dt * b + dt * dt * d + 1e4;
        let (b, d) = (b + dt * d, d + wander);
        let least = self.delays.iter().copied().min().unwrap_or(0);
        let noise = ((point.delay - least) as f64 / 2.0).powi(2) + 1e8;
        let gain = (a / (a + noise), b / (a + noise));
        let surprise = (point.offset - state.base) as f64 - state.offset;
        state.offset += gain.0 * surprise;
        state.frequency += gain.1 * surprise;
        state.variance =
            [[(1.0 - gain.0) * a, (1.0 - gain.0) * b], [(1.0 - gain.0) * b, d - gain.1 * b]];
        state.at = point.at;
        self.state = Some(state);
        false
    }
}

#[derive(Clone, Copy, Debug)]
struct Point {
    at: LocalInstant,
    offset: i64,
    delay: i64,
}

impl Point {
    fn of(exchange: &Exchange) -> Self {
        let upper = minus(exchange.arrived, exchange.sent);
        let lower = minus(exchange.answered, exchange.received);
        Self { at: exchange.sent, offset: lower + (upper - lower) / 2, delay: upper - lower }
    }
}

fn keep<T>(last: &mut VecDeque<T>, value: T, most: usize) {
    if last.len() == most {
        last.pop_front();
    }
    last.push_back(value);
}

/// Server minus local.
pub(super) fn minus(server: ServerInstant, local: LocalInstant) -> i64 {
    server.as_nanos() - local.as_nanos() as i64
}
