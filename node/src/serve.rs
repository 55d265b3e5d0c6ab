//! Decides how many may be connected to a node at once, who goes when there are more, and how slow a peer may be. What
//! is answered is the routes' to decide.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, Response, StatusCode};
use axum::response::IntoResponse;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::{api, callback};

/// How long accepting waits after a failure, such as that the process has no descriptor left.
const WAIT_AFTER_FAILURE: Duration = Duration::from_millis(500);
/// That somebody is turned away is logged at most so often.
const SAID_APART: Duration = Duration::from_secs(60);

/// What is granted to those who connect.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// So many are connected at once.
    pub connections: usize,
    /// A request's head is there so long after the connection was made, or after the last answer.
    pub head: Duration,
    /// A request's body is there so long after its head.
    pub body: Duration,
    /// The largest body of a request, in bytes.
    pub body_bytes: usize,
    /// The largest head of a request, in bytes.
    pub head_bytes: usize,
    /// Requests to paths of which this is true are handed on with their bodies unread: their routes set limits of their own,
    /// and read nothing of those who may not come in.
    pub reads_itself: fn(&str) -> bool,
    /// A peer takes something of what is sent to it within this time.
    pub take: Duration,
}

impl Limits {
    /// What a node grants.
    pub const DEFAULT: Self = Self {
        connections: 256,
        head: Duration::from_secs(10),
        body: Duration::from_secs(10),
        body_bytes: 16 * 1024,
        head_bytes: 16 * 1024,
        reads_itself: |path| api::is_of_api(path) && !callback::is_of_callbacks(path),
        take: Duration::from_secs(30),
    };
}

/// Answer until dropped, within [`Limits::DEFAULT`].
pub async fn serve(listener: TcpListener, routes: Router) {
    serve_within(listener, routes, Limits::DEFAULT).await;
}

/// Answer until dropped, which ends what is connected. Where there are too many, the one goes that has been connected
/// longest and asks for nothing just now; where all ask for something, the newcomer is told so.
pub async fn serve_within(listener: TcpListener, routes: Router, limits: Limits) {
    let routes = TowerToHyperService::new(routes);
    let table = Arc::new(Mutex::new(Table::default()));
    let mut open = JoinSet::new();
    let mut said: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            biased;
            Some(_) = open.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("the API cannot accept a connection: {error}");
                sleep(WAIT_AFTER_FAILURE).await;
                continue;
            }
        };
        let mut places = table.lock().unwrap_or_else(PoisonError::into_inner);
        if !places.make_room(limits.connections) {
            drop(places);
            if said.is_none_or(|said| said.elapsed() > SAID_APART) {
                said = Some(Instant::now());
                tracing::warn!(
                    connections = limits.connections,
                    "the API turns connections away: as many as may be at once ask for something"
                );
            }
            turn_away(stream, limits.connections);
            continue;
        }
        let asks = Arc::new(AtomicUsize::new(0));
        let place = Place { number: places.next, table: Arc::clone(&table) };
        let answering = answer(stream, routes.clone(), limits, Arc::clone(&asks), place);
        let close = open.spawn(answering);
        places.take(Connected { asks, close });
    }
}

/// Those who are connected, the oldest first.
#[derive(Default)]
struct Table {
    next: u64,
    open: BTreeMap<u64, Connected>,
}

struct Connected {
    /// Requests that are being answered: one or none.
    asks: Arc<AtomicUsize>,
    close: AbortHandle,
}

impl Table {
    /// Whether there is room for one more, once somebody who asks for nothing has gone.
    fn make_room(&mut self, most: usize) -> bool {
        if self.open.len() < most {
            return true;
        }
        let is_idle = |connected: &Connected| connected.asks.load(Ordering::Acquire) == 0;
        let idle = self.open.iter().find(|(_, connected)| is_idle(connected));
        let Some(number) = idle.map(|(number, _)| *number) else { return false };
        if let Some(connected) = self.open.remove(&number) {
            connected.close.abort();
        }
        true
    }

    fn take(&mut self, connected: Connected) {
        self.open.insert(self.next, connected);
        self.next += 1;
    }
}

/// A place in the table. It is free when this is dropped.
struct Place {
    number: u64,
    table: Arc<Mutex<Table>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.open.remove(&self.number);
    }
}

async fn answer(
    stream: TcpStream,
    routes: TowerToHyperService<Router>,
    limits: Limits,
    asks: Arc<AtomicUsize>,
    place: Place,
) {
    let is_set = SockRef::from(&stream).set_tcp_user_timeout(Some(limits.take)).is_ok();
    if !is_set || stream.set_nodelay(true).is_err() {
        tracing::debug!("a connection to the API has no limit for slow readers");
    }
    let service = service_fn(move |request| {
        let (ask, routes) = (Ask::new(&asks), routes.clone());
        async move {
            let response = within(request, &routes, limits).await;
            Ok::<_, Infallible>(response.map(|body| Body::new(Held { body, _ask: ask })))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(limits.head_bytes)
        .serve_connection(TokioIo::new(stream), service);
    // A peer that breaks off, or is cut off, is no failure of ours.
    if let Err(error) = connection.await {
        tracing::trace!("a connection to the API ended: {error}");
    }
    drop(place);
}

/// The answer to a request whose body comes in time.
async fn within(
    request: Request<Incoming>,
    routes: &TowerToHyperService<Router>,
    limits: Limits,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    if (limits.reads_itself)(head.uri.path()) {
        return answered(routes, Request::from_parts(head, Body::new(body))).await;
    }
    // One that says that it is too large is not waited for.
    let is_too_large = body.size_hint().lower() > limits.body_bytes as u64;
    let reading = async {
        match is_too_large {
            true => None,
            false => to_bytes(Body::new(body), limits.body_bytes).await.ok(),
        }
    };
    let (status, say) = match timeout(limits.body, reading).await {
        Ok(Some(body)) => {
            return answered(routes, Request::from_parts(head, Body::from(body))).await;
        }
        Ok(None) => {
            let say = format!("a request's body has at most {} bytes\n", limits.body_bytes);
            (StatusCode::PAYLOAD_TOO_LARGE, say)
        }
        Err(_) => {
            let say = format!("the request was not there within {:?}\n", limits.body);
            (StatusCode::REQUEST_TIMEOUT, say)
        }
    };
    let mut response = (status, say).into_response();
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn answered(routes: &TowerToHyperService<Router>, request: Request<Body>) -> Response<Body> {
    match routes.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Say that there is no room, as far as that goes without waiting for the peer.
fn turn_away(stream: TcpStream, connections: usize) {
    let say = format!("{connections} connections ask for something already: try again later\n");
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\n\
         content-length: {}\r\nretry-after: 1\r\nconnection: close\r\n\r\n{say}",
        say.len()
    );
    // What it has sent must be read, or closing would take the answer away again.
    let _ = stream.try_read(&mut [0; 4096]);
    let _ = stream.try_write(answer.as_bytes());
    let mut stream = stream;
    let _ = futures_util::FutureExt::now_or_never(stream.shutdown());
}

/// A request that is being answered, until its answer is sent to its end.
struct Ask(Arc<AtomicUsize>);

impl Ask {
    fn new(asks: &Arc<AtomicUsize>) -> Self {
        asks.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(asks))
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The body of an answer.
struct Held {
    body: Body,
    _ask: Ask,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
