//! The cluster is tested too: every bug that is planted in the shell or the store is found by its swarm; the committed table says
//! how soon and by what. (A program of its own: what a panic is, is decided for a whole program.)

#![allow(clippy::unwrap_used)]

#[path = "support/hunt.rs"]
mod hunt;

use turnwise_node::sabotage::Bug;

/// A bug that is not found within so many seeds counts as not found.
const MOST: u64 = 300;

#[test]
fn every_bug_planted_in_the_shell_is_found() {
    let (table, lost) = hunt::table_of(Bug::ALL, MOST);
    insta::assert_snapshot!(table);
    assert!(lost.is_empty(), "not found: {lost:?}\n{table}");
}
