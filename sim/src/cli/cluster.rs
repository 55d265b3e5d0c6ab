//! `turnwise-sim cluster`: one farm of whole nodes, one report.

use std::path::{Path, PathBuf};

use clap::Args;
use turnwise_engine::journal::Entry;

use super::options::{Design, Farm};
use super::replay::{report_on, write_journals};
use super::{Outcome, write_file};
use crate::cluster::run_with_journals;
use crate::scenario::Scenario;
use crate::tier::Tier;

/// The shell that runs in production, on simulated machines with skewed clocks, over a simulated network, against
/// the production SQLite store and web apps that fail: with the faults of your choice, judged by every invariant.
/// The network moves in steps of 1 ms, so that ways are rounded up to whole milliseconds.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  turnwise-sim cluster --nodes 5 --skew 900ms --latency 1ms..80ms --crash-rate 1/60s \\
      --db-fault-rate 1/120s --jobs-rate 20/s --duration 10m --seed 7
  turnwise-sim cluster --nodes 3 --partition-rate 1/30s --jobs-rate 5/s --plot run.svg")]
pub(super) struct Arguments {
    #[command(flatten)]
    farm: Farm,

    /// Which design takes turns; the original one in the lab alone
    #[arg(long, value_enum, default_value_t)]
    clock: Design,

    /// Write the scenario, to be replayed
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,

    /// Write the journal of each node into this folder, to be replayed
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
    arguments.clock.check_in(Tier::Cluster)?;
    let scenario = arguments.farm.scenario_in(Tier::Cluster)?;
    if let Some(path) = &arguments.write {
        write_file(path, &scenario.to_json())?;
    }
    if let Some(folder) = &arguments.journals {
        journals_alone(&scenario, folder)?;
    }
    report_on(&scenario, Tier::Cluster, arguments.plot.as_deref(), arguments.json)
}

/// Run the scenario for its journals alone: it runs again for its report, to the same end.
pub(super) fn journals_alone(scenario: &Scenario, folder: &Path) -> Result<(), String> {
    let (_, journals) = run_with_journals(scenario, false);
    let named = journals.iter().enumerate().filter_map(|(node, entries)| {
        // A node without any never came up.
        let (Entry::Life(header), entries) = entries.split_first()? else { return None };
        Some((format!("node-{node}"), header, entries))
    });
    write_journals(folder, named)
}
