//! What the shell asks of a database: one trait, three implementations, one contract.
//!
//! - `postgres`: one statement and one round trip a beat; the steps are functions in the schema;
//! - `mysql`: three statements (MySQL: four) in two round trips a beat that finds nothing to do; the steps of the turn
//!   row are the engine's own;
//! - `sqlite`: one transaction a beat; the steps of the turn row are the engine's own;
//! - `distant`: any of them, farther away than it is, for demonstrations.
//!
//! What a store promises is stated as tests, in `node/tests/store_contract.rs`, which run against every
//! implementation, the simulated one among them.

mod any;
mod audit;
mod batches;
mod bulk;
mod callbacks;
mod check_ins;
mod claim_bytes;
mod connections;
mod distant;
mod ends;
mod errors;
mod limits;
mod marks;
pub mod migrate;
pub mod mysql;
pub(crate) mod orders;
mod outages;
pub mod postgres;
mod queues;
mod requests;
mod retention;
mod rows;
mod schedules;
mod servers;
pub mod sqlite;
mod tls;
mod tokens;
mod urls;
mod views;

use std::future::Future;
use std::sync::Arc;

use errors::Trouble;

pub use any::{AnyStore, AnyTurns};
pub use audit::{
    AUDIT_ENQUEUES_MAX, AUDIT_KEPT, AUDIT_PRUNED_AT_ONCE, AUDIT_SHOWN_MAX, Audit, EntryView,
};
pub(crate) use batches::settle_all;
pub use batches::{
    BATCHES_SHOWN_MAX, Batches, SETTLED_AT_ONCE, SealAnswer, Settled, WAITED_FOR_MAX,
};
pub use bulk::{Altered, BATCH, Bulk, Deed};
pub use callbacks::{Callbacks, LastAttempt, Word};
pub use distant::{Distance, Distant, DistantTurns, Road};
pub use limits::{CONCURRENCY_MAX, Limits, RATE_JOBS_MAX, RATE_PER_MAX, Rate, RateError};
pub use queues::{
    PausedQueue, QueueOrders, QueuePolicy, STATUSES_MAX, SlowedQueue, Statuses, StatusesError,
};
pub use requests::{REQUEST_BYTES_SHOWN, RequestView, Requests};
pub use retention::{Ended, PRUNED_AT_ONCE_MAX, Prune, Pruned};
pub(crate) use schedules::parse_schedule_name;
pub use schedules::{
    DUE_AT_ONCE, FIRED_AT_ONCE, Fire, NAME_BYTES_MAX, NewSchedule, ScheduleView, Schedules,
    limit_of,
};
pub use tokens::{TokenMade, TokenView, Tokens};
pub use views::{
    ATTEMPTS_SHOWN, BeatView, COUNTED_MAX, Capped, JobsPage, LOOKED_THROUGH_MAX, NodeView,
    QueueView, RECENT_JOBS, RunView, TARGETS_BYTES_MAX, Tally, TargetView, Views,
};

use turnwise_engine::{
    Change, Claim, Exchange, Fate, Kept, LocalInstant, NodeId, Period, ServerIdentity,
    ServerInstant, Slot, Token, TurnRow, TurnStatement,
};

use crate::batch::{BatchId, BatchRefusal};
use crate::job::{
    Attempts, ClaimedJob, End, EndOutcome, JobFilter, JobId, JobView, NewJob, SlowDown,
};

/// How often a node that holds jobs renews its lease, and how long a lease lasts, follow from the period:
/// 5/2 of it, and no less than 2.5 s. With the one slot that a crash may miss and the beat after it, a dead
/// node's jobs run again within max(5 s, 5 P).
pub const fn lease_nanos(period: Period) -> i64 {
    turnwise_engine::lease(period).as_nanos() as i64
}

/// A database that nodes share.
///
/// Every method but [`Store::turns`] may use a connection of a small pool. All times that are stored come
/// from the server's clock.
pub trait Store: Clone + Send + Sync + 'static {
    /// The connection that is kept for the turn row.
    type Turns: Turns;

    /// Open a connection for the turn row and make it ready: connected, statements prepared, so that the
    /// next statement costs its round trip alone.
    fn turns(&self) -> impl Future<Output = Result<Self::Turns, StoreError>> + Send;

    /// Create or complete the schema. Safe when several processes do it at once. Returns the names of the
    /// migrations that were applied, none when it was complete.
    fn migrate(&self) -> impl Future<Output = Result<Vec<String>, StoreError>> + Send;

    /// Fail with [`StoreError::SchemaMissing`] or [`StoreError::SchemaTooNew`] unless this binary may use
    /// the schema.
    fn check_schema(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The period of this database. On one that has none yet, `wanted` (or one second) becomes it. Fails
    /// with [`StoreError::OtherPeriod`] when `wanted` is given and is neither the period nor the pending
    /// next one.
    fn agree_period(
        &self,
        wanted: Option<Period>,
    ) -> impl Future<Output = Result<Period, StoreError>> + Send;

    /// Announce a node: its row in `nodes`, with a fresh lease. Once for each id.
    fn register(&self, node: &Registration) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The node has left for good and holds nothing.
    fn deregister(&self, node: NodeId) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Ask a node to drain: to leave the ring, finish what it runs and exit, as SIGTERM does. It hears of it with the
    /// answer to its next statement on the turn row ([`TurnReply::drain_asked`]). None when there is no such node.
    fn drain(
        &self,
        node: NodeId,
    ) -> impl Future<Output = Result<Option<DrainAnswer>, StoreError>> + Send;

    /// Write what a node knows of its targets into its row, for people: when it changes, and never with each beat. What is
    /// more than [`TARGETS_BYTES_MAX`] as it is stored is left out, those that answer first.
    fn tell_targets(
        &self,
        node: NodeId,
        targets: &[TargetView],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Renew the node's lease.
    fn renew(
        &self,
        node: NodeId,
        report: &NodeReport,
    ) -> impl Future<Output = Result<CheckIn, StoreError>> + Send;

    /// Claim due jobs outside the turn; renews the lease. A job whose row cannot be read (as with a beat and
    /// with [`Store::recover`]) is not among them: the store has ended it as dead, with the reason.
    fn claim(
        &self,
        node: NodeId,
        claim: Claim,
        queues: &Queues,
        report: &NodeReport,
    ) -> impl Future<Output = Result<Claimed, StoreError>> + Send;

    /// Bar `token` and every earlier one from claiming, and return the jobs that run under `token`; renews
    /// the lease. Once this has committed, a claim with a barred token claims nothing, however late it
    /// reaches the server.
    fn recover(
        &self,
        node: NodeId,
        token: Token,
        report: &NodeReport,
    ) -> impl Future<Output = Result<Claimed, StoreError>> + Send;

    /// Bar `token` and every earlier one from claiming, and put the jobs that run under `token` back into the
    /// queue, unseen: their attempt is not spent, [`HAND_BACKS_MAX`](crate::job::HAND_BACKS_MAX) times at
    /// most. Renews the lease. Repeating it is harmless.
    fn release(
        &self,
        node: NodeId,
        token: Token,
        report: &NodeReport,
    ) -> impl Future<Output = Result<CheckIn, StoreError>> + Send;

    /// Another server answers, whose history may lack what the old one committed last: put right what it has
    /// under this node. `last` is the highest token that the node has asked a claim under, `holds` are the
    /// jobs that it runs or whose ends it has still to record, each with its claim.
    ///
    /// Bars `last` and every earlier token from claiming, and puts every other job that runs under this node and
    /// such a token back into the queue: its attempt is not spent, [`HAND_BACKS_MAX`](crate::job::HAND_BACKS_MAX)
    /// times at most. Jobs of later claims are left alone, so that a reconciliation which arrives late, after the
    /// node has claimed again, takes nothing from it. Renews the lease. Repeating it is harmless. The answer
    /// holds no jobs.
    ///
    /// It must go to the server that answers now: not over a connection from before.
    fn reconcile(
        &self,
        node: NodeId,
        holds: &[(JobId, Token)],
        last: Token,
        report: &NodeReport,
    ) -> impl Future<Output = Result<Claimed, StoreError>> + Send;

    /// Record the ends of attempts, each by itself: an outcome for each, in their order. Only the claim
    /// (node, token) that a job is running under can end it. Repeating it is harmless. Renews the lease.
    fn end(
        &self,
        node: NodeId,
        ends: &[End],
    ) -> impl Future<Output = Result<(Vec<EndOutcome>, CheckIn), StoreError>> + Send;

    /// Claim no jobs of this queue for so long, on any node, as far as its policy allows it and unless it is held back for longer
    /// already. Repeating it puts it off.
    fn slow_down(&self, what: &SlowDown) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Insert jobs, all or none; their ids, in their order. An id that exists already is left as it is, and where the
    /// unique key of a job is held by another, nothing is inserted and the id is that one's. Fails with
    /// [`StoreError::TooLong`], nothing sent, when a part of a job is longer than the table takes.
    fn enqueue(
        &self,
        jobs: &[NewJob],
    ) -> impl Future<Output = Result<Vec<JobId>, StoreError>> + Send;

    /// Jobs, newest first.
    fn jobs(
        &self,
        filter: &JobFilter,
    ) -> impl Future<Output = Result<Vec<JobView>, StoreError>> + Send;

    /// One job with the newest of its attempts, at most [`ATTEMPTS_SHOWN`], oldest first; a running attempt is the last.
    fn job(
        &self,
        id: JobId,
    ) -> impl Future<Output = Result<Option<(JobView, Attempts)>, StoreError>> + Send;

    /// Make a job that is `dead`, `cancelled` or waiting run now. A job that has spent its attempts gets one
    /// more. False when it is running, here or elsewhere, or succeeded.
    fn retry(&self, id: JobId) -> impl Future<Output = Result<Option<bool>, StoreError>> + Send;

    /// Which of these jobs, each with the claim that it runs under here, somebody has cancelled meanwhile: they are still
    /// running, under this claim of this node.
    fn cancelled(
        &self,
        node: NodeId,
        held: &[(JobId, Token)],
    ) -> impl Future<Output = Result<Vec<(JobId, Token)>, StoreError>> + Send;

    /// What the nodes of this database share and nobody else knows, under a name; `offered` becomes it where there is none yet.
    fn secret(
        &self,
        name: &str,
        offered: &str,
    ) -> impl Future<Output = Result<String, StoreError>> + Send;

    /// Cancel a job: at once while it is queued or goes on elsewhere; of a running one the node hears ([`Store::cancelled`]) and drops the call,
    /// and whatever becomes of that, it is not tried again. False
    /// when it has ended. None when there is no such job (as with `retry`).
    fn cancel(&self, id: JobId) -> impl Future<Output = Result<Option<bool>, StoreError>> + Send;

    /// The schedules of which a time comes at `until` or before, or that no node has looked at, the earliest first, at most
    /// [`DUE_AT_ONCE`]; and the server's clock.
    fn due_schedules(
        &self,
        until: ServerInstant,
    ) -> impl Future<Output = Result<(ServerInstant, Vec<ScheduleView>), StoreError>> + Send;

    /// Insert the jobs of these times of a schedule, each once whoever else fires it, and note what comes next; unless the
    /// schedule has been changed, fired, removed or paused since it was looked at: then nothing is done, and it is false.
    fn fire(&self, fire: &Fire) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// The sealed batches that are to be looked at by `until`, those first that were not for longest, at most [`SETTLED_AT_ONCE`].
    fn due_batches(
        &self,
        until: ServerInstant,
    ) -> impl Future<Output = Result<Vec<BatchId>, StoreError>> + Send;

    /// Look at these batches, at most [`SETTLED_AT_ONCE`]: each that is sealed and whose jobs have all ended ends, and what waits for
    /// it runs, or is cancelled as it waited in vain, in one transaction. One that somebody holds just now is passed over.
    fn settle(
        &self,
        batches: &[BatchId],
    ) -> impl Future<Output = Result<Settled, StoreError>> + Send;

    /// Remove ended jobs that are old enough, of each state those that ended first, with their attempts: how many, and what
    /// to go on with. A job that holds its unique key, since its window lasts, stays, and so does one whose batch goes on; a
    /// batch goes with the last of its jobs. Decided by the state that stands in the row and by the server's clock, in a transaction of its own that locks the
    /// jobs that it removes and nothing else: one that somebody holds just now is passed over, and none is waited for.
    /// What was removed need not outlive a crash of the server at once.
    fn prune(&self, prune: &Prune) -> impl Future<Output = Result<Pruned, StoreError>> + Send;

    /// Remove entries of the audit that are too old or too many ([`Audit`]), some at a time: how many. One that keeps none has
    /// none to remove.
    fn prune_audit(&self) -> impl Future<Output = Result<u32, StoreError>> + Send {
        async { Ok(0) }
    }

    /// The same database by one connection of its own, which is opened when it is needed and closed with the last clone of
    /// what this returns: for what may take long, and must hold up nobody.
    fn apart(&self) -> Self;

    /// The nodes that are known, in turn order, those out of the ring last.
    fn nodes(&self) -> impl Future<Output = Result<Vec<NodeView>, StoreError>> + Send;

    /// Look at the turn row without a lock and without leaving a mark: the row, the server's clock, and
    /// how many beats were refused so far.
    fn look(&self) -> impl Future<Output = Result<Look, StoreError>> + Send;

    /// Stamp the row as no node, returning the slot and the row: what a change of the period is computed
    /// from.
    fn stamp(
        &self,
    ) -> impl Future<Output = Result<(Slot, TurnRow, ServerIdentity), StoreError>> + Send;

    /// Try a change of no node's; whether it committed.
    fn change(
        &self,
        change: &Change,
        identity: ServerIdentity,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;
}

/// The connection that is kept for the turn row: one statement at a time.
pub trait Turns: Send {
    /// Send one statement and wait for its answer.
    ///
    /// `clock` reads the node's monotonic clock: it is called right before the statement is handed to the
    /// socket and right after its answer was read, with nothing else in between. After an error the
    /// connection must not be used again.
    fn execute(
        &mut self,
        request: &TurnRequest<'_>,
        clock: &(dyn Fn() -> LocalInstant + Sync),
    ) -> impl Future<Output = Result<TurnReply, StoreError>> + Send;
}

/// The lanes that a node claims from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Queues {
    /// All that there are.
    #[default]
    All,
    /// These.
    Only(Arc<[String]>),
    /// All but these.
    AllBut(Arc<[String]>),
}

impl Queues {
    /// The lanes to claim from, when they are named; none: all.
    fn only(&self) -> Option<&[String]> {
        match self {
            Self::Only(queues) => Some(queues),
            Self::All | Self::AllBut(_) => None,
        }
    }

    /// The lanes to leave out.
    fn except(&self) -> &[String] {
        match self {
            Self::AllBut(queues) => queues,
            Self::All | Self::Only(_) => &[],
        }
    }
}

/// A statement on the turn row with all that goes along.
#[derive(Clone, Debug)]
pub struct TurnRequest<'a> {
    /// The engine's statement.
    pub statement: &'a TurnStatement,
    /// The lanes that this node claims from.
    pub queues: &'a Queues,
    /// What the node says of itself.
    pub report: NodeReport,
}

/// The answer to a statement on the turn row.
#[derive(Clone, Debug)]
pub struct TurnReply {
    /// The four stamps of the round trip.
    pub exchange: Exchange,
    /// Who answered.
    pub identity: ServerIdentity,
    /// The slot that the statement was stamped with.
    pub now: Slot,
    /// A beat: accepted. A change: committed. A read: true.
    pub done: bool,
    /// The row after the statement.
    pub row: TurnRow,
    /// The jobs that the beat claimed.
    pub jobs: Vec<ClaimedJob>,
    /// As in [`Claimed::more`].
    pub more: bool,
    /// What the beat left behind because of a limit.
    pub kept: Kept,
    /// The node is not known (any more), or was declared lost. Nothing was claimed.
    pub lost: bool,
    /// Somebody asked the node to drain ([`Store::drain`]).
    pub drain_asked: bool,
    /// The earliest time that a schedule is to be fired for; none: there is none.
    pub next_schedule: Option<ServerInstant>,
}

/// A node that announces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Its id.
    pub id: NodeId,
    /// Its name, for people.
    pub name: String,
    /// How many jobs it runs at once.
    pub capacity: u32,
}

/// What a node says of itself with each check-in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeReport {
    /// Server time minus the node's wall clock, in microseconds; none before the first exchange.
    pub offset_us: Option<i64>,
    /// How far from the truth that may be, in microseconds.
    pub offset_error_us: Option<i64>,
    /// The way to the database, in microseconds.
    pub transit_us: Option<i64>,
    /// Jobs that it holds.
    pub running: u32,
}

/// Whether the node was known when it checked in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CheckIn {
    /// Its lease is renewed.
    #[default]
    Alive,
    /// It is not known (any more), or was declared lost.
    Lost,
}

/// What became of asking a node to drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainAnswer {
    /// It is asked now.
    Asked,
    /// It was asked before, and has not left yet.
    AskedBefore,
    /// It has left, or was declared lost: there is nothing to ask.
    Gone,
}

/// The answer to a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claimed {
    /// The jobs, which this node must run or give back.
    pub jobs: Vec<ClaimedJob>,
    /// There may be more that are due, though fewer were claimed than asked for: their bodies would have been too many
    /// bytes for one answer.
    pub more: bool,
    /// What was left behind because of a limit of its queue.
    pub kept: Kept,
    /// Whether the node was known; when lost, there are no jobs.
    pub check_in: CheckIn,
}

/// What a look at the turn row shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The row.
    pub row: TurnRow,
    /// The server's clock.
    pub clock: ServerInstant,
    /// Beats refused by the fence so far.
    pub refused: i64,
    /// Ends that came too late and changed nothing, so far.
    pub stale_ends: i64,
}

/// Why jobs were not enqueued in a transaction of the app's.
#[derive(Debug, thiserror::Error)]
pub enum InTransactionError {
    /// Nothing was sent.
    #[error(transparent)]
    Refused(#[from] StoreError),
    /// The driver or the database said so; what becomes of the transaction is the app's.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

impl From<Trouble> for InTransactionError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Sql(error) => Self::Sql(error),
            Trouble::Batch(refusal) => Self::Refused(StoreError::Batch(refusal)),
            other => Self::Sql(sqlx::Error::Protocol(other.to_string())),
        }
    }
}

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection, or it broke.
    #[error("the database at {database} cannot be reached: {reason}")]
    Unreachable {
        /// The database, without its password.
        database: String,
        /// What went wrong.
        reason: String,
        /// Whether the statement may have been executed.
        fate: Fate,
    },
    /// No server of the database takes writes: replicas alone, or none at all.
    #[error("no database server takes writes: {reason}. {remedy}")]
    NotWritable {
        /// Each server, without its password, and what is the matter with it.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The database as it is, or this user's rights in it, do not do. Waiting will not mend it.
    #[error("the database at {database} cannot be used: {reason}. {remedy}")]
    Refused {
        /// The database, without its password.
        database: String,
        /// What the server said.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// The URL names no database that can be used.
    #[error("{url:?} is not a database URL that can be used: {reason}")]
    BadUrl {
        /// The URL, without its password.
        url: String,
        /// Why.
        reason: String,
    },
    /// There is no schema, or not all of it.
    #[error(
        "the database at {database} has no complete Turnwise schema: {missing} is missing. Run `turnwise migrate`"
    )]
    SchemaMissing {
        /// The database, without its password.
        database: String,
        /// The first migration that is missing.
        missing: String,
    },
    /// The schema may only be used by newer binaries.
    #[error(
        "the schema in {database} needs turnwise {least} or newer, this is {this}. Upgrade this binary"
    )]
    SchemaTooNew {
        /// The database, without its password.
        database: String,
        /// The least version that may use it.
        least: String,
        /// The version of this binary.
        this: String,
    },
    /// The database has another period than the one asked for.
    #[error(
        "the database has a period of {has}, this node asks for {wanted}. Start it without --period, or change the period of the whole farm with `turnwise period {wanted}`"
    )]
    OtherPeriod {
        /// The database's.
        has: Period,
        /// What was asked for.
        wanted: Period,
    },
    /// A job that no table takes.
    #[error(
        "the job {id} cannot be enqueued: its {what} has {bytes} bytes; the most is {most}. {remedy}"
    )]
    TooLong {
        /// Which job.
        id: JobId,
        /// Which part of it.
        what: &'static str,
        /// How long that is.
        bytes: usize,
        /// How long it may be.
        most: usize,
        /// What to do.
        remedy: &'static str,
    },
    /// A job belongs to a batch, or waits for one, that does not do. Nothing was written.
    #[error(transparent)]
    Batch(BatchRefusal),
    /// The database refused a statement.
    #[error("the database at {database} refused a statement: {reason}")]
    Failed {
        /// The database, without its password.
        database: String,
        /// What it said.
        reason: String,
        /// Whether waiting may mend it: a deadlock, a full disk.
        may_pass: bool,
    },
    /// The database holds something that no version of this program writes.
    #[error("the database at {database} holds what it should not: {what}")]
    Corrupt {
        /// The database, without its password.
        database: String,
        /// What.
        what: String,
    },
}

impl StoreError {
    /// What is known of the fate of the statement that failed.
    pub fn fate(&self) -> Fate {
        match self {
            Self::Unreachable { fate, .. } => *fate,
            Self::Failed { .. } | Self::Corrupt { .. } => Fate::Unknown,
            _ => Fate::NotSent,
        }
    }

    /// Whether waiting may help: the database is away or in difficulties, not wrong.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::NotWritable { .. }
                | Self::Failed { may_pass: true, .. }
        )
    }
}
