//! The row that the nodes share: who takes turns, who stands in for whom, who read when.
//!
//! - `roster`: whose turn a slot is;
//! - `change`: what a change of the roster is; `edits`: what a join, a leave, a removal, a takeover or a new
//!   period makes of a row;
//! - `row`: what every statement does to the locked row. It is the reference: the SQLite and MySQL stores
//!   and the simulators run it as it stands, the PostgreSQL store says the same in SQL and is held to it.

mod change;
mod edits;
mod roster;
mod row;

pub use change::{Change, ChangeKind};
pub use roster::{Deputy, Roster, Version};
pub use row::{Mark, TurnRow};
