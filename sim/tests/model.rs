//! No path of a few faults breaks a promise of the turn protocol: an exhaustive search over the engine itself. And
//! the search can fail: bugs that are planted in the engine are found.
//!
//! The ignored tests are larger searches, to be run by hand in release; `docs/model.md` says how, and what they gave.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};

use turnwise_engine::{Bug, Sabotage};
use turnwise_sim::model::{Cost, Farm, Fault, Found, Kind, Rule};

const THREADS: usize = 2;

fn assert_sound(what: &str, farm: Farm) -> Found {
    let found = farm.search(THREADS);
    println!("{what}: {found}");
    assert!(found.broken.is_empty(), "{what}: {found}");
    assert!(found.costliest().paths > 1, "{what}: nothing was searched");
    found
}

/// More lengths of everything.
fn finer(farm: Farm) -> Farm {
    Farm {
        pauses: vec![100, 300, 490, 600, 1_000, 1_500, 2_500, 4_000, 5_000, 8_000],
        delays: vec![20, 300, 490, 600, 745, 1_005, 2_005, 3_005],
        steps: vec![1_000, 2_000, 3_000, 9_000, -1_000, -2_000, -3_000, -4_000, -9_000],
        outages: vec![300, 600, 1_000, 1_500, 2_500, 4_000, 5_000, 10_000],
        grid: (0..20).map(|part| part * 50 + 5).collect(),
        ..farm
    }
}

#[test]
fn one_fault_costs_no_more_than_its_row_of_the_table() {
    for members in 1..=3 {
        assert_sound(&format!("{members} members"), finer(Farm::new(members, 1, 1)));
    }
}

#[test]
fn two_faults_at_a_lone_node() {
    assert_sound("a lone node", Farm::new(1, 1, 2));
}

#[test]
fn two_faults_in_a_ring_of_two() {
    assert_sound("two", Farm::new(2, 1, 2));
}

#[test]
fn two_faults_in_a_ring_of_three() {
    assert_sound("three", Farm::new(3, 1, 2));
}

#[test]
fn three_crashes_joins_leaves_and_lost_answers_in_a_ring_of_three() {
    let kinds = [Kind::Crash, Kind::Join, Kind::Leave, Kind::LoseAnswer];
    assert_sound("three", Farm::new(3, 1, 3).with_kinds(&kinds));
}

#[test]
fn the_first_that_ever_come() {
    assert_sound("nobody", Farm { first_slots: 2, ..Farm::new(0, 2, 2) });
}

#[test]
fn those_who_come_to_a_ring_of_the_dead() {
    assert_sound("the dead", Farm::new(3, 2, 2).of_the_dead(9));
}

#[test]
fn the_ways_there_and_back_may_differ() {
    for (there, back) in [(80, 10), (10, 80)] {
        let farm = Farm { there, back, ..Farm::new(2, 1, 2) };
        assert_sound(&format!("{there} ms there, {back} ms back"), farm);
    }
}

#[test]
fn a_path_can_be_told_and_walked_again() {
    let farm = Farm::new(2, 0, 1);
    let (broken, told) = farm.replay(&[(2, Fault::Crash { node: 1, request_lost: true })]);
    assert_eq!(broken, None, "{told}");
    assert!(told.contains("B crashes and its request is lost"), "{told}");
    assert!(told.contains("A's remove arrives"), "{told}");
}

/// The engine with one bug, whichever [`PLANTED`] says: one type, so that it is compiled once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Planted;

static PLANTED: AtomicUsize = AtomicUsize::new(usize::MAX);

impl Sabotage for Planted {
    fn plants(bug: Bug) -> bool {
        PLANTED.load(Ordering::Relaxed) == bug as usize
    }
}

/// Each bug, the members of the ring in which it is found, how many faults that takes, and a rule that it breaks.
const FOUND: &[(Bug, u8, u8, Rule)] = &[
    (Bug::StepIsIgnored, 1, 2, Rule::Settled),
    (Bug::FailureKeepsLicence, 2, 1, Rule::OneNodeASlot),
    (Bug::SkippedTurnKeepsLicence, 2, 1, Rule::OneNodeASlot),
    (Bug::NobodyIsSuspected, 2, 1, Rule::Settled),
    (Bug::ReadersAreSuspected, 1, 1, Rule::OneNodeASlot),
    (Bug::OnlyTheLastIsSuspected, 3, 2, Rule::WithinBounds),
    (Bug::RemovedStaysOut, 2, 1, Rule::Settled),
    (Bug::NobodyTakesOver, 1, 2, Rule::Settled),
    (Bug::VersionHoldsEarly, 2, 1, Rule::OneNodeASlot),
    (Bug::RingIsNotTurned, 3, 2, Rule::WithinBounds),
    (Bug::VersionsAreForgotten, 1, 1, Rule::WithinBounds),
    (Bug::DeputyBeginsLate, 2, 1, Rule::WithinBounds),
    (Bug::RemovalNamesNoDeputy, 2, 1, Rule::WithinBounds),
    (Bug::LeaverNamesNoDeputy, 2, 1, Rule::WithinBounds),
    (Bug::LeaverNamesWrongDeputy, 2, 1, Rule::WithinBounds),
    (Bug::LeaverKeepsLicence, 2, 2, Rule::OneNodeASlot),
    (Bug::LeaverGoesUnheard, 2, 1, Rule::WithinBounds),
    (Bug::FenceLetsSecondIn, 1, 1, Rule::SlotsIncrease),
    (Bug::SlotsGoBack, 1, 1, Rule::Settled),
    (Bug::ChangeIgnoresEpoch, 2, 2, Rule::OneNodeASlot),
    (Bug::ChangeIgnoresSlot, 1, 2, Rule::OneNodeASlot),
    (Bug::RemovalIgnoresReads, 2, 1, Rule::OneNodeASlot),
    (Bug::TakeoverIgnoresOthers, 1, 3, Rule::OneNodeASlot),
    (Bug::MarksEndEarly, 2, 2, Rule::OneNodeASlot),
    (Bug::PatienceIsEndless, 1, 1, Rule::Settled),
    (Bug::PatienceIsShort, 1, 1, Rule::Settled),
    (Bug::DeadlineIsRearmed, 1, 1, Rule::TimersEnd),
    (Bug::BeatsAreSentLate, 1, 1, Rule::AskedInTime),
];

/// The farm in which `bug` is looked for.
fn farm_for(bug: Bug, members: u8, faults: u8) -> Farm {
    let farm = Farm::new(members, 1, faults);
    match bug {
        // The member reads again while the takeover is on its way.
        Bug::TakeoverIgnoresOthers => Farm {
            pauses: vec![6_300],
            delays: vec![100, 200],
            ..farm.with_kinds(&[Kind::Pause, Kind::Join, Kind::Late])
        },
        _ => farm,
    }
}

#[test]
fn planted_bugs_are_found() {
    for (bug, members, faults, rule) in FOUND {
        PLANTED.store(*bug as usize, Ordering::Relaxed);
        // One thread, so that it is the same path each time that is found first.
        let found = farm_for(*bug, *members, *faults).search_with::<Planted>(1);
        let rules: Vec<_> = found.broken.keys().collect();
        println!("{}: {:.1?}, {rules:?}", bug.as_str(), found.took);
        assert!(found.broken.contains_key(rule.as_str()), "{}: {found}", bug.as_str());
    }
}

/// Every kind of fault with the same magnitudes as in the search, but steps apart by what the protocol says of them.
fn rows() -> Vec<(&'static str, Kind, Vec<i32>)> {
    let mut rows: Vec<_> = Kind::ALL
        .iter()
        .filter(|kind| !matches!(kind, Kind::Step | Kind::Failover))
        .map(|kind| (kind.as_str(), *kind, Vec::new()))
        .collect();
    rows.push(("step forward", Kind::Step, vec![1_000, 2_000, 3_000, 9_000]));
    rows.push(("step back by 1 or 2 slots", Kind::Step, vec![-1_000, -2_000]));
    rows.push(("step back by more", Kind::Step, vec![-3_000, -4_000, -9_000]));
    rows
}

#[test]
#[ignore = "prints what each fault costs, for the page"]
fn by_hand_what_each_fault_costs() {
    for (name, kind, steps) in rows() {
        let cost = |members| {
            let farm = Farm::new(members, 1, 1).with_kinds(&[kind]);
            let steps = steps.clone();
            let found = assert_sound(name, Farm { steps, ..finer(farm) });
            let Cost { missed, doubled, unsettled, .. } = found.costliest();
            format!("{missed}, {doubled}, {unsettled}")
        };
        println!("| {name} | {} | {} | {} |", cost(1), cost(2), cost(3));
    }
}

#[test]
#[ignore = "prints what two faults cost, for the page"]
fn by_hand_what_two_faults_cost() {
    let [two, three] = [2, 3].map(|members| assert_sound("two", Farm::new(members, 1, 2)).worst);
    for (kinds, cost) in &three {
        let [first, second] = kinds[..] else { continue };
        let tell = |cost: &Cost| format!("{}, {}, {}", cost.missed, cost.doubled, cost.unsettled);
        let two = two.get(kinds).map_or_else(String::new, tell);
        println!("| {}, {} | {two} | {} |", first.as_str(), second.as_str(), tell(cost));
    }
}

#[test]
#[ignore = "takes minutes"]
fn by_hand_two_faults_finer() {
    for members in 1..=3 {
        assert_sound(&format!("{members} members"), finer(Farm::new(members, 1, 2)));
    }
}

#[test]
#[ignore = "takes minutes"]
fn by_hand_two_faults_with_other_jitter() {
    for seed in 2..=16 {
        for members in 1..=3 {
            let farm = Farm { seed, ..Farm::new(members, 1, 2) };
            assert_sound(&format!("{members} members, seed {seed}"), farm);
        }
    }
}

#[test]
#[ignore = "takes minutes"]
fn by_hand_two_faults_with_other_ways() {
    for (there, back) in [(80, 10), (10, 80), (1, 1), (45, 45)] {
        for members in 1..=3 {
            let farm = Farm { there, back, ..Farm::new(members, 1, 2) };
            assert_sound(&format!("{members} members, {there} and {back} ms"), farm);
        }
    }
}

#[test]
#[ignore = "takes minutes"]
fn by_hand_three_faults_at_a_lone_node() {
    assert_sound("a lone node", Farm::new(1, 1, 3));
}

#[test]
#[ignore = "takes minutes"]
fn by_hand_three_faults_in_a_ring_of_two() {
    assert_sound("two", Farm::new(2, 1, 3));
}

/// What happens to nodes and messages, one length of each.
fn coarser(farm: Farm) -> Farm {
    let kinds = [
        Kind::Join,
        Kind::Leave,
        Kind::Crash,
        Kind::LoseRequest,
        Kind::LoseAnswer,
        Kind::Late,
        Kind::Pause,
    ];
    let farm = farm.with_kinds(&kinds);
    Farm { pauses: vec![2_500], delays: vec![1_005], grid: vec![100, 520], ..farm }
}

#[test]
#[ignore = "takes minutes"]
fn by_hand_three_faults_in_a_ring_of_three_coarser() {
    assert_sound("three", coarser(Farm::new(3, 1, 3)));
}

#[test]
#[ignore = "takes minutes"]
fn by_hand_three_faults_where_nobody_was() {
    assert_sound("nobody", Farm { first_slots: 2, ..Farm::new(0, 2, 3) });
}

#[test]
#[ignore = "takes minutes"]
fn by_hand_three_faults_at_a_ring_of_the_dead() {
    assert_sound("the dead", Farm::new(3, 2, 3).of_the_dead(9));
}

#[test]
#[ignore = "looks for what the protocol does not promise"]
fn by_hand_a_failover_that_loses_statements() {
    for members in 1..=3 {
        for faults in 1..=2 {
            let farm = Farm::new(members, 1, faults).with_kinds(Kind::ALL);
            let found = farm.search(THREADS);
            println!("{members} members, {faults} faults: {found}");
        }
    }
}

#[test]
#[ignore = "takes minutes"]
fn by_hand_safety_with_round_trips_of_a_slot_and_longer() {
    for way in [240, 400, 600, 900, 1_600] {
        for members in 1..=3 {
            let farm =
                Farm { there: way, back: way, only_safety: true, ..Farm::new(members, 1, 2) };
            assert_sound(&format!("{members} members, {way} ms a way"), farm);
        }
    }
}

#[test]
#[ignore = "looks for bugs that are not in the list of those that are found"]
fn by_hand_other_planted_bugs() {
    let listed = |bug: Bug| FOUND.iter().any(|(found, ..)| *found == bug);
    for bug in Bug::ALL.iter().filter(|bug| !listed(**bug)) {
        PLANTED.store(*bug as usize, Ordering::Relaxed);
        let sizes = [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (3, 2)];
        let found = sizes.into_iter().find_map(|(members, faults)| {
            let found = farm_for(*bug, members, faults).search_with::<Planted>(THREADS);
            found.broken.keys().next().map(|rule| format!("{members} {faults} {rule}"))
        });
        println!("{}: {found:?}", bug.as_str());
    }
}
