//! Decides what is told of jobs that go on elsewhere: that none is tried again while it is heard of, that only the attempt that goes
//! on is believed, and that it is.

use std::collections::BTreeMap;

use turnwise_engine::Token;
use turnwise_node::job::JobFate;

use crate::cluster::elsewhere::{Elsewhere, is_over};
use crate::cluster::farm::World;
use crate::oracle::{Invariant, Mark, Oracle};
use crate::sometimes;

/// A job may be claimed a little before it is due, and clocks go at their own rates.
const MARGIN: u64 = 50_000_000;

/// What a job says of how it may go on.
#[derive(Clone, Copy, Debug)]
pub(in crate::cluster) struct Said {
    /// How long it may go without a word, in nanoseconds.
    pub(in crate::cluster) heartbeat: Option<u64>,
    /// How long an attempt may take, in nanoseconds.
    pub(in crate::cluster) deadline: u64,
    /// When its last attempt was claimed.
    pub(in crate::cluster) began: u64,
}

/// Attempts that go on elsewhere, by their claims.
pub(in crate::cluster) type All = BTreeMap<(u64, Token), Elsewhere>;

impl World {
    /// A web app has accepted a job.
    pub(in crate::cluster) fn accepted(&mut self, job: u64, elsewhere: Elsewhere) {
        self.trace([15, job, elsewhere.until]);
        self.orders.told.elsewhere.insert((job, elsewhere.token), elsewhere);
    }

    /// The database knows that the attempt goes on elsewhere.
    pub(super) fn goes_on_elsewhere(&mut self, job: u64, token: Token) {
        let now = self.now;
        if let Some(of) = self.orders.told.elsewhere.get_mut(&(job, token)) {
            of.is_recorded = true;
            of.until = of.until.max(now.saturating_add(of.within).min(of.last));
        }
    }

    /// A job is claimed anew: then nothing was heard of it for long enough, or it was to be tried again.
    pub(super) fn is_claimed_anew(&mut self, job: u64) {
        let now = self.now;
        if let Some(said) = self.orders.told.asynchronous.get_mut(&job) {
            said.began = now;
        }
        let excused = self.sets_clocks();
        let all = self.orders.told.elsewhere.range((job, Token(i64::MIN))..=(job, Token(i64::MAX)));
        let went_on: Vec<_> = all.map(|(key, of)| (*key, of.clone())).collect();
        for (key, of) in went_on {
            sometimes!(self.oracle.marks, Mark::NothingHeard, of.is_recorded);
            if of.is_recorded && now + self.margin(&of) < of.until && !excused {
                let left = (of.until - now) / 1_000_000;
                self.violated(Invariant::Callbacks, || {
                    format!("job {job} is claimed anew, though it goes on elsewhere and has {left} ms left to be heard of")
                });
            }
            // It is nobody's any more; what is said of it is to be refused.
            if let Some(of) = self.orders.told.elsewhere.get_mut(&key) {
                of.is_recorded = false;
            }
        }
    }

    /// How much sooner it may be given up than its app thinks. An outage of a slot or two puts off nothing.
    fn margin(&self, of: &Elsewhere) -> u64 {
        if of.left.is_some() { MARGIN + 2 * self.period + 1_000_000_000 } else { MARGIN }
    }

    /// Whether this is the claim that the database gave the job out under last.
    fn is_the_claim(&self, (job, token): (u64, Token), life: u32) -> bool {
        self.claims.get(&job) == Some(&(life, token))
    }

    /// An attempt was heard to live.
    pub(in crate::cluster) fn heard_to_live(&mut self, key: (u64, Token)) {
        let now = self.now;
        self.trace([16, key.0, 0]);
        self.touched.insert(key.0, now);
        let Some(of) = self.orders.told.elsewhere.get_mut(&key) else { return };
        of.lives(now);
        let life = of.life;
        self.is_believed(key, life);
    }

    fn is_believed(&mut self, key: (u64, Token), life: u32) {
        if !self.is_the_claim(key, life) && !self.sets_clocks() {
            let (job, holder) = (key.0, self.claims.get(&key.0).copied());
            self.violated(Invariant::Callbacks, || {
                format!("a word of life {life}'s attempt at job {job} is believed, which {holder:?} holds")
            });
        }
    }

    /// An attempt was heard to have ended.
    pub(in crate::cluster) fn heard_to_end(&mut self, key: (u64, Token), fate: JobFate) {
        let (now, job) = (self.now, key.0);
        self.trace([17, job, 0]);
        self.touched.insert(job, now);
        let Some(of) = self.orders.told.elsewhere.remove(&key) else { return };
        self.oracle.marks.reach(Mark::CalledBack);
        self.is_believed(key, of.life);
        if is_over(fate) {
            self.ended_at.insert(job, now);
            let Oracle { jobs, marks, .. } = &mut self.oracle;
            jobs.ended(job, fate == JobFate::Succeeded, marks);
            self.idle_since = now;
        } else {
            self.ends_for_good_if_cancelled(job);
        }
    }

    /// A word was refused: its attempt does not go on any more.
    pub(in crate::cluster) fn is_not_heard(&mut self, key: (u64, Token)) {
        let (now, job) = (self.now, key.0);
        let Some(of) = self.orders.told.elsewhere.remove(&key) else { return };
        self.oracle.marks.reach(Mark::HeardTooLate);
        let goes_on = of.is_recorded
            && self.is_the_claim(key, of.life)
            && now + self.margin(&of) < of.until
            && !self.is_cancelled(job)
            && self.oracle.jobs.enqueued_at(job).is_some();
        if goes_on && !self.sets_clocks() {
            self.violated(Invariant::Callbacks, || {
                format!(
                    "a word of life {}'s attempt at job {job} is refused, though it goes on",
                    of.life
                )
            });
        }
    }
}
