//! A farm whose nodes reach their database through a pooler in transaction mode.

use std::time::Duration;

use turnwise_servers::pgbouncer::PgBouncer;

use crate::farm::Farm;
use crate::support::target::Target;
use crate::wrap::Wrap;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_farm_behind_a_pooler_takes_turns_and_runs_jobs() {
    let target = Target::start().await;
    let mut farm = Farm::start(&target).await;
    let pooler = PgBouncer::start(farm.server());
    let url = format!("{}?pooler=transaction", pooler.url_of("postgres"));
    for name in ["a", "b"] {
        farm.node_on(name, Wrap::None, &url);
    }
    farm.until_ring_has(2).await;
    let since = farm.last_slot().await;
    farm.slots_pass(8).await;
    assert_eq!(farm.missed_since(since).await, 0, "{:?}", farm.beats_since(since).await);
    assert_eq!(farm.refused().await, 0);
    farm.enqueue(100, "/slow/200").await;
    let args = ["--database-url", &url, "enqueue", "/ok", "--body", "it's \\ a $1 body"];
    let (code, said) = farm.turnwise(&[&args[2..], &args[..2]].concat());
    assert_eq!(code, Some(0), "{said}");
    farm.until("every job has ended", Duration::from_secs(60), async |farm| {
        farm.count("state = 'succeeded'").await == 101
    })
    .await;
    assert_eq!(target.seen().len(), 101);
    assert_eq!(farm.stop("a").await.code(), Some(0));
    farm.until_ring_has(1).await;
}
