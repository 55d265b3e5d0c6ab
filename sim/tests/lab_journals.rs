//! The journals of the lab: a new engine, told what a life was told, asks for the same; and where it does not, it is found.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output as Ran};

use turnwise_engine::journal::{Divergence, Entry, Header, Summary, replay};
use turnwise_engine::{Bug, Input, LocalInstant, NodeId, Note, Output, Reason, Slot, Sound};
use turnwise_sim::journal::{entries, header, text};
use turnwise_sim::lab::{Driver, Journal, Product, run, run_with, run_with_journals};
use turnwise_sim::oracle::Invariant;
use turnwise_sim::sabotage::Plantable;
use turnwise_sim::scenario::{Fault, Planned, Scenario, Span, swarm};

/// Four nodes at work: one comes late, one crashes and comes back, one leaves.
fn busy(seed: u64) -> Scenario {
    let at = |seconds, fault| Planned { at: Span::from_secs(seconds), fault };
    let mut scenario = Scenario::calm(seed, 4, Span::from_secs(120));
    scenario.nodes[3].start = Span::from_secs(25);
    scenario.load.every = Span::from_millis(200);
    scenario.load.until = Span::from_secs(90);
    scenario.faults = vec![
        at(50, Fault::Restart { node: 0, after: Span::from_secs(5) }),
        at(75, Fault::Drain { node: 1 }),
    ];
    scenario
}

/// The journal of the node that crashes.
fn journal_of_the_crashed() -> Journal {
    let (_, journals) = run_with_journals(&busy(5), false);
    journals.into_iter().find(|journal| journal.life == 0).unwrap()
}

#[test]
fn each_life_is_replayed_from_its_journal_without_a_difference() {
    let (report, journals) = run_with_journals(&busy(5), false);
    assert_eq!(report.violations, []);
    assert!(report.jobs.succeeded > 200, "{:?}", report.jobs);
    let lives: Vec<_> = journals.iter().map(|journal| (journal.life, journal.node)).collect();
    assert_eq!(lives, [(0, 0), (1, 1), (2, 2), (3, 3), (4, 0)]);
    for Journal { life, header: first, entries: all, .. } in &journals {
        let has = |wanted: fn(&Entry) -> bool| all.iter().any(wanted);
        assert!(has(|entry| matches!(entry, Entry::Input { input: Input::JobsEnded { .. }, .. })));
        assert!(has(|entry| matches!(entry, Entry::Output(Output::Note(Note::Changed { .. })))));
        // Through text and back, as a file has it.
        let text = text(first, all).unwrap();
        assert_eq!((header(&text).as_ref(), entries(&text).as_ref()), (Some(first), Ok(all)));
        let summary = replay(first, entries(&text).unwrap()).unwrap();
        let outputs = all.iter().filter(|entry| matches!(entry, Entry::Output(_))).count();
        assert_eq!((summary.lives, summary.outputs), (1, outputs as u64));
        // One was killed, one has left, and three live on.
        assert_eq!(summary.ended, *life == 1, "life {life}");
    }
}

#[test]
fn a_run_is_the_same_whether_its_journals_are_wanted_or_not() {
    for seed in 0..32 {
        let scenario = swarm(seed);
        let (report, journals) = run_with_journals(&scenario, false);
        assert_eq!(report.violations, [], "seed {seed}");
        assert_eq!(report.trace_hash, run(&scenario).trace_hash, "seed {seed}");
        for journal in journals {
            replay(&journal.header, journal.entries).unwrap();
        }
    }
}

#[test]
fn one_entry_that_was_altered_is_found() {
    let Journal { header, entries, .. } = journal_of_the_crashed();
    let number = |found: Result<Summary, Divergence>| match found {
        Err(Divergence::Output { entry, .. }) => entry,
        other => panic!("{other:?}"),
    };
    let mut asked = entries.clone();
    let is_turn = |entry: &Entry| matches!(entry, Entry::Output(Output::Turn { .. }));
    let place = asked.iter().rposition(is_turn).unwrap();
    if let Entry::Output(Output::Turn { request, .. }) = &mut asked[place] {
        request.0 += 1;
    }
    assert_eq!(number(replay(&header, asked)), place as u64 + 1);

    let mut told = entries;
    let brings_one_more = |entry: &mut Entry| match entry {
        Entry::Input { input: Input::TurnAnswer(answer), .. } if answer.claimed > 0 => {
            answer.claimed += 1;
            true
        }
        _ => false,
    };
    let place = told.iter_mut().position(brings_one_more).unwrap();
    assert!(number(replay(&header, told)) > place as u64 + 1, "it shows in what is asked for next");
}

/// An engine whose journal does not say all: its beats are not noted in it.
struct Muffled(Product);

impl Driver for Muffled {
    type Rules = Sound;
    const PROMISES: bool = true;
    const KEEPS_JOURNAL: bool = true;

    fn new(id: NodeId, capacity: u32, seed: u64, now: LocalInstant) -> Self {
        Self(<Product as Driver>::new(id, capacity, seed, now))
    }

    fn handle_input(&mut self, now: LocalInstant, input: Input) {
        self.0.handle_input(now, input);
    }

    fn poll_output(&mut self) -> Option<Output> {
        let is_beat = |output: &Output| matches!(output, Output::Note(Note::Beat { .. }));
        std::iter::from_fn(|| self.0.poll_output()).find(|output| !is_beat(output))
    }

    fn poll_timeout(&self) -> Option<(LocalInstant, Reason)> {
        self.0.poll_timeout()
    }

    fn claim(&self, now: LocalInstant) -> Option<(i64, i64, i64)> {
        self.0.claim(now)
    }

    fn held(&self) -> Option<u32> {
        self.0.held()
    }

    fn next_turn(&self) -> Option<Slot> {
        self.0.next_turn()
    }

    fn replay(header: &Header, entries: Vec<Entry>) -> Result<Summary, Divergence> {
        <Product as Driver>::replay(header, entries)
    }
}

#[test]
fn one_seed_in_sixteen_is_judged_by_its_journals_and_each_life_is_named() {
    let found = run_with::<Muffled>(&busy(16), false).violations;
    assert!(found.iter().all(|found| found.invariant == Invariant::Replay), "{found:#?}");
    assert_eq!(found.len(), 5, "a life each: {found:#?}");
    let first = &found[0].detail;
    assert!(first.contains("life 0 ") && first.contains("entry "), "{first}");
    assert_eq!(found[0].at_us, 50_000_000, "when it was killed");
    assert_eq!(run_with::<Muffled>(&busy(17), false).violations, []);
    assert_eq!(run(&busy(16)).violations, []);
}

/// Otherwise whatever is planted would be found by its journal alone.
#[test]
fn an_engine_with_a_planted_bug_is_replayed_by_one_that_has_it_too() {
    let scenario = Scenario::calm(16, 2, Span::from_secs(12));
    Bug::plant(Some(Bug::ArrivalErrorIsReversed));
    let report = <Bug as Plantable>::run(&scenario);
    Bug::plant(None);
    assert!(report.violated > 0, "it is not seen");
    assert_eq!(report.violated, report.violations.len() as u64, "some are not told");
    let found = &report.violations;
    assert!(found.iter().all(|found| found.invariant != Invariant::Replay), "{found:#?}");
}

fn sim(arguments: &[&str], folder: &Path) -> Ran {
    let program = env!("CARGO_BIN_EXE_turnwise-sim");
    Command::new(program).args(arguments).current_dir(folder).output().unwrap()
}

#[test]
fn journals_are_written_by_both_tiers_and_replayed_by_command() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--nodes", "2", "--duration", "60s", "--jobs-rate", "2/s", "--journals"];
    for tier in ["lab", "cluster"] {
        let ran = sim(&[&[tier][..], &options[..], &[tier][..]].concat(), folder.path());
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let mut count = 0;
        for file in std::fs::read_dir(folder.path().join(tier)).unwrap() {
            let path = file.unwrap().path();
            let ran = sim(&["replay", path.to_str().unwrap()], folder.path());
            let said = String::from_utf8(ran.stdout).unwrap();
            assert!(ran.status.success() && said.contains("all as they were"), "{path:?}: {said}");
            count += 1;
        }
        assert_eq!(count, 2, "of the {tier}");
    }
    let ran = sim(&["lab", "--clock", "original", "--journals", "o"], folder.path());
    let error = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(1), "{error}");
    assert!(error.contains("--journals") && error.contains("--clock"), "{error}");
}
