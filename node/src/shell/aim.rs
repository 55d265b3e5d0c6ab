//! Decides when people are told that a node's beats arrive too far from their boundaries: its road to the database, or
//! its machine, is worse than the period allows.

use std::collections::VecDeque;

use turnwise_engine::{Note, Period};

/// So many of the last beats are looked at.
const BEATS: usize = 100;
/// More of them than this arrive too far away: the 99th percentile does.
const TOO_MANY: usize = 1;
/// Before there are so many, nothing is said.
const ENOUGH: usize = 20;

/// How far the last beats were from their boundaries.
#[derive(Debug, Default)]
pub(crate) struct Aim {
    /// Of each beat, whether it was too far away; the newest last.
    wide: VecDeque<bool>,
    told: bool,
}

/// What is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// So many of the last so many beats were more than a quarter of a period away.
    Wide { wide: usize, of: usize },
    /// None of the last hundred was.
    Mended,
}

impl Aim {
    /// A note of the engine's; what is to be told because of it.
    pub(crate) fn noted(&mut self, note: &Note, period: Period) -> Option<Verdict> {
        let Note::Beat { arrival_error: Some(error), .. } = note else { return None };
        if self.wide.len() == BEATS {
            self.wide.pop_front();
        }
        self.wide.push_back(error.unsigned_abs() > period.as_nanos() as u64 / 4);
        let (wide, of) = (self.wide.iter().filter(|wide| **wide).count(), self.wide.len());
        match self.told {
            false if of >= ENOUGH && wide > TOO_MANY => {
                self.told = true;
                Some(Verdict::Wide { wide, of })
            }
            true if of == BEATS && wide == 0 => {
                self.told = false;
                Some(Verdict::Mended)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use turnwise_engine::Slot;

    use super::*;

    fn told(aim: &mut Aim, error: i64) -> Option<Verdict> {
        let note =
            Note::Beat { slot: Slot(1), accepted: true, arrival_error: Some(error), claimed: 0 };
        aim.noted(&note, Period::DEFAULT)
    }

    #[test]
    fn beats_far_from_their_boundaries_are_told_of_once_and_when_they_are_mended() {
        let mut aim = Aim::default();
        let (near, early) = (240_000_000, -260_000_000);
        for _ in 0..ENOUGH {
            assert_eq!(told(&mut aim, near), None);
        }
        assert_eq!(told(&mut aim, early), None, "one in a hundred may");
        assert_eq!(told(&mut aim, early), Some(Verdict::Wide { wide: 2, of: ENOUGH + 2 }));
        assert_eq!(told(&mut aim, early), None, "it was told");
        for _ in 1..BEATS {
            assert_eq!(told(&mut aim, near), None);
        }
        assert_eq!(told(&mut aim, near), Some(Verdict::Mended));
        assert_eq!(told(&mut aim, near), None);
    }

    #[test]
    fn a_farm_that_has_just_begun_is_not_judged() {
        let mut aim = Aim::default();
        for _ in 1..ENOUGH {
            assert_eq!(told(&mut aim, 400_000_000), None);
        }
        assert!(told(&mut aim, 0).is_some());
    }
}
