//! Estimators of the server's clock side by side on the same traces.
//!
//! - `trace`: what is stamped, and the truth;
//! - `rivals`: the engine's estimator and others, behind one trait;
//! - `oracle`: what could be known by one who was told the laws of the trace;
//! - `judging`: the traces by which figures are measured, and those for tuning;
//! - `intervals`: many checks of the interval that the engine claims;
//! - `judge`: how far each was from the truth, of the predictions that it made before it saw the sample.

pub mod intervals;
pub mod judge;
pub mod judging;
pub mod oracle;
pub mod rivals;
pub mod trace;
