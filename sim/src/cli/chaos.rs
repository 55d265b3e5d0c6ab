//! `turnwise-sim chaos`: one farm of real processes, one report.

use std::path::{Path, PathBuf};

use clap::Args;

use super::options::Farm;
use super::replay::load;
use super::{Outcome, keep, show, write_file};
use crate::chaos::{Kind, Rig, misfit, run as run_chaos, with_failovers};
use crate::scenario::Scenario;

/// The program that people run, as real processes against a real database server that is made for the run: with
/// clocks that are wrong, roads as long as you choose, kills, stops, cuts, and a database that is killed or does not
/// answer. Judged from the database's own history and by what the web apps saw, by the invariants of the simulators;
/// every node's journal is replayed. It takes as long as it says: a run is real time.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  turnwise-sim chaos --duration 2m --jobs-rate 20/s --crash-rate 1/20s --pause-rate 1/30s
  turnwise-sim chaos --replica --db-fault-rate 1/20s --jobs-rate 10/s --duration 2m
  turnwise-sim chaos --nodes 3 --db-fault-rate 1/30s --jobs-rate 5/s --folder run --plot run.svg")]
pub(super) struct Arguments {
    #[command(flatten)]
    farm: Farm,

    /// The database
    #[arg(long, value_enum, default_value_t)]
    database: Kind,

    /// With a standby that has everything that was acknowledged (synchronous replication): where the database would
    /// restart, the standby takes over, at least once a run. PostgreSQL alone
    #[arg(long)]
    replica: bool,

    /// A scenario file, in place of the options that describe a farm
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,

    /// The program whose processes are run [default: turnwise, beside this one]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,

    /// Keep the nodes' logs and journals in this folder, which must be new or empty
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,

    /// Draw beats, gaps and faults as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,

    /// Answer as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let (scenario, replica) = (scenario(arguments)?, arguments.replica);
    let folder = match &arguments.folder {
        Some(folder) => folder.clone(),
        None => std::env::temp_dir().join(format!("turnwise-chaos-{}", std::process::id())),
    };
    make_folder(&folder)?;
    let program = match &arguments.program {
        Some(program) => program.clone(),
        None => {
            beside().ok_or("the program turnwise is not beside this one: name it with --program")?
        }
    };
    let program = program
        .canonicalize()
        .map_err(|error| format!("{} cannot be run: {error}", program.display()))?;
    let folder = folder
        .canonicalize()
        .map_err(|error| format!("{} cannot be used: {error}", folder.display()))?;
    let rig = Rig { program, folder: folder.clone(), database: arguments.database, replica };
    let report = run_chaos(&scenario, &rig, arguments.plot.is_some())?;
    if let (Some(path), Some(picture)) = (&arguments.plot, &report.picture) {
        write_file(path, &crate::plot::timeline(picture))?;
    }
    if arguments.json {
        println!("{}", report.to_json("chaos"));
    } else {
        print!("{}", show::report(&report, show::Ran::Processes));
    }
    if report.violated > 0 {
        let path = keep(&scenario, "chaos")?;
        return Ok(Some(format!(
            "logs and journals are in {}; run it again with: turnwise-sim chaos{} --scenario {}",
            folder.display(),
            if replica { " --replica" } else { "" },
            path.display()
        )));
    }
    if arguments.folder.is_none() {
        // Nothing is to be looked up in them.
        let _ = std::fs::remove_dir_all(&folder);
    }
    Ok(None)
}

/// What is to be done to real processes.
fn scenario(arguments: &Arguments) -> Result<Scenario, String> {
    let scenario = match &arguments.scenario {
        Some(file) => load(file)?,
        None => arguments.farm.scenario()?,
    };
    if let (None, Some(option)) = (&arguments.scenario, arguments.farm.of_simulated_clocks()) {
        return Err(format!(
            "real processes cannot do this: {option}: of their clocks only the time and the rate can be wrong; the \
             simulated tiers can"
        ));
    }
    let replica = arguments.replica;
    if replica && arguments.database != Kind::Postgres {
        return Err("--replica: of PostgreSQL alone a standby is made here; leave out --database"
            .to_owned());
    }
    let scenario = if replica { with_failovers(scenario) } else { scenario };
    if let Some(misfit) = misfit(&scenario, replica) {
        return Err(format!("real processes cannot do this: {misfit}"));
    }
    Ok(scenario)
}

/// A folder with nothing in it.
fn make_folder(folder: &Path) -> Result<(), String> {
    std::fs::create_dir_all(folder)
        .map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
    let mut entries = std::fs::read_dir(folder)
        .map_err(|error| format!("{} cannot be read: {error}", folder.display()))?;
    match entries.next() {
        Some(_) => Err(format!("{} is not empty: name a new folder", folder.display())),
        None => Ok(()),
    }
}

/// The program that was built with this one.
fn beside() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?.with_file_name("turnwise");
    program.exists().then_some(program)
}
