//! What people order of batches, the same by command, on a page and over the API. A batch that ends by an order ends at once,
//! without waiting for a node to look at it.

use std::time::Duration;

use crate::batch::{BATCH_NAME_BYTES_MAX, BatchId, BatchRefusal, BatchState, Need, NewBatch};
use crate::job::{JobFilter, JobId, NewJob};
use crate::store::{Batches, Bulk, Deed, SealAnswer, StoreError, settle_all};

/// How often a batch is made, or a job enqueued, when the connection breaks. Repeating it is harmless: the ids are the same.
const TRIES: u32 = 3;

/// A claim holds its jobs no longer than this, as a rule.
const CLAIMED_WITHIN: Duration = Duration::from_millis(200);

/// A batch that was made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MakeAnswer {
    /// The ids of its jobs, then of those that wait for it.
    pub(crate) ids: Vec<JobId>,
}

/// What became of cancelling a batch.
#[derive(Debug)]
pub(crate) enum CancelAnswer {
    /// It is cancelled.
    Cancelled {
        /// It was not before.
        is_new: bool,
        /// So many of its jobs were cancelled just now.
        jobs: u32,
        /// Why not all of its jobs were, where the database failed: cancelling it again goes on with it.
        broken_off: Option<StoreError>,
    },
    /// It has ended otherwise, like this.
    Ended(BatchState),
    /// There is no such batch.
    Unknown,
}

/// The name of a batch: from 1 to [`BATCH_NAME_BYTES_MAX`] bytes, none of them NUL, which PostgreSQL does not store.
pub(crate) fn name(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("a name is not empty; leave it out where the batch needs none".to_owned()),
        1..=BATCH_NAME_BYTES_MAX if text.contains('\0') => {
            Err("a name has no NUL character".to_owned())
        }
        1..=BATCH_NAME_BYTES_MAX => Ok(text.to_owned()),
        bytes => Err(BatchRefusal::LongName(bytes).to_string()),
    }
}

/// Make a batch with its jobs.
pub(crate) async fn make<S: Batches>(
    store: &S,
    batch: &NewBatch,
) -> Result<MakeAnswer, StoreError> {
    let mut tries = 1;
    let ids = loop {
        match store.make_batch(batch).await {
            Err(StoreError::Unreachable { .. }) if tries < TRIES => tries += 1,
            result => break result?,
        }
    };
    // One without jobs, and one whose jobs were there.
    settle(store, batch.id).await;
    Ok(MakeAnswer { ids })
}

/// Enqueue a job that runs when all of these jobs have ended: its id.
pub(crate) async fn enqueue_after<S: Batches>(
    store: &S,
    job: &NewJob,
    jobs: &[JobId],
    need: Need,
) -> Result<JobId, StoreError> {
    let mut tries = 1;
    let (batch, id) = loop {
        match store.enqueue_after(job, jobs, need).await {
            Err(StoreError::Unreachable { .. }) if tries < TRIES => tries += 1,
            result => break result?,
        }
    };
    settle(store, batch).await;
    Ok(id)
}

/// Seal a batch.
pub(crate) async fn seal<S: Batches>(store: &S, batch: BatchId) -> Result<SealAnswer, StoreError> {
    let answer = store.seal(batch).await?;
    if answer == SealAnswer::Sealed {
        settle(store, batch).await;
    }
    Ok(answer)
}

/// Cancel a batch, with all of its jobs that have not ended. It takes as long as there are many.
pub(crate) async fn cancel<S: Batches + Bulk>(
    store: &S,
    batch: BatchId,
) -> Result<CancelAnswer, StoreError> {
    let Some(before) = store.batch(batch).await? else { return Ok(CancelAnswer::Unknown) };
    match store.cancel_batch(batch).await? {
        None => return Ok(CancelAnswer::Unknown),
        Some(true) => {}
        Some(false) => {
            let state = store.batch(batch).await?.map_or(before.state, |batch| batch.state);
            return Ok(CancelAnswer::Ended(state));
        }
    }
    let filter = JobFilter { batch: Some(batch), ..JobFilter::default() };
    let mut altered = store.alter_all(Deed::Cancel, &filter, u32::MAX).await;
    if altered.broken_off.is_none() {
        // Those that somebody held were passed over: they were being claimed, or their ends recorded.
        tokio::time::sleep(CLAIMED_WITHIN).await;
        altered.broken_off = store.alter_all(Deed::Cancel, &filter, u32::MAX).await.broken_off;
    }
    settle(store, batch).await;
    Ok(CancelAnswer::Cancelled {
        is_new: before.state != BatchState::Cancelled,
        jobs: altered.jobs,
        broken_off: altered.broken_off,
    })
}

/// Look whether it has ended. What was ordered is done in any case: where this fails, a node looks within seconds.
async fn settle<S: Batches>(store: &S, batch: BatchId) {
    if let Err(error) = settle_all(store, vec![batch]).await {
        tracing::debug!(%batch, "a node will look whether the batch has ended: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_within_its_limits() {
        assert_eq!(name("import").as_deref(), Ok("import"));
        assert!(name(&"n".repeat(BATCH_NAME_BYTES_MAX)).is_ok());
        let long = name(&"n".repeat(BATCH_NAME_BYTES_MAX + 1)).unwrap_err();
        assert!(long.contains("257 bytes"), "{long}");
        assert!(name("").unwrap_err().contains("not empty"));
        assert!(name("a\0b").unwrap_err().contains("NUL"));
    }
}
