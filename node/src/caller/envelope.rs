//! Decides what a call carries whose job has no body of its own, so that its query string is signed too.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use serde::Serialize;
use url::Url;

use crate::job::ClaimedJob;

/// The methods whose calls may carry a body; with the others a server may refuse one (RFC 9110, sections 9.3.1 and 9.3.5).
const METHODS: [Method; 3] = [Method::POST, Method::PUT, Method::PATCH];

/// The call in its own words, with the names that `turnwise jobs show --json` has for the same.
#[derive(Serialize)]
struct Envelope<'a> {
    id: &'a str,
    attempt: u32,
    queue: &'a str,
    method: &'a str,
    /// In full, as it is called.
    url: &'a str,
    scheduled_at: &'a str,
}

/// The body of a call whose job has none; none for a method that has no body. `headers` are those of the call, in which the id
/// and the time stand already; those that say what a body is are set for this one.
pub(super) fn seal(
    headers: &mut HeaderMap,
    job: &ClaimedJob,
    method: &Method,
    url: &Url,
) -> Option<Bytes> {
    if !METHODS.contains(method) {
        return None;
    }
    let said = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let envelope = Envelope {
        id: said("webhook-id"),
        attempt: job.attempt,
        queue: &job.queue,
        method: method.as_str(),
        url: url.as_str(),
        scheduled_at: said("turnwise-scheduled-at"),
    };
    let body = serde_json::to_vec(&envelope).ok()?;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.remove(CONTENT_ENCODING);
    Some(Bytes::from(body))
}
