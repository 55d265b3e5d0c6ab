//! Decides what the original design would have done, the yardstick of what came after it: a timer of 10 ms,
//! one sample of the server's time (plus half the round trip), and the slot modulo the number of machines
//! that have checked in of late.

use std::collections::VecDeque;

use turnwise_engine::{
    Claim, Input, LocalInstant, NodeId, Output, Reason, RequestId, Slot, Sound, Token, TurnKind,
    TurnRow, TurnStatement, WorkStatement,
};

use super::driver::Driver;

/// The timer.
const TICK: i64 = 10_000_000;
/// A statement without an answer is given up after so long.
const PATIENCE: i64 = 5_000_000_000;
/// A machine that has not polled for so long checks in.
const CHECK_IN: i64 = 5_000_000_000;
/// Machines that have not checked in for so many slots are taken for dead.
const DEAD_AFTER: i64 = 15;
/// How often the lease of running jobs is renewed.
const RENEW: i64 = 1_000_000_000;

/// A machine of the original design.
#[derive(Clone, Debug)]
pub struct Original {
    id: NodeId,
    capacity: u32,
    /// Server time minus local time, from the last answer alone.
    offset: Option<i64>,
    row: Option<(TurnRow, Slot)>,
    tick: LocalInstant,
    in_flight: Option<(RequestId, LocalInstant)>,
    polled: Slot,
    spoke: LocalInstant,
    renewed: LocalInstant,
    requests: u64,
    tokens: i64,
    held: u32,
    reachable: bool,
    leaving: bool,
    outputs: VecDeque<Output>,
}

impl Original {
    fn tick(&mut self, now: LocalInstant) {
        if self.held > 0 && now.nanos_from(self.renewed) >= RENEW {
            self.renewed = now;
            self.requests += 1;
            self.outputs.push_back(Output::Work {
                request: RequestId(self.requests),
                statement: WorkStatement::Renew,
                not_after: now.offset(RENEW),
            });
        }
        if let Some((request, sent)) = self.in_flight {
            if now.nanos_from(sent) < PATIENCE {
                return;
            }
            self.outputs.push_back(Output::Abandon(request));
            self.in_flight = None;
        }
        let Some((slot, mine)) = self.whose(now) else {
            self.send(now, TurnKind::Read, None);
            return;
        };
        if mine && slot > self.polled {
            self.polled = slot;
            let claim = self.claim_now();
            self.send(now, TurnKind::Beat { claim }, Some(slot));
        } else if now.nanos_from(self.spoke) >= CHECK_IN {
            self.send(now, TurnKind::Read, Some(slot));
        }
    }

    /// The slot that it is, and whether it is this machine's.
    fn whose(&self, now: LocalInstant) -> Option<(Slot, bool)> {
        let (row, read) = self.row.as_ref()?;
        let server = (now.as_nanos() as i64).saturating_add(self.offset?);
        let period = row.cadence.period.as_nanos();
        let slot = Slot(server.div_euclid(period) + row.cadence.bias);
        let alive = row.marks.iter().filter(|(_, mark)| mark.read > *read - DEAD_AFTER);
        let alive: Vec<_> = alive.map(|(node, _)| *node).collect();
        let place = alive.iter().position(|node| *node == self.id)? as i64;
        Some((slot, slot.0.rem_euclid(alive.len() as i64) == place))
    }

    fn claim_now(&mut self) -> Option<Claim> {
        let limit = self.capacity - self.held.min(self.capacity);
        if limit == 0 || !self.reachable || self.leaving {
            return None;
        }
        self.tokens += 1;
        Some(Claim { token: Token(self.tokens), limit })
    }

    fn send(&mut self, now: LocalInstant, kind: TurnKind, believed: Option<Slot>) {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.in_flight = Some((request, now));
        self.spoke = now;
        let statement = TurnStatement { node: self.id, believed, kind };
        let not_after = now.offset(PATIENCE);
        self.outputs.push_back(Output::Turn { request, statement, due: now, not_after });
    }
}

impl Driver for Original {
    type Rules = Sound;
    const PROMISES: bool = false;

    fn new(id: NodeId, capacity: u32, _: u64, now: LocalInstant) -> Self {
        Self {
            id,
            capacity,
            offset: None,
            row: None,
            tick: now,
            in_flight: None,
            polled: Slot(i64::MIN),
            spoke: now,
            renewed: now,
            requests: 0,
            tokens: 0,
            held: 0,
            reachable: true,
            leaving: false,
            outputs: VecDeque::new(),
        }
    }

    fn handle_input(&mut self, now: LocalInstant, input: Input) {
        match input {
            Input::TurnAnswer(answer) => {
                if self.in_flight.take_if(|(request, _)| *request == answer.request).is_some() {
                    if let Some(exchange) = &answer.exchange {
                        let trip = exchange.received.nanos_from(exchange.sent);
                        let server = exchange.arrived.as_nanos() + trip / 2;
                        self.offset = Some(server - exchange.received.as_nanos() as i64);
                    }
                    self.held += answer.claimed;
                    self.row = Some((answer.row, answer.now));
                    if answer.lost {
                        let lost = turnwise_engine::Retirement::Lost;
                        self.outputs.push_back(Output::Retire(lost));
                    }
                }
            }
            Input::WorkAnswer(answer) if answer.lost => {
                self.outputs.push_back(Output::Retire(turnwise_engine::Retirement::Lost));
            }
            Input::Failed { request, .. } => {
                self.in_flight = self.in_flight.filter(|(sent, _)| *sent != request);
            }
            Input::JobsEnded { jobs, .. } => self.held = self.held.saturating_sub(jobs),
            Input::Target { reachable } => self.reachable = reachable,
            Input::Leave => {
                self.leaving = true;
                self.outputs.push_back(Output::Note(turnwise_engine::Note::Left));
            }
            Input::Wake | Input::WorkAnswer(_) => {}
        }
        if now >= self.tick {
            self.tick = now.offset(TICK);
            if !self.leaving {
                self.tick(now);
            }
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<(LocalInstant, Reason)> {
        (!self.leaving).then_some((self.tick, Reason::Beat))
    }

    fn claim(&self, _: LocalInstant) -> Option<(i64, i64, i64)> {
        let offset = self.offset?;
        Some((i64::MIN, i64::MAX, offset))
    }

    fn held(&self) -> Option<u32> {
        None
    }

    fn next_turn(&self) -> Option<Slot> {
        None
    }
}
