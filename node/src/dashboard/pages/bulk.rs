//! What can be done to all the jobs that a filter finds. It is asked about first, with how many it will touch; decides how
//! many it touches at most.

use axum::extract::{Form, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::super::{Shared, actions, page};
use super::jobs::Wanted;
use crate::audit::{Actor, Order, in_words};
use crate::job::{JobFilter, JobState};
use crate::store::{Altered, Bulk, Deed};
use crate::watch::{ANSWER_TIMEOUT, within};

/// So many jobs are touched at once; with more, the answer says so.
const TOUCHED_MAX: u32 = 10_000;

/// What the form of a deed says.
#[derive(Deserialize)]
pub(in super::super) struct Ordered {
    #[serde(default)]
    action: String,
    #[serde(default)]
    sure: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    queue: String,
    #[serde(default)]
    batch: String,
}

/// A button for each deed that makes sense for jobs in this state; none for jobs of all states.
pub(super) fn buttons(wanted: &Wanted, filter: &JobFilter) -> Markup {
    let makes_sense = |deed: Deed| filter.state.is_some_and(|state| deed.is_for(state));
    let offered = [Deed::Retry, Deed::Cancel].into_iter().filter(|deed| makes_sense(*deed));
    let offered: Vec<Deed> = offered.collect();
    html! {
        @if !offered.is_empty() {
            form .actions method="post" action="/jobs/all" {
                (hidden(wanted))
                @for deed in offered {
                    button name="action" value=(name(deed)) { (label(deed)) "…" }
                }
            }
        }
    }
}

/// Ask, or do it when it has been asked.
pub(in super::super) async fn order(
    State(shared): State<Shared>,
    actor: Actor,
    Form(ordered): Form<Ordered>,
) -> Response {
    let Ordered { action, sure, state, queue, batch } = ordered;
    let wanted = Wanted::of(state, queue, batch);
    let back = wanted.address(wanted.state(), None);
    let deed = [Deed::Retry, Deed::Cancel].into_iter().find(|deed| name(*deed) == action);
    let (filter, deed) = match (wanted.filter(), deed) {
        (Ok(filter), Some(deed)) if filter.state.is_some_and(|state| deed.is_for(state)) => {
            (filter, deed)
        }
        (Err(wrong), _) => return actions::back(&shared, "/jobs", Err(wrong)),
        _ => {
            let say = "Nothing was done: this cannot be done to jobs in this state.".to_owned();
            return actions::back(&shared, &back, Err(say));
        }
    };
    if sure != "yes" {
        return ask(&shared, &wanted, deed, &filter).await;
    }
    // It goes on though the browser does not wait for it.
    let store = shared.hub.store().clone();
    let order = Order::new(actor, deed.action(), in_words(&filter));
    let doing =
        tokio::spawn(async move { order.alter_all(&store, deed, &filter, TOUCHED_MAX).await });
    let result = match doing.await {
        Ok(altered) => told(deed, &altered),
        Err(_) => Err("It was broken off.".to_owned()),
    };
    actions::back(&shared, &back, result)
}

async fn ask(shared: &Shared, wanted: &Wanted, deed: Deed, filter: &JobFilter) -> Response {
    let counting = shared.hub.store().matching(deed, filter, TOUCHED_MAX);
    let count = match within(ANSWER_TIMEOUT, counting).await {
        Ok(count) => count,
        Err(error) => return page::failed(&error),
    };
    let state = filter.state.map_or("", JobState::as_str);
    let (button, warning) = match deed {
        Deed::Retry => {
            (html! { button { "Run " (count) " now" } }, "They run now, as soon as there is room.")
        }
        Deed::Cancel => (
            html! { button .danger { "Cancel " (count) } },
            "What their attempts have done already stays done.",
        ),
    };
    let here = wanted.address(wanted.state(), None);
    let body = html! {
        h1 { (label(deed)) "?" }
        p .lead {
            "This touches " strong { (count) " jobs" } " that are " (page::state(state))
            @if let Some(queue) = &filter.queue { ", of the queue " strong { (page::short(queue, 128)) } }
            @else { ", of all queues" }
            @if let Some(batch) = filter.batch { ", of the batch " code { (batch) } }
            "."
        }
        @if count.and_more {
            p { "There may be more than were counted. The newest " (TOUCHED_MAX) " are touched, the others when you ask again." }
        }
        p .quiet { (warning) " Those that have ended otherwise by then are left as they are." }
        form .actions method="post" action="/jobs/all" {
            (hidden(wanted))
            input type="hidden" name="action" value=(name(deed));
            input type="hidden" name="sure" value="yes";
            @if count.jobs > 0 { (button) }
            a href=(here) { "Leave them as they are" }
        }
    };
    page::still(shared, label(deed), "/jobs", &page::Asked::default(), &body)
}

fn told(deed: Deed, altered: &Altered) -> Result<String, String> {
    let what = match deed {
        Deed::Retry => "run again now",
        Deed::Cancel => {
            "are cancelled; of those that run the calls are dropped within some two seconds"
        }
    };
    let done = format!("{} jobs {what}.", altered.jobs);
    match &altered.broken_off {
        Some(error) => Err(format!("{done} Then it was broken off: {error}")),
        None if altered.and_more => Ok(format!("{done} There are more: ask again for them.")),
        None => Ok(done),
    }
}

fn hidden(wanted: &Wanted) -> Markup {
    html! {
        input type="hidden" name="state" value=(wanted.state());
        input type="hidden" name="queue" value=(wanted.queue());
        input type="hidden" name="batch" value=(wanted.batch());
    }
}

fn name(deed: Deed) -> &'static str {
    match deed {
        Deed::Retry => "retry",
        Deed::Cancel => "cancel",
    }
}

fn label(deed: Deed) -> &'static str {
    match deed {
        Deed::Retry => "Run all of them now",
        Deed::Cancel => "Cancel all of them",
    }
}
