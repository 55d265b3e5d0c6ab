//! Decides when this node removes ended jobs that are old enough, and in which steps: now and then one node of the farm
//! does, on a connection of its own, a batch at a time. Which jobs are old enough is the database's to tell.

use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use turnwise_engine::{Slot, TurnRow};

use super::life::Stage;
use super::notes::LastingLog;
use super::turns::Pulse;
use crate::config::Retention;
use crate::sabotage::{Bug, Sabotage};
use crate::store::{PRUNED_AT_ONCE_MAX, Prune, Pruned, Store};

/// How long one batch may take. Nobody waits for it.
const BATCH_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two batches the database is left alone for as long as the last one took, and no less than this,
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// nor longer than this.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A clock that has gained no more than this meanwhile has not been set.
const STEP_MIN: Duration = Duration::from_secs(1);

/// When it is a node's turn to look for jobs that are too old.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cue {
    /// How often one of the farm looks; none: nobody does.
    every: Option<Duration>,
    given: Arc<Notify>,
}

impl Cue {
    pub(crate) fn new(retention: &Retention) -> Self {
        Self { every: retention.look_every(), given: Arc::default() }
    }

    /// A beat of this node was accepted: perhaps it is the one.
    pub(crate) fn beaten(&self, slot: Slot, row: &TurnRow) {
        let is_for = |every| is_for(slot, every, row);
        if self.every.is_some_and(is_for) {
            self.given.notify_one();
        }
    }

    async fn given(&self) {
        self.given.notified().await;
    }
}

/// Whether the node that beats in this slot is the one to look. All agree on it without a word, since at most one beats in
/// a slot. The slots are apart by a number that has no factor in common with the size of the ring, so that every node
/// comes to be the one, whoever else has died or was told otherwise.
fn is_for(slot: Slot, every: Duration, row: &TurnRow) -> bool {
    let period = row.cadence.period.as_duration().as_millis().max(1);
    let least = i64::try_from(every.as_millis().div_ceil(period)).unwrap_or(i64::MAX).max(1);
    let ring = row.roster.version_at(slot).map_or(1, |version| version.ring.len().max(1));
    let apart = (least..).find(|apart| common_factor(*apart, ring as i64) == 1);
    slot.0.rem_euclid(apart.unwrap_or(least)) == 0
}

/// The greatest (Euclid).
fn common_factor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { common_factor(b, a % b) }
}

/// How much the database's clock has gained on this process's own since it first saw it: by being set forward, or since
/// another server answers. Time that nobody lived through makes no job older.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gain {
    /// Server time less local time, in nanoseconds, as it was first known.
    first: Arc<OnceLock<i64>>,
}

impl Gain {
    fn at(&self, offset: i64) -> Duration {
        let gained = offset.saturating_sub(*self.first.get_or_init(|| offset));
        Duration::from_nanos(u64::try_from(gained).unwrap_or(0))
    }
}

/// The task that removes ended jobs.
pub(crate) struct RetentionTask<S: Store, T: Stage> {
    pub(crate) store: S,
    pub(crate) stage: PhantomData<T>,
    pub(crate) retention: Retention,
    pub(crate) cue: Cue,
    pub(crate) gain: Gain,
    pub(crate) pulse: watch::Receiver<Pulse>,
}

impl<S: Store, T: Stage> RetentionTask<S, T> {
    pub(crate) async fn run(mut self) {
        // As soon as the clock is known: what it gains after that is seen.
        if self.pulse.wait_for(|pulse| pulse.offset.is_some()).await.is_ok() {
            self.gained();
            let mut log = LastingLog::default();
            while !T::Bugs::plants(Bug::NothingIsPruned) {
                self.cue.given().await;
                self.look(&mut log).await;
            }
        }
        // The node ends with those who hold its pulse.
        std::future::pending::<()>().await;
    }

    /// None: the clock is not known just now.
    fn gained(&self) -> Option<Duration> {
        self.pulse.borrow().offset.map(|offset| self.gain.at(offset))
    }

    fn prune(&self, gained: Duration) -> Prune {
        let age = |age: Duration| match T::Bugs::plants(Bug::AgeIsIgnored) {
            true => Duration::ZERO,
            false if T::Bugs::plants(Bug::StepMakesOlder) => age,
            false => age.saturating_add(gained),
        };
        let ages = self.retention.ages().map(|(ended, old)| (ended, age(old)));
        Prune::older_than(ages, PRUNED_AT_ONCE_MAX)
    }

    /// Remove what there is, a batch at a time, until there is no more or the next one is about to look.
    async fn look(&self, log: &mut LastingLog) {
        let Some(gained) = self.gained() else { return };
        let begun = Instant::now();
        let until = begun + self.cue.every.unwrap_or_default() * 5 / 6;
        // A clock that is set meanwhile: what is old is to be counted anew.
        let is_set = || self.gained().is_none_or(|now| now.abs_diff(gained) > STEP_MIN);
        let store = self.store.apart();
        let mut prune = self.prune(gained);
        let mut jobs = 0_u64;
        while let Some((removed, next)) = self.batch(&store, &prune, log).await {
            jobs += u64::from(removed);
            let Some(next) = next.filter(|_| Instant::now() < until && !is_set()) else { break };
            prune = next;
        }
        let took_ms = begun.elapsed().as_millis() as u64;
        tracing::debug!(jobs, took_ms, "removed ended jobs");
        // A step is enough: whoever writes very many entries removes as many.
        match tokio::time::timeout(BATCH_TIMEOUT, store.prune_audit()).await {
            Ok(Ok(entries)) => tracing::debug!(entries, "removed entries of the audit"),
            Ok(Err(error)) => tracing::debug!("entries of the audit were not removed: {error}"),
            Err(_) => tracing::debug!("entries of the audit were not removed in time"),
        }
    }

    /// Remove a batch, and leave the database alone for as long as that took: how many, and what to go on with. None: it
    /// could not be done.
    async fn batch(
        &self,
        store: &S,
        prune: &Prune,
        log: &mut LastingLog,
    ) -> Option<(u32, Option<Prune>)> {
        let sent = Instant::now();
        match tokio::time::timeout(BATCH_TIMEOUT, store.prune(prune)).await {
            Ok(Ok(Pruned { jobs, next })) => {
                log.succeeded();
                if next.is_some() {
                    tokio::time::sleep(sent.elapsed().clamp(PAUSE_MIN, PAUSE_MAX)).await;
                }
                Some((jobs, next))
            }
            Ok(Err(error)) => {
                if !log.failed("ended jobs cannot be removed", &error) {
                    tracing::debug!("ended jobs were not removed: {error}");
                }
                None
            }
            Err(_) => {
                tracing::warn!(
                    "ended jobs were not removed: the database did not answer within {} s. It is tried again",
                    BATCH_TIMEOUT.as_secs()
                );
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicI64, Ordering};

    use turnwise_engine::{Claim, NodeId, Period, ServerInstant, Token, Version};

    use super::*;
    use crate::audit::{Action, Actor, Entry};
    use crate::config::Keep;
    use crate::job::{End, JobFate, JobId, NewJob};
    use crate::shell::PreciseThread;
    use crate::store::sqlite::{ServerClock, SqliteStore};
    use crate::store::{AUDIT_KEPT, Audit, NodeReport, Queues, Registration};

    const SECOND: i64 = 1_000_000_000;

    fn row(period_ms: u32, nodes: u128) -> TurnRow {
        let mut row = TurnRow::new(Period::from_millis(period_ms).unwrap());
        let ring = (1..=nodes).map(NodeId::from_u128).collect();
        row.roster.versions = vec![Version { from: Slot(0), ring }];
        row
    }

    #[test]
    fn every_node_comes_to_be_the_one_and_never_sooner_than_was_said() {
        for nodes in [1, 2, 3, 5, 6, 8, 16, 60, 61, 100] {
            for (period, slots) in [(1_000, 60), (50, 1_200), (10_000, 6), (7_000, 9)] {
                let row = row(period, nodes);
                let minute = Duration::from_secs(60);
                let chosen: Vec<Slot> = (1..)
                    .map(Slot)
                    .filter(|slot| is_for(*slot, minute, &row))
                    .take(nodes as usize)
                    .collect();
                let owners = chosen.iter().map(|slot| row.roster.owner(*slot).unwrap());
                let owners: BTreeSet<NodeId> = owners.collect();
                assert_eq!(owners.len(), nodes as usize, "{nodes} nodes at {period} ms");
                let apart = chosen.windows(2).map(|pair| pair[1].0 - pair[0].0);
                assert!(apart.clone().all(|apart| apart >= slots), "{chosen:?}");
                assert!(apart.clone().all(|apart| apart < slots + 12), "{chosen:?}");
            }
        }
    }

    #[test]
    fn what_is_kept_for_ever_gives_no_cue() {
        let cue = Cue::new(&Retention::FOREVER);
        for slot in 0..1_000 {
            cue.beaten(Slot(slot), &row(1_000, 1));
        }
        let given = futures_util::FutureExt::now_or_never(cue.given());
        assert_eq!(given, None);
    }

    #[test]
    fn only_what_a_clock_gains_counts() {
        let gain = Gain::default();
        assert_eq!(gain.at(50 * SECOND), Duration::ZERO, "the first is what it is");
        assert_eq!(gain.at(3_650 * SECOND), Duration::from_secs(3_600));
        assert_eq!(gain.clone().at(49 * SECOND), Duration::ZERO);
    }

    /// A server whose clock is set by hand.
    #[derive(Debug, Default)]
    struct Hands(AtomicI64);

    impl ServerClock for Hands {
        fn now(&self) -> ServerInstant {
            ServerInstant::from_nanos(self.0.load(Ordering::Relaxed))
        }
    }

    /// A store with a job that has ended, and its clock.
    async fn with_an_ended_job() -> (SqliteStore, Arc<Hands>, JobId) {
        let hands = Arc::new(Hands(AtomicI64::new(1_000_000 * SECOND)));
        let store = SqliteStore::open_with_clock("sqlite::memory:", Arc::clone(&hands) as _);
        let store = store.unwrap();
        store.migrate().await.unwrap();
        let id = NodeId::from_u128(1);
        store.register(&Registration { id, name: "n".to_owned(), capacity: 1 }).await.unwrap();
        store.enqueue(&[NewJob::new("/x")]).await.unwrap();
        let claim = Claim { token: Token(1), limit: 1 };
        let claimed = store.claim(id, claim, &Queues::All, &NodeReport::default()).await.unwrap();
        let job = &claimed.jobs[0];
        let (fate, status) = (JobFate::Succeeded, Some(200));
        let end = End {
            job: job.id,
            token: job.token,
            attempt: 1,
            fate,
            status,
            error: None,
            answer: None,
            batch: None,
            slow_down: None,
        };
        store.end(id, &[end]).await.unwrap();
        (store, hands, job.id)
    }

    #[tokio::test]
    async fn what_was_ordered_long_ago_goes_with_the_ended_jobs() {
        let (store, hands, _) = with_an_ended_job().await;
        let actor = Actor::dashboard();
        let keep = async || {
            store.keep(&Entry::new(&actor, Action::QueuePause, "q", Some(1))).await.unwrap();
        };
        keep().await;
        let kept = i64::try_from(AUDIT_KEPT.as_secs()).unwrap();
        hands.0.store((1_000_000 + kept + 1) * SECOND, Ordering::Relaxed);
        keep().await;
        let (pulse, seen) = watch::channel(Pulse::default());
        pulse.send_modify(|pulse| pulse.offset = Some(0));
        let retention = Retention::default();
        let task = RetentionTask {
            store: store.clone(),
            stage: PhantomData::<PreciseThread>,
            retention,
            cue: Cue::new(&retention),
            gain: Gain::default(),
            pulse: seen,
        };
        task.look(&mut LastingLog::default()).await;
        assert_eq!(store.entries(None, 9).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_clock_that_is_set_forward_makes_no_job_older() {
        let (store, hands, job) = with_an_ended_job().await;
        let hour = Duration::from_secs(3_600);
        let retention = Retention { succeeded: Keep::For(hour), dead: Keep::Forever };
        let (pulse, seen) = watch::channel(Pulse::default());
        let task = RetentionTask {
            store: store.clone(),
            stage: PhantomData::<PreciseThread>,
            retention,
            cue: Cue::new(&retention),
            gain: Gain::default(),
            pulse: seen,
        };
        let is_there = async || store.job(job).await.unwrap().is_some();
        let after = async |set: i64, truly: i64| {
            hands.0.store((1_000_000 + set + truly) * SECOND, Ordering::Relaxed);
            pulse.send_modify(|pulse| pulse.offset = Some((700 + set) * SECOND));
            task.look(&mut LastingLog::default()).await;
            is_there().await
        };
        assert!(after(0, 3_599).await);
        assert!(after(3_600, 3_599).await, "an hour that nobody lived through");
        assert!(after(-3_600, 3_599 + 3_600).await, "by the clock it is younger than it is");
        pulse.send_modify(|pulse| pulse.offset = None);
        task.look(&mut LastingLog::default()).await;
        assert!(is_there().await, "of a clock that is not known nothing is known");
        assert!(!after(3_600, 3_600).await);
    }
}
