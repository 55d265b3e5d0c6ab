//! `turnwise enqueue`: decides whether what was typed is a job, and inserts it.

use std::process::ExitCode;
use std::time::Duration;

use turnwise_engine::{Fate, ServerInstant};
use uuid::Uuid;

use super::common::Common;
use super::failure::Failure;
use super::job_args::JobArgs;
use super::show;
use crate::batch::{After, BatchId, Need};
use crate::batch_orders;
use crate::job::{JobId, NewJob, Unique, UniqueKey, When};
use crate::job_fields;
use crate::json::EnqueuedLine;
use crate::store::{AnyStore, Batches, Store, StoreError, WAITED_FOR_MAX};

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
  turnwise enqueue /jobs/sync --queue sync --concurrency-key customer:7
  turnwise enqueue /jobs/merge --after 01936c5e-7d1a-7cc3-98c4-dc0c0c07398f --after-end
  turnwise enqueue /jobs/part --parent 01936c5e-7d1a-7cc3-98c4-dc0c0c07398f
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

    /// The job that has enqueued it: the webhook-id of its call. It is shown and sent along, and does nothing else
    #[arg(long, value_name = "ID")]
    parent: Option<JobId>,

    /// The batch that it belongs to
    #[arg(long, value_name = "ID")]
    batch: Option<BatchId>,

    /// Run it when this job has succeeded, or all jobs of this batch; repeat it for more jobs, up to 100
    ///
    /// Jobs that are waited for become a batch of their own. If not all of them succeed, it is cancelled.
    #[arg(long, value_name = "ID", conflicts_with_all = ["delay", "at"])]
    after: Vec<Uuid>,

    /// With --after: run it however they ended
    #[arg(long, requires = "after")]
    after_end: bool,

    /// Print {"id": "...", "enqueued": true}; false when a job that was there holds the unique key
    #[arg(long)]
    json: bool,
}

/// What a job waits for.
#[derive(Debug, PartialEq, Eq)]
enum Waited {
    Nothing,
    Batch(BatchId),
    Jobs(Vec<JobId>),
}

/// Insert the job.
pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let (common, json) = (args.common.clone(), args.json);
    let after = args.after.clone();
    let need = if args.after_end { Need::End } else { Need::Success };
    let job = new_job(args)?;
    let own = job.id;
    let store = common.store().await?;
    let id = match waited(&store, &after).await? {
        Waited::Nothing => insert(&store, job).await?,
        Waited::Batch(batch) => {
            insert(&store, NewJob { after: Some(After { batch, need }), ..job }).await?
        }
        Waited::Jobs(_) if job.unique.is_some() => {
            let say = "a job with a unique key waits for a batch, not for jobs: make them one with `turnwise batches add`, or \
                leave out --unique-key";
            return Err(Failure::usage(say));
        }
        Waited::Jobs(jobs) => {
            let enqueued = batch_orders::enqueue_after(&store, &job, &jobs, need).await;
            enqueued.map_err(|error| failure(error, own))?
        }
    };
    if json {
        show::print_json(&EnqueuedLine::new(own, id))?;
    } else {
        show::print(&id.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What these ids are of: one batch, or jobs.
async fn waited(store: &AnyStore, ids: &[Uuid]) -> Result<Waited, Failure> {
    if ids.len() > WAITED_FOR_MAX {
        return Err(Failure::usage(format!(
            "a job waits for {WAITED_FOR_MAX} jobs at most, not for {}: make them a batch with `turnwise batches add`, and \
             wait for that",
            ids.len()
        )));
    }
    for id in ids {
        let Some(batch) = store.batch(BatchId(*id)).await? else { continue };
        if ids.len() > 1 {
            let say = format!("{id} is a batch: a job waits for one batch, or for jobs");
            return Err(Failure::usage(say));
        }
        return Ok(Waited::Batch(batch.id));
    }
    Ok(match ids {
        [] => Waited::Nothing,
        ids => Waited::Jobs(ids.iter().copied().map(JobId).collect()),
    })
}

/// The id of the job, or of the one that holds its key.
async fn insert(store: &AnyStore, job: NewJob) -> Result<JobId, Failure> {
    let jobs = [job];
    let mut tries = 1;
    loop {
        match store.enqueue(&jobs).await {
            Ok(ids) => return Ok(ids.first().copied().unwrap_or(jobs[0].id)),
            Err(StoreError::Unreachable { .. }) if tries < TRIES => tries += 1,
            Err(error) => return Err(failure(error, jobs[0].id)),
        }
    }
}

/// Why the job was not enqueued; or that this is not known.
fn failure(error: StoreError, id: JobId) -> Failure {
    let unknown = error.fate() == Fate::Unknown;
    let mut failure = Failure::from(error);
    if unknown {
        failure.message.push_str(&format!(
            ". It is not known whether the job was enqueued: `turnwise jobs show {id}` tells"
        ));
    }
    failure
}

fn new_job(args: Args) -> Result<NewJob, Failure> {
    let when = match (args.delay, args.at) {
        (Some(delay), _) => When::In(delay),
        (None, Some(instant)) => When::At(instant),
        (None, None) => When::Now,
    };
    let unique = args.unique_key.map(|key| Unique { key, window: args.unique_for });
    let (parent, batch) = (args.parent, args.batch);
    Ok(NewJob { when, unique, parent, batch, ..args.job.job(args.url)? })
}
