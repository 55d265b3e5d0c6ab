//! The page *Schedules*: each with its next times in its own zone, and the buttons that pause, resume and run it.

use axum::extract::{Form, Query, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use turnwise_engine::ServerInstant;

use super::super::{Shared, actions, page};
use crate::audit::{Action, Actor, Order};
use crate::store::orders::{self, PauseAnswer, RunAnswer};
use crate::store::{ScheduleView, Schedules, StoreError};
use crate::watch::{ANSWER_TIMEOUT, within};

/// So many times to come are shown.
const TIMES_SHOWN: usize = 5;

/// What the form says.
#[derive(Deserialize)]
pub(in super::super) struct Wanted {
    #[serde(default)]
    name: String,
    #[serde(default)]
    deed: String,
}

pub(in super::super) async fn show(
    State(shared): State<Shared>,
    Query(asked): Query<page::Asked>,
) -> Response {
    let store = shared.hub.store();
    let read = async { Ok((store.schedules().await?, shared.hub.farm().await?)) };
    let (schedules, now) = match within(ANSWER_TIMEOUT, read).await {
        Ok((schedules, farm)) => (schedules, shared.hub.clock(&farm)),
        Err(error) => return page::failed(&error),
    };
    let body = html! {
        h1 { "Schedules" }
        div data-live="schedules" {
            @if schedules.is_empty() {
                p .empty-list { "There is no schedule. " code { "turnwise schedules set NAME CRON PATH" } " makes one." }
            }
            @for schedule in &schedules { (one(schedule, now)) }
        }
    };
    page::live(&shared, "Schedules", "/schedules", &asked, &body)
}

pub(in super::super) async fn order(
    State(shared): State<Shared>,
    actor: Actor,
    Form(wanted): Form<Wanted>,
) -> Response {
    match carry_out(&shared, actor, &wanted).await {
        Ok(result) => actions::back(&shared, "/schedules", result),
        Err(error) => page::failed(&error),
    }
}

/// What came of it, in words.
async fn carry_out(
    shared: &Shared,
    actor: Actor,
    wanted: &Wanted,
) -> Result<Result<String, String>, StoreError> {
    let name = page::short(&wanted.name, 60);
    let (store, of) = (shared.hub.store().clone(), wanted.name.clone());
    let unknown = || Err(format!("Nothing was done: there is no schedule {name}."));
    let pause = match wanted.deed.as_str() {
        "pause" => true,
        "resume" => false,
        "run" => {
            let order = Order::new(actor, Action::ScheduleRun, &wanted.name);
            let call = async move { orders::run(&store, &of).await };
            return Ok(match actions::to_its_end(shared, order, call).await? {
                RunAnswer::Fired(_) => Ok(format!("A job of {name} is enqueued.")),
                RunAnswer::Unknown => unknown(),
                RunAnswer::Changing => {
                    Err("Nothing was done: the schedule changed just now. Try again.".to_owned())
                }
            });
        }
        _ => return Ok(Err("There is no such button.".to_owned())),
    };
    let action = if pause { Action::SchedulePause } else { Action::ScheduleResume };
    let order = Order::new(actor, action, &wanted.name);
    let call = async move { orders::pause(&store, &of, pause).await };
    Ok(match (actions::to_its_end(shared, order, call).await?, pause) {
        (PauseAnswer::Done, true) => Ok(format!("{name} is paused.")),
        (PauseAnswer::Done, false) => Ok(format!("{name} is resumed.")),
        (PauseAnswer::SoAlready, true) => {
            Err(format!("Nothing was done: {name} is paused already."))
        }
        (PauseAnswer::SoAlready, false) => Err(format!("Nothing was done: {name} is not paused.")),
        (PauseAnswer::Unknown, _) => unknown(),
        (PauseAnswer::Unreadable(error), _) => Err(format!("Nothing was done: {error}.")),
    })
}

fn one(schedule: &ScheduleView, now: ServerInstant) -> Markup {
    let paused = schedule.paused_since;
    let cron = schedule.parsed();
    html! {
        section .schedule {
            h2 { (page::short(&schedule.name, 80)) }
            p {
                code { (page::short(&schedule.cron, 80)) } " " (page::short(&schedule.zone, 40)) " · "
                span .method { (page::short(&schedule.method, 10)) } " " (page::short(&schedule.url, 90))
                " · queue " (page::short(&schedule.queue, 40)) " · missed times: " (schedule.misfire.as_str())
                @if schedule.skipped > 0 { ", " (schedule.skipped) " skipped so far" }
            }
            @match (&schedule.error, paused, &cron) {
                (Some(error), ..) => p .said .refused { "It fires nothing: " (page::short(error, 200)) },
                (None, Some(since), _) => p { (page::state("paused")) " " (page::moment(since, now)) },
                (None, None, Err(error)) => p .said .refused { "It fires nothing: " (page::short(&error.to_string(), 200)) },
                (None, None, Ok(cron)) => {
                    ol .times {
                        @for at in cron.next_times(now.as_micros(), TIMES_SHOWN) {
                            li { (page::moment(ServerInstant::from_micros(at), now)) " "
                                @if let Some(local) = cron.local(at) { span .quiet { (local) } } }
                        }
                    }
                }
            }
            @if let Some(last) = schedule.last_at { p .quiet { "Fired last for " (page::moment(last, now)) } }
            form .actions method="post" action="/schedules/do" {
                input type="hidden" name="name" value=(schedule.name);
                @if paused.is_some() { button name="deed" value="resume" { "Resume" } }
                @else { button name="deed" value="pause" { "Pause" } }
                button name="deed" value="run" { "Run now" }
            }
        }
    }
}
