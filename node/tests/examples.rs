//! Each app of `examples/` beside a real node: a job that was enqueued with an order is done once, one that was rolled back never
//! was, and nobody but the node is heard.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

#[path = "../../examples/rust/app.rs"]
#[allow(dead_code, reason = "its main is not called here")]
mod shop;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use turnwise_engine::{ServerInstant, Token};
use turnwise_node::caller::{
    AllowedOrigins, Call, CallOutcome, Caller, HttpCaller, SigningKey, SigningKeys, Targets,
    prepare,
};
use turnwise_node::job::{ClaimedJob, JobFilter, JobId, JobState};
use turnwise_node::store::{AnyStore, Store};

const PATIENCE: Duration = Duration::from_secs(60);

/// A process that is killed when this is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A database with the schema, and a key.
struct Place {
    folder: TempDir,
    key: String,
}

impl Place {
    async fn new() -> Self {
        let place =
            Self { folder: tempfile::tempdir().unwrap(), key: SigningKey::text_of(&[7; 32]) };
        place.store().migrate().await.unwrap();
        place
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("turnwise.db")
    }

    fn url(&self) -> String {
        format!("sqlite://{}", self.file().display())
    }

    fn store(&self) -> AnyStore {
        AnyStore::connect(&self.url(), 1).unwrap()
    }

    /// A node beside the app at `origin`.
    fn node(&self, origin: &str) -> Killed {
        let node = Command::new(env!("CARGO_BIN_EXE_turnwise"))
            .args(["run", "--database-url", &self.url(), "--listen", "off", "--period", "100ms"])
            .args(["--target", origin])
            .env("TURNWISE_SIGNING_KEY", &self.key)
            .env("TURNWISE_LOG", "warn")
            .stdin(Stdio::null())
            .spawn();
        Killed(node.unwrap())
    }
}

/// Somebody who speaks to an app.
struct Visitor {
    targets: Targets,
    caller: HttpCaller,
}

impl Visitor {
    fn new(origin: &str) -> Self {
        let targets = Targets::parse(&[origin]).unwrap();
        Self { caller: HttpCaller::new(&targets).unwrap(), targets }
    }

    async fn ask(&self, call: &Call) -> (u16, Value) {
        let outcome = self.caller.call(call).await;
        let CallOutcome::Answered { status, body, .. } = outcome else { panic!("{outcome:?}") };
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// The call of a job, not signed.
    fn call(
        &self,
        id: JobId,
        method: &str,
        url: &str,
        body: Option<Value>,
        at: SystemTime,
    ) -> Call {
        let body = body.map(|body| Bytes::from(body.to_string()));
        let since = at.duration_since(UNIX_EPOCH).unwrap();
        let job = ClaimedJob {
            id,
            token: Token(1),
            queue: "default".to_owned(),
            method: method.to_owned(),
            url: url.to_owned(),
            headers: None,
            body_bytes: body.as_ref().map_or(0, Bytes::len) as u64,
            body,
            attempt: 1,
            max_attempts: 20,
            hand_backs: 0,
            deadline_ms: 10_000,
            scheduled_at: ServerInstant::from_micros(0),
            particulars: Default::default(),
        };
        let at = ServerInstant::from_micros(since.as_micros() as i64);
        prepare(&job, &self.targets, &AllowedOrigins::default(), at).unwrap()
    }

    async fn order(&self, item: &str) -> (u16, Value) {
        let wish = Some(json!({ "item": item }));
        self.ask(&self.call(JobId::generate(), "POST", "/orders", wish, SystemTime::now())).await
    }

    async fn receipts(&self, order: i64) -> i64 {
        let url = format!("/orders/{order}");
        let call = self.call(JobId::generate(), "GET", &url, None, SystemTime::now());
        let (status, shown) = self.ask(&call).await;
        assert_eq!(status, 200);
        shown["receipts"].as_i64().unwrap()
    }
}

/// What is expected of each app.
async fn a_shop_does_its_jobs(place: &Place, origin: &str) {
    let visitor = Visitor::new(origin);
    let store = place.store();
    let jobs = async |state| {
        let filter = JobFilter { state, limit: 1_000, ..JobFilter::default() };
        store.jobs(&filter).await.unwrap()
    };

    // One order and its job; the second one is rolled back, and its job with it.
    assert_eq!(visitor.order("tea").await, (201, json!({ "order": 1 })));
    assert_eq!(visitor.order("tea").await.0, 409);
    assert_eq!(jobs(None).await.len(), 1);
    assert_eq!(visitor.receipts(1).await, 0);
    let _node = place.node(origin);
    let since = Instant::now();
    while jobs(Some(JobState::Succeeded)).await.is_empty() {
        assert!(since.elapsed() < PATIENCE, "the job does not succeed: {:?}", jobs(None).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(visitor.receipts(1).await, 1);
    let done = jobs(None).await.remove(0).id;

    // A call that comes again is answered, and nothing is done twice.
    let keys = |text: &str| SigningKeys::new([text.parse().unwrap()]).unwrap();
    let (mine, other) = (keys(&place.key), keys(&SigningKey::text_of(&[8; 32])));
    let now = SystemTime::now();
    let url = "/jobs/receipt?order=1";
    let receipt = |id, at| visitor.call(id, "POST", url, None, at);
    let mut again = mine.sign(receipt(done, now)).unwrap();
    assert_eq!(visitor.ask(&again).await.0, 200);
    // Not even when what is not signed says that it is another.
    again.headers.insert("idempotency-key", JobId::generate().to_string().parse().unwrap());
    assert_eq!(visitor.ask(&again).await.0, 200);
    assert_eq!(visitor.receipts(1).await, 1);

    // Nobody else is heard.
    let new = JobId::generate();
    let old = now - Duration::from_secs(400);
    let mut redirected =
        mine.sign(visitor.call(new, "POST", "/jobs/receipt?order=2", None, now)).unwrap();
    redirected.url.set_query(Some("order=1"));
    let forged = [
        ("no signature", receipt(new, now)),
        ("another key", other.sign(receipt(new, now)).unwrap()),
        ("long ago", mine.sign(receipt(new, old)).unwrap()),
        ("another query", redirected),
    ];
    for (what, call) in forged {
        assert_eq!(visitor.ask(&call).await.0, 401, "{what}");
    }
    assert_eq!(visitor.receipts(1).await, 1);

    // The same call, signed, is.
    assert_eq!(visitor.ask(&mine.sign(receipt(new, now)).unwrap()).await.0, 200);
    assert_eq!(visitor.receipts(1).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shop_in_rust() {
    let place = Place::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let (file, key) = (place.file().display().to_string(), place.key.clone());
    let app = tokio::spawn(async move { shop::serve(listener, &file, &key).await.unwrap() });
    a_shop_does_its_jobs(&place, &origin).await;
    app.abort();
}

/// An app that is a program of its own.
async fn a_shop_in(program: &str, arguments: &[&str], file: &str) {
    let place = Place::new().await;
    let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(file);
    let app = Command::new(program)
        .args(arguments)
        .arg(app)
        .env("DATABASE", place.file())
        .env("SIGNING_KEY", &place.key)
        .env("PORT", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut app = Killed(app.unwrap_or_else(|error| panic!("{program} is needed: {error}")));
    let mut said = String::new();
    BufReader::new(app.0.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let origin = said.trim_end().strip_prefix("listening on ").expect("it says where it listens");
    a_shop_does_its_jobs(&place, origin).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shop_in_python() {
    a_shop_in("python3", &["-B"], "python/app.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shop_in_node() {
    a_shop_in("node", &[], "node/app.mjs").await;
}
