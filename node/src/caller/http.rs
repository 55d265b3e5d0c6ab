//! The production arm of [`Caller`]: reqwest over TCP and TLS. Decides what is an answer and what a
//! failure; what either means for the job is not decided here.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, ClientBuilder, redirect, retry};

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
}

/// Why there is no caller.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client cannot be set up: {0}")]
pub struct CallerError(String);

impl HttpCaller {
    /// A caller for a node with these targets.
    pub fn new(targets: &Targets) -> Result<Self, CallerError> {
        // An error says that this process has a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = builder();
        if targets.host_header().is_some() {
            // HTTP/2 would send the target's own name beside the header.
            client = client.http1_only();
        }
        let built =
            |client: ClientBuilder| client.build().map_err(|error| CallerError(innermost(&error)));
        Ok(Self { client: built(client)?, h2c: built(builder().http2_prior_knowledge())? })
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
fn builder() -> ClientBuilder {
    Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .dns_resolver(CheckedResolver)
}

impl Caller for HttpCaller {
    async fn call(&self, call: &Call) -> CallOutcome {
        match tokio::time::timeout(call.deadline, self.send(call)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => failure(call, &error),
            Err(_) => CallOutcome::TimedOut { after: call.deadline },
        }
    }

    async fn reach(&self, target: &Origin) -> bool {
        accepts(target).await
    }
}

async fn accepts(origin: &Origin) -> bool {
    let connect = async {
        let (host, port) = origin.host_and_port();
        for address in resolve(&host, port).await? {
            if tokio::net::TcpStream::connect(address).await.is_ok() {
                return Ok(true);
            }
        }
        io::Result::Ok(false)
    };
    matches!(tokio::time::timeout(CONNECT_TIMEOUT, connect).await, Ok(Ok(true)))
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

/// Resolves names by the system and leaves out the addresses that are never called. What it returns is
/// what is connected to: there is no second look-up in between.
#[derive(Debug)]
struct CheckedResolver;

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The port is the URL's: reqwest puts it in place of a zero.
            let addresses = resolve(name.as_str(), 0).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let all = tokio::net::lookup_host((host, port)).await?;
    let addresses: Vec<_> = all.filter(|found| !address::is_forbidden(found.ip())).collect();
    if addresses.is_empty() {
        return Err(io::Error::other(format!(
            "{host} has no address that may be called (link-local and metadata addresses never are)"
        )));
    }
    Ok(addresses)
}
