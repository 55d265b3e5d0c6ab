//! Decides what the world is like that all tiers put their farms into: what clocks show, what becomes of
//! messages and of calls, and what is to befall the next.

#[cfg(feature = "commands")]
mod calls;
mod clocks;
mod mishaps;
mod road;

#[cfg(feature = "commands")]
pub(crate) use calls::{Course, course, id_of, job_of};
pub(crate) use clocks::{Local, Server};
pub(crate) use mishaps::Mishaps;
pub(crate) use road::Roads;
