//! What a farm does on either kind of database: turns, a node that dies, an outage.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::database::Kind;
use crate::farm::Farm;
use crate::support::target::Target;
use crate::wrap::Wrap;

/// Each of these as a test on both.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Kind::Postgres).await;
            })+
        }

        mod on_mariadb {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Kind::Mariadb).await;
            })+
        }
    };
}

on_both!(
    three_nodes_with_wrong_clocks_take_turns,
    a_killed_nodes_jobs_run_again_and_nothing_is_lost,
    an_outage_of_the_database_runs_no_job_twice,
);

async fn three_nodes_with_wrong_clocks_take_turns(kind: Kind) {
    let target = Target::start().await;
    let mut farm = Farm::start_of(kind, &target).await;
    farm.node("plain", Wrap::None);
    farm.node("early", Wrap::Faketime("-0.9"));
    farm.node("uptime", Wrap::TimeNamespace(5_000));
    farm.until_ring_has(3).await;

    // Idle: one beat a slot, in strict alternation, and no other statement of a turn.
    let (first, calls) = farm.beats_and_calls().await;
    let slots = std::env::var("TURNWISE_FARM_SLOTS").map_or(20, |slots| slots.parse().unwrap());
    farm.slots_pass(slots).await;
    let (last, calls_then) = farm.beats_and_calls().await;
    let turns = farm.beats_between(first, last).await;
    assert_eq!(turns.len() as i64, last - first, "a slot without a beat: {turns:?}");
    for pair in turns.windows(4) {
        assert_eq!(pair[0].node, pair[3].node, "not in turn: {turns:?}");
        assert_ne!(pair[0].node, pair[1].node, "not in turn: {turns:?}");
        assert_ne!(pair[0].node, pair[2].node, "not in turn: {turns:?}");
    }
    if let (Some(calls), Some(calls_then)) = (calls, calls_then) {
        assert_eq!(calls_then - calls, last - first, "calls of the beat statement and beats");
    }
    assert_eq!(farm.refused().await, 0);

    // A join, a stop and a crash, idle.
    let since = last;
    farm.node("fourth", Wrap::None);
    farm.until_ring_has(4).await;
    farm.slots_pass(6).await;
    assert_eq!(farm.missed_since(since).await, 0, "a join");
    let status = farm.stop("early").await;
    assert_eq!(status.code(), Some(0), "a stopped node's exit");
    farm.slots_pass(8).await;
    assert_eq!(farm.missed_since(since).await, 0, "a stop");
    farm.kill("uptime");
    farm.until_ring_has(2).await;
    farm.slots_pass(6).await;
    assert!(farm.missed_since(since).await <= 1, "a crash: {:?}", farm.beats_since(since).await);
    assert_eq!(farm.refused().await, 0);
}

async fn a_killed_nodes_jobs_run_again_and_nothing_is_lost(kind: Kind) {
    let target = Target::start().await;
    let mut farm = Farm::start_of(kind, &target).await;
    for name in ["a", "b", "c"] {
        farm.node(name, Wrap::None);
    }
    farm.until_ring_has(3).await;
    let since = farm.last_slot().await;
    farm.enqueue(500, "/slow/300").await;
    farm.until("half of the jobs have ended", Duration::from_secs(60), async |farm| {
        farm.count("state = 'succeeded'").await >= 200 && farm.running_on("b").await > 0
    })
    .await;
    let held = farm.kill_holding("b").await;
    assert!(!held.is_empty(), "the killed node held no job");
    let killed_at = farm.now_micros().await;
    farm.until_all_have_ended().await;
    assert_eq!(farm.count("state = 'succeeded'").await, 500);
    for job in &held {
        let attempts = farm.attempts(job).await;
        assert_eq!(attempts.len(), 2, "{job}: {attempts:?}");
        assert_eq!(attempts[0].error.as_deref(), Some("node lost"));
        let again = attempts[1].started_micros - killed_at;
        assert!(again <= 5_000_000, "{job} ran again after {again} us");
    }
    let mut calls: BTreeMap<String, usize> = BTreeMap::new();
    for seen in target.seen() {
        *calls.entry(seen.job).or_default() += 1;
    }
    assert_eq!(calls.len(), 500, "jobs that reached the target");
    for (job, count) in calls {
        let allowed = if held.contains(&job) { 2 } else { 1 };
        assert!(count <= allowed, "{job} was called {count} times");
    }
    assert!(farm.missed_since(since).await <= 1, "a crash under load");

    // A join and a stop in the middle of work: the jobs finish, and no slot is missed.
    farm.until_ring_has(2).await;
    farm.slots_pass(5).await;
    let since = farm.last_slot().await;
    farm.enqueue(300, "/slow/1500").await;
    farm.until("the node has work", Duration::from_secs(20), async |farm| {
        farm.running_on("a").await > 0
    })
    .await;
    farm.node("d", Wrap::None);
    farm.until_ring_has(3).await;
    assert!(farm.count("state = 'running'").await > 0, "it joined after the work was done");
    assert_eq!(farm.missed_since(since).await, 0, "a join under load");
    assert_eq!(farm.stop("a").await.code(), Some(0));
    farm.until_all_have_ended().await;
    assert_eq!(farm.count("state = 'succeeded'").await, 800);
    assert_eq!(farm.count("hand_backs > 0").await, 0);
    assert_eq!(farm.missed_since(since).await, 0, "a stop under load");
}

async fn an_outage_of_the_database_runs_no_job_twice(kind: Kind) {
    let target = Target::start().await;
    let mut farm = Farm::start_of(kind, &target).await;
    for name in ["a", "b", "c"] {
        farm.node(name, Wrap::None);
    }
    farm.until_ring_has(3).await;
    farm.enqueue(200, "/slow/2000").await;
    farm.until("every node has work", Duration::from_secs(30), async |farm| {
        let mut working = true;
        for name in ["a", "b", "c"] {
            working &= farm.running_on(name).await > 0;
        }
        working
    })
    .await;
    let before = farm.last_slot().await;
    farm.crash_database();
    tokio::time::sleep(Duration::from_secs(4)).await;
    farm.restart_database().await;
    farm.until_all_have_ended().await;
    assert_eq!(farm.count("state = 'succeeded'").await, 200);
    let mut calls: BTreeMap<String, usize> = BTreeMap::new();
    for seen in target.seen() {
        *calls.entry(seen.job).or_default() += 1;
    }
    assert_eq!(calls.len(), 200);
    let twice: Vec<_> = calls.iter().filter(|(_, count)| **count != 1).collect();
    assert!(twice.is_empty(), "called more than once: {twice:?}");
    farm.until_ring_has(3).await;
    // The outage is one gap; after it, at most three slots more are missed.
    let beats = farm.beats_since(before).await;
    let slots: Vec<_> = [before].into_iter().chain(beats.iter().map(|beat| beat.slot)).collect();
    let outage = slots.windows(2).map(|pair| pair[1] - pair[0] - 1).max().unwrap();
    let missed = farm.missed_since(before).await - outage;
    assert!(missed <= 3, "{missed} slots missed beside the outage's {outage}: {beats:?}");
}
