//! Decides the course of one life of a node, from its registration to its end: the tasks that it
//! consists of, and the order in which it stops.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Fuse, FusedFuture, FutureExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use turnwise_engine::journal::{Header, VERSION};
use turnwise_engine::{Input, NodeId};

use super::aside::Aside;
use super::batches::BatchesTask;
use super::cancels::CancelsTask;
use super::ends::EndsTask;
use super::holds::Holds;
use super::journal::{Pen, Recorded};
use super::observer;
use super::retention::{Cue, Gain, RetentionTask};
use super::runs::{Destinations, RunsTask};
use super::schedules::SchedulesTask;
use super::secret::{LOOK_UP_EVERY, SecretTask};
use super::stop::Stop;
use super::target::{self, TargetTask};
use super::turns::{Channels, Pulse, Told, TurnsEnd, TurnsTask};
use super::work::WorkTask;
use crate::callback::Callbacks;
use crate::caller::Caller;
use crate::clock::Clock;
use crate::config::Retention;
use crate::sabotage::{Bug, Sabotage};
use crate::store::Store;

/// The engine's task has nothing left to do when its inputs are gone.
const TURNS_END_TIMEOUT: Duration = Duration::from_secs(1);
/// After its time is up, a node tries for so long to give its jobs back.
const HAND_BACK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long saying goodbye to the database may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a shell stands on: production's, or a simulator's.
#[derive(Clone)]
pub struct Leaves<C, S, K> {
    /// The node's own clock.
    pub clock: C,
    /// The database.
    pub store: S,
    /// Whatever carries calls.
    pub caller: K,
    /// Where all chance of the process begins, its ids among it: no two processes have the same.
    pub chance: [u8; 16],
    /// How jobs that go on elsewhere are heard of; none: no job may go on elsewhere.
    pub callbacks: Option<Callbacks>,
}

/// Where the tasks of a node run.
pub trait Stage: Clone + Send + Sync + 'static {
    /// The bugs that are planted in what runs there: none in the product.
    type Bugs: Sabotage;

    /// Run the engine's task. The receiver gets its result; when it is cut short, nothing.
    fn perform<F>(&self, engine: F) -> oneshot::Receiver<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static;

    /// Any other task, as it is to be run: a simulator stops it where it stops the process.
    fn play<F>(&self, task: F) -> impl Future<Output = F::Output> + Send + 'static
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        task
    }
}

/// What a life is lived by.
pub(crate) struct Way {
    pub(crate) name: String,
    pub(crate) capacity: u32,
    pub(crate) queues: Option<Arc<[String]>>,
    pub(crate) destinations: Arc<Destinations>,
    pub(crate) drain_timeout: Duration,
    pub(crate) retention: Retention,
    /// What the database's clock has gained in earlier lives too.
    pub(crate) gain: Gain,
    pub(crate) seed: u64,
    pub(crate) pen: Option<Pen>,
    pub(crate) observer: observer::Told,
}

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifeEnd {
    /// The farm declared the node lost: its calls are cancelled and it may live again under a new id.
    Lost,
    /// It stopped in good order.
    Stopped,
    /// It stopped; calls were cut short when the time was up, and their jobs given back.
    TimedOut,
    /// It stopped at once; its jobs run again elsewhere when its lease has run out.
    Aborted,
}

/// Live one life. `pulse` is kept up to date for whoever watches.
pub(crate) async fn live<C: Clock, S: Store, K: Caller, T: Stage>(
    leaves: &Leaves<C, S, K>,
    stage: &T,
    node: NodeId,
    way: &Way,
    pulse: &watch::Sender<Pulse>,
    stop: &mut Stop,
) -> LifeEnd {
    let (inputs, inputs_out) = mpsc::unbounded_channel();
    let (orders, orders_out) = mpsc::unbounded_channel();
    let (jobs, jobs_out) = mpsc::unbounded_channel();
    let (ends, ends_out) = mpsc::unbounded_channel();
    let (looks, looks_out) = mpsc::unbounded_channel();
    let (refused, refused_out) = mpsc::unbounded_channel();
    let (cancelled, cancelled_out) = mpsc::unbounded_channel();
    let (hand_back, hand_back_out) = watch::channel(false);
    let (clock, store, caller) =
        (leaves.clock.clone(), leaves.store.clone(), leaves.caller.clone());

    let header = Header {
        version: VERSION,
        id: node,
        capacity: way.capacity,
        seed: way.seed,
        now: clock.now(),
        node: way.name.clone(),
    };
    let engine = Recorded::new(header, way.pen.clone());
    let channels = Channels { inputs: inputs_out, orders, pulse: pulse.clone() };
    let holds = Holds::default();
    let (claimable, queues) =
        watch::channel(target::claimable(&way.destinations.targets, way.queues.as_ref(), &[]));
    let cue = Cue::new(&way.retention);
    let (horizon, _) = watch::channel(None);
    let turns = TurnsTask::<_, _, T>::new(
        clock.clone(),
        store.clone(),
        engine,
        queues.clone(),
        holds.clone(),
        channels,
    )
    .watched_by(Arc::clone(&way.observer))
    .giving(cue.clone())
    .firing(horizon.clone());
    let mut turns = stage.perform(turns.run()).fuse();

    let mut tasks = JoinSet::new();
    let work = WorkTask {
        clock: clock.clone(),
        store: store.clone(),
        stage: stage.clone(),
        node,
        queues,
        holds: holds.clone(),
        orders: orders_out,
        inputs: inputs.clone(),
        jobs,
    };
    tasks.spawn(stage.play(work.run()));
    let runs = RunsTask {
        clock: clock.clone(),
        caller: caller.clone(),
        stage: stage.clone(),
        destinations: Arc::clone(&way.destinations),
        pulse: pulse.subscribe(),
        jobs: jobs_out,
        ends,
        hand_back: hand_back_out,
        cancelled: cancelled_out,
        target_refused: refused,
        observer: Arc::clone(&way.observer),
        seed: way.seed,
        node,
        callbacks: leaves.callbacks.clone(),
    };
    tasks.spawn(stage.play(runs.run()));
    let aside = Aside::of(store.clone());
    let cancels = CancelsTask {
        aside: aside.clone(),
        stage: PhantomData::<T>,
        node,
        holds: holds.clone(),
        cancelled,
    };
    tasks.spawn(stage.play(cancels.run()));
    let ends = EndsTask {
        clock: clock.clone(),
        store: store.clone(),
        stage: PhantomData::<T>,
        node,
        holds,
        looks: looks.clone(),
        ends: ends_out,
        inputs: inputs.clone(),
    };
    tasks.spawn(stage.play(ends.run()));
    let target = TargetTask {
        caller,
        stage: PhantomData::<T>,
        destinations: Arc::clone(&way.destinations),
        queues: way.queues.clone(),
        refused: refused_out,
        inputs: inputs.clone(),
        claimable,
        node,
        observer: Arc::clone(&way.observer),
    };
    tasks.spawn(stage.play(target.run()));

    let retention = RetentionTask {
        store: store.clone(),
        stage: PhantomData::<T>,
        retention: way.retention,
        cue,
        gain: way.gain.clone(),
        pulse: pulse.subscribe(),
    };
    tasks.spawn(stage.play(retention.run()));
    if let Some(callbacks) = &leaves.callbacks {
        let (secret, aside) = (callbacks.secret.clone(), aside.clone());
        tasks.spawn(stage.play(SecretTask { aside, secret, every: LOOK_UP_EVERY }.run()));
    }
    let batches =
        BatchesTask { aside: Aside::of(store.clone()), stage: PhantomData::<T>, looks: looks_out };
    tasks.spawn(stage.play(batches.run()));
    let schedules = SchedulesTask { aside, stage: PhantomData::<T>, horizon, looks };
    tasks.spawn(stage.play(schedules.run()));

    let end = course::<T>(&inputs, &mut turns, &mut tasks, &hand_back, way, pulse, stop).await;
    if matches!(end, LifeEnd::Stopped | LifeEnd::TimedOut) {
        let goodbye = tokio::time::timeout(GOODBYE_TIMEOUT, store.deregister(node)).await;
        if let Ok(Err(error)) = goodbye {
            tracing::debug!("could not say goodbye: {error}");
        }
    }
    // This cancels every call that is still going on. The engine's task ends without its inputs.
    tasks.shutdown().await;
    drop(inputs);
    if !turns.is_terminated() {
        let _ = tokio::time::timeout(TURNS_END_TIMEOUT, turns).await;
    }
    end
}

/// Wait until the node hears that somebody asked it to drain.
async fn asked_by_table(pulse: &watch::Sender<Pulse>) {
    // This end holds the other: it fails never.
    let _ = pulse.subscribe().wait_for(|pulse| pulse.drain_asked).await;
}

/// From here on to the end of the life, and how it ends.
async fn course<T: Stage>(
    inputs: &mpsc::UnboundedSender<Told>,
    turns: &mut Fuse<oneshot::Receiver<TurnsEnd>>,
    tasks: &mut JoinSet<()>,
    hand_back: &watch::Sender<bool>,
    way: &Way,
    pulse: &watch::Sender<Pulse>,
    stop: &mut Stop,
) -> LifeEnd {
    tokio::select! {
        biased;
        end = &mut *turns => return lost(&end),
        Some(_) = tasks.join_next() => {
            // None of them ends while this one holds their channels, but by a panic.
            tracing::error!("a task of this node failed; beginning anew");
            return LifeEnd::Lost;
        }
        () = stop.requested() => {}
        () = asked_by_table(pulse) => {
            tracing::info!("asked to drain by the table");
            stop.request_by_table();
        }
    }
    tracing::info!("stopping: leaving the ring, claiming nothing more");
    if !T::Bugs::plants(Bug::LeaveIsNotSaid) {
        let _ = inputs.send(Input::Leave.into());
    }

    let mut end = LifeEnd::Stopped;
    let done = |pulse: &Pulse| {
        let idle = pulse.settled && pulse.held == 0;
        pulse.left && (idle || T::Bugs::plants(Bug::DrainDoesNotWait))
    };
    let drained = tokio::select! {
        biased;
        () = stop.insisted() => return LifeEnd::Aborted,
        end = &mut *turns => return lost(&end),
        drained = came_true(pulse, way.drain_timeout, done) => drained,
    };
    if !drained && pulse.borrow().held > 0 {
        tracing::warn!("the time to drain is up; cutting calls short and giving their jobs back");
        end = LifeEnd::TimedOut;
        let _ = hand_back.send(true);
        let given_back = tokio::select! {
            biased;
            () = stop.insisted() => return LifeEnd::Aborted,
            end = &mut *turns => return lost(&end),
            given_back = came_true(pulse, HAND_BACK_TIMEOUT, |pulse| pulse.held == 0) => given_back,
        };
        if !given_back {
            tracing::warn!("not all could be given back; they run again when the lease is out");
        }
    }
    // Jobs are waited for no longer, but a node that goes without a word costs the others a slot: its own turn may be
    // a round away. (Where the database is away, nobody hears the word.)
    let rest = pulse.borrow().round.saturating_sub(way.drain_timeout);
    let waits = |pulse: &Pulse| pulse.left || pulse.trouble.is_some();
    tokio::select! {
        biased;
        () = stop.insisted() => return LifeEnd::Aborted,
        end = &mut *turns => return lost(&end),
        _ = came_true(pulse, rest, waits) => {}
    }
    if !pulse.borrow().left {
        tracing::warn!("could not leave the ring in time; the others will close the gap");
    }
    end
}

/// Wait until `what` holds of the pulse; false when it does not within `time`.
async fn came_true(
    pulse: &watch::Sender<Pulse>,
    time: Duration,
    what: impl Fn(&Pulse) -> bool,
) -> bool {
    let mut watcher = pulse.subscribe();
    tokio::time::timeout(time, watcher.wait_for(|pulse| what(pulse))).await.is_ok()
}

fn lost<E>(end: &Result<TurnsEnd, E>) -> LifeEnd {
    // Any other end of the engine's task, while its inputs are held here, is a panic in it: then too the
    // right thing is to begin anew.
    if let Ok(TurnsEnd::Lost) = end {
        tracing::warn!("the farm has declared this node lost; cancelling its calls");
    }
    LifeEnd::Lost
}
