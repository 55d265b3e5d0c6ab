//! Decides how much of a request's body is read, how long it may take, how many bytes of all requests are held at once, and of
//! which type it must be. What stands in it is others' to judge.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Bytes, HttpBody, to_bytes};
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::problem::{Fault, Kind, Problem};

/// The largest body of a request that enqueues jobs, in bytes.
pub(crate) const JOBS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The largest body of a request that sets a schedule, in bytes: a job's largest body, every byte of it escaped, and the rest.
pub(crate) const SCHEDULE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The largest body of any other request, in bytes.
pub(crate) const ORDER_BYTES_MAX: usize = 16 * 1024;
/// The bytes of all bodies that are held at once; who comes when there are more waits.
const HELD_BYTES_MAX: usize = 32 * 1024 * 1024;
/// A body is there so long after its head.
const BODY_TIME: Duration = Duration::from_secs(30);
/// So long a request waits for others to be done with their bodies.
const ROOM_TIME: Duration = Duration::from_secs(5);

/// The room for the bodies of all requests.
#[derive(Debug)]
pub(super) struct Bodies {
    room: Arc<Semaphore>,
    patience: Duration,
}

impl Default for Bodies {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(HELD_BYTES_MAX / 1024)), patience: BODY_TIME }
    }
}

/// A body, and the room that it takes until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl Bodies {
    /// The body of this request, of at most so many bytes.
    pub(super) async fn read(&self, request: Request, most: usize) -> Result<Held, Problem> {
        let body = request.into_body();
        let size = body.size_hint();
        // One that says that it is too large is not waited for.
        if size.lower() > most as u64 {
            return Err(too_large(most));
        }
        let bytes = size.exact().map_or(most, |exact| usize::try_from(exact).unwrap_or(most));
        let kilobytes = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let room = timeout(ROOM_TIME, Arc::clone(&self.room).acquire_many_owned(kilobytes)).await;
        let Ok(Ok(room)) = room else {
            let say = format!("{} MiB of bodies are being read already", HELD_BYTES_MAX >> 20);
            return Err(Problem::new(
                Kind::Busy,
                say,
                "Ask again in a moment, or send less at once",
            ));
        };
        match timeout(self.patience, to_bytes(body, most)).await {
            Ok(Ok(bytes)) => Ok(Held { bytes, _room: room }),
            Ok(Err(error)) if error.source_is_limit() => Err(too_large(most)),
            Ok(Err(error)) => Err(Problem::new(
                Kind::BadRequest,
                format!("the body broke off: {error}"),
                "Nothing was done: send it again",
            )),
            Err(_) => Err(Problem::new(
                Kind::TooSlow,
                format!("the body was not there within {:?}", self.patience),
                "Nothing was done: send less at once",
            )),
        }
    }

    /// The body of an order that says all with its path: there is nothing in it, or an empty object.
    pub(super) async fn none(&self, request: Request) -> Result<(), Problem> {
        let held = self.read(request, ORDER_BYTES_MAX).await?;
        let is_empty = matches!(held.bytes.trim_ascii(), b"" | b"{}");
        is_empty.then_some(()).ok_or_else(|| {
            let remedy = "Nothing was done: send it without a body";
            Problem::new(Kind::BadRequest, "this takes nothing in its body", remedy)
        })
    }
}

trait SourceIsLimit {
    fn source_is_limit(&self) -> bool;
}

impl SourceIsLimit for axum::Error {
    fn source_is_limit(&self) -> bool {
        std::error::Error::source(self).is_some_and(<dyn std::error::Error>::is::<LengthLimitError>)
    }
}

fn too_large(most: usize) -> Problem {
    Problem::new(
        Kind::TooLarge,
        format!("the body of this request has at most {most} bytes"),
        "Nothing was done: send less at once, and in place of large things references to them",
    )
}

/// What a body says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentType {
    /// `application/json`
    Json,
    /// `application/x-ndjson`: a JSON text on each line.
    Lines,
}

impl ContentType {
    /// By the header. Of parameters only `charset=utf-8` may be there.
    pub(super) fn of(headers: &HeaderMap, allowed: &[Self]) -> Result<Self, Problem> {
        let given = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?"));
        let mut parts = given.unwrap_or_default().split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let is_utf8 = parts.all(|parameter| {
            parameter.is_empty() || parameter.replace('"', "").eq_ignore_ascii_case("charset=utf-8")
        });
        let known = allowed.iter().find(|known| known.as_str().eq_ignore_ascii_case(kind));
        known.copied().filter(|_| is_utf8).ok_or_else(|| {
            let detail = match given {
                Some(given) => format!("this does not read a body of type {given:?}"),
                None => "the request does not say of which type its body is".to_owned(),
            };
            let words: Vec<_> = allowed.iter().map(|known| known.as_str()).collect();
            let remedy = format!(
                "Nothing was done: send it as `content-type: {}`, in UTF-8",
                words.join("` or `")
            );
            Problem::new(Kind::ContentType, detail, remedy)
        })
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Lines => "application/x-ndjson",
        }
    }
}

/// What a JSON text says, or the place and the reason why it says nothing.
pub(super) fn json<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let read = serde_path_to_error::deserialize::<_, T>(&mut reader);
    let read = read.map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        match error.classify() {
            serde_json::error::Category::Data => {
                let field = if path == "." { "body".to_owned() } else { path };
                Problem::faults(Kind::Invalid, vec![Fault::new(field, error.to_string())])
            }
            _ => not_json(&error),
        }
    })?;
    reader.end().map_err(|error| not_json(&error))?;
    Ok(read)
}

fn not_json(error: &serde_json::Error) -> Problem {
    Problem::new(Kind::BadJson, error.to_string(), "Nothing was done: send one JSON text, in UTF-8")
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn of(value: Option<&str>) -> Option<ContentType> {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert(CONTENT_TYPE, value.parse().unwrap());
        }
        ContentType::of(&headers, &[ContentType::Json, ContentType::Lines]).ok()
    }

    #[test]
    fn a_type_is_known_whatever_its_case_and_only_in_utf_8() {
        assert_eq!(of(Some("application/json")), Some(ContentType::Json));
        assert_eq!(of(Some("Application/JSON; charset=\"UTF-8\"")), Some(ContentType::Json));
        assert_eq!(of(Some("application/x-ndjson;charset=utf-8")), Some(ContentType::Lines));
        for other in ["text/plain", "application/json; charset=latin1", "application/jsonx", ""] {
            assert_eq!(of(Some(other)), None, "{other}");
        }
        assert_eq!(of(None), None);
    }

    fn request(body: Body) -> Request {
        Request::new(body)
    }

    #[tokio::test]
    async fn a_body_is_read_to_its_limit_and_not_beyond_it() {
        let bodies = Bodies::default();
        let read =
            async |bytes: usize| bodies.read(request(Body::from(vec![b'x'; bytes])), 100).await;
        assert_eq!(read(100).await.unwrap().bytes.len(), 100);
        assert!(read(101).await.is_err());
        // One that does not say how long it is.
        let pieces = |n| futures_util::stream::iter((0..n).map(|_| Ok::<_, std::io::Error>("x")));
        let long = |n| request(Body::from_stream(pieces(n)));
        assert_eq!(bodies.read(long(100), 100).await.unwrap().bytes.len(), 100);
        assert!(bodies.read(long(101), 100).await.is_err());
        assert_eq!(
            bodies.room.available_permits(),
            HELD_BYTES_MAX / 1024,
            "the room is free again"
        );
    }

    #[tokio::test]
    async fn a_body_takes_room_until_it_is_done_with() {
        let bodies = Bodies { room: Arc::new(Semaphore::new(4)), ..Bodies::default() };
        let four = bodies.read(request(Body::from(vec![b'x'; 4_096])), 8_192).await.unwrap();
        assert_eq!(bodies.room.available_permits(), 0);
        drop(four);
        assert_eq!(bodies.room.available_permits(), 4);
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let bodies = Bodies { patience: Duration::from_millis(10), ..Bodies::default() };
        let never = futures_util::stream::pending::<Result<&str, std::io::Error>>();
        let problem = bodies.read(request(Body::from_stream(never)), 100).await.unwrap_err();
        assert!(format!("{problem:?}").contains("TooSlow"));
    }

    #[tokio::test]
    async fn an_order_takes_nothing_in_its_body() {
        let bodies = Bodies::default();
        for nothing in ["", "{}", " {}\n"] {
            assert!(bodies.none(request(Body::from(nothing))).await.is_ok());
        }
        assert!(bodies.none(request(Body::from(r#"{"force":true}"#))).await.is_err());
    }

    #[test]
    fn what_is_wrong_in_a_text_is_told_with_its_place() {
        let told = |text: &str| format!("{:?}", json::<Vec<u8>>(text.as_bytes()).unwrap_err());
        assert!(told("[1, 300]").contains("[1]"), "{}", told("[1, 300]"));
        assert!(told("[1, ").contains("BadJson"));
        assert!(told("[1] [2]").contains("BadJson"));
        assert!(told("{}").contains("\"body\""));
        assert_eq!(json::<Vec<u8>>(b" [1, 2] ").unwrap(), [1, 2]);
    }
}
