//! Decides what a session with PostgreSQL is: which servers will do, what is set in it, and how a server says who it is.

use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{ConnectOptions, Connection, Executor, Row};
use turnwise_engine::ServerIdentity;

use super::errors::{connecting, refused};
use super::parameters;
use super::statement::{Statement, Wire};
use crate::store::StoreError;
use crate::store::errors::{Trouble, without_password};
use crate::store::servers::{Dial, History, Who};

/// The first version that has all that the schema and the statements use.
const VERSION_LEAST: i32 = 140_000;

/// What is set in every session.
const SETTINGS: [(&str, &str); 10] = [
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
];

/// The same through a pooler, for each transaction. What is about the connection itself is left out: the server's leads
/// to the pooler, and the pooler looks after its own.
const SETTINGS_OF_TRANSACTION: &str = "SET LOCAL transaction_isolation = 'read committed'; \
     SET LOCAL jit = off; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; \
     SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL lock_timeout = '200ms'; ";

/// A connection, and how statements go out on it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) connection: PgConnection,
    pub(super) wire: Wire,
}

impl Session {
    /// Send a statement; the rows of its answer.
    pub(super) async fn rows(&mut self, statement: &Statement) -> Result<Vec<PgRow>, Trouble> {
        statement.ready(self.wire)?.rows(&mut self.connection).await
    }
}

/// A server.
pub(super) struct Server {
    options: PgConnectOptions,
    wire: Wire,
    /// As it may be shown.
    name: String,
    /// There are others of its cluster, from which it must be told.
    has_others: bool,
}

impl Server {
    /// The server that `url` names. Nothing is dialled yet.
    pub(super) fn open(url: &str, has_others: bool) -> Result<Self, StoreError> {
        let parameters::Known { url: known, pooler } = parameters::known(url)?;
        let options = PgConnectOptions::from_str(&known).map_err(|error| StoreError::BadUrl {
            url: without_password(url),
            reason: match error {
                sqlx::Error::Configuration(reason) => reason.to_string(),
                other => other.to_string(),
            },
        })?;
        let options = options.application_name("turnwise").disable_statement_logging();
        let (options, wire) = match pooler {
            false => (options.options(SETTINGS), Wire::Prepared),
            // A pooler takes only those parameters at the start that it keeps track of.
            true => {
                let options = options.extra_float_digits(None).statement_cache_capacity(0);
                (options, Wire::Text { before: SETTINGS_OF_TRANSACTION })
            }
        };
        Ok(Self { name: shown(&options), options, wire, has_others })
    }
}

/// The server as it may be shown.
fn shown(options: &PgConnectOptions) -> String {
    let user = options.get_username();
    let database = options.get_database().unwrap_or(user);
    let port = options.get_port();
    match options.get_socket() {
        Some(socket) => format!("postgres://{user}@{}:{port}/{database}", socket.display()),
        None => format!("postgres://{user}@{}:{port}/{database}", options.get_host()),
    }
}

impl Dial for Server {
    type Session = Session;

    fn name(&self) -> &str {
        &self.name
    }

    async fn dial(&self) -> Result<(Session, Who), StoreError> {
        let connection = PgConnection::connect_with(&self.options).await;
        let mut connection = connection.map_err(|error| connecting(&self.name, &error))?;
        let question = if self.has_others { WHO_AMONG_OTHERS } else { WHO };
        let row = connection.fetch_one(sqlx::raw_sql(question)).await;
        let who = row.and_then(|row| Answer::of(&row));
        let who = who.map_err(|error| connecting(&self.name, &error))?.who(&self.name)?;
        Ok((Session { connection, wire: self.wire }, who))
    }
}

macro_rules! who {
    ($cluster:literal) => {
        concat!(
            "SELECT current_setting('server_version_num')::integer, current_setting('server_version'),
                pg_is_in_recovery(), current_setting('transaction_read_only') = 'on',
                (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint,
                CASE WHEN pg_is_in_recovery() THEN 0
                    ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint END, ",
            $cluster
        )
    };
}

const WHO: &str = who!("NULL::bigint");
const WHO_AMONG_OTHERS: &str = who!("(SELECT system_identifier FROM pg_control_system())");

/// What a server says of itself.
struct Answer {
    version: i32,
    version_name: String,
    in_recovery: bool,
    read_only: bool,
    started: i64,
    timeline: i64,
    cluster: Option<i64>,
}

impl Answer {
    fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            version: row.try_get(0)?,
            version_name: row.try_get(1)?,
            in_recovery: row.try_get(2)?,
            read_only: row.try_get(3)?,
            started: row.try_get(4)?,
            timeline: row.try_get(5)?,
            cluster: row.try_get(6)?,
        })
    }

    /// Who that is. Fails when such a server will not do.
    fn who(self, name: &str) -> Result<Who, StoreError> {
        let Self { started, timeline, .. } = self;
        if self.version < VERSION_LEAST {
            return Err(refused(
                name,
                format!(
                    "the server is PostgreSQL {}, and PostgreSQL {} is the first that has what nodes use",
                    self.version_name,
                    VERSION_LEAST / 10_000
                ),
                "Upgrade the server, or name another in the URL",
            ));
        }
        let read_only = match (self.in_recovery, self.read_only) {
            (true, _) => Some("is a read-only replica (pg_is_in_recovery() is true)".to_owned()),
            (false, true) => Some(
                "takes no writes (default_transaction_read_only is on, for the server, the database or this role)".to_owned(),
            ),
            (false, false) => None,
        };
        let history = match self.cluster {
            Some(cluster) if read_only.is_none() => Some(History { cluster, timeline }),
            _ => None,
        };
        Ok(Who { identity: ServerIdentity { started, timeline }, history, read_only })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(version: i32, in_recovery: bool, read_only: bool) -> Answer {
        Answer {
            version,
            version_name: "13.22 (Debian)".to_owned(),
            in_recovery,
            read_only,
            started: 1,
            timeline: 3,
            cluster: Some(7),
        }
    }

    #[test]
    fn a_server_that_is_too_old_is_refused_by_name() {
        let error = answer(130_022, false, false).who("db").unwrap_err();
        assert!(!error.is_transient());
        let said = error.to_string();
        for word in ["db", "13.22 (Debian)", "PostgreSQL 14 is the first", "Upgrade"] {
            assert!(said.contains(word), "{said}");
        }
        assert!(answer(140_000, false, false).who("db").is_ok());
    }

    #[test]
    fn a_replica_and_a_server_that_takes_no_writes_say_why() {
        let who = answer(150_000, true, true).who("db").unwrap();
        assert!(who.read_only.unwrap().contains("pg_is_in_recovery()") && who.history.is_none());
        let who = answer(150_000, false, true).who("db").unwrap();
        assert!(who.read_only.unwrap().contains("default_transaction_read_only"));
        let who = answer(150_000, false, false).who("db").unwrap();
        assert_eq!(who.history, Some(History { cluster: 7, timeline: 3 }));
        assert_eq!(who.read_only, None);
    }
}
