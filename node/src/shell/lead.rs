//! Decides how much earlier than planned the engine is woken for a beat: so that its statement is stamped at the instant
//! planned, and not later by what waking up, asking the engine and writing the statement take.
//!
//! The node wakes earlier by what it lately took to have the statement written, and then holds it until the instant. Only
//! the hold is spun, so that a wake-up that is late costs nothing but a shorter hold. The engine knows nothing of it: it
//! is told the instant that it asked for.

use std::time::Duration;

use turnwise_engine::{LocalInstant, RequestId};

/// So many of the last beats tell what it takes: an odd number, so that one of them is the median.
const BEATS: usize = 9;
/// The most: what takes longer is no habit, and what is ready too early spins.
const LEAD_MAX: Duration = Duration::from_micros(500);

/// What it took lately from waking to a statement that could go.
#[derive(Debug, Default)]
pub(crate) struct Lead {
    /// Of the last beats, in nanoseconds; the oldest is overwritten.
    took: Vec<u64>,
    beats: usize,
    /// The beat that the engine is woken for and has not asked for yet.
    woken: Option<Woken>,
    /// The beat that it asked for then.
    sending: Option<(RequestId, Woken)>,
}

#[derive(Clone, Copy, Debug)]
struct Woken {
    /// When it is to be sent.
    beat: LocalInstant,
    /// When it was to be woken for that.
    at: LocalInstant,
}

impl Lead {
    /// When to wake for a beat that is planned for `at`: early enough for nearly all of the last ones. One in nine may be
    /// an accident.
    pub(crate) fn before(&self, at: LocalInstant) -> LocalInstant {
        let mut took = self.took.clone();
        took.sort_unstable();
        let accidents = usize::from(took.len() == BEATS);
        let rank = took.len().saturating_sub(1 + accidents);
        let lead = Duration::from_nanos(took.get(rank).copied().unwrap_or(0)).min(LEAD_MAX);
        at.offset(-i64::try_from(lead.as_nanos()).unwrap_or(0))
    }

    /// The engine is woken for the beat that is planned for `at`.
    pub(crate) fn woken(&mut self, at: LocalInstant) {
        self.woken = Some(Woken { beat: at, at: self.before(at) });
    }

    /// It asked for this statement; until when it is to be held. None: it was not woken for it.
    pub(crate) fn sends(&mut self, request: RequestId) -> Option<LocalInstant> {
        let woken = self.woken.take()?;
        self.sending = Some((request, woken));
        Some(woken.beat)
    }

    /// It asked for all that it wanted: what it asks for later, it was not woken for.
    pub(crate) fn is_over(&mut self) {
        self.woken = None;
    }

    /// That statement could go at this instant.
    pub(crate) fn ready(&mut self, request: RequestId, at: LocalInstant) {
        let Some((_, woken)) = self.sending.take_if(|(sending, _)| *sending == request) else {
            return;
        };
        let took = u64::try_from(at.since(woken.at).as_nanos()).unwrap_or(u64::MAX);
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

    /// A beat whose statement is ready so long after its wake-up.
    fn beat(lead: &mut Lead, number: u64, took: u64) {
        let planned = at(number * 1_000_000);
        lead.woken(planned);
        let woken = lead.before(planned);
        assert_eq!(lead.sends(RequestId(number)), Some(planned), "held until then");
        lead.is_over();
        lead.ready(RequestId(number), woken + Duration::from_micros(took));
    }

    #[test]
    fn a_node_wakes_early_enough_for_nearly_all_of_its_last_beats() {
        let mut lead = Lead::default();
        assert_eq!(lead.before(at(1_000)), at(1_000), "nothing is known");
        beat(&mut lead, 1, 60);
        beat(&mut lead, 2, 40);
        assert_eq!(lead.before(at(1_000)), at(940));
        for number in 3..11 {
            beat(&mut lead, number, 30);
        }
        beat(&mut lead, 11, 9_000);
        assert_eq!(lead.before(at(1_000)), at(970), "an accident is none of the habits");
        beat(&mut lead, 12, 9_000);
        assert_eq!(lead.before(at(1_000)), at(500), "there is a most");
    }

    #[test]
    fn only_a_beat_that_the_engine_was_woken_for_counts() {
        let mut lead = Lead::default();
        // It asked for nothing when it was woken.
        lead.woken(at(1_000));
        lead.is_over();
        assert_eq!(lead.sends(RequestId(1)), None);
        lead.ready(RequestId(1), at(1_400));
        assert_eq!(lead.before(at(1_000)), at(1_000));
        // Another one's answer.
        lead.woken(at(2_000));
        lead.sends(RequestId(2));
        lead.ready(RequestId(1), at(2_400));
        assert_eq!(lead.before(at(1_000)), at(1_000));
        lead.ready(RequestId(2), at(2_030));
        assert_eq!(lead.before(at(1_000)), at(970));
    }
}
