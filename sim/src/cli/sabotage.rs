//! `turnwise-sim sabotage`: the simulator is tested too.

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::json;

use super::Outcome;
use crate::sabotage::{Found, Plantable, hunt_all};
use crate::tier::Tier;

/// Plant bugs, one at a time, and see after how many seeds of the swarm which invariant finds each: in the engine
/// and the turn row, which the lab runs, or in the shell and the store, which the cluster runs.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// What looks for them
    #[arg(long, value_enum, default_value_t)]
    tier: Tier,

    /// Only the bug of this name
    #[arg(long, value_name = "NAME", value_parser = known)]
    bug: Option<String>,

    /// Give up after so many seeds; 5000 in the lab and 500 in the cluster unless given
    #[arg(long, value_name = "SEEDS")]
    most: Option<u64>,

    /// Show also what was seen
    #[arg(long)]
    detail: bool,

    /// Answer as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    match arguments.tier {
        Tier::Lab => run_on::<turnwise_engine::Bug>(arguments, 5_000),
        Tier::Cluster => run_on::<turnwise_node::sabotage::Bug>(arguments, 500),
    }
}

fn run_on<B: Plantable>(arguments: &Arguments, most: u64) -> Outcome {
    let bugs = match &arguments.bug {
        Some(name) => vec![named::<B>(name)?],
        None => B::ALL.to_vec(),
    };
    // What is planted may panic; that is a way to be found.
    std::panic::set_hook(Box::new(|_| {}));
    let table = hunt_all(&bugs, arguments.most.unwrap_or(most));
    let _ = std::panic::take_hook();
    let lost: Vec<_> =
        table.iter().filter(|(_, found)| found.is_none()).map(|(bug, _)| bug.name()).collect();
    let mut seeds: Vec<_> =
        table.iter().filter_map(|(_, found)| Some(found.as_ref()?.seeds)).collect();
    seeds.sort_unstable();
    let median = seeds.get(seeds.len().saturating_sub(1) / 2).copied();
    if arguments.json {
        let bugs: Vec<_> = table
            .iter()
            .map(|(bug, found)| {
                let (seeds, by) = (found.as_ref().map(|f| f.seeds), found.as_ref().map(|f| f.by));
                json!({"bug": bug.name(), "rule": bug.rule(), "seeds": seeds, "found_by": by})
            })
            .collect();
        println!("{}", json!({"bugs": bugs, "median_seeds": median, "not_found": lost}));
    } else {
        println!("{}", show(&table, arguments.detail));
        println!(
            "  {} bugs, {} found, median {} seeds",
            table.len(),
            seeds.len(),
            median.unwrap_or(0)
        );
    }
    if lost.is_empty() { Ok(None) } else { Ok(Some(format!("not found: {}", lost.join(", ")))) }
}

fn show<B: Plantable>(found: &[(B, Option<Found>)], detail: bool) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["bug", "seeds", "found by", if detail { "what was seen" } else { "rule" }]);
    for (bug, found) in found {
        let (seeds, by, seen) = match found {
            Some(found) => (found.seeds.to_string(), found.by, found.detail.as_str()),
            None => ("-".to_owned(), "nothing", ""),
        };
        let last = if detail { seen } else { bug.rule() };
        table.add_row([bug.name(), &seeds, by, last]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A name of a bug that some tier plants.
fn known(name: &str) -> Result<String, String> {
    let lab = turnwise_engine::Bug::ALL.iter().map(|bug| bug.name());
    let all: Vec<_> =
        lab.chain(turnwise_node::sabotage::Bug::ALL.iter().map(|bug| bug.name())).collect();
    match all.contains(&name) {
        true => Ok(name.to_owned()),
        false => Err(format!("there is no bug {name:?}; there are {}", all.join(", "))),
    }
}

fn named<B: Plantable>(name: &str) -> Result<B, String> {
    B::ALL.iter().copied().find(|bug| bug.name() == name).ok_or_else(|| {
        let names: Vec<_> = B::ALL.iter().map(|bug| bug.name()).collect();
        format!("--bug: the {} plants no {name:?}; there are {}", B::TIER, names.join(", "))
    })
}
