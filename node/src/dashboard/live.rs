//! The stream that pages listen to: a word whenever something has happened or looks different, and none otherwise. What the page then shows, it asks for
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
use turnwise_engine::NodeId;

use super::Shared;
use crate::store::NodeView;
use crate::watch::{Event, Feed, News, Weight};

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
    let told = stream::unfold((feed, None, place), |(mut feed, mut shown, place)| async move {
        let event = next(&mut feed, &mut shown).await?;
        Some((Ok::<_, Infallible>(event), (feed, shown, place)))
    });
    Sse::new(told).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

/// What a page shows besides what happened; a change of it is told like an event. A page that is told something asks for
/// itself again: what is the same must not be told.
#[derive(PartialEq, Eq)]
struct Shown {
    answers: bool,
    /// Each node, its state, its place in the ring, and how many jobs it runs.
    nodes: Vec<(NodeId, String, Option<u32>, u32)>,
}

impl Shown {
    fn of(news: &News) -> Self {
        let nodes = news.farm.iter().flat_map(|farm| {
            let seen =
                |node: &NodeView| (node.id, farm.state(node).to_owned(), node.rank, node.running);
            farm.sight().nodes.iter().map(seen)
        });
        Self { answers: news.answers, nodes: nodes.collect() }
    }
}

/// The next news that change what is shown.
async fn changed(feed: &mut Feed, shown: &mut Option<Shown>) -> Option<News> {
    loop {
        let news = feed.next().await?;
        let now = Some(Shown::of(&news));
        let is_same = *shown == now;
        *shown = now;
        if !(is_same && news.events.is_empty()) {
            return Some(news);
        }
    }
}

async fn next(feed: &mut Feed, shown: &mut Option<Shown>) -> Option<sse::Event> {
    let news = changed(feed, shown).await?;
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
