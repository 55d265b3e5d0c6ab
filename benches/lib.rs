//! The benchmarks of Turnwise: `cargo bench -p turnwise-benches`.
//!
//! - `engine`: what the hot path costs: an exchange learnt, a time to send, a turn at several sizes of the ring;
//! - `allocations`: that a steady turn allocates nothing in the engine;
//! - `slot_accuracy`: how close to its boundary a beat arrives, by estimator: a table and a plot;
//! - `endurance`: a day's beats on a real database server, and what of it grows.

pub mod farm;
