//! The database: a real server of the wanted kind, and the few questions that differ from kind to kind. Decides nothing.

use std::net::{Ipv4Addr, SocketAddr};

use clap::ValueEnum;
use turnwise_servers::replicated::{Replicated, Replication};
use turnwise_servers::{mariadb, postgres};

/// Which database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// PostgreSQL
    #[default]
    Postgres,
    /// MariaDB
    Mariadb,
}

/// A throwaway server, or a primary with its standby.
pub(super) enum Server {
    Postgres(postgres::Cluster),
    Replicated(Replicated),
    Mariadb(mariadb::MariaDb),
}

/// The database's name, where it has to be made first.
const DATABASE: &str = "jobs";

/// The questions, to PostgreSQL.
const BEATS: &str = "SELECT slot, node, (extract(epoch FROM arrived_at) * 1000000)::bigint, claimed
    FROM turnwise.beats ORDER BY slot";
const ATTEMPTS: &str = "SELECT job, node, (extract(epoch FROM started_at) * 1000000)::bigint
    FROM (SELECT job, node, started_at FROM turnwise.attempts
        UNION ALL
        SELECT id, node, started_at FROM turnwise.jobs WHERE state = 'succeeded') a
    ORDER BY started_at";

/// A beat as the database has written it down.
#[derive(Clone, Debug)]
pub(super) struct Beat {
    pub(super) slot: i64,
    /// The node's id.
    pub(super) node: String,
    /// When, in microseconds since the Unix epoch.
    pub(super) arrived_us: i64,
    pub(super) claimed: u32,
}

/// An attempt as the database has written it down: of which job, by whom, from when (microseconds).
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) job: String,
    pub(super) node: String,
    pub(super) started_us: i64,
}

impl Server {
    /// A new one; with a standby that has everything that was acknowledged, where there can be one.
    pub(super) fn start(kind: Kind, replica: bool) -> Self {
        match kind {
            Kind::Postgres if replica => {
                Self::Replicated(Replicated::start(Replication::Synchronous))
            }
            Kind::Postgres => Self::Postgres(postgres::Cluster::start()),
            Kind::Mariadb => {
                let server = mariadb::MariaDb::start();
                server.sql(&format!("CREATE DATABASE {DATABASE}"));
                Self::Mariadb(server)
            }
        }
    }

    /// Where it listens, and then its standby.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let ports = match self {
            Self::Postgres(server) => vec![server.port()],
            Self::Replicated(pair) => pair.servers().iter().map(postgres::Cluster::port).collect(),
            Self::Mariadb(server) => vec![server.port()],
        };
        ports.into_iter().map(|port| (Ipv4Addr::LOCALHOST, port).into()).collect()
    }

    /// The standby takes over.
    pub(super) fn take_over(&self) {
        if let Self::Replicated(pair) = self {
            pair.promote();
        }
    }

    /// Whoever is not the primary becomes its standby, and catches up. Takes seconds.
    pub(super) fn rebuild_standby(&self) {
        if let Self::Replicated(pair) = self {
            pair.rebuild_standby();
        }
    }

    /// The URL of its database, at this address.
    pub(super) fn url(&self, address: SocketAddr) -> String {
        match self {
            Self::Postgres(_) | Self::Replicated(_) => {
                format!("postgres://postgres@{address}/postgres")
            }
            Self::Mariadb(_) => format!("mysql://root@{address}/{DATABASE}"),
        }
    }

    /// Kill it, as a power cut would.
    pub(super) fn kill(&self) {
        match self {
            Self::Postgres(server) => server.kill9(),
            Self::Replicated(pair) => pair.primary().kill9(),
            Self::Mariadb(server) => server.kill9(),
        }
    }

    /// Start it again.
    pub(super) fn restart(&self) {
        match self {
            Self::Postgres(server) => server.restart(),
            Self::Replicated(pair) => pair.primary().restart(),
            Self::Mariadb(server) => server.restart(),
        }
    }

    /// Stop it where it is.
    pub(super) fn pause(&self) {
        match self {
            Self::Postgres(server) => server.pause(),
            Self::Replicated(pair) => pair.primary().pause(),
            Self::Mariadb(server) => server.pause(),
        }
    }

    /// Let it go on.
    pub(super) fn resume(&self) {
        match self {
            Self::Postgres(server) => server.resume(),
            Self::Replicated(pair) => pair.primary().resume(),
            Self::Mariadb(server) => server.resume(),
        }
    }

    /// Every accepted beat, in order of slots.
    pub(super) fn beats(&self) -> Result<Vec<Beat>, String> {
        let rows = match self {
            Self::Postgres(server) => server.psql(BEATS),
            Self::Replicated(pair) => pair.primary().psql(BEATS),
            Self::Mariadb(server) => server.sql(&format!(
                "SELECT slot, node, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', arrived_at), claimed
                 FROM {DATABASE}.turnwise_beats ORDER BY slot"
            )),
        };
        rows.lines()
            .map(|row| {
                let mut row = Row::of(row);
                Ok(Beat {
                    slot: row.number()?,
                    node: row.text()?,
                    arrived_us: row.number()?,
                    claimed: row.number()?,
                })
            })
            .collect()
    }

    /// Every attempt that has ended: one that succeeded stands in its job's row.
    pub(super) fn attempts(&self) -> Result<Vec<Attempt>, String> {
        let rows = match self {
            Self::Postgres(server) => server.psql(ATTEMPTS),
            Self::Replicated(pair) => pair.primary().psql(ATTEMPTS),
            Self::Mariadb(server) => server.sql(&format!(
                "SELECT job, node, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', started_at)
                 FROM (SELECT job, node, started_at FROM {DATABASE}.turnwise_attempts
                    UNION ALL
                    SELECT id, node, started_at FROM {DATABASE}.turnwise_jobs WHERE state = 'succeeded') a
                 ORDER BY started_at"
            )),
        };
        rows.lines()
            .map(|row| {
                let mut row = Row::of(row);
                Ok(Attempt { job: row.text()?, node: row.text()?, started_us: row.number()? })
            })
            .collect()
    }
}

/// A row of an answer, column by column.
struct Row<'a> {
    text: &'a str,
    columns: std::str::Split<'a, [char; 2]>,
}

impl<'a> Row<'a> {
    fn of(text: &'a str) -> Self {
        Self { text, columns: text.split(['|', '\t']) }
    }

    fn text(&mut self) -> Result<String, String> {
        let column = self.columns.next();
        column
            .map(str::to_owned)
            .ok_or_else(|| format!("the database's answer is short: {}", self.text))
    }

    fn number<T: std::str::FromStr>(&mut self) -> Result<T, String> {
        let column = self.text()?;
        column.parse().map_err(|_| format!("{column:?} is no number, in {}", self.text))
    }
}
