//! `turnwise-sim plot`: a scenario, drawn.

use std::path::PathBuf;

use clap::Args;

use super::lab::simulate;
use super::options::Design;
use super::replay::{load, run_in};
use super::{Outcome, write_file};
use crate::tier::Tier;

/// Draw a scenario's beats, gaps and faults as SVG; below them how far the beats were from their boundaries, and how far
/// from the truth the nodes believed the server's clock to be.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The scenario, as `sweep`, `shrink`, `lab --write` and `cluster --write` leave it
    file: PathBuf,

    /// Where to write the picture; beside the scenario unless given
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,

    /// What runs the scenario
    #[arg(long, value_enum, default_value_t)]
    tier: Tier,

    /// Which design takes turns; the original one in the lab alone
    #[arg(long, value_enum, default_value_t)]
    clock: Design,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    arguments.clock.check_in(arguments.tier)?;
    let scenario = load(&arguments.file)?;
    let report = match arguments.tier {
        Tier::Lab => simulate(&scenario, arguments.clock, true),
        tier => run_in(&scenario, tier, true)?,
    };
    let path = arguments.write.clone().unwrap_or_else(|| arguments.file.with_extension("svg"));
    if let Some(picture) = &report.picture {
        write_file(&path, &crate::plot::timeline(picture))?;
    }
    println!("  {} beats, {} missed, {} doubled", report.beats, report.missed, report.doubled);
    println!("  {}", path.display());
    Ok(None)
}
