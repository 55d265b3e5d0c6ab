//! What a promise needs of a database besides the store: its clock in hand, plain SQL, and further stores
//! on the same database, as other processes would have. Decides nothing.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use tempfile::TempDir;
use turnwise_engine::ServerInstant;
use turnwise_node::job::JobId;
use turnwise_node::store::Store;
use turnwise_node::store::postgres::PgStore;
use turnwise_node::store::sqlite::{ServerClock, SqliteStore};

use crate::support::postgres::Cluster;

/// A database under test.
pub(crate) trait World: Send + Sync + Sized + 'static {
    /// Its store.
    type Store: Store;

    /// A new database with its schema and a period of one second, whose clock stands at [`NOON`].
    fn fresh() -> impl Future<Output = Self> + Send;

    /// A new database without a schema.
    fn empty() -> impl Future<Output = Self> + Send;

    /// A store on this database, with connections of its own.
    fn store(&self) -> Self::Store;

    /// The clock stands at so many microseconds.
    fn set_clock(&self, micros: i64) -> impl Future<Output = ()> + Send;

    /// The clock goes with the host's.
    fn let_clock_go(&self) -> impl Future<Output = ()> + Send;

    /// Run plain SQL, as an app or a person would. Tables are named as in PostgreSQL.
    fn run(&self, sql: &str) -> impl Future<Output = ()> + Send;

    /// What the database says to plain SQL that it refuses.
    fn refused(&self, sql: &str) -> impl Future<Output = Option<String>> + Send;

    /// The one number that a query answers.
    fn number(&self, sql: &str) -> impl Future<Output = Option<i64>> + Send;

    /// The one text that a query answers.
    fn text(&self, sql: &str) -> impl Future<Output = Option<String>> + Send;

    /// Make the row of a job one that cannot be read, as no version of this program and no app that keeps the
    /// schema does.
    fn spoil(&self, job: JobId) -> impl Future<Output = ()> + Send;

    /// An SQL expression for an instant, in microseconds.
    fn instant(micros: i64) -> String;

    /// An SQL expression for the microseconds of a column.
    fn micros(column: &str) -> String;

    /// An SQL expression for so many bytes.
    fn bytes(length: usize) -> String;
}

/// An instant on the boundary of a slot: 2027-01-15 08:00:00 UTC.
pub(crate) const NOON: i64 = 1_800_000_000 * SECOND;
/// A second in microseconds.
pub(crate) const SECOND: i64 = 1_000_000;

/// SQLite in a file.
pub(crate) struct Sqlite {
    folder: TempDir,
    clock: Arc<TestClock>,
    connection: tokio::sync::Mutex<SqliteConnection>,
}

/// A clock that a test sets: stands still, or goes.
#[derive(Debug, Default)]
pub(crate) struct TestClock(Mutex<Option<i64>>);

impl ServerClock for TestClock {
    fn now(&self) -> ServerInstant {
        let host = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64;
        match *self.0.lock().unwrap() {
            Some(micros) => ServerInstant::from_micros(micros),
            None => ServerInstant::from_nanos(host),
        }
    }
}

impl Sqlite {
    pub(crate) fn url(&self) -> String {
        format!("sqlite://{}/turnwise.db", self.folder.path().display())
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}

impl World for Sqlite {
    type Store = SqliteStore;

    async fn fresh() -> Self {
        let world = Self::empty().await;
        let store = world.store();
        store.migrate().await.unwrap();
        store.agree_period(None).await.unwrap();
        world.set_clock(NOON).await;
        world
    }

    async fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("turnwise.db"))
            .create_if_missing(true);
        let connection = SqliteConnection::connect_with(&options).await.unwrap();
        Self { folder, clock: Arc::default(), connection: connection.into() }
    }

    fn store(&self) -> SqliteStore {
        SqliteStore::open_with_clock(&self.url(), Arc::clone(&self.clock) as _).unwrap()
    }

    async fn set_clock(&self, micros: i64) {
        *self.clock.0.lock().unwrap() = Some(micros);
    }

    async fn let_clock_go(&self) {
        *self.clock.0.lock().unwrap() = None;
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

/// A database on a real PostgreSQL.
pub(crate) struct Postgres {
    name: String,
    connection: tokio::sync::Mutex<PgConnection>,
}

/// In the throwaway databases the schema's one clock is another: a row says where it stands.
const TEST_CLOCK: &str = "
    CREATE TABLE public.test_clock (stands_at bigint);
    INSERT INTO public.test_clock VALUES (NULL);
    CREATE OR REPLACE FUNCTION turnwise.clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
        SELECT coalesce(turnwise.instant(stands_at), clock_timestamp()) FROM public.test_clock
    $$;";

/// The one server of this test process.
pub(crate) fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::start)
}

impl Postgres {
    pub(crate) fn url(&self) -> String {
        cluster().url_of(&self.name)
    }

    /// Connect again, after the server was restarted.
    pub(crate) async fn reconnect(&self) {
        *self.connection.lock().await = connect(&self.name).await;
    }

    async fn create(template: &str) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("contract_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut admin = PgConnection::connect(&cluster().url()).await.unwrap();
        let sql = format!("CREATE DATABASE {name} TEMPLATE {template}");
        admin.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
        admin.close().await.unwrap();
        Self { connection: connect(&name).await.into(), name }
    }
}

async fn connect(name: &str) -> PgConnection {
    let mut connection = PgConnection::connect(&cluster().url_of(name)).await.unwrap();
    // What the test itself writes must not show among the server's disk writes.
    connection.execute(sqlx::raw_sql("SET synchronous_commit = off")).await.unwrap();
    connection
}

impl World for Postgres {
    type Store = PgStore;

    async fn fresh() -> Self {
        static TEMPLATE: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
        TEMPLATE
            .get_or_init(|| async {
                cluster().psql("CREATE DATABASE contract");
                let store = PgStore::open(&cluster().url_of("contract"), 1).unwrap();
                store.migrate().await.unwrap();
                store.agree_period(None).await.unwrap();
                drop(store);
                cluster().psql_in("contract", TEST_CLOCK);
                let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'contract'";
                while cluster().psql(sessions) != "0" {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            })
            .await;
        let world = Self::create("contract").await;
        world.set_clock(NOON).await;
        world
    }

    async fn empty() -> Self {
        Self::create("template0").await
    }

    fn store(&self) -> PgStore {
        PgStore::open(&self.url(), 1).unwrap()
    }

    async fn set_clock(&self, micros: i64) {
        self.run(&format!("UPDATE public.test_clock SET stands_at = {micros}")).await;
    }

    async fn let_clock_go(&self) {
        self.run("UPDATE public.test_clock SET stands_at = NULL").await;
    }

    async fn run(&self, sql: &str) {
        let mut connection = self.connection.lock().await;
        connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.unwrap();
    }

    async fn refused(&self, sql: &str) -> Option<String> {
        let mut connection = self.connection.lock().await;
        let done = connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await;
        done.err().map(|error| error.to_string())
    }

    async fn number(&self, sql: &str) -> Option<i64> {
        let sql = format!("SELECT x::bigint FROM ({sql}) q (x)");
        let mut connection = self.connection.lock().await;
        let row =
            sqlx::query(AssertSqlSafe(sql)).fetch_optional(&mut *connection).await.unwrap()?;
        row.get(0)
    }

    async fn text(&self, sql: &str) -> Option<String> {
        let sql = format!("SELECT x::text FROM ({sql}) q (x)");
        let mut connection = self.connection.lock().await;
        let row =
            sqlx::query(AssertSqlSafe(sql)).fetch_optional(&mut *connection).await.unwrap()?;
        row.get(0)
    }

    async fn spoil(&self, job: JobId) {
        self.run("ALTER TABLE turnwise.jobs ALTER COLUMN url DROP NOT NULL").await;
        self.run(&format!("UPDATE turnwise.jobs SET url = NULL WHERE id = '{job}'")).await;
    }

    fn instant(micros: i64) -> String {
        format!("turnwise.instant({micros})")
    }

    fn micros(column: &str) -> String {
        format!("turnwise.micros({column})")
    }

    fn bytes(length: usize) -> String {
        format!("decode(repeat('00', {length}), 'hex')")
    }
}
