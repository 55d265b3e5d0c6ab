//! The page *Job*: what it is, its attempts and their answers, and what can be done about it.

use axum::extract::{Form, Path, Query, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use turnwise_engine::ServerInstant;

use super::super::{Shared, actions, page};
use crate::audit::{Action, Actor, Order};
use crate::config::{Keep, Retention};
use crate::job::{AttemptView, Attempts, JobId, JobState, JobView};
use crate::redact::Redaction;
use crate::store::{RequestView, Requests, Store};
use crate::watch::{ANSWER_TIMEOUT, Farm, within};

pub(in super::super) async fn show(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Query(asked): Query<page::Asked>,
) -> Response {
    let Ok(id) = id.parse::<JobId>() else { return no_id() };
    let store = shared.hub.store();
    let read =
        async { Ok((store.job(id).await?, store.request(id).await?, shared.hub.farm().await?)) };
    let (found, called, farm) = match within(ANSWER_TIMEOUT, read).await {
        Ok(read) => read,
        Err(error) => return page::failed(&error),
    };
    let Some((job, attempts)) = found else { return unknown(shared.kept) };
    let now = shared.hub.clock(&farm);
    let redaction = shared.hub.redaction();
    let body = html! {
        p .path { a href="/jobs" { "Jobs" } }
        h1 .call { span .method { (page::short(&job.method, 40)) } " " (page::short(&job.url, 400)) }
        p .quiet { code { (job.id) } }
        div data-live="job" { (facts(&farm, &job, now)) }
        div data-live="deeds" { (deeds(&job)) }
        @if let Some(called) = &called { (request(called, redaction)) }
        h2 { "Attempts" }
        div data-live="attempts" { (table(&farm, &attempts, redaction, now)) }
    };
    page::live(&shared, "Job", "/jobs", &asked, &body)
}

/// What the form of a cancellation says.
#[derive(Deserialize)]
pub(in super::super) struct Sure {
    #[serde(default)]
    sure: String,
}

pub(in super::super) async fn retry(
    State(shared): State<Shared>,
    actor: Actor,
    Path(id): Path<String>,
) -> Response {
    let Ok(id) = id.parse::<JobId>() else { return no_id() };
    let order = Order::new(actor, Action::JobRetry, id);
    let store = shared.hub.store().clone();
    let call = async move { store.retry(id).await };
    let result = match actions::to_its_end(&shared, order, call).await {
        Err(error) => return page::failed(&error),
        Ok(None) => return unknown(shared.kept),
        Ok(Some(true)) => Ok("It runs again now.".to_owned()),
        Ok(Some(false)) => Err(not_done(&shared, id).await),
    };
    actions::back(&shared, &format!("/jobs/{id}"), result)
}

/// Cancelling is asked about first.
pub(in super::super) async fn cancel(
    State(shared): State<Shared>,
    actor: Actor,
    Path(id): Path<String>,
    Form(sure): Form<Sure>,
) -> Response {
    let Ok(id) = id.parse::<JobId>() else { return no_id() };
    if sure.sure != "yes" {
        return ask(&shared, id).await;
    }
    let order = Order::new(actor, Action::JobCancel, id);
    let store = shared.hub.store().clone();
    let call = async move { store.cancel(id).await };
    let result = match actions::to_its_end(&shared, order, call).await {
        Err(error) => return page::failed(&error),
        Ok(None) => return unknown(shared.kept),
        Ok(Some(true)) => Ok(match within(ANSWER_TIMEOUT, shared.hub.store().job(id)).await {
            Ok(Some((job, _))) if job.state == JobState::Running => {
                "It is cancelled: its node drops the call within some two seconds.".to_owned()
            }
            _ => "It is cancelled.".to_owned(),
        }),
        Ok(Some(false)) => Err(not_done(&shared, id).await),
    };
    actions::back(&shared, &format!("/jobs/{id}"), result)
}

async fn ask(shared: &Shared, id: JobId) -> Response {
    let job = match within(ANSWER_TIMEOUT, shared.hub.store().job(id)).await {
        Err(error) => return page::failed(&error),
        Ok(None) => return unknown(shared.kept),
        Ok(Some((job, _))) => job,
    };
    let here = format!("/jobs/{id}");
    let body = html! {
        h1 { "Cancel this job?" }
        p .call { span .method { (page::short(&job.method, 40)) } " " (page::short(&job.url, 400)) }
        p { "It is " (page::state(job.state.as_str())) ". What an attempt has done already stays done." }
        form .actions method="post" action=(format!("{here}/cancel")) {
            input type="hidden" name="sure" value="yes";
            button .danger { "Cancel it" }
            a href=(here) { "Leave it as it is" }
        }
    };
    page::still(shared, "Cancel", "/jobs", &page::Asked::default(), &body)
}

/// What is the case in place of what somebody wanted.
async fn not_done(shared: &Shared, id: JobId) -> String {
    match within(ANSWER_TIMEOUT, shared.hub.store().job(id)).await {
        Ok(Some((job, _))) => format!("Nothing was done: the job is {} now.", job.state.as_str()),
        _ => "Nothing was done.".to_owned(),
    }
}

fn no_id() -> Response {
    missing("What stands behind /jobs/ in the address is no job’s id.")
}

/// No job has this id, or none has any more.
fn unknown(kept: Retention) -> Response {
    let Retention { succeeded, dead } = kept;
    missing(&format!(
        "Its id may be mistyped, or it has ended and was removed. This node keeps {} and {}. \
         Where another node of the farm is told of a shorter time, that one counts.",
        in_words("jobs that succeeded or were cancelled", succeeded),
        in_words("those that were given up", dead)
    ))
}

fn in_words(jobs: &str, kept: Keep) -> String {
    match kept {
        Keep::For(_) => format!("{jobs} for {kept} after their end"),
        Keep::Forever => format!("{jobs} for ever"),
    }
}

fn missing(why: &str) -> Response {
    page::missing("There is no such job", why, "/jobs", "To the jobs that there are")
}

fn facts(farm: &Farm, job: &JobView, now: ServerInstant) -> Markup {
    html! {
        dl .facts {
            dt { "State" } dd { (page::state(job.state.as_str())) }
            dt { "Queue" } dd { (page::short(&job.queue, 128)) }
            @if let Some(key) = &job.unique_key { dt { "Unique key" } dd { (page::short(key, 256)) } }
            @if let Some(key) = &job.particulars.concurrency_key { dt { "Concurrency key" } dd { (page::short(key, 256)) } }
            @if let Some(parent) = job.particulars.parent_id() {
                dt { "Parent" } dd { a href=(format!("/jobs/{parent}")) { code { (parent) } } }
            }
            @if let Some(schedule) = &job.particulars.schedule { dt { "Schedule" } dd { (page::short(schedule, 128)) } }
            @if let Some(batch) = job.particulars.batch_id() {
                dt { "Batch" } dd { a href=(format!("/batches/{batch}")) { code { (batch) } } }
            }
            @if let Some(batch) = job.after {
                dt { @if job.waits_for_batch() { "Waits for" } @else { "Waited for" } }
                dd { "the batch " a href=(format!("/batches/{batch}")) { code { (batch) } } }
            }
            @if let Some(since) = job.awaits_since { dt { "Elsewhere" } dd { "since " (page::moment(since, now)) ", until it calls back" } }
            @if let Some(progress) = &job.progress {
                dt { "Progress" }
                dd {
                    @if let Some(percent) = progress.percent {
                        progress max="100" value=(percent) { } " " (percent) " % "
                    }
                    @if let Some(note) = &progress.note { (page::short(note, 1_024)) }
                }
            }
            dt { "Priority" } dd { (job.priority) }
            dt { "Attempts" } dd { (job.attempt) " of " (job.max_attempts) }
            dt { "Enqueued" } dd { (page::moment(job.created_at, now)) }
            @if let Some(due) = job.due_at() {
                dt { @if job.awaits_since.is_some() { "Heard of by" } @else { "Due" } } dd { (page::moment(due, now)) }
            }
            @if let Some(at) = job.finished_at { dt { "Ended" } dd { (page::moment(at, now)) } }
            @if let Some(node) = job.node {
                dt { "Node" } dd { a href=(format!("/nodes/{node}")) { (page::short(&farm.member(node).name, 60)) } }
            }
            @if let Some(status) = job.last_status { dt { "Last status" } dd { (status) } }
            @if let Some(error) = &job.last_error { dt { "Last error" } dd { (page::short(error, 2_000)) } }
        }
    }
}

/// What can be done. What has become impossible meanwhile is refused, with what is the case now.
fn deeds(job: &JobView) -> Markup {
    let runs_again = !matches!(job.state, JobState::Succeeded | JobState::Running);
    let has_ended = matches!(job.state, JobState::Succeeded | JobState::Dead | JobState::Cancelled);
    html! {
        div .actions {
            @if runs_again {
                form method="post" action=(format!("/jobs/{}/retry", job.id)) {
                    button title="Run it now; one that has spent its attempts gets one more" { "Run it now" }
                }
            }
            @if !has_ended {
                form method="post" action=(format!("/jobs/{}/cancel", job.id)) {
                    button .danger { "Cancel…" }
                }
            }
        }
    }
}

/// What it calls with, as far as that may be shown. It does not change.
fn request(request: &RequestView, redaction: &Redaction) -> Markup {
    html! {
        @if !request.headers.is_empty() || request.body.is_some() {
            h2 { "Request" }
            @if !request.headers.is_empty() {
                dl .facts {
                    @for (name, value) in &request.headers {
                        dt { (page::short(name, 80)) } dd { (page::short(redaction.header(name, value), 400)) }
                    }
                }
            }
            @if let Some(body) = &request.body {
                details {
                    summary {
                        "Body, " (request.body_bytes) " bytes"
                        @if request.body_bytes > body.len() as u64 { "; the first " (body.len()) " are shown" }
                    }
                    pre tabindex="0" { (String::from_utf8_lossy(&redaction.body(body))) }
                }
            }
        }
    }
}

fn table(farm: &Farm, attempts: &Attempts, redaction: &Redaction, now: ServerInstant) -> Markup {
    html! {
        @if attempts.is_empty() { p .empty-list { "None yet." } }
        @else {
            ol .attempts {
                @for attempt in attempts.iter().rev() { (one(farm, attempt, redaction, now)) }
            }
        }
        @if attempts.in_all > attempts.len() as u64 {
            p .quiet { "There are " (attempts.in_all) " in all; the newest " (attempts.len()) " are shown." }
        }
    }
}

fn one(farm: &Farm, attempt: &AttemptView, redaction: &Redaction, now: ServerInstant) -> Markup {
    let took = attempt.finished_at.unwrap_or(now).nanos_from(attempt.started_at) / 1_000;
    html! {
        li {
            p {
                b { (attempt.attempt) } ". on " (page::short(&farm.member(attempt.node).name, 60)) ", "
                (page::moment(attempt.started_at, now))
                @if attempt.finished_at.is_some() { ", took " } @else { ", runs for " }
                (page::span(took))
                @if let Some(status) = attempt.status { ", status " b { (status) } }
            }
            @if let Some(error) = &attempt.error { p .error { (page::short(error, 2_000)) } }
            @if let Some(answer) = &attempt.answer {
                @if !answer.is_empty() {
                    details {
                        summary { "Answer, " (answer.len()) " bytes" }
                        pre tabindex="0" { (String::from_utf8_lossy(&redaction.body(answer))) }
                    }
                }
            }
        }
    }
}
