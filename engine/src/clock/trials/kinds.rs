//! Decides on which roads the clock is tried: everything that may befall one.

use super::road::Road;

/// So many exchanges are made on each.
pub(super) const EXCHANGES: u32 = 700;

/// A kind of road.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// What is so from the beginning.
    laid: fn(&mut Road),
    /// What befalls it before the exchange of that number.
    befalls: fn(&mut Road, u32),
}

impl Kind {
    /// A road of this kind, always the same one.
    pub(super) fn road(&self) -> Road {
        let mut road = Road::new(
            self.name.bytes().fold(7, |seed: u64, byte| seed.rotate_left(5) ^ u64::from(byte)),
        );
        (self.laid)(&mut road);
        road
    }

    /// Go on to the exchange of that number.
    pub(super) fn go_on(&self, road: &mut Road, number: u32) {
        (self.befalls)(road, number);
    }
}

const fn kind(name: &'static str, laid: fn(&mut Road), befalls: fn(&mut Road, u32)) -> Kind {
    Kind { name, laid, befalls }
}

fn nothing(_: &mut Road, _: u32) {}

/// Both ways alike, and queues in proportion.
fn long(road: &mut Road) {
    (road.there, road.back, road.queues) = (40_000_000, 40_000_000, 800_000.0);
}

fn coarse(road: &mut Road) {
    road.grain = 1_000_000;
}

/// The ways become longer by so much, one after the other, and shorter again.
fn detours(road: &mut Road, number: u32, longer: i64) {
    match number {
        200 => road.there += longer,
        300 => road.back += longer,
        400 => road.there -= longer,
        500 => road.back -= longer,
        _ => {}
    }
}

fn every(number: u32, exchanges: u32) -> bool {
    number > 0 && number.is_multiple_of(exchanges)
}

/// All of them.
pub(super) const KINDS: &[Kind] = &[
    kind("plain", |_| {}, nothing),
    kind("long", long, nothing),
    kind("seldom", |road| road.interval = 60_000_000_000, nothing),
    kind("uneven", |road| road.there = 9_000_000, nothing),
    kind("without queues", |road| (road.queues, road.grain) = (0.0, 1), nothing),
    kind("coarse stamps", coarse, nothing),
    kind(
        "coarse stamps, wide queues",
        |road| (road.grain, road.queues) = (100_000, 150_000.0),
        nothing,
    ),
    kind("coarse stamps, long", |road| (long(road), coarse(road)).1, nothing),
    kind("a commit", |road| road.commit = 400_000.0, nothing),
    kind("a commit of long", |road| road.commit = 5_000_000.0, nothing),
    kind("a commit, coarse stamps", |road| (road.commit = 3_000_000.0, coarse(road)).1, nothing),
    kind("detours", |_| {}, |road, number| detours(road, number, 3_000_000)),
    kind("detours, coarse stamps", coarse, |road, number| detours(road, number, 15_300_000)),
    kind(
        "detours, a commit",
        |road| road.commit = 400_000.0,
        |road, number| detours(road, number, 3_000_000),
    ),
    kind("small detours", |_| {}, |road, number| detours(road, number, 90_000)),
    kind("small detours, long", long, |road, number| detours(road, number, 3_000_000)),
    kind(
        "small steps",
        |_| {},
        |road, number| {
            if every(number, 60) {
                road.step(if number % 120 == 0 { 250_000 } else { -250_000 });
            }
        },
    ),
    kind(
        "small steps, coarse stamps",
        |road| (long(road), coarse(road)).1,
        |road, number| {
            if every(number, 60) {
                road.step(if number % 120 == 0 { 22_000_000 } else { -22_000_000 });
            }
        },
    ),
    kind(
        "large steps",
        |_| {},
        |road, number| {
            if every(number, 60) {
                road.step(if number % 120 == 0 { 1_000_000_000 } else { -1_000_000_000 });
            }
        },
    ),
    kind(
        "step after step",
        |_| {},
        |road, number| {
            if (300..312).contains(&number) {
                road.step(400_000 * i64::from(number % 3));
            }
        },
    ),
    kind(
        "another rate",
        |_| {},
        |road, number| match number {
            200 => road.rate = -150_000,
            400 => road.rate = 180_000,
            _ => {}
        },
    ),
    kind(
        "a wandering rate",
        |_| {},
        |road, number| {
            if every(number, 10) {
                road.rate += if number % 90 < 45 { 300 } else { -290 };
            }
        },
    ),
    kind(
        "silences",
        |_| {},
        |road, number| {
            if every(number, 100) {
                road.pass(i64::from(number) * 20_000_000_000);
            }
        },
    ),
    kind(
        "weather",
        |_| {},
        |road, number| match number % 60 {
            40 => road.queues *= 20.0,
            50 => road.queues /= 20.0,
            _ => {}
        },
    ),
    kind(
        "another road at the start",
        |road| road.there += 4_000_000,
        |road, number| {
            if number == 5 {
                road.there -= 4_000_000;
            }
        },
    ),
    kind(
        "set at the start",
        |_| {},
        |road, number| match number {
            3 => road.step(700_000_000),
            7 => road.step(-500_000),
            _ => {}
        },
    ),
];
