//! Real nodes in this process: the production shell with its own thread for the turns, its own connections and its own
//! clock; all that is missing of the program is its dashboard. Decides nothing; writes down each answered beat.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use turnwise_engine::journal::Entry;
use turnwise_engine::{
    Exchange, Input, LocalInstant, NodeId, Note, Output, Period, RequestId, TurnKind,
};
use turnwise_node::caller::{
    AllowedOrigins, Call, CallOutcome, Caller, HttpCaller, Origin, SigningKeys, Targets,
};
use turnwise_node::clock::BootClock;
use turnwise_node::config::{
    DEFAULT_CAPACITY, DEFAULT_DRAIN_TIMEOUT, LogFormat, Retention, RunConfig,
};
use turnwise_node::job::JobFate;
use turnwise_node::redact::Redaction;
use turnwise_node::run::OTHER_CONNECTIONS;
use turnwise_node::shell::{
    self, Journal, Leaves, Observer, PreciseThread, Pulse, Reached, StopHandle, stop,
};
use turnwise_node::store::{AnyStore, NodeReport, Store};

use super::processor::of_threads;

/// A beat, as the node that sent it saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentBeat {
    /// Which node, from 0.
    pub node: u32,
    /// The slot that it was stamped with.
    pub slot: i64,
    /// The instant for which the engine had planned it.
    pub due: LocalInstant,
    /// The four stamps of its round trip.
    pub exchange: Exchange,
}

/// On which threads a node runs, beside the one of its turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// One, so that many nodes fit into a process.
    One,
    /// As the program does: two, which share the work.
    AsTheProgram,
}

/// How each node of a farm is set up.
pub struct Manner<K> {
    /// How many jobs it runs at once.
    pub capacity: u32,
    /// Where jobs are called.
    pub targets: Targets,
    /// What makes the calls: each node has its own.
    pub caller: fn(&Targets) -> K,
    /// On which threads.
    pub threads: Threads,
    /// Whether its beats are written down ([`Nodes::beats`]).
    pub beats: bool,
}

impl Manner<HttpCaller> {
    /// A node that will have nothing to do.
    pub fn idle() -> Self {
        Self {
            capacity: DEFAULT_CAPACITY,
            // Nobody is there.
            targets: Targets::parse(&["http://127.0.0.1:1"]).unwrap(),
            caller: |targets| HttpCaller::new(targets).unwrap(),
            threads: Threads::One,
            beats: true,
        }
    }
}

/// A caller that calls nobody: each job is answered at once, with 200 and nothing. What is left is the claim and the end.
#[derive(Clone, Copy, Debug)]
pub struct AtOnce;

impl Caller for AtOnce {
    async fn call(&self, _: &Call) -> CallOutcome {
        CallOutcome::Answered { status: 200, retry_after: None, no_retry: false, body: Vec::new() }
    }

    async fn reach(&self, _: &Origin) -> bool {
        true
    }
}

/// Counts what the nodes have tried.
#[derive(Default)]
struct Attempts(AtomicU64);

impl Observer for Attempts {
    fn noted(&self, _: &Note) {}

    fn reported(&self, _: &NodeReport) {}

    fn turn_answered(&self, _: Option<Duration>) {}

    fn targets_known(&self, _: NodeId, _: &[Reached]) {}

    fn attempted(&self, _: &str, _: JobFate, _: Duration) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A farm of them on one database. Stopped with this value.
pub struct Nodes {
    stops: Vec<StopHandle>,
    threads: Vec<JoinHandle<()>>,
    beats: Arc<Mutex<Vec<SentBeat>>>,
    attempts: Arc<Attempts>,
}

impl Nodes {
    /// `count` nodes on the empty database at `url`, with this period, that will have nothing to do.
    pub fn start(url: &str, count: u32, period: Period) -> Self {
        Self::start_in(url, count, period, &Manner::idle())
    }

    /// The same, set up otherwise.
    pub fn start_in<K: Caller>(url: &str, count: u32, period: Period, manner: &Manner<K>) -> Self {
        runtime(Threads::One).block_on(async {
            let store = AnyStore::connect(url, 1).unwrap();
            store.migrate().await.unwrap();
            store.agree_period(Some(period)).await.unwrap();
        });
        let mut nodes = Self {
            stops: Vec::new(),
            threads: Vec::new(),
            beats: Arc::default(),
            attempts: Arc::default(),
        };
        for number in 0..count {
            let node = Node {
                config: config(url, number, manner),
                caller: manner.caller,
                threads: manner.threads,
                journal: manner.beats.then(|| record(number, Arc::clone(&nodes.beats))),
                observer: Arc::clone(&nodes.attempts) as Arc<dyn Observer>,
            };
            let (ready, handle): (_, Receiver<StopHandle>) = channel();
            let thread = std::thread::Builder::new().name(THREAD.to_owned()).spawn(move || {
                let (handle, stop) = stop();
                ready.send(handle).unwrap();
                node.run(stop);
            });
            nodes.threads.push(thread.unwrap());
            nodes.stops.push(handle.recv().unwrap());
        }
        nodes
    }

    /// All beats that were answered so far, in the order of their answers; none when they are not written down.
    pub fn beats(&self) -> Vec<SentBeat> {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many attempts at jobs have come to an end, though it may not be stored yet.
    pub fn attempts(&self) -> u64 {
        self.attempts.0.load(Ordering::Relaxed)
    }

    /// The processor time of all threads of all nodes so far, those of the driver of SQLite among them. It does not hold
    /// those that have ended.
    pub fn processor(&self) -> Duration {
        let names = [THREAD, "turns", "sqlx-sqlite-wor"];
        names.into_iter().filter_map(of_threads).sum()
    }

    /// End them where they stand: nobody waits for a node that leaves the ring.
    pub fn abandon(self) {
        self.stops.iter().for_each(StopHandle::ask);
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.stops.iter().for_each(StopHandle::ask);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The name of a node's threads but for that of its turns.
const THREAD: &str = "node";

fn runtime(threads: Threads) -> tokio::runtime::Runtime {
    let mut builder = match threads {
        Threads::One => tokio::runtime::Builder::new_current_thread(),
        Threads::AsTheProgram => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(2);
            builder
        }
    };
    builder.thread_name(THREAD).enable_all().build().unwrap()
}

/// What a node with this number is told.
pub fn config<K>(url: &str, node: u32, manner: &Manner<K>) -> RunConfig {
    RunConfig {
        database_urls: vec![url.to_owned()],
        targets: manner.targets.clone(),
        allow_origins: AllowedOrigins::default(),
        signing_keys: SigningKeys::default(),
        name: format!("node-{node}"),
        listen: None,
        listen_token: None,
        redaction: Redaction::default(),
        callback_url: None,
        period: None,
        capacity: manner.capacity,
        queues: None,
        drain_timeout: DEFAULT_DRAIN_TIMEOUT,
        retention: Retention::default(),
        fail_fast: false,
        migrate: false,
        journal: None,
        log_format: LogFormat::default(),
    }
}

struct Node<K> {
    config: RunConfig,
    caller: fn(&Targets) -> K,
    threads: Threads,
    journal: Option<Journal>,
    observer: Arc<dyn Observer>,
}

impl<K: Caller> Node<K> {
    /// To its end.
    fn run(self, stop: shell::Stop) {
        let runtime = runtime(self.threads);
        runtime.block_on(async {
            let store =
                AnyStore::connect_all(&self.config.database_urls, OTHER_CONNECTIONS).unwrap();
            let watch = store.clone();
            tokio::spawn(async move { watch.watch().await });
            let leaves = Leaves {
                clock: BootClock,
                store,
                caller: (self.caller)(&self.config.targets),
                chance: uuid::Uuid::new_v4().into_bytes(),
                callbacks: None,
            };
            let pulse = watch::channel(Pulse::default()).0;
            let (stage, journal) = (&PreciseThread, self.journal.as_ref());
            let config = &self.config;
            shell::run_observed(&leaves, stage, config, &pulse, journal, &self.observer, stop)
                .await
                .unwrap();
        });
        runtime.shutdown_background();
    }
}

/// A journal that keeps what is wanted of it.
fn record(node: u32, beats: Arc<Mutex<Vec<SentBeat>>>) -> Journal {
    let asked: Mutex<Option<(RequestId, LocalInstant)>> = Mutex::default();
    Journal::listened_to(move |entry| {
        let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
        match entry {
            Entry::Output(Output::Turn { request, statement, due, .. }) => {
                let is_beat = matches!(statement.kind, TurnKind::Beat { .. });
                *asked = is_beat.then_some((*request, *due));
            }
            Entry::Input { input: Input::TurnAnswer(answer), .. } => {
                let due = asked.take_if(|(request, _)| *request == answer.request);
                if let (Some((_, due)), Some(exchange), true) = (due, answer.exchange, answer.done)
                {
                    let beat = SentBeat { node, slot: answer.now.0, due, exchange };
                    beats.lock().unwrap_or_else(PoisonError::into_inner).push(beat);
                }
            }
            _ => {}
        }
    })
}
