//! A session of somebody else on a server: one connection that stands, for statements that no node sends. Decides
//! nothing.

use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection};

use super::server::Kind;

/// An open connection.
pub enum Session {
    /// To PostgreSQL.
    Postgres(PgConnection),
    /// To MariaDB.
    Mariadb(MySqlConnection),
}

impl Session {
    /// A new one to the database at `url`.
    pub async fn open(kind: Kind, url: &str) -> Self {
        match kind {
            Kind::Postgres => Self::Postgres(PgConnection::connect(url).await.unwrap()),
            Kind::Mariadb => Self::Mariadb(MySqlConnection::connect(url).await.unwrap()),
        }
    }

    /// Carry out SQL. Its rows are thrown away.
    pub async fn run(&mut self, sql: &str) {
        let sql = AssertSqlSafe(sql);
        match self {
            Self::Postgres(session) => drop(session.execute(sql).await.unwrap()),
            Self::Mariadb(session) => drop(session.execute(sql).await.unwrap()),
        }
    }

    /// Hold a snapshot of the database as it is now, until this value is gone: what is written from now on leaves its
    /// old versions behind.
    pub async fn hold_snapshot(&mut self) {
        self.run(match self {
            Self::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ",
            Self::Mariadb(_) => "START TRANSACTION WITH CONSISTENT SNAPSHOT",
        })
        .await;
        self.run("SELECT 1").await;
    }
}
