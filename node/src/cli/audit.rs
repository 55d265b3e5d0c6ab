//! `turnwise audit`: shows what people ordered. What is kept of that, and how long, is the store's to tell.

use std::process::ExitCode;

use super::common::Common;
use super::failure::Failure;
use super::show;
use crate::json::EntryLine;
use crate::rfc3339;
use crate::store::{Audit, EntryView};

/// Show what people ordered, newest first
///
/// Every change that was ordered over the API, on a page of the dashboard or by a command: who, what, and of how many; for 90
/// days. Of enqueues over the API, one a request, those among the newest 100000 entries. What apps enqueue by SQL, or by
/// `turnwise enqueue`, is not here. HOW MANY is `?` where the database's answer was lost: it may have been carried out.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  turnwise audit
  turnwise audit --limit 1000 --json | jq '.[] | select(.action == \"jobs.cancel\")'")]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,

    /// At most so many, up to 1000
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,

    /// Only entries older than the one with this number: the last of a page leads to the next
    #[arg(long, value_name = "NUMBER")]
    before: Option<i64>,

    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

/// Show the entries.
pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let entries = args.common.store().await?.entries(args.before, args.limit).await?;
    if args.json {
        show::print_json(&entries.iter().map(EntryLine::new).collect::<Vec<_>>())?;
    } else if entries.is_empty() {
        show::print("nothing was ordered")?;
    } else {
        let header = ["NUMBER", "WHEN", "WHO", "ROLE", "WHAT", "HOW MANY", "OF WHAT"];
        show::print(&show::table(header, entries.iter().map(row).collect()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(entry: &EntryView) -> [String; 7] {
    [
        entry.id.to_string(),
        rfc3339::format(entry.at),
        show::printable(&entry.actor),
        show::printable(&entry.role),
        show::printable(&entry.action),
        entry.affected.map_or_else(|| "?".to_owned(), |many| many.to_string()),
        show::shortened(&entry.subject, 80),
    ]
}
