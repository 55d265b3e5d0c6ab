//! Nodes of two versions in one farm, as while a new one is rolled out: what is promised of the ring, of leases and of jobs holds
//! whichever of them has the turn. The other version is this engine without some of what it does better now, each of
//! which concerns nobody but the node itself.

#![allow(clippy::unwrap_used)]

use turnwise_engine::journal::{Divergence, Entry, Header, Summary, replay_as};
use turnwise_engine::{
    Bug, Engine, Input, LocalInstant, NodeId, Output, Reason, Sabotage, Slot, Sound, Status,
};
use turnwise_sim::lab::{Driver, run_with};
use turnwise_sim::oracle::{Invariant, Mark, Marks};
use turnwise_sim::scenario::swarm;

/// So many seeds.
const SEEDS: u64 = 1_500;

/// An earlier version: it aims by half of the round trip, asks queues that have a rate at its turns alone, lets an older answer
/// take back what a newer one has told of, and does not note the turns that it skips.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Earlier;

impl Sabotage for Earlier {
    fn plants(bug: Bug) -> bool {
        matches!(
            bug,
            Bug::AimByHalfRoundTrip
                | Bug::RateIsNotAwaited
                | Bug::OlderAnswerTakesBack
                | Bug::SkippedTurnsAreNotNoted
        )
    }
}

/// Of two lives that follow each other one is of each version.
fn is_earlier(id: NodeId) -> bool {
    id.uuid().as_u128() % 2 == 1
}

enum Mixed {
    This(Engine<Sound>),
    Earlier(Engine<Earlier>),
}

/// The same of either.
macro_rules! of {
    ($mixed:expr, $engine:ident => $value:expr) => {
        match $mixed {
            Mixed::This($engine) => $value,
            Mixed::Earlier($engine) => $value,
        }
    };
}

impl Driver for Mixed {
    type Rules = Sound;
    const PROMISES: bool = true;
    const KEEPS_JOURNAL: bool = true;

    fn promises(&self, invariant: Invariant) -> bool {
        use Invariant::{Accounting, Accuracy, Drains};
        matches!(self, Self::This(_)) || !matches!(invariant, Accounting | Accuracy | Drains)
    }

    fn new(id: NodeId, capacity: u32, seed: u64, now: LocalInstant) -> Self {
        match is_earlier(id) {
            true => Self::Earlier(Driver::new(id, capacity, seed, now)),
            false => Self::This(Driver::new(id, capacity, seed, now)),
        }
    }

    fn handle_input(&mut self, now: LocalInstant, input: Input) {
        of!(self, engine => engine.handle_input(now, input));
    }

    fn poll_output(&mut self) -> Option<Output> {
        of!(self, engine => engine.poll_output())
    }

    fn poll_timeout(&self) -> Option<(LocalInstant, Reason)> {
        of!(self, engine => engine.poll_timeout())
    }

    fn claim(&self, now: LocalInstant) -> Option<(i64, i64, i64)> {
        of!(self, engine => Driver::claim(engine, now))
    }

    fn held(&self) -> Option<u32> {
        of!(self, engine => engine.held())
    }

    fn status(&self, now: LocalInstant) -> Option<Status> {
        of!(self, engine => Driver::status(engine, now))
    }

    fn next_turn(&self) -> Option<Slot> {
        of!(self, engine => engine.next_turn())
    }

    fn replay(header: &Header, entries: Vec<Entry>) -> Result<Summary, Divergence> {
        match is_earlier(header.id) {
            true => replay_as::<Earlier>(header, entries),
            false => replay_as::<Sound>(header, entries),
        }
    }
}

#[test]
fn two_versions_take_turns_with_each_other() {
    let (mut marks, mut asked_less) = (Marks::default(), false);
    for seed in 0..SEEDS {
        let scenario = swarm(seed);
        let mixed = run_with::<Mixed>(&scenario, false);
        assert!(mixed.violated == 0, "seed {seed}: {:#?}", mixed.violations);
        marks.add(&mixed.marks);
        if seed % 100 == 0 {
            let alike = run_with::<Engine<Sound>>(&scenario, false);
            asked_less |= alike.trace_hash != mixed.trace_hash;
        }
    }
    assert!(asked_less, "the other version does the same");
    for mark in [
        Mark::RemovedSeveral,
        Mark::CameBack,
        Mark::Deputised,
        Mark::TookOver,
        Mark::Left,
        Mark::PeriodChanged,
        Mark::ServerChanged,
        Mark::LeaseLapsed,
        Mark::LostClaimRecovered,
        Mark::DeputyDied,
    ] {
        assert!(marks.count(mark) > 0, "{}", mark.as_str());
    }
}

/// What is planted in the earlier version would be found if it were promised.
#[test]
fn what_the_other_version_lacks_is_seen_where_it_is_promised() {
    let found: Vec<_> = (0..60)
        .flat_map(|seed| run_with::<Engine<Earlier>>(&swarm(seed), false).violations)
        .map(|violation| violation.invariant)
        .collect();
    for invariant in [Invariant::Drains, Invariant::Accounting, Invariant::Accuracy] {
        assert!(found.contains(&invariant), "{}", invariant.as_str());
    }
}
