//! Decides what each fault does to the simulated machines and the network, and tells the judge.

use turmoil::Sim;
use turnwise_engine::{Change, Period, ServerIdentity, TurnRow};
use turnwise_node::job::JobState;
use turnwise_node::store::{QueueOrders, Store};

use super::database::{Database, at_once};
use super::farm::{Farm, World};
use super::mail::DATABASE;
use super::orders::SECOND_QUEUE;
use super::target::{MACHINES, machine};
use super::watch::Holders;
use super::{Cluster, What, node};
use crate::oracle::Disturbance;
use crate::report::Seen;
use crate::scenario::Fault;
use crate::world::{Mishaps, job_of};

/// How often it is looked whether a process that was told to stop has.
const AGAIN: u64 = 50_000_000;

impl Cluster<'_> {
    pub(super) fn fault(&mut self, number: usize) {
        let fault = self.scenario.faults[number].fault;
        let farm = self.farm.clone();
        let mut world = farm.look();
        let now = world.now;
        world.trace([10, number as u64, 0]);
        let until = now + fault.lasts().0;
        let alive = fault.node().is_none_or(|node| world.hosts[node as usize].life.is_some());
        world.seen(fault.node().unwrap_or(u32::MAX), Seen::Fault(fault));
        if let Some(what) = Disturbance::of(fault, alive) {
            world.disturbed(until, what);
        }
        match fault.node() {
            Some(node) => {
                let excused = until + world.lease() + 2 * world.period + 2_000_000_000;
                let host = world.host(node);
                host.excused_until = host.excused_until.max(excused);
                // Its own end and its target's are no storm on its roads.
                if !matches!(fault, Fault::Drain { .. } | Fault::TargetDown { .. }) {
                    host.storm_until = host.storm_until.max(until);
                }
                drop(world);
                self.node_fault(node, fault, until);
            }
            None => {
                drop(world);
                self.server_fault(number, fault, until);
            }
        }
    }

    fn node_fault(&mut self, number: u32, fault: Fault, until: u64) {
        let farm = self.farm.clone();
        let mut world = farm.look();
        let now = world.now;
        let host = world.host(number);
        match fault {
            Fault::Drain { .. } => drain(&mut world, number),
            Fault::Kill { .. } => {
                drop(world);
                self.kill(number);
            }
            Fault::Restart { .. } if host.up => {
                drop(world);
                self.kill(number);
                self.plan(until, What::Start(number));
            }
            Fault::Pause { .. } => host.paused_until = host.paused_until.max(until),
            Fault::Freeze { lasts, .. } if !host.is_paused(now) => {
                // Frozen while stopped: both end together.
                host.paused_until = until;
                self.plan(until, What::Thaw(number, lasts.0));
            }
            Fault::Stall { lasts, .. } => host.next.stall = lasts.0,
            Fault::HoldChange { lasts, .. } => host.next.hold_change = lasts.0,
            Fault::LoseRequest { .. } => host.next.lose_request = true,
            Fault::LoseAnswer { .. } => host.next.lose_answer = true,
            Fault::LoseChange { .. } => host.next.lose_change = true,
            Fault::LoseWork { .. } => host.next.lose_work = true,
            Fault::Deadlock { .. } => host.next.deadlock = true,
            Fault::StallWork { lasts, .. } => host.next.stall_work = lasts.0,
            Fault::Reset { .. } => host.next.reset = true,
            Fault::Errors { .. } => host.errors_until = host.errors_until.max(until),
            Fault::CutThere { .. } => {
                host.turn.there.cut_until = host.turn.there.cut_until.max(until);
                host.work.there.cut_until = host.work.there.cut_until.max(until);
                drop(world);
                self.mend(number);
                self.plan(until, What::Mend(number));
            }
            Fault::CutBack { .. } => {
                host.turn.back.cut_until = host.turn.back.cut_until.max(until);
                host.work.back.cut_until = host.work.back.cut_until.max(until);
                drop(world);
                self.mend(number);
                self.plan(until, What::Mend(number));
            }
            Fault::Hold { .. } => {
                for way in host.turn.each().into_iter().chain(host.work.each()) {
                    way.held_until = way.held_until.max(until);
                }
            }
            Fault::Congestion { factor, .. } => {
                for way in host.turn.each().into_iter().chain(host.work.each()) {
                    way.crowd = u64::from(factor);
                }
                world.oracle.clock.road_changed(number);
                self.plan(until, What::CrowdEnds(number));
            }
            Fault::Route { there, back, .. } => {
                for roads in [&mut host.turn, &mut host.work] {
                    roads.there.road.base = there;
                    roads.back.road.base = back;
                }
                world.oracle.clock.road_changed(number);
            }
            Fault::TargetDown { .. } => {
                if host.target_down_until <= now {
                    host.refused_since = None;
                }
                host.target_down_until = host.target_down_until.max(until);
                host.target_is_up.send_replace(false);
                self.plan(until, What::TargetBack(number));
            }
            _ => {}
        }
    }

    /// A node is told to stop, and started again when it has.
    pub(super) fn deploy(&mut self, number: u32) {
        let mut world = self.farm.look();
        let now = world.now;
        if !world.hosts[number as usize].up {
            return;
        }
        drain(&mut world, number);
        drop(world);
        self.plan(now + AGAIN, What::Return(number));
    }

    pub(super) fn comes_back(&mut self, number: u32) {
        let world = self.farm.look();
        let (now, up) = (world.now, world.hosts[number as usize].up);
        drop(world);
        if up {
            self.plan(now + AGAIN, What::Return(number));
        } else {
            self.start(number);
        }
    }

    /// The process dies: its connections are reset, or, when its machine lost power, fall silent.
    fn kill(&mut self, number: u32) {
        let mut world = self.farm.look();
        let host = world.host(number);
        if !host.up {
            return;
        }
        host.up = false;
        host.stop = None;
        host.stops_asked = 0;
        // What was to befall its next statement dies with its connections.
        host.next = Mishaps::default();
        let silent = host.chance.below(2) == 0;
        if let Some(life) = host.life {
            world.life_over(life, Seen::Killed);
        }
        drop(world);
        let name = node(number);
        if silent {
            for other in others() {
                self.sim.partition(name.as_str(), other.as_str());
            }
        }
        self.sim.crash(name.as_str());
        if silent {
            for other in others() {
                self.sim.repair(name.as_str(), other.as_str());
            }
            self.mend(number);
        }
    }

    fn server_fault(&mut self, number: usize, fault: Fault, until: u64) {
        let farm = self.farm.clone();
        let mut world = farm.look();
        let now = world.now;
        match fault {
            Fault::ServerStep { by } => step_server(&mut world, by.0),
            Fault::ServerSlew { ppm, .. } => {
                world.server.look().0.slew(now, i64::from(ppm));
                for host in 0..world.hosts.len() as u32 {
                    world.oracle.clock.road_changed(host);
                    let drift = world.hosts[host as usize].plan.clock.drift_ppb.abs() / 1_000;
                    // The interval assumes that the clocks drift apart by no more than 500 ppm.
                    if i64::from(ppm).abs() + drift > 480 {
                        world.oracle.clock.rate_broken(now, until, host);
                    }
                }
                world.oracle.ring.clocks_set(until);
                self.plan(until, What::SlewEnds);
            }
            Fault::Outage { .. } => world.out_until = world.out_until.max(until),
            Fault::ServerRestart { .. } => {
                world.out_until = world.out_until.max(until);
                world.server.look().1.started += 1;
                world.oracle.ring.another_server();
                drop(world);
                self.sim.crash(DATABASE);
                self.plan(until, What::DatabaseUp);
            }
            Fault::Failover { .. } => {
                world.out_until = world.out_until.max(until);
                drop(world);
                self.sim.crash(DATABASE);
                self.plan(until, What::Promote(number));
            }
            Fault::Deploy { lasts } => {
                let count = world.hosts.len() as u64;
                drop(world);
                for host in 0..count {
                    self.plan(now + lasts.0 * host / count, What::Deploy(host as u32));
                }
            }
            Fault::Period { to } if world.out_until <= now => {
                let store = world.store.clone();
                drop(world);
                if let Some(row) = store.and_then(|store| change_period(&store, to)) {
                    farm.look().tell_period(&row.cadence);
                }
            }
            Fault::Slow { by, .. } => {
                world.slow += by.0;
                self.plan(until, What::SlowEnds(by.0));
            }
            _ => {}
        }
    }

    /// A node's connection to the database is cut, or is whole again, each way by itself.
    pub(super) fn mend(&mut self, number: u32) {
        let world = self.farm.look();
        let (now, host) = (world.now, &world.hosts[number as usize]);
        if !host.known {
            return;
        }
        let name = node(number);
        if host.turn.there.cut_until <= now {
            self.sim.repair_oneway(name.as_str(), DATABASE);
        } else {
            self.sim.partition_oneway(name.as_str(), DATABASE);
        }
        if host.turn.back.cut_until <= now {
            self.sim.repair_oneway(DATABASE, name.as_str());
        } else {
            self.sim.partition_oneway(DATABASE, name.as_str());
        }
    }

    /// Another server takes over, with the state of a while ago and a clock of its own.
    pub(super) fn promote(&mut self, number: usize) {
        let Fault::Failover { clock, .. } = self.scenario.faults[number].fault else { return };
        if let Some((older, holders)) = self.snapshots[number].take() {
            lose_what_came_after(&self.farm, &older);
            let mut world = self.farm.look();
            world.store = Some(older);
            world.keys_are_as_they_were(holders);
        }
        let store = self.farm.look().store.clone();
        let paused = store.and_then(|store| at_once(store.paused()).ok()).unwrap_or_default();
        let mut world = self.farm.look();
        world.orders_may_be_lost(paused.iter().any(|paused| paused.queue == SECOND_QUEUE));
        step_server(&mut world, clock.0);
        {
            let mut server = world.server.look();
            let ServerIdentity { started, timeline } = server.1;
            server.1 = ServerIdentity { started: started + 1, timeline: timeline + 1 };
        }
        world.oracle.ring.another_server();
        let (now, lease, period) = (world.now, world.lease(), world.period);
        for host in 0..world.hosts.len() as u32 {
            // What the old server granted is void: what it had committed last may be forgotten.
            let excused = now + lease + 10 * period;
            let host = world.host(host);
            host.excused_until = host.excused_until.max(excused);
            if let Some(life) = host.life {
                world.oracle.jobs.voided(life);
            }
        }
        drop(world);
        self.database_up();
    }

    /// The database's process comes up, unless something else keeps it down.
    pub(super) fn database_up(&mut self) {
        let world = self.farm.look();
        if world.out_until > world.now {
            let at = world.out_until;
            drop(world);
            self.plan(at, What::DatabaseUp);
            return;
        }
        drop(world);
        if !self.sim.is_host_running(DATABASE) {
            self.sim.bounce(DATABASE);
        }
    }

    pub(super) fn thaw(&mut self, number: u32, lasts: u64) {
        let mut world = self.farm.look();
        let now = world.now;
        world.host(number).clock.stood_still(now, lasts);
        world.oracle.clock.stepped(now, number, lasts as i64, i64::MAX);
        world.oracle.ring.clocks_set(now);
    }

    pub(super) fn slew_ends(&mut self) {
        let mut world = self.farm.look();
        let now = world.now;
        world.server.look().0.slew(now, 0);
        for host in 0..world.hosts.len() as u32 {
            world.oracle.clock.road_changed(host);
        }
    }

    pub(super) fn crowd_ends(&mut self, number: u32) {
        let mut world = self.farm.look();
        let host = world.host(number);
        for way in host.turn.each().into_iter().chain(host.work.each()) {
            way.crowd = 1;
        }
    }

    pub(super) fn target_back(&mut self, number: u32) {
        let mut world = self.farm.look();
        let now = world.now;
        let host = world.host(number);
        if host.target_down_until <= now {
            host.target_is_up.send_replace(true);
        }
    }
}

/// All that a node has connections to.
fn others() -> impl Iterator<Item = String> {
    (0..MACHINES).map(machine).chain([DATABASE.to_owned()])
}

fn drain(world: &mut World, number: u32) {
    let host = world.host(number);
    if let Some(stop) = &host.stop {
        // A second time means: at once.
        stop.ask();
        host.stops_asked += 1;
    }
    if let Some(life) = host.life {
        world.life(life).staying = false;
        world.count_living();
    }
}

/// Somebody who is no node changes the period: not while an earlier change is pending. Returns the row as it is now.
fn change_period(store: &Database, to: Period) -> Option<TurnRow> {
    let (slot, row, identity) = at_once(store.stamp()).ok()?;
    if let Some(change) = Change::period(&row, to, slot) {
        // Nobody comes between the two: the simulated world stands still.
        at_once(store.change(&change, identity)).ok()?;
    }
    at_once(store.look()).ok().map(|look| look.row)
}

fn step_server(world: &mut World, by: i64) {
    let now = world.now;
    world.server.look().0.step(by);
    if by > 0 {
        world.steps_forward.push(now);
    }
    world.oracle.ring.clocks_set(now);
    for host in 0..world.hosts.len() as u32 {
        let spread = world.spread(host);
        world.oracle.clock.stepped(now, host, by, spread);
    }
}

/// What the old server had committed after the state that the new one begins with.
fn lose_what_came_after(farm: &Farm, older: &Database) {
    let newer = farm.look().store.clone();
    let known = newer.map(|store| super::all_jobs(&store)).unwrap_or_default();
    let nodes = at_once(older.nodes()).unwrap_or_default();
    let older = super::all_jobs(older);
    let mut world = farm.look();
    let now = world.now;
    for job in &known {
        if !older.iter().any(|other| other.id == job.id) {
            world.oracle.jobs.forgotten(job_of(job.id));
        }
    }
    for job in older.iter().filter(|job| job.finished_at.is_none()) {
        world.oracle.jobs.reopened(now, job_of(job.id));
    }
    // Who was declared lost after that state was copied lives again.
    for node in nodes.iter().filter(|node| node.state != "lost") {
        if let Some(life) = world.by_id.get(&node.id).copied() {
            world.lives[life as usize].lost_at = None;
        }
    }
    world.known_lost.clear();
    world.kept.clear();
    world.claims.clear();
    for job in older.iter().filter(|job| job.state == JobState::Running) {
        let life = job.node.and_then(|node| world.by_id.get(&node).copied());
        if let Some(life) = life.filter(|life| world.lives[*life as usize].lost_at.is_none()) {
            world.kept.insert(job_of(job.id), life);
        }
    }
}

/// An older state of the database, and who held which key.
pub(super) type Older = (Database, Holders);

/// The state that a later failover goes back to.
pub(super) fn snapshot(farm: &Farm) -> Option<Older> {
    let store = farm.look().store.clone()?;
    let copy = at_once(store.copy()).ok()?;
    Some((copy, farm.look().key_holders()))
}

/// The network of a run.
pub(super) type Network<'a> = Sim<'a>;
