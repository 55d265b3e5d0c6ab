//! Decides what a node answers over HTTP to other programs. The pages are the dashboard's.
//!
//! - `health`: whether it lives, whether it takes turns;
//! - `metrics`: its numbers.

mod health;
mod metrics;

use std::net::SocketAddr;

use tokio::net::TcpListener;

pub use health::health;
pub use metrics::metrics;

/// Take the address.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}
