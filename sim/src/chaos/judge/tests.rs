//! Histories that keep the invariants, and such as break them.

use turnwise_engine::journal::Entry;
use turnwise_engine::{Period, ServerInstant, Version};

use super::*;
use crate::chaos::{misfit, with_failovers};
use crate::scenario::{LocalClock, Options, Planned, Road, Shift};

const SECOND: u64 = 1_000_000_000;

/// A farm of two that takes turns for a minute, as it would be seen, and one job done by the first.
struct Seen {
    scenario: Scenario,
    history: History,
    facts: Facts,
}

fn node(host: u32) -> NodeId {
    format!("00000000-0000-4000-8000-00000000000{host}").parse().unwrap()
}

fn seen() -> Seen {
    let scenario = Scenario {
        version: crate::scenario::VERSION,
        seed: 1,
        period: Period::DEFAULT,
        duration: Span::from_secs(60),
        database: Default::default(),
        nodes: vec![
            crate::scenario::Node {
                start: Span::ZERO,
                capacity: 4,
                clock: LocalClock::default(),
                there: Road::default(),
                back: Road::default(),
            };
            2
        ],
        load: Default::default(),
        retention: Default::default(),
        orders: Default::default(),
        faults: Vec::new(),
    };
    let history = History::begin();
    let stamp = |at: u64| history.stamp_at(at);
    // The first boundary that is a second away.
    let first = stamp(SECOND) / 1_000_000 + 1;
    let mut row = TurnRow::new(Period::DEFAULT);
    row.roster.versions = vec![Version { from: Slot(0), ring: vec![node(0), node(1)] }];
    let beats: Vec<_> = (first..first + 57)
        .map(|slot| Beat {
            slot,
            node: node((slot % 2) as u32).to_string(),
            arrived_us: slot * 1_000_000 + 90,
            claimed: 0,
        })
        .collect();
    let nodes = [0, 1].map(|host| (node(host), Recipe::name(host), "live".to_owned()));
    let look = |refused| Look {
        row: row.clone(),
        clock: ServerInstant::from_nanos(stamp(SECOND / 2) * 1_000),
        refused,
        stale_ends: 0,
    };
    let call = Call { host: 0, job: 7, number: 1 };
    let events = vec![
        (1, Event::Up(0)),
        (1, Event::Up(1)),
        (SECOND / 2, Event::Row(Box::new(look(0)))),
        (SECOND / 2, Event::Nodes(nodes.to_vec())),
        (20 * SECOND, Event::Enqueued(7)),
        (21 * SECOND, Event::Begun(call)),
        (22 * SECOND, Event::Over(call, true)),
        (40 * SECOND, Event::Row(Box::new(look(0)))),
    ];
    let job = JobView {
        id: crate::world::id_of(7),
        queue: "default".to_owned(),
        method: "POST".to_owned(),
        url: "/jobs/7".to_owned(),
        state: JobState::Succeeded,
        priority: 0,
        attempt: 1,
        max_attempts: 20,
        scheduled_at: ServerInstant::from_nanos(stamp(20 * SECOND) * 1_000),
        created_at: ServerInstant::from_nanos(stamp(20 * SECOND) * 1_000),
        finished_at: Some(ServerInstant::from_nanos(stamp(22 * SECOND + SECOND / 10) * 1_000)),
        node: None,
        last_status: Some(200),
        last_error: None,
        unique_key: None,
        awaits_since: None,
        progress: None,
        particulars: Default::default(),
        after: None,
    };
    let facts =
        Facts { events, beats, attempts: Vec::new(), jobs: vec![job], journals: Vec::new() };
    Seen { scenario, history, facts }
}

impl Seen {
    fn violated(&self) -> Vec<Invariant> {
        let report = judge(&self.scenario, &self.history, &self.facts, false).unwrap();
        report.violations.iter().map(|violation| violation.invariant).collect()
    }

    fn happens(&mut self, at: u64, event: Event) {
        self.facts.events.push((at, event));
    }
}

#[test]
fn a_farm_at_peace_is_found_to_be() {
    let seen = seen();
    let report = judge(&seen.scenario, &seen.history, &seen.facts, false).unwrap();
    assert_eq!(report.violations, []);
    assert_eq!((report.beats, report.missed, report.doubled), (57, 0, 0));
    assert_eq!((report.jobs.enqueued, report.jobs.succeeded), (1, 1));
    assert!(report.arrivals.len() > 30 && report.arrival.max == 90_000, "{:?}", report.arrival);
}

#[test]
fn a_slot_that_nobody_took_is_found() {
    let mut seen = seen();
    seen.facts.beats.remove(40);
    assert!(seen.violated().contains(&Invariant::Calm));
}

#[test]
fn a_beat_out_of_turn_is_found() {
    let mut seen = seen();
    seen.facts.beats[40].node = seen.facts.beats[41].node.clone();
    assert_eq!(seen.violated(), [Invariant::Calm]);
}

#[test]
fn refused_beats_are_found() {
    let mut seen = seen();
    let Some((_, Event::Row(look))) = seen.facts.events.last().cloned() else { panic!() };
    seen.happens(50 * SECOND, Event::Row(Box::new(Look { refused: 2, ..*look })));
    assert_eq!(seen.violated(), [Invariant::Calm, Invariant::Calm]);
}

#[test]
fn two_missed_slots_are_too_many_for_one_crash() {
    let mut seen = seen();
    seen.happens(30 * SECOND, Event::Fault(Fault::Kill { node: 1 }, true));
    seen.happens(30 * SECOND, Event::Killed(1));
    seen.facts.beats.drain(30..32);
    assert!(seen.violated().contains(&Invariant::Bounds));
}

#[test]
fn a_job_at_two_places_is_found() {
    let mut seen = seen();
    let call = Call { host: 1, job: 7, number: 2 };
    seen.happens(21 * SECOND + SECOND / 2, Event::Begun(call));
    seen.happens(23 * SECOND, Event::Over(call, true));
    assert_eq!(seen.violated(), [Invariant::NoOverlap]);
}

#[test]
fn a_job_that_is_gone_is_found() {
    let mut seen = seen();
    seen.facts.jobs.clear();
    assert!(seen.violated().contains(&Invariant::NoJobLost));
}

#[test]
fn a_job_that_waits_for_ever_is_found() {
    let mut seen = seen();
    seen.facts.jobs[0].state = JobState::Ready;
    seen.facts.jobs[0].finished_at = None;
    assert_eq!(seen.violated(), [Invariant::NoJobLost]);
}

#[test]
fn a_success_that_nobody_saw_is_found() {
    let mut seen = seen();
    seen.facts.events.retain(|(_, event)| !matches!(event, Event::Over(..)));
    assert_eq!(seen.violated(), [Invariant::Accounting]);
}

#[test]
fn a_lease_that_ran_out_for_no_reason_is_found() {
    let mut seen = seen();
    let nodes = vec![(node(0), Recipe::name(0), "lost".to_owned())];
    seen.happens(45 * SECOND, Event::Nodes(nodes));
    assert!(seen.violated().contains(&Invariant::LeaseKept));
}

#[test]
fn a_lease_of_a_process_that_was_killed_may_run_out() {
    let mut seen = seen();
    let nodes = |state: &str| vec![(node(1), Recipe::name(1), state.to_owned())];
    seen.happens(30 * SECOND, Event::Fault(Fault::Kill { node: 1 }, true));
    seen.happens(30 * SECOND, Event::Killed(1));
    seen.happens(31 * SECOND, Event::Up(1));
    seen.happens(32 * SECOND, Event::Nodes(nodes("live")));
    seen.happens(40 * SECOND, Event::Nodes(nodes("lost")));
    assert!(!seen.violated().contains(&Invariant::LeaseKept));
}

#[test]
fn a_process_that_ends_by_itself_is_found() {
    let mut seen = seen();
    seen.happens(58 * SECOND, Event::Ended(1, "signal: 6 (SIGABRT)".to_owned()));
    assert!(seen.violated().contains(&Invariant::NoPanic));
}

#[test]
fn a_journal_that_differs_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut scenario = seen().scenario;
    scenario = crate::cluster::fit(scenario);
    let (_, journals) = crate::cluster::run_with_journals(&scenario, false);
    let Some(Entry::Life(header)) = journals[0].first() else { panic!() };
    let mut lines = vec![serde_json::to_string(header).unwrap()];
    lines.extend(journals[0][1..].iter().map(|entry| serde_json::to_string(entry).unwrap()));
    let file = folder.path().join("node-0.1.journal");
    std::fs::write(&file, lines.join("\n")).unwrap();
    assert_eq!(replay_file(&file).unwrap(), None);
    let output = lines.iter().position(|line| line.contains("\"Output\"")).unwrap_or(9);
    lines.remove(output);
    std::fs::write(&file, lines.join("\n")).unwrap();
    assert!(replay_file(&file).unwrap().is_some());
}

#[test]
fn what_users_ask_for_can_be_done_to_real_processes() {
    let rates = |text: &str| text.parse().unwrap();
    let options = Options {
        nodes: 5,
        period: Period::DEFAULT,
        skew: Span::from_millis(900),
        drift_ppm: 50.0,
        wander_ppb: 0,
        resolution: Span(1),
        late_wake: Span::ZERO,
        latency: "1ms..80ms".parse().unwrap(),
        node_latency: Vec::new(),
        jitter: Span::from_micros(200),
        asymmetry: 0.0,
        tail_ppm: 0,
        spike_ppm: 0,
        loss_ppm: 0,
        duplicate_ppm: 0,
        crashes: rates("1/5s"),
        pauses: rates("1/5s"),
        partitions: rates("1/5s"),
        database_faults: rates("1/5s"),
        steps: Vec::new(),
        jobs: rates("5/s"),
        retention: Default::default(),
        orders: Default::default(),
        duration: Span::from_secs(600),
        seed: 3,
    };
    let scenario = options.scenario();
    assert!(scenario.faults.len() > 100);
    assert_eq!(misfit(&scenario, false), None);
}

#[test]
fn with_a_standby_restarts_are_failovers_and_there_is_one_at_least() {
    let mut scenario = seen().scenario;
    let failovers = |scenario: &Scenario| {
        let failover = |planned: &&Planned| matches!(planned.fault, Fault::Failover { .. });
        scenario.faults.iter().filter(failover).count()
    };
    assert_eq!(failovers(&with_failovers(scenario.clone())), 1);
    let lasts = Span::from_secs(3);
    let restart = |at| Planned { at, fault: Fault::ServerRestart { lasts } };
    scenario.faults = [10, 30].map(Span::from_secs).map(restart).to_vec();
    let two = with_failovers(scenario);
    assert_eq!((failovers(&two), two.faults.len()), (2, 2));
    assert_eq!(misfit(&two, true), None);
    assert!(misfit(&two, false).unwrap().contains("--replica"));
    let loses = Fault::Failover { lasts, loses: lasts, clock: Shift(0) };
    let mut scenario = two;
    scenario.faults.push(Planned { at: lasts, fault: loses });
    assert!(misfit(&scenario, true).unwrap().contains("acknowledged"));
}
