//! The contract of the stores: what a node may rely on, whatever the database. One list of promises, run
//! on SQLite in a file and on a real PostgreSQL; each promise has a database of its own.
//!
//! `PROMISE=words cargo test -p turnwise-node --test store_contract` runs those with `words` in their name.
#![allow(clippy::unwrap_used, reason = "a promise that cannot be tried is broken")]
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

#[path = "store_contract/claims.rs"]
mod claims;
#[path = "store_contract/ends.rs"]
mod ends;
#[path = "store_contract/hand_backs.rs"]
mod hand_backs;
#[path = "store_contract/leases.rs"]
mod leases;
#[path = "store_contract/member.rs"]
mod member;
#[path = "store_contract/only.rs"]
mod only;
#[path = "store_contract/rows.rs"]
mod rows;
#[path = "support/mod.rs"]
mod support;
#[path = "store_contract/turns.rs"]
mod turns;
#[path = "store_contract/views.rs"]
mod views;
#[path = "store_contract/world.rs"]
mod world;

use std::future::Future;
use std::time::{Duration, Instant};

use world::{Postgres, Sqlite, World};

/// How long a promise may take to be tried.
const PATIENCE: Duration = Duration::from_secs(120);

/// Keeps the score of the promises.
struct Score {
    database: &'static str,
    only: String,
    broken: Vec<&'static str>,
}

impl Score {
    fn new(database: &'static str) -> Self {
        let only = std::env::var("PROMISE").unwrap_or_default();
        Self { database, only, broken: Vec::new() }
    }

    async fn on<W: World, F>(
        &mut self,
        name: &'static str,
        world: impl Future<Output = W>,
        promise: impl FnOnce(W) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        if !name.contains(&self.only) {
            return;
        }
        let task = tokio::spawn(promise(world.await));
        let begun = Instant::now();
        let kept = match tokio::time::timeout(PATIENCE, task).await {
            Ok(Ok(())) => "ok",
            Ok(Err(_)) => "BROKEN",
            Err(_) => "HANGS",
        };
        if kept != "ok" {
            self.broken.push(name);
        }
        let words = name.replace('_', " ");
        println!("{:<9} {words:<55} {kept} ({} ms)", self.database, begun.elapsed().as_millis());
    }

    fn judge(self) {
        assert!(self.broken.is_empty(), "{} breaks: {:?}", self.database, self.broken);
    }
}

macro_rules! promises {
    ($score:ident, $world:expr; $($module:ident :: $promise:ident),* $(,)?) => {
        $($score.on(stringify!($promise), $world, $module::$promise).await;)*
    };
}

/// The promises that every store keeps.
async fn contract<W: World>(score: &mut Score) {
    promises! { score, W::empty();
        views::ten_migrate_at_once,
        views::ten_agree_on_one_period,
    }
    promises! { score, W::fresh();
        views::a_schema_for_newer_binaries_is_left_alone,
        turns::one_beat_a_slot,
        turns::beats_at_once_never_share_a_slot,
        turns::stamps_and_changes_are_the_engines,
        turns::a_change_commits_on_what_it_was_computed_from,
        turns::a_change_of_the_period_takes_effect_at_its_slot,
        turns::a_clock_set_back_never_repeats_a_slot,
        turns::stamps_of_an_exchange_lie_within_it,
        turns::a_day_of_beats_is_kept,
        turns::a_statement_of_a_node_is_a_check_in,
        claims::claims_take_what_is_due_in_order,
        claims::claims_agree_with_a_plain_sort,
        claims::queues_that_are_left_out_wait,
        claims::no_job_is_claimed_twice,
        claims::a_beat_claims_what_is_due_on_its_boundary,
        claims::a_barred_claim_never_commits,
        hand_backs::a_claim_that_cannot_be_received_is_released,
        hand_backs::what_a_lost_history_left_behind_runs_again,
        hand_backs::a_lost_history_is_free_ten_times_and_no_more,
        claims::a_row_that_cannot_be_read_ends_dead_and_fails_nobody,
        ends::an_attempt_ends_once,
        ends::each_fate_is_recorded,
        hand_backs::a_job_goes_back_ten_times_and_no_more,
        ends::ends_of_a_batch_are_each_their_own,
        leases::a_dead_nodes_jobs_run_again,
        leases::a_job_of_an_unknown_node_is_rescued,
        leases::a_node_that_renews_keeps_its_jobs,
        leases::an_outage_kills_nobody,
        leases::a_missed_slot_kills_nobody,
        leases::a_dead_nodes_jobs_run_again_in_time_whichever_slot_is_missed,
        leases::a_clock_set_forward_kills_nobody,
        leases::a_clock_set_back_makes_nothing_wait,
        rows::enqueueing_again_changes_nothing,
        rows::all_jobs_of_an_enqueue_or_none,
        rows::a_plain_insert_is_enough,
        rows::a_poisoned_row_fails_nobody,
        rows::columns_have_limits,
        leases::gone_nodes_are_forgotten,
        views::jobs_are_listed_by_state_queue_and_page,
        views::a_running_attempt_is_the_last,
        views::retry_makes_it_run_now,
        views::cancel_stops_what_has_not_ended,
        views::nodes_are_shown_in_turn_order,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_the_contract() {
    let mut score = Score::new("sqlite");
    contract::<Sqlite>(&mut score).await;
    let score_ref = &mut score;
    promises! { score_ref, Sqlite::fresh();
        only::files_that_will_not_do_are_named,
        only::a_database_in_memory_is_shared_by_its_store,
        only::a_writer_is_waited_for_and_then_told,
        only::text_that_is_none_fails_nobody,
    }
    score.judge();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keeps_the_contract() {
    let mut score = Score::new("postgres");
    contract::<Postgres>(&mut score).await;
    let score_ref = &mut score;
    promises! { score_ref, Postgres::fresh();
        only::an_idle_beat_is_one_statement,
        only::an_idle_beat_does_not_wait_for_the_disk,
        only::a_claim_reads_the_head_of_the_queue,
        only::a_row_that_an_app_holds_delays_nobody,
        only::times_without_end_are_far_away,
        only::errors_say_what_to_do,
        only::another_encoding_is_refused,
        only::few_connections_are_held,
        only::a_reconciliation_takes_a_new_connection,
        only::a_crash_of_the_server_loses_nothing_acknowledged,
    }
    score.judge();
}
