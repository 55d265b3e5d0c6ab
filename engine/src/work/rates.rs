//! Decides when queues that give out jobs at a rate are asked for the next: which of the times that were told are kept,
//! and which have come.

use crate::units::LocalInstant;

/// The next times at which queues give out jobs, the earliest first: of several queues at most as many as there are places, since
/// whoever asks for the first is told of the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Rates([Option<LocalInstant>; 4]);

impl Rates {
    pub(super) fn first(&self) -> Option<LocalInstant> {
        self.0[0]
    }

    /// One more; of too many the latest is forgotten.
    pub(super) fn add(&mut self, at: LocalInstant) {
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
    pub(super) fn take_until(&mut self, now: LocalInstant) -> Option<LocalInstant> {
        let come = self.0.iter().flatten().take_while(|at| **at <= now).count();
        let last = come.checked_sub(1).and_then(|last| self.0[last]);
        self.0.rotate_left(come);
        let left = self.0.len() - come;
        self.0[left..].fill(None);
        last
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::super::tests::{PERIOD, at, took};
    use super::super::{Act, Took, Work};
    use super::*;
    use crate::io::{Claim, Fate, Kept, Reason, RequestId, WorkStatement};
    use crate::sabotage::Sound;
    use crate::units::Token;

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
}
