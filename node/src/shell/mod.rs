//! The shell around the engine: tasks, connections, calls. It carries; the engine decides.
//!
//! - `start`: coming up; `life`: one life of a node, from registration to end; `stop`: the wish to stop;
//! - `turns`: the task that owns the engine and the beat's connection; `notes`: its log; `journal`: all that
//!   the engine was told and asked for;
//! - `work`: the other statements that the engine asks for;
//! - `runs`: the calls; `ends`: recording what became of them; `holds`: the list of both; `cancels`: which of them people
//!   have cancelled; `target`: whether the target is there;
//! - `retention`: ended jobs that are old enough to go; `schedules`: times that are to be fired; `batches`: whether
//!   they have ended; `aside`: a connection for
//!   what must hold up nobody;
//! - `secret`: whether the database still has what callbacks are known by;
//! - `observer`: who is told of what the node does, to count it;
//! - `patience`: how long a try is waited for; `stage`: the thread on which the engine's task is on time; `lead`: how
//!   much earlier it is woken for that.
//!
//! It is generic over its leaves (clock, store, caller): production's are wired in `crate::run`.

mod aim;
mod aside;
mod batches;
mod cancels;
mod ends;
mod holds;
mod journal;
mod lead;
mod life;
mod notes;
mod observer;
pub(crate) mod patience;
mod retention;
mod runs;
mod schedules;
mod secret;
mod stage;
mod start;
mod stop;
mod target;
mod turns;
mod work;

use std::sync::Arc;

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tokio::sync::watch;

pub use journal::{Journal, JournalError};
pub use life::LifeEnd;
use life::Way;
pub use life::{Leaves, Stage};
use observer::Nobody;
pub use observer::{Observer, Reached};
use retention::Gain;
use runs::Destinations;
pub use stage::PreciseThread;
use start::{Start, Started};
pub use stop::{Stop, StopHandle, stop};
pub use turns::Pulse;

use crate::caller::Caller;
use crate::clock::Clock;
use crate::config::RunConfig;
use crate::sabotage::{Bug, Sabotage};
use crate::store::{Store, StoreError};

/// The shell over any leaves: life after life, until it is told to stop. What its engines are told and ask for
/// is written to `journal`.
pub async fn run<C: Clock, S: Store, K: Caller, T: Stage>(
    leaves: &Leaves<C, S, K>,
    stage: &T,
    config: &RunConfig,
    pulse: &watch::Sender<Pulse>,
    journal: Option<&Journal>,
    stop: Stop,
) -> Result<LifeEnd, StoreError> {
    run_observed(leaves, stage, config, pulse, journal, &(Arc::new(Nobody) as _), stop).await
}

/// The same, and `observer` is told of what the node does.
pub async fn run_observed<C: Clock, S: Store, K: Caller, T: Stage>(
    leaves: &Leaves<C, S, K>,
    stage: &T,
    config: &RunConfig,
    pulse: &watch::Sender<Pulse>,
    journal: Option<&Journal>,
    observer: &Arc<dyn Observer>,
    mut stop: Stop,
) -> Result<LifeEnd, StoreError> {
    let mut start = Start {
        name: config.name.clone(),
        capacity: config.capacity,
        period: config.period,
        migrate: config.migrate,
        fail_fast: config.fail_fast,
        callbacks: leaves.callbacks.clone(),
    };
    let mut random = Pcg64Mcg::from_seed(leaves.chance);
    let gain = Gain::default();
    loop {
        if T::Bugs::plants(Bug::IdIsKept) {
            random = Pcg64Mcg::from_seed(leaves.chance);
        }
        let node = match start.start(&leaves.store, &mut random, &mut stop).await? {
            Started::As(node) => node,
            Started::Stopped => return Ok(LifeEnd::Stopped),
        };
        let way = Way {
            name: config.name.clone(),
            capacity: config.capacity,
            queues: config.queues.clone().map(Into::into),
            destinations: Arc::new(Destinations {
                targets: config.targets.clone(),
                allowed: config.allow_origins.clone(),
                signing_keys: config.signing_keys.clone(),
            }),
            drain_timeout: config.drain_timeout,
            retention: config.retention,
            gain: gain.clone(),
            seed: random.next_u64(),
            pen: journal.map(Journal::pen),
            observer: Arc::clone(observer),
        };
        let end = life::live(leaves, stage, node, &way, pulse, &mut stop).await;
        if end != LifeEnd::Lost {
            return Ok(end);
        }
        // What the lost life was asked for holds for the process.
        if pulse.borrow().drain_asked {
            stop.request_by_table();
        }
        pulse.send_replace(Pulse::default());
        // A node that has been up once waits for its database, whatever it was told for the start; and the
        // period may have been changed since.
        start.fail_fast = false;
        start.period = None;
    }
}
