//! The contract of the callers, on the simulated one: the same promises as in `node/tests/caller.rs`, with the same
//! web apps behind simulated sockets, each on simulated machines of its own.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![allow(
    clippy::disallowed_methods,
    reason = "both arms are tried, and the real one takes real time"
)]

#[path = "../../node/tests/caller_contract/promises.rs"]
mod promises;
#[path = "../../node/tests/support/target.rs"]
mod target;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::serve::Listener;
use tokio::sync::oneshot;
use turmoil::net::{TcpListener, TcpStream};
use turnwise_node::caller::Targets;
use turnwise_sim::cluster::contract::{ELSEWHERE, Machine, SimCaller, on_a_machine};
use turnwise_sim::scenario::LocalClock;

use promises::{Arm, promises};

/// How long a promise may take to be tried, in simulated time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Simulated sockets between two machines.
struct Simulated(Machine);

/// A simulated socket that listens.
struct Socket(TcpListener);

impl Listener for Socket {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        self.0.accept().await.unwrap()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Arm for Simulated {
    type Caller = SimCaller;
    type Listener = Socket;

    fn caller(&self, _: &Targets) -> SimCaller {
        self.0.caller()
    }

    fn elsewhere<F>(&self, task: F) -> oneshot::Receiver<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.0.elsewhere(task)
    }

    async fn listen(port: u16) -> Socket {
        Socket(TcpListener::bind(("0.0.0.0", port)).await.unwrap())
    }

    fn authority(port: u16) -> String {
        format!("{ELSEWHERE}:{port}")
    }
}

macro_rules! each {
    ($($promise:ident),* $(,)?) => {
        $(
            #[test]
            fn $promise() {
                let work = |machine| promises::$promise(Simulated(machine));
                on_a_machine(1, LocalClock::default(), None, PATIENCE, work).unwrap();
            }
        )*
    };
}
promises!(each);
