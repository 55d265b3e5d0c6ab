//! Decides what a session with MariaDB or MySQL is: which servers will do, what is set in it, and who the server is
//! that it leads to.

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use turnwise_engine::ServerIdentity;

use super::errors::{connecting, corrupt};
use super::{parameters, rows_of};
use crate::store::StoreError;
use crate::store::errors::{Trouble, without_password};
use crate::store::servers::{Dial, Who};

/// The least versions that have all that the schema and the statements use: SKIP LOCKED in MariaDB; CHECK constraints
/// that count and expressions as defaults in MySQL.
const MARIADB_LEAST: [u32; 3] = [10, 6, 0];
const MYSQL_LEAST: [u32; 3] = [8, 0, 16];

/// A session that is ready for statements. A session never changes its server, so that its identity is asked for once.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) connection: MySqlConnection,
    pub(super) identity: ServerIdentity,
    /// The server takes no writes.
    pub(super) read_only: bool,
    /// It is a MariaDB: several statements can be one there (`BEGIN NOT ATOMIC`).
    pub(super) compounds: bool,
}

/// Why a server will not do, and what to do.
#[derive(Debug, PartialEq, Eq)]
struct Unfit {
    reason: String,
    remedy: &'static str,
}

/// A server.
pub(super) struct Server {
    options: MySqlConnectOptions,
    /// As it may be shown.
    name: String,
}

impl Server {
    /// The server that `url` names. Nothing is dialled yet.
    pub(super) fn open(url: &str) -> Result<Self, StoreError> {
        let known = parameters::known(url)?;
        let options = MySqlConnectOptions::from_url(&known).map_err(|error| {
            let reason = match error {
                sqlx::Error::Configuration(reason) => reason.to_string(),
                other => other.to_string(),
            };
            StoreError::BadUrl { url: without_password(url), reason }
        })?;
        // All is set at once when the session is there.
        let options = options
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .timezone(None)
            .set_names(false)
            .disable_statement_logging();
        Ok(Self { name: shown(&options), options })
    }
}

/// The server as it may be shown.
fn shown(options: &MySqlConnectOptions) -> String {
    let user = options.get_username();
    let database = options.get_database().unwrap_or_default();
    match options.get_socket() {
        Some(socket) => format!("mysql://{user}@{}/{database}", socket.display()),
        None => {
            format!("mysql://{user}@{}:{}/{database}", options.get_host(), options.get_port())
        }
    }
}

impl Dial for Server {
    type Session = Session;

    fn name(&self) -> &str {
        &self.name
    }

    async fn dial(&self) -> Result<(Session, Who), StoreError> {
        let connection = MySqlConnection::connect_with(&self.options).await;
        let connection = connection.map_err(|error| connecting(&self.name, &error))?;
        let session = match ready(connection).await {
            Ok(Ok(session)) => session,
            Ok(Err(Unfit { reason, remedy })) => {
                return Err(StoreError::Refused {
                    database: self.name.clone(),
                    reason,
                    remedy: remedy.to_owned(),
                });
            }
            Err(Trouble::Sql(error)) => return Err(connecting(&self.name, &error)),
            Err(trouble) => return Err(corrupt(&self.name, &trouble)),
        };
        let read_only = session
            .read_only
            .then(|| "takes no writes (read_only is on: it is a replica)".to_owned());
        let who = Who { identity: session.identity, history: None, read_only };
        Ok((session, who))
    }
}

/// Make a new connection ready.
async fn ready(mut connection: MySqlConnection) -> Result<Result<Session, Unfit>, Trouble> {
    // NOW() is stamped when a statement arrives, SYSDATE() when it is evaluated, unless somebody made them one.
    let sql = "SELECT VERSION(), SLEEP(0.002), SYSDATE(6) = NOW(6)";
    let found = rows_of(&mut connection, sql.to_owned()).await?;
    let row = first(&found)?;
    let version: String = row.try_get(0)?;
    if let Err(unfit) = fit(&version, row.try_get::<i64, _>(2)? != 0) {
        return Ok(Err(unfit));
    }
    let compounds = is_mariadb(&version);
    let found = rows_of(&mut connection, settings(compounds)).await?;
    let row = first(&found)?;
    let started: i64 = row.try_get(0)?;
    let name: String = row.try_get(1)?;
    let read_only = row.try_get::<i64, _>(2)? != 0;
    let identity = ServerIdentity { started: started * 1_000_000, timeline: number_of(&name) };
    Ok(Ok(Session { connection, identity, read_only, compounds }))
}

fn first(rows: &[MySqlRow]) -> Result<&MySqlRow, Trouble> {
    rows.first().ok_or_else(|| Trouble::corrupt("a server that does not say who it is".to_owned()))
}

fn is_mariadb(version: &str) -> bool {
    version.contains("MariaDB")
}

/// Whether a server of this version will do, one whose SYSDATE() is its NOW() or not.
fn fit(version: &str, sysdate_is_now: bool) -> Result<(), Unfit> {
    let (name, least) = match is_mariadb(version) {
        true => ("MariaDB", MARIADB_LEAST),
        false => ("MySQL", MYSQL_LEAST),
    };
    if numbers(version) < least {
        let [major, minor, patch] = least;
        return Err(Unfit {
            reason: format!(
                "the server is {name} {version}, and {name} {major}.{minor}.{patch} is the first that has what nodes use (SKIP LOCKED, CHECK constraints, expressions as defaults)"
            ),
            remedy: "Upgrade the server, or name another in the URL",
        });
    }
    if sysdate_is_now {
        return Err(Unfit {
            reason: "the server was started with --sysdate-is-now, so that it cannot tell when a statement arrived from when it was answered".to_owned(),
            remedy: "Start the server without that option",
        });
    }
    Ok(())
}

/// The three numbers that a version begins with.
fn numbers(version: &str) -> [u32; 3] {
    // Older clients were told 5.5.5- before the true version of a MariaDB.
    let version = version.strip_prefix("5.5.5-").unwrap_or(version);
    let mut parts = version.split(|c: char| !c.is_ascii_digit());
    std::array::from_fn(|_| parts.next().and_then(|part| part.parse().ok()).unwrap_or(0))
}

/// What is set in every session, and then the question who the server is.
///
/// - READ COMMITTED: each statement sees what was committed before it, and a lock is on the rows that match alone.
///   (Under REPEATABLE READ the gaps between rows are locked too: a claim would hold up everybody's inserts, and two
///   beats' deletes would deadlock.) Nothing is lost by it: what is changed was locked, and read under the lock.
/// - Somebody's open transaction on one job must not hold up the turn row behind it for long, nor a node that vanished
///   in the middle of a transaction: a second is the least that the server knows for a lock.
/// - Names are compared as the schema does; a text that is too long is refused; times are UTC.
fn settings(mariadb: bool) -> String {
    let (of_kind, status, name) = match mariadb {
        true => (
            "idle_transaction_timeout = 5",
            "information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'UPTIME'",
            "(SELECT v.VARIABLE_VALUE FROM information_schema.GLOBAL_VARIABLES v
              WHERE v.VARIABLE_NAME = 'SERVER_UID')",
        ),
        false => (
            // It has no limit for transactions alone. A node whose turns are further apart connects anew.
            "wait_timeout = 60",
            "performance_schema.global_status WHERE VARIABLE_NAME = 'Uptime'",
            "@@GLOBAL.server_uuid",
        ),
    };
    // The uptime is the second in which the statement began less the one in which the server started, both whole:
    // the difference is exact, and stays what it is when the clock is set.
    format!(
        "SET NAMES utf8mb4 COLLATE utf8mb4_bin;
         SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;
         SET SESSION autocommit = 1, time_zone = '+00:00', innodb_lock_wait_timeout = 1,
            lock_wait_timeout = 10, group_concat_max_len = 16777216,
            sql_mode = 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ZERO_DATE,NO_ZERO_IN_DATE,NO_ENGINE_SUBSTITUTION',
            {of_kind};
         SELECT CAST(UNIX_TIMESTAMP(NOW()) - (SELECT VARIABLE_VALUE FROM {status}) AS SIGNED),
            CONCAT_WS('|', @@GLOBAL.server_id, @@GLOBAL.hostname, @@GLOBAL.port, @@GLOBAL.datadir, {name}),
            CAST(@@GLOBAL.read_only AS SIGNED)"
    )
}

/// A number for a name (FNV-1a, 63 bits).
fn number_of(name: &str) -> i64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    i64::try_from(hash >> 1).unwrap_or(i64::MAX)
}

/// Run statements that go out together; the rows of all of them.
pub(super) async fn run(
    connection: &mut MySqlConnection,
    sql: String,
) -> Result<Vec<MySqlRow>, sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_too_old_is_refused_by_name() {
        for version in ["10.6.0-MariaDB", "5.5.5-10.11.19-MariaDB-0+deb12u1", "8.0.16", "9.1.0"] {
            assert_eq!(fit(version, false), Ok(()), "{version}");
        }
        for version in ["10.5.29-MariaDB", "5.5.5-10.3.1-MariaDB", "8.0.15", "5.7.44-log", ""] {
            let unfit = fit(version, false).unwrap_err();
            assert!(
                unfit.reason.contains(version) && unfit.remedy.contains("Upgrade"),
                "{unfit:?}"
            );
        }
    }

    #[test]
    fn a_server_without_two_stamps_is_refused() {
        let unfit = fit("10.11.19-MariaDB", true).unwrap_err();
        assert!(unfit.reason.contains("--sysdate-is-now"), "{unfit:?}");
    }
}
