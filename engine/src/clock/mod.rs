//! Decides what this node knows of the server's clock: an interval that surely holds the offset, the best guess
//! at it, and how early a statement must leave to arrive on time. Knows nothing of slots.
//!
//! # What an exchange says
//!
//! Every round trip has four stamps (RFC 5905, section 8): `t0` local send, `t1` server receive, `t2` server
//! reply, `t3` local receive. Writing the offset as server time minus local time, the way there takes
//! `t1 - t0 - offset` and the way back `t3 - t2 + offset`. All is in nanoseconds; the server's stamps may have been
//! cut off to a `resolution` of up to a second.
//!
//! - `t1 - t0`, the *transit*, is the offset plus the way there. It is what a beat needs: to arrive at server time
//!   `S` a statement must be sent at local time `L` with `L + (t1 - t0) = S`. Each exchange observes it directly,
//!   the offset and the way are never told apart, so an asymmetric road costs nothing.
//! - `t2 - t3` is the offset less the way back.
//! - Their difference is the round trip without the server's part. No clock is in it: from it alone it is known
//!   which exchanges were fast.
//!
//! # What is proven: the interval
//!
//! Neither way takes less than no time, so each exchange proves that the offset lies in `[t2 - t3, t1 - t0]`
//! (Cristian, 1989), widened by the resolution. The intervals of all exchanges, widened by 500 ppm of the time since
//! ([`Clock::bounds`]), are intersected; an empty intersection proves that a clock was set, or that the local one ran
//! more than 500 ppm wrong, which is outside of the contract. [`Learned::Step`] is said of this alone: the ring acts
//! on it. The interval is integers; it costs two comparisons an exchange.
//!
//! # What is guessed: the filters
//!
//! The offset and the ways' lengths are smooth, and queues only ever add. So there are two lines to find: `u`, the
//! offset plus the *shortest* way there, below all of the `t1 - t0`; and `d`, the offset less the shortest way back,
//! above all of the `t2 - t3`. Both have the slope of the local clock's rate `f`. That is the picture of Moon,
//! Skelly and Towsley (1999), who lay a line under the samples by linear programming, and of Huygens (Geng et al.,
//! NSDI 2018), who lay one between the two clouds with a support vector machine. Those ask for a batch of samples
//! and a clock that does not wander. Here it is a filter:
//!
//! - `filter` holds a normal law over (u, d, f). Between exchanges it moves: `u' = d' = f`, and `f` is a random walk.
//!   An exchange is weighed by the law of the queues; the product of the two is no normal law, but its mean and
//!   variance are known in closed form, and a normal law with these takes its place (assumed-density filtering:
//!   Minka 2001). So a sample that is early moves the line at once and a late one hardly,
//!   without any threshold: the weights of NTP's clock filter (RFC 5905, section 10), which keeps the shortest of
//!   eight, come out of the law by themselves.
//! - `law` is that law: two waits, each exponential (a gamma of shape 2), and a heavy tail of exponentials; after a
//!   commit that is hidden between `t2` and the way back, one wait more. Coarse stamps make it a law over intervals.
//! - `guess` learns the law's numbers from the samples, up the slope of their likelihood, held near what `spread`
//!   says: the median and the median distance of the samples, which need no law (Robbins and Monro 1951), and
//!   which follow faster when all samples fall on one side (Kesten 1958). There are
//!   two guesses at the road, with a hidden commit and without, each with four at how much the rate wanders, from 1 to
//!   27 ppb in a second. Each is weighed by the likelihood of all it has seen; the answer is their mean.
//! - `bank` puts them together, and finds what is no chance. One leg early beyond belief, the other late by as much: a
//!   step of the clock, too small to be proven; both lines move, their distance stays. One leg early: its way is
//!   shorter. One leg late, twelve times in a row (`late`): its way is longer. These change the guess and nothing
//!   else. Whatever the cause: when eight foretold transits in a row missed by about the same (`missed`), the guess
//!   is wrong and begins again with those eight.
//!
//! The best guess at the offset is the middle of `u` and `d`. That the two shortest ways are equally long is an
//! assumption: nobody who exchanges messages can know it, and [`Offset::error`] allows for all of it. The transit
//! aims at the median, `u` plus the median delay of the way there, which asks for no assumption.
//!
//! # How it begins, and begins again
//!
//! With one exchange there is an interval, its middle, and a transit; nothing is waited for. From four on the rate is
//! fitted, with eight the filters begin (`start`); of these, exchanges from before a change of the road are left
//! out, lest the difference of the roads be taken for queues. After a proven step the next exchange puts both lines where
//! it says: the offset is good again with that one exchange, while the road, the law and the rate stay known. When
//! steps are found again and again, nothing fits any more (the rate jumped, perhaps), and all but the
//! rate is forgotten.
//!
//! # The same on every build
//!
//! The guess is floating point: additions, multiplications, divisions, comparisons, and `exp`, `log`, `sqrt` and `erfc`
//! of the `libm` crate, which are made of the same. IEEE 754 fixes their results, so they are the same bits on every
//! build. What leaves this module is rounded to whole nanoseconds. Nothing is allocated.

mod bank;
mod filter;
mod guess;
mod late;
mod law;
mod missed;
mod spread;
mod start;
#[cfg(test)]
mod trials;

use core::marker::PhantomData;

use serde::{Deserialize, Serialize};

use self::bank::Bank;
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
    bank: Bank,
    smallest_round_trip: i64,
    last_round_trips: [i64; 8],
    sabotage: PhantomData<S>,
}

/// One exchange, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Sample {
    sent: LocalInstant,
    /// `t1 - t0`: the offset and the way there.
    transit: i64,
    /// `t2 - t3`: the offset less the way back.
    back: i64,
    /// `t3 - t0`: so much later than the rest `back` was seen.
    took: i64,
    /// The stamps may be so much earlier than what they stand for.
    resolution: i64,
}

impl Sample {
    const NONE: Self =
        Self { sent: LocalInstant::from_nanos(0), transit: 0, back: 0, took: 0, resolution: 0 };

    /// The time that it was on the road, both ways.
    fn delay(&self) -> i64 {
        self.transit.saturating_sub(self.back)
    }

    /// `back` as it would have been at the time of sending, of clocks that drift apart by `rate` ns/s: in the time that a
    /// statement is held up on its way there they drift by more than the queues on a calm way back add.
    fn back_at_sending(&self, rate: f64) -> i64 {
        self.back.saturating_sub((rate * (self.took as f64 / 1e9)) as i64)
    }

    /// Whether no clock that runs at any likely rate can agree with both: the clock was set between them.
    fn is_apart_from(&self, later: &Self) -> bool {
        let slack = later.sent.nanos_from(self.sent).max(0) / 5_000;
        let above = |sample: &Self| sample.transit.saturating_add(sample.resolution + slack);
        self.back > above(later) || later.back > above(self)
    }
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
        let lower = difference(exchange.answered, exchange.received);
        let upper = difference(exchange.arrived, exchange.sent);
        // Stamps that contradict each other: the server's clock was set between them. What holds now is the
        // second one, and that the way back was no longer than the round trip.
        let torn = lower.saturating_sub(spread) > upper.saturating_add(spread);
        let upper = if torn { lower.saturating_add(exchange.round_trip()) } else { upper };
        let (low, high) = (lower.saturating_sub(spread), upper.saturating_add(spread));
        let fresh = Bounds { low, high, at: exchange.received };
        let both = self.bounds.filter(|_| !torn).and_then(|old| {
            let old = self.widened(old, exchange.received);
            let both =
                Bounds { low: old.low.max(fresh.low), high: old.high.min(fresh.high), ..fresh };
            if S::plants(Bug::StepIsIgnored) && both.low > both.high {
                return Some(old);
            }
            (both.low <= both.high).then_some(both)
        });
        let learned = match (both, self.bounds, torn) {
            (Some(_), _, _) | (None, None, false) => Learned::Consistent,
            _ => Learned::Step,
        };
        if learned == Learned::Step {
            self.bank.stepped();
            self.smallest_round_trip = i64::MAX;
            self.last_round_trips = [-1; 8];
        }
        let bounds = both.unwrap_or(fresh);
        self.bounds = Some(bounds);
        self.bank.push(Sample {
            sent: exchange.sent,
            transit: upper,
            back: lower,
            took: exchange.round_trip(),
            resolution: i64::from(exchange.resolution),
        });
        self.smallest_round_trip = self.smallest_round_trip.min(exchange.round_trip());
        self.last_round_trips.rotate_left(1);
        self.last_round_trips[7] = exchange.round_trip();
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
        let nanos = self.bank.offset(now)?.clamp(low, high);
        Some(Offset { nanos, error: high.saturating_sub(nanos).max(nanos.saturating_sub(low)) })
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
        let transit = self.bank.transit(now)?;
        if S::plants(Bug::RateIsReversed) {
            // What was added for the time since the last exchange is taken off instead.
            let last = self.bounds?.at;
            return Some(2 * self.bank.transit(last)? - transit);
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
        let longest =
            self.last_round_trips.iter().copied().max().filter(|longest| *longest >= 0)?;
        Some((self.smallest_round_trip, longest))
    }
}

impl<S: Sabotage> Default for Clock<S> {
    fn default() -> Self {
        Self {
            bounds: None,
            bank: Bank::default(),
            smallest_round_trip: i64::MAX,
            last_round_trips: [-1; 8],
            sabotage: PhantomData,
        }
    }
}

impl Bounds {
    fn widened_to(self, now: LocalInstant) -> Self {
        let by = drift(now.nanos_from(self.at).max(0));
        Self { low: self.low.saturating_sub(by), high: self.high.saturating_add(by), at: now }
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
    fn exchanges_that_a_likely_clock_can_have_made_are_not_apart() {
        // No road at all, and a clock that gains or loses 200 ppm: one nanosecond in five thousand.
        let at = |sent: u64, offset: i64| {
            let sent = LocalInstant::from_nanos(sent);
            Sample { sent, transit: offset, back: offset, ..Sample::NONE }
        };
        for gained in [-1, 1] {
            assert!(!at(0, 0).is_apart_from(&at(5_000, gained)), "{gained}");
            assert!(at(0, 0).is_apart_from(&at(4_999, gained)), "{gained}: that is a faster one");
        }
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

    #[test]
    fn one_statement_held_up_beside_an_answer_without_a_commit_is_no_step() {
        let mut clock = Clock::new();
        let mut numbers = Numbers(7);
        for second in 1..40 {
            let (there, back) = (900_000 + numbers.wait(), 7_000_000 + numbers.wait());
            clock.observe(&exchange(second * 1_000_000_000, there, back, OFFSET));
        }
        let aim = |clock: &Clock| clock.transit(LocalInstant::from_nanos(41_000_000_000)).unwrap();
        let before = aim(&clock);
        // Nothing was claimed: the commit of 6 ms was left out.
        clock.observe(&exchange(40_000_000_000, 550_000_000, 1_000_000, OFFSET));
        let moved = aim(&clock) - before;
        assert!(moved.abs() < 200_000, "the next beat is aimed {moved} ns earlier");
    }

    /// Numbers that are the same everywhere (Knuth's MMIX generator).
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, bound: i64) -> i64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) as i64 % bound
        }

        /// The sum of two waits of about 20 us, and now and then of a long one.
        fn wait(&mut self) -> i64 {
            let long = if self.below(50) == 0 { self.below(2_000_000) } else { 0 };
            long + self.below(40_000) + self.below(40_000)
        }
    }

    /// A clock that drifts by 20 ppm, over a road of 200 us each way.
    fn some_exchange(numbers: &mut Numbers, second: i64) -> Exchange {
        let at = 1_000_000_000 * second;
        let (there, back) = (200_000 + numbers.wait(), 200_000 + numbers.wait());
        exchange(at.unsigned_abs(), there, back, OFFSET - 20_000 * second)
    }

    #[test]
    fn the_line_is_found_below_the_noise() {
        let mut clock = Clock::new();
        let mut numbers = Numbers(1);
        let mut worst = (0, 0);
        for second in 1..600 {
            let sample = some_exchange(&mut numbers, second);
            if second > 100 {
                let truth = OFFSET - 20_000 * second;
                let offset = clock.offset(sample.sent).unwrap().nanos - truth;
                // The median of the way there is 240 us.
                let transit = clock.transit(sample.sent).unwrap() - truth - 240_000;
                worst = (worst.0.max(offset.abs()), worst.1.max(transit.abs()));
            }
            clock.observe(&sample);
        }
        assert!(worst.0 < 8_000 && worst.1 < 15_000, "{worst:?}");
    }

    #[test]
    fn the_bits_are_the_same_on_every_build() {
        let mut clock = Clock::new();
        let mut numbers = Numbers(7);
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for second in 1..2_000 {
            let mut sample = some_exchange(&mut numbers, second);
            if second > 1_000 {
                sample.arrived = sample.arrived.offset(3_000_000);
                sample.answered = sample.answered.offset(3_000_000);
            }
            clock.observe(&sample);
            let now = sample.received;
            for value in [clock.offset(now).unwrap().nanos, clock.transit(now).unwrap()] {
                hash = (hash ^ value as u64).wrapping_mul(0x0100_0000_01b3);
            }
        }
        assert_eq!(hash, 6_040_122_706_358_160_510);
    }

    #[test]
    fn a_step_between_the_servers_stamps_is_proven_by_them() {
        let mut clock = Clock::new();
        for at in [1_000_000_000, 2_000_000_000] {
            clock.observe(&exchange(at, 50_000, 50_000, OFFSET));
        }
        let mut torn = exchange(3_000_000_000, 50_000, 50_000, OFFSET);
        torn.answered = torn.answered.offset(7_000_000_000);
        assert_eq!(clock.observe(&torn), Learned::Step);
        let offset = clock.offset(torn.received).unwrap();
        assert!((offset.nanos - OFFSET - 7_000_000_000).abs() <= offset.error);
        assert!(offset.error < 200_000);
    }

    #[test]
    fn a_step_that_nothing_proves_is_found_all_the_same() {
        let mut clock = Clock::new();
        let mut numbers = Numbers(3);
        for second in 1..300 {
            assert_eq!(clock.observe(&some_exchange(&mut numbers, second)), Learned::Consistent);
        }
        // Less than half a round trip.
        let mut sample = some_exchange(&mut numbers, 300);
        sample.arrived = sample.arrived.offset(150_000);
        sample.answered = sample.answered.offset(150_000);
        assert_eq!(clock.observe(&sample), Learned::Consistent);
        let truth = OFFSET - 20_000 * 300 + 150_000;
        let offset = clock.offset(sample.sent).unwrap().nanos - truth;
        assert!(offset.abs() < 60_000, "{offset}");
    }

    #[test]
    fn a_longer_way_is_learnt_and_the_offset_is_not_moved_by_weather() {
        let mut clock = Clock::new();
        let mut numbers = Numbers(4);
        let mut second = 0;
        let mut see = |clock: &mut Clock, exchanges: i64, longer: i64| {
            let mut errors = (0, 0);
            for _ in 0..exchanges {
                second += 1;
                let mut sample = some_exchange(&mut numbers, second);
                sample.arrived = sample.arrived.offset(longer);
                sample.answered = sample.answered.offset(longer);
                sample.received = sample.received.offset(longer);
                let truth = OFFSET - 20_000 * second;
                errors.0 = clock.offset(sample.sent).map_or(0, |offset| offset.nanos - truth);
                errors.1 = clock.transit(sample.sent).map_or(0, |transit| transit - truth);
                clock.observe(&sample);
            }
            errors
        };
        see(&mut clock, 300, 0);
        let weather = see(&mut clock, 6, 2_000_000);
        assert!(weather.0.abs() < 15_000, "{weather:?}");
        assert!((weather.1 - 2_240_000).abs() < 60_000, "{weather:?}");
        let longer = see(&mut clock, 60, 2_000_000);
        assert!((longer.1 - 2_240_000).abs() < 30_000, "{longer:?}");
    }

    #[test]
    fn a_statement_that_is_held_up_is_no_step_however_fast_the_clock_drifts_meanwhile() {
        let mut clock = Clock::new();
        let drift = |at: i64| at / 1_000_000 * 160;
        for turn in 1..40_i64 {
            let at = 1_000_000_000 + turn * 800_000_000;
            let held = if turn == 30 { 135_000_000 } else { 0 };
            // The offset at the arrival; by the time of the answer's receipt the clock has drifted further.
            let sent = LocalInstant::from_nanos(at.unsigned_abs());
            let there = 17_000_000 + held;
            let arrived = ServerInstant::from_nanos(OFFSET + at + there + drift(at + there));
            let received = sent.offset(there + 9_000_000);
            let answered = arrived.offset(1_000_000);
            let exchange = Exchange { sent, arrived, answered, received, resolution: 1_000 };
            if turn > 10 {
                let missed = clock.transit(sent).unwrap() - difference(arrived, sent);
                assert!((missed + held).abs() < 100_000, "{turn}: {missed}");
            }
            clock.observe(&exchange);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_exchange_breaks_it(
            steps in proptest::collection::vec(
                (0_u64..1 << 50, proptest::num::i64::ANY, 0_i64..1 << 50, 0_u64..1 << 50, 0_u32..2_000_000_000),
                1..60,
            ),
            small in proptest::bool::ANY,
        ) {
            let mut clock = Clock::new();
            let mut now = LocalInstant::from_nanos(1_000_000_000);
            for (pause, arrived, service, round_trip, resolution) in steps {
                let shrink = if small { 1 << 25 } else { 1 };
                now = now.offset((pause / shrink) as i64);
                let sent = now;
                now = now.offset((round_trip / shrink) as i64);
                let arrived = ServerInstant::from_nanos(arrived / shrink as i64);
                let answered = arrived.offset(service / shrink as i64);
                let exchange = Exchange { sent, arrived, answered, received: now, resolution };
                clock.observe(&exchange);
                let offset = clock.offset(now).unwrap();
                let (low, high) = clock.bounds(now).unwrap();
                proptest::prop_assert!((low..=high).contains(&offset.nanos));
                proptest::prop_assert!(offset.error >= 0);
                proptest::prop_assert!(clock.transit(now).is_some());
                proptest::prop_assert!(clock.send_time(arrived).is_some());
                proptest::prop_assert_eq!(&clock.clone(), &clock);
            }
        }
    }
}
