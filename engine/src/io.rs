//! What goes into the engine and what comes out. Decides nothing.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Exchange;
use crate::turn::{Change, ChangeKind, TurnRow};
use crate::units::{LocalInstant, NodeId, Slot, Token};

/// The number of a statement of this engine; answers name it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct RequestId(pub u64);

/// Which server answered. Another identity is another clock, and perhaps another history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServerIdentity {
    /// When the server process started, in the unit that it tells.
    pub started: i64,
    /// The timeline of its history: another one after a promotion.
    pub timeline: i64,
}

/// Everything that the engine can be told.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Input {
    /// A deadline of `poll_timeout` has come. Harmless when it has not.
    Wake,
    /// A statement on the turn row was answered.
    TurnAnswer(Box<TurnAnswer>),
    /// A statement on the jobs was answered.
    WorkAnswer(WorkAnswer),
    /// A statement was not answered.
    Failed {
        /// Which.
        request: RequestId,
        /// How much is known of its fate.
        fate: Fate,
    },
    /// Jobs of this node have ended, durably, so that their places are free.
    JobsEnded {
        /// How many.
        jobs: u32,
        /// When the statement that ended them, which is a check-in, was sent.
        sent: LocalInstant,
    },
    /// Whether the target takes connections. While it does not, nothing is claimed.
    Target {
        /// True: it does.
        reachable: bool,
    },
    /// Take no more work and leave the ring.
    Leave,
}

/// What is known of a statement that was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Fate {
    /// It surely never reached the server.
    NotSent,
    /// It may have been executed, or may yet be.
    Unknown,
}

/// The answer to a statement on the turn row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TurnAnswer {
    /// Which statement.
    pub request: RequestId,
    /// The four stamps of the round trip. None for a connection's first execution, which also prepares.
    pub exchange: Option<Exchange>,
    /// Who answered.
    pub identity: ServerIdentity,
    /// The slot that the statement was stamped with.
    pub now: Slot,
    /// A beat: whether it was accepted. A change: whether it committed. A read: true.
    pub done: bool,
    /// The row after the statement.
    pub row: TurnRow,
    /// How many jobs the beat claimed.
    pub claimed: u32,
    /// There may be more that are due, though fewer were claimed than asked for.
    #[serde(default)]
    pub more: bool,
    /// What a claim left behind because of a limit.
    #[serde(default, skip_serializing_if = "Kept::is_nothing")]
    pub kept: Kept,
    /// The farm has declared this node lost: its jobs run elsewhere.
    pub lost: bool,
}

/// What a claim left behind because of a limit, though it is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Kept {
    /// As many run as may run at once: there is room as soon as one of them ends.
    pub until_one_ends: bool,
    /// Jobs are given out at a rate: the next may be claimed after so long. None when there is nothing of the kind, or when
    /// another node took the last one, and is told.
    pub rate_wait: Option<Duration>,
}

impl Kept {
    /// Nothing was left behind.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// The answer to a statement on the jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WorkAnswer {
    /// Which statement.
    pub request: RequestId,
    /// When it was sent: an answered statement proves that the node lived then.
    pub sent: LocalInstant,
    /// How many jobs it handed to this node.
    pub claimed: u32,
    /// There may be more that are due, though fewer were claimed than asked for.
    #[serde(default)]
    pub more: bool,
    /// What a claim left behind because of a limit.
    #[serde(default, skip_serializing_if = "Kept::is_nothing")]
    pub kept: Kept,
    /// The farm has declared this node lost: its jobs run elsewhere.
    pub lost: bool,
}

/// Everything that the engine can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Output {
    /// Send a statement on the turn row, on the connection kept for it.
    Turn {
        /// Its number.
        request: RequestId,
        /// What it does.
        statement: TurnStatement,
        /// The instant that it was planned for.
        due: LocalInstant,
        /// Do not send it later than this; answer [`Fate::NotSent`] instead.
        not_after: LocalInstant,
    },
    /// Send a statement on the jobs, on any other connection.
    Work {
        /// Its number.
        request: RequestId,
        /// What it does.
        statement: WorkStatement,
        /// Do not send it later than this; answer [`Fate::NotSent`] instead.
        not_after: LocalInstant,
    },
    /// The statement took too long: give it up, and its connection with it. Its answer, should it come,
    /// is not wanted.
    Abandon(RequestId),
    /// This engine is finished.
    Retire(Retirement),
    /// Something that people may want to know.
    Note(Note),
}

/// A statement on the turn row. Each locks the row, is stamped with its slot and returns the row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TurnStatement {
    /// Who sends it.
    pub node: NodeId,
    /// The slot that the sender takes it to be.
    pub believed: Option<Slot>,
    /// What it does.
    pub kind: TurnKind,
}

/// What a statement on the turn row does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TurnKind {
    /// Nothing more.
    Read,
    /// Take the slot's turn: poll the queue and claim jobs if the beat is accepted.
    Beat {
        /// Up to how many jobs, under which token; none: poll only.
        claim: Option<Claim>,
    },
    /// Compare and set the roster, on the server that the change was computed from.
    Change {
        /// What to set.
        change: Change,
        /// That server.
        identity: ServerIdentity,
    },
}

/// An order to claim jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// The token to be written on them.
    pub token: Token,
    /// At most so many, at least 1.
    pub limit: u32,
}

/// A statement on the jobs. Each is a check-in: it renews the node's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WorkStatement {
    /// Renew the lease, no more.
    Renew,
    /// Claim outside the turn.
    Claim(Claim),
    /// The answer to the claim of this token was lost: bar the token, so that the claim cannot commit any
    /// more, and return the jobs that it took.
    Recover(Token),
    /// Another server with another history answers: put right what it and this node hold against each other. The
    /// jobs that it has under this node and that the shell does not run go back to the queue.
    Reconcile,
    /// The claim of this token cannot be received: bar the token, and put the jobs that it took back into
    /// the queue, unseen.
    Release(Token),
}

/// Why an engine is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Retirement {
    /// The farm declared this node lost. Cancel its calls and start again under a new id.
    Lost,
}

/// What people may want to know: the log, the metrics and the pages are made from these.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Note {
    /// A beat was answered.
    Beat {
        /// The slot that it fell into.
        slot: Slot,
        /// Whether the fence let it in.
        accepted: bool,
        /// How far from the boundary of its slot it arrived, in nanoseconds; late is positive.
        arrival_error: Option<i64>,
        /// Jobs claimed.
        claimed: u32,
    },
    /// A turn passed without a beat from here.
    TurnSkipped {
        /// Whose slot it was: this node's.
        slot: Slot,
    },
    /// A change of this node's committed.
    Changed {
        /// Which kind.
        kind: ChangeKind,
        /// Who was removed, if anyone.
        victims: Vec<NodeId>,
    },
    /// This node is out of the ring: it has left it, and takes no more turns.
    Left,
    /// A clock stepped, or the server is another one.
    ClockStep,
    /// Another server answered.
    ServerChanged,
    /// A statement was not answered in time or failed.
    Unanswered {
        /// In a row.
        failures: u32,
    },
}

/// Why a deadline was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// The node's turn: the beat must leave now to arrive on the boundary of its slot.
    Beat,
    /// The row must be read before the node may act.
    Read,
    /// A statement on the turn row has had its time.
    TurnPatience,
    /// The lease of a node that holds jobs is due to be renewed.
    Renew,
    /// Work that failed may be tried again.
    Retry,
    /// A statement on the jobs has had its time.
    WorkPatience,
    /// A queue gives out its next job.
    Rate,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Beat => "beat",
            Self::Read => "read",
            Self::TurnPatience => "turn statement unanswered",
            Self::Renew => "renew the lease",
            Self::Retry => "try the work again",
            Self::WorkPatience => "work statement unanswered",
            Self::Rate => "a queue's next job",
        })
    }
}
