//! What can be said of a job, by whichever command: decides whether what was typed can be one.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::failure::Failure;
use crate::caller::request;
use crate::config;
use crate::job::{BODY_BYTES_MAX, DEFAULT_MAX_ATTEMPTS, DEFAULT_QUEUE, NewJob};

/// The most attempts that a job can be given here.
const ATTEMPTS_MAX: i64 = 1_000;

/// A job, but for its URL and its time.
#[derive(Debug, clap::Args)]
pub(super) struct JobArgs {
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
}

impl JobArgs {
    /// The job, due at once.
    pub(super) fn job(self, url: String) -> Result<NewJob, Failure> {
        check_headers(&self.headers)?;
        let body = match (self.body, self.body_file) {
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
        Ok(NewJob {
            queue: self.queue,
            method: self.method,
            headers: self.headers,
            body,
            priority: self.priority,
            max_attempts: self.max_attempts,
            deadline: self.deadline,
            ..NewJob::new(url)
        })
    }
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

pub(super) fn parse_url(text: &str) -> Result<String, String> {
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

fn parse_deadline(text: &str) -> Result<Duration, String> {
    let deadline = config::parse_duration(text)?;
    if deadline.subsec_nanos() % 1_000_000 != 0 {
        return Err("a deadline is a whole number of milliseconds".to_owned());
    }
    let millis = i64::try_from(deadline.as_millis()).unwrap_or(i64::MAX);
    request::parse_deadline(millis).map_err(|error| error.to_string())
}
