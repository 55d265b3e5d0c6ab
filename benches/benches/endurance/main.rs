//! A farm that runs for long: the program's own processes on a real database server, at a short period, so that a day's
//! beats fit into little more than an hour. Shows, in as many rows as are wanted, what might grow: the nodes' memory and
//! files, connections, tables and their dead rows, the time that a beat takes, how long a job waits. Fails when one of
//! them does that is not to.
//!
//! ```sh
//! cargo build --release -p turnwise-node
//! cargo bench -p turnwise-benches --bench endurance -- --database postgres --old-snapshot
//! cargo bench -p turnwise-benches --bench endurance -- --beats 6000 --rows 6      # five minutes
//! ```
#![allow(missing_docs, clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

mod farm;
mod sample;
mod verdict;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use farm::Farm;
use sample::Sample;
use turnwise_benches::real::server::Kind;
use turnwise_benches::target_folder;

/// A farm that runs for long, and what of it grows
#[derive(Parser, Clone, Debug)]
struct Arguments {
    /// The database
    #[arg(long, value_enum, default_value = "postgres")]
    database: Kind,

    /// How many nodes, 1 to 32
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=32))]
    nodes: u32,

    /// The time between polls, in milliseconds, 50 to 10,000
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(50..=10_000))]
    period_ms: u32,

    /// For so many slots; a day has 86,400 of a second
    #[arg(long, default_value_t = 86_400)]
    beats: u32,

    /// Jobs a second, 1 to 1,000
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    jobs: u32,

    /// A session of somebody else holds a snapshot open from beginning to end
    #[arg(long)]
    old_snapshot: bool,

    /// How many rows the table has, 4 to 1,000
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(4..=1_000))]
    rows: u32,

    /// The program whose processes are run [default: target/release/turnwise]
    #[arg(long)]
    program: Option<PathBuf>,

    /// Also print each row as JSON
    #[arg(long)]
    json: bool,

    /// Cargo says this to benches
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    // `cargo test` runs benches too, to see that they start.
    if std::env::args().any(|argument| argument == "--test") {
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::parse();
    let program =
        arguments.program.clone().unwrap_or_else(|| target_folder().join("release/turnwise"));
    if !program.exists() {
        eprintln!(
            "{} is not there: build it with cargo build --release -p turnwise-node, or name it with --program",
            program.display()
        );
        return ExitCode::from(2);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(endure(&arguments, &program))
}

async fn endure(arguments: &Arguments, program: &Path) -> ExitCode {
    let mut farm = Farm::start(arguments, program).await;
    let each = Duration::from_millis(
        u64::from(arguments.period_ms) * u64::from(arguments.beats) / u64::from(arguments.rows),
    );
    println!(
        "{:?}, {} nodes, a period of {} ms, {} jobs a second{}; a row each {:.0} s",
        arguments.database,
        arguments.nodes,
        arguments.period_ms,
        arguments.jobs,
        if arguments.old_snapshot { ", beside an old snapshot" } else { "" },
        each.as_secs_f64()
    );
    println!("{}", Sample::HEADING);
    let mut samples: Vec<Sample> = Vec::new();
    for _ in 0..arguments.rows {
        tokio::time::sleep(each).await;
        let sample = Sample::take(&mut farm, samples.last()).await;
        println!("{}", sample.row());
        if arguments.json {
            println!("{}", sample.json());
        }
        samples.push(sample);
    }
    farm.stop().await;
    let faults = verdict::faults(&samples, arguments);
    for fault in &faults {
        println!("grew: {fault}");
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
