//! Decides how a report looks to a reader.

use std::fmt::Write;

use crate::oracle::Mark;
use crate::report::Report;

/// The bars of a histogram, from empty to full.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What has run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ran<'a> {
    /// This design, in simulated time.
    Simulated(&'a str),
    /// Real processes, in real time.
    Processes,
}

/// The report of one run, for people.
pub(super) fn report(report: &Report, ran: Ran<'_>) -> String {
    let mut text = String::new();
    let micros = |nanos: u64| length(nanos);
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<22}{value}");
    };
    line(
        "design",
        match ran {
            Ran::Simulated(design) => design.to_owned(),
            Ran::Processes => "real processes".to_owned(),
        },
    );
    line("nodes, seed", format!("{}, {}", report.nodes, report.seed));
    match ran {
        Ran::Simulated(_) => line("simulated", simulated(report.sim_seconds, report.wall_seconds)),
        Ran::Processes => line("lasted", format!("{:.0} s", report.sim_seconds)),
    }
    line("slots", report.slots.to_string());
    line(
        "beats",
        format!("{} ({} missed, {} doubled)", report.beats, report.missed, report.doubled),
    );
    line("longest gap", micros(report.max_gap));
    line(
        "arrival error",
        format!(
            "p50 {}, p99 {}, max {} (calm beats, early or late)",
            micros(report.arrival.p50),
            micros(report.arrival.p99),
            micros(report.arrival.max)
        ),
    );
    line("", histogram(&report.arrivals));
    let (checks, outside) = report.interval;
    // Of real processes nobody knows the truth.
    if ran != Ran::Processes {
        line(
            "offset error",
            format!(
                "p50 {}, p99 {}, max {} (half the unevenness of the ways is unknowable)",
                micros(report.offset.p50),
                micros(report.offset.p99),
                micros(report.offset.max)
            ),
        );
        line("interval", format!("{outside} of {checks} checks outside"));
    }
    if report.jobs.enqueued > 0 {
        let jobs = report.jobs;
        line(
            "jobs",
            format!(
                "{} enqueued, {} succeeded, {} dead, {} lost, {} overlapped",
                jobs.enqueued, jobs.succeeded, jobs.dead, jobs.lost, jobs.overlapped
            ),
        );
    }
    line(
        "statements a second",
        format!("{:.3}", report.statements as f64 / report.sim_seconds.max(1e-9)),
    );
    if report.trace_hash != 0 {
        line("trace hash", format!("{:016x}", report.trace_hash));
    }
    line("violations", report.violated.to_string());
    for violation in &report.violations {
        let at = length(violation.at_us * 1_000);
        let _ =
            writeln!(text, "    {} at {at}: {}", violation.invariant.as_str(), violation.detail);
    }
    text
}

/// How long a run was, there and here.
fn simulated(there: f64, here: f64) -> String {
    let rate = there / here.max(1e-9);
    if rate < 3_600.0 {
        return format!("{there:.0} s in {here:.2} s ({rate:.0} s a second)");
    }
    format!("{:.1} h in {here:.2} s ({:.0} h a second)", there / 3_600.0, rate / 3_600.0)
}

/// The arrival errors, one bar for each doubling.
fn histogram(sorted: &[u64]) -> String {
    if sorted.is_empty() {
        return String::new();
    }
    let bucket = |nanos: u64| (nanos / 1_000 + 1).ilog2() as usize;
    let mut counts = [0_u64; 24];
    for nanos in sorted {
        counts[bucket(*nanos).min(23)] += 1;
    }
    let last = counts.iter().rposition(|count| *count > 0).unwrap_or(0);
    let most = counts.iter().copied().max().unwrap_or(1).max(1);
    let bars: String = counts[..=last]
        .iter()
        .map(|count| {
            let height = (count * 8).div_ceil(most) as usize;
            BARS[height.min(8)]
        })
        .collect();
    format!("0 us |{bars}| {} (each bar twice as wide as the one before)", length(2_000 << last))
}

/// A length of time with three digits that count.
pub(super) fn length(nanos: u64) -> String {
    let value = nanos as f64;
    let (value, unit) = match nanos {
        0..1_000 => (value, "ns"),
        1_000..1_000_000 => (value / 1e3, "us"),
        1_000_000..1_000_000_000 => (value / 1e6, "ms"),
        _ => (value / 1e9, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

/// Which marks were reached, and how often.
pub(super) fn marks(marks: &crate::oracle::Marks) -> String {
    let mut text = String::new();
    for mark in Mark::ALL {
        let _ = writeln!(text, "  {:>10}  {}", marks.count(*mark), mark.as_str());
    }
    text
}
