//! What a suite of promises needs of the simulated leaves: one of each, by itself, on a machine of its own, with
//! another machine to call and, if wanted, a database. No shell runs and nothing goes wrong. Decides nothing: what
//! a leaf promises is said in the suites.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

pub use super::caller::SimCaller;
pub use super::clock::NodeClock;
use super::database::Database;
use super::farm::{Farm, set_true_now, true_now};
use super::mail::DATABASE;
use super::stage::Process;
pub use super::store::{RemoteStore, RemoteTurns};
use super::{TICK, database, network};
use crate::scenario::{LocalClock, Scenario, Span};

/// The name of the other machine.
pub const ELSEWHERE: &str = "elsewhere";
/// The name of the machine with the leaves.
const HERE: &str = "here";

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A machine whose leaves are to be tried.
#[derive(Clone)]
pub struct Machine {
    process: Process,
    elsewhere: mpsc::UnboundedSender<Task>,
}

impl Machine {
    /// A store, with connections of its own.
    pub fn store(&self) -> RemoteStore {
        RemoteStore::new(self.process.clone())
    }

    /// A caller.
    pub fn caller(&self) -> SimCaller {
        SimCaller { process: self.process.clone() }
    }

    /// The machine's clock.
    pub fn clock(&self) -> NodeClock {
        NodeClock { farm: self.process.farm.clone(), host: self.process.host }
    }

    /// How many connections the database has accepted so far.
    pub fn connections(&self) -> u64 {
        self.process.farm.look().connections
    }

    /// Have the other machine, which is called [`ELSEWHERE`], run `task`; what it comes to.
    pub fn elsewhere<F>(&self, task: F) -> oneshot::Receiver<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (done, result) = oneshot::channel();
        let task = Box::pin(async move {
            let _ = done.send(task.await);
        });
        // The other machine is there for as long as the simulation.
        let _ = self.elsewhere.send(task);
        result
    }
}

/// True time since the start of the simulation that this thread runs.
pub fn elapsed() -> Duration {
    Duration::from_nanos(true_now())
}

/// Run `work` on a machine with this clock, for no more than `patience` of simulated time. The machine of the
/// database is there when it is given what it holds. An error says why `work` did not come to its end: it took too
/// long, or a simulated machine failed, as it does when `work` panics.
///
/// Not within a runtime: the simulated machines have their own.
pub fn on_a_machine<P, F>(
    seed: u64,
    clock: LocalClock,
    database: Option<Database>,
    patience: Duration,
    work: P,
) -> Result<(), String>
where
    P: FnOnce(Machine) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    let mut scenario = Scenario::calm(seed, 1, Span(patience.as_nanos() as u64));
    scenario.nodes[0].clock = clock;
    set_true_now(0);
    let farm = Farm::new(&scenario, false);
    let mut sim = network(seed);
    if database.is_some() {
        farm.look().store = database;
        let there = farm.clone();
        sim.host(DATABASE, move || database::process(there.clone()));
    }
    let (elsewhere, tasks) = mpsc::unbounded_channel();
    let tasks = Cell::new(Some(tasks));
    // A process is started once: nobody restarts it here.
    sim.host(ELSEWHERE, move || run_all(tasks.take()));
    let machine = Machine { process: Process { farm, host: 0 }, elsewhere };
    sim.client(HERE, async move {
        work(machine).await;
        Ok(())
    });
    let mut now = 0;
    while now < scenario.duration.0 {
        set_true_now(now);
        let done = sim.step();
        now += TICK;
        set_true_now(now);
        if done.map_err(|error| format!("a simulated machine failed: {error}"))? {
            return Ok(());
        }
    }
    Err(format!("it has not come to its end after {} of simulated time", scenario.duration))
}

/// The process of the other machine.
async fn run_all(tasks: Option<mpsc::UnboundedReceiver<Task>>) -> turmoil::Result {
    let Some(mut tasks) = tasks else { return Ok(()) };
    while let Some(task) = tasks.recv().await {
        tokio::spawn(task);
    }
    // What it was told to do goes on.
    std::future::pending().await
}
