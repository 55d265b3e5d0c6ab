//! Decides which exit code says what.

use std::process::ExitCode;

use crate::store::StoreError;

/// Something failed that has no code of its own.
pub const FAILED: u8 = 1;
/// The command line was not understood.
pub const USAGE: u8 = 2;
/// The database or the target cannot be reached.
pub const UNREACHABLE: u8 = 69;
/// Calls were cut short, since the time to drain was up.
pub const DRAIN_TIMED_OUT: u8 = 75;
/// The configuration cannot be used.
pub const BAD_CONFIGURATION: u8 = 78;

/// The code for a failure of the store.
pub fn of_store(error: &StoreError) -> u8 {
    match error {
        StoreError::Unreachable { .. } | StoreError::NotWritable { .. } => UNREACHABLE,
        StoreError::TooLong { .. }
        | StoreError::Batch(_)
        | StoreError::Failed { .. }
        | StoreError::Corrupt { .. } => FAILED,
        StoreError::Refused { .. }
        | StoreError::BadUrl { .. }
        | StoreError::SchemaMissing { .. }
        | StoreError::SchemaTooNew { .. }
        | StoreError::OtherPeriod { .. } => BAD_CONFIGURATION,
    }
}

/// Say on the standard error what went wrong, and give the code.
pub fn report(code: u8, message: impl AsRef<str>) -> ExitCode {
    eprintln!("turnwise: {}", message.as_ref());
    ExitCode::from(code)
}
