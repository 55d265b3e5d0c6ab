//! The store on PostgreSQL: every operation is one statement and one round trip; what a statement decides
//! is a function of the schema (`migrations/postgres`). Decides here only which connection it goes out on
//! and what an error means.

mod audit;
mod batches;
mod bulk;
mod callbacks;
mod claims;
mod ends;
mod errors;
mod jobs;
mod nodes;
mod parameters;
mod queues;
mod requests;
mod retention;
mod schedules;
mod session;
mod statement;
mod tokens;
mod turns;
mod views;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::FromRow;
use sqlx::postgres::PgRow;
use tokio::time::timeout;
use turnwise_engine::{
    Change, Claim, NodeId, Period, ServerIdentity, ServerInstant, Slot, Token, TurnRow,
};

pub use jobs::enqueue_in;
pub use turns::PgTurns;

use self::claims::Looks;
use self::session::{Server, Session};
use self::statement::Statement;
use super::connections::{Connections, Lent, Place};
use super::errors::Trouble;
use super::migrate;
use super::rows;
use super::servers::{Line, Servers};
use super::urls;
use super::{
    CheckIn, Claimed, DrainAnswer, Fire, Look, NodeReport, NodeView, Prune, Pruned, Queues,
    Registration, ScheduleView, Settled, Store, StoreError, TargetView,
};
use crate::batch::BatchId;
use crate::job::{Attempts, End, EndOutcome, JobFilter, JobId, JobView, NewJob, SlowDown};

/// How long to wait for a connection that is in use.
const PLACE_TIMEOUT: Duration = Duration::from_secs(5);

/// A PostgreSQL database that nodes share.
#[derive(Clone)]
pub struct PgStore {
    inner: Arc<Inner>,
}

struct Inner {
    servers: Arc<Servers<Server>>,
    connections: Connections<Line<Session>>,
    looks: Mutex<Looks>,
}

impl std::fmt::Debug for PgStore {
    // The options hold the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgStore").field("database", &self.database()).finish_non_exhaustive()
    }
}

impl PgStore {
    /// The database that `url` names; a URL with several hosts names several servers of it. Nothing is dialled yet. At
    /// most `max_connections` are used at once, the one of [`Store::turns`] not counted.
    pub fn open(url: &str, max_connections: u32) -> Result<Self, StoreError> {
        let (_, servers) = urls::servers(&[url])?;
        Self::open_all(&servers, max_connections)
    }

    /// The database whose servers, a primary and its standbys, these URLs name.
    pub(super) fn open_all(urls: &[String], max_connections: u32) -> Result<Self, StoreError> {
        let has_others = urls.len() > 1;
        let servers: Result<Vec<_>, _> =
            urls.iter().map(|url| Server::open(url, has_others)).collect();
        let connections = Connections::new(max_connections);
        let servers = Arc::new(Servers::new(servers?));
        Ok(Self { inner: Arc::new(Inner { servers, connections, looks: Mutex::default() }) })
    }

    /// See [`AnyStore::beside`](super::AnyStore::beside).
    pub(super) fn beside(&self, max_connections: u32) -> Self {
        let servers = Arc::clone(&self.inner.servers);
        let connections = Connections::new(max_connections);
        Self { inner: Arc::new(Inner { servers, connections, looks: Mutex::default() }) }
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

    /// It may lead to another server, in which other jobs wait.
    async fn connect(&self) -> Result<Line<Session>, StoreError> {
        self.looks().marks.forget();
        self.inner.servers.connect().await
    }

    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.inner.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection for one statement, to the server that was chosen last.
    async fn connection(&self) -> Result<Lent<Line<Session>>, StoreError> {
        let place = self.place().await?;
        while let Some(line) = place.used() {
            if line.bond.holds() {
                return Ok(place.hold(line));
            }
        }
        Ok(place.hold(self.connect().await?))
    }

    /// A connection that is made now; those that wait are closed: they may lead to a server that is not the
    /// one that answers any more.
    async fn new_connection(&self) -> Result<Lent<Line<Session>>, StoreError> {
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

    /// Send a statement and wait for its answer.
    async fn ask(&self, statement: Statement) -> Result<Vec<PgRow>, StoreError> {
        let connection = self.connection().await?;
        self.ask_on(connection, statement).await
    }

    async fn ask_on(
        &self,
        mut connection: Lent<Line<Session>>,
        statement: Statement,
    ) -> Result<Vec<PgRow>, StoreError> {
        let Line { session, bond } = &mut *connection;
        let rows = bond.carry(session.rows(&statement)).await;
        self.settle(connection, rows)
    }

    /// Send a statement that answers one row.
    async fn ask_for_one<T>(&self, statement: Statement) -> Result<T, StoreError>
    where
        T: for<'r> FromRow<'r, PgRow>,
    {
        let found = self.ask(statement).await?;
        found
            .first()
            .ok_or(sqlx::Error::RowNotFound)
            .and_then(T::from_row)
            .map_err(|error| self.trouble(error.into()))
    }

    async fn check_encoding(&self) -> Result<(), StoreError> {
        let encoding = Statement::of("SELECT current_setting('server_encoding')");
        let (encoding,): (String,) = self.ask_for_one(encoding).await?;
        migrate::refuse_encoding(&encoding, self.database())
    }

    /// The statement has come to its end: the connection is used again, unless it broke.
    fn settle<T>(
        &self,
        connection: Lent<Line<Session>>,
        result: Result<T, Trouble>,
    ) -> Result<T, StoreError> {
        match result {
            Ok(value) => {
                connection.give_back();
                Ok(value)
            }
            Err(trouble) => {
                if errors::leaves_connection_usable(&trouble) {
                    connection.give_back();
                }
                Err(self.trouble(trouble))
            }
        }
    }
}

impl Store for PgStore {
    type Turns = PgTurns;

    async fn turns(&self) -> Result<PgTurns, StoreError> {
        PgTurns::ready(self.clone(), self.connect().await?).await
    }

    async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        self.check_encoding().await?;
        let mut connection = self.connection().await?;
        let Line { session, bond } = &mut *connection;
        let apply = migrate::postgres_apply(&mut session.connection, |applied| {
            migrate::refuse_newer(applied, self.database())
        });
        match bond.carry(apply).await {
            Ok(Ok(names)) => {
                connection.give_back();
                Ok(names)
            }
            // The transaction ends with its connection.
            Ok(Err(refused)) => Err(refused),
            Err(trouble) => Err(self.trouble(trouble)),
        }
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        self.check_encoding().await?;
        let mut connection = self.connection().await?;
        let Line { session, bond } = &mut *connection;
        let applied = bond.carry(migrate::postgres_applied(&mut session.connection)).await;
        let applied = self.settle(connection, applied)?;
        migrate::check(migrate::POSTGRES, &applied, self.database())
    }

    async fn agree_period(&self, wanted: Option<Period>) -> Result<Period, StoreError> {
        let agree = Statement::of(
            "UPDATE turnwise.turn SET period_ms = coalesce(period_ms, $1) WHERE id = 1
             RETURNING period_ms, next_period_ms",
        )
        .bind(integer(wanted.unwrap_or(Period::DEFAULT).as_millis()));
        let (period, next): (i32, Option<i32>) = self.ask_for_one(agree).await?;
        let has = rows::period(i64::from(period)).map_err(|trouble| self.trouble(trouble))?;
        let next = next.and_then(|millis| rows::period(i64::from(millis)).ok());
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
        self.list_due_batches(until).await
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
        let look = Statement::of(
            "SELECT epoch, high, slot, previous, bias, coalesce(period_ms, 1000), next_period_ms,
                next_period_from, versions::text, deputies::text, marks::text,
                turnwise.micros(turnwise.clock()), refused, stale_ends
             FROM turnwise.turn WHERE id = 1",
        );
        let found = self.ask(look).await?;
        let row = found.first().ok_or(Trouble::Sql(sqlx::Error::RowNotFound));
        row.and_then(turns::look).map_err(|trouble| self.trouble(trouble))
    }

    async fn stamp(&self) -> Result<(Slot, TurnRow, ServerIdentity), StoreError> {
        let rows = self.ask(turns::read_as_nobody()).await?;
        let answer = turns::answer(&rows).map_err(|trouble| self.trouble(trouble))?;
        Ok((answer.now, answer.row, answer.identity))
    }

    async fn change(&self, change: &Change, identity: ServerIdentity) -> Result<bool, StoreError> {
        let change = turns::change_as_nobody(change, identity);
        let rows = self.ask(change.map_err(|trouble| self.trouble(trouble))?).await?;
        let answer = turns::answer(&rows).map_err(|trouble| self.trouble(trouble))?;
        Ok(answer.done)
    }
}

fn check_in(lost: bool) -> CheckIn {
    if lost { CheckIn::Lost } else { CheckIn::Alive }
}

/// A count as PostgreSQL's `integer`, at most its largest.
fn integer(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
