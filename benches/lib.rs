//! The benchmarks of Turnwise: `cargo bench -p turnwise-benches`.
//!
//! - `engine`: what the hot path costs: an exchange learnt, a time to send, a turn at several sizes of the ring;
//! - `allocations`: that a steady turn allocates nothing in the engine;
//! - `slot_accuracy`: how close to its boundary a beat arrives, by estimator: a table and a plot.
//!
//! With real nodes and a real database; each takes minutes, and `--help` lists its options. How evenly a farm polls
//! (docs/accuracy.md, docs/real-clusters.md):
//!
//! - `arrival`: how close to its boundary a beat arrives at a real server, beside the design that this one began from;
//! - `sending`: how late a beat is written, what processor time it costs, how many round trips it takes;
//! - `idle`: how many statements a second an idle farm sends, by its size;
//! - `endurance`: a day's beats, and what of it grows.
//!
//! What work costs (docs/throughput.md):
//!
//! - `throughput`: how many jobs a second a farm runs, by its size and its database;
//! - `pickup`: how long a lone job waits until it is called;
//! - `backlog`: how long a claim takes when the table is full, or huge, or cannot be tidied up;
//! - `failover`: how long the jobs of a killed node wait until they are called again;
//! - `cycle`: the way of one job, alike in every run, for `scripts/instructions` to count.

pub mod farm;
pub mod real;

use std::path::{Path, PathBuf};

/// Where cargo builds, and where pictures go.
pub fn target_folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"))
}
