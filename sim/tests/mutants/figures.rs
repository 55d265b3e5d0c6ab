//! Holds the engine to the figures that it had reached: what the clock's errors were on traces, and what the turns have cost. Decides how
//! much worse any of them may be.

use turnwise_sim::clock::judge::score;
use turnwise_sim::clock::judging::{Case, tuning};
use turnwise_sim::clock::rivals::{Engine, Estimator};
use turnwise_sim::clock::trace::{Sample, generate};
use turnwise_sim::lab::run;
use turnwise_sim::oracle::Marks;
use turnwise_sim::scenario::swarm;

/// What the clock has reached on each of the traces: made by `FIGURES=write`, and looked at before it is committed.
const ACCURACY: &str = include_str!("accuracy.csv");
/// So much worse it may be on any of them: what is not worse at all differs by the last digits that are written down.
const ALLOWED: f64 = 1.005;
/// Traces with steps that are less than clocks may have drifted apart from one exchange to the next, often soon after each other.
const STEPS: [&str; 3] = [
    "rtt=500us,jitter=10us,interval=1m,step=12ms,steps=12m,seed=31",
    "rtt=5ms,jitter=50us,interval=1m,step=12ms,steps=12m,seed=32",
    "rtt=5ms,jitter=50us,interval=10s,step=4ms,steps=2m,seed=33",
];
/// What the turns have cost, in so many groups of seeds: written and looked at in the same way.
const COSTS: &str = include_str!("costs.csv");
const GROUPS: u64 = 10;
const OF_A_GROUP: u64 = 40;
/// The first seed behind them.
pub(crate) const BEHIND_ALL: u64 = GROUPS * OF_A_GROUP;
/// So much more they may cost in any of them: other chances are drawn as soon as anything is done otherwise.
const COSTS_ALLOWED: f64 = 1.01;
/// The head of the table.
const FIGURES: &str = "trace,rtt,interval,offset p50,offset p99,arrival p50,arrival p99,arrival max,recovery,\
     begun offset p50,begun offset p95,begun offset mean,begun arrival p50,begun arrival p95,begun arrival mean\n";

/// How well the clock does right after it began, in the fourth to the twelfth exchange, wherever in the trace that is: the median, the
/// 95th percentile and the mean of how far the offset and the arrival are off, in microseconds. (Of a step among the first exchanges
/// the mean alone tells: it is rare.)
fn beginnings(samples: &[Sample]) -> [[f64; 3]; 2] {
    let (mut offsets, mut arrivals) = (Vec::new(), Vec::new());
    for begin in samples.windows(12).step_by(7) {
        let mut clock = Engine::default();
        for (number, Sample { exchange, true_offset }) in begin.iter().enumerate() {
            let ask = exchange.sent;
            if number >= 3
                && let (Some(offset), Some(transit)) = (clock.offset(ask), clock.transit(ask))
            {
                let arrival = exchange.arrived.as_nanos() - ask.as_nanos() as i64;
                offsets.push((offset - true_offset).abs());
                arrivals.push((arrival - transit).abs());
            }
            clock.observe(exchange);
        }
    }
    [spread_of(offsets), spread_of(arrivals)]
}

fn spread_of(mut nanos: Vec<i64>) -> [f64; 3] {
    nanos.sort_unstable();
    let at = |share: usize| nanos[(nanos.len() - 1) * share / 100] as f64 / 1e3;
    [at(50), at(95), nanos.iter().sum::<i64>() as f64 / nanos.len() as f64 / 1e3]
}

/// On no trace is it worse than it was when its figures were written down, by which one knows a change that makes the clock worse by
/// less than its rivals or the channel's noise show. Who makes it better writes them anew.
pub(crate) fn assert_the_clock_is_as_good_as_before() {
    let mut now = String::from(FIGURES);
    let steps =
        STEPS.iter().map(|spec| Case { kind: "steps by little", spec: spec.parse().unwrap() });
    for case in (0..3).flat_map(tuning).chain(steps) {
        let samples = generate(&case.spec);
        let own = score("transit", &mut Engine::default(), &samples);
        let begun =
            beginnings(&samples).map(|figures| figures.map(|figure| format!("{figure:.3}")));
        let recovered = own.recovery.map_or((0, 0), |recovery| recovery);
        now += &format!(
            "{},{:?},{:?},{:.3},{:.3},{:.3},{:.3},{:.3},{},{}\n",
            case.kind,
            case.spec.rtt,
            case.spec.interval,
            own.offset.p50,
            own.offset.p99,
            own.arrival.p50,
            own.arrival.p99,
            own.arrival.max,
            recovered.0 + recovered.1,
            begun.concat().join(",")
        );
    }
    keep_if_asked("accuracy.csv", &now);
    assert_no_worse(&now, ACCURACY, 3, |was| ALLOWED * was + 0.002);
}

/// The server's clock may be set forward while it holds a statement, between the stamps of its arrival and of its answer.
pub(crate) fn assert_a_step_between_stamps_is_seen() {
    const STEP: i64 = 50_000_000;
    let mut samples = generate(&"rtt=5ms,jitter=50us,interval=1s,seed=41".parse().unwrap());
    let torn = samples.len() / 2;
    samples[torn].exchange.answered = samples[torn].exchange.answered.offset(STEP);
    for sample in &mut samples[torn + 1..] {
        sample.exchange.arrived = sample.exchange.arrived.offset(STEP);
        sample.exchange.answered = sample.exchange.answered.offset(STEP);
        sample.true_offset += STEP;
    }
    let mut clock = Engine::default();
    for (number, Sample { exchange, true_offset }) in samples.iter().enumerate() {
        if number > torn {
            let (low, high) = clock.bounds(exchange.sent).unwrap();
            assert!((low..=high).contains(true_offset), "{low}..{high} and {true_offset}");
        }
        assert_eq!(clock.observe(exchange), number == torn, "exchange {number} of {torn}");
    }
}

/// In no group of farms more statements are sent, more slots missed, longer gaps left or jobs left waiting for longer than when that was written down.
pub(crate) fn assert_it_costs_no_more_than_before(marks: &mut Marks) {
    let mut now = String::from("seeds,statements,missed,gaps,doubled,waited\n");
    for group in 0..GROUPS {
        let seeds = group * OF_A_GROUP..(group + 1) * OF_A_GROUP;
        let mut costs = [0_u64; 5];
        for seed in seeds.clone() {
            let report = run(&swarm(seed));
            marks.add(&report.marks);
            assert!(report.violations.is_empty(), "seed {seed}: {:#?}", report.violations);
            let gap = report.max_gap / 1_000_000;
            let waited = report.jobs.waited / 1_000_000;
            let of_it = [report.statements, report.missed, gap, report.doubled, waited];
            costs.iter_mut().zip(of_it).for_each(|(sum, one)| *sum += one);
        }
        let [statements, missed, gaps, doubled, waited] = costs;
        now += &format!("{seeds:?},{statements},{missed},{gaps},{doubled},{waited}\n");
    }
    keep_if_asked("costs.csv", &now);
    assert_no_worse(&now, COSTS, 1, |was| COSTS_ALLOWED * was + 2.0);
}

fn keep_if_asked(file: &str, figures: &str) {
    if std::env::var("FIGURES").is_ok_and(|asked| asked == "write") {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mutants");
        std::fs::write(format!("{folder}/{file}"), figures).unwrap();
    }
}

/// Line by line, behind so many columns that say of what they are.
fn assert_no_worse(now: &str, before: &str, named: usize, most: impl Fn(f64) -> f64) {
    assert_eq!(now.lines().count(), before.lines().count(), "not the same lines");
    for (now, before) in now.lines().zip(before.lines()).skip(1) {
        let columns = |line: &str| line.split(',').map(str::to_owned).collect::<Vec<String>>();
        let (now_are, were) = (columns(now), columns(before));
        assert_eq!((now_are.len(), &now_are[..named]), (were.len(), &were[..named]));
        for (place, (figure, was)) in now_are.iter().zip(&were).enumerate().skip(named) {
            let (figure, was): (f64, f64) = (figure.parse().unwrap(), was.parse().unwrap());
            assert!(figure <= most(was), "figure {place} was {was}: {now}");
        }
    }
}
