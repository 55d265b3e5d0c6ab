//! Decides what this node knows of the server's clock: an interval that surely holds the offset, and how
//! early a statement must leave to arrive on time. Knows nothing of slots.
//!
//! Every round trip is an NTP exchange (RFC 5905, section 8): `t0` local send, `t1` server receive, `t2`
//! server reply, `t3` local receive. Writing the offset as server time minus local time, the way there
//! takes `t1 - t0 - offset` and the way back `t3 - t2 + offset`. Neither is negative, so each exchange
//! proves that the offset lies in `[t2 - t3, t1 - t0]` (Cristian, 1989). The intervals of all exchanges,
//! widened by what the local clock may have drifted since, are intersected; an empty intersection proves
//! that a clock stepped.
//!
//! To arrive at server time `S` a statement must be sent at local time `L` with `L + (t1 - t0) = S`: what
//! is needed is `t1 - t0`, the *transit*, which each exchange observes directly. The offset and the way
//! there are never told apart, so an asymmetric path costs nothing. The best guess of both is `line`'s.

mod line;

use core::marker::PhantomData;

use serde::{Deserialize, Serialize};

use self::line::{Line, Sample};
use crate::sabotage::{Bug, Sabotage, Sound};
use crate::units::{LocalInstant, ServerInstant};

/// How fast the two clocks may drift apart, in parts per million: what NTP assumes of an undisciplined
/// clock (RFC 5905, PHI is 15 ppm; 500 ppm is its limit on the frequency correction).
const DRIFT_PPM: i64 = 500;

/// The four stamps of one round trip, and the resolution of the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Exchange {
    /// `t0`: when the statement was handed to the socket.
    pub sent: LocalInstant,
    /// `t1`: when the server received it.
    pub arrived: ServerInstant,
    /// `t2`: when the server answered.
    pub answered: ServerInstant,
    /// `t3`: when the answer was read.
    pub received: LocalInstant,
    /// The resolution of the server's stamps in nanoseconds: a stamp may be that much earlier than the
    /// instant it stands for.
    pub resolution: u32,
}

impl Exchange {
    fn round_trip(&self) -> i64 {
        self.received.nanos_from(self.sent).max(0)
    }
}

/// What an exchange told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// It agrees with all before it.
    Consistent,
    /// It cannot agree with those before it: a clock stepped, or one of the clocks is not what it was.
    /// Everything older is forgotten; exchange again soon.
    Step,
}

/// The offset of the server's clock from the local one, and the transit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Clock<S: Sabotage = Sound> {
    /// The interval as of `at`, none before the first exchange.
    bounds: Option<Bounds>,
    line: Line,
    smallest_round_trip: i64,
    sabotage: PhantomData<S>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Bounds {
    low: i64,
    high: i64,
    at: LocalInstant,
}

/// The offset, in nanoseconds of server time minus local time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Offset {
    /// The best guess.
    pub nanos: i64,
    /// The truth is not further away than this.
    pub error: i64,
}

impl Clock {
    /// A clock that knows nothing.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<S: Sabotage> Clock<S> {
    /// Learn from an exchange.
    pub fn observe(&mut self, exchange: &Exchange) -> Learned {
        let resolution = if S::plants(Bug::IntervalIgnoresResolution) {
            0
        } else {
            i64::from(exchange.resolution)
        };
        let spread = resolution + drift(exchange.round_trip());
        let upper = difference(exchange.arrived, exchange.sent);
        let lower = difference(exchange.answered, exchange.received);
        let fresh = Bounds { low: lower - spread, high: upper + spread, at: exchange.received };
        if fresh.low > fresh.high {
            // A clock was set between two of the stamps: they belong to no one offset.
            *self = Self::default();
            return Learned::Step;
        }
        let (bounds, learned) = match self.bounds {
            None => (fresh, Learned::Consistent),
            Some(old) => {
                let old = self.widened(old, exchange.received);
                let both =
                    Bounds { low: old.low.max(fresh.low), high: old.high.min(fresh.high), ..fresh };
                if both.low <= both.high {
                    (both, Learned::Consistent)
                } else if S::plants(Bug::StepIsIgnored) {
                    (old, Learned::Consistent)
                } else {
                    self.line.clear();
                    self.smallest_round_trip = i64::MAX;
                    (fresh, Learned::Step)
                }
            }
        };
        self.bounds = Some(bounds);
        self.line.push(Sample {
            sent: exchange.sent,
            transit: upper,
            back: lower,
            round_trip: exchange.round_trip(),
            resolution: i64::from(exchange.resolution),
            stray: None,
        });
        self.smallest_round_trip = self.smallest_round_trip.min(exchange.round_trip());
        learned
    }

    /// The interval that surely holds the offset at local time `now`, in nanoseconds.
    pub fn bounds(&self, now: LocalInstant) -> Option<(i64, i64)> {
        let Bounds { low, high, .. } = self.widened(self.bounds?, now);
        Some((low, high))
    }

    /// The offset at local time `now`; none before the first exchange.
    pub fn offset(&self, now: LocalInstant) -> Option<Offset> {
        let (low, high) = self.bounds(now)?;
        let nanos = self.line.offset(now)?.clamp(low, high);
        Some(Offset { nanos, error: (high - nanos).max(nanos - low) })
    }

    /// Server time at local time `now`, as far as known.
    pub fn server_time(&self, now: LocalInstant) -> Option<ServerInstant> {
        let nanos = now.as_nanos() as i64;
        Some(ServerInstant::from_nanos(nanos.saturating_add(self.offset(now)?.nanos)))
    }

    /// When a statement must be sent to arrive at `arrival`.
    pub fn send_time(&self, arrival: ServerInstant) -> Option<LocalInstant> {
        let sent = |transit: i64| {
            let nanos = arrival.as_nanos().saturating_sub(transit);
            LocalInstant::from_nanos(u64::try_from(nanos).unwrap_or(0))
        };
        // The transit depends on the time of sending, by the rate, which is below one in a thousand.
        let about = sent(self.transit(LocalInstant::from_nanos(0))?);
        let nearly = sent(self.transit(about)?);
        Some(sent(self.transit(nearly)?))
    }

    /// `t1 - t0` of an exchange that is sent at `now`, in nanoseconds of server minus local time.
    pub fn transit(&self, now: LocalInstant) -> Option<i64> {
        if S::plants(Bug::AimWithoutTransit) {
            return Some(self.offset(now)?.nanos);
        }
        if S::plants(Bug::AimByHalfRoundTrip) {
            let (shortest, _) = self.round_trips()?;
            return Some(self.offset(now)?.nanos.saturating_add(shortest / 2));
        }
        let transit = self.line.transit(now)?;
        if S::plants(Bug::RateIsReversed) {
            // What was added for the time since the last exchange is taken off instead.
            let last = self.bounds?.at;
            return Some(2 * self.line.transit(last)? - transit);
        }
        Some(transit)
    }

    fn widened(&self, bounds: Bounds, now: LocalInstant) -> Bounds {
        if S::plants(Bug::IntervalDoesNotWiden) {
            return Bounds { at: now, ..bounds };
        }
        bounds.widened_to(now)
    }

    /// The shortest round trip since the last step and the longest of the last few, in nanoseconds.
    pub fn round_trips(&self) -> Option<(i64, i64)> {
        let longest = self.line.longest_round_trip()?;
        Some((self.smallest_round_trip, longest))
    }
}

impl<S: Sabotage> Default for Clock<S> {
    fn default() -> Self {
        Self {
            bounds: None,
            line: Line::default(),
            smallest_round_trip: i64::MAX,
            sabotage: PhantomData,
        }
    }
}

impl Bounds {
    fn widened_to(self, now: LocalInstant) -> Self {
        let by = drift(now.nanos_from(self.at).max(0));
        Self { low: self.low - by, high: self.high + by, at: now }
    }
}

fn drift(nanos: i64) -> i64 {
    nanos / 1_000_000 * DRIFT_PPM + DRIFT_PPM
}

/// Server minus local, which has the width of a server instant.
fn difference(server: ServerInstant, local: LocalInstant) -> i64 {
    server.as_nanos().saturating_sub(local.as_nanos() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFSET: i64 = 1_700_000_000_000_000_000;

    /// An exchange sent at `at`, `there` and `back` ns on the way, with a true offset of `offset`.
    fn exchange(at: u64, there: i64, back: i64, offset: i64) -> Exchange {
        let sent = LocalInstant::from_nanos(at);
        let arrived = ServerInstant::from_nanos(at as i64 + there + offset);
        let answered = arrived.offset(40_000);
        let received = sent.offset(there + 40_000 + back);
        Exchange { sent, arrived, answered, received, resolution: 1_000 }
    }

    #[test]
    fn a_clock_that_is_set_during_an_exchange_is_a_step_and_teaches_nothing() {
        let mut clock = Clock::new();
        clock.observe(&exchange(1_000_000_000, 500_000, 500_000, OFFSET));
        let mut torn = exchange(2_000_000_000, 500_000, 500_000, OFFSET);
        torn.answered = torn.answered.offset(3_000_000_000);
        assert_eq!(clock.observe(&torn), Learned::Step);
        let now = LocalInstant::from_nanos(2_500_000_000);
        assert_eq!((clock.offset(now), clock.transit(now)), (None, None));
    }

    #[test]
    fn the_interval_holds_the_truth_and_narrows() {
        let mut clock = Clock::new();
        let paths = [(900_000, 100_000), (50_000, 800_000), (70_000, 60_000), (5_000_000, 50_000)];
        let mut width = i64::MAX;
        for (i, (there, back)) in paths.into_iter().enumerate() {
            let at = 1_000_000_000 + i as u64 * 1_000_000;
            assert_eq!(clock.observe(&exchange(at, there, back, OFFSET)), Learned::Consistent);
            let offset = clock.offset(LocalInstant::from_nanos(at + 6_000_000)).unwrap();
            assert!((offset.nanos - OFFSET).abs() <= offset.error);
            let (low, high) = clock.bounds(LocalInstant::from_nanos(at + 6_000_000)).unwrap();
            assert!((low..=high).contains(&OFFSET));
            assert!(high - low <= width.saturating_add(10_000));
            width = high - low;
        }
        assert!(width < 150_000, "{width}");
    }

    #[test]
    fn a_beat_is_sent_early_by_the_way_there_whatever_the_way_back() {
        let mut clock = Clock::new();
        clock.observe(&exchange(1_000_000_000, 80_000_000, 1_000_000, OFFSET));
        let boundary = ServerInstant::from_nanos(OFFSET + 9_000_000_000);
        assert_eq!(clock.send_time(boundary), Some(LocalInstant::from_nanos(8_920_000_000)));
    }

    #[test]
    fn a_step_is_proven_and_forgets_what_came_before() {
        let mut clock = Clock::new();
        clock.observe(&exchange(1_000_000_000, 50_000, 50_000, OFFSET));
        let stepped = exchange(2_000_000_000, 50_000, 50_000, OFFSET - 3_600_000_000_000);
        assert_eq!(clock.observe(&stepped), Learned::Step);
        let offset = clock.offset(stepped.received).unwrap();
        assert!((offset.nanos - (OFFSET - 3_600_000_000_000)).abs() <= offset.error);
        assert_eq!(clock.transit(stepped.sent), Some(OFFSET - 3_600_000_000_000 + 50_000));
    }
}
