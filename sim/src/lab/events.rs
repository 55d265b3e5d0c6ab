//! Decides which of two events comes first, and to whose process one happens.

use turnwise_engine::{
    LocalInstant, RequestId, Token, TurnAnswer, TurnStatement, WorkAnswer, WorkStatement,
};

use super::database::Ending;

pub(super) struct Event {
    pub(super) at: u64,
    pub(super) order: u64,
    pub(super) what: What,
}

pub(super) enum What {
    Start(u32),
    Fault(u32),
    /// Remember the database as it is, for a failover that loses what comes after.
    Snapshot(u32),
    Promote(u32),
    SlewEnds,
    SlowEnds(u64),
    CrowdEnds(u32),
    TargetBack(u32),
    Thaw(u32, u64),
    Leave(u32),
    Deploy(u32),
    TargetTold(u32, bool),
    Enqueue,
    Reborn(u32),
    Wake {
        life: u32,
        number: u64,
    },
    TurnLeaves {
        life: u32,
        statement: Box<Leaving>,
    },
    TurnArrives {
        life: u32,
        request: RequestId,
        sent: LocalInstant,
        statement: Box<TurnStatement>,
        copy: bool,
    },
    TurnAnswered {
        life: u32,
        answer: Box<Answer>,
    },
    Failed {
        life: u32,
        request: RequestId,
    },
    WorkLeaves {
        life: u32,
        request: RequestId,
        statement: WorkStatement,
        not_after: LocalInstant,
    },
    WorkArrives {
        life: u32,
        request: RequestId,
        sent: LocalInstant,
        statement: WorkStatement,
    },
    WorkAnswered {
        life: u32,
        answer: WorkAnswer,
        claimed: Vec<(u64, Token)>,
    },
    RunEnds {
        life: u32,
        job: u64,
        token: Token,
        ending: Ending,
    },
    EndLeaves {
        life: u32,
        job: u64,
        token: Token,
        ending: Ending,
    },
    EndArrives {
        life: u32,
        job: u64,
        token: Token,
        ending: Ending,
        sent: LocalInstant,
    },
    EndAnswered {
        life: u32,
        job: u64,
        token: Token,
        sent: LocalInstant,
        lost: bool,
    },
}

pub(super) struct Leaving {
    pub(super) request: RequestId,
    pub(super) statement: TurnStatement,
    pub(super) not_after: LocalInstant,
}

pub(super) struct Answer {
    pub(super) answer: TurnAnswer,
    pub(super) claimed: Vec<(u64, Token)>,
    pub(super) begun: u64,
    /// How far from its boundary the statement arrived.
    pub(super) error: i64,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl What {
    /// The life that it happens to; none: to nobody's process.
    pub(super) fn life(&self) -> Option<u32> {
        match self {
            Self::Wake { life, .. }
            | Self::TurnLeaves { life, .. }
            | Self::TurnAnswered { life, .. }
            | Self::Failed { life, .. }
            | Self::WorkLeaves { life, .. }
            | Self::WorkAnswered { life, .. }
            | Self::RunEnds { life, .. }
            | Self::EndLeaves { life, .. }
            | Self::EndAnswered { life, .. } => Some(*life),
            _ => None,
        }
    }
}
