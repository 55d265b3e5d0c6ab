//! Decides what a node stands on in production: the shell's leaves, the API beside it, the signals that stop
//! it, and the exit code that says how it went.

use std::process::ExitCode;

use tokio::sync::watch;

use crate::api;
use crate::caller::HttpCaller;
use crate::clock::BootClock;
use crate::config::RunConfig;
use crate::exit;
use crate::shell::{self, Journal, Leaves, LifeEnd, PreciseThread, Pulse, StopHandle, stop};
use crate::store::AnyStore;

/// Connections to the database besides the beat's: one for the rest.
const OTHER_CONNECTIONS: u32 = 1;

/// Run a node until it is told to stop, and say how it went. What cannot be mended by waiting is said on
/// the standard error.
pub fn run_node(config: RunConfig) -> ExitCode {
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                return exit::report(
                    exit::FAILED,
                    format!("the node cannot start its threads: {error}"),
                );
            }
        };
    runtime.block_on(run_on(config))
}

async fn run_on(config: RunConfig) -> ExitCode {
    let store = match AnyStore::connect(&config.database_url, OTHER_CONNECTIONS) {
        Ok(store) => store,
        Err(error) => return exit::report(exit::of_store(&error), error.to_string()),
    };
    let caller = match HttpCaller::new(&config.targets) {
        Ok(caller) => caller,
        Err(error) => return exit::report(exit::FAILED, error.to_string()),
    };
    let journal = match config.journal.as_deref().map(Journal::open).transpose() {
        Ok(journal) => journal,
        Err(error) => return exit::report(exit::BAD_CONFIGURATION, error.to_string()),
    };
    let (handle, stop) = stop();
    if let Err(error) = listen_to_signals(handle) {
        return exit::report(exit::FAILED, format!("the node cannot listen to signals: {error}"));
    }
    let (pulse, watcher) = watch::channel(Pulse::default());
    let mut api = None;
    if let Some(listen) = config.listen {
        match api::bind(listen.address).await {
            Ok(listener) => {
                tracing::info!(address = %listen.address, "the API listens");
                api = Some(tokio::spawn(api::serve(listener, watcher)));
            }
            Err(error) if listen.explicit => {
                let say = format!(
                    "the API cannot listen on {}: {error}. Choose another address with --listen",
                    listen.address
                );
                return exit::report(exit::BAD_CONFIGURATION, say);
            }
            Err(error) => tracing::warn!(
                address = %listen.address,
                "the API cannot listen there: {error}; going on without it (--listen chooses another)"
            ),
        }
    }
    let leaves = Leaves { clock: BootClock, store, caller };
    let result = shell::run(&leaves, &PreciseThread, &config, &pulse, journal.as_ref(), stop).await;
    if let Some(journal) = journal {
        journal.close();
    }
    if let Some(api) = api {
        api.abort();
    }
    match result {
        Ok(LifeEnd::TimedOut) => ExitCode::from(exit::DRAIN_TIMED_OUT),
        Ok(LifeEnd::Aborted) => ExitCode::from(exit::FAILED),
        Ok(LifeEnd::Stopped | LifeEnd::Lost) => ExitCode::SUCCESS,
        Err(error) => exit::report(exit::of_store(&error), error.to_string()),
    }
}

fn listen_to_signals(handle: StopHandle) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                received = terminate.recv() => if received.is_none() { return },
                received = interrupt.recv() => if received.is_none() { return },
            }
            handle.ask();
        }
    });
    Ok(())
}
