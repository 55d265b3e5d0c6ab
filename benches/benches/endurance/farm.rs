//! Decides nothing: the server, the nodes as processes, their web app, the jobs, and the session with the old snapshot.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use turnwise_benches::real::server::{Kind, Server};
use turnwise_benches::real::session::Session;
use turnwise_node::job::NewJob;
use turnwise_node::store::{AnyStore, Store};

use crate::Arguments;

/// The database's name.
const DATABASE: &str = "jobs";

/// When jobs were enqueued that nobody has called for, and how long the others waited.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    pub(crate) enqueued: BTreeMap<String, Instant>,
    pub(crate) waited: Vec<Duration>,
}

pub(crate) struct Farm {
    server: Server,
    pub(crate) nodes: Vec<Child>,
    pub(crate) waits: Arc<Mutex<Waits>>,
    /// Held open, never used again.
    _snapshot: Option<Session>,
    enqueuer: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Farm {
    pub(crate) async fn start(arguments: &Arguments, program: &Path) -> Self {
        let server = Server::start(arguments.database);
        server.create(DATABASE);
        let url = server.url_at(server.port(), DATABASE);
        let store = AnyStore::connect(&url, 2).unwrap();
        store.migrate().await.unwrap();
        let period = arguments.period_ms.to_string() + "ms";
        let folder = tempfile::tempdir().unwrap();
        let waits = Arc::new(Mutex::new(Waits::default()));
        let target = web_app(&waits).await;
        let nodes = (0..arguments.nodes)
            .map(|number| {
                Command::new(program)
                    .args(["run", "--database-url", &url, "--target", &target])
                    .args(["--period", &period, "--name", &format!("node-{number}")])
                    .args(["--listen", "127.0.0.1:0"])
                    .current_dir(folder.path())
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        let snapshot = match arguments.old_snapshot {
            true => {
                let mut session = Session::open(arguments.database, &url).await;
                session.hold_snapshot().await;
                Some(session)
            }
            false => None,
        };
        let enqueuer = tokio::spawn(enqueue(store, arguments.jobs, Arc::clone(&waits)));
        Self { server, nodes, waits, _snapshot: snapshot, enqueuer, _folder: folder }
    }

    /// The answer of its database, without headings.
    pub(crate) fn sql(&self, sql: &str) -> String {
        match &self.server {
            Server::Postgres(server) => server.psql_in(DATABASE, sql),
            Server::Mariadb(server) => server.sql(&format!("USE {DATABASE}; {sql}")),
        }
    }

    /// Which database.
    pub(crate) fn kind(&self) -> Kind {
        match &self.server {
            Server::Postgres(_) => Kind::Postgres,
            Server::Mariadb(_) => Kind::Mariadb,
        }
    }

    pub(crate) async fn stop(&mut self) {
        self.enqueuer.abort();
        for node in &mut self.nodes {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

/// Nothing is left running when a bench fails.
impl Drop for Farm {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

/// Answers at once, and notes how long the job has waited to be called.
async fn web_app(waits: &Arc<Mutex<Waits>>) -> String {
    let pages = Router::new().route("/jobs/{job}", post(called)).with_state(Arc::clone(waits));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, pages).await });
    format!("http://{address}")
}

async fn called(
    State(waits): State<Arc<Mutex<Waits>>>,
    axum::extract::Path(job): axum::extract::Path<String>,
) -> &'static str {
    let mut waits = waits.lock().unwrap();
    if let Some(since) = waits.enqueued.remove(&job) {
        waits.waited.push(since.elapsed());
    }
    "done"
}

async fn enqueue(store: AnyStore, a_second: u32, waits: Arc<Mutex<Waits>>) {
    // Not in step with the beats.
    let mut ticks = tokio::time::interval(Duration::from_micros(1_017_300) / a_second);
    for number in 0_u64.. {
        ticks.tick().await;
        let job = NewJob::new(format!("/jobs/{number}"));
        waits.lock().unwrap().enqueued.insert(number.to_string(), Instant::now());
        store.enqueue(std::slice::from_ref(&job)).await.unwrap();
    }
}
