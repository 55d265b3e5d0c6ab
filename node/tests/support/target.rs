//! A web app for tests whose paths say how it behaves, on loopback or wherever it is given a listener. Records
//! every call that reaches it.
//!
//! | path | answer |
//! |---|---|
//! | `/ok` | 200 at once |
//! | `/status/N` | status N at once |
//! | `/slow/MS` | 200 after so many milliseconds |
//! | `/hang` | none, ever |
//! | `/trickle` | 200 at once, and a body that never ends, a byte at a time |
//! | `/redirect` | 302 to `/ok` |
//! | `/huge` | 200 and a body that never ends, as fast as it goes |
//! | `/short` | 200 and half of the body that it announces |
//! | `/stalls/N` | 200 and N bytes of a body that goes no further |
//! | `/no-retry` | 500 with `Turnwise-No-Retry: true` |
//! | `/retry-after/S` | 503 with `Retry-After: S` |
//! | `/flaky/K` | 500 on the first K calls of each job, then 200 |
//! | `/echo` | 200 and the request's body |
//! | `/digest` | 200 and what [`digest`] makes of the request's body |
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![allow(dead_code, reason = "each test crate uses a part of it")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, Request, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::serve::{Listener, ListenerExt};
use futures_util::{StreamExt, stream};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One call as it reached the target.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// `webhook-id`: the job.
    pub(crate) job: String,
    /// `Turnwise-Attempt`.
    pub(crate) attempt: u32,
    /// The method.
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    /// All headers.
    pub(crate) headers: HeaderMap,
    /// When it arrived.
    pub(crate) at: Instant,
    /// When its answer was ready; none while it is worked on, and for ever when the caller went away.
    pub(crate) answered: Option<Instant>,
    /// The caller went away before its answer was ready.
    pub(crate) cut_short: bool,
    /// Who called.
    pub(crate) peer: SocketAddr,
}

/// The running target; stops when dropped.
#[derive(Debug)]
pub(crate) struct Target {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    failures: Mutex<BTreeMap<String, u32>>,
    /// Bodies without end that were dropped.
    bodies_cut_short: AtomicU32,
}

impl Target {
    /// Start on a free port of loopback.
    pub(crate) async fn start() -> Self {
        Self::start_on("127.0.0.1:0".parse().unwrap()).await
    }

    /// Start on an address of loopback, for a target that comes back.
    pub(crate) async fn start_on(address: SocketAddr) -> Self {
        Self::serve(TcpListener::bind(address).await.unwrap())
    }

    /// Start where `listener` listens.
    pub(crate) fn serve<L: Listener<Addr = SocketAddr>>(listener: L) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let app = routes(Arc::clone(&shared)).into_make_service_with_connect_info::<SocketAddr>();
        // Whatever it is tapped for: so it tells any kind of listener's callers apart.
        let listener = listener.tap_io(|_| {});
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, shared, server }
    }

    /// Its origin: `http://127.0.0.1:port`.
    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many bodies without end were broken off by their readers.
    pub(crate) fn bodies_cut_short(&self) -> u32 {
        self.shared.bodies_cut_short.load(Ordering::Relaxed)
    }

    /// Every call so far, in the order of arrival.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// The calls of one job.
    pub(crate) fn seen_of(&self, job: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.job == job).collect()
    }

    /// Stop listening, so that connections are refused.
    pub(crate) async fn stop(self) {
        self.server.abort();
        while !self.server.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// An address of loopback at which nothing listens.
pub(crate) async fn refusing_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/ok", any(async || "fine"))
        .route("/status/{status}", any(status))
        .route("/slow/{millis}", any(slow))
        .route("/hang", any(async || std::future::pending::<()>().await))
        .route("/trickle", any(trickle))
        .route("/huge", any(huge))
        .route("/stalls/{bytes}", any(stalls))
        .route("/short", any(short))
        .route("/redirect", any(async || (StatusCode::FOUND, [("location", "/ok")])))
        .route("/no-retry", any(no_retry))
        .route("/retry-after/{seconds}", any(retry_after))
        .route("/flaky/{failures}", any(flaky))
        .route("/echo", any(async |body: Bytes| body))
        .route("/digest", any(async |body: Bytes| digest(&body)))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), record))
        .with_state(shared)
}

async fn record(
    State(shared): State<Arc<Shared>>,
    axum::extract::ConnectInfo(peer): axum::extract::ConnectInfo<SocketAddr>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let headers = request.headers().clone();
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let seen = Seen {
        job: text("webhook-id").to_owned(),
        attempt: text("turnwise-attempt").parse().unwrap_or(0),
        method: request.method().clone(),
        path: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: headers.clone(),
        at: Instant::now(),
        answered: None,
        cut_short: false,
        peer,
    };
    let index = {
        let mut all = lock(&shared.seen);
        all.push(seen);
        all.len() - 1
    };
    let waits = Waits { shared: &shared, index };
    let response = next.run(request).await;
    lock(&shared.seen)[index].answered = Some(Instant::now());
    drop(waits);
    response
}

/// Somebody waits for an answer. When this is dropped before there is one, the caller has gone away.
struct Waits<'a> {
    shared: &'a Shared,
    index: usize,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let call = &mut lock(&self.shared.seen)[self.index];
        call.cut_short = call.answered.is_none();
    }
}

async fn status(Path(status): Path<u16>) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST)
}

async fn slow(Path(millis): Path<u64>) -> &'static str {
    tokio::time::sleep(Duration::from_millis(millis)).await;
    "at last"
}

async fn trickle(State(shared): State<Arc<Shared>>) -> Body {
    endless(shared, 1, Duration::from_millis(20))
}

async fn huge(State(shared): State<Arc<Shared>>) -> Body {
    endless(shared, 16 * 1024, Duration::ZERO)
}

fn endless(shared: Arc<Shared>, bytes: usize, pause: Duration) -> Body {
    let chunk = Bytes::from(vec![b'x'; bytes]);
    let read = Read(shared);
    Body::from_stream(stream::unfold((chunk, read), move |(chunk, read)| async move {
        tokio::time::sleep(pause).await;
        Some((Ok::<_, Infallible>(chunk.clone()), (chunk, read)))
    }))
}

/// A body without end is read. When this is dropped, it is no more.
struct Read(Arc<Shared>);

impl Drop for Read {
    fn drop(&mut self) {
        self.0.bodies_cut_short.fetch_add(1, Ordering::Relaxed);
    }
}

async fn stalls(Path(bytes): Path<usize>) -> Body {
    let chunk = Ok::<_, Infallible>(Bytes::from(vec![b'x'; bytes]));
    Body::from_stream(stream::iter([chunk]).chain(stream::pending()))
}

/// The length and a checksum (FNV-1a) of a body.
pub(crate) fn digest(body: &[u8]) -> String {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{} bytes, {:016x}", body.len(), body.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

async fn short() -> Response {
    let half = stream::iter([Ok("half"), Err(std::io::Error::other("broken off"))]);
    ([("content-length", "8")], Body::from_stream(half)).into_response()
}

async fn no_retry() -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, [("turnwise-no-retry", "true")]).into_response()
}

async fn retry_after(Path(seconds): Path<String>) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", seconds)]).into_response()
}

async fn flaky(
    State(shared): State<Arc<Shared>>,
    Path(failures): Path<u32>,
    headers: HeaderMap,
    uri: Uri,
) -> StatusCode {
    let id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    let mut all = lock(&shared.failures);
    let so_far = all.entry(format!("{id}{uri}")).or_default();
    if *so_far >= failures {
        return StatusCode::OK;
    }
    *so_far += 1;
    StatusCode::INTERNAL_SERVER_ERROR
}
