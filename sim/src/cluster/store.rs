//! The store leaf: the production store on another machine, over connections that can break, stall and lie dead.
//! Decides when a connection is used again; what is asked of the store is the shell's.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex;
use turmoil::net::TcpStream;
use turnwise_engine::{
    Change, Claim, Fate, LocalInstant, NodeId, Period, ServerIdentity, ServerInstant, Slot, Token,
    TurnKind, TurnRow,
};
use turnwise_node::batch::BatchId;
use turnwise_node::job::{Attempts, End, EndOutcome, JobFilter, JobId, JobView, NewJob, SlowDown};
use turnwise_node::store::{
    BeatView, Callbacks, CheckIn, Claimed, DrainAnswer, Fire, LastAttempt, Look, NewSchedule,
    NodeReport, NodeView, PausedQueue, Prune, Pruned, QueueOrders, QueuePolicy, Queues,
    Registration, RunView, ScheduleView, Schedules, Settled, SlowedQueue, Store, StoreError, Tally,
    TargetView, TurnReply, TurnRequest, Turns, Views, Word,
};

use super::all_jobs;
use super::database::{Session, at_once, broken};
use super::mail::{DATABASE, PORT, What};
use super::passage::Posted;
use super::stage::Process;

/// The store, as a node sees it.
#[derive(Clone)]
pub struct RemoteStore {
    process: Process,
    /// The connection for all but the turn row, when it is not in use.
    idle: Arc<Mutex<Option<Line>>>,
}

/// The connection that is kept for the turn row.
pub struct RemoteTurns {
    line: Line,
}

/// A connection.
struct Line {
    process: Process,
    stream: TcpStream,
}

impl RemoteStore {
    pub(super) fn new(process: Process) -> Self {
        Self { process, idle: Arc::default() }
    }

    /// Have the database do something, over the one connection for it. One that is given up in the middle is
    /// closed.
    async fn ask<T: Send + 'static>(
        &self,
        what: What,
        work: impl FnOnce(&mut Session) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let mut place = self.idle.lock().await;
        let mut line = match place.take() {
            Some(line) => line,
            None => Line::open(self.process.clone()).await?,
        };
        let answer = line.ask(what, work).await;
        if !matches!(answer, Err(StoreError::Unreachable { .. })) {
            *place = Some(line);
        }
        answer
    }
}

impl Line {
    /// Connect, and exchange a greeting.
    async fn open(process: Process) -> Result<Self, StoreError> {
        let stream = TcpStream::connect((DATABASE, PORT))
            .await
            .map_err(|error| broken(&error, Fate::NotSent))?;
        let mut line = Self { process, stream };
        line.ask(What::Hello, |_| Ok(())).await.map_err(|error| match error {
            StoreError::Unreachable { reason, .. } => broken(&reason, Fate::NotSent),
            other => other,
        })?;
        Ok(line)
    }

    async fn ask<T: Send + 'static>(
        &mut self,
        what: What,
        work: impl FnOnce(&mut Session) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let work = Box::new(move |session: &mut Session| Box::new(work(session)) as _);
        let farm = &self.process.farm;
        let posted = farm.look().post(self.process.host, what, work);
        let number = match posted {
            Posted::As(number) => number,
            Posted::Lost => std::future::pending().await,
            Posted::Reset => return Err(broken(&"the connection was reset", Fate::Unknown)),
        };
        let lost = |error| broken(&error, Fate::Unknown);
        let mut frame = number.to_be_bytes();
        self.stream.write_all(&frame).await.map_err(lost)?;
        self.stream.read_exact(&mut frame).await.map_err(lost)?;
        let parcel = farm.look().mail.take(u64::from_be_bytes(frame));
        match parcel.map(|parcel| (parcel.refused, parcel.answer)) {
            Some((true, _)) => Err(StoreError::Failed {
                database: DATABASE.to_owned(),
                reason: "it refuses everything for now".to_owned(),
                may_pass: true,
            }),
            Some((false, Some(answer))) => match answer.downcast::<Result<T, StoreError>>() {
                Ok(answer) => *answer,
                Err(_) => Err(broken(&"the answer is another request's", Fate::Unknown)),
            },
            _ => Err(broken(&"the answer is empty", Fate::Unknown)),
        }
    }
}

impl Turns for RemoteTurns {
    async fn execute(
        &mut self,
        request: &TurnRequest<'_>,
        clock: &(dyn Fn() -> LocalInstant + Sync),
    ) -> Result<TurnReply, StoreError> {
        self.line.process.farm.look().turn_handed_over(self.line.process.host);
        // A process may be stopped between a decision and its effect.
        self.line.process.goes_on().await;
        let sent = clock();
        let (host, statement) = (self.line.process.host, request.statement.clone());
        self.line.process.farm.look().turn_leaves(host, &statement);
        let what = match statement.kind {
            TurnKind::Change { .. } => What::Change,
            TurnKind::Read | TurnKind::Beat { .. } => What::Turn,
        };
        let (queues, report) = (request.queues.clone(), request.report);
        let work = move |session: &mut Session| {
            let reply = session.turn(&statement, &queues, report)?;
            let lost = session.lost_nodes(&statement, &reply)?;
            session.durable = what == What::Change || !reply.jobs.is_empty();
            session.farm.look().turn_arrived(host, &statement, &reply, &lost);
            session.farm.look().within_limits(&session.store, &reply.jobs, &reply.kept);
            Ok(reply)
        };
        let mut reply: TurnReply = self.line.ask(what, work).await?;
        reply.exchange.sent = sent;
        reply.exchange.received = clock();
        reply.exchange.resolution = self.line.process.farm.look().server.look().0.resolution();
        Ok(reply)
    }
}

impl Store for RemoteStore {
    type Turns = RemoteTurns;

    async fn turns(&self) -> Result<RemoteTurns, StoreError> {
        Line::open(self.process.clone()).await.map(|line| RemoteTurns { line })
    }

    async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        self.ask(What::Life, |session| at_once(session.store.migrate())).await
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        self.ask(What::Life, |session| at_once(session.store.check_schema())).await
    }

    async fn agree_period(&self, wanted: Option<Period>) -> Result<Period, StoreError> {
        self.ask(What::Life, move |session| at_once(session.store.agree_period(wanted))).await
    }

    async fn register(&self, node: &Registration) -> Result<(), StoreError> {
        let node = node.clone();
        self.ask(What::Life, move |session| at_once(session.store.register(&node))).await
    }

    async fn deregister(&self, node: NodeId) -> Result<(), StoreError> {
        self.ask(What::Life, move |session| at_once(session.store.deregister(node))).await
    }

    async fn drain(&self, node: NodeId) -> Result<Option<DrainAnswer>, StoreError> {
        self.ask(What::Life, move |session| at_once(session.store.drain(node))).await
    }

    async fn tell_targets(&self, node: NodeId, targets: &[TargetView]) -> Result<(), StoreError> {
        let targets = targets.to_vec();
        self.ask(What::Life, move |session| at_once(session.store.tell_targets(node, &targets)))
            .await
    }

    async fn renew(&self, node: NodeId, report: &NodeReport) -> Result<CheckIn, StoreError> {
        let report = *report;
        self.process.farm.look().work_handed_over(node);
        self.ask(What::Work, move |session| {
            let done = at_once(session.store.renew(node, &report))?;
            session.farm.look().renewed(node);
            Ok(done)
        })
        .await
    }

    async fn claim(
        &self,
        node: NodeId,
        claim: Claim,
        queues: &Queues,
        report: &NodeReport,
    ) -> Result<Claimed, StoreError> {
        let (queues, report) = (queues.clone(), *report);
        self.process.farm.look().work_handed_over(node);
        self.ask(What::Work, move |session| {
            let done = at_once(session.store.claim(node, claim, &queues, &report))?;
            session.farm.look().claimed_outside(node, &done);
            session.farm.look().within_limits(&session.store, &done.jobs, &done.kept);
            Ok(done)
        })
        .await
    }

    async fn recover(
        &self,
        node: NodeId,
        token: Token,
        report: &NodeReport,
    ) -> Result<Claimed, StoreError> {
        let report = *report;
        self.process.farm.look().work_handed_over(node);
        self.ask(What::Work, move |session| {
            let done = at_once(session.store.recover(node, token, &report))?;
            session.farm.look().recovered(node, &done);
            Ok(done)
        })
        .await
    }

    async fn release(
        &self,
        node: NodeId,
        token: Token,
        report: &NodeReport,
    ) -> Result<CheckIn, StoreError> {
        let report = *report;
        self.process.farm.look().work_handed_over(node);
        self.ask(What::Work, move |session| {
            let done = at_once(session.store.release(node, token, &report))?;
            session.farm.look().released();
            Ok(done)
        })
        .await
    }

    async fn reconcile(
        &self,
        node: NodeId,
        holds: &[(JobId, Token)],
        last: Token,
        report: &NodeReport,
    ) -> Result<Claimed, StoreError> {
        let (holds, report) = (holds.to_vec(), *report);
        self.process.farm.look().work_handed_over(node);
        // Whoever is at the other end of an old connection need not be the server that answers now.
        drop(self.idle.lock().await.take());
        self.ask(What::Work, move |session| {
            at_once(session.store.reconcile(node, &holds, last, &report))
        })
        .await
    }

    async fn end(
        &self,
        node: NodeId,
        ends: &[End],
    ) -> Result<(Vec<EndOutcome>, CheckIn), StoreError> {
        let ends = ends.to_vec();
        self.ask(What::Work, move |session| {
            let done = at_once(session.store.end(node, &ends))?;
            session.farm.look().ended(node, &ends, &done.0);
            Ok(done)
        })
        .await
    }

    async fn enqueue(&self, jobs: &[NewJob]) -> Result<Vec<JobId>, StoreError> {
        let jobs = jobs.to_vec();
        self.ask(What::Work, move |session| at_once(session.store.enqueue(&jobs))).await
    }

    async fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobView>, StoreError> {
        let filter = filter.clone();
        self.ask(What::Work, move |session| at_once(session.store.jobs(&filter))).await
    }

    async fn job(&self, id: JobId) -> Result<Option<(JobView, Attempts)>, StoreError> {
        self.ask(What::Work, move |session| at_once(session.store.job(id))).await
    }

    async fn retry(&self, id: JobId) -> Result<Option<bool>, StoreError> {
        self.ask(What::Work, move |session| at_once(session.store.retry(id))).await
    }

    async fn cancelled(
        &self,
        node: NodeId,
        held: &[(JobId, Token)],
    ) -> Result<Vec<(JobId, Token)>, StoreError> {
        let held = held.to_vec();
        self.ask(What::Work, move |session| {
            session.durable = false;
            at_once(session.store.cancelled(node, &held))
        })
        .await
    }

    async fn secret(&self, name: &str, offered: &str) -> Result<String, StoreError> {
        let (name, offered) = (name.to_owned(), offered.to_owned());
        self.ask(What::Life, move |session| at_once(session.store.secret(&name, &offered))).await
    }

    async fn cancel(&self, id: JobId) -> Result<Option<bool>, StoreError> {
        self.ask(What::Work, move |session| at_once(session.store.cancel(id))).await
    }

    async fn due_schedules(
        &self,
        until: ServerInstant,
    ) -> Result<(ServerInstant, Vec<ScheduleView>), StoreError> {
        self.ask(What::Work, move |session| at_once(session.store.due_schedules(until))).await
    }

    async fn fire(&self, fire: &Fire) -> Result<bool, StoreError> {
        let fire = fire.clone();
        self.ask(What::Work, move |session| {
            let done = at_once(session.store.fire(&fire))?;
            if done {
                let has_job = |job| at_once(session.store.job(job)).is_ok_and(|job| job.is_some());
                let jobs = fire.times.iter().map(|(_, job)| has_job(*job)).collect::<Vec<_>>();
                session.farm.look().fired(&fire, &jobs);
            }
            Ok(done)
        })
        .await
    }

    async fn due_batches(&self, until: ServerInstant) -> Result<Vec<BatchId>, StoreError> {
        self.ask(What::Work, move |session| at_once(session.store.due_batches(until))).await
    }

    async fn slow_down(&self, what: &SlowDown) -> Result<(), StoreError> {
        let what = what.clone();
        self.ask(What::Work, move |session| {
            at_once(session.store.slow_down(&what))?;
            session.farm.look().slowed_down(&what);
            Ok(())
        })
        .await
    }

    async fn settle(&self, batches: &[BatchId]) -> Result<Settled, StoreError> {
        let batches = batches.to_vec();
        self.ask(What::Work, move |session| {
            let done = at_once(session.store.settle(&batches))?;
            session.farm.look().settled(&session.store, &done);
            Ok(done)
        })
        .await
    }

    async fn prune(&self, prune: &Prune) -> Result<Pruned, StoreError> {
        let (prune, host) = (prune.clone(), self.process.host);
        self.ask(What::Work, move |session| {
            let mut jobs = all_jobs(&session.store);
            let done = at_once(session.store.prune(&prune))?;
            let (of, left) = (jobs.len(), all_jobs(&session.store));
            jobs.retain(|job| !left.iter().any(|other| other.id == job.id));
            session.durable = false;
            session.farm.look().removed(host, of, &jobs);
            Ok(done)
        })
        .await
    }

    fn apart(&self) -> Self {
        Self::new(self.process.clone())
    }

    async fn nodes(&self) -> Result<Vec<NodeView>, StoreError> {
        self.ask(What::Work, |session| at_once(session.store.nodes())).await
    }

    async fn look(&self) -> Result<Look, StoreError> {
        self.ask(What::Work, |session| at_once(session.store.look())).await
    }

    async fn stamp(&self) -> Result<(Slot, TurnRow, ServerIdentity), StoreError> {
        self.ask(What::Work, |session| at_once(session.store.stamp())).await
    }

    async fn change(&self, change: &Change, identity: ServerIdentity) -> Result<bool, StoreError> {
        let change = change.clone();
        self.ask(What::Work, move |session| at_once(session.store.change(&change, identity))).await
    }
}

impl Views for RemoteStore {
    async fn beats(&self, after: Slot, limit: u32) -> Result<Vec<BeatView>, StoreError> {
        self.ask(What::Work, move |session| at_once(session.store.beats(after, limit))).await
    }

    async fn runs(&self, since: ServerInstant, limit: u32) -> Result<Vec<RunView>, StoreError> {
        self.ask(What::Work, move |session| at_once(session.store.runs(since, limit))).await
    }

    async fn tally(&self, most: u32) -> Result<Tally, StoreError> {
        self.ask(What::Work, move |session| at_once(session.store.tally(most))).await
    }

    async fn floor(&self, before: Option<JobId>, jobs: u32) -> Result<Option<JobId>, StoreError> {
        self.ask(What::Work, move |session| at_once(session.store.floor(before, jobs))).await
    }
}

impl QueueOrders for RemoteStore {
    async fn pause(&self, queue: &str) -> Result<bool, StoreError> {
        let queue = queue.to_owned();
        self.ask(What::Work, move |session| at_once(session.store.pause(&queue))).await
    }

    async fn resume(&self, queue: &str) -> Result<bool, StoreError> {
        let queue = queue.to_owned();
        self.ask(What::Work, move |session| at_once(session.store.resume(&queue))).await
    }

    async fn put_policy(&self, queue: &str, policy: &QueuePolicy) -> Result<(), StoreError> {
        let (queue, policy) = (queue.to_owned(), policy.clone());
        self.ask(What::Work, move |session| at_once(session.store.put_policy(&queue, &policy)))
            .await
    }

    async fn policies(&self) -> Result<Vec<(String, QueuePolicy)>, StoreError> {
        self.ask(What::Work, |session| at_once(session.store.policies())).await
    }

    async fn paused(&self) -> Result<Vec<PausedQueue>, StoreError> {
        self.ask(What::Work, |session| at_once(session.store.paused())).await
    }

    async fn slowed(&self) -> Result<Vec<SlowedQueue>, StoreError> {
        self.ask(What::Work, |session| at_once(session.store.slowed())).await
    }
}

impl Callbacks for RemoteStore {
    async fn last_attempt(&self, job: JobId) -> Result<Option<LastAttempt>, StoreError> {
        self.ask(What::Work, move |session| at_once(session.store.last_attempt(job))).await
    }

    async fn hear(
        &self,
        job: JobId,
        claim: (NodeId, Token),
        word: &Word,
    ) -> Result<bool, StoreError> {
        let word = word.clone();
        self.ask(What::Work, move |session| at_once(session.store.hear(job, claim, &word))).await
    }
}

impl Schedules for RemoteStore {
    async fn schedules(&self) -> Result<Vec<ScheduleView>, StoreError> {
        self.ask(What::Work, |session| at_once(session.store.schedules())).await
    }

    async fn put_schedule(
        &self,
        schedule: &NewSchedule,
        next: Option<i64>,
    ) -> Result<bool, StoreError> {
        let schedule = schedule.clone();
        self.ask(What::Work, move |session| at_once(session.store.put_schedule(&schedule, next)))
            .await
    }

    async fn remove_schedule(&self, name: &str) -> Result<bool, StoreError> {
        let name = name.to_owned();
        self.ask(What::Work, move |session| at_once(session.store.remove_schedule(&name))).await
    }

    async fn pause_schedule(
        &self,
        name: &str,
        pause: bool,
        next: Option<i64>,
    ) -> Result<bool, StoreError> {
        let name = name.to_owned();
        self.ask(What::Work, move |session| {
            at_once(session.store.pause_schedule(&name, pause, next))
        })
        .await
    }
}
