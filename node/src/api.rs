//! Decides what a node answers over HTTP: whether it lives, whether it takes turns; the pages are the dashboard's.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::shell::Pulse;

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

/// Answer until dropped.
pub async fn serve(listener: TcpListener, routes: Router) {
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!("the API stopped: {error}");
    }
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
