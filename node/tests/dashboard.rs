//! The dashboard over HTTP, as a browser without JavaScript and as somebody who means harm: every page, every button,
//! hostile texts in every field, and who is turned away.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use reqwest::header::{CONTENT_TYPE, HOST, LOCATION, ORIGIN};
use reqwest::{Client, Response, StatusCode, redirect};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection, Executor};
use tempfile::TempDir;
use tokio::net::TcpListener;
use turnwise_engine::NodeId;
use turnwise_node::batch::NewBatch;
use turnwise_node::config::Retention;
use turnwise_node::dashboard::{self, Action, Controls, Door};
use turnwise_node::job::{JobFilter, JobId, JobState, NewJob};
use turnwise_node::redact::Redaction;
use turnwise_node::serve;
use turnwise_node::store::{AnyStore, Batches, NodeView, Registration, Requests, Store};
use turnwise_node::watch::Hub;

/// Breaks out of any text, attribute, script or address that does not escape it.
const HOSTILE: &str = "<b id=hostile>'\"></title></script><script>alert(1)</script>&amp;{{7*7}}";

/// A dashboard that is served, and what is behind it.
struct Served {
    folder: TempDir,
    address: SocketAddr,
    client: Client,
    pressed: Arc<Mutex<Vec<String>>>,
}

struct Buttons(Arc<Mutex<Vec<String>>>);

impl Controls for Buttons {
    fn for_node(&self, node: &NodeView) -> Vec<Action> {
        let hint = format!("{HOSTILE} {}", node.name);
        vec![Action { name: "kill".to_owned(), label: HOSTILE.to_owned(), hint }]
    }

    fn for_farm(&self) -> Vec<Action> {
        let text = || HOSTILE.to_owned();
        vec![Action { name: text(), label: text(), hint: text() }]
    }

    fn perform<'a>(
        &'a self,
        action: &'a str,
        node: Option<&'a NodeView>,
    ) -> BoxFuture<'a, Result<String, String>> {
        let name = node.map_or("the farm", |node| &node.name);
        self.0.lock().unwrap().push(format!("{action} {name}"));
        let said = format!("{HOSTILE} {action} was done");
        async move { if action == "refuse" { Err(said) } else { Ok(said) } }.boxed()
    }
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
        let door = Door::new(address, token.map(str::to_owned));
        let pressed = Arc::new(Mutex::new(Vec::new()));
        let buttons: Arc<dyn Controls> = Arc::new(Buttons(Arc::clone(&pressed)));
        let redaction = Redaction::new(["X-Tenant-Key"], ["pin"]);
        let routes = dashboard::router(
            Hub::new(store).redacting(redaction),
            Retention::default(),
            door,
            Some(buttons),
            axum::Router::new(),
        );
        tokio::spawn(serve::serve(listener, routes));
        // reqwest is built without a provider of TLS, which plain HTTP does not need and its builder wants.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .timeout(Duration::from_secs(30))
            .build()
            .unwrap();
        Self { folder, address, client, pressed }
    }

    fn store(&self) -> AnyStore {
        let url = format!("sqlite://{}/turnwise.db", self.folder.path().display());
        AnyStore::connect(&url, 1).unwrap()
    }

    async fn sql(&self, sql: &str) {
        let options = SqliteConnectOptions::new().filename(self.folder.path().join("turnwise.db"));
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.unwrap();
    }

    async fn get(&self, path: &str) -> Response {
        self.client.get(format!("http://{}{path}", self.address)).send().await.unwrap()
    }

    async fn text(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.text().await.unwrap()
    }

    /// Press a button of a page of ours.
    async fn post(&self, path: &str, form: &str) -> Response {
        self.client
            .post(format!("http://{}{path}", self.address))
            .header(ORIGIN, format!("http://{}", self.address))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.to_owned())
            .send()
            .await
            .unwrap()
    }

    /// What the page says that a button leads back to.
    async fn said(&self, answer: &Response) -> String {
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        let to = answer.headers()[LOCATION].to_str().unwrap().to_owned();
        let page = self.text(&to).await;
        let from = page.find("class=\"said").unwrap();
        page[from..].split("</p>").next().unwrap().to_owned()
    }

    /// A farm whose every text is hostile: a node in the ring, a dead one, jobs in several states, attempts.
    async fn poison(&self) -> JobId {
        let store = self.store();
        let id = NodeId::from_u128(1);
        for (number, name) in [(1, HOSTILE.to_owned()), (2, format!("2{HOSTILE}"))] {
            let id = NodeId::from_u128(number);
            store.register(&Registration { id, name, capacity: 4 }).await.unwrap();
        }
        let jobs: Vec<NewJob> = (0..60)
            .map(|_| NewJob {
                queue: HOSTILE.to_owned(),
                method: "<i>'\"&".to_owned(),
                ..NewJob::new(format!("/{HOSTILE}"))
            })
            .collect();
        store.enqueue(&jobs).await.unwrap();
        let (job, running) = (jobs[59].id, jobs[58].id);
        let hostile = HOSTILE.replace('\'', "''");
        self.sql(&format!(
            "UPDATE turnwise_jobs SET state = 'dead', last_error = '{hostile}', last_status = 500, node = '{id}',
                finished_at = created_at, attempt = 1 WHERE id = '{job}';
             UPDATE turnwise_jobs SET state = 'running', node = '{id}', token = 1, attempt = 1, started_at = created_at
                WHERE id = '{running}';
             UPDATE turnwise_jobs SET headers = json_object('{hostile}', '{hostile}'), body = CAST('{hostile}' AS BLOB),
                concurrency_key = '{hostile}';
             INSERT INTO turnwise_audit (at, actor, role, action, subject, affected)
                VALUES (1, '{hostile}', '<i>''\"&', '<i>''\"&', '{hostile}', 1);
             INSERT INTO turnwise_attempts SELECT '{job}', '{id}', 1, 1, created_at, created_at + 5, 500, '{hostile}',
                CAST('{hostile}' AS BLOB) FROM turnwise_jobs WHERE id = '{job}';
             UPDATE turnwise_turn SET slot = 1000, high = 1000, versions = '[{{\"from\":1,\"ring\":[\"{id}\"]}}]',
                epoch = 1;
             INSERT INTO turnwise_queues (name, paused_at) VALUES ('{hostile}', 1), ('2{hostile}', 1);
             INSERT INTO turnwise_schedules (name, cron, zone, url, error, revision)
                VALUES ('{hostile}', '@daily', 'UTC', '/{hostile}', '{hostile}', 1), ('2{hostile}', '@daily', 'UTC', '/x', NULL, 1);
             INSERT INTO turnwise_beats VALUES (999, '{id}', 999000000, 3), (1000, '{id}', 1000400000, 0);"
        ))
        .await;
        job
    }
}

/// The addresses on a page, those of forms among them.
fn links(page: &str) -> Vec<String> {
    let parts = page.split("href=\"").chain(page.split("action=\"")).skip(1);
    let links = parts.filter_map(|part| part.split('"').next());
    links.filter(|link| link.starts_with('/')).map(|link| link.replace("&amp;", "&")).collect()
}

/// Nothing of what is hostile has become more than text, and nothing stands inline.
fn assert_inert(path: &str, page: &str) {
    for bad in ["<b id=", "<script>", "<i>'", "<style", "style=\"", "javascript:", "<iframe"] {
        assert!(!page.contains(bad), "{path} has {bad}: {page}");
    }
    assert_eq!(
        page.matches("<script").count(),
        page.matches("<script src=\"/assets/").count(),
        "{path}"
    );
    for attribute in [" onclick", " onload", " onerror", " onmouseover"] {
        assert!(!page.contains(attribute), "{path}: {attribute}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_texts_are_inert_on_every_page() {
    let served = Served::start(None).await;
    let job = served.poison().await;
    let mut to_see: Vec<String> =
        ["/", "/timeline", "/nodes", "/jobs", "/batches", "/queues", "/schedules", "/login"]
            .map(str::to_owned)
            .to_vec();
    to_see.push(format!("/jobs/{job}"));
    to_see.push(format!("/jobs?queue={}", "%3Cb%20id%3D%22x"));
    let mut seen = BTreeSet::new();
    while let Some(path) = to_see.pop() {
        if !seen.insert(path.clone()) || path.starts_with("/assets/") || seen.len() > 120 {
            continue;
        }
        let answer = served.get(&path).await;
        let policy = answer.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{path}");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        let page = answer.text().await.unwrap();
        assert_inert(&path, &page);
        to_see.extend(links(&page));
    }
    assert!(seen.len() > 60, "it was walked from link to link: {seen:?}");
    let page = served.text(&format!("/jobs/{job}")).await;
    assert!(page.contains("&lt;b id=hostile&gt;"), "and it is there: {page}");
    let drain = format!("/nodes/{}/drain", NodeId::from_u128(1));
    for path in [format!("/jobs/{job}/cancel"), drain, "/farm/do".to_owned()] {
        let answer = served.post(&path, "").await;
        let page = match answer.status() {
            StatusCode::OK => answer.text().await.unwrap(),
            _ => served.said(&answer).await,
        };
        assert_inert(&path, &page);
        assert!(page.contains("hostile"), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_its_targets_hold_back_says_so() {
    let served = Served::start(None).await;
    served
        .sql(
            "INSERT INTO turnwise_queues (name, slow_down_ms, slowed_until) VALUES
                ('slow', 86400000, unixepoch() * 1000000 + 3600000000), ('over', 86400000, 1)",
        )
        .await;
    let page = served.text("/queues").await;
    assert_eq!(page.matches("held back</span>, goes on <time").count(), 1, "{page}");
    assert_eq!(page.matches("held back for up to 1day when a target asks").count(), 2, "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_and_schedules_are_ordered_from_their_pages() {
    let served = Served::start(None).await;
    served.poison().await;
    let name = "mail%20%26%20more";
    for (path, form, says) in [
        ("/queues/pause", format!("queue={name}"), "is paused."),
        ("/queues/pause", format!("queue={name}"), "is paused already"),
        ("/queues/resume", format!("queue={name}"), "is resumed."),
        ("/queues/resume", format!("queue={name}"), "is not paused"),
        ("/queues/pause", "queue=".to_owned(), "is not empty"),
        ("/queues/pause", format!("queue={}", "q".repeat(129)), "128 bytes"),
        ("/schedules/do", "name=none&deed=run".to_owned(), "there is no schedule none"),
        ("/schedules/do", "name=2%3Cb&deed=run".to_owned(), "there is no schedule"),
    ] {
        let said = served.said(&served.post(path, &form).await).await;
        assert!(said.contains(says), "{path} {form}: {said}");
    }
    let hostile: String =
        url::form_urlencoded::byte_serialize(format!("2{HOSTILE}").as_bytes()).collect();
    for (deed, says) in [
        ("run", "is enqueued."),
        ("pause", "is paused."),
        ("pause", "is paused already"),
        ("resume", "is resumed."),
        ("resume", "is not paused"),
        ("dance", "no such button"),
    ] {
        let answer = served.post("/schedules/do", &format!("name={hostile}&deed={deed}")).await;
        let said = served.said(&answer).await;
        assert!(said.contains(says), "{deed}: {said}");
        assert_inert("/schedules/do", &said);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_seen_sealed_and_cancelled_from_its_page() {
    let served = Served::start(None).await;
    let store = served.store();
    let batch = NewBatch {
        name: Some(HOSTILE.to_owned()),
        on_success: Some(NewJob::new(format!("/{HOSTILE}"))),
        is_sealed: false,
        ..NewBatch::of(vec![NewJob::new(format!("/{HOSTILE}"))])
    };
    store.make_batch(&batch).await.unwrap();
    let here = format!("/batches/{}", batch.id);
    let job = batch.jobs[0].id;
    let waits = batch.on_success.as_ref().unwrap().id;
    for path in ["/batches".to_owned(), here.clone(), format!("/jobs?batch={}", batch.id)] {
        let page = served.text(&path).await;
        assert_inert(&path, &page);
        assert!(page.contains("hostile"), "{path}: {page}");
    }
    let page = served.text(&here).await;
    for link in [format!("/jobs/{job}"), format!("/jobs/{waits}"), "0 of 1".to_owned()] {
        assert!(page.contains(&link), "{link}: {page}");
    }
    let page = served.text(&format!("/jobs/{waits}")).await;
    assert!(page.contains("Waits for") && page.contains(&here), "{page}");
    assert!(served.text(&format!("/jobs/{job}")).await.contains(&here));
    let (seal, cancel) = (format!("{here}/seal"), format!("{here}/cancel"));
    assert!(served.said(&served.post(&seal, "").await).await.contains("It is sealed"));
    assert!(served.said(&served.post(&seal, "").await).await.contains("sealed already"));
    let asked = served.post(&cancel, "").await;
    assert_eq!(asked.status(), StatusCode::OK);
    assert_inert(&cancel, &asked.text().await.unwrap());
    let said = served.said(&served.post(&cancel, "sure=yes").await).await;
    assert!(said.contains("cancelled, with 1 of its jobs"), "{said}");
    assert!(served.said(&served.post(&seal, "").await).await.contains("has ended (cancelled)"));
    for path in ["/batches/7".to_owned(), format!("/batches/{waits}")] {
        assert_eq!(served.get(&path).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(served.get("/batches?before=7").await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_ordered_on_a_page_is_on_the_page_audit() {
    let served = Served::start(None).await;
    let store = served.store();
    let node = NodeId::from_u128(1);
    let registration = Registration { id: node, name: "a".to_owned(), capacity: 1 };
    store.register(&registration).await.unwrap();
    let jobs: Vec<NewJob> = (0..3).map(|_| NewJob::new("/x")).collect();
    store.enqueue(&jobs).await.unwrap();
    let id = jobs[0].id;
    assert!(served.text("/audit").await.contains("There is nothing."));
    for (path, form) in [
        (format!("/jobs/{id}/cancel"), "sure=yes"),
        (format!("/jobs/{id}/retry"), ""),
        ("/jobs/all".to_owned(), "action=cancel&state=ready&sure=yes"),
        ("/queues/pause".to_owned(), "queue=a%3Cb%3E"),
        ("/queues/pause".to_owned(), "queue=a%3Cb%3E"),
        (format!("/nodes/{node}/drain"), "sure=yes"),
    ] {
        assert_eq!(served.post(&path, form).await.status(), StatusCode::SEE_OTHER, "{path}");
    }
    // Asked about, and not done yet.
    served.post(&format!("/jobs/{id}/cancel"), "").await;
    let page = served.text("/audit").await;
    let rows: Vec<&str> = page.split("<tr>").skip(2).collect();
    let expected = [
        ("node.drain", node.to_string(), 1),
        ("queue.pause", "a&lt;b&gt;".to_owned(), 1),
        ("jobs.cancel", "state=ready".to_owned(), 3),
        ("job.retry", id.to_string(), 1),
        ("job.cancel", id.to_string(), 1),
    ];
    assert_eq!(rows.len(), expected.len(), "{page}");
    for (row, (action, subject, many)) in rows.iter().zip(expected) {
        for text in
            ["<td>dashboard</td>", "<td>operate</td>", action, &subject, &format!(">{many}</td>")]
        {
            assert!(row.contains(text), "{text}: {row}");
        }
    }
    served
        .sql(
            "INSERT INTO turnwise_audit (at, actor, role, action, subject, affected)
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60)
             SELECT 0, 'many', 'operate', 'queue.set', 'q' || i, NULL FROM n",
        )
        .await;
    let page = served.text("/audit").await;
    assert!(page.contains("<td>q60</td>") && !page.contains("<td>q10</td>"), "{page}");
    assert!(page.contains("not known"), "{page}");
    let older = links(&page).into_iter().find(|link| link.starts_with("/audit?before="));
    let older = served.text(&older.unwrap()).await;
    assert!(older.contains("<td>q10</td>") && older.contains("job.cancel"), "{older}");
    assert_eq!(served.get("/audit?before=x").await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_shows_no_value_that_opens_something() {
    let served = Served::start(None).await;
    let headers = [("Cookie", "c=s3cret1"), ("X-Tenant-Key", "s3cret2"), ("X-Tenant", "seven")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let body = br#"{"card":{"PIN":"s3cret3","owner":"ada"}}"#.to_vec();
    let concurrency_key = "customer 7".parse().ok();
    let job = NewJob { headers, body: Some(body.clone()), concurrency_key, ..NewJob::new("/x") };
    let parent = Some(job.id);
    let plain = NewJob { body: Some(b"pin=1234".to_vec()), parent, ..NewJob::new("/y") };
    let (id, other) = (job.id, plain.id);
    served.store().enqueue(&[job, plain]).await.unwrap();
    // Of an answer only the beginning is kept: it ends within the value.
    served
        .sql(&format!(
            "UPDATE turnwise_jobs SET state = 'succeeded', finished_at = 2, attempt = 1, token = 1, started_at = 1,
                node = '{}', answer = CAST('{{\"ok\":true,\"pin\":\"s3cret4' AS BLOB) WHERE id = '{id}'",
            NodeId::from_u128(1)
        ))
        .await;
    let page = served.text(&format!("/jobs/{id}")).await;
    for told in [
        "Cookie",
        "X-Tenant-Key",
        "seven",
        "&quot;owner&quot;:&quot;ada&quot;",
        "&quot;ok&quot;:true",
        "<dt>Concurrency key</dt><dd>customer 7</dd>",
    ] {
        assert!(page.contains(told), "{told}: {page}");
    }
    assert!(!page.contains("s3cret"), "{page}");
    assert_eq!(page.matches("[redacted]").count(), 4, "{page}");
    assert!(!page.contains("<dt>Parent</dt>"), "{page}");
    let page = served.text(&format!("/jobs/{other}")).await;
    let link = format!("<dt>Parent</dt><dd><a href=\"/jobs/{id}\"><code>{id}</code></a></dd>");
    assert!(page.contains(&link), "{page}");
    assert!(page.contains("pin=1234"), "a body that is no JSON is shown as it is: {page}");
    let kept = served.store().request(id).await.unwrap().unwrap();
    assert_eq!(kept.body, Some(body), "what is stored stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_exist_is_said_to_be_so() {
    let served = Served::start(None).await;
    let nobody = NodeId::from_u128(77);
    for (path, says) in [
        ("/nowhere".to_owned(), "no such page"),
        (format!("/nodes/{nobody}"), "no such node"),
        ("/nodes/x".to_owned(), "no such node"),
        (format!("/jobs/{}", JobId::generate()), "no such job"),
        (format!("/jobs/{}", JobId::generate()), "for 24h after their end"),
        (format!("/jobs/{}", JobId::generate()), "for 30 days after their end"),
        ("/jobs/7".to_owned(), "no such job"),
        ("/assets/x.js".to_owned(), "no such asset"),
    ] {
        let answer = served.get(&path).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        assert!(answer.text().await.unwrap().contains(says), "{path}");
    }
    for path in [format!("/nodes/{nobody}/do"), format!("/jobs/{}/retry", JobId::generate())] {
        let answer = served.post(&path, "action=kill").await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
    }
    for (path, says) in [
        ("/jobs?state=asleep", "There is no state"),
        ("/jobs?queue=%00", "without control characters"),
        ("/jobs?queue=a%0A", "without control characters"),
    ] {
        let answer = served.get(path).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{path}");
        assert!(answer.text().await.unwrap().contains(says), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_retried_and_cancelled_and_a_repeated_action_says_what_is_the_case() {
    let served = Served::start(None).await;
    let job = served.poison().await;
    let store = served.store();
    let state = async || store.job(job).await.unwrap().unwrap().0.state.as_str();
    let retried = served.post(&format!("/jobs/{job}/retry"), "").await;
    assert!(served.said(&retried).await.contains("runs again now"));
    assert_eq!(state().await, "ready");
    // Cancelling is asked about; only who is sure has it done.
    let asked = served.post(&format!("/jobs/{job}/cancel"), "").await;
    assert!(asked.text().await.unwrap().contains("Cancel this job?"));
    assert_eq!(state().await, "ready");
    let cancelled = served.post(&format!("/jobs/{job}/cancel"), "sure=yes").await;
    assert!(served.said(&cancelled).await.contains("It is cancelled."));
    let again = served.post(&format!("/jobs/{job}/cancel"), "sure=yes").await;
    let said = served.said(&again).await;
    assert!(said.contains("refused") && said.contains("is cancelled now"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_drained_when_somebody_is_sure_and_only_once() {
    let served = Served::start(None).await;
    served.poison().await;
    let store = served.store();
    let node = NodeId::from_u128(1);
    let order = format!("/nodes/{node}/drain");
    let state = async || {
        let nodes = store.nodes().await.unwrap();
        nodes.into_iter().find(|other| other.id == node).unwrap().state
    };
    let before = state().await;
    assert!(served.text("/nodes").await.contains(&format!("action=\"{order}\"")));
    let asked = served.post(&order, "").await.text().await.unwrap();
    assert!(asked.contains("Drain ") && asked.contains("Drain it"), "{asked}");
    assert_inert(&order, &asked);
    assert_eq!(state().await, before, "nothing is done before somebody is sure");
    let drained = served.post(&order, "sure=yes").await;
    assert!(served.said(&drained).await.contains("asked to drain"));
    let again = served.post(&order, "sure=yes").await;
    let said = served.said(&again).await;
    assert!(said.contains("refused") && said.contains("before"), "{said}");
    served.sql("UPDATE turnwise_nodes SET state = 'left'").await;
    let gone = served.post(&order, "sure=yes").await;
    let said = served.said(&gone).await;
    assert!(said.contains("refused") && said.contains("gone"), "{said}");
    // The page is of the last look, which may be as old as a slot.
    let is_gone = async {
        while served.text("/nodes").await.contains(&format!("action=\"{order}\"")) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let is_gone = tokio::time::timeout(Duration::from_secs(60), is_gone).await;
    is_gone.expect("the button of a node that is gone stays");
    for nowhere in [format!("/nodes/{}/drain", NodeId::from_u128(9)), "/nodes/x/drain".to_owned()] {
        let answer = served.post(&nowhere, "sure=yes").await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_offered_besides_is_done_and_leads_back() {
    let served = Served::start(None).await;
    served.poison().await;
    let node = NodeId::from_u128(1);
    let page = served.text("/nodes").await;
    assert!(page.contains(&format!("action=\"/nodes/{node}/do\"")), "{page}");
    let answer = served.post(&format!("/nodes/{node}/do"), "action=kill&back=%2Fnodes").await;
    assert!(answer.headers()[LOCATION].to_str().unwrap().starts_with("/nodes?said="));
    assert!(served.said(&answer).await.contains("kill was done"));
    let answer = served.post("/farm/do", "action=refuse&back=%2F%2Fevil.example").await;
    let to = answer.headers()[LOCATION].to_str().unwrap().to_owned();
    assert!(to.starts_with("/?said="), "{to}");
    assert!(served.said(&answer).await.contains("refused"));
    let long = format!("action={}", "x".repeat(65));
    assert!(served.said(&served.post("/farm/do", &long).await).await.contains("long"));
    let pressed = served.pressed.lock().unwrap().clone();
    assert_eq!(pressed, [format!("kill {HOSTILE}"), "refuse the farm".to_owned()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_sites_and_other_names_are_turned_away() {
    let served = Served::start(None).await;
    let job = served.poison().await;
    let url = format!("http://{}/jobs/{job}/retry", served.address);
    for origin in [None, Some("http://evil.example"), Some("null")] {
        let mut request = served.client.post(&url);
        if let Some(origin) = origin {
            request = request.header(ORIGIN, origin);
        }
        assert_eq!(request.send().await.unwrap().status(), StatusCode::FORBIDDEN, "{origin:?}");
    }
    assert_eq!(served.store().job(job).await.unwrap().unwrap().0.state.as_str(), "dead");
    let read = async |path: &str, site: &str, mode: &str| {
        let request = served.client.get(format!("http://{}{path}", served.address));
        let request = request.header("sec-fetch-site", site).header("sec-fetch-mode", mode);
        request.send().await.unwrap().status()
    };
    for path in ["/", "/jobs", "/live", "/assets/live.js"] {
        for site in ["cross-site", "same-site"] {
            for mode in ["no-cors", "cors", "same-origin"] {
                assert_eq!(read(path, site, mode).await, StatusCode::FORBIDDEN, "{path} {mode}");
            }
        }
        assert_eq!(read(path, "same-origin", "cors").await, StatusCode::OK, "{path}");
    }
    assert_eq!(read("/jobs", "cross-site", "navigate").await, StatusCode::OK, "a link");
    assert_eq!(read("/jobs", "none", "navigate").await, StatusCode::OK, "typed");
    let other =
        served.client.get(format!("http://{}/", served.address)).header(HOST, "evil.example");
    assert_eq!(other.send().await.unwrap().status(), StatusCode::MISDIRECTED_REQUEST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_token_nothing_is_seen_without_it() {
    let served = Served::start(Some("0123456789abcdef")).await;
    let job = served.poison().await;
    for path in ["/", "/jobs", "/batches", "/queues", "/schedules", "/nodes", "/timeline"] {
        let answer = served.get(path).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{path}");
        assert_eq!(answer.headers()[LOCATION], "/login");
    }
    assert_eq!(served.get("/live").await.status(), StatusCode::UNAUTHORIZED);
    let unheard = served.post(&format!("/jobs/{job}/retry"), "").await;
    assert_eq!(unheard.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(served.post("/login", "token=wrong").await.status(), StatusCode::FORBIDDEN);
    let entered = served.post("/login", "token=0123456789abcdef").await;
    let cookie = entered.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let name = format!("turnwise-{}=", served.address.port());
    assert!(cookie.starts_with(&name) && cookie.contains("Max-Age=43200"), "{cookie}");
    assert!(!cookie.contains("Secure"), "it was not asked for by TLS: {cookie}");
    let by_tls = served.client.post(format!("http://{}/login", served.address));
    let by_tls = by_tls.header("x-forwarded-proto", "https");
    let by_tls = by_tls.header(ORIGIN, format!("https://{}", served.address));
    let by_tls = by_tls.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    let by_tls = by_tls.body("token=0123456789abcdef").send().await.unwrap();
    let secure = by_tls.headers()["set-cookie"].to_str().unwrap();
    assert!(secure.ends_with("; Secure"), "{secure}");
    assert!(!cookie.contains("0123456789abcdef"), "the token itself is not kept: {cookie}");
    let session = cookie.split(';').next().unwrap();
    let url = format!("http://{}/", served.address);
    let inside = served.client.get(&url).header("cookie", session).send().await.unwrap();
    assert_eq!(inside.status(), StatusCode::OK);
    let program = served.client.get(&url).bearer_auth("0123456789abcdef").send().await.unwrap();
    assert_eq!(program.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_home_page_is_small_also_with_fifty_nodes_and_works_without_javascript() {
    let served = Served::start(None).await;
    let store = served.store();
    let mut ring = Vec::new();
    for number in 1..=50 {
        let id = NodeId::from_u128(number);
        let name = format!("web-{number}.farm.example");
        store.register(&Registration { id, name, capacity: 16 }).await.unwrap();
        ring.push(format!("\"{id}\""));
    }
    let beats: Vec<String> = (1_000..1_600)
        .map(|slot| {
            let node = NodeId::from_u128(slot % 50 + 1);
            format!("({slot}, '{node}', {slot}000000, {})", slot % 7)
        })
        .collect();
    served
        .sql(&format!(
            "UPDATE turnwise_turn SET slot = 1599, high = 1599, epoch = 50,
                versions = '[{{\"from\":1000,\"ring\":[{}]}}]';
             INSERT INTO turnwise_beats VALUES {};",
            ring.join(","),
            beats.join(",")
        ))
        .await;
    let page = served.text("/").await;
    let mut bytes = page.len();
    assert!(page.contains("<noscript><meta http-equiv=\"refresh\""));
    assert!(page.contains("50 nodes take turns"), "{page}");
    assert_eq!(page.matches("class=\"slot ").count(), 200, "four rounds of fifty");
    for asset in links(&page).iter().filter(|link| link.starts_with("/assets/")) {
        bytes += served.text(asset).await.len();
    }
    bytes += served.text("/assets/live.js").await.len();
    println!("the home page with fifty nodes is {bytes} bytes in all");
    assert!(bytes < 100 * 1024, "{bytes} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_nodes_have_pages_of_bounded_size_and_all_are_reached() {
    let served = Served::start(None).await;
    let store = served.store();
    for number in 1..=1_000 {
        let id = NodeId::from_u128(number);
        let name = format!("web-{number}.farm.example");
        store.register(&Registration { id, name, capacity: 16 }).await.unwrap();
    }
    for path in ["/", "/timeline", "/nodes"] {
        let page = served.text(path).await;
        println!("{path} with a thousand nodes is {} bytes", page.len());
        assert!(page.len() < 300 * 1024, "{path}: {} bytes", page.len());
    }
    let (mut path, mut seen, mut pages) = ("/nodes".to_owned(), BTreeSet::new(), 0);
    loop {
        let page = served.text(&path).await;
        seen.extend(links(&page).into_iter().filter(|link| link.starts_with("/nodes/")));
        pages += 1;
        match page.split("rel=\"next\" href=\"").nth(1).and_then(|rest| rest.split('"').next()) {
            Some(next) if pages < 100 => path = next.to_owned(),
            _ => break,
        }
    }
    // What stands behind a node (its buttons) is not a node.
    let cards = seen.iter().filter(|link| link.matches('/').count() == 2).count();
    assert_eq!((cards, pages), (1_000, 17), "sixty to a page");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reader_looks_while_somebody_watches_and_no_longer() {
    let served = Served::start(None).await;
    served.poison().await;
    let hub = Hub::new(served.store());
    assert!(hub.farm().await.is_ok() && !hub.is_reading(), "a page by itself starts no reader");
    let (mut first, mut second) = (hub.watch(), hub.watch());
    let news = first.next().await.unwrap();
    let same = second.next().await.unwrap();
    assert!(news.answers && hub.is_reading());
    let (one, other) = (news.farm.unwrap(), same.farm.unwrap());
    assert!(Arc::ptr_eq(&one, &other), "both are told of one look");
    drop(first);
    assert!(second.next().await.is_some(), "one is left");
    drop(second);
    let stops = async {
        while hub.is_reading() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), stops).await.unwrap();
    let mut again = hub.watch();
    assert!(again.next().await.is_some() && hub.is_reading());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_that_drops_its_stream_frees_its_place() {
    let served = Served::start(None).await;
    served.poison().await;
    for _ in 0..150 {
        let mut stream = served.get("/live").await;
        assert_eq!(
            stream.status(),
            StatusCode::OK,
            "a hundred places are enough one after the other"
        );
        assert!(stream.chunk().await.unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_a_filter_finds_is_done_after_it_was_asked_how_many_it_touches() {
    let served = Served::start(None).await;
    served.poison().await;
    let store = served.store();
    let page = served.text("/jobs?state=ready").await;
    assert!(page.contains("action=\"/jobs/all\"") && page.contains("Cancel all of them…"));
    assert!(!page.contains("Run all of them now"), "they run by themselves");
    let form = "action=cancel&state=ready&queue=";
    let asked = served.post("/jobs/all", form).await.text().await.unwrap();
    assert!(asked.contains("58 jobs") && asked.contains("Cancel 58"), "{asked}");
    let filter = JobFilter { state: Some(JobState::Ready), limit: 100, ..JobFilter::default() };
    assert_eq!(store.jobs(&filter).await.unwrap().len(), 58, "nothing is done by asking");
    let done = served.post("/jobs/all", &format!("{form}&sure=yes")).await;
    assert_eq!(done.headers()[LOCATION].to_str().unwrap().find("/jobs?state=ready"), Some(0));
    assert!(served.said(&done).await.contains("58 jobs are cancelled"));
    assert!(store.jobs(&filter).await.unwrap().is_empty());
    let none = served.post("/jobs/all", "action=cancel&state=ready&queue=nobody").await;
    assert!(none.text().await.unwrap().contains("0 jobs"));
    for (form, says) in [
        ("action=retry&state=succeeded&sure=yes", "cannot be done to jobs in this state"),
        ("action=cancel&sure=yes", "cannot be done to jobs in this state"),
        ("action=burn&state=dead&sure=yes", "cannot be done to jobs in this state"),
        ("action=cancel&state=asleep&sure=yes", "There is no state"),
    ] {
        let said = served.said(&served.post("/jobs/all", form).await).await;
        assert!(said.contains("refused") && said.contains(says), "{form}: {said}");
    }
}
