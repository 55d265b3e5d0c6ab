//! `turnwise queues`: shows what waits in each queue, pauses and resumes them, and says what holds for their jobs. What a pause means is the store's to tell.

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;

use super::common::Common;
use super::failure::Failure;
use super::show;
use crate::config;
use crate::exit;
use crate::job::Retry;
use crate::job_fields;
use crate::json::{PolicyLine, QueueLine, QueueLines, QueueOrdered, paused_or_resumed};
use crate::store::{AnyStore, COUNTED_MAX, QueueOrders, QueuePolicy, Statuses, Views};

/// List, pause and resume queues, and say what holds for their jobs
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  turnwise queues list
  turnwise queues pause mail
  turnwise queues resume mail
  turnwise queues set mail --retry-wait 1m --permanent-statuses 404,422
  turnwise queues set mail    (says nothing any more)")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(ListArgs),
    Pause(PauseArgs),
    Resume(ResumeArgs),
    Set(SetArgs),
}

/// List the queues that have waiting jobs, are paused, or say something of their jobs
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

    /// Print [{"queue": "...", "result": "..."}]
    #[arg(long)]
    json: bool,
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

    /// Print [{"queue": "...", "result": "..."}]
    #[arg(long)]
    json: bool,
}

/// Say what holds for the jobs of a queue that do not say it themselves
///
/// It holds from their next claims on, on every node. What is left out is not said any more.
#[derive(Debug, clap::Args)]
struct SetArgs {
    #[command(flatten)]
    common: Common,

    /// The queue
    #[arg(value_name = "QUEUE", value_parser = config::parse_queue)]
    queue: String,

    /// How long they wait after their first failed attempt, from 1ms to 24h; each further wait is twice as long
    #[arg(long, value_name = "DURATION", value_parser = job_fields::retry_wait)]
    retry_wait: Option<Duration>,

    /// No wait is longer than this, from 1ms to 24h
    #[arg(long, value_name = "DURATION", value_parser = job_fields::retry_wait)]
    retry_wait_max: Option<Duration>,

    /// Statuses of answers after which they are not tried again, from 300 to 599, such as 404,422; up to 60
    #[arg(long, value_name = "STATUS,...", default_value = "", hide_default_value = true)]
    permanent_statuses: Statuses,

    /// Print the queue as JSON
    #[arg(long)]
    json: bool,
}

/// Do what was asked of the queues.
pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    match args.command {
        Command::List(args) => list(args).await,
        Command::Pause(args) => {
            order(&args.common.store().await?, &args.queues, true, args.json).await
        }
        Command::Resume(args) => {
            order(&args.common.store().await?, &args.queues, false, args.json).await
        }
        Command::Set(args) => set(args).await,
    }
}

async fn list(args: ListArgs) -> Result<ExitCode, Failure> {
    let store = args.common.store().await?;
    let tally = store.tally(COUNTED_MAX).await?;
    let lines = QueueLines::new(&tally, store.paused().await?, &store.policies().await?);
    if args.json {
        show::print_json(&lines)?;
    } else if lines.queues.is_empty() {
        show::print("no job waits, no queue is paused, and none says anything of its jobs")?;
    } else {
        let header = ["QUEUE", "PAUSED SINCE", "READY", "LATER", "OLDEST READY FOR", "RETRIES"];
        show::print(&show::table(header, lines.queues.iter().map(row).collect()))?;
        if !lines.all_queues {
            show::print("(there are more queues than were counted)")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(line: &QueueLine) -> [String; 6] {
    let count = |jobs: u32, more: bool| format!("{jobs}{}", if more { "+" } else { "" });
    let oldest = line.oldest_ready_us.map(|micros| {
        let whole = Duration::from_secs(u64::try_from(micros).unwrap_or(0) / 1_000_000);
        humantime::format_duration(whole).to_string()
    });
    [
        show::printable(&line.queue),
        show::or_nothing(line.paused_since.as_deref()),
        count(line.ready, line.more_ready),
        count(line.later, line.more_later),
        show::or_nothing(oldest),
        show::or_nothing(line.policy.as_ref().map(policy)),
    ]
}

/// What a queue says of its jobs, in words.
fn policy(said: &PolicyLine) -> String {
    let time = |millis| humantime::format_duration(Duration::from_millis(millis)).to_string();
    let wait = said.retry_wait_ms.map(|millis| format!("after {}", time(millis)));
    let most = said.retry_wait_max_ms.map(|millis| format!("up to {}", time(millis)));
    let never = Some(&said.permanent_statuses).filter(|statuses| !statuses.is_empty());
    let never = never.map(|statuses| format!("not after {statuses}"));
    wait.into_iter().chain(most).chain(never).collect::<Vec<_>>().join("; ")
}

async fn set(args: SetArgs) -> Result<ExitCode, Failure> {
    let SetArgs { common, queue, retry_wait, retry_wait_max, permanent_statuses, json } = args;
    let store = common.store().await?;
    let retry = Retry { wait: retry_wait, wait_max: retry_wait_max };
    let said = QueuePolicy { retry, permanent: permanent_statuses };
    store.put_policy(&queue, &said).await?;
    let line = PolicyLine::new(&said);
    match (json, policy(&line)) {
        (true, _) => show::print_json(&line)?,
        (false, words) if words.is_empty() => {
            show::print(&format!("{} says nothing of its jobs", show::printable(&queue)))?;
        }
        (false, words) => show::print(&format!(
            "{}: jobs that do not say it themselves are tried again {words}",
            show::printable(&queue)
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn order(
    store: &AnyStore,
    queues: &[String],
    pause: bool,
    json: bool,
) -> Result<ExitCode, Failure> {
    let (mut not_done, mut ordered) = (Vec::new(), Vec::new());
    for queue in queues {
        let done = if pause { store.pause(queue).await? } else { store.resume(queue).await? };
        let name = show::printable(queue);
        let result = paused_or_resumed(done, pause);
        ordered.push(QueueOrdered { queue: queue.clone(), result });
        match (done, pause) {
            (true, _) if json => {}
            (true, true) => show::print(&format!("{name} is paused"))?,
            (true, false) => show::print(&format!("{name} is resumed"))?,
            (false, true) => not_done.push(format!("{name} is paused already")),
            (false, false) => not_done.push(format!("{name} is not paused")),
        }
    }
    if json {
        show::print_json(&ordered)?;
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
            policy: Some(PolicyLine {
                retry_wait_ms: Some(1_500),
                retry_wait_max_ms: None,
                permanent_statuses: "404".to_owned(),
            }),
        };
        let said = "after 1s 500ms; not after 404";
        assert_eq!(row(&line), ["mail", "-", "10000+", "0", "1m 30s", said]);
    }
}
