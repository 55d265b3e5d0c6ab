//! Decides what every command takes, and leads from there to the store. The commands themselves are
//! elsewhere.

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use super::failure::Failure;
use super::log;
use crate::config::{self, Environment, Flags, Layers};
use crate::redact::Redaction;
use crate::store::{AnyStore, Store};

/// What every command takes.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Common {
    /// The database: sqlite://FILE, or postgres://USER:PASSWORD@HOST/NAME, or mysql:// likewise [default: sqlite://turnwise.db]
    ///
    /// Repeat it for each server of one database, a primary and its standbys, in any order: the one that takes writes is
    /// found, and found again after a failover. In a variable they are separated by spaces, in the file they are a list.
    /// Also from TURNWISE_DATABASE_URL, DATABASE_URL or `database-url` in the file. A password on the
    /// command line can be seen by other users of the machine: prefer the environment.
    #[arg(long, value_name = "URL")]
    pub(super) database_url: Vec<String>,

    /// The configuration file [default: turnwise.toml, if it is there]
    ///
    /// Its keys are the long names of the flags of `turnwise run`: `capacity = 32`,
    /// `queues = ["mail", "reports"]`, `fail-fast = true`. Also from TURNWISE_CONFIG.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

/// Whose values are shown to nobody.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RedactArgs {
    /// A header of jobs whose value is shown to nobody; repeat it for more
    ///
    /// Besides authorization, cookie, set-cookie, proxy-authorization and x-api-key, which never are. What is stored and what is
    /// sent is not changed by it.
    #[arg(long, value_name = "NAME")]
    redact_header: Vec<String>,

    /// A key in JSON bodies and answers whose value is shown to nobody, at any depth; repeat it for more [default: none]
    #[arg(long, value_name = "NAME")]
    redact_key: Vec<String>,
}

impl RedactArgs {
    pub(super) fn add_to(&self, flags: &mut Flags) {
        flags.add("redact-header", self.redact_header.clone());
        flags.add("redact-key", self.redact_key.clone());
    }
}

impl Common {
    /// The flags that every command has, as settings.
    pub(super) fn flags(&self) -> Flags {
        let mut flags = Flags::default();
        flags.add("database-url", self.database_url.clone());
        flags
    }

    /// Whose values are not to be shown.
    pub(super) fn redaction(&self, args: &RedactArgs) -> Result<Redaction, Failure> {
        let environment = Environment::of_process()?;
        let mut flags = self.flags();
        args.add_to(&mut flags);
        let layers = Layers::new(flags, &environment, self.config.as_deref())?;
        Ok(config::redaction(&layers)?)
    }

    /// A store whose schema this program may use.
    pub(super) async fn store(&self) -> Result<AnyStore, Failure> {
        let store = self.unchecked_store()?;
        store.check_schema().await?;
        Ok(store)
    }

    /// A store of which only the connection is known to be good.
    pub(super) fn unchecked_store(&self) -> Result<AnyStore, Failure> {
        let environment = Environment::of_process()?;
        let layers = Layers::new(self.flags(), &environment, self.config.as_deref())?;
        Ok(AnyStore::connect_all(&config::database_urls(&layers)?, 1)?)
    }
}

/// Run a command that may last to its end, and see meanwhile whether another of the database's servers takes over.
pub(super) async fn watched<T>(store: &AnyStore, command: impl Future<Output = T>) -> T {
    let watch = async {
        store.watch().await;
        std::future::pending().await
    };
    tokio::select! {
        biased;
        output = command => output,
        output = watch => output,
    }
}

/// Run a command to its end on a runtime of its own.
pub(super) fn block_on(
    command: impl Future<Output = Result<ExitCode, Failure>>,
) -> Result<ExitCode, Failure> {
    log::start_warnings();
    block_on_quietly(command)
}

/// The same, and nothing but the command writes to the terminal.
pub(super) fn block_on_quietly(
    command: impl Future<Output = Result<ExitCode, Failure>>,
) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("the runtime cannot be started: {error}")))?;
    let result = runtime.block_on(command);
    // A look-up of a name that hangs must not keep the program from ending.
    runtime.shutdown_background();
    result
}
