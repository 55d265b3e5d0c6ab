//! Decides whether turns were taken as the protocol promises: in calm without any fault, after one event
//! within its row of the table of bounds, after any mixture whole again in time.

use std::collections::BTreeMap;

use turnwise_engine::Slot;

use super::rows::{Course, Done, patience, row, waited};
use super::{Invariant, Mark, Marks, Violations};
use crate::scenario::{Fault, Span};
use crate::sometimes;

/// A beat that reached the database.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// True time since the start, in nanoseconds.
    pub at: u64,
    /// The slot that it fell into.
    pub slot: Slot,
    /// The slot that it was meant for.
    pub believed: Slot,
    /// Who sent it.
    pub node: u32,
    /// Whether the fence let it in.
    pub accepted: bool,
    /// Whether the row gives the slot to this node.
    pub in_turn: bool,
    /// Whether it came in place of the ring's own owner.
    pub deputy: bool,
    /// Arrival minus boundary, in nanoseconds.
    pub error: i64,
    /// The length of the longest ring that is in force or pending.
    pub ring: usize,
    /// Whether every living node that is to stay is in the newest ring, and nobody else.
    pub whole: bool,
}

/// What is done to the farm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// A fault of the scenario.
    Fault(Fault),
    /// A node came up.
    Join,
    /// A node was killed.
    Crash,
    /// A message was so late that it may have missed its slot.
    Late,
    /// A message was lost or met a broken connection by chance.
    Lost,
    /// A node was declared lost and comes back under a new id.
    Reborn,
    /// A node proved a step long after it happened: the step was too small to be proven at once.
    LateProof,
}

impl Disturbance {
    /// What a fault disturbs as it begins; `alive`: whoever it happens to is there. None: nothing, or nothing yet,
    /// since it befalls the next statement, and disturbs when it does.
    pub fn of(fault: Fault, alive: bool) -> Option<Self> {
        match fault {
            Fault::LoseRequest { .. }
            | Fault::LoseAnswer { .. }
            | Fault::LoseChange { .. }
            | Fault::LoseWork { .. }
            | Fault::Deadlock { .. }
            | Fault::StallWork { .. }
            | Fault::Reset { .. }
            | Fault::HoldChange { .. }
            | Fault::Stall { .. } => None,
            Fault::Period { .. } => None,
            _ if !alive && fault.lasts() == Span::ZERO => None,
            Fault::Kill { .. } => Some(Self::Crash),
            other => Some(Self::Fault(other)),
        }
    }
}

/// The judge of turns.
#[derive(Clone, Debug)]
pub struct RingJudge {
    period: u64,
    /// Or the one that follows, if that is longer.
    longest: u64,
    /// There are jobs.
    busy: bool,
    living: usize,
    last: Option<Arrival>,
    /// From here on everything must be perfect, unless disturbed again.
    calm_from: u64,
    /// What was done since it was last perfect.
    episode: Option<Episode>,
    arrivals: Tally,
    /// Slot numbers may have begun anew since the last beat.
    renumbered: bool,
    /// Slots between the last accepted beat and the one before it.
    silence: u64,
    /// Which life fired for each of the last slots.
    fired: BTreeMap<Slot, u32>,
    /// Before this, clocks that were set explain that two fire for one slot.
    fired_from: u64,
    /// How long the slowest of the last answers took.
    slowest: u64,
}

/// What a run amounts to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Accepted beats.
    pub beats: u64,
    /// Slots between the first and the last accepted beat without one.
    pub missed: u64,
    /// Arrivals beyond the first of a slot.
    pub doubled: u64,
    /// The longest time between accepted beats, in nanoseconds.
    pub max_gap: u64,
    /// Slots from the first accepted beat to the last.
    pub slots: u64,
    /// Arrival errors of accepted beats in calm, in nanoseconds.
    pub errors: Vec<i64>,
}

#[derive(Clone, Debug)]
struct Episode {
    since: u64,
    /// When the last disturbance has ended.
    until: u64,
    /// The first disturbances, in order.
    done: Vec<Done>,
    /// There were more, or the period has changed: no row of the table is of such an episode.
    mixed: bool,
    /// The server's clock was touched, so that slot numbers do not count periods.
    clock_touched: bool,
    before: usize,
    living: usize,
    /// Nobody was left for a while: whoever comes must wait until the dead have lapsed.
    emptied: bool,
    /// Somebody came where nobody was left.
    came: Option<Came>,
    /// A node that lives was removed.
    removed: bool,
    largest: usize,
    slowest: u64,
    missed: u64,
    doubled: u64,
    max_gap: u64,
    /// Reads by nodes that were there before.
    reads: u64,
}

/// Somebody came where nobody was left.
#[derive(Clone, Copy, Debug)]
struct Came {
    at: u64,
    /// How long nobody had beaten by then.
    silence: u64,
    /// When a beat was accepted.
    beat: Option<u64>,
}

/// So many disturbances of an episode are remembered: as many as any row of the table is of.
const REMEMBERED: usize = 64;

impl Episode {
    fn course(&self) -> Course<'_> {
        Course {
            done: if self.mixed { &[] } else { &self.done },
            before: self.before,
            living: self.living,
            largest: self.largest,
            silence: self.came.map(|came| came.silence),
            slowest: self.slowest,
            removed: self.removed,
        }
    }
}

impl RingJudge {
    pub(super) fn new(period: u64, busy: bool) -> Self {
        Self {
            period,
            longest: period,
            busy,
            living: 0,
            last: None,
            calm_from: 0,
            episode: None,
            arrivals: Tally::default(),
            renumbered: false,
            silence: 0,
            fired: BTreeMap::new(),
            fired_from: 0,
            slowest: 0,
        }
    }

    /// What the run amounts to.
    pub fn tally(&self) -> &Tally {
        &self.arrivals
    }

    /// Whether everything must be perfect at `now`.
    pub fn is_calm(&self, now: u64) -> bool {
        match &self.episode {
            Some(episode) => now >= self.settled(episode),
            None => now >= self.calm_from,
        }
    }

    /// Nodes that are up and to stay.
    pub fn living(&mut self, count: usize) {
        self.living = count;
        if let Some(episode) = &mut self.episode {
            episode.living = episode.living.max(count);
            episode.emptied |= count == 0 && self.last.is_some();
        }
    }

    /// How long the slowest of the last eight answers of each node that is up took, in nanoseconds.
    pub fn slowest_answer(&mut self, slowest: u64) {
        self.slowest = slowest;
    }

    /// Something is done to the farm, from `from` to `until`.
    pub fn disturbed(
        &mut self,
        from: u64,
        until: u64,
        what: Disturbance,
        marks: &mut Marks,
        violations: &mut Violations,
    ) {
        self.close_if_settled(from, marks, violations);
        let touches_clock = matches!(
            what,
            Disturbance::Fault(
                Fault::ServerStep { .. } | Fault::ServerSlew { .. } | Fault::Failover { .. }
            )
        );
        let done = Done { what, at: from, until };
        let last = self.last;
        let came = match last {
            Some(last) if what == Disturbance::Join && self.living == 0 => {
                Some(Came { at: from, silence: from - last.at, beat: None })
            }
            _ => None,
        };
        match &mut self.episode {
            Some(episode) => {
                episode.mixed |= episode.done.len() == REMEMBERED;
                if !episode.mixed {
                    episode.done.push(done);
                }
                episode.until = episode.until.max(until);
                episode.clock_touched |= touches_clock;
                episode.came = came.or(episode.came);
            }
            None => {
                self.episode = Some(Episode {
                    since: from,
                    until,
                    done: vec![done],
                    mixed: false,
                    clock_touched: touches_clock,
                    before: self.living,
                    living: self.living,
                    emptied: self.living == 0 && last.is_some(),
                    came,
                    removed: false,
                    largest: last.map_or(0, |last| last.ring),
                    slowest: self.slowest,
                    missed: 0,
                    doubled: 0,
                    max_gap: 0,
                    reads: 0,
                });
            }
        }
    }

    /// A node proved a step that there truly was. It reads the row, and suspects nobody for a round. Where a
    /// step is the episode that is on, that is part of it; else it is an event of its own: a step that hides in
    /// the width of the interval is proven when a fast exchange comes, which may be much later.
    pub fn step_proven(&mut self, now: u64, marks: &mut Marks, violations: &mut Violations) {
        self.close_if_settled(now, marks, violations);
        if self.episode.as_ref().is_none_or(|episode| !episode.clock_touched) {
            self.disturbed(now, now, Disturbance::LateProof, marks, violations);
        }
    }

    /// A beat reached the database.
    pub fn beat(&mut self, arrival: Arrival, marks: &mut Marks, violations: &mut Violations) {
        self.close_if_settled(arrival.at, marks, violations);
        let last = self.last.map(|last| (last.slot, last.at));
        sometimes!(marks, Mark::Refused, !arrival.accepted);
        sometimes!(marks, Mark::Deputised, arrival.accepted && arrival.deputy && arrival.in_turn);
        sometimes!(marks, Mark::LargeRing, arrival.ring >= 10);
        if arrival.accepted {
            if let Some((slot, _)) = last
                && arrival.slot <= slot
                && !self.renumbered
            {
                violations.add(arrival.at, Invariant::SlotsIncrease, || {
                    format!("slot {} was accepted after slot {slot}", arrival.slot)
                });
            }
            self.count(&arrival, last);
            sometimes!(marks, Mark::WholeRoundSilent, self.silence > arrival.ring as u64);
        } else {
            self.arrivals.doubled += 1;
            if let Some(episode) = &mut self.episode {
                episode.doubled += 1;
            }
        }
        if let Some(episode) = &mut self.episode {
            episode.largest = episode.largest.max(arrival.ring);
        } else if arrival.at >= self.calm_from {
            self.judge_calm(&arrival, violations);
            if arrival.accepted {
                self.arrivals.errors.push(arrival.error);
            }
        }
        if arrival.accepted {
            self.last = Some(arrival);
        }
    }

    /// A beat reached the database; nothing is promised, it is only counted.
    pub fn count_only(&mut self, arrival: Arrival) {
        let last = self.last.map(|last| (last.slot, last.at));
        if arrival.accepted {
            self.count(&arrival, last);
            if self.is_calm(arrival.at) {
                self.arrivals.errors.push(arrival.error);
            }
            self.last = Some(arrival);
        } else {
            self.arrivals.doubled += 1;
        }
    }

    /// What was begun has gone on until `now`.
    pub fn extend(&mut self, now: u64) {
        if let Some(episode) = &mut self.episode {
            episode.until = episode.until.max(now);
        }
    }

    /// The period in force, and the one that follows. Neither disturbs anything. True when the one in force is new.
    pub fn period_is(&mut self, now: u64, period: u64, next: Option<u64>) -> bool {
        let longest = next.map_or(period, |next| next.max(period));
        let grows = longest > self.longest;
        self.longest = longest;
        if grows && now < self.fired_from {
            self.clocks_set(now);
        }
        let changed = self.period != period;
        if let Some(episode) = &mut self.episode
            && changed
        {
            // What it may cost is counted in periods.
            episode.mixed = true;
            episode.until = episode.until.max(now);
        }
        self.period = period;
        changed
    }

    /// Another server answers from now on: its history may lack the last beats.
    pub fn another_server(&mut self) {
        self.renumbered = true;
    }

    /// Clocks were set, or stood still, at `now`: which slot it is must be learned anew.
    pub fn clocks_set(&mut self, now: u64) {
        self.fired.clear();
        self.fired_from = now + 2 * (self.living as u64 + 4) * self.longest;
    }

    /// A living node sends a beat for `slot`.
    pub fn fires(&mut self, now: u64, slot: Slot, life: u32, violations: &mut Violations) {
        if now < self.fired_from {
            return;
        }
        match self.fired.insert(slot, life) {
            Some(other) if other != life => violations.add(now, Invariant::TurnsExclusive, || {
                format!("life {life} fires for slot {slot}, for which life {other} has fired")
            }),
            _ => {}
        }
        if self.fired.len() > 64 {
            self.fired.pop_first();
        }
    }

    /// A node that came up at `born` reads the row.
    pub fn read_by(&mut self, born: u64) {
        if let Some(episode) = &mut self.episode
            && born + self.period < episode.since
        {
            episode.reads += 1;
        }
    }

    /// A node that lives was removed.
    pub fn removed_alive(&mut self, now: u64, life: u32, violations: &mut Violations) {
        if let Some(episode) = &mut self.episode {
            episode.removed = true;
        }
        let why = match &self.episode {
            None if now >= self.calm_from => "in calm",
            // Nobody is suspected after a silence of a whole round.
            Some(Episode { mixed: false, done, largest, .. })
                if matches!(
                    done[..],
                    [Done { what: Disturbance::Fault(Fault::Outage { .. }), .. }]
                ) && self.silence > *largest as u64
                    && self.last.is_some_and(|last| now < last.at + self.period / 2) =>
            {
                "by the first beat after a silence of a whole round"
            }
            _ => return,
        };
        violations
            .add(now, Invariant::Bounds, || format!("life {life} lives and was removed {why}"));
    }

    /// The run is over.
    pub fn finish(&mut self, now: u64, marks: &mut Marks, violations: &mut Violations) {
        self.close_if_settled(now, marks, violations);
        if self.episode.is_none() && self.living > 0 {
            let last = self.last.map_or(0, |last| last.at).max(self.calm_from);
            if now.saturating_sub(last) > 3 * self.longest {
                violations.add(now, Invariant::Recovery, || {
                    format!("nobody has beaten since {} us; {} live", last / 1_000, self.living)
                });
            }
        }
    }

    /// Slots that have passed and may still be without a beat at the end, for what follows to be judged.
    fn settled(&self, episode: &Episode) -> u64 {
        let mut slots = 2 * (episode.largest + episode.living.max(self.living)) as u64 + 4;
        if episode.emptied {
            slots += episode.largest as u64 + 6;
        }
        // At short periods it is the statements' patience that counts: the longest, and half a second until the next read.
        let waits =
            waited(episode.until - episode.since, self.period).max(patience(episode.slowest));
        let longer = match self.period < 1_000_000_000 {
            true => (waits + 500_000_000).max(3_500_000_000),
            false => 0,
        };
        episode.until + slots * self.longest + longer
    }

    fn close_if_settled(&mut self, now: u64, marks: &mut Marks, violations: &mut Violations) {
        let settled = match &self.episode {
            Some(episode) => self.settled(episode),
            None => return,
        };
        if now < settled {
            return;
        }
        let Some(episode) = self.episode.take() else { return };
        self.calm_from = settled;
        if let Some((row, allowed)) = row(&episode.course(), self.period) {
            marks.reach(Mark::JudgedAlone);
            marks.reach(row.mark(self.busy));
            let missed = episode.missed > allowed.missed;
            // What arrives a little late makes a gap a little longer.
            let gap = allowed.gap * self.period + self.period / 4;
            let reads = allowed.reads.is_some_and(|allowed| episode.reads > allowed);
            let silence = episode.came.map(|came| came.beat.unwrap_or(settled) - came.at);
            let silent = allowed
                .silent
                .zip(silence)
                .is_some_and(|(allowed, silence)| silence > allowed + self.period / 4);
            let doubled = episode.doubled > allowed.doubled;
            if missed || reads || doubled || episode.max_gap > gap || silent {
                violations.add(episode.since, Invariant::Bounds, || {
                    let what: Vec<_> = episode.done.iter().map(|done| done.what).collect();
                    format!(
                        "{what:?} among {} cost {} missed, {} doubled, {} reads and a gap of {} us; the first beat came \
                         after {silence:?} ns; allowed is {allowed:?} (gap in periods, silence in ns)",
                        episode.living,
                        episode.missed,
                        episode.doubled,
                        episode.reads,
                        episode.max_gap / 1_000
                    )
                });
            }
        }
        // The first beat after a long silence is not judged by the gap before it.
        if let Some(last) = &mut self.last
            && last.at + 2 * self.longest < settled
            && self.living > 0
        {
            violations.add(settled, Invariant::Recovery, || {
                format!(
                    "{} live, and the last beat before {} us was at {} us",
                    self.living,
                    settled / 1_000,
                    last.at / 1_000
                )
            });
        }
    }

    fn count(&mut self, arrival: &Arrival, last: Option<(Slot, u64)>) {
        self.arrivals.beats += 1;
        let Some((slot, at)) = last else {
            self.arrivals.slots = 1;
            return;
        };
        let gap = arrival.at - at;
        self.arrivals.max_gap = self.arrivals.max_gap.max(gap);
        let touched = self.episode.as_ref().is_some_and(|episode| episode.clock_touched)
            || std::mem::take(&mut self.renumbered);
        // Where numbers jump with the server's clock, periods are counted by true time.
        let slots = match touched {
            true => ((gap + self.period / 2) / self.period).max(1),
            false => (arrival.slot - slot).unsigned_abs(),
        };
        self.silence = slots;
        let missed = slots.saturating_sub(1);
        self.arrivals.slots += slots;
        self.arrivals.missed += missed;
        if let Some(episode) = &mut self.episode {
            if let Some(came @ Came { beat: None, .. }) = &mut episode.came {
                // What was missed while nobody was there is nobody's.
                came.beat = Some(arrival.at);
                return;
            }
            episode.missed += missed;
            if arrival.at > episode.since {
                episode.max_gap = episode.max_gap.max(gap);
            }
        }
    }

    fn judge_calm(&self, arrival: &Arrival, violations: &mut Violations) {
        let half = (self.period / 2) as i64;
        let wrong = if !arrival.accepted {
            Some("was refused")
        } else if arrival.slot != arrival.believed {
            Some("fell into another slot")
        } else if !arrival.in_turn {
            Some("was out of turn")
        } else if arrival.error.abs() > half {
            Some("was outside its slot")
        } else if self
            .last
            .is_some_and(|last| last.at >= self.calm_from && (arrival.slot != last.slot + 1))
        {
            Some("came after a missed slot")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            let last = self.last.map(|last| (last.slot, last.node, last.at));
            violations.add(arrival.at, Invariant::Calm, || {
                format!("{arrival:?} {wrong} (before it: {last:?})")
            });
        } else if !arrival.whole {
            violations.add(arrival.at, Invariant::Recovery, || {
                format!("the ring is not made of those who live, at {arrival:?}")
            });
        }
    }
}
