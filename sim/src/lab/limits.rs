//! Decides what a claim may take of the queues that have limits, as the stores do it (`node/src/store/limits.rs`), and what its
//! answer says of what they keep back.

use std::time::Duration;

use turnwise_engine::{Kept, ServerInstant};

use crate::scenario::Orders;

/// How many queues have limits, each those of the scenario. They are numbered from 1: the jobs of queue 0 have none.
pub(super) const LIMITED: usize = 2;

/// A bucket that is full again later than it can be, by no more than this, was emptied by a claim that read a later clock and came
/// first.
const AHEAD: i64 = 1_000_000_000;

/// The limits, and what has been taken of each queue.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    concurrency: Option<u32>,
    bucket: Option<Bucket>,
    /// When the bucket of each queue is full, in nanoseconds of the server's time.
    full_at: [i64; LIMITED],
    /// When a job of each was last taken.
    taken_at: [i64; LIMITED],
}

/// A token bucket: one more in each step, at most so many. In nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    step: i64,
    burst: i64,
}

/// What one claim may take.
pub(super) struct Within {
    limits: Limits,
    now: i64,
    /// Jobs of each queue that run.
    running: [u32; LIMITED],
    taken: [u32; LIMITED],
    refused: [bool; LIMITED],
}

impl Limits {
    pub(super) fn new(orders: &Orders) -> Self {
        let rate = i64::from(orders.rate);
        Self {
            concurrency: (orders.concurrency > 0).then_some(orders.concurrency),
            bucket: (rate > 0).then(|| Bucket { step: 1_000_000_000 / rate, burst: rate }),
            full_at: [i64::MIN; LIMITED],
            taken_at: [i64::MIN; LIMITED],
        }
    }

    /// Whether there are any.
    pub(super) fn exist(&self) -> bool {
        self.concurrency.is_some() || self.bucket.is_some()
    }

    /// For a claim at `now`, while the jobs of these queues run.
    pub(super) fn within(
        &self,
        now: ServerInstant,
        running_in: impl Iterator<Item = usize>,
    ) -> Within {
        let mut running = [0; LIMITED];
        running_in.filter_map(limited).for_each(|queue| running[queue] += 1);
        let refused = [false; LIMITED];
        let mut limits = self.clone();
        if let Some(Bucket { step, burst }) = self.bucket {
            // A clock that was set back: the bucket is empty at worst.
            let empty = now.as_nanos() + step * burst;
            limits.full_at = limits.full_at.map(|at| match at > empty + AHEAD {
                true => empty,
                false => at.max(now.as_nanos()),
            });
        }
        Within { limits, now: now.as_nanos(), running, taken: [0; LIMITED], refused }
    }

    /// Whether a job of the queue may have waited for its limits within the time behind `since`, or still waits while so
    /// many of them run.
    pub(super) fn keep_back(&self, queue: usize, since: ServerInstant, running: u32) -> bool {
        limited(queue).is_some_and(|queue| {
            self.concurrency.is_some_and(|most| running >= most)
                || self.exist() && self.taken_at[queue] >= since.as_nanos()
        })
    }
}

impl Within {
    /// Whether one more job of the queue may be taken. If not, the claim will say so.
    pub(super) fn has_room(&mut self, queue: usize) -> bool {
        let Some(queue) = limited(queue) else { return true };
        let is_room = self.taken[queue] < self.places(queue).min(self.tokens(queue));
        self.refused[queue] |= !is_room;
        is_room
    }

    pub(super) fn take(&mut self, queue: usize) {
        if let Some(queue) = limited(queue) {
            self.taken[queue] += 1;
        }
    }

    /// What was taken is entered; and what the claim is told of what was kept back.
    pub(super) fn enter(self, limits: &mut Limits) -> Kept {
        let mut kept = Kept::default();
        for queue in (0..LIMITED).filter(|queue| self.refused[*queue]) {
            kept.until_one_ends |= self.taken[queue] >= self.places(queue);
            // Only whoever took the last one is told: the others need not ask too.
            if self.taken[queue] > 0 && self.taken[queue] >= self.tokens(queue) {
                kept.rate_wait = kept.rate_wait.into_iter().chain(self.wait(queue)).min();
            }
        }
        for queue in 0..LIMITED {
            if self.taken[queue] > 0 {
                limits.taken_at[queue] = self.now;
                limits.full_at[queue] = self.full_at(queue);
            }
            // What lies farther ahead than it can is of before the clock was set back.
            limits.full_at[queue] = limits.full_at[queue].min(self.full_at(queue));
        }
        kept
    }

    fn places(&self, queue: usize) -> u32 {
        let most = self.limits.concurrency.unwrap_or(u32::MAX);
        most.saturating_sub(self.running[queue])
    }

    fn tokens(&self, queue: usize) -> u32 {
        self.limits.bucket.map_or(u32::MAX, |Bucket { step, burst }| {
            ((step * burst - (self.limits.full_at[queue] - self.now)) / step).max(0) as u32
        })
    }

    fn full_at(&self, queue: usize) -> i64 {
        let step = self.limits.bucket.map_or(0, |bucket| bucket.step);
        self.limits.full_at[queue].saturating_add(step * i64::from(self.taken[queue]))
    }

    /// How long until there is one more.
    fn wait(&self, queue: usize) -> Option<Duration> {
        let Bucket { step, burst } = self.limits.bucket?;
        let wait = self.full_at(queue) - self.now - step * (burst - 1);
        Some(Duration::from_nanos(wait.max(0) as u64))
    }
}

/// The place of a queue among those that have limits.
fn limited(queue: usize) -> Option<usize> {
    queue.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> ServerInstant {
        ServerInstant::from_nanos(millis * 1_000_000)
    }

    fn limits(concurrency: u32, rate: u32) -> Limits {
        Limits::new(&Orders { concurrency, rate, ..Orders::default() })
    }

    /// So many jobs of queue 1 are taken at `now`, while so many run; and what the claim is told.
    fn take(limits: &mut Limits, now: i64, running: usize, wanted: u32) -> (u32, Kept) {
        let mut within = limits.within(at(now), std::iter::repeat_n(1, running));
        let mut taken = 0;
        while taken < wanted && within.has_room(1) {
            within.take(1);
            taken += 1;
        }
        (taken, within.enter(limits))
    }

    #[test]
    fn as_many_run_as_may() {
        let mut limits = limits(3, 0);
        assert_eq!(take(&mut limits, 0, 0, 2), (2, Kept::default()));
        let told = Kept { until_one_ends: true, rate_wait: None };
        assert_eq!(take(&mut limits, 1, 2, 2), (1, told));
        assert_eq!(take(&mut limits, 2, 3, 2), (0, told));
        assert!(limits.keep_back(1, at(1), 0), "one was taken since");
        assert!(!limits.keep_back(1, at(2), 2));
        assert!(limits.keep_back(1, at(2), 3));
        assert!(!limits.keep_back(0, at(0), 3), "it has no limits");
    }

    #[test]
    fn whoever_takes_the_last_token_is_told_when_there_is_one_more() {
        let mut limits = limits(0, 4);
        let wait =
            |millis| Kept { until_one_ends: false, rate_wait: Some(Duration::from_millis(millis)) };
        assert_eq!(take(&mut limits, 1_000, 0, 9), (4, wait(250)));
        assert_eq!(take(&mut limits, 1_100, 0, 9), (0, Kept::default()));
        assert_eq!(take(&mut limits, 1_250, 0, 9), (1, wait(250)));
        assert_eq!(take(&mut limits, 1_400, 0, 9), (0, Kept::default()));
        assert_eq!(take(&mut limits, 1_800, 0, 9), (2, wait(200)));
        // A clock that is set back costs a full bucket at most.
        assert_eq!(take(&mut limits, -9_000, 0, 9), (0, Kept::default()));
        assert_eq!(take(&mut limits, -8_750, 0, 1), (1, Kept::default()));
    }
}
