//! Decides what this node does on the turn row and when: beat, read, or change the roster. The node's
//! side of the turn protocol: licences, suspicion, joining, leaving, taking over. Knows nothing of jobs.
//!
//! - `patience`: for how long a statement is waited for.

mod patience;

use alloc::vec::Vec;
use core::marker::PhantomData;
use core::time::Duration;

use crate::clock::{Clock, Learned};
use crate::io::{Fate, Note, Reason, RequestId, ServerIdentity, TurnAnswer, TurnKind};
use crate::random::Random;
use crate::sabotage::{Bug, Sabotage};
use crate::turn::{Change, ChangeKind, TurnRow, Version};
use crate::units::{LocalInstant, NodeId, Period, ServerInstant, Slot, nanos};

/// After this many failures in a row, reads are at least [`READ_SPACING`] apart.
const EAGER_FAILURES: u32 = 4;
/// How far apart reads are that keep failing, at short periods.
const READ_SPACING: Duration = Duration::from_millis(200);
/// A node that finds all others lapsed looks for so many slots more before it takes over.
const TAKEOVER_AFTER_SLOTS: i64 = 3;

/// Where the node stands with the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// It takes turns, or is on its way in.
    Member,
    /// It is on its way out.
    Leaving,
    /// It is out.
    Left,
}

/// What this node knows of the turn row and is doing about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Turns<S: Sabotage> {
    id: NodeId,
    phase: Phase,
    /// The newest row seen, and the slot of the statement that brought it.
    view: Option<View>,
    identity: Option<ServerIdentity>,
    /// The slot of the last accepted beat of this node, or of its joining.
    since: Option<Slot>,
    /// Nodes that missed a turn, with the turn: to be removed.
    suspects: Vec<(NodeId, Slot)>,
    /// When everybody else was first found lapsed, while outside the ring.
    lapsed_since: Option<Slot>,
    /// The accepted beat after which this node is leaving.
    leaves_after: Option<Slot>,
    in_flight: Option<InFlight>,
    /// The row must be read, at this time, before the node may do anything else.
    read_first: Option<LocalInstant>,
    failures: u32,
    /// The turn whose beat was sent a second time.
    sent_again: Option<Slot>,
    /// The turn of which all is said, until the answer that shows that it has passed: it was noted as skipped, or its beat
    /// was sent and nothing was heard of it.
    accounted: Option<Slot>,
    plan: Plan,
    sabotage: PhantomData<S>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct View {
    row: TurnRow,
    read: Slot,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct InFlight {
    request: RequestId,
    kind: Sent,
    /// The slot that it was sent in, as far as known.
    slot: Option<Slot>,
    /// A beat: until when it may be sent again, should its connection break at once.
    again_until: Option<LocalInstant>,
    patience: LocalInstant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Sent {
    Read,
    Beat(Slot),
    Change(ChangeKind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Plan {
    Nothing,
    Read { at: LocalInstant },
    Beat { slot: Slot, at: LocalInstant, not_after: LocalInstant },
}

/// What is to be sent now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Act {
    Nothing,
    Read { due: LocalInstant, not_after: LocalInstant },
    Beat { slot: Slot, due: LocalInstant, not_after: LocalInstant },
    Change { change: Change, identity: ServerIdentity, not_after: LocalInstant },
    Abandon(RequestId),
}

impl<S: Sabotage> Turns<S> {
    pub(crate) fn new(id: NodeId, now: LocalInstant) -> Self {
        Self {
            id,
            phase: Phase::Member,
            view: None,
            identity: None,
            since: None,
            suspects: Vec::new(),
            lapsed_since: None,
            leaves_after: None,
            in_flight: None,
            read_first: Some(now),
            failures: 0,
            sent_again: None,
            accounted: None,
            plan: Plan::Read { at: now },
            sabotage: PhantomData,
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) fn row(&self) -> Option<&TurnRow> {
        self.view.as_ref().map(|view| &view.row)
    }

    /// The slot of the last read, and the next turn that the view gives.
    pub(crate) fn outlook(&self) -> Option<(Slot, Option<Slot>)> {
        let view = self.view.as_ref()?;
        Some((view.read, view.row.roster.next_turn(self.id, view.read)))
    }

    pub(crate) fn period(&self) -> Period {
        self.view.as_ref().map_or(Period::DEFAULT, |view| view.row.cadence.period_at(view.read))
    }

    /// The period at a slot, by the newest row.
    fn period_at(&self, slot: Slot) -> Period {
        self.view.as_ref().map_or(Period::DEFAULT, |view| view.row.cadence.period_at(slot))
    }

    pub(crate) fn deadline(&self) -> Option<(LocalInstant, Reason)> {
        if let Some(in_flight) = &self.in_flight {
            return Some((in_flight.patience, Reason::TurnPatience));
        }
        match self.plan {
            Plan::Nothing => None,
            Plan::Read { at } => Some((at, Reason::Read)),
            Plan::Beat { at, .. } => Some((at, Reason::Beat)),
        }
    }

    /// The slot that it is now, as far as known: by the clock, never behind what the server said.
    pub(crate) fn believed(&self, now: LocalInstant, clock: &Clock<S>) -> Option<Slot> {
        let view = self.view.as_ref()?;
        Some(view.row.cadence.slot_at(clock.server_time(now)?).max(view.read))
    }

    /// What is due at `now`.
    pub(crate) fn due(&self, now: LocalInstant) -> Act {
        if let Some(in_flight) = &self.in_flight {
            let over = in_flight.patience <= now && !S::plants(Bug::DeadlineIsRearmed);
            return if over { Act::Abandon(in_flight.request) } else { Act::Nothing };
        }
        match self.plan {
            Plan::Read { at } if at <= now => {
                Act::Read { due: at, not_after: now + self.period().as_duration() }
            }
            Plan::Beat { slot, at, not_after } if at <= now => {
                Act::Beat { slot, due: at, not_after }
            }
            _ => Act::Nothing,
        }
    }

    /// A statement leaves under `request`.
    pub(crate) fn sent(
        &mut self,
        now: LocalInstant,
        request: RequestId,
        kind: &TurnKind,
        clock: &Clock<S>,
    ) {
        let slot = self.believed(now, clock);
        let again_until = match self.plan {
            Plan::Beat { slot, not_after, .. } if self.sent_again != Some(slot) => Some(not_after),
            _ => None,
        };
        let kind = match kind {
            TurnKind::Read => Sent::Read,
            TurnKind::Beat { .. } => match self.plan {
                Plan::Beat { slot, .. } => Sent::Beat(slot),
                _ => Sent::Read,
            },
            TurnKind::Change { change, .. } => Sent::Change(change.kind),
        };
        let period = match kind {
            Sent::Beat(slot) => self.period_at(slot),
            _ => slot.map_or(self.period(), |slot| self.period_at(slot)),
        };
        let patience = self.patience(now, kind, period, clock);
        self.in_flight =
            Some(InFlight { request, kind, slot, again_until, patience: now + patience });
        self.plan = Plan::Nothing;
    }

    pub(crate) fn is_in_flight(&self, request: RequestId) -> bool {
        self.in_flight.as_ref().is_some_and(|in_flight| in_flight.request == request)
    }

    /// Whether a server of this identity has another history than the one that answered last.
    pub(crate) fn history_changes(&self, identity: ServerIdentity) -> bool {
        self.identity.is_some_and(|old| old.timeline != identity.timeline)
    }

    /// The node shall leave the ring.
    pub(crate) fn leave(&mut self, now: LocalInstant, clock: &Clock<S>, notes: &mut Vec<Note>) {
        if self.phase != Phase::Member {
            return;
        }
        self.phase = Phase::Leaving;
        if S::plants(Bug::LeaverGoesUnheard) {
            self.phase = Phase::Left;
            notes.push(Note::Left);
            return;
        }
        if self.in_flight.is_none() {
            // A view that must be read anew may lack what this node has joined meanwhile.
            if self.read_first.is_none() {
                self.leave_if_out(notes);
            }
            self.replan(now, clock, notes);
        }
    }

    /// The statement in flight was not answered.
    pub(crate) fn failed(
        &mut self,
        now: LocalInstant,
        fate: Fate,
        clock: &Clock<S>,
        random: &mut Random,
        notes: &mut Vec<Note>,
    ) {
        let Some(in_flight) = self.in_flight.take() else {
            return;
        };
        if let Sent::Beat(slot) = in_flight.kind
            && let Some(not_after) = in_flight.again_until
            && now <= not_after
            && now < in_flight.patience
        {
            // A connection that died while it was idle shows it only now. The same beat again, on another: the
            // fence lets one of them in, and the licence is for this slot as before.
            self.sent_again = Some(slot);
            if fate == Fate::Unknown {
                self.accounted = Some(slot);
            }
            self.plan = Plan::Beat { slot, at: now, not_after };
            return;
        }
        self.failures = self.failures.saturating_add(1);
        notes.push(Note::Unanswered { failures: self.failures });
        match (in_flight.kind, fate) {
            (Sent::Beat(slot), Fate::NotSent) => self.note_skipped(slot, notes),
            (Sent::Beat(slot), Fate::Unknown) => self.accounted = Some(slot),
            _ => {}
        }
        self.suspects.clear();
        // A node that was leaving before it ever saw the row is in no ring: there is nothing to leave.
        if self.phase == Phase::Leaving && self.view.is_none() && self.identity.is_none() {
            self.phase = Phase::Left;
            notes.push(Note::Left);
        }
        let keeps_licence = S::plants(Bug::FailureKeepsLicence)
            || S::plants(Bug::LeaverKeepsLicence)
                && in_flight.kind == Sent::Change(ChangeKind::Leave);
        if keeps_licence && let Some(view) = &mut self.view {
            // The turn that was sent for is behind; the next is taken on the same view.
            view.read = view.read.max(in_flight.slot.unwrap_or(view.read));
        } else {
            self.read_first = Some(self.next_read(now, in_flight.slot, clock, random));
        }
        self.replan(now, clock, notes);
    }

    /// The statement in flight was answered. Returns a change that must be sent at once, if any.
    pub(crate) fn answered(
        &mut self,
        now: LocalInstant,
        answer: TurnAnswer,
        clock: &mut Clock<S>,
        random: &mut Random,
        notes: &mut Vec<Note>,
    ) -> Act {
        let Some(in_flight) = self.in_flight.take() else {
            return Act::Nothing;
        };
        self.failures = 0;
        self.read_first = None;
        let other_server =
            self.identity.replace(answer.identity).is_some_and(|old| old != answer.identity);
        if other_server {
            // Another server: another clock, perhaps another history. Nothing known holds.
            if !S::plants(Bug::ClockOutlivesServer) {
                *clock = Clock::default();
            }
            self.view = None;
            self.since = None;
            self.suspects.clear();
            self.lapsed_since = None;
            notes.push(Note::ServerChanged);
        }
        let stepped = answer.exchange.as_ref().is_some_and(|e| clock.observe(e) == Learned::Step);
        if stepped {
            notes.push(Note::ClockStep);
        }
        let slot = answer.now;
        let turn = self.outlook().and_then(|(_, turn)| turn);
        // Of the one that is accounted for all is said: the one behind it may have passed too.
        let turn = match (turn, self.row()) {
            (Some(turn), Some(row)) if self.accounted == Some(turn) => {
                row.roster.next_turn(self.id, turn)
            }
            (turn, _) => turn,
        };
        let skipped = turn.filter(|turn| *turn < slot);
        if let Some(turn) = skipped
            && in_flight.kind != Sent::Beat(turn)
            && !other_server
            && !stepped
        {
            self.note_skipped(turn, notes);
        }
        // What is noted from here on is a turn of the new view.
        self.accounted = None;
        self.sent_again = None;
        self.note_answer(&in_flight, &answer, notes);
        let TurnAnswer { identity, done, row, .. } = answer;
        let accepted = matches!(in_flight.kind, Sent::Beat(_)) && done;
        // The numbers that a step skips are nobody's to miss, and the others find out only with their next turns.
        let forgiven = stepped.then(|| slot + row.roster.largest_ring(slot, slot + 1));
        self.view = Some(View { row, read: slot });
        if accepted {
            if in_flight.kind == Sent::Beat(slot) && !stepped {
                self.suspects = self.missing(slot);
            }
            self.since = self.since.max(Some(slot));
        }
        match (in_flight.kind, done) {
            (Sent::Change(ChangeKind::Join | ChangeKind::Takeover), true) => {
                self.since = Some(slot);
            }
            (Sent::Change(ChangeKind::Remove), true) => self.suspects.clear(),
            _ => {}
        }
        if forgiven.is_some() {
            // Suspect nobody for a round.
            self.since = forgiven;
            self.suspects.clear();
        }
        if other_server || stepped || clock.transit(now).is_none() {
            self.read_first = Some(now);
            self.replan(now, clock, notes);
            return Act::Nothing;
        }
        self.leaves_after = match in_flight.kind {
            _ if accepted => Some(slot),
            Sent::Change(ChangeKind::Leave) => self.leaves_after,
            _ => None,
        };
        self.leave_if_out(notes);
        let change = self.wanted_change(now, slot, clock, random);
        self.replan(now, clock, notes);
        match change {
            Some(change) => {
                let not_after = now + self.period().as_duration() / 2;
                Act::Change { change, identity, not_after }
            }
            None => Act::Nothing,
        }
    }

    fn note_answer(&self, in_flight: &InFlight, answer: &TurnAnswer, notes: &mut Vec<Note>) {
        match in_flight.kind {
            Sent::Read => {}
            Sent::Beat(_) => notes.push(Note::Beat {
                slot: answer.now,
                accepted: answer.done,
                arrival_error: answer.exchange.as_ref().map(|exchange| {
                    let error =
                        exchange.arrived.nanos_from(answer.row.cadence.boundary(answer.now));
                    if S::plants(Bug::ArrivalErrorIsReversed) { -error } else { error }
                }),
                claimed: answer.claimed,
            }),
            Sent::Change(kind) if answer.done => notes.push(Note::Changed {
                kind,
                victims: match kind {
                    ChangeKind::Remove => self.suspects.iter().map(|(node, _)| *node).collect(),
                    _ => Vec::new(),
                },
            }),
            Sent::Change(_) => {}
        }
    }

    fn leave_if_out(&mut self, notes: &mut Vec<Note>) {
        let out = self.view.as_ref().is_some_and(|view| !view.row.roster.is_member(self.id));
        if self.phase == Phase::Leaving && out {
            self.phase = Phase::Left;
            notes.push(Note::Left);
        }
    }

    /// The change of the roster that the protocol wants now, computed from the view.
    fn wanted_change(
        &mut self,
        now: LocalInstant,
        slot: Slot,
        clock: &Clock<S>,
        random: &mut Random,
    ) -> Option<Change> {
        let view = self.view.as_ref()?;
        let row = &view.row;
        // A change must not commit after the slot that it was computed with, so that slot is the one
        // in which it will arrive.
        let arrival = clock
            .transit(now)
            .and_then(|transit| {
                let nanos = (now.as_nanos() as i64).checked_add(transit)?;
                Some(row.cadence.slot_at(ServerInstant::from_nanos(nanos)))
            })
            .map_or(slot, |arrival| arrival.max(slot));
        match self.phase {
            Phase::Left => return None,
            Phase::Leaving => {
                let leave = Change::leave_with::<S>(row, self.id, self.leaves_after?, arrival);
                if leave.is_none() {
                    self.leaves_after = None;
                }
                return leave;
            }
            Phase::Member => {}
        }
        if S::plants(Bug::RemovedStaysOut) && self.since.is_some() && !row.roster.is_member(self.id)
        {
            return None;
        }
        if row.roster.is_member(self.id) {
            self.lapsed_since = None;
            self.suspects.retain(|(node, turn)| {
                row.roster.is_member(*node)
                    && (S::plants(Bug::ReadersAreSuspected)
                        || row.marks.get(node).is_none_or(|mark| mark.read < *turn))
            });
            let victims: Vec<_> = self.suspects.iter().map(|(node, _)| *node).collect();
            return Change::remove_with::<S>(row, self.id, &victims, arrival);
        }
        let nobody = row.roster.last().is_none_or(|last| last.ring.is_empty());
        if !row.all_lapsed(slot, Some(self.id)) && !S::plants(Bug::TakeoverIgnoresOthers) {
            self.lapsed_since = None;
            return Change::join_with::<S>(row, self.id, arrival);
        }
        if nobody {
            return Some(Change::takeover(row, self.id, arrival));
        }
        let since = *self.lapsed_since.get_or_insert(slot);
        if slot - since >= TAKEOVER_AFTER_SLOTS && !S::plants(Bug::NobodyTakesOver) {
            return Some(Change::takeover(row, self.id, arrival));
        }
        self.read_first = Some(self.next_read(now, Some(slot), clock, random));
        None
    }

    /// The owners of the last round's slots that have not read since their turn. Nobody after a silence
    /// of a whole round: that is an outage.
    fn missing(&self, slot: Slot) -> Vec<(NodeId, Slot)> {
        let Some(View { row, .. }) = &self.view else {
            return Vec::new();
        };
        let round = row.roster.largest_ring(row.previous, slot);
        let mut missing: Vec<(NodeId, Slot)> = Vec::new();
        if S::plants(Bug::NobodyIsSuspected) {
            return missing;
        }
        if slot - row.previous > round && !S::plants(Bug::OutageIsSuspicious) {
            return missing;
        }
        let mut turn = self.since.map_or(slot - round, |since| since.max(slot - round)) + 1;
        if S::plants(Bug::OnlyTheLastIsSuspected) {
            turn = turn.max(slot - 1);
        }
        while turn < slot {
            if let Some(owner) = row.roster.owner(turn)
                && owner != self.id
                && row.roster.is_member(owner)
                && (S::plants(Bug::ReadersAreSuspected)
                    || row.marks.get(&owner).is_none_or(|mark| mark.read < turn))
            {
                missing.retain(|(node, _)| *node != owner);
                missing.push((owner, turn));
            }
            turn = turn + 1;
        }
        missing
    }

    /// When to read again after a statement that was sent in `slot`: somewhere in the slot that follows,
    /// off its boundary, where the beats are.
    fn next_read(
        &self,
        now: LocalInstant,
        slot: Option<Slot>,
        clock: &Clock<S>,
        random: &mut Random,
    ) -> LocalInstant {
        let period = self.period().as_nanos();
        if S::plants(Bug::ReadsAreNotSpaced) {
            return now;
        }
        let earliest = if self.failures > EAGER_FAILURES && period < nanos(READ_SPACING) {
            now + READ_SPACING
        } else {
            now
        };
        let planned = slot.and_then(|slot| self.read_in(slot + 1, clock, random));
        match planned {
            Some(at) if at >= earliest => at,
            Some(_) => earliest.offset(random.below(period / 5)),
            None => earliest.offset(period / 2 + random.below(period)),
        }
    }

    /// When to send a read so that it falls into `slot`, after the boundary.
    fn read_in(&self, slot: Slot, clock: &Clock<S>, random: &mut Random) -> Option<LocalInstant> {
        let cadence = &self.view.as_ref()?.row.cadence;
        let period = cadence.period_at(slot).as_nanos();
        let after_boundary = period / 10 + random.below(period * 3 / 10);
        clock.send_time(cadence.boundary(slot).offset(after_boundary))
    }

    /// Find the next thing to do. Called after everything that changes the view, the clock or the phase.
    fn replan(&mut self, now: LocalInstant, clock: &Clock<S>, notes: &mut Vec<Note>) {
        self.plan = self.next_plan(now, clock, notes);
    }

    fn next_plan(&mut self, now: LocalInstant, clock: &Clock<S>, notes: &mut Vec<Note>) -> Plan {
        if self.phase == Phase::Left {
            return Plan::Nothing;
        }
        if let Some(at) = self.read_first {
            return Plan::Read { at };
        }
        let Some(view) = &self.view else {
            return Plan::Read { at: now };
        };
        let roster = &view.row.roster;
        let cadence = &view.row.cadence;
        let period = cadence.period_at(view.read + 1).as_duration();
        let Some(turn) = roster.next_turn(self.id, view.read) else {
            // Outside the ring and without a change under way: look again in a while.
            return Plan::Read { at: now + period };
        };
        let grace = roster.version_at(turn).map_or(2, Version::grace);
        let more = if S::plants(Bug::LicenceEndsLate) { 2 } else { 0 };
        let licensed = turn < view.read + grace + more || S::plants(Bug::LicenceNeverEnds);
        let slot = if licensed { turn } else { turn - 1 };
        let half = cadence.period_at(slot).as_nanos() / 2;
        let Some(at) = clock.send_time(cadence.boundary(slot)) else {
            return Plan::Read { at: now };
        };
        if !licensed {
            return Plan::Read { at: at.offset(half / 2).max(now) };
        }
        let not_after = at.offset(half);
        if now > not_after && S::plants(Bug::SkippedTurnKeepsLicence) {
            if let Some(view) = &mut self.view {
                view.read = turn;
            }
            return self.next_plan(now, clock, notes);
        }
        if now > not_after {
            self.note_skipped(turn, notes);
            self.read_first = Some(now);
            return Plan::Read { at: now };
        }
        Plan::Beat { slot: turn, at, not_after }
    }

    /// The turn of the plan has passed (the node slept): read first.
    pub(crate) fn missed(
        &mut self,
        now: LocalInstant,
        slot: Slot,
        clock: &Clock<S>,
        notes: &mut Vec<Note>,
    ) {
        self.note_skipped(slot, notes);
        if S::plants(Bug::SkippedTurnKeepsLicence)
            && let Some(view) = &mut self.view
        {
            view.read = slot;
            self.replan(now, clock, notes);
            return;
        }
        self.read_first = Some(now);
        self.plan = Plan::Read { at: now };
    }

    fn note_skipped(&mut self, slot: Slot, notes: &mut Vec<Note>) {
        let is_new = self.accounted.replace(slot) != Some(slot);
        if is_new && !S::plants(Bug::SkippedTurnsAreNotNoted) {
            notes.push(Note::TurnSkipped { slot });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Kept;
    use crate::sabotage::Sound;

    const NODE: NodeId = NodeId::from_u128(7);
    const NOW: LocalInstant = LocalInstant::from_nanos(1_000_000_000);

    /// A node alone in its ring, with a statement under way in slot 5, its turn.
    fn sending(kind: Sent) -> Turns<Sound> {
        let mut row = TurnRow::new(Period::DEFAULT);
        let takeover = Change::takeover(&row, NODE, Slot(3));
        assert!(row.change(Slot(3), Some(NODE), &takeover));
        let mut turns = Turns::new(NODE, NOW);
        turns.identity = Some(ServerIdentity::default());
        turns.view = Some(View { row, read: Slot(4) });
        assert_eq!(turns.outlook(), Some((Slot(4), Some(Slot(5)))));
        send(&mut turns, kind);
        turns
    }

    fn send(turns: &mut Turns<Sound>, kind: Sent) {
        let (request, slot) = (RequestId(1), Some(Slot(5)));
        let sent = InFlight { request, kind, slot, again_until: None, patience: NOW };
        turns.in_flight = Some(sent);
    }

    /// The statement under way is answered in slot 7.
    fn answer(turns: &mut Turns<Sound>, notes: &mut Vec<Note>) {
        let answer = TurnAnswer {
            request: RequestId(1),
            exchange: None,
            identity: ServerIdentity::default(),
            now: Slot(7),
            done: true,
            row: turns.row().unwrap().clone(),
            claimed: 0,
            more: false,
            kept: Kept::default(),
            lost: false,
        };
        turns.answered(NOW, answer, &mut Clock::default(), &mut Random::new(1), notes);
    }

    fn skipped(notes: &[Note]) -> Vec<Slot> {
        let slots = notes.iter().filter_map(|note| match note {
            Note::TurnSkipped { slot } => Some(*slot),
            _ => None,
        });
        slots.collect()
    }

    #[test]
    fn a_turn_that_was_skipped_is_noted_once() {
        let clock = Clock::default();
        // Its beat was never sent, and the read behind that shows that it has passed.
        let (mut turns, mut notes) = (sending(Sent::Beat(Slot(5))), Vec::new());
        turns.failed(NOW, Fate::NotSent, &clock, &mut Random::new(1), &mut notes);
        assert_eq!(skipped(&notes), [Slot(5)]);
        send(&mut turns, Sent::Read);
        answer(&mut turns, &mut notes);
        assert_eq!(skipped(&notes), [Slot(5), Slot(6)], "the one behind it has passed too");
        // The node slept past the next one.
        turns.missed(NOW, Slot(8), &clock, &mut notes);
        assert_eq!(skipped(&notes), [Slot(5), Slot(6), Slot(8)]);
        // It slept past it, and reads.
        let (mut turns, mut notes) = (sending(Sent::Read), Vec::new());
        turns.missed(NOW, Slot(5), &clock, &mut notes);
        answer(&mut turns, &mut notes);
        assert_eq!(skipped(&notes), [Slot(5), Slot(6)]);
        // Only the read shows it.
        let (mut turns, mut notes) = (sending(Sent::Read), Vec::new());
        answer(&mut turns, &mut notes);
        assert_eq!(skipped(&notes), [Slot(5)]);
        assert_eq!(turns.accounted, None);
    }

    #[test]
    fn a_turn_whose_beat_was_sent_is_not_noted_as_skipped() {
        let clock = Clock::default();
        // Nothing is heard of it, and the read behind that shows that the turn has passed, and the next one.
        let (mut turns, mut notes) = (sending(Sent::Beat(Slot(5))), Vec::new());
        turns.failed(NOW, Fate::Unknown, &clock, &mut Random::new(1), &mut notes);
        send(&mut turns, Sent::Read);
        answer(&mut turns, &mut notes);
        assert_eq!(skipped(&notes), [Slot(6)]);
        // Its connection broke, and then it was too late to send it again.
        let (mut turns, mut notes) = (sending(Sent::Beat(Slot(5))), Vec::new());
        (turns.sent_again, turns.accounted) = (Some(Slot(5)), Some(Slot(5)));
        turns.failed(NOW, Fate::NotSent, &clock, &mut Random::new(1), &mut notes);
        assert_eq!(skipped(&notes), []);
        // The first try of it had not been sent either.
        let (mut turns, mut notes) = (sending(Sent::Beat(Slot(5))), Vec::new());
        turns.sent_again = Some(Slot(5));
        turns.failed(NOW, Fate::NotSent, &clock, &mut Random::new(1), &mut notes);
        assert_eq!(skipped(&notes), [Slot(5)]);
        // A turn of that number under other numbers is another turn.
        send(&mut turns, Sent::Read);
        answer(&mut turns, &mut notes);
        assert_eq!(turns.sent_again, None);
    }
}
