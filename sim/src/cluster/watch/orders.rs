//! Decides what is told of what apps and people ordered: who gets a unique key, that a cancelled job does not run, that a
//! paused queue is left alone.

use std::collections::{BTreeMap, BTreeSet};

use turnwise_node::job::{JobId, JobState, JobView, Unique};
use turnwise_node::schedule::Cron;
use turnwise_node::store::Fire;

use super::batches;
use super::elsewhere::{All, Said};
use super::limits::Limited;
use crate::cluster::farm::World;
use crate::cluster::orders::SECOND_QUEUE;
use crate::oracle::{Invariant, Mark};
use crate::scenario::Fault;
use crate::sometimes;
use crate::world::job_of;

/// A call whose job was cancelled is over within so long: the node asks every second for jobs that have run for one, and some
/// ways there and back are long.
const DROPPED_WITHIN: u64 = 3_000_000_000;

/// Who got each unique key last.
pub(in crate::cluster) type Holders = BTreeMap<String, u64>;

/// What was ordered.
#[derive(Default)]
pub(in crate::cluster) struct Ordered {
    /// How long jobs that got a unique key hold it at least, in microseconds from their enqueue; none: until they have ended.
    windows: BTreeMap<u64, Option<i64>>,
    /// Who got each key last: whoever had it before has lost it for good, whatever the clock shows later.
    holders: Holders,
    /// The jobs that were cancelled while they waited.
    cancelled: BTreeMap<u64, u64>,
    /// Those that were cancelled while they ran, and when.
    dropped: BTreeMap<u64, u64>,
    is_paused: bool,
    /// When the second queue was resumed last.
    resumed_at: u64,
    schedules: BTreeMap<String, Watched>,
    pub(in crate::cluster) limited: Limited,
    pub(in crate::cluster) batches: batches::All,
    /// The jobs that may go on elsewhere, and what they say of that.
    pub(in crate::cluster) asynchronous: BTreeMap<u64, Said>,
    /// What goes on elsewhere.
    pub(in crate::cluster) elsewhere: All,
}

/// A schedule: its times, the first of them, and those that were fired.
struct Watched {
    cron: Cron,
    first: i64,
    fired: BTreeSet<i64>,
}

pub(super) fn has_ended(job: &JobView) -> bool {
    matches!(job.state, JobState::Succeeded | JobState::Dead | JobState::Cancelled)
}

impl World {
    /// An app enqueued a job with a unique key. `holder`: whose id it was told instead. `jobs` are all that there are now.
    pub(in crate::cluster) fn asked_for_key(
        &mut self,
        number: u64,
        unique: &Unique,
        holder: Option<JobId>,
        jobs: &[JobView],
    ) {
        let server_now = self.server.look().0.stamp(self.now);
        let key = unique.key.as_str().to_owned();
        let told = &self.orders.told;
        // Who had the key last, unless it is gone: then nobody has it.
        let last = told.holders.get(&key).and_then(|last| {
            let job = jobs.iter().find(|job| job_of(job.id) == *last)?;
            let window = told.windows.get(last).copied().flatten();
            // Without a window it is free as soon as the job has ended, though its enqueue may lie in the future where the
            // clock was set back.
            let lasts = window.is_some_and(|window| {
                job.created_at.offset(window.saturating_mul(1_000)) > server_now
            });
            Some((*last, !has_ended(job) || lasts))
        });
        match (holder.map(job_of), last) {
            (None, Some((other, true))) => self.violated(Invariant::UniqueKeys, || {
                format!("job {number} got {key:?}, which job {other} holds")
            }),
            (Some(holder), Some((other, true))) if holder == other => {
                self.oracle.marks.reach(Mark::KeyHeld);
            }
            (Some(holder), _) => self.violated(Invariant::UniqueKeys, || {
                format!("job {number} was told that job {holder} holds {key:?}, which is free")
            }),
            (None, other) => sometimes!(self.oracle.marks, Mark::KeyFreed, other.is_some()),
        }
        if holder.is_none() {
            let window = unique.window.map(|window| window.as_micros() as i64);
            self.orders.told.windows.insert(number, window);
            self.orders.told.holders.insert(unique.key.as_str().to_owned(), number);
        }
    }

    /// How much longer a job is kept for its key's sake, in nanoseconds.
    pub(super) fn kept_for_key(&self, job: u64) -> u64 {
        let window = self.orders.told.windows.get(&job).copied().flatten().unwrap_or(0);
        window.unsigned_abs() * 1_000
    }

    /// Who holds which key, to be kept with a copy of the database.
    pub(in crate::cluster) fn key_holders(&self) -> Holders {
        self.orders.told.holders.clone()
    }

    /// Another server took over with an older state: the keys are whose they were then.
    pub(in crate::cluster) fn keys_are_as_they_were(&mut self, holders: Holders) {
        self.orders.told.holders = holders;
    }

    /// Somebody cancelled a job, which is in this state since.
    pub(in crate::cluster) fn cancelled(&mut self, job: u64, state: JobState) {
        let now = self.now;
        self.trace([12, job, u64::from(state == JobState::Cancelled)]);
        if state == JobState::Cancelled {
            self.oracle.marks.reach(Mark::CancelledWaiting);
            self.orders.told.cancelled.insert(job, now);
            self.job_is_over(job);
        } else {
            self.orders.told.dropped.entry(job).or_insert(now);
        }
    }

    /// Whether somebody has cancelled it.
    pub(super) fn is_cancelled(&self, job: u64) -> bool {
        let Ordered { cancelled, dropped, .. } = &self.orders.told;
        cancelled.contains_key(&job) || dropped.contains_key(&job)
    }

    fn job_is_over(&mut self, job: u64) {
        let now = self.now;
        self.ended_at.insert(job, now);
        self.oracle.jobs.cancelled(job);
        self.idle_since = now;
    }

    /// An attempt at a job ended that is not to be tried again, if it was cancelled.
    pub(super) fn ends_for_good_if_cancelled(&mut self, job: u64) {
        if self.orders.told.dropped.remove(&job).is_some() {
            self.job_is_over(job);
        }
    }

    /// The database gave out this job of this queue.
    pub(super) fn may_be_handed_out(&mut self, job: u64, queue: &str) {
        self.is_claimed_anew(job);
        self.has_waited(job);
        if let Some(at) = self.orders.told.cancelled.get(&job).copied() {
            self.violated(Invariant::Cancels, || {
                format!("job {job} is claimed, which was cancelled at {} us", at / 1_000)
            });
        }
        if queue == SECOND_QUEUE && self.orders.told.is_paused {
            self.violated(Invariant::Pauses, || {
                format!("job {job} is claimed, whose queue is paused")
            });
        }
    }

    /// Calls whose jobs were cancelled are dropped, unless the node cannot hear of it.
    pub(in crate::cluster) fn check_cancelled(&mut self) {
        let now = self.now;
        let served = self.served.keys().filter_map(|(job, life)| {
            let at = self.orders.told.dropped.get(job)?;
            let here = &self.lives[*life as usize];
            let host = &self.hosts[here.host as usize];
            let hears =
                here.lost_at.is_none() && !host.is_paused(now) && self.is_quiet(here.host, *at);
            (hears && at + DROPPED_WITHIN < now).then_some((*job, *life, now - at))
        });
        if let Some((job, life, since)) = served.min() {
            self.violated(Invariant::Cancels, || {
                format!(
                    "life {life} runs job {job} {} ms after it was cancelled",
                    since / 1_000_000
                )
            });
        }
    }

    /// A call is over.
    pub(super) fn call_is_over(&mut self, job: u64, answered: bool) {
        let dropped = self.orders.told.dropped.contains_key(&job) && !answered;
        sometimes!(self.oracle.marks, Mark::CancelledRunning, dropped);
    }

    /// Somebody paused the second queue.
    pub(in crate::cluster) fn paused(&mut self, jobs: &[JobView]) {
        let waits = |job: &JobView| job.queue == SECOND_QUEUE && !has_ended(job);
        sometimes!(self.oracle.marks, Mark::QueuePaused, jobs.iter().any(waits));
        self.trace([13, 1, 0]);
        self.orders.told.is_paused = true;
    }

    /// And resumed it.
    pub(in crate::cluster) fn resumed(&mut self) {
        self.trace([13, 0, 0]);
        self.orders.told.is_paused = false;
        self.orders.told.resumed_at = self.now;
    }

    /// Whether a job may still wait for its queue's sake.
    pub(super) fn waits_for_its_queue(&self, queue: &str, grace: u64) -> bool {
        let Ordered { is_paused, resumed_at, .. } = self.orders.told;
        queue == SECOND_QUEUE && (is_paused || resumed_at + grace >= self.now)
    }

    /// A schedule was set, whose first time is this.
    pub(in crate::cluster) fn scheduled(&mut self, name: &str, cron: Cron, first: i64) {
        let watched = Watched { cron, first, fired: BTreeSet::new() };
        self.orders.told.schedules.insert(name.to_owned(), watched);
    }

    /// A node fired these times; for each, whether there is a job.
    pub(in crate::cluster) fn fired(&mut self, fire: &Fire, has_job: &[bool]) {
        let now = self.now;
        self.trace([14, fire.times.len() as u64, 0]);
        let (shown, sets_clocks) = (self.server.exact().as_micros(), self.sets_clocks());
        let hosts = 0..self.hosts.len() as u32;
        let ahead = 4 * self.period + 5_000_000_000;
        let is_well = self.oracle.ring.is_calm(now)
            && hosts.into_iter().all(|host| self.is_quiet(host, now.saturating_sub(ahead)))
            && self.lives.iter().all(|life| life.born + ahead < now && !life.draining);
        for ((time, job), has_job) in fire.times.iter().zip(has_job) {
            self.oracle.marks.reach(Mark::ScheduleFired);
            sometimes!(self.oracle.marks, Mark::FiredForTheDead, *time < shown);
            let told = &mut self.orders.told.schedules;
            let is_new = told.get_mut(&fire.schedule).is_none_or(|s| s.fired.insert(*time));
            if !has_job || !is_new && !sets_clocks {
                let what = if is_new { "without a job" } else { "a second time" };
                self.violated(Invariant::Schedules, || {
                    format!("{:?} is fired {what} for {time} us", fire.schedule)
                });
            } else if *time < shown && is_well {
                self.violated(Invariant::Schedules, || {
                    let late = shown - time;
                    format!("{:?} is fired {late} us late, and nothing is wrong", fire.schedule)
                });
            }
            if is_new {
                self.oracle.jobs.enqueued(now, job_of(*job));
            }
        }
    }

    /// Whether a clock of the database is set in this run.
    pub(super) fn sets_clocks(&self) -> bool {
        self.scenario.faults.iter().any(|planned| {
            matches!(
                planned.fault,
                Fault::Failover { .. } | Fault::ServerStep { .. } | Fault::ServerSlew { .. }
            )
        })
    }

    /// The run is over: what has come has been fired. (Where a clock was set, what has come is another question.)
    pub(super) fn check_fired(&mut self, grace: u64) {
        let nobody = !self.lives.iter().any(|life| life.staying && life.born + grace < self.now);
        let is_out = self.out_until + grace >= self.now || !self.oracle.ring.is_calm(self.now);
        if nobody || is_out || self.sets_clocks() {
            return;
        }
        let shown = self.server.look().0.exact(self.now.saturating_sub(grace)).as_micros();
        let missing = self.orders.told.schedules.iter().find_map(|(name, watched)| {
            let mut times =
                std::iter::once(watched.first).chain(watched.cron.times_after(watched.first));
            let missing = times.find(|time| *time >= shown || !watched.fired.contains(time))?;
            (missing < shown).then(|| (name.clone(), missing))
        });
        if let Some((name, time)) = missing {
            self.violated(Invariant::Schedules, || format!("{name:?} was not fired for {time} us"));
        }
    }

    /// Another server took over, with an older state: what was ordered last may be forgotten.
    pub(in crate::cluster) fn orders_may_be_lost(&mut self, second_is_paused: bool) {
        let told = &mut self.orders.told;
        told.cancelled.clear();
        told.dropped.clear();
        told.elsewhere.clear();
        told.batches.clear();
        for watched in told.schedules.values_mut() {
            watched.fired.clear();
        }
        if told.is_paused != second_is_paused {
            told.is_paused = second_is_paused;
            told.resumed_at = self.now;
        }
    }
}
