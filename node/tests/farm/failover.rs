//! What becomes of a farm when its primary dies and a standby takes over: with real servers and real replication.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use turnwise_node::job::{JobId, NewJob};
use turnwise_node::store::{AnyStore, Store};
use turnwise_servers::postgres::Cluster;
use turnwise_servers::replicated::Replication;

use crate::farm::Farm;
use crate::support::target::Target;
use crate::wrap::Wrap;

/// An app that enqueues jobs one by one, and knows which were acknowledged; until it is dropped.
struct App {
    acknowledged: std::sync::Arc<std::sync::Mutex<BTreeSet<JobId>>>,
    task: tokio::task::JoinHandle<()>,
}

impl App {
    /// It makes a new connection after each failure, as an app's pool does; what failed may have been done or not, and is
    /// not counted.
    fn start(farm: &Farm, path: &'static str) -> Self {
        let urls = farm.pair().servers().each_ref().map(Cluster::url);
        let acknowledged = std::sync::Arc::new(std::sync::Mutex::new(BTreeSet::new()));
        let seen = std::sync::Arc::clone(&acknowledged);
        let store = AnyStore::connect_all(&urls, 1).unwrap();
        let task = tokio::spawn(async move {
            loop {
                let job = NewJob::new(path);
                let enqueued = store.enqueue(std::slice::from_ref(&job));
                let done = tokio::time::timeout(Duration::from_secs(5), enqueued).await;
                if matches!(done, Ok(Ok(_))) {
                    seen.lock().unwrap().insert(job.id);
                }
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        });
        Self { acknowledged, task }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    async fn stop(self) -> BTreeSet<JobId> {
        self.task.abort();
        let _ = self.task.await;
        std::mem::take(&mut *self.acknowledged.lock().unwrap())
    }
}

/// The jobs whose calls overlapped, and those that were called more than once.
fn called_twice(target: &Target) -> (Vec<String>, Vec<String>) {
    let mut calls: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for seen in target.seen() {
        calls.entry(seen.job).or_default().push((seen.at, seen.answered));
    }
    let (mut at_once, mut twice) = (Vec::new(), Vec::new());
    for (job, mut times) in calls {
        times.sort();
        if times.len() > 1 {
            twice.push(job.clone());
        }
        let overlaps =
            |pair: &[(_, Option<_>)]| pair[0].1.is_none_or(|answered| answered > pair[1].0);
        if times.windows(2).any(overlaps) {
            at_once.push(job);
        }
    }
    (at_once, twice)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_synchronous_failover_loses_nothing_that_was_acknowledged() {
    let target = Target::start().await;
    let mut farm = Farm::start_replicated(&target, Replication::Synchronous).await;
    for name in ["a", "b", "c"] {
        farm.node(name, Wrap::None);
    }
    farm.until_ring_has(3).await;
    let app = App::start(&farm, "/slow/700");
    farm.until("jobs have run", Duration::from_secs(30), async |farm| {
        farm.count("state = 'succeeded'").await > 40
    })
    .await;
    // Twice: the second time, the first server takes over again, from a copy of the second.
    for _ in 0..2 {
        let (before, acknowledged) = (farm.last_slot().await, app.count());
        let beats = farm.beats_since(0).await;
        farm.pair().fail_over();
        farm.slots_pass(10).await;
        let then = farm.beats_since(before).await;
        println!("slots without a beat: {}", farm.missed_since(before).await);
        assert!(then.iter().all(|beat| beat.slot > before), "slots went back: {then:?}");
        let kept = farm.beats_between(0, before).await.len();
        assert!(kept + 2 >= beats.len(), "{kept} of {} beats are kept", beats.len());
        farm.until("the app goes on", Duration::from_secs(20), async |_| {
            app.count() > acknowledged + 20
        })
        .await;
        farm.pair().rebuild_standby();
        farm.slots_pass(3).await;
    }
    let acknowledged = app.stop().await;
    farm.until_all_have_ended().await;
    let succeeded = "select string_agg(id::text, ' ') from turnwise.jobs where state = 'succeeded'";
    let succeeded = farm.query_text(succeeded).await;
    let succeeded: BTreeSet<&str> = succeeded.split(' ').collect();
    let lost: Vec<_> = acknowledged
        .iter()
        .map(ToString::to_string)
        .filter(|id| !succeeded.contains(id.as_str()))
        .collect();
    println!("{} jobs were acknowledged, {} lost", acknowledged.len(), lost.len());
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let (at_once, twice) = called_twice(&target);
    assert!(at_once.is_empty(), "ran twice at once: {at_once:?}");
    assert!(twice.is_empty(), "was called twice: {twice:?}");
    farm.until_ring_has(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_asynchronous_failover_loses_is_put_right() {
    let target = Target::start().await;
    let mut farm = Farm::start_replicated(&target, Replication::Asynchronous).await;
    farm.node("a", Wrap::None);
    farm.node("b", Wrap::None);
    farm.until_ring_has(2).await;
    farm.enqueue(6, "/slow/4000").await;
    farm.enqueue(3, "/slow/25000").await;
    farm.until("every job runs", Duration::from_secs(20), async |farm| {
        farm.count("state = 'running'").await == 9
    })
    .await;
    let standby_has = || {
        let running = "SELECT count(*) FROM turnwise.jobs WHERE state = 'running'";
        farm.pair().standby().psql(running)
    };
    farm.until("the standby has the claims", Duration::from_secs(20), async |_| {
        standby_has() == "9"
    })
    .await;
    // From here on the standby hears nothing: neither of the ends of the short ones nor of what is enqueued.
    farm.pair().cut_replication();
    farm.enqueue(5, "/ok").await;
    farm.until("the short ones have ended", Duration::from_secs(20), async |farm| {
        farm.count("state = 'succeeded'").await == 11
    })
    .await;
    assert_eq!(farm.count("state = 'running'").await, 3, "the long ones are too short");
    let before = farm.last_slot().await;
    farm.pair().fail_over();
    farm.until_all_have_ended().await;
    assert!(farm.last_slot().await > before, "slots went back");
    // A lost enqueue is lost with its commit; its work was done once.
    assert_eq!(farm.count("url = '/ok'").await, 0);
    assert_eq!(target.seen().iter().filter(|seen| seen.path == "/ok").count(), 5);
    // A lost end makes its job run again, the attempt not spent; what still runs is left alone.
    assert_eq!(farm.count("state = 'succeeded' and attempt = 1").await, 9);
    assert_eq!(farm.count("url like '%4000' and hand_backs = 1").await, 6, "put back");
    assert_eq!(farm.count("url like '%25000' and hand_backs = 0").await, 3, "left alone");
    let (at_once, twice) = called_twice(&target);
    assert_eq!((at_once.len(), twice.len()), (0, 6), "{at_once:?} {twice:?}");
    // And the nodes claim again.
    farm.enqueue(4, "/ok").await;
    farm.until("new jobs run", Duration::from_secs(20), async |farm| {
        farm.count("state = 'succeeded'").await == 13
    })
    .await;
    farm.until_ring_has(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_primary_that_comes_back_gets_nothing() {
    let target = Target::start().await;
    let mut farm = Farm::start_replicated(&target, Replication::Asynchronous).await;
    farm.node("a", Wrap::None);
    farm.node("b", Wrap::None);
    farm.until_ring_has(2).await;
    // It does not die: it only does not answer, and the standby takes over meanwhile.
    let pair = farm.pair();
    let ask_old = |farm: &Farm, sql: &str| farm.pair().servers()[0].psql(sql);
    pair.primary().pause();
    pair.promote();
    let beats = "SELECT count(*) FROM turnwise.beats";
    let before = farm.last_slot().await;
    farm.until("beats go on from the new one", Duration::from_secs(30), async |farm| {
        farm.last_slot().await > before + 5
    })
    .await;
    farm.pair().standby().resume();
    // What was on its way to it when it stopped may be carried out now: one statement of each connection.
    farm.slots_pass(2).await;
    let then = ask_old(&farm, beats);
    ask_old(&farm, "INSERT INTO turnwise.jobs (url) VALUES ('/old')");
    farm.node("c", Wrap::None);
    farm.until_ring_has(3).await;
    farm.enqueue(5, "/ok").await;
    farm.slots_pass(15).await;
    assert_eq!(ask_old(&farm, beats), then, "the old primary gets beats");
    assert_eq!(farm.count("state = 'succeeded'").await, 5);
    assert_eq!(target.seen().len(), 5, "a job of the old primary was run");
    let said = farm.said("c");
    assert!(said.contains("timeline 1") && said.contains("pg_rewind"), "{said}");
    // Nor when it is the only one that answers: the nodes have seen the newer one.
    farm.crash_database();
    farm.until("they say why they wait", Duration::from_secs(30), async |farm| {
        farm.said("a").contains("is an old primary")
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(ask_old(&farm, beats), then, "the old primary gets beats");
    farm.restart_database().await;
    farm.slots_pass(5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_was_replaced_and_goes_on_answering_is_left() {
    let target = Target::start().await;
    let mut farm = Farm::start_replicated(&target, Replication::Asynchronous).await;
    farm.node("a", Wrap::None);
    farm.node("b", Wrap::None);
    farm.until_ring_has(2).await;
    let ask_old = |farm: &Farm, sql: &str| farm.pair().servers()[0].psql(sql);
    // Those who only look have connections to it as well.
    farm.start_command("events", &["events"]);
    farm.until("the events are told", Duration::from_secs(20), async |farm| {
        farm.said("events").contains(" in slot ")
    })
    .await;
    let enqueue = "INSERT INTO turnwise.jobs (url) VALUES ('/ok') RETURNING id::text";
    let job = farm.query_text(enqueue).await;
    let shows = |farm: &Farm, job: &str| {
        farm.page("a", &format!("/jobs/{job}")).starts_with("HTTP/1.1 200")
    };
    assert!(shows(&farm, &job), "{}", farm.page("a", &format!("/jobs/{job}")));
    let before = farm.last_slot().await;
    // The nodes' connections to the old one stand, and every statement is answered.
    farm.pair().promote();
    let both = "SELECT count(DISTINCT node)::text FROM turnwise.beats WHERE slot > ";
    farm.until("both beat at the new one", Duration::from_secs(60), async |farm| {
        farm.query_text(&format!("{both}{before}")).await == "2"
    })
    .await;
    farm.until_ring_has(2).await;
    let beats = "SELECT count(*) FROM turnwise.beats";
    let then = ask_old(&farm, beats);
    let since = farm.last_slot().await;
    farm.slots_pass(12).await;
    assert_eq!(ask_old(&farm, beats), then, "the old primary gets beats");
    assert_eq!(farm.missed_since(since).await, 0, "{:?}", farm.beats_since(since).await);
    assert!(farm.said("a").contains("timeline 1"), "{}", farm.said("a"));
    // The pages are about the new one, and so are the events.
    let job = farm.query_text(enqueue).await;
    assert!(shows(&farm, &job), "{}", farm.page("a", &format!("/jobs/{job}")));
    farm.until("the events are the new one's", Duration::from_secs(60), async |farm| {
        let last = farm.last_slot().await;
        (since..=last).any(|slot| farm.said("events").contains(&format!(" in slot {slot}: ")))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_replica_alone_says_so_and_waits() {
    let target = Target::start().await;
    let mut farm = Farm::start_replicated(&target, Replication::Synchronous).await;
    let url = farm.pair().standby().url().replace("postgres@", "postgres:geheim@");
    let run = ["run", "--listen", "off", "--fail-fast", "--database-url", &url];
    let (code, said) = farm.run_to_end(&run);
    assert_eq!(code, Some(69), "{said}");
    for words in ["is a read-only replica", "pg_is_in_recovery()", "--database-url"] {
        assert!(said.contains(words), "{said}");
    }
    assert!(!said.contains("geheim"), "{said}");
    farm.node_on("a", Wrap::None, &url);
    farm.until("it says so", Duration::from_secs(20), async |farm| {
        farm.said("a").contains("is a read-only replica")
    })
    .await;
    farm.pair().fail_over();
    farm.until_ring_has(1).await;
    // A command finds the primary among all of them, wherever it stands.
    let (code, said) = farm.turnwise(&["nodes"]);
    assert_eq!(code, Some(0), "{said}");
}
