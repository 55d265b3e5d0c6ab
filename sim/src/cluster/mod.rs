//! The cluster: the shell that runs in production, on simulated machines. Its clock, its store and its caller are
//! simulated; its tasks, timers, retries, leases and drain are its own, and the database is the production SQLite
//! store.
//!
//! - `farm`: all of it as it truly is; `mail`, `passage`: how a request gets to the database and its answer back;
//! - `clock`, `store`, `caller`, `stage`: what the shell stands on;
//! - `database`, `target`: the other machines;
//! - `orders`: what apps and people ask of it; `faults`: what goes wrong; `watch`: what the judge is told;
//! - [`contract`]: the leaves by themselves, for the suites of promises.
//!
//! This module decides in which order things happen: time goes in milliseconds; in each, what the scenario has
//! planned happens first, then every machine has its turn, always in the same order.

mod caller;
mod clock;
pub mod contract;
mod database;
mod elsewhere;
mod farm;
mod faults;
mod fit;
mod mail;
mod orders;
mod passage;
mod stage;
mod store;
mod target;
mod watch;

use std::cell::Cell;
use std::collections::BinaryHeap;
use std::num::NonZeroU32;
use std::sync::{Arc, Once};
use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::watch::channel;
use turnwise_engine::journal::Entry;
use turnwise_engine::{Slot, TurnRow};
use turnwise_node::batch::BatchId;
use turnwise_node::callback::{Callbacks, Secret};
use turnwise_node::caller::{AllowedOrigins, SigningKeys, Targets};
use turnwise_node::config::{Keep, LogFormat, Retention, RunConfig};
use turnwise_node::job::{JobFilter, JobView};
use turnwise_node::redact::Redaction;
use turnwise_node::shell::{self, Journal, Leaves, Pulse, stop};
use turnwise_node::store::Store;

pub use fit::{fit, misfit};

use self::caller::SimCaller;
use self::clock::NodeClock;
use self::database::{Database, at_once};
use self::farm::{Farm, set_true_now};
use self::faults::{Network, Older, snapshot};
use self::mail::DATABASE;
use self::stage::Process;
use self::store::RemoteStore;
use self::target::{MACHINES, machine, origin};
use crate::oracle::{Invariant, Mark};
use crate::report::Report;
use crate::scenario::{self, Fault, Scenario, Span};

/// The body of each job where bodies fill a claim.
const BODY: [u8; 1_024] = [b'x'; 1_024];
/// The network's step, and the simulation's.
const TICK: u64 = 1_000_000;
/// How long a draining node waits for its jobs.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// What is looked for only now and then is looked for this often.
const LOOK_EVERY: u64 = 500_000_000;

/// What does not happen in its swarm, or is not seen by its judge: its rings are small, a statement that is given up takes its
/// connection with it, what the store does to leases is not looked into, jobs have more attempts than a minute has room for,
/// and few crashes come alone.
pub const NEVER_REACHES: &[Mark] = &[
    Mark::LargeRing,
    Mark::LateAnswer,
    Mark::LeaseExtended,
    Mark::DeadJob,
    // Its roads are those of a network that keeps what it is given.
    Mark::StatementDoubled,
    Mark::StatementLost,
    Mark::StatementHeldUp,
    // Its runs are mixtures: the rows of the table of bounds are the lab's to judge.
    Mark::JudgedJoin,
    Mark::JudgedJoinBusy,
    Mark::JudgedLeave,
    Mark::JudgedLeaveBusy,
    Mark::JudgedCrash,
    Mark::JudgedCrashBusy,
    Mark::JudgedCrashes,
    Mark::JudgedCrashesBusy,
    Mark::JudgedAnswerLost,
    Mark::JudgedAnswerLostBusy,
    Mark::JudgedRequestLost,
    Mark::JudgedRequestLostBusy,
    Mark::JudgedNothing,
    Mark::JudgedNothingBusy,
    Mark::JudgedOutage,
    Mark::JudgedOutageBusy,
    Mark::JudgedForward,
    Mark::JudgedForwardBusy,
    Mark::JudgedBackByLittle,
    Mark::JudgedBackByLittleBusy,
    Mark::JudgedBack,
    Mark::JudgedBackBusy,
    Mark::JudgedCrashAfterCrash,
    Mark::JudgedCrashAfterCrashBusy,
    Mark::JudgedCrashAndLeave,
    Mark::JudgedCrashAndLeaveBusy,
    Mark::JudgedRemoverDies,
    Mark::JudgedRemoverDiesBusy,
    Mark::JudgedReturn,
    Mark::JudgedReturnBusy,
    Mark::DeputyDied,
    Mark::RemoverDied,
];

/// Run a scenario; with a picture of what happened, if wanted. The scenario must fit ([`misfit`]).
pub fn run(scenario: &Scenario, picture: bool) -> Report {
    run_with_beats(scenario, picture).0
}

/// The same, and the journals of all nodes, as `turnwise run --journal` writes them: a node without any never came up.
pub fn run_with_journals(scenario: &Scenario, picture: bool) -> (Report, Vec<Vec<Entry>>) {
    let farm = Farm::new(scenario, picture);
    farm.look().journals = Some(vec![Vec::new(); scenario.nodes.len()]);
    let (report, _) = run_on(scenario, &farm);
    let journals = farm.look().journals.take().unwrap_or_default();
    (report, journals)
}

/// The same, and the accepted beats: which slot, by which node of the scenario.
pub fn run_with_beats(scenario: &Scenario, picture: bool) -> (Report, Vec<(Slot, u32)>) {
    run_on(scenario, &Farm::new(scenario, picture))
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a run takes is told beside it, and decides nothing"
)]
fn run_on(scenario: &Scenario, farm: &Farm) -> (Report, Vec<(Slot, u32)>) {
    let started = std::time::Instant::now();
    watch_for_panics();
    PANICKED.set(false);
    let mut cluster = Cluster::new(scenario, farm.clone());
    cluster.run();
    let (mut report, beats) = cluster.into_report();
    report.wall_seconds = started.elapsed().as_secs_f64();
    (report, beats)
}

struct Cluster<'a> {
    scenario: &'a Scenario,
    farm: Farm,
    sim: Network<'a>,
    plans: BinaryHeap<Plan>,
    planned: u64,
    snapshots: Vec<Option<Older>>,
}

/// What is to happen, and when.
struct Plan {
    at: u64,
    order: u64,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Start(u32),
    Fault(usize),
    /// Remember the database as it is, for a failover that loses what comes after.
    Snapshot(usize),
    Promote(usize),
    DatabaseUp,
    Mend(u32),
    SlewEnds,
    SlowEnds(u64),
    CrowdEnds(u32),
    TargetBack(u32),
    Thaw(u32, u64),
    Deploy(u32),
    Return(u32),
    Enqueue,
    Cancel(u64),
    MakeBatch,
    Seal(BatchId),
    CancelBatch(BatchId),
    Pause,
    Resume,
    SetSchedules,
    SetLimits,
    Look,
}

/// A network without machines: a frame takes one step of it.
fn network<'a>(seed: u64) -> Network<'a> {
    turmoil::Builder::new()
        .tick_duration(Duration::from_nanos(TICK))
        .min_message_latency(Duration::from_nanos(TICK))
        .max_message_latency(Duration::from_nanos(TICK))
        .simulation_duration(Duration::from_secs(u64::MAX / 4))
        .rng_seed(seed)
        .epoch(UNIX_EPOCH)
        .tcp_capacity(1_024)
        .build()
}

/// The name of a node's machine.
fn node(number: u32) -> String {
    format!("node-{number}")
}

impl<'a> Cluster<'a> {
    fn new(scenario: &'a Scenario, farm: Farm) -> Self {
        set_true_now(0);
        let server = farm.look().server.clone();
        let mut store = Database::sabotaged("sqlite::memory:", Arc::new(server)).ok();
        if let Some(jobs) = NonZeroU32::new(scenario.load.jobs_a_claim) {
            store = store.map(|store| store.with_claims_of(jobs.get() as usize * BODY.len()));
        }
        farm.look().store = store.clone();
        if let Some(store) = store.filter(|_| scenario.changes_period()) {
            // No node asks for a period then: it has one from the start.
            let _ = at_once(store.migrate());
            let _ = at_once(store.agree_period(Some(scenario.period)));
        }
        let mut sim = network(scenario.seed);
        let there = farm.clone();
        sim.host(DATABASE, move || database::process(there.clone()));
        for number in 0..MACHINES {
            let there = farm.clone();
            sim.host(machine(number), move || target::process(there.clone(), number));
        }
        let mut cluster = Self {
            scenario,
            farm,
            sim,
            plans: BinaryHeap::new(),
            planned: 0,
            snapshots: vec![None; scenario.faults.len()],
        };
        for (number, plan) in scenario.nodes.iter().enumerate() {
            cluster.plan(plan.start.0, What::Start(number as u32));
        }
        for (number, planned) in scenario.faults.iter().enumerate() {
            if let Fault::Failover { loses, .. } = planned.fault {
                cluster.plan(planned.at.0.saturating_sub(loses.0), What::Snapshot(number));
            }
            cluster.plan(planned.at.0, What::Fault(number));
        }
        if scenario.load.every > Span::ZERO {
            cluster.plan(scenario.period.as_nanos() as u64, What::Enqueue);
        }
        if scenario.orders.pauses_every > Span::ZERO {
            cluster.plan(scenario.orders.pauses_every.0, What::Pause);
        }
        if scenario.orders.batches_every > Span::ZERO {
            cluster.plan(scenario.orders.batches_every.0, What::MakeBatch);
        }
        if scenario.orders.schedules > 0 {
            cluster.plan(LOOK_EVERY, What::SetSchedules);
        }
        if scenario.orders.has_limits() {
            cluster.plan(LOOK_EVERY, What::SetLimits);
        }
        cluster.plan(LOOK_EVERY, What::Look);
        cluster
    }

    fn plan(&mut self, at: u64, what: What) {
        self.planned += 1;
        self.plans.push(Plan { at, order: self.planned, what });
    }

    fn run(&mut self) {
        let end = self.scenario.duration.0;
        let mut now = 0;
        while now < end {
            set_true_now(now);
            while self.plans.peek().is_some_and(|plan| plan.at <= now) {
                if let Some(plan) = self.plans.pop() {
                    self.happen(plan.what);
                }
            }
            let stepped = self.sim.step();
            now += TICK;
            set_true_now(now);
            if let Err(error) = stepped {
                let say = || format!("a simulated machine failed: {error}");
                self.farm.look().violated(Invariant::NoPanic, say);
                break;
            }
            if PANICKED.take() {
                let say = || "a task panicked".to_owned();
                self.farm.look().violated(Invariant::NoPanic, say);
            }
        }
        let store = self.farm.look().store.clone();
        let jobs = store.map(|store| all_jobs(&store)).unwrap_or_default();
        self.farm.look().finish(&jobs);
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Start(number) => self.start(number),
            What::Fault(number) => self.fault(number),
            What::Snapshot(number) => self.snapshots[number] = snapshot(&self.farm),
            What::Promote(number) => self.promote(number),
            What::DatabaseUp => self.database_up(),
            What::Mend(number) => self.mend(number),
            What::SlewEnds => self.slew_ends(),
            What::SlowEnds(by) => self.farm.look().slow -= by,
            What::CrowdEnds(number) => self.crowd_ends(number),
            What::TargetBack(number) => self.target_back(number),
            What::Thaw(number, lasts) => self.thaw(number, lasts),
            What::Deploy(number) => self.deploy(number),
            What::Return(number) => self.comes_back(number),
            What::Enqueue => self.enqueue(),
            What::Cancel(job) => self.cancel(job),
            What::MakeBatch => self.make_batch(),
            What::Seal(batch) => self.seal(batch),
            What::CancelBatch(batch) => self.cancel_batch(batch),
            What::Pause => self.pause(),
            What::Resume => self.resume(),
            What::SetSchedules => self.set_schedules(),
            What::SetLimits => self.set_limits(),
            What::Look => {
                let mut world = self.farm.look();
                world.check_last_words();
                world.check_lost();
                world.check_lifeless();
                world.check_cancelled();
                let next = world.now + LOOK_EVERY;
                drop(world);
                self.say_what_goes_on();
                self.plan(next, What::Look);
            }
        }
    }

    /// The process of a node is started.
    fn start(&mut self, number: u32) {
        let mut world = self.farm.look();
        let now = world.now;
        let host = world.host(number);
        if host.up {
            return;
        }
        if host.is_paused(now) {
            // Its machine stands still.
            let later = host.paused_until;
            drop(world);
            self.plan(later, What::Start(number));
            return;
        }
        let is_new = !host.known;
        host.known = true;
        host.up = true;
        host.clock_known = None;
        host.lifeless_since = now;
        drop(world);
        let name = node(number);
        if is_new {
            let farm = self.farm.clone();
            self.sim.host(name.as_str(), move || process(farm.clone(), number));
            self.mend(number);
        } else {
            self.sim.bounce(name.as_str());
        }
    }

    fn into_report(self) -> (Report, Vec<(Slot, u32)>) {
        let store = self.farm.look().store.clone();
        let row = store.and_then(|store| at_once(store.look()).ok()).map(|look| look.row);
        let row = row.unwrap_or_else(|| TurnRow::new(self.scenario.period));
        // Every machine goes down before the report is made.
        drop(self.sim);
        let mut world = self.farm.look();
        let oracle = world.oracle.clone();
        let picture = world.picture.take();
        let report = Report::new(self.scenario, oracle, row, world.statements, world.hash, picture);
        (report, std::mem::take(&mut world.beats))
    }
}

/// The process of a node: what `turnwise run` does, on simulated leaves.
async fn process(farm: Farm, number: u32) -> turmoil::Result {
    let (handle, stop) = stop();
    let process = Process { farm: farm.clone(), host: number };
    let (config, chance) = {
        let mut world = farm.look();
        // Whoever asks for a period is refused where another one is in force.
        let period = (!world.scenario.changes_period()).then_some(world.scenario.period);
        let retention = setting(world.scenario.retention);
        let host = world.host(number);
        host.stop = Some(handle);
        let mut chance = [0; 16];
        chance[..8].copy_from_slice(&host.chance.bits().to_le_bytes());
        chance[8..].copy_from_slice(&host.chance.bits().to_le_bytes());
        (config(number, host.plan.capacity, period, retention)?, chance)
    };
    let leaves = Leaves {
        clock: NodeClock { farm: farm.clone(), host: number },
        store: RemoteStore::new(process.clone()),
        caller: SimCaller { process: process.clone() },
        chance,
        callbacks: Some(Callbacks {
            base: "http://nodes".to_owned(),
            secret: Secret::offering(format!("{:032x}", u128::from_be_bytes(chance))),
        }),
    };
    let there = farm.clone();
    let journal = Journal::listened_to(move |entry| there.look().journal(number, entry));
    let (pulse, _) = channel(Pulse::default());
    let life = shell::run(&leaves, &process, &config, &pulse, Some(&journal), stop);
    let end = process.run(life).await;
    farm.look().process_ended(number, &end);
    Ok(())
}

/// How long a node is told to keep ended jobs.
fn setting(retention: scenario::Retention) -> Retention {
    let keep = |kept: Option<Span>| {
        kept.map_or(Keep::Forever, |kept| Keep::For(Duration::from_nanos(kept.0)))
    };
    Retention { succeeded: keep(retention.succeeded), dead: keep(retention.dead) }
}

fn config(
    number: u32,
    capacity: u32,
    period: Option<turnwise_engine::Period>,
    retention: Retention,
) -> Result<RunConfig, Box<dyn std::error::Error>> {
    Ok(RunConfig {
        database_urls: vec!["sqlite::memory:".to_owned()],
        targets: Targets::parse(&[origin(number)])?,
        allow_origins: AllowedOrigins::default(),
        signing_keys: SigningKeys::default(),
        name: node(number),
        listen: None,
        listen_token: None,
        redaction: Redaction::default(),
        callback_url: None,
        period,
        capacity,
        queues: None,
        drain_timeout: DRAIN_TIMEOUT,
        retention,
        fail_fast: false,
        migrate: true,
        journal: None,
        log_format: LogFormat::Text,
    })
}

/// All jobs that a database holds.
fn all_jobs(store: &Database) -> Vec<JobView> {
    let all = JobFilter { limit: u32::MAX, ..JobFilter::default() };
    at_once(store.jobs(&all)).unwrap_or_default()
}

thread_local! {
    static PANICKED: Cell<bool> = const { Cell::new(false) };
}

/// A task that panics is cancelled, and nobody need hear of it: but the judge must.
fn watch_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICKED.set(true);
            before(info);
        }));
    });
}

impl PartialEq for Plan {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Plan {}

impl PartialOrd for Plan {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The earliest is the greatest, as `BinaryHeap` has it.
impl Ord for Plan {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}
