//! The target: an HTTP server on one thread that answers every job with 200 and an empty body, and counts. The harness
//! asks it on the same port.
//!
//! ```text
//! POST /jobs/7       a job's call
//! POST /reset/20000  a new run of so many jobs
//! GET  /report       what came in
//! GET  /stamp/7      when job 7 was first requested
//! ```

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use peers_common::Failure;
use tokio::net::TcpListener;
use tokio::task::{LocalSet, spawn_local};

use crate::seen::Seen;

/// Serve until the process is ended.
pub(crate) async fn run() -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    let seen = Rc::new(RefCell::new(Seen::default()));
    LocalSet::new().run_until(accept(listener, seen)).await
}

/// Runs what a connection over HTTP/2 does at once on the thread of all connections.
#[derive(Clone)]
struct OnThisThread;

impl<F: Future<Output: 'static> + 'static> Executor<F> for OnThisThread {
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}

async fn accept(listener: TcpListener, seen: Rc<RefCell<Seen>>) -> Result<(), Failure> {
    loop {
        let (connection, _) = listener.accept().await?;
        connection.set_nodelay(true)?;
        let seen = Rc::clone(&seen);
        spawn_local(async move {
            let answer = service_fn(|request| {
                let answer = answer(&request, &mut seen.borrow_mut());
                async move { Ok::<_, Infallible>(answer) }
            });
            // A connection that breaks is the contestant's affair.
            let connection = TokioIo::new(connection);
            let _ = auto::Builder::new(OnThisThread).serve_connection(connection, answer).await;
        });
    }
}

fn answer(request: &Request<Incoming>, seen: &mut Seen) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let (name, number) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
    let number = number.parse::<usize>();
    let text = match (name, number) {
        ("jobs", Ok(job)) => {
            seen.note(job);
            String::new()
        }
        ("reset", Ok(jobs)) => {
            *seen = Seen::of(jobs);
            String::new()
        }
        ("stamp", Ok(job)) => seen.stamp(job).to_string(),
        ("/report", _) => seen.report(),
        _ => {
            let mut answer = Response::new(Full::default());
            *answer.status_mut() = StatusCode::NOT_FOUND;
            return answer;
        }
    };
    Response::new(Full::from(text))
}
