//! The stage: all tasks of a process run where the process does, and stop where it is stopped. Decides nothing.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Sleep;
use turnwise_node::shell::Stage;

use super::farm::Farm;
use crate::sabotage::PlantedInShell;

/// The process of a simulated machine.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) farm: Farm,
    pub(super) host: u32,
}

impl Process {
    /// How long the process stands still.
    fn stands_still(&self) -> Option<Duration> {
        let world = self.farm.look();
        let until = world.hosts[self.host as usize].paused_until;
        (until > world.now).then(|| Duration::from_nanos(until - world.now))
    }

    /// Wait while the process stands still.
    pub(super) async fn goes_on(&self) {
        while let Some(rest) = self.stands_still() {
            tokio::time::sleep(rest).await;
        }
    }

    /// The task, which does nothing while the process stands still.
    pub(super) fn run<F: Future>(&self, task: F) -> Stoppable<F> {
        Stoppable { process: self.clone(), task: Box::pin(task), rest: None }
    }
}

impl Stage for Process {
    type Bugs = PlantedInShell;

    fn perform<F>(&self, engine: F) -> oneshot::Receiver<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (done, result) = oneshot::channel();
        tokio::spawn(self.run(async move {
            let _ = done.send(engine.await);
        }));
        result
    }

    fn play<F>(&self, task: F) -> impl Future<Output = F::Output> + Send + 'static
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        self.run(task)
    }
}

/// A task of a process that may be stopped: timers run out and answers come meanwhile, and it sees all of that
/// when it goes on.
pub(super) struct Stoppable<F> {
    process: Process,
    task: Pin<Box<F>>,
    rest: Option<Pin<Box<Sleep>>>,
}

impl<F: Future> Future for Stoppable<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        while let Some(rest) = this.process.stands_still() {
            let sleep = this.rest.insert(Box::pin(tokio::time::sleep(rest)));
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        this.rest = None;
        this.task.as_mut().poll(cx)
    }
}
