//! Decides whether a path keeps the promises while it is walked: what is counted, and what is broken.

use std::fmt;

use turnwise_engine::{Slot, TurnRow};

use super::bounds;
use super::fault::{Fault, Kind, name};
use super::world::{MILLI, SLOT};

/// So many of the last beats that were sent are remembered.
const FIRED_KEPT: usize = 24;
/// Whoever comes where nobody is looks for three slots whether somebody comes back; and before its first answer
/// its reads are up to a slot and a half apart.
const LOOKS: i64 = 5;

/// What a path may not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Accepted slots strictly increase.
    SlotsIncrease,
    /// Two nodes send a beat for one slot; only a step of a clock or another server may bring that about.
    OneNodeASlot,
    /// No more slots are missed, and no more beats refused, than the protocol's table allows.
    WithinBounds,
    /// In so many slots after the last fault there is one beat a slot, in order, and everybody takes turns.
    Settled,
    /// Nobody is removed for a silence of the server's that is longer than a round, or for what happens to its
    /// clock.
    NobodyRemoved,
    /// No timer is armed for ever at the same instant.
    TimersEnd,
    /// Nothing is asked for after its own end.
    AskedInTime,
    /// The engine does not panic.
    NoPanic,
}

impl Rule {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::SlotsIncrease,
        Self::OneNodeASlot,
        Self::WithinBounds,
        Self::Settled,
        Self::NobodyRemoved,
        Self::TimersEnd,
        Self::AskedInTime,
        Self::NoPanic,
    ];

    /// Whether it holds however long the ways are.
    const fn is_of_safety(self) -> bool {
        !matches!(self, Self::WithinBounds | Self::Settled | Self::NobodyRemoved)
    }

    /// The rule in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SlotsIncrease => "accepted slots strictly increase",
            Self::OneNodeASlot => "no two nodes fire for one slot",
            Self::WithinBounds => "slots missed and beats refused stay within the bounds",
            Self::Settled => "the ring is whole again in time",
            Self::NobodyRemoved => {
                "an outage of a round, a restart or a step of the server's clock removes nobody"
            }
            Self::TimersEnd => "no timer is armed for ever at one instant",
            Self::AskedInTime => "nothing is asked for after its own end",
            Self::NoPanic => "the engine does not panic",
        }
    }
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Broken {
    /// Which.
    pub rule: Rule,
    /// When, in nanoseconds of true time since the start.
    pub at: u64,
    /// How.
    pub how: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = Moment(self.at);
        write!(f, "at {at}: broken: {}: {}", self.rule.as_str(), self.how)
    }
}

/// A moment of true time as people read it: the slot, and how far from its boundary.
pub(super) struct Moment(pub(super) u64);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slot = true_slot(self.0);
        let off = (self.0 as i64 - slot as i64 * SLOT as i64) as f64 / MILLI as f64;
        write!(f, "slot {slot} {off:+.1} ms")
    }
}

/// A fault that has happened, and how many nodes were alive then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spent {
    /// Which.
    pub fault: Fault,
    /// The nodes that were alive just before, those that were leaving not counted.
    pub live: u8,
}

/// A statement that arrived.
pub(super) struct Arrival {
    pub(super) at: u64,
    pub(super) node: u8,
    pub(super) slot: Slot,
    pub(super) believed: Slot,
    pub(super) is_beat: bool,
    pub(super) accepted: bool,
    pub(super) in_turn: bool,
    /// The slots until the last version holds.
    pub(super) pending: i64,
    /// The largest ring in force or pending.
    pub(super) ring: i64,
    /// The nodes that run, those that are leaving included.
    pub(super) up: i64,
}

/// What a path has amounted to so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Watch {
    /// When the paths begin.
    pub(super) begun_at: u64,
    /// The last accepted beat: its slot, and the slot of true time.
    last: Option<(Slot, u64)>,
    /// The slot of the last accepted beat of this server's history.
    highest: Option<Slot>,
    fired: Vec<(Slot, u8)>,
    /// Slots of true time without an accepted beat.
    pub(super) missed: u32,
    /// Beats that the fence refused.
    pub(super) doubled: u32,
    /// Slots from a node's coming up where nobody was to the first beat.
    pub(super) waited: u32,
    pub(super) spent: Vec<Spent>,
    /// When the last fault was over.
    over_at: u64,
    /// When the last thing happened that does not happen in a calm ring, what is pending included.
    quiet_from: u64,
    /// When the last such thing happened, what is pending left out.
    disorder_at: u64,
    pub(super) largest: i64,
    /// At some time nobody was left in the ring.
    deserted: bool,
    /// Only safety is judged.
    only_safety: bool,
    /// When there was nobody left, or somebody came after that and no beat since.
    nobody_since: Option<u64>,
    pub(super) broken: Option<Broken>,
}

/// The slot that `at` would be in if the server's clock were never set.
fn true_slot(at: u64) -> u64 {
    (at + SLOT / 2) / SLOT
}

impl Watch {
    /// Forget how the farm came up.
    pub(super) fn begin(&mut self, now: u64, only_safety: bool) {
        let (last, highest) = (self.last, self.highest);
        let spent = std::mem::take(&mut self.spent);
        let deserted = self.deserted;
        let largest = self.largest;
        let nobody_since = last.is_none().then_some(now);
        *self = Self {
            last,
            highest,
            largest,
            spent,
            deserted,
            only_safety,
            nobody_since,
            ..Self::default()
        };
        self.begun_at = now;
        self.lasts_until(now);
    }

    pub(super) fn breaks(&mut self, rule: Rule, at: u64, how: String) {
        if !self.only_safety || rule.is_of_safety() {
            self.broken.get_or_insert(Broken { rule, at, how });
        }
    }

    pub(super) fn panicked(&mut self, at: u64) {
        self.breaks(Rule::NoPanic, at, "the engine panicked".to_owned());
    }

    /// A removal of `by`'s has committed.
    pub(super) fn removed(&mut self, at: u64, by: u8) {
        // A silence of less than a round and a slot cannot be told from the silence of one node.
        let round = (self.largest + 1).unsigned_abs() * SLOT;
        let [Spent { fault, .. }] = self.spent[..] else {
            return;
        };
        let servers = match fault {
            Fault::Step { .. } | Fault::Restart => true,
            Fault::Outage { millis, .. } => u64::from(millis) * MILLI >= round,
            _ => false,
        };
        if servers {
            self.breaks(Rule::NobodyRemoved, at, format!("{} removed somebody", name(by)));
        }
    }

    pub(super) fn armed_for_ever(&mut self, at: u64, node: u8) {
        let how = format!("{} arms a timer for the same instant again and again", name(node));
        self.breaks(Rule::TimersEnd, at, how);
    }

    /// `node` asks for a statement that should have left by now.
    pub(super) fn asked_late(&mut self, at: u64, node: u8) {
        let how = format!("{} asks for a statement that should have left by now", name(node));
        self.breaks(Rule::AskedInTime, at, how);
    }

    pub(super) fn nobody_is_left(&mut self) {
        self.last = None;
        self.nobody_since = Some(u64::MAX);
    }

    pub(super) fn ring_is_deserted(&mut self) {
        self.deserted = true;
    }

    /// A failover has taken the row back.
    pub(super) fn history_is_lost(&mut self, row: &TurnRow) {
        self.highest = Some(row.slot);
    }

    pub(super) fn struck(&mut self, now: u64, fault: Fault, live: usize, row: &TurnRow) {
        self.spent.push(Spent { fault, live: live as u8 });
        self.lasts_until(now + u64::from(fault.lasts()) * MILLI);
        self.largest = self.largest.max(row.roster.last().map_or(0, |last| last.ring.len() as i64));
        if fault == Fault::Join && live == 0 {
            self.nobody_since = Some(now);
        }
    }

    /// A statement was given up so late that what cost it the answer lasted until now.
    pub(super) fn noticed_late(&mut self, now: u64) {
        // Where the ways are long there is no end of that, and nothing to judge by it.
        if !self.only_safety {
            self.lasts_until(now);
        }
    }

    fn lasts_until(&mut self, until: u64) {
        self.over_at = self.over_at.max(until);
        self.quiet_from = self.quiet_from.max(until);
        self.disorder_at = self.disorder_at.max(until);
    }

    /// A beat was sent for `slot`.
    pub(super) fn fired(&mut self, at: u64, slot: Slot, node: u8) {
        let other = self.fired.iter().find(|(fired, by)| *fired == slot && *by != node);
        if let Some((_, other)) = other
            && !self.numbers_moved()
        {
            let how = format!("{} and {} both sent a beat for {slot}", name(*other), name(node));
            self.breaks(Rule::OneNodeASlot, at, how);
        }
        if self.fired.len() == FIRED_KEPT {
            self.fired.remove(0);
        }
        self.fired.push((slot, node));
    }

    /// Whether slot numbers have moved against time, so that two nodes may rightly be in different ones.
    fn numbers_moved(&self) -> bool {
        let moves = |spent: &Spent| matches!(spent.fault.kind(), Kind::Step | Kind::Failover);
        self.spent.iter().any(moves)
    }

    pub(super) fn arrived(&mut self, arrival: &Arrival) {
        let at = arrival.at;
        self.largest = self.largest.max(arrival.ring);
        if let Some(how) = self.disorder(arrival) {
            self.disorder_at = self.disorder_at.max(at);
            // A change that follows a beat belongs to the beat's slot.
            let by = self.settled_by(arrival.up);
            if true_slot(at) > true_slot(by) {
                let by = true_slot(by);
                self.breaks(Rule::Settled, at, format!("{how}, and it is later than slot {by}"));
            }
            self.quiet_from = self.quiet_from.max(at);
        }
        if arrival.pending > 0 {
            let pending = arrival.pending.unsigned_abs() * SLOT;
            self.quiet_from = self.quiet_from.max(at + pending);
        }
        if arrival.accepted {
            self.accepted(arrival);
        } else if arrival.is_beat {
            self.doubled += 1;
        }
    }

    fn accepted(&mut self, arrival: &Arrival) {
        let now = true_slot(arrival.at);
        if let Some(highest) = self.highest
            && arrival.slot <= highest
        {
            let how = format!("slot {} was accepted after {highest}", arrival.slot);
            self.breaks(Rule::SlotsIncrease, arrival.at, how);
        }
        self.highest = Some(arrival.slot);
        if let Some((_, last)) = self.last {
            self.missed += (now - last).saturating_sub(1) as u32;
        }
        match self.nobody_since {
            Some(u64::MAX) => {}
            Some(since) => {
                self.waited = self.waited.max((now - true_slot(since)) as u32);
                self.nobody_since = None;
                self.last = Some((arrival.slot, now));
            }
            None => self.last = Some((arrival.slot, now)),
        }
    }

    /// What is not as in a calm ring, in words.
    fn disorder(&self, arrival: &Arrival) -> Option<String> {
        let what = if !arrival.is_beat {
            "sent a statement that was no beat".to_owned()
        } else if !arrival.accepted {
            format!("sent a beat that was refused in {}", arrival.slot)
        } else if arrival.slot != arrival.believed {
            format!("sent a beat for {} that fell into {}", arrival.believed, arrival.slot)
        } else if !arrival.in_turn {
            format!("sent a beat for {}, which is another's turn", arrival.slot)
        } else {
            match self.last {
                Some((slot, time))
                    if arrival.slot != slot + 1 || true_slot(arrival.at) != time + 1 =>
                {
                    format!("sent a beat for {} after one for {slot}", arrival.slot)
                }
                _ => return None,
            }
        };
        Some(format!("{} {what}", name(arrival.node)))
    }

    /// By when there must be order, in nanoseconds, with `up` nodes that run.
    pub(super) fn settled_by(&self, up: i64) -> u64 {
        let largest = self.largest.max(up);
        // After a step of a clock nobody is suspected for a round.
        let stepped = self.spent.iter().any(|spent| spent.fault.sets_a_clock());
        let round = if stepped { largest + 1 } else { 0 };
        let looks = if self.deserted { LOOKS } else { 0 };
        let slots = 2 * (largest + up) + 1 + round + looks;
        self.over_at + slots.unsigned_abs() * SLOT
    }

    /// Until when a further fault may make a difference: a round and a bit of calm.
    pub(super) fn open_until(&self) -> u64 {
        let round = (self.largest + 2).unsigned_abs() * SLOT;
        // Where the ways are long there may never be calm.
        let latest = if self.only_safety { self.over_at + 3 * round } else { u64::MAX };
        (self.quiet_from + round).min(latest)
    }

    /// Slots from the end of the last fault to the last thing that a calm ring does not do.
    pub(super) fn unsettled(&self) -> u32 {
        self.disorder_at.saturating_sub(self.over_at).div_ceil(SLOT) as u32
    }

    /// Judge the end of a path, at `now`.
    pub(super) fn judge(&mut self, now: u64, is_anybody_alive: bool) {
        let silent = self.last.is_none_or(|(_, last)| last + 1 < true_slot(now));
        if is_anybody_alive && silent {
            self.breaks(Rule::Settled, now, "nobody polls".to_owned());
        }
        let allowed = bounds::allowed(&self.spent);
        if self.missed > allowed.missed || self.doubled > allowed.doubled {
            let how = format!(
                "{} missed and {} refused, where {} and {} are allowed",
                self.missed, self.doubled, allowed.missed, allowed.doubled
            );
            self.breaks(Rule::WithinBounds, now, how);
        }
        if self.waited > allowed.waited {
            let how = format!(
                "the first beat came {} slots after its node, where {} are allowed",
                self.waited, allowed.waited
            );
            self.breaks(Rule::WithinBounds, now, how);
        }
    }
}
