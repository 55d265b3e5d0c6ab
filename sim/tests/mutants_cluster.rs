//! What a mutant of the engine must get past that the lab let pass: runs of the production shell on a simulated network, over
//! a real store. It goes by what the engine says of itself when it drains, by its words for changes, by its times in
//! microseconds.

#![allow(clippy::unwrap_used)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use turnwise_sim::cluster::run;
use turnwise_sim::scenario::swarm_of_processes;

/// Half of the bugs that are planted in the shell are found within six.
const SEEDS: u64 = 24;

/// One test: the first failure is enough.
#[test]
fn the_shell_finds_no_fault() {
    let next = AtomicU64::new(0);
    let found = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(|| {
                while found.lock().unwrap().is_empty() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= SEEDS {
                        break;
                    }
                    let report = run(&swarm_of_processes(seed), false);
                    if !report.violations.is_empty() {
                        found.lock().unwrap().push((seed, report.violations));
                    }
                }
            });
        }
    });
    let found = found.into_inner().unwrap();
    assert!(found.is_empty(), "{found:#?}");
}
