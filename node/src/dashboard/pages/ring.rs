//! The page *Ring*: whose turn it is.

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use maud::html;

use super::super::{Shared, page};
use crate::store::Store;

pub(in super::super) async fn show(
    State(shared): State<Shared>,
    Query(asked): Query<page::Asked>,
) -> Response {
    let nodes = match shared.store.nodes().await {
        Ok(nodes) => nodes,
        Err(error) => return page::failed(&error).into_response(),
    };
    let farm = shared.controls.as_ref().map(|controls| controls.for_farm()).unwrap_or_default();
    let body = html! {
        h1 { "Ring" }
        (page::buttons("/farm/do", "/", &farm))
        ol {
            @for node in nodes.iter().filter(|node| node.rank.is_some()) {
                li {
                    (node.name) " " (node.state)
                    @if let Some(controls) = &shared.controls {
                        (page::buttons(&format!("/nodes/{}/do", node.id), "/", &controls.for_node(node)))
                    }
                }
            }
        }
    };
    page::live(&shared, "Ring", "/", &asked, &body).into_response()
}
