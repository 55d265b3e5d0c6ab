//! Decides what becomes of jobs: enqueued, claimed, run at the target, ended; and whether a node's counts of
//! them are true.

use turnwise_engine::{
    Claim, Fate, Input, LocalInstant, RequestId, Token, WorkAnswer, WorkStatement,
};

use super::database::{Done, Ending};
use super::events::What;
use super::host::{Life, id_of, life_of};
use super::limits::LIMITED;
use super::{Driver, Lab, STATEMENTS_MAX};
use crate::oracle::{Disturbance, Invariant, Mark, Oracle};
use crate::random::Stream;
use crate::report::{Seen, Sort};
use crate::scenario::{Fault, Span};
use crate::sometimes;

/// An end that is not answered is sent again after so long.
const END_AGAIN: u64 = 1_000_000_000;
/// A statement that waits for a lock that is never let go is undone after so long, as PostgreSQL's `deadlock_timeout` has it.
const DEADLOCK: u64 = 1_000_000_000;
/// So many statements on the jobs may follow when there are none any more.
const IDLE_WORK_MAX: u32 = 8;
/// A job that was due for so many periods, and so long, while a node had a free place is lost.
const OVERDUE_PERIODS: u64 = 8;
const OVERDUE: u64 = 8_000_000_000;

impl<D: Driver> Lab<'_, D> {
    pub(super) fn enqueue(&mut self) {
        let load = self.scenario.load;
        if self.now > load.until.0 {
            return;
        }
        // An application that cannot reach the database does not enqueue.
        if self.out_until <= self.now {
            self.jobs += 1;
            let queue = match self.database.limits.exist() && self.queues.below(2) == 0 {
                true => 1 + self.queues.below(LIMITED as u64) as usize,
                false => 0,
            };
            self.database.enqueue(self.jobs, queue, self.server.stamp(self.now));
            self.oracle.jobs.enqueued(self.now, self.jobs);
        }
        let wait = -(load.every.0 as f64) * self.load.ln_uniform();
        self.push(self.now + 1 + wait as u64, What::Enqueue);
    }

    /// The machine asks for a statement on the jobs.
    pub(super) fn work_asked(
        &mut self,
        number: u32,
        sent: LocalInstant,
        request: RequestId,
        statement: WorkStatement,
        not_after: LocalInstant,
    ) {
        if let WorkStatement::Claim(claim) = statement {
            self.check_claim(number, claim);
        }
        let (now, period) = (self.now, self.period);
        let host = &mut self.hosts[number as usize];
        let Some(life) = &mut host.life else { return };
        life.work_awaited = Some(request);
        let asking = match statement {
            WorkStatement::Claim(claim) => Some(life.told.asks(sent, claim.limit)),
            _ => None,
        };
        life.work_asks = Some((statement, asking));
        let idle = self.oracle.ring.is_calm(now)
            && self.oracle.jobs.open() == 0
            && now > self.idle_since + 5 * period + 10_000_000_000;
        life.idle_work = if idle { life.idle_work + 1 } else { 0 };
        let (life, count) = (life.number, life.idle_work);
        // What was lost in a storm may be recovered after it; no more.
        if count == IDLE_WORK_MAX && D::PROMISES {
            self.violated(Invariant::IdleStatements, || {
                format!("life {life} sends {statement:?}, the {count}th since there are no jobs")
            });
        }
        self.statements += 1;
        let host = &mut self.hosts[number as usize];
        let Some(here) = &mut host.life else { return };
        here.work_window = match here.work_window {
            (since, count) if now < since + period => (since, count + 1),
            _ => (now, 1),
        };
        // A backlog may be drained as fast as the target serves; what fails may not be repeated so.
        let repeated = !matches!(statement, WorkStatement::Claim(_));
        if here.work_window.1 >= STATEMENTS_MAX && repeated {
            let count = here.work_window.1;
            self.violated(Invariant::Bounded, || {
                format!(
                    "life {life} sends {statement:?}, the {count}th statement on jobs in a period"
                )
            });
            return;
        }
        let stall = std::mem::take(&mut self.hosts[number as usize].next.stall_work);
        if stall > 0 {
            let fault = Fault::StallWork { node: number, lasts: Span(stall) };
            self.disturbed(now + stall, Disturbance::Fault(fault));
            self.push(now + stall, What::WorkLeaves { life, request, statement, not_after });
        } else {
            self.work_leaves(number, request, statement, not_after);
        }
    }

    pub(super) fn work_leaves(
        &mut self,
        number: u32,
        request: RequestId,
        statement: WorkStatement,
        not_after: LocalInstant,
    ) {
        let now = self.now;
        let host = &mut self.hosts[number as usize];
        let Some(life) = &mut host.life else { return };
        if life.work_awaited != Some(request) {
            // Given up before it left.
            return;
        }
        let sent = host.clock.read(now);
        if sent > not_after {
            self.oracle.marks.reach(Mark::DroppedEffect);
            life.awaits_no_more(request, now);
            self.input(number, Input::Failed { request, fate: Fate::NotSent });
            return;
        }
        let life = life.number;
        if let Some(at) = host.work.there.pass(now).arrives {
            self.push(at, What::WorkArrives { life, request, sent, statement });
        }
    }

    pub(super) fn work_arrives(
        &mut self,
        life: u32,
        request: RequestId,
        sent: LocalInstant,
        statement: WorkStatement,
    ) {
        let now = self.now;
        if self.out_until > now {
            return;
        }
        let number = self.lives[life as usize];
        let host = &mut self.hosts[number as usize];
        if host.errors_until > now {
            if let Some(at) = host.work.back.pass(now).arrives {
                self.push(at, What::Failed { life, request });
            }
            return;
        }
        if self.is_deadlocked(number) {
            let host = &mut self.hosts[number as usize];
            if let Some(at) = host.work.back.pass(now + DEADLOCK).arrives {
                self.push(at, What::Failed { life, request });
            }
            return;
        }
        let done = self.database.work(id_of(life), statement, self.server.stamp(now));
        if statement == WorkStatement::Reconcile
            && !done.lost
            && let Some(here) = &self.hosts[number as usize].life
            && here.number == life
        {
            // The list was made when it was sent; what has ended since is on its way.
            self.database.reconcile(id_of(life), &|job, token| {
                here.running.contains(&(job, token)) || here.ending.contains(&(job, token))
            });
        }
        self.trace([3 + u64::from(life) * 8, done.claimed.len() as u64, u64::from(done.lost)]);
        self.notice(&done);
        self.check_departed(life, &done);
        let marks = &mut self.oracle.marks;
        let claimed = !done.claimed.is_empty();
        sometimes!(marks, Mark::LeaseRenewed, statement == WorkStatement::Renew);
        sometimes!(
            marks,
            Mark::ClaimedOutside,
            claimed && matches!(statement, WorkStatement::Claim(_))
        );
        sometimes!(marks, Mark::ClaimCut, done.more);
        sometimes!(marks, Mark::ClaimReleased, matches!(statement, WorkStatement::Release(_)));
        sometimes!(
            marks,
            Mark::LostClaimRecovered,
            claimed && matches!(statement, WorkStatement::Recover(_))
        );
        let served =
            now + self.scenario.database.service.0 + self.scenario.database.commit.0 + self.slow;
        let host = &mut self.hosts[number as usize];
        let passage = host.work.back.pass(served);
        if std::mem::take(&mut host.next.lose_work) {
            self.disturbed(now, Disturbance::Fault(Fault::LoseWork { node: number }));
            return;
        }
        let Some(at) = passage.arrives else { return };
        let answer = WorkAnswer {
            request,
            sent,
            claimed: done.claimed.len() as u32,
            more: done.more,
            kept: done.kept,
            lost: done.lost,
        };
        let claimed = done.claimed;
        self.push(at, What::WorkAnswered { life, answer, claimed });
    }

    /// Whether a statement of this node on the jobs is one that the database undoes.
    fn is_deadlocked(&mut self, number: u32) -> bool {
        let deadlocked = std::mem::take(&mut self.hosts[number as usize].next.deadlock);
        if deadlocked {
            let fault = Fault::Deadlock { node: number };
            self.disturbed(self.now + DEADLOCK, Disturbance::Fault(fault));
            self.oracle.marks.reach(Mark::StatementUndone);
        }
        deadlocked
    }

    pub(super) fn work_answered(
        &mut self,
        number: u32,
        answer: WorkAnswer,
        claimed: &[(u64, Token)],
    ) {
        let host = &mut self.hosts[number as usize];
        let local = host.clock.read(self.now);
        let Some(life) = &mut host.life else { return };
        if life.work_awaited == Some(answer.request) {
            life.work_awaited = None;
            match life.work_asks.take() {
                Some((WorkStatement::Claim(_), Some(asking))) => {
                    let brought = (answer.claimed, answer.more);
                    life.told.answered(local, asking, brought, answer.kept);
                    life.overtake();
                }
                Some((WorkStatement::Recover(_) | WorkStatement::Release(_), _)) => {
                    life.told.was_put_right();
                    life.overtake();
                }
                _ => {}
            }
            self.start_runs(number, claimed);
        }
        self.input(number, Input::WorkAnswer(answer));
    }

    /// Call the target for each of the jobs.
    pub(super) fn start_runs(&mut self, number: u32, claimed: &[(u64, Token)]) {
        let now = self.now;
        for (job, token) in claimed {
            let host = &mut self.hosts[number as usize];
            let (down, capacity) = (host.target_down_until > now, host.plan.capacity);
            let Some(life) = &mut host.life else { return };
            let id = life.number;
            life.running.insert((*job, *token));
            if life.holds() >= capacity {
                life.full_at = now;
            }
            let Oracle { jobs, violations, .. } = &mut self.oracle;
            jobs.runs(now, *job, id, violations);
            self.trace([4 + u64::from(id) * 8, *job, token.0 as u64]);
            let load = self.scenario.load;
            let attempt = self.database.attempt(*job);
            let mut random = Stream::new(self.scenario.seed, &format!("job {job} {attempt}"));
            let fails = random.below(1_000_000) < u64::from(load.fails_ppm);
            let length = (-(load.runs.0 as f64) * random.ln_uniform()) as u64;
            let ending = match (down, fails) {
                (true, _) => Ending::Back,
                (false, true) => Ending::Failed,
                (false, false) => Ending::Succeeded,
            };
            let length = if down { 1_000_000 } else { length.min(60_000_000_000) };
            self.push(now + length, What::RunEnds { life: id, job: *job, token: *token, ending });
            self.seen(number, Seen::Runs { job: *job, lasts: length });
        }
    }

    pub(super) fn run_ends(&mut self, number: u32, job: u64, token: Token, ending: Ending) {
        let now = self.now;
        let host = &mut self.hosts[number as usize];
        let capacity = host.plan.capacity;
        let Some(life) = &mut host.life else { return };
        let id = life.number;
        if life.holds() >= capacity {
            life.full_at = now;
        }
        if !life.running.remove(&(job, token)) {
            return;
        }
        life.ending.insert((job, token));
        self.oracle.jobs.stops(job, id);
        self.end_leaves(number, job, token, ending);
    }

    /// Record how it went, until the database has answered.
    pub(super) fn end_leaves(&mut self, number: u32, job: u64, token: Token, ending: Ending) {
        let now = self.now;
        let host = &mut self.hosts[number as usize];
        let Some(life) = &host.life else { return };
        if !life.ending.contains(&(job, token)) {
            return;
        }
        let life = life.number;
        let sent = host.clock.read(now);
        self.statements += 1;
        let passage = host.work.there.pass(now);
        self.seen(number, Seen::Sent(Sort::End));
        if let Some(at) = passage.arrives {
            self.push(at, What::EndArrives { life, job, token, ending, sent });
        }
        self.push(now + END_AGAIN, What::EndLeaves { life, job, token, ending });
    }

    pub(super) fn end_arrives(
        &mut self,
        life: u32,
        job: u64,
        token: Token,
        ending: Ending,
        sent: LocalInstant,
    ) {
        let now = self.now;
        let number = self.lives[life as usize];
        let host = &mut self.hosts[number as usize];
        if self.out_until > now || host.errors_until > now {
            return;
        }
        if self.is_deadlocked(number) {
            return;
        }
        let done = self.database.end(id_of(life), token, job, ending, self.server.stamp(now));
        self.trace([5 + u64::from(life) * 8, job, u64::from(done.noticed.stale)]);
        self.notice(&done);
        let served = now + self.scenario.database.service.0 + self.scenario.database.commit.0;
        let host = &mut self.hosts[number as usize];
        let passage = host.work.back.pass(served);
        if std::mem::take(&mut host.next.lose_work) {
            self.disturbed(now, Disturbance::Fault(Fault::LoseWork { node: number }));
            return;
        }
        if let Some(at) = passage.arrives {
            self.push(at, What::EndAnswered { life, job, token, sent, lost: done.lost });
        }
    }

    pub(super) fn end_answered(
        &mut self,
        number: u32,
        job: u64,
        token: Token,
        sent: LocalInstant,
        lost: bool,
    ) {
        let host = &mut self.hosts[number as usize];
        let local = host.clock.read(self.now);
        let Some(life) = &mut host.life else { return };
        // One that was declared lost is told so by its next check-in.
        if lost || !life.ending.remove(&(job, token)) {
            return;
        }
        life.told.one_ended(local);
        self.input(number, Input::JobsEnded { jobs: 1, sent });
    }

    /// What a statement did, told to the judge.
    pub(super) fn notice(&mut self, done: &Done) {
        let now = self.now;
        let Oracle { jobs, marks, violations, .. } = &mut self.oracle;
        let noticed = &done.noticed;
        sometimes!(marks, Mark::Biased, noticed.biased);
        sometimes!(marks, Mark::LeaseExtended, noticed.leases_extended);
        sometimes!(marks, Mark::StaleEnd, noticed.stale);
        sometimes!(marks, Mark::RetriedJob, noticed.retried);
        sometimes!(marks, Mark::PlacesTaken, done.kept.until_one_ends);
        sometimes!(marks, Mark::RateReached, done.kept.rate_wait.is_some());
        if !done.done && !done.claimed.is_empty() {
            violations.add(now, Invariant::ClaimsAllowed, || {
                format!("a refused beat claimed {} jobs", done.claimed.len())
            });
        }
        for (job, succeeded) in &noticed.ended {
            jobs.ended(*job, *succeeded, marks);
            self.idle_since = now;
        }
        for node in &noticed.lapsed {
            let life = life_of(*node);
            let host = &self.hosts[self.lives[life as usize] as usize];
            // What a server that took over lacks, it may take to be held still by a node that has not heard of it, and that
            // renews nothing for what it has ended.
            let timeline = self.database.identity.timeline;
            let here = host.life.as_ref().filter(|here| here.number == life);
            let unaware = here.is_none_or(|here| here.heard_timeline != timeline);
            let excused = unaware || host.excused_until > now || !D::PROMISES;
            jobs.lapsed(now, life, excused, marks, violations);
        }
        if !noticed.lapsed.is_empty() {
            self.disturbed(now, Disturbance::Reborn);
        }
    }

    /// A node claims only what it may.
    pub(super) fn check_claim(&mut self, number: u32, claim: Claim) {
        let host = &self.hosts[number as usize];
        let Some(life) = &host.life else { return };
        let (id, holds, capacity) = (life.number, life.holds(), host.plan.capacity);
        let Oracle { jobs, violations, .. } = &mut self.oracle;
        if D::PROMISES {
            jobs.claimed(self.now, id, claim.token, violations);
        }
        let why = if life.draining {
            "while it leaves"
        } else if !life.target_told {
            "while its target is away"
        } else if holds + claim.limit > capacity {
            "beyond its capacity"
        } else {
            return;
        };
        let limit = claim.limit;
        self.violated(Invariant::ClaimsAllowed, || {
            format!("life {id}, which holds {holds} of {capacity}, claims {limit} jobs {why}")
        });
    }

    /// Nothing is given to a node that has left: it waited until it knew of all its claims what they came to. (A server that takes
    /// over with an older state does not know that a claim is barred.)
    pub(super) fn check_departed(&mut self, life: u32, done: &Done) {
        let timeline = self.database.identity.timeline;
        if !done.claimed.is_empty() && self.departed.get(&life) == Some(&timeline) && D::PROMISES {
            let many = done.claimed.len();
            self.violated(Invariant::ClaimsAllowed, || {
                format!("life {life}, which has left, claims {many} jobs")
            });
        }
    }

    /// A node that goes in good order leaves no job behind that is its own.
    pub(super) fn departs(&mut self, number: u32) {
        let Some(life) = &self.hosts[number as usize].life else { return };
        let (id, born) = (life.number, life.timeline);
        let timeline = self.database.identity.timeline;
        self.departed.insert(id, timeline);
        let left = self.database.held_by(id_of(id));
        if left > 0 && born == timeline && D::PROMISES {
            self.violated(Invariant::ClaimsAllowed, || {
                format!("life {id} goes and leaves {left} jobs that nobody else may run")
            });
        }
    }

    /// What a machine counts as its own is what it has; and when nothing is on its way it can tell.
    pub(super) fn check_counts(&mut self, number: u32) {
        let Some(life) = &self.hosts[number as usize].life else { return };
        let (id, holds, counted) = (life.number, life.holds(), life.machine.held());
        // However calm the farm, one statement on the jobs may be held up on the road until it is given up.
        let retries = life.may_wait_to_retry(self.now);
        let waits = life.turn_awaited.is_some() || life.work_awaited.is_some() || life.draining;
        let waits = waits || retries;
        if D::PROMISES && !waits && self.oracle.ring.is_calm(self.now) {
            let knows = counted.is_some() && life.machine.next_turn().is_some();
            if !knows {
                self.violated(Invariant::Accounting, || {
                    format!("life {id} cannot tell in calm what it holds, or when its turn is")
                });
            }
        }
        if let Some(counted) = counted
            && counted != holds
            && D::PROMISES
        {
            self.violated(Invariant::Accounting, || {
                format!("life {id} counts {counted} jobs as its own and has {holds}")
            });
        }
    }

    /// Jobs that should have been run by the end.
    pub(super) fn check_overdue(&mut self) {
        let now = self.now;
        let grace = OVERDUE + OVERDUE_PERIODS * self.period;
        let free = self.hosts.iter().any(|host| {
            let able = host.target_down_until + grace < now
                && host.errors_until + grace < now
                && host.excused_until < now
                && !host.is_paused(now);
            let capacity = host.plan.capacity;
            let free = |life: &Life<D>| {
                !life.draining && life.holds() < capacity && life.full_at + grace / 2 < now
            };
            able && host.life.as_ref().is_some_and(free)
        });
        let calm = self.out_until + grace < now && self.oracle.ring.is_calm(now);
        if !free || !calm {
            return;
        }
        let before = self.server.stamp(now.saturating_sub(grace));
        let (mut lost, forsaken) = self.database.overdue(before, |node, job, token| {
            let life = life_of(node);
            let host = &self.hosts[self.lives[life as usize] as usize];
            host.life.as_ref().is_some_and(|here| {
                // A claim whose answer was lost is recovered by the next try, and the machine knows that one is missing.
                let recovers = here.may_wait_to_retry(now) && here.machine.held().is_none();
                here.number == life
                    && (recovers
                        || here.running.contains(&(job, token))
                        || here.ending.contains(&(job, token))
                        || here.turn_awaited.is_some()
                        || here.work_awaited.is_some())
            })
        });
        lost.extend(forsaken);
        let Oracle { jobs, violations, .. } = &mut self.oracle;
        jobs.finish(now, &lost, violations);
    }
}
