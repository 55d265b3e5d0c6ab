//! `turnwise-sim lab`: one farm, one report.

use std::path::{Path, PathBuf};

use clap::Args;

use super::options::{Design, Farm};
use super::replay::write_journals;
use super::{Outcome, show, write_file};
use crate::lab::{Original, Product, run_with, run_with_journals};
use crate::report::Report;
use crate::scenario::Scenario;

/// Engines alone, driven by discrete events at nanosecond resolution: a farm with the skew, the latency and the
/// faults of your choice, judged by every invariant.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  turnwise-sim lab --nodes 5 --skew 900ms --latency 1ms..80ms --duration 24h --seed 7
  turnwise-sim lab --nodes 5 --crash-rate 1/60s --jobs-rate 5/s --duration 1h
  turnwise-sim lab --clock original --duration 1h
  turnwise-sim lab --step -1h@60s --plot run.svg
  turnwise-sim lab --nodes 5 --latency 1ms..80ms --node-latency 2=300ms..400ms
  turnwise-sim lab --crash-rate 1/60s --journals journals")]
pub(super) struct Arguments {
    #[command(flatten)]
    farm: Farm,

    /// Which design takes turns
    #[arg(long, value_enum, default_value_t)]
    clock: Design,

    /// Write the scenario, to be replayed
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,

    /// Write the journal of each life of each node into this folder, to be replayed
    #[arg(long, value_name = "FOLDER")]
    journals: Option<PathBuf>,

    /// Draw beats, gaps and faults as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,

    /// Answer as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let scenario = arguments.farm.scenario()?;
    if let Some(path) = &arguments.write {
        write_file(path, &scenario.to_json())?;
    }
    let picture = arguments.plot.is_some();
    let report = match &arguments.journals {
        Some(folder) => simulate_and_write(&scenario, arguments.clock, picture, folder)?,
        None => simulate(&scenario, arguments.clock, picture),
    };
    if let (Some(path), Some(picture)) = (&arguments.plot, &report.picture) {
        write_file(path, &crate::plot::timeline(picture))?;
    }
    print(&report, arguments.clock, arguments.json);
    if report.violated > 0 {
        let path = super::keep(&scenario, "lab")?;
        return Ok(Some(format!("replay it with: turnwise-sim replay {}", path.display())));
    }
    Ok(None)
}

pub(super) fn simulate(scenario: &Scenario, design: Design, picture: bool) -> Report {
    match design {
        Design::Transit => run_with::<Product>(scenario, picture),
        Design::Original => run_with::<Original>(scenario, picture),
    }
}

/// Simulate the engine, and write the journals of all lives, a file each.
pub(super) fn simulate_and_write(
    scenario: &Scenario,
    design: Design,
    picture: bool,
    folder: &Path,
) -> Result<Report, String> {
    if design == Design::Original {
        return Err("--journals: the original design keeps none; leave out --clock".to_owned());
    }
    let (report, journals) = run_with_journals(scenario, picture);
    let named = journals.iter().map(|journal| {
        let name = format!("node-{}-life-{}", journal.node, journal.life);
        (name, &journal.header, &journal.entries[..])
    });
    write_journals(folder, named)?;
    Ok(report)
}

pub(super) fn print(report: &Report, design: Design, json: bool) {
    if json {
        println!("{}", report.to_json("lab"));
        return;
    }
    let design = match design {
        Design::Transit => "transit (the engine of Turnwise)",
        Design::Original => "original (the yardstick; its faults are counted, not judged)",
    };
    print!("{}", show::report(report, show::Ran::Simulated(design)));
}
