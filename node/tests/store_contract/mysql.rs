//! A database under test: one of a real MariaDB. Decides nothing.

use std::future::Future;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use turnwise_node::job::JobId;
use turnwise_node::store::Store;
use turnwise_node::store::mysql::MySqlStore;

use crate::world::{self, NOON, State, Tried, World};
use turnwise_servers::mariadb::MariaDb;

/// A database on a real MariaDB.
pub(crate) struct MySql {
    name: String,
    connection: tokio::sync::Mutex<MySqlConnection>,
}

/// In the throwaway databases the store's clock is another: a row says where it stands.
const TEST_CLOCK: &str =
    "coalesce((SELECT c.stands_at FROM test_clock c WHERE c.id = 1), SYSDATE(6))";

/// The one server of this test process.
pub(crate) fn server() -> &'static MariaDb {
    static SERVER: OnceLock<MariaDb> = OnceLock::new();
    SERVER.get_or_init(MariaDb::start)
}

impl MySql {
    pub(crate) fn url(&self) -> String {
        server().url_of(&self.name)
    }

    /// The name of the database.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Connect again, after the server was restarted.
    pub(crate) async fn reconnect(&self) {
        *self.connection.lock().await = connect(&self.name).await;
    }

    /// With the schema and a period of one second; its clock stands at noon.
    pub(crate) async fn fresh() -> Self {
        let world = Self::empty().await;
        let store = world.store();
        store.migrate().await.unwrap();
        store.agree_period(None).await.unwrap();
        world.set_clock(NOON).await;
        world
    }

    /// Without a schema.
    pub(crate) async fn empty() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("contract_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut admin = connect("mysql").await;
        let sql = format!("CREATE DATABASE {name}");
        admin.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
        admin.close().await.unwrap();
        let world = Self { connection: connect(&name).await.into(), name };
        world
            .run(
                "CREATE TABLE test_clock (id INT PRIMARY KEY, stands_at DATETIME(6));
                 INSERT INTO test_clock VALUES (1, NULL)",
            )
            .await;
        world
    }

    /// A store with so many connections.
    pub(crate) fn store_with(&self, max_connections: u32) -> MySqlStore {
        MySqlStore::open_with_clock(&self.url(), max_connections, TEST_CLOCK).unwrap()
    }
}

pub(crate) async fn connect(name: &str) -> MySqlConnection {
    MySqlConnection::connect(&server().url_of(name)).await.unwrap()
}

impl World for MySql {
    type Store = MySqlStore;

    async fn attempt<P, F>(state: State, promise: P) -> Tried
    where
        P: FnOnce(Self) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let world = match state {
            State::Empty => Self::empty().await,
            State::Fresh => Self::fresh().await,
        };
        world::attempt(promise(world)).await
    }

    fn store(&self) -> MySqlStore {
        self.store_with(1)
    }

    async fn set_clock(&self, micros: i64) {
        self.run(&format!("UPDATE test_clock SET stands_at = {}", Self::instant(micros))).await;
    }

    async fn let_clock_go(&self) {
        self.run("UPDATE test_clock SET stands_at = NULL").await;
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
        let sql = format!("WITH q (x) AS ({sql}) SELECT CAST(x AS SIGNED) FROM q");
        let mut connection = self.connection.lock().await;
        let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_optional(&mut *connection);
        row.await.unwrap()?.get(0)
    }

    async fn text(&self, sql: &str) -> Option<String> {
        let sql = sql.replace("turnwise.", "turnwise_");
        let mut connection = self.connection.lock().await;
        let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_optional(&mut *connection);
        row.await.unwrap()?.get(0)
    }

    async fn spoil(&self, job: JobId) {
        self.run("ALTER TABLE turnwise.jobs MODIFY url TEXT NULL").await;
        self.run(&format!("UPDATE turnwise.jobs SET url = NULL WHERE id = '{job}'")).await;
    }

    fn instant(micros: i64) -> String {
        format!("TIMESTAMPADD(MICROSECOND, {micros}, TIMESTAMP'1970-01-01 00:00:00')")
    }

    fn micros(column: &str) -> String {
        format!("TIMESTAMPDIFF(MICROSECOND, TIMESTAMP'1970-01-01 00:00:00', {column})")
    }

    fn bytes(length: usize) -> String {
        format!("REPEAT(x'00', {length})")
    }
}
