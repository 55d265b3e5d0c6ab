//! The store on MariaDB and MySQL: every operation is one transaction; what a statement does to the turn row is decided
//! by the engine's own `TurnRow`, as on SQLite. Neither server can return the rows that an `UPDATE` changed (and only
//! MariaDB those of an `INSERT`), so that a transaction is a locking read, a decision made here, and then all that it
//! writes, `COMMIT` included, in one packet. Decides here how a connection and a transaction begin and end.

mod audit;
mod batches;
mod bulk;
mod callbacks;
mod claims;
mod ends;
mod errors;
mod held;
mod jobs;
mod keys;
mod lanes;
mod limits;
mod literals;
mod nodes;
mod parameters;
mod queues;
mod requests;
mod rescue;
mod retention;
mod schedules;
mod session;
mod tokens;
mod turns;
mod views;

use std::sync::Arc;
use std::time::Duration;

use sqlx::Row;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use tokio::time::timeout;
use turnwise_engine::{
    Change, Claim, NodeId, Period, ServerIdentity, ServerInstant, Slot, Token, TurnRow,
};

pub use jobs::enqueue_in;
pub use turns::MySqlTurns;

use self::lanes::Lanes;
use self::literals::{instant, number_or_null};
use self::session::{Server, Session};
use super::connections::{Connections, Lent, Place};
use super::errors::Trouble;
use super::servers::{Line, Servers};
use super::urls;
use super::{
    CheckIn, Claimed, DrainAnswer, Fire, Look, NodeReport, NodeView, Prune, Pruned, Queues,
    Registration, ScheduleView, Settled, Store, StoreError, TargetView, lease_nanos,
};
use super::{migrate, rows};
use crate::batch::BatchId;
use crate::job::{Attempts, End, EndOutcome, JobFilter, JobId, JobView, NewJob, SlowDown};

/// How long to wait for a connection that is in use.
const PLACE_TIMEOUT: Duration = Duration::from_secs(5);
/// The server's clock, where nothing else is put in its place: when it is evaluated, not when the statement began.
const CLOCK: &str = "SYSDATE(6)";
/// The most bytes of statements in one packet, but for one that is longer by itself. The server takes what
/// `max_allowed_packet` says.
const PACKET_BYTES_MAX: usize = 1 << 20;

/// An SQL expression for the microseconds of a time.
macro_rules! micros_of {
    ($time:literal) => {
        concat!("TIMESTAMPDIFF(MICROSECOND, TIMESTAMP'1970-01-01 00:00:00', ", $time, ")")
    };
}
use micros_of;

/// An SQL literal for the time until which a job is put off that waits for a batch,
/// [`HELD_UNTIL_US`](crate::batch::HELD_UNTIL_US).
macro_rules! held_until {
    () => {
        "TIMESTAMP'2260-01-01 00:00:00.000000'"
    };
}
use held_until;

/// A MariaDB or MySQL database that nodes share.
#[derive(Clone)]
pub struct MySqlStore {
    inner: Arc<Inner>,
}

struct Inner {
    servers: Arc<Servers<Server>>,
    /// The SQL expression that reads the server's clock.
    clock: String,
    connections: Connections<Line<Session>>,
    lanes: Lanes,
}

impl std::fmt::Debug for MySqlStore {
    // The options hold the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MySqlStore").field("database", &self.database()).finish_non_exhaustive()
    }
}

impl MySqlStore {
    /// The database that `url` names (`mysql://` or `mariadb://`). Nothing is dialled yet. At most `max_connections`
    /// are used at once, the one of [`Store::turns`] not counted.
    pub fn open(url: &str, max_connections: u32) -> Result<Self, StoreError> {
        Self::open_with_clock(url, max_connections, CLOCK)
    }

    /// The same, with another SQL expression for the server's clock: for tests, which set it.
    #[doc(hidden)]
    pub fn open_with_clock(
        url: &str,
        max_connections: u32,
        clock: &str,
    ) -> Result<Self, StoreError> {
        let (_, servers) = urls::servers(&[url])?;
        Self::open_servers(&servers, max_connections, clock)
    }

    /// The database whose servers, a primary and its replicas, these URLs name.
    pub(super) fn open_all(urls: &[String], max_connections: u32) -> Result<Self, StoreError> {
        Self::open_servers(urls, max_connections, CLOCK)
    }

    fn open_servers(
        urls: &[String],
        max_connections: u32,
        clock: &str,
    ) -> Result<Self, StoreError> {
        let servers: Result<Vec<_>, _> = urls.iter().map(|url| Server::open(url)).collect();
        let servers = Arc::new(Servers::new(servers?));
        let connections = Connections::new(max_connections);
        let clock = clock.to_owned();
        let lanes = Lanes::default();
        Ok(Self { inner: Arc::new(Inner { servers, clock, connections, lanes }) })
    }

    /// See [`AnyStore::beside`](super::AnyStore::beside).
    pub(super) fn beside(&self, max_connections: u32) -> Self {
        let servers = Arc::clone(&self.inner.servers);
        let clock = self.inner.clock.clone();
        let connections = Connections::new(max_connections);
        let lanes = Lanes::default();
        Self { inner: Arc::new(Inner { servers, clock, connections, lanes }) }
    }

    /// See [`AnyStore::watch`](super::AnyStore::watch).
    pub(super) async fn watch(&self) {
        self.inner.servers.watch().await;
    }

    /// Close the connections that nobody uses just now.
    pub fn rest(&self) {
        self.inner.connections.rest();
    }

    fn database(&self) -> &str {
        self.inner.servers.names()
    }

    /// An SQL expression for the server's clock, in microseconds.
    fn now(&self) -> String {
        format!("TIMESTAMPDIFF(MICROSECOND, TIMESTAMP'1970-01-01 00:00:00', {})", self.inner.clock)
    }

    async fn connect(&self) -> Result<Line<Session>, StoreError> {
        self.inner.servers.connect().await
    }

    /// A session for one operation, with the server that was chosen last. One whose operation failed is closed, and the
    /// server undoes what it did.
    async fn session(&self) -> Result<Lent<Line<Session>>, StoreError> {
        let place = self.place().await?;
        while let Some(line) = place.used() {
            if line.bond.holds() {
                return Ok(place.hold(line));
            }
        }
        Ok(place.hold(self.connect().await?))
    }

    /// A session that is made now; those that wait are closed: they may lead to a server that is not the one that
    /// answers any more.
    async fn new_session(&self) -> Result<Lent<Line<Session>>, StoreError> {
        let place = self.place().await?;
        while place.used().is_some() {}
        Ok(place.hold(self.connect().await?))
    }

    async fn place(&self) -> Result<Place<Line<Session>>, StoreError> {
        timeout(PLACE_TIMEOUT, self.inner.connections.place()).await.map_err(|_| {
            self.not_reached(format!(
                "every connection was in use for {} s",
                PLACE_TIMEOUT.as_secs()
            ))
        })
    }

    /// Run one statement that ends with itself, or a transaction with its `COMMIT`; the rows of all of it.
    async fn run(&self, sql: String) -> Result<Vec<MySqlRow>, StoreError> {
        let mut line = self.session().await?;
        let Line { session, bond } = &mut *line;
        let found = bond.carry(session::run(&mut session.connection, sql)).await;
        let found = found.map_err(|trouble| self.trouble(trouble))?;
        line.give_back();
        Ok(found)
    }

    /// Begin a transaction with a reading statement; its rows.
    async fn begin(
        &self,
        mut line: Lent<Line<Session>>,
        sql: &str,
    ) -> Result<(Lent<Line<Session>>, Vec<MySqlRow>), StoreError> {
        let sql = format!("START TRANSACTION; {sql}");
        let Line { session, bond } = &mut *line;
        let found = bond.carry(session::run(&mut session.connection, sql)).await;
        let found = found.map_err(|trouble| self.trouble(trouble))?;
        Ok((line, found))
    }

    /// Ask something within a transaction.
    async fn ask(
        &self,
        line: &mut Lent<Line<Session>>,
        sql: String,
    ) -> Result<Vec<MySqlRow>, StoreError> {
        let Line { session, bond } = &mut **line;
        let found = bond.carry(session::run(&mut session.connection, sql)).await;
        found.map_err(|trouble| self.trouble(trouble))
    }

    /// Write something within a transaction that goes on.
    async fn write(
        &self,
        line: &mut Lent<Line<Session>>,
        statements: Vec<String>,
    ) -> Result<(), StoreError> {
        let Line { session, bond } = &mut **line;
        let done = bond.carry(send(&mut session.connection, statements)).await;
        done.map_err(|trouble| self.trouble(trouble))
    }

    /// End a transaction with what it writes.
    async fn commit(
        &self,
        mut line: Lent<Line<Session>>,
        statements: Vec<String>,
    ) -> Result<(), StoreError> {
        let Line { session, bond } = &mut *line;
        let done = bond.carry(commit(&mut session.connection, statements)).await;
        done.map_err(|trouble| self.trouble(trouble))?;
        line.give_back();
        Ok(())
    }

    /// Undo a transaction. Where that fails its session is closed, and the server undoes it.
    async fn roll_back(&self, mut line: Lent<Line<Session>>) {
        if self.ask(&mut line, "ROLLBACK".to_owned()).await.is_ok() {
            line.give_back();
        }
    }
}

/// Send what a transaction writes, and its `COMMIT`: in one packet, unless it is very large.
async fn commit(
    connection: &mut MySqlConnection,
    mut statements: Vec<String>,
) -> Result<(), Trouble> {
    statements.push("COMMIT".to_owned());
    send(connection, statements).await
}

/// Send statements in one packet, unless it is very large.
async fn send(connection: &mut MySqlConnection, statements: Vec<String>) -> Result<(), Trouble> {
    let mut packet = String::new();
    for statement in statements {
        if !packet.is_empty() && packet.len() + statement.len() > PACKET_BYTES_MAX {
            session::run(connection, std::mem::take(&mut packet)).await?;
        }
        if !packet.is_empty() {
            packet.push_str("; ");
        }
        packet.push_str(&statement);
    }
    if !packet.is_empty() {
        session::run(connection, packet).await?;
    }
    Ok(())
}

async fn rows_of(connection: &mut MySqlConnection, sql: String) -> Result<Vec<MySqlRow>, Trouble> {
    Ok(session::run(connection, sql).await?)
}

/// The end of a lease that begins at `at`, in microseconds.
fn lease_end(at: ServerInstant, period: Period) -> i64 {
    at.offset(lease_nanos(period)).as_micros()
}

/// What a check-in sets in the row of a node, whose table is called `n`.
fn check_in(at: ServerInstant, period: Period, report: Option<&NodeReport>) -> String {
    let lease = instant(lease_end(at, period));
    let mut set = format!("n.last_check_in = {}, n.lease_until = {lease}", instant(at.as_micros()));
    if let Some(report) = report {
        set.push_str(&format!(
            ", n.running = {}, n.offset_us = {}, n.offset_error_us = {}, n.transit_us = {}",
            report.running,
            number_or_null(report.offset_us),
            number_or_null(report.offset_error_us),
            number_or_null(report.transit_us),
        ));
    }
    set
}

impl Store for MySqlStore {
    type Turns = MySqlTurns;

    async fn turns(&self) -> Result<MySqlTurns, StoreError> {
        MySqlTurns::ready(self.clone(), self.connect().await?).await
    }

    async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        let mut line = self.session().await?;
        let Line { session, bond } = &mut *line;
        let apply = migrate::mysql_apply(&mut session.connection, |applied| {
            migrate::refuse_newer(applied, self.database())
        });
        match bond.carry(apply).await {
            Ok(Ok(names)) => {
                line.give_back();
                Ok(names)
            }
            // The lock ends with its connection.
            Ok(Err(refused)) => Err(refused),
            Err(trouble) => Err(self.trouble(trouble)),
        }
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        let mut line = self.session().await?;
        let Line { session, bond } = &mut *line;
        let applied = bond.carry(migrate::mysql_applied(&mut session.connection)).await;
        let applied = applied.map_err(|trouble| self.trouble(trouble))?;
        line.give_back();
        migrate::check(migrate::MYSQL, &applied, self.database())
    }

    async fn agree_period(&self, wanted: Option<Period>) -> Result<Period, StoreError> {
        let sql = "SELECT period_ms, next_period_ms FROM turnwise_turn WHERE id = 1 FOR UPDATE";
        let (session, found) = self.begin(self.session().await?, sql).await?;
        let row = self.one(&found)?;
        let has: Option<i64> = self.column(row, 0)?;
        let next: Option<i64> = self.column(row, 1)?;
        let millis = has.unwrap_or(i64::from(wanted.unwrap_or(Period::DEFAULT).as_millis()));
        let set = format!("UPDATE turnwise_turn SET period_ms = {millis} WHERE id = 1");
        self.commit(session, if has.is_none() { vec![set] } else { Vec::new() }).await?;
        let has = rows::period(millis).map_err(|trouble| self.trouble(trouble))?;
        let next = next.and_then(|millis| rows::period(millis).ok());
        match wanted {
            Some(wanted) if wanted != has && Some(wanted) != next => {
                Err(StoreError::OtherPeriod { has, wanted })
            }
            _ => Ok(has),
        }
    }

    async fn register(&self, node: &Registration) -> Result<(), StoreError> {
        self.register_node(node).await
    }

    async fn deregister(&self, node: NodeId) -> Result<(), StoreError> {
        self.deregister_node(node).await
    }

    async fn drain(&self, node: NodeId) -> Result<Option<DrainAnswer>, StoreError> {
        self.drain_node(node).await
    }

    async fn tell_targets(&self, node: NodeId, targets: &[TargetView]) -> Result<(), StoreError> {
        self.write_targets(node, targets).await
    }

    async fn renew(&self, node: NodeId, report: &NodeReport) -> Result<CheckIn, StoreError> {
        self.renew_node(node, report).await
    }

    async fn claim(
        &self,
        node: NodeId,
        claim: Claim,
        queues: &Queues,
        report: &NodeReport,
    ) -> Result<Claimed, StoreError> {
        self.claim_jobs(node, claim, queues, report).await
    }

    async fn recover(
        &self,
        node: NodeId,
        token: Token,
        report: &NodeReport,
    ) -> Result<Claimed, StoreError> {
        self.recover_jobs(node, token, report).await
    }

    async fn release(
        &self,
        node: NodeId,
        token: Token,
        report: &NodeReport,
    ) -> Result<CheckIn, StoreError> {
        self.release_jobs(node, token, report).await
    }

    async fn reconcile(
        &self,
        node: NodeId,
        holds: &[(JobId, Token)],
        last: Token,
        report: &NodeReport,
    ) -> Result<Claimed, StoreError> {
        self.reconcile_jobs(node, holds, last, report).await
    }

    async fn end(
        &self,
        node: NodeId,
        ends: &[End],
    ) -> Result<(Vec<EndOutcome>, CheckIn), StoreError> {
        self.end_jobs(node, ends).await
    }

    async fn enqueue(&self, jobs: &[NewJob]) -> Result<Vec<JobId>, StoreError> {
        self.enqueue_jobs(jobs).await
    }

    async fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobView>, StoreError> {
        self.list_jobs(filter).await
    }

    async fn job(&self, id: JobId) -> Result<Option<(JobView, Attempts)>, StoreError> {
        self.show_job(id).await
    }

    async fn retry(&self, id: JobId) -> Result<Option<bool>, StoreError> {
        self.retry_job(id).await
    }

    async fn cancelled(
        &self,
        node: NodeId,
        held: &[(JobId, Token)],
    ) -> Result<Vec<(JobId, Token)>, StoreError> {
        self.cancelled_jobs(node, held).await
    }

    async fn secret(&self, name: &str, offered: &str) -> Result<String, StoreError> {
        self.secret_of(name, offered).await
    }

    async fn cancel(&self, id: JobId) -> Result<Option<bool>, StoreError> {
        self.cancel_job(id).await
    }

    async fn due_schedules(
        &self,
        until: ServerInstant,
    ) -> Result<(ServerInstant, Vec<ScheduleView>), StoreError> {
        self.list_due_schedules(until).await
    }

    async fn fire(&self, fire: &Fire) -> Result<bool, StoreError> {
        self.fire_schedule(fire).await
    }

    async fn due_batches(&self, until: ServerInstant) -> Result<Vec<BatchId>, StoreError> {
        self.due(until).await
    }

    async fn slow_down(&self, what: &SlowDown) -> Result<(), StoreError> {
        self.hold_back(what).await
    }

    async fn settle(&self, batches: &[BatchId]) -> Result<Settled, StoreError> {
        self.settle_batches(batches).await
    }

    async fn prune(&self, prune: &Prune) -> Result<Pruned, StoreError> {
        self.prune_jobs(prune).await
    }

    async fn prune_audit(&self) -> Result<u32, StoreError> {
        self.prune_entries().await
    }

    fn apart(&self) -> Self {
        self.beside(1)
    }

    async fn nodes(&self) -> Result<Vec<NodeView>, StoreError> {
        self.list_nodes().await
    }

    async fn look(&self) -> Result<Look, StoreError> {
        let found = self.run(turns::look_text(&self.now())).await?;
        turns::look(self.one(&found)?).map_err(|trouble| self.trouble(trouble))
    }

    async fn stamp(&self) -> Result<(Slot, TurnRow, ServerIdentity), StoreError> {
        let mut line = self.session().await?;
        let Line { session, bond } = &mut *line;
        let identity = session.identity;
        let stamped = bond.carry(turns::stamp_as_nobody(self, &mut session.connection)).await;
        let (slot, row) = stamped.map_err(|trouble| self.trouble(trouble))?;
        line.give_back();
        Ok((slot, row, identity))
    }

    async fn change(&self, change: &Change, identity: ServerIdentity) -> Result<bool, StoreError> {
        let mut line = self.session().await?;
        let Line { session, bond } = &mut *line;
        if identity != session.identity {
            line.give_back();
            return Ok(false);
        }
        let done = turns::change_as_nobody(self, &mut session.connection, change);
        let done = bond.carry(done).await.map_err(|trouble| self.trouble(trouble))?;
        line.give_back();
        Ok(done)
    }
}

impl MySqlStore {
    /// The one row that there must be.
    fn one<'a>(&self, rows: &'a [MySqlRow]) -> Result<&'a MySqlRow, StoreError> {
        rows.first().ok_or_else(|| self.nothing())
    }

    fn nothing(&self) -> StoreError {
        self.trouble(Trouble::corrupt("a table turnwise_turn without its row".to_owned()))
    }

    fn column<'r, T>(&self, row: &'r MySqlRow, at: usize) -> Result<T, StoreError>
    where
        T: sqlx::Decode<'r, sqlx::MySql> + sqlx::Type<sqlx::MySql>,
    {
        row.try_get(at).map_err(|error| self.trouble(error.into()))
    }
}

/// Statements that insert these rows, none of them much longer than a packet may be.
fn inserts(insert: &str, rows: impl Iterator<Item = String>, behind: &str) -> Vec<String> {
    parted(insert, ", ", rows, behind)
}

/// Statements with these rows in them, none much longer than a packet may be.
fn parted(
    before: &str,
    between: &str,
    rows: impl Iterator<Item = String>,
    behind: &str,
) -> Vec<String> {
    let (mut statements, mut parts) = (Vec::new(), String::new());
    let full = |parts: &mut String| format!("{before}{}{behind}", std::mem::take(parts));
    for row in rows {
        if !parts.is_empty() && parts.len() + row.len() > PACKET_BYTES_MAX / 2 {
            statements.push(full(&mut parts));
        }
        if !parts.is_empty() {
            parts.push_str(between);
        }
        parts.push_str(&row);
    }
    if !parts.is_empty() {
        statements.push(full(&mut parts));
    }
    statements
}
