//! Decides what is told of jobs: of claims and ends as the database commits them, and of calls as web apps see them.

use turnwise_engine::NodeId;
use turnwise_node::job::{ClaimedJob, End, EndOutcome, JobFate, JobState, JobView};
use turnwise_node::store::Claimed;

use crate::cluster::caller::CALL_DEADLINE;
use crate::cluster::farm::{Life, World};
use crate::oracle::{Invariant, Mark, Oracle};
use crate::report::Seen;
use crate::sometimes;
use crate::world::job_of;

/// A node that knows of more jobs asks for them within so long: some ways there and back.
const ASKS_WITHIN: u64 = 1_000_000_000;
/// A job that was due for so many periods, and so long, while a node had a free place is lost.
const OVERDUE_PERIODS: u64 = 8;
const OVERDUE: u64 = 12_000_000_000;
/// So long after the first call that was refused, a node may still give jobs back for that.
const REFUSED_FOR: u64 = 4_000_000_000;

impl World {
    pub(in crate::cluster) fn renewed(&mut self, node: NodeId) {
        self.oracle.marks.reach(Mark::LeaseRenewed);
        let life = self.by_id.get(&node).copied().unwrap_or(u32::MAX);
        self.trace([3, u64::from(life), 0]);
    }

    pub(in crate::cluster) fn claimed_outside(&mut self, node: NodeId, done: &Claimed) {
        sometimes!(self.oracle.marks, Mark::ClaimedOutside, !done.jobs.is_empty());
        let life = self.by_id.get(&node).copied().unwrap_or(u32::MAX);
        self.claims(life, done.more);
        self.handed_out(life, &done.jobs);
        self.trace([4, u64::from(life), done.jobs.len() as u64]);
    }

    /// The database carried out a claim of this life, and tells it whether there are more jobs. Who was told so before and had free
    /// places must have come back at once.
    pub(super) fn claims(&mut self, life: u32, more: bool) {
        let now = self.now;
        let Some(here) = self.lives.get_mut(life as usize) else { return };
        let told = std::mem::replace(&mut here.more_at, more.then_some(now));
        let (Some(told), Some((from, to)), false) = (told, here.was_free.take(), here.draining)
        else {
            return;
        };
        let (host, since) = (here.host, told.max(from));
        let waited = to.saturating_sub(since);
        if self.is_quiet(host, since) && waited > ASKS_WITHIN {
            let waited = waited / 1_000_000;
            self.violated(Invariant::Drains, || {
                format!("life {life}, told of more jobs and with places free, did not ask for {waited} ms")
            });
        }
    }

    /// A beat of this life claims nothing: then it is full, or leaves, or its target is away.
    pub(super) fn claims_nothing(&mut self, life: u32) {
        let now = self.now;
        let Some(here) = self.lives.get(life as usize) else { return };
        let (Some(free), false) = (here.free_since, here.draining) else { return };
        if self.is_quiet(here.host, now.saturating_sub(OVERDUE)) && free + ASKS_WITHIN < now {
            self.violated(Invariant::Drains, || {
                format!(
                    "life {life} has places free, its target is there, and its beat claims nothing"
                )
            });
        }
    }

    /// Nothing has kept this host from working since then, nor for long enough before to be over it.
    pub(super) fn is_quiet(&self, host: u32, since: u64) -> bool {
        let host = &self.hosts[host as usize];
        let troubled = host.target_down_until.max(host.errors_until).max(host.storm_until);
        self.oracle.ring.is_calm(self.now) && troubled + REFUSED_FOR < since
    }

    /// The database gave these jobs to a life.
    pub(super) fn handed_out(&mut self, life: u32, jobs: &[ClaimedJob]) {
        for job in jobs {
            self.may_be_handed_out(job_of(job.id), &job.queue);
            self.touched.insert(job_of(job.id), self.now);
            self.claims.insert(job_of(job.id), (life, job.token));
        }
    }

    pub(in crate::cluster) fn recovered(&mut self, node: NodeId, done: &Claimed) {
        sometimes!(self.oracle.marks, Mark::LostClaimRecovered, !done.jobs.is_empty());
        let life = self.by_id.get(&node).copied().unwrap_or(u32::MAX);
        self.trace([5, u64::from(life), done.jobs.len() as u64]);
    }

    pub(in crate::cluster) fn released(&mut self) {
        self.oracle.marks.reach(Mark::ClaimReleased);
    }

    /// The database recorded ends.
    pub(in crate::cluster) fn ended(
        &mut self,
        node: NodeId,
        ends: &[End],
        outcomes: &[EndOutcome],
    ) {
        let now = self.now;
        let life = self.by_id.get(&node).copied().unwrap_or(u32::MAX);
        for (end, outcome) in ends.iter().zip(outcomes) {
            let job = job_of(end.job);
            self.trace([7, u64::from(life), job]);
            sometimes!(self.oracle.marks, Mark::StaleEnd, *outcome == EndOutcome::Stale);
            if *outcome != EndOutcome::Ended {
                continue;
            }
            if end.fate == JobFate::HandBack {
                self.handed_back(life);
            }
            let claim = self.claims.get(&job).copied();
            if claim.is_some_and(|claim| claim != (life, end.token)) {
                self.violated(Invariant::NoOverlap, || {
                    format!("an end by life {life} of job {job} is accepted, which {claim:?} holds")
                });
            }
            let succeeded = end.fate == JobFate::Succeeded;
            let retried = matches!(end.fate, JobFate::Retry(_));
            if matches!(end.fate, JobFate::Await(_)) {
                self.goes_on_elsewhere(job, end.token);
            }
            sometimes!(self.oracle.marks, Mark::RetriedJob, retried);
            if succeeded && !self.done.contains_key(&job) {
                self.violated(Invariant::Accounting, || {
                    format!("job {job} is recorded as succeeded by life {life} and was never done")
                });
            }
            if succeeded || end.fate == JobFate::Dead {
                self.ended_at.insert(job, now);
                let Oracle { jobs, marks, .. } = &mut self.oracle;
                jobs.ended(job, succeeded, marks);
                self.idle_since = now;
            } else {
                self.ends_for_good_if_cancelled(job);
            }
        }
    }

    /// A node that knows its web app to be away claims nothing for it.
    fn handed_back(&mut self, life: u32) {
        let now = self.now;
        let Some(life) = self.lives.get(life as usize) else { return };
        let (number, number_of_host, draining) = (life.number, life.host, life.draining);
        let host = self.host(number_of_host);
        if host.target_down_until <= now || draining {
            return;
        }
        let since = *host.refused_since.get_or_insert(now);
        // Until it knows; and what was claimed before may come back late.
        if since + REFUSED_FOR < now && host.storm_until + REFUSED_FOR < now {
            host.refused_since = Some(now);
            self.violated(Invariant::ClaimsAllowed, || {
                format!("life {number} goes on claiming jobs though its target refuses them")
            });
        }
    }

    /// A web app begins to serve a call.
    pub(in crate::cluster) fn run_begins(&mut self, host: u32, job: u64, life: u32) {
        let now = self.now;
        self.trace([8, job, u64::from(life)]);
        *self.served.entry((job, life)).or_insert(0) += 1;
        if let Some(other) = self.kept.get(&job).copied()
            && other != life
            && self.served.contains_key(&(job, other))
            && self.lives[other as usize].lost_at.is_none()
        {
            self.violated(Invariant::NoOverlap, || {
                format!("job {job} runs as life {life}, and as life {other}, whose claim the server that took over knew")
            });
        }
        let Oracle { jobs, violations, .. } = &mut self.oracle;
        jobs.runs(now, job, life, violations);
        let (busy, capacity) = (
            self.served.keys().filter(|(_, other)| *other == life).count(),
            self.hosts[host as usize].plan.capacity as usize,
        );
        if busy > capacity {
            self.violated(Invariant::ClaimsAllowed, || {
                format!("life {life}, which may run {capacity} jobs at once, runs {busy}")
            });
        }
        self.seen(host, Seen::Runs { job, lasts: 0 });
    }

    /// It serves it no more.
    pub(in crate::cluster) fn run_over(&mut self, job: u64, life: u32, answered: bool) {
        self.call_is_over(job, answered);
        self.trace([9, job, u64::from(life)]);
        self.touched.insert(job, self.now);
        if let Some(count) = self.served.get_mut(&(job, life)) {
            *count -= 1;
            if *count == 0 {
                self.served.remove(&(job, life));
            }
        }
        self.oracle.jobs.stops(job, life);
    }

    /// The run is over. `jobs` are all that the database holds.
    pub(in crate::cluster) fn finish(&mut self, jobs: &[JobView]) {
        self.check_overdue(jobs);
        self.check_left(jobs);
        self.check_fired(OVERDUE + OVERDUE_PERIODS * self.period);
        self.check_batches(jobs, OVERDUE + OVERDUE_PERIODS * self.period);
        let now = self.now;
        let Oracle { ring, clock, violations, marks, .. } = &mut self.oracle;
        ring.finish(now, marks, violations);
        clock.finish(now, violations);
    }

    fn check_overdue(&mut self, jobs: &[JobView]) {
        let now = self.now;
        let grace = OVERDUE + OVERDUE_PERIODS * self.period;
        let able = |life: &Life| {
            let host = &self.hosts[life.host as usize];
            life.staying
                && host.life == Some(life.number)
                && !life.draining
                && host.target_down_until + grace < now
                && host.errors_until + grace < now
                && host.excused_until < now
                && !host.is_paused(now)
                && life.full_at + grace / 2 < now
        };
        let free = self.lives.iter().any(able);
        if self.out_until + grace >= now || !self.oracle.ring.is_calm(now) {
            return;
        }
        let shown = self.server.look().0.exact(now.saturating_sub(grace));
        // Somebody must have been there for long enough to rescue what the dead left.
        let watched = self.lives.iter().any(|life| {
            let host = &self.hosts[life.host as usize];
            life.staying && host.life == Some(life.number) && life.born + grace < now
        });
        let stormy = self.hosts.iter().any(|host| host.storm_until + grace >= now);
        // Running, it says; but no web app has served it for longer than any call takes.
        let is_stuck = |job: u64| {
            let served = self.served.keys().any(|(other, _)| *other == job);
            let touched = self.touched.get(&job).copied().unwrap_or(0);
            watched && !served && !stormy && touched + CALL_DEADLINE.as_nanos() as u64 + grace < now
        };
        let lost: Vec<u64> = jobs
            .iter()
            .filter(|job| !self.waits_for_its_queue(&job.queue, grace))
            .filter(|job| !self.waits_for_its_limits(job, jobs, grace))
            .filter(|job| match job.state {
                JobState::Ready => free && job.scheduled_at < shown,
                // None of them is for later; but clocks are set.
                JobState::Scheduled if free && job.after.is_none() => {
                    let enqueued = self.oracle.jobs.enqueued_at(job_of(job.id));
                    enqueued.is_some_and(|enqueued| enqueued + grace < now)
                }
                // Elsewhere: when nothing is heard in time it is due like any other.
                JobState::Running if job.awaits_since.is_some() => free && job.scheduled_at < shown,
                JobState::Running => is_stuck(job_of(job.id)),
                _ => false,
            })
            .map(|job| job_of(job.id))
            .collect();
        let Oracle { jobs, violations, .. } = &mut self.oracle;
        jobs.finish(now, &lost, violations);
    }
}
