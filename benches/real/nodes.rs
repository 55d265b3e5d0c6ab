//! Real nodes in this process: the production shell with its own thread for the turns, its own connections and its own
//! clock; all that is missing of the program is its dashboard. Decides nothing; writes down each answered beat.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::watch;
use turnwise_engine::journal::Entry;
use turnwise_engine::{Exchange, Input, LocalInstant, Output, Period, RequestId, TurnKind};
use turnwise_node::caller::{AllowedOrigins, HttpCaller, Targets};
use turnwise_node::clock::BootClock;
use turnwise_node::config::{
    DEFAULT_CAPACITY, DEFAULT_DRAIN_TIMEOUT, LogFormat, Retention, RunConfig,
};
use turnwise_node::shell::{self, Journal, Leaves, PreciseThread, Pulse, StopHandle, stop};
use turnwise_node::store::{AnyStore, Store};

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

/// A farm of them on one database. Stopped with this value.
pub struct Nodes {
    stops: Vec<StopHandle>,
    threads: Vec<JoinHandle<()>>,
    beats: Arc<Mutex<Vec<SentBeat>>>,
}

impl Nodes {
    /// `count` nodes on the empty database at `url`, with this period.
    pub fn start(url: &str, count: u32, period: Period) -> Self {
        let runtime = runtime();
        runtime.block_on(async {
            let store = AnyStore::connect(url, 1).unwrap();
            store.migrate().await.unwrap();
            store.agree_period(Some(period)).await.unwrap();
        });
        let mut nodes = Self { stops: Vec::new(), threads: Vec::new(), beats: Arc::default() };
        for node in 0..count {
            let (url, journal) = (url.to_owned(), record(node, Arc::clone(&nodes.beats)));
            let (ready, handle): (_, Receiver<StopHandle>) = channel();
            nodes.threads.push(std::thread::spawn(move || {
                let (handle, stop) = stop();
                ready.send(handle).unwrap();
                runtime_of_node(&url, node, &journal, stop);
            }));
            nodes.stops.push(handle.recv().unwrap());
        }
        nodes
    }

    /// All beats that were answered so far, in the order of their answers.
    pub fn beats(&self) -> Vec<SentBeat> {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// One node, to its end.
fn runtime_of_node(url: &str, node: u32, journal: &Journal, stop: shell::Stop) {
    // Nobody is there; no job is enqueued either.
    let targets = Targets::parse(&["http://127.0.0.1:1"]).unwrap();
    let config = RunConfig {
        database_urls: vec![url.to_owned()],
        targets: targets.clone(),
        allow_origins: AllowedOrigins::default(),
        name: format!("node-{node}"),
        listen: None,
        listen_token: None,
        period: None,
        capacity: DEFAULT_CAPACITY,
        queues: None,
        drain_timeout: DEFAULT_DRAIN_TIMEOUT,
        retention: Retention::default(),
        fail_fast: false,
        migrate: false,
        journal: None,
        log_format: LogFormat::default(),
    };
    let runtime = runtime();
    runtime.block_on(async {
        let store = AnyStore::connect_all(&config.database_urls, 1).unwrap();
        let watch = store.clone();
        tokio::spawn(async move { watch.watch().await });
        let leaves = Leaves {
            clock: BootClock,
            store,
            caller: HttpCaller::new(&targets).unwrap(),
            chance: uuid::Uuid::new_v4().into_bytes(),
        };
        let pulse = watch::channel(Pulse::default()).0;
        shell::run(&leaves, &PreciseThread, &config, &pulse, Some(journal), stop).await.unwrap();
    });
    runtime.shutdown_background();
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
