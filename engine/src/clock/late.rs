//! Decides whether late exchanges are weather or a longer way.

use super::spread::Spread;

/// So many exchanges in a row that are all late on one leg are a longer way; fewer are weather.
const MOST: u8 = 12;
/// After so many the law learns nothing from them.
const SOME: u8 = 4;

/// Late exchanges in a row, on one leg.
#[derive(Clone, Copy, Debug)]
pub(super) struct Late {
    pub(super) count: u8,
    /// How late the last three were, the newest first, and the least late of all.
    pub(super) last: [f64; 3],
    pub(super) least: f64,
}

impl Late {
    pub(super) const NONE: Self = Self { count: 0, last: [0.0; 3], least: 0.0 };

    /// One more late sample. Once there are too many to be weather, the least late of them.
    pub(super) fn add(&mut self, late: f64) -> Option<f64> {
        self.least = if self.count == 0 { late } else { late.min(self.least) };
        let [first, second, _] = self.last;
        self.last = [late, first, second];
        self.count += 1;
        (self.count >= MOST).then_some(self.least)
    }

    /// How late the next sample will be, as likely as not, where it will not be as usual.
    pub(super) fn beyond(&self, spread: &Spread) -> Option<f64> {
        let [a, b, c] = self.last;
        match self.count {
            0 | 1 => None,
            2 | 3 if a.min(b) < spread.centre + 6.0 * spread.width => None,
            2 => Some(a.min(b)),
            _ => Some(a.min(b).max(a.max(b).min(c))),
        }
    }

    /// Whether something may be going on, of which the law should not be learnt.
    pub(super) fn is_some(&self) -> bool {
        self.count >= SOME
    }
}
