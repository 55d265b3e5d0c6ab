//! Decides nothing: what the engine's task and those around it say to each other.

use tokio::sync::{mpsc, watch};
use turnwise_engine::{Input, LocalInstant, RequestId, WorkStatement};

use super::super::holds::Held;
use super::pulse::Pulse;
use crate::job::ClaimedJob;
use crate::store::NodeReport;

/// What the engine's task tells the task that does the work.
#[derive(Debug)]
pub(crate) enum Order {
    /// Send a statement on the jobs.
    Statement(Asked),
    /// Give the statement up.
    Abandon(RequestId),
    /// Jobs that this node has claimed.
    Run(Vec<ClaimedJob>),
}

/// A statement on the jobs with all that goes along.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) request: RequestId,
    pub(crate) statement: WorkStatement,
    pub(crate) not_after: LocalInstant,
    pub(crate) report: NodeReport,
    /// What the node holds as the statement is asked for: when it is sent, the node may hold more, under later
    /// claims.
    pub(crate) held: Held,
}

/// What the engine is told, and the jobs that came with it.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) input: Input,
    pub(crate) jobs: Vec<ClaimedJob>,
}

impl From<Input> for Told {
    fn from(input: Input) -> Self {
        Self { input, jobs: Vec::new() }
    }
}

/// The ends of the channels that the task talks through.
///
/// The channels are not bounded by themselves: what travels in them is bounded by the engine, which has one
/// statement of each kind in flight and no more jobs than the node's capacity.
pub(crate) struct Channels {
    pub(crate) inputs: mpsc::UnboundedReceiver<Told>,
    pub(crate) orders: mpsc::UnboundedSender<Order>,
    pub(crate) pulse: watch::Sender<Pulse>,
}
