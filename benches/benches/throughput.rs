//! How many jobs a second a farm runs, by its size and its database: jobs that call a web app, and jobs that call nobody,
//! of which the claim and the end are left. `--help` lists the options, docs/throughput.md says what the figures mean.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up has ended")]
#![allow(clippy::disallowed_methods, reason = "real servers take real time")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use turnwise_benches::real::figures::Runs;
use turnwise_benches::real::nodes::{AtOnce, Manner, Nodes, Threads};
use turnwise_benches::real::place::{Database, Place};
use turnwise_benches::real::processor::{load, of_threads};
use turnwise_benches::real::target::{Answer, WebApp};
use turnwise_engine::Period;
use turnwise_node::caller::{Caller, HttpCaller, Targets};
use turnwise_node::config::{CAPACITY_MAX, parse_period};

/// How long a farm may take to be complete, and how long none of its jobs may end.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the last ends may take to be stored once their jobs have run, before statements and processor time are read.
const LAST_ENDS: Duration = Duration::from_millis(100);

#[derive(Parser)]
struct Options {
    /// The databases
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["postgres", "mariadb", "sqlite"])]
    database: Vec<Database>,
    /// What a job does
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["http", "none"])]
    kind: Vec<Kind>,
    /// Numbers of nodes
    #[arg(long, value_delimiter = ',', default_values = ["1", "2", "4", "8"], value_parser = clap::value_parser!(u32).range(1..=32))]
    nodes: Vec<u32>,
    /// How many jobs there are
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    jobs: u32,
    /// How many jobs each node runs at once
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=i64::from(CAPACITY_MAX)))]
    capacity: u32,
    /// How often each setting is measured, all settings one after the other each time
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// The period
    #[arg(long, default_value = "1s", value_parser = parse_period)]
    period: Period,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// What `cargo bench` says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// It calls a web app in this process, by the production caller
    Http,
    /// Nothing: the claim and the end are left
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Setting {
    database: Database,
    kind: Kind,
    nodes: u32,
}

/// One run.
#[derive(Serialize)]
struct Outcome {
    #[serde(flatten)]
    setting: Setting,
    jobs: u32,
    /// From the first claim to the last end, by the server's clock, as both are stored.
    seconds: f64,
    jobs_a_second: f64,
    /// The processor time of the nodes' threads, and of the web app's, in seconds.
    node_processor_per_1000: f64,
    target_processor_per_1000: f64,
    /// Statements that the nodes sent; none: there is no server that counts them.
    statements_per_1000: Option<f64>,
    load: String,
}

fn main() {
    // `cargo test` runs benches too, to see that they start.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let options = Options::parse();
    let settings = settings(&options);
    let mut outcomes = Vec::new();
    for run in 1..=options.runs {
        for setting in &settings {
            outcomes.push(measure(&options, *setting));
            let last = &outcomes[outcomes.len() - 1];
            eprintln!("run {run} of {}: {}", options.runs, line(last));
        }
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&outcomes).unwrap());
    } else {
        println!("{}", table(&settings, &outcomes));
        println!(
            "{} jobs, capacity {}, {} runs; {}",
            options.jobs,
            options.capacity,
            options.runs,
            load()
        );
    }
}

fn settings(options: &Options) -> Vec<Setting> {
    let mut settings = Vec::new();
    for database in &options.database {
        for kind in &options.kind {
            for nodes in &options.nodes {
                settings.push(Setting { database: *database, kind: *kind, nodes: *nodes });
            }
        }
    }
    settings
}

fn measure(options: &Options, setting: Setting) -> Outcome {
    let calls = Arc::new(AtomicU64::new(0));
    let heard = Arc::clone(&calls);
    let target = WebApp::start(move |_| {
        heard.fetch_add(1, Ordering::Relaxed);
        Answer::AtOnce
    });
    let targets = Targets::parse(&[target.origin()]).unwrap();
    let outcome = match setting.kind {
        Kind::Http => drain(options, setting, targets, |targets| HttpCaller::new(targets).unwrap()),
        Kind::None => drain(options, setting, targets, |_| AtOnce),
    };
    let wanted = if setting.kind == Kind::Http { u64::from(options.jobs) } else { 0 };
    assert_eq!(calls.load(Ordering::Relaxed), wanted, "each job is called exactly once");
    outcome
}

fn drain<K: Caller>(
    options: &Options,
    setting: Setting,
    targets: Targets,
    caller: fn(&Targets) -> K,
) -> Outcome {
    let place = Place::start(setting.database);
    let threads = Threads::AsTheProgram;
    let manner = Manner { capacity: options.capacity, targets, caller, threads, beats: false };
    let farm = Nodes::start_in(&place.url(), setting.nodes, options.period, &manner);
    let begun = Instant::now();
    while place.beaten() < i64::from(setting.nodes) {
        assert!(begun.elapsed() < PATIENCE, "the farm is not complete in time: no figures");
        sleep(Duration::from_millis(200));
    }
    // The jobs come when the farm is complete, all at one instant: with the commit of one statement.
    let target_processor = || of_threads(WebApp::THREAD).unwrap_or_default();
    let before = (place.statements(), farm.processor(), target_processor());
    place.enqueue(options.jobs);
    until_all_have_run(&farm, options.jobs);
    sleep(LAST_ENDS);
    let after = (place.statements(), farm.processor(), target_processor());
    let begun = Instant::now();
    while place.unended() > 0 {
        assert!(begun.elapsed() < PATIENCE, "jobs that have run are not stored as ended");
        sleep(Duration::from_millis(50));
    }
    farm.abandon();
    let run = place.run();
    let jobs = i64::from(options.jobs);
    assert_eq!(
        (run.jobs, run.succeeded, run.attempts, run.answered),
        (jobs, jobs, jobs, jobs),
        "of the jobs (first), each is to succeed at its first attempt (second), with one attempt written down (third), \
         answered with 200 (fourth)"
    );
    let seconds = run.took_us as f64 / 1e6;
    let per_1000 = |value: f64| value * 1_000.0 / f64::from(options.jobs);
    let cost = |after: Duration, before: Duration| per_1000((after - before).as_secs_f64());
    Outcome {
        setting,
        jobs: options.jobs,
        seconds,
        jobs_a_second: f64::from(options.jobs) / seconds,
        node_processor_per_1000: cost(after.1, before.1),
        target_processor_per_1000: cost(after.2, before.2),
        statements_per_1000: after
            .0
            .zip(before.0)
            .map(|(after, before)| per_1000((after - before) as f64)),
        load: load(),
    }
}

/// Nobody asks the database meanwhile.
fn until_all_have_run(farm: &Nodes, jobs: u32) {
    let (mut last, mut since) = (0, Instant::now());
    while last < u64::from(jobs) {
        sleep(Duration::from_millis(20));
        let attempts = farm.attempts();
        if attempts > last {
            (last, since) = (attempts, Instant::now());
        }
        assert!(since.elapsed() < PATIENCE, "no job ends any more, after {last} of {jobs}");
    }
}

fn line(outcome: &Outcome) -> String {
    let Outcome { setting, seconds, jobs_a_second, load, .. } = outcome;
    let Setting { database, kind, nodes } = setting;
    format!(
        "{database:?}, {kind:?}, {nodes} nodes: {jobs_a_second:.0} jobs/s in {seconds:.2} s; {load}"
    )
}

fn table(settings: &[Setting], outcomes: &[Outcome]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "database",
        "kind",
        "nodes",
        "jobs/s",
        "from",
        "to",
        "node's cpu s/1000",
        "target's",
        "statements/1000",
    ]);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for setting in settings {
        let of_setting = || outcomes.iter().filter(|outcome| outcome.setting == *setting);
        let runs = |value: fn(&Outcome) -> Option<f64>| Runs::of(of_setting().filter_map(value));
        let speed = runs(|outcome| Some(outcome.jobs_a_second)).unwrap();
        let median = |runs: Option<Runs>, places: usize| {
            runs.map_or_else(|| "-".to_owned(), |runs| format!("{:.places$}", runs.median))
        };
        table.add_row([
            format!("{:?}", setting.database),
            format!("{:?}", setting.kind),
            setting.nodes.to_string(),
            format!("{:.0}", speed.median),
            format!("{:.0}", speed.min),
            format!("{:.0}", speed.max),
            median(runs(|outcome| Some(outcome.node_processor_per_1000)), 3),
            median(runs(|outcome| Some(outcome.target_processor_per_1000)), 3),
            median(runs(|outcome| outcome.statements_per_1000), 1),
        ]);
    }
    table
}
