//! Nodes: listed and drained. Events: told as they happen.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use turnwise_engine::NodeId;
use turnwise_node::store::{Registration, Store};

use crate::place::{Served, problem};

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
