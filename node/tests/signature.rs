//! What a web app sees of a call's signature, over real sockets, by the word of two verifiers that are nobody's here: the
//! Rust library of Standard Webhooks, and Python's standard library (`support/verify.py`).
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

#[path = "support/target.rs"]
mod target;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use standardwebhooks::{Webhook, WebhookError};
use turnwise_engine::{ServerInstant, Token};
use turnwise_node::caller::{
    AllowedOrigins, CallOutcome, Caller, HttpCaller, SigningKey, SigningKeys, Targets, prepare,
};
use turnwise_node::job::{ClaimedJob, JobId, NewJob};
use turnwise_node::store::{AnyStore, Store};

use target::Target;

/// What an app was sent.
struct Received {
    headers: HeaderMap,
    /// The bytes as they came off the wire.
    body: Vec<u8>,
}

impl Received {
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    /// What the library says, by this machine's clock.
    fn by_library(&self, key: &str) -> Result<(), WebhookError> {
        Webhook::new(key).unwrap().verify(&self.body, &self.headers)
    }

    /// What Python says on a machine whose clock is ahead of this one's by so many seconds.
    fn by_python_ahead(&self, key: &str, ahead: i64) -> String {
        let asked = serde_json::json!({
            "key": key,
            "id": self.header("webhook-id"),
            "timestamp": self.header("webhook-timestamp"),
            "signature": self.header("webhook-signature"),
            "body": STANDARD.encode(&self.body),
            "now": now() + ahead,
        });
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/verify.py");
        let mut python = Command::new("python3")
            .args(["-B", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 verifies, and is needed for this test");
        writeln!(python.stdin.take().unwrap(), "{asked}").unwrap();
        let output = python.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn by_python(&self, key: &str) -> String {
        self.by_python_ahead(key, 0)
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

fn key(byte: u8) -> String {
    SigningKey::text_of(&[byte; 32])
}

fn job(method: &str, url: &str, body: Option<&[u8]>) -> ClaimedJob {
    ClaimedJob {
        id: JobId::generate(),
        token: Token(1),
        queue: "default".to_owned(),
        method: method.to_owned(),
        url: url.to_owned(),
        headers: None,
        body: body.map(Bytes::copy_from_slice),
        body_bytes: body.map_or(0, <[u8]>::len) as u64,
        attempt: 1,
        max_attempts: 20,
        hand_backs: 0,
        deadline_ms: 5_000,
        scheduled_at: ServerInstant::from_micros(0),
        particulars: Default::default(),
    }
}

/// What a web app receives when a node with these keys calls it for `job`. The path is `/echo…`.
async fn received(keys: &[&str], job: &ClaimedJob) -> Received {
    let target = Target::start().await;
    let targets = Targets::parse(&[target.origin()]).unwrap();
    let keys = SigningKeys::new(keys.iter().map(|key| key.parse().unwrap())).unwrap();
    let at = ServerInstant::from_micros(now() * 1_000_000);
    let call = prepare(job, &targets, &AllowedOrigins::default(), at).unwrap();
    let call = keys.sign(call).unwrap();
    let outcome = HttpCaller::new(&targets).unwrap().call(&call).await;
    let CallOutcome::Answered { status: 200, body, .. } = outcome else { panic!("{outcome:?}") };
    let headers = target.seen_of(&job.id.to_string()).remove(0).headers;
    Received { headers, body }
}

#[tokio::test]
async fn what_is_sent_is_what_is_signed() {
    let bodies: [Option<&[u8]>; 4] =
        [None, Some(b"{\"a\" : 1 }\n"), Some("ü.ü..".as_bytes()), Some(b"\xff\x00\xfe not text")];
    for body in bodies {
        let got = received(&[&key(1)], &job("POST", "/echo?id=7", body)).await;
        assert_eq!(got.by_python(&key(1)), "yes", "{body:?}");
        assert_eq!(got.by_python(&key(2)), "no signature is by this key", "{body:?}");
        if std::str::from_utf8(&got.body).is_ok() {
            got.by_library(&key(1)).unwrap();
            assert!(matches!(got.by_library(&key(2)), Err(WebhookError::InvalidSignature)));
        }
        if let Some(body) = body {
            assert_eq!(got.body, body);
        }
        // One byte more, less or other.
        let changes: [fn(&mut Vec<u8>); 3] =
            [|body| body.push(b' '), |body| body.truncate(body.len() - 1), |body| body[0] ^= 1];
        for change in changes {
            let mut body = got.body.clone();
            change(&mut body);
            let changed = Received { headers: got.headers.clone(), body };
            assert_eq!(changed.by_python(&key(1)), "no signature is by this key");
        }
    }
}

#[tokio::test]
async fn the_query_of_a_job_without_a_body_is_signed() {
    for method in ["POST", "PUT", "PATCH"] {
        let job = job(method, "/echo?id=7&to=%C3%BC", None);
        let got = received(&[&key(1)], &job).await;
        got.by_library(&key(1)).unwrap();
        let envelope: serde_json::Value = serde_json::from_slice(&got.body).unwrap();
        let url = envelope["url"].as_str().unwrap();
        assert!(
            url.starts_with("http://127.0.0.1:") && url.ends_with("/echo?id=7&to=%C3%BC"),
            "{url}"
        );
        assert_eq!(
            (&envelope["id"], &envelope["method"]),
            (&job.id.to_string().into(), &method.into())
        );
    }
    let got = received(&[&key(1)], &job("DELETE", "/echo", None)).await;
    assert!(got.body.is_empty());
    got.by_library(&key(1)).unwrap();
}

#[tokio::test]
async fn a_key_takes_the_place_of_another_without_a_call_that_does_not_verify() {
    let (old, new) = (key(1), key(2));
    let job = job("POST", "/echo", Some(b"{}"));
    let steps =
        [(vec![&old], true, false), (vec![&new, &old], true, true), (vec![&new], false, true)];
    for (signing, by_old, by_new) in steps {
        let signing: Vec<_> = signing.into_iter().map(String::as_str).collect();
        let got = received(&signing, &job).await;
        for (key, verifies) in [(&old, by_old), (&new, by_new)] {
            assert_eq!(
                got.by_library(key).is_ok(),
                verifies,
                "{}",
                got.header("webhook-signature")
            );
            assert_eq!(got.by_python(key) == "yes", verifies);
        }
        assert_eq!(got.header("webhook-signature").split(' ').count(), signing.len());
    }
}

#[tokio::test]
async fn a_receivers_clock_may_be_wrong_by_five_minutes() {
    let got = received(&[&key(1)], &job("POST", "/echo", Some(b"{}"))).await;
    for ahead in [-290, 0, 290] {
        assert_eq!(got.by_python_ahead(&key(1), ahead), "yes", "{ahead} s");
    }
    for ahead in [-310, 310] {
        let said = got.by_python_ahead(&key(1), ahead);
        assert_eq!(said, "its timestamp is too far from this clock", "{ahead} s");
    }
}

#[tokio::test]
async fn a_node_without_keys_signs_nothing() {
    let got = received(&[], &job("POST", "/echo", Some(b"{}"))).await;
    assert!(!got.headers.contains_key("webhook-signature"));
    assert!(got.headers.contains_key("webhook-timestamp"));
}

#[tokio::test]
async fn a_node_signs_with_the_keys_that_it_was_given_and_says_them_to_nobody() {
    let program = env!("CARGO_BIN_EXE_turnwise");
    let new_key = || {
        let made = Command::new(program).args(["config", "new-signing-key"]).output().unwrap();
        assert!(made.status.success());
        String::from_utf8(made.stdout).unwrap().trim_end().to_owned()
    };
    let (new, old) = (new_key(), new_key());
    assert_ne!(new, old);
    let target = Target::start().await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("jobs.db").display());
    let (keys, log) = (folder.path().join("keys"), folder.path().join("log"));
    std::fs::write(&keys, format!("{old}\n")).unwrap();
    let store = AnyStore::connect(&url, 1).unwrap();
    store.migrate().await.unwrap();
    let job = NewJob::new("/echo?id=7");
    store.enqueue(std::slice::from_ref(&job)).await.unwrap();
    let mut node = Command::new(program)
        .args(["run", "--database-url", &url, "--listen", "off", "--period", "100ms"])
        .args(["--target", &target.origin(), "--signing-key-file", keys.to_str().unwrap()])
        .env("TURNWISE_SIGNING_KEY", &new)
        .env("TURNWISE_LOG", "trace")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let since = Instant::now();
    let seen = loop {
        match target.seen_of(&job.id.to_string()).pop() {
            Some(seen) => break seen,
            None => assert!(since.elapsed() < Duration::from_secs(60), "the job is not called"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    node.kill().unwrap();
    node.wait().unwrap();
    assert!(seen.headers.contains_key("turnwise-will-retry-after"));
    let signatures = seen.headers["webhook-signature"].to_str().unwrap().to_owned();
    assert_eq!(signatures.split(' ').count(), 2);
    let text = format!(
        r#"{{"id":"{}","attempt":1,"queue":"default","method":"POST","url":"{}/echo?id=7","scheduled_at":"{}"}}"#,
        job.id,
        target.origin(),
        seen.headers["turnwise-scheduled-at"].to_str().unwrap(),
    );
    let got = Received { headers: seen.headers, body: text.into_bytes() };
    for key in [&new, &old] {
        got.by_library(key).unwrap();
    }
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(log.contains(&job.id.to_string()), "the log tells of the job: {log}");
    for key in [&new, &old] {
        let secret = key.strip_prefix("whsec_").unwrap();
        assert!(!log.contains(secret), "the log tells a key");
    }
}
