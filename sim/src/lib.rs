//! The simulators of Turnwise.
//!
//! - [`lab`]: engines alone, driven by a discrete-event queue at nanosecond resolution, against the
//!   engine's own reference of the turn row. It knows the truth, so it can judge;
//! - [`cluster`]: the shell that runs in production, on simulated machines and a simulated network; [`tier`]: the
//!   choice between the two;
//! - [`chaos`]: the program itself, as real processes against a real database server; [`journal`]: what they leave, to
//!   be replayed;
//! - [`scenario`]: what is simulated, as one value;
//! - [`oracle`]: the invariants, held against what truly happened; [`report`]: what a run amounts to;
//! - [`sabotage`]: bugs that are planted to see whether they are found; [`shrink`]: what of a failing scenario is
//!   needed to fail; [`plot`]: a run as a picture;
//! - [`model`]: every path of a few faults, walked;
//! - [`scale`]: what joins, crashes and drains cost in rings of any size;
//! - [`clock`]: estimators of the server's clock side by side on the same traces.

#[cfg(feature = "commands")]
pub mod chaos;
#[cfg(feature = "commands")]
pub mod cli;
pub mod clock;
#[cfg(feature = "commands")]
pub mod cluster;
#[cfg(feature = "commands")]
pub mod journal;
pub mod lab;
pub mod model;
pub mod oracle;
#[cfg(feature = "commands")]
pub mod plot;
pub mod random;
pub mod report;
#[cfg(feature = "commands")]
pub mod sabotage;
pub mod scale;
pub mod scenario;
#[cfg(feature = "commands")]
pub mod shrink;
#[cfg(feature = "commands")]
pub mod tier;
mod world;
