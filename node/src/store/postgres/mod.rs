//! The store on PostgreSQL: every operation is one statement and one round trip; what a statement decides
//! is a function of the schema (`migrations/postgres`). Decides here only which connection it goes out on
//! and what an error means.

mod errors;
mod jobs;
mod parameters;
mod turns;
mod views;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::time::timeout;
use turnwise_engine::{Change, Claim, NodeId, Period, ServerIdentity, Slot, Token, TurnRow};

pub use turns::PgTurns;

use super::connections::{Connections, Lent, Place};
use super::errors::{Trouble, without_password};
use super::migrate;
use super::rows;
use super::{
    CheckIn, Claimed, Look, NodeReport, NodeView, Queues, Registration, Store, StoreError,
};
use crate::job::{AttemptView, End, EndOutcome, JobFilter, JobId, JobView, NewJob};

/// How long a connection may take to be made, and how long to wait for one that is in use.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A PostgreSQL database that nodes share.
#[derive(Clone)]
pub struct PgStore {
    inner: Arc<Inner>,
}

struct Inner {
    options: PgConnectOptions,
    /// The database as it may be shown.
    database: String,
    connections: Connections<PgConnection>,
}

impl std::fmt::Debug for PgStore {
    // The options hold the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgStore").field("database", &self.inner.database).finish_non_exhaustive()
    }
}

impl PgStore {
    /// The database that `url` names. Nothing is dialled yet. At most `max_connections` are used at once,
    /// the one of [`Store::turns`] not counted.
    pub fn open(url: &str, max_connections: u32) -> Result<Self, StoreError> {
        let known = parameters::known(url)?;
        let options = PgConnectOptions::from_str(&known).map_err(|error| StoreError::BadUrl {
            url: without_password(url),
            reason: match error {
                sqlx::Error::Configuration(reason) => reason.to_string(),
                other => other.to_string(),
            },
        })?;
        let options = options
            .application_name("turnwise")
            .options([
                // The statements are short; compiling one takes longer than running it.
                ("jit", "off"),
                // Each statement has the index that it needs: a plan that was made while a table was small
                // must not read all of it when it has grown, and none need be made twice.
                ("enable_seqscan", "off"),
                ("enable_bitmapscan", "off"),
                ("plan_cache_mode", "force_generic_plan"),
                // The functions of the schema count on each of their statements to see what the last one
                // waited for.
                ("default_transaction_isolation", "read committed"),
                // Somebody's open transaction on one job must not hold up the turn row behind it, nor a statement
                // that was given up keep its backend.
                ("lock_timeout", "200ms"),
                ("client_connection_check_interval", "500ms"),
                // A node that vanished must not be listened to for hours.
                ("tcp_keepalives_idle", "10"),
                ("tcp_keepalives_interval", "5"),
                ("tcp_keepalives_count", "3"),
            ])
            .disable_statement_logging();
        let database = shown(&options);
        let connections = Connections::new(max_connections);
        Ok(Self { inner: Arc::new(Inner { options, database, connections }) })
    }

    /// Close the connections that nobody uses just now.
    pub fn rest(&self) {
        self.inner.connections.rest();
    }

    fn database(&self) -> &str {
        &self.inner.database
    }

    async fn connect(&self) -> Result<PgConnection, StoreError> {
        match timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&self.inner.options)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(self.connecting(&error)),
            Err(_) => {
                Err(self
                    .not_reached(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs())))
            }
        }
    }

    /// A connection for one statement.
    async fn connection(&self) -> Result<Lent<PgConnection>, StoreError> {
        let place = self.place().await?;
        match place.used() {
            Some(connection) => Ok(place.hold(connection)),
            None => Ok(place.hold(self.connect().await?)),
        }
    }

    /// A connection that is made now; those that wait are closed: they may lead to a server that is not the
    /// one that answers any more.
    async fn new_connection(&self) -> Result<Lent<PgConnection>, StoreError> {
        let place = self.place().await?;
        while place.used().is_some() {}
        Ok(place.hold(self.connect().await?))
    }

    async fn place(&self) -> Result<Place<PgConnection>, StoreError> {
        timeout(CONNECT_TIMEOUT, self.inner.connections.place()).await.map_err(|_| {
            self.not_reached(format!(
                "every connection was in use for {} s",
                CONNECT_TIMEOUT.as_secs()
            ))
        })
    }

    async fn check_encoding(&self) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let encoding = migrate::postgres_encoding(&mut connection).await;
        let encoding = self.settle(connection, encoding)?;
        migrate::refuse_encoding(&encoding, self.database())
    }

    /// The statement has come to its end: the connection is used again, unless it broke.
    fn settle<T, E: Into<Trouble>>(
        &self,
        connection: Lent<PgConnection>,
        result: Result<T, E>,
    ) -> Result<T, StoreError> {
        match result {
            Ok(value) => {
                connection.give_back();
                Ok(value)
            }
            Err(error) => {
                let trouble = error.into();
                if errors::leaves_connection_usable(&trouble) {
                    connection.give_back();
                }
                Err(self.trouble(trouble))
            }
        }
    }
}

/// The database as it may be shown.
fn shown(options: &PgConnectOptions) -> String {
    let user = options.get_username();
    let database = options.get_database().unwrap_or(user);
    let port = options.get_port();
    match options.get_socket() {
        Some(socket) => format!("postgres://{user}@{}:{port}/{database}", socket.display()),
        None => format!("postgres://{user}@{}:{port}/{database}", options.get_host()),
    }
}

impl Store for PgStore {
    type Turns = PgTurns;

    async fn turns(&self) -> Result<PgTurns, StoreError> {
        let connection = self.connect().await?;
        PgTurns::ready(self.clone(), connection).await
    }

    async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        self.check_encoding().await?;
        let mut connection = self.connection().await?;
        let done = migrate::postgres_apply(&mut connection, |applied| {
            migrate::refuse_newer(applied, self.database())
        })
        .await;
        match done {
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
        let applied = migrate::postgres_applied(&mut connection).await;
        let applied = self.settle(connection, applied)?;
        migrate::check(migrate::POSTGRES, &applied, self.database())
    }

    async fn agree_period(&self, wanted: Option<Period>) -> Result<Period, StoreError> {
        let mut connection = self.connection().await?;
        let found: Result<(i32, Option<i32>), _> = sqlx::query_as(
            "UPDATE turnwise.turn SET period_ms = coalesce(period_ms, $1) WHERE id = 1
             RETURNING period_ms, next_period_ms",
        )
        .bind(wanted.unwrap_or(Period::DEFAULT).as_millis() as i32)
        .fetch_one(&mut *connection)
        .await;
        let (period, next) = self.settle(connection, found)?;
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
        let mut connection = self.connection().await?;
        // Rows of nodes long gone go with it. An hour by the last beat too, so that a step of the clock
        // alone makes nobody look gone.
        let done = sqlx::query(
            "WITH gone AS (
                DELETE FROM turnwise.nodes WHERE id IN (
                    SELECT n.id FROM turnwise.nodes n, turnwise.turn t
                    WHERE n.id <> $1::text::uuid
                        AND n.lease_until < turnwise.clock() - interval '1 hour'
                        AND n.lease_until < t.beaten_at - interval '1 hour'
                    FOR UPDATE OF n SKIP LOCKED)
             ), here AS MATERIALIZED (SELECT turnwise.clock() AS now)
             INSERT INTO turnwise.nodes
                (id, name, state, lease_until, started_at, last_check_in, capacity, version)
             SELECT $1::text::uuid, $2::text, 'live', now + turnwise.lease(turnwise.period_ms()), now, now,
                $3::integer, $4::text
             FROM here
             ON CONFLICT (id) DO UPDATE SET
                name = excluded.name, state = 'live', lease_until = excluded.lease_until,
                started_at = excluded.started_at, last_check_in = excluded.last_check_in,
                capacity = excluded.capacity, version = excluded.version",
        )
        .bind(node.id.to_string())
        .bind(&node.name)
        .bind(integer(node.capacity))
        .bind(migrate::THIS)
        .execute(&mut *connection)
        .await;
        self.settle(connection, done)?;
        Ok(())
    }

    async fn deregister(&self, node: NodeId) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let done = sqlx::query(
            "UPDATE turnwise.nodes SET state = 'left', running = 0, last_check_in = turnwise.clock()
             WHERE id = $1::text::uuid AND state <> 'lost'",
        )
        .bind(node.to_string())
        .execute(&mut *connection)
        .await;
        self.settle(connection, done)?;
        Ok(())
    }

    async fn renew(&self, node: NodeId, report: &NodeReport) -> Result<CheckIn, StoreError> {
        let mut connection = self.connection().await?;
        let lost: Result<bool, _> = sqlx::query_scalar(
            "SELECT turnwise.node_renew(
                $1::text::uuid, $2::integer, $3::bigint, $4::bigint, $5::bigint)",
        )
        .bind(node.to_string())
        .bind(integer(report.running))
        .bind(report.offset_us)
        .bind(report.offset_error_us)
        .bind(report.transit_us)
        .fetch_one(&mut *connection)
        .await;
        Ok(check_in(self.settle(connection, lost)?))
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

    async fn enqueue(&self, jobs: &[NewJob]) -> Result<(), StoreError> {
        self.enqueue_jobs(jobs).await
    }

    async fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobView>, StoreError> {
        self.list_jobs(filter).await
    }

    async fn job(&self, id: JobId) -> Result<Option<(JobView, Vec<AttemptView>)>, StoreError> {
        self.show_job(id).await
    }

    async fn retry(&self, id: JobId) -> Result<Option<bool>, StoreError> {
        self.retry_job(id).await
    }

    async fn cancel(&self, id: JobId) -> Result<Option<bool>, StoreError> {
        self.cancel_job(id).await
    }

    async fn nodes(&self) -> Result<Vec<NodeView>, StoreError> {
        let look = self.look().await?;
        let mut connection = self.connection().await?;
        let nodes = sqlx::query_as(
            "SELECT id::text, name, state, turnwise.micros(lease_until),
                turnwise.micros(last_check_in), capacity::bigint, running::bigint,
                offset_us, offset_error_us, transit_us
             FROM turnwise.nodes",
        )
        .fetch_all(&mut *connection)
        .await;
        let nodes = self.settle(connection, nodes)?;
        rows::node_views(nodes, &look).map_err(|trouble| self.trouble(trouble))
    }

    async fn look(&self) -> Result<Look, StoreError> {
        let mut connection = self.connection().await?;
        let found = sqlx::query(
            "SELECT epoch, high, slot, previous, bias, coalesce(period_ms, 1000), next_period_ms,
                next_period_from, versions::text, deputies::text, marks::text,
                turnwise.micros(turnwise.clock()), refused, stale_ends
             FROM turnwise.turn WHERE id = 1",
        )
        .fetch_one(&mut *connection)
        .await;
        let row = self.settle(connection, found)?;
        turns::look(&row).map_err(|trouble| self.trouble(trouble))
    }

    async fn stamp(&self) -> Result<(Slot, TurnRow, ServerIdentity), StoreError> {
        let mut connection = self.connection().await?;
        let answer = turns::read_as_nobody(&mut connection).await;
        let answer = self.settle(connection, answer)?;
        Ok((answer.now, answer.row, answer.identity))
    }

    async fn change(&self, change: &Change, identity: ServerIdentity) -> Result<bool, StoreError> {
        let mut connection = self.connection().await?;
        let answer = turns::change_as_nobody(&mut connection, change, identity).await;
        Ok(self.settle(connection, answer)?.done)
    }
}

fn check_in(lost: bool) -> CheckIn {
    if lost { CheckIn::Lost } else { CheckIn::Alive }
}

/// A count as PostgreSQL's `integer`, at most its largest.
fn integer(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
