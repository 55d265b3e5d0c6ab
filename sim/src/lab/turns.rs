//! Decides what becomes of statements on the turn row: on their way, at the database, and on their way back.

use turnwise_engine::{
    Exchange, Fate, Input, LocalInstant, RequestId, Slot, TurnAnswer, TurnKind, TurnStatement,
};

use super::events::{Answer, Leaving, What};
use super::host::{id_of, life_of};
use super::{Driver, Lab, STATEMENTS_MAX};
use crate::oracle::{Arrival, Disturbance, Invariant, Mark, Oracle};
use crate::report::Seen;
use crate::scenario::{Fault, Span};
use crate::sometimes;

/// How far beats may be off beyond what the scenario's own noise explains: what is learnt from a few dozen exchanges.
const AIM_SLACK: u64 = 500_000;
/// A broken connection is noticed after so long.
const BROKEN: u64 = 100_000;

impl<D: Driver> Lab<'_, D> {
    /// The machine asks for a statement.
    pub(super) fn turn_asked(&mut self, number: u32, local: LocalInstant, leaving: Leaving) {
        let (now, period) = (self.now, self.period);
        let host = &mut self.hosts[number as usize];
        let Some(life) = &mut host.life else { return };
        let id = life.number;
        if local > leaving.not_after {
            self.violated(Invariant::Bounded, || {
                format!("life {id} asks for an effect after the effect's own end")
            });
        }
        let host = &mut self.hosts[number as usize];
        let Some(life) = &mut host.life else { return };
        life.window = match life.window {
            (since, count) if now < since + period => (since, count + 1),
            _ => (now, 1),
        };
        if life.window.1 == STATEMENTS_MAX {
            self.violated(Invariant::Bounded, || {
                format!("life {id} sends {STATEMENTS_MAX} statements on the turn row in a period")
            });
        }
        let host = &mut self.hosts[number as usize];
        let Some(life) = &mut host.life else { return };
        if life.window.1 > 4 * STATEMENTS_MAX {
            // It would never end.
            return;
        }
        life.turn_awaited = Some(leaving.request);
        life.turn_is_read = matches!(leaving.statement.kind, TurnKind::Read);
        life.turn_asks = match &leaving.statement.kind {
            TurnKind::Beat { claim: Some(claim) } => Some(life.told.asks(local, claim.limit)),
            _ => None,
        };
        if let TurnKind::Beat { claim } = &leaving.statement.kind {
            let slot = leaving.statement.believed.unwrap_or(Slot(0));
            sometimes!(self.oracle.marks, Mark::BeatTwice, life.last_beat == slot);
            life.last_beat = slot;
            if let Some(claim) = *claim {
                self.check_claim(number, claim);
            }
        }
        let stall = std::mem::take(&mut self.hosts[number as usize].next.stall);
        if stall > 0 {
            let fault = Fault::Stall { node: number, lasts: Span(stall) };
            self.disturbed(now + stall, Disturbance::Fault(fault));
            let what = What::TurnLeaves { life: id, statement: Box::new(leaving) };
            self.push(now + stall, what);
        } else {
            self.turn_leaves(number, leaving);
        }
    }

    /// The shell sends it, unless it is too late.
    pub(super) fn turn_leaves(&mut self, number: u32, leaving: Leaving) {
        let now = self.now;
        let host = &mut self.hosts[number as usize];
        let Some(life) = &host.life else { return };
        let Leaving { request, statement, not_after } = leaving;
        let id = life.number;
        if life.turn_awaited != Some(request) {
            // Given up before it left.
            return;
        }
        let sent = host.clock.read(now);
        if sent > not_after {
            self.oracle.marks.reach(Mark::DroppedEffect);
            if let Some(life) = &mut self.hosts[number as usize].life
                && let Some(asking) = life.turn_asks.take()
            {
                life.told.came_to_nothing(asking);
            }
            self.input(number, Input::Failed { request, fate: Fate::NotSent });
            return;
        }
        self.statements += 1;
        if let (TurnKind::Beat { .. }, Some(slot), true) =
            (&statement.kind, statement.believed, D::PROMISES)
        {
            let Oracle { ring, violations, .. } = &mut self.oracle;
            ring.fires(now, slot, id, violations);
            if let Some(life) = &mut self.hosts[number as usize].life {
                life.beat_left = slot;
            }
        }
        let host = &mut self.hosts[number as usize];
        if std::mem::take(&mut host.next.reset) {
            self.disturbed(now, Disturbance::Fault(Fault::Reset { node: number }));
            self.push(now + BROKEN, What::Failed { life: id, request });
            return;
        }
        let hold = match statement.kind {
            TurnKind::Change { .. } => std::mem::take(&mut host.next.hold_change),
            _ => 0,
        };
        if hold > 0 {
            let fault = Fault::HoldChange { node: number, lasts: Span(hold) };
            self.disturbed(now + hold, Disturbance::Fault(fault));
        }
        let host = &mut self.hosts[number as usize];
        if std::mem::take(&mut host.next.lose_request) {
            self.disturbed(now, Disturbance::Fault(Fault::LoseRequest { node: number }));
            return;
        }
        let cut = host.turn.there.cut_until > now || host.turn.there.crowd > 1;
        let passage = host.turn.there.pass(now);
        if !cut && passage.extra > self.period / 4 {
            self.accident(number, Disturbance::Late);
        }
        let Some(arrives) = passage.arrives else {
            if !cut {
                self.accident(number, Disturbance::Lost);
            }
            return;
        };
        if let Some(again) = passage.again {
            // A statement that claims is given to the server once; others may be repeated on the way.
            let mut repeated = statement.clone();
            if let TurnKind::Beat { claim } = &mut repeated.kind {
                *claim = None;
            }
            self.accident(number, Disturbance::Late);
            self.oracle.marks.reach(Mark::StatementDoubled);
            let statement = Box::new(repeated);
            let again = again + hold;
            self.push(again, What::TurnArrives { life: id, request, sent, statement, copy: true });
        }
        let statement = Box::new(statement);
        self.push(
            arrives + hold,
            What::TurnArrives { life: id, request, sent, statement, copy: false },
        );
    }

    /// Chance delayed or lost a message.
    fn accident(&mut self, number: u32, what: Disturbance) {
        let marks = &mut self.oracle.marks;
        sometimes!(marks, Mark::StatementLost, what == Disturbance::Lost);
        sometimes!(marks, Mark::StatementHeldUp, what == Disturbance::Late);
        self.disturbed(self.now + self.period, what);
        let lease = self.scenario.longest_lease();
        let host = &mut self.hosts[number as usize];
        host.excused_until = host.excused_until.max(self.now + 2 * lease + 2 * self.period);
    }

    pub(super) fn turn_arrives(
        &mut self,
        life: u32,
        request: RequestId,
        sent: LocalInstant,
        statement: &TurnStatement,
        copy: bool,
    ) {
        let now = self.now;
        if self.out_until > now {
            return;
        }
        let number = self.lives[life as usize];
        let host = &mut self.hosts[number as usize];
        if host.errors_until > now {
            let back = host.turn.back.pass(now);
            if let Some(at) = back.arrives {
                self.push(at, What::Failed { life, request });
            }
            return;
        }
        let awaited = host
            .life
            .as_ref()
            .is_some_and(|here| here.number == life && here.turn_awaited == Some(request));
        sometimes!(self.oracle.marks, Mark::LateRequest, !awaited && !copy);
        let clock = self.server.stamp(now);
        let done = self.database.turn::<D::Rules>(statement, clock);
        let slot = done.now.unwrap_or(Slot(0));
        self.tell_period();
        self.trace([2 + u64::from(life) * 8, slot.0 as u64, u64::from(done.done)]);
        self.notice(&done);
        self.check_departed(life, &done);
        let row = &self.database.row;
        let error = clock.nanos_from(row.cadence.boundary(slot));
        match &statement.kind {
            TurnKind::Beat { .. } => {
                self.beat_arrives(life, statement, slot, done.done, error, done.claimed.len());
            }
            TurnKind::Read | TurnKind::Change { .. } => {
                let born = self.born[life as usize];
                if matches!(statement.kind, TurnKind::Read) {
                    self.oracle.ring.read_by(born);
                }
                let exact = self.server.exact(now);
                if D::PROMISES && self.oracle.ring.is_calm(now) {
                    self.violated(Invariant::IdleStatements, || {
                        format!("life {life} sends {:?} in calm, at {exact:?}", statement.kind)
                    });
                }
            }
        }
        if copy {
            // The answer to the first is the one that counts: they come in their order.
            return;
        }
        let served = now + self.scenario.database.service.0 + self.slow;
        let commit = if done.durable { self.scenario.database.commit.0 } else { 0 };
        let host = &mut self.hosts[number as usize];
        let passage = host.turn.back.pass(served + commit);
        if std::mem::take(&mut host.next.lose_answer) {
            self.disturbed(now, Disturbance::Fault(Fault::LoseAnswer { node: number }));
            return;
        }
        if matches!(statement.kind, TurnKind::Change { .. })
            && std::mem::take(&mut host.next.lose_change)
        {
            self.disturbed(now, Disturbance::Fault(Fault::LoseChange { node: number }));
            return;
        }
        let calm = host.turn.back.cut_until <= served && host.turn.back.crowd <= 1;
        if passage.extra > self.period / 4 && calm {
            self.accident(number, Disturbance::Late);
        }
        let Some(arrives) = passage.arrives else {
            if calm {
                self.accident(number, Disturbance::Lost);
            }
            return;
        };
        let exchange = Exchange {
            sent,
            arrived: clock,
            answered: self.server.stamp(served),
            received: sent,
            resolution: self.server.resolution(),
        };
        let answer = TurnAnswer {
            request,
            exchange: Some(exchange),
            identity: self.database.identity,
            now: slot,
            done: done.done,
            row: self.database.row.clone(),
            claimed: done.claimed.len() as u32,
            more: done.more,
            kept: done.kept,
            lost: done.lost,
        };
        let begun = self.begun(number, sent);
        let answer = Box::new(Answer { answer, claimed: done.claimed, begun, error });
        self.push(arrives, What::TurnAnswered { life, answer });
    }

    /// The true time of a local instant that is not long past, not later than it was.
    fn begun(&self, number: u32, sent: LocalInstant) -> u64 {
        let clock = &self.hosts[number as usize].clock;
        clock.when(sent, 0).min(self.now)
    }

    fn beat_arrives(
        &mut self,
        life: u32,
        statement: &TurnStatement,
        slot: Slot,
        accepted: bool,
        error: i64,
        claimed: usize,
    ) {
        let number = self.lives[life as usize];
        let row = &self.database.row;
        let roster = &row.roster;
        let owner = roster.owner(slot);
        let last = roster.last().map_or(&[][..], |last| &last.ring[..]);
        let whole = last.iter().all(|node| {
            let life = life_of(*node) as usize;
            self.staying.get(life).copied().unwrap_or(false)
        });
        let living = self.staying.iter().filter(|staying| **staying).count();
        let deputy = roster.ring_owner(slot) != Some(statement.node);
        let ring = roster.versions.iter().map(|version| version.ring.len()).max().unwrap_or(0);
        let arrival = Arrival {
            at: self.now,
            slot,
            believed: statement.believed.unwrap_or(Slot(0)),
            node: number,
            accepted,
            in_turn: owner == Some(id_of(life)),
            deputy,
            error,
            ring,
            whole: whole && last.len() == living,
        };
        sometimes!(self.oracle.marks, Mark::LoneSurvivor, ring == 1 && self.lives.len() > 1);
        sometimes!(self.oracle.marks, Mark::ClaimedWithBeat, claimed > 0);
        let calm = self.oracle.ring.is_calm(self.now);
        if D::PROMISES {
            let Oracle { ring, marks, violations, .. } = &mut self.oracle;
            ring.beat(arrival, marks, violations);
        } else {
            self.oracle.ring.count_only(arrival);
        }
        let here = self.hosts[number as usize].life.as_ref();
        let aims = here.is_none_or(|here| here.machine.promises(Invariant::Accuracy));
        if calm && accepted && aims {
            let noise = self.aim_noise(number, living as u64);
            self.oracle.clock.aimed(number, error, noise);
        }
        let seen = Seen::Beat { slot: slot.0, accepted, error, claimed: claimed as u32, deputy };
        self.seen(number, seen);
    }

    /// Half of a node's beats arrive no further from their boundaries than this, in nanoseconds, if it aims well:
    /// nobody can do better than what the scenario itself makes uneven.
    ///
    /// - Queues: half of the ways there are within 0.42 spreads of their median. Of the thirty beats that are judged
    ///   at least, the median strays by 0.12 spreads; five times that makes 1.0, and half of it again is for the
    ///   median itself, which has to be learnt.
    /// - Wake-ups: a beat leaves late by an exponential, and this nobody can foresee. Half are less than 0.69
    ///   means late; with five times the stray of 0.18 that is 1.6.
    /// - Stamps: a boundary between two ticks of a clock is not seen, neither of the server's nor of the node's.
    /// - Wander: what the rate did since the last turn, a round ago, and at the turn before that.
    fn aim_noise(&self, number: u32, living: u64) -> i64 {
        let host = &self.hosts[number as usize];
        let clock = host.plan.clock;
        let round = (living * self.period) as f64;
        let wander = f64::from(clock.wander_ppb) * 1e-9;
        let wandered = wander * libm::sqrt(round / 1e9) * round;
        let noise = 3 * host.turn.there.road.spread.0 / 2
            + 2 * clock.late_wake.0
            + clock.resolution.0
            + self.scenario.database.resolution.0
            + 2 * wandered as u64
            + AIM_SLACK;
        noise as i64
    }

    pub(super) fn turn_answered(&mut self, number: u32, answer: Answer) {
        let now = self.now;
        let Answer { mut answer, claimed, begun, error } = answer;
        let host = &mut self.hosts[number as usize];
        let local = host.clock.read(now);
        let Some(life) = &mut host.life else { return };
        let awaited = life.turn_awaited == Some(answer.request);
        sometimes!(self.oracle.marks, Mark::LateAnswer, !awaited);
        if let Some(exchange) = &mut answer.exchange {
            exchange.received = local;
        }
        if !awaited {
            self.input(number, Input::TurnAnswer(Box::new(answer)));
            return;
        }
        life.turn_awaited = None;
        life.heard_timeline = answer.identity.timeline;
        life.beat_error = error;
        // The server says which turns have passed: a number that only the node's own clock had reached may yet come.
        life.skipped = life.skipped.min(answer.now);
        life.last_beat = life.last_beat.min(answer.now);
        life.beat_left = life.beat_left.min(answer.now);
        match life.turn_asks.take() {
            Some(asking) if answer.done => {
                let brought = (answer.claimed, answer.more);
                life.told.answered(local, asking, brought, answer.kept);
                life.overtake();
            }
            Some(asking) => life.told.came_to_nothing(asking),
            None => {}
        }
        let (slot, id, identity) = (answer.now, life.number, answer.identity);
        let expected = life.turn_is_read.then(|| life.machine.next_turn()).flatten();
        self.start_runs(number, &claimed);
        let proved = self.oracle.marks.count(Mark::StepProven);
        let changed = self.oracle.marks.count(Mark::ServerChanged);
        let took = answer.exchange.map(|exchange| exchange.received.nanos_from(exchange.sent));
        self.input(number, Input::TurnAnswer(Box::new(answer)));
        if let (Some(took), Some(life)) = (took, &mut self.hosts[number as usize].life)
            && life.number == id
        {
            life.round_trips.rotate_left(1);
            life.round_trips[7] = took.unsigned_abs();
        }
        let innocent = proved == self.oracle.marks.count(Mark::StepProven)
            && changed == self.oracle.marks.count(Mark::ServerChanged);
        if let (Some(expected), true) = (expected, innocent && D::PROMISES) {
            self.check_skipped(number, id, expected, slot);
        }
        if identity == self.database.identity {
            self.check_offset(number, id, begun);
        }
    }

    /// A turn that passed while the node read must have been noted, unless its beat was sent.
    fn check_skipped(&mut self, number: u32, id: u32, expected: Slot, now: Slot) {
        let Some(life) = &self.hosts[number as usize].life else { return };
        if life.number == id
            && life.machine.promises(Invariant::Accounting)
            && expected < now
            && life.last_beat < expected
            && life.skipped < expected
        {
            self.violated(Invariant::Accounting, || {
                format!("life {id} did not beat in {expected}, its turn, and does not say so")
            });
        }
    }

    fn check_offset(&mut self, number: u32, id: u32, begun: u64) {
        let now = self.now;
        let host = &mut self.hosts[number as usize];
        let local = host.clock.read(now);
        let resolution = host.plan.clock.resolution.0 as i64;
        let Some(life) = &host.life else { return };
        if life.number != id {
            return;
        }
        let Some((low, high, guess)) = life.machine.claim(local) else { return };
        let truth = self.server.exact(now).as_nanos() - local.as_nanos() as i64;
        let spread = self.spread(&self.hosts[number as usize]);
        // A clock that shows whole milliseconds is that much behind itself.
        let claimed = D::PROMISES.then(|| (low - resolution, high + resolution));
        if let Some(bounds) = claimed {
            let Oracle { clock, violations, .. } = &mut self.oracle;
            clock.claimed(now, number, begun, bounds, guess, truth, spread, violations);
        }
        if self.oracle.ring.is_calm(now) {
            self.oracle.clock.guessed(guess - truth);
        }
        self.seen(number, Seen::offset(guess, claimed, truth));
    }
}
