//! Decides what the outcome of a call means for its job, by a table that is a pure function. When the next
//! attempt really runs, and on which node, is not decided here.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

use super::{CallOutcome, Rejection};
use crate::job::{ClaimedJob, End, HAND_BACKS_MAX, JobFate, RETRY_WAIT_MAX, SlowDown};

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
    /// So long no job of its queue is to be claimed, since the target asks for it.
    pub slow_down: Option<Duration>,
}

impl Verdict {
    /// A job that can never be called ends dead, with no status.
    pub fn rejected(rejection: &Rejection) -> Self {
        let error = Some(format!("never called: {rejection}"));
        Self { fate: JobFate::Dead, status: None, error, answer: None, slow_down: None }
    }

    /// The end of the attempt on `job`, for the store.
    pub fn into_end(self, job: &ClaimedJob) -> End {
        let Self { fate, status, error, answer, slow_down } = self;
        let batch = job.particulars.batch_id();
        let (token, attempt) = (job.token, job.attempt);
        let slow_down = slow_down.map(|wait| SlowDown { queue: job.queue.clone(), wait });
        End { job: job.id, token, attempt, fate, status, error, answer, batch, slow_down }
    }
}

/// The answer table.
///
/// | outcome | fate |
/// |---|---|
/// | 202, of a job that is asynchronous | goes on elsewhere |
/// | any other 2xx | succeeded |
/// | 410, one that the queue names as permanent, or any other with `Turnwise-No-Retry: true` | dead at once |
/// | 429, 503 with `Retry-After` | failed attempt, retried not before that (up to [`RETRY_WAIT_MAX`]); no job of the queue is claimed for so long, if the queue heeds it |
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
            let slow_down = slow_down(job, status, retry_after);
            Verdict { fate, status: Some(status), error, answer, slow_down }
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
        return Verdict {
            fate: JobFate::HandBack,
            status: None,
            error,
            answer: None,
            slow_down: None,
        };
    }
    let counts =
        format!("{reason} (it was given back {} times, so this attempt counts)", job.hand_backs);
    failed(job, counts, random)
}

/// The end of an attempt whose call was dropped since somebody had cancelled its job: what the store makes of a job that is not
/// to be tried again.
pub fn cancelled() -> Verdict {
    let error = Some("cancelled while it ran: the call was dropped".to_owned());
    Verdict {
        fate: JobFate::Retry(Duration::ZERO),
        status: None,
        error,
        answer: None,
        slow_down: None,
    }
}

fn judge_status(
    job: &ClaimedJob,
    status: u16,
    retry_after: Option<Duration>,
    no_retry: bool,
    random: u64,
) -> (JobFate, Option<String>) {
    let wait = wait_of(job, random);
    let answered = format!("the target answered {status}");
    match status {
        202 if job.particulars.is_asynchronous() => {
            let deadline = Duration::from_millis(u64::try_from(job.deadline_ms).unwrap_or(0));
            let within = job.particulars.heartbeat().unwrap_or(deadline);
            // What is true of the attempt if nothing more is heard of it.
            let error = "accepted with 202, and nothing more was heard in time";
            (JobFate::Await(within), Some(error.to_owned()))
        }
        200..=299 => (JobFate::Succeeded, None),
        410 => (JobFate::Dead, Some(format!("{answered} (gone: not tried again)"))),
        _ if no_retry => (JobFate::Dead, Some(format!("{answered} with Turnwise-No-Retry"))),
        _ if job.particulars.is_permanent(status) => (
            JobFate::Dead,
            Some(format!("{answered}, after which jobs of this queue are not tried again")),
        ),
        300..=399 => (
            retry(job, wait),
            Some(format!("{answered}, a redirect; redirects are never followed")),
        ),
        429 | 503 if retry_after.is_some() => {
            let asked = retry_after.unwrap_or_default().min(RETRY_WAIT_MAX);
            let error =
                format!("{answered} with Retry-After {}", humantime::format_duration(asked));
            (retry(job, wait.max(asked)), Some(error))
        }
        _ => (retry(job, wait), Some(answered)),
    }
}

/// For how long the queue of a job is to be held back: as long as the target asks, and the queue heeds.
fn slow_down(job: &ClaimedJob, status: u16, retry_after: Option<Duration>) -> Option<Duration> {
    let asked = retry_after.filter(|asked| matches!(status, 429 | 503) && !asked.is_zero())?;
    Some(asked.min(job.particulars.slow_down()?))
}

fn failed(job: &ClaimedJob, error: String, random: u64) -> Verdict {
    let fate = retry(job, wait_of(job, random));
    Verdict { fate, status: None, error: Some(error), answer: None, slow_down: None }
}

/// Another attempt after `wait`, if the job has one left.
fn retry(job: &ClaimedJob, wait: Duration) -> JobFate {
    if job.attempt >= job.max_attempts { JobFate::Dead } else { JobFate::Retry(wait) }
}

/// How long this job waits after an attempt that failed.
fn wait_of(job: &ClaimedJob, random: u64) -> Duration {
    back_off(job.attempt, job.particulars.waits(), random)
}

/// The end of an attempt that its target has ended by a callback: what it says that it came to, why, and how long it asks not to
/// be tried again.
pub fn called_back(
    job: &ClaimedJob,
    failed: Option<String>,
    no_retry: bool,
    retry_after: Option<Duration>,
    random: u64,
) -> (JobFate, Option<String>) {
    match failed {
        None => (JobFate::Succeeded, None),
        Some(error) if no_retry => (JobFate::Dead, Some(error)),
        Some(error) => {
            let asked = retry_after.unwrap_or_default().min(RETRY_WAIT_MAX);
            (retry(job, wait_of(job, random).max(asked)), Some(error))
        }
    }
}

/// How long to wait after the failed attempt number `attempt` (from 1), in whole milliseconds, where the first wait and the
/// longest are given.
///
/// With `B = min(first · 2^(attempt - 1), longest)` the wait is uniform over `[B/2, min(3B/2, longest)]`:
/// `B` on average until the longest is near, and never so that jobs which failed together come back together.
pub fn back_off(attempt: u32, (first, longest): (Duration, Duration), random: u64) -> Duration {
    let millis = |time: Duration| u64::try_from(time.min(RETRY_WAIT_MAX).as_millis()).unwrap_or(0);
    let (first, most) = (millis(first), millis(longest));
    // A day is less than 2^27 ms.
    let doublings = attempt.saturating_sub(1).min(27);
    let base = (first << doublings).min(most);
    let least = base / 2;
    let most = (base + least).min(most);
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
    use crate::job::{JobId, Particulars, RETRY_WAIT};

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
            particulars: Particulars::default(),
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
        assert_eq!(verdict.fate, JobFate::Retry(RETRY_WAIT));
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
            let expected = Verdict { fate, status, error, answer: None, slow_down: None };
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

    fn usual(attempt: u32, random: u64) -> Duration {
        back_off(attempt, Particulars::default().waits(), random)
    }

    #[test]
    fn a_job_or_its_queue_says_how_long_it_waits() {
        let particulars = |wait, wait_max| Particulars {
            retry_wait_ms: wait,
            retry_wait_max_ms: wait_max,
            ..Particulars::default()
        };
        let waits = |attempt, wait, wait_max| {
            let job =
                ClaimedJob { particulars: particulars(wait, wait_max), ..job(attempt, 99, 0) };
            match judge(&job, answered(500), MIDDLE).fate {
                JobFate::Retry(wait) => wait.as_millis(),
                fate => panic!("{fate:?}"),
            }
        };
        assert_eq!(waits(1, Some(1_000), None), 1_000);
        assert_eq!(waits(4, Some(1_000), None), 8_000);
        // Never longer than the longest, the jitter among it: uniform over half of it to all of it.
        assert_eq!(waits(9, Some(1_000), Some(20_000)), 15_000);
        assert_eq!(waits(1, Some(5_000), Some(5_000)), 3_750);
        assert_eq!(waits(98, Some(1), Some(86_400_000)), 64_800_000);
        assert_eq!(waits(1, None, Some(4_000)), 3_000);
    }

    #[test]
    fn an_answer_of_202_is_the_end_unless_the_job_may_go_on() {
        let asynchronous = |heartbeat_ms| Particulars {
            asynchronous: Some(1),
            heartbeat_ms,
            ..Particulars::default()
        };
        let fate = |particulars, status| {
            let job = ClaimedJob { particulars, deadline_ms: 60_000, ..job(1, 2, 0) };
            judge(&job, answered(status), 0)
        };
        let accepted = fate(asynchronous(Some(5_000)), 202);
        assert_eq!(accepted.fate, JobFate::Await(Duration::from_secs(5)));
        assert!(accepted.error.unwrap().contains("nothing more was heard"));
        assert_eq!(fate(asynchronous(None), 202).fate, JobFate::Await(Duration::from_secs(60)));
        assert_eq!(fate(asynchronous(None), 200).fate, JobFate::Succeeded);
        assert_eq!(fate(Particulars::default(), 202).fate, JobFate::Succeeded);
        let not = Particulars { asynchronous: Some(0), ..Particulars::default() };
        assert_eq!(fate(not, 202).fate, JobFate::Succeeded);
    }

    #[test]
    fn a_queue_may_name_statuses_that_are_final() {
        let permanent = Some("302,404, 503".to_owned());
        let particulars = Particulars { permanent, ..Particulars::default() };
        for (status, is_final) in [(302, true), (404, true), (503, true), (500, false)] {
            let job = ClaimedJob { particulars: particulars.clone(), ..job(1, 9, 0) };
            let verdict = judge(&job, answered_with(status, Some(3), false), 0);
            assert_eq!(verdict.fate == JobFate::Dead, is_final, "{status}");
        }
    }

    #[test]
    fn a_target_that_calls_back_says_how_it_ended() {
        let failed = |attempt, no_retry, asked| {
            let error = Some("why".to_owned());
            called_back(&job(attempt, 2, 0), error, no_retry, asked, MIDDLE).0
        };
        let seconds = |seconds| JobFate::Retry(Duration::from_secs(seconds));
        assert_eq!(called_back(&job(1, 2, 0), None, false, None, 0), (JobFate::Succeeded, None));
        assert_eq!(failed(1, false, None), seconds(15));
        assert_eq!(failed(1, false, Some(Duration::from_secs(40))), seconds(40));
        assert_eq!(failed(1, true, None), JobFate::Dead);
        assert_eq!(failed(2, false, None), JobFate::Dead);
    }

    #[test]
    fn back_off_doubles_and_stays_in_its_range() {
        let expected = [(1, 15), (2, 30), (3, 60), (10, 7_680), (12, 30_720)];
        for (attempt, seconds) in expected {
            let base = Duration::from_secs(seconds);
            assert_eq!(usual(attempt, 0), base / 2);
            assert_eq!(usual(attempt, MIDDLE), base);
            assert_eq!(usual(attempt, u64::MAX), base * 3 / 2);
        }
        for attempt in [14, 100, u32::MAX] {
            assert_eq!(usual(attempt, 0), RETRY_WAIT_MAX / 2);
            assert_eq!(usual(attempt, u64::MAX), RETRY_WAIT_MAX);
        }
        assert_eq!(usual(0, 0), usual(1, 0));
    }

    #[test]
    fn a_queue_is_held_back_as_long_as_its_target_asks_and_it_heeds() {
        let heeds = |slow_down_ms| ClaimedJob {
            particulars: Particulars { slow_down_ms, ..Particulars::default() },
            ..job(1, 20, 0)
        };
        let held = |job: &ClaimedJob, status, retry_after| {
            let end = judge(job, answered_with(status, retry_after, false), 0).into_end(job);
            end.slow_down.map(|SlowDown { queue, wait }| (queue, wait.as_secs()))
        };
        let minute = heeds(Some(60_000));
        let of_default = |seconds| Some(("default".to_owned(), seconds));
        assert_eq!(held(&minute, 429, Some(7)), of_default(7));
        assert_eq!(held(&minute, 503, Some(3_600)), of_default(60));
        for (status, retry_after) in [(429, None), (429, Some(0)), (500, Some(7)), (200, Some(7))] {
            assert_eq!(held(&minute, status, retry_after), None, "{status}, {retry_after:?}");
        }
        assert_eq!(held(&heeds(None), 429, Some(7)), None);
        // What stands in the table is bounded.
        assert_eq!(held(&heeds(Some(-5)), 429, Some(7)), of_default(1));
        assert_eq!(held(&heeds(Some(i64::MAX)), 429, Some(u64::MAX)), of_default(86_400));
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
