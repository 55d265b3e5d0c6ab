//! Looks whether batches have ended. Decides when: as soon as a job of one has ended here, and, for those whose jobs ended
//! otherwise, when a beat is told that it is time; and again, after a while, for those that somebody held then. Whether one has ended is
//! the database's to tell.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use turnwise_engine::ServerInstant;

use super::aside::{Aside, KEPT_FOR};
use super::life::Stage;
use super::notes::LastingLog;
use crate::batch::{BatchId, BatchState};
use crate::sabotage::{Bug, Sabotage};
use crate::store::{SETTLED_AT_ONCE, Settled, Store, StoreError};

/// A look that takes longer is given up; a later beat of somebody looks again.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// So many due batches are looked at after one beat, at a time as many as are looked at at once; the others after a later one.
const DUE_AT_A_BEAT: usize = 10 * SETTLED_AT_ONCE as usize;
/// What is to be looked at by then is all that there is: a clock was set, or another server answers.
const ANEW: ServerInstant = ServerInstant::from_nanos(i64::MAX);

/// Why batches are to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// A job of this one has ended here.
    At(BatchId),
    /// Those are to be looked at that are due by then.
    Due(ServerInstant),
}

/// Batches that somebody held when they were looked at: each is looked at again after a while, and holds up no other until then.
#[derive(Debug, Default)]
struct Held(BTreeMap<BatchId, Hold>);

/// When a batch is looked at again, after so many looks in vain.
#[derive(Clone, Copy, Debug)]
struct Hold {
    at: Instant,
    looks: u32,
}

impl Hold {
    fn after(looks: u32, now: Instant) -> Self {
        Self { at: now + Settled::pause(looks), looks }
    }
}

impl Held {
    /// How long it is until one of them is to be looked at again; none: nobody holds any.
    fn wait(&self, now: Instant) -> Option<Duration> {
        self.0.values().map(|hold| hold.at.saturating_duration_since(now)).min()
    }

    /// Those that are to be looked at again by now. Should that come to nothing, they are once more.
    fn due(&mut self, now: Instant) -> Vec<BatchId> {
        let due = self.0.iter_mut().filter(|(_, hold)| hold.at <= now);
        let again = due.map(|(batch, hold)| {
            *hold = Hold::after(hold.looks.saturating_add(1), now);
            *batch
        });
        again.collect()
    }

    /// These were looked at, and somebody holds those.
    fn looked(&mut self, asked: &[BatchId], held: &[BatchId], now: Instant) {
        for batch in asked {
            if !held.contains(batch) {
                self.0.remove(batch);
            }
        }
        for batch in held {
            self.0.entry(*batch).or_insert_with(|| Hold::after(1, now));
        }
    }
}

/// The task that looks.
pub(crate) struct BatchesTask<S: Store, T: Stage> {
    /// A connection of its own: schedules wait for no batch.
    pub(crate) aside: Aside<S>,
    pub(crate) stage: PhantomData<T>,
    pub(crate) looks: mpsc::UnboundedReceiver<Look>,
}

impl<S: Store, T: Stage> BatchesTask<S, T> {
    pub(crate) async fn run(mut self) {
        let mut log = LastingLog::default();
        let (mut looks, mut held) = (Vec::new(), Held::default());
        // However many come meanwhile, the next look is one.
        loop {
            let wait = held.wait(Instant::now()).map_or(KEPT_FOR, |wait| wait.min(KEPT_FOR));
            let given = self.looks.recv_many(&mut looks, usize::MAX);
            let given = tokio::time::timeout(wait, given).await;
            if given == Ok(0) {
                break;
            }
            let (mut batches, mut due) = (held.due(Instant::now()), None);
            if given.is_err() && batches.is_empty() {
                self.aside.rest();
                continue;
            }
            for look in looks.drain(..) {
                match look {
                    Look::At(batch) => batches.push(batch),
                    Look::Due(until) => due = due.max(Some(until)),
                }
            }
            if T::Bugs::plants(Bug::NoBatchIsLookedAt) {
                continue;
            }
            let due = due.filter(|_| !T::Bugs::plants(Bug::BatchIsLookedAtByEndsAlone));
            let look = self.look(batches, due, &mut held);
            match tokio::time::timeout(LOOK_TIMEOUT, look).await {
                Ok(Ok(())) => log.succeeded(),
                Ok(Err(error)) => {
                    if !log.failed("batches cannot be looked at", &error) {
                        tracing::debug!("batches were not looked at: {error}");
                    }
                }
                Err(_) => tracing::warn!(
                    "batches were not looked at: the database did not answer within {} s. It is tried again with a later beat",
                    LOOK_TIMEOUT.as_secs()
                ),
            }
        }
        // The node ends with those who hold its other tasks.
        std::future::pending::<()>().await;
    }

    async fn look(
        &self,
        batches: Vec<BatchId>,
        due: Option<ServerInstant>,
        held: &mut Held,
    ) -> Result<(), StoreError> {
        let store = self.aside.store();
        if !batches.is_empty() {
            look_at(&store, batches, held).await?;
        }
        let Some(until) = due else { return Ok(()) };
        // After a clock was set all of them are, for as long as a look may take: no beat would tell of the others.
        let most = if until == ANEW { usize::MAX } else { DUE_AT_A_BEAT };
        let mut seen = BTreeSet::new();
        while seen.len() < most {
            let mut batches = store.due_batches(until).await?;
            let is_all = batches.len() < SETTLED_AT_ONCE as usize;
            // One that somebody holds is due still.
            batches.retain(|batch| seen.insert(*batch));
            let is_new = !batches.is_empty();
            if is_new {
                look_at(&store, batches, held).await?;
            }
            if is_all || !is_new {
                break;
            }
        }
        Ok(())
    }
}

async fn look_at<S: Store>(
    store: &S,
    batches: Vec<BatchId>,
    held: &mut Held,
) -> Result<(), StoreError> {
    let settled = Settled::look_at(store, batches.clone()).await?;
    held.looked(&batches, &settled.again, Instant::now());
    tell(&settled);
    Ok(())
}

fn tell(settled: &Settled) {
    for (batch, state) in &settled.ended {
        match state {
            BatchState::Succeeded => tracing::debug!(%batch, "all jobs of this batch succeeded"),
            state => tracing::info!(%batch, "this batch has ended: {state}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::batch::{BatchView, NewBatch};
    use crate::job::NewJob;
    use crate::shell::PreciseThread;
    use crate::store::Batches;
    use crate::store::sqlite::{ServerClock, SqliteStore};

    const SECOND: i64 = 1_000_000_000;

    /// A server whose clock is set by hand.
    #[derive(Debug, Default)]
    struct Hands(AtomicI64);

    impl ServerClock for Hands {
        fn now(&self) -> ServerInstant {
            ServerInstant::from_nanos(self.0.load(Ordering::Relaxed))
        }
    }

    #[tokio::test]
    async fn after_a_clock_was_set_back_every_batch_is_looked_at_anew() {
        let hands = Arc::new(Hands::default());
        let set = |seconds: i64| hands.0.store(seconds * SECOND, Ordering::Relaxed);
        let store = SqliteStore::open_with_clock("sqlite::memory:", Arc::clone(&hands) as _);
        let store = store.unwrap();
        store.migrate().await.unwrap();
        set(1_003_600);
        let mut jobs = Vec::new();
        for _ in 0..DUE_AT_A_BEAT + 150 {
            let job = NewJob::new("/x");
            jobs.push(job.id);
            store.make_batch(&NewBatch::of(vec![job])).await.unwrap();
        }
        let (_, looks) = mpsc::unbounded_channel();
        let (aside, stage) = (Aside::of(store.clone()), PhantomData::<PreciseThread>);
        let task = BatchesTask { aside, stage, looks };
        let mut held = Held::default();
        set(1_000_000);
        task.look(Vec::new(), Some(ANEW), &mut held).await.unwrap();
        // So each is looked at within seconds by the clock as it is.
        for job in jobs {
            store.cancel(job).await.unwrap();
        }
        for round in 1..=2 {
            set(1_000_000 + 6 * round);
            let until = ServerInstant::from_nanos((1_000_000 + 6 * round) * SECOND);
            task.look(Vec::new(), Some(until), &mut held).await.unwrap();
        }
        let (mut before, mut ended) = (None, 0);
        loop {
            let page: Vec<BatchView> = store.batches(before, 500).await.unwrap();
            let Some(last) = page.last() else { break };
            before = Some(last.id);
            ended += page.iter().filter(|batch| !batch.state.goes_on()).count();
        }
        assert_eq!(ended, DUE_AT_A_BEAT + 150);
    }

    #[test]
    fn a_batch_that_is_held_is_looked_at_again_until_it_is_not() {
        let [a, b] = [1, 2].map(|id| BatchId(uuid::Uuid::from_u128(id)));
        let (mut held, begun) = (Held::default(), Instant::now());
        let after = |millis| begun + Duration::from_millis(millis);
        assert_eq!(held.wait(begun), None);
        held.looked(&[a, b], &[a], begun);
        assert_eq!(held.wait(begun), Some(Duration::from_millis(80)));
        assert_eq!(held.due(after(79)), []);
        // Told of meanwhile, it is not put off.
        held.looked(&[a], &[a], after(79));
        assert_eq!(held.due(after(80)), [a]);
        // Nobody answered: the next time is the next.
        assert_eq!((held.due(after(81)), held.due(after(400))), (vec![], vec![a]));
        held.looked(&[a], &[a], after(400));
        assert_eq!(held.wait(after(400)), Some(Duration::from_millis(1_280)));
        held.looked(&[a], &[], after(500));
        assert_eq!(held.wait(after(500)), None);
    }
}
