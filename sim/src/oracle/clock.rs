//! Decides whether what nodes claim to know of the server's clock is true, and whether beats arrive where
//! they were aimed.

use std::collections::BTreeMap;

use super::{Invariant, Mark, Marks, Violations};

/// So many beats of a node in calm are needed to judge its aim.
const BEATS_JUDGED: usize = 30;
/// Of a road that is another one so many beats come first by which it is learnt: a queue that was there may be gone, and nobody
/// told.
const BEATS_TO_LEARN: usize = 10;
/// A step that all exchanges of a node must show: found in so many.
const EXCHANGES_TO_RECOVER: u32 = 3;

/// The judge of clocks.
#[derive(Clone, Debug, Default)]
pub struct ClockJudge {
    nodes: BTreeMap<u32, Node>,
    /// Checks of the interval.
    pub checks: u64,
    /// Of which the truth was outside.
    pub outside: u64,
    /// Errors of the offset in calm, in nanoseconds.
    pub errors: Vec<i64>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// A step too large to be missed that no exchange has shown yet.
    after_step: Option<Step>,
    /// When it last had an answer: since then its interval widens.
    answered: Option<u64>,
    /// A step too small to be proven, or a rate beyond what is assumed: nothing is claimed any more, until a step
    /// is proven.
    excused: bool,
    /// Until then the rate is beyond what is assumed: what is proven meanwhile may be wrong again at once.
    rate_broken_until: u64,
    /// The last exchange proved a step.
    proved: bool,
    /// Exchanges that begin before this knew the old clock.
    stepped_at: u64,
    /// The road has changed.
    another_road: bool,
    aims: Vec<i64>,
    noise: i64,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    /// How far, in nanoseconds.
    by: i64,
    /// Exchanges that began after it.
    exchanges: u32,
}

impl ClockJudge {
    /// The server's clock, or the node's, moved by `by` nanoseconds at `now`, as seen by `node`. `spread` is how
    /// wide the interval may be.
    pub fn stepped(&mut self, now: u64, node: u32, by: i64, spread: i64) {
        let node = self.nodes.entry(node).or_default();
        node.stepped_at = now;
        node.excused = true;
        if by.abs() > spread && node.after_step.is_none() {
            node.after_step = Some(Step { by: by.saturating_abs(), exchanges: 0 });
        } else {
            // One that may go unseen makes the next ones hard to tell.
            node.after_step = None;
        }
        node.aims.clear();
    }

    /// A rate beyond what the interval assumes, until `until`: nothing that is claimed can be judged.
    pub fn rate_broken(&mut self, now: u64, until: u64, node: u32) {
        let node = self.nodes.entry(node).or_default();
        node.stepped_at = now;
        node.excused = true;
        node.rate_broken_until = node.rate_broken_until.max(until);
        node.after_step = None;
        node.aims.clear();
    }

    /// The node begins anew.
    pub fn reborn(&mut self, now: u64, node: u32) {
        let old = self.nodes.remove(&node).unwrap_or_default();
        if now < old.rate_broken_until {
            self.rate_broken(now, old.rate_broken_until, node);
        }
    }

    /// The node has forgotten what it knew of the clock.
    pub fn forgot(&mut self, node: u32) {
        if let Some(node) = self.nodes.get_mut(&node) {
            // The exchange that told of the other server is all that it knows: like one that proves a step.
            node.proved = true;
            node.after_step = None;
            node.another_road = false;
            node.aims.clear();
        }
    }

    /// The road of the node is another one.
    pub fn road_changed(&mut self, node: u32) {
        let node = self.nodes.entry(node).or_default();
        node.another_road = true;
        node.aims.clear();
    }

    /// The node proved a step. Whether there was one that it had not proven yet.
    pub fn proved(&mut self, node: u32, marks: &mut Marks) -> bool {
        marks.reach(Mark::StepProven);
        let node = self.nodes.entry(node).or_default();
        node.proved = true;
        node.excused
    }

    /// After an exchange that was begun at `begun`, the node claims that the offset lies in `bounds` and guesses
    /// `guess`; it is `truth`. `spread` is how wide the interval may be.
    #[allow(clippy::too_many_arguments)]
    pub fn claimed(
        &mut self,
        now: u64,
        number: u32,
        begun: u64,
        bounds: (i64, i64),
        guess: i64,
        truth: i64,
        spread: i64,
        violations: &mut Violations,
    ) {
        let node = self.nodes.entry(number).or_default();
        let holds = (bounds.0..=bounds.1).contains(&truth);
        // What is proven by an exchange that began before the last step says nothing of that one.
        let proved = std::mem::take(&mut node.proved);
        let silence = node.answered.replace(now).map_or(0, |at| now.saturating_sub(at));
        if begun <= node.stepped_at && node.stepped_at > 0 {
            return;
        }
        node.excused &= !proved || begun < node.rate_broken_until;
        if let Some(step) = &mut node.after_step {
            step.exchanges += 1;
            // By 500 ppm, and the clocks may truly have drifted apart by as much.
            let widened = (silence / 1_000) as i64;
            if holds && (guess - truth).abs() <= spread {
                node.after_step = None;
                node.excused = begun < node.rate_broken_until;
            } else if step.by <= spread.saturating_add(widened) {
                // It hides in what the silence added: nothing is demanded until what is claimed holds again.
                step.by = 0;
            } else if step.exchanges >= EXCHANGES_TO_RECOVER {
                node.after_step = None;
                let off = guess - truth;
                violations.add(now, Invariant::StepsAreFound, || {
                    format!(
                        "node {number} is {off} ns wrong {EXCHANGES_TO_RECOVER} exchanges after a \
                         step; its interval is {} to {} ns of the truth",
                        bounds.0 - truth,
                        bounds.1 - truth
                    )
                });
            }
            return;
        }
        if node.excused {
            return;
        }
        self.checks += 1;
        if !holds {
            self.outside += 1;
            violations.add(now, Invariant::IntervalHolds, || {
                format!(
                    "node {number} claims an offset of {} to {} ns from the true one",
                    bounds.0 - truth,
                    bounds.1 - truth
                )
            });
        }
    }

    /// How wrong a guess of the offset was, in calm.
    pub fn guessed(&mut self, error: i64) {
        self.errors.push(error);
    }

    /// A beat of the node arrived `error` from its boundary in calm; half of a good node's do within `noise`.
    pub fn aimed(&mut self, node: u32, error: i64, noise: i64) {
        let node = self.nodes.entry(node).or_default();
        if !node.excused {
            node.aims.push(error);
            node.noise = noise;
        }
    }

    /// The run is over: judge the aims.
    pub fn finish(&mut self, now: u64, violations: &mut Violations) {
        for (number, node) in &mut self.nodes {
            let learn = if node.another_road { BEATS_TO_LEARN } else { 0 };
            let aims = node.aims.get(learn..).unwrap_or_default();
            if aims.len() < BEATS_JUDGED {
                continue;
            }
            let mut sizes: Vec<_> = aims.iter().map(|aim| aim.abs()).collect();
            sizes.sort_unstable();
            let median = sizes[sizes.len() / 2];
            if median > node.noise {
                violations.add(now, Invariant::Accuracy, || {
                    format!(
                        "node {number}: half of its {} beats arrive more than {median} ns off, where \
                         the road's noise explains {}",
                        aims.len(),
                        node.noise
                    )
                });
            }
        }
    }
}
