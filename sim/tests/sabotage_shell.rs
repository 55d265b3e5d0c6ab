//! The cluster is tested too: every bug that is planted in the shell or the store is found by its swarm, but
//! for those of the retention; the table says how soon and by what. (A program of its own: what a panic is, is decided for a whole program.)

#![allow(clippy::unwrap_used)]

#[path = "support/hunt.rs"]
mod hunt;

use turnwise_node::sabotage::Bug;

/// A bug that is not found within so many seeds counts as not found.
const MOST: u64 = 1_500;
/// Bugs of the retention: whether the swarm finds them has not been shown yet. (`cluster.rs` and the contract of the stores hold to
/// what they break.)
const NOT_HUNTED: [Bug; 4] =
    [Bug::AgeIsIgnored, Bug::StepMakesOlder, Bug::NothingIsPruned, Bug::PruneTakesWhatRuns];

#[test]
fn every_bug_planted_in_the_shell_is_found() {
    let hunted: Vec<Bug> =
        Bug::ALL.iter().copied().filter(|bug| !NOT_HUNTED.contains(bug)).collect();
    let (table, lost) = hunt::table_of(&hunted, MOST);
    println!("{table}");
    assert!(lost.is_empty(), "not found: {lost:?}\n{table}");
}
