//! The page *Queues*: what waits in each, which are paused or held back, what each says of its jobs, and the buttons that pause and resume them.

use std::collections::BTreeSet;

use axum::extract::{Form, Query, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use turnwise_engine::ServerInstant;
use url::form_urlencoded::Serializer;

use super::super::{Shared, actions, page};
use crate::audit::{Action, Actor, Order};
use crate::job::QUEUE_BYTES_MAX;
use crate::job_fields;
use crate::json::PolicyLine;
use crate::store::{
    COUNTED_MAX, PausedQueue, QueueOrders, QueuePolicy, QueueView, SlowedQueue, Tally, Views,
};
use crate::watch::{ANSWER_TIMEOUT, within};

/// What the form says.
#[derive(Deserialize)]
pub(in super::super) struct Named {
    #[serde(default)]
    queue: String,
}

pub(in super::super) async fn show(
    State(shared): State<Shared>,
    Query(asked): Query<page::Asked>,
) -> Response {
    let store = shared.hub.store();
    let count = || within(ANSWER_TIMEOUT, store.tally(COUNTED_MAX));
    let tally = match shared.tally.get(count).await {
        Ok(tally) => tally,
        Err(error) => return page::failed(&error),
    };
    let read = async {
        let (paused, slowed) = (store.paused().await?, store.slowed().await?);
        Ok((paused, slowed, store.policies().await?, shared.hub.farm().await?))
    };
    let (paused, slowed, policies, farm) = match within(ANSWER_TIMEOUT, read).await {
        Ok(read) => read,
        Err(error) => return page::failed(&error),
    };
    let now = shared.hub.clock(&farm);
    let body = html! {
        h1 { "Queues" }
        div data-live="queues" { (table(&tally, &paused, &slowed, &policies, now)) }
        h2 { "Pause a queue" }
        p .quiet { "No node claims its jobs until it is resumed. What runs goes on, and jobs can be enqueued all the while." }
        form .filter method="post" action="/queues/pause" {
            label for="queue" { "Queue" }
            input #queue name="queue" required maxlength=(QUEUE_BYTES_MAX);
            button { "Pause" }
        }
    };
    page::live(&shared, "Queues", "/queues", &asked, &body)
}

pub(in super::super) async fn pause(
    State(shared): State<Shared>,
    actor: Actor,
    Form(named): Form<Named>,
) -> Response {
    order(&shared, actor, &named.queue, true).await
}

pub(in super::super) async fn resume(
    State(shared): State<Shared>,
    actor: Actor,
    Form(named): Form<Named>,
) -> Response {
    order(&shared, actor, &named.queue, false).await
}

async fn order(shared: &Shared, actor: Actor, queue: &str, pause: bool) -> Response {
    if let Err(wrong) = job_fields::stored_queue(queue) {
        return actions::back(shared, "/queues", Err(format!("Nothing was done: {wrong}.")));
    }
    let action = if pause { Action::QueuePause } else { Action::QueueResume };
    let order = Order::new(actor, action, queue);
    let (store, of) = (shared.hub.store().clone(), queue.to_owned());
    let call = async move { if pause { store.pause(&of).await } else { store.resume(&of).await } };
    let done = actions::to_its_end(shared, order, call).await;
    let name = page::short(queue, 60);
    let result = match (done, pause) {
        (Err(error), _) => return page::failed(&error),
        (Ok(true), true) => Ok(format!("{name} is paused.")),
        (Ok(false), true) => Err(format!("Nothing was done: {name} is paused already.")),
        (Ok(true), false) => Ok(format!("{name} is resumed.")),
        (Ok(false), false) => Err(format!("Nothing was done: {name} is not paused.")),
    };
    actions::back(shared, "/queues", result)
}

fn table(
    tally: &Tally,
    paused: &[PausedQueue],
    slowed: &[SlowedQueue],
    policies: &[(String, QueuePolicy)],
    now: ServerInstant,
) -> Markup {
    let words = |name: &str| {
        let policy = policies.iter().find(|(queue, _)| queue == name);
        policy.and_then(|(_, policy)| PolicyLine::new(policy).words())
    };
    let since = |name: &str| paused.iter().find(|paused| paused.queue == name);
    let until = |name: &str| slowed.iter().find(|slowed| slowed.queue == name);
    let is_counted = |name: &str| tally.queues.iter().any(|queue| queue.queue == name);
    let others = paused.iter().map(|paused| &paused.queue);
    let others = others.chain(slowed.iter().map(|slowed| &slowed.queue));
    let others: BTreeSet<&String> = others.chain(policies.iter().map(|(queue, _)| queue)).collect();
    let others: Vec<_> = others.into_iter().filter(|queue| !is_counted(queue)).collect();
    html! {
        @if tally.queues.is_empty() && others.is_empty() {
            p .empty-list { "No job waits, no queue is paused, and none says anything of its jobs." }
        } @else {
            div .wide {
                table .queues {
                    thead {
                        tr {
                            th { "Queue" } th { "State" } th .number { "Ready" } th .number { "Later" }
                            th { "Oldest ready for" } th { "Policy" } th { }
                        }
                    }
                    tbody {
                        @for queue in &tally.queues {
                            (row(&queue.queue, Some(queue), (since(&queue.queue), until(&queue.queue)), words(&queue.queue).as_deref(), now))
                        }
                        @for queue in others { (row(queue, None, (since(queue), until(queue)), words(queue).as_deref(), now)) }
                    }
                }
            }
            @if !tally.all_queues { p .quiet { "There are more queues than were counted." } }
        }
    }
}

fn row(
    name: &str,
    waits: Option<&QueueView>,
    (paused, slowed): (Option<&PausedQueue>, Option<&SlowedQueue>),
    policy: Option<&str>,
    now: ServerInstant,
) -> Markup {
    let jobs = Serializer::new(String::new()).append_pair("queue", name).finish();
    html! {
        tr {
            td { a href=(format!("/jobs?{jobs}")) { (page::short(name, 60)) } }
            td {
                @if let Some(paused) = paused {
                    (page::state("paused")) " " (page::moment(paused.since, now)) " "
                }
                @if let Some(slowed) = slowed {
                    (page::state("held back")) ", goes on " (page::moment(slowed.until, now))
                }
                @if paused.is_none() && slowed.is_none() { (page::state("open")) }
            }
            @match waits {
                Some(queue) => {
                    td .number { (queue.ready) }
                    td .number { (queue.later) }
                    td { @if let Some(oldest) = queue.oldest_us { (page::span(oldest)) } @else { "–" } }
                }
                None => { td .number { "0" } td .number { "0" } td { "–" } }
            }
            td { (policy.unwrap_or("–")) }
            td {
                form method="post" action=(if paused.is_some() { "/queues/resume" } else { "/queues/pause" }) {
                    input type="hidden" name="queue" value=(name);
                    @if paused.is_some() { button { "Resume" } } @else { button { "Pause" } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_queue_that_is_held_back_says_when_it_goes_on() {
        let slowed =
            SlowedQueue { queue: "mail".to_owned(), until: ServerInstant::from_micros(90_000_000) };
        let policy =
            QueuePolicy { slow_down: Some(Duration::from_secs(600)), ..QueuePolicy::default() };
        let policies = [("mail".to_owned(), policy), ("other".to_owned(), QueuePolicy::default())];
        let now = ServerInstant::from_micros(0);
        let page = table(&Tally::default(), &[], &[slowed], &policies, now).into_string();
        assert!(page.contains("held back</span>, goes on <time"), "{page}");
        assert!(page.contains("in 90 s</time>"), "{page}");
        assert!(page.contains("held back for up to 10m when a target asks"), "{page}");
        assert_eq!(page.matches("data-state=\"open\"").count(), 1, "{page}");
    }
}
