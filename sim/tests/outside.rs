//! Files that come from outside are read or refused, whatever stands in them: scenarios, traces and journals that are nearly right.
//! A run tries the same ones each time.

#![allow(clippy::unwrap_used)]

use std::fmt::Display;

use turnwise_engine::journal::{self, Entry};
use turnwise_sim::clock::judge::judge;
use turnwise_sim::clock::judging::tuning;
use turnwise_sim::clock::trace::{from_csv, generate, to_csv};
use turnwise_sim::cluster::{fit, run_with_journals};
use turnwise_sim::journal::{entries, header};
use turnwise_sim::random::Stream;
use turnwise_sim::scenario::{Scenario, Span, swarm};

/// So many texts of each kind.
const CASES: u64 = 2_000;

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

#[test]
fn a_scenario_is_read_as_it_is_written_or_refused() {
    let mut chance = Stream::new(1, "spoilt scenarios");
    let mut read = 0;
    for seed in 0..CASES {
        let text = spoilt(&swarm(seed % 50).to_json(), &mut chance);
        match Scenario::from_json(&text) {
            Ok(scenario) => {
                read += 1;
                let again = Scenario::from_json(&scenario.to_json());
                assert_eq!(again.ok(), Some(scenario), "{text}");
            }
            Err(error) => is_said(error),
        }
    }
    assert!(0 < read && read < CASES, "{read} of {CASES} were read");
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
