//! Decides which statement is wanted next, and from when on: first a reconciliation, then what was lost, then the
//! backlog; last the renewal of the lease and the claim for a rate, whichever is due first.

use super::failure::RECOVERIES_MAX;
use super::{Act, Work};
use crate::io::{Claim, Reason, WorkStatement};
use crate::lease::renew_every;
use crate::sabotage::{Bug, Sabotage};
use crate::units::{LocalInstant, Period};

impl<S: Sabotage> Work<S> {
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
}

#[cfg(test)]
mod tests {
    use super::super::tests::{PERIOD, at, took};
    use super::*;
    use crate::io::{Fate, RequestId};
    use crate::sabotage::Sound;
    use crate::units::Token;

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
}
