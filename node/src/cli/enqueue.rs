//! `turnwise enqueue`: decides whether what was typed is a job, and inserts it.

use std::process::ExitCode;
use std::time::Duration;

use turnwise_engine::{Fate, ServerInstant};

use super::common::Common;
use super::failure::Failure;
use super::job_args::JobArgs;
use super::show;
use crate::job::{JobId, NewJob, Unique, UniqueKey, When};
use crate::job_fields;
use crate::json::EnqueuedLine;
use crate::store::{Store, StoreError};

/// How often the insert is tried when the connection breaks. Repeating it is harmless: the id is the same.
const TRIES: u32 = 3;

/// Put a job into the queue and print its id
///
/// A job is an HTTP call. A path is called on the target of whichever node takes the job; a full URL only
/// by nodes that allow its origin. It is called at least once: the header Idempotency-Key (the job's id, the
/// same on every attempt) lets the target tell a repetition.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  turnwise enqueue /jobs/tidy
  turnwise enqueue /jobs/send-mail --queue mail --body '{\"to\":\"ada@example.com\"}' --in 10m
  turnwise enqueue /jobs/import --body-file data.csv --header 'Content-Type: text/csv' --deadline 1h
  generate | turnwise enqueue /jobs/import --body-file - --at 2027-01-01T00:00:00Z
  turnwise enqueue /jobs/digest --unique-key digest:ada --unique-for 24h
  turnwise enqueue https://api.example.com/v1/sync --method PUT --max-attempts 3 --json")]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,

    /// The path, beginning with '/', or the full URL to call
    #[arg(value_name = "PATH_OR_URL", value_parser = job_fields::url)]
    url: String,

    #[command(flatten)]
    job: JobArgs,

    /// Not before so long from now, by the database's clock: 90s, 10m, 2h
    #[arg(long = "in", value_name = "DURATION", value_parser = job_fields::delay, conflicts_with = "at")]
    delay: Option<Duration>,

    /// Not before this instant, by the database's clock (RFC 3339)
    #[arg(long, value_name = "INSTANT", value_parser = job_fields::instant)]
    at: Option<ServerInstant>,

    /// A key that one job at a time may have, of up to 256 bytes: while another holds it, nothing is enqueued and its id is
    /// printed
    #[arg(long, value_name = "KEY")]
    unique_key: Option<UniqueKey>,

    /// Hold the key so long from now, though the job may end sooner: 10m, 24h, at most 366 days
    #[arg(long, value_name = "DURATION", value_parser = job_fields::window, requires = "unique_key")]
    unique_for: Option<Duration>,

    /// Print {"id": "...", "enqueued": true}; false when a job that was there holds the unique key
    #[arg(long)]
    json: bool,
}

/// Insert the job.
pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let (common, json) = (args.common.clone(), args.json);
    let job = new_job(args)?;
    let own = job.id;
    let id = insert(&common, job).await?;
    if json {
        show::print_json(&EnqueuedLine::new(own, id))?;
    } else {
        show::print(&id.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The id of the job, or of the one that holds its key.
async fn insert(common: &Common, job: NewJob) -> Result<JobId, Failure> {
    let store = common.store().await?;
    let jobs = [job];
    let mut tries = 1;
    loop {
        match store.enqueue(&jobs).await {
            Ok(ids) => return Ok(ids.first().copied().unwrap_or(jobs[0].id)),
            Err(StoreError::Unreachable { .. }) if tries < TRIES => tries += 1,
            Err(error) => {
                let unknown = error.fate() == Fate::Unknown;
                let mut failure = Failure::from(error);
                if unknown {
                    failure.message.push_str(&format!(
                        ". It is not known whether the job was enqueued: `turnwise jobs show {}` tells",
                        jobs[0].id
                    ));
                }
                return Err(failure);
            }
        }
    }
}

fn new_job(args: Args) -> Result<NewJob, Failure> {
    let when = match (args.delay, args.at) {
        (Some(delay), _) => When::In(delay),
        (None, Some(instant)) => When::At(instant),
        (None, None) => When::Now,
    };
    let unique = args.unique_key.map(|key| Unique { key, window: args.unique_for });
    Ok(NewJob { when, unique, ..args.job.job(args.url)? })
}
