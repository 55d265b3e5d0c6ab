//! Decides what is told of statements on the turn row: from the shell that hands them over to the answer.

use turnwise_engine::{Cadence, LocalInstant, NodeId, Slot, TurnKind, TurnStatement};
use turnwise_node::store::{Store, StoreError, TurnReply};

use crate::cluster::database::{Session, at_once};
use crate::cluster::farm::World;
use crate::cluster::watch::Answered;
use crate::oracle::{Arrival, Disturbance, Invariant, Mark, Oracle};
use crate::report::Seen;
use crate::sometimes;

/// The network moves in steps: a beat may be so much off for that alone.
const STEP: u64 = 3_000_000;

impl Session {
    /// The nodes that are declared lost, after a beat.
    pub(in crate::cluster) fn lost_nodes(
        &mut self,
        statement: &TurnStatement,
        reply: &TurnReply,
    ) -> Result<Vec<NodeId>, StoreError> {
        if !matches!(statement.kind, TurnKind::Beat { .. }) || !reply.done {
            return Ok(Vec::new());
        }
        let nodes = at_once(self.store.nodes())?;
        Ok(nodes.into_iter().filter(|node| node.state == "lost").map(|node| node.id).collect())
    }
}

impl World {
    /// The shell hands a statement on the turn row to its connection.
    pub(in crate::cluster) fn turn_handed_over(&mut self, host: u32) {
        let local = self.local(host);
        let Some(number) = self.hosts[host as usize].life else { return };
        self.in_time(number, local, self.lives[number as usize].not_after);
    }

    /// The shell hands a statement on the jobs, one that its engine asked for, to its connection.
    pub(in crate::cluster) fn work_handed_over(&mut self, node: NodeId) {
        let Some(number) = self.by_id.get(&node).copied() else { return };
        let (host, not_after) = {
            let life = &self.lives[number as usize];
            (life.host, life.work_not_after)
        };
        let local = self.local(host);
        self.in_time(number, local, not_after);
    }

    fn in_time(&mut self, number: u32, local: LocalInstant, not_after: LocalInstant) {
        if local > not_after {
            self.violated(Invariant::Bounded, || {
                format!("life {number} sends an effect {:?} after its end", local.since(not_after))
            });
        }
    }

    /// A statement on the turn row is about to be written to its socket.
    pub(in crate::cluster) fn turn_leaves(&mut self, host: u32, statement: &TurnStatement) {
        let now = self.now;
        let Some(number) = self.by_id.get(&statement.node).copied() else { return };
        if let (TurnKind::Beat { .. }, Some(slot)) = (&statement.kind, statement.believed) {
            let Oracle { ring, violations, .. } = &mut self.oracle;
            ring.fires(now, slot, number, violations);
        }
        self.hosts[host as usize].turn_begun = now;
    }

    /// A statement on the turn row was done by the database.
    pub(in crate::cluster) fn turn_arrived(
        &mut self,
        host: u32,
        statement: &TurnStatement,
        reply: &TurnReply,
        lost: &[NodeId],
    ) {
        let now = self.now;
        let Some(number) = self.by_id.get(&statement.node).copied() else { return };
        let slot = reply.now;
        self.tell_period(&reply.row.cadence);
        self.trace([2 + u64::from(number) * 8, slot.0 as u64, u64::from(reply.done)]);
        let error = reply.exchange.arrived.nanos_from(reply.row.cadence.boundary(slot));
        let here = self.hosts[host as usize].life == Some(number);
        sometimes!(self.oracle.marks, Mark::LateRequest, !here);
        sometimes!(self.oracle.marks, Mark::Biased, reply.row.cadence.bias != self.bias);
        self.bias = reply.row.cadence.bias;
        match &statement.kind {
            TurnKind::Beat { .. } => {
                if here {
                    self.life(number).beat_error = error;
                }
                self.beat_arrived(number, statement, reply, error);
                self.lapsed(lost);
            }
            TurnKind::Read | TurnKind::Change { .. } => {
                let born = self.lives[number as usize].born;
                if matches!(statement.kind, TurnKind::Read) {
                    self.oracle.ring.read_by(born);
                }
                if self.oracle.ring.is_calm(now) {
                    self.violated(Invariant::IdleStatements, || {
                        format!("life {number} sends {:?} in calm", statement.kind)
                    });
                }
            }
        }
    }

    /// The period may be another one since the last statement.
    pub(in crate::cluster) fn tell_period(&mut self, cadence: &Cadence) {
        self.oracle.period_is(self.now, cadence);
        self.period = cadence.period.as_nanos() as u64;
    }

    fn beat_arrived(
        &mut self,
        number: u32,
        statement: &TurnStatement,
        reply: &TurnReply,
        error: i64,
    ) {
        let (slot, roster) = (reply.now, &reply.row.roster);
        let host = self.lives[number as usize].host;
        let last = roster.last().map_or(&[][..], |last| &last.ring[..]);
        let whole = last.iter().all(|node| {
            self.by_id.get(node).is_some_and(|life| self.lives[*life as usize].staying)
        });
        let living = self.lives.iter().filter(|life| life.staying).count();
        let deputy = roster.ring_owner(slot) != Some(statement.node);
        let ring = roster.versions.iter().map(|version| version.ring.len()).max().unwrap_or(0);
        let arrival = Arrival {
            at: self.now,
            slot,
            believed: statement.believed.unwrap_or(Slot(0)),
            node: host,
            accepted: reply.done,
            in_turn: roster.owner(slot) == Some(statement.node),
            deputy,
            error,
            ring,
            whole: whole && last.len() == living,
        };
        if let (TurnKind::Beat { claim: Some(claim) }, true) = (&statement.kind, reply.done) {
            let cut = reply.more && reply.jobs.len() < claim.limit as usize;
            sometimes!(self.oracle.marks, Mark::ClaimCut, cut);
            self.claims(number, reply.more);
        }
        if matches!(statement.kind, TurnKind::Beat { claim: None }) {
            self.claims_nothing(number);
        }
        self.handed_out(number, &reply.jobs);
        let calm = self.oracle.ring.is_calm(self.now);
        let lives = self.lives.len();
        let Oracle { ring: judge, marks, violations, .. } = &mut self.oracle;
        sometimes!(marks, Mark::LoneSurvivor, ring == 1 && lives > 1);
        sometimes!(marks, Mark::ClaimedWithBeat, !reply.jobs.is_empty());
        if !reply.done && !reply.jobs.is_empty() {
            violations.add(self.now, Invariant::ClaimsAllowed, || {
                format!("a refused beat claimed {} jobs", reply.jobs.len())
            });
        }
        judge.beat(arrival, marks, violations);
        if reply.done {
            self.beats.push((slot, host));
        }
        if calm && reply.done {
            let plan = &self.hosts[host as usize];
            let noise = 5 * plan.turn.there.road.spread.0
                + 2 * plan.plan.clock.late_wake.0
                + 2 * plan.plan.clock.resolution.0
                + 2 * self.scenario.database.resolution.0
                + 4_000_000
                + STEP;
            self.oracle.clock.aimed(host, error, noise as i64);
        }
        let claimed = reply.jobs.len() as u32;
        let seen = Seen::Beat { slot: slot.0, accepted: reply.done, error, claimed, deputy };
        self.seen(host, seen);
    }

    /// The nodes that the database has declared lost by now.
    fn lapsed(&mut self, lost: &[NodeId]) {
        let now = self.now;
        for id in lost {
            if !self.known_lost.insert(*id) {
                continue;
            }
            let Some(number) = self.by_id.get(id).copied() else { continue };
            let life = &self.lives[number as usize];
            let host = &self.hosts[life.host as usize];
            let alive = host.up && host.life == Some(number);
            let excused = !alive || host.excused_until > now;
            let Oracle { jobs, marks, violations, .. } = &mut self.oracle;
            jobs.lapsed(now, number, excused, marks, violations);
            self.life(number).lost_at = Some(now);
            self.disturbed(now, Disturbance::Reborn);
        }
    }

    /// The answer to a statement on the turn row was told to an engine.
    pub(super) fn turn_answered(&mut self, number: u32, answer: &Answered) {
        let life = &self.lives[number as usize];
        let last = life.last_beat.max(life.skipped);
        if let Some(expected) = answer.expected
            && expected < answer.now
            && last < expected
            && !life.clock_learned
        {
            self.violated(Invariant::Accounting, || {
                format!("life {number} did not beat in {expected}, its turn, and does not say so")
            });
        }
        self.life(number).clock_learned = false;
        if answer.known {
            self.check_offset(number);
        }
    }

    fn check_offset(&mut self, number: u32) {
        let now = self.now;
        let host = self.lives[number as usize].host;
        let local = self.local(host);
        let life = &self.lives[number as usize];
        let clock = life.shadow.clock();
        let (Some((low, high)), Some(guess)) = (clock.bounds(local), clock.offset(local)) else {
            return;
        };
        let resolution = self.hosts[host as usize].plan.clock.resolution.0 as i64;
        let begun = self.hosts[host as usize].turn_begun;
        let truth = self.server.exact().as_nanos() - local.as_nanos() as i64;
        let spread = self.spread(host);
        let bounds = (low - resolution, high + resolution);
        let Oracle { clock, violations, .. } = &mut self.oracle;
        clock.claimed(now, host, begun, bounds, guess.nanos, truth, spread, violations);
        if self.oracle.ring.is_calm(now) {
            self.oracle.clock.guessed(guess.nanos - truth);
        }
        self.seen(host, Seen::offset(guess.nanos, Some(bounds), truth));
    }

    /// How wide a node's interval may be, so that a step that is larger must be noticed.
    pub(in crate::cluster) fn spread(&self, host: u32) -> i64 {
        let host = &self.hosts[host as usize];
        let resolution = self.server.look().0.resolution();
        let mut spread = i64::from(resolution) + 3 * STEP as i64;
        let database = self.scenario.database;
        for way in [&host.turn.there, &host.turn.back] {
            let unlikely = if way.road.tail_ppm > 0 { 2_000 } else { 30 };
            spread += (way.road.base.0 + unlikely * way.crowd * way.road.spread.0) as i64;
        }
        let takes = database.service.0 + database.commit.0 + self.slow;
        let round = (self.hosts.len() as u64 + 4) * self.period;
        spread + takes as i64 + (4 * round / 2_000) as i64 + host.plan.clock.resolution.0 as i64
    }
}
