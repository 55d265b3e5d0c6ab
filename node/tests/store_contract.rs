//! The contract of the stores: what a node may rely on, whatever the database. One list of promises, run
//! on SQLite in a file, on a real PostgreSQL, alone and behind a pooler, and on a real MariaDB; each promise has a database of its own.
//!
//! `PROMISE=words cargo test -p turnwise-node --test store_contract` runs those with `words` in their name.
#![allow(clippy::unwrap_used, reason = "a promise that cannot be tried is broken")]
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

#[path = "store_contract/audit.rs"]
mod audit;
#[path = "store_contract/batches.rs"]
mod batches;
#[path = "store_contract/bulk.rs"]
mod bulk;
#[path = "store_contract/callbacks.rs"]
mod callbacks;
#[path = "store_contract/claims.rs"]
mod claims;
#[path = "store_contract/ends.rs"]
mod ends;
#[path = "store_contract/hand_backs.rs"]
mod hand_backs;
#[path = "store_contract/keys.rs"]
mod keys;
#[path = "store_contract/leases.rs"]
mod leases;
#[path = "store_contract/limits.rs"]
mod limits;
#[path = "store_contract/member.rs"]
mod member;
#[path = "store_contract/mysql.rs"]
mod mysql;
#[path = "store_contract/nodes.rs"]
mod nodes;
#[path = "store_contract/only.rs"]
mod only;
#[path = "store_contract/only_claims.rs"]
mod only_claims;
#[path = "store_contract/only_client.rs"]
mod only_client;
#[path = "store_contract/only_enqueue.rs"]
mod only_enqueue;
#[path = "store_contract/only_mariadb.rs"]
mod only_mariadb;
#[path = "store_contract/only_pooled.rs"]
mod only_pooled;
#[path = "store_contract/only_roles.rs"]
mod only_roles;
#[path = "store_contract/particulars.rs"]
mod particulars;
#[path = "store_contract/pooled.rs"]
mod pooled;
#[path = "store_contract/postgres.rs"]
mod postgres;
#[path = "store_contract/queues.rs"]
mod queues;
#[path = "store_contract/requests.rs"]
mod requests;
#[path = "store_contract/retention.rs"]
mod retention;
#[path = "store_contract/rows.rs"]
mod rows;
#[path = "store_contract/schedules.rs"]
mod schedules;
#[path = "store_contract/score.rs"]
mod score;
#[path = "store_contract/slowing.rs"]
mod slowing;
#[path = "store_contract/sqlite.rs"]
mod sqlite;
#[path = "support/mod.rs"]
mod support;
#[path = "store_contract/tokens.rs"]
mod tokens;
#[path = "store_contract/turns.rs"]
mod turns;
#[path = "store_contract/unique_keys.rs"]
mod unique_keys;
#[path = "store_contract/views.rs"]
mod views;
#[path = "store_contract/world.rs"]
mod world;

use mysql::MySql;
use pooled::Pooled;
use postgres::Postgres;
use score::{Score, contract, promises};
use sqlite::Sqlite;

/// What cannot be tried on PostgreSQL.
const SKIPPED_ON_POSTGRES: [(&str, &str); 1] = [(
    "what_an_older_binary_claims_does_not_go_on_elsewhere",
    "the functions of the schema are the same for all binaries",
)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_the_contract() {
    let mut score = Score::new("sqlite", &[]);
    contract::<Sqlite>(&mut score).await;
    promises! { score, Sqlite, Fresh;
        batches::a_batch_ends_with_the_last_of_its_jobs_and_what_waits_runs,
        batches::a_batch_of_which_not_all_succeeded_fails,
        batches::an_open_batch_waits_to_be_sealed_and_is_sealed_once,
        batches::what_cannot_be_of_a_batch_is_refused_and_nothing_is_written,
        batches::the_same_batch_again_changes_nothing,
        batches::a_cancelled_batch_takes_along_what_waits_for_it,
        batches::a_job_waits_for_jobs,
        batches::a_batch_that_waits_in_vain_for_another_is_looked_at,
        batches::batches_are_looked_at_when_it_is_time,
        batches::after_a_clock_was_set_back_every_batch_is_looked_at_page_by_page,
        batches::of_many_who_look_at_once_one_ends_a_batch,
        batches::a_batch_keeps_its_jobs_until_it_has_ended_and_goes_with_them,
        batches::a_batch_without_jobs_goes_when_it_is_old,
        batches::many_batches_without_jobs_go_some_at_a_time,
        batches::jobs_are_listed_by_their_batch,
        bulk::all_that_a_filter_finds_are_altered_and_no_others,
        bulk::many_are_altered_a_batch_at_a_time_up_to_a_limit,
        bulk::what_goes_on_elsewhere_says_that_it_was_cancelled,
        tokens::a_token_is_made_once_listed_and_revoked,
        tokens::tokens_have_names_and_are_so_many_and_no_more,
        audit::what_was_ordered_is_kept_and_shown_page_by_page,
        audit::entries_go_when_they_are_too_old_and_enqueues_when_many_came_after,
        requests::a_jobs_call_is_read_with_the_beginning_of_its_body,
    }
    promises! { score, Sqlite, Fresh;
        only_client::an_app_enqueues_in_its_own_transaction_on_sqlite,
        only::files_that_will_not_do_are_named,
        only::a_database_in_memory_is_shared_by_its_store,
        only::a_writer_is_waited_for_and_then_told,
        only::text_that_is_none_fails_nobody,
    }
    score.judge();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keeps_the_contract() {
    let mut score = Score::new("postgres", &SKIPPED_ON_POSTGRES);
    contract::<Postgres>(&mut score).await;
    promises! { score, Postgres, Fresh;
        limits::a_queue_that_somebody_holds_keeps_no_other_waiting,
        keys::what_somebody_holds_beside_keys_is_passed_over,
        batches::a_batch_ends_with_the_last_of_its_jobs_and_what_waits_runs,
        batches::a_batch_of_which_not_all_succeeded_fails,
        batches::an_open_batch_waits_to_be_sealed_and_is_sealed_once,
        batches::what_cannot_be_of_a_batch_is_refused_and_nothing_is_written,
        batches::the_same_batch_again_changes_nothing,
        batches::a_cancelled_batch_takes_along_what_waits_for_it,
        batches::a_job_waits_for_jobs,
        batches::a_batch_that_waits_in_vain_for_another_is_looked_at,
        batches::batches_are_looked_at_when_it_is_time,
        batches::after_a_clock_was_set_back_every_batch_is_looked_at_page_by_page,
        batches::a_waiting_job_that_somebody_holds_delays_no_other_batch,
        batches::of_many_who_look_at_once_one_ends_a_batch,
        batches::a_batch_keeps_its_jobs_until_it_has_ended_and_goes_with_them,
        batches::a_batch_without_jobs_goes_when_it_is_old,
        batches::many_batches_without_jobs_go_some_at_a_time,
        batches::jobs_are_listed_by_their_batch,
        bulk::all_that_a_filter_finds_are_altered_and_no_others,
        bulk::many_are_altered_a_batch_at_a_time_up_to_a_limit,
        bulk::what_goes_on_elsewhere_says_that_it_was_cancelled,
        tokens::a_token_is_made_once_listed_and_revoked,
        tokens::tokens_have_names_and_are_so_many_and_no_more,
        audit::what_was_ordered_is_kept_and_shown_page_by_page,
        audit::entries_go_when_they_are_too_old_and_enqueues_when_many_came_after,
        requests::a_jobs_call_is_read_with_the_beginning_of_its_body,
    }
    promises! { score, Postgres, Fresh;
        only::an_idle_beat_is_one_statement,
        only::an_idle_beat_does_not_wait_for_the_disk,
        only::a_claim_reads_the_head_of_the_queue,
        only::looks_read_a_bounded_number_of_pages,
        only::a_row_that_an_app_holds_delays_nobody,
        retention::a_removal_waits_for_nobody,
        only::a_removal_reads_what_it_removes,
        only::a_removal_does_not_wait_for_the_disk,
        only::times_without_end_are_far_away,
        only::errors_say_what_to_do,
        only::a_missing_privilege_is_named_by_its_grant,
        only::another_encoding_is_refused,
        only::few_connections_are_held,
        only::one_who_rests_holds_no_connection,
        only::a_reconciliation_takes_a_new_connection,
        only::a_crash_of_the_server_loses_nothing_acknowledged,
        only_claims::claims_do_not_walk_over_what_was_claimed_under_an_old_snapshot,
        only_claims::nothing_is_compiled_for_a_claim_or_an_end,
        only_client::an_app_enqueues_in_its_own_transaction_on_postgres,
        only_enqueue::a_function_enqueues_what_it_is_given,
        only_enqueue::a_function_enqueues_many,
        only_enqueue::a_function_knows_unique_keys,
        only_enqueue::functions_make_batches,
        only_enqueue::a_function_says_what_is_wrong_and_enqueues_nothing,
        only_roles::who_may_enqueue_does_nothing_else,
        only_roles::to_close_functions_takes_nothing_from_who_had_it,
        only_roles::a_node_may_do_what_nodes_do,
        only_roles::who_may_read_changes_nothing_and_sees_no_secret,
        only_roles::a_grant_that_cannot_be_says_why_and_one_is_taken_back,
    }
    score.judge();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_behind_a_pooler_keeps_the_contract() {
    let mut score = Score::new("pooled", &SKIPPED_ON_POSTGRES);
    contract::<Pooled>(&mut score).await;
    promises! { score, Pooled, Fresh;
        batches::a_batch_ends_with_the_last_of_its_jobs_and_what_waits_runs,
        batches::a_batch_of_which_not_all_succeeded_fails,
        batches::an_open_batch_waits_to_be_sealed_and_is_sealed_once,
        batches::what_cannot_be_of_a_batch_is_refused_and_nothing_is_written,
        batches::the_same_batch_again_changes_nothing,
        batches::a_cancelled_batch_takes_along_what_waits_for_it,
        batches::a_job_waits_for_jobs,
        batches::a_batch_that_waits_in_vain_for_another_is_looked_at,
        batches::batches_are_looked_at_when_it_is_time,
        batches::after_a_clock_was_set_back_every_batch_is_looked_at_page_by_page,
        batches::a_waiting_job_that_somebody_holds_delays_no_other_batch,
        batches::of_many_who_look_at_once_one_ends_a_batch,
        batches::a_batch_keeps_its_jobs_until_it_has_ended_and_goes_with_them,
        batches::a_batch_without_jobs_goes_when_it_is_old,
        batches::many_batches_without_jobs_go_some_at_a_time,
        batches::jobs_are_listed_by_their_batch,
        bulk::all_that_a_filter_finds_are_altered_and_no_others,
        bulk::many_are_altered_a_batch_at_a_time_up_to_a_limit,
        bulk::what_goes_on_elsewhere_says_that_it_was_cancelled,
        tokens::a_token_is_made_once_listed_and_revoked,
        tokens::tokens_have_names_and_are_so_many_and_no_more,
        audit::what_was_ordered_is_kept_and_shown_page_by_page,
        audit::entries_go_when_they_are_too_old_and_enqueues_when_many_came_after,
        requests::a_jobs_call_is_read_with_the_beginning_of_its_body,
    }
    promises! { score, Pooled, Fresh;
        only_pooled::a_beat_is_one_round_trip,
        only_pooled::sessions_are_left_as_they_were,
        retention::a_removal_waits_for_nobody,
        only_pooled::a_pooler_that_was_not_named_is_refused,
    }
    score.judge();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_keeps_the_contract() {
    let mut score = Score::new("mariadb", &[]);
    contract::<MySql>(&mut score).await;
    promises! { score, MySql, Fresh;
        limits::a_queue_that_somebody_holds_keeps_no_other_waiting,
        keys::what_somebody_holds_beside_keys_is_passed_over,
        batches::a_batch_ends_with_the_last_of_its_jobs_and_what_waits_runs,
        batches::a_batch_of_which_not_all_succeeded_fails,
        batches::an_open_batch_waits_to_be_sealed_and_is_sealed_once,
        batches::what_cannot_be_of_a_batch_is_refused_and_nothing_is_written,
        batches::the_same_batch_again_changes_nothing,
        batches::a_cancelled_batch_takes_along_what_waits_for_it,
        batches::a_job_waits_for_jobs,
        batches::a_batch_that_waits_in_vain_for_another_is_looked_at,
        batches::batches_are_looked_at_when_it_is_time,
        batches::after_a_clock_was_set_back_every_batch_is_looked_at_page_by_page,
        batches::a_waiting_job_that_somebody_holds_delays_no_other_batch,
        batches::of_many_who_look_at_once_one_ends_a_batch,
        batches::a_batch_keeps_its_jobs_until_it_has_ended_and_goes_with_them,
        batches::a_batch_without_jobs_goes_when_it_is_old,
        batches::many_batches_without_jobs_go_some_at_a_time,
        batches::jobs_are_listed_by_their_batch,
        bulk::all_that_a_filter_finds_are_altered_and_no_others,
        bulk::many_are_altered_a_batch_at_a_time_up_to_a_limit,
        bulk::what_goes_on_elsewhere_says_that_it_was_cancelled,
        tokens::a_token_is_made_once_listed_and_revoked,
        tokens::tokens_have_names_and_are_so_many_and_no_more,
        audit::what_was_ordered_is_kept_and_shown_page_by_page,
        audit::entries_go_when_they_are_too_old_and_enqueues_when_many_came_after,
        requests::a_jobs_call_is_read_with_the_beginning_of_its_body,
    }
    promises! { score, MySql, Fresh;
        only_mariadb::an_idle_beat_is_three_statements_and_one_that_claims_four,
        only_mariadb::a_claim_reads_the_head_of_the_queue,
        only_mariadb::under_an_old_view_claims_are_quick_and_late_jobs_are_found,
        only_mariadb::jobs_that_were_given_up_are_found_at_once,
        only_mariadb::a_row_that_an_app_holds_delays_nobody,
        retention::a_removal_waits_for_nobody,
        only_mariadb::a_removal_reads_what_it_removes,
        only_mariadb::a_beat_that_is_given_up_frees_the_turn_row,
        only_mariadb::nodes_at_work_at_once_get_no_error,
        only_mariadb::times_are_utc_whoever_writes_them,
        only_client::an_app_enqueues_in_its_own_transaction_on_mariadb,
        only_mariadb::errors_say_what_to_do,
        only_mariadb::a_server_that_cannot_tell_its_stamps_apart_is_refused,
        only_mariadb::the_server_that_takes_writes_is_found_and_found_again,
        only_mariadb::few_connections_are_held,
        only_mariadb::a_reconciliation_takes_a_new_connection,
        only_mariadb::a_crash_of_the_server_loses_nothing_acknowledged,
    }
    score.judge();
}
