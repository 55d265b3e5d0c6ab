//! Decides what is told of a queue that has limits: that no more of its jobs run at once, and none are claimed sooner, than it allows,
//! and that it goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use turnwise_engine::Kept;
use turnwise_node::job::{ClaimedJob, JobFilter, JobState, JobView, SlowDown};
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
    /// The same of each key.
    last_of_key: BTreeMap<String, u64>,
    /// Until when it is held back.
    held_back: u64,
    /// Until when it is held back, by the server's clock, in microseconds.
    held_back_until: i64,
}

/// The concurrency key of a job that was given out.
fn key_of(store: &Database, job: &ClaimedJob) -> Option<String> {
    let (view, _) = at_once(store.job(job.id)).ok()??;
    view.particulars.concurrency_key
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
        for key in jobs
            .iter()
            .filter(|job| job.queue == LIMITED_QUEUE)
            .filter_map(|job| key_of(store, job))
        {
            self.orders.told.limited.last_of_key.insert(key, self.now);
        }
        // Where a database takes over that knows an older state, it may not know of them.
        if self.sets_clocks() {
            return;
        }
        let clock = self.server.look().0.stamp(self.now);
        if clock.as_micros() < self.orders.told.limited.held_back_until {
            self.violated(Invariant::Limits, || {
                "a job of a queue is claimed that is held back".to_owned()
            });
        }
        if orders.concurrency > 0 || orders.concurrency_per_key > 0 {
            let filter = JobFilter {
                state: Some(JobState::Running),
                queue: Some(LIMITED_QUEUE.to_owned()),
                limit: u32::MAX,
                ..JobFilter::default()
            };
            let running = at_once(store.jobs(&filter)).unwrap_or_default();
            // What was not heard of in time is due, and runs no more.
            let runs = |scheduled| scheduled > clock;
            let running: Vec<&JobView> = running
                .iter()
                .filter(|job| job.awaits_since.is_none() || runs(job.scheduled_at))
                .collect();
            let (many, most) = (running.len(), orders.concurrency as usize);
            if most > 0 && many > most {
                self.violated(Invariant::Limits, || {
                    format!("{many} jobs of a queue run that allows {most}")
                });
            }
            self.within_limits_of_keys(&running, jobs);
        }
        if orders.rate > 0 {
            let clock = clock.as_micros();
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

    /// These jobs of the queue run, some of which were given out just now.
    fn within_limits_of_keys(&mut self, running: &[&JobView], given: &[ClaimedJob]) {
        let most = self.scenario.orders.concurrency_per_key as usize;
        if most == 0 {
            return;
        }
        let mut of_key: BTreeMap<&str, usize> = BTreeMap::new();
        for key in running.iter().filter_map(|job| job.particulars.concurrency_key.as_deref()) {
            *of_key.entry(key).or_insert(0) += 1;
        }
        sometimes!(self.oracle.marks, Mark::KeyTaken, of_key.values().any(|many| *many == most));
        let is_new = |job: &JobView| given.iter().any(|given| given.id == job.id);
        let key = |job: &&&JobView| job.particulars.concurrency_key.clone();
        for key in running.iter().filter(|job| is_new(job)).filter_map(|job| key(&job)) {
            let many = of_key.get(key.as_str()).copied().unwrap_or(0);
            if many > most {
                self.violated(Invariant::Limits, || {
                    format!("{many} jobs of {key} run in a queue that allows {most}")
                });
            }
        }
    }

    /// A node has told the database that a target asks for less.
    pub(in crate::cluster) fn slowed_down(&mut self, what: &SlowDown) {
        if what.queue != LIMITED_QUEUE || !self.orders.told.limited.is_set {
            return;
        }
        let most = Duration::from_secs(u64::from(self.scenario.orders.slow_down));
        let wait = what.wait.min(most);
        sometimes!(self.oracle.marks, Mark::QueueHeldBack, true);
        let clock = self.server.look().0.stamp(self.now).as_micros();
        let limited = &mut self.orders.told.limited;
        limited.held_back_until =
            limited.held_back_until.max(clock.saturating_add(wait.as_micros() as i64));
        limited.held_back = limited.held_back.max(self.now + wait.as_nanos() as u64);
    }

    /// Whether a job, one of these, may still wait for the sake of its queue's limits: others of it were given out lately. Where the
    /// queue bounds nothing but its keys, others of the same key were, or one of them runs.
    pub(super) fn waits_for_its_limits(&self, job: &JobView, jobs: &[JobView], grace: u64) -> bool {
        let (limited, orders) = (&self.orders.told.limited, &self.scenario.orders);
        if job.queue != LIMITED_QUEUE {
            return false;
        }
        let lately = |at: u64| at + grace >= self.now;
        if lately(limited.held_back) {
            return true;
        }
        let runs =
            |other: &&JobView| other.queue == LIMITED_QUEUE && other.state == JobState::Running;
        let is_full = |most: u32| most > 0 && jobs.iter().filter(runs).count() >= most as usize;
        if (orders.concurrency > 0 || orders.rate > 0) && lately(limited.last) {
            return true;
        }
        if is_full(orders.concurrency) {
            return true;
        }
        let Some(key) = &job.particulars.concurrency_key else { return false };
        let mut same = jobs.iter().filter(runs);
        orders.concurrency_per_key > 0
            && (limited.last_of_key.get(key).is_some_and(|at| lately(*at))
                || same.any(|other| other.particulars.concurrency_key.as_ref() == Some(key)))
    }
}
