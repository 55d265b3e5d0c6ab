//! Decides what a load balancer is told: whether the node lives, and whether it takes turns.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::sync::watch;

use crate::shell::Pulse;

/// The health of a node.
pub fn health(pulse: watch::Receiver<Pulse>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .with_state(pulse)
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
