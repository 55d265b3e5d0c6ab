//! How close to its boundary a beat arrives at a real server: real nodes, the design that this one began from beside
//! them in the same seconds, and the channel's own noise in the same exchanges; by the number of nodes and the length of
//! the road. `--help` lists the options, docs/accuracy.md says what the figures mean.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up has ended")]
#![allow(clippy::disallowed_methods, reason = "real servers take real time")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use turnwise_benches::real::figures::{Spread, noise};
use turnwise_benches::real::nodes::{Nodes, SentBeat};
use turnwise_benches::real::original::Originals;
use turnwise_benches::real::processor::load;
use turnwise_benches::real::relay;
use turnwise_benches::real::server::{Kind, Server};
use turnwise_engine::Period;
use turnwise_node::config::parse_period;

/// So many beats of each node go by before its arrivals count.
const WARM_UP: i64 = 20;

#[derive(Parser)]
struct Options {
    /// The databases
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["postgres", "mariadb"])]
    database: Vec<Kind>,
    /// How many beats are judged in each setting, after 20 a node that are not
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    beats: u32,
    /// The period
    #[arg(long, default_value = "1s", value_parser = parse_period)]
    period: Period,
    /// Numbers of nodes
    #[arg(long, value_delimiter = ',', default_values = ["1", "3"])]
    nodes: Vec<u32>,
    /// Lengths of the way there, and of the way back; 0: no relay
    #[arg(long, value_delimiter = ',', default_values = ["0s", "5ms", "40ms"], value_parser = humantime::parse_duration)]
    ways: Vec<Duration>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// What `cargo bench` says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one setting came to; errors in microseconds.
#[derive(Serialize)]
struct Outcome {
    database: Kind,
    nodes: u32,
    way_ms: f64,
    /// This design: how far from its boundary each beat arrived, by the database's record.
    turnwise: Spread,
    /// The other, in the same seconds.
    original: Spread,
    /// The channel: how far each of the same beats' transits was from the line through its node's.
    noise: Spread,
    /// The medians of this design and of the channel.
    to_noise: f64,
    /// The medians of the other design and of this one.
    original_to_turnwise: f64,
    /// Slots without a beat.
    missed: i64,
    load: String,
}

fn main() {
    // `cargo test` runs benches too, to see that they start.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let options = Options::parse();
    let mut outcomes = Vec::new();
    for kind in &options.database {
        for nodes in &options.nodes {
            for way in &options.ways {
                outcomes.push(measure(&options, *kind, *nodes, *way));
                if !options.json {
                    eprintln!("{} of {} settings", outcomes.len(), settings(&options));
                }
            }
        }
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&outcomes).unwrap());
    } else {
        println!("{}", table(&outcomes));
    }
}

fn settings(options: &Options) -> usize {
    options.database.len() * options.nodes.len() * options.ways.len()
}

fn measure(options: &Options, kind: Kind, nodes: u32, way: Duration) -> Outcome {
    let server = Server::start(kind);
    server.create("jobs");
    server.create("original");
    let port = if way.is_zero() { server.port() } else { relay::open(server.port(), way) };
    let period = options.period;
    let farm = Nodes::start(&server.url_at(port, "jobs"), nodes, period);
    let others = Originals::start(&server.url_at(port, "original"), nodes, period);
    let patience =
        Duration::from_secs(60) + 4 * period.as_duration() * (options.beats + 60 * nodes);
    until(patience, || warm(&farm.beats(), nodes));
    let others_before = others.errors().len();
    let first = server.last_slot("jobs").unwrap();
    let last = first + i64::from(options.beats);
    until(patience, || server.last_slot("jobs").is_some_and(|slot| slot > last));
    let others = others.errors().split_off(others_before);
    let sent = farm.beats();
    drop(farm);
    let (beats, bias) = (server.beats("jobs", first, last), server.bias("jobs"));
    let error = |slot: i64, us: i64| us * 1_000 - (slot - bias) * period.as_nanos();
    let turnwise = Spread::of_nanos(beats.iter().map(|beat| error(beat.slot, beat.arrived_us)));
    let noise = Spread::of_nanos(channel(&sent, first, last));
    let original = Spread::of_nanos(others);
    Outcome {
        database: kind,
        nodes,
        way_ms: way.as_secs_f64() * 1_000.0,
        to_noise: turnwise.p50 / noise.p50,
        original_to_turnwise: original.p50 / turnwise.p50,
        turnwise,
        original,
        noise,
        missed: last - first - beats.len() as i64,
        load: load(),
    }
}

/// Whether every node has beaten often enough.
fn warm(beats: &[SentBeat], nodes: u32) -> bool {
    let count = |node| beats.iter().filter(|beat| beat.node == node).count() as i64;
    (0..nodes).all(|node| count(node) >= WARM_UP)
}

/// The channel's noise in the beats of these slots.
fn channel(sent: &[SentBeat], first: i64, last: i64) -> Vec<i64> {
    let mut of_nodes: BTreeMap<u32, Vec<(i64, i64)>> = BTreeMap::new();
    for SentBeat { node, slot, exchange, .. } in sent {
        if first < *slot && *slot <= last {
            let at = exchange.sent.as_nanos() as i64;
            let transit = exchange.arrived.as_nanos() - at;
            of_nodes.entry(*node).or_default().push((at, transit));
        }
    }
    of_nodes.values().flat_map(|transits| noise(transits)).collect()
}

fn until(patience: Duration, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < patience, "the beats do not go on: no figures");
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn table(outcomes: &[Outcome]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "database",
        "nodes",
        "way",
        "this design (us)",
        "the original (us)",
        "the channel's noise (us)",
        "to the noise",
        "original to this",
        "missed",
        "machine",
    ]);
    let spread = |Spread { p50, p99, max, .. }: Spread| format!("{p50:.1} / {p99:.0} / {max:.0}");
    for outcome in outcomes {
        table.add_row([
            format!("{:?}", outcome.database),
            outcome.nodes.to_string(),
            format!("{} ms", outcome.way_ms),
            spread(outcome.turnwise),
            spread(outcome.original),
            spread(outcome.noise),
            format!("{:.2}", outcome.to_noise),
            format!("{:.0} x", outcome.original_to_turnwise),
            outcome.missed.to_string(),
            outcome.load.clone(),
        ]);
    }
    for column in 1..9 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
