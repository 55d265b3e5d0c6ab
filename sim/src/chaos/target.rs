//! The web app of a node, on a port of its own: serves calls as the load says, and writes down what truly happened.
//! Decides nothing: how a call goes is `world`'s to say.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use turnwise_node::job::JobId;

use super::history::{Call, Event, History};
use crate::random::Stream;
use crate::scenario::Load;
use crate::world::{Course, course, job_of};

/// A web app.
#[derive(Debug)]
pub(super) struct Target {
    /// Where it is called.
    pub(super) address: SocketAddr,
    is_up: watch::Sender<bool>,
}

/// What all of its calls share.
struct App {
    host: u32,
    load: Load,
    chance: Mutex<Stream>,
    history: History,
    calls: Arc<AtomicU64>,
}

impl Target {
    /// A web app on a free port of loopback, there until this process ends. `calls` counts those of all web apps.
    pub(super) async fn open(
        host: u32,
        load: Load,
        seed: u64,
        history: &History,
        calls: &Arc<AtomicU64>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (is_up, up) = watch::channel(true);
        let chance = Mutex::new(Stream::new(seed, &format!("target of node {host}")));
        let (history, calls) = (history.clone(), Arc::clone(calls));
        let app = Arc::new(App { host, load, chance, history, calls });
        tokio::spawn(serve(app, listener, up));
        Ok(Self { address, is_up })
    }

    /// It goes away, or comes back.
    pub(super) fn set_up(&self, up: bool) {
        self.is_up.send_replace(up);
    }
}

async fn serve(app: Arc<App>, first: TcpListener, mut is_up: watch::Receiver<bool>) {
    let Ok(address) = first.local_addr() else { return };
    let mut listener = Some(first);
    while is_up.wait_for(|up| *up).await.is_ok() {
        let listener = match listener.take() {
            Some(listener) => listener,
            None => match TcpListener::bind(address).await {
                Ok(listener) => listener,
                Err(_) => {
                    // The port is still being given back.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
        };
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                down = is_up.wait_for(|up| !*up) => {
                    if down.is_err() { return }
                    break;
                }
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        connections.spawn(serve_connection(Arc::clone(&app), stream));
                    }
                }
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
            }
        }
        drop(listener);
        connections.shutdown().await;
    }
}

async fn serve_connection(app: Arc<App>, stream: TcpStream) {
    let service = service_fn(|request: Request<Incoming>| {
        let running = Running::of(&app, request.headers());
        let plan = course(app.load, &mut app.chance.lock().unwrap_or_else(PoisonError::into_inner));
        async move { running.go(plan).await }
    });
    // What breaks here, breaks on purpose.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// A call that is being served.
struct Running {
    history: History,
    call: Option<Call>,
    done: bool,
}

impl Running {
    fn of(app: &App, headers: &HeaderMap) -> Self {
        let id = headers.get("webhook-id").and_then(|id| id.to_str().ok());
        let job = id.and_then(|id| id.parse::<JobId>().ok()).map(job_of);
        let number = app.calls.fetch_add(1, Ordering::Relaxed);
        let call = job.map(|job| Call { host: app.host, job, number });
        if let Some(call) = call {
            app.history.write(Event::Begun(call));
        }
        Self { history: app.history.clone(), call, done: false }
    }

    async fn go(mut self, (length, course): (u64, Course)) -> Result<Response<Full<Bytes>>, Gone> {
        tokio::time::sleep(Duration::from_nanos(length)).await;
        let mut response = Response::new(Full::new(Bytes::from_static(b"done")));
        match course {
            Course::Hang => match std::future::pending::<Infallible>().await {},
            Course::Break => return Err(Gone),
            Course::AnswerLost => {
                self.done = true;
                return Err(Gone);
            }
            Course::Well => self.done = true,
            Course::Status(status) => {
                *response.status_mut() =
                    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            }
            Course::Later => {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                let wait = HeaderValue::from_static("1");
                response.headers_mut().insert(http::header::RETRY_AFTER, wait);
            }
        }
        Ok(response)
    }
}

/// The web app breaks the connection.
#[derive(Debug)]
struct Gone;

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the web app broke the connection")
    }
}

impl std::error::Error for Gone {}

/// Answered, broken off by the caller, or cut by the end of the web app.
impl Drop for Running {
    fn drop(&mut self) {
        if let Some(call) = self.call {
            self.history.write(Event::Over(call, self.done));
        }
    }
}
