//! The contract of the callers, on the one that runs in production: real sockets on loopback. And what the process's
//! environment must not do to it.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

#[path = "caller_contract/promises.rs"]
mod promises;
#[path = "support/target.rs"]
mod target;

use std::future::Future;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use turnwise_node::caller::{HttpCaller, Targets};

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

/// The proxy's variables are the whole process's: the test runs itself again under them.
#[test]
fn a_proxy_of_the_environment_is_ignored() {
    const INNER: &str = "TURNWISE_TEST_INNER";
    if std::env::var_os(INNER).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            promises::an_answer_in_time_is_waited_for(Loopback).await;
        });
        return;
    }
    let mut inner = std::process::Command::new(std::env::current_exe().unwrap());
    inner.args(["--exact", "a_proxy_of_the_environment_is_ignored"]).env(INNER, "1");
    for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"] {
        inner.env(variable, "http://127.0.0.1:9");
    }
    inner.env_remove("NO_PROXY").env_remove("no_proxy");
    let output = inner.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
