//! What a steady turn allocates in the engine. Fails when the clock or a turn of an idle engine allocates at all.
#![allow(missing_docs, clippy::unwrap_used)]

use std::process::ExitCode;

use allocation_counter::measure;
use turnwise_benches::farm::Farm;
use turnwise_engine::Clock;
use turnwise_sim::clock::trace::{Spec, generate};

fn main() -> ExitCode {
    let mut good = true;
    let samples = generate(&Spec::default());
    let mut clock = Clock::new();
    let learnt = measure(|| {
        for sample in &samples {
            clock.observe(&sample.exchange);
            std::hint::black_box(clock.send_time(sample.exchange.answered));
        }
    });
    println!("clock, {} exchanges: {} allocations", samples.len(), learnt.count_total);
    good &= learnt.count_total == 0;

    for nodes in [1, 3, 8, 100] {
        let mut farm = Farm::new(nodes);
        for _ in 0..1_000 {
            farm.turn();
        }
        let mut most = 0;
        for _ in 0..1_000 {
            let mut turn = 0;
            farm.turn_with(&mut |call| turn += measure(call).count_total);
            most = most.max(turn);
        }
        println!("turn, {nodes} nodes: at most {most} allocations");
        good &= most == 0;
    }
    if good {
        return ExitCode::SUCCESS;
    }
    eprintln!("the engine allocates more in a steady turn than it may");
    ExitCode::FAILURE
}
