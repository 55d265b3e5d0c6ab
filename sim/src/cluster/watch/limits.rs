//! Decides what is told of a queue that has limits: that no more of its jobs run at once, and none are claimed sooner, than it allows,
//! and that it goes on.

use turnwise_engine::Kept;
use turnwise_node::job::{ClaimedJob, JobFilter, JobState};
use turnwise_node::store::Store;

use crate::cluster::database::{Database, at_once};
use crate::cluster::farm::World;
use crate::cluster::orders::LIMITED_QUEUE;
use crate::oracle::{Invariant, Mark};
use crate::sometimes;

/// What the judge knows of the queue that has limits.
#[derive(Debug, Default)]
pub(in crate::cluster) struct Limited {
    /// They hold.
    pub(in crate::cluster) is_set: bool,
    /// When its bucket is full again, by the server's clock, in microseconds.
    full_at: i64,
    /// When the last of its jobs was given out.
    last: u64,
}

impl World {
    /// The database gave these jobs out and told this of limits. `store` is what it holds now.
    pub(in crate::cluster) fn within_limits(
        &mut self,
        store: &Database,
        jobs: &[ClaimedJob],
        kept: &Kept,
    ) {
        sometimes!(self.oracle.marks, Mark::PlacesTaken, kept.until_one_ends);
        sometimes!(self.oracle.marks, Mark::RateReached, kept.rate_wait.is_some());
        let taken = jobs.iter().filter(|job| job.queue == LIMITED_QUEUE).count();
        let orders = self.scenario.orders;
        if taken == 0 || !self.orders.told.limited.is_set {
            return;
        }
        self.orders.told.limited.last = self.now;
        // Where a database takes over that knows an older state, it may not know of them.
        if self.sets_clocks() {
            return;
        }
        if orders.concurrency > 0 {
            let filter = JobFilter {
                state: Some(JobState::Running),
                queue: Some(LIMITED_QUEUE.to_owned()),
                limit: u32::MAX,
                ..JobFilter::default()
            };
            let running = at_once(store.jobs(&filter)).unwrap_or_default();
            let clock = self.server.look().0.stamp(self.now);
            // What was not heard of in time is due, and runs no more.
            let runs = |scheduled| scheduled > clock;
            let running = running
                .iter()
                .filter(|job| job.awaits_since.is_none() || runs(job.scheduled_at))
                .count();
            if running > orders.concurrency as usize {
                self.violated(Invariant::Limits, || {
                    format!("{running} jobs of a queue run that allows {}", orders.concurrency)
                });
            }
        }
        if orders.rate > 0 {
            let clock = self.server.look().0.stamp(self.now).as_micros();
            let step = 1_000_000 / i64::from(orders.rate);
            let full_at = self.orders.told.limited.full_at.max(clock) + step * taken as i64;
            self.orders.told.limited.full_at = full_at;
            let beyond = full_at - clock - step * i64::from(orders.rate);
            if beyond > 0 {
                self.violated(Invariant::Limits, || {
                    format!("a job of a queue that gives out {} a second is claimed {beyond} us too early", orders.rate)
                });
            }
        }
    }

    /// Whether a job may still wait for the sake of its queue's limits: others of it were given out lately.
    pub(super) fn waits_for_its_limits(&self, queue: &str, grace: u64) -> bool {
        queue == LIMITED_QUEUE && self.orders.told.limited.last + grace >= self.now
    }
}
