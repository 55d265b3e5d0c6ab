//! The page *Audit*: what people ordered, newest first.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use turnwise_engine::ServerInstant;

use super::super::{Shared, page};
use crate::store::{Audit, EntryView};
use crate::watch::{ANSWER_TIMEOUT, within};

/// Entries on a page.
const PAGE: u32 = 50;

/// What the address asks for.
#[derive(Debug, Default, Deserialize)]
pub(in super::super) struct Wanted {
    #[serde(default)]
    before: String,
}

pub(in super::super) async fn show(
    State(shared): State<Shared>,
    Query(asked): Query<page::Asked>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let before: Option<i64> = wanted.before.parse().ok();
    let makes_sense = before.is_some() || wanted.before.is_empty();
    let store = shared.hub.store();
    let read = async { Ok((store.entries(before, PAGE).await?, shared.hub.farm().await?)) };
    let (entries, now) = match within(ANSWER_TIMEOUT, read).await {
        Ok((entries, farm)) => (entries, shared.hub.clock(&farm)),
        Err(error) => return page::failed(&error),
    };
    let body = html! {
        h1 { "Audit" }
        p .quiet {
            "What was ordered on these pages, over the API and by commands, for 90 days; of enqueues over the API, those among "
            "the newest 100000 entries. What apps enqueue by SQL is not here."
        }
        div data-live="audit" {
            @if makes_sense { (table(before, &entries, now)) }
            @else { p .said.refused role="status" { "The page to go on from is no entry’s number." } }
        }
    };
    let mut response = page::live(&shared, "Audit", "/audit", &asked, &body);
    if !makes_sense {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    response
}

fn table(before: Option<i64>, entries: &[EntryView], now: ServerInstant) -> Markup {
    html! {
        @if entries.is_empty() { p .empty-list { "There is nothing." } }
        @else {
            div .wide {
                table .audit {
                    thead {
                        tr { th { "When" } th { "Who" } th { "Role" } th { "What" } th { "Of what" } th .number { "How many" } }
                    }
                    tbody { @for entry in entries { (row(entry, now)) } }
                }
            }
        }
        nav .pages aria-label="More entries" {
            @if before.is_some() { a href="/audit" { "Newest" } }
            @if entries.len() >= PAGE as usize {
                @if let Some(last) = entries.last() { a rel="next" href=(format!("/audit?before={}", last.id)) { "Older" } }
            }
        }
    }
}

fn row(entry: &EntryView, now: ServerInstant) -> Markup {
    html! {
        tr {
            td { (page::moment(entry.at, now)) }
            td { (page::short(&entry.actor, 60)) }
            td { (page::short(&entry.role, 16)) }
            td { code { (page::short(&entry.action, 32)) } }
            td { (page::short(&entry.subject, 120)) }
            td .number {
                @match entry.affected {
                    Some(many) => (many),
                    None => span title="The database’s answer was lost: it may have been carried out" { "not known" },
                }
            }
        }
    }
}
