//! The stream that pages listen to: a word whenever something has happened. What the page then shows, it asks for
//! itself. Decides how many may listen.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::Semaphore;

use super::Shared;
use crate::watch::{Event, Feed, Weight};

/// So many pages may listen at once.
const LISTENERS_MAX: usize = 100;
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

/// What is told.
#[derive(Serialize)]
struct Told<'a> {
    /// All that happened.
    events: &'a [Event],
    /// What of it matters, in words.
    alarm: String,
    /// The database answers.
    answers: bool,
}

pub(super) async fn listen(State(shared): State<Shared>) -> Response {
    let Ok(place) = Arc::clone(&shared.listeners.0).try_acquire_owned() else {
        let say = format!("{LISTENERS_MAX} pages are listening already: close some of them\n");
        return (StatusCode::SERVICE_UNAVAILABLE, say).into_response();
    };
    let feed = shared.hub.watch();
    // The place and the feed go with the stream: a browser that drops its connection frees both.
    let told = stream::unfold((feed, place), |(mut feed, place)| async move {
        let event = next(&mut feed).await?;
        Some((Ok::<_, Infallible>(event), (feed, place)))
    });
    Sse::new(told).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

async fn next(feed: &mut Feed) -> Option<sse::Event> {
    let news = feed.next().await?;
    let alarm: Vec<String> = news
        .events
        .iter()
        .filter(|event| event.what.weight() == Weight::Trouble)
        .map(|event| event.what.words())
        .collect();
    let alarm = alarm.join(". ");
    let told = Told { events: &news.events, alarm, answers: news.answers };
    // A line of JSON has no end of line in it.
    let data = serde_json::to_string(&told).unwrap_or_default();
    Some(sse::Event::default().event("news").data(data))
}
