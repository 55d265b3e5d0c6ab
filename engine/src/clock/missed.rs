//! Decides whether what was foretold is wrong, and not only the road uneven.

/// So many foretold transits in a row are compared.
const OVER: usize = 8;

/// By how much the last exchanges missed what had been foretold of them, in nanoseconds: late is positive.
///
/// However wrong the beliefs are, this is what a beat suffers from. Queues miss now to this side and now to that,
/// and never twice by the same; a wrong belief misses again and again by about the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Missed {
    last: [i64; OVER],
}

impl Missed {
    pub(super) const NONE: Self = Self { last: [0; OVER] };

    /// One more.
    pub(super) fn add(&mut self, by: i64) {
        self.last.rotate_left(1);
        self.last[OVER - 1] = by;
    }

    /// Whether all were early or all late, by more than stamps of this resolution explain, and all alike: the
    /// most by no more than half as much again as the least. Of queues that happens once in millions of exchanges.
    pub(super) fn is_no_chance(&self, resolution: i64) -> bool {
        let least = self.last.iter().copied().min().unwrap_or(0);
        let most = self.last.iter().copied().max().unwrap_or(0);
        let size = least.max(most.saturating_neg()).saturating_sub(resolution);
        size > 0 && most.saturating_sub(least) <= size / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_chance(missed: [i64; OVER], resolution: i64) -> bool {
        let mut all = Missed::NONE;
        missed.into_iter().for_each(|by| all.add(by));
        all.is_no_chance(resolution)
    }

    #[test]
    fn missing_by_the_same_again_and_again_is_no_chance() {
        assert!(no_chance([34, 32, 31, 30, 29, 28, 27, 26], 1));
        assert!(no_chance([-34, -32, -31, -30, -29, -28, -27, -26], 1));
    }

    #[test]
    fn queues_and_coarse_stamps_are_chance() {
        assert!(!no_chance([34, 12, 31, 50, 29, 28, 27, 26], 1), "not alike");
        assert!(!no_chance([34, 32, 31, -30, 29, 28, 27, 26], 1), "to both sides");
        assert!(!no_chance([-10; OVER], 10), "the resolution");
        assert!(!no_chance([0; OVER], 0), "nothing");
    }
}
