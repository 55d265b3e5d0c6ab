//! `turnwise batches`: shows batches and how far they are, makes, seals and cancels them. When one has ended is the store's to
//! tell.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;

use super::common::Common;
use super::failure::Failure;
use super::show;
use crate::api::{self, Key};
use crate::audit::{Action, Order};
use crate::batch::{BatchCounts, BatchId, BatchState, BatchView, NewBatch};
use crate::batch_orders::{self, CancelAnswer};
use crate::exit;
use crate::job::{JobFilter, JobId, JobView, NewJob};
use crate::job_fields;
use crate::json::{self, BatchLine, BatchMade, BatchOrdered, BatchPage};
use crate::rfc3339;
use crate::store::{BATCHES_SHOWN_MAX, Batches, SealAnswer, Store};

/// So many jobs of a batch are shown.
const JOBS_SHOWN: u32 = 20;
/// How long the bar of a batch is, in characters.
const BAR_CHARS: u64 = 20;
/// The largest file of jobs, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// List, show, make, seal and cancel batches
///
/// A batch is jobs that belong together, and jobs that wait until all of them have ended.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  turnwise batches add jobs.ndjson --name import --on-success /jobs/publish
  generate | turnwise batches add - --on-complete /jobs/report --json
  ID=$(turnwise batches add --open); turnwise enqueue /jobs/part --batch $ID; turnwise batches seal $ID
  turnwise batches list
  turnwise batches show 01936c5e-7d1a-7cc3-98c4-dc0c0c07398f
  turnwise batches cancel 01936c5e-7d1a-7cc3-98c4-dc0c0c07398f")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(ListArgs),
    Show(ShowArgs),
    Add(Box<AddArgs>),
    Seal(SealArgs),
    Cancel(CancelArgs),
}

/// List batches, newest first
#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    common: Common,

    /// At most so many, up to 500
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=i64::from(BATCHES_SHOWN_MAX)))]
    limit: u32,

    /// Only batches older than this one: the last of a page leads to the next
    #[arg(long, value_name = "ID")]
    before: Option<BatchId>,

    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

/// Show a batch, the jobs that wait for it, and the newest 20 of its own
#[derive(Debug, clap::Args)]
struct ShowArgs {
    #[command(flatten)]
    common: Common,

    /// The batch's id
    #[arg(value_name = "ID")]
    id: BatchId,

    /// Print a JSON object; `turnwise jobs list --batch ID --json` has its jobs
    #[arg(long)]
    json: bool,
}

/// Make a batch with its first jobs, all or nothing, and print its id
///
/// It ends with the last of its jobs, which may add more. One that is left open takes more from anybody, by `turnwise enqueue
/// --batch`, until it is sealed.
#[derive(Debug, clap::Args)]
struct AddArgs {
    #[command(flatten)]
    common: Common,

    /// The file of its jobs, one on each line as `POST /v1/jobs` takes them, such as {"url": "/jobs/part"}; up to 10000; - is stdin
    #[arg(value_name = "FILE", required_unless_present = "open")]
    file: Option<PathBuf>,

    /// What it is, for people, up to 256 bytes
    #[arg(long, value_name = "TEXT", value_parser = batch_orders::name)]
    name: Option<String>,

    /// Call this when all its jobs have succeeded
    #[arg(long, value_name = "PATH_OR_URL", value_parser = job_fields::url)]
    on_success: Option<String>,

    /// Call this when all its jobs have ended, however they did
    #[arg(long, value_name = "PATH_OR_URL", value_parser = job_fields::url)]
    on_complete: Option<String>,

    /// Leave it open: it does not end before it is sealed
    #[arg(long)]
    open: bool,

    /// Its id, so that making it again is harmless; a new one unless it is given
    #[arg(long, value_name = "UUID")]
    id: Option<BatchId>,

    /// Print {"id": "...", "jobs": ["..."]}
    #[arg(long)]
    json: bool,
}

/// Seal a batch: nobody but its own jobs will add any more, and it ends with the last of them
#[derive(Debug, clap::Args)]
struct SealArgs {
    #[command(flatten)]
    common: Common,

    /// The batch's id
    #[arg(value_name = "ID")]
    id: BatchId,

    /// Print {"id": "...", "result": "sealed"}
    #[arg(long)]
    json: bool,
}

/// Cancel a batch, its jobs that have not ended, and the jobs that wait for it
#[derive(Debug, clap::Args)]
struct CancelArgs {
    #[command(flatten)]
    common: Common,

    /// The batch's id
    #[arg(value_name = "ID")]
    id: BatchId,

    /// Print {"id": "...", "result": "cancelled", "jobs": N}
    #[arg(long)]
    json: bool,
}

/// Do what was asked of the batches.
pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    match args.command {
        Command::List(args) => list(args).await,
        Command::Show(args) => show_one(args).await,
        Command::Add(args) => add(*args).await,
        Command::Seal(args) => seal(args).await,
        Command::Cancel(args) => cancel(args).await,
    }
}

async fn list(args: ListArgs) -> Result<ExitCode, Failure> {
    let store = args.common.store().await?;
    let batches = store.batches(args.before, args.limit).await?;
    if args.json {
        show::print_json(&batches.iter().map(BatchLine::new).collect::<Vec<_>>())?;
    } else if batches.is_empty() {
        show::print("no batches")?;
    } else {
        let header = ["ID", "STATE", "ENDED", "DEAD", "CREATED", "NAME"];
        show::print(&show::table(header, batches.iter().map(row).collect()))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn show_one(args: ShowArgs) -> Result<ExitCode, Failure> {
    let store = args.common.store().await?;
    let batch = store.batch(args.id).await?.ok_or_else(|| unknown(args.id))?;
    if args.json {
        show::print_json(&BatchPage::new(&batch))?;
    } else {
        let filter = JobFilter { batch: Some(args.id), limit: JOBS_SHOWN, ..JobFilter::default() };
        let jobs = store.jobs(&filter).await?;
        show::print(&in_words(&batch, &jobs))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn add(args: AddArgs) -> Result<ExitCode, Failure> {
    let key = args.id.map(Key::of_batch);
    let jobs = match &args.file {
        None => Vec::new(),
        Some(path) => {
            let read = api::jobs_of_lines(&read(path)?, key.as_ref());
            read.map_err(|wrong| Failure::usage(format!("{}: {wrong}", path.display())))?
        }
    };
    // With an id of the batch all that is made with it has the same ids when it is made again.
    let follower = |url: Option<String>, place| {
        let id = key.as_ref().map_or_else(JobId::generate, |key| key.id(place));
        url.map(|url| NewJob { id, ..NewJob::new(url) })
    };
    let batch = NewBatch {
        id: args.id.unwrap_or_else(BatchId::generate),
        name: args.name,
        jobs,
        on_success: follower(args.on_success, api::ON_SUCCESS_PLACE),
        on_complete: follower(args.on_complete, api::ON_COMPLETE_PLACE),
        is_sealed: !args.open,
    };
    let store = args.common.store().await?;
    let order = Order::by_command(Action::BatchMake, batch.id);
    let made = order.carry_out(&store, batch_orders::make(&store, &batch)).await?;
    if args.json {
        show::print_json(&BatchMade::new(&batch, &made.ids))?;
    } else {
        show::print(&batch.id.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    // One byte more tells a file that is too long.
    let limit = FILE_BYTES_MAX + 1;
    let read = if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut text)
    } else {
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut text))
    };
    match read {
        Ok(bytes) if bytes as u64 > FILE_BYTES_MAX => Err(Failure::usage(format!(
            "{} has more than {} MiB, the most that a batch is made with; leave it open, and enqueue the others with its id",
            path.display(),
            FILE_BYTES_MAX >> 20
        ))),
        Ok(_) => Ok(text),
        Err(error) => {
            let say = format!("the jobs cannot be read from {}: {error}", path.display());
            Err(Failure::failed(say))
        }
    }
}

async fn seal(args: SealArgs) -> Result<ExitCode, Failure> {
    let SealArgs { common, id, json } = args;
    let store = common.store().await?;
    let order = Order::by_command(Action::BatchSeal, id);
    match order.carry_out(&store, batch_orders::seal(&store, id)).await? {
        SealAnswer::Sealed if json => {
            show::print_json(&BatchOrdered { id, result: "sealed", jobs: None })?;
        }
        SealAnswer::Sealed => show::print(&format!("the batch {id} is sealed"))?,
        SealAnswer::Before(BatchState::Sealed) => {
            return Err(Failure::failed(format!("the batch {id} is sealed already")));
        }
        SealAnswer::Before(state) => return Err(ended(id, state)),
        SealAnswer::Unknown => return Err(unknown(id)),
    }
    Ok(ExitCode::SUCCESS)
}

async fn cancel(args: CancelArgs) -> Result<ExitCode, Failure> {
    let CancelArgs { common, id, json } = args;
    let store = common.store().await?;
    let order = Order::by_command(Action::BatchCancel, id);
    let answer = order.carry_out(&store, batch_orders::cancel(&store, id)).await?;
    let (jobs, broken_off) = match answer {
        CancelAnswer::Cancelled { jobs, broken_off, .. } => (jobs, broken_off),
        CancelAnswer::Ended(state) => return Err(ended(id, state)),
        CancelAnswer::Unknown => return Err(unknown(id)),
    };
    if json {
        show::print_json(&BatchOrdered { id, result: "cancelled", jobs: Some(jobs) })?;
    } else {
        show::print(&format!("the batch {id} is cancelled, with {jobs} of its jobs"))?;
    }
    match broken_off {
        None => Ok(ExitCode::SUCCESS),
        Some(error) => {
            let message = format!("it was broken off: {error}. Cancel it again to go on with it");
            Err(Failure { code: exit::of_store(&error), message })
        }
    }
}

fn ended(id: BatchId, state: BatchState) -> Failure {
    Failure::failed(format!("the batch {id} has ended: {state}"))
}

fn unknown(id: BatchId) -> Failure {
    Failure::failed(format!(
        "there is no batch {id} in this database: perhaps it has ended and was removed with the last of its jobs. `turnwise \
         batches list` shows those that there are"
    ))
}

/// How many have ended, of how many.
fn of_all(counts: &BatchCounts) -> String {
    format!("{} of {}", counts.ended(), counts.jobs())
}

/// The same as a bar.
fn bar(counts: &BatchCounts) -> String {
    let ended = counts.ended() * BAR_CHARS / counts.jobs().max(1);
    let (ended, all) = (ended as usize, BAR_CHARS as usize);
    format!("[{}{}]", "#".repeat(ended), ".".repeat(all - ended))
}

fn row(batch: &BatchView) -> [String; 6] {
    [
        batch.id.to_string(),
        batch.state.to_string(),
        of_all(&batch.counts),
        batch.counts.dead.to_string(),
        rfc3339::format(batch.created_at),
        show::or_nothing(batch.name.as_deref().map(|name| show::shortened(name, 60))),
    ]
}

fn in_words(batch: &BatchView, jobs: &[JobView]) -> String {
    let counts = &batch.counts;
    let mut lines = vec![
        format!("batch      {}", batch.id),
        format!("name       {}", show::or_nothing(batch.name.as_deref().map(show::printable))),
        format!("state      {}", batch.state),
        format!("created    {}", rfc3339::format(batch.created_at)),
        format!("ended      {}", show::or_nothing(batch.ended_at.map(rfc3339::format))),
        format!("jobs       {} {}", bar(counts), of_all(counts)),
        format!("queued     {}", counts.queued),
        format!("running    {}", counts.running),
        format!("succeeded  {}", counts.succeeded),
        format!("dead       {}", counts.dead),
        format!("cancelled  {}", counts.cancelled),
    ];
    if !batch.followers.is_empty() {
        let rows = batch.followers.iter().map(|follower| {
            [
                follower.job.to_string(),
                follower.state.as_str().to_owned(),
                json::need(follower.need).to_owned(),
                show::shortened(&follower.url, 60),
            ]
        });
        lines.push(String::new());
        lines.push(show::table(["FOLLOWER", "STATE", "ON", "URL"], rows.collect()));
    }
    if !jobs.is_empty() {
        let rows = jobs.iter().map(|job| {
            [
                job.id.to_string(),
                job.state.as_str().to_owned(),
                format!("{}/{}", job.attempt, job.max_attempts),
                show::shortened(&format!("{} {}", job.method, job.url), 60),
            ]
        });
        lines.push(String::new());
        lines.push(show::table(["JOB", "STATE", "ATTEMPT", "CALL"], rows.collect()));
    }
    if counts.jobs() > jobs.len() as u64 && !jobs.is_empty() {
        lines.push(format!(
            "(the newest {} of {} jobs are shown; `turnwise jobs list --batch {}` lists more)",
            jobs.len(),
            counts.jobs(),
            batch.id
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use turnwise_engine::ServerInstant;
    use uuid::Uuid;

    use super::*;
    use crate::batch::{Follower, Need};
    use crate::job::JobState;

    #[test]
    fn a_bar_is_as_long_as_what_has_ended() {
        let of = |succeeded, queued| BatchCounts { succeeded, queued, ..BatchCounts::default() };
        assert_eq!(bar(&of(42, 58)), "[########............]");
        assert_eq!(
            (bar(&of(3, 0)), of_all(&of(3, 0))),
            (format!("[{}]", "#".repeat(20)), "3 of 3".into())
        );
        assert_eq!(
            (bar(&of(0, 0)), of_all(&of(0, 0))),
            (format!("[{}]", ".".repeat(20)), "0 of 0".into())
        );
    }

    #[test]
    fn a_batch_is_shown_with_what_waits_for_it_and_some_of_its_jobs() {
        let follower = Follower {
            job: JobId(Uuid::from_u128(9)),
            url: "/a\u{1b}[31m".to_owned(),
            state: JobState::Scheduled,
            need: Need::Success,
        };
        let batch = BatchView {
            id: BatchId(Uuid::from_u128(7)),
            name: Some("a\u{1b}b".to_owned()),
            state: BatchState::Open,
            created_at: ServerInstant::from_micros(1),
            ended_at: None,
            counts: BatchCounts { queued: 30, ..BatchCounts::default() },
            followers: vec![follower],
        };
        let said = in_words(&batch, &[JobView::of_a_test()]);
        assert!(said.contains("[....................] 0 of 30"), "{said}");
        assert!(said.contains("scheduled  success  /a\\u{1b}[31m"), "{said}");
        assert!(said.contains("newest 1 of 30 jobs") && !said.contains('\u{1b}'), "{said}");
    }
}
