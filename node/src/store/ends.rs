//! Decides what the end of an attempt makes of its job, for stores that read a job under its lock before they write it.
//! Knows no SQL.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use turnwise_engine::ServerInstant;

use super::outages::Outages;
use super::rows::{micros, storable};
use crate::job::{End, EndOutcome, HAND_BACKS_MAX, JobFate, JobId};

/// What an attempt says that somebody has cancelled when it went on elsewhere, or was about to.
pub(super) const CANCELLED_ELSEWHERE: &str = "cancelled after it was accepted with 202";

/// Whether any of them goes on elsewhere.
pub(super) fn any_awaits(ends: &[End]) -> bool {
    ends.iter().any(|end| matches!(end.fate, JobFate::Await(_)))
}

/// A job that runs under the node that ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Running {
    pub(super) token: i64,
    pub(super) attempt: i64,
    pub(super) max_attempts: i64,
    pub(super) hand_backs: i64,
    pub(super) is_cancelled: bool,
    /// How long an attempt may take in all, in milliseconds.
    pub(super) deadline_ms: i64,
    /// In microseconds since the Unix epoch.
    pub(super) started_at: i64,
}

/// What is written of an attempt that ended and of its job. Instants are microseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended<'a> {
    pub(super) job: JobId,
    /// As the end found it.
    pub(super) found: Running,
    pub(super) state: &'static str,
    /// None while it waits.
    pub(super) finished_at: Option<i64>,
    /// None when they stay as they are.
    pub(super) queued_at: Option<i64>,
    pub(super) scheduled_at: Option<i64>,
    /// Since when it goes on elsewhere.
    pub(super) awaits_since: Option<i64>,
    /// The end of its deadline there.
    pub(super) awaits_until: Option<i64>,
    pub(super) attempt: i64,
    pub(super) hand_backs: i64,
    pub(super) status: Option<i64>,
    /// Of the attempt.
    pub(super) error: Option<String>,
    pub(super) answer: Option<&'a [u8]>,
}

impl<'a> Ended<'a> {
    fn new(end: &'a End, found: Running, at: ServerInstant, outages: &Outages) -> Self {
        let most = i64::from(HAND_BACKS_MAX);
        let fate = match end.fate {
            JobFate::HandBack if found.hand_backs < most => JobFate::HandBack,
            JobFate::HandBack if found.attempt < found.max_attempts => {
                JobFate::Retry(Duration::ZERO)
            }
            JobFate::HandBack => JobFate::Dead,
            fate => fate,
        };
        let state = match fate {
            JobFate::Succeeded => "succeeded",
            JobFate::Dead => "dead",
            _ if found.is_cancelled => "cancelled",
            _ => "queued",
        };
        let at = at.as_micros();
        let (back, goes_on) = match fate {
            JobFate::HandBack => (1, true),
            JobFate::Retry(_) | JobFate::Await(_) => (0, true),
            JobFate::Succeeded | JobFate::Dead => (0, false),
        };
        let scheduled_at = match fate {
            JobFate::Retry(wait) => Some(at.saturating_add(micros(wait))),
            JobFate::Await(wait) => Some(at.saturating_add(micros(wait))),
            _ => None,
        };
        let awaits_until = match fate {
            JobFate::Await(wait) if state == "queued" => {
                Some(outages.end_of(found.started_at, found.deadline_ms, micros(wait), at))
            }
            _ => None,
        };
        let error = match fate {
            JobFate::Await(_) if state == "cancelled" => Some(CANCELLED_ELSEWHERE),
            _ => end.error.as_deref(),
        };
        let spent = match fate {
            // One that was claimed though it had none left has not had that one.
            JobFate::Dead => found.attempt.min(found.max_attempts),
            _ => found.attempt - back,
        };
        Self {
            job: end.job,
            found,
            state,
            finished_at: (state != "queued").then_some(at),
            queued_at: goes_on.then_some(at),
            scheduled_at: scheduled_at
                .filter(|_| state == "queued")
                .map(|due| awaits_until.map_or(due, |last| due.min(last))),
            // By it the row is known to go on elsewhere under this claim: the clock may have been set back since.
            awaits_since: awaits_until.map(|_| at.max(found.started_at)),
            awaits_until,
            attempt: spent.max(0),
            hand_backs: found.hand_backs + back,
            status: end.status.map(i64::from),
            error: storable(error),
            answer: end.answer.as_deref(),
        }
    }

    /// Whether the job waits again with the time that it had.
    pub(super) fn is_put_back(&self) -> bool {
        self.state == "queued" && self.scheduled_at.is_none()
    }

    /// The number of the attempt that ended.
    pub(super) fn ended_attempt(&self) -> i64 {
        self.found.attempt.min(self.found.max_attempts.max(self.attempt))
    }

    /// What the job's row says of it.
    pub(super) fn job_error(&self) -> Option<&str> {
        self.error.as_deref().filter(|_| self.awaits_since.is_none())
    }

    /// Whether the attempt stands in its job's row alone, where nothing comes after it. Every other has a row of its own.
    pub(super) fn is_the_last(&self) -> bool {
        self.state == "succeeded"
    }
}

/// Ends that came together, each by itself.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    ends: &'a [End],
    /// By the place of the end; none for those that nothing is known of.
    outcomes: Vec<Option<EndOutcome>>,
    /// What is to be written.
    pub(super) ended: Vec<Ended<'a>>,
}

impl<'a> Batch<'a> {
    /// Ends that come at `at`, and those of their jobs that run under the node. `outages`: as far as any of them goes on elsewhere.
    pub(super) fn new(
        ends: &'a [End],
        mut running: BTreeMap<JobId, Running>,
        at: ServerInstant,
        outages: &Outages,
    ) -> Self {
        let (mut ended, mut claims) = (Vec::with_capacity(ends.len()), BTreeSet::new());
        let outcome = |end: &'a End| {
            let is_its = running.get(&end.job).is_some_and(|job| job.token == end.token.0);
            if is_its && let Some(found) = running.remove(&end.job) {
                ended.push(Ended::new(end, found, at, outages));
                claims.insert((end.job, end.token));
                return Some(EndOutcome::Ended);
            }
            claims.contains(&(end.job, end.token)).then_some(EndOutcome::AlreadyEnded)
        };
        let outcomes = ends.iter().map(outcome).collect();
        Self { ends, outcomes, ended }
    }

    /// The jobs of the ends that nothing is known of: their attempts have ended before, or never were.
    pub(super) fn unknown(&self) -> BTreeSet<JobId> {
        let unknown = self.ends.iter().zip(&self.outcomes).filter(|(_, outcome)| outcome.is_none());
        unknown.map(|(end, _)| end.job).collect()
    }

    /// What became of each, when the ends of these claims of jobs were recorded before.
    pub(super) fn outcomes(&self, before: &BTreeSet<(JobId, i64)>) -> Vec<EndOutcome> {
        let outcome = |(end, outcome): (&End, &Option<EndOutcome>)| match outcome {
            Some(outcome) => *outcome,
            None if before.contains(&(end.job, end.token.0)) => EndOutcome::AlreadyEnded,
            None => EndOutcome::Stale,
        };
        self.ends.iter().zip(&self.outcomes).map(outcome).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use turnwise_engine::Token;

    const AT: ServerInstant = ServerInstant::from_micros(1_000);

    fn end(job: JobId, token: i64, fate: JobFate) -> End {
        let (status, error, answer) = (Some(500), Some("no\0".to_owned()), Some(b"no".to_vec()));
        let batch = None;
        End {
            job,
            token: Token(token),
            attempt: 3,
            fate,
            status,
            error,
            answer,
            batch,
            slow_down: None,
        }
    }

    const FOUND: Running = Running {
        token: 7,
        attempt: 3,
        max_attempts: 5,
        hand_backs: 0,
        is_cancelled: false,
        deadline_ms: 2,
        started_at: 1,
    };

    /// State, attempts spent, hand-backs, due.
    fn becomes(fate: JobFate, found: Running) -> (&'static str, i64, i64, Option<i64>) {
        let end = end(JobId::generate(), 7, fate);
        let ended = Ended::new(&end, found, AT, &Outages::default());
        assert_eq!(ended.finished_at.is_some(), ended.state != "queued");
        assert_eq!(ended.error.as_deref(), Some("no\u{fffd}"));
        (ended.state, ended.attempt, ended.hand_backs, ended.scheduled_at)
    }

    #[test]
    fn each_fate_has_its_state() {
        let wait = JobFate::Retry(Duration::from_micros(5));
        assert_eq!(becomes(JobFate::Succeeded, FOUND), ("succeeded", 3, 0, None));
        assert_eq!(becomes(JobFate::Dead, FOUND), ("dead", 3, 0, None));
        assert_eq!(becomes(wait, FOUND), ("queued", 3, 0, Some(1_005)));
        assert_eq!(becomes(JobFate::HandBack, FOUND), ("queued", 2, 1, None));
    }

    #[test]
    fn a_job_that_is_cancelled_is_not_tried_again() {
        let found = Running { is_cancelled: true, ..FOUND };
        assert_eq!(becomes(JobFate::Retry(Duration::ZERO), found), ("cancelled", 3, 0, None));
        assert_eq!(becomes(JobFate::HandBack, found), ("cancelled", 2, 1, None));
        assert_eq!(becomes(JobFate::Succeeded, found), ("succeeded", 3, 0, None));
        assert_eq!(becomes(JobFate::Dead, found), ("dead", 3, 0, None));
    }

    #[test]
    fn a_job_that_goes_on_elsewhere_waits_no_longer_than_its_deadline() {
        let ended = |wait_us, found| {
            let end = end(JobId::generate(), 7, JobFate::Await(Duration::from_micros(wait_us)));
            let ended = Ended::new(&end, found, AT, &Outages::default());
            assert_eq!(ended.job_error().is_none(), ended.awaits_since.is_some());
            let (since, until) = (ended.awaits_since, ended.awaits_until);
            (ended.state, ended.scheduled_at, since.zip(until), ended.error)
        };
        let awaits = |wait_us, found| {
            let (state, due, awaits, error) = ended(wait_us, found);
            assert_eq!(error.as_deref(), Some("no\u{fffd}"), "what is true if nothing comes");
            (state, due, awaits)
        };
        let found = Running { deadline_ms: 9_000, ..FOUND };
        assert_eq!(awaits(5, found), ("queued", Some(1_005), Some((1_000, 9_000_001))));
        assert_eq!(awaits(10_000_000, found).1, Some(9_000_001));
        // The end may be brought a lease late; and the clock may have been set back.
        assert_eq!(awaits(10_000_000, FOUND).1, Some(2_501_000));
        let later = Running { started_at: 5_000, ..found };
        assert_eq!(awaits(5, later), ("queued", Some(1_005), Some((5_000, 9_005_000))));
        let cancelled = Running { is_cancelled: true, ..FOUND };
        let error = Some(CANCELLED_ELSEWHERE.to_owned());
        assert_eq!(ended(5, cancelled), ("cancelled", None, None, error));
    }

    #[test]
    fn a_job_that_had_no_attempt_left_has_not_had_another() {
        let found = Running { attempt: 6, ..FOUND };
        assert_eq!(becomes(JobFate::Dead, found), ("dead", 5, 0, None));
        assert_eq!(becomes(JobFate::Dead, FOUND), ("dead", 3, 0, None));
    }

    #[test]
    fn the_eleventh_hand_back_spends_the_attempt() {
        let found = Running { hand_backs: 10, ..FOUND };
        assert_eq!(becomes(JobFate::HandBack, found), ("queued", 3, 10, Some(1_000)));
        let last = Running { attempt: 5, ..found };
        assert_eq!(becomes(JobFate::HandBack, last), ("dead", 5, 10, None));
    }

    #[test]
    fn ends_are_each_their_own() {
        let [first, other, gone] = [(); 3].map(|()| JobId::generate());
        let ends = [
            end(first, 7, JobFate::Succeeded),
            end(other, 6, JobFate::Succeeded),
            end(first, 7, JobFate::Dead),
            end(gone, 7, JobFate::Dead),
        ];
        let batch =
            Batch::new(&ends, [(first, FOUND), (other, FOUND)].into(), AT, &Outages::default());
        assert_eq!(batch.ended.len(), 1);
        assert!(batch.ended[0].is_the_last(), "the first counts");
        assert_eq!(batch.unknown(), [other, gone].into());
        use EndOutcome::{AlreadyEnded, Ended, Stale};
        let before = [(gone, 7)].into();
        assert_eq!(batch.outcomes(&before), [Ended, Stale, AlreadyEnded, AlreadyEnded]);
    }
}
