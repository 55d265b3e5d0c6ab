//! Requests of somebody who gets it wrong: paths that are not there, bodies that are too large or not what they say, a
//! connection that ends too early.

use std::time::Duration;

use reqwest::header::{ALLOW, CONTENT_TYPE};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use turnwise_node::job::NewJob;
use turnwise_node::store::Store;

use crate::place::{JSON, LINES, Served, problem, told};

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
