//! Jobs and their attempts.

use serde::Serialize;
use turnwise_engine::{NodeId, ServerInstant};
use utoipa::ToSchema;

use super::request::RequestLine;
use crate::batch::BatchId;
use crate::job::{Attempts, JobId, JobState, JobView};
use crate::rfc3339;

/// A job in a list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub(crate) struct JobLine<'a> {
    /// Its id.
    #[schema(value_type = String, format = Uuid)]
    id: JobId,
    /// Its lane.
    queue: &'a str,
    /// The HTTP method of its calls.
    method: &'a str,
    /// A path for the executing node's own target, or a full URL.
    url: &'a str,
    /// Its state, as of the database's clock at the reading.
    state: JobState,
    /// From -100 to 100; higher is sooner, each point as ten seconds of waiting.
    priority: i16,
    /// Attempts begun, those given back not counted.
    attempt: u32,
    /// How many attempts it has.
    max_attempts: u32,
    /// When it is or was due (RFC 3339, the database's clock); null: it waits for a batch, or was cancelled then.
    #[schema(format = DateTime)]
    scheduled_at: Option<String>,
    /// When it was enqueued.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it ended; null: it has not.
    #[schema(format = DateTime)]
    finished_at: Option<String>,
    /// The node that runs it, or ran it last.
    #[schema(value_type = Option<String>, format = Uuid)]
    node: Option<NodeId>,
    /// The unique key that it holds, or would if another asked for it now.
    unique_key: Option<&'a str>,
    /// Of the jobs of its queue with the same key no more run at once than the queue says; null: it has none.
    concurrency_key: Option<&'a str>,
    /// The job that has enqueued it, as whoever enqueued it says; null: none has.
    #[schema(value_type = Option<String>, format = Uuid)]
    parent: Option<JobId>,
    /// Since when it goes on elsewhere, after an answer of 202; left out when it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    awaits_since: Option<String>,
    /// How far its running attempt has come, as it says itself; left out when it says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<ProgressLine<'a>>,
    /// The schedule that has inserted it; left out when none has.
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<&'a str>,
    /// The batch that it belongs to; left out when that is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Uuid)]
    batch: Option<BatchId>,
    /// The batch that it waits for, or did; left out when that is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Uuid)]
    after: Option<BatchId>,
}

/// How far an attempt has come.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Progress)]
pub(crate) struct ProgressLine<'a> {
    /// From 0 to 100.
    percent: Option<u8>,
    /// In words.
    note: Option<&'a str>,
}

/// A job by itself.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobWithAttempts)]
pub(crate) struct JobPage<'a> {
    #[serde(flatten)]
    #[schema(inline)]
    job: JobLine<'a>,
    /// The newest 100 attempts, oldest first; one that runs is the last.
    attempts: Vec<AttemptLine<'a>>,
    /// How many attempts there are in all.
    attempts_in_all: u64,
    /// What it calls with; left out when the job was removed just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<RequestLine>,
}

/// An attempt at a job.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Attempt)]
pub(crate) struct AttemptLine<'a> {
    /// Its number; one that was given back shares its number with the one that follows.
    attempt: u32,
    /// Who ran it.
    #[schema(value_type = String, format = Uuid)]
    node: NodeId,
    /// When it was claimed.
    #[schema(format = DateTime)]
    started_at: String,
    /// When its end was recorded; null while it runs.
    #[schema(format = DateTime)]
    finished_at: Option<String>,
    /// The HTTP status of the answer, if one came.
    status: Option<u16>,
    /// Why it failed.
    error: Option<&'a str>,
}

impl<'a> JobLine<'a> {
    pub(crate) fn new(job: &'a JobView) -> Self {
        Self {
            id: job.id,
            queue: &job.queue,
            method: &job.method,
            url: &job.url,
            state: job.state,
            priority: job.priority,
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            scheduled_at: time(job.due_at()),
            created_at: rfc3339::format(job.created_at),
            finished_at: time(job.finished_at),
            node: job.node,
            unique_key: job.unique_key.as_deref(),
            concurrency_key: job.particulars.concurrency_key.as_deref(),
            parent: job.particulars.parent_id(),
            awaits_since: time(job.awaits_since),
            progress: job.progress.as_ref().map(|progress| ProgressLine {
                percent: progress.percent,
                note: progress.note.as_deref(),
            }),
            schedule: job.particulars.schedule.as_deref(),
            batch: job.particulars.batch_id(),
            after: job.after,
        }
    }
}

impl<'a> JobPage<'a> {
    pub(crate) fn new(
        job: &'a JobView,
        attempts: &'a Attempts,
        request: Option<RequestLine>,
    ) -> Self {
        let attempts_in_all = attempts.in_all;
        let attempts = attempts.iter().map(|attempt| AttemptLine {
            attempt: attempt.attempt,
            node: attempt.node,
            started_at: rfc3339::format(attempt.started_at),
            finished_at: time(attempt.finished_at),
            status: attempt.status,
            error: attempt.error.as_deref(),
        });
        Self { job: JobLine::new(job), attempts: attempts.collect(), attempts_in_all, request }
    }
}

/// What became of a job that was to be enqueued.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Enqueued)]
pub(crate) struct EnqueuedLine {
    /// Its id; or that of the job which holds its unique key.
    #[schema(value_type = String, format = Uuid)]
    pub(crate) id: JobId,
    /// False when a job that was there holds the unique key, and nothing was inserted. (An id that is there already counts as
    /// enqueued: a repetition is answered as the first time.)
    pub(crate) enqueued: bool,
}

impl EnqueuedLine {
    /// `own` is the job's own id, `id` the one that the store returned for it.
    pub(crate) fn new(own: JobId, id: JobId) -> Self {
        Self { id, enqueued: id == own }
    }
}

fn time(instant: Option<ServerInstant>) -> Option<String> {
    instant.map(rfc3339::format)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::batch::HELD_UNTIL_US;
    use crate::job::{AttemptView, Particulars};
    use crate::redact::Redaction;
    use crate::store::RequestView;

    #[test]
    fn a_job_that_waits_for_a_batch_has_no_time() {
        let of = |number| BatchId(Uuid::from_u128(number));
        let particulars = Particulars { batch: Some(of(8).to_string()), ..Particulars::default() };
        let job = JobView {
            state: JobState::Scheduled,
            scheduled_at: ServerInstant::from_micros(HELD_UNTIL_US),
            particulars,
            after: Some(of(9)),
            ..JobView::of_a_test()
        };
        let told: serde_json::Value = serde_json::to_value(JobLine::new(&job)).unwrap();
        assert_eq!(told["scheduled_at"], serde_json::Value::Null);
        assert_eq!(told["batch"], "00000000-0000-0000-0000-000000000008");
        assert_eq!(told["after"], "00000000-0000-0000-0000-000000000009");
        assert!(told.get("parent").is_some_and(serde_json::Value::is_null), "{told}");
        let at = ServerInstant::from_micros(5);
        let runs = JobView { state: JobState::Ready, scheduled_at: at, ..job.clone() };
        assert!(job.waits_for_batch() && !runs.waits_for_batch());
        assert!(serde_json::to_value(JobLine::new(&runs)).unwrap()["scheduled_at"].is_string());
    }

    #[test]
    fn the_json_of_a_job_is_as_promised() {
        let at = ServerInstant::from_micros;
        let job = JobView {
            priority: -3,
            state: JobState::Retrying,
            attempt: 1,
            scheduled_at: at(2_000_000),
            node: Some(NodeId::from_u128(9)),
            unique_key: Some("digest:7".to_owned()),
            particulars: Particulars {
                concurrency_key: Some("customer:7".to_owned()),
                parent: Some("00000000-0000-0000-0000-00000000000A".to_owned()),
                ..Particulars::default()
            },
            ..JobView::of_a_test()
        };
        let attempt = AttemptView {
            started_at: at(1_000_000),
            finished_at: Some(at(1_500_000)),
            status: Some(503),
            error: Some("the target answered 503".to_owned()),
            answer: Some(b"busy".to_vec()),
            ..AttemptView::of_a_test(NodeId::from_u128(9))
        };
        let common = concat!(
            r#""id":"00000000-0000-0000-0000-000000000007","queue":"mail","method":"POST","url":"/x","#,
            r#""state":"retrying","priority":-3,"attempt":1,"max_attempts":20,"#,
            r#""scheduled_at":"1970-01-01T00:00:02.000000Z","created_at":"1970-01-01T00:00:00.000001Z","#,
            r#""finished_at":null,"node":"00000000-0000-0000-0000-000000000009","unique_key":"digest:7","#,
            r#""concurrency_key":"customer:7","parent":"00000000-0000-0000-0000-00000000000a""#,
        );
        let attempts = concat!(
            r#""attempts":[{"attempt":1,"node":"00000000-0000-0000-0000-000000000009","#,
            r#""started_at":"1970-01-01T00:00:01.000000Z","finished_at":"1970-01-01T00:00:01.500000Z","#,
            r#""status":503,"error":"the target answered 503"}],"attempts_in_all":101"#,
        );
        assert_eq!(serde_json::to_string(&JobLine::new(&job)).unwrap(), format!("{{{common}}}"));
        let attempts_of_it = Attempts { newest: vec![attempt], in_all: 101 };
        let page = |request| serde_json::to_string(&JobPage::new(&job, &attempts_of_it, request));
        assert_eq!(page(None).unwrap(), format!("{{{common},{attempts}}}"));
        let headers = [("Cookie", "a=b"), ("X-Tenant", "7")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let body = Some(br#"{"Pin":1,"a":2}"#.to_vec());
        let request = RequestView { headers: headers.into(), body, body_bytes: 15 };
        let request = RequestLine::new(&request, &Redaction::new([], ["pin"]));
        let told = concat!(
            r#""request":{"headers":{"Cookie":"[redacted]","X-Tenant":"7"},"#,
            r#""body":"{\"Pin\":\"[redacted]\",\"a\":2}","body_bytes":15}"#
        );
        assert_eq!(page(Some(request)).unwrap(), format!("{{{common},{attempts},{told}}}"));
    }
}
