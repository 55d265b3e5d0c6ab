//! The promises that every store keeps, in one list, and the score of a database that is held to them. Decides
//! what is tried and in which order; how, the worlds decide.

use std::future::Future;
use std::time::Instant;

use crate::world::{State, Tried, World};
use crate::{
    callbacks, claims, ends, hand_backs, keys, leases, limits, nodes, particulars, queues,
    retention, rows, schedules, slowing, turns, unique_keys, views,
};

/// Keeps the score of the promises.
pub(crate) struct Score {
    database: &'static str,
    only: String,
    /// What cannot be tried on this database, and why.
    skipped: &'static [(&'static str, &'static str)],
    /// How many of those were met.
    met: usize,
    broken: Vec<&'static str>,
}

impl Score {
    pub(crate) fn new(
        database: &'static str,
        skipped: &'static [(&'static str, &'static str)],
    ) -> Self {
        let only = std::env::var("PROMISE").unwrap_or_default();
        Self { database, only, skipped, met: 0, broken: Vec::new() }
    }

    /// Try one promise on a database of its own.
    pub(crate) async fn on<W, P, F>(&mut self, name: &'static str, state: State, promise: P)
    where
        W: World,
        P: FnOnce(W) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        if !name.contains(&self.only) {
            return;
        }
        let words = name.replace('_', " ");
        if let Some((_, why)) = self.skipped.iter().find(|(skipped, _)| *skipped == name) {
            self.met += 1;
            println!("{:<9} {words:<63} skipped: {why}", self.database);
            return;
        }
        let begun = Instant::now();
        let kept = match W::attempt(state, promise).await {
            Tried::Kept => "ok",
            Tried::Broken => "BROKEN",
            Tried::Hangs => "HANGS",
        };
        if kept != "ok" {
            self.broken.push(name);
        }
        println!("{:<9} {words:<63} {kept} ({} ms)", self.database, begun.elapsed().as_millis());
    }

    pub(crate) fn judge(self) {
        assert!(self.broken.is_empty(), "{} breaks: {:?}", self.database, self.broken);
        let all_met = !self.only.is_empty() || self.met == self.skipped.len();
        assert!(all_met, "what is skipped is no promise (any more): {:?}", self.skipped);
    }
}

/// Try each of these promises.
macro_rules! promises {
    ($score:expr, $world:ty, $state:ident; $($module:ident :: $promise:ident),* $(,)?) => {
        // (Boxed: all of them together do not fit on a stack.)
        $(Box::pin($score.on::<$world, _, _>(
            stringify!($promise),
            crate::world::State::$state,
            $module::$promise,
        )).await;)*
    };
}
pub(crate) use promises;

/// The promises that every store keeps.
pub(crate) async fn contract<W: World>(score: &mut Score) {
    promises! { score, W, Empty;
        views::ten_migrate_at_once,
        views::ten_agree_on_one_period,
    }
    promises! { score, W, Fresh;
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
        turns::a_check_in_beside_work_is_written_a_fifth_of_a_lease_after_the_last,
        nodes::a_node_hears_that_it_is_asked_to_drain,
        nodes::what_a_node_says_of_its_targets_is_shown,
        claims::claims_take_what_is_due_in_order,
        claims::claims_agree_with_a_plain_sort,
        claims::queues_that_are_left_out_wait,
        claims::no_job_is_claimed_twice,
        claims::a_beat_claims_what_is_due_on_its_boundary,
        claims::a_barred_claim_never_commits,
        claims::a_claim_is_bounded_in_bytes_and_says_so,
        hand_backs::a_claim_that_cannot_be_received_is_released,
        hand_backs::what_a_lost_history_left_behind_runs_again,
        hand_backs::a_lost_history_is_free_ten_times_and_no_more,
        claims::a_row_that_cannot_be_read_ends_dead_and_fails_nobody,
        ends::an_attempt_ends_once,
        ends::an_attempt_that_succeeded_stands_in_its_jobs_row,
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
        leases::a_clock_set_back_keeps_no_job_of_a_node_that_left,
        leases::an_outage_after_a_clock_was_set_back_kills_nobody,
        leases::an_outage_that_outlasts_a_step_back_kills_nobody,
        rows::enqueueing_again_changes_nothing,
        rows::all_jobs_of_an_enqueue_or_none,
        rows::a_plain_insert_is_enough,
        rows::a_poisoned_row_fails_nobody,
        rows::columns_have_limits,
        leases::gone_nodes_are_forgotten,
        retention::only_what_has_ended_and_is_old_enough_is_removed,
        retention::a_job_that_was_given_another_try_is_not_old,
        retention::attempts_go_with_their_jobs,
        retention::a_removal_is_bounded_and_repeated_ones_drain,
        retention::a_removal_disturbs_nobody_at_work,
        retention::a_store_apart_is_the_same_database,
        unique_keys::a_unique_key_is_held_until_the_job_has_ended,
        unique_keys::a_unique_key_is_held_through_its_window,
        unique_keys::a_clock_that_is_set_back_lengthens_windows_and_nothing_else,
        unique_keys::a_job_that_has_lost_its_key_may_run_again,
        unique_keys::an_enqueue_with_a_key_can_be_repeated,
        unique_keys::many_jobs_with_and_without_keys_have_their_ids_in_order,
        unique_keys::of_many_who_come_at_once_one_gets_the_key,
        unique_keys::plain_sql_can_take_a_key_too,
        schedules::a_schedule_is_set_changed_and_removed,
        schedules::each_time_of_a_schedule_is_fired_once,
        schedules::of_many_who_fire_at_once_one_does,
        schedules::a_paused_schedule_fires_when_a_person_says_so,
        schedules::a_schedule_by_plain_sql_begins_with_its_next_time,
        schedules::a_clock_that_was_set_back_keeps_no_schedule_waiting,
        schedules::a_schedule_that_somebody_holds_keeps_no_other_waiting,
        particulars::a_job_says_how_it_is_tried_again,
        particulars::a_queue_says_what_its_jobs_do_not,
        particulars::what_cannot_be_said_is_refused_or_taken_for_the_nearest,
        particulars::a_schedules_jobs_say_what_it_says,
        callbacks::a_job_that_was_accepted_goes_on_elsewhere,
        callbacks::nothing_heard_in_time_is_the_next_attempt,
        callbacks::who_calls_back_says_how_it_ended,
        callbacks::who_calls_back_may_come_before_the_answer,
        callbacks::who_is_not_asked_any_more_changes_nothing,
        callbacks::a_heartbeat_says_how_far_it_is_and_puts_off_the_end,
        callbacks::a_job_that_goes_on_elsewhere_belongs_to_no_node,
        callbacks::an_outage_counts_for_no_heartbeat,
        callbacks::an_outage_counts_for_no_deadline,
        callbacks::one_whose_acceptance_comes_after_an_outage_has_time_left,
        callbacks::what_an_older_binary_claims_does_not_go_on_elsewhere,
        callbacks::a_clock_set_back_before_the_answer_ends_no_job_elsewhere,
        callbacks::what_goes_on_elsewhere_is_counted_with_what_runs,
        callbacks::a_job_that_goes_on_elsewhere_is_cancelled_at_once,
        callbacks::nodes_share_a_secret,
        queues::nothing_is_claimed_from_a_paused_queue,
        queues::what_runs_when_its_queue_is_paused_goes_on,
        queues::queues_are_paused_each_by_itself,
        limits::no_more_run_at_once_than_their_queue_allows,
        limits::a_dead_nodes_jobs_give_their_places_back,
        limits::a_job_that_goes_on_elsewhere_keeps_its_place,
        limits::of_many_who_claim_at_once_none_gets_too_many,
        limits::a_rate_gives_out_its_burst_and_then_one_after_the_other,
        limits::a_clock_that_is_set_back_stops_no_rate,
        limits::limits_that_cannot_be_are_refused,
        keys::only_so_many_jobs_of_a_key_run_at_once,
        keys::a_key_that_is_taken_holds_up_no_other,
        keys::a_job_of_a_key_that_goes_on_elsewhere_keeps_its_place,
        keys::a_deep_backlog_of_one_key_holds_up_no_other,
        keys::of_many_who_claim_at_once_no_key_gets_too_many,
        keys::a_key_is_found_behind_another_beside_a_busy_queue,
        keys::of_many_keys_the_one_that_waits_for_longest_comes_first,
        keys::keys_of_which_nothing_is_due_hide_no_other,
        keys::what_other_limits_keep_back_of_a_queue_with_keys_is_told,
        keys::a_concurrency_key_is_of_any_text_up_to_256_bytes,
        slowing::a_queue_that_is_held_back_gives_out_nothing,
        slowing::only_a_queue_that_heeds_its_targets_is_held_back,
        slowing::a_clock_that_is_set_back_holds_no_queue_back,
        views::jobs_are_listed_by_state_queue_and_page,
        views::a_running_attempt_is_the_last,
        views::the_newest_attempts_are_shown_and_all_are_counted,
        views::retry_makes_it_run_now,
        views::cancel_stops_what_has_not_ended,
        ends::who_holds_a_cancelled_job_hears_of_it,
        views::nodes_are_shown_in_turn_order,
        views::beats_are_shown_from_a_slot_on,
        views::what_runs_and_what_ran_is_shown,
        views::counts_end_at_their_limit,
        views::a_page_is_looked_for_among_so_many,
    }
}
