//! Decides what is told of ended jobs that a node removes: only those that have ended go, none too early, and none is
//! left in the end.

use turnwise_node::job::{JobState, JobView};

use crate::cluster::farm::{Host, World};
use crate::oracle::{Invariant, Mark};
use crate::scenario::{Fault, Span};
use crate::world::job_of;

/// By true time a job may seem so much younger: the clocks are not at the same rate.
const TOLERANCE: u64 = 1_000_000_000;
/// So many periods after it was over, and so long, no job is left whose time is over.
const LEFT_PERIODS: u64 = 12;
const LEFT: u64 = 6_000_000_000;

impl World {
    /// How long a job in this state is kept; none: for ever, or it has not ended.
    fn kept_for(&self, state: JobState) -> Option<Span> {
        match state {
            JobState::Dead => self.scenario.retention.dead,
            JobState::Succeeded | JobState::Cancelled => self.scenario.retention.succeeded,
            _ => None,
        }
    }

    /// Of so many jobs the database removed these for a node.
    pub(in crate::cluster) fn removed(&mut self, host: u32, of: usize, jobs: &[JobView]) {
        let tally = &mut self.oracle.jobs.tally;
        tally.most_kept = tally.most_kept.max(of as u64);
        self.trace([11, u64::from(host), jobs.len() as u64]);
        for job in jobs {
            self.oracle.marks.reach(Mark::JobRemoved);
            let (number, state) = (job_of(job.id), job.state.as_str());
            let Some(finished) = job.finished_at else {
                self.violated(Invariant::NoJobLost, || {
                    format!("job {number} is removed, which is {state}")
                });
                continue;
            };
            if self.is_of_a_batch_that_goes_on(number) {
                self.violated(Invariant::Batches, || {
                    format!("job {number} is removed, whose batch goes on")
                });
            }
            let kept = self.kept_for(job.state).unwrap_or(Span(u64::MAX / 4)).0;
            let age = self.server.exact().nanos_from(finished);
            if age < kept as i64 {
                self.violated(Invariant::Retention, || {
                    let age = Span(age.max(0) as u64);
                    format!("job {number}, which is {state}, is removed {age} after its end")
                });
            } else {
                self.check_true_age(host, number, kept);
            }
        }
    }

    /// A job whose age is a step of the clock's alone is no older for that, to a node that has seen the step.
    fn check_true_age(&mut self, host: u32, number: u64, kept: u64) {
        let now = self.now;
        let Some(ended) = self.ended_at.get(&number).copied() else { return };
        // It hears of a step with an answer, of a small one with the third.
        let rounds = 3 * (self.hosts.len() as u64 + 2) * self.period;
        let Host { clock_known, .. } = self.hosts[host as usize];
        let is_seen = |step: u64| {
            clock_known.is_some_and(|known| known < step) && step + rounds + 2_000_000_000 < now
        };
        let steps = self.steps_forward.iter().copied().filter(|step| *step >= ended);
        if now - ended + TOLERANCE < kept && steps.clone().all(is_seen) {
            self.violated(Invariant::Retention, || {
                let age = Span(now - ended);
                format!("job {number} is removed {age} after its end, by a node that saw the clock being set")
            });
        }
    }

    /// The run is over: what was old when everything had been well for a while is gone. (Who saw the clock being set forward
    /// keeps jobs for longer; what ended before it was set back ended in the future; and a server that took over may know
    /// of ends that nobody heard of.)
    pub(super) fn check_left(&mut self, jobs: &[JobView]) {
        let grace = LEFT + LEFT_PERIODS * self.period;
        let keeps_longer =
            |fault| matches!(fault, Fault::Failover { .. } | Fault::ServerStep { .. });
        let faults = &self.scenario.faults;
        let nobody_is_left = !self.lives.iter().any(|life| life.staying);
        if nobody_is_left || faults.iter().any(|planned| keeps_longer(planned.fault)) {
            return;
        }
        let ends = faults.iter().map(|planned| planned.at.0 + planned.fault.lasts().0);
        let (well_since, now) = (ends.max().unwrap_or(0), self.now);
        let is_left = |job: &&JobView| {
            if self.is_of_a_batch_that_goes_on(job_of(job.id)) {
                return false;
            }
            let ended = self.ended_at.get(&job_of(job.id)).copied();
            let ended = ended.map(|ended| ended + self.kept_for_key(job_of(job.id)));
            // It is looked for about as often as the shortest time lasts.
            let wait = |kept: Span| kept.0 + 2 * self.scenario.retention.shortest() + grace;
            let kept = self.kept_for(job.state);
            ended.zip(kept).is_some_and(|(ended, kept)| ended.max(well_since) + wait(kept) < now)
        };
        let left: Vec<u64> = jobs.iter().filter(is_left).map(|job| job_of(job.id)).collect();
        if let Some(first) = left.first() {
            self.violated(Invariant::Bounded, || {
                format!(
                    "{} jobs that ended long ago are left, the first is job {first}",
                    left.len()
                )
            });
        }
    }
}
