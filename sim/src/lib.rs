//! The simulators of Turnwise.
//!
//! - [`lab`]: engines alone, driven by a discrete-event queue at nanosecond resolution, against the
//!   engine's own reference of the turn row. It knows the truth, so it can judge.

pub mod lab;
