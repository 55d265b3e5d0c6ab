//! Decides when the ends of attempts are written: together as they come, again until the database has
//! answered. What an end says is decided elsewhere.

use std::time::Duration;

use tokio::sync::mpsc;
use turnwise_engine::{Input, NodeId};

use crate::clock::Clock;
use crate::job::{End, EndOutcome};
use crate::store::{CheckIn, Store};

/// The most ends in one statement.
const BATCH_MAX: usize = 500;
/// How long one statement may take before it is tried again.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// The first wait after a failure; it doubles up to [`WAIT_MAX`].
const WAIT_MIN: Duration = Duration::from_millis(50);
/// The longest wait between tries.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// The task that records ends.
pub(crate) struct EndsTask<C: Clock, S: Store> {
    pub(crate) clock: C,
    pub(crate) store: S,
    pub(crate) node: NodeId,
    pub(crate) ends: mpsc::UnboundedReceiver<End>,
    pub(crate) inputs: mpsc::UnboundedSender<Input>,
}

impl<C: Clock, S: Store> EndsTask<C, S> {
    pub(crate) async fn run(mut self) {
        let mut batch = Vec::new();
        while self.ends.recv_many(&mut batch, BATCH_MAX).await > 0 {
            let sent = self.record(&batch).await;
            let jobs = u32::try_from(batch.len()).unwrap_or(u32::MAX);
            // The places are free only now: what a node holds in memory is bounded by its capacity,
            // however long the database is away.
            let _ = self.inputs.send(Input::JobsEnded { jobs, sent });
            batch.clear();
        }
    }

    async fn record(&self, batch: &[End]) -> turnwise_engine::LocalInstant {
        let mut wait = WAIT_MIN;
        loop {
            let sent = self.clock.now();
            let ask = self.store.end(self.node, batch);
            match tokio::time::timeout(STATEMENT_TIMEOUT, ask).await {
                Ok(Ok((outcomes, check_in))) => {
                    self.say(batch, &outcomes);
                    if check_in == CheckIn::Lost {
                        // The engine hears of it at its next check-in; every end was stale.
                        tracing::warn!("the farm has declared this node lost");
                    }
                    return sent;
                }
                Ok(Err(error)) if error.is_transient() => tracing::debug!("{error}"),
                Ok(Err(error)) => tracing::error!("the ends of jobs cannot be recorded: {error}"),
                Err(_) => tracing::debug!("recording the ends of jobs timed out"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(WAIT_MAX);
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
