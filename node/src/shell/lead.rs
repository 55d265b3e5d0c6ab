//! Decides how much earlier than planned the engine is woken for a beat: by what it usually takes from there to the stamp
//! of its statement, so that the statement is sent at the instant planned and not that much later. The engine knows
//! nothing of it: it is told the instant that it asked for.

use std::time::Duration;

use turnwise_engine::{LocalInstant, RequestId};

/// So many of the last beats tell what it takes: an odd number, so that one of them is the median.
const BEATS: usize = 9;
/// The most: what takes longer is no habit, and what is woken too early spins.
const LEAD_MAX: Duration = Duration::from_micros(500);

/// What it took lately from waking to sending.
#[derive(Debug, Default)]
pub(crate) struct Lead {
    /// Of the last beats, in nanoseconds; the oldest is overwritten.
    took: Vec<u64>,
    beats: usize,
    /// When the engine was woken for a beat that it has not asked for yet.
    woken: Option<LocalInstant>,
    /// The beat that it asked for then.
    sending: Option<(RequestId, LocalInstant)>,
}

impl Lead {
    /// How much earlier to wake.
    pub(crate) fn now(&self) -> Duration {
        let mut took = self.took.clone();
        took.sort_unstable();
        let median = took.get(took.len() / 2).copied().unwrap_or(0);
        Duration::from_nanos(median).min(LEAD_MAX)
    }

    /// When to wake for a beat that is planned for `at`.
    pub(crate) fn before(&self, at: LocalInstant) -> LocalInstant {
        let lead = i64::try_from(self.now().as_nanos()).unwrap_or(0);
        at.offset(-lead)
    }

    /// The engine is woken for a beat.
    pub(crate) fn woken(&mut self, now: LocalInstant) {
        self.woken = Some(now);
    }

    /// It asked for this statement, which goes out at once.
    pub(crate) fn sends(&mut self, request: RequestId) {
        self.sending = self.woken.take().map(|woken| (request, woken));
    }

    /// It asked for all that it wanted: what it asks for later, it was not woken for.
    pub(crate) fn is_over(&mut self) {
        self.woken = None;
    }

    /// That statement was sent at this instant.
    pub(crate) fn sent(&mut self, request: RequestId, at: LocalInstant) {
        let Some((_, woken)) = self.sending.take_if(|(sending, _)| *sending == request) else {
            return;
        };
        let took = u64::try_from(at.since(woken).as_nanos()).unwrap_or(u64::MAX);
        match self.took.get_mut(self.beats % BEATS) {
            Some(oldest) => *oldest = took,
            None => self.took.push(took),
        }
        self.beats += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> LocalInstant {
        LocalInstant::from_nanos(micros * 1_000)
    }

    fn beat(lead: &mut Lead, number: u64, took: u64) {
        let woken = number * 1_000_000;
        lead.woken(at(woken));
        lead.sends(RequestId(number));
        lead.is_over();
        lead.sent(RequestId(number), at(woken + took));
    }

    #[test]
    fn a_node_wakes_earlier_by_the_median_of_its_last_beats() {
        let mut lead = Lead::default();
        assert_eq!(lead.before(at(1_000)), at(1_000), "nothing is known");
        for (number, took) in (1..).zip([40, 60, 9_000]) {
            beat(&mut lead, number, took);
        }
        assert_eq!(lead.before(at(1_000)), at(940));
        for number in 10..15 {
            beat(&mut lead, number, 20);
        }
        assert_eq!(lead.now(), Duration::from_micros(20), "what was long ago is forgotten");
        for number in 20..29 {
            beat(&mut lead, number, 9_000);
        }
        assert_eq!(lead.now(), LEAD_MAX);
    }

    #[test]
    fn only_a_beat_that_was_sent_as_the_engine_woke_counts() {
        let mut lead = Lead::default();
        // It asked for nothing when it was woken.
        lead.woken(at(1_000));
        lead.is_over();
        lead.sends(RequestId(1));
        lead.sent(RequestId(1), at(1_400));
        assert_eq!(lead.now(), Duration::ZERO);
        // Another one's answer.
        lead.woken(at(2_000));
        lead.sends(RequestId(2));
        lead.sent(RequestId(1), at(2_400));
        assert_eq!(lead.now(), Duration::ZERO);
        lead.sent(RequestId(2), at(2_030));
        assert_eq!(lead.now(), Duration::from_micros(30));
    }
}
