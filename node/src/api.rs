//! Decides what a node answers over HTTP to other programs: whether it lives, whether it takes turns, its numbers. The
//! pages are the dashboard's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::cached::Cached;
use crate::metrics::Metrics;
use crate::shell::Pulse;
use crate::store::{AnyStore, COUNTED_MAX, Tally, Views};

/// How old the depths of the queues may be: however often the numbers are fetched, the database counts no more often.
const DEPTHS_AGE: Duration = Duration::from_secs(10);
/// How long the numbers wait for the database before they come without the depths.
const DEPTHS_TIMEOUT: Duration = Duration::from_secs(3);
/// OpenMetrics 1.0, section 3.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Take the address.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// The health of a node.
pub fn health(pulse: watch::Receiver<Pulse>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .with_state(pulse)
}

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

/// Ready is a node that is in the ring and whose last statement was answered.
async fn ready(State(pulse): State<watch::Receiver<Pulse>>) -> (StatusCode, String) {
    let pulse = pulse.borrow();
    match &pulse.trouble {
        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")),
        None if pulse.left => (StatusCode::SERVICE_UNAVAILABLE, "has left the ring\n".to_owned()),
        None if !pulse.in_ring => (
            StatusCode::SERVICE_UNAVAILABLE,
            "not in the ring yet: waiting for the database\n".to_owned(),
        ),
        None => (StatusCode::OK, "takes turns\n".to_owned()),
    }
}
