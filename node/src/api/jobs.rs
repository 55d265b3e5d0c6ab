//! `/v1/jobs`: a page of jobs, one with its attempts, and what can be ordered of one. Enqueueing is `enqueue`'s.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::orders::to_its_end;
use super::params::{Named, Params};
use super::problem::{Details, Kind, Problem};
use super::v1::Shared;
use crate::audit::{Action, Actor, Order};
use crate::job::{JobFilter, JobId, JobState};
use crate::job_fields;
use crate::json::{JobLine, JobPage, RequestLine};
use crate::store::{Requests, Store, Views};
use crate::watch::{ANSWER_TIMEOUT, within};

/// So many jobs are on a page unless another number is asked for.
const PAGE_JOBS: u32 = 50;
/// So many jobs are on a page at most.
const PAGE_JOBS_MAX: u32 = 1_000;

/// Jobs, newest first.
#[derive(Serialize, ToSchema)]
struct Jobs<'a> {
    /// The jobs.
    jobs: Vec<JobLine<'a>>,
    /// The next page is asked for with this as `before`; null: this is the last. A page may be empty and not the last.
    #[schema(value_type = Option<String>, format = Uuid)]
    next: Option<JobId>,
    /// False when the search was broken off: between the last of these jobs and `next` none was found.
    searched_all: bool,
}

/// List jobs, newest first
///
/// In a state without an index of its own (succeeded, or waiting when more than 10000 wait), and by queue, a page is looked for
/// among 10000 jobs.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", operation_id = "list_jobs",
    params(
        ("state" = Option<JobState>, Query, description = "Only in this state"),
        ("queue" = Option<String>, Query, max_length = 128, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$", description = "Only of this queue"),
        ("batch" = Option<uuid::Uuid>, Query, description = "Only of this batch"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "At most so many; 50 unless it is given"),
        ("before" = Option<uuid::Uuid>, Query, description = "Only jobs older than this one: the `next` of a page"),
    ),
    responses(
        (status = 200, description = "A page of jobs", body = Jobs),
        (status = "default", description = "Problem details", body = Details, content_type = "application/problem+json"),
    ))]
pub(super) async fn list(State(api): State<Shared>, uri: Uri) -> Result<Response, Problem> {
    let params = Params::of(&uri, &["state", "queue", "batch", "limit", "before"])?;
    let filter = JobFilter {
        state: params.get("state", state)?,
        queue: params
            .get("queue", |text| job_fields::stored_queue(text).map(|()| text.to_owned()))?,
        batch: params.get("batch", |text| {
            text.parse().map_err(|_| "it is not the id of a batch, a UUID".to_owned())
        })?,
        limit: params.get("limit", limit)?.unwrap_or(PAGE_JOBS),
        before: params.get("before", |text| {
            text.parse().map_err(|_| "it is not the id of a job, a UUID".to_owned())
        })?,
        from: None,
    };
    let page = within(ANSWER_TIMEOUT, api.store().page(&filter)).await?;
    let jobs = page.jobs.iter().map(JobLine::new).collect();
    let answer = Jobs { jobs, next: page.next, searched_all: page.searched_all };
    Ok(Json(answer).into_response())
}

fn state(text: &str) -> Result<JobState, String> {
    let state = JobState::ALL.into_iter().find(|state| state.as_str() == text);
    state.ok_or_else(|| {
        let states = JobState::ALL.map(JobState::as_str).join(", ");
        format!("there is no state {text:?}; there are {states}")
    })
}

fn limit(text: &str) -> Result<u32, String> {
    let limit = text.parse().ok().filter(|limit| (1..=PAGE_JOBS_MAX).contains(limit));
    limit.ok_or_else(|| format!("{text:?} is not a number within 1 and {PAGE_JOBS_MAX}"))
}

/// Show a job with its attempts, and what it calls with
#[utoipa::path(get, path = "/v1/jobs/{id}", tag = "jobs", operation_id = "show_job",
    params(("id" = uuid::Uuid, Path, description = "The job's id")),
    responses(
        (status = 200, description = "The job", body = JobPage),
        (status = "default", description = "Problem details", body = Details, content_type = "application/problem+json"),
    ))]
pub(super) async fn show(
    State(api): State<Shared>,
    named: Named,
    uri: Uri,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?;
    let id = named.id("job")?;
    let read = async { Ok((api.store().job(id).await?, api.store().request(id).await?)) };
    let (found, request) = within(ANSWER_TIMEOUT, read).await?;
    let (job, attempts) = found.ok_or_else(|| unknown(id))?;
    let request = request.map(|request| RequestLine::new(&request, api.hub.redaction()));
    Ok(Json(JobPage::new(&job, &attempts, request)).into_response())
}

/// What became of an order about a job.
#[derive(Serialize, ToSchema)]
struct JobOrdered {
    /// The job.
    #[schema(value_type = String, format = Uuid)]
    id: JobId,
    /// `retried` or `cancelled`.
    result: &'static str,
}

/// Run a job now that is dead, cancelled or waiting
///
/// A job that has spent its attempts gets one more. 409 with its `state` when it is running or has succeeded.
#[utoipa::path(post, path = "/v1/jobs/{id}/retry", tag = "jobs", operation_id = "retry_job",
    params(("id" = uuid::Uuid, Path, description = "The job's id")),
    responses(
        (status = 200, description = "It runs now", body = JobOrdered),
        (status = "default", description = "Problem details", body = Details, content_type = "application/problem+json"),
    ))]
pub(super) async fn retry(
    State(api): State<Shared>,
    named: Named,
    request: Request,
) -> Result<Response, Problem> {
    Params::of(request.uri(), &[])?;
    let id = named.id("job")?;
    let order = Order::new(Actor::of(request.extensions()), Action::JobRetry, id);
    api.bodies.none(request).await?;
    let store = api.store().clone();
    let done = to_its_end(&api, order, async move { store.retry(id).await }).await?;
    let refused = "it was not retried: it is running, or has succeeded";
    answered(&api, id, done, "retried", refused).await
}

/// Cancel a job that has not ended
///
/// A job that is queued will not run; of one that runs the node drops the call within some two seconds. 409 with its `state` when
/// it has ended, `cancelled` among them.
#[utoipa::path(post, path = "/v1/jobs/{id}/cancel", tag = "jobs", operation_id = "cancel_job",
    params(("id" = uuid::Uuid, Path, description = "The job's id")),
    responses(
        (status = 200, description = "It is cancelled", body = JobOrdered),
        (status = "default", description = "Problem details", body = Details, content_type = "application/problem+json"),
    ))]
pub(super) async fn cancel(
    State(api): State<Shared>,
    named: Named,
    request: Request,
) -> Result<Response, Problem> {
    Params::of(request.uri(), &[])?;
    let id = named.id("job")?;
    let order = Order::new(Actor::of(request.extensions()), Action::JobCancel, id);
    api.bodies.none(request).await?;
    let store = api.store().clone();
    let done = to_its_end(&api, order, async move { store.cancel(id).await }).await?;
    answered(&api, id, done, "cancelled", "it was not cancelled: it has ended").await
}

async fn answered(
    api: &Shared,
    id: JobId,
    done: Option<bool>,
    result: &'static str,
    refused: &str,
) -> Result<Response, Problem> {
    match done {
        Some(true) => Ok(Json(JobOrdered { id, result }).into_response()),
        None => Err(unknown(id)),
        Some(false) => {
            let found = within(ANSWER_TIMEOUT, api.store().job(id)).await;
            let state = found.ok().flatten().map(|(job, _)| job.state);
            let remedy = "Nothing was done; `state` says in which state it is now";
            Err(Problem::new(Kind::Conflict, refused, remedy).with_state(state))
        }
    }
}

fn unknown(id: JobId) -> Problem {
    let remedy = "Perhaps it has ended and was removed: nodes keep ended jobs as --keep-succeeded and --keep-dead say. \
        GET /v1/jobs lists those that there are";
    Problem::unknown("job", &id.to_string(), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_from_one_to_a_thousand_jobs() {
        assert_eq!((limit("1"), limit("1000")), (Ok(1), Ok(1_000)));
        for bad in ["0", "1001", "-1", "ten", ""] {
            assert!(limit(bad).unwrap_err().contains("within 1 and 1000"), "{bad}");
        }
        assert_eq!(state("dead"), Ok(JobState::Dead));
        assert!(state("Dead").unwrap_err().contains("scheduled, ready, running"));
    }
}
