//! How many jobs of a queue run at once, and how many are given out in a time, on all nodes together. Decides how many of a
//! queue a claim may take now, what is to be kept of it, and when to ask again; what runs is counted in the database, under the
//! lock of the queue's row.
//!
//! The rate is a token bucket of which one time is stored: when it will be full again (the generic cell rate algorithm of
//! ITU-T I.371 in its form with a virtual schedule). It holds `burst` tokens and gets one more every `per / jobs`; each job that
//! is claimed takes one. So in any stretch of time `t` at most `burst + t × jobs / per` jobs are claimed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use turnwise_engine::{Kept, ServerInstant};

use crate::config::parse_duration;

/// The most that may be said of how many jobs run at once.
pub const CONCURRENCY_MAX: u32 = 1_000_000;
/// The most jobs that a rate may name, and the largest burst.
pub const RATE_JOBS_MAX: u32 = 1_000_000;
/// So many jobs of a lane are walked in their order by a claim from a queue that bounds its keys, to find some whose keys are free.
pub(super) const WALKED_MAX: u32 = 1_000;
/// Where too few of those have a free key, so many keys of the lane are looked at besides.
pub(super) const FIRST_KEYS_MAX: u32 = 1_000;
/// The longest time that a rate may name.
pub const RATE_PER_MAX: Duration = Duration::from_secs(86_400);

/// So many jobs in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// From 1 to [`RATE_JOBS_MAX`].
    pub jobs: u32,
    /// From 1 ms to [`RATE_PER_MAX`], in whole milliseconds.
    pub per: Duration,
    /// So many may be claimed at once after a time without any, from 1 to [`RATE_JOBS_MAX`].
    pub burst: u32,
}

/// What a queue may have at once, and in a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// So many jobs run at once, on all nodes together, from 1 to [`CONCURRENCY_MAX`]; none: any number.
    pub concurrency: Option<u32>,
    /// So many jobs with the same concurrency key run at once, on all nodes together, from 1 to [`CONCURRENCY_MAX`]; none: any number.
    pub concurrency_per_key: Option<u32>,
    /// So many are claimed in a time; none: any number.
    pub rate: Option<Rate>,
}

/// Why a text names no rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no rate: {reason}; write it as 10/s, 100/m or 500/30s")]
pub struct RateError {
    text: String,
    reason: String,
}

impl FromStr for Rate {
    type Err = RateError;

    /// `100/m` or `500/30s`; the burst is as many.
    fn from_str(text: &str) -> Result<Self, RateError> {
        let bad = |reason: String| RateError { text: text.to_owned(), reason };
        let (jobs, per) = text.split_once('/').ok_or_else(|| bad("it has no slash".to_owned()))?;
        let jobs = jobs.trim().parse().ok().filter(|jobs| (1..=RATE_JOBS_MAX).contains(jobs));
        let jobs = jobs.ok_or_else(|| {
            bad(format!("before the slash stands a number of jobs from 1 to {RATE_JOBS_MAX}"))
        })?;
        let per = per.trim();
        let per = match per.starts_with(|c: char| c.is_ascii_digit()) {
            true => parse_duration(per),
            false => parse_duration(&format!("1{per}")),
        };
        let is_whole = |per: &Duration| per.subsec_nanos().is_multiple_of(1_000_000);
        let per = per.ok().filter(|per| !per.is_zero() && *per <= RATE_PER_MAX && is_whole(per));
        let per =
            per.ok_or_else(|| bad("behind the slash stands a time from 1ms to 24h".to_owned()))?;
        Ok(Self { jobs, per, burst: jobs })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = humantime::format_duration(self.per).to_string();
        let per =
            per.strip_prefix('1').filter(|unit| ["s", "m", "h"].contains(unit)).unwrap_or(&per);
        write!(f, "{}/{per}", self.jobs)
    }
}

/// The columns of a queue's limits: what may run at once, in all and of one key; the jobs, the milliseconds and the burst of its rate.
pub(super) type LimitColumns = (Option<i64>, Option<i64>, Option<i64>, Option<i64>, Option<i64>);

impl Limits {
    pub(super) fn columns(&self) -> LimitColumns {
        let rate = self.rate;
        (
            self.concurrency.map(i64::from),
            self.concurrency_per_key.map(i64::from),
            rate.map(|rate| i64::from(rate.jobs)),
            rate.map(|rate| i64::try_from(rate.per.as_millis()).unwrap_or(i64::MAX)),
            rate.map(|rate| i64::from(rate.burst)),
        )
    }

    /// As they stand in a row, which anyone may have written: what is beyond a bound stands at it.
    pub(super) fn read((concurrency, per_key, jobs, per_ms, burst): LimitColumns) -> Self {
        let within = |number: i64, most: u32| {
            u32::try_from(number.clamp(1, i64::from(most))).unwrap_or(most)
        };
        let rate = jobs.zip(per_ms).map(|(jobs, per_ms)| {
            let per = Duration::from_millis(u64::try_from(per_ms.max(1)).unwrap_or(1));
            let jobs = within(jobs, RATE_JOBS_MAX);
            let burst = burst.map_or(jobs, |burst| within(burst, RATE_JOBS_MAX));
            Rate { jobs, per: per.min(RATE_PER_MAX), burst }
        });
        let places = |most: Option<i64>| most.map(|most| within(most, CONCURRENCY_MAX));
        Self { concurrency: places(concurrency), concurrency_per_key: places(per_key), rate }
    }
}

/// What a claim may take of one queue now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Places that are free; none: any number.
    places: Option<u32>,
    /// So many places each key has; none: any number.
    per_key: Option<u32>,
    bucket: Option<Bucket>,
}

impl Room {
    /// Of a queue with these limits, of which so many jobs run at `now`, and whose bucket will be full at `full_at_us`
    /// (microseconds since the Unix epoch; none: it is full).
    pub(super) fn new(
        limits: Limits,
        running: i64,
        full_at_us: Option<i64>,
        now: ServerInstant,
    ) -> Self {
        let places = |most: u32| {
            let free = i64::from(most).saturating_sub(running.max(0));
            u32::try_from(free).unwrap_or(0)
        };
        Self {
            places: limits.concurrency.map(places),
            per_key: limits.concurrency_per_key,
            bucket: limits.rate.map(|rate| Bucket::new(rate, full_at_us, now)),
        }
    }

    /// Nothing may be taken, for a time that is not known.
    pub(super) const CLOSED: Self = Self { places: Some(0), per_key: None, bucket: None };

    /// So many may be taken at most.
    pub(super) fn jobs(&self) -> u32 {
        let tokens = self.bucket.as_ref().map_or(u32::MAX, Bucket::tokens);
        self.places.unwrap_or(u32::MAX).min(tokens)
    }

    /// So many jobs of one key may run at once, where not any number may and there is room at all.
    pub(super) fn per_key(&self) -> Option<u32> {
        self.per_key.filter(|_| self.jobs() > 0)
    }

    /// When so many were taken and more are due, some of them because their keys are taken or none of them: what keeps those back.
    pub(super) fn kept(&self, taken: u32, keys_are_taken: bool) -> Kept {
        let is_out = |bucket: &&Bucket| taken > 0 && taken >= bucket.tokens();
        Kept {
            until_one_ends: self.places.is_some_and(|places| taken >= places) || keys_are_taken,
            // Only whoever took the last one is told: the others need not ask too.
            rate_wait: self.bucket.as_ref().filter(is_out).map(|bucket| bucket.wait(taken)),
        }
    }

    /// What is to be stored when so many were taken: when the bucket will be full, in microseconds since the Unix epoch. None:
    /// nothing.
    pub(super) fn full_at_us(&self, taken: u32) -> Option<i64> {
        let is_other = |bucket: &&Bucket| taken > 0 || bucket.was_ahead;
        self.bucket.as_ref().filter(is_other).map(|bucket| bucket.full_at_us(taken))
    }
}

/// A bucket that is full again later than it can be, by no more than this, was emptied by a claim that read a later clock and came first:
/// what that took is not given out again. In microseconds.
const AHEAD_US: i64 = 1_000_000;

/// A token bucket at an instant. All in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bucket {
    now: i64,
    /// How long it takes to get a token.
    step: i64,
    burst: i64,
    /// How long it takes to be full.
    lacks: i64,
    /// What is stored lies farther ahead than it can: the clock was set back, or the rate is another.
    was_ahead: bool,
}

impl Bucket {
    fn new(rate: Rate, full_at_us: Option<i64>, now: ServerInstant) -> Self {
        let per = i64::try_from(rate.per.as_micros()).unwrap_or(i64::MAX);
        let jobs = i64::from(rate.jobs.max(1));
        // A part of a microsecond counts as one: the rate is never exceeded.
        let step = (per / jobs + i64::from(per % jobs > 0)).max(1);
        let (now, burst) = (now.as_micros(), i64::from(rate.burst.max(1)));
        let lacks = full_at_us.map_or(0, |full| full.saturating_sub(now));
        let most = step.saturating_mul(burst);
        let was_ahead = lacks > most.saturating_add(AHEAD_US);
        // It is empty at worst.
        let lacks = if was_ahead { most } else { lacks.max(0) };
        Self { now, step, burst, lacks, was_ahead }
    }

    fn tokens(&self) -> u32 {
        let whole = self.step.saturating_mul(self.burst).saturating_sub(self.lacks) / self.step;
        u32::try_from(whole.max(0)).unwrap_or(u32::MAX)
    }

    fn lacks_after(&self, taken: u32) -> i64 {
        self.lacks.saturating_add(self.step.saturating_mul(i64::from(taken)))
    }

    /// How long until there is one more.
    fn wait(&self, taken: u32) -> Duration {
        let spare = self.step.saturating_mul(self.burst - 1);
        let wait = self.lacks_after(taken).saturating_sub(spare).max(0);
        Duration::from_micros(u64::try_from(wait).unwrap_or(0))
    }

    fn full_at_us(&self, taken: u32) -> i64 {
        self.now.saturating_add(self.lacks_after(taken))
    }
}

/// What is taken of the queues that have limits, as the jobs come in their order.
#[derive(Debug)]
pub(super) struct Within<Q> {
    rooms: BTreeMap<Q, Room>,
    admitted: BTreeMap<Q, u32>,
    refused: BTreeSet<Q>,
    /// Queues of which jobs are due whose keys are taken.
    by_keys: BTreeSet<Q>,
}

/// What a claim under limits came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry<Q> {
    pub(super) kept: Kept,
    /// What is to be stored: when the buckets of these queues will be full, in microseconds since the Unix epoch.
    pub(super) full_at_us: Vec<(Q, i64)>,
}

impl<Q: Ord + Clone> Within<Q> {
    pub(super) fn new(rooms: BTreeMap<Q, Room>) -> Self {
        Self {
            rooms,
            admitted: BTreeMap::new(),
            refused: BTreeSet::new(),
            by_keys: BTreeSet::new(),
        }
    }

    /// Whether the next job, which is due and of this queue, may be taken.
    pub(super) fn admits(&mut self, queue: &Q) -> bool {
        let Some(room) = self.rooms.get(queue) else { return true };
        let admitted = self.admitted.entry(queue.clone()).or_default();
        let is_room = *admitted < room.jobs();
        match is_room {
            true => *admitted += 1,
            false => drop(self.refused.insert(queue.clone())),
        }
        is_room
    }

    /// There may be a job of this queue that is due and may not be taken.
    pub(super) fn may_refuse(&mut self, queue: Q) {
        self.refused.insert(queue);
    }

    /// There are jobs of this queue that are due and may not be taken since their keys are.
    pub(super) fn refuses_keys(&mut self, queue: Q) {
        self.refused.insert(queue.clone());
        self.by_keys.insert(queue);
    }

    /// Of those that were admitted, jobs of these queues were taken.
    pub(super) fn took<'a>(self, queues: impl Iterator<Item = &'a Q>) -> Entry<Q>
    where
        Q: 'a,
    {
        let mut taken = BTreeMap::new();
        for queue in queues {
            *taken.entry(queue).or_insert(0) += 1;
        }
        let taken = |queue: &Q| taken.get(queue).copied().unwrap_or(0);
        let refused = self.rooms.iter().filter(|(queue, _)| self.refused.contains(queue));
        let kept =
            refused.map(|(queue, room)| room.kept(taken(queue), self.by_keys.contains(queue)));
        let kept = kept.fold(Kept::default(), both);
        let full =
            |(queue, room): (&Q, &Room)| Some((queue.clone(), room.full_at_us(taken(queue))?));
        let full_at_us = self.rooms.iter().filter_map(full).collect();
        Entry { kept, full_at_us }
    }
}

/// Both.
fn both(a: Kept, b: Kept) -> Kept {
    Kept {
        until_one_ends: a.until_one_ends || b.until_one_ends,
        rate_wait: a.rate_wait.into_iter().chain(b.rate_wait).min(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> ServerInstant {
        ServerInstant::from_micros(millis * 1_000)
    }

    fn rate(text: &str, burst: u32) -> Limits {
        Limits { rate: Some(Rate { burst, ..text.parse().unwrap() }), ..Limits::default() }
    }

    #[test]
    fn rates_are_read_and_written() {
        for (text, shown, jobs, millis) in [
            ("10/s", "10/s", 10, 1_000),
            ("100/m", "100/m", 100, 60_000),
            (" 1 / h", "1/h", 1, 3_600_000),
            ("500/30s", "500/30s", 500, 30_000),
            ("7/250ms", "7/250ms", 7, 250),
            ("1000000/24h", "1000000/1day", 1_000_000, 86_400_000),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(
                (rate.jobs, rate.per, rate.burst),
                (jobs, Duration::from_millis(millis), jobs)
            );
            assert_eq!(rate.to_string(), shown);
            assert_eq!(shown.parse::<Rate>().unwrap(), rate);
        }
        for text in
            ["", "10", "0/s", "-1/s", "1000001/s", "1/0s", "1/25h", "1/parsec", "1/1us", "x/s"]
        {
            let error = text.parse::<Rate>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} is no rate: ")), "{error}");
            assert!(error.ends_with("write it as 10/s, 100/m or 500/30s"), "{error}");
        }
    }

    #[test]
    fn limits_come_back_from_their_columns_and_odd_ones_are_bounded() {
        let limits =
            Limits { concurrency: Some(3), concurrency_per_key: Some(2), ..rate("10/m", 4) };
        assert_eq!(Limits::read(limits.columns()), limits);
        assert_eq!(Limits::read(Limits::default().columns()), Limits::default());
        let odd = Limits::read((Some(-7), Some(i64::MAX), Some(i64::MAX), Some(0), None));
        assert_eq!(odd.concurrency, Some(1));
        assert_eq!(odd.concurrency_per_key, Some(CONCURRENCY_MAX));
        let jobs = RATE_JOBS_MAX;
        assert_eq!(odd.rate, Some(Rate { jobs, per: Duration::from_millis(1), burst: jobs }));
        assert_eq!(Limits::read((None, None, Some(1), None, None)), Limits::default());
    }

    #[test]
    fn as_many_are_taken_as_there_are_places() {
        let limits = Limits { concurrency: Some(3), ..Limits::default() };
        let room = Room::new(limits, 1, None, at(0));
        assert_eq!(room.jobs(), 2);
        assert!(room.kept(1, false).is_nothing());
        assert_eq!(room.kept(2, false), Kept { until_one_ends: true, rate_wait: None });
        assert_eq!(room.full_at_us(2), None);
        assert_eq!(Room::new(limits, 9, None, at(0)).jobs(), 0);
        assert!(Room::CLOSED.kept(0, false).until_one_ends);
    }

    #[test]
    fn a_bucket_gives_out_its_burst_and_then_one_after_the_other() {
        let limits = rate("10/s", 3);
        let room = Room::new(limits, 0, None, at(0));
        assert_eq!(room.jobs(), 3);
        assert!(room.kept(2, false).is_nothing());
        let wait = Some(Duration::from_millis(100));
        assert_eq!(room.kept(3, false), Kept { until_one_ends: false, rate_wait: wait });
        let full = room.full_at_us(3);
        assert_eq!(full, Some(300_000));
        for (millis, jobs) in [(0, 0), (99, 0), (100, 1), (199, 1), (200, 2), (300, 3), (9_000, 3)]
        {
            assert_eq!(Room::new(limits, 0, full, at(millis)).jobs(), jobs, "{millis} ms");
        }
        // Nobody else is told that it is empty.
        assert!(Room::new(limits, 0, full, at(50)).kept(0, false).is_nothing());
        // The part that is there already counts.
        let room = Room::new(limits, 0, full, at(150));
        let wait = Some(Duration::from_millis(50));
        assert_eq!(
            (room.jobs(), room.kept(1, false).rate_wait, room.full_at_us(1)),
            (1, wait, Some(400_000))
        );
    }

    #[test]
    fn a_clock_that_is_set_back_empties_a_bucket_and_does_not_stop_it() {
        let limits = rate("10/s", 3);
        let hour = 3_600_000_000;
        let room = Room::new(limits, 0, Some(hour), at(0));
        assert_eq!((room.jobs(), room.full_at_us(0)), (0, Some(300_000)));
        let room = Room::new(limits, 0, Some(300_000), at(200));
        assert_eq!((room.jobs(), room.full_at_us(0)), (2, None));
        // By less than a second: somebody read a later clock, and what that took stays taken.
        let room = Room::new(limits, 0, Some(1_300_000), at(0));
        assert_eq!((room.jobs(), room.full_at_us(0)), (0, None));
        let room = Room::new(limits, 0, Some(1_300_001), at(0));
        assert_eq!((room.jobs(), room.full_at_us(0)), (0, Some(300_000)));
    }

    #[test]
    fn what_is_refused_is_told_of_the_queues_that_were_emptied() {
        let rooms = BTreeMap::from([
            ("a", Room::new(Limits { concurrency: Some(1), ..Limits::default() }, 0, None, at(0))),
            ("b", Room::new(rate("10/s", 2), 0, None, at(0))),
            ("c", Room::CLOSED),
        ]);
        let mut within = Within::new(rooms);
        let jobs = ["a", "a", "b", "free", "b", "b", "free"];
        let admitted: Vec<_> = jobs.into_iter().filter(|queue| within.admits(queue)).collect();
        assert_eq!(admitted, ["a", "b", "free", "b", "free"]);
        let entry = within.took(admitted.iter());
        let rate_wait = Some(Duration::from_millis(100));
        assert_eq!(entry.kept, Kept { until_one_ends: true, rate_wait });
        assert_eq!(entry.full_at_us, [("b", 200_000)]);
        // Not all that were admitted were taken: the claim was full, and says so otherwise.
        let mut within =
            Within::new(BTreeMap::from([("b", Room::new(rate("10/s", 2), 0, None, at(0)))]));
        assert_eq!((0..3).filter(|_| within.admits(&"b")).count(), 2);
        let entry = within.took(["b"].iter());
        assert!(entry.kept.is_nothing());
        assert_eq!(entry.full_at_us, [("b", 100_000)]);
        let mut closed = Within::new(BTreeMap::from([("c", Room::CLOSED)]));
        closed.may_refuse("c");
        assert!(closed.took([].iter()).kept.until_one_ends);
    }

    #[test]
    fn what_waits_for_its_key_is_asked_for_as_soon_as_one_ends() {
        let limits = Limits { concurrency_per_key: Some(1), ..Limits::default() };
        let room = Room::new(limits, 9, None, at(0));
        assert_eq!((room.jobs(), room.per_key()), (u32::MAX, Some(1)));
        assert!(room.kept(5, false).is_nothing());
        let mut within = Within::new(BTreeMap::from([("a", room)]));
        within.refuses_keys("a");
        assert!(within.took([].iter()).kept.until_one_ends);
        // Where there is no room at all, keys do not matter.
        let full = Room::new(Limits { concurrency: Some(1), ..limits }, 1, None, at(0));
        assert_eq!(full.per_key(), None);
    }

    #[test]
    fn what_cannot_be_divided_is_never_exceeded() {
        let limits = rate("7/s", 1);
        let (mut full, mut taken) = (None, 0);
        for micros in (0..10_000_000).step_by(500) {
            let now = ServerInstant::from_micros(micros);
            let room = Room::new(limits, 0, full, now);
            let jobs = room.jobs();
            full = room.full_at_us(jobs).or(full);
            taken += jobs;
        }
        assert!((69..=71).contains(&taken), "{taken}");
    }
}
