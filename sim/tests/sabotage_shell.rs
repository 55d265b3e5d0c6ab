//! The cluster is tested too: every bug that is planted in the shell or the store is found by its swarm, and the
//! table says how soon and by what.

#![allow(clippy::unwrap_used)]

use std::fmt::Write;

use turnwise_node::sabotage::Bug;
use turnwise_sim::sabotage::hunt_all;

/// A bug that is not found within so many seeds counts as not found.
const MOST: u64 = 100;

#[test]
fn every_bug_planted_in_the_shell_is_found() {
    std::panic::set_hook(Box::new(|_| {}));
    let found = hunt_all(Bug::ALL, MOST);
    let _ = std::panic::take_hook();
    let mut table = String::new();
    let mut seeds = Vec::new();
    for (bug, found) in &found {
        let (took, by) = match found {
            Some(found) => (found.seeds.to_string(), found.by),
            None => ("-".to_owned(), "nothing"),
        };
        writeln!(table, "{:<32} {took:>5}  {by}", bug.as_str()).unwrap();
        seeds.extend(found.as_ref().map(|found| found.seeds));
    }
    seeds.sort_unstable();
    writeln!(table, "median of {}: {} seeds", found.len(), seeds[(seeds.len() - 1) / 2]).unwrap();
    insta::assert_snapshot!(table);
    let lost = found.iter().filter(|(_, found)| found.is_none()).map(|(bug, _)| bug.as_str());
    assert_eq!(lost.collect::<Vec<_>>(), [""; 0], "not found:\n{table}");
}
