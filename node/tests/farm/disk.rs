//! A database whose disk is full: the nodes say so and wait, and nothing is lost when there is room again. Needs root,
//! for a disk that is small.

use std::time::Duration;

use turnwise_node::job::{NewJob, When};
use turnwise_node::store::{AnyStore, Store};

use crate::database::Kind;
use crate::farm::Farm;
use crate::support::target::Target;
use crate::wrap::Wrap;

/// The disk's size: the server's own files, and a little room.
const MEGABYTES: u32 = 160;
/// How long it is full.
const FULL: Duration = Duration::from_secs(8);

/// PostgreSQL refuses what needs room, and goes on with the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_postgres_loses_nothing() {
    let told = a_full_disk_loses_nothing(Kind::Postgres).await;
    assert!(told.contains("No space left on device"), "{told}");
}

/// MariaDB ends itself, in the middle of whatever it does, and is started again when there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_mariadb_loses_nothing() {
    let told = a_full_disk_loses_nothing(Kind::Mariadb).await;
    assert!(!told.is_empty());
}

/// What an app is told that enqueues meanwhile.
async fn a_full_disk_loses_nothing(kind: Kind) -> String {
    let target = Target::start().await;
    let mut farm = Farm::start_on_disk_of(kind, MEGABYTES, &target).await;
    farm.node("a", Wrap::None);
    farm.node("b", Wrap::None);
    farm.until_ring_has(2).await;
    farm.enqueue(400, "/slow/300").await;
    farm.until("jobs have run", Duration::from_secs(30), async |farm| {
        farm.count("state = 'succeeded'").await >= 20
    })
    .await;
    farm.database().fill_disk();
    let (kept, told) = overfill(&farm).await;
    farm.until("the nodes say so", Duration::from_secs(30), async |farm| {
        let said = [farm.said("a"), farm.said("b")].concat();
        said.contains("No space left") || said.contains("cannot be reached")
    })
    .await;
    tokio::time::sleep(FULL).await;
    farm.database().free_disk();
    farm.until("every job has ended", Duration::from_secs(120), async |farm| {
        farm.count("url <> '/never' and state in ('queued', 'running')").await == 0
    })
    .await;
    assert_eq!(farm.count("url <> '/never' and state = 'succeeded'").await, 400);
    assert!(farm.count("url = '/never'").await >= kept, "what was acknowledged is lost");
    let mut called: Vec<_> = target.seen().into_iter().map(|seen| seen.job).collect();
    called.sort();
    called.dedup();
    assert_eq!(called.len(), 400, "jobs that reached the target");
    farm.until_ring_has(2).await;
    farm.slots_pass(4).await;
    let calm = farm.last_slot().await;
    farm.slots_pass(6).await;
    assert_eq!(farm.missed_since(calm).await, 0, "{:?}", farm.beats_since(calm).await);
    told
}

/// Enqueue until the database has no room for more: how many jobs it took, and what it says then.
async fn overfill(farm: &Farm) -> (i64, String) {
    let store = AnyStore::connect(&farm.database().urls(), 1).unwrap();
    let mut kept = 0;
    while kept < 10_000 {
        let mut job = NewJob::new("/never");
        job.body = Some(vec![b'x'; 100_000]);
        job.when = When::In(Duration::from_secs(86_400));
        match tokio::time::timeout(Duration::from_secs(10), store.enqueue(&[job])).await {
            Ok(Ok(_)) => kept += 1,
            Ok(Err(error)) => return (kept, error.to_string()),
            Err(_) => return (kept, "no answer".to_owned()),
        }
    }
    panic!("the disk is not full")
}
