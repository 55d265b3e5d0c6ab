//! Decides what an error of PostgreSQL or of the way to it means, by its SQLSTATE (PostgreSQL
//! documentation, appendix A).

use turnwise_engine::Fate;

use super::{PgStore, batches};
use crate::store::StoreError;
use crate::store::errors::{REPLACED, Trouble};
use crate::store::tls;

/// Whether the connection may be used for a further statement: the server answered and goes on.
pub(super) fn leaves_connection_usable(trouble: &Trouble) -> bool {
    match trouble {
        Trouble::Corrupt(_) => true,
        Trouble::Sql(sqlx::Error::Database(error)) => {
            let code = error.code().unwrap_or_default();
            !is_away(&code) && !code.is_empty()
        }
        Trouble::Sql(_) | Trouble::Replaced(_) => false,
        Trouble::Batch(_) => true,
    }
}

/// Connection exceptions, a lock that somebody else holds (it may help to wait), no connections left, the server is read-only (a standby), or it shuts down or
/// starts.
fn is_away(code: &str) -> bool {
    code.starts_with("08") && code != "08P01"
        || matches!(code, "53300" | "55P03" | "25006" | "57P01" | "57P02" | "57P03")
}

/// The error of a connect to the server `name`: nothing was sent.
pub(super) fn connecting(name: &str, error: &sqlx::Error) -> StoreError {
    let not_reached =
        |reason| StoreError::Unreachable { database: name.to_owned(), reason, fate: Fate::NotSent };
    if let sqlx::Error::Database(database) = error {
        let code = database.code().unwrap_or_default();
        if !is_away(&code) {
            return said(name, &code, database.message());
        }
        return not_reached(database.message().to_owned());
    }
    match tls::trouble(error) {
        Some((reason, remedy)) => refused(name, reason, remedy),
        None => not_reached(plain(error)),
    }
}

/// The server `name` will not do.
pub(super) fn refused(name: &str, reason: String, remedy: &str) -> StoreError {
    StoreError::Refused { database: name.to_owned(), reason, remedy: remedy.to_owned() }
}

fn said(name: &str, code: &str, message: &str) -> StoreError {
    let database = name.to_owned();
    match meaning(code) {
        Meaning::SchemaMissing => {
            let missing = message.strip_suffix(" does not exist").unwrap_or(message).to_owned();
            StoreError::SchemaMissing { database, missing }
        }
        Meaning::Refused(remedy) => {
            let grant = if code == DENIED { grant(message, name) } else { None };
            let remedy = grant.as_deref().unwrap_or(remedy);
            refused(name, format!("{message} ({code})"), remedy)
        }
        Meaning::Failed { may_pass } => {
            let reason = format!("{message} ({code})");
            StoreError::Failed { database, reason, may_pass }
        }
    }
}

/// The SQLSTATE of a privilege that is missing.
const DENIED: &str = "42501";

/// What to run for a privilege that `message` says is missing, for the role that the server `name` is used as; none: the
/// message does not say which.
fn grant(message: &str, name: &str) -> Option<String> {
    let what = message.strip_prefix("permission denied for ")?;
    let (kind, object) = what.split_once(' ')?;
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let url = url::Url::parse(name.split(" or ").next()?).ok()?;
    let role = quoted(url.username());
    let run = match (kind, object) {
        ("database", _) => format!("GRANT CREATE ON DATABASE {} TO {role}", quoted(object)),
        ("schema", _) => format!("GRANT USAGE ON SCHEMA {} TO {role}", quoted(object)),
        // What the schema lacks is asked before anything of it is used.
        ("table", "migrations") => format!("GRANT SELECT ON turnwise.migrations TO {role}"),
        // Not for a node to write.
        ("table", "tokens") => {
            return Some(
                "Tokens are made and revoked by the owner of the tables: connect as that role"
                    .to_owned(),
            );
        }
        ("table" | "function", _) => {
            format!("SELECT turnwise.grant_node('{}')", url.username().replace('\'', "''"))
        }
        _ => return None,
    };
    Some(format!("As its owner, run: {run}"))
}

impl PgStore {
    pub(super) fn not_reached(&self, reason: String) -> StoreError {
        self.inner.servers.not_reached(reason)
    }

    /// The error of a statement that was sent.
    pub(super) fn trouble(&self, trouble: Trouble) -> StoreError {
        let database = self.database().to_owned();
        let error = match trouble {
            Trouble::Corrupt(what) => return StoreError::Corrupt { database, what },
            Trouble::Replaced(fate) => {
                let reason = REPLACED.to_owned();
                return StoreError::Unreachable { database, reason, fate };
            }
            Trouble::Batch(refusal) => return StoreError::Batch(refusal),
            Trouble::Sql(error) => error,
        };
        if let Some(refusal) = batches::refusal(&error) {
            return StoreError::Batch(refusal);
        }
        let reason = match &error {
            sqlx::Error::Database(error) => {
                let code = error.code().unwrap_or_default();
                if !is_away(&code) {
                    return said(&database, &code, error.message());
                }
                error.message().to_owned()
            }
            // These never came as far as the server.
            sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_) => {
                let reason = error.to_string();
                return StoreError::Failed { database, reason, may_pass: false };
            }
            other => plain(other),
        };
        StoreError::Unreachable { database, reason, fate: Fate::Unknown }
    }
}

/// What an answer with an error means for whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// Part of the schema is not there.
    SchemaMissing,
    /// Nobody but a person can mend it, and how.
    Refused(&'static str),
    /// This statement failed.
    Failed { may_pass: bool },
}

/// The meaning of a SQLSTATE that is not [`is_away`].
fn meaning(code: &str) -> Meaning {
    let remedy = match code {
        "42P01" | "42883" | "3F000" | "42704" | "42703" => return Meaning::SchemaMissing,
        "3D000" => "Create the database, or name another in the URL",
        DENIED => {
            "Grant the role what it lacks, or let the owner of the schema run `turnwise migrate`"
        }
        // What a pooler says to the settings of a session, or to a statement that was prepared on another.
        "08P01" | "26000" | "42P05" => {
            "Say in the URL that a pooler in transaction mode is in the way (pooler=transaction), or connect to the server itself, or to a pooler in session mode that lets the startup parameter `options` through"
        }
        _ => match code.get(..2).unwrap_or_default() {
            "28" => "Check user and password in the URL, and pg_hba.conf on the server",
            // The statement can never be carried out by this server, or on this schema.
            "0A" | "42" => {
                "Check that the server is PostgreSQL 14 or newer and that nobody has altered the schema `turnwise`"
            }
            // Rollback (a deadlock), resources, objects in use, intervention, system errors, internal ones.
            "40" | "53" | "55" | "57" | "58" | "XX" => return Meaning::Failed { may_pass: true },
            _ => return Meaning::Failed { may_pass: false },
        },
    };
    Meaning::Refused(remedy)
}

/// The reason alone, without the driver's words around it.
fn plain(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_waiting_may_mend_is_waited_for() {
        for code in ["08006", "08001", "53300", "25006", "57P03", "55P03"] {
            assert!(is_away(code), "{code}");
        }
        for code in ["40P01", "40001", "53100", "58030", "XX000", "57014"] {
            assert!(!is_away(code));
            assert_eq!(meaning(code), Meaning::Failed { may_pass: true }, "{code}");
        }
        for code in ["22001", "23514", "P0001", ""] {
            assert_eq!(meaning(code), Meaning::Failed { may_pass: false }, "{code}");
        }
        for code in ["42P01", "42883"] {
            assert_eq!(meaning(code), Meaning::SchemaMissing, "{code}");
        }
    }

    #[test]
    fn a_privilege_that_is_missing_is_named_by_its_grant() {
        let grant = |what: &str| {
            let message = format!("permission denied for {what}");
            grant(&message, "postgres://app@a:1/d or postgres://app@b:1/d").unwrap_or_default()
        };
        assert!(grant("database d").ends_with("run: GRANT CREATE ON DATABASE \"d\" TO \"app\""));
        assert!(grant("schema turnwise").contains("USAGE ON SCHEMA \"turnwise\" TO \"app\""));
        assert!(
            grant("table migrations")
                .ends_with("run: GRANT SELECT ON turnwise.migrations TO \"app\"")
        );
        for what in ["table jobs", "function node_renew"] {
            assert!(grant(what).ends_with("run: SELECT turnwise.grant_node('app')"), "{what}");
        }
        assert!(grant("table tokens").contains("connect as that role"));
        assert_eq!(grant("tablespace x"), "");
    }

    #[test]
    fn what_only_a_person_can_mend_comes_with_a_remedy() {
        let remedies = [
            ("42501", "Grant"),
            ("28P01", "password"),
            ("28000", "pg_hba.conf"),
            ("3D000", "Create"),
            ("08P01", "pooler"),
            ("26000", "pooler"),
            ("42804", "altered"),
            ("0A000", "PostgreSQL 14"),
        ];
        for (code, word) in remedies {
            assert!(!is_away(code), "{code}");
            let Meaning::Refused(remedy) = meaning(code) else { panic!("{code}") };
            assert!(remedy.contains(word), "{code}: {remedy}");
        }
    }
}
