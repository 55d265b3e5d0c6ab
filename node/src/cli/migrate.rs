//! `turnwise migrate`: brings the schema up to date and says what was done.

use std::process::ExitCode;

use serde::Serialize;

use super::common::Common;
use super::failure::Failure;
use super::show;
use crate::store::Store;

/// Create the schema, or bring it up to date
///
/// Safe to repeat and to run on several machines at once, and while nodes of this or an older version run.
/// `turnwise run` does it by itself unless it is told --no-migrate.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,

    /// Print {"applied": [...]}
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Migrated {
    applied: Vec<String>,
}

/// Apply what is missing.
pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let applied = args.common.unchecked_store()?.migrate().await?;
    if args.json {
        show::print_json(&Migrated { applied })?;
    } else if applied.is_empty() {
        show::print("the schema is complete: nothing to apply")?;
    } else {
        let lines: Vec<_> = applied.iter().map(|name| format!("applied {name}")).collect();
        show::print(&lines.join("\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
