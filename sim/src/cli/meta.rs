//! `turnwise-sim meta`: the same seeds in two processes must leave the same hash.

use std::process::Command;

use clap::Args;

use super::Outcome;
use crate::tier::Tier;

/// Show that a run is decided by its seed alone: sweep the same seeds in two processes, with another number of
/// threads, and compare the hashes of all that happened.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// How many seeds
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,

    /// What runs them
    #[arg(long, value_enum, default_value_t)]
    tier: Tier,

    /// Another build of this program (debug, release) to compare with; this one twice unless given
    #[arg(long, value_name = "PROGRAM")]
    with: Option<std::path::PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let this = std::env::current_exe()
        .map_err(|error| format!("this program cannot find itself: {error}"))?;
    let other = arguments.with.as_ref().unwrap_or(&this);
    let first = hash(&this, arguments, "1")?;
    let second = hash(other, arguments, "2")?;
    println!("  {} seeds, one thread:  {first}", arguments.seeds);
    println!("  {} seeds, two threads: {second}", arguments.seeds);
    if first != second {
        return Ok(Some("the hashes differ: something besides the seed decides".to_owned()));
    }
    Ok(None)
}

fn hash(program: &std::path::Path, arguments: &Arguments, threads: &str) -> Result<String, String> {
    let name = program.display();
    let output = Command::new(program)
        .args(["sweep", "--swarm", "--json", "--allow-unreached", "--threads", threads])
        .args(["--seeds", &format!("0..{}", arguments.seeds)])
        .args(["--tier", arguments.tier.as_str()])
        .output()
        .map_err(|error| format!("{name} cannot be run: {error}"))?;
    let value: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{name} did not answer with a report: {error}"))?;
    value["trace_hash"]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| format!("the report of {name} names no hash"))
}
