//! Farms of real processes on a real PostgreSQL or MariaDB, judged from the database's own history: whose turn it was,
//! what a join, a stop and a crash cost, and what became of the jobs.
//!
//! The machine may be slow and shared: nothing here measures speed. What is counted are slots, calls and
//! attempts.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

#[path = "../support/mod.rs"]
mod support;

mod database;
mod disk;
mod either;
mod failover;
mod farm;
mod pooler;
mod wrap;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use farm::Farm;
use nix::sys::signal::Signal;
use support::target::Target;
use wrap::Wrap;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_loses_commits_leaves_no_job_behind() {
    let target = Target::start().await;
    let mut farm = Farm::start(&target).await;
    farm.node("a", Wrap::None);
    farm.node("b", Wrap::None);
    farm.until_ring_has(2).await;
    farm.enqueue(6, "/slow/4000").await;
    farm.enqueue(3, "/slow/25000").await;
    farm.until("every job runs", Duration::from_secs(20), async |farm| {
        farm.count("state = 'running'").await == 9
    })
    .await;
    farm.keep_copy_of_database();
    farm.until("the short ones have ended", Duration::from_secs(20), async |farm| {
        farm.count("state = 'succeeded'").await == 6
    })
    .await;
    let timeline = farm.query_text("select turnwise.server_timeline()::text").await;
    assert_eq!(farm.count("state = 'running'").await, 3, "the long ones are too short");
    // The copy knows of no end: there they all run, under nodes that live.
    farm.fail_over_to_copy();
    assert_ne!(farm.query_text("select turnwise.server_timeline()::text").await, timeline);
    farm.until_all_have_ended().await;
    assert_eq!(farm.count("state = 'succeeded' and attempt = 1").await, 9);
    assert_eq!(farm.count("url like '%4000' and hand_backs = 1").await, 6, "put back");
    assert_eq!(farm.count("url like '%25000' and hand_backs = 0").await, 3, "left alone");
    let mut calls: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for seen in target.seen() {
        calls.entry(seen.job).or_default().push(seen.path);
    }
    assert_eq!(calls.len(), 9);
    for (job, paths) in calls {
        let wanted = if paths[0].ends_with("25000") { 1 } else { 2 };
        assert_eq!(paths.len(), wanted, "calls of {job}: {paths:?}");
    }
    let why = "select count(*)::text from turnwise.attempts where error like '%took over%'";
    assert_eq!(farm.query_text(why).await, "6");
    // And the nodes claim again.
    farm.enqueue(4, "/ok").await;
    farm.until("new jobs run", Duration::from_secs(20), async |farm| {
        farm.count("state = 'succeeded'").await == 13
    })
    .await;
    farm.until_ring_has(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stalls_is_lost_and_comes_back_under_a_new_id() {
    let target = Target::start().await;
    let mut farm = Farm::start(&target).await;
    farm.node("a", Wrap::None);
    farm.node("b", Wrap::None);
    farm.until_ring_has(2).await;
    let ring = farm.ring().await;
    farm.enqueue(60, "/slow/2000").await;
    farm.until("the node has work", Duration::from_secs(20), async |farm| {
        farm.running_on("a").await > 0
    })
    .await;
    farm.signal("a", Signal::SIGSTOP);
    farm.until("its jobs are taken from it", Duration::from_secs(10), async |farm| {
        farm.count("last_error = 'node lost'").await > 0
    })
    .await;
    farm.signal("a", Signal::SIGCONT);
    farm.until_all_have_ended().await;
    assert_eq!(farm.count("state = 'succeeded'").await, 60);
    farm.until_ring_has(2).await;
    let ring_then = farm.ring().await;
    let stayed = ring_then.iter().filter(|node| ring.contains(node)).count();
    assert_eq!(stayed, 1, "{ring:?} and then {ring_then:?}");
    let calm = farm.last_slot().await;
    farm.slots_pass(6).await;
    assert_eq!(farm.missed_since(calm).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_of_the_servers_clock_stops_nothing() {
    let target = Target::start().await;
    let mut farm = Farm::start_with_settable_clock(&target).await;
    for name in ["a", "b", "c"] {
        farm.node(name, Wrap::None);
    }
    farm.until_ring_has(3).await;
    let ring = farm.ring().await;
    let mut enqueued = 0;
    for seconds in [3_600, 0, -3_600] {
        farm.enqueue(60, "/slow/1000").await;
        enqueued += 60;
        farm.until("there is work", Duration::from_secs(20), async |farm| {
            farm.count("state = 'running'").await > 0 && farm.count("state = 'queued'").await > 0
        })
        .await;
        let slot = farm.last_slot().await;
        farm.set_server_clock(seconds);
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros();
        let ahead = farm.now_micros().await - wall as i64 - i64::from(seconds) * 1_000_000;
        assert!(ahead.abs() < 10_000_000, "the server's clock was not set: {ahead} us off");
        farm.slots_pass(8).await;
        assert!(farm.last_slot().await > slot, "slots went back");
        farm.until_all_have_ended().await;
        assert_eq!(farm.count("state = 'succeeded'").await, enqueued);
        assert_eq!(farm.ring().await, ring, "somebody was removed");
        let calm = farm.last_slot().await;
        farm.slots_pass(6).await;
        assert_eq!(farm.missed_since(calm).await, 0, "{:?}", farm.beats_since(calm).await);
    }
    let calls = target.seen().len() as i64;
    assert_eq!(calls, enqueued, "a job was called twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_can_never_run_end_dead_and_stop_nobody() {
    let target = Target::start().await;
    let mut farm = Farm::start(&target).await;
    farm.node("a", Wrap::None);
    farm.until_ring_has(1).await;
    let poisoned = [
        ("insert into turnwise.jobs (url) values ('ht!tp://:bad') returning id::text", "URL"),
        (
            "insert into turnwise.jobs (url) values ('http://169.254.169.254/x') returning id::text",
            "",
        ),
        (
            "insert into turnwise.jobs (url) values ('https://elsewhere.example/x') returning id::text",
            "allow",
        ),
        (
            "insert into turnwise.jobs (url, body) values ('/ok', decode(repeat('00', 300000), 'hex')) returning id::text",
            "body",
        ),
        (
            "insert into turnwise.jobs (url, method) values ('/ok', 'NO SUCH') returning id::text",
            "method",
        ),
        (
            "insert into turnwise.jobs (url, headers) values ('/ok', '[1, 2]') returning id::text",
            "header",
        ),
    ];
    let mut ids = Vec::new();
    for (sql, word) in poisoned {
        ids.push((farm.query_text(sql).await, word));
    }
    let good =
        farm.query_text("insert into turnwise.jobs (url) values ('/ok') returning id::text").await;
    farm.until_all_have_ended().await;
    for (id, word) in ids {
        let (state, error) = farm.state_and_error(&id).await;
        assert_eq!(state, "dead", "{error:?}");
        let error = error.unwrap();
        assert!(error.contains(word), "{error:?} should name the {word}");
        assert!(target.seen_of(&id).is_empty());
    }
    assert_eq!(farm.state_and_error(&good).await.0, "succeeded");
    assert_eq!(target.seen_of(&good).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waiting_will_not_mend_is_said_once_with_its_remedy() {
    let target = Target::start().await;
    let mut farm = Farm::start(&target).await;
    // At the start: the node ends.
    farm.execute("create role app login password 'right'").await;
    let run = |user: &str| {
        let url = farm.url_as(user);
        farm.run_to_end(&["run", "--listen", "off", "--database-url", &url])
    };
    let (code, said) = run("app:right");
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("permission denied") && said.contains("GRANT"), "{said}");
    let (code, said) = run("app:wrong");
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("password") && !said.contains("wrong"), "{said}");

    // Later: it says so and goes on trying.
    farm.node("a", Wrap::None);
    farm.until_ring_has(1).await;
    farm.execute("alter function turnwise.jobs_finish rename to gone").await;
    farm.enqueue(1, "/ok").await;
    farm.until("the end of the job fails", Duration::from_secs(20), async |farm| {
        farm.said("a").contains("cannot be recorded")
    })
    .await;
    farm.slots_pass(4).await;
    let said = farm.said("a");
    assert_eq!(said.matches("cannot be recorded").count(), 1, "said again and again");
    assert!(said.contains("turnwise.jobs_finish") && said.contains("turnwise migrate"), "{said}");
    farm.execute("alter function turnwise.gone rename to jobs_finish").await;
    farm.until("the job has ended", Duration::from_secs(20), async |farm| {
        farm.count("state = 'succeeded'").await == 1
    })
    .await;
    assert_eq!(target.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_waits_for_a_target_that_is_away() {
    let target = Target::start().await;
    let address = target.address();
    let mut farm = Farm::start(&target).await;
    target.stop().await;
    farm.node("a", Wrap::None);
    farm.until_ring_has(1).await;
    let since = farm.last_slot().await;
    farm.enqueue(5, "/ok").await;
    farm.slots_pass(4).await;
    assert_eq!(farm.count("state = 'queued' and attempt = 0").await, 5, "nothing is spent");
    assert_eq!(farm.missed_since(since).await, 0, "the node keeps its turns");
    let back = Target::start_on(address).await;
    farm.until("the jobs have run", Duration::from_secs(20), async |farm| {
        farm.count("state = 'succeeded'").await == 5
    })
    .await;
    assert_eq!(back.seen().len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_period_changes_for_the_whole_farm_while_it_runs() {
    let target = Target::start().await;
    let mut farm = Farm::start(&target).await;
    farm.node("a", Wrap::None);
    farm.node("b", Wrap::None);
    farm.until_ring_has(2).await;
    let since = farm.last_slot().await;
    let (code, _) = farm.turnwise(&["period", "400ms"]);
    assert_eq!(code, Some(0));
    farm.slots_pass(20).await;
    assert_eq!(farm.missed_since(since).await, 0, "{:?}", farm.beats_since(since).await);
    let (code, said) = farm.turnwise(&["period"]);
    assert_eq!((code, said.trim()), (Some(0), "the period is 400ms"));
    let other = farm.run_to_end(&["run", "--period", "2s", "--listen", "127.0.0.1:0"]);
    assert_eq!(other.0, Some(78), "{}", other.1);
    assert!(other.1.contains("400ms"), "{}", other.1);
}

/// The state and the targets of a node, as `turnwise nodes --json` shows them.
fn shown(farm: &Farm, name: &str) -> (String, serde_json::Value) {
    let (code, said) = farm.turnwise(&["nodes", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    let nodes: Vec<serde_json::Value> = serde_json::from_str(&said).unwrap();
    let node = nodes.into_iter().find(|node| node["name"] == name).unwrap();
    (node["state"].as_str().unwrap().to_owned(), node["targets"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_the_table_asks_to_drain_goes_as_one_that_is_stopped() {
    let target = Target::start().await;
    let mut farm = Farm::start(&target).await;
    for name in ["a", "b", "c"] {
        farm.node(name, Wrap::None);
    }
    farm.until_ring_has(3).await;
    let since = farm.last_slot().await;
    farm.enqueue(300, "/slow/700").await;
    farm.until("the node has work", Duration::from_secs(20), async |farm| {
        farm.running_on("b").await > 0
    })
    .await;
    let (code, said) = farm.turnwise(&["nodes", "drain", "b"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("is asked to drain"), "{said}");
    assert_eq!(farm.ended("b").await.code(), Some(0), "{}", farm.said("b"));
    assert!(farm.said("b").contains("asked to drain by the table"), "{}", farm.said("b"));
    assert_eq!(shown(&farm, "b").0, "left");
    let (code, said) = farm.turnwise(&["nodes", "drain", "b"]);
    assert_eq!(code, Some(1), "{said}");
    farm.until("every job has ended", Duration::from_secs(90), async |farm| {
        farm.count("state in ('queued', 'running')").await == 0
    })
    .await;
    assert_eq!(farm.count("state = 'succeeded' and attempt = 1").await, 300);
    assert_eq!(farm.count("hand_backs > 0").await, 0);
    assert_eq!(target.seen().len(), 300, "calls");
    farm.until_ring_has(2).await;
    assert_eq!(farm.missed_since(since).await, 0, "{:?}", farm.beats_since(since).await);

    // One that comes back has another row: nothing sticks.
    farm.node("b", Wrap::None);
    farm.until_ring_has(3).await;
    farm.slots_pass(6).await;
    assert_eq!(farm.ring().await.len(), 3);
    assert_eq!(farm.missed_since(since).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_knows_of_its_target_is_shown_and_written_when_it_changes() {
    let target = Target::start().await;
    let address = target.address();
    let mut farm = Farm::start(&target).await;
    farm.node("a", Wrap::None);
    farm.until_ring_has(1).await;
    let answers = |farm: &Farm| shown(farm, "a").1[0]["answers"].clone();
    farm.until("the target is known", Duration::from_secs(30), async |farm| answers(farm) == true)
        .await;
    let writings = "select coalesce(sum(calls), 0)::text from pg_stat_statements
        where query like '%SET targets%' and query not like '%pg_stat_statements%'";
    assert_eq!(farm.query_text(writings).await, "1");
    farm.slots_pass(5).await;
    assert_eq!(farm.query_text(writings).await, "1", "written though nothing changed");
    target.stop().await;
    farm.enqueue(1, "/ok").await;
    farm.until("the target is away", Duration::from_secs(30), async |farm| answers(farm) == false)
        .await;
    let back = Target::start_on(address).await;
    farm.until("the target is back", Duration::from_secs(30), async |farm| answers(farm) == true)
        .await;
    assert_eq!(farm.query_text(writings).await, "3");
    let page = farm.page("a", "/nodes");
    assert!(page.contains(&format!("http://{address}")) && page.contains("answers"), "{page}");
    drop(back);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_jobs_are_removed_while_the_farm_goes_on() {
    let target = Target::start().await;
    let mut farm = Farm::start(&target).await;
    farm.execute(
        "insert into turnwise.jobs (url, state, attempt, finished_at)
         select s.url, s.state, 1, now() - s.ago from (values
            ('/old', 'succeeded', interval '61 minutes', 20000), ('/old', 'cancelled', '61 minutes', 10),
            ('/old', 'dead', '3 hours', 30), ('/young', 'dead', '61 minutes', 20),
            ('/young', 'succeeded', '50 minutes', 40)) s (url, state, ago, jobs), generate_series(1, s.jobs)",
    )
    .await;
    farm.execute(
        "insert into turnwise.attempts (job, node, token, attempt, started_at, finished_at)
         select id, gen_random_uuid(), 1, 1, finished_at, finished_at from turnwise.jobs",
    )
    .await;
    for name in ["a", "b"] {
        farm.node_with(name, &["--keep-succeeded", "1h", "--keep-dead", "2h"]);
    }
    farm.until_ring_has(2).await;
    let since = farm.last_slot().await;
    // One of them looks once a minute.
    farm.until("what is old is gone", Duration::from_secs(150), async |farm| {
        farm.enqueue(20, "/ok").await;
        farm.count("url = '/old'").await == 0
    })
    .await;
    assert_eq!(farm.count("url = '/young'").await, 60);
    farm.until_all_have_ended().await;
    let ended = farm.count("state = 'succeeded' and url = '/ok'").await;
    assert_eq!(ended, farm.count("url = '/ok'").await);
    assert_eq!(target.seen().len() as i64, ended, "calls");
    // Those that succeeded while it was going on stand in their jobs' rows.
    let left = "select (select count(*) from turnwise.attempts a) || ' attempts of '
        || (select count(*) from turnwise.jobs)";
    assert_eq!(farm.query_text(left).await, format!("60 attempts of {}", ended + 60));
    assert_eq!(farm.missed_since(since).await, 0, "{:?}", farm.beats_since(since).await);
    // The connection for it is closed again.
    farm.until("each node holds two connections", Duration::from_secs(20), async |farm| {
        let held =
            "select count(*)::text from pg_stat_activity where application_name = 'turnwise'";
        farm.query_text(held).await == "4"
    })
    .await;
    for name in ["a", "b"] {
        assert_eq!(farm.stop(name).await.code(), Some(0), "{}", farm.said(name));
    }
}
