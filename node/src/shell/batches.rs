//! Looks whether batches have ended. Decides when: as soon as a job of one has ended here, and, for those whose jobs ended
//! otherwise, when a beat is told that it is time. Whether one has ended is the database's to tell.

use std::marker::PhantomData;
use std::time::Duration;

use tokio::sync::mpsc;
use turnwise_engine::ServerInstant;

use super::aside::{Aside, KEPT_FOR};
use super::life::Stage;
use super::notes::LastingLog;
use crate::batch::{BatchId, BatchState};
use crate::sabotage::{Bug, Sabotage};
use crate::store::{SETTLED_AT_ONCE, Settled, Store, StoreError, settle_all};

/// A look that takes longer is given up; a later beat of somebody looks again.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// So many due batches are looked at after one beat; the others after a later one.
const DUE_AT_A_BEAT: u32 = 10 * SETTLED_AT_ONCE;

/// Why batches are to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// A job of this one has ended here.
    At(BatchId),
    /// Those are to be looked at that are due by then.
    Due(ServerInstant),
}

/// The task that looks.
pub(crate) struct BatchesTask<S: Store, T: Stage> {
    /// A connection of its own: schedules wait for no batch.
    pub(crate) aside: Aside<S>,
    pub(crate) stage: PhantomData<T>,
    pub(crate) looks: mpsc::UnboundedReceiver<Look>,
}

impl<S: Store, T: Stage> BatchesTask<S, T> {
    pub(crate) async fn run(mut self) {
        let mut log = LastingLog::default();
        let mut looks = Vec::new();
        // However many come meanwhile, the next look is one.
        loop {
            let given = self.looks.recv_many(&mut looks, usize::MAX);
            match tokio::time::timeout(KEPT_FOR, given).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(_) => {
                    self.aside.rest();
                    continue;
                }
            }
            let (mut batches, mut due) = (Vec::new(), None);
            for look in looks.drain(..) {
                match look {
                    Look::At(batch) => batches.push(batch),
                    Look::Due(until) => due = due.max(Some(until)),
                }
            }
            if T::Bugs::plants(Bug::NoBatchIsLookedAt) {
                continue;
            }
            let due = due.filter(|_| !T::Bugs::plants(Bug::BatchIsLookedAtByEndsAlone));
            match tokio::time::timeout(LOOK_TIMEOUT, self.look(batches, due)).await {
                Ok(Ok(())) => log.succeeded(),
                Ok(Err(error)) => {
                    if !log.failed("batches cannot be looked at", &error) {
                        tracing::debug!("batches were not looked at: {error}");
                    }
                }
                Err(_) => tracing::warn!(
                    "batches were not looked at: the database did not answer within {} s. It is tried again with a later beat",
                    LOOK_TIMEOUT.as_secs()
                ),
            }
        }
        // The node ends with those who hold its other tasks.
        std::future::pending::<()>().await;
    }

    async fn look(
        &self,
        batches: Vec<BatchId>,
        due: Option<ServerInstant>,
    ) -> Result<(), StoreError> {
        let store = self.aside.store();
        if !batches.is_empty() {
            tell(&settle_all(&store, batches).await?);
        }
        let Some(until) = due else { return Ok(()) };
        for _ in 0..DUE_AT_A_BEAT / SETTLED_AT_ONCE {
            let batches = store.due_batches(until).await?;
            let is_all = batches.len() < SETTLED_AT_ONCE as usize;
            if !batches.is_empty() {
                tell(&settle_all(&store, batches).await?);
            }
            if is_all {
                break;
            }
        }
        Ok(())
    }
}

fn tell(settled: &Settled) {
    for (batch, state) in &settled.ended {
        match state {
            BatchState::Succeeded => tracing::debug!(%batch, "all jobs of this batch succeeded"),
            state => tracing::info!(%batch, "this batch has ended: {state}"),
        }
    }
}
