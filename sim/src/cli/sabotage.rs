//! `turnwise-sim sabotage`: the simulator is tested too.

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::json;
use turnwise_engine::Bug;

use super::Outcome;
use crate::sabotage::{Found, hunt_all};

/// Plant bugs in the engine, one at a time, and see after how many seeds of the swarm which invariant finds each.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Only the bug of this name
    #[arg(long, value_name = "NAME", value_parser = bug)]
    bug: Option<Bug>,

    /// Give up after so many seeds
    #[arg(long, value_name = "SEEDS", default_value_t = 5_000)]
    most: u64,

    /// Show also what was seen
    #[arg(long)]
    detail: bool,

    /// Answer as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let bugs: Vec<Bug> = arguments.bug.map_or_else(|| Bug::ALL.to_vec(), |bug| vec![bug]);
    // What is planted may panic; that is a way to be found.
    std::panic::set_hook(Box::new(|_| {}));
    let table = hunt_all(&bugs, arguments.most);
    let _ = std::panic::take_hook();
    let lost: Vec<_> =
        table.iter().filter(|(_, found)| found.is_none()).map(|(bug, _)| bug.as_str()).collect();
    let mut seeds: Vec<_> =
        table.iter().filter_map(|(_, found)| Some(found.as_ref()?.seeds)).collect();
    seeds.sort_unstable();
    let median = seeds.get(seeds.len().saturating_sub(1) / 2).copied();
    if arguments.json {
        let bugs: Vec<_> = table
            .iter()
            .map(|(bug, found)| {
                let (seeds, by) = (found.as_ref().map(|f| f.seeds), found.as_ref().map(|f| f.by));
                json!({"bug": bug.as_str(), "rule": bug.describe(), "seeds": seeds, "found_by": by})
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

fn show(found: &[(Bug, Option<Found>)], detail: bool) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["bug", "seeds", "found by", if detail { "what was seen" } else { "rule" }]);
    for (bug, found) in found {
        let (seeds, by, seen) = match found {
            Some(found) => (found.seeds.to_string(), found.by, found.detail.as_str()),
            None => ("-".to_owned(), "nothing", ""),
        };
        let last = if detail { seen } else { bug.describe() };
        table.add_row([bug.as_str(), &seeds, by, last]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn bug(name: &str) -> Result<Bug, String> {
    Bug::ALL.iter().copied().find(|bug| bug.as_str() == name).ok_or_else(|| {
        let names: Vec<_> = Bug::ALL.iter().map(|bug| bug.as_str()).collect();
        format!("there is no bug {name:?}; there are {}", names.join(", "))
    })
}
