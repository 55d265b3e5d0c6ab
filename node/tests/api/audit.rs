//! The audit: what is ordered is kept with who ordered it.

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use turnwise_engine::NodeId;
use turnwise_node::store::{Registration, Store, Tokens};
use turnwise_node::token::{Role, TokenHash};

use crate::place::{JSON, LINES, Served, problem, told};

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
