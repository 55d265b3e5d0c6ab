//! Decides what happened between one look at the database and the next. No IO and no clock: a look brings its times
//! along.

use std::collections::VecDeque;
use std::time::Duration;

use turnwise_engine::{Cadence, NodeId, Roster, ServerInstant, Slot};

use super::changes;
use super::event::{By, Event, Member, Weight, What};
use super::names::Names;
use super::past;
use super::slots::{SLOTS_KEPT, SlotView, Slots};
use crate::rfc3339;
use crate::store::{BeatView, Look, NodeView};

/// More slots without a beat in a row than this are one event.
const MISSED_ONE_BY_ONE: i64 = 60;
/// A beat may take so long after the end of its slot to be seen: it is committed then.
const COMMIT_NANOS: i64 = 250_000_000;
/// So many events that are worth a line are kept.
const NEWS_KEPT: usize = 100;

/// What one look at the database showed.
#[derive(Clone, Debug)]
pub struct Sight {
    /// The turn row. Read before the beats: every beat that it counts is among them.
    pub look: Look,
    /// The beats of the slots after [`Farm::newest_beat`], oldest first.
    pub beats: Vec<BeatView>,
    /// The nodes.
    pub nodes: Vec<NodeView>,
    /// When the answer came, on any clock of the looker's that only goes forward.
    pub answered: Duration,
    /// How long the look at the turn row took.
    pub took: Duration,
}

/// The farm as of the last look.
#[derive(Clone, Debug)]
pub struct Farm {
    last: Sight,
    slots: Slots,
    /// What became of every slot up to this one has been told.
    judged: Slot,
    newest_beat: Slot,
    names: Names,
    news: VecDeque<Event>,
}

impl Farm {
    /// Where things stand at the first look, and the events that tell it: the ring.
    pub fn begin(sight: &Sight) -> (Self, Vec<Event>) {
        let mut farm = Self {
            slots: Slots::default(),
            judged: Slot(i64::MIN),
            newest_beat: Slot(i64::MIN),
            names: Names::default(),
            news: VecDeque::new(),
            last: sight.clone(),
        };
        farm.learn(sight);
        farm.judged = match sight.beats.first() {
            Some(first) => first.slot - 1,
            None => farm.passed(&sight.look),
        };
        let judged = farm.judge(sight);
        farm.remember(past::news(&farm.names, sight, judged));
        let row = &sight.look.row;
        let ring = row.roster.last().filter(|version| !version.ring.is_empty());
        let ring = ring.map(|newest| changes::ring_that_holds(&farm.names, newest, row.epoch.0));
        let at = Some(rfc3339::format(sight.look.clock));
        let events = ring.into_iter().map(|what| Event { at: at.clone(), what });
        (farm, events.collect())
    }

    /// The next look, and what happened since the last one.
    pub fn see(&mut self, sight: &Sight) -> Vec<Event> {
        let before = std::mem::replace(&mut self.last, sight.clone());
        self.learn(sight);
        let mut what = Vec::new();
        what.extend(changes::clock(&before, sight));
        what.extend(self.judge(sight));
        if before.look.row.epoch != sight.look.row.epoch {
            what.extend(changes::ring(&self.names, &before.look.row.roster, sight));
        }
        what.extend(changes::period(&before.look.row.cadence, &sight.look.row.cadence));
        what.extend(changes::nodes(&before.nodes, &sight.nodes));
        what.extend(changes::counters(&before.look, &sight.look));
        let at = Some(rfc3339::format(sight.look.clock));
        let events = what.into_iter().map(|what| Event { at: at.clone(), what });
        let events: Vec<Event> = events.collect();
        let news = events.iter().filter(|event| event.what.weight() > Weight::Routine);
        self.remember(news.cloned());
        events
    }

    fn remember(&mut self, news: impl IntoIterator<Item = Event>) {
        self.news.extend(news);
        while self.news.len() > NEWS_KEPT {
            self.news.pop_front();
        }
    }

    /// What happened and is worth a line, oldest first. Not all of it: the newest; of the time before somebody began to
    /// watch, what the database keeps.
    pub fn news(&self) -> impl DoubleEndedIterator<Item = &Event> {
        self.news.iter()
    }

    /// The slot of the newest beat that was seen; the next look asks for those after it.
    pub fn newest_beat(&self) -> Slot {
        self.newest_beat
    }

    /// When the first slot of which nothing is known yet is over for good, if that is before `slot`'s boundary.
    pub(super) fn next_verdict(&self, slot: Slot) -> Option<ServerInstant> {
        let unknown = self.judged + 1;
        let period = self.cadence().period.as_nanos();
        let over = period / 2 + COMMIT_NANOS.min(period / 4);
        (unknown < slot).then(|| self.cadence().boundary(unknown).offset(over))
    }

    /// The last look.
    pub fn sight(&self) -> &Sight {
        &self.last
    }

    /// What became of the slots, oldest first.
    pub fn slots(&self) -> impl DoubleEndedIterator<Item = &SlotView> {
        self.slots.all()
    }

    /// The rings and the deputies, those of a while ago among them.
    pub fn roster(&self) -> &Roster {
        self.slots.roster()
    }

    /// How slots lie on the server's clock.
    pub fn cadence(&self) -> &Cadence {
        &self.last.look.row.cadence
    }

    /// The slot of an instant, never behind the turn row's.
    pub fn slot_at(&self, clock: ServerInstant) -> Slot {
        self.cadence().slot_at(clock).max(self.last.look.row.high)
    }

    /// Beats a second over the last minute of the server's clock, as of the last look; none while there is less than
    /// ten seconds of history.
    pub fn beats_a_second(&self) -> Option<f64> {
        let now = self.last.look.clock;
        let minute = now.offset(-60_000_000_000);
        let seen = self.slots().filter(|slot| slot.boundary > minute && slot.boundary <= now);
        let (mut slots, mut beats, mut first) = (0_u32, 0_u32, None);
        for slot in seen {
            first = first.or(Some(slot.boundary));
            slots += 1;
            beats += u32::from(slot.beat.is_some());
        }
        let period = self.cadence().period.as_nanos();
        let span = f64::from(slots) * period as f64 / 1e9;
        (span >= 10.0).then(|| f64::from(beats) / span)
    }

    /// A node by the name that it is known by.
    pub fn member(&self, node: NodeId) -> Member {
        self.names.member(node)
    }

    /// The state of a node in a word: the store's, but that one which has been in the ring is not `joining` for having
    /// been taken out of it a moment ago: it is `out`, until its lease tells more.
    pub fn state<'a>(&self, node: &'a NodeView) -> &'a str {
        let has_been_in = || self.slots.roster().nodes().any(|other| other == node.id);
        if node.state == "joining" && has_been_in() { "out" } else { &node.state }
    }

    fn learn(&mut self, sight: &Sight) {
        self.slots.learn(&sight.look.row.roster, sight.look.row.high);
        let drawn = self.slots.all().filter_map(|slot| Some(slot.beat?.node));
        self.names.learn(&sight.nodes, self.slots.roster().nodes().chain(drawn));
    }

    /// The last slot that can have no beat any more that has not been seen.
    fn passed(&self, look: &Look) -> Slot {
        let row = &look.row;
        let settle = COMMIT_NANOS.min(row.cadence.period.as_nanos() / 4);
        let by_clock = row.cadence.slot_at(look.clock.offset(-settle)) - 1;
        by_clock.max(row.slot - 1)
    }

    /// What became of the slots that passed since the last look.
    fn judge(&mut self, sight: &Sight) -> Vec<What> {
        let mut what = Vec::new();
        let cadence = sight.look.row.cadence;
        for beat in &sight.beats {
            what.extend(self.missed_until(beat.slot - 1, &cadence));
            let view = self.slots.beat(beat, &cadence);
            self.judged = self.judged.max(beat.slot);
            self.newest_beat = self.newest_beat.max(beat.slot);
            what.push(self.beat_event(beat, &view));
        }
        what.extend(self.missed_until(self.passed(&sight.look), &cadence));
        what
    }

    fn missed_until(&mut self, last: Slot, cadence: &Cadence) -> Vec<What> {
        let first = self.judged + 1;
        let slots = last - self.judged;
        if slots <= 0 {
            return Vec::new();
        }
        self.judged = last;
        let mut what = Vec::new();
        for slot in (first.0.max(last.0 - SLOTS_KEPT)..=last.0).map(Slot) {
            if self.slots.has(slot) {
                continue;
            }
            if let Some(view) = self.slots.missed(slot, cadence) {
                let owner = view.place.map(|place| self.names.member(place.owner));
                what.push(What::Missed { slot, owner });
            }
        }
        if slots > MISSED_ONE_BY_ONE && !what.is_empty() {
            what = vec![What::Gap { from: first, slots }];
        }
        what
    }

    fn beat_event(&self, beat: &BeatView, view: &SlotView) -> What {
        let by = match (view.place, view.deputy()) {
            (Some(place), Some(_)) => By::Deputy { of: self.names.member(place.owner) },
            (Some(_), None) => By::Owner,
            (None, _) => By::Unknown,
        };
        What::Beat {
            slot: beat.slot,
            who: self.names.member(beat.node),
            arrived_at: rfc3339::format(beat.arrived_at),
            late_us: view.beat.and_then(|mark| mark.late_us),
            claimed: beat.claimed,
            by,
        }
    }
}

#[cfg(test)]
mod tests {
    use turnwise_engine::{Mark, NextPeriod, Period, TurnRow, Version};

    use super::*;

    const A: NodeId = NodeId::from_u128(0xa);
    const B: NodeId = NodeId::from_u128(0xb);
    const C: NodeId = NodeId::from_u128(0xc);

    /// A farm whose looks are made by hand: times in milliseconds of the server's clock, slots of a second.
    struct Story {
        row: TurnRow,
        nodes: Vec<NodeView>,
        refused: i64,
        stale_ends: i64,
        farm: Option<Farm>,
        /// By how much the server's clock is ahead of the looker's.
        set_ms: i64,
    }

    fn node(id: NodeId, name: &str) -> NodeView {
        NodeView::of_a_test(id, name)
    }

    impl Story {
        fn of(ring: &[NodeId]) -> Self {
            let mut row = TurnRow::new(Period::DEFAULT);
            row.roster.versions.push(Version { from: Slot(0), ring: ring.to_vec() });
            let nodes = vec![node(A, "a"), node(B, "b"), node(C, "c")];
            Self { row, nodes, refused: 0, stale_ends: 0, farm: None, set_ms: 0 }
        }

        /// A look at `at_ms`, when these beats have come since the last one; what it told, in words.
        fn look(&mut self, at_ms: i64, beats: &[(i64, NodeId)]) -> Vec<String> {
            for (slot, _) in beats {
                (self.row.slot, self.row.high) = (Slot(*slot), Slot(*slot));
            }
            let clock = ServerInstant::from_micros(at_ms * 1_000);
            let look = Look {
                row: self.row.clone(),
                clock,
                refused: self.refused,
                stale_ends: self.stale_ends,
            };
            let beat = |&(slot, node): &(i64, NodeId)| {
                let boundary = self.row.cadence.boundary(Slot(slot));
                BeatView { slot: Slot(slot), node, arrived_at: boundary, claimed: 0 }
            };
            let sight = Sight {
                look,
                beats: beats.iter().map(beat).collect(),
                nodes: self.nodes.clone(),
                answered: Duration::from_millis((at_ms - self.set_ms) as u64),
                took: Duration::from_millis(1),
            };
            let events = match &mut self.farm {
                Some(farm) => farm.see(&sight),
                None => {
                    let (farm, events) = Farm::begin(&sight);
                    self.farm = Some(farm);
                    events
                }
            };
            events.iter().map(|event| event.what.words()).collect()
        }
    }

    #[test]
    fn beats_are_told_as_they_land_and_each_once() {
        let mut story = Story::of(&[A, B, C]);
        assert_eq!(story.look(10_050, &[(9, A), (10, B)]), ["the ring is a, b, c"]);
        assert_eq!(story.look(10_950, &[]), [""; 0]);
        assert_eq!(story.look(11_050, &[(11, C)]), ["c beat in slot 11: empty, 0.00 ms late"]);
        assert_eq!(story.farm.as_ref().unwrap().newest_beat(), Slot(11));
        assert_eq!(story.farm.as_ref().unwrap().slots().count(), 3);
    }

    #[test]
    fn a_slot_is_missed_when_its_beat_can_come_no_more() {
        let mut story = Story::of(&[A, B, C]);
        story.look(10_050, &[(10, B)]);
        assert!(story.look(11_600, &[]).is_empty(), "one that is being committed is waited for");
        assert_eq!(story.look(11_760, &[]), ["slot 11 was missed: it was c's"]);
        assert!(story.look(11_900, &[]).is_empty(), "it is told once");
        // The next one proves it at once.
        let told = story.look(13_050, &[(13, A)]);
        assert_eq!(told[0], "slot 12 was missed: it was a's");
        assert!(told[1].starts_with("a beat for b in slot 13"), "{told:?}");
    }

    #[test]
    fn a_crash_closes_the_ring() {
        let mut story = Story::of(&[A, B, C]);
        story.look(10_050, &[(10, B)]);
        story.row.marks.insert(C, Mark { read: Slot(8), until: Slot(12) });
        story.row.epoch.0 += 1;
        story.row.roster.versions.push(Version { from: Slot(17), ring: vec![A, B] });
        let told = story.look(12_050, &[(12, A)]);
        assert_eq!(
            told,
            [
                "slot 11 was missed: it was c's",
                "a beat in slot 12: empty, 0.00 ms late",
                "c is taken out: from slot 17 on the ring is a, b"
            ]
        );
        story.nodes[2].state = "joining".to_owned();
        assert_eq!(story.farm.as_ref().unwrap().state(&story.nodes[2]), "out");
        story.nodes[2].state = "silent".to_owned();
        assert_eq!(story.look(12_950, &[]), ["c is silent: its lease is over"]);
        story.nodes[2].state = "lost".to_owned();
        assert_eq!(story.look(12_960, &[]), ["c was declared lost: its jobs run again elsewhere"]);
        story.nodes.push(node(NodeId::from_u128(0xcc), "c"));
        assert_eq!(story.look(12_970, &[]), ["c came up again"]);
    }

    #[test]
    fn who_leaves_is_told_from_who_is_taken_out() {
        let mut story = Story::of(&[A, B, C]);
        story.look(10_050, &[(10, B)]);
        story.row.epoch.0 += 1;
        story.row.roster.versions.push(Version { from: Slot(17), ring: vec![A, C] });
        story.nodes[1].last_check_in = rfc3339::format(ServerInstant::from_micros(10_060_000));
        assert_eq!(story.look(10_070, &[]), ["b leaves: from slot 17 on the ring is a, c"]);
        story.nodes[1].state = "left".to_owned();
        assert_eq!(story.look(10_500, &[]), ["b left in good order"]);
    }

    #[test]
    fn steps_of_the_servers_clock_are_told_by_the_lookers() {
        let mut story = Story::of(&[A]);
        story.look(10_050, &[(10, A)]);
        story.set_ms = -7_200_000;
        story.row.cadence.bias = 7_200;
        let told = story.look(10_050 + 1_000 - 7_200_000, &[(11, A)]);
        assert_eq!(told[0], "the server's clock was set back by 7200.0 s");
        assert!(told[1].starts_with("a beat in slot 11: empty, 0.00 ms late"), "{told:?}");
        // Forward: the slots that it skipped are one gap.
        story.set_ms = 0;
        let told = story.look(12_050, &[(7_212, A)]);
        assert_eq!(told[0], "the server's clock was set forward by 7200.0 s");
        assert!(told[1].starts_with("7200 slots from 12 on had no beat"), "{told:?}");
        assert!(told[2].starts_with("a beat in slot 7212"), "{told:?}");
        assert!(story.farm.as_ref().unwrap().slots().count() <= 600);
    }

    #[test]
    fn a_farm_that_everybody_has_left_misses_nothing() {
        let mut story = Story::of(&[A]);
        story.look(10_050, &[(10, A)]);
        story.row.epoch.0 += 1;
        story.row.roster.versions.push(Version { from: Slot(11), ring: vec![] });
        story.look(11_050, &[]);
        assert!(story.look(20_050, &[]).is_empty());
    }

    #[test]
    fn counters_and_the_period_are_told_by_their_differences() {
        let mut story = Story::of(&[A]);
        (story.refused, story.stale_ends) = (3, 4);
        story.look(10_050, &[(10, A)]);
        (story.refused, story.stale_ends) = (4, 6);
        let period = Period::from_millis(500).unwrap();
        story.row.cadence.next = Some(NextPeriod { from: Slot(15), period });
        assert_eq!(
            story.look(10_100, &[]),
            [
                "the period is 500 ms from slot 15 on",
                "a beat was refused: its slot had one",
                "2 ended too late: the jobs were no longer their nodes'"
            ]
        );
        assert!(story.look(10_110, &[]).is_empty());
    }

    #[test]
    fn beats_a_second_are_counted_over_what_was_seen() {
        let mut story = Story::of(&[A, B]);
        let beats: Vec<_> = (10..=21).filter(|s| *s != 15).map(|s| (s, A)).collect();
        story.look(21_050, &beats);
        let rate = story.farm.as_ref().unwrap().beats_a_second().unwrap();
        assert!((rate - 11.0 / 12.0).abs() < 1e-9, "{rate}");
        let mut short = Story::of(&[A]);
        short.look(10_050, &[(10, A)]);
        assert_eq!(short.farm.as_ref().unwrap().beats_a_second(), None);
    }
}
