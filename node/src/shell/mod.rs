//! The shell around the engine: tasks, connections, calls. It carries; the engine decides.
//!
//! - `start`: coming up; `life`: one life of a node, from registration to end; `stop`: the wish to stop;
//! - `turns`: the task that owns the engine and the beat's connection; `notes`: its log;
//! - `work`: the other statements that the engine asks for;
//! - `runs`: the calls; `ends`: recording what became of them; `target`: whether the target is there;
//! - `stage`: the thread on which the engine's task is on time.
//!
//! It is generic over its leaves (clock, store, caller): the production ones are wired in [`run_node`].

mod ends;
mod life;
mod notes;
mod runs;
mod stage;
mod start;
mod stop;
mod target;
mod turns;
mod work;

use std::process::ExitCode;
use std::sync::Arc;

use rand_core::Rng;
use tokio::sync::watch;

pub use life::{Leaves, Stage};
use life::{LifeEnd, Way};
use runs::Destinations;
pub use stage::PreciseThread;
use start::{Start, Started};
pub use stop::{Stop, StopHandle, stop};
pub use turns::Pulse;

use crate::api;
use crate::caller::{Caller, HttpCaller};
use crate::clock::{BootClock, Clock};
use crate::config::RunConfig;
use crate::exit;
use crate::store::{AnyStore, Store, StoreError};

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
    let caller = match HttpCaller::new(config.targets.clone()) {
        Ok(caller) => caller,
        Err(error) => return exit::report(exit::FAILED, error.to_string()),
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
    let result = run(&leaves, &PreciseThread, &config, &pulse, stop).await;
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

/// The shell over any leaves: life after life, until it is told to stop.
async fn run<C: Clock, S: Store, K: Caller>(
    leaves: &Leaves<C, S, K>,
    stage: &impl Stage,
    config: &RunConfig,
    pulse: &watch::Sender<Pulse>,
    mut stop: Stop,
) -> Result<LifeEnd, StoreError> {
    let mut start = Start {
        name: config.name.clone(),
        capacity: config.capacity,
        period: config.period,
        migrate: config.migrate,
        fail_fast: config.fail_fast,
    };
    let mut random = seed();
    loop {
        let node = match start.start(&leaves.store, &mut stop).await? {
            Started::As(node) => node,
            Started::Stopped => return Ok(LifeEnd::Stopped),
        };
        let way = Way {
            capacity: config.capacity,
            queues: config.queues.clone().map(Into::into),
            destinations: Arc::new(Destinations {
                targets: config.targets.clone(),
                allowed: config.allow_origins.clone(),
            }),
            drain_timeout: config.drain_timeout,
            seed: random.next_u64(),
        };
        let end = life::live(leaves, stage, node, &way, pulse, &mut stop).await;
        if end != LifeEnd::Lost {
            return Ok(end);
        }
        pulse.send_replace(Pulse::default());
        // A node that has been up once waits for its database, whatever it was told for the start; and the
        // period may have been changed since.
        start.fail_fast = false;
        start.period = None;
    }
}

fn seed() -> impl Rng {
    use rand_core::SeedableRng;
    let entropy = uuid::Uuid::new_v4().as_u64_pair();
    rand_pcg::Pcg64Mcg::seed_from_u64(entropy.0 ^ entropy.1)
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
