//! Decides how the numbers of a node are fetched, and how often the database is asked for those of the farm.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

use crate::cached::Cached;
use crate::metrics::Metrics;
use crate::store::{AnyStore, COUNTED_MAX, Tally, Views};

/// How old the depths of the queues may be: however often the numbers are fetched, the database counts no more often.
const DEPTHS_AGE: Duration = Duration::from_secs(10);
/// How long the numbers wait for the database before they come without the depths.
const DEPTHS_TIMEOUT: Duration = Duration::from_secs(3);
/// OpenMetrics 1.0, section 3.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The numbers of a node, and the depths of the queues in its database.
pub fn metrics(metrics: Arc<Metrics>, store: AnyStore) -> Router {
    let numbers = Arc::new(Numbers { metrics, store, tally: Cached::new(DEPTHS_AGE) });
    Router::new().route("/metrics", get(numbers_as_text)).with_state(numbers)
}

struct Numbers {
    metrics: Arc<Metrics>,
    store: AnyStore,
    tally: Cached<Tally>,
}

async fn numbers_as_text(State(numbers): State<Arc<Numbers>>) -> impl IntoResponse {
    let counting = numbers.tally.get(|| numbers.store.tally(COUNTED_MAX));
    let tally = match tokio::time::timeout(DEPTHS_TIMEOUT, counting).await {
        Ok(Ok(tally)) => Some(tally),
        Ok(Err(error)) => {
            tracing::debug!("the depths of the queues are not among the metrics: {error}");
            None
        }
        Err(_) => None,
    };
    ([(CONTENT_TYPE, OPEN_METRICS)], numbers.metrics.text(tally.as_deref()))
}
