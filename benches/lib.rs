//! The benchmarks of Turnwise: `cargo bench -p turnwise-benches`.
//!
//! - `engine`: what one turn costs in the engine, at several sizes of the ring.
