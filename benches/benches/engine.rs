//! What one turn costs in the engine: the wake-up that sends a beat, and its answer.
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use turnwise_engine::{
    Config, Engine, Exchange, Input, LocalInstant, NodeId, Output, Period, RequestId,
    ServerIdentity, ServerInstant, TurnAnswer, TurnKind, TurnRow, TurnStatement, Version,
};

/// Server time minus local time.
const OFFSET: i64 = 1_780_000_000_000_000_000;
/// Each way takes so long.
const WAY: i64 = 200_000;

struct Farm {
    engine: Engine,
    row: TurnRow,
    now: LocalInstant,
}

impl Farm {
    /// A node in a ring of `nodes`, whose other members always read in time.
    fn new(nodes: u32) -> Self {
        let ids: Vec<_> = (0..u128::from(nodes)).map(NodeId::from_u128).collect();
        let now = LocalInstant::from_nanos(1_000_000_000);
        let mut row = TurnRow::new(Period::DEFAULT);
        let slot = row.stamp(at(now), None, None);
        row.roster.versions.push(Version { from: slot, ring: ids.clone() });
        let engine = Engine::new(ids[0], Config { capacity: 16 }, 7, now);
        let mut farm = Self { engine, row, now };
        farm.engine.handle_input(now, Input::Wake);
        farm.drain();
        farm
    }

    /// To the next time that the engine wants to be called.
    fn turn(&mut self) {
        let (at, _) = self.engine.poll_timeout().unwrap();
        self.now = self.now.max(at);
        self.engine.handle_input(self.now, Input::Wake);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            if let Output::Turn { request, statement, .. } = output {
                self.answer(request, &statement);
            }
        }
    }

    fn answer(&mut self, request: RequestId, statement: &TurnStatement) {
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
            lost: false,
        };
        self.engine.handle_input(self.now, Input::TurnAnswer(Box::new(answer)));
    }
}

fn at(local: LocalInstant) -> ServerInstant {
    ServerInstant::from_nanos(local.as_nanos() as i64 + OFFSET)
}

fn turn(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("turn");
    for nodes in [1, 3, 8, 100] {
        let mut farm = Farm::new(nodes);
        group.bench_function(BenchmarkId::from_parameter(nodes), |bench| {
            bench.iter(|| farm.turn());
        });
    }
    group.finish();
}

criterion_group!(benches, turn);
criterion_main!(benches);
