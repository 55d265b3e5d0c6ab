//! The page *Ring*: whose turn it is, and what became of the turns before.

use axum::extract::{Query, State};
use axum::response::Response;
use maud::{Markup, html};
use turnwise_engine::{NodeId, ServerInstant};

use super::super::drawing::ring;
use super::super::{Shared, page};
use crate::rfc3339;
use crate::store::NodeView;
use crate::watch::{Farm, Weight};

/// So many of the things that happened are listed.
const NEWS_SHOWN: usize = 8;

/// So many nodes are listed.
const NODES_SHOWN: usize = 60;

/// The marks of the drawing and what they mean.
const LEGEND: [(&str, &str); 6] = [
    ("empty", "beat, nothing due"),
    ("some", "claimed jobs"),
    ("many", "ten and more"),
    ("off", "far from its time"),
    ("covered", "by a deputy"),
    ("missed", "missed"),
];

pub(in super::super) async fn show(
    State(shared): State<Shared>,
    Query(asked): Query<page::Asked>,
) -> Response {
    let farm = match shared.hub.farm().await {
        Ok(farm) => farm,
        Err(error) => return page::failed(&error),
    };
    let now = shared.hub.clock(&farm);
    let actions = shared.controls.as_ref().map(|controls| controls.for_farm()).unwrap_or_default();
    let body = html! {
        div .split {
            section .intro {
                h1 { "Ring" }
                p #ring-words .lead data-live="words" { (words(&farm, now)) }
                p .quiet {
                    "A sector is a slot and belongs to one node; the line in it is the one poll of the database in that "
                    "slot, in the middle when it was on time. The newest lie outermost."
                }
                div data-live="farm-actions" { (page::buttons("/farm/do", "/", &actions)) }
            }
            section .picture aria-label="The ring" {
                div data-live="ring" { (ring::draw(&farm, now)) }
                ul .legend aria-hidden="true" {
                    @for (class, means) in LEGEND { li { i class=(class) {} (means) } }
                }
            }
            section .words {
                div data-live="nodes" { (list(&shared, &farm, now)) }
                h2 { "What happened" }
                div data-live="news" { (news(&farm)) }
            }
        }
    };
    page::live(&shared, "Ring", "/", &asked, &body)
}

/// The drawing in words.
fn words(farm: &Farm, now: ServerInstant) -> Markup {
    let slot = farm.cadence().slot_at(now);
    let ring = farm.roster().version_at(slot).map_or(&[][..], |version| &version.ring);
    let period = farm.cadence().period;
    let minute = now.offset(-60_000_000_000);
    let last: Vec<_> = farm.slots().filter(|slot| slot.boundary > minute).collect();
    let beats = last.iter().filter(|slot| slot.beat.is_some()).count();
    let next = farm.roster().owner(slot + 1).map(|node| farm.member(node).name);
    html! {
        @match ring.len() {
            0 => "No node takes turns just now. ",
            1 => { "One node takes every turn, one beat every " (period) ". " }
            nodes => { (nodes) " nodes take turns, one beat every " (period) ". " }
        }
        @if !last.is_empty() {
            "In the last minute " (beats) " of " (last.len()) " slots had their beat. "
        }
        @if let Some(next) = next { "Next is " strong { (next) } "." }
    }
}

/// The nodes in turn order, then those out of the ring that were heard of lately.
fn list(shared: &Shared, farm: &Farm, now: ServerInstant) -> Markup {
    const LATELY_US: i64 = 60_000_000;
    let is_late = |node: &&NodeView| {
        let seen = rfc3339::parse(&node.last_check_in).map_or(i64::MIN, ServerInstant::as_micros);
        node.rank.is_some() || now.as_micros().saturating_sub(seen) < LATELY_US
    };
    let nodes: Vec<&NodeView> = farm.sight().nodes.iter().filter(is_late).collect();
    html! {
        @if nodes.is_empty() {
            p .empty-list { "There are no nodes. Start one: " code { "turnwise run" } }
        } @else {
            ol .nodes {
                @for node in nodes.iter().take(NODES_SHOWN) {
                    li data-state=(farm.state(node)) data-node=(node.id) {
                        // Parts of their own: what somebody is about to press stays while the rest goes on.
                        div .about data-live=(format!("node-{}", node.id)) {
                            a .who href=(format!("/nodes/{}", node.id)) { (page::short(&node.name, 40)) }
                            (page::state(farm.state(node)))
                            span .last { (last_beat(farm, node.id)) }
                            span .load title="jobs that it runs, of how many it may" {
                                (node.running) "/" (node.capacity)
                            }
                        }
                        div data-live=(format!("deeds-{}", node.id)) {
                            (page::node_buttons(shared, "/", node))
                        }
                    }
                }
            }
            @if nodes.len() > NODES_SHOWN {
                p .quiet {
                    "and " (nodes.len() - NODES_SHOWN) " more: " a href="/nodes" { "all nodes" }
                }
            }
        }
    }
}

/// When the node beat last, and how well.
fn last_beat(farm: &Farm, node: NodeId) -> Markup {
    let last = farm.slots().rev().find_map(|slot| slot.beat.filter(|beat| beat.node == node));
    html! {
        @match last {
            None => "no beat yet",
            Some(beat) => {
                "beat at " (rfc3339::format(beat.arrived_at).get(11..19).unwrap_or_default())
                @if let Some(late) = beat.late_us { ", " (page::millis(late)) " ms" }
            }
        }
    }
}

fn news(farm: &Farm) -> Markup {
    html! {
        ol .news {
            @for event in farm.news().rev().take(NEWS_SHOWN) {
                li .trouble[event.what.weight() == Weight::Trouble] {
                    time { (event.at.as_deref().and_then(|at| at.get(11..19)).unwrap_or_default()) }
                    " " (event.what.words())
                }
            }
            @if farm.news().next().is_none() {
                li .quiet { "Nothing but beats lately." }
            }
        }
    }
}
