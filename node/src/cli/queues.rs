//! `turnwise queues`: shows what waits in each queue, pauses and resumes them, and says what holds for their jobs. What a pause means is the store's to tell.

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;

use super::common::Common;
use super::failure::Failure;
use super::show;
use crate::audit::{Action, Order};
use crate::config;
use crate::exit;
use crate::job::Retry;
use crate::job_fields;
use crate::json::{PolicyLine, QueueLine, QueueLines, QueueOrdered, paused_or_resumed};
use crate::store::{
    AnyStore, CONCURRENCY_MAX, COUNTED_MAX, Limits, QueueOrders, QueuePolicy, RATE_JOBS_MAX, Rate,
    Statuses, Views,
};

/// List, pause and resume queues, and say what holds for their jobs
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  turnwise queues list
  turnwise queues pause mail
  turnwise queues resume mail
  turnwise queues set mail --retry-wait 1m --permanent-statuses 404,422
  turnwise queues set mail --concurrency 5 --rate 100/m
  turnwise queues set sync --concurrency-per-key 1 --slow-down 10m
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

/// List the queues that have waiting jobs, are paused or held back, or say something of their jobs
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

/// Say what holds for the jobs of a queue: how they are tried again where they do not say it themselves, how many there may be
/// at once and in a time, and whether they wait when a target asks for less
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

    /// So many of them run at once, on all nodes together, from 1 to 1000000
    #[arg(long, value_name = "JOBS", value_parser = clap::value_parser!(u32).range(1..=i64::from(CONCURRENCY_MAX)))]
    concurrency: Option<u32>,

    /// So many of those with the same concurrency key run at once, on all nodes together, from 1 to 1000000
    #[arg(long, value_name = "JOBS", value_parser = clap::value_parser!(u32).range(1..=i64::from(CONCURRENCY_MAX)))]
    concurrency_per_key: Option<u32>,

    /// So many are claimed in a time, on all nodes together, such as 10/s, 100/m or 500/30s; each attempt counts
    #[arg(long, value_name = "JOBS/TIME")]
    rate: Option<Rate>,

    /// So many of a rate at once after a time without any, from 1 to 1000000 [default: the jobs of the rate]
    #[arg(long, value_name = "JOBS", requires = "rate", value_parser = clap::value_parser!(u32).range(1..=i64::from(RATE_JOBS_MAX)))]
    burst: Option<u32>,

    /// When a target answers 429 or 503 with Retry-After, claim none of them for as long as it asks, at most so long, from 1s
    /// to 24h [default: only the job itself waits]
    #[arg(long, value_name = "DURATION", value_parser = job_fields::slow_down)]
    slow_down: Option<Duration>,

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
    let (paused, slowed) = (store.paused().await?, store.slowed().await?);
    let lines = QueueLines::new(&tally, paused, &slowed, &store.policies().await?);
    if args.json {
        show::print_json(&lines)?;
    } else if lines.queues.is_empty() {
        show::print("no job waits, no queue is paused, and none says anything of its jobs")?;
    } else {
        let header = [
            "QUEUE",
            "PAUSED SINCE",
            "HELD BACK UNTIL",
            "READY",
            "LATER",
            "OLDEST READY FOR",
            "POLICY",
        ];
        show::print(&show::table(header, lines.queues.iter().map(row).collect()))?;
        if !lines.all_queues {
            show::print("(there are more queues than were counted)")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(line: &QueueLine) -> [String; 7] {
    let count = |jobs: u32, more: bool| format!("{jobs}{}", if more { "+" } else { "" });
    let oldest = line.oldest_ready_us.map(|micros| {
        let whole = Duration::from_secs(u64::try_from(micros).unwrap_or(0) / 1_000_000);
        humantime::format_duration(whole).to_string()
    });
    [
        show::printable(&line.queue),
        show::or_nothing(line.paused_since.as_deref()),
        show::or_nothing(line.held_back_until.as_deref()),
        count(line.ready, line.more_ready),
        count(line.later, line.more_later),
        show::or_nothing(oldest),
        show::or_nothing(line.policy.as_ref().and_then(PolicyLine::words)),
    ]
}

async fn set(args: SetArgs) -> Result<ExitCode, Failure> {
    let SetArgs { common, queue, retry_wait, retry_wait_max, permanent_statuses, json, .. } = args;
    let rate = match (args.rate, args.burst) {
        (Some(rate), Some(burst)) => Some(Rate { burst, ..rate }),
        (rate, _) => rate,
    };
    let store = common.store().await?;
    let said = QueuePolicy {
        retry: Retry { wait: retry_wait, wait_max: retry_wait_max },
        permanent: permanent_statuses,
        limits: Limits {
            concurrency: args.concurrency,
            concurrency_per_key: args.concurrency_per_key,
            rate,
        },
        slow_down: args.slow_down,
    };
    let order = Order::by_command(Action::QueueSet, &queue);
    order.carry_out(&store, store.put_policy(&queue, &said)).await?;
    let line = PolicyLine::new(&said);
    match (json, line.words()) {
        (true, _) => show::print_json(&line)?,
        (false, None) => {
            show::print(&format!("{} says nothing of its jobs", show::printable(&queue)))?;
        }
        (false, Some(words)) => show::print(&format!("{}: {words}", show::printable(&queue)))?,
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
        let action = if pause { Action::QueuePause } else { Action::QueueResume };
        let call =
            async { if pause { store.pause(queue).await } else { store.resume(queue).await } };
        let done = Order::by_command(action, queue).carry_out(store, call).await?;
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
            held_back_until: Some("2027-01-31T09:00:00.000000Z".to_owned()),
            ready: 10_000,
            more_ready: true,
            later: 0,
            more_later: false,
            oldest_ready_us: Some(90_500_000),
            policy: Some(PolicyLine {
                retry_wait_ms: Some(1_500),
                retry_wait_max_ms: None,
                permanent_statuses: "404".to_owned(),
                concurrency: Some(3),
                concurrency_per_key: None,
                rate: None,
                slow_down_ms: None,
            }),
        };
        let said = "3 at once; retries after 1s 500ms; no retries after 404";
        let until = "2027-01-31T09:00:00.000000Z";
        assert_eq!(row(&line), ["mail", "-", until, "10000+", "0", "1m 30s", said]);
    }
}
