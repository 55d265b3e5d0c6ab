//! Decides what a call carries whose job has no body of its own, so that its query string is signed too.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::Value;
use url::Url;

use super::request::{ID, SCHEDULED_AT};
use crate::job::ClaimedJob;

/// The methods whose calls may carry a body; with the others a server may refuse one (RFC 9110, sections 9.3.1 and 9.3.5).
const METHODS: [Method; 3] = [Method::POST, Method::PUT, Method::PATCH];

/// All of it but the queue and the URL, in bytes, with some to spare.
const REST_BYTES: usize = 200;

/// The body of a call whose job has none: the call in its own words, with the names that `turnwise jobs show --json` has for the
/// same, and the URL in full, as it is called. None for a method that has no body. `headers` are those of the call, in which the
/// id and the time stand already; those that say what a body is are set for this one.
pub(super) fn seal(
    headers: &mut HeaderMap,
    job: &ClaimedJob,
    method: &Method,
    url: &Url,
) -> Option<Bytes> {
    if !METHODS.contains(method) {
        return None;
    }
    let said = |name| headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
    // Most jobs have no body, and a serialiser would look at each byte of what is known to be plain.
    let mut json = Vec::with_capacity(REST_BYTES + url.as_str().len() + job.queue.len());
    json.extend_from_slice(br#"{"id":""#);
    json.extend_from_slice(said(ID));
    json.extend_from_slice(br#"","attempt":"#);
    json.extend_from_slice(job.attempt.to_string().as_bytes());
    json.extend_from_slice(br#","queue":"#);
    push_quoted(&mut json, &job.queue);
    json.extend_from_slice(br#","method":""#);
    json.extend_from_slice(method.as_str().as_bytes());
    json.extend_from_slice(br#"","url":"#);
    push_quoted(&mut json, url.as_str());
    json.extend_from_slice(br#","scheduled_at":""#);
    json.extend_from_slice(said(SCHEDULED_AT));
    json.extend_from_slice(br#""}"#);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.remove(CONTENT_ENCODING);
    Some(Bytes::from(json))
}

/// A text as JSON has it. It has been found to be a header's value, or a URL: of the control characters only a tab can stand
/// in it.
fn push_quoted(json: &mut Vec<u8>, text: &str) {
    if text.contains('"') || text.contains('\\') || text.contains('\t') {
        json.extend_from_slice(Value::from(text).to_string().as_bytes());
        return;
    }
    json.push(b'"');
    json.extend_from_slice(text.as_bytes());
    json.push(b'"');
}
