//! The page *Timeline*: two minutes of the farm, a lane for each node.

use axum::extract::{Query, State};
use axum::response::Response;
use maud::html;

use super::super::drawing::timeline;
use super::super::{Shared, page};
use crate::store::Views;
use crate::watch::{ANSWER_TIMEOUT, within};

/// The most runs of each kind that are drawn.
const RUNS_MAX: u32 = 1_000;

pub(in super::super) async fn show(
    State(shared): State<Shared>,
    Query(asked): Query<page::Asked>,
) -> Response {
    let farm = match shared.hub.farm().await {
        Ok(farm) => farm,
        Err(error) => return page::failed(&error),
    };
    let now = shared.hub.clock(&farm);
    let since = now.offset(-timeline::PAST_US * 1_000);
    let read = || within(ANSWER_TIMEOUT, shared.hub.store().runs(since, RUNS_MAX));
    let runs = match shared.runs.get(read).await {
        Ok(runs) => runs,
        Err(error) => return page::failed(&error),
    };
    let running = runs.iter().filter(|run| run.finished_at.is_none()).count();
    let body = html! {
        h1 { "Timeline" }
        div .wide .latest data-live="timeline" { (timeline::draw(&farm, &runs, now)) }
        p #timeline-words .quiet data-live="words" {
            "Two minutes of the database’s time, a lane for each node in turn order. " (running) " jobs run now. "
            "A short line above is a beat, a bar below a job, the bracket to the right of now the end of the node’s "
            "lease. Of ended jobs, those among the newest " (crate::store::RECENT_JOBS) " are drawn. Of the time before "
            "somebody began to watch the database keeps beats, deaths and leaves, but not who came or what the ring was."
            @if let Some(more) = timeline::left_out(&farm, now) {
                " There is no lane for " (more) " more nodes."
            }
        }
    };
    page::live(&shared, "Timeline", "/timeline", &asked, &body)
}
