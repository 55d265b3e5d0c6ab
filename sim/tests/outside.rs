//! Files that come from outside are read or refused, whatever stands in them: scenarios, traces and journals that are nearly right.
//! What is read can be run: nothing panics, and every run comes to an end. A run tries the same ones each time.

#![allow(clippy::unwrap_used)]

use std::fmt::Display;

use turnwise_engine::journal::{self, Entry};
use turnwise_sim::clock::judge::judge;
use turnwise_sim::clock::judging::tuning;
use turnwise_sim::clock::trace::{from_csv, generate, to_csv};
use turnwise_sim::cluster::{fit, run_with_journals};
use turnwise_sim::journal::{entries, header};
use turnwise_sim::lab::run;
use turnwise_sim::random::Stream;
use turnwise_sim::scenario::{Fault, Planned, Scenario, Shift, Span, swarm};

/// So many texts of each kind.
const CASES: u64 = 2_000;
/// So many of the scenarios that are read are run too.
const RUNS: u64 = 300;
/// For so long at most, of so many nodes at most.
const RUN_LASTS: Span = Span::from_secs(5);
const RUN_NODES: usize = 4;

/// What stands in the place of a number.
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "1",
    "0.5",
    "1e300",
    "-0.0",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "null",
];

/// The text with a few mistakes in it.
fn spoilt(text: &str, chance: &mut Stream) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..1 + chance.below(3) {
        let place = chance.below(bytes.len() as u64 + 1) as usize;
        let end = (place + chance.below(12) as usize).min(bytes.len());
        match chance.below(6) {
            // A number is another one; that is what is most likely to be read.
            0..=2 => {
                let is_part = |byte: &u8| byte.is_ascii_digit();
                let Some(begin) = bytes.iter().skip(place).position(is_part) else { continue };
                let begin = place + begin;
                let length = bytes.iter().skip(begin).take_while(|byte| is_part(byte)).count();
                let number = NUMBERS[chance.below(NUMBERS.len() as u64) as usize];
                bytes.splice(begin..begin + length, number.bytes());
            }
            3 => drop(bytes.drain(place..end)),
            4 => {
                let again = bytes[place..end].to_vec();
                bytes.splice(place..place, again);
            }
            _ => bytes.insert(place, b" \"\\{}[],:;\n\0"[chance.below(11) as usize]),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn is_said(error: impl Display) {
    assert!(!error.to_string().is_empty());
}

/// What a scenario says, within a few seconds.
fn shortened(mut scenario: Scenario) -> Scenario {
    scenario.duration = scenario.duration.min(RUN_LASTS);
    let end = scenario.duration.0;
    scenario.nodes.truncate(RUN_NODES);
    for node in &mut scenario.nodes {
        node.start.0 %= end;
    }
    let nodes = scenario.nodes.len() as u32;
    scenario.faults.retain(|planned| planned.fault.node().is_none_or(|node| node < nodes));
    for planned in &mut scenario.faults {
        planned.at.0 %= end;
    }
    if scenario.load.every > Span::ZERO {
        scenario.load.every = scenario.load.every.max(Span::from_millis(5));
    }
    scenario
}

#[test]
fn a_scenario_is_read_as_it_is_written_or_refused() {
    let mut chance = Stream::new(1, "spoilt scenarios");
    let mut read = 0;
    for seed in 0..CASES {
        let text = spoilt(&swarm(seed % 50).to_json(), &mut chance);
        match Scenario::from_json(&text) {
            Ok(scenario) => {
                read += 1;
                let again = Scenario::from_json(&scenario.to_json()).unwrap();
                assert_eq!(again, scenario, "{text}");
                if read <= RUNS {
                    run(&shortened(scenario));
                }
            }
            Err(error) => is_said(error),
        }
    }
    assert!(0 < read && read < CASES, "{read} of {CASES} were read");
}

/// Every number of a scenario at an end of its range, or near it.
fn at_the_ends() -> Vec<Scenario> {
    let text = |text: &str| -> Span { text.parse().unwrap() };
    let (month, hour, second) = (text("30days"), text("1h"), text("1s"));
    let far = text("10s");
    let years = |text: &str| -> Shift { text.parse().unwrap() };
    let mut calm = Scenario::calm(1, 4, RUN_LASTS);
    calm.load.every = Span::from_millis(20);
    calm.load.until = RUN_LASTS;
    let mut all = Vec::new();
    let mut add = |change: &dyn Fn(&mut Scenario)| {
        let mut changed = calm.clone();
        change(&mut changed);
        all.push(changed);
    };
    let at = Span::from_secs(2);
    for fault in [
        Fault::Restart { node: 1, after: month },
        Fault::Pause { node: 1, lasts: month },
        Fault::Freeze { node: 1, lasts: month },
        Fault::Freeze { node: 1, lasts: second },
        Fault::Stall { node: 1, lasts: month },
        Fault::HoldChange { node: 1, lasts: month },
        Fault::Errors { node: 1, lasts: month },
        Fault::CutThere { node: 1, lasts: month },
        Fault::Hold { node: 1, lasts: month },
        Fault::Congestion { node: 1, lasts: month, factor: 1_000 },
        Fault::Route { node: 1, there: far, back: far },
        Fault::TargetDown { node: 1, lasts: month },
        Fault::ServerSlew { ppm: 100_000, lasts: month },
        Fault::ServerSlew { ppm: -100_000, lasts: second },
        Fault::Outage { lasts: month },
        Fault::ServerRestart { lasts: month },
        Fault::Failover { lasts: Span(1), loses: month, clock: years("10years") },
        Fault::Failover { lasts: Span(1), loses: month, clock: years("-10years") },
        Fault::Deploy { lasts: month },
        Fault::Slow { by: hour, lasts: month },
    ] {
        add(&|s| s.faults.push(Planned { at, fault }));
    }
    for by in ["10years", "-10years"].map(years) {
        let step = |number: u64| Planned {
            at: Span::from_millis(500 * number),
            fault: Fault::ServerStep { by },
        };
        add(&|s| s.faults = (0..5).map(step).collect());
    }
    for drift_ppb in [-400_000, 400_000] {
        add(&|s| {
            for node in &mut s.nodes {
                node.clock.shows = text("100years");
                node.clock.drift_ppb = drift_ppb;
                node.clock.wander_ppb = 10_000;
                node.clock.late_wake = second;
                node.clock.resolution = second;
            }
        });
    }
    for loss_ppm in [0, 1_000_000] {
        add(&|s| {
            for node in &mut s.nodes {
                for road in [&mut node.there, &mut node.back] {
                    (road.base, road.spread, road.loss_ppm) = (Span::ZERO, far, loss_ppm);
                    (road.tail_ppm, road.spike_ppm) = (1_000_000, 1_000_000);
                    road.duplicate_ppm = 1_000_000;
                }
            }
            let factor = 1_000;
            s.faults.push(Planned { at, fault: Fault::Congestion { node: 1, lasts: far, factor } });
        });
    }
    add(&|s| {
        (s.database.service, s.database.commit) = (hour, hour);
        s.database.resolution = second;
    });
    add(&|s| {
        (s.load.runs, s.load.fails_ppm, s.load.max_attempts) = (hour, 1_000_000, 1);
        (s.orders.concurrency, s.orders.rate) = (1_000_000, 1_000_000);
        s.nodes[0].capacity = 10_000;
    });
    add(&|s| s.duration = Span::from_millis(1));
    all
}

#[test]
fn what_is_within_its_range_can_be_run() {
    for mut scenario in at_the_ends() {
        let end = scenario.duration;
        scenario.faults.retain(|planned| planned.at <= end);
        assert_eq!(scenario.check(), Ok(()));
        run(&scenario);
    }
}

#[test]
fn a_trace_is_read_as_it_is_written_or_refused() {
    let mut chance = Stream::new(1, "spoilt traces");
    let case = tuning(0).into_iter().next().unwrap();
    let samples = generate(&case.spec);
    let text = to_csv(&samples[..100]);
    let mut read = 0;
    for _ in 0..CASES {
        let text = spoilt(&text, &mut chance);
        match from_csv(&text) {
            Ok(samples) => {
                read += 1;
                assert_eq!(from_csv(&to_csv(&samples)).unwrap(), samples, "{text}");
                // And whatever it says, it can be judged.
                judge(&samples, None);
            }
            Err(error) => is_said(error),
        }
    }
    assert!(0 < read && read < CASES, "{read} of {CASES} were read");
}

#[test]
fn a_journal_is_replayed_or_refused() {
    let mut chance = Stream::new(1, "spoilt journals");
    let scenario = Scenario { duration: Span::from_secs(60), ..swarm(3) };
    let (_, journals) = run_with_journals(&fit(scenario), false);
    let lines = journals[0].iter().enumerate().map(|(number, entry)| match entry {
        Entry::Life(header) if number == 0 => serde_json::to_string(header).unwrap(),
        entry => serde_json::to_string(entry).unwrap(),
    });
    let lines: Vec<String> = lines.take(200).collect();
    let text = lines.join("\n");
    let whole = entries(&text).unwrap();
    assert!(whole.len() > 50, "{}", whole.len());
    let mut read = 0;
    for _ in 0..CASES {
        let text = spoilt(&text, &mut chance);
        let Some(header) = header(&text) else { continue };
        match entries(&text) {
            Ok(entries) => {
                read += 1;
                if let Err(difference) = journal::replay(&header, entries) {
                    is_said(difference);
                }
            }
            Err(error) => is_said(error),
        }
    }
    assert!(0 < read && read < CASES, "{read} of {CASES} were read");
}
