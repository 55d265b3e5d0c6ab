//! `turnwise-sim replay`: a scenario file, run again; or a node's journal, told to a new engine.

use std::path::{Path, PathBuf};

use clap::Args;
use turnwise_engine::journal::{self, Entry, Header, Summary};

use super::cluster::journals_alone;
use super::lab::{print, simulate, simulate_and_write};
use super::options::Design;
use super::{Outcome, keep, read_file, show, write_file};
use crate::report::Report;
use crate::scenario::Scenario;
use crate::tier::Tier;

/// Run a scenario file again: the same events, the same hash. Or tell a new engine what the journal of a node
/// (`turnwise run --journal FILE`, or of a simulated one: `lab --journals`, `cluster --journals`) was told, and compare what
/// it asks for, entry by entry.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The scenario, as `sweep`, `shrink` and `lab --write` leave it; or a journal
    file: PathBuf,

    /// What runs the scenario
    #[arg(long, value_enum, default_value_t)]
    tier: Tier,

    /// Which design takes turns; the original one in the lab alone
    #[arg(long, value_enum, default_value_t)]
    clock: Design,

    /// Write the journals of the scenario's nodes into this folder, to be replayed
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
    let text = read_file(&arguments.file)?;
    if let Some(header) = crate::journal::header(&text) {
        if arguments.journals.is_some() {
            let name = arguments.file.display();
            return Err(format!("--journals: {name} is a journal already; give a scenario"));
        }
        return replay_journal(arguments, &header, &text);
    }
    arguments.clock.check_in(arguments.tier)?;
    let scenario = load(&arguments.file)?;
    if arguments.tier == Tier::Cluster {
        let (plot, json) = (arguments.plot.as_deref(), arguments.json);
        if let (None, Some(folder)) = (Tier::Cluster.misfit(&scenario), &arguments.journals) {
            journals_alone(&scenario, folder)?;
        }
        return report_on(&scenario, Tier::Cluster, plot, json);
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
        let file = arguments.file.display();
        return Ok(Some(format!("make it smaller with: turnwise-sim shrink {file}")));
    }
    Ok(None)
}

/// Run a scenario in a tier, and say how it went.
pub(super) fn report_on(
    scenario: &Scenario,
    tier: Tier,
    plot: Option<&Path>,
    json: bool,
) -> Outcome {
    let report = run_in(scenario, tier, plot.is_some())?;
    if let (Some(path), Some(picture)) = (plot, &report.picture) {
        write_file(path, &crate::plot::timeline(picture))?;
    }
    if json {
        println!("{}", report.to_json(tier.as_str()));
    } else {
        print!("{}", show::report(&report, show::Ran::Simulated("the production shell")));
    }
    if report.violated > 0 {
        let path = keep(scenario, tier.as_str())?;
        let path = path.display();
        return Ok(Some(format!("replay it with: turnwise-sim replay --tier {tier} {path}")));
    }
    Ok(None)
}

/// Run a scenario in a tier, if the tier can express it.
pub(super) fn run_in(scenario: &Scenario, tier: Tier, picture: bool) -> Result<Report, String> {
    match tier.misfit(scenario) {
        Some(misfit) => Err(format!("the {tier} cannot run this: {misfit}")),
        None => Ok(tier.run(scenario, picture)),
    }
}

fn replay_journal(arguments: &Arguments, header: &Header, text: &str) -> Outcome {
    let name = arguments.file.display();
    let entries = crate::journal::entries(text).map_err(|error| format!("{name}: {error}"))?;
    match journal::replay(header, entries) {
        Ok(Summary { lives, inputs, outputs, ended, .. }) if arguments.json => {
            let (differs, node) = (false, &header.node);
            println!(
                "{}",
                serde_json::json!({
                    "node": node, "lives": lives, "inputs": inputs, "outputs": outputs,
                    "ended": ended, "differs": differs,
                })
            );
            Ok(None)
        }
        Ok(Summary { lives, inputs, outputs, ended, .. }) => {
            println!("  the journal of {}: {lives} lives, {inputs} inputs", header.node);
            println!("  {outputs} outputs, all as they were");
            if !ended {
                println!(
                    "  it does not hold the end: the node was killed or lived on, or it broke off"
                );
            }
            Ok(None)
        }
        Err(difference) => Ok(Some(format!("{name}: {difference}"))),
    }
}

/// Write journals into a folder, each into a file of its name, to be replayed.
pub(super) fn write_journals<'a>(
    folder: &Path,
    journals: impl IntoIterator<Item = (String, &'a Header, &'a [Entry])>,
) -> Result<(), String> {
    std::fs::create_dir_all(folder)
        .map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
    for (name, header, entries) in journals {
        let text = crate::journal::text(header, entries).map_err(|error| error.to_string())?;
        write_file(&folder.join(format!("{name}.journal")), &text)?;
    }
    Ok(())
}

pub(super) fn load(path: &Path) -> Result<Scenario, String> {
    let text = read_file(path)?;
    Scenario::from_json(&text).map_err(|error| format!("{}: {error}", path.display()))
}
