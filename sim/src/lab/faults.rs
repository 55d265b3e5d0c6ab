//! Decides what each fault does to the world, and tells the judge.

use turnwise_engine::Input;

use super::events::What;
use super::host::Host;
use super::{Driver, Lab};
use crate::oracle::Disturbance;
use crate::report::Seen;
use crate::scenario::Fault;

impl<D: Driver> Lab<'_, D> {
    pub(super) fn plan_faults(&mut self) {
        let faults = &self.scenario.faults;
        for (number, planned) in faults.iter().enumerate() {
            let at = planned.at.0;
            if let Fault::Failover { loses, .. } = planned.fault {
                self.push(at.saturating_sub(loses.0), What::Snapshot(number as u32));
            }
            self.push(at, What::Fault(number as u32));
        }
    }

    pub(super) fn fault_happens(&mut self, what: &What) {
        let now = self.now;
        match *what {
            What::Fault(number) => {
                let fault = self.scenario.faults[number as usize].fault;
                self.fault(number, fault);
            }
            What::Snapshot(number) => {
                self.snapshots[number as usize] = Some(self.database.clone());
            }
            What::Promote(number) => self.promote(number),
            What::SlewEnds => {
                self.server.slew(now, 0);
                self.roads_changed();
            }
            What::SlowEnds(by) => self.slow -= by,
            What::CrowdEnds(host) => {
                let host = &mut self.hosts[host as usize];
                for way in host.turn.each().into_iter().chain(host.work.each()) {
                    way.crowd = 1;
                }
            }
            What::TargetBack(host) => {
                let back = self.hosts[host as usize].target_down_until <= now;
                if back {
                    self.tell_target(host, true);
                }
            }
            What::Leave(host) => self.leave(host),
            What::Deploy(host) => self.deploy(host),
            What::TargetTold(host, reachable) => self.tell_target(host, reachable),
            What::Thaw(host, lasts) => {
                let clock = &mut self.hosts[host as usize].clock;
                clock.stood_still(now, lasts);
                self.oracle.clock.stepped(now, host, lasts as i64, i64::MAX);
                self.oracle.ring.clocks_set(now);
            }
            _ => {}
        }
    }

    fn fault(&mut self, number: u32, fault: Fault) {
        let now = self.now;
        self.trace([1, u64::from(number), 0]);
        let until = now + fault.lasts().0;
        let alive = fault.node().is_none_or(|node| self.hosts[node as usize].life.is_some());
        if let Some(node) = fault.node() {
            self.seen(node, Seen::Fault(fault));
        } else {
            self.seen(u32::MAX, Seen::Fault(fault));
        }
        if let Some(what) = Disturbance::of(fault, alive) {
            self.disturbed(until, what);
        }
        if let Some(node) = fault.node() {
            let lease = self.scenario.longest_lease();
            let excused = until + lease + 2 * self.period + 2_000_000_000;
            let host = &mut self.hosts[node as usize];
            host.excused_until = host.excused_until.max(excused);
            self.node_fault(node, fault, until);
        } else {
            self.server_fault(number, fault, until);
        }
    }

    fn node_fault(&mut self, node: u32, fault: Fault, until: u64) {
        let now = self.now;
        let host = &mut self.hosts[node as usize];
        match fault {
            Fault::Drain { .. } => self.drain(node),
            Fault::Kill { .. } => self.stop(node, Seen::Killed),
            Fault::Restart { .. } if host.life.is_some() => {
                self.stop(node, Seen::Killed);
                self.push(until, What::Start(node));
            }
            Fault::Pause { .. } => host.paused_until = host.paused_until.max(until),
            Fault::Freeze { lasts, .. } if !host.is_paused(now) => {
                // Frozen while stopped: both end together.
                host.paused_until = until;
                self.push(until, What::Thaw(node, lasts.0));
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
            Fault::Errors { .. } => host.errors_until = until,
            Fault::CutThere { .. } => {
                host.turn.there.cut_until = until;
                host.work.there.cut_until = until;
            }
            Fault::CutBack { .. } => {
                host.turn.back.cut_until = until;
                host.work.back.cut_until = until;
            }
            Fault::Hold { .. } => {
                for way in host.turn.each().into_iter().chain(host.work.each()) {
                    way.held_until = until;
                }
            }
            Fault::Congestion { factor, .. } => {
                for way in host.turn.each().into_iter().chain(host.work.each()) {
                    way.crowd = u64::from(factor);
                }
                self.oracle.clock.road_changed(node);
                self.push(until, What::CrowdEnds(node));
            }
            Fault::Route { there, back, .. } => {
                for roads in [&mut host.turn, &mut host.work] {
                    roads.there.road.base = there;
                    roads.back.road.base = back;
                }
                self.oracle.clock.road_changed(node);
            }
            Fault::TargetDown { .. } => {
                host.target_down_until = host.target_down_until.max(until);
                self.tell_target(node, false);
                self.push(until, What::TargetBack(node));
            }
            _ => {}
        }
    }

    fn server_fault(&mut self, number: u32, fault: Fault, until: u64) {
        let now = self.now;
        match fault {
            Fault::ServerStep { by } => self.step_server(by.0),
            Fault::ServerSlew { ppm, .. } => {
                self.server.slew(now, i64::from(ppm));
                self.roads_changed();
                for host in 0..self.hosts.len() as u32 {
                    let drift = self.hosts[host as usize].plan.clock.drift_ppb.abs() / 1_000;
                    // The interval assumes that the clocks drift apart by no more than 500 ppm.
                    if i64::from(ppm).abs() + drift > 480 {
                        self.oracle.clock.rate_broken(now, until, host);
                    }
                }
                self.oracle.ring.clocks_set(until);
                self.push(until, What::SlewEnds);
            }
            Fault::Outage { .. } => self.out_until = self.out_until.max(until),
            Fault::ServerRestart { .. } => {
                self.out_until = self.out_until.max(until);
                self.database.restart();
                self.oracle.ring.another_server();
            }
            Fault::Failover { .. } => {
                self.out_until = self.out_until.max(until);
                self.push(until, What::Promote(number));
            }
            Fault::Deploy { lasts } => {
                let count = self.hosts.len() as u64;
                for host in 0..count {
                    self.push(now + lasts.0 * host / count, What::Deploy(host as u32));
                }
            }
            Fault::Period { to } if self.out_until <= now => {
                self.database.change_period(to, self.server.stamp(now));
                self.tell_period();
            }
            Fault::Slow { by, .. } => {
                self.slow += by.0;
                self.push(until, What::SlowEnds(by.0));
            }
            _ => {}
        }
    }

    /// The period may be another one since the last statement.
    pub(super) fn tell_period(&mut self) {
        let cadence = self.database.row.cadence;
        self.oracle.period_is(self.now, &cadence);
        self.period = cadence.period.as_nanos() as u64;
    }

    fn drain(&mut self, node: u32) {
        let Some(life) = &mut self.hosts[node as usize].life else { return };
        let number = life.number as usize;
        self.staying[number] = false;
        self.count_living();
        if !self.hosts[node as usize].is_paused(self.now) {
            self.leave(node);
        } else {
            // The signal waits until the process goes on.
            let at = self.hosts[node as usize].paused_until;
            self.push(at, What::Leave(node));
        }
    }

    /// The node makes place for its next version. One that is on its way out is not called back.
    fn deploy(&mut self, node: u32) {
        let host = &mut self.hosts[node as usize];
        if host.life.as_ref().is_none_or(|life| life.draining) {
            return;
        }
        host.deployed = true;
        let lease = self.scenario.longest_lease();
        host.excused_until = host.excused_until.max(self.now + lease + 2 * self.period);
        self.drain(node);
    }

    fn leave(&mut self, node: u32) {
        if let Some(life) = &mut self.hosts[node as usize].life {
            life.draining = true;
            self.oracle.ring.extend(self.now);
            self.input(node, Input::Leave);
        }
    }

    fn step_server(&mut self, by: i64) {
        self.server.step(by);
        self.oracle.ring.clocks_set(self.now);
        for host in 0..self.hosts.len() {
            let spread = self.spread(&self.hosts[host]);
            self.oracle.clock.stepped(self.now, host as u32, by, spread);
        }
    }

    /// Another server takes over, with the state of a while ago and a clock of its own.
    fn promote(&mut self, number: u32) {
        let Fault::Failover { clock, .. } = self.scenario.faults[number as usize].fault else {
            return;
        };
        if let Some(older) = self.snapshots[number as usize].take() {
            let open: Vec<_> = older.open().collect();
            let known: Vec<_> = self.database.open().collect();
            for job in known.iter().filter(|job| !open.contains(job)) {
                self.oracle.jobs.forgotten(*job);
            }
            for job in open {
                self.oracle.jobs.reopened(self.now, job);
            }
            self.database.fail_over(older);
        }
        self.step_server(clock.0);
        self.oracle.ring.another_server();
        let lease = self.scenario.longest_lease();
        for host in &mut self.hosts {
            // What the old server granted is void: what it had committed last may be forgotten.
            host.excused_until = host.excused_until.max(self.now + lease + 10 * self.period);
            if let Some(life) = &host.life {
                self.oracle.jobs.voided(life.number);
            }
        }
    }

    pub(super) fn tell_target(&mut self, node: u32, reachable: bool) {
        let host = &mut self.hosts[node as usize];
        if host.is_paused(self.now) {
            let at = host.paused_until;
            self.push(at, What::TargetTold(node, reachable));
        } else if let Some(life) = &mut host.life {
            life.target_told = reachable;
            self.input(node, Input::Target { reachable });
        }
    }

    fn roads_changed(&mut self) {
        for host in 0..self.hosts.len() as u32 {
            self.oracle.clock.road_changed(host);
        }
    }

    /// How wide a node's interval and that of its next exchange may be together, so that a step that is larger must be noticed.
    pub(super) fn spread(&self, host: &Host<D>) -> i64 {
        // Both are widened by the resolution, and a stamp may be that much early.
        let mut spread = 3 * i64::from(self.server.resolution());
        // A commit comes after the last stamp: it is part of the way back.
        spread += self.scenario.database.commit.0 as i64;
        for way in [&host.turn.there, &host.turn.back] {
            let unlikely = if way.road.tail_ppm > 0 { 2_000 } else { 30 };
            spread += (way.road.base.0 + unlikely * way.crowd * way.road.spread.0) as i64;
        }
        // Widened over two rounds, on both sides.
        let round = (self.hosts.len() as u64 + 4) * self.period;
        spread + (4 * round / 2_000) as i64 + host.plan.clock.resolution.0 as i64
    }
}
