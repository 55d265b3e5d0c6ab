//! The engine of Turnwise: whose turn it is, when to send so that a beat arrives on the boundary of its
//! slot, and what to do when a node dies. A state machine without IO, clock or thread.
#![no_std]

extern crate alloc;

mod cadence;
mod clock;
mod engine;
mod io;
pub mod journal;
mod lease;
mod random;
mod sabotage;
mod turn;
mod turns;
mod units;
mod work;

pub use cadence::{Cadence, NextPeriod};
pub use clock::{Clock, Exchange, Learned, Offset};
pub use engine::{Config, Engine, Status};
pub use io::{
    Claim, Fate, Input, Kept, Note, Output, Reason, RequestId, Retirement, ServerIdentity,
    TurnAnswer, TurnKind, TurnStatement, WorkAnswer, WorkStatement,
};
pub use lease::{lease, renew_every};
pub use sabotage::{Bug, Sabotage, Sound};
pub use turn::{Change, ChangeKind, Deputy, Mark, Roster, TurnRow, Version};
pub use units::{Epoch, LocalInstant, NodeId, Period, PeriodError, ServerInstant, Slot, Token};
