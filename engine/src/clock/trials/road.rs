//! Decides what is stamped on a made-up road, and what is true meanwhile. The same numbers on every build.

use crate::clock::Exchange;
use crate::units::{LocalInstant, ServerInstant};

/// The offset at the start.
pub(super) const OFFSET: i64 = 1_700_000_000_000_000_000;
/// What the server takes for a statement.
const SERVICE: i64 = 40_000;

/// A road, and the clocks at its ends, in nanoseconds. May be changed under way.
#[derive(Clone, Debug)]
pub(super) struct Road {
    /// The shortest way there.
    pub(super) there: i64,
    /// The shortest way back.
    pub(super) back: i64,
    /// The scale of the queues on both ways.
    pub(super) queues: f64,
    /// How often a statement is held up for long: once in so many; 0: never.
    pub(super) held_up: i64,
    /// The mean of a commit that is hidden on the way back.
    pub(super) commit: f64,
    /// The resolution of the server's stamps.
    pub(super) grain: i64,
    /// How much faster the server's clock runs than the local one, in parts per billion.
    pub(super) rate: i64,
    /// From one exchange to the next.
    pub(super) interval: i64,
    /// Now, on the local clock.
    pub(super) at: i64,
    /// Server time minus local time, now.
    pub(super) offset: i64,
    pub(super) chance: u64,
}

impl Road {
    /// Half a millisecond each way, an exchange a second, and a clock that is 20 ppm slow.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            there: 500_000,
            back: 500_000,
            queues: 20_000.0,
            held_up: 50,
            commit: 0.0,
            grain: 1_000,
            rate: 20_000,
            interval: 1_000_000_000,
            at: 1_000_000_000,
            offset: OFFSET,
            chance: seed,
        }
    }

    /// The server's clock is set.
    pub(super) fn step(&mut self, by: i64) {
        self.offset += by;
    }

    /// Time passes.
    pub(super) fn pass(&mut self, nanos: i64) {
        self.at += nanos;
        self.offset += self.gained_in(nanos);
    }

    /// One exchange, begun now; then the time to the next one passes.
    pub(super) fn exchange(&mut self) -> Exchange {
        let (there, back) = (self.there + self.wait(), self.back + self.wait());
        let commit = self.wait_of(self.commit);
        let exchange = self.exchange_of(there, back + commit);
        self.pass(self.interval);
        exchange
    }

    /// One exchange that takes so long on its ways.
    pub(super) fn exchange_of(&self, there: i64, back: i64) -> Exchange {
        let stamp = |after: i64| {
            let exact = self.at + after + self.offset + self.gained_in(after);
            ServerInstant::from_nanos(exact.div_euclid(self.grain) * self.grain)
        };
        let sent = LocalInstant::from_nanos(self.at.unsigned_abs());
        Exchange {
            sent,
            arrived: stamp(there),
            answered: stamp(there + SERVICE),
            received: sent.offset(there + SERVICE + back),
            resolution: u32::try_from(self.grain).unwrap_or(u32::MAX),
        }
    }

    /// What the offset gains in that time.
    pub(super) fn gained_in(&self, nanos: i64) -> i64 {
        (i128::from(nanos) * i128::from(self.rate)).div_euclid(1_000_000_000) as i64
    }

    /// A number from 0 to below 1.
    fn share(&mut self) -> f64 {
        self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.chance >> 33) as f64 / f64::from(1_u32 << 31)
    }

    fn wait_of(&mut self, mean: f64) -> i64 {
        (-mean * libm::log(1.0 - self.share())) as i64
    }

    fn wait(&mut self) -> i64 {
        let queues = self.wait_of(self.queues) + self.wait_of(self.queues);
        let held_up = self.held_up > 0 && self.share() * (self.held_up as f64) < 1.0;
        queues + if held_up { self.wait_of(30.0 * self.queues) } else { 0 }
    }
}
