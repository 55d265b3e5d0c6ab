//! Decides nothing of its own: plants one bug at a time and lets the swarm look for it. The simulators are tested by
//! what they find.
//!
//! - `engine`: bugs in the engine and the turn row, looked for by the lab;
//! - `shell`: bugs in the shell and the store, looked for by the cluster.

mod engine;
mod shell;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use engine::PlantedInEngine;
pub use shell::PlantedInShell;

use crate::report::Report;
use crate::scenario::Scenario;
use crate::tier::Tier;

/// A bug that can be planted.
pub trait Plantable: Copy + Ord + Send + Sync + 'static {
    /// All of its kind.
    const ALL: &'static [Self];
    /// What looks for them.
    const TIER: Tier;
    /// Its name.
    fn name(self) -> &'static str;
    /// What is broken, in words.
    fn rule(self) -> &'static str;
    /// Whether a scenario has what the bug breaks. One that has not is passed over, which hides nothing and saves its time.
    fn is_touched_by(self, _: &Scenario) -> bool {
        true
    }
    /// Plant it in what this thread runs from now on; none: nothing.
    fn plant(bug: Option<Self>);
    /// Run a scenario with what this thread has planted.
    fn run(scenario: &Scenario) -> Report;
}

/// How a bug was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// How many seeds it took, from 1: those that were passed over count.
    pub seeds: u64,
    /// The invariant that found it; or `panic`.
    pub by: &'static str,
    /// What happened.
    pub detail: String,
}

/// Look for a bug in the seeds from 0, at most so many. None: it was not found. A seed that finds fault with what
/// is sound too finds nothing.
pub fn hunt<B: Plantable>(bug: B, most: u64) -> Option<Found> {
    (0..most).find_map(|seed| {
        let scenario = B::TIER.swarm(seed);
        if !bug.is_touched_by(&scenario) {
            return None;
        }
        B::plant(Some(bug));
        let planted = catch_unwind(AssertUnwindSafe(|| B::run(&scenario)));
        B::plant(None);
        let seeds = seed + 1;
        let found = match planted {
            Err(_) => Some(Found { seeds, by: "panic", detail: "it panicked".to_owned() }),
            Ok(report) => report.violations.first().map(|violation| Found {
                seeds,
                by: violation.invariant.as_str(),
                detail: violation.detail.clone(),
            }),
        };
        found.filter(|_| B::TIER.run(&scenario, false).violated == 0)
    })
}

/// Hunt them all, side by side.
pub fn hunt_all<B: Plantable>(bugs: &[B], most: u64) -> Vec<(B, Option<Found>)> {
    let next = AtomicUsize::new(0);
    let table = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = hunt(*bug, most);
                    if let Ok(mut table) = table.lock() {
                        table.push((*bug, found));
                    }
                }
            });
        }
    });
    let mut table = table.into_inner().unwrap_or_default();
    table.sort_by_key(|(bug, _)| *bug);
    table
}
