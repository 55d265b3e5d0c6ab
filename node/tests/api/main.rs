//! The API over HTTP, as a program and as somebody who gets it wrong: every path, every limit at and beyond it, bodies that are
//! not what they say, repetitions, and who is turned away.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod access;
mod audit;
mod batches;
mod jobs;
mod nodes_and_events;
mod place;
mod queues;
mod schedules;
mod strange;
mod wrong;
