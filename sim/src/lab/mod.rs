//! Decides what happens when in a farm of engines: local clocks, links, faults, one database. Does not
//! judge: that is `report`.

mod report;

use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use turnwise_engine::{
    Config, Engine, Exchange, Fate, Input, LocalInstant, NodeId, Note, Output, Period, RequestId,
    ServerIdentity, ServerInstant, Slot, TurnAnswer, TurnKind, TurnRow, TurnStatement, WorkAnswer,
};

pub use report::{Arrival, Report};

/// Server time at the start of a run: some Tuesday in 2026.
const START_NANOS: i64 = 1_780_000_000_000_000_000;

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed of all chance.
    pub seed: u64,
    /// The time between polls.
    pub period: Period,
    /// The nodes that are there from the start; they come up within the first period.
    pub nodes: u32,
    /// The way to the database and the way back of each node lie in here, drawn once a node and way.
    pub base_latency: (Duration, Duration),
    /// Up to so much is added to each way of each statement.
    pub jitter: Duration,
    /// Local clocks are wrong by up to this many parts per million.
    pub drift_ppm: i64,
    /// How long is simulated.
    pub duration: Duration,
    /// What goes wrong, and when (since the start).
    pub faults: Vec<(Duration, Fault)>,
}

/// What can go wrong, or simply happen. Nodes are numbered from 0 in the order in which they came up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A new node comes up.
    Join,
    /// The node leaves in good order.
    Leave(u32),
    /// The node's process is killed.
    Crash(u32),
    /// The node stops for a while; its clock goes on.
    Pause(u32, Duration),
    /// The next statement of the node is lost on its way.
    LoseRequest(u32),
    /// The connection of the node breaks: its next statement fails at once, unexecuted.
    Reset(u32),
    /// The answer to the next statement of the node is lost.
    LoseAnswer(u32),
    /// The server's clock is set forward by so many nanoseconds, or back.
    Step(i64),
    /// The database answers nothing for a while.
    Outage(Duration),
    /// Each way of every node takes so much longer from now on.
    Slow(Duration),
}

/// Run a scenario.
pub fn run(scenario: &Scenario) -> Report {
    let mut lab = Lab::new(scenario);
    lab.run();
    lab.report
}

struct Lab<'a> {
    scenario: &'a Scenario,
    random: Pcg64Mcg,
    /// True time since the start, in nanoseconds.
    now: u64,
    queue: BinaryHeap<Event>,
    events: u64,
    nodes: Vec<Node>,
    row: TurnRow,
    server_step: i64,
    out_until: u64,
    /// What is added to each way.
    slower: u64,
    report: Report,
}

struct Node {
    id: NodeId,
    engine: Engine,
    alive: bool,
    paused_until: u64,
    /// Local time is `offset + now + now * ppm / 1e6`.
    offset: u64,
    drift_ppm: i64,
    there: u64,
    back: u64,
    lose_request: bool,
    lose_answer: bool,
    reset: bool,
    /// The wake-up that counts; older ones are ignored.
    wake: u64,
    inbox: Vec<Input>,
}

struct Event {
    at: u64,
    order: u64,
    what: What,
}

enum What {
    Fault(Fault),
    Start,
    Wake { node: u32, number: u64 },
    Resume(u32),
    Arrive { node: u32, request: RequestId, sent: LocalInstant, statement: Box<TurnStatement> },
    Broken { node: u32, request: RequestId },
    Answer { node: u32, answer: Box<TurnAnswer> },
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

impl<'a> Lab<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let mut lab = Self {
            scenario,
            random: Pcg64Mcg::seed_from_u64(scenario.seed),
            now: 0,
            queue: BinaryHeap::new(),
            events: 0,
            nodes: Vec::new(),
            row: TurnRow::new(scenario.period),
            server_step: 0,
            out_until: 0,
            slower: 0,
            report: Report::new(scenario.period),
        };
        for _ in 0..scenario.nodes {
            let at = lab.below(scenario.period.as_nanos() as u64);
            lab.push(at, What::Start);
        }
        for (at, fault) in &scenario.faults {
            lab.push(at.as_nanos() as u64, What::Fault(*fault));
        }
        lab
    }

    fn run(&mut self) {
        let end = self.scenario.duration.as_nanos() as u64;
        while let Some(event) = self.queue.pop() {
            if event.at > end {
                break;
            }
            self.now = event.at;
            self.happen(event.what);
        }
        self.report.end(self.now, self.row.clone());
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Start => self.start(),
            What::Fault(fault) => self.fault(fault),
            What::Wake { node, number } => {
                if self.nodes[node as usize].wake == number {
                    self.input(node, Input::Wake);
                }
            }
            What::Resume(node) => {
                let inbox = std::mem::take(&mut self.nodes[node as usize].inbox);
                for input in inbox {
                    self.input(node, input);
                }
                self.input(node, Input::Wake);
            }
            What::Arrive { node, request, sent, statement } => {
                self.arrive(node, request, sent, &statement);
            }
            What::Broken { node, request } => {
                self.input(node, Input::Failed { request, fate: Fate::Unknown });
            }
            What::Answer { node, answer } => self.input(node, Input::TurnAnswer(answer)),
        }
    }

    fn start(&mut self) {
        let number = self.nodes.len() as u32;
        let (least, most) = self.scenario.base_latency;
        let spread = (most - least).as_nanos() as u64 + 1;
        let there = least.as_nanos() as u64 + self.below(spread);
        let back = least.as_nanos() as u64 + self.below(spread);
        let drift = 2 * self.scenario.drift_ppm.unsigned_abs() + 1;
        let drift_ppm = self.below(drift) as i64 - self.scenario.drift_ppm;
        let offset = self.below(1_000_000_000_000_000);
        let id = NodeId::from_u128(0x1000 + u128::from(number));
        let seed = self.random.next_u64();
        let mut node = Node {
            id,
            engine: Engine::new(id, Config { capacity: 8 }, seed, LocalInstant::from_nanos(0)),
            alive: true,
            paused_until: 0,
            offset,
            drift_ppm,
            there,
            back,
            lose_request: false,
            lose_answer: false,
            reset: false,
            wake: 0,
            inbox: Vec::new(),
        };
        node.engine = Engine::new(id, Config { capacity: 8 }, seed, local_time(&node, self.now));
        self.nodes.push(node);
        self.report.joined(self.now, id);
        self.input(number, Input::Wake);
    }

    fn fault(&mut self, fault: Fault) {
        self.report.fault(self.now, fault);
        match fault {
            Fault::Join => self.start(),
            Fault::Leave(node) => {
                if self.is_up(node) {
                    self.input(node, Input::Leave);
                }
            }
            Fault::Crash(node) => {
                if let Some(node) = self.nodes.get_mut(node as usize) {
                    node.alive = false;
                }
            }
            Fault::Pause(number, duration) => {
                let until = self.now + duration.as_nanos() as u64;
                if let Some(node) = self.nodes.get_mut(number as usize) {
                    node.paused_until = until;
                    self.push(until, What::Resume(number));
                }
            }
            Fault::LoseRequest(node) => {
                if let Some(node) = self.nodes.get_mut(node as usize) {
                    node.lose_request = true;
                }
            }
            Fault::LoseAnswer(node) => {
                if let Some(node) = self.nodes.get_mut(node as usize) {
                    node.lose_answer = true;
                }
            }
            Fault::Reset(node) => {
                if let Some(node) = self.nodes.get_mut(node as usize) {
                    node.reset = true;
                }
            }
            Fault::Step(nanos) => self.server_step += nanos,
            Fault::Slow(more) => self.slower = more.as_nanos() as u64,
            Fault::Outage(duration) => self.out_until = self.now + duration.as_nanos() as u64,
        }
    }

    fn is_up(&self, node: u32) -> bool {
        self.nodes.get(node as usize).is_some_and(|node| node.alive)
    }

    fn input(&mut self, number: u32, input: Input) {
        let node = &mut self.nodes[number as usize];
        if !node.alive {
            return;
        }
        if node.paused_until > self.now {
            if input != Input::Wake {
                node.inbox.push(input);
            }
            return;
        }
        let local = local_time(node, self.now);
        let mut input = input;
        if let Input::TurnAnswer(answer) = &mut input
            && let Some(exchange) = &mut answer.exchange
        {
            exchange.received = local;
        }
        node.engine.handle_input(local, input);
        while let Some(output) = self.nodes[number as usize].engine.poll_output() {
            self.output(number, local, output);
        }
        self.schedule_wake(number);
    }

    fn schedule_wake(&mut self, number: u32) {
        let node = &mut self.nodes[number as usize];
        node.wake += 1;
        let wake = node.wake;
        if let Some((at, reason)) = node.engine.poll_timeout() {
            let at = true_time(node, at).max(self.now);
            let same = at == self.now;
            self.report.timer(number, same, reason);
            self.push(at, What::Wake { node: number, number: wake });
        }
    }

    fn output(&mut self, number: u32, local: LocalInstant, output: Output) {
        match output {
            Output::Turn { request, statement, not_after, .. } => {
                assert!(local <= not_after, "an effect was asked for after its own end");
                self.report.sent();
                let jitter = self.below(self.scenario.jitter.as_nanos() as u64 + 1);
                let node = &mut self.nodes[number as usize];
                let at = self.now + node.there + self.slower + jitter;
                if std::mem::take(&mut node.reset) {
                    self.push(self.now + 100_000, What::Broken { node: number, request });
                    return;
                }
                if std::mem::take(&mut node.lose_request) || self.out_until > at {
                    return;
                }
                self.push(
                    at,
                    What::Arrive {
                        node: number,
                        request,
                        sent: local,
                        statement: Box::new(statement),
                    },
                );
            }
            Output::Work { request, .. } => {
                let answer = WorkAnswer { request, sent: local, claimed: 0, lost: false };
                self.nodes[number as usize].engine.handle_input(local, Input::WorkAnswer(answer));
            }
            Output::Abandon(_) => {}
            Output::Retire(_) => self.nodes[number as usize].alive = false,
            Output::Note(note) => {
                if note == Note::Left {
                    let node = &mut self.nodes[number as usize];
                    node.alive = false;
                    let id = node.id;
                    self.report.left(self.now, id);
                }
            }
        }
    }

    fn arrive(
        &mut self,
        number: u32,
        request: RequestId,
        sent: LocalInstant,
        statement: &TurnStatement,
    ) {
        if self.out_until > self.now {
            return;
        }
        let clock = self.server_clock();
        let now = self.row.stamp(clock, Some(statement.node), statement.believed);
        let identity = ServerIdentity { started: 1, timeline: 1 };
        let done = match &statement.kind {
            TurnKind::Read => true,
            TurnKind::Beat { .. } => {
                let accepted = self.row.beat(now);
                let error = clock.nanos_from(self.row.cadence.boundary(now));
                let owner = self.row.roster.owner(now);
                self.report.beat(Arrival {
                    at: self.now,
                    slot: now,
                    believed: statement.believed.unwrap_or(Slot(0)),
                    node: statement.node,
                    accepted,
                    in_turn: owner == Some(statement.node),
                    error,
                });
                accepted
            }
            TurnKind::Change { change, identity: computed_for } => {
                *computed_for == identity && self.row.change(now, Some(statement.node), change)
            }
        };
        let jitter = self.below(self.scenario.jitter.as_nanos() as u64 + 1);
        let node = &mut self.nodes[number as usize];
        if std::mem::take(&mut node.lose_answer) {
            return;
        }
        let at = self.now + node.back + self.slower + jitter;
        let exchange =
            Exchange { sent, arrived: clock, answered: clock, received: sent, resolution: 1_000 };
        let answer = TurnAnswer {
            request,
            exchange: Some(exchange),
            identity,
            now,
            done,
            row: self.row.clone(),
            claimed: 0,
            lost: false,
        };
        self.push(at, What::Answer { node: number, answer: Box::new(answer) });
    }

    fn server_clock(&self) -> ServerInstant {
        // A database stamps in whole microseconds.
        let nanos = START_NANOS + self.now as i64 + self.server_step;
        ServerInstant::from_nanos(nanos / 1_000 * 1_000)
    }

    fn push(&mut self, at: u64, what: What) {
        self.events += 1;
        self.queue.push(Event { at, order: self.events, what });
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.next_u64() % bound.max(1)
    }
}

fn local_time(node: &Node, now: u64) -> LocalInstant {
    let drift = now as i64 / 1_000_000 * node.drift_ppm;
    LocalInstant::from_nanos((node.offset + now).saturating_add_signed(drift))
}

fn true_time(node: &Node, local: LocalInstant) -> u64 {
    let since = local.as_nanos().saturating_sub(node.offset);
    let mut now = since.saturating_add_signed(-(since as i64 / 1_000_000 * node.drift_ppm));
    // Undo what the first guess missed, and never wake early.
    while local_time(node, now) < local {
        now += (local.nanos_from(local_time(node, now)).unsigned_abs()).max(1);
    }
    now
}

/// Everything that a fault may touch, counted by kind: which faults a set of scenarios has drawn.
pub fn count_faults(scenario: &Scenario) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for (_, fault) in &scenario.faults {
        *counts.entry(fault.name()).or_insert(0) += 1;
    }
    counts
}

impl Fault {
    /// The word for its kind.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Leave(_) => "leave",
            Self::Crash(_) => "crash",
            Self::Pause(..) => "pause",
            Self::LoseRequest(_) => "lost request",
            Self::LoseAnswer(_) => "lost answer",
            Self::Reset(_) => "reset",
            Self::Step(_) => "step",
            Self::Outage(_) => "outage",
            Self::Slow(_) => "slow",
        }
    }
}
