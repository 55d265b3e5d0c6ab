//! The contract of the clocks, on the simulated ones: the same promises as in `node/tests/clock_contract.rs`, on
//! clocks that are wrong in every way that a scenario's can be.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![allow(
    clippy::disallowed_methods,
    reason = "both arms are tried, and the real one takes real time"
)]

#[path = "../../node/tests/clock_contract/promises.rs"]
mod promises;

use std::time::Duration;

use promises::promises;
use turnwise_node::clock::Clock;
use turnwise_sim::cluster::contract::{Machine, elapsed, on_a_machine};
use turnwise_sim::random::Stream;
use turnwise_sim::scenario::{LocalClock, Span};

/// How long a promise may take to be tried, in simulated time.
const PATIENCE: Duration = Duration::from_secs(120);
/// How many clocks are drawn.
const DRAWN: u64 = 24;

/// A clock of any epoch, drift, wander, resolution and lateness.
fn drawn(seed: u64) -> LocalClock {
    let mut chance = Stream::new(seed, "clock contract");
    LocalClock {
        shows: Span(chance.below(1 << 50)),
        drift_ppb: chance.below(800_001) as i64 - 400_000,
        wander_ppb: [0, 50, 5_000][chance.below(3) as usize],
        resolution: Span([1, 100, 1_000, 1_000_000, 15_625_000][chance.below(5) as usize]),
        late_wake: Span([0, 60_000, 4_000_000][chance.below(3) as usize]),
    }
}

fn on_each<P, F>(promise: P)
where
    P: Fn(Machine) -> F + Copy + 'static,
    F: Future<Output = ()> + 'static,
{
    for seed in 0..DRAWN {
        let clock = drawn(seed);
        println!("{clock:?}");
        on_a_machine(seed, clock, None, PATIENCE, promise).unwrap();
    }
}

macro_rules! each {
    ($($promise:ident),* $(,)?) => {
        $(
            #[test]
            fn $promise() {
                on_each(|machine| promises::$promise(machine.clock()));
            }
        )*
    };
}
promises!(each);

/// What is drawn has its effect: otherwise the promises above would be kept by one clock alone.
#[test]
fn clocks_are_as_wrong_as_they_are_drawn() {
    let late = LocalClock { late_wake: Span::from_millis(5), ..LocalClock::default() };
    on_a_machine(1, late, None, PATIENCE, |machine| async move {
        let mut latest = Duration::ZERO;
        for _ in 0..50 {
            let until = machine.clock().now() + Duration::from_millis(10);
            machine.clock().sleep_until(until).await;
            latest = latest.max(machine.clock().now().since(until));
        }
        assert!(latest > Duration::from_millis(5), "{latest:?} at the most");
    })
    .unwrap();
    let wrong = LocalClock {
        shows: Span::from_secs(7),
        drift_ppb: 400_000,
        resolution: Span::from_millis(1),
        ..LocalClock::default()
    };
    on_a_machine(1, wrong, None, PATIENCE, |machine| async move {
        let (begun, clock) = (elapsed(), machine.clock());
        assert_eq!(clock.now().as_nanos(), 7_000_000_000);
        tokio::time::sleep(Duration::from_millis(10_001)).await;
        assert_eq!(elapsed() - begun, Duration::from_millis(10_001));
        // 10,001 ms and 400 ppm of them, in whole milliseconds.
        assert_eq!(clock.now().as_nanos(), 17_005_000_000);
    })
    .unwrap();
}
