//! How late a beat is written after the instant for which the engine planned it, what processor time it costs, and how
//! many round trips it takes: one real node on a real server on loopback. `--help` lists the options, docs/accuracy.md
//! says what the figures mean.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up has ended")]
#![allow(clippy::disallowed_methods, reason = "real servers take real time")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Parser;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::Serialize;
use turnwise_benches::real::figures::Spread;
use turnwise_benches::real::nodes::{Nodes, SentBeat};
use turnwise_benches::real::processor::{load, of_threads};
use turnwise_benches::real::server::{Kind, Server};
use turnwise_benches::real::wire::{Packet, Wire, wall_minus_boot};
use turnwise_engine::Period;
use turnwise_node::config::parse_period;

/// So many beats go by before they count.
const WARM_UP: usize = 40;
/// The thread of a node that sends its beats.
const THREAD: &str = "turns";

#[derive(Parser)]
struct Options {
    /// The databases
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["postgres", "mariadb"])]
    database: Vec<Kind>,
    /// How many beats are judged, after 40 that are not
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    beats: u32,
    /// The period
    #[arg(long, default_value = "100ms", value_parser = parse_period)]
    period: Period,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// What `cargo bench` says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one database came to; times in microseconds.
#[derive(Serialize)]
struct Outcome {
    database: Kind,
    /// From the instant planned to the node's own stamp, right before the statement is handed to the driver.
    to_stamp: Spread,
    /// From the instant planned to the packet on the device; none: this process may not listen there.
    to_packet: Option<Spread>,
    /// How many beats took so many round trips; none: this process may not listen there.
    round_trips: Option<BTreeMap<usize, usize>>,
    /// The processor time of the thread that sends, a beat.
    thread_us: Option<f64>,
    /// The processor time of the whole process, a beat: this benchmark's own threads among them.
    process_us: f64,
    load: String,
}

fn main() {
    // `cargo test` runs benches too, to see that they start.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let options = Options::parse();
    let outcomes: Vec<_> = options.database.iter().map(|kind| measure(&options, *kind)).collect();
    if options.json {
        println!("{}", serde_json::to_string_pretty(&outcomes).unwrap());
    } else {
        outcomes.iter().for_each(show);
    }
}

fn measure(options: &Options, kind: Kind) -> Outcome {
    let server = Server::start(kind);
    server.create("jobs");
    let farm = Nodes::start(&server.url_at(server.port(), "jobs"), 1, options.period);
    let count = options.beats as usize;
    let patience = Duration::from_secs(60) + 4 * options.period.as_duration() * options.beats;
    until(patience, || farm.beats().len() >= WARM_UP);
    // What the tap costs is not the node's: the processor is measured first, and then the wire.
    let (first, thread, process) = (farm.beats().len(), of_threads(THREAD), process_time());
    until(patience, || farm.beats().len() >= first + count / 2);
    let (thread, process) = (of_threads(THREAD).zip(thread), process_time() - process);
    let measured = (farm.beats().len() - first) as f64;
    let cost = |time: Duration| time.as_secs_f64() * 1e6 / measured;
    let wire = Wire::listen(server.port());
    if let Err(error) = &wire {
        eprintln!("no packets are seen: {error}. Run it as root, or give it CAP_NET_RAW");
    }
    let difference = wall_minus_boot();
    let listened = farm.beats().len() + 1;
    until(patience, || farm.beats().len() > listened + count);
    let beats = farm.beats();
    let (beats, next) = (&beats[listened..listened + count], beats[listened + count]);
    let packets = wire.ok().map(|wire| wire.packets());
    let ends = beats.iter().skip(1).chain([&next]).map(|beat| beat.exchange.sent.as_nanos() as i64);
    let seen = packets.map(|packets| {
        let local = |beat: &SentBeat| beat.exchange.sent.as_nanos() as i64;
        let of_beat =
            |(beat, end): (_, i64)| of_beat(&packets, local(beat) + difference, end + difference);
        beats.iter().zip(ends).map(of_beat).collect::<Vec<_>>()
    });
    Outcome {
        database: kind,
        to_stamp: Spread::of_nanos(
            beats.iter().map(|beat| beat.exchange.sent.nanos_from(beat.due)),
        ),
        to_packet: seen.as_ref().map(|seen| {
            let late = |(beat, packets): (&SentBeat, &Vec<Packet>)| {
                let written = packets.iter().find(|packet| packet.to_server)?;
                Some(written.at - difference - beat.due.as_nanos() as i64)
            };
            Spread::of_nanos(beats.iter().zip(seen).filter_map(late))
        }),
        round_trips: seen.as_ref().map(|seen| {
            let mut counts = BTreeMap::new();
            for packets in seen {
                *counts.entry(round_trips(packets)).or_default() += 1;
            }
            counts
        }),
        thread_us: thread.map(|(after, before)| cost(after - before)),
        process_us: cost(process),
        load: load(),
    }
}

/// What was on the wire from one beat's stamp to the next one's.
fn of_beat(packets: &[Packet], from: i64, until: i64) -> Vec<Packet> {
    packets.iter().filter(|packet| (from..until).contains(&packet.at)).copied().collect()
}

/// How often something went there and then something came back.
fn round_trips(packets: &[Packet]) -> usize {
    packets.windows(2).filter(|pair| pair[0].to_server && !pair[1].to_server).count()
}

fn process_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.unsigned_abs())
}

fn until(patience: Duration, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < patience, "the beats do not go on: no figures");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn show(outcome: &Outcome) {
    let spread = |Spread { p50, p99, max, .. }: Spread| format!("{p50:.1} / {p99:.1} / {max:.0}");
    println!(
        "{:?}, {} beats; p50 / p99 / max in us; {}",
        outcome.database, outcome.to_stamp.count, outcome.load
    );
    println!("  planned to stamp      {}", spread(outcome.to_stamp));
    if let Some(to_packet) = outcome.to_packet {
        println!("  planned to packet     {}", spread(to_packet));
    }
    for (trips, beats) in outcome.round_trips.iter().flatten() {
        println!("  {trips} round trips         {beats} beats");
    }
    if let Some(thread) = outcome.thread_us {
        println!("  thread's processor    {thread:.1} a beat");
    }
    println!("  process's processor   {:.1} a beat", outcome.process_us);
}
