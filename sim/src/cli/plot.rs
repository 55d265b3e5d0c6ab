//! `turnwise-sim plot`: a scenario, drawn.

use std::path::PathBuf;

use clap::Args;

use super::lab::simulate;
use super::options::Design;
use super::replay::load;
use super::{Outcome, write_file};

/// Draw a scenario's beats, gaps, arrival errors and faults as SVG.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The scenario, as `sweep`, `shrink` and `lab --write` leave it
    file: PathBuf,

    /// Where to write the picture; beside the scenario unless given
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,

    /// Which design takes turns
    #[arg(long, value_enum, default_value_t)]
    clock: Design,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let scenario = load(&arguments.file)?;
    let report = simulate(&scenario, arguments.clock, true);
    let path = arguments.write.clone().unwrap_or_else(|| arguments.file.with_extension("svg"));
    if let Some(picture) = &report.picture {
        write_file(&path, &crate::plot::timeline(picture))?;
    }
    println!("  {} beats, {} missed, {} doubled", report.beats, report.missed, report.doubled);
    println!("  {}", path.display());
    Ok(None)
}
