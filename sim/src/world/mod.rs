//! Decides what the world is like that both tiers put their farms into: what clocks show, and what becomes of
//! messages.

mod clocks;
mod road;

pub(crate) use clocks::{Local, Server};
pub(crate) use road::Roads;
