//! Decides how long the answer to a statement is waited for, when the next try is, and what becomes of a claim whose
//! answer was lost.

use core::time::Duration;

use super::asked::Asked;
use super::{InFlight, Work};
use crate::io::{Claim, Fate, RequestId, WorkStatement};
use crate::lease::{lease, renew_every};
use crate::sabotage::{Bug, Sabotage};
use crate::units::{LocalInstant, Period};

/// A statement on the jobs is given up when the next renewal would be due, and after each failure in a row
/// twice as late, up to this; while jobs are or may be held, up to half a lease, since behind it no
/// renewal is sent.
const PATIENCE_MAX: Duration = Duration::from_secs(5);
/// The first wait after a statement that failed; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(100);
/// A claim that could not be recovered so many times is released: its jobs cannot be received.
pub(super) const RECOVERIES_MAX: u32 = 3;
/// The longest wait between tries; a quarter of a lease while jobs are or may be held, if that is less. After an outage of two slots a living node has half a period to renew its
/// lease, at the usual period of a second.
const RETRY_MAX: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct LostClaim {
    pub(super) claim: Claim,
    /// Recoveries that were sent and not answered.
    pub(super) failures: u32,
}

impl LostClaim {
    fn of(claim: Claim) -> Self {
        Self { claim, failures: 0 }
    }
}

impl<S: Sabotage> Work<S> {
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

    /// Whether jobs are, or may be, this node's, so that its lease matters.
    fn may_hold(&self) -> bool {
        self.held > 0 || !self.lost_claims.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Act;
    use super::super::tests::{PERIOD, at, took};
    use super::*;
    use crate::sabotage::Sound;
    use crate::units::Token;

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
    fn a_claim_that_was_never_sent_needs_no_recovery() {
        let mut work = Work::<Sound>::new(4);
        work.claim_with_beat(at(0));
        work.beat_failed(Fate::NotSent);
        assert_eq!(work.claim_with_beat(at(0)), Some(Claim { token: Token(2), limit: 4 }));
    }
}
