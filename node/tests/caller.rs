//! The contract of the callers, on the one that runs in production: real sockets on loopback. And what the process's
//! environment must not do to it.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

#[path = "caller_contract/promises.rs"]
mod promises;
#[path = "support/target.rs"]
mod target;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use turnwise_node::caller::{AllowedOrigins, CallOutcome, Caller, HttpCaller, Targets};

use promises::{Arm, promises};

/// Real sockets on loopback.
struct Loopback;

impl Arm for Loopback {
    type Caller = HttpCaller;
    type Listener = TcpListener;

    fn caller(&self, targets: &Targets) -> HttpCaller {
        HttpCaller::new(targets).unwrap()
    }

    fn elsewhere<F>(&self, task: F) -> oneshot::Receiver<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (done, result) = oneshot::channel();
        tokio::spawn(async move {
            let _ = done.send(task.await);
        });
        result
    }

    async fn listen(port: u16) -> TcpListener {
        TcpListener::bind(("127.0.0.1", port)).await.unwrap()
    }

    fn authority(port: u16) -> String {
        format!("127.0.0.1:{port}")
    }
}

macro_rules! each {
    ($($promise:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $promise() {
                promises::$promise(Loopback).await;
            }
        )*
    };
}
promises!(each);

/// Answers every request with 200 and the version of HTTP that it came with, and counts the connections.
async fn counting_target(speaks_http_2: bool) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            let answer = service_fn(async |request: hyper::Request<hyper::body::Incoming>| {
                Ok::<_, Infallible>(hyper::Response::new(format!("{:?}", request.version())))
            });
            let stream = TokioIo::new(stream);
            match speaks_http_2 {
                true => {
                    let server = http2::Builder::new(TokioExecutor::new());
                    tokio::spawn(server.serve_connection(stream, answer));
                }
                false => {
                    tokio::spawn(http1::Builder::new().serve_connection(stream, answer));
                }
            }
        }
    });
    (port, connections)
}

fn answered_with(outcome: &CallOutcome) -> &[u8] {
    let CallOutcome::Answered { status: 200, body, .. } = outcome else { panic!("{outcome:?}") };
    body
}

#[tokio::test]
async fn calls_in_turn_share_a_connection() {
    let (port, connections) = counting_target(false).await;
    let targets = Targets::parse(&[format!("http://127.0.0.1:{port}")]).unwrap();
    let caller = HttpCaller::new(&targets).unwrap();
    for _ in 0..20 {
        let outcome = caller.call(&promises::call_to("/ok", &targets)).await;
        assert_eq!(answered_with(&outcome), b"HTTP/1.1");
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn calls_at_once_over_http_2_share_a_connection() {
    let (port, connections) = counting_target(true).await;
    let targets = Targets::parse(&[format!("h2c://127.0.0.1:{port}")]).unwrap();
    let caller = HttpCaller::new(&targets).unwrap();
    let call = promises::call_to("/ok", &targets);
    let calls: Vec<_> = (0..20).map(|_| caller.call(&call)).collect();
    for outcome in futures_util::future::join_all(calls).await {
        assert_eq!(answered_with(&outcome), b"HTTP/2.0");
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    // An origin of the allow-list is called as it is written there.
    let url = format!("http://127.0.0.1:{port}/ok");
    let elsewhere = AllowedOrigins::parse(&[format!("h2c://127.0.0.1:{port}")]).unwrap();
    let outcome = caller.call(&promises::call_with(&url, &targets, &elsewhere)).await;
    assert_eq!(answered_with(&outcome), b"HTTP/2.0");
}

#[tokio::test]
async fn a_target_that_does_not_speak_http_2_fails_the_call() {
    let (port, _) = counting_target(false).await;
    let targets = Targets::parse(&[format!("h2c://127.0.0.1:{port}")]).unwrap();
    let caller = HttpCaller::new(&targets).unwrap();
    let outcome = caller.call(&promises::call_to("/ok", &targets)).await;
    assert!(matches!(outcome, CallOutcome::Failed { .. }), "{outcome:?}");
}

/// The proxy's variables are the whole process's: the test runs itself again under them, with a proxy that is there.
#[test]
fn a_proxy_of_the_environment_is_ignored() {
    const INNER: &str = "TURNWISE_TEST_INNER";
    if std::env::var_os(INNER).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            promises::an_answer_in_time_is_waited_for(Loopback).await;
            each_scheme_connects_to_its_target().await;
        });
        return;
    }
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let at = proxy.local_addr().unwrap();
    let mut inner = std::process::Command::new(std::env::current_exe().unwrap());
    inner.args(["--exact", "a_proxy_of_the_environment_is_ignored"]).env(INNER, "1");
    for variable in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"] {
        inner.env(variable, format!("http://{at}"));
    }
    for variable in ["ALL_PROXY", "all_proxy"] {
        inner.env(variable, format!("socks5://{at}"));
    }
    // With this one curl and others take HTTP_PROXY for a header of CGI.
    inner.env_remove("REQUEST_METHOD").env_remove("NO_PROXY").env_remove("no_proxy");
    let output = inner.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert!(proxy.accept().is_err(), "somebody came to the proxy");
}

/// By name too: a proxy would be asked for it.
async fn each_scheme_connects_to_its_target() {
    for (scheme, host) in [
        ("http", "127.0.0.1"),
        ("https", "127.0.0.1"),
        ("h2c", "127.0.0.1"),
        ("http", "localhost"),
        ("https", "localhost"),
    ] {
        let (port, connections) = counting_target(scheme == "h2c").await;
        let targets = Targets::parse(&[format!("{scheme}://{host}:{port}")]).unwrap();
        let caller = HttpCaller::new(&targets).unwrap();
        let outcome = caller.call(&promises::call_to("/ok", &targets)).await;
        // This target speaks no TLS.
        let is_answered = matches!(outcome, CallOutcome::Answered { status: 200, .. });
        assert_eq!(is_answered, scheme != "https", "{scheme}://{host}: {outcome:?}");
        assert_eq!(connections.load(Ordering::Relaxed), 1, "{scheme}://{host}: {outcome:?}");
        assert!(caller.reach(&targets.origins()[0].clone()).await);
    }
}
