//! Decides when to claim, how much, and when to renew the lease. Knows nothing of turns.
//!
//! - `precedence`: which statement is wanted next, and from when on: the renewal of the lease among them;
//! - `places`: whether anything may be claimed, and how much;
//! - `backlog`: whether more jobs wait for places that are free;
//! - `rates`: when queues that give out jobs at a rate give out the next;
//! - `asked`: what a claim under way asks about, and which of two answers has the last word;
//! - `failure`: how long an answer is waited for, when the next try is, and what becomes of a claim without an answer.
//!
//! Here stand what is known, and what an answer does to it.

mod asked;
mod backlog;
mod failure;
mod places;
mod precedence;
mod rates;

use alloc::collections::VecDeque;
use core::marker::PhantomData;

use self::asked::Asked;
use self::failure::LostClaim;
use self::rates::Rates;
use crate::io::{Claim, Kept, RequestId, WorkStatement};
use crate::sabotage::{Bug, Sabotage};
use crate::units::{LocalInstant, Token};

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

/// What a claim came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Took {
    pub(crate) claimed: u32,
    /// There may be more, though fewer were claimed than asked for.
    pub(crate) more: bool,
    pub(crate) kept: Kept,
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
}

/// What the tests of the parts share.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Period;

    pub(super) fn at(millis: u64) -> LocalInstant {
        LocalInstant::from_nanos(millis * 1_000_000)
    }

    pub(super) const PERIOD: Period = Period::DEFAULT;

    pub(super) fn took(claimed: u32, more: bool) -> Took {
        Took { claimed, more, kept: Kept::default() }
    }
}
