//! What people order of queues. Decides what a policy may say; a queue that is paused is passed over by every claim, in the
//! database, and what a queue says of its jobs comes with each claim.

use std::fmt;
use std::future::Future;
use std::str::FromStr;
use std::time::Duration;

use turnwise_engine::ServerInstant;

use super::limits::Limits;
use super::{Store, StoreError};
use crate::job::{RETRY_WAIT_MAX, RETRY_WAIT_MIN, Retry, SLOW_DOWN_MAX, SLOW_DOWN_MIN, millis};

/// A queue of which no job is claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PausedQueue {
    /// Its name.
    pub queue: String,
    /// Since when, by the server's clock.
    pub since: ServerInstant,
}

impl PausedQueue {
    pub(super) fn new((queue, since_us): (String, i64)) -> Self {
        Self { queue, since: ServerInstant::from_micros(since_us) }
    }
}

/// What a queue says of its jobs where they do not say it themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueuePolicy {
    /// How long they wait between attempts.
    pub retry: Retry,
    /// Answers after which they are not tried again.
    pub permanent: Statuses,
    /// How many there may be at once, and in a time.
    pub limits: Limits,
    /// When a target answers 429 or 503 with `Retry-After`, none of them is claimed for as long as that asks, at most this: from
    /// [`SLOW_DOWN_MIN`] to [`SLOW_DOWN_MAX`]. None: they are claimed all the same.
    pub slow_down: Option<Duration>,
}

/// A queue that is held back since a target asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowedQueue {
    /// Its name.
    pub queue: String,
    /// Until when, by the server's clock.
    pub until: ServerInstant,
}

impl SlowedQueue {
    pub(super) fn new((queue, until_us): (String, i64)) -> Self {
        Self { queue, until: ServerInstant::from_micros(until_us) }
    }
}

/// A queue's row as it stands, but for its pause.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PolicyColumns {
    pub(super) name: String,
    pub(super) retry_wait_ms: Option<i64>,
    pub(super) retry_wait_max_ms: Option<i64>,
    pub(super) permanent_statuses: Option<String>,
    pub(super) concurrency: Option<i64>,
    pub(super) concurrency_per_key: Option<i64>,
    pub(super) rate_jobs: Option<i64>,
    pub(super) rate_per_ms: Option<i64>,
    pub(super) rate_burst: Option<i64>,
    pub(super) slow_down_ms: Option<i64>,
}

/// The same as it is read.
pub(super) type PolicyRow = (
    String,
    Option<i64>,
    Option<i64>,
    Option<String>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
);

impl From<PolicyRow> for PolicyColumns {
    fn from(row: PolicyRow) -> Self {
        let (name, retry_wait_ms, retry_wait_max_ms, permanent_statuses, ..) = row;
        let (
            ..,
            concurrency,
            concurrency_per_key,
            rate_jobs,
            rate_per_ms,
            rate_burst,
            slow_down_ms,
        ) = row;
        Self {
            name,
            retry_wait_ms,
            retry_wait_max_ms,
            permanent_statuses,
            concurrency,
            concurrency_per_key,
            rate_jobs,
            rate_per_ms,
            rate_burst,
            slow_down_ms,
        }
    }
}

/// The columns of such a row.
macro_rules! policy_columns {
    () => {
        "name, retry_wait_ms, retry_wait_max_ms, permanent_statuses, concurrency, concurrency_per_key, rate_jobs,
            rate_per_ms, rate_burst, slow_down_ms"
    };
}
pub(super) use policy_columns;

/// Statuses of answers, each from 300 to 599, at most [`STATUSES_MAX`] of them, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statuses(Vec<u16>);

/// So many statuses can be listed.
pub const STATUSES_MAX: usize = 60;

/// Why a text lists no statuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatusesError {
    /// One of them is none.
    #[error(
        "{0:?} is no status of a failed answer; write a number from 300 to 599, as in 400,404,422"
    )]
    NoStatus(String),
    /// They are too many.
    #[error("these are {0} statuses, of at most {STATUSES_MAX}")]
    TooMany(usize),
}

impl FromStr for Statuses {
    type Err = StatusesError;

    fn from_str(text: &str) -> Result<Self, StatusesError> {
        let status = |text: &str| {
            let status = text.trim().parse().ok().filter(|status| (300..=599).contains(status));
            status.ok_or_else(|| StatusesError::NoStatus(text.trim().to_owned()))
        };
        let listed = text.split(',').filter(|part| !part.trim().is_empty());
        let mut statuses = listed.map(status).collect::<Result<Vec<u16>, _>>()?;
        statuses.sort_unstable();
        statuses.dedup();
        match statuses.len() {
            0..=STATUSES_MAX => Ok(Self(statuses)),
            many => Err(StatusesError::TooMany(many)),
        }
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(u16::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

impl QueuePolicy {
    /// What is written for this queue.
    pub(super) fn columns(&self, queue: &str) -> PolicyColumns {
        let permanent = self.permanent.to_string();
        let (concurrency, concurrency_per_key, rate_jobs, rate_per_ms, rate_burst) =
            self.limits.columns();
        PolicyColumns {
            name: queue.to_owned(),
            retry_wait_ms: self.retry.wait.map(millis),
            retry_wait_max_ms: self.retry.wait_max.map(millis),
            permanent_statuses: (!permanent.is_empty()).then_some(permanent),
            concurrency,
            concurrency_per_key,
            rate_jobs,
            rate_per_ms,
            rate_burst,
            slow_down_ms: self.slow_down.map(millis),
        }
    }

    /// As it stands in a row, which anyone may have written: what cannot be read of it says nothing.
    pub(super) fn read(row: impl Into<PolicyColumns>) -> (String, Self) {
        let row: PolicyColumns = row.into();
        let time = |millis: Option<i64>, least, most| {
            let time = Duration::from_millis(u64::try_from(millis?).unwrap_or(0));
            Some(time.clamp(least, most))
        };
        let wait = |millis| time(millis, RETRY_WAIT_MIN, RETRY_WAIT_MAX);
        let limits = (
            row.concurrency,
            row.concurrency_per_key,
            row.rate_jobs,
            row.rate_per_ms,
            row.rate_burst,
        );
        let permanent = row.permanent_statuses.and_then(|listed| listed.parse().ok());
        let policy = Self {
            retry: Retry { wait: wait(row.retry_wait_ms), wait_max: wait(row.retry_wait_max_ms) },
            permanent: permanent.unwrap_or_default(),
            limits: Limits::read(limits),
            slow_down: time(row.slow_down_ms, SLOW_DOWN_MIN, SLOW_DOWN_MAX),
        };
        (row.name, policy)
    }
}

/// What can be ordered of a queue.
pub trait QueueOrders: Store {
    /// Claim no more jobs of this queue, on any node, until it is resumed. What runs goes on; what a node tries again waits
    /// too. Jobs may be enqueued all the while. False when it is paused already. A queue need not have jobs. Fails with
    /// [`StoreError::Failed`] when the name is longer than [`QUEUE_BYTES_MAX`](crate::job::QUEUE_BYTES_MAX) bytes.
    fn pause(&self, queue: &str) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Claim its jobs again. False when it is not paused.
    fn resume(&self, queue: &str) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Say what holds for the jobs of this queue, from their next claims on. The default says nothing. A queue need not have jobs.
    /// A limit that is lower than what runs now lets that go on; a queue that is held back goes on. Fails as [`pause`](Self::pause) does.
    fn put_policy(
        &self,
        queue: &str,
        policy: &QueuePolicy,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The queues that say something of their jobs, by name.
    fn policies(
        &self,
    ) -> impl Future<Output = Result<Vec<(String, QueuePolicy)>, StoreError>> + Send;

    /// The queues that are paused, by name.
    fn paused(&self) -> impl Future<Output = Result<Vec<PausedQueue>, StoreError>> + Send;

    /// The queues that are held back since a target asks for it, by name.
    fn slowed(&self) -> impl Future<Output = Result<Vec<SlowedQueue>, StoreError>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_listed() {
        let listed = |text: &str| text.parse::<Statuses>().map(|statuses| statuses.to_string());
        assert_eq!(listed("422, 400,404,400").unwrap(), "400,404,422");
        assert_eq!(listed(" ").unwrap(), "");
        for wrong in ["200", "600", "4xx", "404;410", "-404"] {
            let error = listed(wrong).unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains("300 to 599"), "{error}");
        }
        let many: Vec<String> = (400..=460).map(|status| status.to_string()).collect();
        assert_eq!(listed(&many.join(",")), Err(StatusesError::TooMany(61)));
    }

    #[test]
    fn a_policy_comes_back_from_its_columns() {
        let policy = QueuePolicy {
            retry: Retry { wait: Some(Duration::from_secs(1)), wait_max: None },
            permanent: "404".parse().unwrap(),
            limits: Limits {
                concurrency: Some(2),
                concurrency_per_key: Some(1),
                rate: Some("5/m".parse().unwrap()),
            },
            slow_down: Some(Duration::from_secs(60)),
        };
        assert_eq!(QueuePolicy::read(policy.columns("mail")), ("mail".to_owned(), policy));
        let nothing = PolicyColumns { name: "mail".to_owned(), ..PolicyColumns::default() };
        assert_eq!(QueuePolicy::default().columns("mail"), nothing);
        let (_, odd) = QueuePolicy::read(PolicyColumns {
            retry_wait_ms: Some(-1),
            retry_wait_max_ms: Some(i64::MAX),
            permanent_statuses: Some("all".to_owned()),
            slow_down_ms: Some(0),
            ..nothing
        });
        assert_eq!(odd.retry.wait, Some(RETRY_WAIT_MIN));
        assert_eq!(odd.retry.wait_max, Some(RETRY_WAIT_MAX));
        assert_eq!(odd.permanent, Statuses::default());
        assert_eq!(odd.slow_down, Some(SLOW_DOWN_MIN));
    }
}
