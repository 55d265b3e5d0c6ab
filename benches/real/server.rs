//! A real server of either kind, and the few questions that differ from kind to kind. Decides nothing.

use clap::ValueEnum;
use serde::Serialize;
use turnwise_servers::mariadb::MariaDb;
use turnwise_servers::postgres::Cluster;

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// PostgreSQL
    Postgres,
    /// MariaDB
    Mariadb,
}

/// A throwaway server.
pub enum Server {
    /// PostgreSQL.
    Postgres(Cluster),
    /// MariaDB.
    Mariadb(MariaDb),
}

/// A beat as the database wrote it down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Its slot.
    pub slot: i64,
    /// When it arrived, in microseconds since the Unix epoch.
    pub arrived_us: i64,
}

impl Server {
    /// A new one.
    pub fn start(kind: Kind) -> Self {
        match kind {
            Kind::Postgres => {
                let server = Cluster::start();
                server.psql("CREATE EXTENSION pg_stat_statements");
                Self::Postgres(server)
            }
            Kind::Mariadb => Self::Mariadb(MariaDb::start()),
        }
    }

    /// A new database.
    pub fn create(&self, database: &str) {
        let create = format!("CREATE DATABASE {database}");
        match self {
            Self::Postgres(server) => server.psql(&create),
            Self::Mariadb(server) => server.sql(&create),
        };
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        match self {
            Self::Postgres(server) => server.port(),
            Self::Mariadb(server) => server.port(),
        }
    }

    /// The URL of a database, at another port than the server's own: a road's beginning.
    pub fn url_at(&self, port: u16, database: &str) -> String {
        match self {
            Self::Postgres(_) => format!("postgres://postgres@127.0.0.1:{port}/{database}"),
            Self::Mariadb(_) => format!("mysql://root@127.0.0.1:{port}/{database}"),
        }
    }

    /// The last slot that had a beat; none: nobody has beaten.
    pub fn last_slot(&self, database: &str) -> Option<i64> {
        let rows = match self {
            Self::Postgres(server) => {
                server.psql_in(database, "SELECT coalesce(max(slot), 0) FROM turnwise.beats")
            }
            Self::Mariadb(server) => {
                server.sql(&format!("SELECT coalesce(max(slot), 0) FROM {database}.turnwise_beats"))
            }
        };
        Some(rows.trim().parse().unwrap()).filter(|slot| *slot != 0)
    }

    /// The beats after slot `after`, up to slot `until`, in their order.
    pub fn beats(&self, database: &str, after: i64, until: i64) -> Vec<Beat> {
        let which = format!("WHERE slot > {after} AND slot <= {until} ORDER BY slot");
        let rows = match self {
            Self::Postgres(server) => server.psql_in(
                database,
                &format!(
                    "SELECT slot, (extract(epoch FROM arrived_at) * 1000000)::bigint
                     FROM turnwise.beats {which}"
                ),
            ),
            Self::Mariadb(server) => server.sql(&format!(
                "SELECT slot, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', arrived_at)
                 FROM {database}.turnwise_beats {which}"
            )),
        };
        let beat = |row: &str| {
            let (slot, arrived) = row.split_once(['|', '\t']).unwrap();
            Beat { slot: slot.parse().unwrap(), arrived_us: arrived.parse().unwrap() }
        };
        rows.lines().map(beat).collect()
    }

    /// What is added to slot numbers after steps of the server's clock.
    pub fn bias(&self, database: &str) -> i64 {
        let bias = match self {
            Self::Postgres(server) => server.psql_in(database, "SELECT bias FROM turnwise.turn"),
            Self::Mariadb(server) => {
                server.sql(&format!("SELECT bias FROM {database}.turnwise_turn"))
            }
        };
        bias.trim().parse().unwrap()
    }

    /// How many statements clients have sent: on PostgreSQL to `database` alone, by `pg_stat_statements`; on MariaDB to
    /// the server, by `Questions`, those of these looks among them ([`Server::looks_cost`]).
    pub fn statements(&self, database: &str) -> i64 {
        let count = match self {
            Self::Postgres(server) => server.psql(&format!(
                "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements s
                 JOIN pg_database d ON d.oid = s.dbid WHERE datname = '{database}' AND toplevel"
            )),
            Self::Mariadb(server) => {
                let row = server.sql("SHOW GLOBAL STATUS LIKE 'Questions'");
                row.split_whitespace().nth(1).unwrap_or_default().to_owned()
            }
        };
        count.trim().parse().unwrap()
    }

    /// What one look adds to the count of the next, while nobody else sends anything.
    pub fn looks_cost(&self, database: &str) -> i64 {
        let before = self.statements(database);
        self.statements(database) - before
    }
}
