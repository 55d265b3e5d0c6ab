//! Chaos: the program that people run, as real processes against a real database server, with wrong clocks, long
//! roads, kills, stalls and cuts. What no simulator shows, this does; what it sees, it judges by the database's own
//! history and by what the web apps saw, with the judge of the simulated tiers.
//!
//! - `process`, `target`, `server`, `relay`: the nodes, their web apps, their database, and the roads between them;
//! - `history`: what was done and seen; `judge`: what it comes to;
//! - `fit`: what can be done to real processes.
//!
//! This module decides in which order things are done to the farm. Time is this machine's: a run is repeated by its
//! scenario, and differs from run to run as machines do.
#![allow(
    clippy::disallowed_methods,
    reason = "real processes take real time; nothing here is to be repeated exactly"
)]

mod fit;
mod history;
mod judge;
mod process;
mod relay;
mod server;
mod target;

use std::collections::BinaryHeap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use turnwise_node::job::NewJob;
use turnwise_node::store::{AnyStore, Store};

pub use self::fit::{misfit, with_failovers};
pub use self::server::Kind;

use self::history::{Event, History};
use self::process::{Process, Recipe};
use self::relay::Relay;
use self::server::Server;
use self::target::Target;
use crate::random::Stream;
use crate::report::Report;
use crate::scenario::{Fault, Scenario};
use crate::world::id_of;

/// How long one attempt may take.
const CALL_DEADLINE: Duration = Duration::from_secs(8);
/// How often the turn row and the nodes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often it is looked whether a process has ended.
const REAP_EVERY: u64 = 50_000_000;
/// A machine that wakes later than this stood still: what its processes miss by that is not theirs.
const STALLED: Duration = Duration::from_millis(100);
/// How long the processes may take to stop, at the end.
const PARTING: Duration = Duration::from_secs(6);
/// What would stop a server while a standby is being made of another waits for so long, in nanoseconds.
const AFTER_REBUILDING: u64 = 500_000_000;
/// How often somebody at work tries the database again.
const AGAIN: Duration = Duration::from_millis(200);

/// What a run needs besides its scenario.
#[derive(Clone, Debug)]
pub struct Rig {
    /// The program `turnwise`.
    pub program: PathBuf,
    /// Where journals and logs go: an empty folder.
    pub folder: PathBuf,
    /// The database.
    pub database: Kind,
    /// With a standby that takes over: PostgreSQL alone.
    pub replica: bool,
}

/// Run a scenario that fits ([`misfit`]), for as long as it lasts; with a picture of what happened, if wanted.
///
/// # Errors
/// When the rig cannot be set up: the program, the folder, a port.
pub fn run(scenario: &Scenario, rig: &Rig, picture: bool) -> Result<Report, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| format!("no threads can be started: {error}"))?;
    let started = Instant::now();
    let server = Server::start(rig.database, rig.replica);
    let mut report = runtime.block_on(async {
        let mut farm = Farm::set_up(scenario, rig, server).await?;
        farm.run().await?;
        farm.judged(picture).await
    })?;
    runtime.shutdown_background();
    report.wall_seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

struct Farm<'a> {
    scenario: &'a Scenario,
    rig: &'a Rig,
    server: Arc<Server>,
    /// The database without any road.
    store: AnyStore,
    history: History,
    hosts: Vec<Host>,
    plans: BinaryHeap<Plan>,
    planned: u64,
    /// Faults of the database that are on: it is up when there is none.
    outages: u32,
    /// The primary is dead, and the standby is to take over.
    failing_over: bool,
    /// A new standby is being made: nothing else happens to the servers meanwhile.
    rebuilding: Option<std::thread::JoinHandle<()>>,
}

struct Host {
    recipe: Recipe,
    process: Option<Process>,
    relay: Relay,
    target: Target,
    /// Pauses that are on.
    pauses: u32,
    /// It is to be started again when it has stopped.
    returns: bool,
    /// When its web app is back.
    target_back: u64,
}

/// What is to happen, and when.
struct Plan {
    at: u64,
    order: u64,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Start(u32),
    Fault(usize),
    Resume(u32),
    CrowdEnds(u32),
    TargetBack(u32),
    ServerResumes,
    ServerStarts,
    StandbyTakesOver,
    SlowEnds(u64),
    Deploy(u32),
    Reap,
}

impl<'a> Farm<'a> {
    async fn set_up(scenario: &'a Scenario, rig: &'a Rig, server: Server) -> Result<Self, String> {
        let servers = server.addresses();
        let urls: Vec<_> = servers.iter().map(|address| server.url(*address)).collect();
        let store = AnyStore::connect_all(&urls, 2).map_err(|error| error.to_string())?;
        let say = |error: turnwise_node::store::StoreError| error.to_string();
        store.migrate().await.map_err(say)?;
        store.agree_period(Some(scenario.period)).await.map_err(say)?;
        let history = History::begin();
        let calls = Arc::new(AtomicU64::new(0));
        let mut hosts = Vec::new();
        for (number, plan) in scenario.nodes.iter().enumerate() {
            let host = number as u32;
            let seed = scenario.seed;
            let no_port = |error| format!("no port of loopback can be had: {error}");
            let relay = Relay::open(host, plan, seed, &servers, &history).await.map_err(no_port)?;
            let target = Target::open(host, scenario.load, seed, &history, &calls);
            let target = target.await.map_err(no_port)?;
            let recipe = Recipe {
                program: rig.program.clone(),
                folder: rig.folder.clone(),
                host,
                plan: *plan,
                database: relay.addresses.iter().map(|address| server.url(*address)).collect(),
                target: format!("http://{}", target.address),
                starts: 0,
            };
            hosts.push(Host {
                recipe,
                process: None,
                relay,
                target,
                pauses: 0,
                returns: false,
                target_back: 0,
            });
        }
        let mut farm = Self {
            scenario,
            rig,
            server: Arc::new(server),
            store,
            history,
            hosts,
            plans: BinaryHeap::new(),
            planned: 0,
            outages: 0,
            failing_over: false,
            rebuilding: None,
        };
        for (number, plan) in scenario.nodes.iter().enumerate() {
            farm.plan(plan.start.0, What::Start(number as u32));
        }
        for (number, planned) in scenario.faults.iter().enumerate() {
            farm.plan(planned.at.0, What::Fault(number));
        }
        farm.plan(REAP_EVERY, What::Reap);
        Ok(farm)
    }

    fn plan(&mut self, at: u64, what: What) {
        self.planned += 1;
        self.plans.push(Plan { at, order: self.planned, what });
    }

    /// All that the scenario has planned, and then the end.
    async fn run(&mut self) -> Result<(), String> {
        let watching = [
            tokio::spawn(look(self.store.clone(), self.history.clone())),
            tokio::spawn(enqueue(self.store.clone(), self.scenario.clone(), self.history.clone())),
        ];
        let stalls = watch_machine(&self.history);
        let end = self.scenario.duration.0;
        while let Some(plan) = self.plans.pop() {
            if plan.at >= end {
                break;
            }
            tokio::time::sleep_until(self.history.instant(plan.at)).await;
            self.happen(plan.what)?;
        }
        tokio::time::sleep_until(self.history.instant(end)).await;
        for task in watching {
            task.abort();
        }
        stalls.store(1, std::sync::atomic::Ordering::Relaxed);
        self.part().await;
        Ok(())
    }

    /// All processes stop, so that their journals are whole.
    async fn part(&mut self) {
        if std::mem::take(&mut self.failing_over) {
            self.server.take_over();
        } else if self.outages > 0 {
            self.server.resume();
            self.server.restart();
        }
        if let Some(rebuilding) = self.rebuilding.take() {
            let _ = rebuilding.join();
        }
        for host in &mut self.hosts {
            if let Some(process) = &host.process {
                process.resume();
                process.tell();
            }
        }
        let until = Instant::now() + PARTING;
        while Instant::now() < until {
            for host in &mut self.hosts {
                if host.process.as_mut().is_some_and(|process| process.ended().is_some()) {
                    host.process = None;
                }
            }
            if self.hosts.iter().all(|host| host.process.is_none()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for host in &mut self.hosts {
            if let Some(process) = host.process.take() {
                process.kill();
            }
        }
    }

    async fn judged(&self, picture: bool) -> Result<Report, String> {
        let filter = turnwise_node::job::JobFilter { limit: u32::MAX / 2, ..Default::default() };
        let jobs = self.store.jobs(&filter).await.map_err(|error| error.to_string())?;
        let facts = judge::Facts {
            events: self.history.read(),
            beats: self.server.beats()?,
            attempts: self.server.attempts()?,
            jobs,
            journals: process::journals(&self.rig.folder),
        };
        judge::judge(self.scenario, &self.history, &facts, picture)
    }

    fn happen(&mut self, what: What) -> Result<(), String> {
        match what {
            What::Start(number) => self.start(number)?,
            What::Fault(number) => self.fault(number),
            What::Resume(number) => {
                let host = &mut self.hosts[number as usize];
                host.pauses -= 1;
                if let (0, Some(process)) = (host.pauses, &host.process) {
                    process.resume();
                }
            }
            What::CrowdEnds(number) => {
                for way in self.hosts[number as usize].relay.state().roads.each() {
                    way.crowd = 1;
                }
            }
            What::TargetBack(number) => {
                let host = &self.hosts[number as usize];
                if host.target_back <= self.history.now() {
                    host.target.set_up(true);
                }
            }
            What::ServerResumes => {
                self.outages -= 1;
                if self.outages == 0 {
                    self.server.resume();
                }
            }
            What::ServerStarts => {
                self.outages -= 1;
                if self.outages == 0 {
                    self.server.restart();
                }
            }
            What::StandbyTakesOver => self.standby_takes_over(),
            What::SlowEnds(by) => {
                for host in &self.hosts {
                    host.relay.state().slow -= by;
                }
            }
            What::Deploy(number) => {
                self.hosts[number as usize].returns = self.hosts[number as usize].process.is_some();
                self.tell(number);
            }
            What::Reap => {
                self.reap()?;
                let next = self.history.now() + REAP_EVERY;
                self.plan(next, What::Reap);
            }
        }
        Ok(())
    }

    fn start(&mut self, number: u32) -> Result<(), String> {
        let host = &mut self.hosts[number as usize];
        if host.process.is_none() {
            self.history.write(Event::Up(number));
            let process = host.recipe.start()?;
            if host.pauses > 0 {
                process.pause();
            }
            host.process = Some(process);
        }
        Ok(())
    }

    fn fault(&mut self, index: usize) {
        let fault = self.scenario.faults[index].fault;
        let now = self.history.now();
        let stops_server = matches!(
            fault,
            Fault::Outage { .. } | Fault::ServerRestart { .. } | Fault::Failover { .. }
        );
        if stops_server && self.rebuilding.as_ref().is_some_and(|thread| !thread.is_finished()) {
            self.plan(now + AFTER_REBUILDING, What::Fault(index));
            return;
        }
        let until = now + fault.lasts().0;
        let alive = fault.node().is_none_or(|node| self.hosts[node as usize].process.is_some());
        self.history.write(Event::Fault(fault, alive));
        match fault.node() {
            Some(node) => self.node_fault(node, fault, until),
            None => self.server_fault(fault, until),
        }
    }

    fn node_fault(&mut self, number: u32, fault: Fault, until: u64) {
        let host = &mut self.hosts[number as usize];
        match fault {
            Fault::Drain { .. } => self.tell(number),
            Fault::Kill { .. } => self.kill(number),
            Fault::Restart { .. } if host.process.is_some() => {
                self.kill(number);
                self.plan(until, What::Start(number));
            }
            Fault::Pause { .. } => {
                host.pauses += 1;
                if let Some(process) = &host.process {
                    process.pause();
                }
                self.plan(until, What::Resume(number));
            }
            Fault::LoseAnswer { .. } => host.relay.state().lose_answer = true,
            Fault::Reset { .. } => {
                host.relay.reset();
                self.history.write(Event::Befell(fault));
            }
            Fault::CutThere { .. } => {
                let way = &mut host.relay.state().roads.there;
                way.cut_until = way.cut_until.max(until);
            }
            Fault::CutBack { .. } => {
                let way = &mut host.relay.state().roads.back;
                way.cut_until = way.cut_until.max(until);
            }
            Fault::Hold { .. } => {
                for way in host.relay.state().roads.each() {
                    way.held_until = way.held_until.max(until);
                }
            }
            Fault::Congestion { factor, .. } => {
                for way in host.relay.state().roads.each() {
                    way.crowd = u64::from(factor);
                }
                self.plan(until, What::CrowdEnds(number));
            }
            Fault::Route { there, back, .. } => {
                let mut state = host.relay.state();
                state.roads.there.road.base = there;
                state.roads.back.road.base = back;
            }
            Fault::TargetDown { .. } => {
                host.target_back = host.target_back.max(until);
                host.target.set_up(false);
                self.plan(until, What::TargetBack(number));
            }
            _ => {}
        }
    }

    fn server_fault(&mut self, fault: Fault, until: u64) {
        match fault {
            Fault::Outage { .. } if self.outages == 0 => {
                self.outages += 1;
                self.server.pause();
                self.plan(until, What::ServerResumes);
            }
            Fault::ServerRestart { .. } if self.outages == 0 => {
                self.outages += 1;
                self.server.kill();
                self.plan(until, What::ServerStarts);
            }
            Fault::Failover { .. } if self.outages == 0 => {
                self.outages += 1;
                self.failing_over = true;
                self.server.kill();
                self.plan(until, What::StandbyTakesOver);
            }
            Fault::Slow { by, .. } => {
                for host in &self.hosts {
                    host.relay.state().slow += by.0;
                }
                self.plan(until, What::SlowEnds(by.0));
            }
            Fault::Deploy { lasts } => {
                let (now, count) = (self.history.now(), self.hosts.len() as u64);
                for host in 0..count {
                    self.plan(now + lasts.0 * host / count, What::Deploy(host as u32));
                }
            }
            _ => {}
        }
    }

    /// And a new standby is made of the server that died, for the next time.
    fn standby_takes_over(&mut self) {
        self.outages -= 1;
        self.failing_over = false;
        self.server.take_over();
        let server = Arc::clone(&self.server);
        self.rebuilding = Some(std::thread::spawn(move || server.rebuild_standby()));
    }

    fn kill(&mut self, number: u32) {
        if let Some(process) = self.hosts[number as usize].process.take() {
            process.kill();
            self.history.write(Event::Killed(number));
        }
    }

    fn tell(&mut self, number: u32) {
        let host = &mut self.hosts[number as usize];
        if let Some(process) = &host.process {
            process.tell();
            self.history.write(Event::Told(number));
        }
    }

    /// Processes that have ended by themselves.
    fn reap(&mut self) -> Result<(), String> {
        for number in 0..self.hosts.len() as u32 {
            let host = &mut self.hosts[number as usize];
            let Some(status) = host.process.as_mut().and_then(Process::ended) else { continue };
            host.process = None;
            self.history.write(Event::Ended(number, status.to_string()));
            if std::mem::take(&mut host.returns) {
                self.start(number)?;
            }
        }
        Ok(())
    }
}

/// Look at the database, again and again: the judge wants to know what was so at each moment.
async fn look(store: AnyStore, history: History) {
    loop {
        if let Ok(Ok(look)) = tokio::time::timeout(AGAIN, store.look()).await {
            history.write(Event::Row(Box::new(look)));
        }
        if let Ok(Ok(nodes)) = tokio::time::timeout(AGAIN, store.nodes()).await {
            let nodes = nodes.into_iter().map(|node| (node.id, node.name, node.state));
            history.write(Event::Nodes(nodes.collect()));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The application enqueues jobs, all the while; what it is not sure of it enqueues again under the same id.
async fn enqueue(store: AnyStore, scenario: Scenario, history: History) {
    let load = scenario.load;
    if load.every.0 == 0 {
        return;
    }
    let mut chance = Stream::new(scenario.seed, "load");
    let mut at = scenario.period.as_nanos() as u64;
    for number in 1.. {
        if at > load.until.0 {
            return;
        }
        tokio::time::sleep_until(history.instant(at)).await;
        let job = NewJob {
            id: id_of(number),
            max_attempts: load.max_attempts,
            deadline: CALL_DEADLINE,
            ..NewJob::new(format!("/jobs/{number}"))
        };
        // From now on it may be there.
        let since = history.now();
        while !matches!(
            tokio::time::timeout(CALL_DEADLINE, store.enqueue(std::slice::from_ref(&job))).await,
            Ok(Ok(_))
        ) {
            tokio::time::sleep(AGAIN).await;
        }
        history.write_at(since, Event::Enqueued(number));
        at += (-(load.every.0 as f64) * chance.ln_uniform()) as u64;
        at = at.max(history.now());
    }
}

/// A thread that only wakes and sleeps: when it wakes late, everybody does. Ends when what it returns is set.
fn watch_machine(history: &History) -> Arc<AtomicU64> {
    let over = Arc::new(AtomicU64::new(0));
    let (seen, history) = (Arc::clone(&over), history.clone());
    std::thread::spawn(move || {
        let nap = Duration::from_millis(10);
        while seen.load(std::sync::atomic::Ordering::Relaxed) == 0 {
            let slept = Instant::now();
            std::thread::sleep(nap);
            let late = slept.elapsed().saturating_sub(nap);
            if late > STALLED {
                history.write(Event::MachineStalled(late));
            }
        }
    });
    over
}

impl Ord for Plan {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // The soonest is the greatest.
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Plan {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Plan {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Plan {}
