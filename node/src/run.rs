//! Decides what a node stands on in production: the shell's leaves, the API beside it, the signals that stop
//! it, and the exit code that says how it went.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::sync::Arc;

use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::api;
use crate::callback::{self, Callbacks, Secret};
use crate::caller::HttpCaller;
use crate::config::RunConfig;
use crate::dashboard::{self, Door};
use crate::exit;
use crate::health;
use crate::metrics::Metrics;
use crate::serve;
use crate::shell::{
    self, Journal, Leaves, LifeEnd, Observer, PreciseThread, Pulse, StopHandle, stop,
};
use crate::store::{AnyStore, Distant};
use crate::tampering::Tampering;
use crate::watch::Hub;

/// Connections to the database besides the beat's, at most: claims and ends do not wait for each other's way to the disk. At rest
/// there is one.
pub const OTHER_CONNECTIONS: u32 = 2;

/// Connections to the database for pages and for the API, at most: who enqueues much holds up no page. At rest there is none, or
/// one.
const ASKED_CONNECTIONS: u32 = 3;

/// Run a node, tampered with like this, until it is told to stop, and say how it went. What cannot be mended by waiting is said on
/// the standard error.
pub fn run_node(config: RunConfig, tampering: Tampering) -> ExitCode {
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
    to_its_end(runtime, run_on(config, tampering))
}

/// Run a future to its end, and wait for nothing that it left behind: a name that the system is still looking up,
/// on a thread that nobody can interrupt, must not hold up the exit.
fn to_its_end<F: Future>(runtime: Runtime, future: F) -> F::Output {
    let output = runtime.block_on(future);
    runtime.shutdown_background();
    output
}

#[expect(clippy::disallowed_methods, reason = "all chance of the process begins here")]
async fn run_on(config: RunConfig, tampering: Tampering) -> ExitCode {
    let store = match AnyStore::connect_all(&config.database_urls, OTHER_CONNECTIONS) {
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
    if let Err(error) = listen_to_signals(handle.clone()) {
        return exit::report(exit::FAILED, format!("the node cannot listen to signals: {error}"));
    }
    if let Err(error) = tampering.listen(handle) {
        return exit::report(exit::BAD_CONFIGURATION, error);
    }
    let (pulse, watcher) = watch::channel(Pulse::default());
    let metrics = Arc::new(Metrics::default());
    let offered = [Uuid::new_v4(), Uuid::new_v4()].map(|half| half.simple().to_string()).concat();
    let secret = Secret::offering(offered);
    let (api, base) = match open_api(&config, &store, watcher, &metrics, &secret).await {
        Ok(api) => api,
        Err(error) => return exit::report(exit::BAD_CONFIGURATION, error),
    };
    let watch = store.clone();
    let watch = tokio::spawn(async move { watch.watch().await });
    let chance = Uuid::new_v4().into_bytes();
    let base = config.callback_url.clone().or(base);
    let callbacks = base.map(|base| Callbacks { base, secret });
    let (clock, stage, journal_of) = (tampering.clock(), &PreciseThread, journal.as_ref());
    // Its own connection, opened when there is something to write.
    let (health, writer) = health::keep(metrics, clock.clone());
    let writer = tokio::spawn(writer.write(store.beside(1), pulse.subscribe()));
    let observer: Arc<dyn Observer> = Arc::new(health);
    let result = match tampering.road {
        None => {
            let leaves = Leaves { clock, store, caller, chance, callbacks };
            shell::run_observed(&leaves, stage, &config, &pulse, journal_of, &observer, stop).await
        }
        Some(road) => {
            let store = Distant::new(store, road);
            let leaves = Leaves { clock, store, caller, chance, callbacks };
            shell::run_observed(&leaves, stage, &config, &pulse, journal_of, &observer, stop).await
        }
    };
    if let Some(journal) = journal {
        journal.close();
    }
    watch.abort();
    writer.abort();
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

/// Serve the health, the numbers, the dashboard and the callbacks where the configuration says; none where it says `off`, or where an
/// address that nobody asked for is taken. With it the URL at which this machine reaches it.
async fn open_api(
    config: &RunConfig,
    store: &AnyStore,
    pulse: watch::Receiver<Pulse>,
    metrics: &Arc<Metrics>,
    secret: &Secret,
) -> Result<(Option<JoinHandle<()>>, Option<String>), String> {
    let Some(listen) = config.listen else { return Ok((None, None)) };
    let listener = match api::bind(listen.address).await {
        Ok(listener) => listener,
        Err(error) if listen.explicit => {
            return Err(format!(
                "the API cannot listen on {}: {error}. Choose another address with --listen",
                listen.address
            ));
        }
        Err(error) => {
            tracing::warn!(
                address = %listen.address,
                "the API cannot listen there: {error}; going on without it (--listen chooses another)"
            );
            return Ok((None, None));
        }
    };
    let address = listener.local_addr().unwrap_or(listen.address);
    tracing::info!("the dashboard is at http://{address}/");
    // Its own connections, opened when somebody asks: a page must not wait for the node, nor the node for it.
    let views = store.beside(ASKED_CONNECTIONS);
    let hub = Hub::new(views.clone()).redacting(config.redaction.clone());
    let door = Door::new(address, config.listen_token.clone()).with_tokens(views.clone());
    let beside = api::health(pulse)
        .merge(api::metrics(Arc::clone(metrics), views.clone()))
        .merge(api::v1(hub.clone()));
    let callbacks = callback::routes(views, secret.clone());
    let routes = dashboard::router(hub, config.retention, door, None, beside).merge(callbacks);
    let reached = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
        _ => address,
    };
    let serving = tokio::spawn(serve::serve(listener, routes));
    Ok((Some(serving), Some(format!("http://{reached}"))))
}

fn listen_to_signals(handle: StopHandle) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                biased;
                received = terminate.recv() => if received.is_none() { return },
                received = interrupt.recv() => if received.is_none() { return },
            }
            handle.ask();
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a real thread is what is tested")]
    #[test]
    fn a_look_up_that_does_not_come_back_holds_up_no_exit() {
        let (come_back, looked_up) = mpsc::channel::<()>();
        let (done, ended) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            let output = to_its_end(runtime, async {
                let (begun, has_begun) = tokio::sync::oneshot::channel();
                tokio::task::spawn_blocking(move || {
                    let _ = begun.send(());
                    let _ = looked_up.recv();
                });
                has_begun.await.unwrap();
                7
            });
            done.send(output).unwrap();
        });
        // Long enough for any machine: without a way out it would be for ever.
        let output = ended.recv_timeout(Duration::from_secs(60));
        drop(come_back);
        assert_eq!(output, Ok(7));
    }
}
