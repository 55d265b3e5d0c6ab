//! The API over HTTP, as a program and as somebody who gets it wrong: every path, every limit at and beyond it, bodies that are
//! not what they say, repetitions, and who is turned away.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::header::{ALLOW, CONTENT_TYPE, LOCATION, ORIGIN};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use turnwise_engine::NodeId;
use turnwise_node::api;
use turnwise_node::config::Retention;
use turnwise_node::dashboard::{self, Door};
use turnwise_node::job::{JobFilter, JobId, NewJob};
use turnwise_node::redact::Redaction;
use turnwise_node::serve;
use turnwise_node::store::{AnyStore, Registration, Store, TokenMade, Tokens};
use turnwise_node::token::{Role, TokenHash};
use turnwise_node::watch::Hub;

const LINES: &str = "application/x-ndjson";
const JSON: &str = "application/json";

/// A node's API that is served, and the database behind it.
struct Served {
    folder: TempDir,
    address: SocketAddr,
    client: Client,
}

impl Served {
    async fn start(token: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/turnwise.db", folder.path().display());
        let store = AnyStore::connect(&url, 1).unwrap();
        store.migrate().await.unwrap();
        store.agree_period(None).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let door = Door::new(address, token.map(str::to_owned)).with_tokens(store.clone());
        let hub = Hub::new(store).redacting(Redaction::new([], ["PIN"]));
        let beside = api::v1(hub.clone());
        let routes = dashboard::router(hub, Retention::default(), door, None, beside);
        tokio::spawn(serve::serve(listener, routes));
        // reqwest is built without a provider of TLS, which plain HTTP does not need and its builder wants.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
        Self { folder, address, client }
    }

    fn store(&self) -> AnyStore {
        let url = format!("sqlite://{}/turnwise.db", self.folder.path().display());
        AnyStore::connect(&url, 1).unwrap()
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        told(self.ask(Method::GET, path).send().await.unwrap()).await
    }

    /// An order: all is said with the path.
    async fn order(&self, path: &str) -> (StatusCode, Value) {
        told(self.ask(Method::POST, path).send().await.unwrap()).await
    }

    async fn post(&self, path: &str, kind: &str, body: impl Into<String>) -> (StatusCode, Value) {
        let ask = self.ask(Method::POST, path).header(CONTENT_TYPE, kind).body(body.into());
        told(ask.send().await.unwrap()).await
    }

    async fn enqueue(&self, job: &Value) -> (StatusCode, Value) {
        self.post("/v1/jobs", JSON, job.to_string()).await
    }

    async fn put(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let ask = self.ask(Method::PUT, path).header(CONTENT_TYPE, JSON).body(body.to_string());
        told(ask.send().await.unwrap()).await
    }

    async fn count(&self) -> usize {
        let filter = JobFilter { limit: 20_000, ..JobFilter::default() };
        self.store().jobs(&filter).await.unwrap().len()
    }
}

/// The status, and what was said as JSON: a problem has its own type, and all that one must have.
async fn told(answer: Response) -> (StatusCode, Value) {
    let status = answer.status();
    let kind = answer.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
    let text = answer.text().await.unwrap();
    let told: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: {text}"));
    if status.is_success() {
        assert_eq!(kind, JSON, "{text}");
    } else {
        assert_eq!(kind, "application/problem+json", "{text}");
        assert_eq!(told["status"], status.as_u16());
        assert!(told["type"].as_str().unwrap().starts_with("urn:turnwise:problem:"));
        for field in ["title", "detail", "remedy"] {
            assert!(!told[field].as_str().unwrap().is_empty(), "{field}: {text}");
        }
    }
    (status, told)
}

fn problem(told: &Value) -> &str {
    told["type"].as_str().unwrap().trim_start_matches("urn:turnwise:problem:")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_enqueued_shown_cancelled_and_retried() {
    let served = Served::start(None).await;
    let job = json!({"url": "/jobs/send", "queue": "mail", "json": {"to": "ada"}, "in": "10m", "priority": 5});
    let ask = served.ask(Method::POST, "/v1/jobs").header(CONTENT_TYPE, JSON).body(job.to_string());
    let answer = ask.send().await.unwrap();
    let location = answer.headers()[LOCATION].to_str().unwrap().to_owned();
    let (status, enqueued) = told(answer).await;
    assert_eq!((status, &enqueued["enqueued"]), (StatusCode::CREATED, &json!(true)));
    let id = enqueued["id"].as_str().unwrap();
    assert_eq!(location, format!("/v1/jobs/{id}"));
    let (status, shown) = served.get(&location).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&shown["queue"], &shown["state"], &shown["priority"], &shown["attempts"]),
        (&json!("mail"), &json!("scheduled"), &json!(5), &json!([]))
    );
    let (status, cancelled) = served.order(&format!("{location}/cancel")).await;
    assert_eq!((status, cancelled), (StatusCode::OK, json!({"id": id, "result": "cancelled"})));
    let (status, again) = served.order(&format!("{location}/cancel")).await;
    assert_eq!(
        (status, problem(&again), &again["state"]),
        (StatusCode::CONFLICT, "conflict", &json!("cancelled"))
    );
    let (status, retried) = served.order(&format!("{location}/retry")).await;
    assert_eq!((status, &retried["result"]), (StatusCode::OK, &json!("retried")));
    assert_eq!(served.get(&location).await.1["state"], "ready");
    for path in [format!("/v1/jobs/{}", JobId::generate()), "/v1/jobs/7".to_owned()] {
        assert_eq!(problem(&served.get(&path).await.1), "unknown");
        assert_eq!(problem(&served.order(&format!("{path}/retry")).await.1), "unknown");
        assert_eq!(problem(&served.order(&format!("{path}/cancel")).await.1), "unknown");
    }
    let force = served.post(&format!("{location}/cancel"), JSON, r#"{"force":true}"#).await;
    assert_eq!(problem(&force.1), "bad-request");
    assert_eq!(served.get(&location).await.1["state"], "ready", "and nothing was done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_made_shown_sealed_once_and_cancelled() {
    let served = Served::start(None).await;
    let batch = json!({
        "name": "import", "jobs": [{"url": "/a"}, {"url": "/b"}], "on_success": {"url": "/done"},
        "on_complete": {"url": "/report"}, "sealed": false
    });
    let keyed = async || {
        let ask = served.ask(Method::POST, "/v1/batches").header(CONTENT_TYPE, JSON);
        let answer = ask.header("Idempotency-Key", "import-7").body(batch.to_string());
        let answer = answer.send().await.unwrap();
        let location = answer.headers()[LOCATION].to_str().unwrap().to_owned();
        (location, told(answer).await)
    };
    let (here, (status, made)) = keyed().await;
    let id = made["id"].as_str().unwrap();
    assert_eq!((status, &here), (StatusCode::CREATED, &format!("/v1/batches/{id}")));
    assert_eq!(made["jobs"].as_array().unwrap().len(), 2);
    assert_eq!(keyed().await.1.1, made, "making it again changes nothing");
    assert_eq!(served.count().await, 4);
    let more = json!({"url": "/c", "batch": id});
    assert_eq!(served.enqueue(&more).await.0, StatusCode::CREATED);
    let last = json!({"url": "/d", "after": {"batch": id, "on": "end"}});
    let (_, last) = served.enqueue(&last).await;
    let (_, last) = served.get(&format!("/v1/jobs/{}", last["id"].as_str().unwrap())).await;
    assert_eq!((&last["after"], &last["scheduled_at"]), (&json!(id), &Value::Null));
    let (_, page) = served.get(&format!("/v1/jobs?batch={id}")).await;
    assert_eq!(page["jobs"].as_array().unwrap().len(), 3);
    assert!(page["jobs"].as_array().unwrap().iter().all(|job| job["batch"] == id), "{page}");
    let (_, shown) = served.get(&here).await;
    let counts =
        json!({"jobs": 3, "queued": 3, "running": 0, "succeeded": 0, "dead": 0, "cancelled": 0});
    assert_eq!((&shown["state"], &shown["counts"]), (&json!("open"), &counts));
    let followers = shown["followers"].as_array().unwrap();
    let needs = |word: &str| followers.iter().filter(|follower| follower["on"] == word).count();
    assert_eq!((needs("success"), needs("end")), (1, 2));
    let (_, listed) = served.get("/v1/batches").await;
    assert_eq!((&listed["batches"][0]["id"], &listed["next"]), (&json!(id), &Value::Null));
    let (status, sealed) = served.order(&format!("{here}/seal")).await;
    assert_eq!((status, sealed), (StatusCode::OK, json!({"id": id, "result": "sealed"})));
    let (status, again) = served.order(&format!("{here}/seal")).await;
    assert_eq!((status, problem(&again)), (StatusCode::CONFLICT, "conflict"));
    let (status, cancelled) = served.order(&format!("{here}/cancel")).await;
    let expected = json!({"id": id, "result": "cancelled", "jobs": 3});
    assert_eq!((status, cancelled), (StatusCode::OK, expected));
    assert_eq!(served.get(&here).await.1["state"], "cancelled");
    assert_eq!(served.enqueue(&more).await.0, StatusCode::CONFLICT, "it has ended");
    let unknown = JobId::generate();
    let (status, told) = served.enqueue(&json!({"url": "/x", "batch": unknown})).await;
    assert_eq!(
        (status, &told["errors"][0]["field"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("batch"))
    );
    for path in [format!("/v1/batches/{unknown}"), "/v1/batches/7".to_owned()] {
        assert_eq!(problem(&served.get(&path).await.1), "unknown");
        assert_eq!(problem(&served.order(&format!("{path}/seal")).await.1), "unknown");
        assert_eq!(problem(&served.order(&format!("{path}/cancel")).await.1), "unknown");
    }
    let wrong = json!({"jobs": [{"url": "/a"}, {"url": "b"}]});
    let (status, told) = served.post("/v1/batches", JSON, wrong.to_string()).await;
    assert_eq!(
        (status, &told["errors"][0]["field"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("jobs[1].url"))
    );
    let (_, audit) = served.get("/v1/audit").await;
    let entries = audit["entries"].as_array().unwrap().iter();
    let batches = entries.filter(|entry| entry["subject"] == id).map(|entry| &entry["action"]);
    let batches: Vec<_> = batches.collect();
    assert_eq!(batches, ["batch.cancel", "batch.seal", "batch.make", "batch.make"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_listed_page_by_page_as_the_filter_says() {
    let served = Served::start(None).await;
    let jobs: Vec<Value> = (0..7)
        .map(|n| json!({"url": format!("/x?{n}"), "queue": if n < 5 { "a" } else { "b" }}))
        .collect();
    let (status, enqueued) = served.post("/v1/jobs", JSON, Value::from(jobs).to_string()).await;
    assert_eq!(status, StatusCode::OK);
    let mut ids: Vec<&str> =
        enqueued.as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect();
    ids.sort_unstable_by(|a, b| b.cmp(a));
    let mut path = "/v1/jobs?limit=3".to_owned();
    let mut seen = Vec::new();
    for size in [3, 3, 1] {
        let (_, page) = served.get(&path).await;
        let jobs = page["jobs"].as_array().unwrap();
        assert_eq!(jobs.len(), size, "{page}");
        seen.extend(jobs.iter().map(|job| job["id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/jobs?limit=3&before={next}"),
            None => assert_eq!(size, 1),
        }
    }
    assert_eq!(seen, ids);
    let of = async |filter: &str| {
        served.get(&format!("/v1/jobs?{filter}")).await.1["jobs"].as_array().unwrap().len()
    };
    assert_eq!(
        (of("queue=a").await, of("queue=b&state=ready").await, of("state=dead").await),
        (5, 2, 0)
    );
    for (bad, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("state=asleep", "state"),
        ("before=7", "before"),
        ("batch=7", "batch"),
        ("queue=%00", "queue"),
        ("colour=red", "colour"),
        ("limit=1&limit=2", "limit"),
    ] {
        let (status, told) = served.get(&format!("/v1/jobs?{bad}")).await;
        assert_eq!(
            (status, &told["errors"][0]["field"]),
            (StatusCode::BAD_REQUEST, &json!(field)),
            "{bad}"
        );
    }
    assert_eq!(served.get("/v1/jobs?limit=1000").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_enqueues_nothing_new() {
    let served = Served::start(None).await;
    let keyed = async |key: &str, kind: &str, body: &str| {
        let ask = served.ask(Method::POST, "/v1/jobs").header("Idempotency-Key", key);
        told(ask.header(CONTENT_TYPE, kind).body(body.to_owned()).send().await.unwrap()).await
    };
    let one = r#"{"url":"/x"}"#;
    let first = keyed("order-7", JSON, one).await;
    assert_eq!(first.0, StatusCode::CREATED);
    assert_eq!(keyed("order-7", JSON, one).await, first);
    assert_eq!(keyed("\"order-7\"", JSON, one).await, first, "quotes are not of the key");
    assert_eq!(served.count().await, 1);
    let many = keyed("order-8", JSON, &format!("[{one},{one}]")).await;
    assert_eq!(keyed("order-8", LINES, &format!("{one}\n{one}\n")).await, many);
    assert_eq!(served.count().await, 3);
    // One with an id of its own goes by that.
    let own = JobId::generate();
    let job = json!({"url": "/x", "id": own.to_string()});
    let first = served.enqueue(&job).await;
    assert_eq!((first.0, &first.1["id"]), (StatusCode::CREATED, &json!(own.to_string())));
    assert_eq!(served.enqueue(&job).await, first);
    assert_eq!(keyed("order-9", JSON, &job.to_string()).await, first);
    assert_eq!(served.count().await, 4);
    for bad in ["", "k\"k", "k".repeat(256).as_str()] {
        let (status, told) = keyed(bad, JSON, one).await;
        assert_eq!(
            (status, &told["errors"][0]["field"]),
            (StatusCode::BAD_REQUEST, &json!("idempotency-key"))
        );
    }
    assert_eq!(keyed(&"k".repeat(255), JSON, one).await.0, StatusCode::CREATED);
    // A unique key that another job holds.
    let digest = json!({"url": "/x", "unique_key": "digest", "unique_for": "24h"});
    let (_, first) = served.enqueue(&digest).await;
    let (status, second) = served.enqueue(&digest).await;
    assert_eq!((status, second), (StatusCode::OK, json!({"id": first["id"], "enqueued": false})));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_jobs_all_are_right_or_none_is_enqueued() {
    let served = Served::start(None).await;
    let right = r#"{"url":"/x"}"#;
    let array = |jobs: usize| format!("[{}]", vec![right; jobs].join(","));
    let (status, told) = served.post("/v1/jobs", JSON, array(501)).await;
    assert_eq!((status, problem(&told)), (StatusCode::UNPROCESSABLE_ENTITY, "invalid"));
    let (status, told) =
        served.post("/v1/jobs", JSON, format!("[{right},{{\"url\":\"x\"}}]")).await;
    assert_eq!(
        (status, &told["errors"][0]["field"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("[1].url"))
    );
    let wrong_line =
        format!("{}{{\"url\":\"/x\",\"priority\":101}}\n", format!("{right}\n").repeat(1_200));
    let (_, told) = served.post("/v1/jobs", LINES, wrong_line).await;
    assert_eq!(told["errors"][0]["field"], "[1200].priority");
    let (status, told) = served.post("/v1/jobs", LINES, format!("{right}\n").repeat(10_001)).await;
    assert_eq!((status, problem(&told)), (StatusCode::PAYLOAD_TOO_LARGE, "too-large"));
    assert_eq!(served.count().await, 0);
    assert_eq!(served.post("/v1/jobs", JSON, array(500)).await.1.as_array().unwrap().len(), 500);
    let (status, told) = served.post("/v1/jobs", LINES, format!("{right}\n").repeat(1_200)).await;
    assert_eq!((status, told.as_array().unwrap().len()), (StatusCode::OK, 1_200));
    assert_eq!(served.count().await, 1_700);
    assert_eq!(served.post("/v1/jobs", JSON, "[]").await, (StatusCode::OK, json!([])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_as_large_as_may_be_and_no_larger() {
    let served = Served::start(None).await;
    let job = |bytes: usize| json!({"url": "/x", "body": "b".repeat(bytes)});
    assert_eq!(served.enqueue(&job(256 * 1024)).await.0, StatusCode::CREATED);
    let (status, told) = served.enqueue(&job(256 * 1024 + 1)).await;
    assert_eq!(
        (status, &told["errors"][0]["field"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("body"))
    );
    // The white space is of the request's body too.
    let padded = |bytes: usize| format!("{{\"url\":\"/x\"}}{}", " ".repeat(bytes - 12));
    assert_eq!(served.post("/v1/jobs", JSON, padded(4 << 20)).await.0, StatusCode::CREATED);
    // One that says it, and one that does not say how much it sends.
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let head = format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n",
        served.address
    );
    stream
        .write_all(format!("{head}content-length: {}\r\n\r\n", (4 << 20) + 1).as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 413") && answer.contains("application/problem+json"),
        "{answer}"
    );
    let (mut from, mut to) = TcpStream::connect(served.address).await.unwrap().into_split();
    let sending = tokio::spawn(async move {
        let _ = to.write_all(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes()).await;
        let piece = format!("10000\r\n{}\r\n", " ".repeat(0x1_0000));
        while to.write_all(piece.as_bytes()).await.is_ok() {}
    });
    let mut answer = [0; 12];
    from.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    drop(from);
    sending.await.unwrap();
    let (status, told) =
        served.post("/v1/queues/mail/pause", JSON, " ".repeat(16 * 1024 + 1)).await;
    assert_eq!((status, problem(&told)), (StatusCode::PAYLOAD_TOO_LARGE, "too-large"));
    assert_eq!(served.count().await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_what_it_says_is_refused() {
    let served = Served::start(None).await;
    let job = r#"{"url":"/x"}"#;
    for (kind, body, expected) in [
        ("text/plain", job, "content-type"),
        ("application/x-www-form-urlencoded", "url=/x", "content-type"),
        ("application/json; charset=utf-16", job, "content-type"),
        (JSON, "", "bad-json"),
        (JSON, "{", "bad-json"),
        (JSON, "{\"url\":\"/x\"}{}", "bad-json"),
        (JSON, "{\"url\":\"/x\"}\n{\"url\":\"/x\"}\n", "bad-json"),
        (JSON, "7", "invalid"),
        (JSON, "\"/x\"", "invalid"),
        (JSON, "[[]]", "invalid"),
        (LINES, "[{\"url\":\"/x\"}]", "invalid"),
        (LINES, "{\"url\":\n\"/x\"}", "bad-json"),
        (LINES, "url", "bad-json"),
    ] {
        let (status, told) = served.post("/v1/jobs", kind, body).await;
        assert!(status.is_client_error());
        assert_eq!(problem(&told), expected, "{kind}: {body}");
    }
    let ask = served.ask(Method::POST, "/v1/jobs").body(job);
    assert_eq!(problem(&told(ask.send().await.unwrap()).await.1), "content-type");
    // No UTF-8.
    let ask = served.ask(Method::POST, "/v1/jobs").header(CONTENT_TYPE, JSON);
    let ask = ask.body(b"{\"url\":\"/\xff\"}".to_vec());
    assert!(told(ask.send().await.unwrap()).await.0.is_client_error());
    assert_eq!(problem(&served.order("/v1/queues/%ff/pause").await.1), "bad-request");
    let deep = format!("{{\"url\":\"/x\",\"headers\":{}", "[".repeat(100_000));
    assert!(served.post("/v1/jobs", JSON, deep).await.0.is_client_error());
    assert_eq!(served.count().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_are_listed_paused_and_resumed() {
    let served = Served::start(None).await;
    served.enqueue(&json!({"url": "/x", "queue": "mail"})).await;
    let name = "a%2Fb%20%C3%BC";
    for (order, result) in [
        ("pause", "paused"),
        ("pause", "paused-before"),
        ("resume", "resumed"),
        ("resume", "not-paused"),
        ("pause", "paused"),
    ] {
        let (status, told) = served.order(&format!("/v1/queues/{name}/{order}")).await;
        assert_eq!((status, told), (StatusCode::OK, json!({"queue": "a/b ü", "result": result})));
    }
    let (_, listed) = served.get("/v1/queues").await;
    let queues = listed["queues"].as_array().unwrap();
    assert_eq!((&queues[0]["queue"], &queues[0]["ready"]), (&json!("mail"), &json!(1)));
    assert_eq!(queues[1]["queue"], "a/b ü");
    assert!(queues[0]["paused_since"].is_null() && queues[1]["paused_since"].is_string());
    let pause =
        async |bytes: usize| served.order(&format!("/v1/queues/{}/pause", "q".repeat(bytes))).await;
    assert_eq!(pause(128).await.0, StatusCode::OK);
    assert_eq!(pause(129).await.1["errors"][0]["field"], "name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_holds_for_a_queue_is_set_and_what_is_wrong_is_named() {
    let served = Served::start(None).await;
    let said = json!({"concurrency": 5, "rate": "100/m", "burst": 10, "retry_wait": "2s",
        "permanent_statuses": "422,404"});
    let (status, told) = served.put("/v1/queues/mail", &said).await;
    let policy = json!({"retry_wait_ms": 2_000, "retry_wait_max_ms": null,
        "permanent_statuses": "404,422", "concurrency": 5,
        "rate": {"jobs": 100, "per_ms": 60_000, "burst": 10}});
    assert_eq!((status, &told), (StatusCode::OK, &policy));
    let (_, listed) = served.get("/v1/queues").await;
    assert_eq!(listed["queues"][0]["policy"], policy);
    for (wrong, fields) in [
        (json!({"concurrency": 0, "rate": "lots"}), ["concurrency", "rate"].as_slice()),
        (json!({"burst": 3}), &["burst"]),
        (json!({"rate": "1/s", "burst": -1, "retry_wait": "0s"}), &["retry_wait", "burst"]),
        (json!({"permanent_statuses": "200"}), &["permanent_statuses"]),
    ] {
        let (status, told) = served.put("/v1/queues/mail", &wrong).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{told}");
        let errors = told["errors"].as_array().unwrap();
        let named: Vec<_> = errors.iter().map(|error| error["field"].as_str().unwrap()).collect();
        assert_eq!(named, fields, "{told}");
    }
    let (status, told) = served.put("/v1/queues/mail", &json!({"concurency": 1})).await;
    assert!(status.is_client_error() && told.to_string().contains("concurency"), "{told}");
    let (_, listed) = served.get("/v1/queues").await;
    assert_eq!(listed["queues"][0]["policy"], policy, "what was refused changed nothing");
    assert_eq!(served.put("/v1/queues/mail", &json!({})).await.0, StatusCode::OK);
    let (_, listed) = served.get("/v1/queues").await;
    assert_eq!(listed["queues"], json!([]), "it says nothing any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedules_are_set_shown_ordered_and_removed() {
    let served = Served::start(None).await;
    let path = "/v1/schedules/night%20ly";
    let nightly = json!({"cron": "0 3 * * *", "zone": "Europe/Berlin", "url": "/jobs/tidy", "queue": "ticks"});
    let (status, set) = served.put(path, &nightly).await;
    assert_eq!(
        (status, &set["name"], &set["new"]),
        (StatusCode::CREATED, &json!("night ly"), &json!(true))
    );
    assert_eq!(set["next"].as_array().unwrap().len(), 5);
    let (status, set) = served.put(path, &nightly).await;
    assert_eq!((status, &set["new"]), (StatusCode::OK, &json!(false)));
    let (_, shown) = served.get(path).await;
    assert_eq!(
        (&shown["cron"], &shown["queue"], &shown["next"]),
        (&json!("0 3 * * *"), &json!("ticks"), &set["next"])
    );
    assert_eq!(served.get("/v1/schedules").await.1, json!({"schedules": [shown]}));
    let (status, fired) = served.order(&format!("{path}/run")).await;
    assert_eq!(status, StatusCode::CREATED);
    let id = fired["id"].as_str().unwrap();
    let (_, job) = served.get(&format!("/v1/jobs/{id}")).await;
    assert_eq!((&job["url"], &job["schedule"]), (&json!("/jobs/tidy"), &json!("night ly")));
    let mut said = nightly.clone();
    said["heartbeat"] = json!("5s");
    let (status, wrong) = served.put(path, &said).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(wrong["errors"][0]["field"], "heartbeat");
    said["asynchronous"] = json!(true);
    said["retry_wait"] = json!("1m");
    assert_eq!(served.put(path, &said).await.0, StatusCode::OK);
    for (order, result) in [
        ("pause", "paused"),
        ("pause", "paused-before"),
        ("resume", "resumed"),
        ("resume", "not-paused"),
    ] {
        let (status, told) = served.order(&format!("{path}/{order}")).await;
        assert_eq!((status, &told["result"]), (StatusCode::OK, &json!(result)));
    }
    let (status, wrong) = served.put(path, &json!({"cron": "61 * * * *", "url": "x"})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(wrong["errors"].as_array().unwrap().len(), 2, "{wrong}");
    let set = json!({"cron": "@daily", "url": "/x"});
    let name = |bytes: usize| format!("/v1/schedules/{}", "s".repeat(bytes));
    assert_eq!(served.put(&name(128), &set).await.0, StatusCode::CREATED);
    assert_eq!(served.put(&name(129), &set).await.1["errors"][0]["field"], "name");
    let remove = async || told(served.ask(Method::DELETE, path).send().await.unwrap()).await;
    assert_eq!(remove().await.1, json!({"name": "night ly", "result": "removed"}));
    assert_eq!(problem(&remove().await.1), "unknown");
    assert_eq!(problem(&served.get(path).await.1), "unknown");
    for order in ["pause", "resume", "run"] {
        assert_eq!(problem(&served.order(&format!("{path}/{order}")).await.1), "unknown");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_listed_and_drained() {
    let served = Served::start(None).await;
    let id = NodeId::from_u128(7);
    let node = Registration { id, name: "web-1".to_owned(), capacity: 4 };
    served.store().register(&node).await.unwrap();
    let (_, listed) = served.get("/v1/nodes").await;
    assert_eq!(
        (&listed["nodes"][0]["name"], &listed["nodes"][0]["capacity"]),
        (&json!("web-1"), &json!(4))
    );
    for result in ["asked", "asked-before"] {
        let (status, told) = served.order(&format!("/v1/nodes/{id}/drain")).await;
        assert_eq!(
            (status, told),
            (StatusCode::OK, json!({"id": id.to_string(), "result": result}))
        );
    }
    served.store().deregister(id).await.unwrap();
    assert_eq!(problem(&served.order(&format!("/v1/nodes/{id}/drain")).await.1), "conflict");
    for other in [NodeId::from_u128(8).to_string(), "web-1".to_owned()] {
        assert_eq!(problem(&served.order(&format!("/v1/nodes/{other}/drain")).await.1), "unknown");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_told_as_they_happen_to_as_many_as_may_listen() {
    let served = Served::start(None).await;
    let mut answer = served.ask(Method::GET, "/v1/events?news=true").send().await.unwrap();
    assert_eq!(answer.headers()[CONTENT_TYPE], "text/event-stream");
    let node = Registration { id: NodeId::from_u128(7), name: "web-1".to_owned(), capacity: 4 };
    // It came after the first look, so that it is news.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    served.store().register(&node).await.unwrap();
    let mut text = String::new();
    while !text.contains("\"event\":\"came\"") {
        text.push_str(&String::from_utf8_lossy(&answer.chunk().await.unwrap().unwrap()));
    }
    let line = text.lines().find(|line| line.contains("\"came\"")).unwrap();
    let event: Value = serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(event["name"], "web-1");
    let mut others = Vec::new();
    for _ in 1..50 {
        let answer = served.ask(Method::GET, "/v1/events").send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        others.push(answer);
    }
    let (status, told) = served.get("/v1/events").await;
    assert_eq!((status, problem(&told)), (StatusCode::SERVICE_UNAVAILABLE, "busy"));
    drop(others.pop());
    let until_there_is_room = async {
        while served.ask(Method::GET, "/v1/events").send().await.unwrap().status() != StatusCode::OK
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), until_there_is_room).await.unwrap();
    assert_eq!(problem(&served.get("/v1/events?news=perhaps").await.1), "bad-request");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_there_is_not_is_told_as_a_problem() {
    let served = Served::start(None).await;
    for path in [
        "/v1",
        "/v1/",
        "/v1/nowhere",
        "/v1/jobs/7/dance",
        "/v1/queues/mail/policy",
        "/v1//jobs",
        "/v1/jobs/",
    ] {
        for method in [Method::GET, Method::POST, Method::PUT] {
            let (status, told) = told(served.ask(method, path).send().await.unwrap()).await;
            assert_eq!((status, problem(&told)), (StatusCode::NOT_FOUND, "unknown-path"), "{path}");
        }
    }
    for (method, path, allowed) in [
        (Method::DELETE, "/v1/jobs", "GET,HEAD,POST"),
        (Method::GET, "/v1/queues/mail/pause", "POST"),
        (Method::GET, "/v1/queues/mail", "PUT"),
        (Method::PATCH, "/v1/schedules/s", "GET,HEAD,PUT,DELETE"),
    ] {
        let answer = served.ask(method, path).send().await.unwrap();
        assert_eq!(answer.headers()[ALLOW], allowed, "{path}");
        let (status, told) = told(answer).await;
        assert_eq!((status, problem(&told)), (StatusCode::METHOD_NOT_ALLOWED, "method"));
    }
    let (status, document) = served.get("/v1/openapi.json").await;
    assert_eq!((status, &document["openapi"]), (StatusCode::OK, &json!("3.1.0")));
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys().filter(|_| path != "/v1/events") {
            let path = path.replace("{id}", "7").replace("{name}", "7");
            let method: Method = method.to_uppercase().parse().unwrap();
            let (_, told) = told(served.ask(method, &path).send().await.unwrap()).await;
            let is_there =
                told.get("type").is_none() || !matches!(problem(&told), "unknown-path" | "method");
            assert!(is_there, "{path}: {told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_come_in_is_told_so_and_does_nothing() {
    let served = Served::start(None).await;
    let post =
        || served.ask(Method::POST, "/v1/jobs").header(CONTENT_TYPE, JSON).body(r#"{"url":"/x"}"#);
    let (status, other) =
        told(post().header(ORIGIN, "http://evil.example").send().await.unwrap()).await;
    assert_eq!((status, problem(&other)), (StatusCode::FORBIDDEN, "other-site"));
    let (status, other) = told(post().header("host", "evil.example").send().await.unwrap()).await;
    assert_eq!((status, problem(&other)), (StatusCode::MISDIRECTED_REQUEST, "other-host"));
    assert_eq!(served.count().await, 0);
    let served = Served::start(Some("a token of sixteen")).await;
    let post =
        || served.ask(Method::POST, "/v1/jobs").header(CONTENT_TYPE, JSON).body(r#"{"url":"/x"}"#);
    for path in ["/v1/jobs", "/v1/nowhere", "/v1/openapi.json"] {
        let answer = served.ask(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.headers()["www-authenticate"], "Bearer");
        let (status, told) = told(answer).await;
        assert_eq!((status, problem(&told)), (StatusCode::UNAUTHORIZED, "no-token"), "{path}");
    }
    assert!(told(post().send().await.unwrap()).await.0.is_client_error());
    assert_eq!(served.count().await, 0);
    let (status, _) = told(post().bearer_auth("a token of sixteen").send().await.unwrap()).await;
    assert_eq!((status, served.count().await), (StatusCode::CREATED, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_opens_as_far_as_its_role_goes_until_it_is_revoked() {
    let served = Served::start(Some("a token of sixteen")).await;
    let store = served.store();
    for role in Role::ALL {
        let made =
            store.make_token(role.as_str(), role, TokenHash::of(&format!("tw_{}", role.as_str())));
        assert_eq!(made.await.unwrap(), TokenMade::Made);
    }
    let ask = async |role: &str, method: Method, path: &str| {
        let ask =
            served.ask(method, path).bearer_auth(format!("tw_{role}")).header(CONTENT_TYPE, JSON);
        let body = if path == "/v1/jobs" { "[]" } else { "{}" };
        told(ask.body(body).send().await.unwrap()).await
    };
    for (method, path, roles) in [
        (Method::GET, "/v1/queues", &["read", "enqueue", "operate"][..]),
        (Method::POST, "/v1/jobs", &["enqueue", "operate"]),
        (Method::POST, "/v1/batches", &["enqueue", "operate"]),
        (Method::POST, "/v1/batches/none/seal", &["enqueue", "operate"]),
        (Method::POST, "/v1/batches/none/cancel", &["operate"]),
        (Method::POST, "/v1/queues/mail/pause", &["operate"]),
        (Method::DELETE, "/v1/schedules/none", &["operate"]),
    ] {
        for role in Role::ALL.map(Role::as_str) {
            let (status, told) = ask(role, method.clone(), path).await;
            let is_refused = status == StatusCode::FORBIDDEN && problem(&told) == "role";
            assert_eq!(!is_refused, roles.contains(&role), "{role} {method} {path}: {told}");
        }
        let (_, told) = ask("nobody's", method, path).await;
        assert_eq!(problem(&told), "no-token");
    }
    // What stands in the table opens nothing.
    let hash =
        served.ask(Method::GET, "/v1/jobs").bearer_auth(TokenHash::of("tw_operate").to_string());
    assert_eq!(told(hash.send().await.unwrap()).await.0, StatusCode::UNAUTHORIZED);
    // A page is opened as far, and by no cookie that a lesser token was given.
    let page = served.ask(Method::GET, "/jobs").bearer_auth("tw_read").send().await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    let order =
        served.ask(Method::POST, "/queues/pause").bearer_auth("tw_enqueue").body("queue=mail");
    assert_eq!(order.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    assert!(store.revoke_token("read").await.unwrap());
    let until_it_is_heard = async {
        while ask("read", Method::GET, "/v1/jobs").await.0 != StatusCode::UNAUTHORIZED {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), until_it_is_heard).await.unwrap();
    assert_eq!(ask("enqueue", Method::GET, "/v1/jobs").await.0, StatusCode::OK, "and no other is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_does_no_harm() {
    let served = Served::start(None).await;
    // Before its body has come: nothing is enqueued.
    let mut half = TcpStream::connect(served.address).await.unwrap();
    let head = |bytes: usize| {
        format!(
            "POST /v1/jobs HTTP/1.1\r\nhost: {}\r\ncontent-type: {LINES}\r\ncontent-length: {bytes}\r\n\r\n",
            served.address
        )
    };
    half.write_all(format!("{}{{\"url\":\"/x\"}}\n", head(5_000)).as_bytes()).await.unwrap();
    drop(half);
    // After it: all are.
    let lines = "{\"url\":\"/y\"}\n".repeat(3_000);
    let mut whole = TcpStream::connect(served.address).await.unwrap();
    whole.write_all(format!("{}{lines}", head(lines.len())).as_bytes()).await.unwrap();
    let begun = async {
        while served.count().await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), begun).await.unwrap();
    drop(whole);
    let all = async {
        while served.count().await < 3_000 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
    assert_eq!(served.count().await, 3_000);
    let job = NewJob::new("/z");
    served.store().enqueue(&[job]).await.unwrap();
    assert_eq!(served.get("/v1/jobs?limit=1").await.0, StatusCode::OK, "and it answers on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_ordered_over_http_is_kept_with_who_ordered_it() {
    const LISTEN: &str = "a token of sixteen";
    let served = Served::start(Some(LISTEN)).await;
    let store = served.store();
    for (name, role) in [("shop", Role::Enqueue), ("ops", Role::Operate), ("eye", Role::Read)] {
        store.make_token(name, role, TokenHash::of(&format!("tw_{name}"))).await.unwrap();
    }
    let node = NodeId::from_u128(1);
    let registration = Registration { id: node, name: "a".to_owned(), capacity: 1 };
    store.register(&registration).await.unwrap();
    let ask = async |token: &str, method: Method, path: &str, body: &str| {
        let ask = served.ask(method, path).bearer_auth(token).header(CONTENT_TYPE, JSON);
        told(ask.body(body.to_owned()).send().await.unwrap()).await
    };
    let jobs =
        r#"[{"url":"/a","queue":"mail"},{"url":"/b","queue":"bulk"},{"url":"/c","queue":"mail"}]"#;
    let (status, enqueued) = ask("tw_shop", Method::POST, "/v1/jobs", jobs).await;
    assert_eq!(status, StatusCode::OK);
    let id = enqueued[0]["id"].as_str().unwrap();
    let schedule = r#"{"cron":"@daily","url":"/x"}"#;
    for (token, method, path, body, is_done) in [
        ("tw_shop", Method::POST, format!("/v1/jobs/{id}/cancel"), "", false),
        ("tw_ops", Method::POST, format!("/v1/jobs/{id}/cancel"), "", true),
        ("tw_ops", Method::POST, format!("/v1/jobs/{id}/cancel"), "", false),
        (LISTEN, Method::POST, format!("/v1/jobs/{id}/retry"), "", true),
        ("tw_ops", Method::POST, "/v1/queues/mail/pause".to_owned(), "", true),
        ("tw_ops", Method::POST, "/v1/queues/mail/resume".to_owned(), "", true),
        ("tw_ops", Method::PUT, "/v1/schedules/s".to_owned(), schedule, true),
        ("tw_ops", Method::PUT, "/v1/schedules/s".to_owned(), "{}", false),
        ("tw_ops", Method::POST, "/v1/schedules/s/pause".to_owned(), "", true),
        ("tw_ops", Method::POST, "/v1/schedules/s/resume".to_owned(), "", true),
        ("tw_ops", Method::POST, "/v1/schedules/s/run".to_owned(), "", true),
        ("tw_ops", Method::DELETE, "/v1/schedules/s".to_owned(), "", true),
        ("tw_ops", Method::DELETE, "/v1/schedules/s".to_owned(), "", false),
        ("tw_ops", Method::POST, format!("/v1/nodes/{node}/drain"), "", true),
    ] {
        let (status, told) = ask(token, method, &path, body).await;
        assert_eq!(status.is_success(), is_done, "{path}: {told}");
    }
    // What changes nothing is nothing that was done.
    ask("tw_ops", Method::POST, "/v1/queues/mail/resume", "").await;
    let (_, told) = ask("tw_ops", Method::GET, "/v1/audit?limit=1000", "").await;
    let word = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let lines = |told: &Value| -> Vec<[String; 5]> {
        let entries = told["entries"].as_array().unwrap().iter();
        let line = entries.map(|entry| {
            let [actor, role, action, subject] =
                ["actor", "role", "action", "subject"].map(|key| word(entry, key));
            [actor, role, action, subject, entry["affected"].to_string()]
        });
        line.collect()
    };
    let node = node.to_string();
    let expected = [
        ["ops", "operate", "node.drain", &node, "1"],
        ["ops", "operate", "schedule.remove", "s", "1"],
        ["ops", "operate", "schedule.run", "s", "1"],
        ["ops", "operate", "schedule.resume", "s", "1"],
        ["ops", "operate", "schedule.pause", "s", "1"],
        ["ops", "operate", "schedule.set", "s", "1"],
        ["ops", "operate", "queue.resume", "mail", "1"],
        ["ops", "operate", "queue.pause", "mail", "1"],
        ["listen-token", "operate", "job.retry", id, "1"],
        ["ops", "operate", "job.cancel", id, "1"],
        ["shop", "enqueue", "job.enqueue", "bulk mail", "3"],
    ];
    assert_eq!(lines(&told), expected.map(|line| line.map(str::to_owned)));
    assert_eq!(told["next"], Value::Null);
    // By key, as all pages.
    let (_, first) = ask("tw_ops", Method::GET, "/v1/audit?limit=9", "").await;
    let more = format!("/v1/audit?limit=9&before={}", first["next"]);
    let (_, second) = ask("tw_ops", Method::GET, &more, "").await;
    assert_eq!([lines(&first), lines(&second)].concat(), lines(&told));
    assert_eq!(second["next"], Value::Null);
    for bad in ["limit=0", "limit=1001", "before=x", "after=1"] {
        let (status, _) = ask("tw_ops", Method::GET, &format!("/v1/audit?{bad}"), "").await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}");
    }
    for token in ["tw_shop", "tw_eye"] {
        let (_, told) = ask(token, Method::GET, "/v1/audit", "").await;
        assert_eq!(problem(&told), "role", "{token}");
        let page = served.ask(Method::GET, "/audit").bearer_auth(token).send().await.unwrap();
        assert_eq!(page.status(), StatusCode::FORBIDDEN, "{token}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_shown_with_its_call_and_without_what_opens_something() {
    let served = Served::start(None).await;
    let headers = json!({"Authorization": "Bearer s3cret", "X-Tenant": "seven"});
    let job = json!({"url": "/x", "headers": headers, "json": {"a": [1, {"Pin": 7}]}});
    let (_, enqueued) = served.enqueue(&job).await;
    let (_, shown) = served.get(&format!("/v1/jobs/{}", enqueued["id"].as_str().unwrap())).await;
    let request = &shown["request"];
    let headers = request["headers"].as_object().unwrap();
    let value = |name: &str| {
        let found = headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.unwrap().1.as_str().unwrap()
    };
    assert_eq!((value("authorization"), value("x-tenant")), ("[redacted]", "seven"));
    assert!(request["body"].as_str().unwrap().contains("[redacted]"), "{request}");
    assert!(!request["body"].as_str().unwrap().contains('7'), "{request}");
    let long = json!({"url": "/x", "body": "b".repeat(10_000)});
    let (_, enqueued) = served.enqueue(&long).await;
    let (_, shown) = served.get(&format!("/v1/jobs/{}", enqueued["id"].as_str().unwrap())).await;
    assert_eq!(shown["request"]["body"].as_str().unwrap().len(), 8_192);
    assert_eq!(shown["request"]["body_bytes"], 10_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_lines_are_one_entry_and_who_is_asked_for_no_token_is_the_api() {
    let served = Served::start(None).await;
    let lines = "{\"url\":\"/x\"}\n".repeat(700);
    assert_eq!(served.post("/v1/jobs", LINES, lines).await.0, StatusCode::OK);
    let unique = json!({"url": "/x", "unique_key": "k"});
    assert_eq!(served.enqueue(&unique).await.0, StatusCode::CREATED);
    assert_eq!(served.enqueue(&unique).await.0, StatusCode::OK, "another holds its key");
    let (_, told) = served.get("/v1/audit").await;
    let entries = told["entries"].as_array().unwrap().iter();
    let told: Vec<_> = entries.map(|entry| (&entry["actor"], &entry["affected"])).collect();
    assert_eq!(told, [(&json!("api"), &json!(1)), (&json!("api"), &json!(700))]);
}

/// Numbers that look random and are the same on every run.
struct Chance(rand_pcg::Pcg64Mcg);

impl Chance {
    fn below(&mut self, most: usize) -> usize {
        rand_core::Rng::next_u64(&mut self.0) as usize % most
    }

    fn one_of<'a, T>(&mut self, those: &'a [T]) -> &'a T {
        let place = self.below(those.len());
        &those[place]
    }

    /// Any JSON, mostly of the kind of what is asked for.
    fn value(&mut self, depth: usize) -> Value {
        let texts = [
            "",
            "/x",
            "1s",
            "24h",
            "25h",
            "-1",
            "mail",
            "\u{0}",
            "2027-01-31T09:00:00Z",
            "100/m",
            "GET",
            "00000000-0000-7000-8000-000000000001",
            "http://[::1]:9/",
            "é\u{1f980}",
            "404,422",
            "0 3 * * *",
        ];
        let numbers = [0, 1, -1, 5, 1_000, 1_000_001, i64::MAX, i64::MIN];
        match self.below(if depth > 2 { 6 } else { 9 }) {
            0..=2 => json!(*self.one_of(&texts)),
            3 => json!(*self.one_of(&numbers)),
            4 => json!([true, false][self.below(2)]),
            5 => [json!(null), json!(1.5), json!("q".repeat(300))][self.below(3)].clone(),
            6 => (0..self.below(4)).map(|_| self.value(depth + 1)).collect(),
            _ => self.object(depth + 1),
        }
    }

    /// An object of fields that some request knows, and one that none does.
    fn object(&mut self, depth: usize) -> Value {
        let fields = [
            "url",
            "queue",
            "method",
            "headers",
            "body",
            "json",
            "body_base64",
            "in",
            "at",
            "priority",
            "max_attempts",
            "deadline",
            "unique_key",
            "unique_for",
            "retry_wait",
            "asynchronous",
            "heartbeat",
            "id",
            "batch",
            "after",
            "on",
            "jobs",
            "on_success",
            "on_complete",
            "sealed",
            "name",
            "cron",
            "zone",
            "misfire",
            "misfire_limit",
            "concurrency",
            "rate",
            "burst",
            "permanent_statuses",
            "nonsense",
        ];
        let mut object = serde_json::Map::new();
        if self.below(2) == 0 {
            object.insert("url".to_owned(), json!("/x"));
        }
        for _ in 0..self.below(5) {
            let field = *self.one_of(&fields);
            let value = self.value(depth);
            object.insert(field.to_owned(), value);
        }
        Value::Object(object)
    }
}

/// Whatever is sent, the answer is one of the documented kinds, nothing is half done, and the node lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_so_strange_that_the_answer_is() {
    let served = Served::start(None).await;
    let mut chance = Chance(rand_core::SeedableRng::seed_from_u64(7));
    let kinds = [JSON, JSON, JSON, JSON, LINES, "text/plain", "application/json; charset=utf-8"];
    let id = "01990000-0000-7000-8000-000000000001";
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..600 {
        let paths = [
            (Method::POST, "/v1/jobs".to_owned()),
            (Method::POST, "/v1/batches".to_owned()),
            (Method::PUT, format!("/v1/schedules/s{}", chance.below(9))),
            (Method::PUT, format!("/v1/queues/q{}", chance.below(9))),
            (Method::POST, format!("/v1/batches/{id}/seal")),
            (Method::GET, format!("/v1/jobs?limit={}&batch={id}", chance.below(1_200))),
            (Method::GET, format!("/v1/batches?before={}", chance.one_of(&[id, "7", "%00"]))),
        ];
        let (method, path) = chance.one_of(&paths).clone();
        let body = match chance.below(12) {
            0 => (0..chance.below(9)).map(|_| chance.value(0)).collect::<Value>().to_string(),
            1 => chance.object(0).to_string()[1..].to_owned(),
            2 => "\u{feff}{}".to_owned(),
            3 => format!("{}{}", "[".repeat(200), "]".repeat(200)),
            _ => chance.object(0).to_string(),
        };
        let ask = served.ask(method.clone(), &path).header(CONTENT_TYPE, *chance.one_of(&kinds));
        let ask = if method == Method::GET { ask } else { ask.body(body.clone()) };
        let (status, told) = told(ask.send().await.unwrap()).await;
        assert!(status.as_u16() < 500, "{method} {path} {body}: {status} {told}");
        *(if status.is_success() { &mut taken } else { &mut refused }) += 1;
    }
    println!("    {taken} were taken, {refused} refused");
    assert!(taken > 50 && refused > 50, "{taken} were taken, {refused} refused");
    let (status, jobs) = served.get("/v1/jobs?limit=1000").await;
    assert_eq!(status, StatusCode::OK);
    let jobs = jobs["jobs"].as_array().unwrap().len();
    assert_eq!(jobs, served.count().await, "every job that is there can be read");
}
