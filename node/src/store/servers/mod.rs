//! Decides which of a database's servers a node talks to, the one that takes writes, and that no two of its
//! statements are ever on their way to two of them: before another server is chosen, whatever waits for the old one
//! gives up. How a server is dialled, and how it says who it is, are its store's.

mod choice;

use std::future::Future;
use std::sync::{Arc, Mutex as Lock, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, select_all};
use tokio::sync::{Mutex, RwLock, watch};
use turnwise_engine::{Fate, ServerIdentity};

use self::choice::{decide, would_do};
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
/// The same while none was chosen yet: whoever begins with an old primary begins a second ring.
const FIRST_GRACE: Duration = Duration::from_secs(2);
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
    choice: Mutex<Choice>,
    patience: Lock<Patience>,
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
    /// Old primaries that take writes beside the chosen server, as was said last.
    outdated: Vec<String>,
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

impl<S> Survey<S> {
    /// The server at a place, when it let the node in.
    fn take(self, place: usize) -> Option<(usize, S, Who)> {
        let session = self.sessions.into_iter().find(|(from, _)| *from == place)?.1;
        let who = self.answers.into_iter().find(|(from, _)| *from == place)?.1.ok()?;
        Some((place, session, who))
    }
}

impl<D: Dial> Servers<D> {
    /// The servers that `dials` lead to: one at least.
    pub(super) fn new(dials: Vec<D>) -> Self {
        let names: Vec<_> = dials.iter().map(Dial::name).collect();
        let choice = Choice { chosen: None, newest: None, outdated: Vec::new() };
        let patience = Patience::new(OTHERS_TIMEOUT_MIN, OTHERS_TIMEOUT_MAX);
        Self {
            names: names.join(" or "),
            dials,
            choice: Mutex::new(choice),
            patience: Lock::new(patience),
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
        self.connect_after(None).await
    }

    /// See [`connect`](Self::connect); `grace` is how long the others are waited for once a server would do, where that
    /// is not for what is known to say.
    async fn connect_after(&self, grace: Option<Duration>) -> Result<Line<D::Session>, StoreError> {
        loop {
            let before = *self.number.borrow();
            let (usual, newest) = self.known().await;
            // Nobody waits for another's tries: what is lost on one road may come through on the next.
            let survey = self.survey(grace.unwrap_or(usual), newest).await;
            let mut choice = self.choice.lock().await;
            let name = |place: usize| self.dials[place].name();
            let decision = decide(&survey.answers, choice.chosen.as_ref(), choice.newest, name)?;
            let Some((place, session, who)) = survey.take(decision.place) else {
                return Err(self.not_reached("the chosen server has no connection".to_owned()));
            };
            let is_old_news = *self.number.borrow() != before;
            if is_old_news && choice.chosen.as_ref().is_none_or(|(_, chosen)| *chosen != who) {
                // Another was chosen while this was found out: look again.
                continue;
            }
            warn_of(&mut choice.outdated, decision.outdated);
            self.choose(&mut choice, place, who).await;
            let current = self.number.subscribe();
            let number = *current.borrow();
            let gate = Arc::clone(&self.gate);
            return Ok(Line { session, bond: Bond { number, current, gate } });
        }
    }

    /// Look again and again whether another server has taken over. Never ends; with one server there is nothing to see.
    pub(super) async fn watch(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if self.dials.len() > 1
                && let Err(error) = self.look().await
            {
                tracing::debug!("a look at the database's servers: {error}");
            }
        }
    }

    /// One look whether another server has taken over. Nothing is urgent here: a server far away is heard out, however
    /// soon one nearby has answered.
    async fn look(&self) -> Result<(), StoreError> {
        self.connect_after(Some(CONNECT_TIMEOUT)).await.map(drop)
    }

    /// The grace that a connection gives, and the newest history that was seen.
    async fn known(&self) -> (Duration, Option<History>) {
        let choice = self.choice.lock().await;
        let grace = if choice.chosen.is_some() { GRACE } else { FIRST_GRACE };
        (grace, choice.newest)
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

    /// Ask all servers at once. Once one has answered that would do, by the `newest` history that was seen, the others are
    /// waited for no longer than `grace`.
    async fn survey(&self, grace: Duration, newest: Option<History>) -> Survey<D::Session> {
        let mut dials: Vec<BoxFuture<'_, _>> =
            (0..self.dials.len()).map(|place| self.ask(place).boxed()).collect();
        let mut survey = Survey { sessions: Vec::new(), answers: Vec::new() };
        let mut until = None;
        let mut is_found = false;
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
                        if !is_found {
                            self.patience().spent();
                        }
                        self.silent(&mut survey);
                        return survey;
                    }
                },
            };
            dials = rest;
            let fits = matches!(&answer, Ok((_, who)) if would_do(who, newest));
            is_found |= fits;
            let wait = if fits { grace } else { self.patience().now().max(grace) };
            let then = tokio::time::Instant::now() + wait;
            until = Some(until.map_or(then, |until: tokio::time::Instant| until.min(then)));
            let who = answer.map(|(session, who)| {
                survey.sessions.push((place, session));
                who
            });
            survey.answers.push((place, who));
        }
        // One that waits for every server to its end does not show that less would have done.
        if grace < CONNECT_TIMEOUT {
            self.patience().rewarded();
        }
        survey
    }

    fn patience(&self) -> MutexGuard<'_, Patience> {
        self.patience.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Say it when there is an old primary that was not there before.
fn warn_of(said: &mut Vec<String>, outdated: Vec<String>) {
    if *said != outdated && !outdated.is_empty() {
        tracing::warn!("{}", outdated.join("; "));
    }
    *said = outdated;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::sync::Notify;

    use super::*;

    /// A server that takes writes when it is told to.
    struct Fake {
        name: &'static str,
        timeline: i64,
        /// How far away it is.
        away: Duration,
        /// As PostgreSQL: its timeline shows which is the newer one. Otherwise as MariaDB: nothing does.
        tells: bool,
        writes: Arc<AtomicBool>,
        /// The next answer is on its way until this is told.
        slow: Arc<Lock<Option<Arc<Notify>>>>,
    }

    impl Dial for Fake {
        type Session = &'static str;

        fn name(&self) -> &str {
            self.name
        }

        async fn dial(&self) -> Result<(&'static str, Who), StoreError> {
            let timeline = self.timeline;
            let writes = self.writes.load(Ordering::Relaxed);
            let slow = self.slow.lock().unwrap().take();
            if let Some(arrives) = slow {
                arrives.notified().await;
            }
            if !self.away.is_zero() {
                tokio::time::sleep(self.away).await;
            }
            let who = Who {
                identity: ServerIdentity { started: timeline, timeline },
                history: (self.tells && writes).then_some(History { cluster: 7, timeline }),
                read_only: (!writes).then(|| "is a replica".to_owned()),
            };
            Ok((self.name, who))
        }
    }

    fn pair() -> (Servers<Fake>, [Arc<AtomicBool>; 2]) {
        let writes = [Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false))];
        let [first, second] = writes.clone();
        let fake = |name, timeline, writes| {
            let slow = Arc::default();
            Fake { name, timeline, away: Duration::ZERO, tells: false, writes, slow }
        };
        (Servers::new(vec![fake("old", 1, first), fake("new", 2, second)]), writes)
    }

    /// The same, where the new one is far away and tells that it is newer.
    fn far_pair() -> (Servers<Fake>, [Arc<AtomicBool>; 2]) {
        let (mut servers, writes) = pair();
        servers.dials.iter_mut().for_each(|server| server.tells = true);
        servers.dials[1].away = 2 * GRACE;
        (servers, writes)
    }

    /// A statement, from its start to its end or to when it is given up.
    struct Sent<'a>(&'a str, &'a Lock<Vec<String>>);

    impl Drop for Sent<'_> {
        fn drop(&mut self) {
            self.1.lock().unwrap().push(format!("over at {}", self.0));
        }
    }

    #[tokio::test]
    async fn what_waits_for_the_old_server_gives_up_before_anything_goes_to_the_new_one() {
        let (servers, writes) = pair();
        let old = servers.connect().await.unwrap();
        assert_eq!((old.session, old.bond.holds()), ("old", true));
        let happened = Lock::default();
        let waiting = async {
            let statement = async {
                let _sent = Sent(old.session, &happened);
                std::future::pending::<Result<(), Trouble>>().await
            };
            old.bond.carry(statement).await
        };
        let taking_over = async {
            tokio::task::yield_now().await;
            writes[0].store(false, Ordering::Relaxed);
            writes[1].store(true, Ordering::Relaxed);
            let new = servers.connect().await.unwrap();
            let ask = async {
                happened.lock().unwrap().push(new.session.to_owned());
                Ok::<_, Trouble>(())
            };
            new.bond.carry(ask).await.unwrap();
            new
        };
        let (given_up, new) = tokio::join!(waiting, taking_over);
        assert!(matches!(given_up, Err(Trouble::Replaced(Fate::Unknown))));
        assert_eq!(*happened.lock().unwrap(), ["over at old", "new"]);
        // A connection that waits idle does not reach the old one any more.
        let ask = async { Err::<(), _>(Trouble::corrupt("it was sent".to_owned())) };
        assert!(matches!(old.bond.carry(ask).await, Err(Trouble::Replaced(Fate::NotSent))));
        assert!(!old.bond.holds() && new.bond.holds());
    }

    #[tokio::test]
    async fn an_answer_that_is_overtaken_by_a_choice_does_not_undo_it() {
        let (servers, writes) = pair();
        let arrives = Arc::new(Notify::new());
        *servers.dials[0].slow.lock().unwrap() = Some(Arc::clone(&arrives));
        let late = servers.connect();
        let then = async {
            tokio::task::yield_now().await;
            // The old server's word is still on its way when the new one takes over.
            writes[0].store(false, Ordering::Relaxed);
            writes[1].store(true, Ordering::Relaxed);
            let new = servers.connect().await.unwrap();
            arrives.notify_one();
            new
        };
        let (late, new) = tokio::join!(late, then);
        assert_eq!((late.unwrap().session, new.session, new.bond.holds()), ("new", "new", true));
    }

    #[tokio::test]
    async fn a_look_hears_a_new_primary_out_that_is_farther_away_than_the_old_one() {
        let (servers, writes) = far_pair();
        let old = servers.connect().await.unwrap();
        assert_eq!((old.session, old.bond.holds()), ("old", true));
        // It is promoted, and the old one goes on as if nothing had happened.
        writes[1].store(true, Ordering::Relaxed);
        servers.look().await.unwrap();
        assert!(!old.bond.holds());
        // Nor is it passed over afterwards because the old one answers sooner.
        let new = servers.connect().await.unwrap();
        assert_eq!((new.session, new.bond.holds()), ("new", true));
    }

    #[tokio::test]
    async fn the_first_connection_does_not_begin_with_an_old_primary_that_is_nearer() {
        let (servers, writes) = far_pair();
        writes[1].store(true, Ordering::Relaxed);
        assert_eq!(servers.connect().await.unwrap().session, "new");
    }

    #[tokio::test]
    async fn connections_to_one_server_live_side_by_side() {
        let (servers, writes) = pair();
        let first = servers.connect().await.unwrap();
        let second = servers.connect().await.unwrap();
        assert!(first.bond.holds() && second.bond.holds());
        // Nobody takes over from a server that nobody else replaces, though it may not say what it did.
        writes[0].store(false, Ordering::Relaxed);
        assert!(servers.connect().await.is_err());
        assert!(first.bond.holds() && second.bond.holds());
    }
}
