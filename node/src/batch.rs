//! What a batch is: jobs that belong together, and jobs that wait until they have ended. Decides nothing about when that is; the
//! limits that a batch must keep are here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use turnwise_engine::ServerInstant;
use uuid::Uuid;

use crate::job::{JobId, JobState, NewJob};

/// The longest name of a batch, in bytes.
pub const BATCH_NAME_BYTES_MAX: usize = 256;
/// Until then a job is put off that waits for a batch, in microseconds since the Unix epoch: 2260-01-01, which every database
/// stores.
pub const HELD_UNTIL_US: i64 = 9_151_488_000_000_000;

/// A batch's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BatchId(pub Uuid);

impl BatchId {
    /// A new id (UUID version 7, so that ids sort by their time).
    #[expect(
        clippy::disallowed_methods,
        reason = "who makes a batch makes its id; a simulator makes its own"
    )]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl BatchId {
    /// The batch that jobs become which this one waits for: the same whoever asks, and no id of a job.
    pub(crate) fn before(job: JobId) -> Self {
        Self(Uuid::from_u128(job.0.as_u128() ^ 0xffff_ffff_ffff))
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for BatchId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// What a job waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct After {
    /// This batch,
    pub batch: BatchId,
    /// and how it must end.
    pub need: Need,
}

/// How a batch must end for a job that waits for it to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// All its jobs succeeded. Otherwise the job is cancelled.
    Success,
    /// However its jobs ended, unless the batch was cancelled.
    End,
}

/// A batch to be made, with its first jobs, in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBatch {
    /// Its id, made beforehand so that a request whose answer was lost can be repeated.
    pub id: BatchId,
    /// What it is, for people: at most [`BATCH_NAME_BYTES_MAX`] bytes.
    pub name: Option<String>,
    /// Its first jobs.
    pub jobs: Vec<NewJob>,
    /// A job that runs when all have succeeded.
    pub on_success: Option<NewJob>,
    /// A job that runs when all have ended.
    pub on_complete: Option<NewJob>,
    /// Nobody but its own jobs will add any more, so that it ends with the last of them.
    pub is_sealed: bool,
}

impl NewBatch {
    /// A sealed batch of these jobs.
    pub fn of(jobs: Vec<NewJob>) -> Self {
        let id = BatchId::generate();
        Self { id, name: None, jobs, on_success: None, on_complete: None, is_sealed: true }
    }

    /// All that are to be enqueued with it: its own jobs, then those that wait for it.
    pub(crate) fn all_jobs(&self) -> Vec<NewJob> {
        let own = |job: &NewJob| NewJob { batch: Some(self.id), ..job.clone() };
        let waits = |job: &Option<NewJob>, need| {
            let after = Some(After { batch: self.id, need });
            job.clone().map(|job| NewJob { after, ..job })
        };
        let last = [waits(&self.on_success, Need::Success), waits(&self.on_complete, Need::End)];
        self.jobs.iter().map(own).chain(last.into_iter().flatten()).collect()
    }
}

/// How far a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BatchState {
    /// More jobs may come from anybody: it does not end.
    Open,
    /// It ends with the last of its jobs.
    Sealed,
    /// All its jobs succeeded.
    Succeeded,
    /// All its jobs ended, and not all of them well.
    Failed,
    /// A person cancelled it.
    Cancelled,
}

impl BatchState {
    /// Every state.
    pub const ALL: [Self; 5] =
        [Self::Open, Self::Sealed, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// The word for it, as stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Sealed => "sealed",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state with this word.
    pub(crate) fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether it ended with the last of its jobs.
    pub(crate) const fn has_run_out(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }

    /// Whether jobs can still be added.
    pub const fn goes_on(self) -> bool {
        matches!(self, Self::Open | Self::Sealed)
    }
}

impl fmt::Display for BatchState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How many jobs of a batch are how far. Of one that has ended, as it was then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchCounts {
    /// They wait, or are to be tried again.
    pub queued: u64,
    /// They run on a node. (One that goes on elsewhere counts as queued.)
    pub running: u64,
    /// They succeeded.
    pub succeeded: u64,
    /// They were given up.
    pub dead: u64,
    /// They were cancelled.
    pub cancelled: u64,
}

impl BatchCounts {
    /// Those that have ended.
    pub const fn ended(&self) -> u64 {
        self.succeeded + self.dead + self.cancelled
    }

    /// All of them.
    pub const fn jobs(&self) -> u64 {
        self.queued + self.running + self.ended()
    }
}

/// A batch as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchView {
    /// Its id.
    pub id: BatchId,
    /// What it is.
    pub name: Option<String>,
    /// How far it is.
    pub state: BatchState,
    /// When it was made.
    pub created_at: ServerInstant,
    /// When it ended.
    pub ended_at: Option<ServerInstant>,
    /// Its jobs.
    pub counts: BatchCounts,
    /// The jobs that wait for it, or did, at most [`FOLLOWERS_SHOWN`], in the order of their ids.
    pub followers: Vec<Follower>,
}

/// So many jobs are shown that wait for a batch.
pub const FOLLOWERS_SHOWN: u32 = 100;

/// A job that waits for a batch, or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follower {
    /// Which.
    pub job: JobId,
    /// Where it is called.
    pub url: String,
    /// How far it is; [`JobState::Scheduled`] while it waits.
    pub state: JobState,
    /// How the batch must end.
    pub need: Need,
}

/// Why a job cannot be enqueued that belongs to a batch, or waits for one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchRefusal {
    /// There is none.
    #[error("there is no batch {0}. Make one, or leave it out")]
    Unknown(BatchId),
    /// No job can be added to it any more.
    #[error("the batch {0} has ended ({1}): no job can be added to it. Make another")]
    Ended(BatchId, BatchState),
    /// Each would wait for the other for ever.
    #[error(
        "a job of the batch {0} cannot wait for the batch {1}, which waits for the batch {0}: neither would ever end"
    )]
    Cycle(BatchId, BatchId),
    /// There is no such job to wait for.
    #[error("there is no job {0} to wait for")]
    NoJob(JobId),
    /// A job to wait for belongs to a batch already.
    #[error("the job {0} belongs to the batch {1}: wait for that")]
    OfAnother(JobId, BatchId),
    /// The jobs to wait for are a batch that has ended, and are other than it found them.
    #[error(
        "the batch {0} of these jobs has ended ({1}), and one of them was given another try since. Enqueue the job when that has ended"
    )]
    TriedAgain(BatchId, BatchState),
    /// It is to wait for nothing, or for too much.
    #[error("a job waits for 1 to 100 jobs, not for {0}; make a batch of them, and wait for that")]
    WaitsForMany(usize),
    /// It is to be put off twice.
    #[error("a job that waits for a batch runs when that has ended: leave out the time")]
    TwoTimes,
    /// Its name is too long.
    #[error("the name of the batch has {0} bytes, of at most {BATCH_NAME_BYTES_MAX}")]
    LongName(usize),
    /// There is a batch with this id, and it is another.
    #[error("there is a batch {0} already")]
    Exists(BatchId),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_batch_before_a_job_has_an_id_of_its_own() {
        let job = JobId::generate();
        let batch = BatchId::before(job);
        assert_ne!(batch.0, job.0);
        assert_eq!(batch, BatchId::before(job));
        assert_eq!(batch.0.get_version_num(), 7);
        assert_eq!(batch.0.get_variant(), job.0.get_variant());
    }
}
