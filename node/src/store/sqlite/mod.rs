//! The store on SQLite: every operation is one transaction that may write (`BEGIN IMMEDIATE`); what a
//! statement does to the turn row is decided by the engine's own `TurnRow`. Several processes on one
//! machine may share a file. Decides here how a connection and a transaction begin and end.

mod audit;
mod batches;
mod bulk;
mod callbacks;
mod claims;
mod clock;
mod ends;
mod errors;
mod jobs;
mod keys;
mod limits;
mod nodes;
mod queues;
mod requests;
mod rescue;
mod retention;
mod schedules;
mod tokens;
mod turns;
mod views;

use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row};
use turnwise_engine::{
    Change, Claim, NodeId, Period, ServerIdentity, ServerInstant, Slot, Token, TurnRow,
};

pub use clock::{ServerClock, SystemServerClock};
pub use jobs::enqueue_in;
pub use turns::SqliteTurns;

use super::claim_bytes::{BEAT_BYTES_MAX, CLAIM_BYTES_MAX};
use super::connections::{Connections, Lent};
use super::errors::{Trouble, without_password};
use super::{
    CheckIn, Claimed, DrainAnswer, Fire, Look, NodeReport, NodeView, Prune, Pruned, Queues,
    Registration, ScheduleView, Settled, Store, StoreError, TargetView, lease_nanos,
};
use super::{migrate, rows};
use crate::batch::BatchId;
use crate::job::{Attempts, End, EndOutcome, JobFilter, JobId, JobView, NewJob, SlowDown};
use crate::sabotage::{Sabotage, Sound};

/// How long a statement waits for another connection's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A SQLite database that nodes of one machine share. `B`: the bugs that are planted in what it does.
#[derive(Clone)]
pub struct SqliteStore<B = Sound> {
    inner: Arc<Inner>,
    /// The most that the bodies of one claim come to, and of one beat.
    claim_bytes: usize,
    beat_bytes: usize,
    bugs: PhantomData<B>,
}

struct Inner {
    options: SqliteConnectOptions,
    database: String,
    clock: Arc<dyn ServerClock>,
    connections: Connections<SqliteConnection>,
    /// A database in memory lives as long as a connection to it: this one.
    keeper: Mutex<Option<SqliteConnection>>,
    /// The name of a database in memory.
    in_memory: Option<String>,
}

impl<B> std::fmt::Debug for SqliteStore<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore")
            .field("database", &self.inner.database)
            .finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// The database that `url` names (`sqlite://file.db`, `sqlite:///var/lib/file.db`,
    /// `sqlite::memory:`), on the host's clock. Nothing is opened yet; a missing file is made when it is.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        Self::open_with_clock(url, Arc::new(SystemServerClock))
    }

    /// The same, on a clock of the caller's.
    pub fn open_with_clock(url: &str, clock: Arc<dyn ServerClock>) -> Result<Self, StoreError> {
        Self::sabotaged(url, clock)
    }
}

impl<B: Sabotage> SqliteStore<B> {
    /// The same, with bugs planted.
    pub fn sabotaged(url: &str, clock: Arc<dyn ServerClock>) -> Result<Self, StoreError> {
        let bad = |reason: String| StoreError::BadUrl { url: without_password(url), reason };
        let path = url
            .strip_prefix("sqlite:")
            .ok_or_else(|| bad("it does not begin with `sqlite:`".to_owned()))?;
        let file = path.trim_start_matches("//").split('?').next().unwrap_or_default();
        if file.is_empty() {
            return Err(bad("it names no file".to_owned()));
        }
        let in_memory = file == ":memory:" || path.contains("mode=memory");
        if in_memory {
            return Ok(Self::in_memory(clock));
        }
        let options = {
            let options = SqliteConnectOptions::from_str(url).map_err(|error| match error {
                sqlx::Error::Configuration(reason) => bad(reason.to_string()),
                other => bad(other.to_string()),
            })?;
            if path.contains("mode=") { options } else { options.create_if_missing(true) }
        };
        Ok(Self::of(options, url.to_owned(), clock, None))
    }

    fn in_memory(clock: Arc<dyn ServerClock>) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("/turnwise-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        // Unlike a shared cache, this file system in memory has the locks of a real one.
        let options =
            SqliteConnectOptions::new().filename(&name).vfs("memdb").create_if_missing(true);
        Self::of(options, "sqlite::memory:".to_owned(), clock, Some(name))
    }

    fn of(
        options: SqliteConnectOptions,
        database: String,
        clock: Arc<dyn ServerClock>,
        in_memory: Option<String>,
    ) -> Self {
        let options = options
            .busy_timeout(BUSY_TIMEOUT)
            .synchronous(SqliteSynchronous::Full)
            .disable_statement_logging();
        let (connections, keeper) = (Connections::new(1), Mutex::default());
        let inner = Inner { options, database, clock, connections, keeper, in_memory };
        let inner = Arc::new(inner);
        let (claim_bytes, beat_bytes) = (CLAIM_BYTES_MAX, BEAT_BYTES_MAX);
        Self { inner, claim_bytes, beat_bytes, bugs: PhantomData }
    }

    /// The same, but that a claim, with a beat or without, brings bodies of so many bytes at most, unless they are one job's: so
    /// that simulated jobs can be small and fill it all the same.
    #[must_use]
    pub fn with_claims_of(self, bytes: usize) -> Self {
        Self { claim_bytes: bytes, beat_bytes: bytes, ..self }
    }

    /// A second database in memory that holds what this one, which must be in memory too, holds now. It has
    /// the same clock. For a server that takes over with an older state.
    pub async fn copy(&self) -> Result<Self, StoreError> {
        let (claim_bytes, beat_bytes) = (self.claim_bytes, self.beat_bytes);
        let copy = Self::in_memory(Arc::clone(&self.inner.clock));
        let copy = Self { claim_bytes, beat_bytes, ..copy };
        let Some(name) = &copy.inner.in_memory else { return Ok(copy) };
        let target = format!("file:{name}?vfs=memdb");
        // It lives from its first connection on.
        copy.keep().await?;
        let mut connection = self.connection().await?;
        let copied = sqlx::query("VACUUM INTO ?").bind(target).execute(&mut *connection).await;
        copied.map_err(|error| self.trouble(error.into()))?;
        connection.give_back();
        Ok(copy)
    }

    /// See [`AnyStore::beside`](super::AnyStore::beside).
    pub(super) fn beside(&self) -> Self {
        let Inner { options, database, clock, in_memory, .. } = &*self.inner;
        let inner = Inner {
            options: options.clone(),
            database: database.clone(),
            clock: Arc::clone(clock),
            connections: Connections::new(1),
            keeper: Mutex::default(),
            in_memory: in_memory.clone(),
        };
        Self { inner: Arc::new(inner), ..self.clone() }
    }

    /// Close the connections that nobody uses just now.
    pub fn rest(&self) {
        self.inner.connections.rest();
    }

    fn identity(&self) -> ServerIdentity {
        self.inner.clock.identity()
    }

    fn database(&self) -> &str {
        &self.inner.database
    }

    /// The clock, in the whole microseconds that are stored.
    fn now(&self) -> ServerInstant {
        ServerInstant::from_micros(self.inner.clock.now().as_micros())
    }

    async fn connect(&self) -> Result<SqliteConnection, StoreError> {
        if self.inner.in_memory.is_some() {
            self.keep().await?;
        }
        self.open_file().await.map_err(|trouble| self.trouble(trouble))
    }

    async fn keep(&self) -> Result<(), StoreError> {
        let kept = self.inner.keeper.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if !kept {
            let keeper = self.open_file().await.map_err(|trouble| self.trouble(trouble))?;
            *self.inner.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
        }
        Ok(())
    }

    /// A connection in WAL mode. SQLite does not wait for others while it changes the mode, so this does.
    #[expect(
        clippy::disallowed_methods,
        reason = "a file that is busy is waited for on the machine's own time, however slow a simulation is"
    )]
    async fn open_file(&self) -> Result<SqliteConnection, Trouble> {
        let begun = Instant::now();
        loop {
            match self.try_open_file().await {
                Err(trouble) if errors::is_busy(&trouble) && begun.elapsed() < BUSY_TIMEOUT => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                done => return done,
            }
        }
    }

    async fn try_open_file(&self) -> Result<SqliteConnection, Trouble> {
        let mut connection = SqliteConnection::connect_with(&self.inner.options).await?;
        let mode: String =
            sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut connection).await?;
        // A database in memory has no log.
        if mode != "wal" && self.inner.in_memory.is_none() {
            sqlx::query("PRAGMA journal_mode = WAL").fetch_all(&mut connection).await?;
        }
        Ok(connection)
    }

    async fn connection(&self) -> Result<Lent<SqliteConnection>, StoreError> {
        let place = self.inner.connections.place().await;
        match place.used() {
            Some(connection) => Ok(place.hold(connection)),
            None => Ok(place.hold(self.connect().await?)),
        }
    }

    /// A transaction that may write.
    async fn begin(&self) -> Result<Lent<SqliteConnection>, StoreError> {
        let mut connection = self.connection().await?;
        begin(&mut connection).await.map_err(|trouble| self.trouble(trouble))?;
        Ok(connection)
    }

    /// Commit what came out well, roll back what did not.
    async fn settle<T>(
        &self,
        mut connection: Lent<SqliteConnection>,
        result: Result<T, Trouble>,
    ) -> Result<T, StoreError> {
        let settled = settle(&mut connection, result).await;
        match settled {
            Ok(value) => {
                connection.give_back();
                Ok(value)
            }
            Err(trouble) => Err(self.trouble(trouble)),
        }
    }
}

async fn begin(connection: &mut SqliteConnection) -> Result<(), Trouble> {
    sqlx::query("BEGIN IMMEDIATE").execute(connection).await?;
    Ok(())
}

async fn settle<T>(
    connection: &mut SqliteConnection,
    result: Result<T, Trouble>,
) -> Result<T, Trouble> {
    let committed = match result {
        Ok(value) => sqlx::query("COMMIT").execute(&mut *connection).await.map(|_| value),
        Err(trouble) => {
            // The first error is the one to tell; a failed statement may have rolled back already.
            let _ = sqlx::query("ROLLBACK").execute(connection).await;
            return Err(trouble);
        }
    };
    if committed.is_err() {
        let _ = sqlx::query("ROLLBACK").execute(connection).await;
    }
    Ok(committed?)
}

/// The end of a lease that begins at `at`, in microseconds.
fn lease_end(at: ServerInstant, period: Period) -> i64 {
    at.offset(lease_nanos(period)).as_micros()
}

/// The period in force, for leases.
async fn period(connection: &mut SqliteConnection) -> Result<Period, Trouble> {
    let millis: Option<i64> =
        sqlx::query_scalar("SELECT period_ms FROM turnwise_turn WHERE id = 1")
            .fetch_one(connection)
            .await?;
    millis.map_or(Ok(Period::DEFAULT), rows::period)
}

impl<B: Sabotage> Store for SqliteStore<B> {
    type Turns = SqliteTurns<B>;

    async fn turns(&self) -> Result<SqliteTurns<B>, StoreError> {
        let connection = self.connect().await?;
        SqliteTurns::ready(self.clone(), connection).await
    }

    async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        let mut connection = self.begin().await?;
        let applied = match migrate::sqlite_applied(&mut connection).await {
            Ok(applied) => applied,
            Err(trouble) => return self.settle(connection, Err(trouble)).await,
        };
        if let Err(refused) = migrate::refuse_newer(&applied, self.database()) {
            self.settle(connection, Ok(())).await?;
            return Err(refused);
        }
        let now = self.now().as_micros();
        let names = migrate::sqlite_apply(&mut connection, now, &applied).await;
        self.settle(connection, names).await
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let applied = migrate::sqlite_applied(&mut connection).await;
        connection.give_back();
        let applied = applied.map_err(|trouble| self.trouble(trouble))?;
        migrate::check(migrate::SQLITE, &applied, self.database())
    }

    async fn agree_period(&self, wanted: Option<Period>) -> Result<Period, StoreError> {
        let mut connection = self.begin().await?;
        let found: Result<(i64, Option<i64>), sqlx::Error> = sqlx::query_as(
            "UPDATE turnwise_turn SET period_ms = coalesce(period_ms, ?) WHERE id = 1
             RETURNING period_ms, next_period_ms",
        )
        .bind(i64::from(wanted.unwrap_or(Period::DEFAULT).as_millis()))
        .fetch_one(&mut *connection)
        .await;
        let (has, next) = self.settle(connection, found.map_err(Trouble::from)).await?;
        let has = rows::period(has).map_err(|trouble| self.trouble(trouble))?;
        let next = next.and_then(|millis| rows::period(millis).ok());
        match wanted {
            Some(wanted) if wanted != has && Some(wanted) != next => {
                Err(StoreError::OtherPeriod { has, wanted })
            }
            _ => Ok(has),
        }
    }

    async fn register(&self, node: &Registration) -> Result<(), StoreError> {
        let mut connection = self.begin().await?;
        let done = nodes::register(&mut connection, self.now(), node).await;
        self.settle(connection, done).await
    }

    async fn deregister(&self, node: NodeId) -> Result<(), StoreError> {
        let mut connection = self.begin().await?;
        let done = nodes::deregister(&mut connection, self.now(), node).await;
        self.settle(connection, done).await
    }

    async fn drain(&self, node: NodeId) -> Result<Option<DrainAnswer>, StoreError> {
        let mut connection = self.begin().await?;
        let done = nodes::drain(&mut connection, self.now(), node).await;
        self.settle(connection, done).await
    }

    async fn tell_targets(&self, node: NodeId, targets: &[TargetView]) -> Result<(), StoreError> {
        let mut connection = self.begin().await?;
        let done = nodes::write_targets(&mut connection, node, targets).await;
        self.settle(connection, done).await
    }

    async fn renew(&self, node: NodeId, report: &NodeReport) -> Result<CheckIn, StoreError> {
        let mut connection = self.begin().await?;
        let row = claims::renew(&mut connection, self.now(), node, report).await;
        Ok(known(self.settle(connection, row).await?.is_some()))
    }

    async fn claim(
        &self,
        node: NodeId,
        claim: Claim,
        queues: &Queues,
        report: &NodeReport,
    ) -> Result<Claimed, StoreError> {
        let mut connection = self.begin().await?;
        let (at, most) = (self.now(), self.claim_bytes);
        let done = claims::claim::<B>(&mut connection, at, node, claim, queues, report, most).await;
        self.settle(connection, done).await
    }

    async fn recover(
        &self,
        node: NodeId,
        token: Token,
        report: &NodeReport,
    ) -> Result<Claimed, StoreError> {
        let mut connection = self.begin().await?;
        let done = claims::recover(&mut connection, self.now(), node, token, report).await;
        self.settle(connection, done).await
    }

    async fn release(
        &self,
        node: NodeId,
        token: Token,
        report: &NodeReport,
    ) -> Result<CheckIn, StoreError> {
        let mut connection = self.begin().await?;
        let done = rescue::release(&mut connection, self.now(), node, token, report).await;
        self.settle(connection, done).await
    }

    async fn reconcile(
        &self,
        node: NodeId,
        holds: &[(JobId, Token)],
        last: Token,
        report: &NodeReport,
    ) -> Result<Claimed, StoreError> {
        let mut connection = self.begin().await?;
        let done = rescue::reconcile(&mut connection, self.now(), node, holds, last, report).await;
        self.settle(connection, done).await
    }

    async fn end(
        &self,
        node: NodeId,
        ends: &[End],
    ) -> Result<(Vec<EndOutcome>, CheckIn), StoreError> {
        let mut connection = self.begin().await?;
        let done = ends::end::<B>(&mut connection, self.now(), node, ends).await;
        self.settle(connection, done).await
    }

    async fn enqueue(&self, jobs: &[NewJob]) -> Result<Vec<JobId>, StoreError> {
        rows::check_lengths(jobs)?;
        let mut connection = self.begin().await?;
        let done = jobs::enqueue::<B>(&mut connection, self.now(), jobs).await;
        self.settle(connection, done).await
    }

    async fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobView>, StoreError> {
        let mut connection = self.connection().await?;
        let found = jobs::list(&mut connection, self.now(), filter).await;
        connection.give_back();
        found.map_err(|trouble| self.trouble(trouble))
    }

    async fn job(&self, id: JobId) -> Result<Option<(JobView, Attempts)>, StoreError> {
        let mut connection = self.connection().await?;
        let found = jobs::show(&mut connection, self.now(), id).await;
        connection.give_back();
        found.map_err(|trouble| self.trouble(trouble))
    }

    async fn retry(&self, id: JobId) -> Result<Option<bool>, StoreError> {
        let mut connection = self.begin().await?;
        let done = jobs::retry(&mut connection, self.now(), id).await;
        self.settle(connection, done).await
    }

    async fn cancelled(
        &self,
        node: NodeId,
        held: &[(JobId, Token)],
    ) -> Result<Vec<(JobId, Token)>, StoreError> {
        let mut connection = self.connection().await?;
        let found = jobs::cancelled(&mut connection, node, held).await;
        connection.give_back();
        found.map_err(|trouble| self.trouble(trouble))
    }

    async fn secret(&self, name: &str, offered: &str) -> Result<String, StoreError> {
        let mut connection = self.begin().await?;
        let done = callbacks::secret(&mut connection, name, offered).await;
        self.settle(connection, done).await
    }

    async fn cancel(&self, id: JobId) -> Result<Option<bool>, StoreError> {
        let mut connection = self.begin().await?;
        let done = jobs::cancel(&mut connection, self.now(), id).await;
        self.settle(connection, done).await
    }

    async fn due_schedules(
        &self,
        until: ServerInstant,
    ) -> Result<(ServerInstant, Vec<ScheduleView>), StoreError> {
        let mut connection = self.connection().await?;
        let found = schedules::due(&mut connection, until).await;
        connection.give_back();
        Ok((self.now(), found.map_err(|trouble| self.trouble(trouble))?))
    }

    async fn fire(&self, fire: &Fire) -> Result<bool, StoreError> {
        let mut connection = self.begin().await?;
        let done = schedules::fire::<B>(&mut connection, self.now(), fire).await;
        self.settle(connection, done).await
    }

    async fn due_batches(&self, until: ServerInstant) -> Result<Vec<BatchId>, StoreError> {
        self.list_due_batches(until).await
    }

    async fn slow_down(&self, what: &SlowDown) -> Result<(), StoreError> {
        self.hold_back(what).await
    }

    async fn settle(&self, batches: &[BatchId]) -> Result<Settled, StoreError> {
        self.settle_batches(batches).await
    }

    async fn prune(&self, prune: &Prune) -> Result<Pruned, StoreError> {
        let mut connection = self.begin().await?;
        let done = retention::prune::<B>(&mut connection, self.now(), prune).await;
        self.settle(connection, done).await
    }

    async fn prune_audit(&self) -> Result<u32, StoreError> {
        self.prune_entries().await
    }

    fn apart(&self) -> Self {
        self.beside()
    }

    async fn nodes(&self) -> Result<Vec<NodeView>, StoreError> {
        let look = self.look().await?;
        let mut connection = self.connection().await?;
        let nodes = nodes::list(&mut connection).await;
        connection.give_back();
        let nodes = nodes.map_err(|trouble| self.trouble(trouble))?;
        rows::node_views(nodes, &look).map_err(|trouble| self.trouble(trouble))
    }

    async fn look(&self) -> Result<Look, StoreError> {
        let mut connection = self.connection().await?;
        let found = turns::look(&mut connection, self.now()).await;
        connection.give_back();
        found.map_err(|trouble| self.trouble(trouble))
    }

    async fn stamp(&self) -> Result<(Slot, TurnRow, ServerIdentity), StoreError> {
        let mut connection = self.begin().await?;
        let stamped = turns::stamp_as_nobody(&mut connection, || self.now()).await;
        let (slot, row) = self.settle(connection, stamped).await?;
        Ok((slot, row, self.identity()))
    }

    async fn change(&self, change: &Change, identity: ServerIdentity) -> Result<bool, StoreError> {
        if identity != self.identity() {
            return Ok(false);
        }
        let mut connection = self.begin().await?;
        let done = turns::change_as_nobody(&mut connection, || self.now(), change).await;
        self.settle(connection, done).await
    }
}

fn known(known: bool) -> CheckIn {
    if known { CheckIn::Alive } else { CheckIn::Lost }
}

/// A text as SQLite keeps it, which need not be UTF-8: one bad row must not fail the others.
fn text(row: &SqliteRow, at: usize) -> Result<Option<String>, Trouble> {
    let bytes: Option<Vec<u8>> = row.try_get(at)?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_copy_holds_what_was_there_and_goes_its_own_way() {
        let store = SqliteStore::open("sqlite::memory:").unwrap();
        store.migrate().await.unwrap();
        let (before, after, there) = (NewJob::new("/a"), NewJob::new("/b"), NewJob::new("/c"));
        store.enqueue(std::slice::from_ref(&before)).await.unwrap();
        let copy = store.copy().await.unwrap();
        store.enqueue(std::slice::from_ref(&after)).await.unwrap();
        copy.enqueue(std::slice::from_ref(&there)).await.unwrap();
        let has =
            async |store: &SqliteStore, job: &NewJob| store.job(job.id).await.unwrap().is_some();
        assert!(has(&store, &before).await && has(&copy, &before).await);
        assert!(has(&store, &after).await && !has(&copy, &after).await);
        assert!(!has(&store, &there).await && has(&copy, &there).await);
    }
}
