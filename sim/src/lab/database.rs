//! Decides what the modelled database does with a statement: the turn row by the engine's own reference, the
//! nodes and the jobs as the stores' SQL does it (`node/src/store/sqlite` is the pattern; the contract suite
//! there is what ties the two together).

use std::collections::{BTreeMap, BTreeSet};

use turnwise_engine::{
    Bug, Change, Claim, Kept, NodeId, Period, Sabotage, ServerIdentity, ServerInstant, Slot, Token,
    TurnKind, TurnRow, TurnStatement, WorkStatement, lease,
};

use super::limits::Limits;
use crate::scenario::{Load, Orders};

/// How much earlier than its time a beat may claim a job that is due on its boundary.
const EARLY_NANOS: i64 = 5_000_000;
/// Between two beats that have one missed slot between them lie so many. A longer silence is the database's, not
/// the nodes'.
const MISSED_SLOTS: i64 = 2;
/// The first wait of a job that failed; it doubles, up to sixteen times.
const RETRY_NANOS: i64 = 500_000_000;

/// The database.
#[derive(Clone, Debug)]
pub(super) struct Database {
    pub(super) row: TurnRow,
    pub(super) identity: ServerIdentity,
    beaten_at: Option<ServerInstant>,
    nodes: BTreeMap<NodeId, NodeRow>,
    /// Waiting jobs by the time that they are due at.
    waiting: BTreeSet<(i64, u64)>,
    jobs: BTreeMap<u64, Job>,
    max_attempts: u32,
    /// The most that a claim brings; zero: what it asks for.
    jobs_a_claim: usize,
    pub(super) limits: Limits,
}

#[derive(Clone, Copy, Debug)]
struct NodeRow {
    lease_until: ServerInstant,
    lost: bool,
    /// Tokens below this claim nothing.
    floor: Token,
}

#[derive(Clone, Copy, Debug)]
struct Job {
    attempt: u32,
    due: i64,
    queue: usize,
    running: Option<(NodeId, Token)>,
}

/// What a statement came to.
#[derive(Clone, Debug, Default)]
pub(super) struct Done {
    pub(super) now: Option<Slot>,
    pub(super) done: bool,
    /// Jobs handed out, each with the token that it runs under.
    pub(super) claimed: Vec<(u64, Token)>,
    /// There may be more than were handed out, though fewer were than were asked for.
    pub(super) more: bool,
    /// What limits keep back.
    pub(super) kept: Kept,
    pub(super) lost: bool,
    /// The commit must be durable.
    pub(super) durable: bool,
    pub(super) noticed: Noticed,
}

/// What the judge wants to know of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Noticed {
    /// Nodes that were declared lost.
    pub(super) lapsed: Vec<NodeId>,
    /// Jobs that ended for good, and whether well.
    pub(super) ended: Vec<(u64, bool)>,
    pub(super) leases_extended: bool,
    pub(super) biased: bool,
    pub(super) stale: bool,
    pub(super) retried: bool,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Succeeded,
    Failed,
    /// Handed back, not spent.
    Back,
}

impl Database {
    pub(super) fn new(period: Period, load: &Load, orders: &Orders) -> Self {
        Self {
            row: TurnRow::new(period),
            identity: ServerIdentity { started: 1, timeline: 1 },
            beaten_at: None,
            nodes: BTreeMap::new(),
            waiting: BTreeSet::new(),
            jobs: BTreeMap::new(),
            max_attempts: load.max_attempts,
            jobs_a_claim: load.jobs_a_claim as usize,
            limits: Limits::new(orders),
        }
    }

    pub(super) fn register(&mut self, node: NodeId, at: ServerInstant) {
        let lease_until = self.lease_end(at);
        self.nodes.insert(node, NodeRow { lease_until, lost: false, floor: Token(0) });
    }

    /// Of a queue, which has limits unless it is number 0.
    pub(super) fn enqueue(&mut self, job: u64, queue: usize, at: ServerInstant) {
        let due = at.as_nanos();
        self.waiting.insert((due, job));
        self.jobs.insert(job, Job { attempt: 0, due, queue, running: None });
    }

    /// Somebody who is no node changes the period: not while an earlier change is pending.
    pub(super) fn change_period(&mut self, to: Period, at: ServerInstant) {
        let now = self.row.stamp(at, None, None);
        if let Some(change) = Change::period(&self.row, to, now) {
            self.row.change(now, None, &change);
        }
    }

    /// The jobs that have not ended.
    pub(super) fn open(&self) -> impl Iterator<Item = u64> + '_ {
        self.jobs.keys().copied()
    }

    pub(super) fn turn<S: Sabotage>(
        &mut self,
        statement: &TurnStatement,
        at: ServerInstant,
    ) -> Done {
        let node = statement.node;
        let bias = self.row.cadence.bias;
        let now = self.row.stamp_with::<S>(at, Some(node), statement.believed);
        let mut done = Done { now: Some(now), ..Done::default() };
        done.noticed.biased = self.row.cadence.bias != bias;
        let floor = self.check_in(node, at);
        done.lost = floor.is_none();
        done.done = match &statement.kind {
            TurnKind::Read => true,
            TurnKind::Beat { claim } => {
                let silence = now - self.row.slot;
                let accepted = self.row.beat_with::<S>(now);
                if accepted {
                    self.look_after(at, silence, &mut done.noticed);
                    if let (Some(claim), Some(floor)) = (claim, floor)
                        && claim.token >= floor
                    {
                        let boundary = self.row.cadence.boundary(now);
                        let due = at.max(boundary.min(at.offset(EARLY_NANOS)));
                        self.take(node, *claim, due, at, &mut done);
                    }
                    self.beaten_at = Some(at);
                } else if let (Some(claim), true) = (claim, S::plants(Bug::RefusedBeatClaims)) {
                    self.take(node, *claim, at, at, &mut done);
                }
                done.durable = !done.claimed.is_empty() || !done.noticed.lapsed.is_empty();
                accepted
            }
            TurnKind::Change { change, identity } => {
                done.durable = true;
                *identity == self.identity && self.row.change_with::<S>(now, Some(node), change)
            }
        };
        done
    }

    pub(super) fn work(
        &mut self,
        node: NodeId,
        statement: WorkStatement,
        at: ServerInstant,
    ) -> Done {
        let floor = self.check_in(node, at);
        let mut done = Done { done: true, lost: floor.is_none(), durable: true, ..Done::default() };
        let Some(floor) = floor else { return done };
        match statement {
            WorkStatement::Renew => {}
            WorkStatement::Claim(claim) if claim.token >= floor => {
                self.take(node, claim, at, at, &mut done);
            }
            WorkStatement::Claim(_) | WorkStatement::Reconcile => {}
            WorkStatement::Release(token) => {
                self.bar(node, token);
                self.reconcile(node, &|_, under| under != token);
            }
            WorkStatement::Recover(token) => {
                self.bar(node, token);
                done.claimed = self
                    .jobs
                    .iter()
                    .filter(|(_, job)| job.running == Some((node, token)))
                    .map(|(id, _)| (*id, token))
                    .collect();
            }
        }
        done
    }

    /// No claim under `token`, or an earlier one, takes anything any more.
    fn bar(&mut self, node: NodeId, token: Token) {
        if let Some(row) = self.nodes.get_mut(&node) {
            row.floor = row.floor.max(Token(token.0 + 1));
        }
    }

    /// Which attempt of a job it is, from 1; 0: there is none.
    pub(super) fn attempt(&self, job: u64) -> u32 {
        self.jobs.get(&job).map_or(0, |job| job.attempt)
    }

    /// What the node does not run of what stands under it goes back to the queue.
    pub(super) fn reconcile(&mut self, node: NodeId, runs: &dyn Fn(u64, Token) -> bool) {
        for (id, job) in &mut self.jobs {
            if let Some((holder, token)) = job.running
                && holder == node
                && !runs(*id, token)
            {
                // Handed back unseen: the attempt is not spent.
                job.attempt -= 1;
                job.running = None;
                self.waiting.insert((job.due, *id));
            }
        }
    }

    /// End attempts. Only the claim that a job is running under can end it.
    pub(super) fn end(
        &mut self,
        node: NodeId,
        token: Token,
        job: u64,
        ending: Ending,
        at: ServerInstant,
    ) -> Done {
        let alive = self.check_in(node, at).is_some();
        let mut done = Done { done: true, lost: !alive, durable: true, ..Done::default() };
        match self.jobs.get_mut(&job) {
            Some(found) if alive && found.running == Some((node, token)) => {
                found.running = None;
                match ending {
                    Ending::Succeeded => {
                        self.jobs.remove(&job);
                        done.noticed.ended.push((job, true));
                    }
                    Ending::Failed if found.attempt >= self.max_attempts => {
                        self.jobs.remove(&job);
                        done.noticed.ended.push((job, false));
                    }
                    Ending::Failed => {
                        done.noticed.retried = true;
                        found.due = at.as_nanos() + (RETRY_NANOS << (found.attempt - 1).min(4));
                        self.waiting.insert((found.due, job));
                    }
                    Ending::Back => {
                        found.attempt -= 1;
                        self.waiting.insert((found.due, job));
                    }
                }
            }
            _ => done.noticed.stale = true,
        }
        done
    }

    /// A server that does not hold the last commits takes over with `older`'s state.
    pub(super) fn fail_over(&mut self, older: Self) {
        let identity = self.identity;
        *self = older;
        self.identity =
            ServerIdentity { started: identity.started + 1, timeline: identity.timeline + 1 };
    }

    /// The server starts again.
    pub(super) fn restart(&mut self) {
        self.identity.started += 1;
    }

    /// The node's row: none when it is lost or unknown, else the lowest token that may claim.
    fn check_in(&mut self, node: NodeId, at: ServerInstant) -> Option<Token> {
        let lease_until = self.lease_end(at);
        let row = self.nodes.get_mut(&node).filter(|row| !row.lost)?;
        row.lease_until = lease_until;
        Some(row.floor)
    }

    fn lease_end(&self, at: ServerInstant) -> ServerInstant {
        at.offset(lease(self.row.cadence.period).as_nanos() as i64)
    }

    /// What an accepted beat does before it claims, for steps of the clock, outages and lost nodes.
    fn look_after(&mut self, at: ServerInstant, silence: i64, noticed: &mut Noticed) {
        let end = self.lease_end(at);
        if let Some(beaten_at) = self.beaten_at {
            if at < beaten_at {
                // The clock was set back: what was due stays due, and every lease begins anew. By the last beat, which is
                // of the clock before, nobody can tell who has checked in since, or for how long the database was away.
                for row in self.nodes.values_mut() {
                    row.lease_until = end;
                }
                let back = beaten_at.nanos_from(at);
                let waiting = std::mem::take(&mut self.waiting);
                self.waiting = waiting.into_iter().map(|(due, job)| (due - back, job)).collect();
                for job in self.jobs.values_mut() {
                    job.due -= back;
                }
            }
            if silence == MISSED_SLOTS {
                // A living node may not have reached the database in the missed slot either: it counts for no
                // lease.
                let period = self.row.cadence.period.as_nanos();
                for row in self.nodes.values_mut().filter(|row| row.lease_until >= beaten_at) {
                    row.lease_until = row.lease_until.offset(period);
                }
            }
            if silence > MISSED_SLOTS {
                // Nobody beat for a while: the database was away, not the nodes. (Who holds jobs and is not lost had its
                // lease at the last beat, whatever the clock says since.)
                for row in self.nodes.values_mut() {
                    noticed.leases_extended |= row.lease_until >= beaten_at;
                    row.lease_until = end;
                }
            }
        }
        self.rescue(at, noticed);
    }

    /// Declare lost the nodes that hold jobs and whose lease has run out, and free their jobs.
    fn rescue(&mut self, at: ServerInstant, noticed: &mut Noticed) {
        let holders: BTreeSet<NodeId> =
            self.jobs.values().filter_map(|job| job.running).map(|(node, _)| node).collect();
        for node in holders {
            match self.nodes.get_mut(&node) {
                Some(row) if row.lost || row.lease_until >= at => continue,
                Some(row) => {
                    row.lost = true;
                    noticed.lapsed.push(node);
                }
                None => noticed.lapsed.push(node),
            }
            // A rescued attempt is spent, so that a job which kills its host ends dead.
            let (waiting, max_attempts) = (&mut self.waiting, self.max_attempts);
            self.jobs.retain(|id, job| {
                if job.running.is_none_or(|(holder, _)| holder != node) {
                    return true;
                }
                if job.attempt >= max_attempts {
                    noticed.ended.push((*id, false));
                    return false;
                }
                job.running = None;
                job.due = job.due.min(at.as_nanos());
                waiting.insert((job.due, *id));
                true
            });
        }
    }

    /// How many jobs run under a node.
    pub(super) fn held_by(&self, node: NodeId) -> usize {
        let holds = |job: &&Job| job.running.is_some_and(|(holder, _)| holder == node);
        self.jobs.values().filter(holds).count()
    }

    /// Jobs that are due before `before` and not kept back by limits, or run under a claim that `holds` denies.
    pub(super) fn overdue(
        &self,
        before: ServerInstant,
        holds: impl Fn(NodeId, u64, Token) -> bool,
    ) -> (Vec<u64>, Vec<u64>) {
        let mut waiting = Vec::new();
        let mut forsaken = Vec::new();
        for (id, job) in &self.jobs {
            match job.running {
                None if job.due < before.as_nanos() => {
                    let same = |other: &&Job| other.queue == job.queue && other.running.is_some();
                    let running = self.jobs.values().filter(same).count() as u32;
                    if !self.limits.keep_back(job.queue, before, running) {
                        waiting.push(*id);
                    }
                }
                Some((node, token)) if !holds(node, *id, token) => forsaken.push(*id),
                _ => {}
            }
        }
        (waiting, forsaken)
    }

    /// Jobs that are due, within the limits of their queues; whether there are more than one claim brings.
    fn take(
        &mut self,
        node: NodeId,
        claim: Claim,
        due: ServerInstant,
        at: ServerInstant,
        done: &mut Done,
    ) {
        let limit = claim.limit as usize;
        let most = if self.jobs_a_claim == 0 { limit } else { limit.min(self.jobs_a_claim) };
        let running = self.jobs.values().filter(|job| job.running.is_some() && self.limits.exist());
        let mut within = self.limits.within(at, running.map(|job| job.queue));
        let mut taken = Vec::new();
        for waiting in self.waiting.range(..=(due.as_nanos(), u64::MAX)) {
            let queue = self.jobs.get(&waiting.1).map_or(0, |job| job.queue);
            if taken.len() == limit {
                break;
            }
            if !within.has_room(queue) {
                continue;
            }
            if taken.len() == most {
                done.more = true;
                break;
            }
            within.take(queue);
            taken.push(*waiting);
        }
        done.kept = within.enter(&mut self.limits);
        for waiting in taken {
            self.waiting.remove(&waiting);
            if let Some(job) = self.jobs.get_mut(&waiting.1) {
                job.attempt += 1;
                job.running = Some((node, claim.token));
                done.claimed.push((waiting.1, claim.token));
            }
        }
    }
}
