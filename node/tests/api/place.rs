//! A node's API that is served, how it is asked, and what every answer must be. Decides nothing.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use turnwise_node::api;
use turnwise_node::config::Retention;
use turnwise_node::dashboard::{self, Door};
use turnwise_node::job::JobFilter;
use turnwise_node::redact::Redaction;
use turnwise_node::serve;
use turnwise_node::store::{AnyStore, Store};
use turnwise_node::watch::Hub;

pub(crate) const LINES: &str = "application/x-ndjson";
pub(crate) const JSON: &str = "application/json";

/// A node's API that is served, and the database behind it.
pub(crate) struct Served {
    folder: TempDir,
    pub(crate) address: SocketAddr,
    client: Client,
}

impl Served {
    pub(crate) async fn start(token: Option<&str>) -> Self {
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

    pub(crate) fn store(&self) -> AnyStore {
        let url = format!("sqlite://{}/turnwise.db", self.folder.path().display());
        AnyStore::connect(&url, 1).unwrap()
    }

    pub(crate) fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        told(self.ask(Method::GET, path).send().await.unwrap()).await
    }

    /// An order: all is said with the path.
    pub(crate) async fn order(&self, path: &str) -> (StatusCode, Value) {
        told(self.ask(Method::POST, path).send().await.unwrap()).await
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        kind: &str,
        body: impl Into<String>,
    ) -> (StatusCode, Value) {
        let ask = self.ask(Method::POST, path).header(CONTENT_TYPE, kind).body(body.into());
        told(ask.send().await.unwrap()).await
    }

    pub(crate) async fn enqueue(&self, job: &Value) -> (StatusCode, Value) {
        self.post("/v1/jobs", JSON, job.to_string()).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let ask = self.ask(Method::PUT, path).header(CONTENT_TYPE, JSON).body(body.to_string());
        told(ask.send().await.unwrap()).await
    }

    pub(crate) async fn count(&self) -> usize {
        let filter = JobFilter { limit: 20_000, ..JobFilter::default() };
        self.store().jobs(&filter).await.unwrap().len()
    }
}

/// The status, and what was said as JSON: a problem has its own type, and all that one must have.
pub(crate) async fn told(answer: Response) -> (StatusCode, Value) {
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

pub(crate) fn problem(told: &Value) -> &str {
    told["type"].as_str().unwrap().trim_start_matches("urn:turnwise:problem:")
}
