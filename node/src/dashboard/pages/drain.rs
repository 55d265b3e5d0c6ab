//! What comes of the button that drains a node: it is asked about first, and what is not possible (any more) is refused
//! with what is the case now.

use axum::extract::{Form, Path, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use turnwise_engine::NodeId;

use super::super::{Shared, actions, page};
use super::nodes::unknown;
use crate::audit::{Action, Actor, Order};
use crate::store::{DrainAnswer, NodeView, Store};
use crate::watch::{ANSWER_TIMEOUT, within};

/// What the form says.
#[derive(Deserialize)]
pub(in super::super) struct Sure {
    #[serde(default)]
    sure: String,
}

pub(in super::super) async fn order(
    State(shared): State<Shared>,
    actor: Actor,
    Path(id): Path<String>,
    Form(sure): Form<Sure>,
) -> Response {
    let Ok(id) = id.parse::<NodeId>() else { return unknown() };
    if sure.sure != "yes" {
        return ask(&shared, id).await;
    }
    let order = Order::new(actor, Action::NodeDrain, id);
    let store = shared.hub.store().clone();
    let call = async move { store.drain(id).await };
    let result = match actions::to_its_end(&shared, order, call).await {
        Err(error) => return page::failed(&error),
        Ok(None) => return unknown(),
        Ok(Some(DrainAnswer::Asked)) => {
            Ok("It is asked to drain: it hears of it with its next turn.".to_owned())
        }
        Ok(Some(DrainAnswer::AskedBefore)) => {
            Err("Nothing was done: it was asked to drain before.".to_owned())
        }
        Ok(Some(DrainAnswer::Gone)) => Err("Nothing was done: the node is gone.".to_owned()),
    };
    actions::back(&shared, &format!("/nodes/{id}"), result)
}

async fn ask(shared: &Shared, id: NodeId) -> Response {
    let nodes = match within(ANSWER_TIMEOUT, shared.hub.store().nodes()).await {
        Err(error) => return page::failed(&error),
        Ok(nodes) => nodes,
    };
    let Some(node) = nodes.iter().find(|node| node.id == id) else { return unknown() };
    let here = format!("/nodes/{id}");
    let body = html! {
        h1 { "Drain " (page::short(&node.name, 80)) "?" }
        p { "It is " (page::state(&node.state)) " and holds " (node.running) " jobs." }
        p {
            "It leaves the ring, claims nothing more, finishes what it runs and exits. "
            "To have it back it must be started again where it runs."
        }
        form .actions method="post" action=(format!("{here}/drain")) {
            input type="hidden" name="sure" value="yes";
            button .danger { "Drain it" }
            a href=(here) { "Leave it as it is" }
        }
    };
    page::still(shared, "Drain", "/nodes", &page::Asked::default(), &body)
}

/// The button, where there is something to drain.
pub(super) fn button(node: &NodeView) -> Markup {
    let is_there = !matches!(node.state.as_str(), "left" | "lost" | "draining");
    html! {
        @if is_there {
            form .actions method="post" action=(format!("/nodes/{}/drain", node.id)) {
                button .danger title="It leaves the ring, finishes what it runs and exits" { "Drain…" }
            }
        }
    }
}
