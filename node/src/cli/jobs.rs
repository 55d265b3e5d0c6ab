//! `turnwise jobs`: shows jobs, retries or cancels them, and removes those that have ended. What may be retried, cancelled
//! or removed is the store's to tell.

use std::process::ExitCode;

use clap::Subcommand;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;

use super::all_jobs::{self, Which};
use super::common::{Common, RedactArgs};
use super::failure::Failure;
use super::prune;
use super::show;
use crate::audit::{Action, Order};
use crate::batch::BatchId;
use crate::config::{self, DEFAULT_KEEP_DEAD, DEFAULT_KEEP_SUCCEEDED, Keep};
use crate::exit;
use crate::job::{Attempts, JobFilter, JobId, JobState, JobView};
use crate::json::{JobLine, JobPage, RequestLine};
use crate::redact::Redaction;
use crate::rfc3339;
use crate::store::{Deed, RequestView, Requests, Store};

/// How much of a body, and of a header, is shown, in characters.
const BODY_CHARS_SHOWN: usize = 400;

/// List, show, retry, cancel and remove jobs
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  turnwise jobs list --state dead --queue mail
  turnwise jobs show 01936c5e-7d1a-7cc3-98c4-dc0c0c07398f
  turnwise jobs list --state dead --json | jq -r '.[].id' | xargs turnwise jobs retry
  turnwise jobs retry --all --state dead --queue mail
  turnwise jobs prune --older-than 7d --state succeeded")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(ListArgs),
    Show(ShowArgs),
    Retry(RetryArgs),
    Cancel(CancelArgs),
    Prune(prune::Args),
}

/// List jobs, newest first
#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    common: Common,

    /// Only in this state
    #[arg(long, value_name = "STATE", value_parser = state_parser())]
    state: Option<JobState>,

    /// Only of this queue
    #[arg(long, value_name = "QUEUE", value_parser = config::parse_queue)]
    queue: Option<String>,

    /// Only of this batch
    #[arg(long, value_name = "ID")]
    batch: Option<BatchId>,

    /// At most so many, up to 1000
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,

    /// Only jobs older than this one: the last of a page leads to the next
    #[arg(long, value_name = "ID")]
    before: Option<JobId>,

    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

/// Show a job and its attempts, the newest 100
#[derive(Debug, clap::Args)]
struct ShowArgs {
    #[command(flatten)]
    common: Common,

    #[command(flatten)]
    redact: RedactArgs,

    /// The job's id
    #[arg(value_name = "ID")]
    id: JobId,

    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Run jobs now that are dead, cancelled or waiting
///
/// A job that has spent its attempts gets one more. Exits with 1 when one of the jobs is running, has
/// succeeded or is not known; the others are retried all the same.
#[derive(Debug, clap::Args)]
struct RetryArgs {
    #[command(flatten)]
    common: Common,

    /// The jobs' ids
    #[arg(value_name = "ID", required_unless_present = "all")]
    ids: Vec<JobId>,

    #[command(flatten)]
    which: Which,

    /// Print a JSON array of {"id", "result"}; with --all, {"altered"}
    #[arg(long)]
    json: bool,
}

/// Cancel jobs
///
/// A job that is queued will not run; of one that runs the node drops the call within some two seconds. Exits with 1
/// when one of the jobs has ended or is not known; the others are cancelled all the same.
#[derive(Debug, clap::Args)]
struct CancelArgs {
    #[command(flatten)]
    common: Common,

    /// The jobs' ids
    #[arg(value_name = "ID", required_unless_present = "all")]
    ids: Vec<JobId>,

    #[command(flatten)]
    which: Which,

    /// Print a JSON array of {"id", "result"}; with --all, {"altered"}
    #[arg(long)]
    json: bool,
}

/// Do what was asked of the jobs.
pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    match args.command {
        Command::List(args) => list(args).await,
        Command::Show(args) => show_one(args).await,
        Command::Retry(args) => retry(args).await,
        Command::Cancel(args) => cancel(args).await,
        Command::Prune(args) => prune::run(args).await,
    }
}

async fn list(args: ListArgs) -> Result<ExitCode, Failure> {
    let ListArgs { common, state, queue, batch, limit, before, json } = args;
    let filter = JobFilter { state, queue, batch, limit, before, from: None };
    let jobs = common.store().await?.jobs(&filter).await?;
    if json {
        show::print_json(&jobs.iter().map(JobLine::new).collect::<Vec<_>>())?;
    } else if jobs.is_empty() {
        show::print("no jobs")?;
    } else {
        let header = ["ID", "STATE", "QUEUE", "ATTEMPT", "SCHEDULED", "CALL", "LAST ERROR"];
        show::print(&show::table(header, jobs.iter().map(row).collect()))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn show_one(args: ShowArgs) -> Result<ExitCode, Failure> {
    let redaction = args.common.redaction(&args.redact)?;
    let store = args.common.store().await?;
    let found = store.job(args.id).await?;
    let Some((job, attempts)) = found else { return Err(Failure::failed(unknown(args.id))) };
    let request = store.request(args.id).await?;
    if args.json {
        let request = request.map(|request| RequestLine::new(&request, &redaction));
        show::print_json(&JobPage::new(&job, &attempts, request))?;
    } else {
        show::print(&in_words(&job, &attempts, request.as_ref(), &redaction))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn retry(args: RetryArgs) -> Result<ExitCode, Failure> {
    if args.which.are_all()? {
        return all_jobs::alter(args.common, args.which, Deed::Retry, args.json).await;
    }
    let store = args.common.store().await?;
    let mut outcomes = Vec::new();
    for id in args.ids {
        let order = Order::by_command(Action::JobRetry, id);
        outcomes.push((id, order.carry_out(&store, store.retry(id)).await?));
    }
    let words = Words {
        done: ("retried", "will run now"),
        refused: ("not-retried", "was not retried: it is running, or has succeeded"),
    };
    tell(&outcomes, &words, args.json)
}

async fn cancel(args: CancelArgs) -> Result<ExitCode, Failure> {
    if args.which.are_all()? {
        return all_jobs::alter(args.common, args.which, Deed::Cancel, args.json).await;
    }
    let store = args.common.store().await?;
    let mut outcomes = Vec::new();
    for id in args.ids {
        let order = Order::by_command(Action::JobCancel, id);
        outcomes.push((id, order.carry_out(&store, store.cancel(id)).await?));
    }
    let words = Words {
        done: ("cancelled", "is cancelled"),
        refused: ("not-cancelled", "was not cancelled: it has ended"),
    };
    tell(&outcomes, &words, args.json)
}

/// For each outcome the word for programs and the words for people.
struct Words {
    done: (&'static str, &'static str),
    refused: (&'static str, &'static str),
}

#[derive(Serialize)]
struct Told {
    id: JobId,
    result: &'static str,
}

/// Tell what became of each job. None: there is no such job.
fn tell(
    outcomes: &[(JobId, Option<bool>)],
    words: &Words,
    json: bool,
) -> Result<ExitCode, Failure> {
    let mut told = Vec::new();
    let mut done = Vec::new();
    let mut not_done = Vec::new();
    for (id, outcome) in outcomes.iter().copied() {
        let result = match outcome {
            Some(true) => {
                done.push(format!("job {id} {}", words.done.1));
                words.done.0
            }
            Some(false) => {
                not_done.push(format!("job {id} {}", words.refused.1));
                words.refused.0
            }
            None => {
                not_done.push(unknown(id));
                "unknown"
            }
        };
        told.push(Told { id, result });
    }
    if json {
        show::print_json(&told)?;
    } else if !done.is_empty() {
        show::print(&done.join("\n"))?;
    }
    if not_done.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure { code: exit::FAILED, message: not_done.join("\nturnwise: ") })
}

fn unknown(id: JobId) -> String {
    format!(
        "there is no job {id} in this database: perhaps it has ended and was removed (nodes keep jobs that succeeded or \
         were cancelled for {}, and dead ones for {}, unless --keep-succeeded and --keep-dead say otherwise). `turnwise \
         jobs list` shows those that there are",
        Keep::For(DEFAULT_KEEP_SUCCEEDED),
        Keep::For(DEFAULT_KEEP_DEAD)
    )
}

pub(super) fn state_parser() -> impl TypedValueParser<Value = JobState> {
    let words = JobState::ALL.map(JobState::as_str);
    PossibleValuesParser::new(words).try_map(|word| {
        let state = JobState::ALL.into_iter().find(|state| state.as_str() == word);
        state.ok_or("no such state")
    })
}

fn row(job: &JobView) -> [String; 7] {
    [
        job.id.to_string(),
        job.state.as_str().to_owned(),
        show::printable(&job.queue),
        format!("{}/{}", job.attempt, job.max_attempts),
        scheduled(job),
        show::shortened(&format!("{} {}", job.method, job.url), 60),
        job.last_error
            .as_deref()
            .map_or_else(|| show::NOTHING.to_owned(), |e| show::shortened(e, 60)),
    ]
}

/// When it is due: at a time, or after a batch.
fn scheduled(job: &JobView) -> String {
    match (job.due_at(), job.after) {
        (Some(at), _) => rfc3339::format(at),
        (None, Some(batch)) => format!("after batch {batch}"),
        (None, None) => show::NOTHING.to_owned(),
    }
}

fn in_words(
    job: &JobView,
    attempts: &Attempts,
    request: Option<&RequestView>,
    redaction: &Redaction,
) -> String {
    let mut lines = vec![
        format!("job        {}", job.id),
        format!("state      {}", job.state.as_str()),
        format!("call       {} {}", show::printable(&job.method), show::printable(&job.url)),
        format!("queue      {}", show::printable(&job.queue)),
        format!("priority   {}", job.priority),
        format!("attempt    {} of {}", job.attempt, job.max_attempts),
        format!("created    {}", rfc3339::format(job.created_at)),
        format!("scheduled  {}", scheduled(job)),
        format!("finished   {}", show::or_nothing(job.finished_at.map(rfc3339::format))),
        format!("node       {}", show::or_nothing(job.node)),
    ];
    if let Some(key) = &job.unique_key {
        lines.push(format!("unique key {}", show::printable(key)));
    }
    if let Some(key) = &job.particulars.concurrency_key {
        lines.push(format!("concurrency key {}", show::printable(key)));
    }
    if let Some(parent) = job.particulars.parent_id() {
        lines.push(format!("parent     {parent}"));
    }
    if let Some(schedule) = &job.particulars.schedule {
        lines.push(format!("schedule   {}", show::printable(schedule)));
    }
    if let Some(batch) = job.particulars.batch_id() {
        lines.push(format!("batch      {batch}"));
    }
    if let Some(batch) = job.after {
        let verb = if job.waits_for_batch() { "waits for " } else { "waited for" };
        lines.push(format!("{verb} batch {batch}"));
    }
    if let Some(since) = job.awaits_since {
        lines.push(format!("elsewhere  since {}, until it calls back", rfc3339::format(since)));
    }
    if let Some(progress) = &job.progress {
        let percent = progress.percent.map(|percent| format!("{percent} %"));
        let note = progress.note.as_deref().map(show::printable);
        let words: Vec<String> = percent.into_iter().chain(note).collect();
        lines.push(format!("progress   {}", words.join(", ")));
    }
    if let Some(request) = request {
        for (name, value) in &request.headers {
            let value = show::shortened(redaction.header(name, value), BODY_CHARS_SHOWN);
            lines.push(format!("header     {}: {value}", show::printable(name)));
        }
        if let Some(body) = &request.body {
            let text = String::from_utf8_lossy(&redaction.body(body)).into_owned();
            let text = show::shortened(&text, BODY_CHARS_SHOWN);
            lines.push(format!("body       {} bytes: {text}", request.body_bytes));
        }
    }
    if !attempts.is_empty() {
        let header = ["ATTEMPT", "STARTED", "FINISHED", "STATUS", "NODE", "ERROR"];
        let rows = attempts.iter().map(|attempt| {
            [
                attempt.attempt.to_string(),
                rfc3339::format(attempt.started_at),
                show::or_nothing(attempt.finished_at.map(rfc3339::format)),
                show::or_nothing(attempt.status),
                attempt.node.to_string(),
                show::or_nothing(attempt.error.as_deref().map(show::printable)),
            ]
        });
        lines.push(String::new());
        lines.push(show::table(header, rows.collect()));
    }
    if attempts.in_all > attempts.len() as u64 {
        lines.push(format!(
            "(the newest {} of {} attempts are shown)",
            attempts.len(),
            attempts.in_all
        ));
    }
    if let Some(answer) = attempts.iter().rev().find_map(|attempt| attempt.answer.as_deref()) {
        let answer = redaction.body(answer);
        let text = String::from_utf8_lossy(&answer);
        lines.push(format!("\nlast answer: {}", show::shortened(&text, BODY_CHARS_SHOWN)));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use turnwise_engine::{NodeId, ServerInstant};
    use uuid::Uuid;

    use super::*;
    use crate::batch::HELD_UNTIL_US;
    use crate::job::{AttemptView, Particulars};

    #[test]
    fn a_job_that_waits_for_a_batch_says_so_and_no_time() {
        let of = |number| BatchId(Uuid::from_u128(number));
        let batch = Some(of(8).to_string());
        let job = JobView {
            state: JobState::Scheduled,
            scheduled_at: ServerInstant::from_micros(HELD_UNTIL_US),
            particulars: Particulars { batch, ..Particulars::default() },
            after: Some(of(9)),
            ..JobView::of_a_test()
        };
        assert_eq!(row(&job)[4], format!("after batch {}", of(9)));
        let said = in_words(&job, &Attempts::default(), None, &Redaction::default());
        assert!(said.contains(&format!("batch      {}", of(8))), "{said}");
        assert!(said.contains(&format!("waits for  batch {}", of(9))), "{said}");
        assert!(!said.contains("2260"), "{said}");
    }

    #[test]
    fn a_concurrency_key_is_told_and_drives_no_terminal() {
        let concurrency_key = Some("customer\x1b 7".to_owned());
        let particulars = Particulars { concurrency_key, ..Particulars::default() };
        let job = JobView { particulars, ..JobView::of_a_test() };
        let said = in_words(&job, &Attempts::default(), None, &Redaction::default());
        assert!(said.contains("\nconcurrency key customer\\u{1b} 7"), "{said}");
    }

    #[test]
    fn a_parent_is_told_and_nothing_that_is_no_id() {
        let said = |parent: Option<&str>| {
            let parent = parent.map(str::to_owned);
            let particulars = Particulars { parent, ..Particulars::default() };
            let job = JobView { particulars, ..JobView::of_a_test() };
            in_words(&job, &Attempts::default(), None, &Redaction::default())
        };
        let parent = "00000000-0000-0000-0000-00000000000a";
        let told = said(Some(parent));
        assert!(told.contains(&format!("\nparent     {parent}")), "{told}");
        for none in [None, Some("7\x1b[31m")] {
            assert!(!said(none).contains("parent"), "{none:?}");
        }
    }

    #[test]
    fn what_a_target_answered_drives_no_terminal_and_what_is_not_shown_is_said() {
        let job = JobView::of_a_test();
        let attempt = AttemptView {
            answer: Some(b"busy\x1b[31m".to_vec()),
            ..AttemptView::of_a_test(NodeId::from_u128(9))
        };
        let attempts = Attempts { newest: vec![attempt], in_all: 101 };
        let said = in_words(&job, &attempts, None, &Redaction::default());
        assert!(said.ends_with("last answer: busy\\u{1b}[31m"));
        assert!(said.contains("newest 1 of 101"));
    }
}
