//! `turnwise-sim clock`: what it reads or makes, and how it shows the scores.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value, json};

use crate::clock::intervals::check;
use crate::clock::judge::{Errors, Score, WARM_UP, judge};
use crate::clock::judging::{Case, Verdict, crossed, crossed_tuning, judge_all, judging, tuning};
use crate::clock::trace::{Spec, from_csv, generate, to_csv};

/// Over all samples but the first 40: how far each estimator's offset at t0 was from the truth, and how far
/// its predicted transit was from the next one, before it saw that sample. In microseconds.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  turnwise-sim clock --generate rtt=5ms,interval=10s,asymmetry=0.2,seed=7 --oracle
  turnwise-sim clock --generate rtt=80ms,routes=10m,commit=2ms --write trace.csv
  turnwise-sim clock --trace trace.csv --json
  turnwise-sim clock --judge
  turnwise-sim clock --judge --crossed
  turnwise-sim clock --interval-checks 1e8

A specification names seed, samples, interval, rtt, asymmetry (-1 to 1), jitter, tail (0 to 1), commit,
routes and congestion (mean times between), resolution, drift (ppm), wander (ppb), step, steps (mean time
between); what it leaves out has its default.")]
#[command(group = ArgGroup::new("what").required(true))]
pub(super) struct Arguments {
    /// A trace: CSV with the columns t0_ns,t1_ns,t2_ns,t3_ns,true_offset_ns
    #[arg(long, value_name = "FILE", group = "what")]
    trace: Option<PathBuf>,

    /// Make the trace from a specification
    #[arg(long, value_name = "SPEC", group = "what")]
    generate: Option<Spec>,

    /// Judge all estimators on the judging traces, beside the oracle (minutes)
    #[arg(long, group = "what")]
    judge: bool,

    /// Judge on the traces that cross everything that may befall a road with every road (minutes)
    #[arg(long, requires = "judge")]
    crossed: bool,

    /// Judge on a set of the traces for tuning instead: 0, 1 or 2
    #[arg(long, value_name = "SET", requires = "judge", value_parser = clap::value_parser!(u64).range(0..=2))]
    tuning: Option<u64>,

    /// Look for the truth in at least so many of the engine's intervals (1e8, say)
    #[arg(long, value_name = "COUNT", group = "what", value_parser = parse_count)]
    interval_checks: Option<u64>,

    /// Show also what could be known: a particle filter that is told the laws (slow)
    #[arg(long, requires = "generate")]
    oracle: bool,

    /// Write the trace that was made
    #[arg(long, value_name = "FILE", requires = "generate")]
    write: Option<PathBuf>,

    /// Answer as JSON
    #[arg(long)]
    json: bool,
}

fn parse_count(text: &str) -> Result<u64, String> {
    let count: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if (1.0..=1e12).contains(&count) {
        Ok(count as u64)
    } else {
        Err(format!("{text} is not from 1 to 1e12"))
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), String> {
    if let Some(count) = arguments.interval_checks {
        return check_intervals(count, arguments.json);
    }
    if arguments.judge {
        let cases = match (arguments.tuning, arguments.crossed) {
            (None, false) => judging(),
            (None, true) => crossed(),
            (Some(set), false) => tuning(set),
            (Some(set), true) => crossed_tuning(set),
        };
        show_verdicts(&judge_all(&cases), arguments.json);
        return Ok(());
    }
    let samples = match (&arguments.generate, &arguments.trace) {
        (Some(spec), _) => generate(spec),
        (None, Some(path)) => {
            let name = path.display();
            let csv = std::fs::read_to_string(path)
                .map_err(|error| format!("the trace {name} cannot be read: {error}"))?;
            from_csv(&csv).map_err(|error| format!("{name}: {error}"))?
        }
        (None, None) => return Err("nothing to do: give --trace or --generate".to_owned()),
    };
    if let Some(path) = &arguments.write {
        std::fs::write(path, to_csv(&samples))
            .map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    }
    let laws = arguments.generate.as_ref().filter(|_| arguments.oracle);
    let scores = judge(&samples, laws);
    if arguments.json {
        println!("{}", to_json(samples.len() - WARM_UP, &scores));
    } else {
        println!("{}", table(&scores));
    }
    Ok(())
}

fn check_intervals(count: u64, json: bool) -> Result<(), String> {
    let checked = check(count);
    if json {
        println!(
            "{}",
            json!({"checks": checked.checks, "violations": checked.violations, "roads": checked.roads})
        );
    } else {
        println!(
            "{} checks over {} roads: the truth was outside of the interval {} times",
            checked.checks, checked.roads, checked.violations
        );
    }
    match checked.first_bad {
        None => Ok(()),
        Some(seed) => Err(format!("the interval is wrong, first on the road of seed {seed}")),
    }
}

/// How the estimator did beside the oracle, then the rivals' own figures, then a summary.
fn show_verdicts(verdicts: &[Verdict], json: bool) {
    if json {
        let verdicts: Vec<_> = verdicts
            .iter()
            .map(|verdict| {
                let Case { kind, spec } = &verdict.case;
                let mut value = to_json(spec.samples - WARM_UP, &verdict.scores);
                value["kind"] = json!(kind);
                value["spec"] = json!(spec.to_string());
                value["floor_us"] = json!(verdict.floor);
                value
            })
            .collect();
        println!("{}", json!(verdicts));
        return;
    }
    println!("{}\n", beside_the_oracle(verdicts));
    println!("{}\n", medians(verdicts));
    println!("{}", summary(verdicts));
}

fn score_of<'a>(verdict: &'a Verdict, name: &str) -> Option<&'a Score> {
    verdict.scores.iter().find(|score| score.name == name)
}

fn named(verdict: &Verdict) -> Vec<String> {
    let Case { kind, spec } = &verdict.case;
    let time = humantime::format_duration;
    vec![(*kind).to_owned(), time(spec.rtt).to_string(), time(spec.interval).to_string()]
}

fn beside_the_oracle(verdicts: &[Verdict]) -> Table {
    let mut table = aligned(&[
        "trace",
        "rtt",
        "interval",
        "offset p50",
        "/ oracle",
        "arrival p50",
        "/ oracle",
        "/ floor",
        "p99 / oracle",
        "outside",
        "recovery",
    ]);
    for verdict in verdicts {
        let (Some(own), Some(oracle)) = (score_of(verdict, "transit"), score_of(verdict, "oracle"))
        else {
            continue;
        };
        let recovery =
            own.recovery.map_or_else(String::new, |(median, worst)| format!("{median}, {worst}"));
        let mut row = named(verdict);
        row.extend([
            format!("{:.1}", own.offset.p50),
            format!("{:.2}", own.offset.p50 / oracle.offset.p50),
            format!("{:.1}", own.arrival.p50),
            format!("{:.2}", own.arrival.p50 / oracle.arrival.p50),
            format!("{:.2}", own.arrival.p50 / verdict.floor),
            format!("{:.2}", own.arrival.p99 / oracle.arrival.p99),
            own.interval_violations.to_string(),
            recovery,
        ]);
        table.add_row(row);
    }
    table
}

/// The medians of everybody: of the offset, then of the arrival.
fn medians(verdicts: &[Verdict]) -> Table {
    let names: Vec<_> =
        verdicts.iter().take(1).flat_map(|v| v.scores.iter().map(|score| score.name)).collect();
    let mut header = vec!["trace", "rtt", "interval"];
    header.extend(&names);
    header.extend(&names);
    header.push("floor");
    let mut table = aligned(&header);
    for verdict in verdicts {
        let mut row = named(verdict);
        row.extend(verdict.scores.iter().map(|score| format!("{:.1}", score.offset.p50)));
        row.extend(verdict.scores.iter().map(|score| format!("{:.1}", score.arrival.p50)));
        row.push(format!("{:.1}", verdict.floor));
        table.add_row(row);
    }
    table
}

fn summary(verdicts: &[Verdict]) -> String {
    let ratios = |quantity: fn(&Score) -> f64| -> Vec<f64> {
        verdicts
            .iter()
            .filter_map(|v| {
                let (own, oracle) = (score_of(v, "transit")?, score_of(v, "oracle")?);
                Some(quantity(own) / quantity(oracle))
            })
            .collect()
    };
    let line = |name: &str, target: f64, ratios: &[f64]| {
        let mean = (ratios.iter().map(|r| r.ln()).sum::<f64>() / ratios.len() as f64).exp();
        let worst = ratios.iter().copied().fold(0.0, f64::max);
        let within = ratios.iter().filter(|r| **r <= target + 0.005).count();
        format!(
            "{name}: {mean:.3} x the oracle (geometric mean), worst {worst:.2}; within {target:.2} on {within} of {}",
            ratios.len()
        )
    };
    let beaten = verdicts.iter().filter(|v| {
        let Some(oracle) = score_of(v, "oracle") else { return false };
        v.scores.iter().any(|score| score.offset.p50 < oracle.offset.p50)
    });
    let own = || verdicts.iter().filter_map(|verdict| score_of(verdict, "transit"));
    let outside: u64 = own().map(|score| score.interval_violations as u64).sum();
    let recoveries: Vec<_> = own().filter_map(|score| score.recovery).collect();
    let worst = |of: fn(&(usize, usize)) -> usize| recoveries.iter().map(of).max().unwrap_or(0);
    let (median, most) = (worst(|(median, _)| *median), worst(|(_, most)| *most));
    [
        line("offset p50", 1.25, &ratios(|score| score.offset.p50)),
        line("arrival p50", 1.05, &ratios(|score| score.arrival.p50)),
        line("arrival p99", 1.0, &ratios(|score| score.arrival.p99)),
        format!("the oracle's offset was beaten on {} of {}", beaten.count(), verdicts.len()),
        format!("the truth was outside of the interval {outside} times"),
        format!(
            "after a step the offset was good again in {median} exchanges (the highest median), {most} (the worst), on {} traces",
            recoveries.len()
        ),
    ]
    .join("\n")
}

fn to_json(samples: usize, scores: &[Score]) -> Value {
    let errors = |errors: Errors| json!({"p50": errors.p50, "p99": errors.p99, "max": errors.max});
    let estimators: Map<String, Value> = scores
        .iter()
        .map(|score| {
            let value = json!({
                "offset_us": errors(score.offset),
                "arrival_us": errors(score.arrival),
                "interval_violations": score.interval_violations,
            });
            (score.name.to_owned(), value)
        })
        .collect();
    json!({"samples": samples, "estimators": estimators})
}

fn table(scores: &[Score]) -> Table {
    let mut table = aligned(&[
        "",
        "offset p50",
        "p99",
        "max",
        "arrival p50",
        "p99",
        "max",
        "outside its interval",
    ]);
    for score in scores {
        let mut row = vec![score.name.to_owned()];
        for errors in [score.offset, score.arrival] {
            row.extend([errors.p50, errors.p99, errors.max].map(|micros| format!("{micros:.1}")));
        }
        row.push(score.interval_violations.to_string());
        table.add_row(row);
    }
    table
}

/// A table without lines, whose columns but the first stand to the right.
fn aligned(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
