//! Decides what one guess at the road makes of the exchanges: the law of the queues, learnt, and under it one belief
//! for each way in which the clock may wander.

use super::filter::Belief;
use super::law::{Law, least_scale};
use super::spread::Spread;
use super::start::START;

/// What the beliefs suppose of the clock: how its rate wanders, the standard deviation of its change over a
/// second in ns/s. From a good oscillator in a steady room to a poor one in the sun.
pub(super) const WANDERS: [f64; 4] = [1.0, 3.0, 9.0, 27.0];
/// A belief that is this far behind the best, in logarithms of its likelihood, falls no further: the weather of
/// a clock may change.
const DOUBT: f64 = 5.0;
/// Each way by itself wanders by this share of the queues' scale from one exchange to the next.
const STRAY: f64 = 0.002;
/// Until its law is learnt, also by this share over the exchanges so far.
const YOUTH: f64 = 0.7;
/// The law of the queues is learnt over so many exchanges.
const LEARN_OVER: f64 = 300.0;
/// The tail's share lies between these.
const TAIL: (f64, f64) = (0.005, 0.08);
/// A commit is no guess of its own unless it is this many times as long as the queues' scale.
const COMMIT_LEAST: f64 = 4.0;
/// The scale may differ by this factor from what the spread of the samples says.
const SCALE_TRUSTED: f64 = 1.3;

/// One guess at the road: with a hidden commit on the way back, or without.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guess {
    /// The scale of the queues on both ways, in nanoseconds.
    pub(super) scale: f64,
    /// The mean of the commit, in nanoseconds; 0 for the guess that there is none.
    pub(super) commit: f64,
    /// The share of the delays that are not usual.
    pub(super) tail: f64,
    /// Exchanges so far, up to [`LEARN_OVER`].
    pub(super) count: f64,
    /// Exchanges so far.
    pub(super) age: f64,
    /// Whether the commit is learnt next, and not the scale.
    pub(super) commit_next: bool,
    /// How late the samples of each leg are, against the best belief.
    pub(super) spread: [Spread; 2],
    /// One for each of [`WANDERS`].
    pub(super) beliefs: [Belief; WANDERS.len()],
    /// The one that is believed most.
    pub(super) best: usize,
}

impl Guess {
    pub(super) const NONE: Self = Self {
        scale: 0.0,
        commit: 0.0,
        tail: 0.0,
        count: 0.0,
        age: 0.0,
        commit_next: false,
        spread: [Spread::NONE; 2],
        beliefs: [Belief::NONE; WANDERS.len()],
        best: 0,
    };

    pub(super) fn new(scale: f64, commit: f64, grain: f64, belief: Belief, weight: f64) -> Self {
        let waits = Spread::of_waits(scale, grain);
        let back = if commit > 0.0 { Spread::of_one_wait(commit, grain) } else { waits };
        Self {
            scale,
            commit,
            tail: 0.03,
            count: START as f64,
            age: START as f64,
            commit_next: false,
            spread: [waits, back],
            beliefs: [Belief { weight, ..belief }; WANDERS.len()],
            best: 1,
        }
    }

    /// The laws of the way there and of the way back, with another scale and commit.
    fn laws(&self, scale: f64, commit: f64) -> [Law; 2] {
        [0.0, commit].map(|commit| Law { scale, commit, tail: self.tail })
    }

    /// The logarithm of how likely this guess is.
    pub(super) fn weight(&self) -> f64 {
        self.beliefs[self.best].weight
    }

    /// Whether the best belief is one.
    pub(super) fn is_sound(&self) -> bool {
        self.beliefs[self.best].is_sound()
    }

    /// Time passes, and all counts from another base.
    pub(super) fn advance(&mut self, seconds: f64, by: f64) {
        // While the law is young, what was learnt by it is uncertain too.
        self.age += 1.0;
        let stray = [self.scale, self.scale + self.commit / 10.0]
            .map(|young| self.scale * STRAY + young * YOUTH / self.age);
        for (belief, wander) in self.beliefs.iter_mut().zip(WANDERS) {
            belief.advance(seconds, wander, stray);
            belief.rebase(by);
        }
    }

    /// See an exchange. A guess that is far behind follows it with its best belief alone.
    pub(super) fn observe(&mut self, there: f64, back: f64, grain: f64, behind: bool) {
        let laws = self.laws(self.scale, self.commit);
        if behind {
            let mut belief = self.beliefs[self.best];
            belief.observe(there, back, grain, &laws);
            self.beliefs = [belief; WANDERS.len()];
            return;
        }
        for belief in &mut self.beliefs {
            belief.observe(there, back, grain, &laws);
        }
        for index in 0..WANDERS.len() {
            if self.beliefs[index].weight > self.beliefs[self.best].weight {
                self.best = index;
            }
        }
        let best = self.beliefs[self.best];
        for belief in &mut self.beliefs {
            belief.weight = belief.weight.max(best.weight - DOUBT);
            if belief.is_lost(&best) || !belief.is_sound() {
                *belief = Belief { weight: belief.weight, ..best };
            }
        }
    }

    /// See how late the legs are, whatever the law.
    pub(super) fn spread(&mut self, there: f64, back: f64, grain: f64) {
        let best = &self.beliefs[self.best];
        let late = [there - best.u, best.d - back];
        for (spread, late) in self.spread.iter_mut().zip(late) {
            spread.add(late, grain);
        }
    }

    /// Learn the law: a step up the likelihood's slope, by one of its numbers at a time, as long as the
    /// information that the exchanges so far hold of it (a stochastic Newton step).
    pub(super) fn learn(&mut self, there: f64, back: f64, grain: f64) {
        const NUDGE: f64 = 1.05;
        self.count = (self.count + 1.0).min(LEARN_OVER);
        let rate = 1.0 / self.count;
        let belief = self.beliefs[self.best];
        let now = belief.expect(there, back, grain, &self.laws(self.scale, self.commit));
        let commit_next = self.commit > 0.0 && self.commit_next;
        self.commit_next = !self.commit_next;
        let other = match commit_next {
            true => self.laws(self.scale, self.commit * NUDGE),
            false => self.laws(self.scale * NUDGE, self.commit),
        };
        let other = belief.expect(there, back, grain, &other);
        let gain = (other[0].density / now[0].density) * (other[1].density / now[1].density);
        let slope = (libm::log(gain) / (NUDGE - 1.0)).clamp(-8.0, 8.0);
        // The longer for what is told by one leg only, and for what is moved every other time.
        if self.commit <= 0.0 {
            self.scale *= 1.0 + (0.75 * rate * slope).clamp(-0.3, 0.3);
        } else if commit_next {
            self.commit *= 1.0 + (5.0 * rate * slope).clamp(-0.3, 0.3);
        } else {
            self.scale *= 1.0 + (2.0 * rate * slope).clamp(-0.3, 0.3);
        }
        self.tail += rate * (1.0 - self.tail - f64::midpoint(now[0].usual, now[1].usual));
        self.tail = self.tail.clamp(TAIL.0, TAIL.1);
        self.keep_in_range(grain);
    }

    /// A scale that explains most samples as accidents would never be left: it must fit their spread.
    fn keep_in_range(&mut self, grain: f64) {
        let least = least_scale(grain);
        let [there, back] = self.spread.map(|spread| spread.scale_of_waits(grain));
        let (low, high) = match self.commit > 0.0 {
            true => (there.0, there.1),
            false => (there.0.min(back.0), there.1.max(back.1)),
        };
        let trusted = SCALE_TRUSTED + 8.0 / self.count;
        self.scale = self.scale.clamp((low / trusted).max(least), (high * trusted).max(least));
        if self.commit > 0.0 {
            let fits = self.spread[1].scale_of_one_wait(grain);
            let commit = self.commit.clamp(fits.0 / trusted, fits.1 * trusted);
            self.commit = commit.max(COMMIT_LEAST * self.scale);
        }
    }
}
