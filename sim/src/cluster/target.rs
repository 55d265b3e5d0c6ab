//! The web apps that are called: each node has its own, a port on one of two machines. Decides how each call goes:
//! most well, some with every way of failing that a web app knows.

use std::io;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::task::JoinSet;
use turmoil::net::{TcpListener, TcpStream};
use turnwise_node::callback::HEADER;
use turnwise_node::job::JobId;

use super::farm::Farm;
use crate::random::Stream;
use crate::world::{Course, course, job_of};

/// How many machines web apps run on.
pub(super) const MACHINES: u32 = 2;
/// The first port.
const FIRST_PORT: u16 = 8_000;
/// Which life of a node calls: the judge wants to know.
pub(super) const LIFE_HEADER: &str = "x-simulated-life";

/// The name of the machine that a node's web app runs on.
pub(super) fn machine(number: u32) -> String {
    format!("target-{}", number % MACHINES)
}

/// The web app of a node.
pub(super) fn origin(host: u32) -> String {
    format!("http://{}:{}", machine(host), u32::from(FIRST_PORT) + host)
}

/// The process of a machine with web apps.
pub(super) async fn process(farm: Farm, number: u32) -> turmoil::Result {
    let mut apps = JoinSet::new();
    let hosts = farm.look().hosts.len() as u32;
    for host in (0..hosts).filter(|host| host % MACHINES == number) {
        let is_up = farm.look().host(host).target_is_up.subscribe();
        apps.spawn_local(app(farm.clone(), host, is_up));
    }
    apps.join_all().await;
    std::future::pending().await
}

/// A web app, up or away.
async fn app(farm: Farm, host: u32, mut is_up: watch::Receiver<bool>) -> io::Result<()> {
    let port = FIRST_PORT + host as u16;
    let seed = farm.look().scenario.seed;
    let stream = Stream::new(seed, &format!("target of node {host}"));
    let chance = std::rc::Rc::new(std::cell::RefCell::new(stream));
    while is_up.wait_for(|up| *up).await.is_ok() {
        let listener = TcpListener::bind(("0.0.0.0", port)).await?;
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                _ = is_up.wait_for(|up| !*up) => break,
                accepted = listener.accept() => {
                    let (stream, _) = accepted?;
                    let (farm, chance) = (farm.clone(), std::rc::Rc::clone(&chance));
                    connections.spawn_local(async move { serve(farm, chance, host, stream).await });
                }
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
            }
        }
        drop(listener);
        connections.shutdown().await;
    }
    Ok(())
}

async fn serve(
    farm: Farm,
    chance: std::rc::Rc<std::cell::RefCell<Stream>>,
    host: u32,
    stream: TcpStream,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let course = course(farm.look().scenario.load, &mut chance.borrow_mut());
        let called = Called::of(farm.clone(), host, request.headers());
        async move { called.go(course).await }
    });
    // What breaks here, breaks on purpose.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// A call that is being served.
struct Called {
    farm: Farm,
    answered: bool,
    /// Which job, and for which life.
    run: Option<(u64, u32)>,
    /// It may answer 202.
    is_asynchronous: bool,
}

impl Called {
    fn of(farm: Farm, host: u32, headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let job = text("webhook-id").and_then(|id| id.parse::<JobId>().ok()).map(job_of);
        let is_asynchronous = headers.contains_key(HEADER);
        let life = text(LIFE_HEADER).and_then(|life| life.parse().ok());
        let run = job.zip(life);
        if let Some((job, life)) = run {
            farm.look().run_begins(host, job, life);
        }
        Self { farm, answered: false, run, is_asynchronous }
    }

    async fn go(mut self, (length, course): (u64, Course)) -> io::Result<Response<Full<Bytes>>> {
        tokio::time::sleep(std::time::Duration::from_nanos(length)).await;
        if let Some((job, _)) = self.run {
            self.farm.extend(job);
        }
        self.answered = true;
        let mut response = Response::new(Full::new(Bytes::from_static(b"done")));
        match course {
            Course::Hang => {
                self.answered = false;
                std::future::pending::<()>().await;
            }
            Course::Break => return Err(io::ErrorKind::ConnectionReset.into()),
            Course::AnswerLost => {
                self.is_done();
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Course::Well if self.is_asynchronous && self.accepts() => {
                *response.status_mut() = http::StatusCode::ACCEPTED;
            }
            Course::Well => self.is_done(),
            Course::Status(status) => {
                if let Ok(status) = status.try_into() {
                    *response.status_mut() = status;
                }
            }
            Course::Later => {
                *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
                response.headers_mut().insert(http::header::RETRY_AFTER, 1.into());
            }
        };
        Ok(response)
    }

    /// Whether the web app goes on with it by itself.
    fn accepts(&self) -> bool {
        let Some((job, life)) = self.run else { return false };
        self.farm.look().accepts(job, life)
    }

    fn is_done(&self) {
        if let Some((job, _)) = self.run {
            *self.farm.look().done.entry(job).or_insert(0) += 1;
        }
    }
}

/// Answered, broken off by the caller, or cut by the end of the web app.
impl Drop for Called {
    fn drop(&mut self) {
        if let Some((job, life)) = self.run {
            self.farm.look().run_over(job, life, self.answered);
        }
    }
}
