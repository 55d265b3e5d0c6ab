//! `/v1/queues`: what waits in each queue, what holds for its jobs, and pausing and resuming one.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;

use super::bodies::{self, ContentType};
use super::new_job::Faults;
use super::orders::to_its_end;
use super::params::{Named, Params};
use super::problem::{Details, Kind, Problem};
use super::v1::Shared;
use crate::audit::{Action, Actor, Order};
use crate::job::Retry;
use crate::job_fields;
use crate::json::{PolicyLine, QueueLines, QueueOrdered, paused_or_resumed};
use crate::store::{
    CONCURRENCY_MAX, COUNTED_MAX, Limits, QueueOrders, QueuePolicy, RATE_JOBS_MAX, Rate, Statuses,
    Views,
};
use crate::watch::{ANSWER_TIMEOUT, within};

/// The largest body of a request that sets a queue's policy, in bytes.
const POLICY_BYTES_MAX: usize = 16 * 1024;

/// List the queues that have waiting jobs, are paused or held back, or say something of their jobs
///
/// Of each, up to 10000 jobs are counted, and not more often than every two seconds.
#[utoipa::path(get, path = "/v1/queues", tag = "queues", operation_id = "list_queues",
    responses(
        (status = 200, description = "The queues", body = QueueLines),
        (status = "default", description = "Problem details", body = Details, content_type = "application/problem+json"),
    ))]
pub(super) async fn list(State(api): State<Shared>, uri: Uri) -> Result<Response, Problem> {
    Params::of(&uri, &[])?;
    let count = || within(ANSWER_TIMEOUT, api.store().tally(COUNTED_MAX));
    let tally = api.tally.get(count).await?;
    let store = api.store();
    let read =
        async { Ok((store.paused().await?, store.slowed().await?, store.policies().await?)) };
    let (paused, slowed, policies) = within(ANSWER_TIMEOUT, read).await?;
    Ok(Json(QueueLines::new(&tally, paused, &slowed, &policies)).into_response())
}

/// What is to hold for the jobs of a queue. What is left out is not said any more.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewQueuePolicy)]
struct PolicyRequest {
    /// How long they wait after their first failed attempt, from `1ms` to `24h`; each further wait is twice as long.
    retry_wait: Option<String>,
    /// No wait is longer than this, from `1ms` to `24h`.
    retry_wait_max: Option<String>,
    /// Statuses of answers after which they are not tried again, from 300 to 599, separated by commas, up to 60.
    #[schema(example = "404,422")]
    permanent_statuses: Option<String>,
    /// So many of them run at once, on all nodes together, from 1 to 1000000.
    #[schema(minimum = 1, maximum = 1_000_000)]
    concurrency: Option<i64>,
    /// So many of those with the same concurrency key run at once, on all nodes together, from 1 to 1000000.
    #[schema(minimum = 1, maximum = 1_000_000)]
    concurrency_per_key: Option<i64>,
    /// So many are claimed in a time, on all nodes together; each attempt counts.
    #[schema(example = "100/m")]
    rate: Option<String>,
    /// So many of a rate at once after a time without any, from 1 to 1000000; the jobs of the rate unless it is given.
    #[schema(minimum = 1, maximum = 1_000_000)]
    burst: Option<i64>,
    /// When a target answers 429 or 503 with `Retry-After`, none of them is claimed for as long as it asks, at most so long, from
    /// `1s` to `24h`; only the job itself waits unless it is given.
    slow_down: Option<String>,
}

impl PolicyRequest {
    /// The policy, or all that is wrong with it.
    fn policy(self) -> Result<QueuePolicy, Problem> {
        let mut faults = Faults::default();
        let wait = faults.check("retry_wait", self.retry_wait, job_fields::retry_wait);
        let wait_max = faults.check("retry_wait_max", self.retry_wait_max, job_fields::retry_wait);
        let permanent =
            faults.check("permanent_statuses", self.permanent_statuses, |text: &str| {
                text.parse::<Statuses>().map_err(|error| error.to_string())
            });
        let at_once = |given: &i64| within_limit(*given, CONCURRENCY_MAX);
        let concurrency = faults.check("concurrency", self.concurrency, at_once);
        let concurrency_per_key =
            faults.check("concurrency_per_key", self.concurrency_per_key, at_once);
        let rate = faults.check("rate", self.rate, |text: &str| {
            text.parse::<Rate>().map_err(|error| error.to_string())
        });
        let burst = faults.check("burst", self.burst, |given: &i64| match rate {
            None => Err("it is given without a rate".to_owned()),
            Some(_) => within_limit(*given, RATE_JOBS_MAX),
        });
        let rate = rate.map(|rate| Rate { burst: burst.unwrap_or(rate.burst), ..rate });
        let slow_down = faults.check("slow_down", self.slow_down, job_fields::slow_down);
        faults.done(Some(QueuePolicy {
            retry: Retry { wait, wait_max },
            permanent: permanent.unwrap_or_default(),
            limits: Limits { concurrency, concurrency_per_key, rate },
            slow_down,
        }))
    }
}

fn within_limit(given: i64, most: u32) -> Result<u32, String> {
    let given_is = u32::try_from(given).ok().filter(|given| (1..=most).contains(given));
    given_is.ok_or_else(|| format!("{given} is not within 1 and {most}"))
}

/// Say what holds for the jobs of a queue
///
/// How they are tried again where they do not say it themselves, how many there may be at once and in a time, and whether they wait
/// when a target asks for less. It holds from their next claims on, on every node, in the place of what was said before; an empty
/// object says nothing. A queue need not have jobs.
#[utoipa::path(put, path = "/v1/queues/{name}", tag = "queues", operation_id = "set_queue",
    params(("name" = String, Path, max_length = 128, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$", description = "The queue")),
    request_body = PolicyRequest,
    responses(
        (status = 200, description = "It holds", body = PolicyLine),
        (status = "default", description = "Problem details", body = Details, content_type = "application/problem+json"),
    ))]
pub(super) async fn set(
    State(api): State<Shared>,
    Named(queue): Named,
    request: Request,
) -> Result<Response, Problem> {
    Params::of(request.uri(), &[])?;
    job_fields::stored_queue(&queue)
        .map_err(|reason| Problem::fault(Kind::BadRequest, "name", reason))?;
    ContentType::of(request.headers(), &[ContentType::Json])?;
    let order = Order::new(Actor::of(request.extensions()), Action::QueueSet, &queue);
    let held = api.bodies.read(request, POLICY_BYTES_MAX).await?;
    let policy = bodies::json::<PolicyRequest>(&held.bytes)?.policy()?;
    let (store, said) = (api.store().clone(), policy.clone());
    let call = async move { store.put_policy(&queue, &said).await };
    to_its_end(&api, order, call).await?;
    Ok(Json(PolicyLine::new(&policy)).into_response())
}

/// Claim no more jobs of a queue, on any node, until it is resumed
///
/// What runs goes on, and jobs can be enqueued all the while. Pausing it again changes nothing. A queue need not have jobs.
#[utoipa::path(post, path = "/v1/queues/{name}/pause", tag = "queues", operation_id = "pause_queue",
    params(("name" = String, Path, max_length = 128, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$", description = "The queue")),
    responses(
        (status = 200, description = "It is paused, now or before", body = QueueOrdered),
        (status = "default", description = "Problem details", body = Details, content_type = "application/problem+json"),
    ))]
pub(super) async fn pause(
    State(api): State<Shared>,
    named: Named,
    request: Request,
) -> Result<Response, Problem> {
    order(&api, named, request, true).await
}

/// Claim the jobs of a queue again
///
/// Resuming one that is not paused changes nothing.
#[utoipa::path(post, path = "/v1/queues/{name}/resume", tag = "queues", operation_id = "resume_queue",
    params(("name" = String, Path, max_length = 128, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$", description = "The queue")),
    responses(
        (status = 200, description = "It is not paused, now or before", body = QueueOrdered),
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
    Named(queue): Named,
    request: Request,
    pause: bool,
) -> Result<Response, Problem> {
    Params::of(request.uri(), &[])?;
    job_fields::stored_queue(&queue)
        .map_err(|reason| Problem::fault(Kind::BadRequest, "name", reason))?;
    let action = if pause { Action::QueuePause } else { Action::QueueResume };
    let order = Order::new(Actor::of(request.extensions()), action, &queue);
    api.bodies.none(request).await?;
    let (store, name) = (api.store().clone(), queue.clone());
    let done = to_its_end(api, order, async move {
        if pause { store.pause(&name).await } else { store.resume(&name).await }
    });
    let result = paused_or_resumed(done.await?, pause);
    Ok(Json(QueueOrdered { queue, result }).into_response())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn policy(text: &str) -> Result<QueuePolicy, Problem> {
        bodies::json::<PolicyRequest>(text.as_bytes())?.policy()
    }

    #[test]
    fn what_holds_for_keys_and_when_a_target_asks_for_less_is_read() {
        let said = policy(r#"{"concurrency_per_key":1000000,"slow_down":"90s"}"#).unwrap();
        let limits = Limits { concurrency_per_key: Some(CONCURRENCY_MAX), ..Limits::default() };
        let slow_down = Some(Duration::from_secs(90));
        assert_eq!(said, QueuePolicy { limits, slow_down, ..QueuePolicy::default() });
        assert_eq!(policy("{}").unwrap(), QueuePolicy::default());
    }

    #[test]
    fn what_cannot_hold_for_a_queue_is_told_by_its_name() {
        for (text, field, reason) in [
            (r#"{"concurrency":0}"#, "concurrency", "within 1 and 1000000"),
            (r#"{"concurrency_per_key":0}"#, "concurrency_per_key", "within 1 and 1000000"),
            (r#"{"concurrency_per_key":1000001}"#, "concurrency_per_key", "within 1 and 1000000"),
            (r#"{"slow_down":"999ms"}"#, "slow_down", "1s to 24h"),
            (r#"{"slow_down":"25h"}"#, "slow_down", "1s to 24h"),
            (r#"{"slow_down":"long"}"#, "slow_down", "is no duration"),
        ] {
            let told = format!("{:?}", policy(text).unwrap_err());
            assert!(told.contains(&format!("field: \"{field}\"")), "{text}: {told}");
            assert!(told.contains(reason), "{text}: {told}");
        }
    }
}
