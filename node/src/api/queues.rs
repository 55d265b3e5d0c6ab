//! `/v1/queues`: what waits in each queue, and pausing and resuming one.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::Uri;
use axum::response::{IntoResponse, Response};

use super::orders::to_its_end;
use super::params::{Named, Params};
use super::problem::{Details, Kind, Problem};
use super::v1::Shared;
use crate::audit::{Action, Actor, Order};
use crate::job_fields;
use crate::json::{QueueLines, QueueOrdered, paused_or_resumed};
use crate::store::{COUNTED_MAX, QueueOrders, Views};
use crate::watch::{ANSWER_TIMEOUT, within};

/// List the queues that have waiting jobs, are paused, or say something of their jobs
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
    let read = async { Ok((api.store().paused().await?, api.store().policies().await?)) };
    let (paused, policies) = within(ANSWER_TIMEOUT, read).await?;
    Ok(Json(QueueLines::new(&tally, paused, &policies)).into_response())
}

/// Claim no more jobs of a queue, on any node, until it is resumed
///
/// What runs goes on, and jobs can be enqueued all the while. Pausing it again changes nothing. A queue need not have jobs.
#[utoipa::path(post, path = "/v1/queues/{name}/pause", tag = "queues", operation_id = "pause_queue",
    params(("name" = String, Path, description = "The queue")),
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
    params(("name" = String, Path, description = "The queue")),
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
