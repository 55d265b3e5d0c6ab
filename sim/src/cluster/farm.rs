//! Decides nothing: the farm as it truly is. One value that the simulated machines, the faults and the judge
//! share; every look at it is a moment, and nothing is awaited while it lasts.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use turnwise_engine::journal::Entry;
use turnwise_engine::{
    Engine, LocalInstant, NodeId, Output, ServerIdentity, ServerInstant, Slot, Token,
};
use turnwise_node::shell::StopHandle;
use turnwise_node::store::sqlite::ServerClock;

use super::database::Database;
use super::mail::Mail;
use super::orders::Orders;
use super::watch::Answered;
use crate::oracle::{Disturbance, Invariant, Oracle};
use crate::random::Stream;
use crate::report::{Picture, Seen};
use crate::scenario::{self, Scenario};
use crate::world::{Local, Mishaps, Roads, Server};

thread_local! {
    /// True time between the ticks of the network, when no simulated machine runs.
    static BETWEEN: Cell<u64> = const { Cell::new(0) };
}

/// True time since the start, in nanoseconds.
pub(super) fn true_now() -> u64 {
    turmoil::sim_elapsed().map_or_else(|| BETWEEN.get(), |elapsed| elapsed.as_nanos() as u64)
}

/// It is this late now, while no simulated machine runs.
pub(super) fn set_true_now(now: u64) {
    BETWEEN.set(now);
}

/// Wait until this true time, or the millisecond after it.
pub(super) async fn until(at: u64) {
    let rest = at.saturating_sub(true_now());
    if rest > 0 {
        tokio::time::sleep(std::time::Duration::from_nanos(rest)).await;
    }
}

/// The farm, shared.
#[derive(Clone)]
pub(super) struct Farm(Arc<Mutex<World>>);

impl Farm {
    pub(super) fn new(scenario: &Scenario, picture: bool) -> Self {
        Self(Arc::new(Mutex::new(World::new(scenario, picture))))
    }

    /// Look at the farm, or change it, at this moment.
    pub(super) fn look(&self) -> MutexGuard<'_, World> {
        let mut world = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        world.now = true_now();
        world
    }
}

/// All of it.
pub(super) struct World {
    pub(super) scenario: Scenario,
    pub(super) period: u64,
    /// True time since the start, in nanoseconds.
    pub(super) now: u64,
    pub(super) hosts: Vec<Host>,
    pub(super) lives: Vec<Life>,
    pub(super) by_id: BTreeMap<NodeId, u32>,
    pub(super) server: ServerState,
    /// What the database holds: it outlives its process.
    pub(super) store: Option<Database>,
    /// Nobody answers before this.
    pub(super) out_until: u64,
    pub(super) slow: u64,
    pub(super) mail: Mail,
    pub(super) load: Stream,
    /// Jobs enqueued.
    pub(super) jobs: u64,
    pub(super) idle_since: u64,
    /// Jobs that a target serves, and for whom.
    pub(super) served: BTreeMap<(u64, u32), u32>,
    /// The claim that a job was given out under last.
    pub(super) claims: BTreeMap<u64, (u32, Token)>,
    /// When a job was claimed or served last.
    pub(super) touched: BTreeMap<u64, u64>,
    /// When the end of a job was recorded.
    pub(super) ended_at: BTreeMap<u64, u64>,
    /// What apps and people ordered.
    pub(super) orders: Orders,
    /// When the server's clock was set forward, or another one's that is ahead came in its place.
    pub(super) steps_forward: Vec<u64>,
    /// Jobs that a server which took over knew to run, and for whom.
    pub(super) kept: BTreeMap<u64, u32>,
    /// How often a job was done at a target, with its answer sent.
    pub(super) done: BTreeMap<u64, u32>,
    /// The nodes of which it is known that the database has declared them lost.
    pub(super) known_lost: BTreeSet<NodeId>,
    /// What the row's cadence was last biased by.
    pub(super) bias: i64,
    /// The accepted beats: slot and machine.
    pub(super) beats: Vec<(Slot, u32)>,
    /// The journals of all nodes, if they are wanted.
    pub(super) journals: Option<Vec<Vec<Entry>>>,
    pub(super) statements: u64,
    /// Connections that the database has accepted.
    pub(super) connections: u64,
    pub(super) hash: u64,
    pub(super) oracle: Oracle,
    pub(super) picture: Option<Picture>,
}

/// A machine of the scenario: there from its start, whatever becomes of its processes.
pub(super) struct Host {
    pub(super) plan: scenario::Node,
    pub(super) clock: Local,
    pub(super) turn: Roads,
    pub(super) work: Roads,
    /// Its process runs.
    pub(super) up: bool,
    /// Since when its process knows the server's clock.
    pub(super) clock_known: Option<u64>,
    /// Since when its process is without a life: it has not registered yet, or again.
    pub(super) lifeless_since: u64,
    /// The network knows it.
    pub(super) known: bool,
    /// The life that its process leads.
    pub(super) life: Option<u32>,
    pub(super) paused_until: u64,
    /// What is done to it explains a lapsed lease up to here.
    pub(super) excused_until: u64,
    pub(super) errors_until: u64,
    pub(super) target_down_until: u64,
    /// When its target refused the first call of those that it still refuses.
    pub(super) refused_since: Option<u64>,
    /// Something is done to it, or to its roads, up to here.
    pub(super) storm_until: u64,
    pub(super) next: Mishaps,
    /// When its last statement on the turn row left.
    pub(super) turn_begun: u64,
    /// Of the machine: what its processes' chance begins with, how late it wakes.
    pub(super) chance: Stream,
    pub(super) stop: Option<StopHandle>,
    /// How often its process was asked to stop.
    pub(super) stops_asked: u32,
    pub(super) target_is_up: watch::Sender<bool>,
}

/// One life of a node, under an id of its own.
pub(super) struct Life {
    pub(super) number: u32,
    pub(super) host: u32,
    pub(super) born: u64,
    /// An engine that is told what the node's is told.
    pub(super) shadow: Engine,
    /// What it asked for that the node's has not been seen to ask for yet.
    pub(super) expected: VecDeque<Output>,
    pub(super) draining: bool,
    pub(super) left: bool,
    /// It is to stay in the ring.
    pub(super) staying: bool,
    /// When it was over, with its process alive.
    pub(super) over: Option<u64>,
    pub(super) killed: bool,
    /// When the database declared it lost.
    pub(super) lost_at: Option<u64>,
    pub(super) removed: bool,
    pub(super) turn_is_read: bool,
    pub(super) last_beat: Slot,
    pub(super) skipped: Slot,
    pub(super) beat_error: i64,
    /// The end of the statement on the turn row that it asked for last.
    pub(super) not_after: LocalInstant,
    /// The same of the one on the jobs.
    pub(super) work_not_after: LocalInstant,
    /// Statements on the turn row since the start of this window.
    pub(super) window: (u64, u32),
    /// When it last held as much as it can.
    pub(super) full_at: u64,
    /// Since when it has had free places and nothing under way that a claim waits for; none: it has not.
    pub(super) free_since: Option<u64>,
    /// From when to when that was so the last time, until it claimed.
    pub(super) was_free: Option<(u64, u64)>,
    /// When the database carried out its last claim, if it found more jobs than that brought.
    pub(super) more_at: Option<u64>,
    /// Statements on the jobs since there are none.
    pub(super) idle_work: u32,
    /// The answer that its engine was told last, until all that it led to was seen.
    pub(super) answer: Option<Answered>,
    /// That answer told it of a step or of another server.
    pub(super) clock_learned: bool,
}

/// The clock of the database's server and who it is, as the production store is given it.
#[derive(Clone)]
pub(super) struct ServerState(Arc<Mutex<(Server, ServerIdentity)>>);

impl ServerState {
    pub(super) fn look(&self) -> MutexGuard<'_, (Server, ServerIdentity)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it shows now, with all its digits.
    pub(super) fn exact(&self) -> ServerInstant {
        self.look().0.exact(true_now())
    }
}

impl ServerClock for ServerState {
    fn now(&self) -> ServerInstant {
        self.look().0.stamp(true_now())
    }

    fn identity(&self) -> ServerIdentity {
        self.look().1
    }
}

impl World {
    fn new(scenario: &Scenario, picture: bool) -> Self {
        let seed = scenario.seed;
        let hosts = scenario.nodes.iter().enumerate().map(|(number, plan)| Host {
            plan: *plan,
            clock: Local::new(&plan.clock, seed, &format!("node {number} clock"), 0),
            turn: Roads::new(plan, seed, &format!("node {number} turn")),
            work: Roads::new(plan, seed, &format!("node {number} work")),
            up: false,
            clock_known: None,
            lifeless_since: 0,
            known: false,
            life: None,
            paused_until: 0,
            excused_until: 0,
            errors_until: 0,
            target_down_until: 0,
            refused_since: None,
            storm_until: 0,
            next: Mishaps::default(),
            turn_begun: 0,
            chance: Stream::new(seed, &format!("node {number} chance")),
            stop: None,
            stops_asked: 0,
            target_is_up: watch::channel(true).0,
        });
        let period = scenario.period.as_nanos() as u64;
        let server = Server::new(scenario.database.resolution.0);
        let identity = ServerIdentity { started: 1, timeline: 1 };
        Self {
            period,
            now: 0,
            hosts: hosts.collect(),
            lives: Vec::new(),
            by_id: BTreeMap::new(),
            server: ServerState(Arc::new(Mutex::new((server, identity)))),
            store: None,
            out_until: 0,
            slow: 0,
            mail: Mail::default(),
            load: Stream::new(seed, "load"),
            jobs: 0,
            idle_since: 0,
            served: BTreeMap::new(),
            claims: BTreeMap::new(),
            touched: BTreeMap::new(),
            ended_at: BTreeMap::new(),
            orders: Orders::new(seed),
            steps_forward: Vec::new(),
            kept: BTreeMap::new(),
            done: BTreeMap::new(),
            known_lost: BTreeSet::new(),
            bias: 0,
            beats: Vec::new(),
            journals: None,
            statements: 0,
            connections: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            oracle: Oracle::new(period, !scenario.load.every.is_zero()),
            picture: picture.then(|| Picture::new(scenario)),
            scenario: scenario.clone(),
        }
    }

    pub(super) fn host(&mut self, number: u32) -> &mut Host {
        &mut self.hosts[number as usize]
    }

    pub(super) fn life(&mut self, number: u32) -> &mut Life {
        &mut self.lives[number as usize]
    }

    /// What the clock of a node shows.
    pub(super) fn local(&mut self, host: u32) -> LocalInstant {
        let now = self.now;
        self.host(host).clock.read(now)
    }

    pub(super) fn disturbed(&mut self, until: u64, what: Disturbance) {
        let Oracle { ring, marks, violations, .. } = &mut self.oracle;
        ring.disturbed(self.now, until.max(self.now), what, marks, violations);
    }

    pub(super) fn violated(&mut self, invariant: Invariant, detail: impl FnOnce() -> String) {
        self.oracle.violations.add(self.now, invariant, detail);
    }

    pub(super) fn count_living(&mut self) {
        let living = self.lives.iter().filter(|life| life.staying).count();
        self.oracle.ring.living(living);
    }

    pub(super) fn seen(&mut self, host: u32, seen: Seen) {
        if let Some(picture) = &mut self.picture {
            picture.add(self.now, host, seen);
        }
    }

    /// Fold into the hash of all that happened.
    pub(super) fn trace(&mut self, values: [u64; 3]) {
        let mut hash = self.hash;
        for value in [self.now, values[0], values[1], values[2]] {
            hash = (hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        self.hash = hash;
    }
}

impl Host {
    pub(super) fn is_paused(&self, now: u64) -> bool {
        self.paused_until > now
    }
}
