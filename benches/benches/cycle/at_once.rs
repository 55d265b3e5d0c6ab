//! The production store, waited for while everything else stands still: its own thread answers, and for the runtime no
//! time goes by. Decides nothing.

use tokio::task::coop::unconstrained;
use turnwise_engine::{
    Change, Claim, LocalInstant, NodeId, Period, ServerIdentity, ServerInstant, Slot, Token,
    TurnRow,
};
use turnwise_node::batch::BatchId;
use turnwise_node::job::{Attempts, End, EndOutcome, JobFilter, JobId, JobView, NewJob, SlowDown};
use turnwise_node::store::sqlite::{SqliteStore, SqliteTurns};
use turnwise_node::store::{
    CheckIn, Claimed, DrainAnswer, Fire, Look, NodeReport, NodeView, Prune, Pruned, Queues,
    Registration, ScheduleView, Settled, Store, StoreError, TargetView, TurnReply, TurnRequest,
    Turns,
};

#[derive(Clone, Debug)]
pub(crate) struct AtOnceStore(pub(crate) SqliteStore);

pub(crate) struct AtOnceTurns(SqliteTurns);

/// Wait on this thread. A runtime's task may poll only so often before it is to let others go on: there are none.
fn at_once<F: Future>(future: F) -> F::Output {
    futures_executor::block_on(unconstrained(future))
}

impl Turns for AtOnceTurns {
    async fn execute(
        &mut self,
        request: &TurnRequest<'_>,
        clock: &(dyn Fn() -> LocalInstant + Sync),
    ) -> Result<TurnReply, StoreError> {
        at_once(self.0.execute(request, clock))
    }
}

macro_rules! at_once {
    ($(fn $method:ident($($argument:ident: $what:ty),*) -> $answer:ty;)+) => {
        $(async fn $method(&self, $($argument: $what),*) -> Result<$answer, StoreError> {
            at_once(self.0.$method($($argument),*))
        })+
    };
}

impl Store for AtOnceStore {
    type Turns = AtOnceTurns;

    async fn turns(&self) -> Result<AtOnceTurns, StoreError> {
        at_once(self.0.turns()).map(AtOnceTurns)
    }

    fn apart(&self) -> Self {
        Self(self.0.apart())
    }

    at_once! {
        fn migrate() -> Vec<String>;
        fn prune(prune: &Prune) -> Pruned;
        fn cancelled(node: NodeId, held: &[(JobId, Token)]) -> Vec<(JobId, Token)>;
        fn due_schedules(until: ServerInstant) -> (ServerInstant, Vec<ScheduleView>);
        fn fire(fire: &Fire) -> bool;
        fn due_batches(until: ServerInstant) -> Vec<BatchId>;
        fn settle(batches: &[BatchId]) -> Settled;
        fn check_schema() -> ();
        fn agree_period(wanted: Option<Period>) -> Period;
        fn register(node: &Registration) -> ();
        fn deregister(node: NodeId) -> ();
        fn drain(node: NodeId) -> Option<DrainAnswer>;
        fn tell_targets(node: NodeId, targets: &[TargetView]) -> ();
        fn renew(node: NodeId, report: &NodeReport) -> CheckIn;
        fn claim(node: NodeId, claim: Claim, queues: &Queues, report: &NodeReport) -> Claimed;
        fn recover(node: NodeId, token: Token, report: &NodeReport) -> Claimed;
        fn release(node: NodeId, token: Token, report: &NodeReport) -> CheckIn;
        fn reconcile(node: NodeId, holds: &[(JobId, Token)], last: Token, report: &NodeReport) -> Claimed;
        fn end(node: NodeId, ends: &[End]) -> (Vec<EndOutcome>, CheckIn);
        fn slow_down(what: &SlowDown) -> ();
        fn enqueue(jobs: &[NewJob]) -> Vec<JobId>;
        fn jobs(filter: &JobFilter) -> Vec<JobView>;
        fn job(id: JobId) -> Option<(JobView, Attempts)>;
        fn retry(id: JobId) -> Option<bool>;
        fn secret(name: &str, offered: &str) -> String;
        fn cancel(id: JobId) -> Option<bool>;
        fn nodes() -> Vec<NodeView>;
        fn look() -> Look;
        fn stamp() -> (Slot, TurnRow, ServerIdentity);
        fn change(change: &Change, identity: ServerIdentity) -> bool;
    }
}
