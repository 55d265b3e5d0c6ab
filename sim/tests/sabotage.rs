//! The lab is tested too: every bug that is planted in the engine or the turn row is found by its swarm, and the
//! table says how soon and by what.

#![allow(clippy::unwrap_used)]

#[path = "support/hunt.rs"]
mod hunt;

use turnwise_engine::Bug;

/// A bug that is not found within so many seeds counts as not found.
const MOST: u64 = 2_000;

#[test]
fn every_planted_bug_is_found() {
    let (table, lost) = hunt::table_of(Bug::ALL, MOST);
    insta::assert_snapshot!(table);
    assert!(lost.is_empty(), "not found: {lost:?}\n{table}");
}
