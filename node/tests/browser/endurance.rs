//! A page that is left open: whether what it and its node keep grows. Ignored, since it takes an hour:
//!
//! ```sh
//! TURNWISE_OPEN_MINUTES=60 cargo test -p turnwise-node --test browser -- --ignored --nocapture pages_that_are_left_open
//! ```

use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use turnwise_node::job::NewJob;
use turnwise_node::store::{AnyStore, Store};

use super::chromium::{Chromium, DESK, Memory, Page};
use super::{Farm, NEWEST};

/// How many readings are taken, evenly spread.
const READINGS: u32 = 60;
/// How much more the last quarter of the readings may hold than the one before, in percent.
const GROWTH_PERCENT_MAX: f64 = 5.0;
/// How many more nodes that stand in no document any more may be kept.
const LOOSE_NODES_MAX: f64 = 20.0;
/// Jobs between two readings: so that there is something to be drawn.
const JOBS: usize = 20;

/// What was held at one time: the heaps of the two pages, and the node that serves them.
struct Reading {
    ring: Memory,
    timeline: Memory,
    node_bytes: u64,
}

/// A number of a reading.
type Measure = fn(&Reading) -> f64;

/// Keep the pages *Ring* and *Timeline* open in two browsers, and read what they and the node hold.
pub(super) fn leave_open(farm: &Farm) {
    let minutes = std::env::var("TURNWISE_OPEN_MINUTES").ok();
    let minutes = minutes.map_or(60.0, |minutes| minutes.parse::<f64>().unwrap());
    let between = Duration::from_secs_f64(minutes * 60.0 / f64::from(READINGS));
    let store = AnyStore::connect(&farm.url(), 1).unwrap();
    let (mut one, mut other) = (Chromium::start(), Chromium::start());
    let mut ring = one.open(&farm.page("/"), DESK);
    let mut timeline = other.open(&farm.page("/timeline"), DESK);
    for page in [&mut ring, &mut timeline] {
        page.until("document.getElementById('link').textContent === 'live'");
        page.forget_network();
    }
    let begun = Instant::now();
    let mut readings = Vec::new();
    println!(
        "seconds  ring: heap, loose nodes  timeline: heap, loose nodes  node: resident (bytes)"
    );
    for number in 0..=READINGS {
        let due = begun + between * number;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        Handle::current().block_on(store.enqueue(&jobs())).unwrap();
        let node_bytes = resident_bytes(farm.nodes["ada"].id());
        let reading = Reading { ring: ring.memory(), timeline: timeline.memory(), node_bytes };
        let seconds = begun.elapsed().as_secs();
        let Reading { ring, timeline, .. } = &reading;
        println!(
            "{seconds:7}  {:9} {:5}  {:9} {:5}  {node_bytes}",
            ring.heap_bytes, ring.loose_nodes, timeline.heap_bytes, timeline.loose_nodes
        );
        readings.push(reading);
    }
    let seen = |page: &mut Page<'_>| page.value(NEWEST).as_i64().unwrap();
    let before = seen(&mut ring);
    ring.until(&format!("{NEWEST} > {}", before + 1));
    for page in [&mut ring, &mut timeline] {
        assert_eq!(page.complaints(), [""; 0], "after all that time");
    }
    judge(&readings);
}

fn judge(readings: &[Reading]) {
    let measures: [(&str, Measure); 3] = [
        ("the heap of Ring", |reading| reading.ring.heap_bytes as f64),
        ("the heap of Timeline", |reading| reading.timeline.heap_bytes as f64),
        ("the node's resident memory", |reading| reading.node_bytes as f64),
    ];
    let quarter = readings.len() / 4;
    let (before, last) = readings[readings.len() - 2 * quarter..].split_at(quarter);
    let mut grown = Vec::new();
    for (name, of) in measures {
        let percent = 100.0 * (mean(last, of) / mean(before, of) - 1.0);
        println!("{name}: {percent:+.2} % from the third quarter to the last");
        if percent > GROWTH_PERCENT_MAX {
            grown.push(format!("{name} grew by {percent:.2} %"));
        }
    }
    // What stands on a page differs from one minute to the next; what it has let go of must be gone.
    let loose: [(&str, Measure); 2] = [
        ("Ring", |reading| reading.ring.loose_nodes as f64),
        ("Timeline", |reading| reading.timeline.loose_nodes as f64),
    ];
    for (name, of) in loose {
        let more = mean(last, of) - mean(before, of);
        println!("{name} keeps {more:+.1} more loose nodes in the last quarter than in the third");
        if more > LOOSE_NODES_MAX {
            grown.push(format!("{name} keeps {more:.1} more loose nodes"));
        }
    }
    assert!(grown.is_empty(), "more than {GROWTH_PERCENT_MAX} %: {grown:?}");
}

fn mean(readings: &[Reading], of: Measure) -> f64 {
    readings.iter().map(of).sum::<f64>() / readings.len() as f64
}

fn jobs() -> Vec<NewJob> {
    let paths = ["/slow/400", "/slow/2500", "/ok", "/slow/9000"];
    (0..JOBS).map(|number| NewJob::new(paths[number % paths.len()].to_owned())).collect()
}

fn resident_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    1_024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
}
