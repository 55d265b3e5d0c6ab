//! The table of planted bugs: how soon each was found, and by what.

use std::fmt::Write;

use turnwise_sim::sabotage::{Plantable, hunt_all};

/// Hunt these bugs through so many seeds: the table, and the names of those that were not found.
pub(crate) fn table_of<B: Plantable>(bugs: &[B], most: u64) -> (String, Vec<&'static str>) {
    // What is planted may panic; that is a way to be found.
    std::panic::set_hook(Box::new(|_| {}));
    let found = hunt_all(bugs, most);
    let _ = std::panic::take_hook();
    let mut table = String::new();
    let mut seeds = Vec::new();
    let mut lost = Vec::new();
    for (bug, found) in &found {
        let (took, by) = match found {
            Some(found) => (found.seeds.to_string(), found.by),
            None => ("-".to_owned(), "nothing"),
        };
        writeln!(table, "{:<32} {took:>5}  {by}", bug.name()).unwrap();
        match found {
            Some(found) => seeds.push(found.seeds),
            None => lost.push(bug.name()),
        }
    }
    seeds.sort_unstable();
    let median = seeds.get(seeds.len().saturating_sub(1) / 2).copied().unwrap_or(0);
    writeln!(table, "median of {}: {median} seeds", found.len()).unwrap();
    (table, lost)
}
