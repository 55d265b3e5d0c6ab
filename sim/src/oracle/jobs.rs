//! Decides whether jobs are safe: each ends, none runs at two places while both hold a lease, leases of nodes
//! that live and are heard do not run out, tokens are used once, and a node's counts are true.
//!
//! A node is named by the number of its life here: one that comes back under a new id is another.

use std::collections::{BTreeMap, BTreeSet};

use turnwise_engine::Token;

use super::{Invariant, Mark, Marks, Violations};
use crate::sometimes;

/// The judge of jobs.
#[derive(Clone, Debug, Default)]
pub struct JobsJudge {
    open: BTreeMap<u64, Open>,
    tokens: BTreeMap<u32, Token>,
    /// Lives whose lease ran out.
    lapsed: BTreeSet<u32>,
    /// What the run amounts to.
    pub tally: JobsTally,
}

/// What the jobs of a run amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobsTally {
    /// Enqueued.
    pub enqueued: u64,
    /// Ended well.
    pub succeeded: u64,
    /// Spent all their attempts.
    pub dead: u64,
    /// Had to have ended, and had not.
    pub lost: u64,
    /// Ran at two places at once, lease or no lease.
    pub overlapped: u64,
    /// How long they had been there when they ran for the first time, all together, in nanoseconds.
    pub waited: u64,
    /// The most that stood in the table when somebody looked for those to be removed.
    pub most_kept: u64,
}

#[derive(Clone, Debug)]
struct Open {
    enqueued: u64,
    /// It has run.
    begun: bool,
    /// The lives that execute it.
    running: Vec<u32>,
}

impl JobsJudge {
    /// A job was enqueued.
    pub fn enqueued(&mut self, now: u64, job: u64) {
        self.tally.enqueued += 1;
        self.open.insert(job, Open { enqueued: now, begun: false, running: Vec::new() });
    }

    /// How many have not ended.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// When a job that has not ended was enqueued.
    pub fn enqueued_at(&self, job: u64) -> Option<u64> {
        self.open.get(&job).map(|open| open.enqueued)
    }

    /// A job of which the database knows nothing any more: its insert was lost with a failover.
    pub fn forgotten(&mut self, job: u64) {
        if self.open.remove(&job).is_some() {
            self.tally.enqueued -= 1;
        }
    }

    /// A job whose end was lost with a failover runs again.
    pub fn reopened(&mut self, now: u64, job: u64) {
        self.open.entry(job).or_insert(Open { enqueued: now, begun: false, running: Vec::new() });
    }

    /// A node calls the target for the job.
    pub fn runs(&mut self, now: u64, job: u64, life: u32, violations: &mut Violations) {
        let Some(open) = self.open.get_mut(&job) else { return };
        if !std::mem::replace(&mut open.begun, true) {
            self.tally.waited += now.saturating_sub(open.enqueued);
        }
        if let Some(other) = open.running.first().copied() {
            self.tally.overlapped += 1;
            if !self.lapsed.contains(&other) && !self.lapsed.contains(&life) {
                violations.add(now, Invariant::NoOverlap, || {
                    format!("job {job} runs as life {life} while life {other}, whose lease holds, runs it")
                });
            }
        }
        open.running.push(life);
    }

    /// The node's call for the job is over, one way or the other.
    pub fn stops(&mut self, job: u64, life: u32) {
        if let Some(open) = self.open.get_mut(&job)
            && let Some(place) = open.running.iter().position(|other| *other == life)
        {
            open.running.swap_remove(place);
        }
    }

    /// The job has ended for good.
    pub fn ended(&mut self, job: u64, succeeded: bool, marks: &mut Marks) {
        if self.open.remove(&job).is_some() {
            sometimes!(marks, Mark::DeadJob, !succeeded);
            *(if succeeded { &mut self.tally.succeeded } else { &mut self.tally.dead }) += 1;
        }
    }

    /// The job was cancelled: nothing more is due to it.
    pub fn cancelled(&mut self, job: u64) {
        self.open.remove(&job);
    }

    /// The database declared a life lost. `excused`: something was done to it that explains it.
    pub fn lapsed(
        &mut self,
        now: u64,
        life: u32,
        excused: bool,
        marks: &mut Marks,
        violations: &mut Violations,
    ) {
        marks.reach(Mark::LeaseLapsed);
        self.lapsed.insert(life);
        if !excused {
            violations.add(now, Invariant::LeaseKept, || {
                format!("the lease of life {life} ran out though it lives and is heard")
            });
        }
    }

    /// A node asks for a claim under a token.
    pub fn claimed(&mut self, now: u64, life: u32, token: Token, violations: &mut Violations) {
        let last = self.tokens.entry(life).or_insert(Token(i64::MIN));
        if token <= *last {
            let last = *last;
            violations.add(now, Invariant::Accounting, || {
                format!("life {life} claims with token {} after {}", token.0, last.0)
            });
        }
        *last = token.max(*last);
    }

    /// Whatever lease the life held is void: the database that granted it is gone.
    pub fn voided(&mut self, life: u32) {
        self.lapsed.insert(life);
    }

    /// The run is over: these had to have ended, or to be running.
    pub fn finish(&mut self, now: u64, lost: &[u64], violations: &mut Violations) {
        self.tally.lost = lost.len() as u64;
        if let Some(job) = lost.first() {
            let since = self.open.get(job).map_or(0, |open| open.enqueued) / 1_000;
            violations.add(now, Invariant::NoJobLost, || {
                format!(
                    "{} jobs neither ran nor ended, the first is job {job}, enqueued at {since} us",
                    lost.len()
                )
            });
        }
    }
}
