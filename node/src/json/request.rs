//! What a job calls with, as it may be shown.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::redact::Redaction;
use crate::store::RequestView;

/// What a job calls with. Values that are configured to be shown to nobody are `[redacted]`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Request)]
pub(crate) struct RequestLine {
    /// Its own headers.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    headers: Map<String, Value>,
    /// The first 8192 bytes of its body, as text; null: it has none.
    body: Option<String>,
    /// How long the body is, in bytes.
    body_bytes: u64,
}

impl RequestLine {
    pub(crate) fn new(request: &RequestView, redaction: &Redaction) -> Self {
        let headers = request.headers.iter();
        let shown =
            headers.map(|(name, value)| (name.clone(), redaction.header(name, value).into()));
        let text = |body: &Vec<u8>| String::from_utf8_lossy(&redaction.body(body)).into_owned();
        Self {
            headers: shown.collect(),
            body: request.body.as_ref().map(text),
            body_bytes: request.body_bytes,
        }
    }
}
