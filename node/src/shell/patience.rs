//! Decides how long something is waited for that may have been lost for good: briefly, most times, since a new try is
//! heard of as soon as the road is open again; and longer every fourth time, for a database that is slow and answers.

use std::time::Duration;

/// Every how many tries one is given more time.
const EVERY: u32 = 4;

/// How long the tries of one thing are waited for.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    least: Duration,
    most: Duration,
    /// Tries that took too long, since one did not.
    spent: u32,
}

impl Patience {
    /// `least` for most tries; twice as long for the fourth that takes too long in a row, four times for the eighth,
    /// and so on, up to `most`.
    pub(crate) fn new(least: Duration, most: Duration) -> Self {
        Self { least, most, spent: 0 }
    }

    /// For the next try.
    pub(crate) fn now(&self) -> Duration {
        if self.spent % EVERY < EVERY - 1 {
            return self.least;
        }
        let doubled = self.spent / EVERY + 1;
        self.least.saturating_mul(1 << doubled.min(16)).min(self.most)
    }

    /// A try took too long.
    pub(crate) fn spent(&mut self) {
        self.spent = self.spent.saturating_add(1);
    }

    /// A try did not.
    pub(crate) fn rewarded(&mut self) {
        self.spent = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fourth_try_is_given_more_time() {
        let seconds = Duration::from_secs;
        let mut patience = Patience::new(seconds(2), seconds(30));
        let mut tries = Vec::new();
        for _ in 0..20 {
            tries.push(patience.now().as_secs());
            patience.spent();
        }
        assert_eq!(tries, [2, 2, 2, 4, 2, 2, 2, 8, 2, 2, 2, 16, 2, 2, 2, 30, 2, 2, 2, 30]);
        patience.rewarded();
        assert_eq!(patience.now(), seconds(2));
    }

    #[test]
    fn it_never_overflows() {
        let mut patience = Patience::new(Duration::from_secs(1), Duration::from_secs(10));
        patience.spent = u32::MAX - 1;
        patience.spent();
        patience.spent();
        assert!(patience.now() <= Duration::from_secs(10));
    }
}
