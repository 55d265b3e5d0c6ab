//! A database under test: one of a real PostgreSQL. Decides nothing.

use std::future::Future;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use turnwise_node::job::JobId;
use turnwise_node::store::Store;
use turnwise_node::store::postgres::PgStore;

use crate::world::{self, NOON, State, Tried, World};
use turnwise_servers::postgres::Cluster;

/// A database on a real PostgreSQL.
pub(crate) struct Postgres {
    cluster: &'static Cluster,
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

/// A server on which databases are made.
pub(crate) struct Ground {
    cluster: Cluster,
    /// There is a database with the schema, to be copied.
    template: tokio::sync::OnceCell<()>,
}

impl Ground {
    pub(crate) fn start() -> Self {
        Self { cluster: Cluster::start(), template: tokio::sync::OnceCell::const_new() }
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}

/// The server of this arm.
fn ground() -> &'static Ground {
    static GROUND: OnceLock<Ground> = OnceLock::new();
    GROUND.get_or_init(Ground::start)
}

/// The same.
pub(crate) fn cluster() -> &'static Cluster {
    ground().cluster()
}

impl Postgres {
    pub(crate) fn url(&self) -> String {
        self.cluster.url_of(&self.name)
    }

    /// The name of the database.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Connect again, after the server was restarted.
    pub(crate) async fn reconnect(&self) {
        *self.connection.lock().await = connect(self.cluster, &self.name).await;
    }

    /// With the schema and a period of one second; its clock stands at noon.
    pub(crate) async fn fresh() -> Self {
        Self::fresh_on(ground()).await
    }

    /// Without a schema.
    pub(crate) async fn empty() -> Self {
        Self::empty_on(ground()).await
    }

    /// The same on another server.
    pub(crate) async fn fresh_on(ground: &'static Ground) -> Self {
        let cluster = &ground.cluster;
        let template = async || {
            cluster.psql("CREATE DATABASE contract");
            let store = PgStore::open(&cluster.url_of("contract"), 1).unwrap();
            store.migrate().await.unwrap();
            store.agree_period(None).await.unwrap();
            drop(store);
            cluster.psql_in("contract", TEST_CLOCK);
            let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'contract'";
            while cluster.psql(sessions) != "0" {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        ground.template.get_or_init(template).await;
        let world = Self::create(cluster, "contract").await;
        world.set_clock(NOON).await;
        world
    }

    /// The same on another server.
    pub(crate) async fn empty_on(ground: &'static Ground) -> Self {
        Self::create(&ground.cluster, "template0").await
    }

    async fn create(cluster: &'static Cluster, template: &str) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("contract_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut admin = PgConnection::connect(&cluster.url()).await.unwrap();
        let sql = format!("CREATE DATABASE {name} TEMPLATE {template}");
        admin.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
        admin.close().await.unwrap();
        Self { cluster, connection: connect(cluster, &name).await.into(), name }
    }
}

async fn connect(cluster: &Cluster, name: &str) -> PgConnection {
    let mut connection = PgConnection::connect(&cluster.url_of(name)).await.unwrap();
    // What the test itself writes must not show among the server's disk writes.
    connection.execute(sqlx::raw_sql("SET synchronous_commit = off")).await.unwrap();
    connection
}

impl World for Postgres {
    type Store = PgStore;

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
