//! Decides which of a database's servers a node talks to, the one that takes writes, and that no two of its
//! statements are ever on their way to two of them: before another server is chosen, whatever waits for the old one
//! gives up. How a server is dialled, and how it says who it is, are its store's.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, select_all};
use tokio::sync::{Mutex, RwLock, watch};
use turnwise_engine::{Fate, ServerIdentity};

use super::StoreError;
use super::errors::Trouble;
use crate::shell::patience::Patience;

/// How long a server may take to let a node in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long most tries wait for the other servers once one has answered, and none that would do: what is lost on the way
/// may be lost for good ([`Patience`]).
const OTHERS_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// The longest such wait.
const OTHERS_TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// Once a server that would do has answered, how long the others are waited for: they may say that it is an old one.
const GRACE: Duration = Duration::from_millis(300);
/// How often it is looked whether another server has taken over, while the one in use answers.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A server that can be dialled.
pub(super) trait Dial: Send + Sync + 'static {
    /// A connection that is ready for statements.
    type Session: Send + 'static;

    /// The server as it may be shown.
    fn name(&self) -> &str;

    /// Make a connection, and ask the server who it is.
    fn dial(&self) -> impl Future<Output = Result<(Self::Session, Who), StoreError>> + Send;
}

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Who {
    /// Which server answers, as the engine is told.
    pub(super) identity: ServerIdentity,
    /// Where it stands among the servers of its cluster; none where the database knows no such thing, or was not asked.
    pub(super) history: Option<History>,
    /// Why nobody can write there; none: one can.
    pub(super) read_only: Option<String>,
}

/// A place in the history of a cluster of servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct History {
    /// Which cluster: the same for a primary and all of its standbys, whoever is promoted.
    pub(super) cluster: i64,
    /// Each promotion makes a new one, with a greater number.
    pub(super) timeline: i64,
}

/// The servers of one database.
pub(super) struct Servers<D> {
    dials: Vec<D>,
    /// All of them as they may be shown.
    names: String,
    /// Held while it is found out which server to use: one at a time.
    choice: Mutex<Choice>,
    /// Counts the choices. What waits for a server of an earlier one gives up.
    number: watch::Sender<u64>,
    /// Whoever waits for a server holds it shared.
    gate: Arc<RwLock<()>>,
}

/// What was found out last.
#[derive(Debug)]
struct Choice {
    chosen: Option<(usize, Who)>,
    /// The newest history that any server of the cluster has shown.
    newest: Option<History>,
    patience: Patience,
}

/// A connection to the server that was chosen when it was made.
#[derive(Debug)]
pub(super) struct Line<S> {
    pub(super) session: S,
    pub(super) bond: Bond,
}

/// What ties a connection to its choice.
#[derive(Clone, Debug)]
pub(super) struct Bond {
    number: u64,
    current: watch::Receiver<u64>,
    gate: Arc<RwLock<()>>,
}

impl Bond {
    /// Whether the server is still the chosen one.
    pub(super) fn holds(&self) -> bool {
        *self.current.borrow() == self.number
    }

    /// Wait for an answer of the server, but no longer than it is the chosen one.
    pub(super) async fn carry<T, E: Into<Trouble>>(
        &self,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Trouble> {
        let _open = self.gate.read().await;
        if !self.holds() {
            return Err(Trouble::Replaced(Fate::NotSent));
        }
        let mut current = self.current.clone();
        tokio::select! {
            biased;
            answer = answer => answer.map_err(Into::into),
            _ = current.wait_for(|number| *number != self.number) => {
                Err(Trouble::Replaced(Fate::Unknown))
            }
        }
    }
}

/// What the servers answered: the sessions of those that let the node in, by their places.
struct Survey<S> {
    sessions: Vec<(usize, S)>,
    answers: Vec<(usize, Result<Who, StoreError>)>,
}

impl<D: Dial> Servers<D> {
    /// The servers that `dials` lead to: one at least.
    pub(super) fn new(dials: Vec<D>) -> Self {
        let names: Vec<_> = dials.iter().map(Dial::name).collect();
        let choice = Choice {
            chosen: None,
            newest: None,
            patience: Patience::new(OTHERS_TIMEOUT_MIN, OTHERS_TIMEOUT_MAX),
        };
        Self {
            names: names.join(" or "),
            dials,
            choice: Mutex::new(choice),
            number: watch::Sender::new(0),
            gate: Arc::default(),
        }
    }

    /// All of them as they may be shown.
    pub(super) fn names(&self) -> &str {
        &self.names
    }

    /// A new connection to the server that takes writes. All servers are asked, so that one which only seems to be the
    /// primary is found out.
    pub(super) async fn connect(&self) -> Result<Line<D::Session>, StoreError> {
        let mut choice = self.choice.lock().await;
        let survey = self.survey(&mut choice.patience).await;
        let place = decide(&survey.answers, choice.chosen.as_ref(), choice.newest, |place| {
            self.dials[place].name()
        })?;
        let mut sessions = survey.sessions.into_iter();
        let session = sessions.find(|(from, _)| *from == place);
        let who = survey.answers.into_iter().find(|(from, _)| *from == place);
        let (Some((_, session)), Some((_, Ok(who)))) = (session, who) else {
            return Err(self.not_reached("a server that was chosen has no connection".to_owned()));
        };
        self.choose(&mut choice, place, who).await;
        let current = self.number.subscribe();
        let number = *current.borrow();
        Ok(Line { session, bond: Bond { number, current, gate: Arc::clone(&self.gate) } })
    }

    /// Look again and again whether another server has taken over. Never ends; with one server there is nothing to see.
    pub(super) async fn watch(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if self.dials.len() > 1
                && let Err(error) = self.connect().await
            {
                tracing::debug!("a look at the database's servers: {error}");
            }
        }
    }

    async fn choose(&self, choice: &mut Choice, place: usize, who: Who) {
        choice.newest = who.history.or(choice.newest);
        let chosen = Some((place, who));
        if choice.chosen == chosen {
            return;
        }
        if self.dials.len() > 1 {
            tracing::info!(server = self.dials[place].name(), "this database server takes writes");
        }
        self.number.send_modify(|number| *number += 1);
        // Whatever waited has given up when nobody holds the gate.
        let _shut = self.gate.write().await;
        choice.chosen = chosen;
    }

    /// Ask all servers at once.
    async fn survey(&self, patience: &mut Patience) -> Survey<D::Session> {
        let mut dials: Vec<BoxFuture<'_, _>> =
            (0..self.dials.len()).map(|place| self.ask(place).boxed()).collect();
        let mut survey = Survey { sessions: Vec::new(), answers: Vec::new() };
        let mut until = None;
        while !dials.is_empty() {
            let next = select_all(dials);
            let (place, answer, rest) = match until {
                None => {
                    let ((place, answer), _, rest) = next.await;
                    (place, answer, rest)
                }
                Some(until) => match tokio::time::timeout_at(until, next).await {
                    Ok(((place, answer), _, rest)) => (place, answer, rest),
                    Err(_) => {
                        let found = |who: &Who| who.read_only.is_none();
                        if !survey.answers.iter().any(|(_, who)| who.as_ref().is_ok_and(found)) {
                            patience.spent();
                        }
                        self.silent(&mut survey);
                        return survey;
                    }
                },
            };
            dials = rest;
            let would_do = matches!(&answer, Ok((_, who)) if who.read_only.is_none());
            let wait = if would_do { GRACE } else { patience.now() };
            let then = tokio::time::Instant::now() + wait;
            until = Some(until.map_or(then, |until: tokio::time::Instant| until.min(then)));
            let who = answer.map(|(session, who)| {
                survey.sessions.push((place, session));
                who
            });
            survey.answers.push((place, who));
        }
        patience.rewarded();
        survey
    }

    async fn ask(&self, place: usize) -> (usize, Result<(D::Session, Who), StoreError>) {
        let dial = &self.dials[place];
        let answer = tokio::time::timeout(CONNECT_TIMEOUT, dial.dial()).await;
        let answer = answer.unwrap_or_else(|_| {
            Err(StoreError::Unreachable {
                database: dial.name().to_owned(),
                reason: format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()),
                fate: Fate::NotSent,
            })
        });
        (place, answer)
    }

    /// Those that were not waited for.
    fn silent(&self, survey: &mut Survey<D::Session>) {
        for place in 0..self.dials.len() {
            if survey.answers.iter().all(|(from, _)| *from != place) {
                let error = StoreError::Unreachable {
                    database: self.dials[place].name().to_owned(),
                    reason: "it did not answer in time".to_owned(),
                    fate: Fate::NotSent,
                };
                survey.answers.push((place, Err(error)));
            }
        }
    }

    pub(super) fn not_reached(&self, reason: String) -> StoreError {
        StoreError::Unreachable { database: self.names.clone(), reason, fate: Fate::NotSent }
    }
}

/// What to do about a database that nobody can write to.
const NO_PRIMARY: &str = "Nodes wait for a server that takes writes: promote a standby or start the primary; and give a node the URL of every server (--database-url, repeated), so that it finds the one";

/// Why two servers cannot be told apart.
const SIDE_BY_SIDE: &str =
    "they take writes side by side, and nothing shows which is the newer one";

/// Which of the servers that answered to use: the one that takes writes; of several, the one with the newest history.
/// `newest` is the newest that was ever seen: a server that is behind it was replaced.
fn decide<'a>(
    answers: &[(usize, Result<Who, StoreError>)],
    chosen: Option<&(usize, Who)>,
    newest: Option<History>,
    name: impl Fn(usize) -> &'a str,
) -> Result<usize, StoreError> {
    let mut able: Vec<(usize, &Who)> = Vec::new();
    let mut unfit: Vec<(usize, String)> = Vec::new();
    for (place, answer) in answers {
        match answer {
            Err(_) => {}
            Ok(Who { read_only: Some(reason), .. }) => unfit.push((*place, reason.clone())),
            Ok(who) => able.push((*place, who)),
        }
    }
    one_cluster(&able, &name)?;
    let cluster = able.iter().find_map(|(_, who)| Some(who.history?.cluster));
    let seen = newest.filter(|newest| Some(newest.cluster) == cluster);
    let timelines = able.iter().filter_map(|(_, who)| who.history).chain(seen);
    let best = timelines.map(|history| history.timeline).max();
    able.retain(|(place, who)| match (who.history, best) {
        (Some(its), Some(best)) if its.timeline < best => {
            unfit.push((*place, outdated(its.timeline, best)));
            false
        }
        _ => true,
    });
    let in_use = |(place, who): &&(usize, &Who)| {
        chosen.is_some_and(|(chosen, then)| chosen == place && then == *who)
    };
    if let Some((place, _)) = able.iter().find(in_use) {
        return Ok(*place);
    }
    match able.first() {
        None => Err(nobody(answers, unfit, name)),
        // One server by two names is one server.
        Some((place, who)) if able.iter().all(|able| able.1.identity == who.identity) => Ok(*place),
        Some(_) => Err(two(&able, SIDE_BY_SIDE, &name)),
    }
}

/// Why a server that takes writes is left alone.
fn outdated(its: i64, best: i64) -> String {
    format!(
        "takes writes on timeline {its}, and another has taken over on timeline {best}: it is an old primary that must be stopped and made a standby (pg_rewind)"
    )
}

/// Servers of two clusters are two databases.
fn one_cluster<'a>(
    able: &[(usize, &Who)],
    name: impl Fn(usize) -> &'a str,
) -> Result<(), StoreError> {
    let mut clusters = able.iter().filter_map(|(_, who)| Some(who.history?.cluster));
    let Some(first) = clusters.next() else { return Ok(()) };
    match clusters.all(|cluster| cluster == first) {
        true => Ok(()),
        false => Err(two(able, "they are two databases, not copies of one", name)),
    }
}

fn two<'a>(able: &[(usize, &Who)], reason: &str, name: impl Fn(usize) -> &'a str) -> StoreError {
    let names: Vec<_> = able.iter().map(|(place, _)| name(*place)).collect();
    StoreError::Refused {
        database: names.join(" and "),
        reason: reason.to_owned(),
        remedy: "Name a primary and its standbys, and see that only one of them takes writes (read_only on the others)".to_owned(),
    }
}

/// No server will do. What only a person can mend is said as it is when waiting for another server is no use.
fn nobody<'a>(
    answers: &[(usize, Result<Who, StoreError>)],
    unfit: Vec<(usize, String)>,
    name: impl Fn(usize) -> &'a str,
) -> StoreError {
    let errors = || answers.iter().filter_map(|(_, answer)| answer.as_ref().err());
    let waits = !unfit.is_empty() || errors().any(StoreError::is_transient);
    if let Some(error) = errors().next()
        && (answers.len() == 1 || !waits)
    {
        return error.clone();
    }
    let unfit =
        unfit.into_iter().map(|(place, reason)| (place, format!("{} {reason}", name(place))));
    let away = answers.iter().filter_map(|(place, answer)| match answer.as_ref().err()? {
        StoreError::Unreachable { reason, .. } => {
            Some((*place, format!("{}: {reason}", name(*place))))
        }
        error => Some((*place, error.to_string())),
    });
    let mut reasons: Vec<_> = unfit.chain(away).collect();
    reasons.sort();
    let reasons: Vec<_> = reasons.into_iter().map(|(_, reason)| reason).collect();
    StoreError::NotWritable { reason: reasons.join("; "), remedy: NO_PRIMARY }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: i64 = 7;

    fn primary(timeline: i64, started: i64) -> Who {
        Who {
            identity: ServerIdentity { started, timeline },
            history: Some(History { cluster: CLUSTER, timeline }),
            read_only: None,
        }
    }

    fn replica(started: i64) -> Who {
        Who {
            read_only: Some("is a read-only replica".to_owned()),
            history: None,
            ..primary(0, started)
        }
    }

    fn away() -> StoreError {
        StoreError::Unreachable {
            database: "x".to_owned(),
            reason: "connection refused".to_owned(),
            fate: Fate::NotSent,
        }
    }

    fn wrong_password() -> StoreError {
        StoreError::Refused {
            database: "x".to_owned(),
            reason: "password".to_owned(),
            remedy: "Check it".to_owned(),
        }
    }

    fn choose(
        answers: Vec<Result<Who, StoreError>>,
        chosen: Option<(usize, Who)>,
        newest: Option<i64>,
    ) -> Result<usize, StoreError> {
        let answers: Vec<_> = answers.into_iter().enumerate().collect();
        let newest = newest.map(|timeline| History { cluster: CLUSTER, timeline });
        decide(&answers, chosen.as_ref(), newest, |place| ["a", "b", "c"][place])
    }

    #[test]
    fn the_server_that_takes_writes_is_chosen() {
        assert_eq!(choose(vec![Ok(replica(1)), Ok(primary(1, 2))], None, None).ok(), Some(1));
        assert_eq!(choose(vec![Err(away()), Ok(primary(1, 2))], None, None).ok(), Some(1));
        assert_eq!(
            choose(vec![Err(wrong_password()), Ok(primary(1, 2))], None, None).ok(),
            Some(1)
        );
        // One server by two names.
        assert_eq!(choose(vec![Ok(primary(1, 2)), Ok(primary(1, 2))], None, None).ok(), Some(0));
        let chosen = Some((1, primary(1, 2)));
        assert_eq!(choose(vec![Ok(primary(1, 2)), Ok(primary(1, 2))], chosen, None).ok(), Some(1));
    }

    #[test]
    fn of_two_that_take_writes_the_newer_history_counts() {
        for chosen in [None, Some((0, primary(1, 1))), Some((1, primary(2, 2)))] {
            let both = vec![Ok(primary(1, 1)), Ok(primary(2, 2))];
            assert_eq!(choose(both, chosen, None).ok(), Some(1));
        }
        // Alone, the old one is known by what was seen before.
        let error = choose(vec![Ok(primary(1, 1)), Err(away())], None, Some(2)).unwrap_err();
        assert!(error.is_transient());
        let said = error.to_string();
        assert!(
            said.contains("a takes writes on timeline 1") && said.contains("timeline 2"),
            "{said}"
        );
        assert!(said.contains("b: connection refused") && said.contains("old primary"), "{said}");
        // Another cluster has timelines of its own.
        let mut restored = primary(1, 3);
        restored.history = Some(History { cluster: 8, timeline: 1 });
        assert_eq!(choose(vec![Ok(restored)], None, Some(2)).ok(), Some(0));
    }

    #[test]
    fn two_that_nothing_tells_apart_are_refused_unless_one_is_in_use() {
        let both = || vec![Ok(primary(1, 1)), Ok(primary(1, 2))];
        let error = choose(both(), None, None).unwrap_err();
        assert!(!error.is_transient() && error.to_string().contains("a and b"), "{error}");
        assert_eq!(choose(both(), Some((1, primary(1, 2))), None).ok(), Some(1));
        let mut other = primary(1, 2);
        other.history = Some(History { cluster: 8, timeline: 1 });
        let error = choose(vec![Ok(primary(1, 1)), Ok(other)], None, None).unwrap_err();
        assert!(error.to_string().contains("two databases"), "{error}");
    }

    #[test]
    fn without_a_primary_every_server_is_named_with_its_reason() {
        let error = choose(vec![Ok(replica(1))], None, None).unwrap_err();
        let said = error.to_string();
        assert!(error.is_transient() && error.fate() == Fate::NotSent);
        assert!(
            said.contains("a is a read-only replica") && said.contains("--database-url"),
            "{said}"
        );
        let error = choose(vec![Err(away()), Ok(replica(1))], None, None).unwrap_err();
        let said = error.to_string();
        assert!(said.contains("a: connection refused; b is a read-only replica"), "{said}");
        assert!(matches!(
            choose(vec![Err(away())], None, None),
            Err(StoreError::Unreachable { .. })
        ));
        // Nobody but a person can mend it: no waiting.
        let error = choose(vec![Err(wrong_password()), Err(wrong_password())], None, None);
        assert!(matches!(error, Err(StoreError::Refused { .. })));
        let error = choose(vec![Err(wrong_password()), Err(away())], None, None).unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("Check it"), "{error}");
    }
}
