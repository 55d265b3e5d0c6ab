//! `turnwise enqueue`: decides whether what was typed is a job, and inserts it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use turnwise_engine::{Fate, ServerInstant};

use super::common::Common;
use super::failure::Failure;
use super::show;
use crate::caller::request;
use crate::config;
use crate::job::{BODY_BYTES_MAX, DEFAULT_MAX_ATTEMPTS, DEFAULT_QUEUE, JobId, NewJob, When};
use crate::rfc3339;
use crate::store::{Store, StoreError};

/// How far ahead `--in` may reach: ten years.
const DELAY_MAX: Duration = Duration::from_secs(3_653 * 24 * 3_600);
/// The most attempts that a job can be given here.
const ATTEMPTS_MAX: i64 = 1_000;
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
  turnwise enqueue https://api.example.com/v1/sync --method PUT --max-attempts 3 --json")]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,

    /// The path, beginning with '/', or the full URL to call
    #[arg(value_name = "PATH_OR_URL", value_parser = parse_url)]
    url: String,

    /// The queue
    #[arg(long, value_name = "QUEUE", default_value = DEFAULT_QUEUE, value_parser = config::parse_queue)]
    queue: String,

    /// The HTTP method
    #[arg(long, value_name = "METHOD", default_value = "POST", value_parser = parse_method)]
    method: String,

    /// The body, up to 256 KiB; JSON unless a Content-Type header says otherwise
    #[arg(long, value_name = "TEXT", conflicts_with = "body_file", allow_hyphen_values = true)]
    body: Option<String>,

    /// The file to read the body from; - is stdin
    #[arg(long, value_name = "FILE")]
    body_file: Option<PathBuf>,

    /// A header of the call; repeat it for more
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,

    /// Not before so long from now, by the database's clock: 90s, 10m, 2h
    #[arg(long = "in", value_name = "DURATION", value_parser = parse_delay, conflicts_with = "at")]
    delay: Option<Duration>,

    /// Not before this instant, by the database's clock (RFC 3339)
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    at: Option<ServerInstant>,

    /// From -100 to 100; higher is sooner, each point as ten seconds of waiting
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true,
          value_parser = clap::value_parser!(i16).range(-100..=100))]
    priority: i16,

    /// How often it is tried at most, from 1 to 1000
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_ATTEMPTS,
          value_parser = clap::value_parser!(u32).range(1..=ATTEMPTS_MAX))]
    max_attempts: u32,

    /// How long one attempt may take, from 1ms to 24h
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_deadline)]
    deadline: Duration,

    /// Print {"id": "..."}
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Enqueued {
    id: JobId,
}

/// Insert the job.
pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let (common, json) = (args.common.clone(), args.json);
    let job = new_job(args)?;
    let id = job.id;
    insert(&common, job).await?;
    if json {
        show::print_json(&Enqueued { id })?;
    } else {
        show::print(&id.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn insert(common: &Common, job: NewJob) -> Result<(), Failure> {
    let store = common.store().await?;
    let jobs = [job];
    let mut tries = 1;
    loop {
        match store.enqueue(&jobs).await {
            Ok(()) => return Ok(()),
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
    check_headers(&args.headers)?;
    let body = match (args.body, args.body_file) {
        (Some(text), _) => Some(text.into_bytes()),
        (None, Some(path)) => Some(read_body(&path)?),
        (None, None) => None,
    };
    if body.as_ref().is_some_and(|body| body.len() > BODY_BYTES_MAX) {
        return Err(Failure::usage(format!(
            "the body is over {} KiB, the most that a job can carry; send a reference to it",
            BODY_BYTES_MAX / 1024
        )));
    }
    let when = match (args.delay, args.at) {
        (Some(delay), _) => When::In(delay),
        (None, Some(instant)) => When::At(instant),
        (None, None) => When::Now,
    };
    Ok(NewJob {
        queue: args.queue,
        method: args.method,
        headers: args.headers,
        body,
        when,
        priority: args.priority,
        max_attempts: args.max_attempts,
        deadline: args.deadline,
        ..NewJob::new(args.url)
    })
}

/// All headers together: none twice, not too many.
fn check_headers(headers: &[(String, String)]) -> Result<(), Failure> {
    let size = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    request::check_header_size(size)
        .map_err(|error| Failure::usage(format!("the job: {error}")))?;
    for (i, (name, _)) in headers.iter().enumerate() {
        if headers[..i].iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            return Err(Failure::usage(format!(
                "the header {name:?} is given twice; a job has each once"
            )));
        }
    }
    Ok(())
}

fn read_body(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    // One byte more tells a body that is too long.
    let limit = BODY_BYTES_MAX as u64 + 1;
    let read = if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut body)
    } else {
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut body))
    };
    match read {
        Ok(_) => Ok(body),
        Err(error) => Err(Failure::failed(format!(
            "the body cannot be read from {}: {error}",
            path.display()
        ))),
    }
}

fn parse_url(text: &str) -> Result<String, String> {
    request::parse_destination(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn parse_method(text: &str) -> Result<String, String> {
    let method = text.to_ascii_uppercase();
    request::parse_method(&method).map(|_| method).map_err(|error| error.to_string())
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it as 'Name: value'")?;
    let (name, value) = (name.trim(), value.trim());
    let (parsed, _) = request::parse_header(name, value).map_err(|error| error.to_string())?;
    if request::is_own_header(&parsed) {
        return Err("Turnwise sets this header on every call; leave it out".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn parse_delay(text: &str) -> Result<Duration, String> {
    let delay = config::parse_duration(text)?;
    if delay > DELAY_MAX {
        return Err("a job waits for at most ten years".to_owned());
    }
    Ok(delay)
}

fn parse_instant(text: &str) -> Result<ServerInstant, String> {
    rfc3339::parse(text)
        .ok_or_else(|| "write it as 2027-01-31T09:00:00Z; the last year is 2261".to_owned())
}

fn parse_deadline(text: &str) -> Result<Duration, String> {
    let deadline = config::parse_duration(text)?;
    if deadline.subsec_nanos() % 1_000_000 != 0 {
        return Err("a deadline is a whole number of milliseconds".to_owned());
    }
    let millis = i64::try_from(deadline.as_millis()).unwrap_or(i64::MAX);
    request::parse_deadline(millis).map_err(|error| error.to_string())
}
