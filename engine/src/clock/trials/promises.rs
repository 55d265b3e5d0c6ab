//! Decides what the clock must do on roads where one thing happens.

use super::road::Road;
use crate::clock::{Clock, Learned, difference};
use crate::units::LocalInstant;

const MILLI: i64 = 1_000_000;

/// A clock that knows its road.
fn at_home(road: &mut Road) -> Clock {
    let mut clock = Clock::new();
    for _ in 0..200 {
        clock.observe(&road.exchange());
    }
    clock
}

/// How far the next exchange will be from where it is foretold, where the queues are as usual.
fn astray(clock: &Clock, road: &Road) -> i64 {
    let usual = road.exchange_of(road.there + (1.678 * road.queues) as i64, road.back);
    clock.transit(usual.sent).unwrap() - difference(usual.arrived, usual.sent)
}

/// How far the guess at the offset is from the middle of the shortest ways.
fn off(clock: &Clock, road: &Road) -> i64 {
    let now = LocalInstant::from_nanos(road.at.unsigned_abs());
    clock.offset(now).unwrap().nanos - road.offset - (road.there - road.back) / 2
}

fn holds(clock: &Clock, road: &Road) {
    let (low, high) = clock.bounds(LocalInstant::from_nanos(road.at.unsigned_abs())).unwrap();
    assert!((low..=high).contains(&road.offset), "{} is not in {low}..={high}", road.offset);
}

proptest::proptest! {
    #[test]
    fn the_interval_holds_the_truth_of_every_clock_within_500_ppm(
        rate in -500_000_i64..=500_000,
        grain in 1_i64..2_000_000,
        bits in 1_u32..36,
        exchanges in proptest::collection::vec(
            (0_i64..1 << 36, 0_i64..1 << 36, 0_i64..1 << 36), 1..40,
        ),
    ) {
        let mut road = Road { rate, grain, ..Road::new(1) };
        let mut clock = Clock::new();
        let shrink = 36 - bits;
        for (pause, there, back) in exchanges {
            let exchange = road.exchange_of(there >> shrink, back >> shrink);
            assert_eq!(clock.observe(&exchange), Learned::Consistent);
            road.pass(exchange.received.nanos_from(exchange.sent));
            holds(&clock, &road);
            road.pass(pause >> shrink);
            holds(&clock, &road);
        }
    }
}

#[test]
fn the_fastest_clock_on_the_shortest_road_is_believed() {
    for rate in [-500_000, 500_000] {
        for pause in [1, 999, 999_999, 1_000_000, 1_999_999, 123_456_789, 86_400_000_000_000] {
            let mut road = Road { rate, grain: 1, ..Road::new(1) };
            let mut clock = Clock::new();
            for _ in 0..20 {
                assert_eq!(clock.observe(&road.exchange_of(0, 0)), Learned::Consistent);
                road.pass(pause);
                holds(&clock, &road);
            }
        }
    }
}

#[test]
fn a_way_is_as_much_longer_as_the_least_late_of_twelve_says() {
    // One of them is held up besides.
    for held_up in 0..13 {
        let mut road = Road::new(2);
        let mut clock = at_home(&mut road);
        road.there += 2 * MILLI;
        road.back += 6 * MILLI;
        for number in 0..13 {
            let more = if number == held_up { 30 * MILLI } else { 0 };
            let queue = 20_000 + 7_000 * (number % 3);
            clock.observe(&road.exchange_of(road.there + queue + more, road.back + queue + more));
            road.pass(road.interval);
            if number >= 11 {
                let (astray, off) = (astray(&clock, &road), off(&clock, &road));
                let near = astray.abs() < 60_000 && off.abs() < 60_000;
                assert!(near, "{held_up}, after {number}: {astray}, {off}");
            }
        }
    }
}

#[test]
fn a_shorter_way_is_known_by_one_exchange_to_within_a_tick_of_the_servers_clock() {
    for tenth in 0..10 {
        let mut road = Road { there: 9 * MILLI, back: 9 * MILLI, grain: MILLI, ..Road::new(3) };
        let mut clock = at_home(&mut road);
        road.there -= 5 * MILLI + tenth * MILLI / 10;
        clock.observe(&road.exchange());
        let (there, offset) = (astray(&clock, &road), off(&clock, &road));
        assert!(there.abs() < MILLI && offset.abs() < MILLI / 2, "{tenth}: {there}, {offset}");
        road.back -= 5 * MILLI + tenth * MILLI / 10;
        clock.observe(&road.exchange());
        let (there, offset) = (astray(&clock, &road), off(&clock, &road));
        assert!(there.abs() < MILLI && offset.abs() < MILLI / 2, "{tenth}: {there}, {offset}");
    }
}

#[test]
fn a_step_costs_neither_the_road_nor_the_rate() {
    for seed in 1..6 {
        for step in [-1_000 * MILLI, 1_000 * MILLI] {
            let mut road = Road::new(seed);
            let mut clock = at_home(&mut road);
            road.held_up = 0;
            road.step(step);
            assert_eq!(clock.observe(&road.exchange()), Learned::Step);
            let (now, offset) = (astray(&clock, &road), off(&clock, &road));
            assert!(now.abs() < 40_000 && offset.abs() < 40_000, "{seed}: {now}, {offset}");
            road.pass(600_000 * MILLI);
            let later = astray(&clock, &road);
            assert!((later - now).abs() < 60_000, "{seed}: after ten minutes {later}, not {now}");
        }
    }
}
