//! Jobs: enqueued, one or many or once more, shown, listed, cancelled, retried.

use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use turnwise_node::job::JobId;

use crate::place::{JSON, LINES, Served, problem, told};

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
async fn a_concurrency_key_is_of_as_many_jobs_as_want_it() {
    let served = Served::start(None).await;
    let job = json!({"url": "/x", "concurrency_key": "customer:7"});
    let key = async |enqueued: &Value| {
        let path = format!("/v1/jobs/{}", enqueued["id"].as_str().unwrap());
        served.get(&path).await.1["concurrency_key"].clone()
    };
    for _ in 0..2 {
        let (status, enqueued) = served.enqueue(&job).await;
        assert_eq!((status, &enqueued["enqueued"]), (StatusCode::CREATED, &json!(true)));
        assert_eq!(key(&enqueued).await, "customer:7");
    }
    let (_, enqueued) = served.enqueue(&json!({"url": "/x"})).await;
    assert!(key(&enqueued).await.is_null());
    for wrong in ["".to_owned(), "k".repeat(257), "a\0b".to_owned()] {
        let (status, told) = served.enqueue(&json!({"url": "/x", "concurrency_key": wrong})).await;
        let field = &told["errors"][0]["field"];
        assert_eq!((status, field), (StatusCode::UNPROCESSABLE_ENTITY, &json!("concurrency_key")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_says_which_job_has_enqueued_it() {
    let served = Served::start(None).await;
    // Whether there is such a job is not looked at.
    let parent = JobId::generate().to_string();
    let shown = async |job: Value| {
        let (status, enqueued) = served.enqueue(&job).await;
        assert_eq!(status, StatusCode::CREATED, "{job}");
        let path = format!("/v1/jobs/{}", enqueued["id"].as_str().unwrap());
        served.get(&path).await.1["parent"].clone()
    };
    assert_eq!(shown(json!({"url": "/x", "parent": null})).await, Value::Null);
    assert_eq!(shown(json!({"url": "/x", "parent": parent.to_uppercase()})).await, parent.as_str());
    let (_, page) = served.get("/v1/jobs").await;
    assert_eq!(page["jobs"][0]["parent"], parent.as_str());
    assert_eq!(page["jobs"][1].get("parent"), Some(&Value::Null), "it is not left out");
    for wrong in [json!("7"), json!(7), json!("")] {
        let (status, told) = served.enqueue(&json!({"url": "/x", "parent": wrong})).await;
        let field = &told["errors"][0]["field"];
        assert_eq!((status, field), (StatusCode::UNPROCESSABLE_ENTITY, &json!("parent")));
    }
    let of_a_schedule = json!({"cron": "@daily", "url": "/x", "parent": parent});
    let (status, told) = served.put("/v1/schedules/s", &of_a_schedule).await;
    assert_eq!(
        (status, &told["errors"][0]["field"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("parent"))
    );
}
