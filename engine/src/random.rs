//! Decides nothing: the engine's only source of chance, a seeded generator of a pinned kind.

use core::hash::{Hash, Hasher};

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// PCG XSL-RR 128/64 (MCG): the same numbers for the same seed on every build and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Random(Pcg64Mcg);

impl Hash for Random {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The next two outputs tell the state apart as well as any hash would.
        let mut next = self.0.clone();
        (next.next_u64(), next.next_u64()).hash(state);
    }
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Pcg64Mcg::seed_from_u64(seed))
    }

    /// A number from 0 to `bound - 1`; 0 when `bound` is not positive.
    pub(crate) fn below(&mut self, bound: i64) -> i64 {
        if bound <= 0 {
            return 0;
        }
        // The bias of the remainder is below 2^-20 for every bound in use (under 2^44 ns).
        (self.0.next_u64() % bound.unsigned_abs()) as i64
    }
}
