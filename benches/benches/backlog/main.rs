//! How long a claim takes, and recording its ends, when the table is full or huge or cannot be tidied up: beside an empty
//! one in the same run. And how long it takes to enqueue many jobs at once. `--help` lists the options,
//! docs/throughput.md says what the figures mean.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up has ended")]
#![allow(clippy::disallowed_methods, reason = "real servers take real time")]

mod claims;
mod enqueues;
mod fill;

use clap::{Parser, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use turnwise_benches::real::figures::Spread;
use turnwise_benches::real::processor::load;
use turnwise_benches::real::server::Kind;

use enqueues::Enqueues;

#[derive(Parser)]
struct Options {
    /// The databases
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["postgres", "mariadb"])]
    database: Vec<Kind>,
    /// What stands in the way; an empty table is always measured, first and last
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["ready", "finished", "snapshot", "enqueue"])]
    case: Vec<Case>,
    /// How many claims are measured in each case, after 10 that are not
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    claims: u32,
    /// A part of the sizes of the cases `ready` and `finished`: 1 is a million and ten million
    #[arg(long, default_value_t = 1.0, value_parser = parse_scale)]
    scale: f64,
    /// How long the snapshot is held open
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_440))]
    minutes: u32,
    /// How many jobs a second are enqueued and run meanwhile
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    rate: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// What `cargo bench` says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// What stands in the way of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Case {
    /// Nothing: 100 jobs are enqueued, claimed and ended, again and again
    #[value(skip)]
    Empty,
    /// A million jobs that are due, in 8 queues and 5 priorities
    Ready,
    /// Ten million jobs that have succeeded
    Finished,
    /// Another session's snapshot, for --minutes at --rate
    Snapshot,
    /// No claims: 10,000 jobs are enqueued at once
    Enqueue,
}

/// What some claims came to; times in microseconds.
#[derive(Serialize)]
struct Outcome {
    database: Kind,
    case: Case,
    /// Which minute, from 1, of a case that lasts.
    minute: Option<u32>,
    /// Jobs in the table when it began.
    jobs: u64,
    /// A claim of 100 jobs, from its being sent to its answer.
    claim: Spread,
    /// The ends of 100 jobs, the same.
    ends: Spread,
    /// The median of a claim, and that of the empty table measured first.
    to_empty: f64,
    load: String,
}

fn main() {
    // `cargo test` runs benches too, to see that they start.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let options = Options::parse();
    let (mut outcomes, mut enqueues) = (Vec::new(), Vec::new());
    for database in &options.database {
        let first = claims::measure(&options, *database, Case::Empty, 0.0);
        let empty = first[0].claim.p50;
        outcomes.extend(first);
        for case in &options.case {
            eprintln!("{database:?}: {case:?}");
            match case {
                Case::Enqueue => enqueues.push(Enqueues::measure(*database)),
                _ => outcomes.extend(claims::measure(&options, *database, *case, empty)),
            }
        }
        outcomes.extend(claims::measure(&options, *database, Case::Empty, empty));
    }
    if options.json {
        let all = serde_json::json!({ "claims": outcomes, "enqueues": enqueues });
        println!("{}", serde_json::to_string_pretty(&all).unwrap());
    } else {
        println!("{}", table(&outcomes));
        enqueues.iter().for_each(Enqueues::show);
        println!("{}", load());
    }
}

fn parse_scale(text: &str) -> Result<f64, String> {
    let scale = text.parse().ok().filter(|scale| (0.0..=10.0).contains(scale) && *scale > 0.0);
    scale.ok_or_else(|| format!("{text:?} is no scale: it is a number above 0, up to 10"))
}

fn table(outcomes: &[Outcome]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "database",
        "case",
        "minute",
        "jobs",
        "claim (ms): p50",
        "p99",
        "max",
        "to empty",
        "ends (ms): p50",
        "p99",
    ]);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for outcome in outcomes {
        let ms = |us: f64| format!("{:.2}", us / 1_000.0);
        table.add_row([
            format!("{:?}", outcome.database),
            format!("{:?}", outcome.case),
            outcome.minute.map_or_else(String::new, |minute| minute.to_string()),
            outcome.jobs.to_string(),
            ms(outcome.claim.p50),
            ms(outcome.claim.p99),
            ms(outcome.claim.max),
            format!("{:.2}", outcome.to_empty),
            ms(outcome.ends.p50),
            ms(outcome.ends.p99),
        ]);
    }
    table
}
