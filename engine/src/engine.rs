//! The engine as a whole: one entry, one exit. It hands each input to the part that decides about it and
//! queues what the parts want done. Decides nothing itself.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::clock::{Clock, Offset};
use crate::io::{
    Fate, Input, Note, Output, Reason, RequestId, Retirement, TurnAnswer, TurnKind, TurnStatement,
    WorkStatement,
};
use crate::random::Random;
use crate::sabotage::{Bug, Sabotage, Sound};
use crate::turn::TurnRow;
use crate::turns::{self, Phase, Turns};
use crate::units::{LocalInstant, NodeId, Slot};
use crate::work::{self, Took, Work};

/// What a node is told about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// How many jobs it runs at once, at least 1.
    pub capacity: u32,
}

/// The state machine of one node.
///
/// The rule of use: after every [`Engine::handle_input`], call [`Engine::poll_output`] until it gives none,
/// then sleep until [`Engine::poll_timeout`] or until something happens, and hand that in. Time is always
/// passed in and never goes back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Engine<S: Sabotage = Sound> {
    id: NodeId,
    clock: Clock<S>,
    turns: Turns<S>,
    work: Work<S>,
    random: Random,
    outputs: VecDeque<Output>,
    notes: Vec<Note>,
    requests: u64,
    now: LocalInstant,
    retired: bool,
}

/// What an engine knows, for people to see.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Status {
    /// The offset of the server's clock; none before the first exchange.
    pub offset: Option<Offset>,
    /// The way to the database in nanoseconds, as far as the offset is known.
    pub way_there: Option<i64>,
    /// The place in the newest ring, from 0; none outside of it.
    pub rank: Option<u32>,
    /// The slot that it is, as far as known.
    pub slot: Option<Slot>,
    /// This node's next turn.
    pub next_turn: Option<Slot>,
    /// Jobs held.
    pub held: u32,
    /// No claim is on its way or lost: nothing but `held` can be this node's.
    pub settled: bool,
    /// Out of the ring for good.
    pub left: bool,
}

impl<S: Sabotage> Engine<S> {
    /// An engine that knows nothing yet. `seed` is for the jitter of retries.
    pub fn new(id: NodeId, config: Config, seed: u64, now: LocalInstant) -> Self {
        Self {
            id,
            clock: Clock::default(),
            turns: Turns::new(id, now),
            work: Work::new(config.capacity),
            random: Random::new(seed),
            outputs: VecDeque::new(),
            notes: Vec::new(),
            requests: 0,
            now,
            retired: false,
        }
    }

    /// The node's id.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The newest turn row that this node has seen.
    pub fn row(&self) -> Option<&TurnRow> {
        self.turns.row()
    }

    /// What it knows of the server's clock.
    pub fn clock(&self) -> &Clock<S> {
        &self.clock
    }

    /// The jobs that it counts as this node's; none while a claim is on its way or lost.
    pub fn held(&self) -> Option<u32> {
        self.work.is_settled().then(|| self.work.held())
    }

    /// This node's next turn after its last read, as it saw the row then.
    pub fn next_turn(&self) -> Option<Slot> {
        self.turns.outlook().and_then(|(_, turn)| turn)
    }

    /// What the engine knows at `now`.
    pub fn status(&self, now: LocalInstant) -> Status {
        let offset = self.clock.offset(now);
        let way_there = match (offset, self.clock.transit(now)) {
            (Some(offset), Some(transit)) => Some(transit.saturating_sub(offset.nanos)),
            _ => None,
        };
        let rank = self.turns.row().and_then(|row| {
            let ring = &row.roster.last()?.ring;
            let place = ring.iter().position(|node| *node == self.id)?;
            u32::try_from(place).ok()
        });
        Status {
            offset,
            way_there,
            rank,
            slot: self.turns.believed(now, &self.clock),
            next_turn: self.turns.outlook().and_then(|(_, turn)| turn),
            held: self.work.held(),
            settled: self.work.is_settled(),
            left: self.turns.phase() == Phase::Left,
        }
    }

    /// Tell the engine that something happened at `now`.
    pub fn handle_input(&mut self, now: LocalInstant, input: Input) {
        self.now = self.now.max(now);
        if self.retired {
            return;
        }
        let now = self.now;
        match input {
            Input::Wake => {}
            Input::TurnAnswer(answer) => self.turn_answered(now, *answer),
            Input::WorkAnswer(answer) => {
                if answer.lost && !S::plants(Bug::LossIsIgnored) {
                    self.retire();
                    return;
                }
                let took = Took { claimed: answer.claimed, more: answer.more, kept: answer.kept };
                if self.work.answered(now, answer.request, took) {
                    self.work.checked_in(answer.sent);
                }
            }
            Input::Failed { request, fate } => self.failed(now, request, fate),
            Input::JobsEnded { jobs, sent } => {
                self.work.ended(jobs);
                self.work.checked_in(sent);
            }
            Input::Target { reachable } => self.work.target(reachable),
            Input::Leave => {
                self.work.stop();
                self.turns.leave(now, &self.clock, &mut self.notes);
            }
        }
        self.act(now);
        self.outputs.extend(self.notes.drain(..).map(Output::Note));
    }

    /// The next thing to do, in the order in which it was decided; none: nothing until the timeout.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call again with [`Input::Wake`], and why. None: only an input can move this engine.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(LocalInstant, Reason)> {
        if self.retired {
            return None;
        }
        let turn = self.turns.deadline();
        let work = self.work.deadline(self.now, self.turns.period());
        turn.into_iter().chain(work).min()
    }

    fn turn_answered(&mut self, now: LocalInstant, answer: TurnAnswer) {
        if !self.turns.is_in_flight(answer.request) {
            return;
        }
        if answer.lost && !S::plants(Bug::LossIsIgnored) {
            self.retire();
            return;
        }
        if let Some(exchange) = &answer.exchange {
            self.work.checked_in(exchange.sent);
        }
        let took = Took { claimed: answer.claimed, more: answer.more, kept: answer.kept };
        self.work.beat_answered(now, answer.done, took);
        if self.turns.history_changes(answer.identity) {
            self.work.history_changed();
        }
        let act =
            self.turns.answered(now, answer, &mut self.clock, &mut self.random, &mut self.notes);
        self.turn_act(now, act);
    }

    fn failed(&mut self, now: LocalInstant, request: RequestId, fate: Fate) {
        if self.turns.is_in_flight(request) {
            self.work.beat_failed(fate);
            self.turns.failed(now, fate, &self.clock, &mut self.random, &mut self.notes);
        } else {
            self.work.failed(now, request, fate, self.turns.period());
        }
    }

    /// Do whatever is due.
    fn act(&mut self, now: LocalInstant) {
        if self.retired {
            return;
        }
        let act = self.turns.due(now);
        self.turn_act(now, act);
        match self.work.due(now, self.turns.period()) {
            work::Act::Nothing => {}
            work::Act::Send(statement) => self.send_work(now, statement),
            work::Act::Abandon(request) => {
                self.outputs.push_back(Output::Abandon(request));
                self.work.failed(now, request, Fate::Unknown, self.turns.period());
            }
        }
    }

    fn turn_act(&mut self, now: LocalInstant, act: turns::Act) {
        match act {
            turns::Act::Nothing => {}
            turns::Act::Read { due, not_after } => {
                self.send_turn(now, TurnKind::Read, None, due, not_after);
            }
            turns::Act::Beat { slot, not_after, .. }
                if now > not_after && !S::plants(Bug::BeatsAreSentLate) =>
            {
                self.turns.missed(now, slot, &self.clock, &mut self.notes);
                let act = self.turns.due(now);
                self.turn_act(now, act);
            }
            turns::Act::Beat { slot, due, not_after } => {
                let claim = self.work.claim_with_beat(now);
                self.send_turn(now, TurnKind::Beat { claim }, Some(slot), due, not_after);
            }
            turns::Act::Change { change, identity, not_after } => {
                let kind = TurnKind::Change { change, identity };
                self.send_turn(now, kind, None, now, not_after);
            }
            turns::Act::Abandon(request) => {
                self.outputs.push_back(Output::Abandon(request));
                self.failed(now, request, Fate::Unknown);
                let act = self.turns.due(now);
                self.turn_act(now, act);
            }
        }
    }

    fn send_turn(
        &mut self,
        now: LocalInstant,
        kind: TurnKind,
        turn: Option<Slot>,
        due: LocalInstant,
        not_after: LocalInstant,
    ) {
        let request = self.next_request();
        let believed = turn.or_else(|| self.turns.believed(now, &self.clock));
        self.turns.sent(now, request, &kind, &self.clock);
        let statement = TurnStatement { node: self.id, believed, kind };
        self.outputs.push_back(Output::Turn { request, statement, due, not_after });
    }

    fn send_work(&mut self, now: LocalInstant, statement: WorkStatement) {
        let request = self.next_request();
        let not_after = self.work.sent(now, request, statement, self.turns.period());
        self.outputs.push_back(Output::Work { request, statement, not_after });
    }

    fn next_request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    fn retire(&mut self) {
        self.retired = true;
        self.outputs.push_back(Output::Retire(Retirement::Lost));
    }
}
