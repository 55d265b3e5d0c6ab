//! Decides what people see of the farm in a browser, and what they can do there. Served beside a node by `run`, and by
//! anybody else who holds a store: [`router`].
//!
//! - `door`: who may come in; `login`: showing the token;
//! - `page`: the frame of every page, and how values look; `assets`: the style, the script, the icon;
//! - `pages/`: one file for each page; `actions`: what buttons do; `said`: what came of it, until the page shows it;
//! - `controls`: what whoever serves this may offer besides.

mod actions;
mod assets;
mod controls;
mod door;
mod login;
mod page;
mod pages;
mod said;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

pub use controls::{Action, Controls};
pub use door::Door;

use self::said::Said;
use crate::store::AnyStore;

/// The longest form, in bytes.
const FORM_BYTES_MAX: usize = 16 * 1024;

/// What the pages are made of.
struct Dashboard {
    store: AnyStore,
    door: Door,
    controls: Option<Arc<dyn Controls>>,
    said: Said,
}

type Shared = Arc<Dashboard>;

/// The dashboard over this store, behind this door. `controls` are shown as buttons where there are any.
///
/// Every answer goes through the door, those of `beside` too: routes that are served along with the pages.
pub fn router(
    store: AnyStore,
    door: Door,
    controls: Option<Arc<dyn Controls>>,
    beside: Router,
) -> Router {
    let shared = Dashboard { store, door: door.clone(), controls, said: Said::default() };
    Router::new()
        .route("/", get(pages::ring::show))
        .route("/nodes", get(pages::nodes::show))
        .route("/nodes/{id}/do", post(actions::on_node))
        .route("/farm/do", post(actions::on_farm))
        .route("/login", get(login::show).post(login::enter))
        .route("/assets/{name}", get(assets::get))
        .fallback(pages::nowhere)
        .with_state(Arc::new(shared))
        .merge(beside)
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .layer(from_fn_with_state(door, door::guard))
}
