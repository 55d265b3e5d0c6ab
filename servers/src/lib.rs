//! Throwaway database servers: each is a real server with its data in a folder of its own, on a free port of
//! loopback, and gone with the process that started it, however that ends. For tests, and for runs of real
//! processes. What cannot be set up panics with what to do about it.
//!
//! - [`postgres`]: PostgreSQL; [`replicated`]: a primary and its standby; [`pgbouncer`]: a pooler before one;
//!   [`mariadb`]: MariaDB.
#![allow(
    clippy::unwrap_used,
    reason = "a server that cannot be set up is the end of whoever asked for it"
)]
#![allow(clippy::disallowed_methods, reason = "real servers take real time")]

mod folder;
pub mod mariadb;
pub mod pgbouncer;
pub mod postgres;
pub mod replicated;
