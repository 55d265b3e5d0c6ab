//! Decides what happens to each job that this node holds: its call, its verdict, and its way back when the
//! node must stop. When jobs are claimed is not decided here.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderValue;
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinSet};
use turnwise_engine::{LocalInstant, NodeId, ServerInstant, Token};

use super::life::Stage;
use super::observer;
use super::turns::Pulse;
use crate::callback::{self, Callbacks};
use crate::caller::{
    AllowedOrigins, CallOutcome, Caller, SigningKeys, Targets, Verdict, cancelled, foretell,
    give_back, judge, prepare,
};
use crate::clock::Clock;
use crate::job::{ClaimedJob, End, JobFate, JobId};
use crate::sabotage::{Bug, Sabotage};

/// Why a call that was cut short is given back.
const STOPPED: &str = "the node stopped";

/// What a run needs to know of the node.
#[derive(Clone, Debug)]
pub(crate) struct Destinations {
    pub(crate) targets: Targets,
    pub(crate) allowed: AllowedOrigins,
    pub(crate) signing_keys: SigningKeys,
}

/// The task that runs the jobs.
pub(crate) struct RunsTask<C: Clock, K: Caller, T: Stage> {
    pub(crate) clock: C,
    pub(crate) caller: K,
    pub(crate) stage: T,
    pub(crate) destinations: Arc<Destinations>,
    pub(crate) pulse: watch::Receiver<Pulse>,
    pub(crate) jobs: mpsc::UnboundedReceiver<Vec<ClaimedJob>>,
    pub(crate) ends: mpsc::UnboundedSender<End>,
    /// Set once: cut the calls short and give their jobs back.
    pub(crate) hand_back: watch::Receiver<bool>,
    /// Jobs that somebody has cancelled, each with its claim: their calls are dropped.
    pub(crate) cancelled: mpsc::UnboundedReceiver<Vec<(JobId, Token)>>,
    /// Told of the queue whose target, one of this node's own, refuses connections.
    pub(crate) target_refused: mpsc::UnboundedSender<String>,
    pub(crate) observer: observer::Told,
    pub(crate) seed: u64,
    pub(crate) node: NodeId,
    /// What callbacks are made of; none: no job may go on elsewhere.
    pub(crate) callbacks: Option<Callbacks>,
}

struct Running {
    job: Arc<ClaimedJob>,
    handle: AbortHandle,
    /// When its call began.
    begun: LocalInstant,
}

impl<C: Clock, K: Caller, T: Stage> RunsTask<C, K, T> {
    pub(crate) async fn run(mut self) {
        let mut random = Pcg64Mcg::seed_from_u64(self.seed);
        let mut calls: JoinSet<End> = JoinSet::new();
        let mut running: BTreeMap<Id, Running> = BTreeMap::new();
        loop {
            let giving_back = *self.hand_back.borrow();
            tokio::select! {
                biased;
                Some(ended) = calls.join_next_with_id(), if !calls.is_empty() => {
                    let (id, end) = match ended {
                        Ok((id, end)) => (id, Some(end)),
                        Err(error) => (error.id(), None),
                    };
                    // A call that was cut short is not in the list any more: it was given back then.
                    if let Some(run) = running.remove(&id) {
                        match end {
                            Some(end) => {
                                let took = self.clock.now().since(run.begun);
                                self.observer.attempted(&run.job.queue, end.fate, took);
                                let _ = self.ends.send(end);
                            }
                            None => {
                                tracing::error!(job = %run.job.id, "the node failed to run this job");
                                self.give_back(&run.job, "the node failed to run it", random.next_u64());
                            }
                        }
                    }
                }
                changed = self.hand_back.changed(), if !giving_back => {
                    if changed.is_ok() && *self.hand_back.borrow() {
                        for run in std::mem::take(&mut running).into_values() {
                            run.handle.abort();
                            if T::Bugs::plants(Bug::DrainDropsJobs) {
                                continue;
                            }
                            self.give_back(&run.job, STOPPED, random.next_u64());
                        }
                    }
                }
                Some(those) = self.cancelled.recv() => {
                    let is_one = |run: &Running| those.contains(&(run.job.id, run.job.token));
                    for (_, run) in running.extract_if(.., |_, run| is_one(run)) {
                        run.handle.abort();
                        tracing::info!(job = %run.job.id, "cancelled: its call is dropped");
                        let _ = self.ends.send(cancelled().into_end(&run.job));
                    }
                }
                jobs = self.jobs.recv() => {
                    let Some(jobs) = jobs else { return };
                    for job in jobs {
                        if giving_back {
                            self.give_back(&job, STOPPED, random.next_u64());
                            continue;
                        }
                        let job = Arc::new(job);
                        let call = self.stage.play(self.call(Arc::clone(&job), random.next_u64()));
                        let handle = match T::Bugs::plants(Bug::CallsOutliveTheLife) {
                            true => calls.spawn(detached(call)),
                            false => calls.spawn(call),
                        };
                        let begun = self.clock.now();
                        running.insert(handle.id(), Running { job, handle, begun });
                    }
                }
            }
        }
    }

    fn give_back(&self, job: &ClaimedJob, reason: &str, random: u64) {
        let _ = self.ends.send(give_back(job, reason, random).into_end(job));
    }

    fn call(
        &self,
        job: Arc<ClaimedJob>,
        random: u64,
    ) -> impl Future<Output = End> + Send + 'static {
        let caller = self.caller.clone();
        let destinations = Arc::clone(&self.destinations);
        let refused = self.target_refused.clone();
        let now = self.server_time();
        let callback = self.callback(&job);
        async move {
            if let Some(verdict) = out_of_reach(&job, &callback, random) {
                return verdict.into_end(&job);
            }
            let call = prepare(&job, &destinations.targets, &destinations.allowed, now)
                .map(|call| foretell(call, &job, random))
                .and_then(|call| destinations.signing_keys.sign(call));
            let mut call = match call {
                Ok(call) => call,
                Err(rejection) => {
                    tracing::warn!(job = %job.id, "{rejection}");
                    return Verdict::rejected(&rejection).into_end(&job);
                }
            };
            if let Some(url) = callback {
                call.headers.insert(callback::HEADER, url);
            }
            tracing::debug!(job = %job.id, attempt = job.attempt, url = %call.url, "calling");
            let outcome = caller.call(&call).await;
            if matches!(outcome, CallOutcome::RefusedByOwnTarget { .. })
                && !T::Bugs::plants(Bug::RefusalIsNotTold)
            {
                let _ = refused.send(job.queue.clone());
            }
            let mut end = judge(&job, outcome, random).into_end(&job);
            if T::Bugs::plants(Bug::FailureIsSuccess) && end.status.is_none() {
                end.fate = JobFate::Succeeded;
            }
            if T::Bugs::plants(Bug::AcceptedIsDone) && matches!(end.fate, JobFate::Await(_)) {
                (end.fate, end.error) = (JobFate::Succeeded, None);
            }
            tracing::debug!(job = %job.id, status = end.status, fate = ?end.fate, "answered");
            end
        }
    }

    /// Where the target of a job may say how it goes on, if it may go on elsewhere.
    fn callback(&self, job: &ClaimedJob) -> Option<HeaderValue> {
        let here = self.callbacks.as_ref().filter(|_| job.particulars.is_asynchronous())?;
        let key = here.secret.key()?;
        HeaderValue::try_from(key.url(&here.base, job.id, (self.node, job.token))).ok()
    }

    fn server_time(&self) -> ServerInstant {
        let offset = self.pulse.borrow().offset.unwrap_or(0);
        ServerInstant::from_nanos((self.clock.now().as_nanos() as i64).saturating_add(offset))
    }
}

/// The end of an attempt that is not made: there is none left, since the last one was heard of no more; or nobody could say here how
/// it goes on.
fn out_of_reach(job: &ClaimedJob, callback: &Option<HeaderValue>, random: u64) -> Option<Verdict> {
    if job.attempt > job.max_attempts {
        let error = "given up: its last attempt was accepted with 202, and nothing more was heard of it in time";
        let error = Some(error.to_owned());
        return Some(Verdict {
            fate: JobFate::Dead,
            status: None,
            error,
            answer: None,
            slow_down: None,
        });
    }
    let needs_one = job.particulars.is_asynchronous() && callback.is_none();
    needs_one.then(|| {
        let reason = "this node has no address for callbacks of asynchronous jobs; give it one with --listen or --callback-url";
        give_back(job, reason, random)
    })
}

/// A call that nobody can cut short: what is planted as a bug.
async fn detached(call: impl Future<Output = End> + Send + 'static) -> End {
    match tokio::spawn(call).await {
        Ok(end) => end,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
