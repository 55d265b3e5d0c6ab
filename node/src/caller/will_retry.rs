//! Decides what a call says of the attempt after it. Whether there is one is the table of answers' to decide, and it is asked.

use http::{HeaderName, HeaderValue};

use super::{Call, CallOutcome, judge};
use crate::job::{ClaimedJob, JobFate};

const WILL_RETRY_AFTER: HeaderName = HeaderName::from_static("turnwise-will-retry-after");

/// `call` with the header `Turnwise-Will-Retry-After`: in how many seconds, rounded up, the job is tried again if this
/// attempt comes to nothing (later, if the answer asks for it). Without it, if this attempt is the last. `random` is what
/// the attempt is judged by when it has ended, so that what is said holds.
pub fn foretell(mut call: Call, job: &ClaimedJob, random: u64) -> Call {
    let failed = CallOutcome::Failed { reason: String::new() };
    if let JobFate::Retry(wait) = judge(job, failed, random).fate {
        let seconds = u64::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX);
        call.headers.insert(WILL_RETRY_AFTER, HeaderValue::from(seconds));
    }
    call
}
