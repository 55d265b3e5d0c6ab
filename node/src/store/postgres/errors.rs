//! Decides what an error of PostgreSQL or of the way to it means, by its SQLSTATE (PostgreSQL
//! documentation, appendix A).

use turnwise_engine::Fate;

use super::PgStore;
use crate::store::StoreError;
use crate::store::errors::Trouble;

/// Whether the connection may be used for a further statement: the server answered and goes on.
pub(super) fn leaves_connection_usable(trouble: &Trouble) -> bool {
    match trouble {
        Trouble::Corrupt(_) => true,
        Trouble::Sql(sqlx::Error::Database(error)) => {
            let code = error.code().unwrap_or_default();
            !is_away(&code) && !code.is_empty()
        }
        Trouble::Sql(_) => false,
    }
}

/// Connection exceptions, a lock that somebody else holds (it may help to wait), no connections left, the server is read-only (a standby), or it shuts down or
/// starts.
fn is_away(code: &str) -> bool {
    code.starts_with("08")
        || matches!(code, "53300" | "55P03" | "25006" | "57P01" | "57P02" | "57P03")
}

impl PgStore {
    /// The error of a connect: nothing was sent.
    pub(super) fn connecting(&self, error: &sqlx::Error) -> StoreError {
        if let sqlx::Error::Database(database) = error {
            let code = database.code().unwrap_or_default();
            if !is_away(&code) {
                return self.said(&code, database.message());
            }
            return self.not_reached(database.message().to_owned());
        }
        self.not_reached(plain(error))
    }

    pub(super) fn not_reached(&self, reason: String) -> StoreError {
        StoreError::Unreachable {
            database: self.database().to_owned(),
            reason,
            fate: Fate::NotSent,
        }
    }

    /// The error of a statement that was sent.
    pub(super) fn trouble(&self, trouble: Trouble) -> StoreError {
        let error = match trouble {
            Trouble::Corrupt(what) => {
                return StoreError::Corrupt { database: self.database().to_owned(), what };
            }
            Trouble::Sql(error) => error,
        };
        let reason = match &error {
            sqlx::Error::Database(database) => {
                let code = database.code().unwrap_or_default();
                if !is_away(&code) {
                    return self.said(&code, database.message());
                }
                database.message().to_owned()
            }
            // These never came as far as the server.
            sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_) => {
                let reason = error.to_string();
                return StoreError::Failed { database: self.database().to_owned(), reason };
            }
            other => plain(other),
        };
        StoreError::Unreachable {
            database: self.database().to_owned(),
            reason,
            fate: Fate::Unknown,
        }
    }

    fn said(&self, code: &str, message: &str) -> StoreError {
        let database = self.database().to_owned();
        let reason = message.to_owned();
        let remedy = match code {
            "3D000" => "Create the database, or name another in the URL",
            "42501" => {
                "Grant the role what it lacks, or let the owner of the schema run `turnwise migrate`"
            }
            _ if code.starts_with("28") => {
                "Check user and password in the URL, and pg_hba.conf on the server"
            }
            "42P01" | "42883" | "3F000" | "42704" | "42703" => {
                let missing = message.strip_suffix(" does not exist").unwrap_or(message).to_owned();
                return StoreError::SchemaMissing { database, missing };
            }
            _ => return StoreError::Failed { database, reason: format!("{reason} ({code})") },
        };
        StoreError::Refused { database, reason, remedy: remedy.to_owned() }
    }
}

/// The reason alone, without the driver's words around it.
fn plain(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}
