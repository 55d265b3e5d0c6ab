//! Batches: how far each is, and what waits for it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::batch::{BatchCounts, BatchId, BatchState, BatchView, Follower, Need, NewBatch};
use crate::job::{JobId, JobState};
use crate::rfc3339;

/// A batch in a list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Batch)]
pub(crate) struct BatchLine<'a> {
    /// Its id.
    #[schema(value_type = String, format = Uuid)]
    id: BatchId,
    /// What it is, for people.
    name: Option<&'a str>,
    /// How far it is.
    state: BatchState,
    /// When it was made (RFC 3339, the database's clock).
    #[schema(format = DateTime)]
    created_at: String,
    /// When it ended; null: it has not.
    #[schema(format = DateTime)]
    ended_at: Option<String>,
    /// How many of its jobs are how far; of one that has ended, as it was then.
    counts: CountsLine,
}

/// How many jobs of a batch are how far.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BatchCounts)]
pub(crate) struct CountsLine {
    /// All of them.
    jobs: u64,
    /// They wait, or are to be tried again.
    queued: u64,
    /// They run on a node.
    running: u64,
    /// They succeeded.
    succeeded: u64,
    /// They were given up.
    dead: u64,
    /// They were cancelled.
    cancelled: u64,
}

/// A batch by itself.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BatchWithFollowers)]
pub(crate) struct BatchPage<'a> {
    #[serde(flatten)]
    #[schema(inline)]
    batch: BatchLine<'a>,
    /// The jobs that wait for it, or did, at most 100.
    followers: Vec<FollowerLine<'a>>,
}

/// A job that waits for a batch, or did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Follower)]
pub(crate) struct FollowerLine<'a> {
    /// The job's id.
    #[schema(value_type = String, format = Uuid)]
    id: JobId,
    /// A path for the executing node's own target, or a full URL.
    url: &'a str,
    /// Its state; `scheduled` while it waits.
    state: JobState,
    /// How the batch must end: `success`, or `end`, however it does.
    on: &'static str,
}

/// The word for how a batch must end.
pub(crate) const fn need(need: Need) -> &'static str {
    match need {
        Need::Success => "success",
        Need::End => "end",
    }
}

impl From<BatchCounts> for CountsLine {
    fn from(counts: BatchCounts) -> Self {
        let jobs = counts.jobs();
        let BatchCounts { queued, running, succeeded, dead, cancelled } = counts;
        Self { jobs, queued, running, succeeded, dead, cancelled }
    }
}

impl<'a> BatchLine<'a> {
    pub(crate) fn new(batch: &'a BatchView) -> Self {
        Self {
            id: batch.id,
            name: batch.name.as_deref(),
            state: batch.state,
            created_at: rfc3339::format(batch.created_at),
            ended_at: batch.ended_at.map(rfc3339::format),
            counts: batch.counts.into(),
        }
    }
}

impl<'a> BatchPage<'a> {
    pub(crate) fn new(batch: &'a BatchView) -> Self {
        let followers = batch.followers.iter().map(|follower| {
            let Follower { job, url, state, need: of } = follower;
            FollowerLine { id: *job, url, state: *state, on: need(*of) }
        });
        Self { batch: BatchLine::new(batch), followers: followers.collect() }
    }
}

/// A batch that was made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BatchMade {
    /// Its id.
    #[schema(value_type = String, format = Uuid)]
    id: BatchId,
    /// The ids of its jobs, in their order; of one whose unique key another job holds, that one's.
    #[schema(value_type = Vec<uuid::Uuid>)]
    jobs: Vec<JobId>,
    /// The job that runs when all have succeeded; left out when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Uuid)]
    on_success: Option<JobId>,
    /// The job that runs when all have ended; left out when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Uuid)]
    on_complete: Option<JobId>,
}

impl BatchMade {
    /// `ids` are those of its jobs, then of those that wait for it.
    pub(crate) fn new(batch: &NewBatch, ids: &[JobId]) -> Self {
        let (jobs, waiting) = ids.split_at(batch.jobs.len().min(ids.len()));
        let mut waiting = waiting.iter().copied();
        let on_success = batch.on_success.as_ref().and_then(|_| waiting.next());
        let on_complete = batch.on_complete.as_ref().and_then(|_| waiting.next());
        Self { id: batch.id, jobs: jobs.to_vec(), on_success, on_complete }
    }
}

/// What became of an order about a batch.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BatchOrdered {
    /// The batch.
    #[schema(value_type = String, format = Uuid)]
    pub(crate) id: BatchId,
    /// `sealed` or `cancelled`.
    pub(crate) result: &'static str,
    /// Of one that is cancelled: so many of its jobs were cancelled just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) jobs: Option<u32>,
}

#[cfg(test)]
mod tests {
    use turnwise_engine::ServerInstant;
    use uuid::Uuid;

    use super::*;
    use crate::job::NewJob;

    #[test]
    fn the_json_of_a_batch_is_as_promised() {
        let counts = BatchCounts { queued: 1, succeeded: 2, dead: 3, ..BatchCounts::default() };
        let follower = Follower {
            job: JobId(Uuid::from_u128(9)),
            url: "/done".to_owned(),
            state: JobState::Scheduled,
            need: Need::End,
        };
        let batch = BatchView {
            id: BatchId(Uuid::from_u128(7)),
            name: Some("import".to_owned()),
            state: BatchState::Sealed,
            created_at: ServerInstant::from_micros(1),
            ended_at: None,
            counts,
            followers: vec![follower],
        };
        let line = concat!(
            r#""id":"00000000-0000-0000-0000-000000000007","name":"import","state":"sealed","#,
            r#""created_at":"1970-01-01T00:00:00.000001Z","ended_at":null,"#,
            r#""counts":{"jobs":6,"queued":1,"running":0,"succeeded":2,"dead":3,"cancelled":0}"#,
        );
        let follower = concat!(
            r#""followers":[{"id":"00000000-0000-0000-0000-000000000009","url":"/done","#,
            r#""state":"scheduled","on":"end"}]"#,
        );
        assert_eq!(serde_json::to_string(&BatchLine::new(&batch)).unwrap(), format!("{{{line}}}"));
        let page = serde_json::to_string(&BatchPage::new(&batch)).unwrap();
        assert_eq!(page, format!("{{{line},{follower}}}"));
    }

    #[test]
    fn the_ids_of_a_new_batch_are_told_apart() {
        let ids = [1, 2, 3].map(|number| JobId(Uuid::from_u128(number)));
        let batch = NewBatch {
            on_complete: Some(NewJob::new("/done")),
            ..NewBatch::of(vec![NewJob::new("/a"), NewJob::new("/b")])
        };
        let made = BatchMade::new(&batch, &ids);
        assert_eq!((&made.jobs[..], made.on_success), (&ids[..2], None));
        assert_eq!(made.on_complete, Some(ids[2]));
    }
}
