//! Decides what one call of a job is and what can become of it; never which job is called or when.
//!
//! - `targets`: the origins that a node may call;
//! - `address`: the addresses that it never calls, however they are written; `resolver`: whatever name they hide behind;
//! - `request`: from a job as it stands in the table to a [`Call`], or the reason why it can never run;
//! - `envelope`: the body of a call whose job has none; `trace`: the trace that it belongs to;
//! - `will_retry`: what a call says of the attempt after it;
//! - `signature`: how a call is signed, and with which keys;
//! - `http`: the production arm, over reqwest;
//! - `answer`: what an outcome means for the job.

mod address;
pub mod answer;
mod envelope;
mod http;
pub mod request;
mod resolver;
pub mod signature;
mod targets;
mod trace;
mod will_retry;

use std::fmt;
use std::future::Future;
use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, Method};
use bytes::Bytes;
use url::Url;

pub use self::answer::{Verdict, cancelled, give_back, judge};
pub use self::http::{CallerError, HttpCaller};
pub use self::request::{Rejection, prepare};
pub use self::signature::{SigningKey, SigningKeyError, SigningKeys};
pub use self::targets::{AllowedOrigins, Origin, OriginError, Targets, TargetsError};
pub use self::will_retry::foretell;
use crate::job::ANSWER_BYTES_KEPT_MAX;

/// How long a connect may take, in a call and in [`Caller::reach`].
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Whatever carries calls: HTTP in production, a simulated network under the simulator. What the shell relies on is
/// stated as tests, in `node/tests/caller_contract/promises.rs`, which run against both.
pub trait Caller: Clone + Send + Sync + 'static {
    /// Make one HTTP call, within `call.deadline` from the connect to the end of the answer. It is made
    /// once: no retry, no redirect. Dropping the future gives the call up and closes its connection.
    fn call(&self, call: &Call) -> impl Future<Output = CallOutcome> + Send;

    /// Whether a target accepts a TCP connection within [`CONNECT_TIMEOUT`].
    fn reach(&self, target: &Origin) -> impl Future<Output = bool> + Send;
}

/// One HTTP call, checked and ready to be sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// The full URL.
    pub url: Url,
    /// Whether it goes to this node's own target: a refused connection is then the node's fault.
    pub own_target: bool,
    /// Whether it goes over HTTP/2 without TLS.
    pub h2c: bool,
    /// All headers but those of the framing (`content-length`, `connection`, …).
    pub headers: HeaderMap,
    /// The body, empty when there is none.
    pub body: Bytes,
    /// How long the call may take in all.
    pub deadline: Duration,
}

/// Headers may carry secrets and bodies may be long: neither is shown.
impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, url, own_target, h2c, headers, body, deadline } = self;
        f.debug_struct("Call")
            .field("method", method)
            .field("url", &url.as_str())
            .field("own_target", own_target)
            .field("h2c", h2c)
            .field("headers", &headers.keys().map(::http::HeaderName::as_str).collect::<Vec<_>>())
            .field("body_bytes", &body.len())
            .field("deadline", deadline)
            .finish()
    }
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// The whole answer came, or as much of it as is read.
    Answered {
        /// Its status.
        status: u16,
        /// How long the target asked to be left alone (`Retry-After`).
        retry_after: Option<Duration>,
        /// It said `Turnwise-No-Retry: true`.
        no_retry: bool,
        /// The beginning of its body, at most [`ANSWER_BYTES_KEPT_MAX`] bytes.
        body: Vec<u8>,
    },
    /// This node's own target refused the connection: the job never reached it.
    RefusedByOwnTarget {
        /// What the system said.
        reason: String,
    },
    /// No whole answer came within the deadline.
    TimedOut {
        /// The deadline.
        after: Duration,
    },
    /// The call failed: no connection, a reset, an answer that is not HTTP.
    Failed {
        /// What went wrong, in words that follow on from "the call failed: ".
        reason: String,
    },
}

impl CallOutcome {
    /// An answer from its parts. `now` is this machine's wall clock at the answer, used only for a
    /// `Retry-After` that names an instant while the answer has no `Date`. Of `body` at most
    /// [`ANSWER_BYTES_KEPT_MAX`] bytes are kept.
    pub fn answered(status: u16, headers: &HeaderMap, mut body: Vec<u8>, now: SystemTime) -> Self {
        body.truncate(ANSWER_BYTES_KEPT_MAX);
        Self::Answered {
            status,
            retry_after: answer::retry_after(headers, now),
            no_retry: answer::no_retry(headers),
            body,
        }
    }
}
