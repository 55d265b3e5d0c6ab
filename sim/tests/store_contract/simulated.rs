//! A database under test: on a simulated machine, asked over a simulated network. Plain SQL and the clock are at
//! hand in no time. What only this store can promise.

use std::future::Future;
use std::time::Duration;

use futures_executor::block_on;
use turnwise_node::job::JobId;
use turnwise_node::store::Store;
use turnwise_sim::cluster::contract::{Machine, RemoteStore, elapsed, on_a_machine};
use turnwise_sim::sabotage::PlantedInShell;
use turnwise_sim::scenario::LocalClock;

use crate::member::{Member, enqueue, id, job};
use crate::sqlite::Sqlite;
use crate::world::{NOON, PATIENCE, SECOND, State, Tried, World};

/// A database behind a simulated network.
pub(crate) struct Simulated {
    database: Sqlite,
    machine: Machine,
}

/// What the hosts' clocks show: there is no other time here than the simulated one.
fn host_nanos() -> i64 {
    (NOON + 3_600 * SECOND) * 1_000 + elapsed().as_nanos() as i64
}

impl World for Simulated {
    type Store = RemoteStore;

    /// On a thread of its own: simulated machines have their own runtimes.
    async fn attempt<P, F>(state: State, promise: P) -> Tried
    where
        P: FnOnce(Self) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let attempt = move || {
            let database = block_on(Sqlite::create(state, host_nanos));
            let store = database.opened::<PlantedInShell>();
            let work = move |machine| promise(Self { database, machine });
            on_a_machine(1, LocalClock::default(), Some(store), PATIENCE, work)
        };
        match std::thread::spawn(attempt).join() {
            Ok(Ok(())) => Tried::Kept,
            Ok(Err(why)) => {
                println!("    {why}");
                Tried::Broken
            }
            Err(_) => Tried::Broken,
        }
    }

    fn store(&self) -> RemoteStore {
        self.machine.store()
    }

    async fn set_clock(&self, micros: i64) {
        block_on(self.database.set_clock(micros));
    }

    async fn let_clock_go(&self) {
        block_on(self.database.let_clock_go());
    }

    fn host_nanos(&self) -> i64 {
        host_nanos()
    }

    async fn run(&self, sql: &str) {
        block_on(self.database.run(sql));
    }

    async fn refused(&self, sql: &str) -> Option<String> {
        block_on(self.database.refused(sql))
    }

    async fn number(&self, sql: &str) -> Option<i64> {
        block_on(self.database.number(sql))
    }

    async fn text(&self, sql: &str) -> Option<String> {
        block_on(self.database.text(sql))
    }

    async fn spoil(&self, job: JobId) {
        block_on(self.database.spoil(job));
    }

    fn instant(micros: i64) -> String {
        Sqlite::instant(micros)
    }

    fn micros(column: &str) -> String {
        Sqlite::micros(column)
    }

    fn bytes(length: usize) -> String {
        Sqlite::bytes(length)
    }
}

/// A statement that is given up before its answer came takes its connection with it: it may be done all the same,
/// and what it comes to is never taken for the answer to the next one.
pub(crate) async fn an_answer_that_was_given_up_is_nobody_elses(w: Simulated) {
    let store = w.store();
    let one = enqueue(&store, job()).await;
    for millis in 0..12 {
        let other = job();
        let (patience, jobs) = (Duration::from_millis(millis), [other.clone()]);
        let done = tokio::time::timeout(patience, store.enqueue(&jobs)).await;
        let (view, _) = store.job(one).await.unwrap().unwrap();
        assert_eq!(view.id, one, "given up after {millis} ms");
        if done.is_ok() {
            assert!(store.job(other.id).await.unwrap().is_some());
        }
    }
}

/// Whoever answers an old connection may be the server of before.
pub(crate) async fn a_reconciliation_takes_a_new_connection(w: Simulated) {
    let a = Member::register(&w, 1).await;
    a.renew().await;
    let (holds, last, report) = ([], turnwise_engine::Token(1), Default::default());
    let before = w.machine.connections();
    a.renew().await;
    assert_eq!(w.machine.connections(), before, "a connection is used again");
    a.store.reconcile(id(1), &holds, last, &report).await.unwrap();
    assert_eq!(w.machine.connections(), before + 1);
    a.renew().await;
    assert_eq!(w.machine.connections(), before + 1, "the new one is kept");
}
