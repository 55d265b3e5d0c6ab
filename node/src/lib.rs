//! The node of Turnwise as a library: tokio, SQL and HTTP around the engine.

pub mod api;
pub mod audit;
pub mod batch;
mod batch_orders;
mod cached;
pub mod callback;
pub mod caller;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod dashboard;
pub mod demo;
pub mod exit;
mod health;
pub mod job;
mod job_fields;
mod json;
mod keys;
pub mod metrics;
pub mod redact;
pub mod rfc3339;
pub mod run;
pub mod sabotage;
pub mod schedule;
pub mod serve;
pub mod shell;
pub mod store;
pub mod tampering;
pub mod token;
pub mod watch;

/// The database drivers that this crate was built with: what [`client`] is given a connection of.
pub use sqlx;
