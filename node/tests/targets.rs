//! A real node with several targets, one of which is away: its queues wait, the others go on.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

#[path = "support/target.rs"]
mod target;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use target::{Target, refusing_address};
use turnwise_node::job::{JobFilter, JobId, JobState, NewJob};
use turnwise_node::store::{AnyStore, Store};

const PATIENCE: Duration = Duration::from_secs(60);

/// A node on a SQLite file; killed when dropped.
struct Node {
    process: Child,
    store: AnyStore,
    _folder: tempfile::TempDir,
}

impl Node {
    async fn start(targets: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("jobs.db").display());
        let store = AnyStore::connect(&url, 1).unwrap();
        store.migrate().await.unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_turnwise"))
            .args(["run", "--database-url", &url, "--listen", "off", "--period", "100ms"])
            .args(targets.iter().flat_map(|target| ["--target", target.as_str()]))
            .env("TURNWISE_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, store, _folder: folder }
    }

    async fn enqueue(&self, queue: &str, jobs: usize) -> Vec<JobId> {
        let jobs: Vec<_> =
            (0..jobs).map(|_| NewJob { queue: queue.to_owned(), ..NewJob::new("/ok") }).collect();
        self.store.enqueue(&jobs).await.unwrap();
        jobs.iter().map(|job| job.id).collect()
    }

    async fn count(&self, queue: &str, state: JobState) -> usize {
        let queue = Some(queue.to_owned());
        let filter = JobFilter { state: Some(state), queue, limit: 1_000, ..JobFilter::default() };
        self.store.jobs(&filter).await.unwrap().len()
    }

    async fn until_succeeded(&self, queue: &str, jobs: usize) {
        let since = Instant::now();
        while self.count(queue, JobState::Succeeded).await < jobs {
            assert!(since.elapsed() < PATIENCE, "the jobs of {queue} do not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The queue `waits` has the target that is away, the queue `goes` the one that is there.
async fn one_waits_and_one_goes(targets: [String; 2], away: SocketAddr, waits: &str, goes: &str) {
    let node = Node::start(&targets).await;
    let waiting = node.enqueue(waits, 3).await;
    // Many rounds of the other: whoever claims at all would have claimed the waiting ones long since.
    for round in 1..=10 {
        node.enqueue(goes, 5).await;
        node.until_succeeded(goes, 5 * round).await;
    }
    assert_eq!(node.count(waits, JobState::Ready).await, 3);
    for id in &waiting {
        let (job, attempts) = node.store.job(*id).await.unwrap().unwrap();
        assert_eq!(job.attempt, 0, "an attempt was spent on a target that is away");
        assert!(attempts.len() <= 3, "it was claimed again and again: {attempts:?}");
    }
    let back = Target::start_on(away).await;
    node.until_succeeded(waits, 3).await;
    assert_eq!(back.seen().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_whose_target_is_away_holds_up_no_other() {
    let (here, away) = (Target::start().await, refusing_address().await);
    let targets = [here.origin(), format!("reports=http://{away}")];
    one_waits_and_one_goes(targets, away, "reports", "default").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_with_a_target_of_its_own_goes_on_without_the_usual_one() {
    let (here, away) = (Target::start().await, refusing_address().await);
    let targets = [format!("http://{away}"), format!("reports={}", here.origin())];
    one_waits_and_one_goes(targets, away, "default", "reports").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_goes_away_takes_only_its_own_queue_along() {
    let (here, other) = (Target::start().await, Target::start().await);
    let away = other.address();
    let node = Node::start(&[here.origin(), format!("reports={}", other.origin())]).await;
    node.enqueue("reports", 1).await;
    node.until_succeeded("reports", 1).await;
    other.stop().await;
    node.enqueue("reports", 3).await;
    for round in 1..=10 {
        node.enqueue("default", 5).await;
        node.until_succeeded("default", 5 * round).await;
    }
    assert_eq!(node.count("reports", JobState::Dead).await, 0);
    let _back = Target::start_on(away).await;
    node.until_succeeded("reports", 4).await;
}
