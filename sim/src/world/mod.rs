//! Decides what the world is like that both tiers put their farms into: what clocks show, what becomes of
//! messages, and what is to befall the next.

mod clocks;
mod mishaps;
mod road;

pub(crate) use clocks::{Local, Server};
pub(crate) use mishaps::Mishaps;
pub(crate) use road::Roads;
