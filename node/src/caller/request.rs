//! Decides whether a job, which anyone may have written into the table, can be called at all, and if so
//! with exactly which request. What the answer means is not decided here.

use std::collections::BTreeMap;
use std::time::Duration;

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use turnwise_engine::ServerInstant;
use url::Url;

use super::targets::{has_user, hide_user, literal_address};
use super::{AllowedOrigins, Call, Targets, address, envelope, trace};
use crate::job::{BODY_BYTES_MAX, ClaimedJob, URL_BYTES_MAX};
use crate::rfc3339;

/// The most headers of a job.
pub const HEADERS_MAX: usize = 64;
/// The most that the names and values of a job's headers may have together, in bytes.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// The shortest deadline of an attempt.
pub const DEADLINE_MIN: Duration = Duration::from_millis(1);
/// The longest deadline of an attempt.
pub const DEADLINE_MAX: Duration = Duration::from_secs(24 * 3_600);

const METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];

/// Headers that frame the message or speak to proxies: whoever sends the request writes them.
const FRAMING: [HeaderName; 10] = [
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];
const FRAMING_UNREGISTERED: [&str; 3] = ["keep-alive", "proxy-connection", "http2-settings"];

// What Turnwise says in headers of its own: names that are made once, and not read anew for each call.
pub(super) const ID: HeaderName = HeaderName::from_static("webhook-id");
pub(super) const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
pub(super) const SCHEDULED_AT: HeaderName = HeaderName::from_static("turnwise-scheduled-at");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const QUEUE: HeaderName = HeaderName::from_static("turnwise-queue");
const SCHEDULE: HeaderName = HeaderName::from_static("turnwise-schedule");
const BATCH: HeaderName = HeaderName::from_static("turnwise-batch");
const PARENT: HeaderName = HeaderName::from_static("turnwise-parent");
const PREVIOUS_STATUS: HeaderName = HeaderName::from_static("turnwise-previous-status");
const ATTEMPT: HeaderName = HeaderName::from_static("turnwise-attempt");
const MAX_ATTEMPTS: HeaderName = HeaderName::from_static("turnwise-max-attempts");
const DEADLINE: HeaderName = HeaderName::from_static("turnwise-deadline");

/// About so many headers a call has besides its job's own.
const OWN_HEADERS: usize = 17;
const USER_AGENT_VALUE: &str = concat!("turnwise/", env!("CARGO_PKG_VERSION"));

/// Why a job can never be called, by this node or, unless it is about a target, by any other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Not a method that a job may have.
    #[error(
        "its method {0:?} is not one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS (upper case)"
    )]
    Method(String),
    /// Neither a path nor a URL that can be called.
    #[error("its URL {url:?} cannot be called: {reason}")]
    Url {
        /// The path or URL, without a user's password.
        url: String,
        /// Why.
        reason: &'static str,
    },
    /// The URL is too long.
    #[error("its URL has {0} bytes; the most is {URL_BYTES_MAX}")]
    LongUrl(usize),
    /// A full URL of an origin that the node may not call.
    #[error("the origin {0} is not on this node's allow-list; allow it with --allow-origin {0}")]
    NotAllowed(String),
    /// A path, in a queue for which this node has no target.
    #[error("this node has no target for queue {0:?}; give it one with --target")]
    NoTarget(String),
    /// The headers are not a JSON object of strings.
    #[error("its headers are not a JSON object of strings: {0}")]
    Headers(String),
    /// A header that no HTTP message can have.
    #[error("its header {0:?} has a name or a value that HTTP does not allow")]
    Header(String),
    /// A header that is not the job's to set.
    #[error("its header {0:?} is set by whoever sends the request; leave it out")]
    Framing(String),
    /// Too many or too long headers.
    #[error(
        "its headers are {count} with {bytes} bytes; the most is {HEADERS_MAX} with {HEADER_BYTES_MAX} bytes"
    )]
    ManyHeaders {
        /// How many.
        count: usize,
        /// The length of all names and values.
        bytes: usize,
    },
    /// The name of the queue cannot be sent as a header.
    #[error("its queue {0:?} cannot be sent as a header")]
    Queue(String),
    /// The body is too long.
    #[error("its body has {0} bytes; the most is {BODY_BYTES_MAX}")]
    Body(u64),
    /// No such deadline.
    #[error("its deadline of {0} ms is not within 1 ms and 24 h")]
    Deadline(i64),
}

/// The request for `job` as it stands in the table, or why there can be none. `now` is server time, for
/// the headers that name it.
pub fn prepare(
    job: &ClaimedJob,
    targets: &Targets,
    allowed: &AllowedOrigins,
    now: ServerInstant,
) -> Result<Call, Rejection> {
    if job.body_bytes > BODY_BYTES_MAX as u64 {
        return Err(Rejection::Body(job.body_bytes));
    }
    let method = parse_method(&job.method)?;
    let deadline = parse_deadline(job.deadline_ms)?;
    let (url, own_target, h2c) = match parse_destination(&job.url)? {
        Destination::Path { path, query } => {
            let target =
                targets.of(&job.queue).ok_or_else(|| Rejection::NoTarget(job.queue.clone()))?;
            (target.url(&path, query.as_deref()), true, target.is_h2c())
        }
        Destination::Url(url) => match allowed.find(&url) {
            Some(origin) => (url, false, origin.is_h2c()),
            None => return Err(Rejection::NotAllowed(url.origin().ascii_serialization())),
        },
    };
    let mut headers = parse_headers(job.headers.as_deref())?;
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(USER_AGENT_VALUE));
    add_own_headers(&mut headers, job, deadline, now)?;
    let body = match job.body.as_ref().filter(|body| !body.is_empty()) {
        Some(body) => {
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
            body.clone()
        }
        None => envelope::seal(&mut headers, job, &method, &url).unwrap_or_default(),
    };
    if own_target && let Some(host) = targets.host_header() {
        headers.insert(HOST, host.clone());
    }
    Ok(Call { method, url, own_target, h2c, headers, body, deadline })
}

/// Where a job goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A path on the executing node's own target.
    Path {
        /// The path, beginning with one slash.
        path: String,
        /// What stands after the question mark.
        query: Option<String>,
    },
    /// A full URL.
    Url(Url),
}

/// A job's path or URL. A fragment is left out, as it is in any request.
pub fn parse_destination(text: &str) -> Result<Destination, Rejection> {
    let wrong = |reason| Rejection::Url { url: hide_user(text), reason };
    if text.len() > URL_BYTES_MAX {
        return Err(Rejection::LongUrl(text.len()));
    }
    // The URL standard strips some of these and reads a backslash as a slash: what is called would not be
    // what is written.
    if text.contains(|c: char| c.is_control() || c == ' ' || c == '\\') {
        return Err(wrong(
            "it holds a space, a backslash or a control character; percent-encode it",
        ));
    }
    if text.starts_with("//") {
        return Err(wrong("a path begins with one slash; two would name another host"));
    }
    if text.starts_with('/') {
        let text = text.split('#').next().unwrap_or_default();
        let (path, query) = match text.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (text, None),
        };
        return Ok(Destination::Path { path: path.to_owned(), query });
    }
    if !text.contains("://") {
        return Err(wrong("it is neither a path that begins with '/' nor a full URL"));
    }
    let mut url = Url::parse(text).map_err(|_| wrong("it is not a valid URL"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("its scheme is not http or https"));
    }
    if has_user(&url) {
        return Err(wrong("it names a user; send an Authorization header"));
    }
    if let Some(forbidden) = literal_address(&url).and_then(address::forbidden) {
        return Err(wrong(forbidden.reason()));
    }
    url.set_fragment(None);
    Ok(Destination::Url(url))
}

/// A job's method.
pub fn parse_method(text: &str) -> Result<Method, Rejection> {
    let wrong = || Rejection::Method(text.to_owned());
    METHODS.into_iter().find(|method| method.as_str() == text).ok_or_else(wrong)
}

/// A job's deadline, from milliseconds.
pub fn parse_deadline(millis: i64) -> Result<Duration, Rejection> {
    let deadline = u64::try_from(millis).map(Duration::from_millis);
    deadline
        .ok()
        .filter(|deadline| (DEADLINE_MIN..=DEADLINE_MAX).contains(deadline))
        .ok_or(Rejection::Deadline(millis))
}

/// One of a job's own headers.
pub fn parse_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), Rejection> {
    let wrong = || Rejection::Header(name.to_owned());
    let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
    if FRAMING.contains(&parsed) || FRAMING_UNREGISTERED.contains(&parsed.as_str()) {
        return Err(Rejection::Framing(name.to_owned()));
    }
    let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| wrong())?;
    Ok((parsed, value))
}

/// Whether Turnwise sets this header on every call, whatever the job says.
pub fn is_own_header(name: &HeaderName) -> bool {
    let name = name.as_str();
    name == "idempotency-key" || name.starts_with("webhook-") || name.starts_with("turnwise-")
}

/// A job's headers, within the limits. `count` and `bytes` are those of all of them.
pub fn check_header_size<'a>(
    headers: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<(), Rejection> {
    let (count, bytes) = headers.fold((0, 0), |(count, bytes), (name, value)| {
        (count + 1, bytes + name.len() + value.len())
    });
    if count > HEADERS_MAX || bytes > HEADER_BYTES_MAX {
        return Err(Rejection::ManyHeaders { count, bytes });
    }
    Ok(())
}

fn parse_headers(column: Option<&str>) -> Result<HeaderMap, Rejection> {
    let mut headers = HeaderMap::with_capacity(OWN_HEADERS);
    let Some(column) = column else { return Ok(headers) };
    let given: Option<BTreeMap<String, String>> =
        serde_json::from_str(column).map_err(|error| Rejection::Headers(error.to_string()))?;
    let given = given.unwrap_or_default();
    check_header_size(given.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
    for (name, value) in &given {
        let (name, value) = parse_header(name, value)?;
        if !is_own_header(&name) {
            headers.insert(name, value);
        }
    }
    trace::check(&mut headers);
    Ok(headers)
}

fn add_own_headers(
    headers: &mut HeaderMap,
    job: &ClaimedJob,
    deadline: Duration,
    now: ServerInstant,
) -> Result<(), Rejection> {
    let queue = HeaderValue::from_bytes(job.queue.as_bytes())
        .map_err(|_| Rejection::Queue(job.queue.clone()))?;
    headers.insert(QUEUE, queue);
    if let Some(schedule) = &job.particulars.schedule
        && let Ok(schedule) = HeaderValue::from_bytes(schedule.as_bytes())
    {
        headers.insert(SCHEDULE, schedule);
    }
    if let Some(batch) = job.particulars.batch_id()
        && let Ok(batch) = HeaderValue::try_from(batch.to_string())
    {
        headers.insert(BATCH, batch);
    }
    if let Some(parent) = job.particulars.parent_id()
        && let Ok(parent) = HeaderValue::try_from(parent.to_string())
    {
        headers.insert(PARENT, parent);
    }
    if let Some(status) = previous_status(job) {
        headers.insert(PREVIOUS_STATUS, HeaderValue::from(status));
    }
    let id = job.id.to_string();
    let seconds = now.as_nanos().div_euclid(1_000_000_000);
    let ends = now.offset(i64::try_from(deadline.as_nanos()).unwrap_or(i64::MAX));
    let own = [
        (ID, id.clone()),
        (TIMESTAMP, seconds.to_string()),
        (IDEMPOTENCY_KEY, id),
        (ATTEMPT, job.attempt.to_string()),
        (MAX_ATTEMPTS, job.max_attempts.to_string()),
        (SCHEDULED_AT, rfc3339::format(job.scheduled_at)),
        (DEADLINE, rfc3339::format(ends)),
    ];
    for (name, value) in own {
        let value =
            HeaderValue::try_from(value).map_err(|_| Rejection::Header(name.to_string()))?;
        headers.insert(name, value);
    }
    Ok(())
}

/// The status of the answer to the attempt before, if it can have been one.
fn previous_status(job: &ClaimedJob) -> Option<u16> {
    let status = u16::try_from(job.particulars.previous_status?).ok()?;
    (100..=599).contains(&status).then_some(status)
}

#[cfg(test)]
mod tests {
    use turnwise_engine::Token;
    use uuid::Uuid;

    use bytes::Bytes;

    use super::*;
    use crate::job::{JobId, Particulars};

    fn job(url: &str) -> ClaimedJob {
        ClaimedJob {
            id: JobId(Uuid::from_u128(7)),
            token: Token(1),
            queue: "mail".to_owned(),
            method: "POST".to_owned(),
            url: url.to_owned(),
            headers: None,
            body: None,
            body_bytes: 0,
            attempt: 2,
            max_attempts: 20,
            hand_backs: 0,
            deadline_ms: 60_000,
            scheduled_at: ServerInstant::from_micros(1_000_000),
            particulars: Particulars::default(),
        }
    }

    fn prepared(job: &ClaimedJob) -> Result<Call, Rejection> {
        let targets = Targets::parse(&["http://web:8080", "reports=http://reports:9000"]).unwrap();
        let allowed = AllowedOrigins::parse(&["https://api.example"]).unwrap();
        prepare(job, &targets, &allowed, ServerInstant::from_micros(1_700_000_000_250_000))
    }

    fn url_of(url: &str) -> String {
        prepared(&job(url)).unwrap().url.to_string()
    }

    #[test]
    fn a_path_is_called_on_the_own_target_of_its_queue() {
        assert_eq!(url_of("/tidy?id=7"), "http://web:8080/tidy?id=7");
        assert_eq!(url_of("/"), "http://web:8080/");
        assert_eq!(url_of("/a#b?c"), "http://web:8080/a");
        assert_eq!(url_of("/é?x=a%20b"), "http://web:8080/%C3%A9?x=a%20b");
        assert_eq!(url_of("/../../x"), "http://web:8080/x");
        assert_eq!(url_of("/@evil.example/x"), "http://web:8080/@evil.example/x");
        assert_eq!(url_of("/x?//evil.example"), "http://web:8080/x?//evil.example");
        let reports = ClaimedJob { queue: "reports".to_owned(), ..job("/x") };
        let call = prepared(&reports).unwrap();
        assert_eq!(call.url.as_str(), "http://reports:9000/x");
        assert!(call.own_target);
    }

    #[test]
    fn a_path_never_leads_off_the_target() {
        let tails = [
            "",
            "evil.example",
            "/evil.example/x",
            "..//evil.example",
            ".//evil",
            "%2f/evil",
            ":80/x",
        ];
        for tail in tails {
            let Ok(call) = prepared(&job(&format!("/{tail}"))) else { continue };
            assert_eq!(call.url.origin().ascii_serialization(), "http://web:8080", "{tail}");
        }
    }

    #[test]
    fn a_full_url_is_called_where_it_is_allowed() {
        let call = prepared(&job("https://api.example/v1?x#y")).unwrap();
        assert_eq!((call.url.as_str(), call.own_target), ("https://api.example/v1?x", false));
        for url in ["http://api.example/", "https://api.example.evil/", "http://web:8080/x"] {
            assert!(matches!(prepared(&job(url)), Err(Rejection::NotAllowed(_))), "{url}");
        }
    }

    #[test]
    fn a_url_that_is_not_plain_is_refused() {
        let bad = [
            "",
            "tidy",
            "//evil.example/x",
            "/\\evil.example/x",
            "\\\\evil.example",
            "/\t/evil.example",
            "/a b",
            "/a\r\nHost: evil",
            " https://api.example/",
            "https:api.example",
            "mailto:a@b",
            "file:///etc/passwd",
            "ftp://api.example/",
            "https://user:pw@api.example/",
            "https://",
            "http://169.254.169.254/latest",
        ];
        for url in bad {
            let rejection = prepared(&job(url)).unwrap_err();
            assert!(matches!(rejection, Rejection::Url { .. }), "{url:?}: {rejection}");
            assert!(!rejection.to_string().contains("pw@"), "{rejection}");
        }
        assert_eq!(prepared(&job(&"/".repeat(9_000))), Err(Rejection::LongUrl(9_000)));
    }

    #[test]
    fn a_body_is_json_unless_the_job_says_otherwise() {
        let with = |headers: Option<&str>, body: &[u8]| {
            let headers = headers.map(str::to_owned);
            prepared(&ClaimedJob { headers, body: Some(Bytes::copy_from_slice(body)), ..job("/x") })
                .unwrap()
        };
        assert_eq!(with(None, b"{}").headers["content-type"], "application/json");
        let xml = with(Some(r#"{"Content-Type":"text/xml"}"#), b"<a/>");
        assert_eq!(xml.headers["content-type"], "text/xml");
        let get = ClaimedJob { method: "GET".to_owned(), ..job("/x") };
        assert!(!prepared(&get).unwrap().headers.contains_key("content-type"));
    }

    #[test]
    fn a_job_without_a_body_is_sent_in_an_envelope() {
        let headers = r#"{"content-type":"text/xml","content-encoding":"gzip","x-a":"1"}"#;
        let call = |method: &str, body: Option<&'static [u8]>| {
            let job = ClaimedJob {
                method: method.to_owned(),
                queue: "a\"\\\tü".to_owned(),
                headers: Some(headers.to_owned()),
                body: body.map(Bytes::from_static),
                ..job("/tidy?id=7&q=%2F\"")
            };
            prepared(&job).unwrap()
        };
        for method in ["POST", "PUT", "PATCH"] {
            let empty = call(method, Some(b""));
            assert_eq!(empty, call(method, None));
            let expected = [
                r#"{"id":"00000000-0000-0000-0000-000000000007","attempt":2,"queue":"a\"\\\tü","method":""#,
                method,
                r#"","url":"http://web:8080/tidy?id=7&q=%2F%22","scheduled_at":"1970-01-01T00:00:01.000000Z"}"#,
            ];
            assert_eq!(std::str::from_utf8(&empty.body).unwrap(), expected.concat());
            let read: serde_json::Value = serde_json::from_slice(&empty.body).unwrap();
            assert_eq!((&read["queue"], &read["attempt"]), (&"a\"\\\tü".into(), &2.into()));
            assert_eq!(empty.headers["content-type"], "application/json");
            assert!(!empty.headers.contains_key("content-encoding"));
            let own = call(method, Some(b"<a/>"));
            assert_eq!(
                (&own.body[..], &own.headers["content-encoding"]),
                (&b"<a/>"[..], &"gzip".parse().unwrap())
            );
        }
        for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
            assert!(call(method, None).body.is_empty(), "{method}");
            assert_eq!(call(method, None).headers["content-type"], "text/xml");
            assert_eq!(&call(method, Some(b"<a/>")).body[..], b"<a/>", "{method}");
        }
    }

    #[test]
    fn a_call_belongs_to_the_trace_that_its_job_was_enqueued_in() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let sent = |headers: &str| {
            let headers = Some(headers.to_owned());
            prepared(&ClaimedJob { headers, ..job("/x") }).unwrap().headers.remove("traceparent")
        };
        assert_eq!(sent(&format!(r#"{{"Traceparent":"{parent}"}}"#)).unwrap(), parent);
        assert_eq!(sent(r#"{"traceparent":"00-1-2-01"}"#), None);
        assert_eq!(sent("{}"), None);
    }

    #[test]
    fn a_call_says_when_it_is_tried_again_and_the_last_one_does_not() {
        let said = |attempt, random| {
            let job = ClaimedJob { attempt, max_attempts: 3, ..job("/x") };
            let call = super::super::foretell(prepared(&job).unwrap(), &job, random);
            call.headers.get("turnwise-will-retry-after").map(|v| v.to_str().unwrap().to_owned())
        };
        assert_eq!(said(1, u64::MAX / 2).as_deref(), Some("15"));
        assert_eq!(said(2, u64::MAX / 2).as_deref(), Some("30"));
        // 7.5 s and 22.5 s.
        assert_eq!(said(1, 0).as_deref(), Some("8"));
        assert_eq!(said(1, u64::MAX).as_deref(), Some("23"));
        assert_eq!(said(3, 0), None);
    }

    #[test]
    fn turnwise_says_who_it_is_and_which_job_this_is() {
        let headers =
            Some(r#"{"x-a":"1","Webhook-Id":"forged","turnwise-attempt":"9"}"#.to_owned());
        let call = prepared(&ClaimedJob { headers, ..job("/x") }).unwrap();
        let sent: Vec<_> = call
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        let id = "00000000-0000-0000-0000-000000000007";
        for header in [
            ("x-a", "1"),
            ("user-agent", USER_AGENT_VALUE),
            ("webhook-id", id),
            ("webhook-timestamp", "1700000000"),
            ("idempotency-key", id),
            ("turnwise-attempt", "2"),
            ("turnwise-max-attempts", "20"),
            ("turnwise-queue", "mail"),
            ("turnwise-scheduled-at", "1970-01-01T00:00:01.000000Z"),
            ("turnwise-deadline", "2023-11-14T22:14:20.250000Z"),
        ] {
            assert!(sent.contains(&header), "{header:?} in {sent:?}");
        }
        assert!(sent.contains(&("content-type", "application/json")));
        assert_eq!(sent.len(), 11);
    }

    #[test]
    fn a_call_says_which_batch_it_is_of_and_what_was_answered_before() {
        let said = |batch: Option<&str>, previous_status| {
            let batch = batch.map(str::to_owned);
            let particulars = Particulars { batch, previous_status, ..Particulars::default() };
            let call = prepared(&ClaimedJob { particulars, ..job("/x") }).unwrap();
            let of = |name: &str| call.headers.get(name).map(|v| v.to_str().unwrap().to_owned());
            (of("turnwise-batch"), of("turnwise-previous-status"))
        };
        let batch = "00000000-0000-0000-0000-000000000009";
        let both = (Some(batch.to_owned()), Some("503".to_owned()));
        assert_eq!(said(Some(batch), Some(503)), both);
        assert_eq!(said(None, None), (None, None));
        for status in [99, 600, -1, i64::MAX] {
            assert_eq!(said(Some("a\r\nb"), Some(status)), (None, None), "{status}");
        }
    }

    #[test]
    fn a_call_says_which_job_has_enqueued_it() {
        let said = |parent: &str| {
            let parent = Some(parent.to_owned());
            let particulars = Particulars { parent, ..Particulars::default() };
            let call = prepared(&ClaimedJob { particulars, ..job("/x") }).unwrap();
            call.headers.get("turnwise-parent").map(|v| v.to_str().unwrap().to_owned())
        };
        let parent = "00000000-0000-0000-0000-00000000000a";
        assert_eq!(said(&parent.to_uppercase()).as_deref(), Some(parent));
        assert_eq!(said("7\r\nx: y"), None);
    }

    #[test]
    fn the_own_target_may_be_called_by_another_name() {
        let targets = Targets::parse(&["http://127.0.0.1:8080"])
            .unwrap()
            .with_host_header(Some(HeaderValue::from_static("app.example")));
        let allowed = AllowedOrigins::parse(&["https://api.example"]).unwrap();
        let host = |url| {
            let call =
                prepare(&job(url), &targets, &allowed, ServerInstant::from_micros(0)).unwrap();
            call.headers.get(HOST).cloned()
        };
        assert_eq!(host("/x").unwrap(), "app.example");
        assert_eq!(host("https://api.example/x"), None);
    }

    #[test]
    fn headers_that_break_the_message_are_refused() {
        let bad = [
            "[]",
            "not json",
            "",
            r#"{"a":1}"#,
            r#"{"a":["b"]}"#,
            r#"{"a b":"c"}"#,
            r#"{"":"c"}"#,
            r#"{"a":"b\r\nc: d"}"#,
            r#"{"Host":"evil"}"#,
            r#"{"content-length":"0"}"#,
            r#"{"TRANSFER-ENCODING":"chunked"}"#,
            r#"{"Connection":"close"}"#,
            r#"{"Keep-Alive":"1"}"#,
        ];
        for headers in bad {
            let job = ClaimedJob { headers: Some(headers.to_owned()), ..job("/x") };
            assert!(prepared(&job).is_err(), "{headers}");
        }
        for headers in ["{}", "null", r#"{"a":"ü"}"#] {
            let job = ClaimedJob { headers: Some(headers.to_owned()), ..job("/x") };
            assert!(prepared(&job).is_ok(), "{headers}");
        }
        let many: BTreeMap<_, _> = (0..65).map(|i| (format!("x-{i}"), "1")).collect();
        let headers = Some(serde_json::to_string(&many).unwrap());
        let rejection = prepared(&ClaimedJob { headers, ..job("/x") }).unwrap_err();
        assert!(matches!(rejection, Rejection::ManyHeaders { count: 65, .. }));
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        for method in ["post", "CONNECT", "TRACE", "", "GE T"] {
            let job = ClaimedJob { method: method.to_owned(), ..job("/x") };
            assert!(matches!(prepared(&job), Err(Rejection::Method(_))), "{method}");
        }
        for deadline_ms in [0, -1, 86_400_001, i64::MAX, i64::MIN] {
            let job = ClaimedJob { deadline_ms, ..job("/x") };
            assert_eq!(prepared(&job), Err(Rejection::Deadline(deadline_ms)));
        }
        for deadline_ms in [1, 86_400_000] {
            assert!(prepared(&ClaimedJob { deadline_ms, ..job("/x") }).is_ok());
        }
        let body_bytes = BODY_BYTES_MAX as u64 + 1;
        assert_eq!(
            prepared(&ClaimedJob { body_bytes, ..job("/x") }),
            Err(Rejection::Body(body_bytes))
        );
        let queue = "a\nb".to_owned();
        assert_eq!(
            prepared(&ClaimedJob { queue: queue.clone(), ..job("/x") }),
            Err(Rejection::Queue(queue))
        );
    }

    #[test]
    fn a_node_without_a_target_for_the_queue_says_so() {
        let targets = Targets::parse(&["reports=http://b:2"]).unwrap();
        let now = ServerInstant::from_micros(0);
        let call = prepare(&job("/x"), &targets, &AllowedOrigins::default(), now);
        assert_eq!(call, Err(Rejection::NoTarget("mail".to_owned())));
    }
}
