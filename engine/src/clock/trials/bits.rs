//! Holds that the clock is the same on every build, bit by bit, on roads on which all of it is in use: it is the one
//! that was judged. A change of it shows here first, and is judged anew (`docs/clock.md`) before these numbers change.

use alloc::vec::Vec;

use super::kinds::{EXCHANGES, KINDS, Kind};
use crate::clock::Clock;

const HASHES: &[(&str, u64)] = &[
    ("plain", 14_594_749_388_797_931_027),
    ("long", 2_184_827_391_523_717_914),
    ("seldom", 16_835_543_128_032_111_083),
    ("uneven", 11_027_908_439_294_009_528),
    ("without queues", 15_603_559_236_970_710_307),
    ("coarse stamps", 14_324_797_027_249_549_751),
    ("coarse stamps, wide queues", 10_004_700_393_521_279_152),
    ("coarse stamps, long", 8_431_106_610_259_442_262),
    ("a commit", 10_587_286_549_546_459_545),
    ("a commit of long", 1_595_350_702_666_863_817),
    ("a commit, coarse stamps", 4_873_025_637_402_562_923),
    ("detours", 9_885_874_412_265_928_326),
    ("detours, coarse stamps", 6_559_880_167_520_881_972),
    ("detours, a commit", 540_406_916_402_963_224),
    ("small detours", 8_669_069_977_628_907_215),
    ("small detours, long", 10_533_999_740_614_063_655),
    ("small steps", 10_961_790_841_326_480_945),
    ("small steps, coarse stamps", 6_289_734_649_631_760_707),
    ("large steps", 11_540_811_276_447_184_065),
    ("step after step", 5_939_445_062_289_238_322),
    ("another rate", 6_016_704_490_954_149_216),
    ("a wandering rate", 4_857_076_903_774_177_191),
    ("silences", 13_891_422_666_288_586),
    ("weather", 6_981_590_336_441_749_621),
    ("another road at the start", 4_981_733_910_780_918_501),
    ("set at the start", 3_362_731_017_535_700_479),
];

/// Of all that it says after each exchange: now and for a minute later.
fn hash_of(kind: &Kind) -> u64 {
    let (mut road, mut clock) = (kind.road(), Clock::new());
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for number in 0..EXCHANGES {
        kind.go_on(&mut road, number);
        let exchange = road.exchange();
        clock.observe(&exchange);
        let now = exchange.received;
        let later = now.offset(60_000_000_000);
        let transits = [now, later].map(|at| clock.transit(at).unwrap());
        for value in [clock.offset(now).unwrap().nanos, transits[0], transits[1]] {
            hash = (hash ^ value as u64).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

#[test]
fn the_bits_are_the_same_on_every_kind_of_road() {
    let hashes: Vec<_> = KINDS.iter().map(|kind| (kind.name, hash_of(kind))).collect();
    assert_eq!(hashes, HASHES);
}
