//! A database under test: one of a real PostgreSQL, reached through a real PgBouncer in transaction mode. The store sees
//! the pooler; plain SQL goes to the server itself. Decides nothing.

use std::future::Future;
use std::sync::OnceLock;

use turnwise_node::job::JobId;
use turnwise_node::store::postgres::PgStore;
use turnwise_servers::pgbouncer::PgBouncer;

use crate::postgres::{Ground, Postgres};
use crate::world::{self, State, Tried, World};

/// A database behind a pooler.
pub(crate) struct Pooled(Postgres);

/// A server of this arm's own: the other one's is killed now and then.
fn ground() -> &'static Ground {
    static GROUND: OnceLock<Ground> = OnceLock::new();
    GROUND.get_or_init(Ground::start)
}

/// The pooler before it.
pub(crate) fn pooler() -> &'static PgBouncer {
    static POOLER: OnceLock<PgBouncer> = OnceLock::new();
    POOLER.get_or_init(|| PgBouncer::start(ground().cluster()))
}

impl Pooled {
    /// Its URL through the pooler.
    pub(crate) fn url(&self) -> String {
        pooler().url_of(self.0.name())
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.0.name()
    }
}

impl World for Pooled {
    type Store = PgStore;

    async fn attempt<P, F>(state: State, promise: P) -> Tried
    where
        P: FnOnce(Self) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let world = match state {
            State::Empty => Postgres::empty_on(ground()).await,
            State::Fresh => Postgres::fresh_on(ground()).await,
        };
        world::attempt(promise(Self(world))).await
    }

    fn store(&self) -> PgStore {
        PgStore::open(&format!("{}?pooler=transaction", self.url()), 1).unwrap()
    }

    async fn set_clock(&self, micros: i64) {
        self.0.set_clock(micros).await;
    }

    async fn let_clock_go(&self) {
        self.0.let_clock_go().await;
    }

    async fn run(&self, sql: &str) {
        self.0.run(sql).await;
    }

    async fn refused(&self, sql: &str) -> Option<String> {
        self.0.refused(sql).await
    }

    async fn number(&self, sql: &str) -> Option<i64> {
        self.0.number(sql).await
    }

    async fn text(&self, sql: &str) -> Option<String> {
        self.0.text(sql).await
    }

    async fn spoil(&self, job: JobId) {
        self.0.spoil(job).await;
    }

    fn instant(micros: i64) -> String {
        Postgres::instant(micros)
    }

    fn micros(column: &str) -> String {
        Postgres::micros(column)
    }

    fn bytes(length: usize) -> String {
        Postgres::bytes(length)
    }
}
