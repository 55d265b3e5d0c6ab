//! Decides whether more jobs wait for places that are free, so that the next claim leaves at once: what an answer says
//! of it, and the end of a job.

use super::asked::Asked;
use super::{Took, Work};
use crate::io::Claim;
use crate::sabotage::{Bug, Sabotage};
use crate::units::LocalInstant;

impl<S: Sabotage> Work<S> {
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

    pub(super) fn took(&mut self, now: LocalInstant, claim: Claim, asked: Asked, took: Took) {
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
}

#[cfg(test)]
mod tests {
    use super::super::Act;
    use super::super::tests::{PERIOD, at, took};
    use super::*;
    use crate::io::{Kept, RequestId, WorkStatement};
    use crate::sabotage::Sound;
    use crate::units::Token;

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
}
