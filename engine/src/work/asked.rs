//! Decides what a claim under way asks about, what of it is asked for again should the claim come to nothing, and which
//! of two answers has the last word.

use super::{InFlight, Work};
use crate::io::WorkStatement;
use crate::sabotage::{Bug, Sabotage};
use crate::units::LocalInstant;

/// What a claim that is under way asks about, beside whatever is due: to be asked for again should it come to nothing.
/// Two may be under way at once, one with the beat and one beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    /// A job had ended.
    ended: bool,
    /// A queue gave out its next job at this time.
    rate_at: Option<LocalInstant>,
    /// Another answer has told of more since it was sent. Its own may be the older one, whichever was sent first,
    /// and takes none of that back.
    pub(super) overtaken: bool,
}

impl<S: Sabotage> Work<S> {
    /// What a claim that is sent now asks about.
    pub(super) fn take_asked(&mut self, now: LocalInstant) -> Asked {
        Asked {
            ended: core::mem::take(&mut self.ended_since),
            rate_at: self.rates.take_until(now),
            overtaken: false,
        }
    }

    /// What is known now is kept from the answers of the claims that are under way.
    pub(super) fn overtake(&mut self) {
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
    pub(super) fn ask_again(&mut self, asked: Asked) {
        self.ended_since |= asked.ended;
        // Another answer may have told since that an end makes room.
        self.backlog |= asked.ended && self.until_one_ends;
        if let Some(at) = asked.rate_at {
            self.rates.add(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::super::tests::{PERIOD, at, took};
    use super::super::{Act, Took};
    use super::*;
    use crate::io::{Claim, Fate, Kept, RequestId};
    use crate::sabotage::Sound;
    use crate::units::Token;

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
}
