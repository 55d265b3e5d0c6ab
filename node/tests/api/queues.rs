//! Queues: listed, paused, resumed, and what holds for their jobs.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use turnwise_node::job::SlowDown;
use turnwise_node::store::Store;

use crate::place::Served;

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
    assert!(queues.iter().all(|queue| queue["held_back_until"].is_null()), "no target has asked");
    let pause =
        async |bytes: usize| served.order(&format!("/v1/queues/{}/pause", "q".repeat(bytes))).await;
    assert_eq!(pause(128).await.0, StatusCode::OK);
    assert_eq!(pause(129).await.1["errors"][0]["field"], "name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_holds_for_a_queue_is_set_and_what_is_wrong_is_named() {
    let served = Served::start(None).await;
    let said = json!({"concurrency": 5, "concurrency_per_key": 2, "rate": "100/m", "burst": 10,
        "retry_wait": "2s", "permanent_statuses": "422,404", "slow_down": "90s"});
    let (status, told) = served.put("/v1/queues/mail", &said).await;
    let policy = json!({"retry_wait_ms": 2_000, "retry_wait_max_ms": null,
        "permanent_statuses": "404,422", "concurrency": 5, "concurrency_per_key": 2,
        "rate": {"jobs": 100, "per_ms": 60_000, "burst": 10}, "slow_down_ms": 90_000});
    assert_eq!((status, &told), (StatusCode::OK, &policy));
    let (_, listed) = served.get("/v1/queues").await;
    assert_eq!(listed["queues"][0]["policy"], policy);
    for (wrong, fields) in [
        (json!({"concurrency": 0, "rate": "lots"}), ["concurrency", "rate"].as_slice()),
        (json!({"burst": 3}), &["burst"]),
        (json!({"rate": "1/s", "burst": -1, "retry_wait": "0s"}), &["retry_wait", "burst"]),
        (json!({"permanent_statuses": "200"}), &["permanent_statuses"]),
        (
            json!({"concurrency_per_key": 0, "slow_down": "25h"}),
            &["concurrency_per_key", "slow_down"],
        ),
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
async fn a_queue_that_its_targets_hold_back_says_until_when() {
    let served = Served::start(None).await;
    assert_eq!(served.put("/v1/queues/slow", &json!({"slow_down": "24h"})).await.0, StatusCode::OK);
    let wait = Duration::from_secs(3_600);
    let what = SlowDown { queue: "slow".to_owned(), wait };
    served.store().slow_down(&what).await.unwrap();
    let (_, listed) = served.get("/v1/queues").await;
    assert!(listed["queues"][0]["held_back_until"].is_string(), "{listed}");
    // Without it the queue goes on at once.
    assert_eq!(served.put("/v1/queues/slow", &json!({"concurrency": 5})).await.0, StatusCode::OK);
    let (_, listed) = served.get("/v1/queues").await;
    assert!(listed["queues"][0]["held_back_until"].is_null(), "{listed}");
}
