//! The lab: engines alone, driven by a queue of events at nanosecond resolution, against a modelled database
//! over modelled roads. It knows the truth, so it can judge.
//!
//! - `driver`: what a machine that takes turns must offer; `original`: the original design, as the yardstick;
//! - `database`, `host`: the world, with its clocks and roads from `crate::world`;
//! - `turns`: statements on the turn row, there and back; `work`: jobs; `limits`: queues that keep some back; `asks`: whether
//!   who knows of more asks for them; `status`: whether what a node says of itself is so; `faults`: what goes wrong;
//! - `journals`: what each life was told and asked for, told to a second machine.
//!
//! This module decides in which order things happen: by time, and at one time in the order in which they
//! were planned.

mod asks;
mod database;
mod driver;
mod faults;
mod host;
mod journals;
mod limits;
mod original;
mod status;
mod turns;
mod work;

use std::collections::{BTreeMap, BinaryHeap};

use turnwise_engine::journal::{Entry, Header, VERSION};
use turnwise_engine::{
    Fate, Input, LocalInstant, NodeId, Note, Output, Reason, RequestId, Token, TurnAnswer,
    TurnStatement, Version, WorkAnswer, WorkStatement,
};

pub use driver::{Driver, Product};
pub use journals::Journal;
pub use original::Original;

use self::database::{Database, Ending};
use self::host::{Host, Life, id_of, life_of};
use self::journals::Journals;
use crate::oracle::{Disturbance, Invariant, Mark, Oracle};
use crate::random::Stream;
use crate::report::{Picture, Report, Seen, Sort};
use crate::scenario::{Scenario, Span};
use crate::sometimes;
use crate::world::{Local, Mishaps, Roads, Server};

/// A machine may wake at one and the same instant so often in a row, and no oftener.
const SAME_INSTANT_MAX: u32 = 100;
/// A node sends no more statements on the turn row than this in a period.
const STATEMENTS_MAX: u32 = 64;
/// A node that was declared lost comes back after so long.
const REBIRTH: u64 = 50_000_000;
/// A node that left for a new version comes up with it after so long.
const DEPLOYED: u64 = 500_000_000;
/// Of so many seeds one has its journals judged though nobody wants them. Each input and output is copied then, and told to a
/// second engine: too much for every run, and a sweep has thousands of seeds.
const JUDGED_SEEDS: u64 = 16;
/// Not where there are more nodes than these: every answer holds the whole ring.
const JUDGED_NODES: usize = 32;

/// What does not happen in its swarm: its database forgets a job with its end, and nobody orders anything of it.
pub const NEVER_REACHES: &[Mark] = &[
    Mark::JobRemoved,
    Mark::KeyHeld,
    Mark::KeyFreed,
    Mark::CancelledWaiting,
    Mark::CancelledRunning,
    Mark::QueuePaused,
    Mark::KeyTaken,
    Mark::QueueHeldBack,
    Mark::CalledBack,
    Mark::NothingHeard,
    Mark::HeardTooLate,
    Mark::BatchSucceeded,
    Mark::BatchFailed,
    Mark::BatchCancelled,
    Mark::BatchExtended,
    Mark::ScheduleFired,
    Mark::FiredForTheDead,
];

/// Run a scenario with the engine of the product.
pub fn run(scenario: &Scenario) -> Report {
    run_with::<Product>(scenario, false)
}

/// Run a scenario with any machine; with a picture of what happened, if wanted.
pub fn run_with<D: Driver>(scenario: &Scenario, picture: bool) -> Report {
    let mut lab = Lab::<D>::new(scenario, picture);
    let small = scenario.nodes.len() <= JUDGED_NODES;
    if D::KEEPS_JOURNAL && small && scenario.seed.is_multiple_of(JUDGED_SEEDS) {
        lab.journals = Some(Journals::new(false));
    }
    finish(lab).0
}

/// Run a scenario with the engine of the product, and keep the journals of all lives, each of which is judged; with a picture
/// of what happened, if wanted.
pub fn run_with_journals(scenario: &Scenario, picture: bool) -> (Report, Vec<Journal>) {
    let mut lab = Lab::<Product>::new(scenario, picture);
    lab.journals = Some(Journals::new(true));
    finish(lab)
}

/// Run a scenario whose nodes that come up within the first period find themselves in the ring, as after a restart of
/// all at once; with a picture of what happened, and without journals. A large ring need not grow first.
pub fn run_settled<D: Driver>(scenario: &Scenario) -> Report {
    let mut lab = Lab::<D>::new(scenario, true);
    lab.settle();
    finish(lab).0
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a run takes is told beside it, and decides nothing"
)]
fn finish<D: Driver>(mut lab: Lab<'_, D>) -> (Report, Vec<Journal>) {
    let started = std::time::Instant::now();
    lab.run();
    let Lab { scenario, oracle, database, statements, hash, picture, journals, .. } = lab;
    let mut report = Report::new(scenario, oracle, database.row, statements, hash, picture);
    report.wall_seconds = started.elapsed().as_secs_f64();
    (report, journals.map(Journals::handed_out).unwrap_or_default())
}

struct Lab<'a, D: Driver> {
    scenario: &'a Scenario,
    period: u64,
    /// True time since the start, in nanoseconds.
    now: u64,
    queue: BinaryHeap<Event>,
    events: u64,
    hosts: Vec<Host<D>>,
    /// The host of each life.
    lives: Vec<u32>,
    /// When each life began.
    born: Vec<u64>,
    /// Of each life, whether it is up and to stay.
    staying: Vec<bool>,
    /// The lives that have left, and the server's timeline when they went.
    departed: BTreeMap<u32, i64>,
    database: Database,
    server: Server,
    out_until: u64,
    slow: u64,
    snapshots: Vec<Option<Database>>,
    load: Stream,
    runs: Stream,
    queues: Stream,
    jobs: u64,
    idle_since: u64,
    statements: u64,
    hash: u64,
    oracle: Oracle,
    picture: Option<Picture>,
    /// None: they are neither judged nor wanted.
    journals: Option<Journals>,
}

struct Event {
    at: u64,
    order: u64,
    what: What,
}

enum What {
    Start(u32),
    Fault(u32),
    /// Remember the database as it is, for a failover that loses what comes after.
    Snapshot(u32),
    Promote(u32),
    SlewEnds,
    SlowEnds(u64),
    CrowdEnds(u32),
    TargetBack(u32),
    Thaw(u32, u64),
    Leave(u32),
    Deploy(u32),
    TargetTold(u32, bool),
    Enqueue,
    Reborn(u32),
    Wake {
        life: u32,
        number: u64,
    },
    TurnLeaves {
        life: u32,
        statement: Box<Leaving>,
    },
    TurnArrives {
        life: u32,
        request: RequestId,
        sent: LocalInstant,
        statement: Box<TurnStatement>,
        copy: bool,
    },
    TurnAnswered {
        life: u32,
        answer: Box<Answer>,
    },
    Failed {
        life: u32,
        request: RequestId,
    },
    WorkArrives {
        life: u32,
        request: RequestId,
        sent: LocalInstant,
        statement: WorkStatement,
    },
    WorkAnswered {
        life: u32,
        answer: WorkAnswer,
        claimed: Vec<(u64, Token)>,
    },
    RunEnds {
        life: u32,
        job: u64,
        token: Token,
        ending: Ending,
    },
    EndLeaves {
        life: u32,
        job: u64,
        token: Token,
        ending: Ending,
    },
    EndArrives {
        life: u32,
        job: u64,
        token: Token,
        ending: Ending,
        sent: LocalInstant,
    },
    EndAnswered {
        life: u32,
        job: u64,
        token: Token,
        sent: LocalInstant,
        lost: bool,
    },
}

struct Leaving {
    request: RequestId,
    statement: TurnStatement,
    not_after: LocalInstant,
}

struct Answer {
    answer: TurnAnswer,
    claimed: Vec<(u64, Token)>,
    begun: u64,
    /// How far from its boundary the statement arrived.
    error: i64,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl What {
    /// The life that it happens to; none: to nobody's process.
    fn life(&self) -> Option<u32> {
        match self {
            Self::Wake { life, .. }
            | Self::TurnLeaves { life, .. }
            | Self::TurnAnswered { life, .. }
            | Self::Failed { life, .. }
            | Self::WorkAnswered { life, .. }
            | Self::RunEnds { life, .. }
            | Self::EndLeaves { life, .. }
            | Self::EndAnswered { life, .. } => Some(*life),
            _ => None,
        }
    }
}

impl<'a, D: Driver> Lab<'a, D> {
    fn new(scenario: &'a Scenario, picture: bool) -> Self {
        let seed = scenario.seed;
        let hosts = scenario.nodes.iter().enumerate().map(|(number, plan)| Host {
            plan: *plan,
            clock: Local::new(&plan.clock, seed, &format!("node {number} clock"), 0),
            turn: Roads::new(plan, seed, &format!("node {number} turn")),
            work: Roads::new(plan, seed, &format!("node {number} work")),
            life: None,
            paused_until: 0,
            excused_until: 0,
            errors_until: 0,
            target_down_until: 0,
            deployed: false,
            next: Mishaps::default(),
            seeds: Stream::new(seed, &format!("node {number} seeds")),
        });
        let period = scenario.period.as_nanos() as u64;
        let mut lab = Self {
            scenario,
            period,
            now: 0,
            queue: BinaryHeap::new(),
            events: 0,
            hosts: hosts.collect(),
            lives: Vec::new(),
            born: Vec::new(),
            staying: Vec::new(),
            departed: BTreeMap::new(),
            database: Database::new(scenario.period, &scenario.load, &scenario.orders),
            server: Server::new(scenario.database.resolution.0),
            out_until: 0,
            slow: 0,
            snapshots: vec![None; scenario.faults.len()],
            load: Stream::new(seed, "load"),
            runs: Stream::new(seed, "runs"),
            queues: Stream::new(seed, "queues"),
            jobs: 0,
            idle_since: 0,
            statements: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            oracle: Oracle::new(period, scenario.load.every > Span::ZERO),
            picture: picture.then(|| Picture::new(scenario)),
            journals: None,
        };
        for (number, plan) in scenario.nodes.iter().enumerate() {
            lab.push(plan.start.0, What::Start(number as u32));
        }
        lab.plan_faults();
        if scenario.load.every > Span::ZERO {
            lab.push(lab.period, What::Enqueue);
        }
        lab
    }

    /// The ring is there: those who come up in the first period, in the order in which they do, from the slot after that.
    fn settle(&mut self) {
        let row = &mut self.database.row;
        let first = row.cadence.slot_at(self.server.stamp(0));
        let members = self.scenario.nodes.iter().filter(|node| node.start.0 < self.period).count();
        let ring: Vec<_> = (0..members as u32).map(id_of).collect();
        let mark = turnwise_engine::Mark { read: first - 1, until: first - 1 };
        row.marks = ring.iter().map(|node| (*node, mark)).collect();
        row.roster.versions = vec![Version { from: first + 2, ring }];
        (row.high, row.slot, row.previous) = (first - 1, first - 1, first - 2);
    }

    fn run(&mut self) {
        let end = self.scenario.duration.0;
        while let Some(event) = self.queue.pop() {
            if event.at > end {
                break;
            }
            self.now = event.at;
            if self.events > self.most_events() {
                self.violated(Invariant::Bounded, || {
                    "so much happens that it never ends".to_owned()
                });
                break;
            }
            match event.what.life() {
                Some(life) => self.happen_to(life, event.what),
                None => self.happen(event.what),
            }
        }
        self.now = end;
        self.finish();
    }

    /// More than this does not happen in a run that is what it should be.
    fn most_events(&self) -> u64 {
        let slots = self.scenario.duration.0 / self.period + 100;
        slots * (self.hosts.len() as u64 + 10) * 100 + 40 * self.jobs
    }

    /// Something happens to a process: not while it is stopped, and not to one that is no more.
    fn happen_to(&mut self, life: u32, what: What) {
        let host = self.lives[life as usize];
        let there = &self.hosts[host as usize];
        if there.life.as_ref().is_none_or(|here| here.number != life) {
            return;
        }
        if there.is_paused(self.now) {
            self.push(there.paused_until, what);
            return;
        }
        match what {
            What::Wake { number, .. } => {
                let counts = there.life.as_ref().is_some_and(|here| here.wake == number);
                if counts {
                    self.input(host, Input::Wake);
                }
            }
            What::TurnLeaves { statement, .. } => self.turn_leaves(host, *statement),
            What::TurnAnswered { answer, .. } => self.turn_answered(host, *answer),
            What::Failed { request, .. } => {
                if let Some(life) = &mut self.hosts[host as usize].life {
                    life.awaits_no_more(request, self.now);
                }
                self.input(host, Input::Failed { request, fate: Fate::Unknown });
            }
            What::WorkAnswered { answer, claimed, .. } => {
                self.work_answered(host, answer, &claimed);
            }
            What::RunEnds { job, token, ending, .. } => self.run_ends(host, job, token, ending),
            What::EndLeaves { job, token, ending, .. } => {
                self.end_leaves(host, job, token, ending);
            }
            What::EndAnswered { job, token, sent, lost, .. } => {
                self.end_answered(host, job, token, sent, lost);
            }
            _ => {}
        }
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Start(host) | What::Reborn(host) => self.start(host),
            What::TurnArrives { life, request, sent, statement, copy } => {
                self.turn_arrives(life, request, sent, &statement, copy);
            }
            What::WorkArrives { life, request, sent, statement } => {
                self.work_arrives(life, request, sent, statement);
            }
            What::EndArrives { life, job, token, ending, sent } => {
                self.end_arrives(life, job, token, ending, sent);
            }
            What::Enqueue => self.enqueue(),
            other => self.fault_happens(&other),
        }
    }

    fn start(&mut self, number: u32) {
        let now = self.now;
        if self.out_until > now {
            // It cannot register yet.
            let later = self.out_until + REBIRTH;
            self.push(later, What::Start(number));
            return;
        }
        let host = &mut self.hosts[number as usize];
        if host.life.is_some() {
            return;
        }
        if host.is_paused(now) {
            // Its machine stands still.
            let later = host.paused_until;
            self.push(later, What::Start(number));
            return;
        }
        let life = self.lives.len() as u32;
        self.lives.push(number);
        self.born.push(now);
        self.staying.push(true);
        let local = host.clock.read(now);
        let (id, capacity, seed) = (id_of(life), host.plan.capacity, host.seeds.bits());
        let machine = D::new(id, capacity, seed, local);
        if let Some(journals) = &mut self.journals {
            let node = format!("node-{number}");
            let header = Header { version: VERSION, id, capacity, seed, now: local, node };
            journals.begin(life, number, header);
        }
        let timeline = self.database.identity.timeline;
        host.life = Some(Life::new(life, machine, now, timeline));
        self.oracle.clock.reborn(now, number);
        self.database.register(id_of(life), self.server.stamp(now));
        self.disturbed(now, Disturbance::Join);
        self.count_living();
        self.seen(number, Seen::Up);
        let down = self.hosts[number as usize].target_down_until > now;
        if down {
            self.tell_target(number, false);
        }
        self.input(number, Input::Wake);
    }

    /// The process of a node is no more.
    fn stop(&mut self, number: u32, seen: Seen) {
        let host = &mut self.hosts[number as usize];
        let Some(life) = host.life.take() else { return };
        // What was to befall its next statement dies with its connections.
        host.next = Mishaps::default();
        for (job, _) in &life.running {
            self.oracle.jobs.stops(*job, life.number);
        }
        self.staying[life.number as usize] = false;
        if std::mem::take(&mut host.deployed) && seen == Seen::Left {
            self.push(self.now + DEPLOYED, What::Start(number));
        }
        self.count_living();
        self.seen(number, seen);
        self.end_journal(life.number, seen == Seen::Killed);
    }

    fn count_living(&mut self) {
        let living = self.staying.iter().filter(|staying| **staying).count();
        self.oracle.ring.living(living);
    }

    /// Hand something to a node's machine and do what it asks for.
    fn input(&mut self, number: u32, input: Input) {
        let now = self.now;
        let host = &mut self.hosts[number as usize];
        let Some(life) = &mut host.life else { return };
        let local = host.clock.read(now);
        if let Some(journals) = &mut self.journals {
            journals.add(life.number, || Entry::Input { at: local, input: input.clone() });
        }
        life.machine.handle_input(local, input);
        self.check_drains(number);
        while let Some(output) = self.next_output(number) {
            self.output(number, local, output);
        }
        self.check_counts(number);
        self.check_status(number, local);
        self.note_whether_it_could_ask(number);
        self.schedule_wake(number);
        self.stop_if_done(number);
    }

    /// What a node's machine asks for next.
    fn next_output(&mut self, number: u32) -> Option<Output> {
        let life = self.hosts[number as usize].life.as_mut()?;
        let output = life.machine.poll_output()?;
        if let Some(journals) = &mut self.journals {
            journals.add(life.number, || Entry::Output(output.clone()));
        }
        Some(output)
    }

    fn schedule_wake(&mut self, number: u32) {
        let now = self.now;
        let host = &mut self.hosts[number as usize];
        let Some(life) = &mut host.life else { return };
        life.wake += 1;
        let (wake, id) = (life.wake, life.number);
        let Some((at, reason)) = life.machine.poll_timeout() else { return };
        if life.same_instant.0 == at && at <= host.clock.read(now) {
            life.same_instant.1 += 1;
            if life.same_instant.1 == SAME_INSTANT_MAX {
                self.violated(Invariant::Bounded, || {
                    format!("life {id} arms a timer for the same instant for ever: {reason}")
                });
            }
            if life_over(&mut self.hosts[number as usize]) {
                return;
            }
        } else {
            life.same_instant = (at, 0);
        }
        let host = &mut self.hosts[number as usize];
        let mut at = host.clock.when(at, now);
        if host.plan.clock.late_wake > Span::ZERO && reason != Reason::TurnPatience {
            let late = host.plan.clock.late_wake.0 as f64;
            at += (-late * host.seeds.ln_uniform()) as u64;
        }
        self.push(at, What::Wake { life: id, number: wake });
    }

    fn output(&mut self, number: u32, local: LocalInstant, output: Output) {
        if let Some(sort) = Sort::of(&output) {
            self.seen(number, Seen::Sent(sort));
        }
        match output {
            Output::Turn { request, statement, not_after, .. } => {
                self.turn_asked(number, local, Leaving { request, statement, not_after });
            }
            Output::Work { request, statement, .. } => {
                self.work_asked(number, local, request, statement);
            }
            Output::Abandon(request) => {
                if let Some(life) = &mut self.hosts[number as usize].life {
                    life.awaits_no_more(request, self.now);
                }
            }
            Output::Retire(_) => {
                self.oracle.marks.reach(Mark::CameBackLost);
                self.disturbed(self.now, Disturbance::Reborn);
                self.stop(number, Seen::Lost);
                self.push(self.now + REBIRTH, What::Reborn(number));
            }
            Output::Note(note) => self.noted(number, &note),
        }
    }

    fn noted(&mut self, number: u32, note: &Note) {
        let now = self.now;
        let marks = &mut self.oracle.marks;
        let Some(life) = &mut self.hosts[number as usize].life else { return };
        match note {
            Note::Beat { slot, arrival_error, .. } => {
                let told = *arrival_error;
                let (truth, id) = (life.beat_error, life.number);
                if told.is_some_and(|told| told != truth) {
                    self.violated(Invariant::Accounting, || {
                        format!("life {id} notes {told:?} for its beat in {slot}, {truth} is true")
                    });
                }
            }
            Note::TurnSkipped { slot } => {
                let (twice, id) = (life.skipped == *slot, life.number);
                life.skipped = life.skipped.max(*slot);
                marks.reach(Mark::Skipped);
                if twice && D::PROMISES {
                    self.violated(Invariant::Accounting, || {
                        format!("life {id} notes twice that it skipped {slot}")
                    });
                }
            }
            Note::Changed { kind, victims } => {
                use turnwise_engine::ChangeKind::{Join, Leave, Remove, Takeover};
                sometimes!(marks, Mark::Joined, *kind == Join);
                sometimes!(marks, Mark::CameBack, *kind == Join && life.removed);
                sometimes!(marks, Mark::Left, *kind == Leave);
                sometimes!(marks, Mark::Removed, *kind == Remove);
                sometimes!(marks, Mark::RemovedSeveral, victims.len() > 1);
                sometimes!(marks, Mark::TookOver, *kind == Takeover);
                let from = self.database.row.roster.last().map_or(0, |last| last.from.0);
                self.seen(number, Seen::Changed { kind: *kind, from });
                self.removed(victims);
            }
            Note::Left => {
                life.left = true;
                let busy = life.holds() > 0;
                sometimes!(marks, Mark::DrainedWhileBusy, busy);
                self.oracle.ring.extend(now);
            }
            Note::ClockStep => {
                let Oracle { ring, clock, marks, violations, .. } = &mut self.oracle;
                if clock.proved(number, marks) {
                    ring.step_proven(now, marks, violations);
                }
            }
            Note::ServerChanged => {
                marks.reach(Mark::ServerChanged);
                self.oracle.clock.forgot(number);
            }
            _ => {}
        }
    }

    fn removed(&mut self, victims: &[NodeId]) {
        for victim in victims {
            let life = life_of(*victim);
            let host = self.lives[life as usize];
            if let Some(life) = &mut self.hosts[host as usize].life
                && life.id == *victim
            {
                life.removed = true;
                self.oracle.marks.reach(Mark::RemovedAlive);
                let number = life.number;
                let Oracle { ring, violations, .. } = &mut self.oracle;
                if D::PROMISES {
                    ring.removed_alive(self.now, number, violations);
                }
            }
        }
    }

    /// A node that has left stops when it holds nothing any more, and knows it.
    fn stop_if_done(&mut self, number: u32) {
        let life = self.hosts[number as usize].life.as_ref();
        let knows = |life: &Life<D>| life.machine.held() == Some(0) || !D::PROMISES;
        if life.is_some_and(|life| life.left && life.holds() == 0 && knows(life)) {
            self.departs(number);
            self.stop(number, Seen::Left);
        }
    }

    fn disturbed(&mut self, until: u64, what: Disturbance) {
        let Oracle { ring, marks, violations, .. } = &mut self.oracle;
        ring.disturbed(self.now, until.max(self.now), what, marks, violations);
    }

    fn violated(&mut self, invariant: Invariant, detail: impl FnOnce() -> String) {
        self.oracle.violations.add(self.now, invariant, detail);
    }

    /// Fold into the hash of all that happened.
    fn trace(&mut self, values: [u64; 3]) {
        let mut hash = self.hash;
        for value in [self.now, values[0], values[1], values[2]] {
            hash = (hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        self.hash = hash;
    }

    fn seen(&mut self, host: u32, seen: Seen) {
        if let Some(picture) = &mut self.picture {
            picture.add(self.now, host, seen);
        }
    }

    fn push(&mut self, at: u64, what: What) {
        self.events += 1;
        self.queue.push(Event { at, order: self.events, what });
    }

    fn finish(&mut self) {
        self.check_overdue();
        let Oracle { ring, clock, violations, marks, .. } = &mut self.oracle;
        ring.finish(self.now, marks, violations);
        if D::PROMISES {
            clock.finish(self.now, violations);
        }
        self.end_journals();
    }
}

/// A machine that wakes for ever at one instant would hang the lab: its process is taken away.
fn life_over<D>(host: &mut Host<D>) -> bool {
    match &host.life {
        Some(life) if life.same_instant.1 > 2 * SAME_INSTANT_MAX => {
            host.life = None;
            true
        }
        _ => false,
    }
}
