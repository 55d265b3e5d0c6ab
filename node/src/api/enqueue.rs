//! `POST /v1/jobs`: decides how many jobs are enqueued together, under which ids, and what is told when not all of them were.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use utoipa::ToSchema;

use super::bodies::{self, ContentType, JOBS_BYTES_MAX};
use super::idempotency::Key;
use super::new_job::{JobRequest, JobRequests};
use super::orders::to_any_end;
use super::params::Params;
use super::problem::{Details, Kind, Problem};
use super::v1::Shared;
use crate::audit::{Action, Actor, Order, Touched};
use crate::job::{JobId, NewJob};
use crate::json::EnqueuedLine;
use crate::store::{AnyStore, Store, StoreError};
use crate::watch::{ANSWER_TIMEOUT, within};

/// So many jobs are enqueued by the lines of one request.
pub(super) const LINES_MAX: usize = 10_000;
/// So many of them are enqueued by one transaction.
const BATCH: usize = 500;
/// Between two batches the beats have their way.
const APART: Duration = Duration::from_millis(20);
/// So many queues are named in the audit.
const QUEUES_NAMED_MAX: usize = 8;
/// How often a batch is tried when the connection breaks. Repeating it is harmless: the ids are the same.
const TRIES: u32 = 3;

/// One job, or an array of jobs: for the document alone.
#[derive(ToSchema)]
#[schema(as = NewJobs)]
#[serde(untagged)]
#[expect(dead_code, reason = "what is read is told apart by its first character")]
enum OneOrMany {
    /// One.
    One(Box<JobRequest>),
    /// Up to 500, all or none.
    Many(Vec<JobRequest>),
}

/// What became of one job, or of several in their order: for the document alone.
#[derive(ToSchema)]
#[schema(as = EnqueuedJobs)]
#[serde(untagged)]
#[expect(dead_code, reason = "each is written as it is")]
enum OneOrManyEnqueued {
    /// Of the one.
    One(EnqueuedLine),
    /// Of each, in their order.
    Many(Vec<EnqueuedLine>),
}

/// Enqueue a job, or many
///
/// As `application/json` one job, or an array of up to 500, all or none. As `application/x-ndjson` up to 10000 jobs, one on each
/// line: all are checked first; then they are enqueued 500 at a time, each time all or none, and an error names how many are
/// (`done`). A body has up to 4 MiB. A job that is enqueued again under the same id is left as it is and answered as the first
/// time.
#[utoipa::path(post, path = "/v1/jobs", tag = "jobs", operation_id = "enqueue_jobs",
    params(("Idempotency-Key" = Option<String>, Header, nullable = false, pattern = r#"^([!#-~]([ !#-~]{0,253}[!#-~])?|"[ !#-~]{1,255}")$"#,
        description = "Up to 255 characters of ASCII. The id of each job that brings none follows from this and from its place \
            in the request, so that a repetition enqueues nothing new")),
    request_body(content(
        (OneOrMany = "application/json"),
        (String = "application/x-ndjson"),
    )),
    responses(
        (status = 201, description = "One job was enqueued; its address is in `Location`", body = EnqueuedLine,
            headers(("Location" = String, description = "The job's address, a path"))),
        (status = 200, description = "Of one job: another holds its unique key. Of many: what became of each, in their order",
            body = OneOrManyEnqueued),
        (status = "default", description = "Problem details", body = Details, content_type = "application/problem+json"),
    ))]
pub(super) async fn enqueue(
    State(api): State<Shared>,
    request: Request,
) -> Result<Response, Problem> {
    Params::of(request.uri(), &[])?;
    let kind = ContentType::of(request.headers(), &[ContentType::Json, ContentType::Lines])?;
    let key = Key::of(request.headers())?;
    let actor = Actor::of(request.extensions());
    let held = api.bodies.read(request, JOBS_BYTES_MAX).await?;
    let jobs = Jobs::read(&held.bytes, kind, key.as_ref())?;
    let store = api.store().clone();
    to_any_end(async move {
        // The room of the body is free when the jobs are in the table.
        let (_held, jobs) = (held, jobs);
        let order = Order::new(actor, Action::JobEnqueue, jobs.subject());
        jobs.enqueue(&store, &order).await
    })
    .await?
}

/// The jobs of a request.
#[derive(Debug)]
enum Jobs {
    One(Box<NewJob>),
    Array(Vec<NewJob>),
    Lines(Vec<NewJob>),
}

impl Jobs {
    fn read(text: &[u8], kind: ContentType, key: Option<&Key>) -> Result<Self, Problem> {
        let id = |place| move || key.map_or_else(JobId::generate, |key| key.id(place));
        let is_array = text.trim_ascii_start().first() == Some(&b'[');
        match kind {
            ContentType::Json if is_array => {
                let requests = bodies::json::<JobRequests>(text)?.0.into_iter().enumerate();
                let jobs = requests
                    .map(|(place, job)| job.job(id(place)).map_err(|problem| problem.at(place)));
                jobs.collect::<Result<_, _>>().map(Self::Array)
            }
            ContentType::Json => {
                let job = bodies::json::<JobRequest>(text)?.job(id(0))?;
                Ok(Self::One(Box::new(job)))
            }
            ContentType::Lines => {
                let lines = text.split(|byte| *byte == b'\n');
                // An empty line, such as the end of the last one leaves, is none.
                let lines: Vec<_> = lines.filter(|line| !line.trim_ascii().is_empty()).collect();
                if lines.len() > LINES_MAX {
                    let say = format!("there are {} jobs; the most is {LINES_MAX}", lines.len());
                    let remedy = "Nothing was done: send them in several requests";
                    return Err(Problem::new(Kind::TooLarge, say, remedy));
                }
                let jobs = lines.into_iter().enumerate().map(|(place, line)| {
                    let job = bodies::json::<JobRequest>(line).and_then(|job| job.job(id(place)));
                    job.map_err(|problem| problem.at(place))
                });
                jobs.collect::<Result<_, _>>().map(Self::Lines)
            }
        }
    }

    /// Where they go, in words: the queues.
    fn subject(&self) -> String {
        let jobs = match self {
            Self::One(job) => std::slice::from_ref(&**job),
            Self::Array(jobs) | Self::Lines(jobs) => jobs,
        };
        let queues: BTreeSet<&str> = jobs.iter().map(|job| job.queue.as_str()).collect();
        queues.into_iter().take(QUEUES_NAMED_MAX).collect::<Vec<_>>().join(" ")
    }

    async fn enqueue(self, store: &AnyStore, order: &Order) -> Result<Response, Problem> {
        match self {
            Self::One(job) => {
                let jobs = [*job];
                let told = order.carry_out(store, batch(store, &jobs)).await?;
                let told =
                    told.into_iter().next().unwrap_or(EnqueuedLine::new(jobs[0].id, jobs[0].id));
                let status = if told.enqueued { StatusCode::CREATED } else { StatusCode::OK };
                let location = HeaderValue::try_from(format!("/v1/jobs/{}", told.id));
                let mut response = (status, Json(told)).into_response();
                if let Ok(location) = location {
                    response.headers_mut().insert(LOCATION, location);
                }
                Ok(response)
            }
            Self::Array(jobs) => {
                let told = order.carry_out(store, batch(store, &jobs)).await?;
                Ok(Json(told).into_response())
            }
            Self::Lines(jobs) => {
                let mut told = Vec::with_capacity(jobs.len());
                for (number, some) in jobs.chunks(BATCH).enumerate() {
                    if number > 0 {
                        tokio::time::sleep(APART).await;
                    }
                    match batch(store, some).await {
                        Ok(some) => told.extend(some),
                        Err(error) => {
                            let done = told.len();
                            order.broken_off(store, told.touched(), &error).await;
                            return Err(Problem::from(error).with_done(done));
                        }
                    }
                }
                order.done(store, told.touched()).await;
                Ok(Json(told).into_response())
            }
        }
    }
}

impl Touched for Vec<EnqueuedLine> {
    fn touched(&self) -> u64 {
        self.iter().filter(|line| line.enqueued).count() as u64
    }
}

/// Jobs that are enqueued together, all or none.
async fn batch(store: &AnyStore, jobs: &[NewJob]) -> Result<Vec<EnqueuedLine>, StoreError> {
    let mut tries = 1;
    let ids = loop {
        match within(ANSWER_TIMEOUT, store.enqueue(jobs)).await {
            Err(StoreError::Unreachable { .. }) if tries < TRIES => tries += 1,
            result => break result?,
        }
    };
    Ok(ids.into_iter().zip(jobs).map(|(id, job)| EnqueuedLine::new(job.id, id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(jobs: usize) -> Result<Jobs, Problem> {
        Jobs::read("{\"url\":\"/x\"}\r\n".repeat(jobs).as_bytes(), ContentType::Lines, None)
    }

    #[test]
    fn lines_are_as_many_as_may_be_and_no_more() {
        let Ok(Jobs::Lines(jobs)) = lines(LINES_MAX) else { panic!("they may be") };
        assert_eq!(jobs.len(), LINES_MAX);
        assert!(format!("{:?}", lines(LINES_MAX + 1).unwrap_err()).contains("the most is 10000"));
    }

    #[test]
    fn a_wrong_line_is_named_by_its_place() {
        let text = b"{\"url\":\"/x\"}\n\n{\"url\":\"/x\",\"queue\":\"\"}\n";
        let problem = Jobs::read(text, ContentType::Lines, None).unwrap_err();
        assert!(format!("{problem:?}").contains("[1].queue"), "{problem:?}");
    }
}
