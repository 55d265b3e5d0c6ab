//! A database under test: SQLite in a file. Decides nothing.

use std::future::Future;
use std::sync::{Arc, Mutex};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use tempfile::TempDir;
use turnwise_engine::ServerInstant;
use turnwise_node::job::JobId;
use turnwise_node::sabotage::Sabotage;
use turnwise_node::store::Store;
use turnwise_node::store::sqlite::{ServerClock, SqliteStore};

use crate::world::{self, NOON, State, Tried, World, system_nanos};

/// SQLite in a file.
pub(crate) struct Sqlite {
    folder: TempDir,
    clock: Arc<TestClock>,
    connection: tokio::sync::Mutex<SqliteConnection>,
}

/// A clock that a test sets: stands still, or goes with the host's.
#[derive(Debug)]
pub(crate) struct TestClock {
    stands_at: Mutex<Option<i64>>,
    /// What the host's shows, in nanoseconds since the Unix epoch.
    host: fn() -> i64,
}

impl ServerClock for TestClock {
    fn now(&self) -> ServerInstant {
        match *self.stands_at.lock().unwrap() {
            Some(micros) => ServerInstant::from_micros(micros),
            None => ServerInstant::from_nanos((self.host)()),
        }
    }
}

impl Sqlite {
    /// A new database, on a host with this clock.
    pub(crate) async fn create(state: State, host: fn() -> i64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("turnwise.db"))
            .create_if_missing(true);
        let connection = SqliteConnection::connect_with(&options).await.unwrap();
        let clock = Arc::new(TestClock { stands_at: Mutex::default(), host });
        let world = Self { folder, clock, connection: connection.into() };
        if state == State::Fresh {
            let store = world.store();
            store.migrate().await.unwrap();
            store.agree_period(None).await.unwrap();
            world.set_clock(NOON).await;
        }
        world
    }

    pub(crate) fn url(&self) -> String {
        format!("sqlite://{}/turnwise.db", self.folder.path().display())
    }

    #[allow(dead_code, reason = "not every test crate looks into it")]
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// The store, with whatever is planted in it.
    pub(crate) fn opened<B: Sabotage>(&self) -> SqliteStore<B> {
        SqliteStore::sabotaged(&self.url(), Arc::clone(&self.clock) as _).unwrap()
    }
}

impl World for Sqlite {
    type Store = SqliteStore;

    async fn attempt<P, F>(state: State, promise: P) -> Tried
    where
        P: FnOnce(Self) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        world::attempt(promise(Self::create(state, system_nanos).await)).await
    }

    fn store(&self) -> SqliteStore {
        self.opened()
    }

    async fn set_clock(&self, micros: i64) {
        *self.clock.stands_at.lock().unwrap() = Some(micros);
    }

    async fn let_clock_go(&self) {
        *self.clock.stands_at.lock().unwrap() = None;
    }

    async fn run(&self, sql: &str) {
        let sql = sql.replace("turnwise.", "turnwise_");
        let mut connection = self.connection.lock().await;
        connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    }

    async fn refused(&self, sql: &str) -> Option<String> {
        let sql = sql.replace("turnwise.", "turnwise_");
        let mut connection = self.connection.lock().await;
        let done = connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await;
        done.err().map(|error| error.to_string())
    }

    async fn number(&self, sql: &str) -> Option<i64> {
        let sql = sql.replace("turnwise.", "turnwise_");
        let mut connection = self.connection.lock().await;
        let row =
            sqlx::query(AssertSqlSafe(sql)).fetch_optional(&mut *connection).await.unwrap()?;
        row.get(0)
    }

    async fn text(&self, sql: &str) -> Option<String> {
        let sql = sql.replace("turnwise.", "turnwise_");
        let mut connection = self.connection.lock().await;
        let row =
            sqlx::query(AssertSqlSafe(sql)).fetch_optional(&mut *connection).await.unwrap()?;
        row.get(0)
    }

    async fn spoil(&self, job: JobId) {
        self.run("PRAGMA ignore_check_constraints = ON").await;
        self.run(&format!("UPDATE turnwise.jobs SET id = 'no id: ' || id WHERE id = '{job}'"))
            .await;
        self.run("PRAGMA ignore_check_constraints = OFF").await;
    }

    fn instant(micros: i64) -> String {
        micros.to_string()
    }

    fn micros(column: &str) -> String {
        column.to_owned()
    }

    fn bytes(length: usize) -> String {
        format!("zeroblob({length})")
    }
}
