//! Decides when to claim, how much, and when to renew the lease: the free places, the drain of a
//! backlog, the claims whose answers were lost. Knows nothing of turns.

use alloc::collections::VecDeque;
use core::marker::PhantomData;
use core::time::Duration;

use crate::io::{Claim, Fate, Kept, Reason, RequestId, WorkStatement};
use crate::lease::{lease, renew_every};
use crate::sabotage::{Bug, Sabotage};
use crate::units::{LocalInstant, Period, Token};

/// A statement on the jobs is given up when the next renewal would be due, and after each failure in a row
/// twice as late, up to this; while jobs are or may be held, up to half a lease, since behind it no
/// renewal is sent.
const PATIENCE_MAX: Duration = Duration::from_secs(5);
/// The first wait after a statement that failed; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(100);
/// A claim that could not be recovered so many times is released: its jobs cannot be received.
const RECOVERIES_MAX: u32 = 3;
/// The longest wait between tries; a quarter of a lease while jobs are or may be held, if that is less. After an outage of two slots a living node has half a period to renew its
/// lease, at the usual period of a second.
const RETRY_MAX: Duration = Duration::from_millis(500);

/// The jobs that this node holds, as numbers, and what it asks of the database on their account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Work<S: Sabotage> {
    capacity: u32,
    /// The most that is claimed at once: less than the capacity after a claim that could not be received.
    claim_max: u32,
    /// Jobs claimed and not yet ended.
    held: u32,
    /// The last token given out.
    token: Token,
    /// The claim that travels with the beat in flight.
    with_beat: Option<(Claim, Asked)>,
    in_flight: Option<InFlight>,
    /// Claims whose answers were lost: each must be recovered before anything else is claimed. What they asked
    /// about is forgotten: whatever is due is asked for behind them.
    lost_claims: VecDeque<LostClaim>,
    /// The history is another one: before anything is claimed it must be reconciled.
    reconcile: bool,
    /// There may be more due jobs than this node took last time.
    backlog: bool,
    /// The last claim left jobs behind that may be claimed as soon as one ends.
    until_one_ends: bool,
    /// A job has ended since the last claim was sent.
    ended_since: bool,
    /// When queues give out their next jobs, to this node among others.
    rates: Rates,
    target_reachable: bool,
    stopped: bool,
    checked_in: Option<LocalInstant>,
    failures: u32,
    retry_at: Option<LocalInstant>,
    sabotage: PhantomData<S>,
}

/// What a claim that is under way asks about, beside whatever is due: to be asked for again should it come to nothing.
/// Two may be under way at once, one with the beat and one beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Asked {
    /// A job had ended.
    ended: bool,
    /// A queue gave out its next job at this time.
    rate_at: Option<LocalInstant>,
    /// Another answer has told of more since it was sent. Its own may be the older one, whichever was sent first,
    /// and takes none of that back.
    overtaken: bool,
}

/// The next times at which queues give out jobs, the earliest first: of several queues at most as many as there are places, since
/// whoever asks for the first is told of the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Rates([Option<LocalInstant>; 4]);

impl Rates {
    fn first(&self) -> Option<LocalInstant> {
        self.0[0]
    }

    /// One more; of too many the latest is forgotten.
    fn add(&mut self, at: LocalInstant) {
        let mut next = Some(at);
        for place in &mut self.0 {
            if *place == next {
                return;
            }
            if place.is_none_or(|there| next.is_some_and(|next| next < there)) {
                core::mem::swap(place, &mut next);
            }
            if next.is_none() {
                return;
            }
        }
    }

    /// Those that have come are gone: the last of them.
    fn take_until(&mut self, now: LocalInstant) -> Option<LocalInstant> {
        let come = self.0.iter().flatten().take_while(|at| **at <= now).count();
        let last = come.checked_sub(1).and_then(|last| self.0[last]);
        self.0.rotate_left(come);
        let left = self.0.len() - come;
        self.0[left..].fill(None);
        last
    }
}

/// What a claim came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Took {
    pub(crate) claimed: u32,
    /// There may be more, though fewer were claimed than asked for.
    pub(crate) more: bool,
    pub(crate) kept: Kept,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct LostClaim {
    claim: Claim,
    /// Recoveries that were sent and not answered.
    failures: u32,
}

impl LostClaim {
    fn of(claim: Claim) -> Self {
        Self { claim, failures: 0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct InFlight {
    request: RequestId,
    statement: WorkStatement,
    /// What a claim asks about; of any other statement nothing.
    asked: Asked,
    patience: LocalInstant,
}

/// What is to be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Act {
    Nothing,
    Send(WorkStatement),
    Abandon(RequestId),
}

impl<S: Sabotage> Work<S> {
    pub(crate) fn new(capacity: u32) -> Self {
        Self {
            capacity,
            claim_max: capacity,
            held: 0,
            token: Token(0),
            with_beat: None,
            in_flight: None,
            lost_claims: VecDeque::new(),
            reconcile: false,
            backlog: false,
            until_one_ends: false,
            ended_since: false,
            rates: Rates::default(),
            target_reachable: true,
            stopped: false,
            checked_in: None,
            failures: 0,
            retry_at: None,
            sabotage: PhantomData,
        }
    }

    pub(crate) fn held(&self) -> u32 {
        self.held
    }

    /// Whether no claim is on its way or lost.
    pub(crate) fn is_settled(&self) -> bool {
        if S::plants(Bug::ClaimsAreNotAwaited) {
            return true;
        }
        let claiming = self.in_flight.is_some_and(|f| match f.statement {
            WorkStatement::Claim(_) | WorkStatement::Recover(_) | WorkStatement::Release(_) => true,
            WorkStatement::Renew | WorkStatement::Reconcile => false,
        });
        self.with_beat.is_none() && self.lost_claims.is_empty() && !claiming
    }

    /// The claim that goes with a beat that leaves now.
    pub(crate) fn claim_with_beat(&mut self, now: LocalInstant) -> Option<Claim> {
        let limit = self.free();
        if limit == 0 && self.may_claim() {
            // Full: whether jobs wait is not known, so ask as soon as a place is free.
            self.backlog = true;
        }
        let claim = self.next_claim();
        self.with_beat = claim.map(|claim| (claim, self.take_asked(now)));
        claim
    }

    /// The beat was answered.
    pub(crate) fn beat_answered(&mut self, now: LocalInstant, accepted: bool, took: Took) {
        let Some((claim, asked)) = self.with_beat.take() else {
            return;
        };
        if accepted {
            self.took(now, claim, asked, took);
        } else {
            self.ask_again(asked);
        }
    }

    /// The beat was not answered.
    pub(crate) fn beat_failed(&mut self, fate: Fate) {
        let Some((claim, asked)) = self.with_beat.take() else {
            return;
        };
        match fate {
            Fate::NotSent => self.ask_again(asked),
            Fate::Unknown if S::plants(Bug::LostClaimIsForgotten) => {}
            Fate::Unknown => self.lost_claims.push_back(LostClaim::of(claim)),
        }
    }

    /// Any statement that proves that the node lives was sent at `sent` and answered.
    pub(crate) fn checked_in(&mut self, sent: LocalInstant) {
        self.checked_in = self.checked_in.max(Some(sent));
    }

    pub(crate) fn target(&mut self, reachable: bool) {
        self.target_reachable = reachable;
    }

    /// Another server answers, whose history may lack what the old one had committed last.
    pub(crate) fn history_changed(&mut self) {
        self.reconcile = !S::plants(Bug::HistoryIsTrusted);
    }

    pub(crate) fn stop(&mut self) {
        self.stopped = !S::plants(Bug::ClaimsWhileLeaving);
    }

    pub(crate) fn ended(&mut self, jobs: u32) {
        let jobs = match () {
            () if S::plants(Bug::EndsCountTwice) => 2 * jobs,
            () if S::plants(Bug::EndsDoNotCount) => 0,
            () => jobs,
        };
        self.held = self.held.saturating_sub(jobs);
        self.ended_since |= jobs > 0;
        let asks = self.until_one_ends && !S::plants(Bug::RoomIsNotAskedFor);
        self.backlog |= jobs > 0 && asks;
    }

    pub(crate) fn sent(
        &mut self,
        now: LocalInstant,
        request: RequestId,
        statement: WorkStatement,
        period: Period,
    ) -> LocalInstant {
        // A statement that hangs must not cost the lease: behind it no renewal is sent.
        let patience = renew_every(period) * 2_u32.saturating_pow(self.failures.min(8));
        let most = if self.may_hold() { lease(period) / 2 } else { PATIENCE_MAX };
        let patience = now + patience.min(most);
        let asked = match statement {
            WorkStatement::Claim(_) => self.take_asked(now),
            _ => Asked::default(),
        };
        self.in_flight = Some(InFlight { request, statement, asked, patience });
        patience
    }

    /// A statement on the jobs was answered. False when it is not the one in flight.
    pub(crate) fn answered(&mut self, now: LocalInstant, request: RequestId, took: Took) -> bool {
        let Some(in_flight) = self.in_flight.take_if(|f| f.request == request) else {
            return false;
        };
        self.failures = 0;
        self.retry_at = None;
        match in_flight.statement {
            WorkStatement::Renew => {}
            WorkStatement::Claim(claim) => self.took(now, claim, in_flight.asked, took),
            WorkStatement::Reconcile => self.reconcile = false,
            WorkStatement::Recover(token) => {
                self.lost_claims.retain(|lost| lost.claim.token != token);
                if !S::plants(Bug::RecoveredJobsAreNotCounted) {
                    self.held += took.claimed;
                }
                self.backlog = true;
                self.overtake();
            }
            WorkStatement::Release(token) => {
                let lost = self.lost_claims.iter().find(|lost| lost.claim.token == token);
                if let Some(lost) = lost {
                    // The road may be too slow for so much.
                    self.claim_max = (lost.claim.limit / 2).max(1);
                }
                self.lost_claims.retain(|lost| lost.claim.token != token);
                self.backlog = true;
                self.overtake();
            }
        }
        true
    }

    /// A statement on the jobs was not answered. False when it is not the one in flight.
    pub(crate) fn failed(
        &mut self,
        now: LocalInstant,
        request: RequestId,
        fate: Fate,
        period: Period,
    ) -> bool {
        let Some(in_flight) = self.in_flight.take_if(|f| f.request == request) else {
            return false;
        };
        match (in_flight.statement, fate) {
            (WorkStatement::Claim(claim), Fate::Unknown)
                if !S::plants(Bug::LostClaimIsForgotten) =>
            {
                self.lost_claims.push_back(LostClaim::of(claim));
            }
            (WorkStatement::Claim(_), Fate::NotSent) => self.ask_again(in_flight.asked),
            (WorkStatement::Recover(token), Fate::Unknown) => {
                for lost in self.lost_claims.iter_mut().filter(|lost| lost.claim.token == token) {
                    lost.failures += 1;
                }
            }
            _ => {}
        }
        let wait = RETRY_MIN * 2_u32.saturating_pow(self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let wait = if S::plants(Bug::WorkIsNotSpaced) { Duration::ZERO } else { wait };
        let most = if self.may_hold() { RETRY_MAX.min(lease(period) / 4) } else { RETRY_MAX };
        self.retry_at = Some(now + wait.min(most));
        true
    }

    pub(crate) fn deadline(
        &self,
        now: LocalInstant,
        period: Period,
    ) -> Option<(LocalInstant, Reason)> {
        if let Some(in_flight) = &self.in_flight {
            return Some((in_flight.patience, Reason::WorkPatience));
        }
        let (at, reason) = match self.wanted(period)? {
            (WorkStatement::Renew, at) => (at, Reason::Renew),
            (WorkStatement::Claim(_), at) if at > now => (at, Reason::Rate),
            (_, at) => (at.max(now), Reason::Retry),
        };
        match self.retry_at {
            Some(retry) if retry > at => Some((retry, Reason::Retry)),
            _ => Some((at, reason)),
        }
    }

    pub(crate) fn due(&mut self, now: LocalInstant, period: Period) -> Act {
        if let Some(in_flight) = &self.in_flight {
            return if in_flight.patience <= now {
                Act::Abandon(in_flight.request)
            } else {
                Act::Nothing
            };
        }
        if self.retry_at.is_some_and(|retry| retry > now) {
            return Act::Nothing;
        }
        match self.wanted(period) {
            Some((WorkStatement::Claim(_), at)) if at <= now => match self.next_claim() {
                Some(claim) => Act::Send(WorkStatement::Claim(claim)),
                None => Act::Nothing,
            },
            Some((statement, at)) if at <= now => Act::Send(statement),
            _ => Act::Nothing,
        }
    }

    /// The statement that is wanted next, and from when on.
    fn wanted(&self, period: Period) -> Option<(WorkStatement, LocalInstant)> {
        let at_once = LocalInstant::from_nanos(0);
        if self.reconcile {
            return Some((WorkStatement::Reconcile, at_once));
        }
        if let Some(lost) = self.lost_claims.front() {
            let token = lost.claim.token;
            let statement = match lost.failures {
                ..RECOVERIES_MAX => WorkStatement::Recover(token),
                _ => WorkStatement::Release(token),
            };
            return Some((statement, at_once));
        }
        if self.backlog && self.may_claim() && self.free() > 0 {
            let claim = Claim { token: self.token, limit: self.free() };
            return Some((WorkStatement::Claim(claim), at_once));
        }
        let renewal = (self.held > 0 && !S::plants(Bug::LeaseIsNotRenewed)).then(|| {
            let last = self.checked_in.unwrap_or(at_once);
            let wait = match S::plants(Bug::LeaseIsRenewedLate) {
                true => 4 * renew_every(period),
                false => renew_every(period),
            };
            (WorkStatement::Renew, last + wait)
        });
        // A claim is a check-in too.
        let rated =
            self.rates.first().filter(|_| self.may_claim() && self.free() > 0).map(|at| {
                (WorkStatement::Claim(Claim { token: self.token, limit: self.free() }), at)
            });
        renewal.into_iter().chain(rated).min_by_key(|(_, at)| *at)
    }

    fn next_claim(&mut self) -> Option<Claim> {
        let limit = self.free();
        if !self.may_claim() || limit == 0 {
            return None;
        }
        if !S::plants(Bug::TokenIsReused) || self.token == Token(0) {
            self.token = Token(self.token.0 + 1);
        }
        Some(Claim { token: self.token, limit })
    }

    /// What a claim that is sent now asks about.
    fn take_asked(&mut self, now: LocalInstant) -> Asked {
        Asked {
            ended: core::mem::take(&mut self.ended_since),
            rate_at: self.rates.take_until(now),
            overtaken: false,
        }
    }

    fn took(&mut self, now: LocalInstant, claim: Claim, asked: Asked, took: Took) {
        let Took { claimed, more, kept } = took;
        self.held += match S::plants(Bug::ClaimsCountAsAsked) {
            true => claim.limit,
            false => claimed,
        };
        if !asked.overtaken {
            self.backlog = false;
            self.until_one_ends = false;
        }
        let full = claimed >= claim.limit && !S::plants(Bug::BacklogIsForgotten);
        self.backlog |= full || (more && !S::plants(Bug::MoreIsIgnored));
        self.until_one_ends |= kept.until_one_ends;
        // One that ended meanwhile may have been counted still.
        self.backlog |= kept.until_one_ends && self.ended_since;
        self.overtake();
        if let Some(wait) = kept.rate_wait
            && !S::plants(Bug::RateIsNotAwaited)
        {
            self.rates.add(now + wait);
        }
        // An answer that ended at its bytes says nothing of how many the road takes.
        if claimed >= claim.limit {
            self.claim_max = claim.limit.saturating_mul(2).clamp(self.claim_max, self.capacity);
        }
    }

    /// What is known now is kept from the answers of the claims that are under way.
    fn overtake(&mut self) {
        if !self.backlog && !self.until_one_ends || S::plants(Bug::OlderAnswerTakesBack) {
            return;
        }
        if let Some((_, asked)) = &mut self.with_beat {
            asked.overtaken = true;
        }
        if let Some(InFlight { statement: WorkStatement::Claim(_), asked, .. }) =
            &mut self.in_flight
        {
            asked.overtaken = true;
        }
    }

    /// A claim came to nothing, and the database knows nothing of it.
    fn ask_again(&mut self, asked: Asked) {
        self.ended_since |= asked.ended;
        // Another answer may have told since that an end makes room.
        self.backlog |= asked.ended && self.until_one_ends;
        if let Some(at) = asked.rate_at {
            self.rates.add(at);
        }
    }

    fn may_claim(&self) -> bool {
        if self.reconcile {
            return false;
        }
        let reachable = self.target_reachable || S::plants(Bug::ClaimsWithoutTarget);
        !self.stopped && reachable && self.lost_claims.is_empty()
    }

    /// Whether jobs are, or may be, this node's, so that its lease matters.
    fn may_hold(&self) -> bool {
        self.held > 0 || !self.lost_claims.is_empty()
    }

    /// Places that are neither taken nor asked for, as far as they may be asked for at once.
    fn free(&self) -> u32 {
        if S::plants(Bug::ClaimsWhenFull) {
            return self.capacity;
        }
        let asked = self.with_beat.map_or(0, |(claim, _)| claim.limit);
        let asked_too = match self.in_flight {
            Some(InFlight { statement: WorkStatement::Claim(claim), .. }) => claim.limit,
            _ => 0,
        };
        let free =
            self.capacity.saturating_sub(self.held).saturating_sub(asked).saturating_sub(asked_too);
        free.min(self.claim_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sabotage::Sound;

    fn at(millis: u64) -> LocalInstant {
        LocalInstant::from_nanos(millis * 1_000_000)
    }

    const PERIOD: Period = Period::DEFAULT;

    fn took(claimed: u32, more: bool) -> Took {
        Took { claimed, more, kept: Kept::default() }
    }

    #[test]
    fn what_a_limit_kept_back_is_asked_for_when_one_ends() {
        let mut work = Work::<Sound>::new(4);
        work.claim_with_beat(at(0));
        let kept = Kept { until_one_ends: true, rate_wait: None };
        work.beat_answered(at(0), true, Took { kept, ..took(2, false) });
        assert_eq!(work.due(at(100), PERIOD), Act::Nothing, "none has ended");
        work.ended(0);
        assert_eq!(work.due(at(100), PERIOD), Act::Nothing, "none has ended");
        work.ended(1);
        let claim = WorkStatement::Claim(Claim { token: Token(2), limit: 3 });
        assert_eq!(work.due(at(100), PERIOD), Act::Send(claim));
        work.sent(at(100), RequestId(1), claim, PERIOD);
        assert!(work.answered(at(101), RequestId(1), took(1, false)));
        work.ended(2);
        assert_eq!(work.due(at(102), PERIOD), Act::Nothing, "no limit kept anything back");
    }

    #[test]
    fn a_place_that_became_free_behind_a_claim_is_asked_for() {
        let mut work = Work::<Sound>::new(4);
        let kept = Kept { until_one_ends: true, rate_wait: None };
        work.claim_with_beat(at(0));
        work.beat_answered(at(0), true, Took { kept, ..took(1, false) });
        work.claim_with_beat(at(0));
        work.ended(1);
        work.beat_answered(at(0), true, Took { kept, ..took(0, false) });
        assert!(matches!(work.due(at(0), PERIOD), Act::Send(WorkStatement::Claim(_))));
    }

    #[test]
    fn what_a_rate_kept_back_is_asked_for_at_its_time() {
        let mut work = Work::<Sound>::new(4);
        work.claim_with_beat(at(0));
        let kept = Kept { until_one_ends: false, rate_wait: Some(Duration::from_millis(250)) };
        work.beat_answered(at(1_000), true, Took { kept, ..took(1, false) });
        work.checked_in(at(1_000));
        assert_eq!(work.deadline(at(1_000), PERIOD), Some((at(1_250), Reason::Rate)));
        assert_eq!(work.due(at(1_249), PERIOD), Act::Nothing);
        let claim = WorkStatement::Claim(Claim { token: Token(2), limit: 3 });
        assert_eq!(work.due(at(1_250), PERIOD), Act::Send(claim));
        work.sent(at(1_250), RequestId(1), claim, PERIOD);
        // Another node took it: whoever takes the last one goes on asking.
        assert!(work.answered(at(1_260), RequestId(1), took(0, false)));
        let (_, reason) = work.deadline(at(1_260), PERIOD).unwrap();
        assert_eq!(reason, Reason::Renew);
    }

    #[test]
    fn a_beat_in_between_forgets_no_rate() {
        let mut work = Work::<Sound>::new(4);
        let told =
            |millis| Kept { until_one_ends: false, rate_wait: Some(Duration::from_millis(millis)) };
        work.claim_with_beat(at(0));
        work.beat_answered(at(0), true, Took { kept: told(900), ..took(1, false) });
        work.checked_in(at(0));
        // This node's own beat finds an empty bucket, and is told of another queue.
        work.claim_with_beat(at(100));
        work.beat_answered(at(100), true, Took { kept: told(200), ..took(0, false) });
        assert_eq!(work.deadline(at(100), PERIOD), Some((at(300), Reason::Rate)));
        let claim = WorkStatement::Claim(Claim { token: Token(3), limit: 3 });
        assert_eq!(work.due(at(300), PERIOD), Act::Send(claim));
        work.sent(at(300), RequestId(1), claim, PERIOD);
        assert!(work.answered(at(310), RequestId(1), took(0, false)));
        work.checked_in(at(310));
        assert_eq!(work.deadline(at(310), PERIOD), Some((at(900), Reason::Rate)));
        // What never reached the database is said again, a refused beat's too.
        let claim = WorkStatement::Claim(Claim { token: Token(4), limit: 3 });
        assert_eq!(work.due(at(900), PERIOD), Act::Send(claim));
        work.sent(at(900), RequestId(2), claim, PERIOD);
        assert!(work.failed(at(910), RequestId(2), Fate::NotSent, PERIOD));
        assert_eq!(work.deadline(at(1_010), PERIOD), Some((at(1_010), Reason::Retry)));
        work.claim_with_beat(at(1_020));
        assert_eq!(work.rates.first(), None);
        work.beat_answered(at(1_030), false, took(0, false));
        assert_eq!(work.rates.first(), Some(at(900)));
        work.claim_with_beat(at(1_040));
        work.beat_answered(at(1_050), true, took(0, false));
        assert_eq!(work.rates.first(), None, "somebody else took it");
    }

    const BESIDE: RequestId = RequestId(1);

    /// Two claims are under way, and no job is held: one beside the beat, of token 2 for 3 places, and then one with
    /// the beat, of token 3 for the place of a job that has ended.
    fn two_under_way() -> Work<Sound> {
        let mut work = Work::<Sound>::new(4);
        work.claim_with_beat(at(0));
        work.beat_answered(at(0), true, took(1, true));
        let claim = WorkStatement::Claim(Claim { token: Token(2), limit: 3 });
        assert_eq!(work.due(at(0), PERIOD), Act::Send(claim));
        work.sent(at(0), BESIDE, claim, PERIOD);
        work.ended(1);
        assert_eq!(work.claim_with_beat(at(1)), Some(Claim { token: Token(3), limit: 1 }));
        work
    }

    /// The claim that leaves after three others.
    fn fourth(limit: u32) -> Act {
        Act::Send(WorkStatement::Claim(Claim { token: Token(4), limit }))
    }

    #[test]
    fn an_answer_takes_nothing_away_that_another_claim_asks_for() {
        let rate = Kept { until_one_ends: false, rate_wait: Some(Duration::from_millis(250)) };
        // It is the claim beside the beat that asks for the rate, and never leaves.
        let mut work = Work::<Sound>::new(4);
        work.claim_with_beat(at(0));
        work.beat_answered(at(0), true, Took { kept: rate, ..took(1, false) });
        work.checked_in(at(0));
        let claim = WorkStatement::Claim(Claim { token: Token(2), limit: 3 });
        assert_eq!(work.due(at(250), PERIOD), Act::Send(claim));
        work.sent(at(250), BESIDE, claim, PERIOD);
        work.ended(1);
        work.claim_with_beat(at(255));
        work.beat_answered(at(260), true, took(0, false));
        assert!(work.failed(at(270), BESIDE, Fate::NotSent, PERIOD));
        assert_eq!(work.due(at(370), PERIOD), fourth(4));
        // It is the one with the beat, which is refused.
        let mut work = Work::<Sound>::new(4);
        work.claim_with_beat(at(0));
        work.beat_answered(at(0), true, Took { kept: rate, ..took(1, true) });
        assert_eq!(work.due(at(10), PERIOD), Act::Send(claim));
        work.sent(at(10), BESIDE, claim, PERIOD);
        work.ended(1);
        work.claim_with_beat(at(250));
        assert!(work.answered(at(260), BESIDE, took(0, false)));
        work.beat_answered(at(270), false, took(0, false));
        assert_eq!(work.due(at(270), PERIOD), fourth(4));
    }

    #[test]
    fn a_claim_that_was_lost_asks_for_nothing_any_more() {
        let mut work = Work::<Sound>::new(4);
        let kept = Kept { until_one_ends: false, rate_wait: Some(Duration::from_millis(250)) };
        work.claim_with_beat(at(0));
        work.beat_answered(at(0), true, Took { kept, ..took(1, false) });
        let claim = WorkStatement::Claim(Claim { token: Token(2), limit: 3 });
        assert_eq!(work.due(at(250), PERIOD), Act::Send(claim));
        work.sent(at(250), RequestId(1), claim, PERIOD);
        assert!(work.failed(at(260), RequestId(1), Fate::Unknown, PERIOD));
        let recover = WorkStatement::Recover(Token(2));
        assert_eq!(work.due(at(360), PERIOD), Act::Send(recover));
        work.sent(at(360), RequestId(2), recover, PERIOD);
        assert!(work.answered(at(370), RequestId(2), took(1, false)));
        // Whatever is due is asked for, the rate among it, until that is answered.
        let next = WorkStatement::Claim(Claim { token: Token(3), limit: 2 });
        assert_eq!(work.due(at(370), PERIOD), Act::Send(next));
        work.sent(at(370), RequestId(3), next, PERIOD);
        assert!(work.failed(at(380), RequestId(3), Fate::NotSent, PERIOD));
        assert_eq!(work.rates.first(), None);
        assert_eq!(work.due(at(480), PERIOD), fourth(2));
    }

    #[test]
    fn what_one_answer_tells_of_more_the_other_does_not_take_back() {
        // Whichever is answered first: in which order the database did them is not known.
        let mut work = two_under_way();
        work.beat_answered(at(2), true, took(0, true));
        assert!(work.answered(at(3), BESIDE, took(0, false)));
        assert_eq!(work.due(at(3), PERIOD), fourth(4));
        let mut work = two_under_way();
        assert!(work.answered(at(2), BESIDE, took(0, true)));
        work.beat_answered(at(3), true, took(0, false));
        assert_eq!(work.due(at(3), PERIOD), fourth(4));
        // Who was sent since then has the last word.
        let claim = WorkStatement::Claim(Claim { token: Token(4), limit: 4 });
        work.sent(at(3), RequestId(2), claim, PERIOD);
        assert!(work.answered(at(4), RequestId(2), took(0, false)));
        assert_eq!(work.due(at(5), PERIOD), Act::Nothing);
        let mut work = two_under_way();
        work.beat_answered(at(2), true, took(0, false));
        assert!(work.answered(at(3), BESIDE, took(0, false)));
        assert_eq!(work.due(at(3), PERIOD), Act::Nothing, "neither told of more");
    }

    #[test]
    fn what_one_answer_tells_of_a_limit_the_other_does_not_take_back() {
        let mut work = two_under_way();
        let kept = Kept { until_one_ends: true, rate_wait: None };
        work.beat_answered(at(2), true, Took { kept, ..took(0, false) });
        assert!(work.answered(at(3), BESIDE, took(1, false)));
        assert_eq!(work.due(at(3), PERIOD), Act::Nothing, "none has ended");
        work.ended(1);
        assert_eq!(work.due(at(3), PERIOD), fourth(4));
    }

    #[test]
    fn what_is_asked_for_behind_a_recovery_an_older_claim_does_not_take_back() {
        let mut work = two_under_way();
        assert!(work.failed(at(10), BESIDE, Fate::Unknown, PERIOD));
        let recover = WorkStatement::Recover(Token(2));
        assert_eq!(work.due(at(110), PERIOD), Act::Send(recover));
        work.sent(at(110), RequestId(2), recover, PERIOD);
        assert!(work.answered(at(111), RequestId(2), took(0, false)));
        work.beat_answered(at(112), true, took(0, false));
        assert_eq!(work.due(at(112), PERIOD), fourth(4));
    }

    #[test]
    fn an_end_that_was_never_asked_about_makes_room_when_another_answer_tells_of_a_limit() {
        let mut work = two_under_way();
        // It may have counted the job whose end the beat was to ask about.
        let kept = Kept { until_one_ends: true, rate_wait: None };
        assert!(work.answered(at(2), BESIDE, Took { kept, ..took(0, false) }));
        assert_eq!(work.due(at(2), PERIOD), Act::Nothing, "the beat asks");
        work.beat_failed(Fate::NotSent);
        assert_eq!(work.due(at(3), PERIOD), fourth(4));
    }

    #[test]
    fn rates_are_kept_in_their_order_and_the_latest_is_forgotten() {
        let mut rates = Rates::default();
        for millis in [50, 20, 40, 20, 10, 30] {
            rates.add(at(millis));
        }
        assert_eq!(rates.0, [10, 20, 30, 40].map(|millis| Some(at(millis))));
        assert_eq!(rates.take_until(at(9)), None);
        assert_eq!(rates.take_until(at(29)), Some(at(20)));
        assert_eq!(rates.0, [Some(at(30)), Some(at(40)), None, None]);
        assert_eq!(rates.take_until(at(99)), Some(at(40)));
        assert_eq!(rates, Rates::default());
    }

    #[test]
    fn a_rate_is_not_asked_about_without_a_free_place_or_a_target() {
        let kept = Kept { until_one_ends: false, rate_wait: Some(Duration::from_millis(5)) };
        let reason = |work: &Work<Sound>| work.deadline(at(0), PERIOD).map(|(_, reason)| reason);
        let mut full = Work::<Sound>::new(1);
        full.claim_with_beat(at(0));
        full.beat_answered(at(0), true, Took { kept, ..took(1, false) });
        full.checked_in(at(0));
        assert_eq!(full.due(at(10), PERIOD), Act::Nothing, "no place is free");
        assert_eq!(reason(&full), Some(Reason::Renew));
        let mut work = Work::<Sound>::new(2);
        work.claim_with_beat(at(0));
        work.beat_answered(at(0), true, Took { kept, ..took(1, false) });
        work.checked_in(at(0));
        work.target(false);
        assert_eq!(work.due(at(10), PERIOD), Act::Nothing, "the target is away");
        assert_eq!(reason(&work), Some(Reason::Renew));
        work.target(true);
        assert_eq!(reason(&work), Some(Reason::Rate));
        assert!(matches!(work.due(at(10), PERIOD), Act::Send(WorkStatement::Claim(_))));
    }

    #[test]
    fn a_full_claim_is_followed_by_another_as_places_free() {
        let mut work = Work::<Sound>::new(4);
        assert_eq!(work.claim_with_beat(at(0)), Some(Claim { token: Token(1), limit: 4 }));
        work.beat_answered(at(0), true, took(4, false));
        assert_eq!(work.due(at(0), PERIOD), Act::Nothing, "no place is free");
        work.ended(3);
        let claim = WorkStatement::Claim(Claim { token: Token(2), limit: 3 });
        assert_eq!(work.due(at(1), PERIOD), Act::Send(claim));
        work.sent(at(1), RequestId(1), claim, PERIOD);
        assert!(
            work.answered(at(0), RequestId(1), took(2, false)),
            "fewer than asked for: the queue is empty"
        );
        work.ended(3);
        assert_eq!(work.due(at(2), PERIOD), Act::Nothing);
    }

    #[test]
    fn a_claim_that_was_cut_short_is_followed_by_another() {
        let mut work = Work::<Sound>::new(4);
        work.claim_with_beat(at(0));
        work.beat_answered(at(0), true, took(1, true));
        let claim = WorkStatement::Claim(Claim { token: Token(2), limit: 3 });
        assert_eq!(work.due(at(0), PERIOD), Act::Send(claim));
        work.sent(at(0), RequestId(1), claim, PERIOD);
        assert!(work.answered(at(0), RequestId(1), took(1, true)));
        let next = WorkStatement::Claim(Claim { token: Token(3), limit: 2 });
        assert_eq!(work.due(at(1), PERIOD), Act::Send(next));
        work.sent(at(1), RequestId(2), next, PERIOD);
        assert!(work.answered(at(0), RequestId(2), took(1, false)));
        assert_eq!(work.due(at(2), PERIOD), Act::Nothing, "that was the last");
    }

    #[test]
    fn a_lost_claim_is_recovered_before_anything_else_is_claimed() {
        let mut work = Work::<Sound>::new(4);
        work.claim_with_beat(at(0));
        work.beat_failed(Fate::Unknown);
        assert_eq!(work.claim_with_beat(at(0)), None);
        let recover = WorkStatement::Recover(Token(1));
        assert_eq!(work.due(at(0), PERIOD), Act::Send(recover));
        work.sent(at(0), RequestId(1), recover, PERIOD);
        assert!(work.failed(at(5), RequestId(1), Fate::Unknown, PERIOD));
        assert_eq!(work.due(at(6), PERIOD), Act::Nothing, "not before the wait is over");
        assert_eq!(work.due(at(105), PERIOD), Act::Send(recover));
        work.sent(at(105), RequestId(2), recover, PERIOD);
        assert!(work.answered(at(0), RequestId(2), took(3, false)));
        assert_eq!(work.held(), 3);
    }

    /// Fail whatever is sent, until something else than a recovery is.
    fn fail_recoveries(work: &mut Work<Sound>, fate: Fate) -> (WorkStatement, u32) {
        let mut failed = 0;
        for tenth in 0.. {
            let now = at(tenth * 100);
            let Act::Send(statement) = work.due(now, PERIOD) else { continue };
            if failed == 20 || !matches!(statement, WorkStatement::Recover(_)) {
                return (statement, failed);
            }
            failed += 1;
            work.sent(now, RequestId(tenth), statement, PERIOD);
            assert!(work.failed(now, RequestId(tenth), fate, PERIOD));
        }
        unreachable!()
    }

    #[test]
    fn a_claim_that_cannot_be_received_is_released_and_less_is_claimed() {
        let mut work = Work::<Sound>::new(8);
        work.claim_with_beat(at(0));
        work.beat_failed(Fate::Unknown);
        let (release, failed) = fail_recoveries(&mut work, Fate::Unknown);
        assert_eq!((release, failed), (WorkStatement::Release(Token(1)), 3));
        assert!(!work.is_settled());
        // Until the release is answered, it is tried again and nothing else is claimed.
        let late = at(60_000);
        work.sent(late, RequestId(1_000), release, PERIOD);
        assert!(work.failed(late, RequestId(1_000), Fate::Unknown, PERIOD));
        assert_eq!(work.claim_with_beat(at(0)), None);
        let late = at(70_000);
        assert_eq!(work.due(late, PERIOD), Act::Send(release));
        work.sent(late, RequestId(1_001), release, PERIOD);
        assert!(work.answered(at(0), RequestId(1_001), took(0, false)));
        assert!(work.is_settled());
        assert_eq!(work.held(), 0);
        // Half as much, and more again as it goes well.
        for (token, limit) in [(2, 4), (3, 8)] {
            let claim = Claim { token: Token(token), limit };
            assert_eq!(work.due(late, PERIOD), Act::Send(WorkStatement::Claim(claim)));
            work.sent(late, RequestId(2_000), WorkStatement::Claim(claim), PERIOD);
            assert!(work.answered(at(0), RequestId(2_000), took(limit, false)));
            work.ended(limit);
        }
    }

    #[test]
    fn recoveries_that_never_reach_the_server_release_nothing() {
        let mut work = Work::<Sound>::new(8);
        work.claim_with_beat(at(0));
        work.beat_failed(Fate::Unknown);
        let (statement, failed) = fail_recoveries(&mut work, Fate::NotSent);
        assert_eq!((statement, failed), (WorkStatement::Recover(Token(1)), 20));
    }

    /// The longest that any of many statements in a row that fail is waited for.
    fn longest_patience(work: &mut Work<Sound>, fate: Fate) -> Duration {
        let (mut longest, mut sent) = (Duration::ZERO, 0);
        for tenth in 0..600 {
            let now = at(tenth * 100);
            let Act::Send(statement) = work.due(now, PERIOD) else { continue };
            sent += 1;
            longest = longest.max(work.sent(now, RequestId(tenth), statement, PERIOD).since(now));
            assert!(work.failed(now, RequestId(tenth), fate, PERIOD));
        }
        assert!(sent > 20, "{sent}");
        longest
    }

    #[test]
    fn a_statement_that_hangs_does_not_cost_the_lease_of_what_may_be_held() {
        let mut lost = Work::<Sound>::new(4);
        lost.claim_with_beat(at(0));
        lost.beat_failed(Fate::Unknown);
        assert!(longest_patience(&mut lost, Fate::NotSent) <= lease(PERIOD) / 2);
        let mut held = Work::<Sound>::new(4);
        held.claim_with_beat(at(0));
        held.beat_answered(at(0), true, took(1, false));
        assert!(longest_patience(&mut held, Fate::Unknown) <= lease(PERIOD) / 2);
        // Where nothing is at stake a slow database is given its time.
        let mut nothing = Work::<Sound>::new(4);
        nothing.claim_with_beat(at(0));
        nothing.beat_answered(at(0), true, took(0, true));
        assert_eq!(longest_patience(&mut nothing, Fate::NotSent), PATIENCE_MAX);
    }

    #[test]
    fn no_more_is_asked_for_than_there_are_places_whatever_is_on_its_way() {
        let mut work = Work::<Sound>::new(4);
        work.claim_with_beat(at(0));
        work.beat_answered(at(0), true, took(1, true));
        let claim = WorkStatement::Claim(Claim { token: Token(2), limit: 3 });
        assert_eq!(work.due(at(0), PERIOD), Act::Send(claim));
        work.sent(at(0), RequestId(1), claim, PERIOD);
        assert_eq!(work.claim_with_beat(at(0)), None, "all places are held or asked for");
        work.ended(1);
        let one = Claim { token: Token(3), limit: 1 };
        assert_eq!(work.claim_with_beat(at(0)), Some(one), "the one that became free");
        assert!(work.answered(at(0), RequestId(1), took(3, false)));
        work.beat_answered(at(0), true, took(1, false));
        assert_eq!(work.held(), 4);
    }

    #[test]
    fn a_claim_that_was_never_sent_needs_no_recovery() {
        let mut work = Work::<Sound>::new(4);
        work.claim_with_beat(at(0));
        work.beat_failed(Fate::NotSent);
        assert_eq!(work.claim_with_beat(at(0)), Some(Claim { token: Token(2), limit: 4 }));
    }

    #[test]
    fn the_lease_is_renewed_only_while_jobs_are_held() {
        let mut work = Work::<Sound>::new(4);
        assert_eq!(work.deadline(at(0), PERIOD), None);
        work.claim_with_beat(at(0));
        work.beat_answered(at(0), true, took(1, false));
        work.checked_in(at(1_000));
        let (when, reason) = work.deadline(at(1_000), PERIOD).unwrap();
        assert_eq!((when, reason), (at(1_000) + renew_every(PERIOD), Reason::Renew));
        assert_eq!(work.due(when, PERIOD), Act::Send(WorkStatement::Renew));
        work.ended(1);
        assert_eq!(work.deadline(at(1_000), PERIOD), None);
    }

    #[test]
    fn nothing_is_claimed_for_a_target_that_is_away_or_by_a_node_that_leaves() {
        let mut work = Work::<Sound>::new(4);
        work.target(false);
        assert_eq!(work.claim_with_beat(at(0)), None);
        work.target(true);
        work.stop();
        assert_eq!(work.claim_with_beat(at(0)), None);
    }
}
