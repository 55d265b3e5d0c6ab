//! Decides how near to the truth the clock is held on each kind of road: as near as it has come, and a twentieth more.

use alloc::vec::Vec;

use super::kinds::{EXCHANGES, KINDS, Kind};
use crate::clock::{Clock, difference};

/// By then a clock knows its road.
const KNOWN: u32 = 40;

/// How far, in nanoseconds, half and nine in ten of the exchanges were from where they were foretold, and half and nine
/// in ten of the guesses from the offset.
const REACHED: &[(&str, [i64; 4])] = &[
    ("plain", [16_761, 44_709, 1_030, 2_399]),
    ("long", [677_917, 2_116_833, 29_623, 125_897]),
    ("seldom", [17_498, 46_234, 3_606, 8_756]),
    ("uneven", [16_632, 44_729, 863, 2_318]),
    ("without queues", [5, 60, 4, 15]),
    ("coarse stamps", [207_407, 450_617, 72_288, 125_483]),
    ("coarse stamps, wide queues", [112_813, 369_307, 5_810, 13_289]),
    ("coarse stamps, long", [702_693, 2_005_560, 40_723, 121_732]),
    ("a commit", [17_660, 49_930, 1_743, 6_008]),
    ("a commit of long", [16_435, 46_433, 4_431, 11_102]),
    ("a commit, coarse stamps", [260_667, 575_137, 539_278, 834_020]),
    ("detours", [19_893, 56_245, 1_134, 3_879]),
    ("detours, coarse stamps", [114_378, 546_028, 100_431, 290_517]),
    ("detours, a commit", [17_884, 45_757, 3_242, 22_429]),
    ("small detours", [18_073, 51_498, 9_340, 25_349]),
    ("small detours, long", [715_173, 2_289_654, 76_112, 422_577]),
    ("small steps", [15_914, 50_442, 1_949, 6_688]),
    ("small steps, coarse stamps", [723_969, 2_316_666, 87_722, 276_566]),
    ("large steps", [17_328, 48_788, 1_708, 5_756]),
    ("step after step", [16_526, 55_629, 1_901, 15_581]),
    ("another rate", [16_446, 58_062, 1_507, 3_860]),
    ("a wandering rate", [18_023, 49_178, 5_377, 11_393]),
    ("silences", [18_072, 54_204, 1_144, 4_530]),
    ("weather", [22_709, 536_774, 1_190, 4_053]),
    ("another road at the start", [17_994, 51_286, 2_340, 24_939]),
    ("set at the start", [17_348, 50_792, 1_350, 2_799]),
];

fn share(mut values: Vec<i64>, tenths: usize) -> i64 {
    values.sort_unstable();
    values[(values.len() - 1) * tenths / 10]
}

fn reached(kind: &Kind) -> [i64; 4] {
    let (mut road, mut clock) = (kind.road(), Clock::new());
    let (mut arrivals, mut offsets) = (Vec::new(), Vec::new());
    for number in 0..EXCHANGES {
        kind.go_on(&mut road, number);
        // By how much one way is longer than the other nobody can know.
        let middle = road.offset + (road.there - road.back) / 2;
        let exchange = road.exchange();
        if number >= KNOWN {
            let arrived = difference(exchange.arrived, exchange.sent);
            arrivals.push((clock.transit(exchange.sent).unwrap() - arrived).abs());
            offsets.push((clock.offset(exchange.sent).unwrap().nanos - middle).abs());
        }
        clock.observe(&exchange);
    }
    [share(arrivals.clone(), 5), share(arrivals, 9), share(offsets.clone(), 5), share(offsets, 9)]
}

#[test]
fn on_no_kind_of_road_is_it_further_from_the_truth_than_it_has_been() {
    assert_eq!(REACHED.len(), KINDS.len());
    for (kind, (name, before)) in KINDS.iter().zip(REACHED) {
        assert_eq!(kind.name, *name);
        let now = reached(kind);
        for (now, before) in now.iter().zip(before) {
            assert!(*now <= before + before / 20 + 10, "{name}: {now} ns, it was {before}");
        }
    }
}
