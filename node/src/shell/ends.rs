//! Decides when the ends of attempts are written: together as they come, again until the database has
//! answered. What an end says is decided elsewhere.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::time::Duration;

use tokio::sync::mpsc;
use turnwise_engine::{Input, LocalInstant, NodeId};

use super::batches::Look;
use super::holds::Holds;
use super::life::Stage;
use super::notes::LastingLog;
use super::patience::Patience;
use super::turns::Told;
use crate::clock::Clock;
use crate::job::{End, EndOutcome, JobFate, SlowDown};
use crate::sabotage::{Bug, Sabotage};
use crate::store::{CheckIn, Store, StoreError};

/// The most ends in one statement.
const BATCH_MAX: usize = 500;
/// How long one statement may take before it is tried again; some may take longer, up to [`STATEMENT_TIMEOUT_MAX`]
/// ([`Patience`]). The renewals of the lease wait behind it.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest that one statement may take.
const STATEMENT_TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// An end that the database refuses so many times is recorded without its answer and its words.
const REFUSALS_MAX: u32 = 3;
/// The first wait after a failure; it doubles up to [`WAIT_MAX`].
const WAIT_MIN: Duration = Duration::from_millis(50);
/// The longest wait between tries.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// The task that records ends.
pub(crate) struct EndsTask<C: Clock, S: Store, T: Stage> {
    pub(crate) clock: C,
    pub(crate) store: S,
    pub(crate) stage: PhantomData<T>,
    pub(crate) node: NodeId,
    pub(crate) holds: Holds,
    /// Told of the batches of jobs that have ended.
    pub(crate) looks: mpsc::UnboundedSender<Look>,
    pub(crate) ends: mpsc::UnboundedReceiver<End>,
    pub(crate) inputs: mpsc::UnboundedSender<Told>,
}

impl<C: Clock, S: Store, T: Stage> EndsTask<C, S, T> {
    pub(crate) async fn run(mut self) {
        let mut batch = Vec::new();
        let mut log = LastingLog::default();
        while self.ends.recv_many(&mut batch, BATCH_MAX).await > 0 {
            for error in batch.iter_mut().filter_map(|end: &mut End| end.error.as_mut()) {
                // PostgreSQL takes no NUL in a text.
                *error = error.replace('\0', "\u{fffd}");
            }
            let recorded = match T::Bugs::plants(Bug::OnlyFirstEndIsRecorded) {
                true => &batch[..1],
                false => &batch[..],
            };
            // Before the places are free again that would be filled with more of the same.
            self.slow_down(recorded).await;
            let sent = self.record(recorded, &mut log).await;
            self.holds.ended(&batch);
            self.tell_batches(recorded);
            let jobs = u32::try_from(batch.len()).unwrap_or(u32::MAX);
            // The places are free only now: what a node holds in memory is bounded by its capacity,
            // however long the database is away.
            let _ = self.inputs.send(Input::JobsEnded { jobs, sent }.into());
            batch.clear();
        }
    }

    /// Their ends are recorded: the batches of these jobs may have ended with them.
    fn tell_batches(&self, ends: &[End]) {
        let done = ends.iter().filter(|end| !matches!(end.fate, JobFate::Await(_)));
        for batch in done.filter_map(|end| end.batch) {
            let _ = self.looks.send(Look::At(batch));
        }
    }

    /// Hold back the queues whose targets ask for it, each once. That is worth one try: the next target that asks is another.
    async fn slow_down(&self, ends: &[End]) {
        let mut asked: BTreeMap<&str, &SlowDown> = BTreeMap::new();
        for slow_down in ends.iter().filter_map(|end| end.slow_down.as_ref()) {
            let longest = asked.entry(&slow_down.queue).or_insert(slow_down);
            if slow_down.wait > longest.wait {
                *longest = slow_down;
            }
        }
        let order = async {
            while let Some((queue, what)) = asked.pop_first() {
                match self.store.slow_down(what).await {
                    Ok(()) => {
                        let wait = humantime::format_duration(what.wait);
                        tracing::info!(queue, "held back for {wait}, since a target asks for it");
                    }
                    Err(error) => tracing::warn!(queue, "not held back: {error}"),
                }
            }
        };
        // However many they are, the ends wait for no longer than this.
        if tokio::time::timeout(STATEMENT_TIMEOUT, order).await.is_err() {
            let queues: Vec<&str> = asked.into_keys().collect();
            tracing::warn!(
                ?queues,
                "the database took too long to hold a queue back; these neither"
            );
        }
    }

    async fn record(&self, batch: &[End], log: &mut LastingLog) -> LocalInstant {
        let mut patience = Patience::new(STATEMENT_TIMEOUT, STATEMENT_TIMEOUT_MAX);
        let (mut wait, mut refusals) = (WAIT_MIN, 0);
        loop {
            let sent = self.clock.now();
            match tokio::time::timeout(patience.now(), self.store.end(self.node, batch)).await {
                Ok(Ok((outcomes, check_in))) => {
                    log.succeeded();
                    self.say(batch, &outcomes);
                    if check_in == CheckIn::Lost {
                        // The engine hears of it at its next check-in; every end was stale.
                        tracing::warn!("the farm has declared this node lost");
                    }
                    return sent;
                }
                Ok(Err(error @ (StoreError::Failed { .. } | StoreError::Corrupt { .. }))) => {
                    if !log.failed("the ends of jobs cannot be recorded", &error) {
                        tracing::warn!(
                            ends = batch.len(),
                            "the ends of jobs were refused: {error}"
                        );
                    }
                    refusals += 1;
                    // One that the database will not take must not hold up the others.
                    if batch.len() > 1 && refusals == REFUSALS_MAX {
                        let (first, second) = batch.split_at(batch.len() / 2);
                        Box::pin(self.record(first, log)).await;
                        return Box::pin(self.record(second, log)).await;
                    }
                    if refusals == REFUSALS_MAX
                        && let [end] = batch
                        && bare(end) != *end
                    {
                        return Box::pin(self.record(&[bare(end)], log)).await;
                    }
                }
                Ok(Err(error)) => {
                    if !log.failed("the ends of jobs cannot be recorded", &error) {
                        tracing::debug!("{error}");
                    }
                }
                Err(_) => tracing::debug!("recording the ends of jobs timed out"),
            }
            if T::Bugs::plants(Bug::EndIsTriedOnce) {
                return sent;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(WAIT_MAX);
            patience.spent();
        }
    }

    fn say(&self, batch: &[End], outcomes: &[EndOutcome]) {
        for (end, outcome) in batch.iter().zip(outcomes) {
            if *outcome == EndOutcome::Stale {
                tracing::warn!(
                    job = %end.job,
                    attempt = end.attempt,
                    "this attempt ended too late: the job is no longer this node's"
                );
            }
        }
    }
}

/// The end without what came from outside.
fn bare(end: &End) -> End {
    End {
        error: end.error.as_ref().map(|_| "failed; its words could not be recorded".to_owned()),
        answer: None,
        ..end.clone()
    }
}
