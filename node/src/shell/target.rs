//! Decides which queues this node may claim from, by which of its targets take connections: asked at the start
//! and, once one refused, every second until it answers. The queues of the others go on.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use turnwise_engine::{Input, NodeId};

use super::life::Stage;
use super::observer::{self, Reached};
use super::runs::Destinations;
use super::turns::Told;
use crate::caller::{Caller, Origin, Targets};
use crate::sabotage::{Bug, Sabotage};
use crate::store::Queues;

/// How often a target that is away is tried.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// The task that watches the targets.
pub(crate) struct TargetTask<K: Caller, T: Stage> {
    pub(crate) caller: K,
    pub(crate) stage: PhantomData<T>,
    pub(crate) destinations: Arc<Destinations>,
    /// The queues of this node; none: all.
    pub(crate) queues: Option<Arc<[String]>>,
    /// The queues of calls that were refused.
    pub(crate) refused: mpsc::UnboundedReceiver<String>,
    pub(crate) inputs: mpsc::UnboundedSender<Told>,
    /// What may be claimed.
    pub(crate) claimable: watch::Sender<Queues>,
    pub(crate) node: NodeId,
    /// Whoever is told of what is known of the targets.
    pub(crate) observer: observer::Told,
}

impl<K: Caller, T: Stage> TargetTask<K, T> {
    pub(crate) async fn run(mut self) {
        let all: Vec<Origin> = self.destinations.targets.origins().into_iter().cloned().collect();
        let mut away = self.unreachable(all).await;
        if away.is_empty() {
            self.observe(&away);
        }
        self.publish(&[], &away);
        let mut next_try = Instant::now() + TRY_EVERY;
        loop {
            let before = away.clone();
            tokio::select! {
                biased;
                refused = self.refused.recv() => {
                    let Some(queue) = refused else { return };
                    match self.destinations.targets.of(&queue) {
                        Some(target) if !away.contains(target) => {
                            if away.is_empty() {
                                next_try = Instant::now() + TRY_EVERY;
                            }
                            away.push(target.clone());
                        }
                        _ => {}
                    }
                }
                () = tokio::time::sleep_until(next_try),
                    if !away.is_empty() && !T::Bugs::plants(Bug::TargetStaysAway) =>
                {
                    away = self.unreachable(away).await;
                    next_try = Instant::now() + TRY_EVERY;
                }
            }
            self.publish(&before, &away);
        }
    }

    /// Those of the targets that take no connection.
    async fn unreachable(&self, targets: Vec<Origin>) -> Vec<Origin> {
        let reached = join_all(targets.iter().map(|target| self.caller.reach(target))).await;
        let pairs = targets.into_iter().zip(reached);
        pairs.filter(|(_, reached)| !reached).map(|(target, _)| target).collect()
    }

    /// Tell whoever observes which targets are there, when these are away.
    fn observe(&self, away: &[Origin]) {
        let targets =
            self.destinations.targets.origins().into_iter().map(|origin| Reached {
                origin: origin.to_string(),
                answers: !away.contains(origin),
            });
        self.observer.targets_known(self.node, &targets.collect::<Vec<_>>());
    }

    /// Say what changed between two lists of targets that are away.
    fn publish(&self, before: &[Origin], away: &[Origin]) {
        if before == away {
            return;
        }
        self.observe(away);
        let queues = claimable(&self.destinations.targets, self.queues.as_ref(), away);
        for target in away.iter().filter(|target| !before.contains(target)) {
            tracing::warn!(%target, "the target refuses connections; claiming from {}", Shown(&queues));
        }
        for target in before.iter().filter(|target| !away.contains(target)) {
            tracing::info!(%target, "the target accepts connections; claiming from {}", Shown(&queues));
        }
        let reachable = !is_nothing(&queues);
        // Before the engine hears of it: it may claim at once.
        let was = self.claimable.send_replace(queues);
        if reachable == is_nothing(&was) {
            let _ = self.inputs.send(Input::Target { reachable }.into());
        }
    }
}

/// The queues to claim from by a node of `queues` (none: all), some of whose targets are away.
pub(crate) fn claimable(
    targets: &Targets,
    queues: Option<&Arc<[String]>>,
    away: &[Origin],
) -> Queues {
    let is_away = |queue: &str| targets.of(queue).is_some_and(|target| away.contains(target));
    let named = |wanted: bool| {
        targets.named().filter(|queue| is_away(queue) != wanted).map(str::to_owned).collect()
    };
    match queues {
        Some(queues) if away.is_empty() => Queues::Only(Arc::clone(queues)),
        Some(queues) => {
            Queues::Only(queues.iter().filter(|queue| !is_away(queue)).cloned().collect())
        }
        None if away.is_empty() => Queues::All,
        None if targets.rest().is_some_and(|rest| away.contains(rest)) => Queues::Only(named(true)),
        None => Queues::AllBut(named(false)),
    }
}

fn is_nothing(queues: &Queues) -> bool {
    matches!(queues, Queues::Only(queues) if queues.is_empty())
}

/// For the log.
struct Shown<'a>(&'a Queues);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Queues::All => f.write_str("all queues"),
            Queues::Only(queues) if queues.is_empty() => f.write_str("no queue"),
            Queues::Only(queues) => write!(f, "the queues {} alone", queues.join(", ")),
            Queues::AllBut(queues) => write!(f, "all queues but {}", queues.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&str], queues: Option<&[&str]>, away: &[&str]) -> String {
        let targets = Targets::parse(texts).unwrap();
        let queues = queues.map(|queues| queues.iter().map(ToString::to_string).collect());
        let away: Vec<Origin> = away.iter().map(|text| text.parse().unwrap()).collect();
        Shown(&claimable(&targets, queues.as_ref(), &away)).to_string()
    }

    #[test]
    fn only_the_queues_of_a_target_that_is_away_are_left_out() {
        let (all, some) = (None, Some(&["mail", "reports", "tidy"][..]));
        let texts = ["http://a", "mail=http://b", "reports=http://c", "news=http://b"];
        let table = [
            (all, &[][..], "all queues"),
            (all, &["http://b"], "all queues but mail, news"),
            (all, &["http://b", "http://c"], "all queues but mail, news, reports"),
            (all, &["http://a"], "the queues mail, news, reports alone"),
            (all, &["http://a", "http://b"], "the queues reports alone"),
            (all, &["http://a", "http://b", "http://c"], "no queue"),
            (some, &[], "the queues mail, reports, tidy alone"),
            (some, &["http://b"], "the queues reports, tidy alone"),
            (some, &["http://a"], "the queues mail, reports alone"),
            (some, &["http://a", "http://b", "http://c"], "no queue"),
        ];
        for (queues, away, expected) in table {
            assert_eq!(of(&texts, queues, away), expected, "{queues:?} without {away:?}");
        }
        assert_eq!(of(&["http://a"], None, &["http://a"]), "no queue");
        assert_eq!(of(&["http://a", "mail=http://a"], None, &["http://a"]), "no queue");
    }
}
