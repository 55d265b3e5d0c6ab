//! `turnwise-sim replay`: a scenario file, run again.

use std::path::PathBuf;

use clap::Args;

use super::lab::{print, simulate};
use super::options::Design;
use super::{Outcome, read_file, write_file};
use crate::scenario::Scenario;

/// Run a scenario file again: the same events, the same hash.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The scenario, as `sweep`, `shrink` and `lab --write` leave it
    file: PathBuf,

    /// Which design takes turns
    #[arg(long, value_enum, default_value_t)]
    clock: Design,

    /// Draw beats, gaps and faults as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,

    /// Answer as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let scenario = load(&arguments.file)?;
    let report = simulate(&scenario, arguments.clock, arguments.plot.is_some());
    if let (Some(path), Some(picture)) = (&arguments.plot, &report.picture) {
        write_file(path, &crate::plot::timeline(picture))?;
    }
    print(&report, arguments.clock, arguments.json);
    if report.violated > 0 {
        let file = arguments.file.display();
        return Ok(Some(format!("make it smaller with: turnwise-sim shrink {file}")));
    }
    Ok(None)
}

pub(super) fn load(path: &std::path::Path) -> Result<Scenario, String> {
    let text = read_file(path)?;
    Scenario::from_json(&text).map_err(|error| format!("{}: {error}", path.display()))
}
