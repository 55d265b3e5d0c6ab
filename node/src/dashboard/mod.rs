//! Decides what people see of the farm in a browser, and what they can do there. Served beside a node by `run`, and by
//! anybody else who holds a store: [`router`].
//!
//! - `door`: who may come in; `login`: showing the token;
//! - `page`: the frame of every page, and how values look; `assets`: the style, the script, the icon;
//! - `pages/`: one file for each page; `drawing/`: the shapes on them; `live`: the stream that they listen to;
//! - `actions`: what buttons do; `said`: what came of it, until the page shows it;
//! - `controls`: what whoever serves this may offer besides.

mod actions;
mod assets;
mod controls;
mod door;
mod drawing;
mod live;
mod login;
mod page;
mod pages;
mod said;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

pub use controls::{Action, Controls};
pub use door::Door;

use self::live::Listeners;
use self::said::Said;
use crate::cached::Cached;
use crate::config::Retention;
use crate::store::{RunView, Tally};
use crate::watch::Hub;

/// The longest form, in bytes.
const FORM_BYTES_MAX: usize = 16 * 1024;
/// How old counts may be.
const TALLY_AGE: Duration = Duration::from_secs(2);
/// How old the runs on the timeline may be.
const RUNS_AGE: Duration = Duration::from_millis(200);

/// What the pages are made of.
struct Dashboard {
    hub: Hub,
    kept: Retention,
    door: Door,
    controls: Option<Arc<dyn Controls>>,
    said: Said,
    listeners: Listeners,
    tally: Cached<Tally>,
    runs: Cached<Vec<RunView>>,
}

type Shared = Arc<Dashboard>;

/// The dashboard over this store, or over a reader of it that others share, whose ended jobs are `kept` for so long, behind
/// this door. `controls` are shown as buttons where there are any.
///
/// Every answer goes through the door, those of `beside` too: routes that are served along with the pages.
pub fn router(
    hub: impl Into<Hub>,
    kept: Retention,
    door: Door,
    controls: Option<Arc<dyn Controls>>,
    beside: Router,
) -> Router {
    let shared = Dashboard {
        hub: hub.into(),
        kept,
        door: door.clone(),
        controls,
        said: Said::default(),
        listeners: Listeners::default(),
        tally: Cached::new(TALLY_AGE),
        runs: Cached::new(RUNS_AGE),
    };
    Router::new()
        .route("/", get(pages::ring::show))
        .route("/timeline", get(pages::timeline::show))
        .route("/nodes", get(pages::nodes::show))
        .route("/nodes/{id}", get(pages::nodes::one))
        .route("/nodes/{id}/do", post(actions::on_node))
        .route("/nodes/{id}/drain", post(pages::drain::order))
        .route("/farm/do", post(actions::on_farm))
        .route("/jobs", get(pages::jobs::show))
        .route("/jobs/all", post(pages::bulk::order).get(pages::nowhere))
        .route("/jobs/{id}", get(pages::job::show))
        .route("/jobs/{id}/retry", post(pages::job::retry))
        .route("/jobs/{id}/cancel", post(pages::job::cancel))
        .route("/batches", get(pages::batches::show))
        .route("/batches/{id}", get(pages::batches::one))
        .route("/batches/{id}/seal", post(pages::batches::seal))
        .route("/batches/{id}/cancel", post(pages::batches::cancel))
        .route("/queues", get(pages::queues::show))
        .route("/queues/pause", post(pages::queues::pause))
        .route("/queues/resume", post(pages::queues::resume))
        .route("/schedules", get(pages::schedules::show))
        .route("/schedules/do", post(pages::schedules::order))
        .route("/audit", get(pages::audit::show))
        .route("/live", get(live::listen))
        .route("/login", get(login::show).post(login::enter))
        .route("/assets/{name}", get(assets::get))
        .fallback(pages::nowhere)
        .with_state(Arc::new(shared))
        .merge(beside)
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .layer(from_fn_with_state(door, door::guard))
}
