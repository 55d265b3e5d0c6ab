//! The farm's database: a server of either kind, or a primary and its standby.

use turnwise_servers::mariadb::MariaDb;
use turnwise_servers::postgres::Cluster;
use turnwise_servers::replicated::Replicated;

/// What the farm's database is called where it has to be made first.
const NAME: &str = "jobs";

/// Which kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgres,
    Mariadb,
}

/// The servers.
pub(crate) enum Database {
    Alone(Cluster),
    Replicated(Replicated),
    Mariadb(MariaDb),
}

impl Database {
    pub(crate) fn start(kind: Kind) -> Self {
        match kind {
            Kind::Postgres => Self::Alone(Cluster::start()),
            Kind::Mariadb => Self::of_mariadb(MariaDb::start()),
        }
    }

    /// The same with a disk of its own.
    pub(crate) fn start_on_disk_of(kind: Kind, megabytes: u32) -> Self {
        match kind {
            Kind::Postgres => Self::Alone(Cluster::start_on_disk_of(megabytes)),
            Kind::Mariadb => {
                let options = ["--innodb-log-file-size=8M", "--innodb-buffer-pool-size=16M"];
                Self::of_mariadb(MariaDb::start_on_disk_of(megabytes, &options))
            }
        }
    }

    fn of_mariadb(server: MariaDb) -> Self {
        server.sql(&format!("CREATE DATABASE {NAME}"));
        Self::Mariadb(server)
    }

    /// Fill the disk to the last byte.
    pub(crate) fn fill_disk(&self) {
        match self {
            Self::Mariadb(server) => server.fill_disk(),
            _ => self.primary().fill_disk(),
        }
    }

    /// Make room on the disk again.
    pub(crate) fn free_disk(&self) {
        match self {
            Self::Mariadb(server) => server.free_disk(),
            _ => self.primary().free_disk(),
        }
    }

    /// The PostgreSQL server that takes writes.
    pub(crate) fn primary(&self) -> &Cluster {
        match self {
            Self::Alone(cluster) => cluster,
            Self::Replicated(pair) => pair.primary(),
            Self::Mariadb(_) => panic!("this farm is on MariaDB"),
        }
    }

    /// What the nodes are told.
    pub(crate) fn urls(&self) -> String {
        match self {
            Self::Alone(cluster) => cluster.url(),
            Self::Replicated(pair) => pair.servers().each_ref().map(Cluster::url).join(" "),
            Self::Mariadb(server) => server.url_of(NAME),
        }
    }

    /// Kill the server that takes writes, as a power cut would.
    pub(crate) fn kill9(&self) {
        match self {
            Self::Mariadb(server) => server.kill9(),
            _ => self.primary().kill9(),
        }
    }

    /// Start it again.
    pub(crate) fn restart(&self) {
        match self {
            Self::Mariadb(server) => server.restart(),
            _ => self.primary().restart(),
        }
    }

    /// What MariaDB answers, line by line. The tables are named as on PostgreSQL.
    pub(crate) fn mariadb_lines(&self, sql: &str) -> Vec<String> {
        let Self::Mariadb(server) = self else { panic!("this farm is not on MariaDB") };
        let sql = format!("USE {NAME}; {}", sql.replace("turnwise.", "turnwise_"));
        let answer = tokio::task::block_in_place(|| server.sql(&sql));
        answer.lines().map(str::to_owned).collect()
    }

    /// A time as microseconds since the Unix epoch.
    pub(crate) fn micros(&self, time: &str) -> String {
        match self {
            Self::Mariadb(_) => format!("timestampdiff(microsecond, '1970-01-01', {time})"),
            _ => format!("(extract(epoch from {time}) * 1000000)::bigint"),
        }
    }
}
