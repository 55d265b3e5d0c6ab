//! Decides the offset, its rate and the transit: a bank of filters that suppose different things of the road and
//! of the clock, and what is learnt of both. Proves nothing: what is certain is the interval's, in the parent
//! module.

use core::hash::{Hash, Hasher};

use super::Sample;
use super::filter::{Belief, Leg};
use super::guess::Guess;
use super::late::Late;
use super::law::least_scale;
use super::missed::Missed;
use super::spread::Spread;
use super::start::{
    RATE_FROM, START, WAITS_FOUR, bent_scale, first_rate, is_undecided, median_of, other_road,
};
use crate::units::LocalInstant;

/// A guess at the road that is this far behind the other, in logarithms of its likelihood, falls no further: the
/// road may change.
const DOUBT: f64 = 60.0;
/// After so many of them nothing fits any more (each step found is three, each exchange without takes one away).
const STRIKES_MOST: u8 = 8;

/// After a step the other leg is late by no more than so many times what is late at all.
const MORE: f64 = 10.0;

/// What the exchanges so far say.
#[derive(Clone, Debug)]
pub(super) struct Bank {
    /// The last ones; until the filters begin, from the front.
    recent: [Sample; START],
    seen: usize,
    /// What the beliefs' numbers are counted from.
    base: i64,
    last: LocalInstant,
    guesses: [Guess; 2],
    /// The guess that is believed most.
    lead: usize,
    late: [Late; 2],
    missed: Missed,
    /// Steps that were found lately: many mean that nothing fits any more.
    strikes: u8,
    /// A step is proven, of which nothing is seen yet.
    stepped: bool,
    line: Line,
}

/// The line that the next exchanges are foretold by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Line {
    at: LocalInstant,
    offset: i64,
    transit: i64,
    /// Nanoseconds in a thousand seconds.
    rate: i64,
}

impl Default for Bank {
    fn default() -> Self {
        Self {
            recent: [Sample::NONE; START],
            seen: 0,
            base: 0,
            last: LocalInstant::from_nanos(0),
            guesses: [Guess::NONE; 2],
            lead: 0,
            late: [Late::NONE; 2],
            missed: Missed::NONE,
            strikes: 0,
            stepped: false,
            line: Line { at: LocalInstant::from_nanos(0), offset: 0, transit: 0, rate: 0 },
        }
    }
}

impl Bank {
    /// A step is proven: the next exchange is the first after it. What is known of the road and of the rate stays.
    pub(super) fn stepped(&mut self) {
        if self.seen < START {
            self.seen = 0;
        } else {
            self.stepped = true;
        }
    }

    /// Learn from an exchange.
    pub(super) fn push(&mut self, sample: Sample) {
        if self.seen < START {
            self.begin(sample);
            return;
        }
        let missed = sample.transit.saturating_sub(self.transit(sample.sent).unwrap_or(0));
        self.missed.add(missed);
        self.recent.rotate_left(1);
        self.recent[START - 1] = sample;
        self.observe(&sample);
        if self.strikes >= STRIKES_MOST {
            // Nothing fits any more.
            self.begin_again(&[sample]);
        } else if self.missed.is_no_chance(sample.resolution) {
            // They agree with each other, and not with what is believed.
            let recent = self.recent;
            self.begin_again(&recent);
        } else {
            self.foretell();
        }
    }

    /// Forget all but the rate, and begin with these.
    fn begin_again(&mut self, samples: &[Sample]) {
        let rate = self.line.rate;
        *self = Self::default();
        self.line.rate = rate;
        for sample in samples {
            self.begin(*sample);
        }
    }

    pub(super) fn offset(&self, now: LocalInstant) -> Option<i64> {
        (self.seen > 0).then(|| self.line.offset.saturating_add(self.line.ahead(now)))
    }

    pub(super) fn transit(&self, now: LocalInstant) -> Option<i64> {
        (self.seen > 0).then(|| self.line.transit.saturating_add(self.line.ahead(now)))
    }

    /// One of the first exchanges: the offset is the middle of the one with the shortest round trip (RFC 5905,
    /// section 10), the transit is their median. With the last of them the filters begin; those of another road are
    /// left out.
    fn begin(&mut self, sample: Sample) {
        if self.seen > 0 && self.recent[self.seen - 1].is_apart_from(&sample) {
            self.seen = 0;
        }
        self.recent[self.seen] = sample;
        self.seen += 1;
        let other = other_road(&self.recent[..self.seen]);
        self.recent.rotate_left(other);
        self.seen -= other;
        let seen = &self.recent[..self.seen];
        let best = seen.iter().min_by_key(|sample| sample.delay()).copied().unwrap_or(sample);
        if self.seen >= RATE_FROM {
            let spread = median_of(seen, Sample::delay).saturating_sub(best.delay()) as f64;
            let scale = (spread / WAITS_FOUR).max(least_scale(sample.resolution as f64));
            self.line.rate = (first_rate(seen, best.delay(), scale).0 * 1e3) as i64;
        }
        self.line.at = sample.sent;
        let ahead = |sample: &Sample| -self.line.ahead(sample.sent);
        let middle = best.back.saturating_add(best.delay().saturating_add(best.resolution) / 2);
        let offset = middle.saturating_add(ahead(&best));
        let transit = median_of(seen, |sample| sample.transit.saturating_add(ahead(sample)));
        self.line = Line { offset, transit, ..self.line };
        if self.seen < START {
            return;
        }
        if is_undecided(&self.recent) {
            self.recent.rotate_left(1);
            self.seen -= 1;
        } else {
            self.begin_filters(best.delay());
        }
    }

    fn begin_filters(&mut self, shortest: i64) {
        let [oldest, ..] = self.recent;
        let grain = oldest.resolution as f64;
        let least = least_scale(grain);
        let spread = median_of(&self.recent, Sample::delay).saturating_sub(shortest) as f64;
        let spread = (spread - grain / 2.0).max(0.0);
        let scale = (spread / WAITS_FOUR).max(least);
        let bent = bent_scale(&self.recent, |s| s.transit).min(scale).max(least);
        let bent_back = bent_scale(&self.recent, |s| s.back);
        let (rate, rate_deviation) = first_rate(&self.recent, shortest, scale);
        self.base = oldest.transit;
        self.last = oldest.sent;
        let longer = oldest.delay().saturating_sub(shortest) as f64;
        let deviation = 4.0 * scale + grain + longer;
        let belief = Belief::new(
            grain / 2.0 - 1.5 * scale,
            oldest.back_at_sending(rate).saturating_sub(self.base) as f64
                + grain / 2.0
                + 1.5 * scale,
            deviation * deviation,
            rate,
            rate_deviation * rate_deviation,
        );
        self.guesses = [
            Guess::new(scale, 0.0, grain, belief, 0.0),
            Guess::new(
                bent,
                (spread * 1.5).max(bent_back * 1.4) + 4.0 * least,
                grain,
                belief,
                -2.0,
            ),
        ];
        let first = self.recent;
        for sample in &first {
            self.observe(sample);
        }
        self.foretell();
    }

    fn observe(&mut self, sample: &Sample) {
        let seconds = sample.sent.nanos_from(self.last).max(0) as f64 / 1e9;
        self.last = sample.sent;
        // Count from near where the lead is.
        let by = self.lead().u as i64;
        self.base = self.base.saturating_add(by);
        for guess in &mut self.guesses {
            guess.advance(seconds, by as f64);
        }
        let there = sample.transit.saturating_sub(self.base) as f64;
        let rate = self.lead().f;
        let back = sample.back_at_sending(rate).saturating_sub(self.base) as f64;
        let grain = sample.resolution as f64;
        let calm = self.events(there, back, sample, seconds);
        let usual = calm && !self.late.iter().any(Late::is_some);
        let far = self.lead().weight - DOUBT / 2.0;
        for guess in &mut self.guesses {
            if calm {
                guess.spread(there, back, grain);
            }
            if usual {
                guess.learn(there, back, grain);
            }
            let behind = guess.weight() < far;
            guess.observe(there, back, grain, behind);
        }
        self.weigh();
    }

    fn lead(&self) -> &Belief {
        let guess = &self.guesses[self.lead];
        &guess.beliefs[guess.best]
    }

    /// Which guess leads, and how far the other is behind.
    fn weigh(&mut self) {
        self.lead = usize::from(self.guesses[1].weight() > self.guesses[0].weight());
        let lead = *self.lead();
        if !self.guesses.iter().all(Guess::is_sound) {
            self.strikes = STRIKES_MOST;
        }
        for guess in &mut self.guesses {
            let behind = lead.weight - guess.weight();
            let by = lead.weight - (behind - DOUBT).max(0.0);
            for belief in &mut guess.beliefs {
                belief.weight -= by;
            }
        }
    }

    /// What cannot be chance: steps of the clock, and ways that became shorter or longer. True when there
    /// was nothing.
    fn events(&mut self, there: f64, back: f64, sample: &Sample, seconds: f64) -> bool {
        let lead = *self.lead();
        let grain = sample.resolution as f64;
        let guess = &self.guesses[self.lead];
        let scale = guess.scale;
        let scales = [scale, scale.max(guess.commit)];
        let spreads = guess.spread;
        let late = [there - lead.u, lead.d - back - grain];
        // The way back was seen later, by a rate that is uncertain too.
        let took = sample.took as f64 / 1e9;
        let deviations = [(Leg::There, 0.0), (Leg::Back, took * took * lead.ff)]
            .map(|(leg, later)| libm::sqrt(lead.variance(leg) + later));
        let early = [0, 1].map(|leg| late[leg] + grain < -(6.0 * deviations[leg] + scales[leg]));
        // Of a step one leg is early and the other late, by as much or, where queues add to it, more; but not so much more that it
        // would be late after the step too: then it is weather, and the early leg has a shorter way.
        let alike = |leg: usize| {
            let other = 1 - leg;
            let more = late[other] + late[leg];
            early[leg]
                && more >= -3.0 * scale - 6.0 * deviations[other]
                && more
                    <= MORE * spreads[other].late().max(0.0)
                        + grain
                        + 6.0 * (deviations[0] + deviations[1])
        };
        if core::mem::take(&mut self.stepped) || alike(0) || alike(1) {
            let by = (late[0] - late[1]) / 2.0;
            let deviation = (2.0 * scale).max((late[0] + late[1]) / 4.0);
            // Another one so soon: perhaps it is the rate that is wrong.
            let rate = if self.strikes > 2 { by / seconds.max(1e-3) } else { 0.0 };
            for belief in self.guesses.iter_mut().flat_map(|guess| &mut guess.beliefs) {
                belief.step(by, deviation, rate);
            }
            self.late = [Late::NONE; 2];
            self.strikes += 3;
            return false;
        }
        self.strikes = self.strikes.saturating_sub(1);
        let mut calm = true;
        for (leg, name) in [(0, Leg::There), (1, Leg::Back)] {
            let deviation = 2.0 * scales[leg] + grain / 2.0;
            if early[leg] {
                self.replace(name, late[leg] + grain / 2.0 - 1.5 * scales[leg], deviation);
                self.late[leg] = Late::NONE;
                calm = false;
                continue;
            }
            let spread = &spreads[leg];
            if spread.centre > 4.0 * spread.width + 3.0 * deviations[leg] + grain {
                // Most samples have been late for long: the way is longer, by little.
                let (by, deviation) = (spread.centre - 2.0 * spread.width, 2.0 * spread.width);
                for guess in &mut self.guesses {
                    guess.spread[leg].centre -= by;
                }
                self.replace(name, by, deviation + grain / 2.0);
                continue;
            }
            if late[leg] > spread.late() + 2.0 * deviations[leg] {
                let long = self.late[leg].add(late[leg]);
                if let Some(least) = long {
                    self.replace(name, least - scales[leg] / 2.0 + grain / 2.0, deviation);
                    self.late[leg] = Late::NONE;
                }
            } else {
                self.late[leg] = Late::NONE;
            }
        }
        calm
    }

    /// A way is longer by `longer` than was believed.
    fn replace(&mut self, leg: Leg, longer: f64, deviation: f64) {
        let lead = *self.lead();
        let value = match leg {
            Leg::There => lead.u + longer,
            Leg::Back => lead.d - longer,
        };
        for guess in &mut self.guesses {
            // All lines are put where the lead's goes: a guess's middle moves by as much as its own line does.
            let own = &guess.beliefs[guess.best];
            let (index, apart) = match leg {
                Leg::There => (0, lead.u - own.u),
                Leg::Back => (1, own.d - lead.d),
            };
            guess.spread[index].centre -= apart;
            for belief in &mut guess.beliefs {
                belief.replace(leg, value, deviation);
            }
        }
    }

    /// The mean of all beliefs, each by its weight.
    fn foretell(&mut self) {
        let (mut sum, mut offset, mut u, mut f) = (0.0, 0.0, 0.0, 0.0);
        for guess in &self.guesses {
            for belief in &guess.beliefs {
                let weight = libm::exp(belief.weight);
                sum += weight;
                offset += weight * (belief.u + belief.d) / 2.0;
                u += weight * (belief.u + guess.spread[0].centre);
                f += weight * belief.f;
            }
        }
        let guess = &self.guesses[self.lead];
        let centre = guess.spread[0].centre;
        let beyond = self.late[0].beyond(&guess.spread[0]).map_or(0.0, |beyond| beyond - centre);
        self.line = Line {
            at: self.last,
            offset: self.base.saturating_add((offset / sum) as i64),
            transit: self.base.saturating_add((u / sum + beyond) as i64),
            rate: (f / sum * 1e3) as i64,
        };
    }
}

impl Line {
    /// What the offset gains from the line's instant to `now`.
    fn ahead(&self, now: LocalInstant) -> i64 {
        let nanos = i128::from(now.nanos_from(self.at)) * i128::from(self.rate) / 1_000_000_000_000;
        i64::try_from(nanos).unwrap_or(0)
    }
}

impl PartialEq for Bank {
    fn eq(&self, other: &Self) -> bool {
        self.whole() == other.whole() && self.words().eq(other.words())
    }
}

impl Eq for Bank {}

impl Hash for Bank {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.whole().hash(state);
        for word in self.words() {
            word.hash(state);
        }
    }
}

impl Bank {
    /// All of the state that is no floating-point number.
    fn whole(&self) -> impl Eq + Hash {
        let best = self.guesses.map(|guess| (guess.best, guess.commit_next));
        let late = self.late.map(|late| late.count);
        let counts = (self.seen, self.lead, best, late, self.strikes, self.stepped);
        (self.recent, self.base, self.last, self.line, self.missed, counts)
    }

    /// The bits of the rest.
    fn words(&self) -> impl Iterator<Item = u64> {
        let guesses = self.guesses.iter().flat_map(|guess| {
            let law = [guess.scale, guess.commit, guess.tail, guess.count, guess.age];
            let spreads = guess.spread.iter().flat_map(Spread::numbers);
            law.into_iter().chain(spreads).chain(guess.beliefs.iter().flat_map(Belief::numbers))
        });
        let late = self.late.iter().flat_map(|late| late.last.into_iter().chain([late.least]));
        guesses.chain(late).map(f64::to_bits)
    }
}
