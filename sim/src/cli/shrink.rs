//! `turnwise-sim shrink`: what of a failing scenario is needed to fail.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use super::replay::load;
use super::{Outcome, write_file};
use crate::scenario::Scenario;
use crate::shrink::{shrink, violated};
use crate::tier::Tier;

/// Make a failing scenario smaller: leave out faults, nodes, load and time as long as the same invariant fails.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The scenario
    file: PathBuf,

    /// What runs the scenario
    #[arg(long, value_enum, default_value_t)]
    tier: Tier,

    /// Where to write the smaller one; beside the first unless given
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let scenario = load(&arguments.file)?;
    let tier = arguments.tier;
    if let Some(misfit) = tier.misfit(&scenario) {
        return Err(format!("the {tier} cannot run this: {misfit}"));
    }
    let path =
        arguments.write.clone().unwrap_or_else(|| arguments.file.with_extension("small.json"));
    let Some(text) = make_smaller(&scenario, tier, &path)? else {
        let file = arguments.file.display();
        return Err(format!("{file} violates nothing: there is nothing to make smaller"));
    };
    println!("{text}");
    Ok(None)
}

/// Make a failing scenario smaller and write it; what is left of it, for people. None: it violates nothing.
pub(super) fn make_smaller(
    scenario: &Scenario,
    tier: Tier,
    path: &Path,
) -> Result<Option<String>, String> {
    let Some(first) = violated(tier, scenario).first().copied() else { return Ok(None) };
    let (smaller, runs) = shrink(scenario, &|candidate| violated(tier, candidate).contains(&first));
    write_file(path, &smaller.to_json())?;
    let mut text = format!(
        "  {}: from {} faults, {} nodes and {} to {} faults, {} nodes and {}, in {runs} runs\n",
        first.as_str(),
        scenario.faults.len(),
        scenario.nodes.len(),
        scenario.duration,
        smaller.faults.len(),
        smaller.nodes.len(),
        smaller.duration
    );
    for planned in &smaller.faults {
        let _ = writeln!(text, "    at {}: {:?}", planned.at, planned.fault);
    }
    let _ = write!(text, "  turnwise-sim replay --tier {tier} {}", path.display());
    Ok(Some(text))
}
