//! How long a lone job waits until it is called, when the farm has nothing else to do: enqueued at any phase of the
//! period, by the length of the period. `--help` lists the options, docs/throughput.md says what the figures mean.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up has ended")]
#![allow(clippy::disallowed_methods, reason = "real servers take real time")]

use std::sync::mpsc::{Receiver, channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use tokio::runtime::Runtime;
use turnwise_benches::real::figures::Spread;
use turnwise_benches::real::nodes::{Manner, Nodes, Threads};
use turnwise_benches::real::place::{Database, Place};
use turnwise_benches::real::processor::load;
use turnwise_benches::real::target::{Answer, WebApp};
use turnwise_engine::Period;
use turnwise_node::caller::{HttpCaller, Targets};
use turnwise_node::config::{DEFAULT_CAPACITY, parse_period};
use turnwise_node::job::NewJob;
use turnwise_node::store::{AnyStore, Store};

/// How long a farm may take to be complete, and a job to be called.
const PATIENCE: Duration = Duration::from_secs(120);
/// So many jobs go by before they count.
const WARM_UP: u32 = 3;

#[derive(Parser)]
struct Options {
    /// The databases
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["postgres", "mariadb", "sqlite"])]
    database: Vec<Database>,
    /// Numbers of nodes
    #[arg(long, value_delimiter = ',', default_values = ["1", "3"], value_parser = clap::value_parser!(u32).range(1..=32))]
    nodes: Vec<u32>,
    /// The periods
    #[arg(long, value_delimiter = ',', default_values = ["1s", "200ms", "50ms"], value_parser = parse_period)]
    periods: Vec<Period>,
    /// How many jobs are enqueued in each setting, one after the other, after 3 that do not count
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    jobs: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// What `cargo bench` says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one setting came to; times in microseconds.
#[derive(Serialize)]
struct Outcome {
    database: Database,
    nodes: u32,
    period_ms: f64,
    /// From the answer to the INSERT, which is its commit's, to the head of the request at the web app. A request that
    /// came before that answer counts as 0.
    waited: Spread,
    /// The INSERT itself, from its being sent to its answer: it may have been committed anywhere in between.
    inserted: Spread,
    load: String,
}

fn main() {
    // `cargo test` runs benches too, to see that they start.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let options = Options::parse();
    let mut outcomes = Vec::new();
    for database in &options.database {
        for nodes in &options.nodes {
            for period in &options.periods {
                outcomes.push(measure(&options, *database, *nodes, *period));
                let count = options.database.len() * options.nodes.len() * options.periods.len();
                eprintln!("{} of {count} settings", outcomes.len());
            }
        }
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&outcomes).unwrap());
    } else {
        println!("{}", table(&outcomes));
        println!("{} jobs each; {}", options.jobs, load());
    }
}

fn measure(options: &Options, database: Database, nodes: u32, period: Period) -> Outcome {
    let place = Place::start(database);
    let (told, calls) = channel();
    let target = WebApp::start(move |path| {
        let _ = told.send((path.to_owned(), Instant::now()));
        Answer::AtOnce
    });
    let manner = Manner {
        capacity: DEFAULT_CAPACITY,
        targets: Targets::parse(&[target.origin()]).unwrap(),
        caller: |targets| HttpCaller::new(targets).unwrap(),
        threads: Threads::AsTheProgram,
        beats: false,
    };
    let farm = Nodes::start_in(&place.url(), nodes, period, &manner);
    let begun = Instant::now();
    while place.beaten() < i64::from(nodes) {
        assert!(begun.elapsed() < PATIENCE, "the farm is not complete in time: no figures");
        sleep(Duration::from_millis(200));
    }
    let app = App::new(&place.url());
    let mut waits = Vec::new();
    for number in 0..WARM_UP + options.jobs {
        let wait = app.enqueue_and_wait(number, &calls);
        if number >= WARM_UP {
            waits.push(wait);
        }
        // To any phase of the period, after the end has been stored.
        sleep(period.as_duration() / 2 + period.as_duration().mul_f64(chance()));
    }
    farm.abandon();
    Outcome {
        database,
        nodes,
        period_ms: period.as_nanos() as f64 / 1e6,
        waited: spread(waits.iter().map(|wait| wait.called)),
        inserted: spread(waits.iter().map(|wait| wait.inserted)),
        load: load(),
    }
}

/// Whoever enqueues: a connection of its own, which stands.
struct App {
    runtime: Runtime,
    store: AnyStore,
}

struct Wait {
    inserted: Duration,
    called: Duration,
}

impl App {
    fn new(url: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, store: AnyStore::connect(url, 1).unwrap() }
    }

    fn enqueue_and_wait(&self, number: u32, calls: &Receiver<(String, Instant)>) -> Wait {
        let path = format!("/jobs/{number}");
        let job = NewJob::new(&path);
        let sent = Instant::now();
        self.runtime.block_on(self.store.enqueue(&[job])).unwrap();
        let answered = Instant::now();
        let (called, at) = calls.recv_timeout(PATIENCE).expect("a job is not called: no figures");
        assert_eq!(called, path, "one job is called at a time, and each once");
        Wait { inserted: answered - sent, called: at.saturating_duration_since(answered) }
    }
}

/// From 0 to 1.
fn chance() -> f64 {
    f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX)
}

fn spread(durations: impl Iterator<Item = Duration>) -> Spread {
    Spread::of_nanos(durations.map(|duration| duration.as_nanos() as i64))
}

fn table(outcomes: &[Outcome]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "database",
        "nodes",
        "period (ms)",
        "waited (ms): p50",
        "p99",
        "max",
        "insert (ms): p50",
    ]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for outcome in outcomes {
        let ms = |us: f64| format!("{:.2}", us / 1_000.0);
        table.add_row([
            format!("{:?}", outcome.database),
            outcome.nodes.to_string(),
            outcome.period_ms.to_string(),
            ms(outcome.waited.p50),
            ms(outcome.waited.p99),
            ms(outcome.waited.max),
            ms(outcome.inserted.p50),
        ]);
    }
    table
}
