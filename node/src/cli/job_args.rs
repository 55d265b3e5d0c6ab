//! What can be said of a job, by whichever command: decides whether what was typed can be one.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::failure::Failure;
use crate::config;
use crate::job::{
    BODY_BYTES_MAX, ConcurrencyKey, DEFAULT_MAX_ATTEMPTS, DEFAULT_QUEUE, NewJob, Retry,
};
use crate::job_fields::{self, ATTEMPTS_MAX, PRIORITY_MAX};

/// A job, but for its URL and its time.
#[derive(Debug, clap::Args)]
pub(super) struct JobArgs {
    /// The queue
    #[arg(long, value_name = "QUEUE", default_value = DEFAULT_QUEUE, value_parser = config::parse_queue)]
    queue: String,

    /// The HTTP method
    #[arg(long, value_name = "METHOD", default_value = "POST", value_parser = job_fields::method)]
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

    /// From -100 to 100; higher is sooner, each point as ten seconds of waiting
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true,
          value_parser = clap::value_parser!(i16).range(-i64::from(PRIORITY_MAX)..=i64::from(PRIORITY_MAX)))]
    priority: i16,

    /// How often it is tried at most, from 1 to 1000
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_ATTEMPTS,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(ATTEMPTS_MAX)))]
    max_attempts: u32,

    /// How long one attempt may take, from 1ms to 24h
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = job_fields::deadline)]
    deadline: Duration,

    /// How long it waits after its first failed attempt, from 1ms to 24h; each further wait is twice as long [default: its
    /// queue's, or else 15s]
    #[arg(long, value_name = "DURATION", value_parser = job_fields::retry_wait)]
    retry_wait: Option<Duration>,

    /// No wait is longer than this, from 1ms to 24h [default: its queue's, or else 24h]
    #[arg(long, value_name = "DURATION", value_parser = job_fields::retry_wait)]
    retry_wait_max: Option<Duration>,

    /// An answer of 202 is not its end: it goes on until its target calls back, at the URL in the header Turnwise-Callback
    #[arg(long = "async")]
    asynchronous: bool,

    /// Then it must be heard of so often, or it is tried again; from 1s to 24h [default: once, before its deadline]
    #[arg(long, value_name = "DURATION", requires = "asynchronous", value_parser = job_fields::heartbeat)]
    heartbeat: Option<Duration>,

    /// Of the jobs of its queue with the same key, of up to 256 bytes, no more run at once than the queue says
    /// (--concurrency-per-key of `turnwise queues set`)
    #[arg(long, value_name = "KEY")]
    concurrency_key: Option<ConcurrencyKey>,
}

impl JobArgs {
    /// The job, due at once.
    pub(super) fn job(self, url: String) -> Result<NewJob, Failure> {
        job_fields::headers(&self.headers).map_err(Failure::usage)?;
        let body = match (self.body, self.body_file) {
            (Some(text), _) => Some(text.into_bytes()),
            (None, Some(path)) => Some(read_body(&path)?),
            (None, None) => None,
        };
        job_fields::body_bytes(body.as_ref().map_or(0, Vec::len)).map_err(Failure::usage)?;
        Ok(NewJob {
            queue: self.queue,
            method: self.method,
            headers: self.headers,
            body,
            priority: self.priority,
            max_attempts: self.max_attempts,
            deadline: self.deadline,
            retry: Retry { wait: self.retry_wait, wait_max: self.retry_wait_max },
            asynchronous: job_fields::asynchronous(self.asynchronous, self.heartbeat)
                .map_err(Failure::usage)?,
            concurrency_key: self.concurrency_key,
            ..NewJob::new(url)
        })
    }
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

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it as 'Name: value'")?;
    job_fields::header(name, value)
}
