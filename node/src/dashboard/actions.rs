//! Decides what the buttons do. Each is a form: the answer to it sends the browser back to the page where it was
//! pressed, which then shows what came of it.

use std::future::Future;

use axum::extract::{Form, Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use turnwise_engine::{Fate, NodeId};

use super::{Shared, page, pages};
use crate::audit::{Order, Touched};
use crate::store::{Store, StoreError};
use crate::watch::{ANSWER_TIMEOUT, within};

/// The longest name of an action, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// What a form of ours says.
#[derive(Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    action: String,
    /// The page to go back to: `/` or a path below it.
    #[serde(default)]
    back: String,
}

pub(super) async fn on_node(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Form(wanted): Form<Wanted>,
) -> Response {
    let Some(controls) = &shared.controls else { return pages::nowhere().await };
    let nodes = match within(ANSWER_TIMEOUT, shared.hub.store().nodes()).await {
        Ok(nodes) => nodes,
        Err(error) => return page::failed(&error),
    };
    let id: Option<NodeId> = id.parse().ok();
    let Some(node) = nodes.iter().find(|node| Some(node.id) == id) else {
        return pages::nodes::unknown();
    };
    let result = match wanted.action.len() {
        0..=NAME_BYTES_MAX => controls.perform(&wanted.action, Some(node)).await,
        _ => Err("There is no action with such a long name.".to_owned()),
    };
    back(&shared, &wanted.back, result)
}

pub(super) async fn on_farm(State(shared): State<Shared>, Form(wanted): Form<Wanted>) -> Response {
    let Some(controls) = &shared.controls else { return pages::nowhere().await };
    let result = match wanted.action.len() {
        0..=NAME_BYTES_MAX => controls.perform(&wanted.action, None).await,
        _ => Err("There is no action with such a long name.".to_owned()),
    };
    back(&shared, &wanted.back, result)
}

/// What comes of an order, which is brought to its end though the browser does not wait for it. When it was carried out, that
/// is kept.
pub(super) async fn to_its_end<T: Touched + Send + Sync + 'static>(
    shared: &Shared,
    order: Order,
    call: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    let store = shared.hub.store().clone();
    let done =
        tokio::spawn(async move { order.carry_out(&store, within(ANSWER_TIMEOUT, call)).await });
    // It ends otherwise only with the process, or by a bug that is to be seen.
    done.await.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => Err(StoreError::Unreachable {
            database: "the URL that was given".to_owned(),
            reason: error.to_string(),
            fate: Fate::Unknown,
        }),
    })
}

/// Back to the page, which says what came of it.
pub(super) fn back(shared: &Shared, to: &str, result: Result<String, String>) -> Response {
    // A path of ours: `//other.example` is none, nor is what a browser makes one of.
    let is_ours = to.starts_with('/')
        && !to.starts_with("//")
        && to.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    let to = if is_ours { to } else { "/" };
    let joint = if to.contains('?') { '&' } else { '?' };
    Redirect::to(&format!("{to}{joint}said={}", shared.said.keep(result))).into_response()
}
