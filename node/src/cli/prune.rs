//! `turnwise jobs prune`: removes ended jobs by hand, besides what the nodes remove by themselves.

use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use super::common::Common;
use super::failure::Failure;
use super::show;
use crate::audit::{Action, Order};
use crate::config;
use crate::exit;
use crate::store::{Ended, PRUNED_AT_ONCE_MAX, Prune, Store, StoreError};

/// Between two batches the database is left alone for as long as the last one took, and no less than this.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// Remove ended jobs, with their attempts
///
/// Nodes remove ended jobs by themselves (`turnwise run --keep-succeeded`, `--keep-dead`); this is for once, or for farms
/// whose nodes keep them for ever. Jobs that wait or run are never removed. The oldest go first, a thousand at a time at most; nodes
/// and apps are not held up. A job that somebody holds just now is passed over.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  turnwise jobs prune --older-than 7d
  turnwise jobs prune --older-than 0s --state cancelled
  turnwise jobs prune --older-than 1y --state dead --json")]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,

    /// Those that ended so long ago or longer, by the database's clock; up to 10y
    #[arg(long, value_name = "DURATION", value_parser = config::parse_age)]
    older_than: Duration,

    /// Only those in this state; repeat it for more [default: all three]
    #[arg(long, value_name = "STATE")]
    state: Vec<State>,

    /// Print {"removed"}
    #[arg(long)]
    json: bool,
}

/// A state that a job stays in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum State {
    Succeeded,
    Dead,
    Cancelled,
}

impl State {
    fn ended(self) -> Ended {
        match self {
            Self::Succeeded => Ended::Succeeded,
            Self::Dead => Ended::Dead,
            Self::Cancelled => Ended::Cancelled,
        }
    }
}

#[derive(Serialize)]
struct Told {
    removed: u64,
}

/// Remove them, and tell how many.
pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let states = match args.state.as_slice() {
        [] => Ended::ALL.to_vec(),
        states => states.iter().map(|state| state.ended()).collect(),
    };
    let ages = states.iter().map(|ended| (*ended, args.older_than));
    let store = args.common.store().await?;
    let words: Vec<&str> = states.iter().map(|ended| ended.as_str()).collect();
    let age = humantime::format_duration(args.older_than);
    let subject = format!("state={} older-than={age}", words.join(","));
    let order = Order::by_command(Action::JobsPrune, subject);
    let (removed, broken_off) = prune(&store, Prune::older_than(ages, PRUNED_AT_ONCE_MAX)).await;
    match &broken_off {
        Some(error) => order.broken_off(&store, removed, error).await,
        None => order.done(&store, removed).await,
    }
    if args.json {
        show::print_json(&Told { removed })?;
    } else {
        show::print(&format!("{removed} jobs were removed"))?;
    }
    match broken_off {
        Some(error) => Err(Failure {
            code: exit::of_store(&error),
            message: format!("there may be more to remove: {error}"),
        }),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// A batch at a time: how many, and why it was broken off, where the database failed.
async fn prune(store: &impl Store, prune: Prune) -> (u64, Option<StoreError>) {
    let (mut removed, mut next) = (0, Some(prune));
    while let Some(prune) = next {
        let sent = tokio::time::Instant::now();
        let pruned = match store.prune(&prune).await {
            Ok(pruned) => pruned,
            Err(error) => return (removed, Some(error)),
        };
        removed += u64::from(pruned.jobs);
        next = pruned.next;
        if next.is_some() {
            tokio::time::sleep(sent.elapsed().max(PAUSE_MIN)).await;
        }
    }
    (removed, None)
}
