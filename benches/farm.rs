//! Decides nothing: one engine in a ring whose other members always read in time.

#![allow(clippy::unwrap_used)]

use turnwise_engine::{
    Config, Engine, Exchange, Input, Kept, LocalInstant, NodeId, Output, Period, RequestId,
    ServerIdentity, ServerInstant, TurnAnswer, TurnKind, TurnRow, TurnStatement, Version,
};

/// Server time minus local time.
const OFFSET: i64 = 1_780_000_000_000_000_000;
/// Each way takes so long.
const WAY: i64 = 200_000;

/// An engine and the row that it and the others write to.
#[derive(Debug)]
pub struct Farm {
    engine: Engine,
    row: TurnRow,
    now: LocalInstant,
}

impl Farm {
    /// A node in a ring of `nodes`, whose other members always read in time.
    pub fn new(nodes: u32) -> Self {
        let ids: Vec<_> = (0..u128::from(nodes)).map(NodeId::from_u128).collect();
        let now = LocalInstant::from_nanos(1_000_000_000);
        let mut row = TurnRow::new(Period::DEFAULT);
        let slot = row.stamp(at(now), None, None);
        row.roster.versions.push(Version { from: slot, ring: ids.clone() });
        let engine = Engine::new(ids[0], Config { capacity: 16 }, 7, now);
        let mut farm = Self { engine, row, now };
        farm.tell(Input::Wake, &mut |call| call());
        farm.drain(&mut |call| call());
        farm
    }

    /// To the next time that the engine wants to be called, through its answer.
    pub fn turn(&mut self) {
        self.turn_with(&mut |call| call());
    }

    /// The same, with each call of the engine made by `around`.
    pub fn turn_with(&mut self, around: &mut dyn FnMut(&mut dyn FnMut())) {
        let (at, _) = self.engine.poll_timeout().unwrap();
        self.now = self.now.max(at);
        self.tell(Input::Wake, around);
        self.drain(around);
    }

    /// The row as it stands.
    pub fn row(&self) -> &TurnRow {
        &self.row
    }

    fn tell(&mut self, input: Input, around: &mut dyn FnMut(&mut dyn FnMut())) {
        let (engine, now, mut input) = (&mut self.engine, self.now, Some(input));
        around(&mut || {
            if let Some(input) = input.take() {
                engine.handle_input(now, input);
            }
        });
    }

    fn drain(&mut self, around: &mut dyn FnMut(&mut dyn FnMut())) {
        loop {
            let mut output = None;
            around(&mut || output = self.engine.poll_output());
            match output {
                None => return,
                Some(Output::Turn { request, statement, .. }) => {
                    self.answer(request, &statement, around);
                }
                Some(_) => {}
            }
        }
    }

    fn answer(
        &mut self,
        request: RequestId,
        statement: &TurnStatement,
        around: &mut dyn FnMut(&mut dyn FnMut()),
    ) {
        let (sent, clock) = (self.now, at(self.now.offset(WAY)));
        for node in 1..self.row.roster.last().unwrap().ring.len() as u128 {
            self.row.stamp(clock, Some(NodeId::from_u128(node)), None);
        }
        let slot = self.row.stamp(clock, Some(statement.node), statement.believed);
        let done = match &statement.kind {
            TurnKind::Beat { .. } => {
                self.row.slot = slot - 2;
                self.row.beat(slot - 1);
                self.row.beat(slot)
            }
            _ => true,
        };
        self.now = sent.offset(2 * WAY);
        let exchange = Exchange {
            sent,
            arrived: clock,
            answered: clock,
            received: self.now,
            resolution: 1_000,
        };
        let answer = TurnAnswer {
            request,
            exchange: Some(exchange),
            identity: ServerIdentity::default(),
            now: slot,
            done,
            row: self.row.clone(),
            claimed: 0,
            more: false,
            kept: Kept::default(),
            lost: false,
        };
        self.tell(Input::TurnAnswer(Box::new(answer)), around);
    }
}

fn at(local: LocalInstant) -> ServerInstant {
    ServerInstant::from_nanos(local.as_nanos() as i64 + OFFSET)
}
