//! The page *Jobs*: how many there are of each kind, and those that a filter in the address asks for.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use turnwise_engine::ServerInstant;
use url::form_urlencoded::Serializer;

use super::super::{Shared, page};
use super::bulk;
use crate::batch::BatchId;
use crate::job::{JobFilter, JobId, JobState, JobView, QUEUE_BYTES_MAX};
use crate::store::{COUNTED_MAX, Capped, JobsPage, LOOKED_THROUGH_MAX, Tally, Views};
use crate::watch::{ANSWER_TIMEOUT, within};

/// Jobs on a page.
const PAGE: u32 = 50;

/// What the address asks for. What makes no sense is said, and not guessed.
#[derive(Debug, Default, Deserialize)]
pub(in super::super) struct Wanted {
    #[serde(default)]
    state: String,
    #[serde(default)]
    queue: String,
    #[serde(default)]
    batch: String,
    #[serde(default)]
    before: String,
}

impl Wanted {
    /// What a form asks for, from the newest on.
    pub(super) fn of(state: String, queue: String, batch: String) -> Self {
        Self { state, queue, batch, before: String::new() }
    }

    /// The word for the state; empty: all.
    pub(super) fn state(&self) -> &str {
        &self.state
    }

    /// The queue's name; empty: all.
    pub(super) fn queue(&self) -> &str {
        &self.queue
    }

    /// The batch's id; empty: all.
    pub(super) fn batch(&self) -> &str {
        &self.batch
    }

    pub(super) fn filter(&self) -> Result<JobFilter, String> {
        let state = match self.state.as_str() {
            "" => None,
            word => {
                Some(JobState::ALL.into_iter().find(|state| state.as_str() == word).ok_or_else(
                    || format!("There is no state {:?} of jobs.", page::short(word, 40)),
                )?)
            }
        };
        if self.queue.len() > QUEUE_BYTES_MAX {
            return Err(format!("A queue’s name has at most {QUEUE_BYTES_MAX} bytes."));
        }
        // No database keeps all of them, and nobody types one.
        if self.queue.chars().any(char::is_control) {
            return Err("A queue’s name is asked for without control characters.".to_owned());
        }
        let batch: Option<BatchId> = match self.batch.as_str() {
            "" => None,
            id => Some(id.parse().map_err(|_| "What is asked for is no batch’s id.".to_owned())?),
        };
        let before: Option<JobId> = match self.before.as_str() {
            "" => None,
            id => {
                Some(id.parse().map_err(|_| "The page to go on from is no job’s id.".to_owned())?)
            }
        };
        let queue = (!self.queue.is_empty()).then(|| self.queue.clone());
        Ok(JobFilter { state, queue, batch, limit: PAGE, before, from: None })
    }

    /// The address of the same jobs, from another one on.
    pub(super) fn address(&self, state: &str, before: Option<JobId>) -> String {
        let mut query = Serializer::new(String::new());
        if !state.is_empty() {
            query.append_pair("state", state);
        }
        if !self.queue.is_empty() {
            query.append_pair("queue", &self.queue);
        }
        if !self.batch.is_empty() {
            query.append_pair("batch", &self.batch);
        }
        if let Some(before) = before {
            query.append_pair("before", &before.to_string());
        }
        match query.finish() {
            query if query.is_empty() => "/jobs".to_owned(),
            query => format!("/jobs?{query}"),
        }
    }
}

pub(in super::super) async fn show(
    State(shared): State<Shared>,
    Query(asked): Query<page::Asked>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let store = shared.hub.store();
    let count = || within(ANSWER_TIMEOUT, store.tally(COUNTED_MAX));
    let tally = match shared.tally.get(count).await {
        Ok(tally) => tally,
        Err(error) => return page::failed(&error),
    };
    let (found, now) = match wanted.filter() {
        Err(wrong) => (Err(wrong), ServerInstant::from_micros(0)),
        Ok(filter) => {
            let read = async { Ok((store.page(&filter).await?, shared.hub.farm().await?)) };
            match within(ANSWER_TIMEOUT, read).await {
                Ok((found, farm)) => (Ok(found), shared.hub.clock(&farm)),
                Err(error) => return page::failed(&error),
            }
        }
    };
    let body = html! {
        h1 { "Jobs" }
        div data-live="counts" { (counts(&wanted, &tally)) }
        (form(&wanted))
        @if let Some(batch) = wanted.filter().ok().and_then(|filter| filter.batch) {
            p { "Of the batch " a href=(format!("/batches/{batch}")) { code { (batch) } } }
        }
        div data-live="jobs" {
            @match &found {
                Err(wrong) => p .said.refused role="status" { (wrong) },
                Ok(found) => (table(&wanted, found, now)),
            }
        }
        @if let Ok(filter) = wanted.filter() { div data-live="all" { (bulk::buttons(&wanted, &filter)) } }
    };
    let mut response = page::live(&shared, "Jobs", "/jobs", &asked, &body);
    if found.is_err() {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    response
}

fn counts(wanted: &Wanted, tally: &Tally) -> Markup {
    let counts: [(&str, &str, Option<Capped>); 8] = [
        ("", "all", None),
        ("ready", "ready", Some(tally.ready())),
        ("running", "running", Some(tally.running)),
        ("scheduled", "scheduled", None),
        ("retrying", "retrying", None),
        ("succeeded", "succeeded", None),
        ("dead", "dead", Some(tally.dead)),
        ("cancelled", "cancelled", Some(tally.cancelled)),
    ];
    html! {
        nav .chips aria-label="States" {
            @for (state, name, count) in counts {
                a href=(wanted.address(state, None)) data-state=(state)
                    aria-current=[(state == wanted.state).then_some("true")] {
                    (name)
                    @if let Some(count) = count { " " b { (count) } }
                }
            }
            span .quiet { b { (tally.later()) } " wait for their time" }
        }
    }
}

fn form(wanted: &Wanted) -> Markup {
    html! {
        form .filter method="get" action="/jobs" {
            @if !wanted.state.is_empty() { input type="hidden" name="state" value=(wanted.state); }
            @if !wanted.batch.is_empty() { input type="hidden" name="batch" value=(wanted.batch); }
            label for="queue" { "Queue" }
            input #queue name="queue" value=(wanted.queue) maxlength=(QUEUE_BYTES_MAX) placeholder="all";
            button { "Show" }
        }
    }
}

fn table(wanted: &Wanted, found: &JobsPage, now: ServerInstant) -> Markup {
    html! {
        @if found.jobs.is_empty() {
            p .empty-list {
                @if found.searched_all { "There are no such jobs." }
                @else { "There is none among the " (LOOKED_THROUGH_MAX) " jobs that were looked through." }
            }
        } @else {
            div .wide {
                table .jobs {
                    thead {
                        tr {
                            th { "State" } th { "Call" } th { "Queue" } th .number { "Attempt" } th { "When" } th { "Last answer" }
                        }
                    }
                    tbody { @for job in &found.jobs { (row(job, now)) } }
                }
            }
        }
        nav .pages aria-label="More jobs" {
            @if !wanted.before.is_empty() { a href=(wanted.address(&wanted.state, None)) { "Newest" } }
            @if let Some(next) = found.next {
                a rel="next" href=(wanted.address(&wanted.state, Some(next))) {
                    @if found.searched_all { "Older" } @else { "Look further back" }
                }
            }
        }
    }
}

fn row(job: &JobView, now: ServerInstant) -> Markup {
    html! {
        tr data-state=(job.state.as_str()) {
            td { (page::state(job.state.as_str())) }
            td .call {
                a href=(format!("/jobs/{}", job.id)) {
                    span .method { (page::short(&job.method, 10)) } " " (page::short(&job.url, 90))
                }
            }
            td { (page::short(&job.queue, 30)) }
            td .number { (job.attempt) "/" (job.max_attempts) }
            td { (when(job, now)) }
            td .answer {
                @if let Some(status) = job.last_status { (status) " " }
                @if let Some(error) = &job.last_error { (page::short(error, 80)) }
            }
        }
    }
}

/// When it ended, or is due: at a time, or after a batch.
fn when(job: &JobView, now: ServerInstant) -> Markup {
    html! {
        @match (job.finished_at.or(job.due_at()), job.after) {
            (Some(at), _) => (page::moment(at, now)),
            (None, Some(batch)) => { "after " a href=(format!("/batches/{batch}")) { "a batch" } },
            (None, None) => "–",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(state: &str, queue: &str, before: &str) -> Wanted {
        let wanted = Wanted::of(state.to_owned(), queue.to_owned(), String::new());
        Wanted { before: before.to_owned(), ..wanted }
    }

    #[test]
    fn the_batch_stands_in_the_address() {
        let id = BatchId::generate();
        let asked = Wanted::of(String::new(), String::new(), id.to_string());
        assert_eq!(asked.address("dead", None), format!("/jobs?state=dead&batch={id}"));
        assert_eq!(asked.filter().unwrap().batch, Some(id));
        let wrong = Wanted::of(String::new(), String::new(), "7".to_owned());
        assert!(wrong.filter().unwrap_err().contains("batch"));
    }

    #[test]
    fn the_filter_stands_in_the_address() {
        let id = JobId::generate();
        let asked = wanted("dead", "a&b c", "");
        assert_eq!(
            asked.address("dead", Some(id)),
            format!("/jobs?state=dead&queue=a%26b+c&before={id}")
        );
        assert_eq!(wanted("", "", "").address("", None), "/jobs");
        let filter = asked.filter().unwrap();
        assert_eq!((filter.state, filter.queue.as_deref()), (Some(JobState::Dead), Some("a&b c")));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        assert!(wanted("asleep", "", "").filter().unwrap_err().contains("asleep"));
        assert!(wanted("", "", "x").filter().unwrap_err().contains("id"));
        assert!(wanted("", &"q".repeat(129), "").filter().unwrap_err().contains("128"));
        assert!(wanted("", "a\0", "").filter().unwrap_err().contains("control"));
    }
}
