//! The lab: engines alone, driven by a queue of events at nanosecond resolution, against a modelled database
//! over modelled roads. It knows the truth, so it can judge.
//!
//! - `driver`: what a machine that takes turns must offer; `original`: the original design, as the yardstick;
//! - `database`, `host`: the world, with its clocks and roads from `crate::world`;
//! - `turns`: statements on the turn row, there and back; `work`: jobs; `limits`: queues that keep some back; `asks`: whether
//!   who knows of more asks for them; `status`: whether what a node says of itself is so; `faults`: what goes wrong;
//! - `events`: what is planned to happen; `lives`: how processes come up and go; `inputs`: what follows when a machine is told
//!   something; `notes`: what is made of what it notes;
//! - `journals`: what each life was told and asked for, told to a second machine.
//!
//! This module decides how a run begins and when it is over, and hands what happens to those who decide what comes of it: by
//! time, and at one time in the order in which it was planned.

mod asks;
mod database;
mod driver;
mod events;
mod faults;
mod host;
mod inputs;
mod journals;
mod limits;
mod lives;
mod notes;
mod original;
mod status;
mod turns;
mod work;

use std::collections::{BTreeMap, BinaryHeap};

use turnwise_engine::{Fate, Input, Version};

pub use driver::{Driver, Product};
pub use journals::Journal;
pub use original::Original;

use self::database::Database;
use self::events::{Event, What};
use self::host::{Host, id_of};
use self::journals::Journals;
use crate::oracle::{Disturbance, Invariant, Mark, Oracle};
use crate::random::Stream;
use crate::report::{Picture, Report, Seen};
use crate::scenario::{Scenario, Span};
use crate::world::{Local, Mishaps, Roads, Server};

/// A node sends no more statements on the turn row than this in a period.
const STATEMENTS_MAX: u32 = 64;
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
            What::WorkLeaves { request, statement, not_after, .. } => {
                self.work_leaves(host, request, statement, not_after);
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

    fn disturbed(&mut self, until: u64, what: Disturbance) {
        let lives = self.hosts.iter().filter_map(|host| host.life.as_ref());
        let slowest = lives.flat_map(|life| life.round_trips).max().unwrap_or(0);
        self.oracle.ring.slowest_answer(slowest);
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
