//! What the engine's hot path costs: one exchange learnt by the clock, one time to send, and one whole turn, the
//! wake-up that sends a beat and its answer.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use turnwise_benches::farm::Farm;
use turnwise_engine::Clock;
use turnwise_sim::clock::trace::{Spec, generate};

/// Roads that take the estimator different ways.
const ROADS: [(&str, &str); 3] = [
    ("plain", "rtt=5ms,interval=3s"),
    ("commit", "rtt=5ms,interval=3s,commit=2500us"),
    ("1 ms stamps", "rtt=5ms,interval=3s,resolution=1ms"),
];

fn observe(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("observe");
    for (name, spec) in ROADS {
        let samples = generate(&spec.parse::<Spec>().unwrap());
        let mut clock = Clock::new();
        let mut next = samples.iter();
        group.bench_function(BenchmarkId::from_parameter(name), |bench| {
            bench.iter(|| {
                let sample = next.next().unwrap_or_else(|| {
                    clock = Clock::new();
                    next = samples.iter();
                    next.next().unwrap()
                });
                clock.observe(&sample.exchange)
            });
        });
    }
    group.finish();
}

fn send_time(criterion: &mut Criterion) {
    let samples = generate(&Spec::default());
    let mut clock = Clock::new();
    for sample in &samples {
        clock.observe(&sample.exchange);
    }
    let boundary = samples.last().unwrap().exchange.answered.offset(1_000_000_000);
    criterion.bench_function("send_time", |bench| {
        bench.iter(|| clock.send_time(black_box(boundary)));
    });
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

criterion_group!(benches, observe, send_time, turn);
criterion_main!(benches);
