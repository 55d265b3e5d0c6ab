//! What somebody who keeps count is told of what this node does. Decides nothing, and nothing depends on who listens.

use std::sync::Arc;
use std::time::Duration;

use turnwise_engine::{NodeId, Note};

use crate::job::JobFate;
use crate::store::NodeReport;

/// One who is told. It is called from the node's own tasks, the precise one among them: it must be quick, and wait for
/// nothing.
pub trait Observer: Send + Sync + 'static {
    /// The engine noted something.
    fn noted(&self, note: &Note);

    /// What the node says of itself along with a statement on the turn row.
    fn reported(&self, report: &NodeReport);

    /// A statement on the turn row was answered, so long after it was sent; none: it failed.
    fn turn_answered(&self, after: Option<Duration>);

    /// What the node knows of its targets: as it comes up, and whenever that changes.
    fn targets_known(&self, node: NodeId, targets: &[Reached]);

    /// An attempt at a job of this queue came to an end on this node.
    fn attempted(&self, queue: &str, fate: JobFate, took: Duration);
}

/// A target, and whether it takes connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Scheme, host and port.
    pub origin: String,
    /// It takes connections.
    pub answers: bool,
}

/// Nobody: nothing is counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Nobody;

impl Observer for Nobody {
    fn noted(&self, _: &Note) {}

    fn reported(&self, _: &NodeReport) {}

    fn turn_answered(&self, _: Option<Duration>) {}

    fn targets_known(&self, _: NodeId, _: &[Reached]) {}

    fn attempted(&self, _: &str, _: JobFate, _: Duration) {}
}

/// Whoever is told.
pub(crate) type Told = Arc<dyn Observer>;
