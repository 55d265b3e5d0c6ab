//! The store that a URL names. Decides which implementation that is and hands everything on to it.

use turnwise_engine::{
    Change, Claim, LocalInstant, NodeId, Period, ServerIdentity, ServerInstant, Slot, Token,
    TurnRow,
};

use super::audit::{Audit, EntryView};
use super::batches::{Batches, SealAnswer, Settled};
use super::bulk::{Bulk, Deed};
use super::callbacks::{Callbacks, LastAttempt, Word};
use super::mysql::{MySqlStore, MySqlTurns};
use super::postgres::{PgStore, PgTurns};
use super::queues::{PausedQueue, QueueOrders, QueuePolicy, SlowedQueue};
use super::requests::{RequestView, Requests};
use super::schedules::{Fire, NewSchedule, ScheduleView, Schedules};
use super::sqlite::{SqliteStore, SqliteTurns};
use super::tokens::{TokenMade, TokenView, Tokens};
use super::urls::{self, Kind};
use super::views::{BeatView, RunView, Tally, Views};
use super::{
    CheckIn, Claimed, DrainAnswer, Look, NodeReport, NodeView, Prune, Pruned, Queues, Registration,
    Store, StoreError, TargetView, TurnReply, TurnRequest, Turns,
};
use crate::audit::Entry;
use crate::batch::{BatchId, BatchView, Need, NewBatch};
use crate::job::{Attempts, End, EndOutcome, JobFilter, JobId, JobView, NewJob, SlowDown};
use crate::token::{Role, TokenHash};

/// A database of any supported kind.
#[derive(Clone, Debug)]
pub enum AnyStore {
    /// One file, several processes on one machine.
    Sqlite(SqliteStore),
    /// A PostgreSQL server that many machines share.
    Postgres(PgStore),
    /// A MariaDB or MySQL server that many machines share.
    MySql(MySqlStore),
}

/// The connection for the turn row to a database of any supported kind.
#[derive(Debug)]
pub enum AnyTurns {
    /// See [`SqliteTurns`].
    Sqlite(SqliteTurns),
    /// See [`PgTurns`].
    Postgres(PgTurns),
    /// See [`MySqlTurns`].
    MySql(MySqlTurns),
}

impl AnyStore {
    /// The store that `url` names. Nothing is dialled or opened yet. At most `max_connections` are used at
    /// once beside those of [`Store::turns`]; SQLite always uses one.
    pub fn connect(url: &str, max_connections: u32) -> Result<Self, StoreError> {
        Self::connect_all(&[url], max_connections)
    }

    /// The store whose servers these URLs name: a primary and its standbys, in any order. Statements go to the one that
    /// takes writes, whichever that is.
    pub fn connect_all<U: AsRef<str>>(
        urls: &[U],
        max_connections: u32,
    ) -> Result<Self, StoreError> {
        let (kind, servers) = urls::servers(urls)?;
        match kind {
            Kind::Sqlite => SqliteStore::open(&servers[0]).map(Self::Sqlite),
            Kind::Postgres => PgStore::open_all(&servers, max_connections).map(Self::Postgres),
            Kind::MySql => MySqlStore::open_all(&servers, max_connections).map(Self::MySql),
        }
    }

    /// The same database by connections of its own, at most so many at once (SQLite: one). Both stores are always with
    /// the same server: whichever of them finds that another has taken over, the other follows, so that one
    /// [`watch`](Self::watch) serves both.
    pub fn beside(&self, max_connections: u32) -> Self {
        match self {
            Self::Sqlite(store) => Self::Sqlite(store.beside()),
            Self::Postgres(store) => Self::Postgres(store.beside(max_connections)),
            Self::MySql(store) => Self::MySql(store.beside(max_connections)),
        }
    }

    /// Look again and again whether another of the servers has taken over, while the one in use answers as if nothing
    /// had happened. Never ends. A store works without; then it looks whenever it connects.
    pub async fn watch(&self) {
        match self {
            Self::Sqlite(_) => std::future::pending().await,
            Self::Postgres(store) => store.watch().await,
            Self::MySql(store) => store.watch().await,
        }
    }
}

impl AnyStore {
    /// Close the connections that nobody uses just now. The next statement opens one.
    pub fn rest(&self) {
        match self {
            Self::Sqlite(store) => store.rest(),
            Self::Postgres(store) => store.rest(),
            Self::MySql(store) => store.rest(),
        }
    }
}

macro_rules! delegate {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            Self::Sqlite($store) => $call,
            Self::Postgres($store) => $call,
            Self::MySql($store) => $call,
        }
    };
}

impl Turns for AnyTurns {
    async fn execute(
        &mut self,
        request: &TurnRequest<'_>,
        clock: &(dyn Fn() -> LocalInstant + Sync),
    ) -> Result<TurnReply, StoreError> {
        delegate!(self, turns => turns.execute(request, clock).await)
    }
}

impl Store for AnyStore {
    type Turns = AnyTurns;

    async fn turns(&self) -> Result<AnyTurns, StoreError> {
        match self {
            Self::Sqlite(store) => store.turns().await.map(AnyTurns::Sqlite),
            Self::Postgres(store) => store.turns().await.map(AnyTurns::Postgres),
            Self::MySql(store) => store.turns().await.map(AnyTurns::MySql),
        }
    }

    async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        delegate!(self, store => store.migrate().await)
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        delegate!(self, store => store.check_schema().await)
    }

    async fn agree_period(&self, wanted: Option<Period>) -> Result<Period, StoreError> {
        delegate!(self, store => store.agree_period(wanted).await)
    }

    async fn register(&self, node: &Registration) -> Result<(), StoreError> {
        delegate!(self, store => store.register(node).await)
    }

    async fn deregister(&self, node: NodeId) -> Result<(), StoreError> {
        delegate!(self, store => store.deregister(node).await)
    }

    async fn drain(&self, node: NodeId) -> Result<Option<DrainAnswer>, StoreError> {
        delegate!(self, store => store.drain(node).await)
    }

    async fn tell_targets(&self, node: NodeId, targets: &[TargetView]) -> Result<(), StoreError> {
        delegate!(self, store => store.tell_targets(node, targets).await)
    }

    async fn renew(&self, node: NodeId, report: &NodeReport) -> Result<CheckIn, StoreError> {
        delegate!(self, store => store.renew(node, report).await)
    }

    async fn claim(
        &self,
        node: NodeId,
        claim: Claim,
        queues: &Queues,
        report: &NodeReport,
    ) -> Result<Claimed, StoreError> {
        delegate!(self, store => store.claim(node, claim, queues, report).await)
    }

    async fn recover(
        &self,
        node: NodeId,
        token: Token,
        report: &NodeReport,
    ) -> Result<Claimed, StoreError> {
        delegate!(self, store => store.recover(node, token, report).await)
    }

    async fn release(
        &self,
        node: NodeId,
        token: Token,
        report: &NodeReport,
    ) -> Result<CheckIn, StoreError> {
        delegate!(self, store => store.release(node, token, report).await)
    }

    async fn reconcile(
        &self,
        node: NodeId,
        holds: &[(JobId, Token)],
        last: Token,
        report: &NodeReport,
    ) -> Result<Claimed, StoreError> {
        delegate!(self, store => store.reconcile(node, holds, last, report).await)
    }

    async fn end(
        &self,
        node: NodeId,
        ends: &[End],
    ) -> Result<(Vec<EndOutcome>, CheckIn), StoreError> {
        delegate!(self, store => store.end(node, ends).await)
    }

    async fn enqueue(&self, jobs: &[NewJob]) -> Result<Vec<JobId>, StoreError> {
        delegate!(self, store => store.enqueue(jobs).await)
    }

    async fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobView>, StoreError> {
        delegate!(self, store => store.jobs(filter).await)
    }

    async fn job(&self, id: JobId) -> Result<Option<(JobView, Attempts)>, StoreError> {
        delegate!(self, store => store.job(id).await)
    }

    async fn retry(&self, id: JobId) -> Result<Option<bool>, StoreError> {
        delegate!(self, store => store.retry(id).await)
    }

    async fn cancelled(
        &self,
        node: NodeId,
        held: &[(JobId, Token)],
    ) -> Result<Vec<(JobId, Token)>, StoreError> {
        delegate!(self, store => store.cancelled(node, held).await)
    }

    async fn secret(&self, name: &str, offered: &str) -> Result<String, StoreError> {
        delegate!(self, store => store.secret(name, offered).await)
    }

    async fn cancel(&self, id: JobId) -> Result<Option<bool>, StoreError> {
        delegate!(self, store => store.cancel(id).await)
    }

    async fn due_schedules(
        &self,
        until: ServerInstant,
    ) -> Result<(ServerInstant, Vec<ScheduleView>), StoreError> {
        delegate!(self, store => store.due_schedules(until).await)
    }

    async fn fire(&self, fire: &Fire) -> Result<bool, StoreError> {
        delegate!(self, store => store.fire(fire).await)
    }

    async fn due_batches(&self, until: ServerInstant) -> Result<Vec<BatchId>, StoreError> {
        delegate!(self, store => store.due_batches(until).await)
    }

    async fn slow_down(&self, what: &SlowDown) -> Result<(), StoreError> {
        delegate!(self, store => store.slow_down(what).await)
    }

    async fn settle(&self, batches: &[BatchId]) -> Result<Settled, StoreError> {
        delegate!(self, store => store.settle(batches).await)
    }

    async fn prune(&self, prune: &Prune) -> Result<Pruned, StoreError> {
        delegate!(self, store => store.prune(prune).await)
    }

    async fn prune_audit(&self) -> Result<u32, StoreError> {
        delegate!(self, store => store.prune_audit().await)
    }

    fn apart(&self) -> Self {
        self.beside(1)
    }

    async fn nodes(&self) -> Result<Vec<NodeView>, StoreError> {
        delegate!(self, store => store.nodes().await)
    }

    async fn look(&self) -> Result<Look, StoreError> {
        delegate!(self, store => store.look().await)
    }

    async fn stamp(&self) -> Result<(Slot, TurnRow, ServerIdentity), StoreError> {
        delegate!(self, store => store.stamp().await)
    }

    async fn change(&self, change: &Change, identity: ServerIdentity) -> Result<bool, StoreError> {
        delegate!(self, store => store.change(change, identity).await)
    }
}

impl Audit for AnyStore {
    async fn keep(&self, entry: &Entry) -> Result<i64, StoreError> {
        delegate!(self, store => store.keep(entry).await)
    }

    async fn entries(&self, before: Option<i64>, limit: u32) -> Result<Vec<EntryView>, StoreError> {
        delegate!(self, store => store.entries(before, limit).await)
    }
}

impl Batches for AnyStore {
    async fn make_batch(&self, batch: &NewBatch) -> Result<Vec<JobId>, StoreError> {
        delegate!(self, store => store.make_batch(batch).await)
    }

    async fn enqueue_after(
        &self,
        job: &NewJob,
        jobs: &[JobId],
        need: Need,
    ) -> Result<(BatchId, JobId), StoreError> {
        delegate!(self, store => store.enqueue_after(job, jobs, need).await)
    }

    async fn seal(&self, batch: BatchId) -> Result<SealAnswer, StoreError> {
        delegate!(self, store => store.seal(batch).await)
    }

    async fn cancel_batch(&self, batch: BatchId) -> Result<Option<bool>, StoreError> {
        delegate!(self, store => store.cancel_batch(batch).await)
    }

    async fn batches(
        &self,
        before: Option<BatchId>,
        limit: u32,
    ) -> Result<Vec<BatchView>, StoreError> {
        delegate!(self, store => store.batches(before, limit).await)
    }

    async fn batch(&self, batch: BatchId) -> Result<Option<BatchView>, StoreError> {
        delegate!(self, store => store.batch(batch).await)
    }
}

impl Bulk for AnyStore {
    async fn alter(&self, deed: Deed, jobs: &[JobId]) -> Result<u32, StoreError> {
        delegate!(self, store => store.alter(deed, jobs).await)
    }
}

impl Callbacks for AnyStore {
    async fn last_attempt(&self, job: JobId) -> Result<Option<LastAttempt>, StoreError> {
        delegate!(self, store => store.last_attempt(job).await)
    }

    async fn hear(
        &self,
        job: JobId,
        claim: (NodeId, Token),
        word: &Word,
    ) -> Result<bool, StoreError> {
        delegate!(self, store => store.hear(job, claim, word).await)
    }
}

impl Requests for AnyStore {
    async fn request(&self, job: JobId) -> Result<Option<RequestView>, StoreError> {
        delegate!(self, store => store.request(job).await)
    }
}

impl Schedules for AnyStore {
    async fn schedules(&self) -> Result<Vec<ScheduleView>, StoreError> {
        delegate!(self, store => store.schedules().await)
    }

    async fn put_schedule(
        &self,
        schedule: &NewSchedule,
        next: Option<i64>,
    ) -> Result<bool, StoreError> {
        delegate!(self, store => store.put_schedule(schedule, next).await)
    }

    async fn remove_schedule(&self, name: &str) -> Result<bool, StoreError> {
        delegate!(self, store => store.remove_schedule(name).await)
    }

    async fn pause_schedule(
        &self,
        name: &str,
        pause: bool,
        next: Option<i64>,
    ) -> Result<bool, StoreError> {
        delegate!(self, store => store.pause_schedule(name, pause, next).await)
    }
}

impl QueueOrders for AnyStore {
    async fn pause(&self, queue: &str) -> Result<bool, StoreError> {
        delegate!(self, store => store.pause(queue).await)
    }

    async fn resume(&self, queue: &str) -> Result<bool, StoreError> {
        delegate!(self, store => store.resume(queue).await)
    }

    async fn put_policy(&self, queue: &str, policy: &QueuePolicy) -> Result<(), StoreError> {
        delegate!(self, store => store.put_policy(queue, policy).await)
    }

    async fn policies(&self) -> Result<Vec<(String, QueuePolicy)>, StoreError> {
        delegate!(self, store => store.policies().await)
    }

    async fn paused(&self) -> Result<Vec<PausedQueue>, StoreError> {
        delegate!(self, store => store.paused().await)
    }

    async fn slowed(&self) -> Result<Vec<SlowedQueue>, StoreError> {
        delegate!(self, store => store.slowed().await)
    }
}

impl Tokens for AnyStore {
    async fn make_token(
        &self,
        name: &str,
        role: Role,
        hash: TokenHash,
    ) -> Result<TokenMade, StoreError> {
        delegate!(self, store => store.make_token(name, role, hash).await)
    }

    async fn tokens(&self) -> Result<Vec<TokenView>, StoreError> {
        delegate!(self, store => store.tokens().await)
    }

    async fn revoke_token(&self, name: &str) -> Result<bool, StoreError> {
        delegate!(self, store => store.revoke_token(name).await)
    }
}

impl Views for AnyStore {
    async fn beats(&self, after: Slot, limit: u32) -> Result<Vec<BeatView>, StoreError> {
        delegate!(self, store => store.beats(after, limit).await)
    }

    async fn runs(&self, since: ServerInstant, limit: u32) -> Result<Vec<RunView>, StoreError> {
        delegate!(self, store => store.runs(since, limit).await)
    }

    async fn tally(&self, most: u32) -> Result<Tally, StoreError> {
        delegate!(self, store => store.tally(most).await)
    }

    async fn floor(&self, before: Option<JobId>, jobs: u32) -> Result<Option<JobId>, StoreError> {
        delegate!(self, store => store.floor(before, jobs).await)
    }
}
