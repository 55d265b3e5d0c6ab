//! `/v1/nodes`: the nodes that the database knows, and asking one to drain.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use turnwise_engine::NodeId;
use utoipa::ToSchema;

use super::orders::to_its_end;
use super::params::{Named, Params};
use super::problem::{Details, Kind, Problem};
use super::v1::Shared;
use crate::audit::{Action, Actor, Order};
use crate::store::{DrainAnswer, NodeView, Store};
use crate::watch::{ANSWER_TIMEOUT, within};

/// Nodes, in the order of their turns, those out of the ring last.
#[derive(Serialize, ToSchema)]
struct Nodes {
    /// The nodes.
    nodes: Vec<NodeView>,
}

/// List the nodes
#[utoipa::path(get, path = "/v1/nodes", tag = "nodes", operation_id = "list_nodes",
    responses(
        (status = 200, description = "All nodes that the database knows", body = Nodes),
        (status = "default", description = "Problem details", body = Details, content_type = "application/problem+json"),
    ))]
pub(super) async fn list(State(api): State<Shared>, uri: Uri) -> Result<Response, Problem> {
    Params::of(&uri, &[])?;
    let nodes = within(ANSWER_TIMEOUT, api.store().nodes()).await?;
    Ok(Json(Nodes { nodes }).into_response())
}

/// What became of asking a node to drain.
#[derive(Serialize, ToSchema)]
struct NodeOrdered {
    /// The node.
    #[schema(value_type = String, format = Uuid)]
    id: NodeId,
    /// `asked` or `asked-before`.
    result: &'static str,
}

/// Ask a node to leave the ring, finish what it runs and exit
///
/// It hears of it with its next turn or read. Asking again changes nothing. 409 when it has left or was declared lost.
#[utoipa::path(post, path = "/v1/nodes/{id}/drain", tag = "nodes", operation_id = "drain_node",
    params(("id" = uuid::Uuid, Path, description = "The node's id")),
    responses(
        (status = 200, description = "It is asked, now or before", body = NodeOrdered),
        (status = "default", description = "Problem details", body = Details, content_type = "application/problem+json"),
    ))]
pub(super) async fn drain(
    State(api): State<Shared>,
    named: Named,
    request: Request,
) -> Result<Response, Problem> {
    Params::of(request.uri(), &[])?;
    let id: NodeId = named.id("node")?;
    let order = Order::new(Actor::of(request.extensions()), Action::NodeDrain, id);
    api.bodies.none(request).await?;
    let store = api.store().clone();
    let result = match to_its_end(&api, order, async move { store.drain(id).await }).await? {
        Some(DrainAnswer::Asked) => "asked",
        Some(DrainAnswer::AskedBefore) => "asked-before",
        Some(DrainAnswer::Gone) => {
            let remedy = "Nothing was done: there is nothing to drain";
            return Err(Problem::new(Kind::Conflict, "the node is gone", remedy));
        }
        None => {
            let remedy = "GET /v1/nodes lists those that there are";
            return Err(Problem::unknown("node", &id.to_string(), remedy));
        }
    };
    Ok(Json(NodeOrdered { id, result }).into_response())
}
