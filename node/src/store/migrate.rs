//! Decides which migrations a database needs and whether this binary may use its schema. Migrations are
//! only ever added, so that binaries of several versions can share a database; each names the least
//! version that may use the schema from then on.

use sqlx::{
    AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection, Row, SqliteConnection,
};

use super::StoreError;
use super::errors::Trouble;

/// One step of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Its number, from 1.
    pub version: i64,
    /// Its name, for people.
    pub name: &'static str,
    /// Its statements; the first line tells the least binary.
    pub sql: &'static str,
}

macro_rules! migration {
    ($version:literal, $database:literal, $name:literal) => {
        Migration {
            version: $version,
            name: $name,
            sql: include_str!(concat!("../../../migrations/", $database, "/", $name, ".sql")),
        }
    };
}

/// The schema for PostgreSQL.
pub const POSTGRES: &[Migration] = &[
    migration!(1, "postgres", "0001_turns_and_jobs"),
    migration!(2, "postgres", "0002_jobs_that_were_given_up"),
    migration!(3, "postgres", "0003_drain_and_targets"),
    migration!(4, "postgres", "0004_retention"),
    migration!(5, "postgres", "0005_hot_path"),
    migration!(6, "postgres", "0006_plans_are_kept"),
    migration!(7, "postgres", "0007_enqueue"),
    migration!(8, "postgres", "0008_unique_keys"),
    migration!(9, "postgres", "0009_pauses"),
    migration!(10, "postgres", "0010_schedules"),
    migration!(11, "postgres", "0011_retries_and_callbacks"),
    migration!(12, "postgres", "0012_tokens"),
    migration!(13, "postgres", "0013_audit"),
    migration!(14, "postgres", "0014_sql_roles"),
    migration!(15, "postgres", "0015_outages"),
    migration!(16, "postgres", "0016_limits"),
    migration!(17, "postgres", "0017_batches"),
    migration!(18, "postgres", "0018_limits_of_many_queues"),
    migration!(19, "postgres", "0019_keys_and_parents"),
    migration!(20, "postgres", "0020_looks_of_batches"),
    migration!(21, "postgres", "0021_leases_begin_anew"),
];

/// The schema for MariaDB and MySQL.
pub const MYSQL: &[Migration] = &[
    migration!(1, "mysql", "0001_turns_and_jobs"),
    migration!(2, "mysql", "0002_drain_and_targets"),
    migration!(3, "mysql", "0003_jobs_that_were_given_up"),
    migration!(4, "mysql", "0004_retention"),
    migration!(5, "mysql", "0005_hot_path"),
    migration!(6, "mysql", "0006_unique_keys"),
    migration!(7, "mysql", "0007_pauses"),
    migration!(8, "mysql", "0008_schedules"),
    migration!(9, "mysql", "0009_retries_and_callbacks"),
    migration!(10, "mysql", "0010_tokens"),
    migration!(11, "mysql", "0011_audit"),
    migration!(12, "mysql", "0012_outages"),
    migration!(13, "mysql", "0013_limits"),
    migration!(14, "mysql", "0014_batches"),
    migration!(15, "mysql", "0015_keys_and_parents"),
    migration!(16, "mysql", "0016_ended_batches"),
];

/// The schema for SQLite.
pub const SQLITE: &[Migration] = &[
    migration!(1, "sqlite", "0001_turns_and_jobs"),
    migration!(2, "sqlite", "0002_jobs_that_were_given_up"),
    migration!(3, "sqlite", "0003_drain_and_targets"),
    migration!(4, "sqlite", "0004_retention"),
    migration!(5, "sqlite", "0005_hot_path"),
    migration!(6, "sqlite", "0006_unique_keys"),
    migration!(7, "sqlite", "0007_pauses"),
    migration!(8, "sqlite", "0008_schedules"),
    migration!(9, "sqlite", "0009_retries_and_callbacks"),
    migration!(10, "sqlite", "0010_tokens"),
    migration!(11, "sqlite", "0011_audit"),
    migration!(12, "sqlite", "0012_outages"),
    migration!(13, "sqlite", "0013_limits"),
    migration!(14, "sqlite", "0014_batches"),
    migration!(15, "sqlite", "0015_keys_and_parents"),
    migration!(16, "sqlite", "0016_ended_batches"),
];

/// The version of this binary.
pub(super) const THIS: &str = env!("CARGO_PKG_VERSION");

/// Held while the schema is changed, so that processes that start at once take turns.
const ADVISORY_LOCK: i64 = 0x7475_726e_7769_7365;

impl Migration {
    /// The least version of the binary that may use a schema with this step.
    pub fn least_binary(&self) -> &'static str {
        let first = self.sql.lines().next().unwrap_or_default();
        first.strip_prefix("-- least-binary:").map_or("0.0.0", str::trim)
    }
}

/// What the database says of a step that it has: its number and the least binary.
pub(super) type Applied = Vec<(i64, String)>;

/// Whether this binary may use a schema with these steps.
pub(super) fn check(
    known: &[Migration],
    applied: &Applied,
    database: &str,
) -> Result<(), StoreError> {
    refuse_newer(applied, database)?;
    match missing(known, applied).next() {
        None => Ok(()),
        Some(step) => Err(StoreError::SchemaMissing {
            database: database.to_owned(),
            missing: step.name.to_owned(),
        }),
    }
}

pub(super) fn refuse_newer(applied: &Applied, database: &str) -> Result<(), StoreError> {
    let least = applied.iter().map(|(_, least)| least).max_by_key(|least| numbers(least));
    match least {
        Some(least) if numbers(least) > numbers(THIS) => Err(StoreError::SchemaTooNew {
            database: database.to_owned(),
            least: least.clone(),
            this: THIS.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// The three numbers of a version; what is no number counts as zero.
fn numbers(version: &str) -> [u64; 3] {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let mut parts = core.split('.').map(|part| part.trim().parse().unwrap_or(0));
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

fn missing<'a>(
    known: &'a [Migration],
    applied: &'a Applied,
) -> impl Iterator<Item = &'a Migration> + 'a {
    known.iter().filter(|step| !applied.iter().any(|(version, _)| *version == step.version))
}

/// The steps that a PostgreSQL database has. (Here nothing is prepared: it is done once, and a pooler may be in the way.)
pub(super) async fn postgres_applied(connection: &mut PgConnection) -> Result<Applied, Trouble> {
    // By its tables, and not by to_regclass: a session that has looked for the schema before may remember that there was
    // none, after it has waited for whoever was making it (behind a pooler sessions are old).
    let there = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'turnwise' AND c.relname = 'migrations')";
    let there = connection.fetch_one(sqlx::raw_sql(there)).await?;
    if !there.try_get::<bool, _>(0)? {
        return Ok(Vec::new());
    }
    let applied = "SELECT version, least_binary FROM turnwise.migrations";
    let applied = connection.fetch_all(sqlx::raw_sql(applied)).await?;
    applied.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Texts of jobs go through unchanged only when the database stores what every text can be.
pub(super) fn refuse_encoding(encoding: &str, database: &str) -> Result<(), StoreError> {
    if encoding == "UTF8" {
        return Ok(());
    }
    Err(StoreError::Refused {
        database: database.to_owned(),
        reason: format!("its encoding is {encoding} and jobs may hold any text"),
        remedy: "Name a database whose encoding is UTF8: CREATE DATABASE jobs TEMPLATE template0 ENCODING 'UTF8'".to_owned(),
    })
}

/// Apply what is missing, in one transaction. `allowed` judges what is there before anything is changed.
pub(super) async fn postgres_apply(
    connection: &mut PgConnection,
    allowed: impl Fn(&Applied) -> Result<(), StoreError> + Send,
) -> Result<Result<Vec<String>, StoreError>, Trouble> {
    let mut transaction = connection.begin().await?;
    let lock = format!("SET LOCAL lock_timeout = 0; SELECT pg_advisory_xact_lock({ADVISORY_LOCK})");
    transaction.execute(sqlx::raw_sql(AssertSqlSafe(lock))).await?;
    let applied = postgres_applied(&mut transaction).await?;
    if let Err(refused) = allowed(&applied) {
        return Ok(Err(refused));
    }
    let mut names = Vec::new();
    for step in missing(POSTGRES, &applied) {
        if names.is_empty() && applied.is_empty() {
            // The schema may have been made beforehand, for a role that may not make one.
            let schema =
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'turnwise')";
            let schema = transaction.fetch_one(sqlx::raw_sql(schema)).await?;
            if !schema.try_get::<bool, _>(0)? {
                transaction.execute(sqlx::raw_sql("CREATE SCHEMA turnwise")).await?;
            }
            transaction
                .execute(sqlx::raw_sql(
                    "CREATE TABLE IF NOT EXISTS turnwise.migrations (
                        version bigint PRIMARY KEY, name text NOT NULL, least_binary text NOT NULL,
                        applied_at timestamptz NOT NULL DEFAULT now())",
                ))
                .await?;
        }
        transaction.execute(sqlx::raw_sql(step.sql)).await?;
        let applied = format!(
            "INSERT INTO turnwise.migrations (version, name, least_binary) VALUES ({}, '{}', '{}')",
            step.version,
            step.name,
            step.least_binary()
        );
        transaction.execute(sqlx::raw_sql(AssertSqlSafe(applied))).await?;
        names.push(step.name.to_owned());
    }
    if !names.is_empty() {
        // What a step makes anew is everybody's, and has its caller's rights.
        let close = "SELECT turnwise.close_functions(p_again => true)";
        transaction.execute(sqlx::raw_sql(close)).await?;
    }
    transaction.commit().await?;
    Ok(Ok(names))
}

/// The steps that a MariaDB or MySQL database has.
pub(super) async fn mysql_applied(connection: &mut MySqlConnection) -> Result<Applied, Trouble> {
    let there: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM information_schema.TABLES
         WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'turnwise_migrations'",
    )
    .fetch_one(&mut *connection)
    .await?;
    if there == 0 {
        return Ok(Vec::new());
    }
    let applied = sqlx::query_as("SELECT version, least_binary FROM turnwise_migrations")
        .fetch_all(connection)
        .await?;
    Ok(applied)
}

/// Apply what is missing. A change of the schema commits by itself there: a lock by name keeps others out, and a step
/// that broke off is done again from its start, which changes nothing that is done. `allowed` judges what is there
/// before anything is changed. When it fails, so does the connection, and with it the lock.
pub(super) async fn mysql_apply(
    connection: &mut MySqlConnection,
    allowed: impl Fn(&Applied) -> Result<(), StoreError> + Send,
) -> Result<Result<Vec<String>, StoreError>, Trouble> {
    // Such names are the whole server's.
    const NAME: &str = "CONCAT('turnwise_', MD5(DATABASE()))";
    let lock = format!("SELECT GET_LOCK({NAME}, 60)");
    let locked: Option<i64> =
        sqlx::query_scalar(AssertSqlSafe(lock)).fetch_one(&mut *connection).await?;
    if locked != Some(1) {
        return Err(Trouble::Sql(sqlx::Error::Io(std::io::Error::other(
            "another process has been changing the schema for a minute",
        ))));
    }
    let applied = mysql_applied(connection).await?;
    if let Err(refused) = allowed(&applied) {
        return Ok(Err(refused));
    }
    let mut names = Vec::new();
    for step in missing(MYSQL, &applied) {
        if names.is_empty() {
            connection
                .execute(sqlx::raw_sql(
                    "CREATE TABLE IF NOT EXISTS turnwise_migrations (
                        version BIGINT NOT NULL PRIMARY KEY, name VARCHAR(255) NOT NULL,
                        least_binary VARCHAR(64) NOT NULL, applied_at DATETIME(6) NOT NULL
                     ) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
                ))
                .await?;
        }
        connection.execute(sqlx::raw_sql(step.sql)).await?;
        sqlx::query(
            "INSERT INTO turnwise_migrations (version, name, least_binary, applied_at)
             VALUES (?, ?, ?, SYSDATE(6))",
        )
        .bind(step.version)
        .bind(step.name)
        .bind(step.least_binary())
        .execute(&mut *connection)
        .await?;
        names.push(step.name.to_owned());
    }
    let unlock = format!("DO RELEASE_LOCK({NAME})");
    connection.execute(sqlx::raw_sql(AssertSqlSafe(unlock))).await?;
    Ok(Ok(names))
}

/// The steps that a SQLite database has.
pub(super) async fn sqlite_applied(connection: &mut SqliteConnection) -> Result<Applied, Trouble> {
    let there: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'turnwise_migrations'",
    )
    .fetch_one(&mut *connection)
    .await?;
    if there == 0 {
        return Ok(Vec::new());
    }
    let applied = sqlx::query_as("SELECT version, least_binary FROM turnwise_migrations")
        .fetch_all(connection)
        .await?;
    Ok(applied)
}

/// Apply what is missing. The caller has begun a transaction that may write.
pub(super) async fn sqlite_apply(
    connection: &mut SqliteConnection,
    now_us: i64,
    applied: &Applied,
) -> Result<Vec<String>, Trouble> {
    let mut names = Vec::new();
    for step in missing(SQLITE, applied) {
        if names.is_empty() {
            connection
                .execute(sqlx::raw_sql(
                    "CREATE TABLE IF NOT EXISTS turnwise_migrations (
                        version INTEGER PRIMARY KEY, name TEXT NOT NULL, least_binary TEXT NOT NULL,
                        applied_at INTEGER NOT NULL) STRICT",
                ))
                .await?;
        }
        connection.execute(sqlx::raw_sql(step.sql)).await?;
        sqlx::query(
            "INSERT INTO turnwise_migrations (version, name, least_binary, applied_at)
             VALUES (?, ?, ?, ?)",
        )
        .bind(step.version)
        .bind(step.name)
        .bind(step.least_binary())
        .bind(now_us)
        .execute(&mut *connection)
        .await?;
        names.push(step.name.to_owned());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(numbers("0.10.0") > numbers("0.9.9"));
        assert!(numbers("1.0.0-rc1") == numbers("1.0.0"));
        assert!(numbers("nonsense") == [0, 0, 0]);
    }

    #[test]
    fn every_step_names_its_least_binary_and_this_one_suffices() {
        for steps in [POSTGRES, MYSQL, SQLITE] {
            assert!(steps.is_sorted_by(|one, next| one.version < next.version));
            for step in steps {
                assert!(step.name.starts_with(&format!("{:04}_", step.version)), "{}", step.name);
            }
        }
        for step in POSTGRES.iter().chain(MYSQL).chain(SQLITE) {
            assert!(step.sql.starts_with("-- least-binary: "), "{}", step.name);
            assert!(numbers(step.least_binary()) <= numbers(THIS));
        }
    }

    #[test]
    fn a_step_of_a_newer_binary_counts_only_if_it_says_so() {
        let known = SQLITE.iter().map(|step| (step.version, step.least_binary().to_owned()));
        let mut applied: Applied = known.collect();
        applied.push((99, "0.1.0".to_owned()));
        assert!(check(SQLITE, &applied, "d").is_ok());
        applied.push((100, "99.0.0".to_owned()));
        assert!(matches!(check(SQLITE, &applied, "d"), Err(StoreError::SchemaTooNew { .. })));
        let none = check(SQLITE, &Vec::new(), "d");
        assert!(
            matches!(none, Err(StoreError::SchemaMissing { missing, .. }) if missing.starts_with("0001"))
        );
    }
}
