//! Hears that jobs which run here were cancelled, and has their calls dropped. Decides how often the database is asked, and
//! for which jobs: for those that have run for a while, so that a farm of short jobs asks nothing.

use std::marker::PhantomData;
use std::time::Duration;

use tokio::sync::mpsc;
use turnwise_engine::{NodeId, Token};

use super::aside::Aside;
use super::holds::Holds;
use super::life::Stage;
use crate::job::JobId;
use crate::sabotage::{Bug, Sabotage};
use crate::store::Store;

/// How often it is asked, and how long a job has run, at least, that is asked for.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// A question that is not answered is asked again after so long.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// The task that asks.
pub(crate) struct CancelsTask<S: Store, T: Stage> {
    pub(crate) aside: Aside<S>,
    pub(crate) stage: PhantomData<T>,
    pub(crate) node: NodeId,
    pub(crate) holds: Holds,
    /// Told of jobs whose calls are to be dropped, each with its claim.
    pub(crate) cancelled: mpsc::UnboundedSender<Vec<(JobId, Token)>>,
}

impl<S: Store, T: Stage> CancelsTask<S, T> {
    pub(crate) async fn run(self) {
        let mut earlier = Vec::new();
        loop {
            tokio::time::sleep(ASK_EVERY).await;
            let held = self.holds.still(&earlier);
            earlier = self.holds.list().jobs;
            self.aside.rest();
            if held.is_empty() || T::Bugs::plants(Bug::CancelIsNotHeard) {
                continue;
            }
            let store = self.aside.store();
            // Whoever cannot be asked now is asked in a second.
            match tokio::time::timeout(ASK_TIMEOUT, store.cancelled(self.node, &held)).await {
                Ok(Ok(cancelled)) if !cancelled.is_empty() => {
                    if self.cancelled.send(cancelled).is_err() {
                        return;
                    }
                }
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(error)) => {
                    tracing::debug!("it is not known which jobs were cancelled: {error}");
                }
            }
        }
    }
}
