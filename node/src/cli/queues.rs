//! `turnwise queues`: shows what waits in each queue, and pauses and resumes them. What a pause means is the store's to tell.

use std::process::ExitCode;

use clap::Subcommand;

use super::common::Common;
use super::failure::Failure;
use super::show;
use crate::config;
use crate::exit;
use crate::json::{QueueLine, QueueLines};
use crate::store::{AnyStore, COUNTED_MAX, QueueOrders, Views};

/// List, pause and resume queues
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  turnwise queues list
  turnwise queues pause mail
  turnwise queues resume mail")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(ListArgs),
    Pause(PauseArgs),
    Resume(ResumeArgs),
}

/// List the queues that have waiting jobs or are paused
///
/// Of each, at most 10000 jobs are counted; of a farm with very many queues only some are shown, which is said.
#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    common: Common,

    /// Print {"queues": [...], "all_queues": true}
    #[arg(long)]
    json: bool,
}

/// Claim no more jobs of these queues, on any node, until they are resumed
///
/// What runs goes on; what is to be tried again waits. Jobs can be enqueued all the while. Exits with 1 when one of the
/// queues is paused already; the others are paused all the same.
#[derive(Debug, clap::Args)]
struct PauseArgs {
    #[command(flatten)]
    common: Common,

    /// The queues
    #[arg(value_name = "QUEUE", required = true, value_parser = config::parse_queue)]
    queues: Vec<String>,
}

/// Claim the jobs of these queues again
///
/// Exits with 1 when one of the queues is not paused; the others are resumed all the same.
#[derive(Debug, clap::Args)]
struct ResumeArgs {
    #[command(flatten)]
    common: Common,

    /// The queues
    #[arg(value_name = "QUEUE", required = true, value_parser = config::parse_queue)]
    queues: Vec<String>,
}

/// Do what was asked of the queues.
pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    match args.command {
        Command::List(args) => list(args).await,
        Command::Pause(args) => order(&args.common.store().await?, &args.queues, true).await,
        Command::Resume(args) => order(&args.common.store().await?, &args.queues, false).await,
    }
}

async fn list(args: ListArgs) -> Result<ExitCode, Failure> {
    let store = args.common.store().await?;
    let tally = store.tally(COUNTED_MAX).await?;
    let lines = QueueLines::new(&tally, store.paused().await?);
    if args.json {
        show::print_json(&lines)?;
    } else if lines.queues.is_empty() {
        show::print("no job waits, and no queue is paused")?;
    } else {
        let header = ["QUEUE", "PAUSED SINCE", "READY", "LATER", "OLDEST READY FOR"];
        show::print(&show::table(header, lines.queues.iter().map(row).collect()))?;
        if !lines.all_queues {
            show::print("(there are more queues than were counted)")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(line: &QueueLine) -> [String; 5] {
    let count = |jobs: u32, more: bool| format!("{jobs}{}", if more { "+" } else { "" });
    let oldest = line.oldest_ready_us.map(|micros| {
        let whole = std::time::Duration::from_secs(u64::try_from(micros).unwrap_or(0) / 1_000_000);
        humantime::format_duration(whole).to_string()
    });
    [
        show::printable(&line.queue),
        show::or_nothing(line.paused_since.as_deref()),
        count(line.ready, line.more_ready),
        count(line.later, line.more_later),
        show::or_nothing(oldest),
    ]
}

async fn order(store: &AnyStore, queues: &[String], pause: bool) -> Result<ExitCode, Failure> {
    let mut not_done = Vec::new();
    for queue in queues {
        let done = if pause { store.pause(queue).await? } else { store.resume(queue).await? };
        let name = show::printable(queue);
        match (done, pause) {
            (true, true) => show::print(&format!("{name} is paused"))?,
            (true, false) => show::print(&format!("{name} is resumed"))?,
            (false, true) => not_done.push(format!("{name} is paused already")),
            (false, false) => not_done.push(format!("{name} is not paused")),
        }
    }
    if not_done.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure { code: exit::FAILED, message: not_done.join("\nturnwise: ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_was_broken_off_says_so() {
        let line = QueueLine {
            queue: "mail".to_owned(),
            paused_since: None,
            ready: 10_000,
            more_ready: true,
            later: 0,
            more_later: false,
            oldest_ready_us: Some(90_500_000),
        };
        assert_eq!(row(&line), ["mail", "-", "10000+", "0", "1m 30s"]);
    }
}
