//! Decides what an error of SQLite means, by its result code (sqlite.org/rescode.html).

use super::SqliteStore;
use crate::sabotage::Sabotage;
use crate::store::StoreError;
use crate::store::errors::Trouble;

const BUSY: i32 = 5;
const LOCKED: i32 = 6;

/// The primary result code, if SQLite gave one.
fn code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

/// Whether another connection is in the way.
pub(super) fn is_busy(trouble: &Trouble) -> bool {
    matches!(trouble, Trouble::Sql(error) if matches!(code(error), Some(BUSY | LOCKED)))
}

impl<B: Sabotage> SqliteStore<B> {
    pub(super) fn trouble(&self, trouble: Trouble) -> StoreError {
        let database = self.database().to_owned();
        let error = match trouble {
            Trouble::Corrupt(what) => return StoreError::Corrupt { database, what },
            // A file has no others. (Only servers are replaced.)
            Trouble::Replaced(fate) => {
                let reason = trouble.to_string();
                return StoreError::Unreachable { database, reason, fate };
            }
            Trouble::Batch(refusal) => return StoreError::Batch(refusal),
            Trouble::Sql(error) => error,
        };
        let reason = match error.as_database_error() {
            Some(error) => error.message().to_owned(),
            None => error.to_string(),
        };
        if let Some(missing) = reason.strip_prefix("no such table: turnwise_") {
            let missing = format!("the table turnwise_{missing}");
            return StoreError::SchemaMissing { database, missing };
        }
        if let Some(missing) = reason.strip_prefix("no such column: ") {
            let missing = format!("the column {missing}");
            return StoreError::SchemaMissing { database, missing };
        }
        let remedy = match code(&error) {
            // PERM, READONLY, CANTOPEN
            Some(3 | 8 | 14) => {
                "Check that the folder exists and that this user may write the file and its folder"
            }
            // NOTADB
            Some(26) => "Name another file in the URL, or move this one away",
            // CORRUPT
            Some(11) => return StoreError::Corrupt { database, what: reason },
            // NOMEM, IOERR, FULL, PROTOCOL
            Some(BUSY | LOCKED | 7 | 10 | 13 | 15) => {
                return StoreError::Failed { database, reason, may_pass: true };
            }
            _ => return StoreError::Failed { database, reason, may_pass: false },
        };
        StoreError::Refused { database, reason, remedy: remedy.to_owned() }
    }
}
