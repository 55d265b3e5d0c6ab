//! `/v1/events`: the events of the farm as they happen, from the reader that the pages share. Decides how many may listen, and
//! which events are told.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::Uri;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use tokio::sync::Semaphore;

use super::params::Params;
use super::problem::{Details, Kind, Problem};
use super::v1::Shared;
use crate::watch::{Event, Weight};

/// So many may listen at once.
pub(super) const LISTENERS_MAX: usize = 50;
/// So often a stream says something though nothing happened, so that a dead one is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Places for those who listen.
#[derive(Debug)]
pub(super) struct Listeners(Arc<Semaphore>);

impl Default for Listeners {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LISTENERS_MAX)))
    }
}

/// Listen to what happens in the farm
///
/// Server-sent events, without an end: the data of each is an event as `turnwise events --json` prints it. What happens while
/// nobody listens, and what a listener that is slow misses, is not told again.
#[utoipa::path(get, path = "/v1/events", tag = "events", operation_id = "listen",
    params(("news" = Option<bool>, Query, description = "`true`: without what happens every second, the beats")),
    responses(
        (status = 200, description = "The events", body = String, content_type = "text/event-stream"),
        (status = "default", description = "Problem details", body = Details, content_type = "application/problem+json"),
    ))]
pub(super) async fn listen(State(api): State<Shared>, uri: Uri) -> Result<Response, Problem> {
    let params = Params::of(&uri, &["news"])?;
    let news = params
        .get("news", |text| text.parse::<bool>().map_err(|_| "write true or false".to_owned()))?;
    let least = if news == Some(true) { Weight::News } else { Weight::Routine };
    let place = Arc::clone(&api.listeners.0).try_acquire_owned().map_err(|_| {
        let say = format!("{LISTENERS_MAX} are listening already");
        Problem::new(Kind::Busy, say, "Ask again when one of them has gone, or ask another node")
    })?;
    // The place and the feed go with the stream: a listener that drops its connection frees both.
    let looks = stream::unfold((api.hub.watch(), place), |(mut feed, place)| async move {
        let news = feed.next().await?;
        Some((news.events, (feed, place)))
    });
    let told = looks.flat_map(move |events| {
        let told: Vec<_> = events.iter().filter_map(|event| told(event, least)).collect();
        stream::iter(told)
    });
    Ok(Sse::new(told).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

fn told(event: &Event, least: Weight) -> Option<Result<sse::Event, Infallible>> {
    if event.what.weight() < least {
        return None;
    }
    // A line of JSON has no end of line in it.
    serde_json::to_string(event).ok().map(|line| Ok(sse::Event::default().data(line)))
}
