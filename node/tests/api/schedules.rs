//! Schedules: set, shown, ordered, removed.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::place::{Served, problem, told};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedules_are_set_shown_ordered_and_removed() {
    let served = Served::start(None).await;
    let path = "/v1/schedules/night%20ly";
    let nightly = json!({"concurrency_key": "tidy", "cron": "0 3 * * *", "zone": "Europe/Berlin", "url": "/jobs/tidy", "queue": "ticks"});
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
    assert_eq!(job["concurrency_key"], "tidy");
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
