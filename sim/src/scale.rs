//! Decides what is measured of rings of several sizes: what a node that joins, crashes or drains costs, how long it
//! takes until the ring is without or with it, and what the ring sends when nothing happens.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use turnwise_engine::{ChangeKind, Period};

use crate::lab::{Product, run_settled};
use crate::random::Stream;
use crate::report::{Picture, Report, Seen, Sort};
use crate::scenario::{Every, Fault, Options, Orders, Planned, Range, Retention, Scenario, Span};

/// How long the jobs of a busy farm run on average, before they are cut at a minute.
const RUNS: Span = Span::from_secs(60);
/// With that cut the average is about this long, in seconds.
const RUNS_SECONDS: f64 = 38.0;
/// How many jobs a node runs at once, and how many of these a busy farm is given on average: it has room for those of
/// a node that dies.
const CAPACITY: u32 = 8;
const BUSY: f64 = 2.0;

/// What happens to one node of a settled ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// One more comes up.
    Join,
    /// One is killed.
    Crash,
    /// One is told to leave.
    Drain,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Join, Self::Crash, Self::Drain];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Crash => "crash",
            Self::Drain => "drain",
        }
    }
}

/// What one event cost in one run. Times are in seconds after the event.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// Slots without an accepted beat from the event on.
    pub missed: u64,
    /// A join: the node's first accepted beat. A drain: the node heard that it may go.
    pub done: Option<f64>,
    /// The first beat of the ring that has, or has not, the node in it.
    pub ring: Option<f64>,
    /// A crash: what the node had run runs again, the last of it.
    pub jobs: Option<f64>,
    /// Statements a second before the event, by [`Sort::ALL`].
    pub at_rest: [f64; Sort::ALL.len()],
    /// How long the turn row is at the end, as JSON, in bytes: each answer to a statement on it holds all of it.
    pub row: usize,
    /// Invariants that did not hold.
    pub violated: u64,
}

/// One event in a ring of one size, idle or busy, from several seeds.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// How many nodes the ring has before.
    pub nodes: u32,
    /// Whether it runs jobs.
    pub busy: bool,
    /// What happens.
    pub event: Event,
    /// What it cost, a run each.
    pub costs: Vec<Cost>,
}

/// The median and the worst of some numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Typical {
    /// The median: of an even count the upper of the two.
    pub median: f64,
    /// The largest.
    pub worst: f64,
}

impl Typical {
    /// Of numbers in any order. None: of none.
    pub fn of(numbers: impl Iterator<Item = f64>) -> Option<Self> {
        let mut numbers: Vec<_> = numbers.collect();
        numbers.sort_by(f64::total_cmp);
        Some(Self { median: *numbers.get(numbers.len() / 2)?, worst: *numbers.last()? })
    }
}

impl Row {
    /// The median and the worst of a part of the costs, of the runs that have it.
    pub fn typical(&self, part: impl Fn(&Cost) -> Option<f64>) -> Option<Typical> {
        Typical::of(self.costs.iter().filter_map(part))
    }
}

/// Measure rings of `sizes`, each idle and busy, each event from so many seeds, side by side on all cores.
pub fn measure(sizes: &[u32], seeds: u32, done: &(dyn Fn() + Sync)) -> Vec<Row> {
    let mut rows = Vec::new();
    for nodes in sizes {
        for busy in [false, true] {
            let row = |event| Row { nodes: *nodes, busy, event, costs: Vec::new() };
            rows.extend(Event::ALL.map(row));
        }
    }
    let costs: Vec<_> = rows.iter().map(|_| Mutex::new(vec![None; seeds as usize])).collect();
    let (rows_left, next) = (&rows, AtomicUsize::new(0));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let (row, seed) = (number / seeds as usize, number % seeds as usize);
                    let (Some(what), Some(slots)) = (rows_left.get(row), costs.get(row)) else {
                        break;
                    };
                    let cost = cost(what, seed as u32, seeds);
                    if let Ok(mut slots) = slots.lock() {
                        slots[seed] = Some(cost);
                    }
                    done();
                }
            });
        }
    });
    for (row, costs) in rows.iter_mut().zip(costs) {
        row.costs = costs.into_inner().unwrap_or_default().into_iter().flatten().collect();
    }
    rows
}

/// One run: the ring, when it has settled, and what happens then.
struct Plan {
    scenario: Scenario,
    /// Who joins, crashes or leaves.
    node: u32,
    /// When, in nanoseconds.
    at: u64,
    /// How long the ring was looked at before, in nanoseconds.
    rest: u64,
}

fn cost(row: &Row, seed: u32, seeds: u32) -> Cost {
    let plan = plan(row, seed, seeds);
    let report = run_settled::<Product>(&plan.scenario);
    look(row.event, &plan, &report)
}

fn plan(row: &Row, seed: u32, seeds: u32) -> Plan {
    let unit = Period::DEFAULT.as_nanos() as u64;
    let round = u64::from(row.nodes) * unit;
    // By then a ring that was disturbed is calm again, so that the judge holds the event to its row of the table.
    let settled = 4 * round + 40 * unit;
    let mut random = Stream::new(u64::from(seed), "scale");
    // Where in the round it falls decides how long it takes: the seeds share the round.
    let share = (f64::from(seed) + random.uniform()) / f64::from(seeds);
    let at = settled + (share * round as f64) as u64;
    let joiners = u32::from(row.event == Event::Join);
    let jobs_a_second = BUSY * f64::from(row.nodes + joiners) / RUNS_SECONDS;
    let jobs = if row.busy { Span((1e9 / jobs_a_second) as u64) } else { Span::ZERO };
    let options = Options {
        nodes: row.nodes + joiners,
        period: Period::DEFAULT,
        skew: Span::from_millis(900),
        drift_ppm: 50.0,
        wander_ppb: 0,
        resolution: Span(1),
        late_wake: Span::ZERO,
        latency: Range { least: Span::from_millis(1), most: Span::from_millis(80) },
        node_latency: Vec::new(),
        jitter: Span::from_micros(200),
        asymmetry: 0.0,
        tail_ppm: 0,
        spike_ppm: 0,
        loss_ppm: 0,
        duplicate_ppm: 0,
        crashes: Every::default(),
        pauses: Every::default(),
        partitions: Every::default(),
        database_faults: Every::default(),
        steps: Vec::new(),
        jobs: Every(jobs),
        retention: Retention::default(),
        orders: Orders::default(),
        duration: Span(settled + 4 * round + 60 * unit),
        seed: u64::from(seed),
    };
    let mut scenario = options.scenario();
    scenario.load.runs = RUNS;
    scenario.load.until = scenario.duration;
    for node in &mut scenario.nodes {
        node.capacity = CAPACITY;
    }
    let node = match row.event {
        Event::Join => row.nodes,
        _ => random.below(u64::from(row.nodes)) as u32,
    };
    match row.event {
        Event::Join => scenario.nodes[node as usize].start = Span(at),
        Event::Crash => scenario.faults.push(Planned { at: Span(at), fault: Fault::Kill { node } }),
        Event::Drain => {
            scenario.faults.push(Planned { at: Span(at), fault: Fault::Drain { node } });
        }
    }
    Plan { scenario, node, at, rest: round.max(30 * unit) }
}

fn look(event: Event, plan: &Plan, report: &Report) -> Cost {
    let empty = Vec::new();
    let seen = report.picture.as_ref().map_or(&empty, |picture: &Picture| &picture.seen);
    let after = |at: u64| (at - plan.at) as f64 / 1e9;
    let later = || seen.iter().filter(|(at, _, _)| *at > plan.at);
    let beats: Vec<_> = seen
        .iter()
        .filter_map(|(at, host, seen)| match seen {
            Seen::Beat { slot, accepted: true, .. } => Some((*at, *host, *slot)),
            _ => None,
        })
        .collect();
    let missed = beats
        .windows(2)
        .filter(|pair| pair[1].0 > plan.at)
        .map(|pair| (pair[1].2 - pair[0].2 - 1).unsigned_abs())
        .sum();
    let wanted = match event {
        Event::Join => ChangeKind::Join,
        Event::Crash => ChangeKind::Remove,
        Event::Drain => ChangeKind::Leave,
    };
    let changed = later().find_map(|(at, _, seen)| match seen {
        Seen::Changed { kind, from } if *kind == wanted => Some((*at, *from)),
        _ => None,
    });
    let ring = changed.and_then(|(_, from)| beats.iter().find(|(_, _, slot)| *slot >= from));
    let done = match event {
        Event::Join => beats.iter().find(|(_, host, _)| *host == plan.node).map(|beat| beat.0),
        Event::Crash => None,
        Event::Drain => changed.map(|(at, _)| at),
    };
    let mut at_rest = [0.0; Sort::ALL.len()];
    for (at, _, seen) in seen {
        if let (Seen::Sent(sort), true) = (seen, (plan.at - plan.rest..plan.at).contains(at)) {
            at_rest[*sort as usize] += 1e9 / plan.rest as f64;
        }
    }
    Cost {
        missed,
        done: done.map(after),
        ring: ring.map(|(at, _, _)| after(*at)),
        jobs: if event == Event::Crash { again(plan, seen).map(after) } else { None },
        at_rest,
        row: serde_json::to_string(&report.row).map_or(0, |json| json.len()),
        violated: report.violated,
    }
}

/// When the last of the jobs that the node ran when it was killed runs again. None: there was none.
fn again(plan: &Plan, seen: &[(u64, u32, Seen)]) -> Option<u64> {
    let runs = |seen: &Seen| match seen {
        Seen::Runs { job, lasts } => Some((*job, *lasts)),
        _ => None,
    };
    let held: Vec<_> = seen
        .iter()
        .filter(|(at, host, _)| *host == plan.node && *at <= plan.at)
        .filter_map(|(at, _, seen)| runs(seen).filter(|(_, lasts)| at + lasts > plan.at))
        .map(|(job, _)| job)
        .collect();
    let elsewhere = |job: u64| {
        let here = |seen: &Seen| runs(seen).is_some_and(|(other, _)| other == job);
        seen.iter().find(|(at, _, seen)| *at > plan.at && here(seen)).map(|(at, _, _)| *at)
    };
    held.into_iter().filter_map(elsewhere).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_ring_costs_what_the_protocol_says() {
        for row in measure(&[3], 4, &|| ()) {
            let what = format!("{row:?}");
            assert_eq!(row.costs.len(), 4, "{what}");
            for cost in &row.costs {
                assert_eq!(cost.violated, 0, "{what}");
                assert!(cost.missed <= u64::from(row.event == Event::Crash), "{what}");
                // Noticed within a round and a slot, in force a grace after that.
                assert!(cost.ring.is_some_and(|ring| ring < 4.0 + 5.0 + 1.0), "{what}");
                assert!((0.98..1.02).contains(&cost.at_rest[Sort::Beat as usize]), "{what}");
                assert!(cost.jobs.is_none_or(|jobs| jobs < 5.0), "{what}");
                assert_eq!(cost.at_rest[Sort::Renewal as usize] > 0.0, row.busy, "{what}");
            }
            let again = row.busy && row.event == Event::Crash;
            assert_eq!(row.typical(|cost| cost.jobs).is_some(), again, "{what}");
        }
    }

    #[test]
    fn the_median_and_the_worst_are_found_in_any_order() {
        let typical = Typical::of([3.0, 1.0, 9.0, 2.0, 4.0].into_iter());
        assert_eq!(typical, Some(Typical { median: 3.0, worst: 9.0 }));
        assert_eq!(Typical::of(std::iter::empty()), None);
    }
}
