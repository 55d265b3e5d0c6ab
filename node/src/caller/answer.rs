//! Decides what the outcome of a call means for its job, by a table that is a pure function. When the next
//! attempt really runs, and on which node, is not decided here.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

use super::{CallOutcome, Rejection};
use crate::job::{ClaimedJob, End, HAND_BACKS_MAX, JobFate};

/// The wait after the first failed attempt, before jitter.
pub const BACK_OFF_FIRST: Duration = Duration::from_secs(15);
/// The longest wait, whatever the jitter and the target say.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(24 * 3_600);

/// What an outcome means for the job: the parts of an [`End`] that the caller decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What happens to the job.
    pub fate: JobFate,
    /// The status of the answer, if one came.
    pub status: Option<u16>,
    /// Why it failed, in words.
    pub error: Option<String>,
    /// The kept part of the answer's body.
    pub answer: Option<Vec<u8>>,
}

impl Verdict {
    /// A job that can never be called ends dead, with no status.
    pub fn rejected(rejection: &Rejection) -> Self {
        let error = Some(format!("never called: {rejection}"));
        Self { fate: JobFate::Dead, status: None, error, answer: None }
    }

    /// The end of the attempt on `job`, for the store.
    pub fn into_end(self, job: &ClaimedJob) -> End {
        let Self { fate, status, error, answer } = self;
        End { job: job.id, token: job.token, attempt: job.attempt, fate, status, error, answer }
    }
}

/// The answer table.
///
/// | outcome | fate |
/// |---|---|
/// | 2xx | succeeded |
/// | 410, or any other with `Turnwise-No-Retry: true` | dead at once |
/// | 429, 503 with `Retry-After` | failed attempt, retried not before that (up to [`BACK_OFF_MAX`]) |
/// | any other status, 3xx among them; time-out; reset | failed attempt, retried after [`back_off`] |
/// | refused by the node's own target | handed back; the [`HAND_BACKS_MAX`]th time and later a failed attempt |
///
/// A failed attempt that was the last one leaves the job dead. `random` is uniform over all `u64` and
/// makes the jitter.
pub fn judge(job: &ClaimedJob, outcome: CallOutcome, random: u64) -> Verdict {
    match outcome {
        CallOutcome::Answered { status, retry_after, no_retry, body } => {
            let answer = Some(body).filter(|body| !body.is_empty());
            let (fate, error) = judge_status(job, status, retry_after, no_retry, random);
            Verdict { fate, status: Some(status), error, answer }
        }
        CallOutcome::RefusedByOwnTarget { reason } => give_back(
            job,
            &format!("the node's own target refused the connection: {reason}"),
            random,
        ),
        CallOutcome::TimedOut { after } => {
            failed(job, format!("no answer within {}", humantime::format_duration(after)), random)
        }
        CallOutcome::Failed { reason } => failed(job, format!("the call failed: {reason}"), random),
    }
}

/// The end of an attempt that came to nothing through no fault of the job's: it goes back without spending
/// the attempt, [`HAND_BACKS_MAX`] times; after that it is a failed attempt like any other.
pub fn give_back(job: &ClaimedJob, reason: &str, random: u64) -> Verdict {
    if job.hand_backs < HAND_BACKS_MAX {
        let error = Some(format!("given back: {reason}"));
        return Verdict { fate: JobFate::HandBack, status: None, error, answer: None };
    }
    let counts =
        format!("{reason} (it was given back {} times, so this attempt counts)", job.hand_backs);
    failed(job, counts, random)
}

/// The end of an attempt whose call was dropped since somebody had cancelled its job: what the store makes of a job that is not
/// to be tried again.
pub fn cancelled() -> Verdict {
    let error = Some("cancelled while it ran: the call was dropped".to_owned());
    Verdict { fate: JobFate::Retry(Duration::ZERO), status: None, error, answer: None }
}

fn judge_status(
    job: &ClaimedJob,
    status: u16,
    retry_after: Option<Duration>,
    no_retry: bool,
    random: u64,
) -> (JobFate, Option<String>) {
    let wait = back_off(job.attempt, random);
    let answered = format!("the target answered {status}");
    match status {
        200..=299 => (JobFate::Succeeded, None),
        410 => (JobFate::Dead, Some(format!("{answered} (gone: not tried again)"))),
        _ if no_retry => (JobFate::Dead, Some(format!("{answered} with Turnwise-No-Retry"))),
        300..=399 => (
            retry(job, wait),
            Some(format!("{answered}, a redirect; redirects are never followed")),
        ),
        429 | 503 if retry_after.is_some() => {
            let asked = retry_after.unwrap_or_default().min(BACK_OFF_MAX);
            let error =
                format!("{answered} with Retry-After {}", humantime::format_duration(asked));
            (retry(job, wait.max(asked)), Some(error))
        }
        _ => (retry(job, wait), Some(answered)),
    }
}

fn failed(job: &ClaimedJob, error: String, random: u64) -> Verdict {
    let fate = retry(job, back_off(job.attempt, random));
    Verdict { fate, status: None, error: Some(error), answer: None }
}

/// Another attempt after `wait`, if the job has one left.
fn retry(job: &ClaimedJob, wait: Duration) -> JobFate {
    if job.attempt >= job.max_attempts { JobFate::Dead } else { JobFate::Retry(wait) }
}

/// How long to wait after the failed attempt number `attempt` (from 1), in whole milliseconds.
///
/// With `B = min(15 s · 2^(attempt - 1), 24 h)` the wait is uniform over `[B/2, min(3B/2, 24 h)]`:
/// `B` on average until the cap is near, and never so that jobs which failed together come back together.
pub fn back_off(attempt: u32, random: u64) -> Duration {
    const FIRST: u64 = BACK_OFF_FIRST.as_millis() as u64;
    const MAX: u64 = BACK_OFF_MAX.as_millis() as u64;
    // 2^13 · 15 s is beyond the cap already.
    let doublings = attempt.saturating_sub(1).min(13);
    let base = (FIRST << doublings).min(MAX);
    let least = base / 2;
    let most = (base + least).min(MAX);
    let span = u128::from(most - least + 1);
    let jitter = ((u128::from(random) * span) >> 64) as u64;
    Duration::from_millis(least + jitter)
}

/// How long an answer asks to be left alone (RFC 9110, section 10.2.3): seconds, or an HTTP date, which
/// is taken relative to the answer's own `Date`, so that no clock but the target's counts, or else to
/// `now`, this machine's wall clock. None when there is no such header or it says neither.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    let date = |text: &str| httpdate::parse_http_date(text.trim()).ok();
    let until = date(text)?;
    let own = headers.get(DATE).and_then(|value| value.to_str().ok()).and_then(date);
    Some(until.duration_since(own.unwrap_or(now)).unwrap_or_default())
}

/// Whether an answer says `Turnwise-No-Retry: true`.
pub fn no_retry(headers: &HeaderMap) -> bool {
    let value = headers.get("turnwise-no-retry");
    value.is_some_and(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"true"))
}

#[cfg(test)]
mod tests {
    use turnwise_engine::{ServerInstant, Token};
    use uuid::Uuid;

    use super::*;
    use crate::job::JobId;

    fn job(attempt: u32, max_attempts: u32, hand_backs: u32) -> ClaimedJob {
        ClaimedJob {
            id: JobId(Uuid::from_u128(7)),
            token: Token(1),
            queue: "default".to_owned(),
            method: "POST".to_owned(),
            url: "/x".to_owned(),
            headers: None,
            body: None,
            body_bytes: 0,
            attempt,
            max_attempts,
            hand_backs,
            deadline_ms: 1,
            scheduled_at: ServerInstant::from_micros(0),
        }
    }

    fn answered(status: u16) -> CallOutcome {
        CallOutcome::Answered { status, retry_after: None, no_retry: false, body: Vec::new() }
    }

    fn answered_with(status: u16, retry_after: Option<u64>, no_retry: bool) -> CallOutcome {
        let retry_after = retry_after.map(Duration::from_secs);
        CallOutcome::Answered { status, retry_after, no_retry, body: Vec::new() }
    }

    fn refused() -> CallOutcome {
        CallOutcome::RefusedByOwnTarget { reason: "refused".to_owned() }
    }

    const DAY: u64 = 24 * 3_600;

    /// The middle of the range: the wait is the back-off without jitter.
    const MIDDLE: u64 = u64::MAX / 2;

    #[test]
    fn a_job_is_given_back_ten_times_and_then_the_attempt_counts() {
        let given = |hand_backs, attempt| give_back(&job(attempt, 2, hand_backs), "why", MIDDLE);
        let verdict = given(HAND_BACKS_MAX - 1, 1);
        assert_eq!(verdict.fate, JobFate::HandBack);
        assert_eq!(verdict.error.as_deref(), Some("given back: why"));
        let verdict = given(HAND_BACKS_MAX, 1);
        assert_eq!(verdict.fate, JobFate::Retry(BACK_OFF_FIRST));
        assert!(verdict.error.unwrap().contains("this attempt counts"));
        assert_eq!(given(HAND_BACKS_MAX, 2).fate, JobFate::Dead);
    }

    #[test]
    fn the_table() {
        let seconds = |seconds| JobFate::Retry(Duration::from_secs(seconds));
        let timed_out = CallOutcome::TimedOut { after: Duration::from_secs(600) };
        let reset = CallOutcome::Failed { reason: "connection reset".to_owned() };
        let gone = Some("the target answered 410 (gone: not tried again)");
        let last = 20;
        let table = [
            (1, 0, answered(200), JobFate::Succeeded, None),
            (1, 0, answered(202), JobFate::Succeeded, None),
            (last, 0, answered(299), JobFate::Succeeded, None),
            (1, 0, answered_with(200, Some(9), true), JobFate::Succeeded, None),
            (1, 0, answered(199), seconds(15), Some("the target answered 199")),
            (
                1,
                0,
                answered(302),
                seconds(15),
                Some("the target answered 302, a redirect; redirects are never followed"),
            ),
            (1, 0, answered(404), seconds(15), Some("the target answered 404")),
            (2, 0, answered(500), seconds(30), Some("the target answered 500")),
            (3, 0, answered(503), seconds(60), Some("the target answered 503")),
            (last, 0, answered(503), JobFate::Dead, Some("the target answered 503")),
            (1, 0, answered(410), JobFate::Dead, gone),
            (
                1,
                0,
                answered_with(500, None, true),
                JobFate::Dead,
                Some("the target answered 500 with Turnwise-No-Retry"),
            ),
            (
                1,
                0,
                answered_with(429, Some(3_600), true),
                JobFate::Dead,
                Some("the target answered 429 with Turnwise-No-Retry"),
            ),
            (
                1,
                0,
                answered_with(429, Some(3_600), false),
                seconds(3_600),
                Some("the target answered 429 with Retry-After 1h"),
            ),
            (
                1,
                0,
                answered_with(503, Some(1), false),
                seconds(15),
                Some("the target answered 503 with Retry-After 1s"),
            ),
            (
                1,
                0,
                answered_with(503, Some(u64::MAX), false),
                seconds(DAY),
                Some("the target answered 503 with Retry-After 1day"),
            ),
            (
                1,
                0,
                answered_with(500, Some(3_600), false),
                seconds(15),
                Some("the target answered 500"),
            ),
            (
                last,
                0,
                answered_with(429, Some(9), false),
                JobFate::Dead,
                Some("the target answered 429 with Retry-After 9s"),
            ),
            (1, 0, timed_out.clone(), seconds(15), Some("no answer within 10m")),
            (last, 0, timed_out, JobFate::Dead, Some("no answer within 10m")),
            (4, 0, reset, seconds(120), Some("the call failed: connection reset")),
            (
                1,
                0,
                refused(),
                JobFate::HandBack,
                Some("given back: the node's own target refused the connection: refused"),
            ),
            (
                last,
                9,
                refused(),
                JobFate::HandBack,
                Some("given back: the node's own target refused the connection: refused"),
            ),
            (
                1,
                10,
                refused(),
                seconds(15),
                Some(
                    "the node's own target refused the connection: refused (it was given back 10 times, so this attempt counts)",
                ),
            ),
            (
                last,
                10,
                refused(),
                JobFate::Dead,
                Some(
                    "the node's own target refused the connection: refused (it was given back 10 times, so this attempt counts)",
                ),
            ),
        ];
        for (attempt, hand_backs, outcome, fate, error) in table {
            let status = match outcome {
                CallOutcome::Answered { status, .. } => Some(status),
                _ => None,
            };
            let verdict = judge(&job(attempt, last, hand_backs), outcome.clone(), MIDDLE);
            let error = error.map(str::to_owned);
            let expected = Verdict { fate, status, error, answer: None };
            assert_eq!(verdict, expected, "attempt {attempt}: {outcome:?}");
        }
    }

    #[test]
    fn a_job_that_claims_to_have_no_attempts_is_not_tried_for_ever() {
        assert_eq!(judge(&job(1, 0, 0), answered(500), 0).fate, JobFate::Dead);
    }

    #[test]
    fn the_body_of_an_answer_is_kept_whatever_it_means() {
        for status in [200, 500] {
            let body = b"why".to_vec();
            let outcome =
                CallOutcome::Answered { status, retry_after: None, no_retry: false, body };
            assert_eq!(judge(&job(1, 2, 0), outcome, 0).answer.unwrap(), b"why");
        }
    }

    #[test]
    fn back_off_doubles_and_stays_in_its_range() {
        let expected = [(1, 15), (2, 30), (3, 60), (10, 7_680), (12, 30_720)];
        for (attempt, seconds) in expected {
            let base = Duration::from_secs(seconds);
            assert_eq!(back_off(attempt, 0), base / 2);
            assert_eq!(back_off(attempt, MIDDLE), base);
            assert_eq!(back_off(attempt, u64::MAX), base * 3 / 2);
        }
        for attempt in [14, 100, u32::MAX] {
            assert_eq!(back_off(attempt, 0), BACK_OFF_MAX / 2);
            assert_eq!(back_off(attempt, u64::MAX), BACK_OFF_MAX);
        }
        assert_eq!(back_off(0, 0), back_off(1, 0));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_by_the_targets_own_clock() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let after = |text: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            if let Some(date) = date {
                headers.insert(DATE, date.parse().unwrap());
            }
            retry_after(&headers, now).map(|after| after.as_secs())
        };
        assert_eq!(after("120", None), Some(120));
        assert_eq!(after(" 0 ", None), Some(0));
        assert_eq!(after("99999999999999999999999", None), Some(Duration::MAX.as_secs()));
        let date = "Sun, 06 Nov 1994 08:50:37 GMT";
        assert_eq!(after(date, None), Some(60));
        assert_eq!(after(date, Some("Sun, 06 Nov 1994 08:50:07 GMT")), Some(30));
        assert_eq!(after(date, Some("Sun, 06 Nov 1994 09:00:00 GMT")), Some(0));
        assert_eq!(after(date, Some("yesterday")), Some(60));
        for neither in ["", "-5", "+5", "1.5", "soon"] {
            assert_eq!(after(neither, None), None, "{neither:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn only_true_forbids_another_try() {
        for (value, expected) in [("true", true), ("True", true), ("false", false), ("1", false)] {
            let mut headers = HeaderMap::new();
            headers.insert("turnwise-no-retry", value.parse().unwrap());
            assert_eq!(no_retry(&headers), expected, "{value}");
        }
        assert!(!no_retry(&HeaderMap::new()));
    }
}
