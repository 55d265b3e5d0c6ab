//! The pages *Batches* and *Batch*: how far each is, its jobs, what runs after it, and the buttons that seal and cancel it.

use axum::extract::{Form, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde::Deserialize;
use turnwise_engine::ServerInstant;

use super::super::{Shared, actions, page};
use crate::audit::{Action, Actor, Order};
use crate::batch::{BatchCounts, BatchId, BatchState, BatchView, Need};
use crate::batch_orders::{self, CancelAnswer};
use crate::job::{JobFilter, JobView};
use crate::store::{Batches as _, SealAnswer, Store};
use crate::watch::{ANSWER_TIMEOUT, within};

/// Batches on a page.
const PAGE: u32 = 50;
/// So many jobs of a batch are on its page, the newest.
const JOBS_SHOWN: u32 = 100;

/// What the address asks for.
#[derive(Debug, Default, Deserialize)]
pub(in super::super) struct Wanted {
    /// Only batches older than this one; empty: from the newest on.
    #[serde(default)]
    before: String,
}

pub(in super::super) async fn show(
    State(shared): State<Shared>,
    Query(asked): Query<page::Asked>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let before: Option<BatchId> = match wanted.before.as_str() {
        "" => None,
        text => match text.parse() {
            Ok(before) => Some(before),
            Err(_) => {
                let body = html! {
                    h1 { "Batches" }
                    p .said.refused role="status" { "The page to go on from is no batch’s id." }
                };
                let page = page::still(&shared, "Batches", "/batches", &asked, &body);
                return (StatusCode::BAD_REQUEST, page).into_response();
            }
        },
    };
    let store = shared.hub.store();
    let read = async { Ok((store.batches(before, PAGE).await?, shared.hub.farm().await?)) };
    let (batches, now) = match within(ANSWER_TIMEOUT, read).await {
        Ok((batches, farm)) => (batches, shared.hub.clock(&farm)),
        Err(error) => return page::failed(&error),
    };
    let next = batches.last().filter(|_| batches.len() >= PAGE as usize);
    let body = html! {
        h1 { "Batches" }
        div data-live="batches" {
            @if batches.is_empty() {
                p .empty-list { "There is no batch. " code { "turnwise batches add FILE" } " makes one." }
            } @else { (table(&batches, now)) }
        }
        nav .pages aria-label="More batches" {
            @if before.is_some() { a href="/batches" { "Newest" } }
            @if let Some(next) = next { a rel="next" href=(format!("/batches?before={}", next.id)) { "Older" } }
        }
    };
    page::live(&shared, "Batches", "/batches", &asked, &body)
}

pub(in super::super) async fn one(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Query(asked): Query<page::Asked>,
) -> Response {
    let Ok(id) = id.parse::<BatchId>() else { return no_id() };
    let store = shared.hub.store();
    let filter = JobFilter { batch: Some(id), limit: JOBS_SHOWN, ..JobFilter::default() };
    let read = async {
        Ok((store.batch(id).await?, store.jobs(&filter).await?, shared.hub.farm().await?))
    };
    let (found, jobs, now) = match within(ANSWER_TIMEOUT, read).await {
        Ok((found, jobs, farm)) => (found, jobs, shared.hub.clock(&farm)),
        Err(error) => return page::failed(&error),
    };
    let Some(batch) = found else { return unknown() };
    let body = html! {
        p .path { a href="/batches" { "Batches" } }
        h1 { (title(&batch)) }
        p .quiet { code { (batch.id) } }
        div data-live="batch" { (facts(&batch, now)) }
        div data-live="deeds" { (deeds(&batch)) }
        h2 { "Its jobs" }
        div data-live="jobs" { (children(&batch, &jobs)) }
        div data-live="followers" { (followers(&batch)) }
    };
    page::live(&shared, "Batch", "/batches", &asked, &body)
}

pub(in super::super) async fn seal(
    State(shared): State<Shared>,
    actor: Actor,
    Path(id): Path<String>,
) -> Response {
    let Ok(id) = id.parse::<BatchId>() else { return no_id() };
    let order = Order::new(actor, Action::BatchSeal, id);
    let store = shared.hub.store().clone();
    let call = async move { batch_orders::seal(&store, id).await };
    let result = match actions::to_its_end(&shared, order, call).await {
        Err(error) => return page::failed(&error),
        Ok(SealAnswer::Unknown) => return unknown(),
        Ok(SealAnswer::Sealed) => Ok("It is sealed: it ends with the last of its jobs.".to_owned()),
        Ok(SealAnswer::Before(BatchState::Sealed)) => {
            Err("Nothing was done: it is sealed already.".to_owned())
        }
        Ok(SealAnswer::Before(state)) => Err(ended(state)),
    };
    actions::back(&shared, &format!("/batches/{id}"), result)
}

/// What the form of a cancellation says.
#[derive(Deserialize)]
pub(in super::super) struct Sure {
    #[serde(default)]
    sure: String,
}

/// Cancelling is asked about first.
pub(in super::super) async fn cancel(
    State(shared): State<Shared>,
    actor: Actor,
    Path(id): Path<String>,
    Form(sure): Form<Sure>,
) -> Response {
    let Ok(id) = id.parse::<BatchId>() else { return no_id() };
    if sure.sure != "yes" {
        return ask(&shared, id).await;
    }
    // It takes as long as it has jobs, and goes on though the browser does not wait for it.
    let order = Order::new(actor, Action::BatchCancel, id);
    let store = shared.hub.store().clone();
    let doing =
        tokio::spawn(
            async move { order.carry_out(&store, batch_orders::cancel(&store, id)).await },
        );
    let result = match doing.await {
        Err(_) => Err("It was broken off.".to_owned()),
        Ok(Err(error)) => return page::failed(&error),
        Ok(Ok(CancelAnswer::Unknown)) => return unknown(),
        Ok(Ok(CancelAnswer::Ended(state))) => Err(ended(state)),
        Ok(Ok(CancelAnswer::Cancelled { jobs, broken_off, .. })) => {
            let done = format!(
                "It is cancelled, with {jobs} of its jobs; of those that run the calls are dropped within some two seconds."
            );
            match broken_off {
                None => Ok(done),
                Some(error) => Err(format!("{done} Then it was broken off: {error}")),
            }
        }
    };
    actions::back(&shared, &format!("/batches/{id}"), result)
}

async fn ask(shared: &Shared, id: BatchId) -> Response {
    let batch = match within(ANSWER_TIMEOUT, shared.hub.store().batch(id)).await {
        Err(error) => return page::failed(&error),
        Ok(None) => return unknown(),
        Ok(Some(batch)) => batch,
    };
    let here = format!("/batches/{id}");
    let left = batch.counts.queued + batch.counts.running;
    let body = html! {
        h1 { "Cancel this batch?" }
        p { (title(&batch)) " is " (page::state(batch.state.as_str())) ", " strong { (left) " of its jobs" } " have not ended." }
        p { "They are cancelled, and so are the jobs that wait for it. What attempts have done already stays done." }
        form .actions method="post" action=(format!("{here}/cancel")) {
            input type="hidden" name="sure" value="yes";
            button .danger { "Cancel it" }
            a href=(here) { "Leave it as it is" }
        }
    };
    page::still(shared, "Cancel", "/batches", &page::Asked::default(), &body)
}

fn ended(state: BatchState) -> String {
    format!("Nothing was done: the batch has ended ({state}).")
}

fn no_id() -> Response {
    missing("What stands behind /batches/ in the address is no batch’s id.")
}

fn unknown() -> Response {
    missing("Its id may be mistyped, or it has ended and was removed with the last of its jobs.")
}

fn missing(why: &str) -> Response {
    page::missing("There is no such batch", why, "/batches", "To the batches that there are")
}

fn title(batch: &BatchView) -> String {
    batch.name.as_deref().map_or_else(|| "Batch".to_owned(), |name| page::short(name, 256))
}

fn table(batches: &[BatchView], now: ServerInstant) -> Markup {
    html! {
        div .wide {
            table .batches {
                thead {
                    tr {
                        th { "State" } th { "Batch" } th { "Ended" } th .number { "Dead" } th { "When" }
                    }
                }
                tbody {
                    @for batch in batches {
                        tr {
                            td { (page::state(batch.state.as_str())) }
                            td { a href=(format!("/batches/{}", batch.id)) { (label(batch)) } }
                            td { (bar(&batch.counts)) }
                            td .number { (batch.counts.dead) }
                            td { (page::moment(batch.ended_at.unwrap_or(batch.created_at), now)) }
                        }
                    }
                }
            }
        }
    }
}

/// Its name, or its id where it has none.
fn label(batch: &BatchView) -> String {
    batch.name.as_deref().map_or_else(|| batch.id.to_string(), |name| page::short(name, 60))
}

/// How many have ended, of how many.
fn bar(counts: &BatchCounts) -> Markup {
    html! {
        progress max=(counts.jobs().max(1)) value=(counts.ended()) { }
        " " (counts.ended()) " of " (counts.jobs())
    }
}

fn facts(batch: &BatchView, now: ServerInstant) -> Markup {
    let counts = &batch.counts;
    html! {
        dl .facts {
            dt { "State" } dd { (page::state(batch.state.as_str())) }
            dt { "Ended" } dd { (bar(counts)) }
            dt { "Queued" } dd { (counts.queued) }
            dt { "Running" } dd { (counts.running) }
            dt { "Succeeded" } dd { (counts.succeeded) }
            dt { "Dead" } dd { (counts.dead) }
            dt { "Cancelled" } dd { (counts.cancelled) }
            dt { "Made" } dd { (page::moment(batch.created_at, now)) }
            @if let Some(at) = batch.ended_at { dt { "Over" } dd { (page::moment(at, now)) } }
        }
    }
}

/// What can be done. What has become impossible meanwhile is refused, with what is the case now.
fn deeds(batch: &BatchView) -> Markup {
    html! {
        div .actions {
            @if batch.state == BatchState::Open {
                form method="post" action=(format!("/batches/{}/seal", batch.id)) {
                    button title="Nobody but its own jobs will add any more: it ends with the last of them" { "Seal" }
                }
            }
            @if batch.state.goes_on() {
                form method="post" action=(format!("/batches/{}/cancel", batch.id)) {
                    button .danger { "Cancel…" }
                }
            }
        }
    }
}

fn children(batch: &BatchView, jobs: &[JobView]) -> Markup {
    html! {
        @if jobs.is_empty() { p .empty-list { "There is none." } }
        @else {
            div .wide {
                table .jobs {
                    thead { tr { th { "State" } th { "Call" } th .number { "Attempt" } th { "Last answer" } } }
                    tbody {
                        @for job in jobs {
                            tr data-state=(job.state.as_str()) {
                                td { (page::state(job.state.as_str())) }
                                td .call {
                                    a href=(format!("/jobs/{}", job.id)) {
                                        span .method { (page::short(&job.method, 10)) } " " (page::short(&job.url, 90))
                                    }
                                }
                                td .number { (job.attempt) "/" (job.max_attempts) }
                                td .answer {
                                    @if let Some(status) = job.last_status { (status) " " }
                                    @if let Some(error) = &job.last_error { (page::short(error, 80)) }
                                }
                            }
                        }
                    }
                }
            }
            p {
                a href=(format!("/jobs?batch={}", batch.id)) { "To its jobs by state" }
                @if batch.counts.jobs() > jobs.len() as u64 {
                    span .quiet { " (the newest " (jobs.len()) " of " (batch.counts.jobs()) " are shown)" }
                }
            }
        }
    }
}

fn followers(batch: &BatchView) -> Markup {
    let groups = [(Need::Success, "Then, when all succeeded"), (Need::End, "Then, in any case")];
    html! {
        @for (need, heading) in groups {
            @if batch.followers.iter().any(|follower| follower.need == need) {
                h2 { (heading) }
                ul {
                    @for follower in batch.followers.iter().filter(|follower| follower.need == need) {
                        li {
                            (page::state(follower.state.as_str())) " "
                            a href=(format!("/jobs/{}", follower.job)) { (page::short(&follower.url, 90)) }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::batch::Follower;
    use crate::job::{JobId, JobState};

    fn batch(state: BatchState) -> BatchView {
        let follower = |number, need| Follower {
            job: JobId(Uuid::from_u128(number)),
            url: "/x".to_owned(),
            state: JobState::Scheduled,
            need,
        };
        BatchView {
            id: BatchId(Uuid::from_u128(7)),
            name: Some("<b>".to_owned()),
            state,
            created_at: ServerInstant::from_micros(1),
            ended_at: None,
            counts: BatchCounts { queued: 3, succeeded: 1, ..BatchCounts::default() },
            followers: vec![follower(8, Need::Success), follower(9, Need::End)],
        }
    }

    #[test]
    fn buttons_are_for_what_can_be_done() {
        let of = |state| deeds(&batch(state)).into_string();
        assert!(of(BatchState::Open).contains("/seal") && of(BatchState::Open).contains("/cancel"));
        let sealed = of(BatchState::Sealed);
        assert!(!sealed.contains("/seal\"") && sealed.contains("/cancel"), "{sealed}");
        assert!(!of(BatchState::Failed).contains("form"));
    }

    #[test]
    fn what_follows_stands_under_what_it_needs() {
        let text = followers(&batch(BatchState::Sealed)).into_string();
        let at = |word: &str| text.find(word).unwrap_or_else(|| panic!("{word}: {text}"));
        assert!(at("all succeeded") < at("0008\"") && at("0008\"") < at("in any case"));
        assert!(at("in any case") < at("0009\""));
        let table = table(&[batch(BatchState::Open)], ServerInstant::from_micros(2)).into_string();
        assert!(table.contains("&lt;b&gt;") && table.contains("1 of 4"), "{table}");
        assert!(!table.contains("style="), "{table}");
    }
}
