//! Decides what clocks show: each node's own, with an epoch, a drift, a wander and a resolution of its own,
//! and the server's, which may be set and slewed.

use turnwise_engine::{LocalInstant, ServerInstant};

use crate::random::Stream;
use crate::scenario::LocalClock;

/// Server time at the start of a run: some Tuesday in 2026.
const START_NANOS: i64 = 1_780_000_000_000_000_000;
/// How often the rate of a clock wanders.
const WANDER_EVERY: u64 = 16_000_000_000;

/// A node's clock. True time never goes back.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    resolution: u64,
    wander_ppb: f64,
    /// Where the current stretch of one rate began: true and local.
    since: u64,
    shown: u64,
    rate_ppb: f64,
    random: Stream,
}

impl Local {
    pub(crate) fn new(plan: &LocalClock, seed: u64, name: &str, now: u64) -> Self {
        // It has run since the start, at its first rate.
        let rate_ppb = plan.drift_ppb as f64;
        let run = now as f64 * (1.0 + rate_ppb * 1e-9);
        Self {
            resolution: plan.resolution.0,
            wander_ppb: f64::from(plan.wander_ppb),
            since: now,
            shown: plan.shows.0 + run as u64,
            rate_ppb,
            random: Stream::new(seed, name),
        }
    }

    /// What it shows at true time `now`.
    pub(crate) fn read(&mut self, now: u64) -> LocalInstant {
        if self.wander_ppb > 0.0 {
            while now >= self.since + WANDER_EVERY {
                let next = self.since + WANDER_EVERY;
                self.shown = self.exact(next);
                self.since = next;
                // The square root of sixteen seconds is four.
                self.rate_ppb += self.wander_ppb * 4.0 * self.random.normal();
                self.rate_ppb = self.rate_ppb.clamp(-400_000.0, 400_000.0);
            }
        }
        let exact = self.exact(now);
        LocalInstant::from_nanos(exact - exact % self.resolution)
    }

    /// The true time at which it shows `local`, if its rate stays: not before `now`, and never early.
    pub(crate) fn when(&self, local: LocalInstant, now: u64) -> u64 {
        let target = local.as_nanos().next_multiple_of(self.resolution);
        let ahead = target.saturating_sub(self.shown) as f64;
        let mut at = self.since + (ahead / (1.0 + self.rate_ppb * 1e-9)) as u64;
        while self.exact(at) < target {
            at += target - self.exact(at);
        }
        at.max(now)
    }

    /// It stood still for `lasts`, up to true time `now`.
    pub(crate) fn stood_still(&mut self, now: u64, lasts: u64) {
        let shown = self.exact(now.saturating_sub(lasts).max(self.since));
        self.since = now;
        self.shown = shown;
    }

    fn exact(&self, now: u64) -> u64 {
        let run = now.saturating_sub(self.since);
        let gained = (run as f64 * self.rate_ppb * 1e-9) as i64;
        (self.shown + run).saturating_add_signed(gained)
    }
}

/// The server's clock.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    resolution: i64,
    step: i64,
    /// Since when it is slewed, and by how much.
    slew: Option<(u64, i64)>,
}

impl Server {
    pub(crate) fn new(resolution: u64) -> Self {
        Self { resolution: resolution.max(1) as i64, step: 0, slew: None }
    }

    /// What it shows at true time `now`, with all its digits.
    pub(crate) fn exact(&self, now: u64) -> ServerInstant {
        let slewed = self.slew.map_or(0, |(since, ppm)| {
            let millionths = (now - since) as i64 / 1_000_000;
            millionths.saturating_mul(ppm)
        });
        // It stops at its ends, which no scenario that makes sense comes near.
        ServerInstant::from_nanos(START_NANOS + now as i64).offset(self.step).offset(slewed)
    }

    /// What it stamps.
    pub(crate) fn stamp(&self, now: u64) -> ServerInstant {
        let exact = self.exact(now).as_nanos();
        ServerInstant::from_nanos(exact.saturating_sub(exact.rem_euclid(self.resolution)))
    }

    pub(crate) fn resolution(&self) -> u32 {
        u32::try_from(self.resolution).unwrap_or(u32::MAX)
    }

    pub(crate) fn step(&mut self, by: i64) {
        self.step = self.step.saturating_add(by);
    }

    pub(crate) fn slew(&mut self, now: u64, ppm: i64) {
        self.step = self.exact(now).as_nanos().saturating_sub(START_NANOS + now as i64);
        self.slew = (ppm != 0).then_some((now, ppm));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Span;

    #[test]
    fn a_clock_wakes_when_it_shows_the_time_and_not_before() {
        for (drift_ppb, resolution) in [(0, 1), (200_000, 1), (-399_000, 1_000), (77, 1_000_000)] {
            let plan = LocalClock {
                drift_ppb,
                wander_ppb: 5,
                resolution: Span(resolution),
                ..LocalClock::default()
            };
            let mut clock = Local::new(&plan, 1, "clock", 500);
            let mut now = 500;
            for step in 1..2_000_u64 {
                let target = clock.read(now).offset(step as i64 * 1_000_003);
                let at = clock.when(target, now);
                // When its rate wanders meanwhile, it wakes a little early or late.
                let before = clock.clone().read(at - resolution - 2);
                let wandered = at >= clock.since + WANDER_EVERY;
                assert!(wandered || before < target, "step {step}: early");
                assert!(clock.read(at) >= target || wandered, "step {step}: not there yet");
                now = at;
            }
        }
    }

    #[test]
    fn the_server_keeps_what_a_slew_has_gained() {
        let mut server = Server::new(1_000);
        server.slew(1_000_000_000, 100);
        server.slew(11_000_000_000, 0);
        let gained = server.exact(20_000_000_000).as_nanos() - START_NANOS - 20_000_000_000;
        assert_eq!(gained, 1_000_000);
        assert_eq!(server.stamp(20_000_000_999).as_nanos() % 1_000, 0);
    }

    #[test]
    fn the_server_stops_at_the_ends_of_its_range() {
        for by in [i64::MIN, i64::MAX] {
            let mut server = Server::new(1_000);
            server.step(by);
            server.step(by);
            server.slew(1_000, by.signum() * i64::from(i32::MAX));
            server.slew(1_000_000_000_000_000, 0);
            let shown = server.stamp(2_000_000_000_000_000).as_nanos();
            assert_eq!(shown.signum(), by.signum());
        }
    }
}
