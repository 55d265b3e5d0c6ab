//! Decides what apps and people order of the database: jobs, batches of them, some with unique keys, some of which are cancelled soon after, and
//! pauses of a queue, limits of another, schedules.

use std::time::Duration;

use turnwise_node::batch::{BatchId, NewBatch};
use turnwise_node::job::{Asynchronous, HEARTBEAT_MIN, JobState, NewJob, Unique};
use turnwise_node::schedule::{Cron, Misfire};
use turnwise_node::store::{
    Batches, Limits, NewSchedule, QueueOrders, QueuePolicy, Rate, Schedules, SealAnswer, Store,
};

use super::caller::CALL_DEADLINE;
use super::database::{Database, at_once};
use super::farm::Farm;
use super::watch::{KnownBatch, Said, batch_id};
use super::{BODY, Cluster, What};
use crate::oracle::Invariant;
use crate::random::Stream;
use crate::world::id_of;

/// The queue that is paused now and then.
pub(super) const SECOND_QUEUE: &str = "second";
/// The queue that has limits.
pub(super) const LIMITED_QUEUE: &str = "limited";
/// So many keys there are: few, so that they are fought over.
const KEYS: u64 = 3;
/// So many concurrency keys there are.
const CONCURRENCY_KEYS: u64 = 3;
/// The longest window of a key, in milliseconds.
const WINDOW_MS: u64 = 8_000;
/// A job that is cancelled is cancelled within so long.
const CANCELLED_WITHIN: u64 = 6_000_000_000;
/// A batch that is not sealed at once is sealed within so long, and one that is cancelled is cancelled within it.
const SEALED_WITHIN: u64 = 6_000_000_000;
/// The most jobs that a batch begins with.
const JOBS_OF_A_BATCH: u64 = 4;
/// A pause lasts at most so long.
const PAUSED_FOR: u64 = 6_000_000_000;

/// An attempt that is to be heard of may take so long in all.
const ELSEWHERE_DEADLINE: Duration = Duration::from_secs(15);

/// The schedules that there may be.
const CRONS: [&str; 3] = ["*/5 * * * * *", "*/7 * * * * *", "30 * * * * *"];

/// What was ordered, and the chance that decides what is.
pub(super) struct Orders {
    /// A stream for each kind, so that one more order of one kind shifts none of the others.
    queues: Stream,
    keys: Stream,
    cancels: Stream,
    pauses: Stream,
    asynchronous: Stream,
    limits: Stream,
    concurrency_keys: Stream,
    batches: Stream,
    additions: Stream,
    /// So many batches were made.
    batches_made: u64,
    pub(super) told: super::watch::Ordered,
}

impl Orders {
    pub(super) fn new(seed: u64) -> Self {
        let stream = |name| Stream::new(seed, name);
        Self {
            queues: stream("orders: queues"),
            keys: stream("orders: keys"),
            cancels: stream("orders: cancels"),
            pauses: stream("orders: pauses"),
            asynchronous: stream("orders: asynchronous"),
            limits: stream("orders: limits"),
            concurrency_keys: stream("orders: concurrency keys"),
            batches: stream("orders: batches"),
            additions: stream("orders: additions"),
            batches_made: 0,
            told: Default::default(),
        }
    }
}

impl Farm {
    /// A web app that works at a job of a batch adds another to it, now and then.
    pub(super) fn extend(&self, job: u64) {
        let mut world = self.look();
        let Some(batch) = world.batch_of(job) else { return };
        let is_wanted = world.orders.additions.below(4) == 0;
        let is_there = world.out_until <= world.now && world.now <= world.scenario.load.until.0;
        let (number, max_attempts) = (world.jobs + 1, world.scenario.load.max_attempts);
        let store = world.store.clone().filter(|_| is_wanted && is_there);
        drop(world);
        let Some(store) = store else { return };
        let added = NewJob {
            id: id_of(number),
            max_attempts,
            deadline: CALL_DEADLINE,
            batch: Some(batch),
            ..NewJob::new(format!("/jobs/{number}"))
        };
        let view = at_once(store.job(id_of(job))).ok().flatten();
        let is_running = view.is_some_and(|(view, _)| view.state == JobState::Running);
        let done = at_once(store.enqueue(&[added]));
        let mut world = self.look();
        if done.is_ok() {
            world.jobs = number;
        }
        world.extended(batch, job, number, &done, is_running);
    }
}

impl Cluster<'_> {
    /// The database, when apps and people reach it now.
    pub(super) fn reachable(&self) -> Option<Database> {
        let world = self.farm.look();
        let is_there = world.out_until <= world.now && !world.lives.is_empty();
        world.store.clone().filter(|_| is_there)
    }

    pub(super) fn enqueue(&mut self) {
        let mut world = self.farm.look();
        let (now, load) = (world.now, world.scenario.load);
        if now > load.until.0 {
            return;
        }
        let wait = -(load.every.0 as f64) * world.load.ln_uniform();
        let number = world.jobs + 1;
        drop(world);
        // An application that cannot reach the database does not enqueue.
        if let Some(store) = self.reachable() {
            let job = self.drawn_job(number);
            let key = job.unique.clone();
            let done = at_once(store.enqueue(&[job]));
            let mut world = self.farm.look();
            match done {
                Ok(ids) => {
                    world.jobs = number;
                    let holder = ids.first().copied().filter(|id| *id != id_of(number));
                    if holder.is_none() {
                        world.oracle.jobs.enqueued(now, number);
                    }
                    if let Some(key) = key {
                        drop(world);
                        let jobs = super::all_jobs(&store);
                        self.farm.look().asked_for_key(number, &key, holder, &jobs);
                    }
                }
                Err(error) => {
                    let say = || format!("a job cannot be enqueued: {error}");
                    world.violated(Invariant::NoJobLost, say);
                }
            }
        }
        self.plan(now + 1 + wait as u64, What::Enqueue);
    }

    /// The job of this number, and, perhaps, when it is cancelled.
    fn drawn_job(&mut self, number: u64) -> NewJob {
        let mut world = self.farm.look();
        let (now, load, wanted) = (world.now, world.scenario.load, world.scenario.orders);
        let orders = &mut world.orders;
        let mut job = NewJob {
            id: id_of(number),
            max_attempts: load.max_attempts,
            body: (load.jobs_a_claim > 0).then(|| BODY.to_vec()),
            deadline: CALL_DEADLINE,
            ..NewJob::new(format!("/jobs/{number}"))
        };
        if wanted.pauses_every.0 > 0 && orders.queues.below(3) == 0 {
            job.queue = SECOND_QUEUE.to_owned();
        }
        if wanted.has_limits() && orders.limits.below(2) == 0 {
            job.queue = LIMITED_QUEUE.to_owned();
        }
        if wanted.concurrency_per_key > 0 {
            // Some have none; and one of another queue is bound by nothing.
            let number = orders.concurrency_keys.below(CONCURRENCY_KEYS + 1);
            let key = (number > 0).then(|| format!("key {number}"));
            job.concurrency_key = key.and_then(|key| key.parse().ok());
        }
        if orders.keys.below(1_000_000) < u64::from(wanted.keyed_ppm) {
            let key = format!("key {}", orders.keys.below(KEYS)).parse().ok();
            let window = 1 + orders.keys.below(WINDOW_MS);
            let window = (orders.keys.below(2) == 0).then(|| Duration::from_millis(window));
            job.unique = key.map(|key| Unique { key, window });
        }
        if orders.asynchronous.below(1_000_000) < u64::from(wanted.asynchronous_ppm) {
            let heartbeat = (orders.asynchronous.below(3) > 0)
                .then(|| HEARTBEAT_MIN + Duration::from_millis(orders.asynchronous.below(4_000)));
            if heartbeat.is_some() {
                job.deadline = ELSEWHERE_DEADLINE;
            }
            job.asynchronous = Some(Asynchronous { heartbeat });
            let nanos = |time: Duration| time.as_nanos() as u64;
            let (heartbeat, deadline) = (heartbeat.map(nanos), nanos(job.deadline));
            let said = Said { heartbeat, deadline, began: 0 };
            orders.told.asynchronous.insert(number, said);
        }
        let is_cancelled = orders.cancels.below(1_000_000) < u64::from(wanted.cancelled_ppm);
        let at = now + 1 + orders.cancels.below(CANCELLED_WITHIN);
        drop(world);
        if is_cancelled {
            self.plan(at, What::Cancel(number));
        }
        job
    }

    /// Somebody cancels a job, wherever it is now.
    pub(super) fn cancel(&mut self, number: u64) {
        let Some(store) = self.reachable() else { return };
        if let Ok(Some(true)) = at_once(store.cancel(id_of(number))) {
            let job = at_once(store.job(id_of(number))).ok().flatten();
            if let Some((job, _)) = job {
                self.farm.look().cancelled(number, job.state);
            }
        }
    }

    /// An app makes a batch of a few jobs.
    pub(super) fn make_batch(&mut self) {
        let mut world = self.farm.look();
        let (now, every) = (world.now, world.scenario.orders.batches_every.0);
        if now > world.scenario.load.until.0 {
            return;
        }
        let (first, max_attempts) = (world.jobs + 1, world.scenario.load.max_attempts);
        let chance = &mut world.orders.batches;
        let wait = -(every as f64) * chance.ln_uniform();
        let jobs = chance.below(JOBS_OF_A_BATCH + 1);
        let (is_sealed, later) = (chance.below(3) > 0, now + 1 + chance.below(SEALED_WITHIN));
        // In a third of them one is cancelled, in some of them all.
        let (cancels_one, cancelled) = (chance.below(3) == 0, chance.below(jobs.max(1)));
        let (cancels_all, cancelled_at) = (chance.below(6) == 0, chance.below(SEALED_WITHIN));
        let batch = batch_id(world.orders.batches_made);
        drop(world);
        if let Some(store) = self.reachable() {
            let job = |number: u64| NewJob {
                id: id_of(number),
                max_attempts,
                deadline: CALL_DEADLINE,
                ..NewJob::new(format!("/jobs/{number}"))
            };
            let numbers: Vec<u64> = (first..first + jobs).collect();
            let (success, complete) = (first + jobs, first + jobs + 1);
            let new = NewBatch {
                id: batch,
                name: None,
                jobs: numbers.iter().map(|number| job(*number)).collect(),
                on_success: Some(job(success)),
                on_complete: Some(job(complete)),
                is_sealed,
            };
            let done = at_once(store.make_batch(&new));
            let mut world = self.farm.look();
            match done {
                Ok(_) => {
                    world.jobs = complete;
                    world.orders.batches_made += 1;
                    let sealed_at = is_sealed.then_some(now);
                    let known = KnownBatch {
                        jobs: numbers.clone(),
                        success,
                        complete,
                        sealed_at,
                        ..KnownBatch::default()
                    };
                    world.made_batch(batch, known);
                    drop(world);
                    if !is_sealed {
                        self.plan(later, What::Seal(batch));
                    }
                    if cancels_one && let Some(number) = numbers.get(cancelled as usize) {
                        self.plan(now + 1 + cancelled_at, What::Cancel(*number));
                    }
                    if cancels_all {
                        self.plan(now + 1 + cancelled_at, What::CancelBatch(batch));
                    }
                }
                Err(error) => {
                    let say = || format!("a batch cannot be made: {error}");
                    world.violated(Invariant::Batches, say);
                }
            }
        }
        self.plan(now + 1 + wait as u64, What::MakeBatch);
    }

    /// And seals it, as soon as the database can be reached.
    pub(super) fn seal(&mut self, batch: BatchId) {
        let now = self.farm.look().now;
        match self.reachable() {
            Some(store) => {
                if matches!(at_once(store.seal(batch)), Ok(SealAnswer::Sealed)) {
                    self.farm.look().sealed(batch);
                }
            }
            None => self.plan(now + 500_000_000, What::Seal(batch)),
        }
    }

    /// Somebody cancels a batch, and then its jobs.
    pub(super) fn cancel_batch(&mut self, batch: BatchId) {
        let Some(store) = self.reachable() else { return };
        if !matches!(at_once(store.cancel_batch(batch)), Ok(Some(true))) {
            return;
        }
        let mut world = self.farm.look();
        world.cancelled_batch(&store, batch);
        let jobs = world.orders.told.batches.get(&batch).map(|known| known.jobs.clone());
        drop(world);
        for number in jobs.unwrap_or_default() {
            self.cancel(number);
        }
    }

    /// Somebody pauses the second queue, for a while.
    pub(super) fn pause(&mut self) {
        let mut world = self.farm.look();
        let (now, every) = (world.now, world.scenario.orders.pauses_every.0);
        if now > world.scenario.load.until.0 {
            return;
        }
        let wait = -(every as f64) * world.orders.pauses.ln_uniform();
        let lasts = 1 + world.orders.pauses.below(PAUSED_FOR);
        drop(world);
        if let Some(store) = self.reachable()
            && matches!(at_once(store.pause(SECOND_QUEUE)), Ok(true))
        {
            self.farm.look().paused(&super::all_jobs(&store));
            self.plan(now + lasts, What::Resume);
        }
        self.plan(now + lasts + 1 + wait as u64, What::Pause);
    }

    /// And resumes it, as soon as the database can be reached.
    pub(super) fn resume(&mut self) {
        let now = self.farm.look().now;
        match self.reachable() {
            Some(store) => {
                let _ = at_once(store.resume(SECOND_QUEUE));
                self.farm.look().resumed();
            }
            None => self.plan(now + 500_000_000, What::Resume),
        }
    }

    /// Somebody sets the limits of a queue, once there is a database to set them in.
    pub(super) fn set_limits(&mut self) {
        let (now, orders) = (self.farm.look().now, self.scenario.orders);
        let some = |number: u32| (number > 0).then_some(number);
        let rate = some(orders.rate);
        let rate = rate.map(|jobs| Rate { jobs, per: Duration::from_secs(1), burst: jobs });
        let limits = Limits {
            concurrency: some(orders.concurrency),
            concurrency_per_key: some(orders.concurrency_per_key),
            rate,
        };
        let slow_down = some(orders.slow_down);
        let slow_down = slow_down.map(|seconds| Duration::from_secs(u64::from(seconds)));
        let policy = QueuePolicy { limits, slow_down, ..QueuePolicy::default() };
        let is_set = self
            .reachable()
            .is_some_and(|store| at_once(store.put_policy(LIMITED_QUEUE, &policy)).is_ok());
        match is_set {
            true => self.farm.look().orders.told.limited.is_set = true,
            false => self.plan(now + 500_000_000, What::SetLimits),
        }
    }

    /// Somebody sets the schedules, once there is a database to set them in.
    pub(super) fn set_schedules(&mut self) {
        let now = self.farm.look().now;
        let Some((store, clock)) = self.reachable().and_then(|store| {
            let clock = at_once(store.look()).ok()?.clock;
            Some((store, clock))
        }) else {
            self.plan(now + 500_000_000, What::SetSchedules);
            return;
        };
        let count = self.scenario.orders.schedules as usize;
        for cron in CRONS.iter().take(count) {
            let Ok(parsed) = Cron::parse(cron, "UTC") else { continue };
            let schedule = NewSchedule {
                name: (*cron).to_owned(),
                cron: (*cron).to_owned(),
                zone: "UTC".to_owned(),
                misfire: Misfire::All { limit: 1_000 },
                job: NewJob {
                    deadline: CALL_DEADLINE,
                    max_attempts: self.scenario.load.max_attempts,
                    ..NewJob::new("/jobs/scheduled")
                },
            };
            let next = parsed.next_after(clock.as_micros());
            if let (Some(next), Ok(_)) = (next, at_once(store.put_schedule(&schedule, next))) {
                self.farm.look().scheduled(&schedule.name, parsed, next);
            }
        }
    }
}
