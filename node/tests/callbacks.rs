//! Jobs that go on after an answer of 202, beside a real node: the URL that a target is sent is all that it needs, and nobody else's
//! will do.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

mod support;

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use support::target::{Seen, Target};
use tempfile::TempDir;
use turnwise_node::callback::Key;
use turnwise_node::job::{Asynchronous, JobId, JobState, JobView, NewJob, Progress};
use turnwise_node::store::{AnyStore, Callbacks, Store};

const PATIENCE: Duration = Duration::from_secs(60);

/// A node, its target and its database; it is killed when this is dropped.
struct Beside {
    target: Target,
    client: Client,
    node: Child,
    folder: TempDir,
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.node.kill();
        let _ = self.node.wait();
    }
}

impl Beside {
    async fn start(listen: &str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let target = Target::start().await;
        let node = Command::new(env!("CARGO_BIN_EXE_turnwise"))
            .args(["run", "--database-url", &url(&folder), "--listen", listen, "--period", "100ms"])
            .args(["--target", &target.origin()])
            .args(more)
            .env("TURNWISE_LOG", "warn")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
        let beside = Self { target, client, node, folder };
        beside.store().migrate().await.unwrap();
        beside
    }

    fn store(&self) -> AnyStore {
        AnyStore::connect(&url(&self.folder), 1).unwrap()
    }

    async fn enqueue(&self, job: NewJob) -> JobId {
        self.store().enqueue(&[job]).await.unwrap().remove(0)
    }

    /// The job, once it is so.
    async fn job(&self, id: JobId, is_so: impl Fn(&JobView) -> bool) -> JobView {
        let since = Instant::now();
        loop {
            let (job, _) = self.store().job(id).await.unwrap().unwrap();
            if is_so(&job) {
                return job;
            }
            assert!(since.elapsed() < PATIENCE, "it does not come to that: {job:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The last call of the job, once it has been accepted.
    async fn accepted(&self, id: JobId) -> Seen {
        self.job(id, |job| job.awaits_since.is_some()).await;
        let seen = self.target.seen().into_iter().rfind(|seen| seen.job == id.to_string());
        seen.unwrap()
    }

    /// It is said until it is answered so.
    async fn comes_to(&self, url: &str, status: StatusCode) {
        let since = Instant::now();
        while self.say(url, "").await.0 != status {
            assert!(since.elapsed() < PATIENCE, "it is never answered {status}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn say(&self, url: &str, body: impl Into<String>) -> (StatusCode, String) {
        let answer = self.client.post(url).body(body.into()).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }
}

fn url(folder: &TempDir) -> String {
    format!("sqlite://{}/turnwise.db", folder.path().display())
}

/// An address that nobody listens on just now.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn asynchronous() -> NewJob {
    NewJob { asynchronous: Some(Asynchronous::default()), ..NewJob::new("/status/202") }
}

fn callback(seen: &Seen) -> String {
    seen.headers["turnwise-callback"].to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_the_url_says_how_a_job_goes_on() {
    let address = free_address();
    let beside = Beside::start(&address, &[]).await;
    let id = beside.enqueue(asynchronous()).await;
    let here = callback(&beside.accepted(id).await);
    assert!(here.starts_with(&format!("http://{address}/v1/callbacks/{id}/")), "{here}");

    let (status, _) = beside.say(&format!("{here}/heartbeat"), "").await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let half = r#"{"percent": 50, "note": "half of it"}"#;
    assert_eq!(beside.say(&format!("{here}/heartbeat"), half).await.0, StatusCode::NO_CONTENT);
    let job = beside.job(id, |job| job.progress.is_some()).await;
    let note = Some("half of it".to_owned());
    assert_eq!(job.progress, Some(Progress { percent: Some(50), note }));

    // Nobody else's will do.
    let forged =
        format!("{}{}", &here[..here.len() - 1], if here.ends_with('0') { '1' } else { '0' });
    let other = here.replace(&id.to_string(), &JobId::generate().to_string());
    for wrong in [&forged, &other, &here[..here.len() - 64].to_owned()] {
        let (status, said) = beside.say(&format!("{wrong}/success"), "").await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{wrong}: {said}");
    }
    // What cannot be taken is told, and changes nothing.
    for (what, body, status, word) in [
        ("heartbeat", "half".to_owned(), StatusCode::BAD_REQUEST, "percent"),
        ("heartbeat", r#"{"percent": 200}"#.to_owned(), StatusCode::BAD_REQUEST, "0 to 100"),
        ("failure", "x".repeat(4_097), StatusCode::PAYLOAD_TOO_LARGE, "at most 4096"),
        ("success", "x".repeat(8_193), StatusCode::PAYLOAD_TOO_LARGE, "at most 8192"),
        ("success", "x".repeat(20_000), StatusCode::PAYLOAD_TOO_LARGE, "at most 16384"),
    ] {
        let (told, said) = beside.say(&format!("{here}/{what}"), body).await;
        assert_eq!(told, status, "{what}: {said}");
        assert!(said.contains(word), "{said}");
    }
    let asked = beside.client.get(format!("{here}/success")).send().await.unwrap();
    assert_eq!(asked.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(beside.job(id, |_| true).await.state, JobState::Running);

    // An end is said once.
    let result = "x".repeat(8_192);
    let (status, said) = beside.say(&format!("{here}/success"), &result).await;
    assert_eq!((status, said.as_str()), (StatusCode::NO_CONTENT, ""));
    let (job, attempts) = beside.store().job(id).await.unwrap().unwrap();
    assert_eq!(job.state, JobState::Succeeded);
    assert_eq!(attempts[0].answer.as_deref(), Some(result.as_bytes()));
    let again = beside.say(&format!("{here}/success"), "another").await;
    assert_eq!(again.0, StatusCode::NO_CONTENT, "its answer may have been lost");
    let (_, attempts) = beside.store().job(id).await.unwrap().unwrap();
    assert_eq!(attempts[0].answer.as_deref(), Some(result.as_bytes()), "the first counts");
    let (status, said) = beside.say(&format!("{here}/failure"), "").await;
    assert_eq!(status, StatusCode::GONE);
    assert!(said.contains("succeeded") && said.contains("stop"), "{said}");
    // A job that is not asynchronous is sent no URL, and is done with its answer.
    let plain = beside.enqueue(NewJob::new("/status/202")).await;
    beside.job(plain, |job| job.state == JobState::Succeeded).await;
    let seen = beside.target.seen().into_iter().rfind(|seen| seen.job == plain.to_string());
    assert!(!seen.unwrap().headers.contains_key("turnwise-callback"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_failed_elsewhere_is_tried_again_or_not() {
    let beside = Beside::start(&free_address(), &[]).await;
    let id = beside.enqueue(asynchronous()).await;
    let first = callback(&beside.accepted(id).await);
    let asked = beside.client.post(format!("{first}/failure")).header("retry-after", "100");
    assert_eq!(asked.body("no room").send().await.unwrap().status(), StatusCode::NO_CONTENT);
    let job = beside.job(id, |_| true).await;
    assert_eq!(job.state, JobState::Retrying);
    assert!(job.last_error.unwrap().contains("no room"));
    assert!(beside.store().retry(id).await.unwrap().unwrap());
    let second = callback(&beside.accepted(id).await);
    assert_ne!(first, second);
    // The first attempt is over, whoever remembers its URL.
    assert_eq!(beside.say(&format!("{first}/success"), "").await.0, StatusCode::NOT_FOUND);
    let asked = beside.client.post(format!("{second}/failure")).header("turnwise-no-retry", "true");
    assert_eq!(asked.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(beside.job(id, |_| true).await.state, JobState::Dead);
    // A cancelled one hears that it is.
    let id = beside.enqueue(asynchronous()).await;
    let here = callback(&beside.accepted(id).await);
    assert_eq!(beside.store().cancel(id).await.unwrap(), Some(true));
    let (status, said) = beside.say(&format!("{here}/heartbeat"), "").await;
    assert_eq!(status, StatusCode::GONE);
    assert!(said.contains("cancelled"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_nobody_hears_of_is_tried_again_and_then_given_up() {
    let base = "https://jobs.example.com/turnwise";
    let beside = Beside::start(&free_address(), &["--callback-url", base]).await;
    let heartbeat = Some(Duration::from_secs(1));
    let id = beside
        .enqueue(NewJob {
            asynchronous: Some(Asynchronous { heartbeat }),
            max_attempts: 2,
            ..asynchronous()
        })
        .await;
    let seen = beside.accepted(id).await;
    assert!(callback(&seen).starts_with(&format!("{base}/v1/callbacks/{id}/")));
    let job = beside.job(id, |job| job.state == JobState::Dead).await;
    assert_eq!(job.attempt, 2);
    assert!(job.last_error.unwrap().contains("nothing more was heard"));
    let calls = beside.target.seen().iter().filter(|seen| seen.job == id.to_string()).count();
    assert_eq!(calls, 2, "the last attempt is not made a third time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_a_failover_has_lost_or_changed_needs_no_restart() {
    let beside = Beside::start(&free_address(), &[]).await;
    let id = beside.enqueue(asynchronous()).await;
    let here = callback(&beside.accepted(id).await);
    let proof = here.rsplit_once('/').unwrap().1.to_owned();
    let secret = async |sql: &str| {
        let mut database = SqliteConnection::connect(&url(&beside.folder)).await.unwrap();
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut database).await.unwrap();
        let value = "SELECT value FROM turnwise_secrets WHERE name = 'callback'";
        sqlx::query_scalar::<_, String>(value).fetch_optional(&mut database).await.unwrap()
    };
    // Nodes that came after it share another one.
    let known = secret("SELECT 1").await.unwrap();
    secret("UPDATE turnwise_secrets SET value = 'theirs'").await;
    let last = beside.store().last_attempt(id).await.unwrap().unwrap();
    let theirs = Key::of("theirs").unwrap().url(
        here.split_once("/v1/").unwrap().0,
        id,
        (last.node, last.job.token),
    );
    assert_ne!(theirs, here);
    beside.comes_to(&format!("{theirs}/heartbeat"), StatusCode::NO_CONTENT).await;
    let (status, _) = beside.say(&format!("{here}/heartbeat"), "").await;
    assert_eq!(status, StatusCode::NO_CONTENT, "what it has sent before holds");
    let id = beside.enqueue(asynchronous()).await;
    let with_theirs = callback(&beside.accepted(id).await);
    let last = beside.store().last_attempt(id).await.unwrap().unwrap();
    let key = |secret: &str| Key::of(secret).unwrap();
    let url_of = |secret: &str| key(secret).url("", id, (last.node, last.job.token));
    assert!(with_theirs.ends_with(&url_of("theirs")) && !with_theirs.ends_with(&url_of(&known)));
    // It is gone: whoever knows it offers it again.
    assert_eq!(secret("DELETE FROM turnwise_secrets").await, None);
    let forged = with_theirs.replace(with_theirs.rsplit_once('/').unwrap().1, &proof);
    let since = Instant::now();
    while secret("SELECT 1").await.as_deref() != Some("theirs") {
        let (status, _) = beside.say(&format!("{forged}/heartbeat"), "").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(since.elapsed() < PATIENCE, "it does not come back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (status, _) = beside.say(&format!("{with_theirs}/success"), "").await;
    assert_eq!(status, StatusCode::NO_CONTENT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_can_call_back_no_job_goes_on_elsewhere() {
    let beside = Beside::start("off", &[]).await;
    let id = beside.enqueue(NewJob { max_attempts: 1, ..asynchronous() }).await;
    let job = beside.job(id, |job| job.state == JobState::Dead).await;
    assert!(job.last_error.unwrap().contains("--callback-url"));
    assert_eq!(beside.target.seen().len(), 0);
}
