//! `turnwise-sim scale`: how the costs of rings of several sizes are shown.

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::ProgressBar;
use serde_json::{Map, Value, json};

use super::Outcome;
use crate::report::Sort;
use crate::scale::{Cost, Event, Row, Typical, measure};

/// In settled rings of several sizes, idle and busy with jobs of a minute at most: one node joins, crashes or
/// drains. What that costs, how long it takes, and what the ring sends when nothing happens.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  turnwise-sim scale
  turnwise-sim scale --nodes 5,50 --seeds 20 --json")]
pub(super) struct Arguments {
    /// The sizes of the rings, 2 to 1999 nodes each
    #[arg(long, value_name = "N,..", default_value = "3,10,100,1000", value_delimiter = ',',
        value_parser = clap::value_parser!(u32).range(2..=1999))]
    nodes: Vec<u32>,

    /// How many runs of each event; they fall evenly over the round
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    seeds: u32,

    /// Answer as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let runs = arguments.nodes.len() as u64 * 6 * u64::from(arguments.seeds);
    let bar = ProgressBar::new(runs);
    let rows = measure(&arguments.nodes, arguments.seeds, &|| bar.inc(1));
    bar.finish_and_clear();
    if arguments.json {
        println!("{}", Value::Array(rows.iter().map(to_json).collect()));
    } else {
        println!("{}\n\n{}", events(&rows), at_rest(&rows));
    }
    let violated: u64 = rows.iter().flat_map(|row| &row.costs).map(|cost| cost.violated).sum();
    Ok((violated > 0).then(|| {
        format!("{violated} times an invariant did not hold: look with turnwise-sim lab --nodes N")
    }))
}

/// A part of a cost.
type Part = fn(&Cost) -> Option<f64>;

/// The parts that are times, in seconds.
const TIMES: [(&str, Part); 3] =
    [("done", |cost| cost.done), ("ring", |cost| cost.ring), ("jobs", |cost| cost.jobs)];

fn events(rows: &[Row]) -> Table {
    let mut table = table(&[
        "nodes",
        "farm",
        "event",
        "slots missed",
        "first beat, or may go",
        "ring with it, or without",
        "its jobs run again",
    ]);
    for row in rows {
        let mut cells = vec![
            row.nodes.to_string(),
            farm(row).to_owned(),
            row.event.as_str().to_owned(),
            show(row.typical(|cost| Some(cost.missed as f64)), 0, ""),
        ];
        cells.extend(TIMES.map(|(_, part)| show(row.typical(part), 1, " s")));
        table.add_row(cells);
    }
    align(table, 3)
}

fn at_rest(rows: &[Row]) -> Table {
    let mut header = vec!["nodes", "farm", "statements a second"];
    header.extend(Sort::ALL.map(Sort::as_str));
    header.push("turn row");
    let mut table = table(&header);
    for row in rows.iter().filter(|row| row.event == Event::Crash) {
        let medians = Sort::ALL.map(|sort| median(row, |cost| cost.at_rest[sort as usize]));
        let all = median(row, |cost| cost.at_rest.iter().sum());
        let mut cells = vec![row.nodes.to_string(), farm(row).to_owned(), format!("{all:.2}")];
        cells.extend(medians.map(|number| format!("{number:.2}")));
        cells.push(format!("{:.1} KiB", median(row, |cost| cost.row as f64) / 1_024.0));
        table.add_row(cells);
    }
    align(table, 2)
}

fn farm(row: &Row) -> &'static str {
    if row.busy { "busy" } else { "idle" }
}

fn median(row: &Row, part: impl Fn(&Cost) -> f64) -> f64 {
    row.typical(|cost| Some(part(cost))).map_or(0.0, |typical| typical.median)
}

/// The median and the worst, the worst only where it differs.
fn show(typical: Option<Typical>, digits: usize, unit: &str) -> String {
    let Some(Typical { median, worst }) = typical else { return "-".to_owned() };
    let (median, worst) = (format!("{median:.digits$}"), format!("{worst:.digits$}"));
    if median == worst { format!("{median}{unit}") } else { format!("{median}, {worst}{unit}") }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    table
}

/// Numbers stand to the right, from this column on.
fn align(mut table: Table, from: usize) -> Table {
    for column in table.column_iter_mut().skip(from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn to_json(row: &Row) -> Value {
    let pair = |typical: Option<Typical>| {
        typical.map(|Typical { median, worst }| json!({"median": median, "worst": worst}))
    };
    let times: Map<_, _> = TIMES
        .iter()
        .map(|(name, part)| (format!("{name}_s"), json!(pair(row.typical(part)))))
        .collect();
    let rest: Map<_, _> = Sort::ALL
        .iter()
        .map(|sort| {
            let number = median(row, |cost| cost.at_rest[*sort as usize]);
            (sort.as_str().to_owned(), json!(number))
        })
        .collect();
    json!({
        "nodes": row.nodes, "farm": farm(row), "event": row.event.as_str(), "runs": row.costs.len(),
        "missed": pair(row.typical(|cost| Some(cost.missed as f64))), "times": times,
        "statements_per_second": rest,
        "row_bytes": median(row, |cost| cost.row as f64),
        "violations": row.costs.iter().map(|cost| cost.violated).sum::<u64>(),
    })
}
