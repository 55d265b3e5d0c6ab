//! A farm in a few lines: engines, one row, and the roads between. Decides only when things happen: all that is decided
//! about turns is the engine's.

use std::collections::BTreeMap;

use turnwise_engine::{
    Config, Engine, Exchange, Fate, Input, Kept, LocalInstant, NodeId, Note, Output, Period,
    RequestId, ServerIdentity, ServerInstant, Slot, TurnAnswer, TurnKind, TurnRow, TurnStatement,
    WorkAnswer, WorkStatement,
};

pub(crate) const SECOND: u64 = 1_000_000_000;
/// What the server's clock shows at the beginning.
const EPOCH: i64 = 1_000_000_300_000_000;

/// A statement that left a node.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) node: usize,
    /// The slot in which it left, as the server's clock would have it, and how far into that slot, in nanoseconds from
    /// its boundary.
    pub(crate) slot: Slot,
    pub(crate) after: i64,
    pub(crate) is_read: bool,
}

/// A beat that reached the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Beat {
    pub(crate) slot: Slot,
    pub(crate) node: usize,
    pub(crate) accepted: bool,
    /// How far from its boundary, in nanoseconds.
    pub(crate) error: i64,
}

enum Event {
    Arrive { node: usize, request: RequestId, statement: TurnStatement, sent: u64 },
    Tell { node: usize, input: Input },
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) engine: Engine,
    /// Each way, in nanoseconds.
    pub(crate) way: u64,
    /// So much more than the true time shows its clock.
    ahead: u64,
    asleep_until: u64,
    pub(crate) dead: bool,
    /// So many of its next statements find their connection broken.
    pub(crate) broken: u32,
    /// The answers to so many of its next statements are lost.
    pub(crate) unheard: u32,
}

pub(crate) struct Farm {
    pub(crate) row: TurnRow,
    pub(crate) identity: ServerIdentity,
    pub(crate) nodes: Vec<Node>,
    pub(crate) now: u64,
    /// Server time less true time.
    pub(crate) server: i64,
    /// The database is away: every statement fails.
    pub(crate) down: bool,
    /// The database is away, and says nothing at all.
    pub(crate) silent: bool,
    pub(crate) beats: Vec<Beat>,
    pub(crate) sent: Vec<Sent>,
    pub(crate) notes: Vec<(usize, Note)>,
    pub(crate) abandoned: usize,
    pub(crate) work: Vec<(usize, WorkStatement)>,
    events: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
}

impl Farm {
    /// A settled ring of so many.
    pub(crate) fn settled(nodes: usize) -> Self {
        Self::settled_with(nodes, Period::DEFAULT)
    }

    pub(crate) fn settled_with(nodes: usize, period: Period) -> Self {
        let mut farm = Self::empty(period);
        for _ in 0..nodes {
            farm.start();
            farm.run(0.13);
        }
        farm.run(30.0);
        farm.forget();
        farm
    }

    pub(crate) fn empty(period: Period) -> Self {
        Self {
            row: TurnRow::new(period),
            identity: ServerIdentity { started: 1, timeline: 1 },
            nodes: Vec::new(),
            now: SECOND,
            server: EPOCH,
            down: false,
            silent: false,
            beats: Vec::new(),
            sent: Vec::new(),
            notes: Vec::new(),
            abandoned: 0,
            work: Vec::new(),
            events: BTreeMap::new(),
            scheduled: 0,
        }
    }

    /// One more node starts; its number.
    pub(crate) fn start(&mut self) -> usize {
        let number = self.nodes.len();
        let id = NodeId::from_u128(number as u128 + 1);
        let ahead = number as u64 * 777 * SECOND;
        let now = LocalInstant::from_nanos(self.now + ahead);
        let engine = Engine::new(id, Config { capacity: 4 }, number as u64, now);
        let way = 3_000_000 * (number as u64 + 1);
        let node =
            Node { id, engine, way, ahead, asleep_until: 0, dead: false, broken: 0, unheard: 0 };
        self.nodes.push(node);
        number
    }

    /// What was seen so far does not count.
    pub(crate) fn forget(&mut self) {
        self.beats.clear();
        self.sent.clear();
        self.notes.clear();
        self.work.clear();
        self.abandoned = 0;
    }

    pub(crate) fn run(&mut self, seconds: f64) {
        self.run_until(self.now + (seconds * SECOND as f64) as u64);
    }

    /// Until shortly before the boundary of this node's next turn.
    pub(crate) fn run_to_turn_of(&mut self, node: usize, before: u64) -> Slot {
        let slot = self.nodes[node].engine.next_turn().unwrap();
        let boundary = self.row.cadence.boundary(slot).as_nanos() - self.server;
        self.run_until(boundary.unsigned_abs() - before);
        slot
    }

    pub(crate) fn run_until(&mut self, end: u64) {
        loop {
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let wake = (0..self.nodes.len()).filter_map(|n| Some((self.wakes_at(n)?, n))).min();
            match (event, wake) {
                (Some(at), wake) if at <= end && wake.is_none_or(|(when, _)| at <= when) => {
                    self.now = self.now.max(at);
                    let event = self.events.pop_first().unwrap().1;
                    self.happen(event);
                }
                (_, Some((at, node))) if at <= end => {
                    self.now = self.now.max(at);
                    self.tell(node, Input::Wake);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    pub(crate) fn sleep(&mut self, node: usize, seconds: f64) {
        self.nodes[node].asleep_until = self.now + (seconds * SECOND as f64) as u64;
    }

    pub(crate) fn tell(&mut self, number: usize, input: Input) {
        let node = &mut self.nodes[number];
        if node.dead {
            return;
        }
        node.engine.handle_input(LocalInstant::from_nanos(self.now + node.ahead), input);
        while let Some(output) = self.nodes[number].engine.poll_output() {
            self.carry_out(number, output);
        }
    }

    /// Slots between the first and the last accepted beat that had none.
    pub(crate) fn missed(&self) -> i64 {
        let mut slots = self.beats.iter().filter(|beat| beat.accepted).map(|beat| beat.slot);
        let (Some(first), Some(last)) = (slots.next(), slots.next_back()) else { return i64::MAX };
        last - first + 1 - self.accepted()
    }

    pub(crate) fn accepted(&self) -> i64 {
        self.beats.iter().filter(|beat| beat.accepted).count() as i64
    }

    pub(crate) fn refused(&self) -> i64 {
        self.beats.len() as i64 - self.accepted()
    }

    /// The numbers of the nodes of the newest ring, sorted.
    pub(crate) fn ring(&self) -> Vec<usize> {
        let ring = &self.row.roster.last().unwrap().ring;
        (0..self.nodes.len()).filter(|number| ring.contains(&self.nodes[*number].id)).collect()
    }

    pub(crate) fn clock(&self) -> ServerInstant {
        ServerInstant::from_nanos(self.now as i64 + self.server)
    }

    fn wakes_at(&self, number: usize) -> Option<u64> {
        let node = &self.nodes[number];
        let (at, _) = node.engine.poll_timeout().filter(|_| !node.dead)?;
        Some(at.as_nanos().saturating_sub(node.ahead).max(node.asleep_until).max(self.now))
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.scheduled += 1;
        self.events.insert((at, self.scheduled), event);
    }

    fn carry_out(&mut self, number: usize, output: Output) {
        let now = self.now;
        let node = &mut self.nodes[number];
        let way = node.way;
        match output {
            Output::Turn { request, statement, not_after, .. } => {
                assert!(now + node.ahead <= not_after.as_nanos(), "it is asked for too late");
                if node.broken > 0 {
                    node.broken -= 1;
                    let input = Input::Failed { request, fate: Fate::Unknown };
                    self.schedule(now + 1_000_000, Event::Tell { node: number, input });
                    return;
                }
                let slot = self.row.cadence.slot_at(self.clock());
                let after = self.clock().nanos_from(self.row.cadence.boundary(slot));
                let is_read = statement.kind == TurnKind::Read;
                self.sent.push(Sent { node: number, slot, after, is_read });
                let arrive = Event::Arrive { node: number, request, statement, sent: now };
                self.schedule(now + way, arrive);
            }
            Output::Work { request, statement, .. } => {
                self.work.push((number, statement));
                let sent = LocalInstant::from_nanos(now + node.ahead);
                let answer = WorkAnswer {
                    request,
                    sent,
                    claimed: 0,
                    more: false,
                    kept: Kept::default(),
                    lost: false,
                };
                let input = Input::WorkAnswer(answer);
                self.schedule(now + 2 * way, Event::Tell { node: number, input });
            }
            Output::Abandon(_) => self.abandoned += 1,
            Output::Note(note) => self.notes.push((number, note)),
            Output::Retire(_) => unreachable!("nobody is declared lost here"),
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tell { node, input } => {
                let asleep_until = self.nodes[node].asleep_until;
                if asleep_until > self.now {
                    self.schedule(asleep_until, Event::Tell { node, input });
                } else {
                    self.tell(node, input);
                }
            }
            Event::Arrive { node, request, statement, sent } => {
                if self.silent {
                    return;
                }
                let way = self.nodes[node].way;
                let input = match self.down {
                    true => Input::Failed { request, fate: Fate::Unknown },
                    false => self.execute(node, request, &statement, sent),
                };
                if self.nodes[node].unheard > 0 {
                    self.nodes[node].unheard -= 1;
                    return;
                }
                self.schedule(self.now + way, Event::Tell { node, input });
            }
        }
    }

    fn execute(
        &mut self,
        number: usize,
        request: RequestId,
        said: &TurnStatement,
        sent: u64,
    ) -> Input {
        let clock = self.clock();
        let sender = Some(said.node);
        let now = self.row.stamp(clock, sender, said.believed);
        let done = match &said.kind {
            TurnKind::Read => true,
            TurnKind::Beat { .. } => {
                let accepted = self.row.beat(now);
                let error = clock.nanos_from(self.row.cadence.boundary(now));
                self.beats.push(Beat { slot: now, node: number, accepted, error });
                accepted
            }
            TurnKind::Change { change, identity } => {
                *identity == self.identity && self.row.change(now, sender, change)
            }
        };
        let Node { way, ahead, .. } = self.nodes[number];
        let exchange = Exchange {
            sent: LocalInstant::from_nanos(sent + ahead),
            arrived: clock,
            answered: clock,
            received: LocalInstant::from_nanos(self.now + way + ahead),
            resolution: 1,
        };
        Input::TurnAnswer(Box::new(TurnAnswer {
            request,
            exchange: Some(exchange),
            identity: self.identity,
            now,
            done,
            row: self.row.clone(),
            claimed: 0,
            more: false,
            kept: Kept::default(),
            lost: false,
        }))
    }
}
