//! Decides how long a message is on its way, whether it is lost, and whether it arrives twice.

use crate::random::Stream;
use crate::scenario::{self, Road};

/// A retransmission takes at least so long.
const RETRANSMISSION: u64 = 200_000_000;

/// One way between a node and the database.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) road: Road,
    /// Queues are so many times as long as usual.
    pub(crate) crowd: u64,
    /// Nothing passes before this.
    pub(crate) cut_until: u64,
    /// What enters before this arrives after it.
    pub(crate) held_until: u64,
    random: Stream,
}

/// The two ways between a node and the database.
#[derive(Clone, Debug)]
pub(crate) struct Roads {
    pub(crate) there: Way,
    pub(crate) back: Way,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passage {
    /// When it arrives; none: never.
    pub(crate) arrives: Option<u64>,
    /// When it arrives again.
    pub(crate) again: Option<u64>,
    /// What queues and retransmissions added.
    pub(crate) extra: u64,
}

impl Way {
    pub(crate) fn new(road: Road, seed: u64, name: &str) -> Self {
        Self { road, crowd: 1, cut_until: 0, held_until: 0, random: Stream::new(seed, name) }
    }

    /// A message enters at `now`. Each takes the same number of draws, whatever becomes of it.
    pub(crate) fn pass(&mut self, now: u64) -> Passage {
        let random = &mut self.random;
        let Road { base, spread, tail_ppm, spike_ppm, loss_ppm, duplicate_ppm } = self.road;
        let usual = -0.5 * (random.ln_uniform() + random.ln_uniform());
        let (tail, deep) = (random.below(1_000_000), random.uniform());
        let (spike, loss, twice) =
            (random.below(1_000_000), random.below(1_000_000), random.below(1_000_000));
        let mut queue = usual;
        if tail < u64::from(tail_ppm) {
            // A Lomax of shape 3/2, ten times as wide.
            let root = libm::cbrt(deep);
            queue = 10.0 * (1.0 / (root * root) - 1.0);
        }
        // No queue is longer than ten seconds.
        let queued = (queue * spread.0 as f64) as u64;
        let mut extra = queued.saturating_mul(self.crowd).min(10_000_000_000);
        if spike < u64::from(spike_ppm) {
            extra += RETRANSMISSION + (usual * RETRANSMISSION as f64) as u64;
        }
        let lost = loss < u64::from(loss_ppm) || now < self.cut_until;
        let arrives = (now.max(self.held_until)) + base.0 + extra;
        let again = (twice < u64::from(duplicate_ppm)).then_some(arrives + extra + 1_000_000);
        Passage { arrives: (!lost).then_some(arrives), again, extra }
    }
}

impl Roads {
    pub(crate) fn new(plan: &scenario::Node, seed: u64, name: &str) -> Self {
        Self {
            there: Way::new(plan.there, seed, &format!("{name} there")),
            back: Way::new(plan.back, seed, &format!("{name} back")),
        }
    }

    pub(crate) fn each(&mut self) -> [&mut Way; 2] {
        [&mut self.there, &mut self.back]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Span;

    #[test]
    fn what_queues_add_is_as_long_on_average_as_it_says() {
        let road = Road { spread: Span(100_000), ..Road::default() };
        let mut way = Way::new(road, 4, "there");
        let sum: u64 = (0..100_000).map(|_| way.pass(0).extra).sum();
        let mean = sum / 100_000;
        assert!((98_000..102_000).contains(&mean), "{mean}");
    }

    #[test]
    fn a_cut_loses_and_a_hold_delays() {
        let mut way = Way::new(Road::default(), 4, "there");
        way.cut_until = 100;
        assert_eq!(way.pass(99).arrives, None);
        way.held_until = 5_000;
        assert!(way.pass(200).arrives.is_some_and(|at| at > 5_000 + way.road.base.0));
    }
}
