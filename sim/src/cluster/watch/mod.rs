//! Decides what the judge is told, and looks for what only a whole node can get wrong.
//!
//! - `lives`: what each node's engine was told and asked for (its journal), and how its process ends;
//! - `turns`: what the database did with statements on the turn row;
//! - `work`: what it did with jobs, and what truly happened at the web apps;
//! - `elsewhere`: what went on at the web apps after an answer of 202;
//! - `batches`: what it said of jobs that belong together;
//! - `limits`: how many jobs of a queue it gave out at once, and in a time;
//! - `orders`: what apps and people ordered of it;
//! - `retention`: which ended jobs it removed.

mod batches;
mod elsewhere;
mod limits;
mod lives;
mod orders;
mod retention;
mod turns;
mod work;

pub(super) use batches::{Known as KnownBatch, batch_id};
pub(super) use elsewhere::Said;
pub(super) use lives::Answered;
pub(super) use orders::{Holders, Ordered};

use super::farm::World;

impl World {
    /// How long a lease that was granted now may hold.
    pub(super) fn lease(&self) -> u64 {
        self.scenario.longest_lease()
    }
}
