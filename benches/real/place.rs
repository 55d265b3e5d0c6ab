//! A throwaway database of any kind that a node can use, and what a benchmark itself asks of it. Decides nothing; the
//! SQL that differs from kind to kind stands here.

use std::cell::Cell;

use clap::ValueEnum;
use serde::Serialize;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Row};

use super::server::{Kind, Server};

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Database {
    /// PostgreSQL
    Postgres,
    /// MariaDB
    Mariadb,
    /// SQLite, a file
    Sqlite,
}

impl From<Kind> for Database {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Postgres => Self::Postgres,
            Kind::Mariadb => Self::Mariadb,
        }
    }
}

/// The name of the database on a server.
const NAME: &str = "jobs";

/// An empty database. Gone with this value.
pub struct Place {
    database: Database,
    house: House,
    /// What the server has counted of this value's own statements.
    own: Cell<i64>,
    /// What it counts of each look at its count, and of each [`Place::sql`].
    look_costs: i64,
    sql_costs: i64,
}

enum House {
    Server(Server),
    File(tempfile::TempDir),
}

/// What the table says of jobs that have been run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// All jobs.
    pub jobs: i64,
    /// Those that have succeeded, at their first attempt.
    pub succeeded: i64,
    /// Attempts that were written down.
    pub attempts: i64,
    /// Jobs with at least one of them that was answered with 200.
    pub answered: i64,
    /// From the first claim to the last end, both as they are stored: by the server's clock, in microseconds.
    pub took_us: i64,
}

impl Place {
    /// A new one on a server of its own, or in a file.
    pub fn start(database: Database) -> Self {
        let server = |kind| {
            let server = Server::start(kind);
            server.create(NAME);
            House::Server(server)
        };
        let house = match database {
            Database::Postgres => server(Kind::Postgres),
            Database::Mariadb => server(Kind::Mariadb),
            Database::Sqlite => House::File(tempfile::tempdir().unwrap()),
        };
        let own = Cell::new(0);
        let mut place = Self { database, house, own, look_costs: 0, sql_costs: 0 };
        if let House::Server(server) = &place.house {
            let look_costs = server.looks_cost(NAME);
            let before = server.statements(NAME);
            place.sql("SELECT 1");
            let sql_costs = place.counted() - before - look_costs;
            (place.look_costs, place.sql_costs) = (look_costs, sql_costs);
        }
        place
    }

    fn counted(&self) -> i64 {
        match &self.house {
            House::Server(server) => server.statements(NAME),
            House::File(_) => 0,
        }
    }

    /// What a node is given.
    pub fn url(&self) -> String {
        match &self.house {
            House::Server(server) => server.url_at(server.port(), NAME),
            House::File(folder) => format!("sqlite://{}", folder.path().join("jobs.db").display()),
        }
    }

    /// The answer to SQL, a line a row, without headings; of several columns the last kind gives only the first.
    pub fn sql(&self, sql: &str) -> String {
        self.own.set(self.own.get() + self.sql_costs);
        match &self.house {
            House::Server(Server::Postgres(server)) => server.psql_in(NAME, sql),
            House::Server(Server::Mariadb(server)) => server.sql(&format!("USE {NAME}; {sql}")),
            House::File(folder) => sqlite(folder, sql),
        }
    }

    /// How many statements others than this value have sent, by the server's count; none: it keeps none.
    pub fn statements(&self) -> Option<i64> {
        let House::Server(_) = &self.house else { return None };
        let counted = self.counted() - self.own.get();
        // This look is counted by the next one.
        self.own.set(self.own.get() + self.look_costs);
        Some(counted)
    }

    /// Insert jobs that are due at once, by the INSERT that an application uses, in one statement: for the paths
    /// `/jobs/1` to `/jobs/COUNT`.
    pub fn enqueue(&self, count: u32) {
        self.sql(&self.insert(count));
    }

    /// The statement of [`Place::enqueue`].
    pub fn insert(&self, count: u32) -> String {
        match self.database {
            Database::Postgres => format!(
                "INSERT INTO turnwise.jobs (url) SELECT '/jobs/' || g FROM generate_series(1, {count}) g"
            ),
            Database::Mariadb => format!(
                "INSERT INTO turnwise_jobs (url) SELECT concat('/jobs/', seq) FROM seq_1_to_{count}"
            ),
            Database::Sqlite => format!(
                "INSERT INTO turnwise_jobs (url)
                 WITH RECURSIVE g (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < {count})
                 SELECT '/jobs/' || n FROM g"
            ),
        }
    }

    /// A table's name.
    fn table(&self, name: &str) -> String {
        let dot = if self.database == Database::Postgres { '.' } else { '_' };
        format!("turnwise{dot}{name}")
    }

    fn number(&self, sql: &str) -> i64 {
        let answer = self.sql(sql);
        answer.trim().parse().unwrap_or_else(|_| panic!("{sql} gave {answer:?} and no number"))
    }

    /// How many nodes have had a beat.
    pub fn beaten(&self) -> i64 {
        self.number(&format!("SELECT count(DISTINCT node) FROM {}", self.table("beats")))
    }

    /// The last slot that had a beat; 0: nobody has beaten.
    pub fn last_slot(&self) -> i64 {
        self.number(&format!("SELECT coalesce(max(slot), 0) FROM {}", self.table("beats")))
    }

    /// How many slots after `after`, up to `until`, had no beat.
    pub fn slots_without_beat(&self, after: i64, until: i64) -> i64 {
        let beats = self.table("beats");
        let between = format!("slot > {after} AND slot <= {until}");
        until - after - self.number(&format!("SELECT count(*) FROM {beats} WHERE {between}"))
    }

    /// How many jobs have not ended.
    pub fn unended(&self) -> i64 {
        let jobs = self.table("jobs");
        self.number(&format!("SELECT count(*) FROM {jobs} WHERE state IN ('queued', 'running')"))
    }

    /// What has become of all jobs.
    pub fn run(&self) -> Run {
        let (jobs, attempts) = (self.table("jobs"), self.table("attempts"));
        let took = match self.database {
            Database::Postgres => {
                "(extract(epoch FROM max(finished_at) - min(started_at)) * 1000000)::bigint"
            }
            Database::Mariadb => "TIMESTAMPDIFF(MICROSECOND, min(started_at), max(finished_at))",
            Database::Sqlite => "max(finished_at) - min(started_at)",
        };
        let once = "state = 'succeeded' AND attempt = 1 AND hand_backs = 0";
        // An attempt that succeeded stands in its job's row.
        let answered = format!("SELECT count(*) FROM {jobs} WHERE {once} AND last_status = 200");
        let recorded = format!(
            "SELECT (SELECT count(*) FROM {attempts})
                + (SELECT count(*) FROM {jobs} WHERE state = 'succeeded' AND started_at IS NOT NULL)"
        );
        Run {
            jobs: self.number(&format!("SELECT count(*) FROM {jobs}")),
            succeeded: self.number(&format!("SELECT count(*) FROM {jobs} WHERE {once}")),
            attempts: self.number(&recorded),
            answered: self.number(&answered),
            took_us: self.number(&format!("SELECT coalesce({took}, 0) FROM {jobs}")),
        }
    }
}

fn sqlite(folder: &tempfile::TempDir, sql: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let file = SqliteConnectOptions::new().filename(folder.path().join("jobs.db"));
        let mut connection: SqliteConnection = file.connect().await.unwrap();
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let line = |row: &sqlx::sqlite::SqliteRow| {
            row.try_get_unchecked::<Option<String>, _>(0).unwrap().unwrap_or_default()
        };
        rows.iter().map(line).collect::<Vec<_>>().join("\n")
    })
}
