//! Decides what the judge is told: of what each node's engine was told and asked for (its journal), of what the
//! database did, and of what truly happened at the targets.

use turnwise_engine::journal::{Entry, Header};
use turnwise_engine::{
    Fate, Input, LocalInstant, NodeId, Note, Output, Slot, TurnKind, TurnStatement, WorkStatement,
    lease,
};
use turnwise_node::job::{ClaimedJob, End, EndOutcome, JobFate, JobFilter, JobState, JobView};
use turnwise_node::shell::LifeEnd;
use turnwise_node::store::{Claimed, Store, StoreError, TurnReply};

use super::caller::CALL_DEADLINE;
use super::database::{Session, at_once};
use super::farm::{Life, World};
use super::target::job_of;
use crate::oracle::{Arrival, Disturbance, Invariant, Mark, Oracle};
use crate::report::Seen;
use crate::scenario::{Fault, Span};
use crate::sometimes;

/// A node sends no more statements on the turn row than this in a period.
const STATEMENTS_MAX: u32 = 64;
/// So many statements on the jobs may follow when there are none any more.
const IDLE_WORK_MAX: u32 = 8;
/// A life that is over, with its process alive, may be seen at a target for so long.
const LAST_WORDS: u64 = 1_000_000_000;
/// A job that was due for so many periods, and so long, while a node had a free place is lost.
const OVERDUE_PERIODS: u64 = 8;
const OVERDUE: u64 = 12_000_000_000;
/// So long after the first call that was refused, a node may still give jobs back for that.
const REFUSED_FOR: u64 = 4_000_000_000;
/// The network moves in steps: a beat may be so much off for that alone.
const STEP: u64 = 3_000_000;

/// An answer to a statement on the turn row, as an engine was told it.
pub(super) struct Answered {
    /// To a read: the turn that the node had ahead of it.
    expected: Option<Slot>,
    /// The slot that it is.
    now: Slot,
    /// It is of the server that answers now.
    known: bool,
}

impl Session {
    /// The nodes that are declared lost, after a beat.
    pub(super) fn lost_nodes(
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
    /// What a node's engine was told or asked for.
    pub(super) fn journal(&mut self, host: u32, entry: &Entry) {
        if let Some(journals) = &mut self.journals {
            journals[host as usize].push(entry.clone());
        }
        match entry {
            Entry::Life(header) => self.born(host, header),
            Entry::Input { at, input } => self.told(host, *at, input),
            Entry::Output(output) => self.asked(host, output),
            Entry::End | Entry::BrokenOff => {}
        }
    }

    fn born(&mut self, host: u32, header: &Header) {
        let number = self.lives.len() as u32;
        if let Some(other) = self.by_id.get(&header.id).copied() {
            self.violated(Invariant::Accounting, || {
                format!("life {number} has the id of life {other}")
            });
        }
        self.lives.push(Life {
            number,
            host,
            born: self.now,
            shadow: header.engine(),
            expected: Default::default(),
            draining: false,
            left: false,
            staying: true,
            over: None,
            killed: false,
            removed: false,
            turn_is_read: false,
            last_beat: Slot(i64::MIN),
            skipped: Slot(i64::MIN),
            beat_error: 0,
            not_after: header.now,
            window: (self.now, 0),
            full_at: self.now,
            idle_work: 0,
            lost_at: None,
            answer: None,
            clock_learned: false,
        });
        self.by_id.insert(header.id, number);
        self.host(host).life = Some(number);
        self.oracle.clock.reborn(self.now, host);
        self.disturbed(self.now, Disturbance::Join);
        self.count_living();
        self.seen(host, Seen::Up);
        self.trace([1, u64::from(number), u64::from(host)]);
    }

    fn told(&mut self, host: u32, at: LocalInstant, input: &Input) {
        let Some(number) = self.hosts[host as usize].life else { return };
        let capacity = self.hosts[host as usize].plan.capacity;
        let life = self.life(number);
        if !life.expected.is_empty() {
            self.differs(number, "asked for less than its journal's engine");
        }
        let life = self.life(number);
        let expected = match input {
            Input::TurnAnswer(_) if life.turn_is_read => life.shadow.next_turn(),
            _ => None,
        };
        life.shadow.handle_input(at, input.clone());
        while let Some(output) = life.shadow.poll_output() {
            life.expected.push_back(output);
        }
        if life.shadow.held().is_none_or(|held| held >= capacity) {
            let now = self.now;
            self.life(number).full_at = now;
        }
        let answer = match input {
            Input::TurnAnswer(answer) => {
                let known = answer.identity == self.server.look().1;
                Some(Answered { expected, now: answer.now, known })
            }
            _ => None,
        };
        if matches!(input, Input::Failed { fate: Fate::NotSent, .. }) {
            self.oracle.marks.reach(Mark::DroppedEffect);
        }
        let life = self.life(number);
        life.answer = answer;
        if matches!(input, Input::Leave) {
            life.draining = true;
            let now = self.now;
            self.oracle.ring.extend(now);
        }
        self.all_asked(number);
    }

    /// When all that an input led to was seen, what it was can be judged.
    fn all_asked(&mut self, number: u32) {
        let life = self.life(number);
        if !life.expected.is_empty() {
            return;
        }
        if let Some(answer) = life.answer.take() {
            self.turn_answered(number, &answer);
        }
    }

    /// The engine of the shell asks for something: what the other one, which was told the same, asks for.
    fn asked(&mut self, host: u32, output: &Output) {
        let Some(number) = self.hosts[host as usize].life else { return };
        if self.life(number).expected.pop_front().as_ref() != Some(output) {
            self.differs(number, "asked for another thing than its journal's engine");
        }
        match output {
            Output::Turn { statement, not_after, .. } => {
                self.life(number).not_after = *not_after;
                self.turn_asked(number, statement);
            }
            Output::Work { statement, .. } => self.work_asked(number, statement),
            Output::Retire(_) => {
                self.oracle.marks.reach(Mark::CameBackLost);
                self.disturbed(self.now, Disturbance::Reborn);
                // What it was told last means nothing to it any more.
                self.life(number).answer = None;
                self.life_over(number, Seen::Lost);
            }
            Output::Note(note) => self.noted(number, note),
            Output::Abandon(_) => {}
        }
        self.all_asked(number);
    }

    fn differs(&mut self, number: u32, what: &str) {
        self.life(number).expected.clear();
        self.violated(Invariant::Replay, || format!("the engine of life {number} {what}"));
    }

    fn turn_asked(&mut self, number: u32, statement: &TurnStatement) {
        let (now, period) = (self.now, self.period);
        let life = self.life(number);
        life.window = match life.window {
            (since, count) if now < since + period => (since, count + 1),
            _ => (now, 1),
        };
        let (count, host) = (life.window.1, life.host);
        life.turn_is_read = matches!(statement.kind, TurnKind::Read);
        if count == STATEMENTS_MAX {
            self.violated(Invariant::Bounded, || {
                format!(
                    "life {number} asks for {STATEMENTS_MAX} statements on the turn row in a period"
                )
            });
        }
        if let TurnKind::Beat { claim } = &statement.kind {
            let slot = statement.believed.unwrap_or(Slot(0));
            let life = self.life(number);
            let twice = life.last_beat == slot;
            life.last_beat = slot;
            sometimes!(self.oracle.marks, Mark::BeatTwice, twice);
            if let Some(claim) = claim {
                let Oracle { jobs, violations, .. } = &mut self.oracle;
                jobs.claimed(now, number, claim.token, violations);
            }
        }
        let stall = std::mem::take(&mut self.host(host).stall);
        if stall > 0 {
            let fault = Fault::Stall { node: host, lasts: Span(stall) };
            self.disturbed(now + stall, Disturbance::Fault(fault));
            let host = self.host(host);
            host.paused_until = host.paused_until.max(now + stall);
        }
    }

    fn work_asked(&mut self, number: u32, statement: &WorkStatement) {
        let (now, period) = (self.now, self.period);
        if let WorkStatement::Claim(claim) = statement {
            let Oracle { jobs, violations, .. } = &mut self.oracle;
            jobs.claimed(now, number, claim.token, violations);
        }
        let idle = self.oracle.ring.is_calm(now)
            && self.oracle.jobs.open() == 0
            && now > self.idle_since + 5 * period + 10_000_000_000;
        let life = self.life(number);
        life.idle_work = if idle { life.idle_work + 1 } else { 0 };
        if life.idle_work == IDLE_WORK_MAX {
            self.violated(Invariant::IdleStatements, || {
                format!("life {number} asks for {statement:?} again and again without jobs")
            });
        }
    }

    fn noted(&mut self, number: u32, note: &Note) {
        use turnwise_engine::ChangeKind::{Join, Leave, Remove, Takeover};
        let host = self.lives[number as usize].host;
        match note {
            Note::Beat { slot, arrival_error: Some(told), .. } => {
                let truth = self.lives[number as usize].beat_error;
                // A statement that was posted twice by the shell would be seen here.
                if *told != truth {
                    let (told, slot) = (*told, *slot);
                    self.violated(Invariant::Accounting, || {
                        format!(
                            "life {number} notes {told} for its beat in {slot}, {truth} is true"
                        )
                    });
                }
            }
            Note::TurnSkipped { slot } => {
                let life = self.life(number);
                life.skipped = life.skipped.max(*slot);
                self.oracle.marks.reach(Mark::Skipped);
            }
            Note::Changed { kind, victims } => {
                let removed = self.lives[number as usize].removed;
                let marks = &mut self.oracle.marks;
                sometimes!(marks, Mark::Joined, *kind == Join);
                sometimes!(marks, Mark::CameBack, *kind == Join && removed);
                sometimes!(marks, Mark::Left, *kind == Leave);
                sometimes!(marks, Mark::Removed, *kind == Remove);
                sometimes!(marks, Mark::RemovedSeveral, victims.len() > 1);
                sometimes!(marks, Mark::TookOver, *kind == Takeover);
                self.victims(victims);
            }
            Note::Left => {
                let life = self.life(number);
                life.left = true;
                life.staying = false;
                let busy = life.shadow.held().is_none_or(|held| held > 0);
                sometimes!(self.oracle.marks, Mark::DrainedWhileBusy, busy);
                let now = self.now;
                self.oracle.ring.extend(now);
                self.count_living();
            }
            Note::ClockStep => {
                self.life(number).clock_learned = true;
                let Oracle { ring, clock, marks, violations, .. } = &mut self.oracle;
                if clock.proved(host, marks) {
                    ring.step_proven(self.now, marks, violations);
                }
            }
            Note::ServerChanged => {
                self.life(number).clock_learned = true;
                self.oracle.marks.reach(Mark::ServerChanged);
                self.oracle.clock.forgot(host);
            }
            _ => {}
        }
    }

    fn victims(&mut self, victims: &[NodeId]) {
        for victim in victims {
            let Some(number) = self.by_id.get(victim).copied() else { continue };
            let life = self.life(number);
            if life.staying {
                life.removed = true;
                self.oracle.marks.reach(Mark::RemovedAlive);
                let now = self.now;
                let Oracle { ring, violations, .. } = &mut self.oracle;
                ring.removed_alive(now, number, violations);
            }
        }
    }

    /// A life is over: declared lost, ended in good order, or its process is no more.
    pub(super) fn life_over(&mut self, number: u32, seen: Seen) {
        let now = self.now;
        let life = self.life(number);
        if life.over.is_some() || life.killed {
            return;
        }
        match seen {
            Seen::Killed => life.killed = true,
            _ => life.over = Some(now),
        }
        life.staying = false;
        let host = life.host;
        if self.hosts[host as usize].life == Some(number) {
            self.host(host).life = None;
        }
        self.count_living();
        self.seen(host, seen);
        self.trace([6, u64::from(number), 0]);
    }

    /// A process came to its end by itself.
    pub(super) fn process_ended(&mut self, host: u32, end: &Result<LifeEnd, StoreError>) {
        self.host(host).up = false;
        self.host(host).stop = None;
        let asked = std::mem::take(&mut self.host(host).stops_asked);
        let aborted = matches!(end, Ok(LifeEnd::Aborted));
        if let Some(number) = self.hosts[host as usize].life {
            if !aborted {
                self.check_left_behind(number);
            }
            self.life_over(number, if aborted { Seen::Killed } else { Seen::Left });
        }
        match end {
            Ok(LifeEnd::Stopped | LifeEnd::TimedOut) if asked > 0 => {}
            Ok(LifeEnd::Aborted) if asked > 1 => {}
            other => self.violated(Invariant::Accounting, || {
                format!("the process of node {host} ended by itself: {other:?}")
            }),
        }
    }

    /// The shell hands a statement on the turn row to its connection.
    pub(super) fn turn_handed_over(&mut self, host: u32) {
        let local = self.local(host);
        let Some(number) = self.hosts[host as usize].life else { return };
        let not_after = self.lives[number as usize].not_after;
        if local > not_after {
            self.violated(Invariant::Bounded, || {
                format!("life {number} sends an effect {:?} after its end", local.since(not_after))
            });
        }
    }

    /// A statement on the turn row is about to be written to its socket.
    pub(super) fn turn_leaves(&mut self, host: u32, statement: &TurnStatement) {
        let now = self.now;
        let Some(number) = self.by_id.get(&statement.node).copied() else { return };
        if let (TurnKind::Beat { .. }, Some(slot)) = (&statement.kind, statement.believed) {
            let Oracle { ring, violations, .. } = &mut self.oracle;
            ring.fires(now, slot, number, violations);
        }
        self.hosts[host as usize].turn_begun = now;
    }

    /// A node that stops in good order leaves no job behind that is its own, if its database hears it.
    fn check_left_behind(&mut self, number: u32) {
        let (now, life) = (self.now, &self.lives[number as usize]);
        let host = &self.hosts[life.host as usize];
        let Some(id) = self.by_id.iter().find(|(_, life)| **life == number).map(|(id, _)| *id)
        else {
            return;
        };
        if host.storm_until + 8_000_000_000 > now || self.out_until + 8_000_000_000 > now {
            return;
        }
        let Some(store) = self.store.clone() else { return };
        let running =
            JobFilter { state: Some(JobState::Running), limit: 1_000, ..Default::default() };
        let running = at_once(store.jobs(&running)).unwrap_or_default();
        let left = running.iter().filter(|job| job.node == Some(id)).count();
        if left > 0 {
            self.violated(Invariant::NoJobLost, || {
                format!("life {number} stopped in good order and left {left} jobs running")
            });
        }
    }

    /// A statement on the turn row was done by the database.
    pub(super) fn turn_arrived(
        &mut self,
        host: u32,
        statement: &TurnStatement,
        reply: &TurnReply,
        lost: &[NodeId],
    ) {
        let now = self.now;
        let Some(number) = self.by_id.get(&statement.node).copied() else { return };
        let slot = reply.now;
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
    fn turn_answered(&mut self, number: u32, answer: &Answered) {
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
    }

    /// How wide a node's interval may be, so that a step that is larger must be noticed.
    pub(super) fn spread(&self, host: u32) -> i64 {
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

    pub(super) fn renewed(&mut self, node: NodeId) {
        self.oracle.marks.reach(Mark::LeaseRenewed);
        let life = self.by_id.get(&node).copied().unwrap_or(u32::MAX);
        self.trace([3, u64::from(life), 0]);
    }

    pub(super) fn claimed_outside(&mut self, node: NodeId, done: &Claimed) {
        sometimes!(self.oracle.marks, Mark::ClaimedOutside, !done.jobs.is_empty());
        let life = self.by_id.get(&node).copied().unwrap_or(u32::MAX);
        self.handed_out(life, &done.jobs);
        self.trace([4, u64::from(life), done.jobs.len() as u64]);
    }

    /// The database gave these jobs to a life.
    fn handed_out(&mut self, life: u32, jobs: &[ClaimedJob]) {
        for job in jobs {
            self.touched.insert(job_of(job.id), self.now);
            self.claims.insert(job_of(job.id), (life, job.token));
        }
    }

    pub(super) fn recovered(&mut self, node: NodeId, done: &Claimed) {
        sometimes!(self.oracle.marks, Mark::LostClaimRecovered, !done.jobs.is_empty());
        let life = self.by_id.get(&node).copied().unwrap_or(u32::MAX);
        self.trace([5, u64::from(life), done.jobs.len() as u64]);
    }

    pub(super) fn released(&mut self) {
        self.oracle.marks.reach(Mark::ClaimReleased);
    }

    /// The database recorded ends.
    pub(super) fn ended(&mut self, node: NodeId, ends: &[End], outcomes: &[EndOutcome]) {
        let now = self.now;
        let life = self.by_id.get(&node).copied().unwrap_or(u32::MAX);
        for (end, outcome) in ends.iter().zip(outcomes) {
            let job = job_of(end.job);
            self.trace([7, u64::from(life), job]);
            sometimes!(self.oracle.marks, Mark::StaleEnd, *outcome == EndOutcome::Stale);
            if *outcome != EndOutcome::Ended {
                continue;
            }
            if end.fate == JobFate::HandBack {
                self.handed_back(life);
            }
            let claim = self.claims.get(&job).copied();
            if claim.is_some_and(|claim| claim != (life, end.token)) {
                self.violated(Invariant::NoOverlap, || {
                    format!("an end by life {life} of job {job} is accepted, which {claim:?} holds")
                });
            }
            let succeeded = end.fate == JobFate::Succeeded;
            let retried = matches!(end.fate, JobFate::Retry(_));
            sometimes!(self.oracle.marks, Mark::RetriedJob, retried);
            if succeeded && !self.done.contains_key(&job) {
                self.violated(Invariant::Accounting, || {
                    format!("job {job} is recorded as succeeded by life {life} and was never done")
                });
            }
            if succeeded || end.fate == JobFate::Dead {
                let Oracle { jobs, marks, .. } = &mut self.oracle;
                jobs.ended(job, succeeded, marks);
                self.idle_since = now;
            }
        }
    }

    /// A node that knows its web app to be away claims nothing for it.
    fn handed_back(&mut self, life: u32) {
        let now = self.now;
        let Some(life) = self.lives.get(life as usize) else { return };
        let (number, number_of_host, draining) = (life.number, life.host, life.draining);
        let host = self.host(number_of_host);
        if host.target_down_until <= now || draining {
            return;
        }
        let since = *host.refused_since.get_or_insert(now);
        // Until it knows; and what was claimed before may come back late.
        if since + REFUSED_FOR < now && host.storm_until + REFUSED_FOR < now {
            host.refused_since = Some(now);
            self.violated(Invariant::ClaimsAllowed, || {
                format!("life {number} goes on claiming jobs though its target refuses them")
            });
        }
    }

    /// A web app begins to serve a call.
    pub(super) fn run_begins(&mut self, host: u32, job: u64, life: u32) {
        let now = self.now;
        self.trace([8, job, u64::from(life)]);
        *self.served.entry((job, life)).or_insert(0) += 1;
        if let Some(other) = self.kept.get(&job).copied()
            && other != life
            && self.served.contains_key(&(job, other))
            && self.lives[other as usize].lost_at.is_none()
        {
            self.violated(Invariant::NoOverlap, || {
                format!("job {job} runs as life {life}, and as life {other}, whose claim the server that took over knew")
            });
        }
        let Oracle { jobs, violations, .. } = &mut self.oracle;
        jobs.runs(now, job, life, violations);
        let (busy, capacity) = (
            self.served.keys().filter(|(_, other)| *other == life).count(),
            self.hosts[host as usize].plan.capacity as usize,
        );
        if busy > capacity {
            self.violated(Invariant::ClaimsAllowed, || {
                format!("life {life}, which may run {capacity} jobs at once, runs {busy}")
            });
        }
        self.seen(host, Seen::Runs { job, lasts: 0 });
    }

    /// It serves it no more.
    pub(super) fn run_over(&mut self, job: u64, life: u32) {
        self.trace([9, job, u64::from(life)]);
        self.touched.insert(job, self.now);
        if let Some(count) = self.served.get_mut(&(job, life)) {
            *count -= 1;
            if *count == 0 {
                self.served.remove(&(job, life));
            }
        }
        self.oracle.jobs.stops(job, life);
    }

    /// Calls of lives that are over, with their processes alive to end them.
    pub(super) fn check_last_words(&mut self) {
        let now = self.now;
        let late = self.served.keys().find(|(_, life)| {
            let life = self.lives.get(*life as usize);
            life.and_then(|life| life.over).is_some_and(|over| over + LAST_WORDS < now)
        });
        if let Some((job, life)) = late.copied() {
            self.lives[life as usize].over = Some(u64::MAX / 2);
            self.violated(Invariant::NoOverlap, || {
                format!("life {life} is over, and its call of job {job} goes on")
            });
        }
    }

    /// Nodes that were declared lost and are heard, and go on all the same.
    pub(super) fn check_lost(&mut self) {
        let (now, grace) = (self.now, 4_000_000_000 + 6 * self.period);
        let deaf = |life: &&Life| {
            let host = &self.hosts[life.host as usize];
            let heard = host.storm_until + grace < now && self.out_until + grace < now;
            let alive = host.up && host.life == Some(life.number) && !host.is_paused(now);
            alive && heard && !life.draining && life.lost_at.is_some_and(|at| at + grace < now)
        };
        if let Some(life) = self.lives.iter().find(deaf).map(|life| life.number) {
            self.life(life).lost_at = Some(u64::MAX / 2);
            self.violated(Invariant::Accounting, || {
                format!("life {life} was declared lost, and goes on")
            });
        }
    }

    /// The run is over. `jobs` are all that the database holds.
    pub(super) fn finish(&mut self, jobs: &[JobView]) {
        self.check_overdue(jobs);
        let now = self.now;
        let Oracle { ring, clock, violations, marks, .. } = &mut self.oracle;
        ring.finish(now, marks, violations);
        clock.finish(now, violations);
    }

    fn check_overdue(&mut self, jobs: &[JobView]) {
        let now = self.now;
        let grace = OVERDUE + OVERDUE_PERIODS * self.period;
        let able = |life: &Life| {
            let host = &self.hosts[life.host as usize];
            life.staying
                && host.life == Some(life.number)
                && !life.draining
                && host.target_down_until + grace < now
                && host.errors_until + grace < now
                && host.excused_until < now
                && !host.is_paused(now)
                && life.full_at + grace / 2 < now
        };
        let free = self.lives.iter().any(able);
        if self.out_until + grace >= now || !self.oracle.ring.is_calm(now) {
            return;
        }
        let shown = self.server.look().0.exact(now.saturating_sub(grace));
        let stormy = self.hosts.iter().any(|host| host.storm_until + grace >= now);
        // Running, it says; but no web app has served it for longer than any call takes.
        let is_stuck = |job: u64| {
            let served = self.served.keys().any(|(other, _)| *other == job);
            let touched = self.touched.get(&job).copied().unwrap_or(0);
            !served && !stormy && touched + CALL_DEADLINE.as_nanos() as u64 + grace < now
        };
        let lost: Vec<u64> = jobs
            .iter()
            .filter(|job| match job.state {
                JobState::Ready => free && job.scheduled_at < shown,
                // None of them is for later; but clocks are set.
                JobState::Scheduled if free => {
                    let enqueued = self.oracle.jobs.enqueued_at(job_of(job.id));
                    enqueued.is_some_and(|enqueued| enqueued + grace < now)
                }
                JobState::Running => is_stuck(job_of(job.id)),
                _ => false,
            })
            .map(|job| job_of(job.id))
            .collect();
        let Oracle { jobs, violations, .. } = &mut self.oracle;
        jobs.finish(now, &lost, violations);
    }

    /// How long a lease that was granted now would hold.
    pub(super) fn lease(&self) -> u64 {
        lease(self.scenario.period).as_nanos() as u64
    }
}
