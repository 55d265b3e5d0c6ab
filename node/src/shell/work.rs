//! The statements on the jobs that the engine asks for, and the jobs that come back. Decides nothing:
//! when to claim and how much is the engine's, what to do with a job is `runs`'.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use turnwise_engine::{Fate, Input, LocalInstant, NodeId, RequestId, WorkAnswer, WorkStatement};

use super::notes::LastingLog;
use super::turns::{Order, Told};
use crate::clock::Clock;
use crate::job::ClaimedJob;
use crate::store::{CheckIn, Claimed, NodeReport, Queues, Store};

/// A statement that its database never answers is dropped after so long, whatever the engine thinks.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// The task that carries the engine's orders out.
pub(crate) struct WorkTask<C: Clock, S: Store> {
    pub(crate) clock: C,
    pub(crate) store: S,
    pub(crate) node: NodeId,
    pub(crate) queues: watch::Receiver<Queues>,
    pub(crate) orders: mpsc::UnboundedReceiver<Order>,
    pub(crate) inputs: mpsc::UnboundedSender<Told>,
    pub(crate) jobs: mpsc::UnboundedSender<Vec<ClaimedJob>>,
}

impl<C: Clock, S: Store> WorkTask<C, S> {
    pub(crate) async fn run(mut self) {
        let mut statements: JoinSet<()> = JoinSet::new();
        let mut latest: Option<(RequestId, AbortHandle)> = None;
        let log = Arc::new(Mutex::new(LastingLog::default()));
        loop {
            tokio::select! {
                biased;
                Some(_) = statements.join_next(), if !statements.is_empty() => {}
                order = self.orders.recv() => match order {
                    None => return,
                    Some(Order::Run(jobs)) => {
                        let _ = self.jobs.send(jobs);
                    }
                    Some(Order::Abandon(request)) => {
                        if let Some((_, handle)) = latest.take_if(|(known, _)| *known == request) {
                            handle.abort();
                        }
                    }
                    Some(Order::Statement { request, statement, not_after, report }) => {
                        let handle =
                            statements.spawn(self.carry_out(request, statement, not_after, report, Arc::clone(&log)));
                        latest = Some((request, handle));
                    }
                }
            }
        }
    }

    fn carry_out(
        &self,
        request: RequestId,
        statement: WorkStatement,
        not_after: LocalInstant,
        report: NodeReport,
        log: Arc<Mutex<LastingLog>>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (clock, store, node) = (self.clock.clone(), self.store.clone(), self.node);
        let queues = self.queues.borrow().clone();
        let inputs = self.inputs.clone();
        async move {
            let sent = clock.now();
            if sent > not_after {
                let _ = inputs.send(Input::Failed { request, fate: Fate::NotSent }.into());
                return;
            }
            let ask = async {
                match statement {
                    WorkStatement::Renew | WorkStatement::Reconcile => store
                        .renew(node, &report)
                        .await
                        .map(|check_in| Claimed { jobs: Vec::new(), check_in }),
                    WorkStatement::Claim(claim) => store.claim(node, claim, &queues, &report).await,
                    WorkStatement::Recover(token) => store.recover(node, token, &report).await,
                    WorkStatement::Release(token) => store
                        .release(node, token, &report)
                        .await
                        .map(|check_in| Claimed { jobs: Vec::new(), check_in }),
                }
            };
            match tokio::time::timeout(STATEMENT_TIMEOUT, ask).await {
                Ok(Ok(claimed)) => {
                    log.lock().unwrap_or_else(PoisonError::into_inner).succeeded();
                    let answer = WorkAnswer {
                        request,
                        sent,
                        claimed: u32::try_from(claimed.jobs.len()).unwrap_or(u32::MAX),
                        lost: claimed.check_in == CheckIn::Lost,
                    };
                    let _ =
                        inputs.send(Told { input: Input::WorkAnswer(answer), jobs: claimed.jobs });
                }
                Ok(Err(error)) => {
                    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                    if !log.failed("a statement on the jobs cannot be carried out", &error) {
                        tracing::debug!(?statement, "{error}");
                    }
                    let _ = inputs.send(Input::Failed { request, fate: error.fate() }.into());
                }
                Err(_) => {
                    let _ = inputs.send(Input::Failed { request, fate: Fate::Unknown }.into());
                }
            }
        }
    }
}
