//! `turnwise-sim clock`: what it reads or makes, and how it shows the scores.

use std::path::PathBuf;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value, json};

use crate::clock::judge::{Errors, Score, WARM_UP, judge};
use crate::clock::trace::{Spec, from_csv, generate, to_csv};

/// Over all samples but the first 40: how far each estimator's offset at t0 was from the truth, and how far
/// its predicted transit was from the next one, before it saw that sample. In microseconds.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  turnwise-sim clock --generate rtt=5ms,interval=10s,asymmetry=0.2,seed=7 --oracle
  turnwise-sim clock --generate rtt=80ms,routes=10m,commit=2ms --write trace.csv
  turnwise-sim clock --trace trace.csv --json

A specification names seed, samples, interval, rtt, asymmetry (-1 to 1), jitter, tail (0 to 1), commit,
routes and congestion (mean times between), resolution, drift (ppm), wander (ppb), step, steps (mean time
between); what it leaves out has its default.")]
pub(super) struct Arguments {
    /// A trace: CSV with the columns t0_ns,t1_ns,t2_ns,t3_ns,true_offset_ns
    #[arg(long, value_name = "FILE", required_unless_present = "generate")]
    trace: Option<PathBuf>,

    /// Make the trace from a specification
    #[arg(long, value_name = "SPEC", conflicts_with = "trace")]
    generate: Option<Spec>,

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

pub(super) fn run(arguments: &Arguments) -> Result<(), String> {
    let samples = match (&arguments.generate, &arguments.trace) {
        (Some(spec), _) => generate(spec),
        (None, Some(path)) => {
            let name = path.display();
            let csv = std::fs::read_to_string(path)
                .map_err(|error| format!("the trace {name} cannot be read: {error}"))?;
            from_csv(&csv).map_err(|error| format!("{name}: {error}"))?
        }
        (None, None) => return Err("neither --trace nor --generate is given".to_owned()),
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
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
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
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
