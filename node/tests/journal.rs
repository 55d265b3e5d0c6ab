//! The journal of a real node: what its engine was told and asked for in production is what another engine
//! asks for at a desk.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

#[path = "support/target.rs"]
mod target;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use target::Target;
use turnwise_engine::Output;
use turnwise_engine::journal::{Divergence, Entry, Header, replay};
use turnwise_node::job::{JobFilter, JobState, NewJob};
use turnwise_node::store::{AnyStore, Store};

const PATIENCE: Duration = Duration::from_secs(60);

fn start(url: &str, journal: &Path, target: &Target) -> Child {
    Command::new(env!("CARGO_BIN_EXE_turnwise"))
        .args(["run", "--database-url", url, "--listen", "off", "--target", &target.origin()])
        .args(["--period", "100ms", "--capacity", "4", "--journal"])
        .arg(journal)
        .env("TURNWISE_LOG", "info")
        .stdout(Stdio::null())
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

async fn succeed(store: &AnyStore, jobs: usize) {
    let filter = JobFilter { state: Some(JobState::Succeeded), limit: 1_000, ..Default::default() };
    let since = Instant::now();
    while store.jobs(&filter).await.unwrap().len() < jobs {
        assert!(since.elapsed() < PATIENCE, "the jobs do not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn stop(mut node: Child) {
    kill(Pid::from_raw(i32::try_from(node.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(node.wait().unwrap().code(), Some(0));
}

fn read(path: &Path) -> (Header, Vec<Entry>) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let header = serde_json::from_str(lines.next().unwrap()).unwrap();
    (header, lines.map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_of_a_node_is_replayed_without_a_difference() {
    let target = Target::start().await;
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("a.journal");
    let url = format!("sqlite://{}", folder.path().join("jobs.db").display());
    let store = AnyStore::connect(&url, 1).unwrap();
    store.migrate().await.unwrap();
    for run in 1..=2 {
        let jobs: Vec<_> = (0..30).map(|_| NewJob::new("/slow/20")).collect();
        store.enqueue(&jobs).await.unwrap();
        let node = start(&url, &journal, &target);
        succeed(&store, run * jobs.len()).await;
        stop(node);
    }
    let (header, entries) = read(&journal);
    let summary = replay(&header, entries.clone()).unwrap();
    println!("{summary:?}");
    assert_eq!((summary.lives, summary.ended), (2, true));
    let told = |wanted: fn(&Entry) -> bool| entries.iter().filter(|entry| wanted(entry)).count();
    assert!(told(|entry| matches!(entry, Entry::Output(Output::Turn { .. }))) > 10);
    assert!(told(|entry| matches!(entry, Entry::Output(Output::Work { .. }))) > 0);

    // The comparison is one: an output that is left out is missed, at its place.
    let mut without = entries;
    let turn = |entry: &Entry| matches!(entry, Entry::Output(Output::Turn { .. }));
    let place = without.iter().rposition(turn).unwrap();
    without.remove(place);
    let Err(Divergence::Output { entry, .. }) = replay(&header, without) else {
        panic!("an output was left out and not missed")
    };
    assert!(entry > place as u64, "{entry} and {place}");
}

#[test]
fn a_journal_that_cannot_be_written_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_turnwise"))
        .args(["run", "--listen", "off", "--journal", "no/such/folder/j"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("no/such/folder/j") && said.contains("--journal"), "{said}");
}
