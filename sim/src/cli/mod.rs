//! Decides what the commands of `turnwise-sim` do with their arguments, and how they say what went wrong.

mod chaos;
mod clock;
mod cluster;
mod lab;
mod meta;
mod options;
mod plot;
mod replay;
mod sabotage;
mod scale;
mod show;
mod shrink;
mod sweep;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::scenario::Scenario;

/// The simulators of Turnwise.
#[derive(Debug, Parser)]
#[command(name = "turnwise-sim", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One farm of engines with the skew, latency and faults of your choice
    Lab(lab::Arguments),
    /// One farm of whole nodes on a simulated network
    Cluster(cluster::Arguments),
    /// One farm of real processes on a real database server
    Chaos(chaos::Arguments),
    /// Many seeds on all cores
    Sweep(sweep::Arguments),
    /// Run a scenario file again
    Replay(replay::Arguments),
    /// Make a failing scenario smaller
    Shrink(shrink::Arguments),
    /// Show that a run is decided by its seed alone
    Meta(meta::Arguments),
    /// Plant bugs in the engine and see how soon they are found
    Sabotage(sabotage::Arguments),
    /// Measure what joins, crashes and drains cost in rings of several sizes
    Scale(scale::Arguments),
    /// Estimators of the server's clock side by side on one trace
    Clock(clock::Arguments),
    /// Draw a scenario's beats, gaps, faults and errors as SVG
    Plot(plot::Arguments),
}

/// What a command came to: done; or done and found wanting, with what to do about it; or not done.
type Outcome = Result<Option<String>, String>;

/// Run the command line. 0: done; 1: an invariant was violated, or it failed; 2: the arguments make no sense.
pub fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Lab(arguments) => lab::run(&arguments),
        Command::Cluster(arguments) => cluster::run(&arguments),
        Command::Chaos(arguments) => chaos::run(&arguments),
        Command::Sweep(arguments) => sweep::run_command(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Shrink(arguments) => shrink::run(&arguments),
        Command::Meta(arguments) => meta::run(&arguments),
        Command::Sabotage(arguments) => sabotage::run(&arguments),
        Command::Scale(arguments) => scale::run(&arguments),
        Command::Clock(arguments) => clock::run(&arguments).map(|()| None),
        Command::Plot(arguments) => plot::run(&arguments),
    };
    match outcome {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(advice)) => {
            eprintln!("{advice}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("turnwise-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Keep a failing scenario where it can be found again.
fn keep(scenario: &Scenario, name: &str) -> Result<PathBuf, String> {
    let path = std::env::temp_dir().join(format!("turnwise-{name}.json"));
    write_file(&path, &scenario.to_json())?;
    Ok(path)
}

fn write_file(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text)
        .map_err(|error| format!("{} cannot be written: {error}", path.display()))
}

fn read_file(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path)
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))
}
