//! Decides what an error of a command is: a message and an exit code.

use std::process::ExitCode;

use crate::config::ConfigError;
use crate::exit;
use crate::store::StoreError;

/// An error that ends the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The exit code.
    pub(super) code: u8,
    /// What was tried, on what, why it failed and what to do about it.
    pub(super) message: String,
}

impl Failure {
    /// The command failed.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self { code: exit::FAILED, message: message.into() }
    }

    /// The command line makes no sense.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { code: exit::USAGE, message: message.into() }
    }

    /// Report it on stderr; the exit code.
    pub(super) fn report(&self) -> ExitCode {
        exit::report(self.code, &self.message)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self { code: exit::BAD_CONFIGURATION, message: error.to_string() }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self { code: exit::of_store(&error), message: error.to_string() }
    }
}
