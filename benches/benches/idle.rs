//! How many statements a second a farm sends that has nothing to do, by its size, by the server's own count. `--help`
//! lists the options, docs/accuracy.md says what the figures mean.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up has ended")]
#![allow(clippy::disallowed_methods, reason = "real servers take real time")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Parser;
use serde::Serialize;
use turnwise_benches::real::nodes::Nodes;
use turnwise_benches::real::processor::load;
use turnwise_benches::real::server::{Kind, Server};
use turnwise_engine::Period;
use turnwise_node::config::parse_period;

/// How long a farm that is not complete may go without coming nearer to it, beside as many periods as it has nodes.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Parser)]
struct Options {
    /// The databases
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["postgres", "mariadb"])]
    database: Vec<Kind>,
    /// Numbers of nodes, up to 120: each holds two of the server's connections
    #[arg(long, value_delimiter = ',', default_values = ["1", "3", "8", "32"], value_parser = clap::value_parser!(u32).range(1..=120))]
    nodes: Vec<u32>,
    /// How long statements are counted, in seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=86_400))]
    seconds: u64,
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

/// What one farm came to.
#[derive(Serialize)]
struct Outcome {
    database: Kind,
    nodes: u32,
    seconds: f64,
    statements: i64,
    /// Accepted beats meanwhile.
    beats: usize,
    statements_a_second: f64,
    load: String,
}

fn main() {
    // `cargo test` runs benches too, to see that they start.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let options = Options::parse();
    let mut outcomes = Vec::new();
    if !options.json {
        println!("database  nodes  statements/s  statements  beats  over");
    }
    for kind in &options.database {
        for nodes in &options.nodes {
            let outcome = measure(&options, *kind, *nodes);
            if !options.json {
                show(&outcome);
            }
            outcomes.push(outcome);
        }
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&outcomes).unwrap());
    }
}

fn measure(options: &Options, kind: Kind, count: u32) -> Outcome {
    let server = Server::start(kind);
    server.create("jobs");
    let looks = server.looks_cost("jobs");
    let farm = Nodes::start(&server.url_at(server.port(), "jobs"), count, options.period);
    until_everybody_has_beaten(&farm, count, 3, options.period);
    let look = || (farm.beats().len(), server.statements("jobs"), Instant::now());
    let (beats, statements, since) = look();
    std::thread::sleep(Duration::from_secs(options.seconds));
    let (beats_then, statements_then, until) = look();
    let seconds = (until - since).as_secs_f64();
    let statements = statements_then - statements - looks;
    farm.abandon();
    Outcome {
        database: kind,
        nodes: count,
        seconds,
        statements,
        beats: beats_then - beats,
        statements_a_second: statements as f64 / seconds,
        load: load(),
    }
}

/// Everybody's third beat: the ring is whole, and nobody is new in it.
fn until_everybody_has_beaten(farm: &Nodes, nodes: u32, times: usize, period: Period) {
    let patience = PATIENCE + 2 * period.as_duration() * nodes;
    let (mut best, mut since) = (0, Instant::now());
    loop {
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        farm.beats().iter().for_each(|beat| *counts.entry(beat.node).or_default() += 1);
        // What counts of a node's beats is no more than is wanted of it.
        let beaten = counts.values().map(|count| times.min(*count)).sum();
        if beaten == times * nodes as usize {
            return;
        }
        if beaten > best {
            (best, since) = (beaten, Instant::now());
        }
        assert!(since.elapsed() < patience, "the farm is not complete in time: no figures");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn show(outcome: &Outcome) {
    let Outcome { database, nodes, seconds, statements, beats, statements_a_second, load } =
        outcome;
    println!(
        "{:<8}  {nodes:5}  {statements_a_second:12.3}  {statements:10}  {beats:5}  {seconds:.1} s, {load}",
        format!("{database:?}")
    );
}
