//! Batches: which have ended, and what runs then. Decides when one is looked at again; whether it has ended is read from the states of
//! its jobs alone, under the lock of its row, so that ends and rescues know nothing of batches, and each ends once.
//!
//! A job that waits for a batch stands as queued, put off until [`HELD_UNTIL_US`](crate::batch::HELD_UNTIL_US), with a row in `waits`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::time::Duration;

use turnwise_engine::ServerInstant;

use super::errors::Trouble;
use super::views::Views;
use super::{Store, StoreError, rows};
use crate::batch::{
    BATCH_NAME_BYTES_MAX, BatchCounts, BatchId, BatchRefusal, BatchState, BatchView, Follower,
    Need, NewBatch,
};
use crate::job::{JobId, NewJob, When};

/// A sealed batch is looked at again after so long, though none of the nodes says that a job of it has ended; or after this part of its
/// age, up to
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(5);
pub(super) const OF_ITS_AGE: i64 = 20;
/// this long.
pub(super) const LOOK_EVERY_MOST: Duration = Duration::from_secs(60);
/// So many batches are looked at at once.
pub const SETTLED_AT_ONCE: u32 = 100;
/// The most batches in one answer.
pub const BATCHES_SHOWN_MAX: u32 = 500;
/// So many jobs can be waited for at once.
pub const WAITED_FOR_MAX: usize = 100;

/// What is said of a job that waited in vain.
pub(super) const WAITED_IN_VAIN: &str =
    "cancelled: not every job of the batch that it waited for succeeded";
/// What is said of a job whose batch, or the batch that it waited for, was cancelled.
pub(super) const BATCH_CANCELLED: &str = "cancelled: the batch that it waited for was cancelled";

/// What became of batches that were looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// These ended now.
    pub ended: Vec<(BatchId, BatchState)>,
    /// These are to be looked at again soon: somebody held them, or a job of theirs was cancelled since it waited in vain.
    pub again: Vec<BatchId>,
}

impl Settled {
    /// Look at batches, and at once at those that have lost a job by it: what is to be looked at again now, somebody holds.
    pub(crate) async fn look_at<S: Store>(
        store: &S,
        batches: Vec<BatchId>,
    ) -> Result<Self, StoreError> {
        let (mut ended, mut held) = (Vec::new(), BTreeSet::new());
        let mut next: BTreeSet<BatchId> = batches.into_iter().collect();
        while !next.is_empty() {
            let these: Vec<BatchId> = std::mem::take(&mut next).into_iter().collect();
            for some in these.chunks(SETTLED_AT_ONCE as usize) {
                let settled = store.settle(some).await?;
                ended.extend(settled.ended);
                for batch in settled.again {
                    let to = if some.contains(&batch) { &mut held } else { &mut next };
                    to.insert(batch);
                }
            }
        }
        Ok(Self { ended, again: held.into_iter().collect() })
    }

    /// How long one that somebody held is left alone before it is looked at again, after so many looks in vain.
    pub(crate) fn pause(looks: u32) -> Duration {
        Duration::from_millis(20 << (2 * looks.min(8))).min(LOOK_EVERY)
    }
}

/// What became of sealing a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealAnswer {
    /// It is sealed now.
    Sealed,
    /// It was before, or has ended, like this.
    Before(BatchState),
    /// There is no such batch.
    Unknown,
}

/// What people order and see of batches.
pub trait Batches: Views {
    /// Make a batch with its first jobs and those that wait for it, all or nothing: the ids of the jobs, in that order, as
    /// [`Store::enqueue`] has it. The same batch again, because an answer was lost, changes nothing.
    fn make_batch(
        &self,
        batch: &NewBatch,
    ) -> impl Future<Output = Result<Vec<JobId>, StoreError>> + Send;

    /// Enqueue a job that runs when all of these jobs have ended, as it needs: they become a batch, unless they are the only jobs of
    /// one by now. The batch, and the job's id.
    fn enqueue_after(
        &self,
        job: &NewJob,
        jobs: &[JobId],
        need: Need,
    ) -> impl Future<Output = Result<(BatchId, JobId), StoreError>> + Send;

    /// Nobody but its own jobs will add any more.
    fn seal(&self, batch: BatchId) -> impl Future<Output = Result<SealAnswer, StoreError>> + Send;

    /// Cancel a batch, and the jobs that wait for it; its own jobs are cancelled by whoever asks, some at a time. Again, for what the
    /// first time was broken off. False when it has ended otherwise; none when there is no such batch.
    fn cancel_batch(
        &self,
        batch: BatchId,
    ) -> impl Future<Output = Result<Option<bool>, StoreError>> + Send;

    /// Batches, newest first, those below an id: the next page. Without those that wait for them.
    fn batches(
        &self,
        before: Option<BatchId>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<BatchView>, StoreError>> + Send;

    /// One batch.
    fn batch(
        &self,
        batch: BatchId,
    ) -> impl Future<Output = Result<Option<BatchView>, StoreError>> + Send;
}

/// Look at batches until there is nothing more to be seen: those that ended. One that somebody holds is waited for a little, for whoever
/// has nothing else to do meanwhile; what is left is to be looked at again.
pub(crate) async fn settle_all<S: Store>(
    store: &S,
    batches: Vec<BatchId>,
) -> Result<Settled, StoreError> {
    const ROUNDS: u32 = 4;
    let mut all = Settled { ended: Vec::new(), again: batches };
    for round in 0..ROUNDS {
        if all.again.is_empty() {
            break;
        }
        if round > 0 {
            tokio::time::sleep(Settled::pause(round)).await;
        }
        let settled = Settled::look_at(store, std::mem::take(&mut all.again)).await?;
        all.ended.extend(settled.ended);
        all.again = settled.again;
    }
    Ok(all)
}

/// Whether all that are to be looked at are asked for, however far ahead: a clock was set, or another server answers.
pub(super) fn is_anew(until: ServerInstant) -> bool {
    until == ServerInstant::from_nanos(i64::MAX)
}

/// Which batches are due, in microseconds: those whose look is to come up to the first of these times; and, of those whose look is to
/// come after the second, each whose look is farther ahead than [`next_look`] says by now: the clock was set back.
///
/// When all are asked for, one that is looked at is due no more, so that one page after the other is found.
pub(super) fn due(at: ServerInstant, until: ServerInstant) -> (i64, i64) {
    let ahead = |most: Duration| at.as_micros().saturating_add(most.as_micros() as i64);
    match is_anew(until) {
        true => (soon(at), ahead(LOOK_EVERY)),
        false => (until.as_micros(), ahead(LOOK_EVERY_MOST)),
    }
}

/// A look at a batch that goes on is written down when the next one was to come before this, in microseconds: those at each end of a
/// job write nothing.
pub(super) fn soon(at: ServerInstant) -> i64 {
    at.as_micros().saturating_add(LOOK_EVERY.as_micros() as i64 / 2)
}

/// When a batch is looked at again that is looked at now, in microseconds: the older it is, the later. (As a rule it is looked at anyway
/// as soon as its last job ends.)
pub(super) fn next_look(at: ServerInstant, created_at: i64) -> i64 {
    let (least, most) = (LOOK_EVERY.as_micros() as i64, LOOK_EVERY_MOST.as_micros() as i64);
    let age = at.as_micros().saturating_sub(created_at);
    at.as_micros().saturating_add((age / OF_ITS_AGE).clamp(least, most))
}

/// A batch's columns: id, name, state, made, ended (microseconds), and its counts as it ended: succeeded, dead, cancelled.
pub(super) type Columns =
    (String, Option<String>, String, i64, Option<i64>, Option<i64>, Option<i64>, Option<i64>);

pub(super) fn id(stored: &str) -> Result<BatchId, Trouble> {
    stored.parse().map_err(|_| Trouble::corrupt(format!("the batch id {stored:?}")))
}

pub(super) fn state(id: impl fmt::Display, word: &str) -> Result<BatchState, Trouble> {
    BatchState::named(word)
        .ok_or_else(|| Trouble::corrupt(format!("the batch {id} in the state {word:?}")))
}

/// Whether what a batch came to is still what became of its jobs: one may have been given another try since.
pub(super) fn still_holds(ended: BatchState, counts: &BatchCounts) -> bool {
    counts.queued + counts.running == 0 && end_of(counts) == ended
}

/// How a batch ends whose jobs have all ended like this.
pub(super) fn end_of(counts: &BatchCounts) -> BatchState {
    match counts.dead + counts.cancelled {
        0 => BatchState::Succeeded,
        _ => BatchState::Failed,
    }
}

/// Why a job is cancelled that waits for a batch which has ended like this; none: it runs.
pub(super) fn in_vain(need: Need, ended: BatchState) -> Option<&'static str> {
    match (need, ended) {
        (_, BatchState::Cancelled) => Some(BATCH_CANCELLED),
        (Need::Success, BatchState::Failed) => Some(WAITED_IN_VAIN),
        _ => None,
    }
}

/// What can be said of a batch before it is sent.
pub(super) fn check(batch: &NewBatch) -> Result<(), StoreError> {
    match batch.name.as_ref().map(String::len) {
        Some(bytes) if bytes > BATCH_NAME_BYTES_MAX => {
            Err(StoreError::Batch(BatchRefusal::LongName(bytes)))
        }
        _ => {
            let jobs = batch.all_jobs();
            check_times(&jobs)?;
            rows::check_lengths(&jobs)
        }
    }
}

/// Whether jobs that wait for a batch have no other time.
pub(super) fn check_times(jobs: &[NewJob]) -> Result<(), StoreError> {
    match jobs.iter().any(|job| job.after.is_some() && job.when != When::Now) {
        true => Err(StoreError::Batch(BatchRefusal::TwoTimes)),
        false => Ok(()),
    }
}

/// The jobs that are to be waited for, each once.
pub(super) fn waited_for(jobs: &[JobId]) -> Result<BTreeSet<JobId>, StoreError> {
    match jobs.len() {
        1..=WAITED_FOR_MAX => Ok(jobs.iter().copied().collect()),
        many => Err(StoreError::Batch(BatchRefusal::WaitsForMany(many))),
    }
}

/// The batch that all of these jobs are in, with one of them; none: no batch has any of them. `of`: what was found of them.
pub(super) fn common(
    jobs: &BTreeSet<JobId>,
    of: &BTreeMap<JobId, Option<BatchId>>,
) -> Result<Option<(BatchId, JobId)>, BatchRefusal> {
    if let Some(missing) = jobs.iter().find(|job| !of.contains_key(job)) {
        return Err(BatchRefusal::NoJob(*missing));
    }
    let in_one = of.iter().find_map(|(job, batch)| Some(((*batch)?, *job)));
    match in_one {
        Some((batch, job)) if of.values().any(|other| *other != Some(batch)) => {
            Err(BatchRefusal::OfAnother(job, batch))
        }
        in_one => Ok(in_one),
    }
}

/// How many jobs of batches are how far, of rows with a batch, a state and how many.
pub(super) fn counts(
    rows: Vec<(String, String, i64)>,
) -> Result<BTreeMap<BatchId, BatchCounts>, Trouble> {
    let mut all: BTreeMap<BatchId, BatchCounts> = BTreeMap::new();
    for (batch, state, jobs) in rows {
        let of = all.entry(id(&batch)?).or_default();
        let place = match state.as_str() {
            "queued" => &mut of.queued,
            "running" => &mut of.running,
            "succeeded" => &mut of.succeeded,
            "dead" => &mut of.dead,
            "cancelled" => &mut of.cancelled,
            other => return Err(Trouble::corrupt(format!("a job in the state {other:?}"))),
        };
        *place += u64::try_from(jobs).unwrap_or(0);
    }
    Ok(all)
}

/// Those of these batches that have not stored how their jobs ended.
pub(super) fn without_counts(columns: &[Columns]) -> Result<Vec<BatchId>, Trouble> {
    let without = columns.iter().filter(|columns| columns.5.is_none());
    without.map(|columns| id(&columns.0)).collect()
}

/// A batch as people see it. `live`: the jobs of those that have stored nothing.
pub(super) fn view(
    columns: Columns,
    live: &BTreeMap<BatchId, BatchCounts>,
) -> Result<BatchView, Trouble> {
    let (stored_id, name, word, created_at, ended_at, succeeded, dead, cancelled) = columns;
    let id = id(&stored_id)?;
    let stored = |count: Option<i64>| u64::try_from(count.unwrap_or(0)).unwrap_or(0);
    let counts = match succeeded {
        None => live.get(&id).copied().unwrap_or_default(),
        Some(_) => BatchCounts {
            succeeded: stored(succeeded),
            dead: stored(dead),
            cancelled: stored(cancelled),
            ..BatchCounts::default()
        },
    };
    Ok(BatchView {
        id,
        name,
        state: state(id, &word)?,
        created_at: ServerInstant::from_micros(created_at),
        ended_at: ended_at.map(ServerInstant::from_micros),
        counts,
        followers: Vec::new(),
    })
}

/// A job that waits for a batch, by its columns.
pub(super) fn follower(
    job: &str,
    url: String,
    stored: &str,
    attempt: i64,
    is_due: bool,
    on_success: bool,
) -> Result<Follower, Trouble> {
    Ok(Follower {
        job: rows::job_id(job)?,
        url,
        state: rows::job_state(job, stored, is_due, attempt)?,
        need: if on_success { Need::Success } else { Need::End },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_runs_as_the_batch_ended() {
        use BatchState::{Cancelled, Failed, Succeeded};
        assert_eq!(in_vain(Need::Success, Succeeded), None);
        assert_eq!(in_vain(Need::End, Succeeded), None);
        assert_eq!(in_vain(Need::Success, Failed), Some(WAITED_IN_VAIN));
        assert_eq!(in_vain(Need::End, Failed), None);
        for need in [Need::Success, Need::End] {
            assert_eq!(in_vain(need, Cancelled), Some(BATCH_CANCELLED));
        }
        let counts = BatchCounts { succeeded: 3, ..BatchCounts::default() };
        assert_eq!(end_of(&counts), Succeeded);
        assert_eq!(end_of(&BatchCounts { dead: 1, ..counts }), Failed);
        assert_eq!(end_of(&BatchCounts { cancelled: 1, ..counts }), Failed);
        assert_eq!(end_of(&BatchCounts::default()), Succeeded, "of none none failed");
        assert!(still_holds(Succeeded, &counts) && !still_holds(Failed, &counts));
        assert!(!still_holds(Succeeded, &BatchCounts { running: 1, ..counts }));
        let next = |age: i64| next_look(ServerInstant::from_micros(age * 1_000_000), 0) / 1_000_000;
        assert_eq!((next(1), next(100), next(200), next(9_000)), (6, 105, 210, 9_060));
    }

    #[test]
    fn what_was_looked_at_anew_is_not_due_by_that() {
        let at = ServerInstant::from_micros(1_000_000_000);
        let until = at.offset(2_000_000_000);
        assert_eq!(due(at, until), (1_002_000_000, 1_060_000_000));
        let (upto, ahead) = due(at, ServerInstant::from_nanos(i64::MAX));
        for created_at in [0, 900_000_000, 1_000_000_000, 4_600_000_000] {
            let next = next_look(at, created_at);
            assert!(next > upto && next >= ahead, "{created_at}: {next}");
        }
    }

    #[test]
    fn one_that_is_held_is_left_alone_for_longer_each_time() {
        let pauses = [1, 2, 3, 4, u32::MAX].map(|looks| Settled::pause(looks).as_millis());
        assert_eq!(pauses, [80, 320, 1_280, 5_000, 5_000]);
    }

    #[test]
    fn jobs_are_waited_for_that_are_in_one_batch_or_in_none() {
        let [a, b] = [1, 2].map(|id| JobId(uuid::Uuid::from_u128(id)));
        let [x, y] = [8, 9].map(|id| BatchId(uuid::Uuid::from_u128(id)));
        let both = BTreeSet::from([a, b]);
        let common = |of: &[(JobId, Option<BatchId>)]| common(&both, &of.iter().copied().collect());
        assert_eq!(common(&[(a, None), (b, None)]), Ok(None));
        assert_eq!(common(&[(a, Some(x)), (b, Some(x))]), Ok(Some((x, a))));
        assert_eq!(common(&[(a, None)]), Err(BatchRefusal::NoJob(b)));
        assert_eq!(common(&[(a, None), (b, Some(y))]), Err(BatchRefusal::OfAnother(b, y)));
        assert_eq!(common(&[(a, Some(x)), (b, Some(y))]), Err(BatchRefusal::OfAnother(a, x)));
    }
}
