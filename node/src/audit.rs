//! Who ordered what: decides which orders of people are kept and told, by whom they are given, and how much is said of each. How
//! long it is kept is `store::audit`'s to decide; who may see it, `dashboard::door`'s.
//!
//! An entry is written right after the order was carried out, by a statement of its own, and told in the log (target `audit`)
//! in any case. An order that changed nothing has none.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use turnwise_engine::Fate;

use crate::batch_orders::{CancelAnswer, MakeAnswer};
use crate::job::JobFilter;
use crate::store::orders::{PauseAnswer, RunAnswer, SetAnswer};
use crate::store::{Altered, Audit, Bulk, Deed, DrainAnswer, SealAnswer, StoreError, TokenMade};
use crate::token::Role;
use crate::watch::within;

/// The most of who and of what that is kept, in bytes.
const ACTOR_BYTES_MAX: usize = 200;
const SUBJECT_BYTES_MAX: usize = 512;
/// How long an entry may take to be written: whoever gave the order waits for it.
const KEEP_TIMEOUT: Duration = Duration::from_secs(2);

/// What can be ordered. Its word is promised to programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Jobs were enqueued over HTTP: one entry a request.
    JobEnqueue,
    /// A job runs again.
    JobRetry,
    /// A job is cancelled.
    JobCancel,
    /// All jobs that a filter finds run again.
    JobsRetry,
    /// All jobs that a filter finds are cancelled.
    JobsCancel,
    /// Ended jobs are removed by hand.
    JobsPrune,
    /// No job of a queue is claimed.
    QueuePause,
    /// They are claimed again.
    QueueResume,
    /// What a queue says of its jobs.
    QueueSet,
    /// A batch is made, of so many jobs.
    BatchMake,
    /// A batch is sealed.
    BatchSeal,
    /// A batch is cancelled, with so many of its jobs.
    BatchCancel,
    /// A schedule is set.
    ScheduleSet,
    /// A schedule is removed.
    ScheduleRemove,
    /// A schedule is paused.
    SchedulePause,
    /// It goes on.
    ScheduleResume,
    /// A job of it is inserted now.
    ScheduleRun,
    /// A node is asked to drain.
    NodeDrain,
    /// The farm's period is changed.
    PeriodChange,
    /// A token is made.
    TokenMake,
    /// A token is revoked.
    TokenRevoke,
}

impl Action {
    /// The word for it, as stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::JobEnqueue => "job.enqueue",
            Self::JobRetry => "job.retry",
            Self::JobCancel => "job.cancel",
            Self::JobsRetry => "jobs.retry",
            Self::JobsCancel => "jobs.cancel",
            Self::JobsPrune => "jobs.prune",
            Self::QueuePause => "queue.pause",
            Self::QueueResume => "queue.resume",
            Self::QueueSet => "queue.set",
            Self::BatchMake => "batch.make",
            Self::BatchSeal => "batch.seal",
            Self::BatchCancel => "batch.cancel",
            Self::ScheduleSet => "schedule.set",
            Self::ScheduleRemove => "schedule.remove",
            Self::SchedulePause => "schedule.pause",
            Self::ScheduleResume => "schedule.resume",
            Self::ScheduleRun => "schedule.run",
            Self::NodeDrain => "node.drain",
            Self::PeriodChange => "period.change",
            Self::TokenMake => "token.make",
            Self::TokenRevoke => "token.revoke",
        }
    }
}

/// Who gives an order, and what that opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    name: String,
    role: &'static str,
}

/// Names that no token may have, since they stand for somebody else.
const TAKEN: [&str; 3] = [Actor::DASHBOARD, Actor::LISTEN_TOKEN, Actor::API];
/// What a command's actor begins with.
const CLI: &str = "cli:";

impl Actor {
    /// Somebody in a browser.
    const DASHBOARD: &'static str = "dashboard";
    /// Who shows the token of the configuration.
    const LISTEN_TOKEN: &'static str = "listen-token";
    /// A program, where no token is asked for.
    const API: &'static str = "api";

    /// Who shows the token of this name.
    pub fn token(name: impl Into<String>, role: Role) -> Self {
        Self { name: name.into(), role: role.as_str() }
    }

    /// Who shows the token of the configuration.
    pub(crate) fn listen_token() -> Self {
        Self::token(Self::LISTEN_TOKEN, Role::Operate)
    }

    /// Somebody in a browser, by this node's pages.
    pub fn dashboard() -> Self {
        Self::token(Self::DASHBOARD, Role::Operate)
    }

    /// A program that was not asked for a token.
    pub(crate) fn api() -> Self {
        Self::token(Self::API, Role::Operate)
    }

    /// Who runs this program as a command: the user of the operating system. Whoever reaches the database is asked for no token.
    pub(crate) fn cli() -> Self {
        let uid = nix::unistd::getuid();
        let user = nix::unistd::User::from_uid(uid).ok().flatten().map(|user| user.name);
        let user = user.unwrap_or_else(|| uid.to_string());
        Self { name: format!("{CLI}{user}"), role: "database" }
    }

    /// Whether an entry with this name means no token.
    pub(crate) fn is_taken(name: &str) -> bool {
        TAKEN.contains(&name) || name.starts_with(CLI)
    }
}

/// Whom the door has let in. Behind no door there is nobody to name.
impl<S: Send + Sync> FromRequestParts<S> for Actor {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}

impl Actor {
    pub(crate) fn of(extensions: &http::Extensions) -> Self {
        extensions.get().cloned().unwrap_or_else(Self::api)
    }
}

/// What is kept of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    actor: String,
    role: &'static str,
    action: Action,
    subject: String,
    affected: Option<i64>,
}

impl Entry {
    /// That somebody ordered this, of so many; none: it is not known whether it was carried out. What is too long is cut.
    pub fn new(actor: &Actor, action: Action, subject: &str, affected: Option<u64>) -> Self {
        Self {
            actor: bounded(&actor.name, ACTOR_BYTES_MAX),
            role: actor.role,
            action,
            subject: bounded(subject, SUBJECT_BYTES_MAX),
            affected: affected.map(|many| i64::try_from(many).unwrap_or(i64::MAX)),
        }
    }

    /// Who.
    pub fn actor(&self) -> &str {
        &self.actor
    }

    /// What that opened.
    pub fn role(&self) -> &'static str {
        self.role
    }

    /// What.
    pub fn action(&self) -> Action {
        self.action
    }

    /// Of what.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Of how many.
    pub fn affected(&self) -> Option<i64> {
        self.affected
    }
}

/// The beginning of a text, in one line.
fn bounded(text: &str, bytes: usize) -> String {
    const MORE: char = '…';
    let mut kept = String::with_capacity(text.len().min(bytes));
    for c in text.chars() {
        let c = if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        if kept.len() + c.len_utf8() > bytes {
            while kept.len() + MORE.len_utf8() > bytes {
                kept.pop();
            }
            kept.push(MORE);
            break;
        }
        kept.push(c);
    }
    kept
}

/// An order that is about to be carried out.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    actor: Actor,
    action: Action,
    subject: String,
}

impl Order {
    pub(crate) fn new(actor: Actor, action: Action, subject: impl fmt::Display) -> Self {
        Self { actor, action, subject: subject.to_string() }
    }

    /// One that is given by a command.
    pub(crate) fn by_command(action: Action, subject: impl fmt::Display) -> Self {
        Self::new(Actor::cli(), action, subject)
    }

    /// Carry it out, and keep that it was.
    pub(crate) async fn carry_out<T: Touched>(
        &self,
        store: &impl Audit,
        order: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let done = order.await;
        match &done {
            Ok(done) => self.done(store, done.touched()).await,
            Err(error) if may_be_done(error) => self.keep(store, None).await,
            Err(_) => {}
        }
        done
    }

    /// Do this to all jobs that a filter finds, up to `most`, and keep to how many it was done.
    pub(crate) async fn alter_all(
        &self,
        store: &(impl Audit + Bulk),
        deed: Deed,
        filter: &JobFilter,
        most: u32,
    ) -> Altered {
        let altered = store.alter_all(deed, filter, most).await;
        match &altered.broken_off {
            Some(error) => self.broken_off(store, u64::from(altered.jobs), error).await,
            None => self.done(store, u64::from(altered.jobs)).await,
        }
        altered
    }

    /// Keep that it was carried out, of so many.
    pub(crate) async fn done(&self, store: &impl Audit, touched: u64) {
        if touched > 0 {
            self.keep(store, Some(touched)).await;
        }
    }

    /// Keep that so many were done, or perhaps more, before the database failed.
    pub(crate) async fn broken_off(&self, store: &impl Audit, touched: u64, error: &StoreError) {
        match may_be_done(error) {
            true => self.keep(store, None).await,
            false => self.done(store, touched).await,
        }
    }

    /// What was ordered is done and stays so, whatever becomes of the entry.
    async fn keep(&self, store: &impl Audit, touched: Option<u64>) {
        let entry = Entry::new(&self.actor, self.action, &self.subject, touched);
        let Entry { actor, role, action, subject, affected } = &entry;
        let action = action.as_str();
        tracing::info!(target: "audit", %actor, role, action, %subject, affected, "ordered");
        if let Err(error) = within(KEEP_TIMEOUT, store.keep_bounded(&entry)).await {
            tracing::warn!(
                target: "audit",
                %actor, role, action, %subject, affected,
                "this was ordered, and it may be missing in the audit: {error}"
            );
        }
    }
}

/// The jobs that a filter finds, as the subject of an order.
pub(crate) fn in_words(filter: &JobFilter) -> String {
    let state = filter.state.map(|state| format!("state={}", state.as_str()));
    let queue = filter.queue.as_ref().map(|queue| format!("queue={queue}"));
    let batch = filter.batch.map(|batch| format!("batch={batch}"));
    state.into_iter().chain(queue).chain(batch).collect::<Vec<_>>().join(" ")
}

/// Whether what failed like this may have been carried out: its answer was lost. What the database itself refuses is not.
fn may_be_done(error: &StoreError) -> bool {
    matches!(error, StoreError::Unreachable { fate: Fate::Unknown, .. })
}

/// What came of an order, as far as entries are concerned.
pub(crate) trait Touched {
    /// How many things it changed.
    fn touched(&self) -> u64;
}

impl Touched for () {
    fn touched(&self) -> u64 {
        1
    }
}

impl Touched for bool {
    fn touched(&self) -> u64 {
        u64::from(*self)
    }
}

impl Touched for Option<bool> {
    fn touched(&self) -> u64 {
        u64::from(*self == Some(true))
    }
}

impl Touched for Option<DrainAnswer> {
    fn touched(&self) -> u64 {
        u64::from(*self == Some(DrainAnswer::Asked))
    }
}

impl Touched for TokenMade {
    fn touched(&self) -> u64 {
        u64::from(*self == Self::Made)
    }
}

impl Touched for SetAnswer {
    fn touched(&self) -> u64 {
        1
    }
}

impl Touched for PauseAnswer {
    fn touched(&self) -> u64 {
        u64::from(*self == Self::Done)
    }
}

impl Touched for MakeAnswer {
    fn touched(&self) -> u64 {
        // A batch without jobs was made all the same.
        (self.ids.len() as u64).max(1)
    }
}

impl Touched for SealAnswer {
    fn touched(&self) -> u64 {
        u64::from(*self == Self::Sealed)
    }
}

impl Touched for CancelAnswer {
    fn touched(&self) -> u64 {
        match self {
            Self::Cancelled { is_new, jobs, .. } => u64::from(*jobs).max(u64::from(*is_new)),
            Self::Ended(_) | Self::Unknown => 0,
        }
    }
}

impl Touched for RunAnswer {
    fn touched(&self) -> u64 {
        u64::from(matches!(self, Self::Fired(_)))
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::store::Store;
    use crate::store::sqlite::SqliteStore;

    async fn store() -> SqliteStore {
        let store = SqliteStore::open("sqlite::memory:").unwrap();
        store.migrate().await.unwrap();
        store
    }

    #[test]
    fn what_is_kept_is_bounded_and_in_one_line() {
        let actor = Actor::token("ü".repeat(150), Role::Enqueue);
        let entry =
            Entry::new(&actor, Action::JobEnqueue, &format!("a\n\0{}", "ö".repeat(600)), None);
        assert!(entry.actor().len() <= 200 && entry.actor().ends_with("ü…"), "{}", entry.actor());
        assert!(entry.subject().len() <= 512 && entry.subject().ends_with("ö…"));
        assert!(entry.subject().starts_with("a\u{fffd}\u{fffd}ö"), "{}", entry.subject());
        let whole = "x".repeat(512);
        assert_eq!(Entry::new(&actor, Action::JobRetry, &whole, Some(1)).subject(), whole);
    }

    #[test]
    fn who_gives_a_command_is_the_user_and_no_token_is_called_so() {
        let cli = Actor::cli();
        assert!(cli.name.len() > CLI.len() && Actor::is_taken(&cli.name), "{cli:?}");
        assert_eq!(cli.role, "database");
        assert!(Actor::is_taken("dashboard") && Actor::is_taken("api"));
        assert!(!Actor::is_taken("shop") && !Actor::is_taken("cli"));
    }

    #[tokio::test]
    async fn an_order_is_kept_when_it_was_or_may_have_been_carried_out() {
        let store = store().await;
        let order = Order::new(Actor::dashboard(), Action::QueuePause, "mail");
        order.carry_out(&store, async { Ok(false) }).await.unwrap();
        let not_sent = async { Err::<bool, _>(unreachable(Fate::NotSent)) };
        order.carry_out(&store, not_sent).await.unwrap_err();
        assert_eq!(store.entries(None, 9).await.unwrap(), []);
        order.carry_out(&store, async { Ok(true) }).await.unwrap();
        let lost = async { Err::<bool, _>(unreachable(Fate::Unknown)) };
        order.carry_out(&store, lost).await.unwrap_err();
        let entries = store.entries(None, 9).await.unwrap();
        let affected: Vec<_> = entries.iter().map(|entry| entry.affected).collect();
        assert_eq!(affected, [None, Some(1)]);
        let told =
            (&*entries[0].actor, &*entries[0].role, &*entries[0].action, &*entries[0].subject);
        assert_eq!(told, ("dashboard", "operate", "queue.pause", "mail"));
    }

    /// Where a log is written to.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn an_order_is_one_line_in_the_log() {
        let store = store().await;
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone());
        let guard = tracing::subscriber::set_default(subscriber.finish());
        let order =
            Order::new(Actor::token("shop", Role::Operate), Action::JobsCancel, "state=dead");
        order.done(&store, 7).await;
        order.done(&store, 0).await;
        drop(guard);
        let written = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let lines = written.lines().map(|line| serde_json::from_str(line).unwrap());
        let lines: Vec<serde_json::Value> =
            lines.filter(|line: &serde_json::Value| line["target"] == "audit").collect();
        assert_eq!(lines.len(), 1, "{written}");
        let fields = &lines[0]["fields"];
        let told =
            ["actor", "role", "action", "subject"].map(|name| fields[name].as_str().unwrap());
        assert_eq!(told, ["shop", "operate", "jobs.cancel", "state=dead"]);
        assert_eq!((&fields["affected"], &lines[0]["level"]), (&7.into(), &"INFO".into()));
    }

    #[tokio::test]
    async fn an_order_stays_done_though_it_cannot_be_kept() {
        // No schema: no table.
        let store = SqliteStore::open("sqlite::memory:").unwrap();
        let order = Order::new(Actor::dashboard(), Action::QueuePause, "mail");
        assert!(order.carry_out(&store, async { Ok(true) }).await.unwrap());
    }

    fn unreachable(fate: Fate) -> StoreError {
        StoreError::Unreachable { database: "d".to_owned(), reason: "r".to_owned(), fate }
    }
}
