//! What the shell relies on, whoever carries its calls. Each promise is tried with web apps whose paths say how
//! they behave (`support/target.rs`):
//!
//! - a call is made once, with the method, the path, the headers and the body that it was given, and with a `Host`
//!   that names the target unless it was given another;
//! - an answer's status, `Retry-After` and `Turnwise-No-Retry` arrive; a redirect is an answer;
//! - of an answer's body 64 KiB are read and 8 KiB are kept, however long it is;
//! - a call that is not answered in whole within its deadline has timed out, not before;
//! - a connection that the node's own target refuses is told from all other failures;
//! - a connection that breaks, an answer that is none and a name that nobody has are failed calls;
//! - a call that is dropped, or whose answer was read as far as it is, leaves no connection behind on which the
//!   target works on;
//! - a target is reached when it accepts a connection.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Bytes;
use axum::serve::Listener;
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use turnwise_engine::{ServerInstant, Token};
use turnwise_node::caller::{AllowedOrigins, Call, CallOutcome, Caller, Targets, judge, prepare};
use turnwise_node::job::{
    ANSWER_BYTES_KEPT_MAX, ANSWER_BYTES_READ_MAX, ClaimedJob, JobFate, JobId,
};

use crate::target::Target;

/// An arm: a caller, and machines that it can call.
pub(crate) trait Arm: Sync + 'static {
    /// Its caller.
    type Caller: Caller;
    /// How its web apps listen.
    type Listener: Listener<Addr = SocketAddr>;

    /// A caller for a node with these targets.
    fn caller(&self, targets: &Targets) -> Self::Caller;

    /// Run `task` where the web apps are.
    fn elsewhere<F>(&self, task: F) -> oneshot::Receiver<F::Output>
    where
        F: Future<Output: Send> + Send + 'static;

    /// Listen on a port of that machine, 0 for any that is free. There only.
    fn listen(port: u16) -> impl Future<Output = Self::Listener> + Send;

    /// The host and port by which a caller knows a port of that machine.
    fn authority(port: u16) -> String;
}

/// Calls each promise's name with `$each`.
macro_rules! promises {
    ($each:ident) => {
        $each! {
            each_answer_means_what_the_table_says,
            the_request_is_the_jobs_with_turnwises_headers,
            every_method_arrives,
            a_long_body_arrives_whole,
            a_target_is_called_by_another_name,
            a_redirect_is_not_followed,
            an_answer_says_when_to_come_back_and_whether,
            a_call_that_is_not_answered_ends_at_its_deadline,
            an_answer_in_time_is_waited_for,
            an_endless_body_is_cut_off_and_its_beginning_kept,
            an_answer_is_read_so_far_and_no_farther,
            a_refused_connection_is_the_nodes_fault_only_at_its_own_target,
            a_connection_that_breaks_is_a_failed_call_not_a_refusal,
            an_answer_that_is_not_http_is_a_failed_call,
            a_name_that_nobody_has_is_a_failed_call,
            a_call_that_is_dropped_closes_its_connection,
            calls_at_once_do_not_wait_for_each_other,
            a_target_is_reached_when_it_accepts_a_connection,
        }
    };
}
pub(crate) use promises;

const NO_JITTER: u64 = u64::MAX / 2;

fn job(url: &str) -> ClaimedJob {
    ClaimedJob {
        id: JobId::generate(),
        token: Token(1),
        queue: "default".to_owned(),
        method: "POST".to_owned(),
        url: url.to_owned(),
        headers: None,
        body: Some(Bytes::from_static(br#"{"a":1}"#)),
        body_bytes: 7,
        attempt: 1,
        max_attempts: 20,
        hand_backs: 0,
        deadline_ms: 5_000,
        scheduled_at: ServerInstant::from_micros(0),
        particulars: Default::default(),
    }
}

fn call_of(job: &ClaimedJob, targets: &Targets) -> Call {
    prepare(job, targets, &AllowedOrigins::default(), ServerInstant::from_micros(0)).unwrap()
}

/// A call of a job with this URL.
#[allow(dead_code, reason = "what only one arm is asked")]
pub(crate) fn call_to(url: &str, targets: &Targets) -> Call {
    call_of(&job(url), targets)
}

/// The same where other origins may be called.
#[allow(dead_code, reason = "what only one arm is asked")]
pub(crate) fn call_with(url: &str, targets: &Targets, allowed: &AllowedOrigins) -> Call {
    prepare(&job(url), targets, allowed, ServerInstant::from_micros(0)).unwrap()
}

fn targets_at<A: Arm>(port: u16) -> Targets {
    Targets::parse(&[format!("http://{}", A::authority(port))]).unwrap()
}

/// A web app on the other machine.
async fn target<A: Arm>(arm: &A, port: u16) -> Target {
    arm.elsewhere(async move { Target::serve(A::listen(port).await) }).await.unwrap()
}

/// A port of the other machine at which nothing listens.
async fn free_port<A: Arm>(arm: &A) -> u16 {
    let port = arm.elsewhere(async { A::listen(0).await.local_addr().unwrap().port() });
    port.await.unwrap()
}

/// A server on the other machine that says something to whoever connects, and hangs up. Its port.
async fn speaker<A: Arm>(arm: &A, says: &'static [u8]) -> u16 {
    let listening = arm.elsewhere(async move {
        let mut listener = A::listen(0).await;
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await;
                let _ = stream.write_all(says).await;
            }
        });
        port
    });
    listening.await.unwrap()
}

async fn outcome<A: Arm>(arm: &A, port: u16, job: &ClaimedJob) -> CallOutcome {
    let targets = targets_at::<A>(port);
    arm.caller(&targets).call(&call_of(job, &targets)).await
}

/// Wait until `done`, for much longer than it ever takes.
async fn until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not within 20 s");
}

pub(crate) async fn each_answer_means_what_the_table_says<A: Arm>(arm: A) {
    let target = target(&arm, 0).await;
    let seconds = |seconds| JobFate::Retry(Duration::from_secs(seconds));
    let table = [
        ("/ok", JobFate::Succeeded, Some(200)),
        ("/status/202", JobFate::Succeeded, Some(202)),
        ("/status/204", JobFate::Succeeded, Some(204)),
        ("/status/304", seconds(15), Some(304)),
        ("/redirect", seconds(15), Some(302)),
        ("/status/400", seconds(15), Some(400)),
        ("/status/410", JobFate::Dead, Some(410)),
        ("/no-retry", JobFate::Dead, Some(500)),
        ("/status/429", seconds(15), Some(429)),
        ("/status/500", seconds(15), Some(500)),
        ("/retry-after/120", seconds(120), Some(503)),
        ("/retry-after/1", seconds(15), Some(503)),
        ("/retry-after/soon", seconds(15), Some(503)),
        ("/huge", JobFate::Succeeded, Some(200)),
        ("/short", seconds(15), None),
    ];
    for (path, fate, status) in table {
        let job = job(path);
        let verdict = judge(&job, outcome(&arm, target.port(), &job).await, NO_JITTER);
        assert_eq!((verdict.fate, verdict.status), (fate, status), "{path}: {verdict:?}");
        assert_eq!(target.seen_of(&job.id.to_string()).len(), 1, "{path} is called once");
    }
}

pub(crate) async fn the_request_is_the_jobs_with_turnwises_headers<A: Arm>(arm: A) {
    let target = target(&arm, 0).await;
    let headers = Some(r#"{"X-Tenant":"seven"}"#.to_owned());
    let job = ClaimedJob { headers, ..job("/echo?id=7&q=%2F") };
    let answer = outcome(&arm, target.port(), &job).await;
    let CallOutcome::Answered { body, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(body, br#"{"a":1}"#);
    let seen = target.seen_of(&job.id.to_string()).remove(0);
    let (method, path) = (seen.method.as_str(), seen.path.as_str());
    assert_eq!((method, path, seen.attempt), ("POST", "/echo?id=7&q=%2F", 1));
    let header = |name: &str| seen.headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("x-tenant"), "seven");
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("content-length"), "7");
    assert_eq!(header("idempotency-key"), job.id.to_string());
    assert_eq!(header("host"), A::authority(target.port()));
    assert!(header("user-agent").starts_with("turnwise/"));
    for absent in ["accept-encoding", "cookie", "referer"] {
        assert!(!seen.headers.contains_key(absent), "{absent}");
    }
    // All that the call was given is there, and nothing else but what frames a message.
    let targets = targets_at::<A>(target.port());
    let given = call_of(&job, &targets).headers;
    for (name, value) in &given {
        assert_eq!(seen.headers.get_all(name).iter().collect::<Vec<_>>(), [value], "{name}");
    }
    let framing = ["accept", "connection", "content-length", "host"];
    for name in seen.headers.keys() {
        let known = given.contains_key(name) || framing.contains(&name.as_str());
        assert!(known, "{name} is nobody's");
    }
}

pub(crate) async fn every_method_arrives<A: Arm>(arm: A) {
    let target = target(&arm, 0).await;
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let job = ClaimedJob { method: method.to_owned(), body: None, body_bytes: 0, ..job("/ok") };
        let answer = outcome(&arm, target.port(), &job).await;
        let CallOutcome::Answered { status: 200, body, .. } = answer else { panic!("{answer:?}") };
        assert_eq!(body, if method == "HEAD" { &b""[..] } else { b"fine" }, "{method}");
        let seen = target.seen_of(&job.id.to_string()).remove(0);
        assert_eq!(seen.method.as_str(), method);
        let length = seen.headers.get("content-length").map(|length| length.as_bytes().to_vec());
        // A job without a body is sent in an envelope where there can be one.
        let envelope = call_of(&job, &targets_at::<A>(target.port())).body.len();
        assert_eq!(envelope > 0, matches!(method, "POST" | "PUT" | "PATCH"), "{method}");
        let expected = envelope.to_string().into_bytes();
        assert!(length.map_or(envelope == 0, |length| length == expected), "{method}");
        assert!(!seen.headers.contains_key("transfer-encoding"), "{method} with a body");
    }
}

pub(crate) async fn a_long_body_arrives_whole<A: Arm>(arm: A) {
    let target = target(&arm, 0).await;
    let long: Vec<u8> = (0..262_144_u32).map(|byte| (byte % 251) as u8).collect();
    let job =
        ClaimedJob { body: Some(Bytes::from(long.clone())), body_bytes: 262_144, ..job("/digest") };
    let answer = outcome(&arm, target.port(), &job).await;
    let CallOutcome::Answered { status: 200, body, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(String::from_utf8(body).unwrap(), crate::target::digest(&long));
}

pub(crate) async fn a_target_is_called_by_another_name<A: Arm>(arm: A) {
    let target = target(&arm, 0).await;
    let name = Some("app.example".parse().unwrap());
    let targets = targets_at::<A>(target.port()).with_host_header(name);
    arm.caller(&targets).call(&call_of(&job("/ok"), &targets)).await;
    let hosts: Vec<_> = target.seen()[0].headers.get_all("host").iter().cloned().collect();
    assert_eq!(hosts, ["app.example"]);
}

pub(crate) async fn a_redirect_is_not_followed<A: Arm>(arm: A) {
    let target = target(&arm, 0).await;
    let answer = outcome(&arm, target.port(), &job("/redirect")).await;
    assert!(matches!(answer, CallOutcome::Answered { status: 302, .. }), "{answer:?}");
    let paths: Vec<_> = target.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths, ["/redirect"]);
}

pub(crate) async fn an_answer_says_when_to_come_back_and_whether<A: Arm>(arm: A) {
    let target = target(&arm, 0).await;
    let table = [
        ("/ok", None, false),
        ("/retry-after/120", Some(Duration::from_secs(120)), false),
        ("/retry-after/0", Some(Duration::ZERO), false),
        ("/retry-after/soon", None, false),
        // Against the answer's own date, which is later.
        ("/retry-after/Tue,%2001%20Jan%202019%2000:00:00%20GMT", Some(Duration::ZERO), false),
        ("/no-retry", None, true),
    ];
    for (path, when, never) in table {
        let answer = outcome(&arm, target.port(), &job(path)).await;
        let CallOutcome::Answered { retry_after, no_retry, .. } = answer else {
            panic!("{path}: {answer:?}")
        };
        assert_eq!((retry_after, no_retry), (when, never), "{path}");
    }
}

pub(crate) async fn a_call_that_is_not_answered_ends_at_its_deadline<A: Arm>(arm: A) {
    let target = target(&arm, 0).await;
    for path in ["/hang", "/slow/30000", "/trickle"] {
        let begun = tokio::time::Instant::now();
        let job = ClaimedJob { deadline_ms: 200, ..job(path) };
        let after = Duration::from_millis(200);
        let answer = outcome(&arm, target.port(), &job).await;
        assert_eq!(answer, CallOutcome::TimedOut { after }, "{path}");
        let took = begun.elapsed();
        assert!(took >= after, "{path} took {took:?}");
        assert_eq!(target.seen_of(&job.id.to_string()).len(), 1, "{path} is called once");
    }
    // The target hears that nobody waits any more.
    until("calls go on", || {
        let hung = target.seen().iter().filter(|seen| seen.cut_short).count();
        hung == 2 && target.bodies_cut_short() == 1
    })
    .await;
}

pub(crate) async fn an_answer_in_time_is_waited_for<A: Arm>(arm: A) {
    let target = target(&arm, 0).await;
    let answer = outcome(&arm, target.port(), &job("/slow/300")).await;
    let CallOutcome::Answered { status: 200, body, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(body, b"at last");
}

pub(crate) async fn an_endless_body_is_cut_off_and_its_beginning_kept<A: Arm>(arm: A) {
    let target = target(&arm, 0).await;
    let answer = outcome(&arm, target.port(), &job("/huge")).await;
    let CallOutcome::Answered { status: 200, body, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(body, vec![b'x'; ANSWER_BYTES_KEPT_MAX]);
    until("the target sends on", || target.bodies_cut_short() == 1).await;
}

pub(crate) async fn an_answer_is_read_so_far_and_no_farther<A: Arm>(arm: A) {
    let target = target(&arm, 0).await;
    // Bodies that stop in the middle: what is read is as much as there is, or too little.
    let enough = job(&format!("/stalls/{ANSWER_BYTES_READ_MAX}"));
    let enough = outcome(&arm, target.port(), &enough).await;
    assert!(matches!(enough, CallOutcome::Answered { status: 200, .. }), "{enough:?}");
    let short = format!("/stalls/{}", ANSWER_BYTES_READ_MAX - 1);
    let job = ClaimedJob { deadline_ms: 300, ..job(&short) };
    let waits = outcome(&arm, target.port(), &job).await;
    assert!(matches!(waits, CallOutcome::TimedOut { .. }), "{waits:?}");
}

pub(crate) async fn a_refused_connection_is_the_nodes_fault_only_at_its_own_target<A: Arm>(arm: A) {
    let targets = targets_at::<A>(free_port(&arm).await);
    let caller = arm.caller(&targets);
    let own = call_of(&job("/ok"), &targets);
    let refused = caller.call(&own).await;
    assert!(matches!(refused, CallOutcome::RefusedByOwnTarget { .. }), "{refused:?}");
    let foreign = Call { own_target: false, ..own };
    let failed = caller.call(&foreign).await;
    assert!(matches!(failed, CallOutcome::Failed { .. }), "{failed:?}");
}

pub(crate) async fn a_connection_that_breaks_is_a_failed_call_not_a_refusal<A: Arm>(arm: A) {
    // At once, in the middle of the head, in the middle of the body.
    for says in [&b""[..], b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf"] {
        let port = speaker(&arm, says).await;
        let failed = outcome(&arm, port, &job("/ok")).await;
        assert!(matches!(failed, CallOutcome::Failed { .. }), "{failed:?}");
    }
}

pub(crate) async fn an_answer_that_is_not_http_is_a_failed_call<A: Arm>(arm: A) {
    let port = speaker(&arm, b"220 mail.example ESMTP\r\n").await;
    let failed = outcome(&arm, port, &job("/ok")).await;
    assert!(matches!(failed, CallOutcome::Failed { .. }), "{failed:?}");
}

pub(crate) async fn a_name_that_nobody_has_is_a_failed_call<A: Arm>(arm: A) {
    let targets = Targets::parse(&["http://no-such-host.invalid"]).unwrap();
    let caller = arm.caller(&targets);
    let failed = caller.call(&call_of(&job("/ok"), &targets)).await;
    assert!(matches!(failed, CallOutcome::Failed { .. }), "{failed:?}");
    assert!(!caller.reach(&"http://no-such-host.invalid".parse().unwrap()).await);
}

pub(crate) async fn a_call_that_is_dropped_closes_its_connection<A: Arm>(arm: A) {
    let target = target(&arm, 0).await;
    let targets = targets_at::<A>(target.port());
    let caller = arm.caller(&targets);
    let job = job("/hang");
    {
        let call = call_of(&job, &targets);
        let mut answer = std::pin::pin!(caller.call(&call));
        let arrived = until("the call", || !target.seen().is_empty());
        tokio::select! {
            answer = &mut answer => panic!("{answer:?}"),
            () = arrived => {}
        }
        assert!(!target.seen()[0].cut_short, "somebody waits for it");
    }
    until("the call goes on", || target.seen()[0].cut_short).await;
    assert_eq!(target.seen().len(), 1);
}

pub(crate) async fn calls_at_once_do_not_wait_for_each_other<A: Arm>(arm: A) {
    let target = target(&arm, 0).await;
    let targets = targets_at::<A>(target.port());
    let caller = arm.caller(&targets);
    let hangs = call_of(&job("/hang"), &targets);
    let quick = call_of(&job("/ok"), &targets);
    let other = caller.clone();
    tokio::select! {
        biased;
        answer = caller.call(&hangs) => panic!("{answer:?}"),
        answer = async {
            until("the first call", || !target.seen().is_empty()).await;
            other.call(&quick).await
        } => assert!(matches!(answer, CallOutcome::Answered { status: 200, .. }), "{answer:?}"),
    }
}

pub(crate) async fn a_target_is_reached_when_it_accepts_a_connection<A: Arm>(arm: A) {
    let away = free_port(&arm).await;
    let caller = arm.caller(&targets_at::<A>(away));
    let origin = format!("http://{}", A::authority(away)).parse().unwrap();
    assert!(!caller.reach(&origin).await);
    let back = target(&arm, away).await;
    assert!(caller.reach(&origin).await);
    assert!(back.seen().is_empty(), "to reach is not to call");
}
