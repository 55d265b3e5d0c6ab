//! Batches: made, shown, listed, sealed, cancelled; jobs of one, and jobs that wait for one.

use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use turnwise_node::job::JobId;

use crate::place::{JSON, Served, problem, told};

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
