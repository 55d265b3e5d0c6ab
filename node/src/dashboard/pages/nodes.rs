//! The page *Nodes*: what each node says of itself.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

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
    let body = html! {
        h1 { "Nodes" }
        @for node in &nodes {
            article {
                h2 { (node.name) }
                p { (node.state) }
                @if let Some(controls) = &shared.controls {
                    (page::buttons(&format!("/nodes/{}/do", node.id), "/nodes", &controls.for_node(node)))
                }
            }
        }
    };
    page::live(&shared, "Nodes", "/nodes", &asked, &body).into_response()
}

/// The answer to the id of a node that does not exist.
pub(in super::super) fn unknown() -> (StatusCode, Markup) {
    let page = page::bare(
        "No such node",
        &html! {
            h1 { "There is no such node" }
            p { "Its id may be that of an earlier life: a node that is started again has another one." }
            p { a href="/nodes" { "To the nodes that there are" } }
        },
    );
    (StatusCode::NOT_FOUND, page)
}
