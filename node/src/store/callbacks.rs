//! What is heard of an attempt from elsewhere: that it lives, how far it has come, how it ended. Decides what that makes of its
//! job, for stores that read a job under its lock before they write it; who may say it is decided in `crate::callback`.

use std::future::Future;
use std::time::Duration;

use turnwise_engine::{NodeId, ServerInstant, Token};

use super::outages::{Outages, deadline_of};
use super::rows::{micros, storable};
use super::{Store, StoreError};
use crate::job::{ClaimedJob, JobFate, JobId, Progress};

/// The last attempt of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastAttempt {
    /// Its node.
    pub node: NodeId,
    /// Its job, with the claim, and without headers and body.
    pub job: ClaimedJob,
    /// It goes on: its call is not answered yet, or was answered with 202.
    pub goes_on: bool,
    /// The state that stands in the job's row.
    pub state: String,
}

/// What is heard of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// It lives.
    Alive {
        /// It will be heard of again within this long.
        within: Duration,
        /// How far it has come; what is none stays as it was.
        progress: Progress,
    },
    /// It has ended.
    Ended {
        /// What happens to the job: it succeeded, is to be tried again, or is given up.
        fate: JobFate,
        /// Why it failed.
        error: Option<String>,
        /// What it answers, at most [`ANSWER_BYTES_KEPT_MAX`](crate::job::ANSWER_BYTES_KEPT_MAX) bytes.
        answer: Option<Vec<u8>>,
    },
}

/// What is heard of attempts.
pub trait Callbacks: Store {
    /// The last attempt of a job that was ever claimed. None when there is no such job, or it never was.
    fn last_attempt(
        &self,
        job: JobId,
    ) -> impl Future<Output = Result<Option<LastAttempt>, StoreError>> + Send;

    /// Take down what was heard of the attempt of a job under this claim. False when it does not go on any more: nothing is
    /// changed then.
    fn hear(
        &self,
        job: JobId,
        claim: (NodeId, Token),
        word: &Word,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;
}

/// An attempt that goes on, as it was found. Instants are microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its call was answered with 202.
    pub(super) is_elsewhere: bool,
    pub(super) is_cancelled: bool,
    pub(super) started_at: i64,
    pub(super) scheduled_at: i64,
    pub(super) deadline_ms: i64,
    pub(super) last_status: Option<i64>,
    pub(super) awaits_since: Option<i64>,
    /// The end of its deadline, where an outage has put it off.
    pub(super) awaits_until: Option<i64>,
}

impl Found {
    /// It ends then, whatever is heard of it. What a beat has yet to put off is put off here already.
    fn last(&self, at: i64, outages: &Outages) -> i64 {
        let last = deadline_of(self.started_at, self.deadline_ms);
        let last = last.max(self.awaits_until.unwrap_or(last));
        let away = outages.going_on(self.awaits_since.unwrap_or(at), at);
        // An older binary puts off the other time alone.
        last.saturating_add(away).max(self.scheduled_at)
    }
}

/// What is written of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change<'a> {
    /// It goes on.
    GoesOn {
        /// None when they stay as they are.
        queued_at: Option<i64>,
        scheduled_at: Option<i64>,
        progress: &'a Progress,
    },
    /// It has ended.
    Ended {
        state: &'static str,
        finished_at: Option<i64>,
        queued_at: i64,
        scheduled_at: Option<i64>,
        status: Option<i64>,
        error: Option<String>,
        answer: Option<&'a [u8]>,
    },
}

impl<'a> Change<'a> {
    pub(super) fn new(found: Found, word: &'a Word, at: ServerInstant, outages: &Outages) -> Self {
        let at = at.as_micros();
        match word {
            Word::Alive { within, progress } => {
                let next = at.saturating_add(micros(*within)).min(found.last(at, outages));
                Self::GoesOn {
                    queued_at: found.is_elsewhere.then_some(at),
                    scheduled_at: found.is_elsewhere.then_some(next),
                    progress,
                }
            }
            Word::Ended { fate, error, answer } => {
                let (state, wait) = match fate {
                    JobFate::Succeeded => ("succeeded", Duration::ZERO),
                    JobFate::Dead => ("dead", Duration::ZERO),
                    _ if found.is_cancelled => ("cancelled", Duration::ZERO),
                    JobFate::Retry(wait) | JobFate::Await(wait) => ("queued", *wait),
                    JobFate::HandBack => ("queued", Duration::ZERO),
                };
                let waits = state == "queued";
                Self::Ended {
                    state,
                    finished_at: (!waits).then_some(at),
                    queued_at: at,
                    scheduled_at: waits.then(|| at.saturating_add(micros(wait))),
                    status: found.last_status.filter(|_| found.is_elsewhere),
                    error: storable(error.as_deref()),
                    answer: answer.as_deref(),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUND: Found = Found {
        is_elsewhere: true,
        is_cancelled: false,
        started_at: 1_000_000,
        scheduled_at: 5_000_000,
        deadline_ms: 60_000,
        last_status: Some(202),
        awaits_since: Some(1_500_000),
        awaits_until: None,
    };

    fn change(found: Found, word: &Word) -> Change<'_> {
        let at = ServerInstant::from_micros(4_000_000);
        Change::new(found, word, at, &Outages::default())
    }

    #[test]
    fn a_heartbeat_puts_off_the_end_but_not_beyond_the_deadline() {
        let alive = |seconds| Word::Alive {
            within: Duration::from_secs(seconds),
            progress: Progress::default(),
        };
        let next = |found, seconds| match change(found, &alive(seconds)) {
            Change::GoesOn { queued_at, scheduled_at, .. } => (queued_at, scheduled_at),
            Change::Ended { .. } => panic!("it goes on"),
        };
        assert_eq!(next(FOUND, 10), (Some(4_000_000), Some(14_000_000)));
        assert_eq!(next(FOUND, 600), (Some(4_000_000), Some(61_000_000)));
        let after_an_outage = Found { scheduled_at: 70_000_000, ..FOUND };
        assert_eq!(next(after_an_outage, 600), (Some(4_000_000), Some(70_000_000)));
        let put_off = Found { awaits_until: Some(80_000_000), ..FOUND };
        assert_eq!(next(put_off, 600), (Some(4_000_000), Some(80_000_000)));
        let stale = Found { awaits_until: Some(2_000_000), ..FOUND };
        assert_eq!(next(stale, 600), (Some(4_000_000), Some(61_000_000)), "of an earlier attempt");
        // While the call goes on, the call's own deadline counts.
        assert_eq!(next(Found { is_elsewhere: false, ..FOUND }, 10), (None, None));
    }

    #[test]
    fn an_end_says_what_the_job_becomes() {
        let ended = |fate| Word::Ended { fate, error: Some("no\0".to_owned()), answer: None };
        let becomes = |found, fate| match change(found, &ended(fate)) {
            Change::Ended { state, finished_at, scheduled_at, status, error, .. } => {
                assert_eq!(error.as_deref(), Some("no\u{fffd}"));
                (state, finished_at, scheduled_at, status)
            }
            Change::GoesOn { .. } => panic!("it has ended"),
        };
        let retry = JobFate::Retry(Duration::from_secs(3));
        let (at, later, accepted) = (Some(4_000_000), Some(7_000_000), Some(202));
        assert_eq!(becomes(FOUND, JobFate::Succeeded), ("succeeded", at, None, accepted));
        assert_eq!(becomes(FOUND, JobFate::Dead), ("dead", at, None, accepted));
        assert_eq!(becomes(FOUND, retry), ("queued", None, later, accepted));
        let cancelled = Found { is_cancelled: true, is_elsewhere: false, ..FOUND };
        assert_eq!(becomes(cancelled, retry), ("cancelled", at, None, None));
        assert_eq!(becomes(cancelled, JobFate::Succeeded), ("succeeded", at, None, None));
    }
}
