//! What a promise needs of a database besides the store: its clock in hand, plain SQL, and further stores
//! on the same database, as other processes would have. Decides nothing.

use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use turnwise_node::job::JobId;
use turnwise_node::store::{Callbacks, QueueOrders, Schedules, Views};

/// A database under test.
pub(crate) trait World: Send + Sync + Sized + 'static {
    /// Its store.
    type Store: Views + QueueOrders + Schedules + Callbacks;

    /// Try a promise on a new database.
    fn attempt<P, F>(state: State, promise: P) -> impl Future<Output = Tried>
    where
        P: FnOnce(Self) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static;

    /// A store on this database, with connections of its own.
    fn store(&self) -> Self::Store;

    /// The clock stands at so many microseconds.
    fn set_clock(&self, micros: i64) -> impl Future<Output = ()> + Send;

    /// The clock goes with the host's.
    fn let_clock_go(&self) -> impl Future<Output = ()> + Send;

    /// What the host's clock shows, in nanoseconds since the Unix epoch.
    fn host_nanos(&self) -> i64 {
        system_nanos()
    }

    /// Run plain SQL, as an app or a person would. Tables are named as in PostgreSQL.
    fn run(&self, sql: &str) -> impl Future<Output = ()> + Send;

    /// What the database says to plain SQL that it refuses.
    fn refused(&self, sql: &str) -> impl Future<Output = Option<String>> + Send;

    /// The one number that a query answers.
    fn number(&self, sql: &str) -> impl Future<Output = Option<i64>> + Send;

    /// The one text that a query answers.
    fn text(&self, sql: &str) -> impl Future<Output = Option<String>> + Send;

    /// Make the row of a job one that cannot be read, as no version of this program and no app that keeps the
    /// schema does.
    fn spoil(&self, job: JobId) -> impl Future<Output = ()> + Send;

    /// An SQL expression for an instant, in microseconds.
    fn instant(micros: i64) -> String;

    /// An SQL expression for the microseconds of a column.
    fn micros(column: &str) -> String;

    /// An SQL expression for so many bytes.
    fn bytes(length: usize) -> String;
}

/// An instant on the boundary of a slot: 2027-01-15 08:00:00 UTC.
pub(crate) const NOON: i64 = 1_800_000_000 * SECOND;
/// A second in microseconds.
pub(crate) const SECOND: i64 = 1_000_000;

/// How long a promise may take to be tried.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What a new database holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing: not even a schema.
    Empty,
    /// The schema and a period of one second. Its clock stands at [`NOON`].
    Fresh,
}

/// What became of a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    /// It was kept.
    Kept,
    /// It was broken.
    Broken,
    /// It was not done within [`PATIENCE`].
    Hangs,
}

/// Try a promise in real time.
#[allow(dead_code, reason = "simulated databases have a time of their own")]
pub(crate) async fn attempt(promise: impl Future<Output = ()> + Send + 'static) -> Tried {
    match tokio::time::timeout(PATIENCE, tokio::spawn(promise)).await {
        Ok(Ok(())) => Tried::Kept,
        Ok(Err(_)) => Tried::Broken,
        Err(_) => Tried::Hangs,
    }
}

/// The host's real-time clock.
pub(crate) fn system_nanos() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64
}
