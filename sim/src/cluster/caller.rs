//! The caller leaf: HTTP over simulated sockets. As in production a call is made once, on what it is given to
//! know, and dropping it closes its connection.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use turmoil::net::TcpStream;
use turnwise_node::caller::{CONNECT_TIMEOUT, Call, CallOutcome, Caller, Origin};
use turnwise_node::job::{ANSWER_BYTES_KEPT_MAX, ANSWER_BYTES_READ_MAX};

use super::stage::Process;
use super::target::LIFE_HEADER;

/// Calls over the simulated network.
#[derive(Clone)]
pub struct SimCaller {
    pub(super) process: Process,
}

/// Why there is no answer.
enum Failure {
    Connect(io::Error),
    Answer(String),
}

impl SimCaller {
    async fn send(&self, call: &Call) -> Result<CallOutcome, Failure> {
        let host = call.url.host_str().unwrap_or_default();
        let port = call.url.port_or_known_default().unwrap_or(80);
        let stream = connect(host, port).await.map_err(Failure::Connect)?;
        let lost = |error: hyper::Error| Failure::Answer(error.to_string());
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        // The connection lives as long as its call: dropped, it is closed.
        let connection = Connection(tokio::spawn(self.process.run(async move {
            let _ = connection.await;
        })));
        let request = self.request(call).map_err(|error| Failure::Answer(error.to_string()))?;
        let answer = sender.send_request(request).await.map_err(lost)?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let mut body = answer.into_body();
        let (mut kept, mut read) = (Vec::new(), 0);
        while read < ANSWER_BYTES_READ_MAX
            && let Some(frame) = body.frame().await
        {
            let Ok(chunk) = frame.map_err(lost)?.into_data() else { continue };
            read += chunk.len();
            let room = ANSWER_BYTES_KEPT_MAX - kept.len();
            kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
        drop(connection);
        Ok(CallOutcome::answered(status, &headers, kept, SystemTime::UNIX_EPOCH))
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, http::Error> {
        let path = match call.url.query() {
            Some(query) => format!("{}?{query}", call.url.path()),
            None => call.url.path().to_owned(),
        };
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(path)
            .body(Full::new(call.body.clone()))?;
        *request.headers_mut() = call.headers.clone();
        let host = HeaderValue::from_str(call.url.authority())?;
        request.headers_mut().entry(header::HOST).or_insert(host);
        // Only the simulator's targets want to know.
        let life = self.process.farm.look().hosts[self.process.host as usize].life;
        if let Some(life) = life {
            request.headers_mut().insert(LIFE_HEADER, HeaderValue::from(life));
        }
        Ok(request)
    }
}

/// The task that drives a connection, which ends with its call.
struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let connecting = async {
        match host.parse::<IpAddr>() {
            Ok(address) => TcpStream::connect((address, port)).await,
            Err(_) => TcpStream::connect((host, port)).await,
        }
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

impl Caller for SimCaller {
    async fn call(&self, call: &Call) -> CallOutcome {
        match tokio::time::timeout(call.deadline, self.send(call)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(Failure::Connect(error)))
                if call.own_target && error.kind() == io::ErrorKind::ConnectionRefused =>
            {
                CallOutcome::RefusedByOwnTarget { reason: error.to_string() }
            }
            Ok(Err(Failure::Connect(error))) => {
                CallOutcome::Failed { reason: format!("no connection: {error}") }
            }
            Ok(Err(Failure::Answer(reason))) => {
                CallOutcome::Failed { reason: format!("the answer did not come: {reason}") }
            }
            Err(_) => CallOutcome::TimedOut { after: call.deadline },
        }
    }

    async fn reach(&self, target: &Origin) -> bool {
        let (host, port) = target.host_and_port();
        connect(&host, port).await.is_ok()
    }
}

/// How long a call may take: long enough for what targets do on purpose, short enough to be seen in a run.
pub(super) const CALL_DEADLINE: Duration = Duration::from_secs(8);
