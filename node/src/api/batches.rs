//! `/v1/batches`: batches with how far they are, making one with its jobs, and what can be ordered of one.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::bodies::{self, ContentType, JOBS_BYTES_MAX};
use super::enqueue::LINES_MAX;
use super::idempotency::Key;
use super::new_job::{Faults, JobRequest, JobRequests};
use super::orders::{to_any_end, to_its_end};
use super::params::{Named, Params};
use super::problem::{Details, Kind, Problem};
use super::v1::Shared;
use crate::audit::{Action, Actor, Order};
use crate::batch::{BatchId, BatchState, NewBatch};
use crate::batch_orders::{self, CancelAnswer};
use crate::job::{JobId, NewJob, When};
use crate::json::{BatchLine, BatchMade, BatchOrdered, BatchPage};
use crate::store::{BATCHES_SHOWN_MAX, Batches as _, SealAnswer};
use crate::watch::{ANSWER_TIMEOUT, within};

/// So many batches are on a page unless another number is asked for.
const PAGE_BATCHES: u32 = 50;

/// The places of a batch's jobs behind a key begin here: no request of plain jobs has one so high.
const FIRST_PLACE: usize = 1 << 20;
/// The place behind a key of the batch itself.
const BATCH_PLACE: usize = FIRST_PLACE - 1;
/// The place behind a key of the job that runs when all have succeeded.
pub(crate) const ON_SUCCESS_PLACE: usize = FIRST_PLACE - 2;
/// The place behind a key of the job that runs when all have ended.
pub(crate) const ON_COMPLETE_PLACE: usize = FIRST_PLACE - 3;

/// Batches, newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = Batches)]
struct BatchLines<'a> {
    /// The batches.
    batches: Vec<BatchLine<'a>>,
    /// The next page is asked for with this as `before`; null: this is the last.
    #[schema(value_type = Option<String>, format = Uuid)]
    next: Option<BatchId>,
}

/// List batches, newest first
#[utoipa::path(get, path = "/v1/batches", tag = "batches", operation_id = "list_batches",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 500, description = "At most so many; 50 unless it is given"),
        ("before" = Option<uuid::Uuid>, Query, description = "Only batches older than this one: the `next` of a page"),
    ),
    responses(
        (status = 200, description = "A page of batches", body = BatchLines),
        (status = "default", description = "Problem details", body = Details, content_type = "application/problem+json"),
    ))]
pub(super) async fn list(State(api): State<Shared>, uri: Uri) -> Result<Response, Problem> {
    let params = Params::of(&uri, &["limit", "before"])?;
    let limit = params.get("limit", limit)?.unwrap_or(PAGE_BATCHES);
    let before: Option<BatchId> = params.get("before", |text| {
        text.parse().map_err(|_| "it is not the id of a batch, a UUID".to_owned())
    })?;
    let batches = within(ANSWER_TIMEOUT, api.store().batches(before, limit)).await?;
    let is_full = batches.len() >= limit as usize;
    let next = batches.last().filter(|_| is_full).map(|batch| batch.id);
    let batches = batches.iter().map(BatchLine::new).collect();
    Ok(Json(BatchLines { batches, next }).into_response())
}

fn limit(text: &str) -> Result<u32, String> {
    let limit = text.parse().ok().filter(|limit| (1..=BATCHES_SHOWN_MAX).contains(limit));
    limit.ok_or_else(|| format!("{text:?} is not a number within 1 and {BATCHES_SHOWN_MAX}"))
}

/// Show a batch with the jobs that wait for it
///
/// `GET /v1/jobs?batch=` lists its own.
#[utoipa::path(get, path = "/v1/batches/{id}", tag = "batches", operation_id = "show_batch",
    params(("id" = uuid::Uuid, Path, description = "The batch's id")),
    responses(
        (status = 200, description = "The batch", body = BatchPage),
        (status = "default", description = "Problem details", body = Details, content_type = "application/problem+json"),
    ))]
pub(super) async fn show(
    State(api): State<Shared>,
    named: Named,
    uri: Uri,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?;
    let id = named.id("batch")?;
    let found = within(ANSWER_TIMEOUT, api.store().batch(id)).await?;
    let batch = found.ok_or_else(|| unknown(id))?;
    Ok(Json(BatchPage::new(&batch)).into_response())
}

/// A batch to be made, with its first jobs and those that wait for it.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewBatch)]
struct BatchRequest {
    /// Its id, a UUID, so that making it again is harmless; a new one unless it is given.
    id: Option<Uuid>,
    /// What it is, for people: up to 256 bytes.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\x00]*$")]
    name: Option<String>,
    /// Its first jobs, up to 500.
    #[schema(value_type = Option<Vec<JobRequest>>)]
    jobs: Option<JobRequests>,
    /// A job that runs when all have succeeded.
    on_success: Option<Box<JobRequest>>,
    /// A job that runs when all have ended, however they did.
    on_complete: Option<Box<JobRequest>>,
    /// Nobody but its own jobs will add any more: it ends with the last of them. `true` unless it is given.
    sealed: Option<bool>,
}

impl BatchRequest {
    /// The batch, or all that is wrong with it.
    fn batch(self, key: Option<&Key>) -> Result<NewBatch, Problem> {
        let own = self.id.map(BatchId);
        // Its jobs have the same ids when it is made again.
        let of_id = own.map(Key::of_batch);
        let key = of_id.as_ref().or(key);
        let id = |place| move || key.map_or_else(JobId::generate, |key| key.id(place));
        let mut faults = Faults::default();
        let name = faults.check("name", self.name, batch_orders::name);
        let mut jobs = Vec::new();
        for (place, job) in self.jobs.map_or_else(Vec::new, |jobs| jobs.0).into_iter().enumerate() {
            let job = own_job(job, id(FIRST_PLACE + place));
            jobs.extend(faults.also(job.map_err(|wrong| wrong.below(&format!("jobs[{place}]")))));
        }
        let mut waiting = |name: &str, job: Option<Box<JobRequest>>, place| {
            let job = follower(*job?, id(place)).map_err(|wrong| wrong.below(name));
            faults.also(job)
        };
        let on_success = waiting("on_success", self.on_success, ON_SUCCESS_PLACE);
        let on_complete = waiting("on_complete", self.on_complete, ON_COMPLETE_PLACE);
        faults.done(Some(()))?;
        let id = own.or_else(|| key.map(|key| BatchId(key.id(BATCH_PLACE).0)));
        let is_sealed = self.sealed.unwrap_or(true);
        let id = id.unwrap_or_else(BatchId::generate);
        Ok(NewBatch { id, name, jobs, on_success, on_complete, is_sealed })
    }
}

/// A job of a new batch.
fn own_job(job: JobRequest, id: impl FnOnce() -> JobId) -> Result<NewJob, Problem> {
    let job = job.job(id)?;
    if job.batch.is_some() {
        let say = "it belongs to the batch that is made with it: leave this out";
        return Err(Problem::fault(Kind::Invalid, "batch", say));
    }
    Ok(job)
}

/// A job that waits for a new batch.
fn follower(job: JobRequest, id: impl FnOnce() -> JobId) -> Result<NewJob, Problem> {
    let job = job.job(id)?;
    let wrong = match (job.after.is_some(), job.when == When::Now) {
        (true, _) => ("after", "it waits for the batch that is made with it: leave this out"),
        (false, false) => ("scheduled_at", "it runs when the batch has ended: leave out the time"),
        (false, true) => return Ok(job),
    };
    Err(Problem::fault(Kind::Invalid, wrong.0, wrong.1))
}

/// The jobs of a new batch, one on each line, as `POST /v1/jobs` takes them; behind a key they have the same ids each time. An
/// error names the line, from 1.
pub(crate) fn jobs_of_lines(text: &[u8], key: Option<&Key>) -> Result<Vec<NewJob>, String> {
    let lines = text.split(|byte| *byte == b'\n').enumerate();
    let lines = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    let mut jobs = Vec::new();
    for (number, line) in lines {
        if jobs.len() == LINES_MAX {
            return Err(format!(
                "there are more than {LINES_MAX} jobs, the most that a batch is made with; leave it open, and enqueue the \
                 others with the batch's id"
            ));
        }
        let id = || {
            let place = FIRST_PLACE + jobs.len();
            key.map_or_else(JobId::generate, |key| key.id(place))
        };
        let job = bodies::json::<JobRequest>(line).and_then(|job| own_job(job, id));
        // To the reader of JSON each line is the first.
        let told = |wrong: &Problem| wrong.detail().replace(" at line 1 column ", " at column ");
        jobs.push(job.map_err(|wrong| format!("line {}: {}", number + 1, told(&wrong)))?);
    }
    Ok(jobs)
}

/// Make a batch with its first jobs, and with those that wait for it
///
/// All or nothing, up to 500 jobs in up to 4 MiB; an open batch takes more by `POST /v1/jobs` with its id as `batch`, until it is
/// sealed. Making it again, with the same `id` or `Idempotency-Key`, changes nothing.
#[utoipa::path(post, path = "/v1/batches", tag = "batches", operation_id = "make_batch",
    params(("Idempotency-Key" = Option<String>, Header, nullable = false, pattern = r#"^([!#-~]([ !#-~]{0,253}[!#-~])?|"[ !#-~]{1,255}")$"#,
        description = "Up to 255 characters of ASCII. The id of the batch, and of each job that brings none, follows from this, so \
            that a repetition makes nothing new; an `id` of the batch counts more")),
    request_body = BatchRequest,
    responses(
        (status = 201, description = "It is made; its address is in `Location`", body = BatchMade,
            headers(("Location" = String, description = "The batch's address, a path"))),
        (status = "default", description = "Problem details", body = Details, content_type = "application/problem+json"),
    ))]
pub(super) async fn make(State(api): State<Shared>, request: Request) -> Result<Response, Problem> {
    Params::of(request.uri(), &[])?;
    ContentType::of(request.headers(), &[ContentType::Json])?;
    let key = Key::of(request.headers())?;
    let actor = Actor::of(request.extensions());
    let held = api.bodies.read(request, JOBS_BYTES_MAX).await?;
    let batch = bodies::json::<BatchRequest>(&held.bytes)?.batch(key.as_ref())?;
    let order = Order::new(actor, Action::BatchMake, batch.id);
    let (store, new) = (api.store().clone(), batch.clone());
    let call = async move {
        // The room of the body is free when the jobs are in the table.
        let _held = held;
        batch_orders::make(&store, &new).await
    };
    let made = to_its_end(&api, order, call).await?;
    let location = HeaderValue::try_from(format!("/v1/batches/{}", batch.id));
    let told = Json(BatchMade::new(&batch, &made.ids));
    let mut response = (StatusCode::CREATED, told).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// Seal a batch: nobody but its own jobs will add any more
///
/// It ends with the last of them. 409 when it is sealed already, or has ended.
#[utoipa::path(post, path = "/v1/batches/{id}/seal", tag = "batches", operation_id = "seal_batch",
    params(("id" = uuid::Uuid, Path, description = "The batch's id")),
    responses(
        (status = 200, description = "It is sealed", body = BatchOrdered),
        (status = "default", description = "Problem details", body = Details, content_type = "application/problem+json"),
    ))]
pub(super) async fn seal(
    State(api): State<Shared>,
    named: Named,
    request: Request,
) -> Result<Response, Problem> {
    Params::of(request.uri(), &[])?;
    let id: BatchId = named.id("batch")?;
    let order = Order::new(Actor::of(request.extensions()), Action::BatchSeal, id);
    api.bodies.none(request).await?;
    let store = api.store().clone();
    let call = async move { batch_orders::seal(&store, id).await };
    match to_its_end(&api, order, call).await? {
        SealAnswer::Sealed => {
            Ok(Json(BatchOrdered { id, result: "sealed", jobs: None }).into_response())
        }
        SealAnswer::Before(BatchState::Sealed) => {
            let say = format!("the batch {id} is sealed already");
            Err(Problem::new(Kind::Conflict, say, "Nothing was done, and nothing need be"))
        }
        SealAnswer::Before(state) => Err(ended(id, state)),
        SealAnswer::Unknown => Err(unknown(id)),
    }
}

/// Cancel a batch, its jobs that have not ended, and the jobs that wait for it
///
/// Cancelling it again goes on with what the first time was broken off. 409 when it has ended otherwise.
#[utoipa::path(post, path = "/v1/batches/{id}/cancel", tag = "batches", operation_id = "cancel_batch",
    params(("id" = uuid::Uuid, Path, description = "The batch's id")),
    responses(
        (status = 200, description = "It is cancelled, now or before", body = BatchOrdered),
        (status = "default", description = "Problem details", body = Details, content_type = "application/problem+json"),
    ))]
pub(super) async fn cancel(
    State(api): State<Shared>,
    named: Named,
    request: Request,
) -> Result<Response, Problem> {
    Params::of(request.uri(), &[])?;
    let id: BatchId = named.id("batch")?;
    let order = Order::new(Actor::of(request.extensions()), Action::BatchCancel, id);
    api.bodies.none(request).await?;
    let store = api.store().clone();
    // It takes as long as it has jobs.
    let call = async move { order.carry_out(&store, batch_orders::cancel(&store, id)).await };
    match to_any_end(call).await?? {
        CancelAnswer::Cancelled { jobs, broken_off: None, .. } => {
            let told = BatchOrdered { id, result: "cancelled", jobs: Some(jobs) };
            Ok(Json(told).into_response())
        }
        CancelAnswer::Cancelled { jobs, broken_off: Some(error), .. } => {
            let say = format!(
                "the batch {id} is cancelled with {jobs} of its jobs; then it was broken off: {error}"
            );
            Err(Problem::new(Kind::DatabaseAway, say, "Cancel it again: that goes on with it"))
        }
        CancelAnswer::Ended(state) => Err(ended(id, state)),
        CancelAnswer::Unknown => Err(unknown(id)),
    }
}

fn ended(id: BatchId, state: BatchState) -> Problem {
    let say = format!("the batch {id} has ended: {state}");
    Problem::new(Kind::Conflict, say, "Nothing was done, and nothing can be")
}

fn unknown(id: BatchId) -> Problem {
    let remedy = "Perhaps it has ended and was removed with the last of its jobs. GET /v1/batches lists those that there are";
    Problem::unknown("batch", &id.to_string(), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(text: &str) -> Result<NewBatch, Problem> {
        bodies::json::<BatchRequest>(text.as_bytes())?.batch(None)
    }

    #[test]
    fn a_batch_is_read_with_its_jobs_and_those_that_wait() {
        let plain = batch(r#"{"jobs":[{"url":"/a"},{"url":"/b"}]}"#).unwrap();
        assert_eq!((plain.jobs.len(), plain.is_sealed, &plain.name), (2, true, &None));
        let text =
            r#"{"name":"n","on_success":{"url":"/s"},"on_complete":{"url":"/c"},"sealed":false}"#;
        let open = batch(text).unwrap();
        assert_eq!((open.jobs.len(), open.is_sealed), (0, false));
        let url = |job: Option<NewJob>| job.unwrap().url;
        assert_eq!((url(open.on_success), url(open.on_complete)), ("/s".into(), "/c".into()));
    }

    #[test]
    fn a_batch_with_an_id_has_the_same_jobs_each_time() {
        let text = r#"{"id":"01936c5e-7d1a-7cc3-98c4-dc0c0c07398f","jobs":[{"url":"/a"},{"url":"/a"}],
            "on_success":{"url":"/s"}}"#;
        let first = batch(text).unwrap();
        assert_eq!(first, batch(text).unwrap());
        assert_ne!(first.jobs[0].id, first.jobs[1].id);
        let key = Key::of_batch(first.id);
        let lines = jobs_of_lines(b"{\"url\":\"/a\"}\n{\"url\":\"/a\"}\n", Some(&key)).unwrap();
        assert_eq!(lines, first.jobs);
        assert_eq!(first.on_success.unwrap().id, key.id(ON_SUCCESS_PLACE));
    }

    #[test]
    fn all_that_is_wrong_with_a_batch_is_told_with_its_place() {
        let told = |text: &str| format!("{:?}", batch(text).unwrap_err());
        let id = "00000000-0000-0000-0000-000000000007";
        let all = told(&format!(
            r#"{{"name":"","jobs":[{{"url":"/a"}},{{"url":"/b","batch":"{id}"}},{{"url":"c"}}],
            "on_success":{{"url":"/s","in":"1s"}},
            "on_complete":{{"url":"/c","after":{{"batch":"{id}"}}}}}}"#
        ));
        for field in
            ["name", "jobs[1].batch", "jobs[2].url", "on_success.scheduled_at", "on_complete.after"]
        {
            assert!(all.contains(&format!("field: \"{field}\"")), "{field}: {all}");
        }
        assert!(told(r#"{"jobs":[{"url":7}]}"#).contains("jobs[0].url"));
        assert!(told(r#"{"job":[]}"#).contains("unknown field"));
    }

    #[test]
    fn a_wrong_line_is_named_by_its_number() {
        let told = |text: &str| jobs_of_lines(text.as_bytes(), None).unwrap_err();
        let wrong = told("{\"url\":\"/x\"}\n\n{\"url\":\"/x\",\"queue\":\"\"}\n");
        assert!(wrong.starts_with("line 3: queue: "), "{wrong}");
        let wrong = told("{\"url\":\"/x\"}\n{\"url\"\n");
        assert!(wrong.starts_with("line 2: ") && !wrong.contains("line 1"), "{wrong}");
        let id = "00000000-0000-0000-0000-000000000007";
        let wrong = told(&format!("{{\"url\":\"/x\",\"batch\":\"{id}\"}}"));
        assert!(wrong.starts_with("line 1: batch: "), "{wrong}");
        let right = "{\"url\":\"/x\"}\r\n".repeat(LINES_MAX);
        assert_eq!(jobs_of_lines(right.as_bytes(), None).unwrap().len(), LINES_MAX);
        assert!(told(&format!("{right}{{\"url\":\"/x\"}}")).contains("more than 10000"));
        assert_eq!(jobs_of_lines(b"", None).unwrap(), []);
    }

    #[test]
    fn a_page_has_from_one_to_so_many_batches() {
        assert_eq!((limit("1"), limit("500")), (Ok(1), Ok(500)));
        for bad in ["0", "501", "-1", ""] {
            assert!(limit(bad).unwrap_err().contains("within 1 and 500"), "{bad}");
        }
    }
}
