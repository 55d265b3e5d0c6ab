//! The simulators of Turnwise.
//!
//! - [`lab`]: engines alone, driven by a discrete-event queue at nanosecond resolution, against the
//!   engine's own reference of the turn row. It knows the truth, so it can judge;
//! - [`clock`]: estimators of the server's clock side by side on the same traces.

pub mod cli;
pub mod clock;
pub mod lab;
pub mod random;
