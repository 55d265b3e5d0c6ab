//! Decides what happens next in a small farm of engines with one turn row: which event is due, what it does,
//! and which faults may be put in just before it. Does not judge: that is `watch`.
//!
//! Local clocks run at the true rate, each from an epoch of its own; each way of each node takes a fixed time,
//! a little different from the others' so that no two events fall together by accident. No node claims jobs.

mod strike;
mod tell;

use turnwise_engine::{
    Config, Engine, Exchange, Fate, Input, Kept, LocalInstant, NodeId, Note, Output, Period,
    RequestId, Sabotage, ServerIdentity, ServerInstant, Slot, TurnAnswer, TurnKind, TurnRow,
    TurnStatement, WorkAnswer,
};

use super::Farm;
use super::fault::Kind;
use super::watch::{Arrival, Rule, Watch};

pub(super) const MILLI: u64 = 1_000_000;
/// The length of a slot, in nanoseconds.
pub(super) const SLOT: u64 = Period::DEFAULT.as_nanos().unsigned_abs();
/// Server time at the start: a boundary of slots.
const START_NANOS: i64 = 1_780_000_000_000_000_000;
/// A connection that breaks is noticed so much later, in nanoseconds.
const NOTICED_AFTER: u64 = 100_000;
/// So many statements back a failover may go.
const PAST_KEPT: usize = 2;

/// Everything that there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World<S: Sabotage> {
    /// True time since the start, in nanoseconds.
    pub(super) now: u64,
    /// How many events have happened.
    pub(super) events: u32,
    pub(super) nodes: Vec<Node<S>>,
    pub(super) row: TurnRow,
    /// The row before each of the last statements, oldest first; kept only where a failover may happen.
    past: Vec<TurnRow>,
    server: i64,
    step: i64,
    out_until: u64,
    out_refuses: bool,
    wire: Vec<Message>,
    /// The last moment of the grid that has passed.
    grid: u64,
    pub(super) watch: Watch,
}

/// A process that lives, or lived.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Node<S: Sabotage> {
    id: NodeId,
    /// None once it has crashed or left.
    engine: Option<Box<Engine<S>>>,
    leaving: bool,
    /// Local time minus true time.
    ahead: u64,
    paused_until: Option<u64>,
    timer_first: bool,
    inbox: Vec<Input>,
    /// The statement on the turn row whose answer the engine still wants.
    awaited: Option<RequestId>,
    /// When that was sent.
    sent_at: u64,
    last_wake: u64,
    /// So many timers in a row were for the same instant.
    same_instant: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Message {
    at: u64,
    node: u8,
    request: RequestId,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum What {
    Request { sent: LocalInstant, statement: Box<TurnStatement> },
    Answer(Box<TurnAnswer>),
    Broken(Fate),
}

/// The event that is due next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Resume(u8),
    Request {
        node: u8,
        index: usize,
    },
    Answer {
        node: u8,
        index: usize,
    },
    Broken {
        node: u8,
        index: usize,
    },
    Wake(u8),
    /// A moment at which nothing happens, unless a fault is put in there.
    Grid,
}

impl<S: Sabotage> World<S> {
    pub(super) fn new() -> Self {
        Self {
            now: 0,
            events: 0,
            nodes: Vec::new(),
            row: TurnRow::new(Period::DEFAULT),
            past: Vec::new(),
            server: 1,
            step: 0,
            out_until: 0,
            out_refuses: false,
            wire: Vec::new(),
            grid: 0,
            watch: Watch::default(),
        }
    }

    /// How many nodes run.
    pub(super) fn up(&self) -> usize {
        self.nodes.iter().filter(|node| node.engine.is_some()).count()
    }

    /// How many nodes run and are not told to leave.
    fn live(&self) -> usize {
        self.live_nodes().count()
    }

    fn live_nodes(&self) -> impl Iterator<Item = &Node<S>> {
        self.nodes.iter().filter(|node| node.engine.is_some() && !node.leaving)
    }

    /// Judge the end of a path, at `end`.
    pub(super) fn judge(&mut self, end: u64) {
        let live = self.live();
        let mut ring = self.row.roster.last().map(|last| last.ring.clone()).unwrap_or_default();
        let mut members: Vec<_> = self.live_nodes().map(|node| node.id).collect();
        ring.sort_unstable();
        members.sort_unstable();
        if live > 0 && ring != members {
            let how = format!("{live} nodes are alive, and the ring is: {}", self.describe_row());
            self.watch.breaks(Rule::Settled, end, how);
        }
        if self.up() > live {
            self.watch.breaks(Rule::Settled, end, "a node has not left yet".to_owned());
        }
        self.watch.judge(end, live > 0);
    }

    /// The paths begin here, at `now`.
    pub(super) fn begin(&mut self, farm: &Farm, now: u64) {
        self.now = now;
        self.grid = now;
        self.watch.begin(now, farm.only_safety);
    }

    /// The next event and when it is due; `grid` is where in each slot there are moments of the grid.
    pub(super) fn next(&self, grid: &[u32]) -> Option<(u64, Event)> {
        let nodes = self.nodes.iter().enumerate().filter_map(|(number, node)| {
            let engine = node.engine.as_ref()?;
            let number = number as u8;
            if let Some(until) = node.paused_until {
                return Some((until, Event::Resume(number)));
            }
            let (at, _) = engine.poll_timeout()?;
            Some((at.as_nanos().saturating_sub(node.ahead).max(self.now), Event::Wake(number)))
        });
        let wire = self.wire.iter().enumerate().map(|(index, message)| {
            let node = message.node;
            let event = match message.what {
                What::Request { .. } => Event::Request { node, index },
                What::Answer(_) => Event::Answer { node, index },
                What::Broken(_) => Event::Broken { node, index },
            };
            (message.at.max(self.now), event)
        });
        let grid = grid.iter().map(|phase| {
            let phase = u64::from(*phase) * MILLI;
            let slots = (self.grid + SLOT - phase) / SLOT;
            ((slots * SLOT + phase).max(self.now), Event::Grid)
        });
        nodes.chain(wire).chain(grid).min()
    }

    /// Let the next event happen. False when there is none.
    pub(super) fn advance(&mut self, farm: &Farm, grid: &[u32]) -> bool {
        let Some((at, event)) = self.next(grid) else {
            return false;
        };
        self.now = at;
        self.events += 1;
        match event {
            Event::Resume(node) => self.resume(farm, node),
            Event::Request { index, .. } => self.arrive(farm, index),
            Event::Answer { node, index } => {
                if let Message { what: What::Answer(answer), .. } = self.wire.remove(index) {
                    self.input(farm, node, Input::TurnAnswer(answer));
                }
            }
            Event::Broken { node, index } => {
                let message = self.wire.remove(index);
                if let What::Broken(fate) = message.what {
                    self.input(farm, node, Input::Failed { request: message.request, fate });
                }
            }
            Event::Wake(node) => self.wake(farm, node),
            Event::Grid => self.grid = self.now,
        }
        true
    }

    /// A new node comes up.
    pub(super) fn start(&mut self, farm: &Farm) {
        let number = self.nodes.len() as u8;
        let id = NodeId::from_u128(0xa0 + u128::from(number));
        // Epochs in whole microseconds, like the server's stamps, so that no rounding blurs the clock.
        let ahead = (1 + u64::from(number)) * 1_000_003_000_000_000;
        let local = LocalInstant::from_nanos(self.now + ahead);
        let seed = farm.seed.wrapping_mul(1_000).wrapping_add(u64::from(number));
        let mut engine = Engine::new(id, Config { capacity: 1 }, seed, local);
        // Without a target nothing is claimed: the turns are all that is looked at.
        engine.handle_input(local, Input::Target { reachable: false });
        self.nodes.push(Node {
            id,
            engine: Some(Box::new(engine)),
            leaving: false,
            ahead,
            paused_until: None,
            timer_first: false,
            inbox: Vec::new(),
            sent_at: 0,
            awaited: None,
            last_wake: u64::MAX,
            same_instant: 0,
        });
        self.drain(farm, number);
    }

    fn wake(&mut self, farm: &Farm, number: u8) {
        let now = self.now;
        let node = &mut self.nodes[usize::from(number)];
        node.same_instant = if node.last_wake == now { node.same_instant + 1 } else { 0 };
        node.last_wake = now;
        if node.same_instant >= 100 {
            self.watch.armed_for_ever(now, number);
        }
        self.input(farm, number, Input::Wake);
    }

    fn resume(&mut self, farm: &Farm, number: u8) {
        let node = &mut self.nodes[usize::from(number)];
        node.paused_until = None;
        let timer_first = std::mem::take(&mut node.timer_first);
        let inbox = std::mem::take(&mut node.inbox);
        if timer_first {
            self.input(farm, number, Input::Wake);
        }
        for input in inbox {
            self.input(farm, number, input);
        }
        self.input(farm, number, Input::Wake);
    }

    fn input(&mut self, farm: &Farm, number: u8, mut input: Input) {
        let node = &mut self.nodes[usize::from(number)];
        let Some(engine) = &mut node.engine else {
            return;
        };
        if node.paused_until.is_some() {
            if input != Input::Wake {
                node.inbox.push(input);
            }
            return;
        }
        let local = LocalInstant::from_nanos(self.now + node.ahead);
        match &mut input {
            Input::TurnAnswer(answer) => {
                if node.awaited == Some(answer.request) {
                    node.awaited = None;
                }
                if let Some(exchange) = &mut answer.exchange {
                    exchange.received = local;
                }
            }
            Input::Failed { request, .. } if node.awaited == Some(*request) => node.awaited = None,
            _ => {}
        }
        engine.handle_input(local, input);
        self.drain(farm, number);
    }

    fn drain(&mut self, farm: &Farm, number: u8) {
        loop {
            let node = &mut self.nodes[usize::from(number)];
            let Some(output) = node.engine.as_mut().and_then(|engine| engine.poll_output()) else {
                return;
            };
            self.output(farm, number, output);
        }
    }

    fn output(&mut self, farm: &Farm, number: u8, output: Output) {
        let node = &mut self.nodes[usize::from(number)];
        let sent = LocalInstant::from_nanos(self.now + node.ahead);
        match output {
            Output::Turn { request, statement, not_after, .. } => {
                if sent > not_after {
                    self.watch.asked_late(self.now, number);
                }
                node.awaited = Some(request);
                node.sent_at = self.now;
                if let (TurnKind::Beat { .. }, Some(slot)) = (&statement.kind, statement.believed) {
                    self.watch.fired(self.now, slot, number);
                }
                let at = self.now + farm.way_there(number);
                let what = What::Request { sent, statement: Box::new(statement) };
                self.wire.push(Message { at, node: number, request, what });
            }
            Output::Work { request, .. } => {
                let answer = WorkAnswer {
                    request,
                    sent,
                    claimed: 0,
                    more: false,
                    kept: Kept::default(),
                    lost: false,
                };
                if let Some(engine) = &mut node.engine {
                    engine.handle_input(sent, Input::WorkAnswer(answer));
                }
            }
            Output::Abandon(request) => {
                node.awaited = None;
                if self.now - node.sent_at > SLOT {
                    // It was patient, as a newcomer is with its first statement and whoever has seen a slow
                    // answer is for a while: what cost it the answer lasts until here.
                    self.watch.noticed_late(self.now);
                }
                // The answer goes nowhere; the request may arrive all the same.
                self.wire.retain(|message| {
                    message.node != number
                        || message.request != request
                        || matches!(message.what, What::Request { .. })
                });
            }
            Output::Note(Note::Left) | Output::Retire(_) => self.end(number),
            Output::Note(_) => {}
        }
    }

    /// The process is over; what it has sent is on its way.
    fn end(&mut self, number: u8) {
        let node = &mut self.nodes[usize::from(number)];
        node.engine = None;
        node.paused_until = None;
        node.inbox.clear();
        node.awaited = None;
        self.wire.retain(|message| {
            message.node != number || matches!(message.what, What::Request { .. })
        });
        self.see_who_is_left();
    }

    /// Tell the watch when nobody is left, or nobody in the ring.
    fn see_who_is_left(&mut self) {
        if self.live() == 0 {
            self.watch.nobody_is_left();
        }
        if !self.live_nodes().any(|node| self.row.roster.is_member(node.id)) {
            self.watch.ring_is_deserted();
        }
    }

    fn arrive(&mut self, farm: &Farm, index: usize) {
        let message = self.wire.remove(index);
        let (number, request) = (message.node, message.request);
        let What::Request { sent, statement } = message.what else {
            return;
        };
        if self.now < self.out_until {
            if self.out_refuses {
                let at = self.now + farm.way_back(number);
                self.tell(number, request, at, What::Broken(Fate::NotSent));
            }
            return;
        }
        if farm.allows(Kind::Failover) {
            if self.past.len() == PAST_KEPT {
                self.past.remove(0);
            }
            self.past.push(self.row.clone());
        }
        let answer = self.execute(number, request, sent, &statement);
        let at = self.now + farm.way_back(number);
        self.tell(number, request, at, What::Answer(Box::new(answer)));
    }

    /// Send something to a node, if it still wants to hear about `request`.
    fn tell(&mut self, node: u8, request: RequestId, at: u64, what: What) {
        if self.nodes[usize::from(node)].awaited == Some(request) {
            self.wire.push(Message { at, node, request, what });
        }
    }

    fn execute(
        &mut self,
        number: u8,
        request: RequestId,
        sent: LocalInstant,
        statement: &TurnStatement,
    ) -> TurnAnswer {
        let clock = ServerInstant::from_nanos(START_NANOS + self.now as i64 + self.step);
        let sender = Some(statement.node);
        let identity = ServerIdentity { started: self.server, timeline: 1 };
        let now = self.row.stamp_with::<S>(clock, sender, statement.believed);
        let done = match &statement.kind {
            TurnKind::Read => true,
            TurnKind::Beat { .. } => self.row.beat_with::<S>(now),
            TurnKind::Change { change, identity: computed_for } => {
                let done =
                    *computed_for == identity && self.row.change_with::<S>(now, sender, change);
                if done && !change.victims.is_empty() {
                    self.watch.removed(self.now, number);
                }
                done
            }
        };
        let up = self.up() as i64;
        let is_beat = matches!(statement.kind, TurnKind::Beat { .. });
        self.watch.arrived(&Arrival {
            at: self.now,
            node: number,
            slot: now,
            believed: statement.believed.unwrap_or(Slot(0)),
            is_beat,
            accepted: is_beat && done,
            in_turn: self.row.roster.owner(now) == sender,
            pending: self.row.roster.last().map_or(0, |last| last.from - now).max(0),
            ring: self.row.roster.largest_ring(now - 1, now + 1_000),
            up,
        });
        TurnAnswer {
            request,
            exchange: Some(Exchange {
                sent,
                arrived: clock,
                answered: clock,
                received: sent,
                resolution: 1_000,
            }),
            identity,
            now,
            done,
            row: self.row.clone(),
            claimed: 0,
            more: false,
            kept: Kept::default(),
            lost: false,
        }
    }
}
