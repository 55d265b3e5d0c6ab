//! Decides when what a node knows of its targets is written into its row: once it has come up, and whenever that changes,
//! never with a beat. It is for people: it has a connection of its own, which is closed after each writing, and nothing
//! that the node does waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use turnwise_engine::{LocalInstant, NodeId, Note, ServerInstant};

use crate::clock::Clock;
use crate::job::JobFate;
use crate::metrics::Metrics;
use crate::rfc3339;
use crate::shell::{Observer, Pulse, Reached};
use crate::store::{AnyStore, NodeReport, Store, TargetView};

/// How long a writing may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long after a failure it is tried again, at first; it doubles up to [`WAIT_MAX`].
const WAIT_MIN: Duration = Duration::from_secs(1);
/// The longest wait between tries.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// What is known of the targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    /// The node that knows it; none before it has looked.
    node: Option<NodeId>,
    /// Each target, and since when it is as it is.
    targets: Vec<(Reached, LocalInstant)>,
}

impl Known {
    /// Learn what `node` has found at `now`; a target that is as it was is so since then.
    fn learn(&mut self, node: NodeId, targets: &[Reached], now: LocalInstant) {
        let before = std::mem::take(&mut self.targets);
        let since = |target: &Reached| {
            before.iter().find(|(other, _)| other == target).map_or(now, |(_, since)| *since)
        };
        self.targets = targets.iter().map(|target| (target.clone(), since(target))).collect();
        self.node = Some(node);
    }

    /// For the row, when the server's time is so many nanoseconds ahead of the node's.
    fn views(&self, offset: i64) -> Vec<TargetView> {
        let view = |(target, since): &(Reached, LocalInstant)| {
            let since = i64::try_from(since.as_nanos()).unwrap_or(i64::MAX).saturating_add(offset);
            TargetView {
                origin: target.origin.clone(),
                answers: target.answers,
                since: rfc3339::format(ServerInstant::from_nanos(since)),
            }
        };
        self.targets.iter().map(view).collect()
    }
}

/// Told of what the node does: counts it, and keeps what it knows of its targets for [`Writer`].
pub(crate) struct Health<C> {
    metrics: Arc<Metrics>,
    clock: C,
    known: watch::Sender<Known>,
}

/// Writes what is known of the targets.
pub(crate) struct Writer {
    known: watch::Receiver<Known>,
}

/// Who is told, and who writes it. `clock` is the node's.
pub(crate) fn keep<C: Clock>(metrics: Arc<Metrics>, clock: C) -> (Health<C>, Writer) {
    let (sender, known) = watch::channel(Known::default());
    (Health { metrics, clock, known: sender }, Writer { known })
}

impl<C: Clock> Observer for Health<C> {
    fn noted(&self, note: &Note) {
        self.metrics.noted(note);
    }

    fn reported(&self, report: &NodeReport) {
        self.metrics.reported(report);
    }

    fn turn_answered(&self, after: Option<Duration>) {
        self.metrics.turn_answered(after);
    }

    fn targets_known(&self, node: NodeId, targets: &[Reached]) {
        let now = self.clock.now();
        self.known.send_modify(|known| known.learn(node, targets, now));
    }

    fn attempted(&self, queue: &str, fate: JobFate, took: Duration) {
        self.metrics.attempted(queue, fate, took);
    }
}

impl Writer {
    /// Write each change, until the node is gone. What could not be written is tried again, or what it has changed to.
    pub(crate) async fn write(mut self, store: AnyStore, mut pulse: watch::Receiver<Pulse>) {
        let mut wait = WAIT_MIN;
        let mut is_written = true;
        loop {
            let changed = self.known.changed();
            let changed = if is_written { Ok(changed.await) } else { timeout(wait, changed).await };
            match changed {
                Ok(Ok(())) => wait = WAIT_MIN,
                Ok(Err(_)) => return,
                Err(_) => wait = (wait * 2).min(WAIT_MAX),
            }
            let known = self.known.borrow_and_update().clone();
            // Times are the server's: they wait for the first exchange with it.
            let offset = match pulse.wait_for(|pulse| pulse.offset.is_some()).await {
                Ok(pulse) => pulse.offset.unwrap_or_default(),
                Err(_) => return,
            };
            let written = write(&store, &known, offset).await;
            is_written = written.is_ok();
            if let Err(why) = written {
                tracing::debug!("what is known of the targets is not written: {why}");
            }
        }
    }
}

async fn write(store: &AnyStore, known: &Known, offset: i64) -> Result<(), String> {
    let Some(node) = known.node else { return Ok(()) };
    let views = known.views(offset);
    let written = timeout(WRITE_TIMEOUT, store.tell_targets(node, &views)).await;
    store.rest();
    match written {
        Ok(written) => written.map_err(|error| error.to_string()),
        Err(_) => Err("the database did not answer in time".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::BootClock;
    use crate::store::Registration;

    fn reached(origin: &str, answers: bool) -> Reached {
        Reached { origin: origin.to_owned(), answers }
    }

    #[test]
    fn a_target_that_is_as_it_was_is_so_since_then() {
        let (node, at) = (NodeId::from_u128(1), LocalInstant::from_nanos);
        let mut known = Known::default();
        known.learn(node, &[reached("http://a", true), reached("http://b", true)], at(1_000));
        known.learn(node, &[reached("http://a", true), reached("http://b", false)], at(2_000_000));
        let views = known.views(1_000_000_000);
        assert_eq!((views[0].answers, views[0].since.get(17..26)), (true, Some("01.000001")));
        assert_eq!((views[1].answers, views[1].since.get(17..26)), (false, Some("01.002000")));
    }

    #[tokio::test]
    async fn each_change_is_written_once_there_is_a_server_time() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("t.db").display());
        let store = AnyStore::connect(&url, 1).unwrap();
        store.migrate().await.unwrap();
        let id = NodeId::from_u128(1);
        store.register(&Registration { id, name: "n".to_owned(), capacity: 1 }).await.unwrap();
        let (health, writer) = keep(Arc::new(Metrics::default()), BootClock);
        let (pulse, watcher) = watch::channel(Pulse::default());
        let task = tokio::spawn(writer.write(store.beside(1), watcher));
        let written = async |wanted: Option<bool>| {
            for _ in 0..3_000 {
                let targets = store.nodes().await.unwrap().remove(0).targets;
                if targets.first().map(|target| target.answers) == wanted {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("{wanted:?} is not written");
        };
        health.targets_known(id, &[reached("http://a", true)]);
        written(None).await;
        pulse.send_modify(|pulse| pulse.offset = Some(0));
        written(Some(true)).await;
        health.targets_known(id, &[reached("http://a", false)]);
        written(Some(false)).await;
        drop(health);
        task.await.unwrap();
    }
}
