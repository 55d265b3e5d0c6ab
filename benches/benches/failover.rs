//! How long the jobs of a killed node wait until they are called again, by the clock of whoever calls: the program's own
//! processes, one of which is killed (SIGKILL) while it holds running jobs, again and again. And how many slots had no
//! beat for it. `--help` lists the options, docs/throughput.md says what the figures mean.
//!
//! ```sh
//! cargo build --release -p turnwise-node
//! cargo bench -p turnwise-benches --bench failover
//! ```
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up has ended")]
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use turnwise_benches::real::figures::Spread;
use turnwise_benches::real::place::{Database, Place};
use turnwise_benches::real::processor::load;
use turnwise_benches::real::target::{Answer, WebApp};
use turnwise_benches::target_folder;
use turnwise_engine::Period;
use turnwise_node::config::parse_period;
use turnwise_node::job::NewJob;
use turnwise_node::store::{AnyStore, Store};

/// How long a farm may take to be complete, and a job to be called.
const PATIENCE: Duration = Duration::from_secs(120);
/// So many periods after the last job was called again, slots without a beat still count.
const SLOTS_AFTER: u32 = 3;

/// How long the jobs of a killed node wait until they are called again
#[derive(Parser)]
struct Options {
    /// The databases
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["postgres", "mariadb", "sqlite"])]
    database: Vec<Database>,
    /// How many nodes, 2 to 32
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=32))]
    nodes: u32,
    /// The period
    #[arg(long, default_value = "1s", value_parser = parse_period)]
    period: Period,
    /// How often a node is killed
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// How many jobs run when it is, and how many each node runs at once
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    jobs: u32,
    /// The program whose processes are run [default: target/release/turnwise]
    #[arg(long)]
    program: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// What `cargo bench` says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one database came to.
#[derive(Serialize)]
struct Outcome {
    database: Database,
    nodes: u32,
    period_ms: f64,
    rounds: u32,
    /// From the signal to the head of the call that runs a job again, of every job of each killed node, in microseconds.
    called_again: Spread,
    /// The same, of the last job of each killed node.
    last_called_again: Spread,
    /// Slots without a beat, from the one of the kill until three periods after the last job was called again: in all, and
    /// the most in a round.
    missed: i64,
    missed_max: i64,
    load: String,
}

fn main() -> ExitCode {
    // `cargo test` runs benches too, to see that they start.
    if std::env::args().any(|argument| argument == "--test") {
        return ExitCode::SUCCESS;
    }
    let options = Options::parse();
    let program =
        options.program.clone().unwrap_or_else(|| target_folder().join("release/turnwise"));
    if !program.exists() {
        eprintln!(
            "{} is not there: build it with cargo build --release -p turnwise-node, or name it with --program",
            program.display()
        );
        return ExitCode::from(2);
    }
    let measure = |database: &Database| measure(&options, &program, *database);
    let outcomes: Vec<_> = options.database.iter().map(measure).collect();
    if options.json {
        println!("{}", serde_json::to_string_pretty(&outcomes).unwrap());
    } else {
        println!("{}", table(&outcomes));
        println!("{} nodes, {} jobs each time; {}", options.nodes, options.jobs, load());
    }
    ExitCode::SUCCESS
}

fn measure(options: &Options, program: &Path, database: Database) -> Outcome {
    let mut farm = Farm::start(options, program, database);
    let (mut all, mut last, mut missed) = (Vec::new(), Vec::<Duration>::new(), Vec::new());
    for round in 1..=options.rounds {
        let killed = farm.kill_one(round, options);
        last.extend(killed.called_again.iter().max());
        eprintln!(
            "{database:?}, round {round} of {}: {} jobs, the last after {:.2} s; {} slots missed",
            options.rounds,
            killed.called_again.len(),
            last[last.len() - 1].as_secs_f64(),
            killed.missed
        );
        all.extend(killed.called_again);
        missed.push(killed.missed);
    }
    let spread = |times: &[Duration]| Spread::of_nanos(times.iter().map(|t| t.as_nanos() as i64));
    Outcome {
        database,
        nodes: options.nodes,
        period_ms: options.period.as_nanos() as f64 / 1e6,
        rounds: options.rounds,
        called_again: spread(&all),
        last_called_again: spread(&last),
        missed: missed.iter().sum(),
        missed_max: missed.iter().copied().max().unwrap_or(0),
        load: load(),
    }
}

/// A call as a web app saw it.
struct Call {
    node: usize,
    path: String,
    at: Instant,
}

/// What became of a round.
struct Killed {
    called_again: Vec<Duration>,
    missed: i64,
}

/// A node's process and its web app, which stays when the process goes.
struct Node {
    process: Child,
    target: WebApp,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Farm {
    nodes: Vec<Node>,
    calls: Receiver<Call>,
    /// The paths that have been called, and until when a first call is not answered.
    first: Arc<Mutex<First>>,
    place: Place,
    runtime: Runtime,
    store: AnyStore,
    program: PathBuf,
    capacity: u32,
}

#[derive(Default)]
struct First {
    seen: BTreeSet<String>,
    until: Option<Arc<Semaphore>>,
}

impl Farm {
    fn start(options: &Options, program: &Path, database: Database) -> Self {
        let place = Place::start(database);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = AnyStore::connect(&place.url(), 1).unwrap();
        runtime.block_on(store.migrate()).unwrap();
        runtime.block_on(store.agree_period(Some(options.period))).unwrap();
        let (told, calls) = channel();
        let mut farm = Self {
            nodes: Vec::new(),
            calls,
            first: Arc::default(),
            place,
            runtime,
            store,
            program: program.to_owned(),
            capacity: options.jobs,
        };
        for number in 0..options.nodes as usize {
            let target = farm.web_app(number, told.clone());
            let process = farm.process(number, &target);
            farm.nodes.push(Node { process, target });
        }
        farm
    }

    /// A job that is called for the first time is held until the round is over; one that is called again is answered.
    fn web_app(&self, node: usize, told: Sender<Call>) -> WebApp {
        let first = Arc::clone(&self.first);
        WebApp::start(move |path| {
            let at = Instant::now();
            let _ = told.send(Call { node, path: path.to_owned(), at });
            let mut first = first.lock().unwrap();
            match (first.seen.insert(path.to_owned()), &first.until) {
                (true, Some(until)) => Answer::WhenClosed(Arc::clone(until)),
                _ => Answer::AtOnce,
            }
        })
    }

    fn process(&self, number: usize, target: &WebApp) -> Child {
        Command::new(&self.program)
            .args(["run", "--database-url", &self.place.url(), "--target", &target.origin()])
            .args(["--name", &format!("node-{number}"), "--listen", "off"])
            .args(["--capacity", &self.capacity.to_string()])
            // It dies with this process.
            .args(["--test-commands"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn kill_one(&mut self, round: u32, options: &Options) -> Killed {
        self.until_complete();
        let held = Arc::new(Semaphore::new(0));
        *self.first.lock().unwrap() = First { until: Some(Arc::clone(&held)), ..First::default() };
        let jobs: Vec<_> =
            (0..options.jobs).map(|job| NewJob::new(format!("/round/{round}/{job}"))).collect();
        self.runtime.block_on(self.store.enqueue(&jobs)).unwrap();
        let mut by_node: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        for _ in &jobs {
            let call = self.next_call();
            assert!(by_node.entry(call.node).or_default().insert(call.path), "each is called once");
        }
        let period = options.period.as_duration();
        sleep(period.mul_f64(f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX)));
        let (victim, mut theirs) = by_node.into_iter().max_by_key(|(_, jobs)| jobs.len()).unwrap();
        let before = self.place.last_slot();
        let killed = Instant::now();
        self.nodes[victim].process.kill().unwrap();
        let mut called_again = Vec::new();
        while !theirs.is_empty() {
            let call = self.next_call();
            // A job of a node that lives and is called again would be a fault: it is held, and its lease is not over.
            assert!(theirs.remove(&call.path), "{} ran on a node that lives", call.path);
            called_again.push(call.at - killed);
        }
        sleep(period * SLOTS_AFTER);
        let missed = self.place.slots_without_beat(before, self.place.last_slot());
        let _ = self.nodes[victim].process.wait();
        held.close();
        self.nodes[victim].process = self.process(victim, &self.nodes[victim].target);
        Killed { called_again, missed }
    }

    fn next_call(&self) -> Call {
        self.calls.recv_timeout(PATIENCE).expect("a job is not called in time: no figures")
    }

    /// Until every node has its place in the ring, nobody else has one, and no job is left.
    fn until_complete(&self) {
        let begun = Instant::now();
        loop {
            let nodes = self.runtime.block_on(self.store.nodes()).unwrap();
            let ring: Vec<_> = nodes.iter().filter(|node| node.rank.is_some()).collect();
            let is_whole = ring.len() == self.nodes.len();
            if is_whole && ring.iter().all(|n| n.state == "live") && self.place.unended() == 0 {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "the farm is not complete in time: {nodes:?}");
            sleep(Duration::from_millis(200));
        }
    }
}

fn table(outcomes: &[Outcome]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "database",
        "period (ms)",
        "rounds",
        "a job (s): p50",
        "p99",
        "max",
        "the last (s): p50",
        "max",
        "slots missed",
        "most",
    ]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for outcome in outcomes {
        let seconds = |us: f64| format!("{:.2}", us / 1e6);
        table.add_row([
            format!("{:?}", outcome.database),
            outcome.period_ms.to_string(),
            outcome.rounds.to_string(),
            seconds(outcome.called_again.p50),
            seconds(outcome.called_again.p99),
            seconds(outcome.called_again.max),
            seconds(outcome.last_called_again.p50),
            seconds(outcome.last_called_again.max),
            outcome.missed.to_string(),
            outcome.missed_max.to_string(),
        ]);
    }
    table
}
