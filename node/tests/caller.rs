//! What the HTTP caller promises, over real sockets on loopback: each row of the answer table, and the
//! bounds on time and size.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

#[path = "support/target.rs"]
mod target;

use std::time::{Duration, Instant};

use target::{Target, refusing_address};
use turnwise_engine::{ServerInstant, Token};
use turnwise_node::caller::{
    AllowedOrigins, Call, CallOutcome, Caller, HttpCaller, Targets, judge, prepare,
};
use turnwise_node::job::{ANSWER_BYTES_KEPT_MAX, ClaimedJob, JobFate, JobId};

const NO_JITTER: u64 = u64::MAX / 2;

fn job(url: &str) -> ClaimedJob {
    ClaimedJob {
        id: JobId::generate(),
        token: Token(1),
        queue: "default".to_owned(),
        method: "POST".to_owned(),
        url: url.to_owned(),
        headers: None,
        body: Some(br#"{"a":1}"#.to_vec()),
        body_bytes: 7,
        attempt: 1,
        max_attempts: 20,
        hand_backs: 0,
        deadline_ms: 5_000,
        scheduled_at: ServerInstant::from_micros(0),
    }
}

fn caller_of(origin: &str) -> (HttpCaller, Targets) {
    let targets = Targets::parse(&[origin]).unwrap();
    (HttpCaller::new(&targets).unwrap(), targets)
}

fn call_of(job: &ClaimedJob, targets: &Targets) -> Call {
    prepare(job, targets, &AllowedOrigins::default(), ServerInstant::from_micros(0)).unwrap()
}

async fn outcome(origin: &str, job: &ClaimedJob) -> CallOutcome {
    let (caller, targets) = caller_of(origin);
    caller.call(&call_of(job, &targets)).await
}

#[tokio::test]
async fn each_answer_means_what_the_table_says() {
    let target = Target::start().await;
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
        let verdict = judge(&job, outcome(&target.origin(), &job).await, NO_JITTER);
        assert_eq!((verdict.fate, verdict.status), (fate, status), "{path}: {verdict:?}");
        assert_eq!(target.seen_of(&job.id.to_string()).len(), 1, "{path} is called once");
    }
    assert_eq!(target.seen().iter().filter(|seen| seen.path == "/ok").count(), 1);
}

#[tokio::test]
async fn the_request_is_the_jobs_with_turnwises_headers() {
    let target = Target::start().await;
    let headers = Some(r#"{"X-Tenant":"seven"}"#.to_owned());
    let job = ClaimedJob { headers, ..job("/echo?id=7") };
    let answer = outcome(&target.origin(), &job).await;
    let CallOutcome::Answered { body, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(body, br#"{"a":1}"#);
    let seen = target.seen_of(&job.id.to_string()).remove(0);
    assert_eq!((seen.method.as_str(), seen.path.as_str(), seen.attempt), ("POST", "/echo?id=7", 1));
    let header = |name: &str| seen.headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("x-tenant"), "seven");
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("content-length"), "7");
    assert_eq!(header("idempotency-key"), job.id.to_string());
    assert_eq!(header("host"), target.address().to_string());
    assert!(header("user-agent").starts_with("turnwise/"));
    for absent in ["accept-encoding", "cookie", "referer"] {
        assert!(!seen.headers.contains_key(absent), "{absent}");
    }
}

#[tokio::test]
async fn a_target_is_called_by_another_name() {
    let target = Target::start().await;
    let targets = Targets::parse(&[target.origin()])
        .unwrap()
        .with_host_header(Some("app.example".parse().unwrap()));
    let call = call_of(&job("/ok"), &targets);
    HttpCaller::new(&targets).unwrap().call(&call).await;
    let hosts: Vec<_> = target.seen()[0].headers.get_all("host").iter().cloned().collect();
    assert_eq!(hosts, ["app.example"]);
}

#[tokio::test]
async fn a_call_that_is_not_answered_ends_at_its_deadline() {
    let target = Target::start().await;
    for path in ["/hang", "/slow/10000", "/trickle"] {
        let begun = Instant::now();
        let job = ClaimedJob { deadline_ms: 200, ..job(path) };
        let after = Duration::from_millis(200);
        assert_eq!(
            outcome(&target.origin(), &job).await,
            CallOutcome::TimedOut { after },
            "{path}"
        );
        let took = begun.elapsed();
        assert!(took >= after && took < Duration::from_secs(2), "{path} took {took:?}");
    }
}

#[tokio::test]
async fn an_endless_body_is_cut_off_and_its_beginning_kept() {
    let target = Target::start().await;
    let answer = outcome(&target.origin(), &job("/huge")).await;
    let CallOutcome::Answered { status: 200, body, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(body, vec![b'x'; ANSWER_BYTES_KEPT_MAX]);
}

#[tokio::test]
async fn a_refused_connection_is_the_nodes_fault_only_at_its_own_target() {
    let origin = format!("http://{}", refusing_address().await);
    let (caller, targets) = caller_of(&origin);
    let own = call_of(&job("/ok"), &targets);
    let refused = caller.call(&own).await;
    assert!(matches!(refused, CallOutcome::RefusedByOwnTarget { .. }), "{refused:?}");
    let foreign = Call { own_target: false, ..own };
    let failed = caller.call(&foreign).await;
    assert!(matches!(failed, CallOutcome::Failed { .. }), "{failed:?}");
}

#[tokio::test]
async fn a_connection_that_breaks_is_a_failed_call_not_a_refusal() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
        }
    });
    let failed = outcome(&origin, &job("/ok")).await;
    assert!(matches!(failed, CallOutcome::Failed { .. }), "{failed:?}");
    server.abort();
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_a_failed_call() {
    use tokio::io::AsyncWriteExt;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
        }
    });
    let failed = outcome(&origin, &job("/ok")).await;
    assert!(matches!(failed, CallOutcome::Failed { .. }), "{failed:?}");
    server.abort();
}

#[tokio::test]
async fn a_target_is_reached_when_it_accepts_a_connection() {
    let target = Target::start().await;
    let away = refusing_address().await;
    let (caller, _) = caller_of(&target.origin());
    let reach = async |text: String| caller.reach(&text.parse().unwrap()).await;
    assert!(reach(target.origin()).await);
    assert!(!reach(format!("http://{away}")).await);
    let back = Target::start_on(away).await;
    assert!(reach(format!("http://{away}")).await);
    back.stop().await;
}

/// The proxy's variables are the whole process's: the test runs itself again under them.
#[test]
fn a_proxy_of_the_environment_is_ignored() {
    const INNER: &str = "TURNWISE_TEST_INNER";
    if std::env::var_os(INNER).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let target = Target::start().await;
            let answer = outcome(&target.origin(), &job("/ok")).await;
            assert!(matches!(answer, CallOutcome::Answered { status: 200, .. }), "{answer:?}");
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
