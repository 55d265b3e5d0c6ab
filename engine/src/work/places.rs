//! Decides whether anything may be claimed, and how much: the places that are neither taken nor asked for.

use super::{InFlight, Work};
use crate::io::{Claim, WorkStatement};
use crate::sabotage::{Bug, Sabotage};
use crate::units::{LocalInstant, Token};

impl<S: Sabotage> Work<S> {
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

    pub(super) fn next_claim(&mut self) -> Option<Claim> {
        let limit = self.free();
        if !self.may_claim() || limit == 0 {
            return None;
        }
        if !S::plants(Bug::TokenIsReused) || self.token == Token(0) {
            self.token = Token(self.token.0 + 1);
        }
        Some(Claim { token: self.token, limit })
    }

    pub(super) fn may_claim(&self) -> bool {
        if self.reconcile {
            return false;
        }
        let reachable = self.target_reachable || S::plants(Bug::ClaimsWithoutTarget);
        !self.stopped && reachable && self.lost_claims.is_empty()
    }

    /// Places that are neither taken nor asked for, as far as they may be asked for at once.
    pub(super) fn free(&self) -> u32 {
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
    use super::super::Act;
    use super::super::tests::{PERIOD, at, took};
    use super::*;
    use crate::io::RequestId;
    use crate::sabotage::Sound;

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
    fn nothing_is_claimed_for_a_target_that_is_away_or_by_a_node_that_leaves() {
        let mut work = Work::<Sound>::new(4);
        work.target(false);
        assert_eq!(work.claim_with_beat(at(0)), None);
        work.target(true);
        work.stop();
        assert_eq!(work.claim_with_beat(at(0)), None);
    }
}
