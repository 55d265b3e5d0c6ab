//! Decides nothing of its own: plants one bug at a time in the engine and the turn row, and lets the swarm look
//! for it. The simulator is tested by what it finds.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use turnwise_engine::{Bug, Engine, Sabotage};

use crate::lab::{run, run_with};
use crate::scenario::swarm;

thread_local! {
    static BUG: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// The rules with the bug that this thread has planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Planted;

impl Sabotage for Planted {
    fn plants(bug: Bug) -> bool {
        BUG.get() == Some(bug)
    }
}

/// How a bug was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// How many seeds it took, from 1.
    pub seeds: u64,
    /// The invariant that found it; or `panic`.
    pub by: &'static str,
    /// What happened.
    pub detail: String,
}

/// Look for a bug in the seeds from 0, at most so many. None: it was not found. A seed that finds fault with the
/// sound engine too finds nothing.
pub fn hunt(bug: Bug, most: u64) -> Option<Found> {
    BUG.set(Some(bug));
    let found = (0..most).find_map(|seed| {
        let scenario = swarm(seed);
        let planted =
            catch_unwind(AssertUnwindSafe(|| run_with::<Engine<Planted>>(&scenario, false)));
        let seeds = seed + 1;
        let found = match planted {
            Err(_) => Some(Found { seeds, by: "panic", detail: "the engine panicked".to_owned() }),
            Ok(report) => report.violations.first().map(|violation| Found {
                seeds,
                by: violation.invariant.as_str(),
                detail: violation.detail.clone(),
            }),
        };
        found.filter(|_| run(&scenario).violated == 0)
    });
    BUG.set(None);
    found
}

/// Hunt them all, side by side.
pub fn hunt_all(bugs: &[Bug], most: u64) -> Vec<(Bug, Option<Found>)> {
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
