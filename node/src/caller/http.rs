//! The production arm of [`Caller`]: reqwest over TCP and TLS. Decides what is an answer and what a
//! failure; what either means for the job is not decided here.

use std::error::Error;
use std::io;
use std::time::{Duration, SystemTime};

use reqwest::{Client, ClientBuilder, redirect, retry};

use super::resolver::CheckedResolver;
use super::targets::literal_address;
use super::{CONNECT_TIMEOUT, Call, CallOutcome, Caller, Origin, Targets, address};
use crate::job::{ANSWER_BYTES_KEPT_MAX, ANSWER_BYTES_READ_MAX};

/// How long a connection is kept for the next call. Web servers close idle ones after 2 s and more; a
/// call on a connection that is just being closed would be a failed attempt.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Calls over the network.
#[derive(Clone, Debug)]
pub struct HttpCaller {
    client: Client,
    /// For those that speak HTTP/2 from the first byte on.
    h2c: Client,
    resolver: CheckedResolver,
}

/// Why there is no caller.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client cannot be set up: {0}")]
pub struct CallerError(String);

impl HttpCaller {
    /// A caller for a node with these targets.
    pub fn new(targets: &Targets) -> Result<Self, CallerError> {
        Self::with_resolver(targets, CheckedResolver::of_system())
    }

    fn with_resolver(targets: &Targets, resolver: CheckedResolver) -> Result<Self, CallerError> {
        // An error says that this process has a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = builder(&resolver);
        if targets.host_header().is_some() {
            // HTTP/2 would send the target's own name beside the header.
            client = client.http1_only();
        }
        let built =
            |client: ClientBuilder| client.build().map_err(|error| CallerError(innermost(&error)));
        let h2c = built(builder(&resolver).http2_prior_knowledge())?;
        Ok(Self { client: built(client)?, h2c, resolver })
    }

    #[expect(clippy::disallowed_methods, reason = "this is the caller that a simulator replaces")]
    async fn send(&self, call: &Call) -> Result<CallOutcome, reqwest::Error> {
        let client = if call.h2c { &self.h2c } else { &self.client };
        let mut request =
            client.request(call.method.clone(), call.url.clone()).headers(call.headers.clone());
        if !call.body.is_empty() {
            request = request.body(call.body.clone());
        }
        let mut response = request.send().await?;
        let mut kept = Vec::new();
        let mut read = 0;
        // Leaving the loop early drops the response, which closes the connection.
        while read < ANSWER_BYTES_READ_MAX
            && let Some(chunk) = response.chunk().await?
        {
            read += chunk.len();
            let room = ANSWER_BYTES_KEPT_MAX - kept.len();
            kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
        let status = response.status().as_u16();
        Ok(CallOutcome::answered(status, response.headers(), kept, SystemTime::now()))
    }
}

/// What every call has in common: it is made once, where it was told to and nowhere else.
fn builder(resolver: &CheckedResolver) -> ClientBuilder {
    Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .dns_resolver(resolver.clone())
}

impl Caller for HttpCaller {
    async fn call(&self, call: &Call) -> CallOutcome {
        // The resolver is not asked about an address. Whoever made the call has checked it: so is what is connected to.
        if let Some(forbidden) = literal_address(&call.url).and_then(address::forbidden) {
            return CallOutcome::Failed { reason: forbidden.reason().to_owned() };
        }
        match tokio::time::timeout(call.deadline, self.send(call)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => failure(call, &error),
            Err(_) => CallOutcome::TimedOut { after: call.deadline },
        }
    }

    async fn reach(&self, target: &Origin) -> bool {
        let connect = async {
            let (host, port) = target.host_and_port();
            for address in self.resolver.addresses(&host, port).await? {
                if tokio::net::TcpStream::connect(address).await.is_ok() {
                    return Ok(true);
                }
            }
            io::Result::Ok(false)
        };
        matches!(tokio::time::timeout(CONNECT_TIMEOUT, connect).await, Ok(Ok(true)))
    }
}

fn failure(call: &Call, error: &reqwest::Error) -> CallOutcome {
    let refused = find_io(error, io::ErrorKind::ConnectionRefused);
    if call.own_target && error.is_connect() && refused {
        return CallOutcome::RefusedByOwnTarget { reason: innermost(error) };
    }
    let reason = match (error.is_connect(), error.is_timeout()) {
        (true, true) => {
            format!("no connection within {}", humantime::format_duration(CONNECT_TIMEOUT))
        }
        (true, false) => format!("no connection: {}", innermost(error)),
        (false, _) => format!("the answer did not come: {}", innermost(error)),
    };
    CallOutcome::Failed { reason }
}

fn find_io(error: &reqwest::Error, kind: io::ErrorKind) -> bool {
    chain(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|e| e.kind() == kind)
}

fn innermost(error: &reqwest::Error) -> String {
    chain(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}

fn chain(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |cause: &&(dyn Error + 'static)| Error::source(*cause))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::net::{IpAddr, SocketAddr};
    use std::sync::{Arc, Mutex};

    use reqwest::dns::{Addrs, Name, Resolve, Resolving};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use url::Url;

    use super::*;

    /// Names whose addresses change from one look-up to the next.
    #[derive(Clone)]
    struct Rebinding(Arc<Mutex<VecDeque<Vec<IpAddr>>>>);

    impl Rebinding {
        fn to(answers: &[&[&str]]) -> Self {
            let parsed = |answer: &&[&str]| answer.iter().map(|ip| ip.parse().unwrap()).collect();
            Self(Arc::new(Mutex::new(answers.iter().map(parsed).collect())))
        }

        fn answers_left(&self) -> usize {
            self.0.lock().unwrap().len()
        }
    }

    impl Resolve for Rebinding {
        fn resolve(&self, _: Name) -> Resolving {
            let answer = self.0.lock().unwrap().pop_front().expect("nobody asks again");
            let addresses = answer.into_iter().map(|ip| SocketAddr::new(ip, 0));
            Box::pin(async move { Ok(Box::new(addresses) as Addrs) })
        }
    }

    /// A server that answers 200 once on each connection, closes it, and tells of each.
    async fn server() -> (u16, mpsc::UnboundedReceiver<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connected, connections) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = connected.send(());
                let _ = stream.read(&mut [0; 4_096]).await;
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    .await;
            }
        });
        (port, connections)
    }

    fn call_to(url: &str) -> Call {
        Call {
            method: http::Method::GET,
            url: Url::parse(url).unwrap(),
            own_target: false,
            h2c: false,
            headers: http::HeaderMap::new(),
            body: bytes::Bytes::new(),
            deadline: Duration::from_secs(5),
        }
    }

    fn caller_by(names: &Rebinding) -> HttpCaller {
        let targets = Targets::parse(&["http://127.0.0.1:1"]).unwrap();
        HttpCaller::with_resolver(&targets, CheckedResolver::new(names.clone())).unwrap()
    }

    fn refusal(outcome: CallOutcome) -> String {
        let CallOutcome::Failed { reason } = outcome else { panic!("{outcome:?}") };
        reason
    }

    #[tokio::test]
    async fn a_name_that_means_something_else_the_next_time_is_checked_each_time() {
        let (port, mut connections) = server().await;
        let names = Rebinding::to(&[
            &["127.0.0.1"],
            &["169.254.169.254"],
            &["::ffff:a9fe:a9fe"],
            &["0.0.0.0"],
        ]);
        let caller = caller_by(&names);
        let call = call_to(&format!("http://rebound.example:{port}/"));
        // Checked and connected to by one look-up: a second one would have got the next answer.
        let outcome = caller.call(&call).await;
        assert!(matches!(outcome, CallOutcome::Answered { status: 200, .. }), "{outcome:?}");
        assert_eq!(names.answers_left(), 3);
        for reason in ["metadata are never called", "metadata are never called", "name no host"] {
            let refused = refusal(caller.call(&call).await);
            assert!(
                refused.contains("rebound.example has no address") && refused.contains(reason),
                "{refused}"
            );
        }
        assert_eq!(names.answers_left(), 0);
        connections.recv().await.unwrap();
        assert!(connections.try_recv().is_err(), "there was one connection");
    }

    #[tokio::test]
    async fn of_a_names_addresses_only_those_that_may_be_called_are_connected_to() {
        let (port, mut connections) = server().await;
        let names = Rebinding::to(&[&["169.254.169.254", "127.0.0.1", "fe80::1"], &[]]);
        let caller = caller_by(&names);
        let call = call_to(&format!("http://mixed.example:{port}/"));
        let begun = tokio::time::Instant::now();
        let outcome = caller.call(&call).await;
        assert!(matches!(outcome, CallOutcome::Answered { status: 200, .. }), "{outcome:?}");
        assert!(begun.elapsed() < CONNECT_TIMEOUT, "it waited for an address that is never called");
        connections.recv().await.unwrap();
        assert!(refusal(caller.call(&call).await).contains("the name has none"));
    }

    #[tokio::test]
    async fn a_target_is_reached_by_a_checked_address_too() {
        let (port, mut connections) = server().await;
        let names = Rebinding::to(&[&["127.0.0.1"], &["0.0.0.0"]]);
        let caller = caller_by(&names);
        let origin: Origin = format!("http://rebound.example:{port}").parse().unwrap();
        assert!(caller.reach(&origin).await);
        connections.recv().await.unwrap();
        assert!(!caller.reach(&origin).await);
        assert!(connections.try_recv().is_err(), "0.0.0.0 was connected to");
    }

    #[tokio::test]
    async fn an_address_in_a_call_is_checked_again_before_it_is_connected_to() {
        let (port, mut connections) = server().await;
        let caller = caller_by(&Rebinding::to(&[]));
        // These two reach this machine where they are connected to.
        for host in ["0.0.0.0", "[::ffff:0.0.0.0]", "169.254.169.254", "[64:ff9b::a9fe:a9fe]"] {
            let refused = refusal(caller.call(&call_to(&format!("http://{host}:{port}/"))).await);
            assert!(
                refused.contains("never called") || refused.contains("name no host"),
                "{refused}"
            );
        }
        assert!(connections.try_recv().is_err(), "one of them was connected to");
    }
}
