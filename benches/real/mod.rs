//! What the benchmarks with real servers stand on.
//!
//! - [`server`]: a throwaway server of either kind, and what it counts; [`relay`]: a longer road to it; [`place`]: a
//!   throwaway database of any kind, and the jobs in it;
//! - [`session`]: a session of somebody else on a server; [`target`]: a web app that answers at once;
//! - [`nodes`]: nodes of this design, in this process; [`original`]: the design that this one began from;
//! - [`wire`]: what the kernel saw go over loopback, and when; [`processor`]: what the threads cost;
//! - [`figures`]: what many numbers come to.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up has ended")]
#![allow(clippy::disallowed_methods, reason = "real servers take real time, and real threads")]

pub mod figures;
pub mod nodes;
pub mod original;
pub mod place;
pub mod processor;
pub mod relay;
pub mod server;
pub mod session;
pub mod target;
pub mod wire;
