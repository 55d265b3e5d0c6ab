//! Decides what an error of MariaDB or MySQL or of the way to it means, by its number (MariaDB documentation, "MariaDB
//! error code reference"; MySQL documentation, "Server error message reference").

use sqlx::mysql::MySqlDatabaseError;
use turnwise_engine::Fate;

use super::MySqlStore;
use crate::store::StoreError;
use crate::store::errors::{REPLACED, Trouble};
use crate::store::tls;

/// The number of the error, when it is the server's.
fn number(error: &sqlx::Error) -> Option<u16> {
    let error = error.as_database_error()?;
    Some(error.try_downcast_ref::<MySqlDatabaseError>().map_or(0, MySqlDatabaseError::number))
}

/// No connections left, the server shuts down or ended the session, a lock that somebody else holds (it may help to
/// wait), a server that is read-only (a replica), a node of a cluster that is not ready.
fn is_away(number: u16) -> bool {
    matches!(
        number,
        1040 | 1203 | 1053 | 1077 | 1079 | 1152 | 1158
            ..=1161 | 1927 | 2006 | 2013 | 3169 | 4031 | 1205 | 1290 | 1792 | 1836 | 1047
    )
}

/// The error of a connect to the server `name`: nothing was sent.
pub(super) fn connecting(name: &str, error: &sqlx::Error) -> StoreError {
    if let Some((reason, remedy)) = tls::trouble(error) {
        let (database, remedy) = (name.to_owned(), remedy.to_owned());
        return StoreError::Refused { database, reason, remedy };
    }
    let reason = match (number(error), error.as_database_error()) {
        (Some(number), Some(error)) if !is_away(number) => {
            return said(name, number, error.message());
        }
        (_, Some(said)) => said.message().to_owned(),
        _ => plain(error),
    };
    StoreError::Unreachable { database: name.to_owned(), reason, fate: Fate::NotSent }
}

/// The server `name` says what it should not.
pub(super) fn corrupt(name: &str, trouble: &Trouble) -> StoreError {
    StoreError::Corrupt { database: name.to_owned(), what: trouble.to_string() }
}

fn said(name: &str, number: u16, message: &str) -> StoreError {
    let database = name.to_owned();
    let reason = format!("{message} ({number})");
    match meaning(number) {
        Meaning::SchemaMissing => {
            StoreError::SchemaMissing { database, missing: missing(number, message) }
        }
        Meaning::Refused(remedy) => {
            let grant = if DENIED.contains(&number) { grant(message, name) } else { None };
            let remedy = grant.unwrap_or_else(|| remedy.to_owned());
            StoreError::Refused { database, reason, remedy }
        }
        Meaning::Failed { may_pass } => StoreError::Failed { database, reason, may_pass },
    }
}

/// The numbers of a privilege that is missing.
const DENIED: [u16; 3] = [1044, 1142, 1143];

/// What to run for a privilege that `message` says is missing, in the database of the server `name`; none: it does not
/// say whose.
fn grant(message: &str, name: &str) -> Option<String> {
    let user = message.split_once(" user ")?.1.split_whitespace().next()?;
    if !user.starts_with('\'') {
        return None;
    }
    let url = url::Url::parse(name.split(" or ").next()?).ok()?;
    let database = url.path().trim_matches('/').replace('`', "``");
    let work = "SELECT, INSERT, UPDATE, DELETE";
    let schema = ["CREATE", "ALTER", "INDEX", "REFERENCES"];
    // Who may not enter the database at all may be about to make the schema.
    let makes_schema = schema.iter().any(|command| message.starts_with(command));
    let privileges = match makes_schema || message.starts_with("Access denied") {
        true => format!("{work}, {}", schema.join(", ")),
        false => work.to_owned(),
    };
    Some(format!("As an administrator, run: GRANT {privileges} ON `{database}`.* TO {user}"))
}

impl MySqlStore {
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
        let reason = match (number(&error), error.as_database_error()) {
            (Some(number), Some(error)) if !is_away(number) => {
                return said(&database, number, error.message());
            }
            // By its number it is known that a lock was waited for for too long.
            (number, Some(said)) => {
                format!("{} ({})", said.message(), number.unwrap_or_default())
            }
            _ if matches!(error, sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_)) => {
                // These never came as far as the server.
                let reason = error.to_string();
                return StoreError::Failed { database, reason, may_pass: false };
            }
            _ => plain(&error),
        };
        StoreError::Unreachable { database, reason, fate: Fate::Unknown }
    }
}

/// What is missing: the first name that the server quotes, a table's without its database's.
fn missing(number: u16, message: &str) -> String {
    let Some(name) = message.split('\'').nth(1) else { return message.to_owned() };
    match number {
        1146 => format!("the table {}", name.rsplit('.').next().unwrap_or(name)),
        _ => format!("the column {name}"),
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

/// The meaning of a number that is not [`is_away`].
fn meaning(number: u16) -> Meaning {
    let remedy = match number {
        1146 | 1054 => return Meaning::SchemaMissing,
        1049 => {
            "Create the database (CREATE DATABASE jobs CHARACTER SET utf8mb4), or name another in the URL"
        }
        1045 | 1698 | 1524 | 1251 => {
            "Check user and password in the URL, and from where the server lets this user in"
        }
        1227 | 1410 | 1044 | 1142 | 1143 => {
            "Grant the user what it lacks: SELECT, INSERT, UPDATE and DELETE on the database, and CREATE, ALTER, INDEX and REFERENCES for `turnwise migrate`"
        }
        1665 => "Set binlog_format to MIXED or ROW on the server",
        1153 => "Set max_allowed_packet to 4M or more on the server",
        1235 | 1064 | 1193 | 1305 | 1231 | 1128 => {
            "Check that the server is MariaDB 10.6 or newer, or MySQL 8.0.16 or newer"
        }
        1265 | 1292 | 1364 | 1366 | 4025 | 3819 | 1406 | 1264 | 1048 => {
            return Meaning::Failed { may_pass: false };
        }
        // A deadlock, a full disk or table, no memory, an error of the storage engine, a statement that was ended
        // from outside or took too long.
        1213 | 1021 | 1026 | 1030 | 1037 | 1038 | 1041 | 1114 | 1135 | 1206 | 1317 | 1969
        | 3024 => {
            return Meaning::Failed { may_pass: true };
        }
        _ => return Meaning::Failed { may_pass: false },
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
        for number in [1040, 1053, 1205, 1290, 1836, 1927, 2006, 2013] {
            assert!(is_away(number), "{number}");
        }
        for number in [1213, 1021, 1114, 1317] {
            assert!(!is_away(number), "{number}");
            assert_eq!(meaning(number), Meaning::Failed { may_pass: true }, "{number}");
        }
        for number in [1406, 4025, 1062, 0] {
            assert_eq!(meaning(number), Meaning::Failed { may_pass: false }, "{number}");
        }
        for number in [1146, 1054] {
            assert_eq!(meaning(number), Meaning::SchemaMissing, "{number}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let table = missing(1146, "Table 'app.turnwise_turn' doesn't exist");
        assert_eq!(table, "the table turnwise_turn");
        assert_eq!(missing(1054, "Unknown column 'x' in 'SELECT'"), "the column x");
        assert_eq!(missing(1054, "nothing quoted"), "nothing quoted");
    }

    #[test]
    fn a_privilege_that_is_missing_is_named_by_its_grant() {
        let grant = |message: &str| grant(message, "mysql://app@h:1/jobs or mysql://app@i:1/jobs");
        let select = "SELECT command denied to user 'app'@'%' for table `jobs`.`turnwise_turn`";
        assert_eq!(
            grant(select).unwrap(),
            "As an administrator, run: GRANT SELECT, INSERT, UPDATE, DELETE ON `jobs`.* TO 'app'@'%'"
        );
        for denied in [
            "CREATE command denied to user 'app'@'%' for table `jobs`.`turnwise_turn`",
            "Access denied for user 'app'@'%' to database 'jobs'",
        ] {
            let grant = grant(denied).unwrap();
            assert!(grant.contains("DELETE, CREATE, ALTER, INDEX, REFERENCES ON"), "{grant}");
        }
        assert_eq!(grant("no user is named"), None);
    }

    #[test]
    fn what_only_a_person_can_mend_comes_with_a_remedy() {
        let remedies = [
            (1142, "Grant"),
            (1044, "Grant"),
            (1045, "password"),
            (1049, "Create"),
            (1665, "binlog_format"),
            (1153, "max_allowed_packet"),
            (1064, "MariaDB 10.6"),
        ];
        for (number, word) in remedies {
            assert!(!is_away(number), "{number}");
            let Meaning::Refused(remedy) = meaning(number) else { panic!("{number}") };
            assert!(remedy.contains(word), "{number}: {remedy}");
        }
    }
}
