//! The contract of the stores, on the simulated one: the same promises as in `node/tests/store_contract.rs`, each on
//! simulated machines of its own. What is promised must reach the database and come back over simulated connections;
//! behind them is the production store on SQLite in a file, so that an app's plain SQL has its way in.
//!
//! `PROMISE=words cargo test -p turnwise-sim --test store_contract` runs those with `words` in their name.
#![allow(clippy::unwrap_used, reason = "a promise that cannot be tried is broken")]
#![allow(
    clippy::disallowed_methods,
    reason = "both arms are tried, and the real one takes real time"
)]

#[path = "../../node/tests/store_contract/callbacks.rs"]
mod callbacks;
#[path = "../../node/tests/store_contract/claims.rs"]
mod claims;
#[path = "../../node/tests/store_contract/ends.rs"]
mod ends;
#[path = "../../node/tests/store_contract/hand_backs.rs"]
mod hand_backs;
#[path = "../../node/tests/store_contract/keys.rs"]
mod keys;
#[path = "../../node/tests/store_contract/leases.rs"]
mod leases;
#[path = "../../node/tests/store_contract/limits.rs"]
mod limits;
#[path = "../../node/tests/store_contract/member.rs"]
mod member;
#[path = "../../node/tests/store_contract/nodes.rs"]
mod nodes;
#[path = "../../node/tests/store_contract/particulars.rs"]
mod particulars;
#[path = "../../node/tests/store_contract/queues.rs"]
mod queues;
#[path = "../../node/tests/store_contract/retention.rs"]
mod retention;
#[path = "../../node/tests/store_contract/rows.rs"]
mod rows;
#[path = "../../node/tests/store_contract/schedules.rs"]
mod schedules;
#[path = "../../node/tests/store_contract/score.rs"]
mod score;
#[path = "store_contract/simulated.rs"]
mod simulated;
#[path = "../../node/tests/store_contract/slowing.rs"]
mod slowing;
#[path = "../../node/tests/store_contract/sqlite.rs"]
mod sqlite;
#[path = "../../node/tests/store_contract/turns.rs"]
mod turns;
#[path = "../../node/tests/store_contract/unique_keys.rs"]
mod unique_keys;
#[path = "../../node/tests/store_contract/views.rs"]
mod views;
#[path = "../../node/tests/store_contract/world.rs"]
mod world;

use score::{Score, contract, promises};
use simulated::Simulated;

/// What cannot be tried here.
const SKIPPED: [(&str, &str); 1] = [(
    "a_plain_insert_is_enough",
    "plain SQL takes its times from the host's clock, which is not the simulated server's",
)];

#[tokio::test]
async fn the_simulated_store_keeps_the_contract() {
    let mut score = Score::new("simulated", &SKIPPED);
    contract::<Simulated>(&mut score).await;
    promises! { score, Simulated, Fresh;
        simulated::an_answer_that_was_given_up_is_nobody_elses,
        simulated::a_reconciliation_takes_a_new_connection,
    }
    score.judge();
}
