//! The statements on the jobs that the engine asks for, and the jobs that come back. Decides nothing:
//! when to claim and how much is the engine's, what to do with a job is `runs`'.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use turnwise_engine::{Fate, Input, NodeId, RequestId, WorkAnswer, WorkStatement};

use super::holds::{Held, Holds};
use super::life::Stage;
use super::notes::LastingLog;
use super::turns::{Asked, Order, Told};
use crate::clock::Clock;
use crate::job::ClaimedJob;
use crate::sabotage::{Bug, Sabotage};
use crate::store::{CheckIn, Claimed, NodeReport, Queues, Store, StoreError};

/// A statement that its database never answers is dropped after so long, whatever the engine thinks.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// The task that carries the engine's orders out.
pub(crate) struct WorkTask<C: Clock, S: Store, T: Stage> {
    pub(crate) clock: C,
    pub(crate) store: S,
    pub(crate) stage: T,
    pub(crate) node: NodeId,
    pub(crate) queues: watch::Receiver<Queues>,
    pub(crate) holds: Holds,
    pub(crate) orders: mpsc::UnboundedReceiver<Order>,
    pub(crate) inputs: mpsc::UnboundedSender<Told>,
    pub(crate) jobs: mpsc::UnboundedSender<Vec<ClaimedJob>>,
}

impl<C: Clock, S: Store, T: Stage> WorkTask<C, S, T> {
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
                        if T::Bugs::plants(Bug::AnswerIsMismatched) {
                            continue;
                        }
                        if let Some((_, handle)) = latest.take_if(|(known, _)| *known == request) {
                            handle.abort();
                        }
                    }
                    Some(Order::Statement(asked)) => {
                        let request = asked.request;
                        let statement = self.carry_out(asked, Arc::clone(&log));
                        let handle = statements.spawn(self.stage.play(statement));
                        latest = Some((request, handle));
                    }
                }
            }
        }
    }

    fn carry_out(
        &self,
        asked: Asked,
        log: Arc<Mutex<LastingLog>>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let Asked { request, statement, not_after, report, held } = asked;
        let (clock, store, node) = (self.clock.clone(), self.store.clone(), self.node);
        let queues = self.queues.borrow().clone();
        let (holds, inputs) = (self.holds.clone(), self.inputs.clone());
        async move {
            let sent = clock.now();
            if sent > not_after && !T::Bugs::plants(Bug::EffectIsSentLate) {
                let _ = inputs.send(Input::Failed { request, fate: Fate::NotSent }.into());
                return;
            }
            let ask = async {
                match statement {
                    WorkStatement::Renew if T::Bugs::plants(Bug::RenewalIsForgotten) => {
                        Ok(Claimed::default())
                    }
                    WorkStatement::Release(_) if T::Bugs::plants(Bug::ReleaseIsForgotten) => {
                        Ok(Claimed::default())
                    }
                    WorkStatement::Reconcile if T::Bugs::plants(Bug::ReconcileIsARenewal) => store
                        .renew(node, &report)
                        .await
                        .map(|check_in| Claimed { check_in, ..Claimed::default() }),
                    WorkStatement::Renew => store
                        .renew(node, &report)
                        .await
                        .map(|check_in| Claimed { check_in, ..Claimed::default() }),
                    WorkStatement::Reconcile => {
                        reconcile(&store, node, &holds, held, &report).await
                    }
                    WorkStatement::Claim(claim) => store.claim(node, claim, &queues, &report).await,
                    WorkStatement::Recover(token) => store.recover(node, token, &report).await,
                    WorkStatement::Release(token) => store
                        .release(node, token, &report)
                        .await
                        .map(|check_in| Claimed { check_in, ..Claimed::default() }),
                }
            };
            match tokio::time::timeout(STATEMENT_TIMEOUT, ask).await {
                Ok(Ok(mut claimed)) => {
                    log.lock().unwrap_or_else(PoisonError::into_inner).succeeded();
                    let answer = WorkAnswer {
                        request,
                        sent,
                        claimed: u32::try_from(claimed.jobs.len()).unwrap_or(u32::MAX),
                        more: claimed.more && !T::Bugs::plants(Bug::MoreIsNotTold),
                        kept: claimed.kept,
                        lost: claimed.check_in == CheckIn::Lost
                            && !T::Bugs::plants(Bug::LossIsNotTold),
                    };
                    let recovered = matches!(statement, WorkStatement::Recover(_));
                    if recovered && T::Bugs::plants(Bug::RecoveredJobsAreDropped) {
                        claimed.jobs.clear();
                    }
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

/// Reconcile, and once more for every end that was recorded meanwhile: it may have been the old server that
/// recorded it, and then the new one was told that the job is still held. Each round holds less than the one
/// before.
async fn reconcile<S: Store>(
    store: &S,
    node: NodeId,
    holds: &Holds,
    mut held: Held,
    report: &NodeReport,
) -> Result<Claimed, StoreError> {
    loop {
        let done = store.reconcile(node, &held.jobs, held.last, report).await?;
        let still = holds.still(&held.jobs);
        if still.len() == held.jobs.len() || done.check_in == CheckIn::Lost {
            tracing::info!(held = held.jobs.len(), "reconciled with the server that took over");
            return Ok(done);
        }
        held.jobs = still;
    }
}

#[cfg(test)]
mod tests {
    use turnwise_engine::{Claim, Token};

    use super::*;
    use crate::job::{End, JobFate, JobId, JobState, NewJob};
    use crate::store::Registration;
    use crate::store::sqlite::SqliteStore;

    fn end_of(job: &ClaimedJob) -> End {
        End {
            job: job.id,
            token: job.token,
            attempt: job.attempt,
            fate: JobFate::Succeeded,
            status: Some(200),
            error: None,
            answer: None,
            batch: None,
            slow_down: None,
        }
    }

    #[tokio::test]
    async fn an_end_that_went_to_the_old_server_meanwhile_is_reconciled_too() {
        let store = SqliteStore::open("sqlite::memory:").unwrap();
        store.migrate().await.unwrap();
        let node = NodeId::from_u128(1);
        let registration = Registration { id: node, name: "n".to_owned(), capacity: 4 };
        store.register(&registration).await.unwrap();
        store.enqueue(&[NewJob::new("/a"), NewJob::new("/b")]).await.unwrap();
        let (claim, report) = (Claim { token: Token(3), limit: 2 }, NodeReport::default());
        let jobs = store.claim(node, claim, &Queues::All, &report).await.unwrap().jobs;
        let holds = Holds::default();
        holds.asked(claim.token);
        holds.took(&jobs);
        let held = holds.list();
        assert_eq!((held.jobs.len(), held.last), (2, Token(3)));
        // Recorded, but not on the server that is reconciled with.
        holds.ended(&[end_of(&jobs[0])]);
        let done = reconcile(&store, node, &holds, held, &report).await.unwrap();
        assert_eq!((done.jobs.len(), done.check_in), (0, CheckIn::Alive));
        let state = async |id: JobId| store.job(id).await.unwrap().unwrap().0.state;
        assert_eq!(state(jobs[0].id).await, JobState::Ready);
        assert_eq!(state(jobs[1].id).await, JobState::Running, "it is still held");
    }
}
