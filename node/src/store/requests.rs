//! What a job calls with, for people: its headers, and the beginning of its body. What of it is shown is `crate::redact`'s to decide.

use std::future::Future;

use super::{Store, StoreError};
use crate::job::JobId;

/// So much of a job's body is read for people, in bytes: as much as is kept of an answer.
pub const REQUEST_BYTES_SHOWN: u32 = 8_192;

/// What a job calls with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestView {
    /// Its own headers, as they stand in the row, which anyone may have written: what is none is left out.
    pub headers: Vec<(String, String)>,
    /// The first [`REQUEST_BYTES_SHOWN`] of its body; none: it has none.
    pub body: Option<Vec<u8>>,
    /// How long the body is, in bytes.
    pub body_bytes: u64,
}

/// What can be read of a job's call.
pub trait Requests: Store {
    /// What this job calls with. None when there is no such job.
    fn request(
        &self,
        job: JobId,
    ) -> impl Future<Output = Result<Option<RequestView>, StoreError>> + Send;
}

/// The columns: headers, the beginning of the body, its length.
pub(super) type Columns = (Option<String>, Option<Vec<u8>>, Option<i64>);

pub(super) fn view((headers, body, bytes): Columns) -> RequestView {
    let headers = headers.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let headers: serde_json::Map<String, serde_json::Value> = headers;
    let text = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    RequestView {
        headers: headers.into_iter().map(|(name, value)| (name, text(value))).collect(),
        body,
        body_bytes: u64::try_from(bytes.unwrap_or(0)).unwrap_or(0),
    }
}
