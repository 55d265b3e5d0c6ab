//! Decides what is told of the lives of nodes: of what each engine was told and asked for, entry by entry, beside a
//! second engine that is told the same; and of how a life ends.

use turnwise_engine::journal::{Entry, Header};
use turnwise_engine::{
    Fate, Input, LocalInstant, NodeId, Note, Output, Slot, TurnKind, TurnStatement, WorkStatement,
};
use turnwise_node::job::{JobFilter, JobState};
use turnwise_node::shell::LifeEnd;
use turnwise_node::store::{Store, StoreError};

use crate::cluster::database::at_once;
use crate::cluster::farm::{Host, Life, World};
use crate::oracle::{Disturbance, Invariant, Mark, Oracle};
use crate::report::Seen;
use crate::scenario::{Fault, Span};
use crate::sometimes;

/// A node sends no more statements on the turn row than this in a period.
const STATEMENTS_MAX: u32 = 64;
/// So many statements on the jobs may follow when there are none any more.
const IDLE_WORK_MAX: u32 = 8;
/// A process leads a life so long after nothing hinders it any more.
const COMES_UP: u64 = 10_000_000_000;
/// A life that is over, with its process alive, may be seen at a target for so long.
const LAST_WORDS: u64 = 1_000_000_000;

/// An answer to a statement on the turn row, as an engine was told it.
pub(in crate::cluster) struct Answered {
    /// To a read: the turn that the node had ahead of it.
    pub(super) expected: Option<Slot>,
    /// The slot that it is.
    pub(super) now: Slot,
    /// It is of the server that answers now.
    pub(super) known: bool,
}

impl World {
    /// What a node's engine was told or asked for.
    pub(in crate::cluster) fn journal(&mut self, host: u32, entry: &Entry) {
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
            work_not_after: header.now,
            window: (self.now, 0),
            full_at: self.now,
            free_since: None,
            was_free: None,
            more_at: None,
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
        // Behind a statement on the jobs that is under way no claim is sent.
        let mut answered = matches!(input, Input::WorkAnswer(_) | Input::Failed { .. });
        while let Some(output) = life.shadow.poll_output() {
            answered |= matches!(output, Output::Abandon(_));
            life.expected.push_back(output);
        }
        let free = life.shadow.held().is_some_and(|held| held < capacity);
        let now = self.now;
        let life = self.life(number);
        if !free {
            life.full_at = now;
        }
        match (free, life.free_since) {
            (true, None) => life.free_since = Some(now),
            (true, Some(_)) if answered => life.free_since = Some(now),
            (false, Some(since)) => (life.free_since, life.was_free) = (None, Some((since, now))),
            _ => {}
        }
        let answer = match input {
            Input::TurnAnswer(answer) => {
                self.hosts[host as usize].clock_known.get_or_insert(self.now);
                let known = answer.identity == self.server.look().1;
                // The server says which turns have passed: a number that only the node's own clock had reached may yet come.
                let life = self.life(number);
                life.skipped = life.skipped.min(answer.now);
                life.last_beat = life.last_beat.min(answer.now);
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
            Output::Work { statement, not_after, .. } => {
                self.life(number).work_not_after = *not_after;
                self.work_asked(number, statement);
            }
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
        self.stalls(host);
    }

    /// A process that is to stall does so now: it has decided, and nothing has happened yet.
    fn stalls(&mut self, host: u32) {
        let now = self.now;
        let stall = std::mem::take(&mut self.host(host).next.stall);
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
        let host = self.lives[number as usize].host;
        self.stalls(host);
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
    pub(in crate::cluster) fn life_over(&mut self, number: u32, seen: Seen) {
        let now = self.now;
        let life = self.life(number);
        if life.over.is_some() || life.killed {
            return;
        }
        match seen {
            Seen::Killed => life.killed = true,
            _ => life.over = Some(now),
        }
        let host = life.host;
        self.host(host).lifeless_since = now;
        let life = self.life(number);
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
    pub(in crate::cluster) fn process_ended(
        &mut self,
        host: u32,
        end: &Result<LifeEnd, StoreError>,
    ) {
        self.host(host).up = false;
        self.host(host).stop = None;
        let asked = std::mem::take(&mut self.host(host).stops_asked);
        let aborted = matches!(end, Ok(LifeEnd::Aborted));
        if let Some(number) = self.hosts[host as usize].life {
            if !aborted {
                self.check_left_behind(number);
                if !self.life(number).draining {
                    self.violated(Invariant::Accounting, || {
                        format!("life {number} stopped in good order and did not leave the ring")
                    });
                }
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
        let left = running.iter().filter(|job| job.node == Some(id) && job.awaits_since.is_none());
        let left = left.count();
        if left > 0 {
            self.violated(Invariant::NoJobLost, || {
                format!("life {number} stopped in good order and left {left} jobs running")
            });
        }
    }

    /// Calls of lives that are over, with their processes alive to end them.
    pub(in crate::cluster) fn check_last_words(&mut self) {
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

    /// Processes that have been up for long, with their database there and their roads whole, and lead no life.
    pub(in crate::cluster) fn check_lifeless(&mut self) {
        let (now, out_until) = (self.now, self.out_until);
        let waits = |host: &Host| {
            let whole = host.lifeless_since.max(host.storm_until).max(host.paused_until);
            let able = host.up && host.life.is_none() && host.stops_asked == 0;
            able && host.errors_until < now && whole.max(out_until) + COMES_UP < now
        };
        let Some(number) = self.hosts.iter().position(waits) else { return };
        self.hosts[number].lifeless_since = now;
        self.violated(Invariant::Recovery, || {
            format!("the process of node {number} is up and has not come to life")
        });
    }

    /// Nodes that were declared lost and are heard, and go on all the same.
    pub(in crate::cluster) fn check_lost(&mut self) {
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
}
