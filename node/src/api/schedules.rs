//! `/v1/schedules`: the schedules with their next times, and what can be ordered of one. From which time on it fires then is
//! decided in `store::orders`.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::bodies::{self, ContentType, SCHEDULE_BYTES_MAX};
use super::new_job::{Faults, Headers, JobRequest};
use super::orders::to_its_end;
use super::params::{Named, Params};
use super::problem::{Details, Kind, Problem};
use super::v1::Shared;
use crate::audit::{Action, Actor, Order};
use crate::job::JobId;
use crate::json::{ScheduleLine, ScheduleOrdered, ScheduleSet, paused_or_resumed};
use crate::schedule::{Cron, LIMIT_MAX, Misfire};
use crate::store::orders::{self, PauseAnswer, RunAnswer};
use crate::store::{NewSchedule, Schedules, Store, parse_schedule_name};
use crate::watch::{ANSWER_TIMEOUT, within};

/// The limit of the misfire policy `all` unless it is given.
const MISFIRE_LIMIT: u32 = 100;

/// Schedules, by name.
#[derive(Serialize, ToSchema)]
#[schema(as = Schedules)]
struct ScheduleLines<'a> {
    /// The schedules.
    schedules: Vec<ScheduleLine<'a>>,
}

/// List schedules, with their next times
#[utoipa::path(get, path = "/v1/schedules", tag = "schedules", operation_id = "list_schedules",
    responses(
        (status = 200, description = "All schedules", body = ScheduleLines),
        (status = "default", description = "Problem details", body = Details, content_type = "application/problem+json"),
    ))]
pub(super) async fn list(State(api): State<Shared>, uri: Uri) -> Result<Response, Problem> {
    Params::of(&uri, &[])?;
    let store = api.store();
    let read = async { Ok((store.look().await?.clock, store.schedules().await?)) };
    let (now, schedules) = within(ANSWER_TIMEOUT, read).await?;
    let schedules = schedules.iter().map(|schedule| ScheduleLine::new(schedule, now)).collect();
    Ok(Json(ScheduleLines { schedules }).into_response())
}

/// Show a schedule with its next times
#[utoipa::path(get, path = "/v1/schedules/{name}", tag = "schedules", operation_id = "show_schedule",
    params(("name" = String, Path, description = "The schedule's name")),
    responses(
        (status = 200, description = "The schedule", body = ScheduleLine),
        (status = "default", description = "Problem details", body = Details, content_type = "application/problem+json"),
    ))]
pub(super) async fn show(
    State(api): State<Shared>,
    Named(name): Named,
    uri: Uri,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?;
    let store = api.store();
    let read = async { Ok((store.look().await?.clock, orders::found(store, &name).await?)) };
    let (now, found) = within(ANSWER_TIMEOUT, read).await?;
    let schedule = found.ok_or_else(|| unknown(&name))?;
    Ok(Json(ScheduleLine::new(&schedule, now)).into_response())
}

/// A schedule to be set: when, and the job of each of its times.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewSchedule)]
struct ScheduleRequest {
    /// The cron expression, of five fields (minute, hour, day of the month, month, day of the week) or six with the second first,
    /// or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
    #[schema(required = true, value_type = String, example = "0 3 * * *")]
    cron: Option<String>,
    /// The time zone of the expression, an IANA name; `UTC` unless it is given.
    zone: Option<String>,
    /// What becomes of times that were missed by more than a minute: `skip`, `once` or `all`; `once` unless it is given.
    #[schema(pattern = "^(skip|once|all)$")]
    misfire: Option<String>,
    /// With `all`: for the latest so many at most, from 1 to 1000; 100 unless it is given.
    #[schema(minimum = 1, maximum = 1000)]
    misfire_limit: Option<i64>,
    /// A path for the executing node's own target, beginning with `/`, or a full URL.
    #[schema(required = true, value_type = String, max_length = 8192, pattern = r"^(/|https?://)[^ \\\x00-\x1f\x7f-\x9f]*$", example = "/jobs/tidy")]
    url: Option<String>,
    /// The lane of its jobs.
    #[schema(max_length = 100, pattern = r"^[^\s,=\x00-\x1f\x7f-\x9f]+$")]
    queue: Option<String>,
    /// The HTTP method of their calls.
    method: Option<String>,
    /// Headers of their calls.
    #[serde(default)]
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    headers: Headers,
    /// The body of their calls, a text; one of `body`, `json` and `body_base64`.
    body: Option<String>,
    /// The body of their calls, any JSON but null.
    #[schema(value_type = Option<serde_json::Value>)]
    json: Option<Box<RawValue>>,
    /// The body of their calls, any bytes, in base64.
    body_base64: Option<String>,
    /// From -100 to 100.
    #[schema(minimum = -100, maximum = 100)]
    priority: Option<i64>,
    /// How often each is tried at most, from 1 to 1000.
    #[schema(minimum = 1, maximum = 1000)]
    max_attempts: Option<i64>,
    /// How long one attempt may take, from `1ms` to `24h`.
    deadline: Option<String>,
    /// How long each waits after its first failed attempt, from `1ms` to `24h`.
    retry_wait: Option<String>,
    /// No wait is longer than this, from `1ms` to `24h`.
    retry_wait_max: Option<String>,
    /// An answer of 202 is not the end of each: it goes on until its target calls back.
    asynchronous: Option<bool>,
    /// Then it must be heard of so often, from `1s` to `24h`.
    heartbeat: Option<String>,
    /// Of the jobs of their queue with the same key no more run at once than the queue says; up to 256 bytes.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\x00]*$")]
    concurrency_key: Option<String>,
}

impl ScheduleRequest {
    /// The schedule, or all that is wrong with it.
    fn schedule(self, name: String) -> Result<(NewSchedule, Cron), Problem> {
        let job = JobRequest {
            url: self.url,
            queue: self.queue,
            method: self.method,
            headers: self.headers,
            body: self.body,
            json: self.json,
            body_base64: self.body_base64,
            priority: self.priority,
            max_attempts: self.max_attempts,
            deadline: self.deadline,
            retry_wait: self.retry_wait,
            retry_wait_max: self.retry_wait_max,
            asynchronous: self.asynchronous,
            heartbeat: self.heartbeat,
            concurrency_key: self.concurrency_key,
            ..JobRequest::default()
        };
        let mut faults = Faults::default();
        let zone = self.zone.unwrap_or_else(|| "UTC".to_owned());
        let cron = faults.required("cron", self.cron, |text| {
            let cron = Cron::parse(text, &zone).map_err(|error| error.to_string())?;
            Ok((cron, text.to_owned()))
        });
        let policy = self.misfire.unwrap_or_else(|| Misfire::Once.to_string());
        let policy = faults.check("misfire", Some(policy), |text: &str| {
            text.parse::<Misfire>().map_err(|error| error.to_string())
        });
        let limit = faults.check("misfire_limit", self.misfire_limit, |given: &i64| limit(*given));
        let job = faults.also(job.job(JobId::generate));
        let whole = cron.zip(policy).zip(job);
        let (((cron, text), policy), job) = faults.done(whole)?;
        let misfire = match (policy, limit) {
            (Misfire::All { .. }, limit) => Misfire::All { limit: limit.unwrap_or(MISFIRE_LIMIT) },
            (other, _) => other,
        };
        Ok((NewSchedule { name, cron: text, zone, misfire, job }, cron))
    }
}

fn limit(given: i64) -> Result<u32, String> {
    let limit = u32::try_from(given).ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| format!("{given} is not within 1 and {LIMIT_MAX}"))
}

/// Set a schedule, a new one or in the place of the one with that name
///
/// Setting the same again changes nothing; one that is paused stays so.
#[utoipa::path(put, path = "/v1/schedules/{name}", tag = "schedules", operation_id = "set_schedule",
    params(("name" = String, Path, max_length = 128, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$", description = "The schedule's name, up to 128 bytes")),
    request_body = ScheduleRequest,
    responses(
        (status = 201, description = "It is new", body = ScheduleSet),
        (status = 200, description = "It stands in the place of the one with that name", body = ScheduleSet),
        (status = "default", description = "Problem details", body = Details, content_type = "application/problem+json"),
    ))]
pub(super) async fn set(
    State(api): State<Shared>,
    Named(name): Named,
    request: Request,
) -> Result<Response, Problem> {
    Params::of(request.uri(), &[])?;
    parse_schedule_name(&name)
        .map_err(|reason| Problem::fault(Kind::BadRequest, "name", reason))?;
    ContentType::of(request.headers(), &[ContentType::Json])?;
    let order = Order::new(Actor::of(request.extensions()), Action::ScheduleSet, &name);
    let held = api.bodies.read(request, SCHEDULE_BYTES_MAX).await?;
    let wanted = bodies::json::<ScheduleRequest>(&held.bytes)?;
    let (schedule, cron) = wanted.schedule(name.clone())?;
    let store = api.store().clone();
    let call = async move { orders::set(&store, &schedule, &cron).await };
    let set = to_its_end(&api, order, call).await?;
    let status = if set.is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(ScheduleSet::new(&name, set.is_new, &set.times))).into_response())
}

/// Remove a schedule
///
/// The jobs that it has inserted stay.
#[utoipa::path(delete, path = "/v1/schedules/{name}", tag = "schedules", operation_id = "remove_schedule",
    params(("name" = String, Path, description = "The schedule's name")),
    responses(
        (status = 200, description = "It is removed", body = ScheduleOrdered),
        (status = "default", description = "Problem details", body = Details, content_type = "application/problem+json"),
    ))]
pub(super) async fn remove(
    State(api): State<Shared>,
    Named(name): Named,
    request: Request,
) -> Result<Response, Problem> {
    Params::of(request.uri(), &[])?;
    let order = Order::new(Actor::of(request.extensions()), Action::ScheduleRemove, &name);
    api.bodies.none(request).await?;
    let (store, of) = (api.store().clone(), name.clone());
    match to_its_end(&api, order, async move { store.remove_schedule(&of).await }).await? {
        true => Ok(Json(ScheduleOrdered { name, result: "removed" }).into_response()),
        false => Err(unknown(&name)),
    }
}

/// Pause a schedule
///
/// It fires nothing until it is resumed; what comes meanwhile is passed over. Pausing it again changes nothing.
#[utoipa::path(post, path = "/v1/schedules/{name}/pause", tag = "schedules", operation_id = "pause_schedule",
    params(("name" = String, Path, description = "The schedule's name")),
    responses(
        (status = 200, description = "It is paused, now or before", body = ScheduleOrdered),
        (status = "default", description = "Problem details", body = Details, content_type = "application/problem+json"),
    ))]
pub(super) async fn pause(
    State(api): State<Shared>,
    named: Named,
    request: Request,
) -> Result<Response, Problem> {
    order(&api, named, request, true).await
}

/// Go on with a schedule, from its next time on
///
/// Resuming one that is not paused changes nothing. 409 when its expression or its zone cannot be read.
#[utoipa::path(post, path = "/v1/schedules/{name}/resume", tag = "schedules", operation_id = "resume_schedule",
    params(("name" = String, Path, description = "The schedule's name")),
    responses(
        (status = 200, description = "It is not paused, now or before", body = ScheduleOrdered),
        (status = "default", description = "Problem details", body = Details, content_type = "application/problem+json"),
    ))]
pub(super) async fn resume(
    State(api): State<Shared>,
    named: Named,
    request: Request,
) -> Result<Response, Problem> {
    order(&api, named, request, false).await
}

async fn order(
    api: &Shared,
    Named(name): Named,
    request: Request,
    pause: bool,
) -> Result<Response, Problem> {
    Params::of(request.uri(), &[])?;
    let action = if pause { Action::SchedulePause } else { Action::ScheduleResume };
    let order = Order::new(Actor::of(request.extensions()), action, &name);
    api.bodies.none(request).await?;
    let (store, of) = (api.store().clone(), name.clone());
    let call = async move { orders::pause(&store, &of, pause).await };
    let answer = to_its_end(api, order, call).await?;
    let result = match (answer, pause) {
        (PauseAnswer::Done, pause) => paused_or_resumed(true, pause),
        (PauseAnswer::SoAlready, pause) => paused_or_resumed(false, pause),
        (PauseAnswer::Unknown, _) => return Err(unknown(&name)),
        (PauseAnswer::Unreadable(error), _) => {
            let remedy = "Nothing was done: set it with an expression and a zone that can be read";
            return Err(Problem::new(Kind::Conflict, error.to_string(), remedy));
        }
    };
    Ok(Json(ScheduleOrdered { name, result }).into_response())
}

/// A job that a schedule was told to insert.
#[derive(Serialize, ToSchema)]
#[schema(as = Fired)]
struct FiredLine {
    /// The job.
    #[schema(value_type = String, format = Uuid)]
    id: JobId,
}

/// Insert a job of a schedule now, though it is paused
#[utoipa::path(post, path = "/v1/schedules/{name}/run", tag = "schedules", operation_id = "run_schedule",
    params(("name" = String, Path, description = "The schedule's name")),
    responses(
        (status = 201, description = "The job", body = FiredLine),
        (status = "default", description = "Problem details", body = Details, content_type = "application/problem+json"),
    ))]
pub(super) async fn run(
    State(api): State<Shared>,
    Named(name): Named,
    request: Request,
) -> Result<Response, Problem> {
    Params::of(request.uri(), &[])?;
    let order = Order::new(Actor::of(request.extensions()), Action::ScheduleRun, &name);
    api.bodies.none(request).await?;
    let (store, of) = (api.store().clone(), name.clone());
    match to_its_end(&api, order, async move { orders::run(&store, &of).await }).await? {
        RunAnswer::Fired(id) => Ok((StatusCode::CREATED, Json(FiredLine { id })).into_response()),
        RunAnswer::Unknown => Err(unknown(&name)),
        RunAnswer::Changing => {
            let say = format!("the schedule was changed {} times meanwhile", orders::TRIES);
            Err(Problem::new(Kind::Conflict, say, "Nothing was done: ask again"))
        }
    }
}

fn unknown(name: &str) -> Problem {
    Problem::unknown("schedule", name, "GET /v1/schedules lists those that there are")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(text: &str) -> Result<NewSchedule, Problem> {
        let wanted = bodies::json::<ScheduleRequest>(text.as_bytes())?;
        wanted.schedule("s".to_owned()).map(|(schedule, _)| schedule)
    }

    #[test]
    fn a_schedule_is_read_with_its_job() {
        let plain = schedule(r#"{"cron":"@daily","url":"/x"}"#).unwrap();
        assert_eq!(
            (plain.zone.as_str(), plain.misfire, plain.job.url.as_str()),
            ("UTC", Misfire::Once, "/x")
        );
        let all =
            schedule(r#"{"cron":"@daily","url":"/x","misfire":"all","queue":"mail"}"#).unwrap();
        assert_eq!((all.misfire, all.job.queue.as_str()), (Misfire::All { limit: 100 }, "mail"));
        let few = r#"{"cron":"@daily","url":"/x","misfire":"all","misfire_limit":1000}"#;
        assert_eq!(schedule(few).unwrap().misfire, Misfire::All { limit: 1_000 });
        let keyed = schedule(r#"{"cron":"@daily","url":"/x","concurrency_key":"k"}"#).unwrap();
        assert_eq!(keyed.job.concurrency_key, Some("k".parse().unwrap()));
    }

    #[test]
    fn all_that_is_wrong_with_a_schedule_and_its_job_is_told() {
        let told = |text: &str| format!("{:?}", schedule(text).unwrap_err());
        let all =
            told(r#"{"cron":"61 * * * *","misfire":"never","misfire_limit":0,"priority":101}"#);
        for field in ["cron", "misfire", "misfire_limit", "url", "priority"] {
            assert!(all.contains(&format!("field: \"{field}\"")), "{field}: {all}");
        }
        assert!(told(r#"{"url":"/x"}"#).contains("\"cron\""));
        assert!(told(r#"{"cron":"@daily","zone":"Mars/Base","url":"/x"}"#).contains("Mars"));
        assert!(told(r#"{"cron":"@daily","url":"/x","unique_key":"k"}"#).contains("unknown field"));
        let parent =
            r#"{"cron":"@daily","url":"/x","parent":"00000000-0000-0000-0000-00000000000a"}"#;
        assert!(told(parent).contains("unknown field"));
    }
}
