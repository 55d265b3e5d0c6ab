//! Who may come in: tokens and their roles, other sites, other names of this host.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, ORIGIN};
use reqwest::{Method, StatusCode};
use turnwise_node::store::{TokenMade, Tokens};
use turnwise_node::token::{Role, TokenHash};

use crate::place::{JSON, Served, problem, told};

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
