//! The pages *Nodes* and *Node*: what each node says of itself.

use axum::extract::{Path, Query, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use turnwise_engine::{NodeId, ServerInstant};

use super::super::drawing::offset;
use super::super::{Shared, page};
use super::drain;
use crate::rfc3339;
use crate::store::{NodeView, TargetView};
use crate::watch::Farm;

/// So many of a node's beats are listed.
const BEATS_SHOWN: usize = 20;
/// So many nodes are on a page.
const NODES_SHOWN: usize = 60;

/// Where a page of nodes begins.
#[derive(Debug, Default, Deserialize)]
pub(in super::super) struct Wanted {
    /// The id of the last node of the page before; where there is no such node, the first page is shown.
    #[serde(default)]
    after: String,
}

impl Wanted {
    /// How many nodes are left out in front.
    fn skips(&self, nodes: &[NodeView]) -> usize {
        let after: Option<NodeId> = self.after.parse().ok();
        let last = nodes.iter().position(|node| Some(node.id) == after);
        last.map_or(0, |last| last + 1)
    }
}

pub(in super::super) async fn show(
    State(shared): State<Shared>,
    Query(asked): Query<page::Asked>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let farm = match shared.hub.farm().await {
        Ok(farm) => farm,
        Err(error) => return page::failed(&error),
    };
    let nodes = &farm.sight().nodes;
    let skipped = wanted.skips(nodes);
    let shown = &nodes[skipped..nodes.len().min(skipped + NODES_SHOWN)];
    let scale = offset::scale(nodes);
    let body = html! {
        h1 { "Nodes" }
        p .lead data-live="words" {
            (nodes.iter().filter(|node| node.rank.is_some()).count()) " in the ring, "
            (nodes.iter().filter(|node| node.rank.is_none()).count()) " out of it."
            @if shown.len() < nodes.len() {
                " Here are number " (skipped + 1) " to " (skipped + shown.len()) "."
            }
        }
        p .quiet {
            "Offset is the database’s clock minus the node’s, with the most that it can be wrong. It harms nothing: "
            "turns follow the database’s clock. Transit is the way from the node to the database."
        }
        div .cards data-live="nodes" {
            @for node in shown { (card(&shared, &farm, node, scale, "/nodes")) }
        }
        nav .pages aria-label="More nodes" data-live="pages" {
            @if skipped > 0 { a href="/nodes" { "First" } }
            @if let Some(last) = shown.last().filter(|_| skipped + shown.len() < nodes.len()) {
                a rel="next" href=(format!("/nodes?after={}", last.id)) { "Next" }
            }
        }
        div data-live="none" {
            @if nodes.is_empty() {
                p .empty-list { "There are no nodes. Start one: " code { "turnwise run" } }
            }
        }
    };
    page::live(&shared, "Nodes", "/nodes", &asked, &body)
}

pub(in super::super) async fn one(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Query(asked): Query<page::Asked>,
) -> Response {
    let farm = match shared.hub.farm().await {
        Ok(farm) => farm,
        Err(error) => return page::failed(&error),
    };
    let id: Option<NodeId> = id.parse().ok();
    let Some(node) = farm.sight().nodes.iter().find(|node| Some(node.id) == id) else {
        return unknown();
    };
    let here = format!("/nodes/{}", node.id);
    let body = html! {
        h1 { "Node " (page::short(&node.name, 80)) }
        p .quiet { code { (node.id) } }
        div .cards data-live="nodes" {
            (card(&shared, &farm, node, offset::scale(std::slice::from_ref(node)), &here))
        }
        h2 { "Its last beats" }
        div data-live="beats" { (beats(&farm, node.id)) }
    };
    page::live(&shared, &node.name, "/nodes", &asked, &body)
}

/// The answer to the id of a node that does not exist.
pub(in super::super) fn unknown() -> Response {
    page::missing(
        "There is no such node",
        "Its id may be that of an earlier life: a node that is started again has another one.",
        "/nodes",
        "To the nodes that there are",
    )
}

fn card(shared: &Shared, farm: &Farm, node: &NodeView, scale: i64, back: &str) -> Markup {
    let now = shared.hub.clock(farm);
    let seen = rfc3339::parse(&node.last_check_in);
    html! {
        article .card data-state=(farm.state(node)) {
            div data-live=(format!("node-{}", node.id)) {
            h2 {
                a href=(format!("/nodes/{}", node.id)) { (page::short(&node.name, 60)) }
                (page::state(farm.state(node)))
            }
            @if let Some(drawing) = offset::draw(node, scale) {
                figure {
                    (drawing)
                    figcaption .quiet { "±" (page::millis(scale)) " ms" }
                }
            }
            dl {
                dt { "Offset" }
                dd {
                    @match node.offset_us {
                        None => "not measured yet",
                        Some(offset) => {
                            (page::millis(offset)) " ms"
                            @if let Some(error) = node.offset_error_us { " ± " (page::millis(error)) }
                        }
                    }
                }
                dt { "Transit" }
                dd { (transit(node)) }
                dt { "Turn" }
                dd {
                    @if let Some(rank) = node.rank { (rank + 1) ". in the ring" } @else { "out of the ring" }
                    ", epoch " (node.epoch)
                }
                dt { "Jobs" } dd { (node.running) " of " (node.capacity) }
                @for target in &node.targets { (web_app(node, target, now)) }
                dt { "Heard of" }
                dd { @if let Some(seen) = seen { (page::moment(seen, now)) } @else { (node.last_check_in) } }
                dt { "Lease" }
                dd {
                    @if node.lease_until > now { "ends " } @else { "ended " }
                    (page::moment(node.lease_until, now))
                }
            }
            }
            div data-live=(format!("deeds-{}", node.id)) { (page::node_buttons(shared, back, node)) (drain::button(node)) }
        }
    }
}

/// What the node knows of a web app. One that is gone knows nothing any more.
fn web_app(node: &NodeView, target: &TargetView, now: ServerInstant) -> Markup {
    let is_there = matches!(node.state.as_str(), "live" | "joining" | "draining");
    html! {
        @if is_there {
            dt { "Web app" }
            dd {
                code { (page::short(&target.origin, 60)) } " "
                (page::state(if target.answers { "answers" } else { "away" }))
                @if let Some(since) = rfc3339::parse(&target.since) { ", since " (page::moment(since, now)) }
            }
        }
    }
}

/// The way to the database, as well as it is known: it is as unsure as the offset, and never below zero.
fn transit(node: &NodeView) -> String {
    match (node.transit_us, node.offset_error_us) {
        (None, _) => "–".to_owned(),
        (Some(transit), None) => format!("{} ms", page::millis(transit.max(0))),
        (Some(transit), Some(error)) if transit <= error => {
            format!("below {} ms", page::millis(transit.saturating_add(error).max(0)))
        }
        (Some(transit), Some(error)) => {
            format!("{} ms ± {}", page::millis(transit), page::millis(error))
        }
    }
}

fn beats(farm: &Farm, node: NodeId) -> Markup {
    let beats = farm.slots().rev().filter(|slot| slot.beat.is_some_and(|beat| beat.node == node));
    html! {
        table {
            thead { tr { th { "Slot" } th { "Arrived" } th .number { "Late" } th .number { "Claimed" } th { "For" } } }
            tbody {
                @for slot in beats.take(BEATS_SHOWN) {
                    @if let Some(beat) = slot.beat {
                        tr {
                            td { (slot.slot.0) }
                            td { (rfc3339::format(beat.arrived_at).get(11..26).unwrap_or_default()) }
                            td .number { @if let Some(late) = beat.late_us { (page::millis(late)) " ms" } }
                            td .number { (beat.claimed) }
                            td { @if let (Some(_), Some(place)) = (slot.deputy(), slot.place) { (farm.member(place.owner).name) } }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn node(number: u128, transit_us: Option<i64>, offset_error_us: Option<i64>) -> NodeView {
        NodeView {
            offset_error_us,
            transit_us,
            ..NodeView::of_a_test(NodeId::from_u128(number), "a")
        }
    }

    #[test]
    fn a_way_is_never_shown_as_less_than_nothing() {
        let shown = |transit_us, error_us| transit(&node(1, transit_us, error_us));
        assert_eq!(shown(Some(1_500), Some(200)), "1.50 ms ± 0.20");
        assert_eq!(shown(Some(-300), Some(700)), "below 0.40 ms");
        assert_eq!(shown(Some(100), Some(700)), "below 0.80 ms");
        assert_eq!(shown(Some(-300), Some(100)), "below 0.00 ms", "a clock that was just set");
        assert_eq!(shown(None, Some(1)), "–");
    }

    #[test]
    fn a_page_goes_on_after_the_last_node_of_the_one_before() {
        let nodes: Vec<NodeView> = (1..=3).map(|number| node(number, None, None)).collect();
        let skips = |after: &str| Wanted { after: after.to_owned() }.skips(&nodes);
        assert_eq!([skips(""), skips("x"), skips(&NodeId::from_u128(9).to_string())], [0; 3]);
        assert_eq!(skips(&nodes[1].id.to_string()), 2);
        assert_eq!(skips(&nodes[2].id.to_string()), 3, "the last has none after it");
    }
}
