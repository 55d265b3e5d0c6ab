//! Decides whether what people say of a job can be one: a function for each field, the same for the commands and for the API.
//! An error says what can be in its place.

use std::time::Duration;

use turnwise_engine::ServerInstant;

use crate::caller::request;
use crate::config;
use crate::job::{
    Asynchronous, BODY_BYTES_MAX, HEARTBEAT_MAX, HEARTBEAT_MIN, QUEUE_BYTES_MAX, RETRY_WAIT_MAX,
    RETRY_WAIT_MIN, SLOW_DOWN_MAX, SLOW_DOWN_MIN, UNIQUE_WINDOW_MAX,
};
use crate::rfc3339;

/// The most attempts that people can give a job.
pub(crate) const ATTEMPTS_MAX: u32 = 1_000;
/// How far from 0 a priority may be.
pub(crate) const PRIORITY_MAX: i16 = 100;
/// How far ahead a delay may reach: ten years.
const DELAY_MAX: Duration = Duration::from_secs(3_653 * 24 * 3_600);

/// A path or a full URL.
pub(crate) fn url(text: &str) -> Result<String, String> {
    request::parse_destination(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// A method, in any case.
pub(crate) fn method(text: &str) -> Result<String, String> {
    let method = text.to_ascii_uppercase();
    request::parse_method(&method).map(|_| method).map_err(|error| error.to_string())
}

/// A header by itself.
pub(crate) fn header(name: &str, value: &str) -> Result<(String, String), String> {
    let (name, value) = (name.trim(), value.trim());
    let (parsed, _) = request::parse_header(name, value).map_err(|error| error.to_string())?;
    if request::is_own_header(&parsed) {
        return Err("Turnwise sets this header on every call; leave it out".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// All headers together: none twice, not too many.
pub(crate) fn headers(headers: &[(String, String)]) -> Result<(), String> {
    let size = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    request::check_header_size(size).map_err(|error| format!("the job: {error}"))?;
    for (i, (name, _)) in headers.iter().enumerate() {
        if headers[..i].iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            return Err(format!("the header {name:?} is given twice; a job has each once"));
        }
    }
    Ok(())
}

/// A body of so many bytes.
pub(crate) fn body_bytes(bytes: usize) -> Result<(), String> {
    if bytes > BODY_BYTES_MAX {
        return Err(format!(
            "the body is over {} KiB, the most that a job can carry; send a reference to it",
            BODY_BYTES_MAX / 1024
        ));
    }
    Ok(())
}

/// How long one attempt may take.
pub(crate) fn deadline(text: &str) -> Result<Duration, String> {
    let deadline = config::parse_duration(text)?;
    if deadline.subsec_nanos() % 1_000_000 != 0 {
        return Err("a deadline is a whole number of milliseconds".to_owned());
    }
    let millis = i64::try_from(deadline.as_millis()).unwrap_or(i64::MAX);
    request::parse_deadline(millis).map_err(|error| error.to_string())
}

/// How long a job waits before it is due.
pub(crate) fn delay(text: &str) -> Result<Duration, String> {
    let delay = config::parse_duration(text)?;
    if delay > DELAY_MAX {
        return Err("a job waits for at most ten years".to_owned());
    }
    Ok(delay)
}

/// When a job is due.
pub(crate) fn instant(text: &str) -> Result<ServerInstant, String> {
    rfc3339::parse(text)
        .ok_or_else(|| "write it as 2027-01-31T09:00:00Z; the last year is 2261".to_owned())
}

/// How long a unique key is held at least.
pub(crate) fn window(text: &str) -> Result<Duration, String> {
    let window = config::parse_duration(text)?;
    if window.is_zero() || window > UNIQUE_WINDOW_MAX {
        return Err("a key is held for a time above 0, up to 366 days; leave it out to hold it until the job has ended"
            .to_owned());
    }
    Ok(window)
}

/// How long a job waits between attempts.
pub(crate) fn retry_wait(text: &str) -> Result<Duration, String> {
    let wait = config::parse_duration(text)?;
    if !(RETRY_WAIT_MIN..=RETRY_WAIT_MAX).contains(&wait) || wait.subsec_nanos() % 1_000_000 != 0 {
        return Err(
            "a wait between attempts is a whole number of milliseconds, from 1ms to 24h".to_owned()
        );
    }
    Ok(wait)
}

/// How long a queue is held back at most when a target asks for it.
pub(crate) fn slow_down(text: &str) -> Result<Duration, String> {
    let most = config::parse_duration(text)?;
    if !(SLOW_DOWN_MIN..=SLOW_DOWN_MAX).contains(&most) || most.subsec_nanos() % 1_000_000 != 0 {
        return Err("a queue is held back for at most 1s to 24h, in whole milliseconds".to_owned());
    }
    Ok(most)
}

/// Within which time a job that goes on elsewhere must be heard of.
pub(crate) fn heartbeat(text: &str) -> Result<Duration, String> {
    let within = config::parse_duration(text)?;
    if !(HEARTBEAT_MIN..=HEARTBEAT_MAX).contains(&within) || within.subsec_nanos() % 1_000_000 != 0
    {
        return Err("a heartbeat is a whole number of milliseconds, from 1s to 24h".to_owned());
    }
    Ok(within)
}

/// Whether a job may go on elsewhere, and how it is heard of then.
pub(crate) fn asynchronous(
    is_asynchronous: bool,
    heartbeat: Option<Duration>,
) -> Result<Option<Asynchronous>, String> {
    if heartbeat.is_some() && !is_asynchronous {
        return Err("a heartbeat is of a job that is asynchronous; say that it is, or leave the heartbeat out".to_owned());
    }
    Ok(is_asynchronous.then_some(Asynchronous { heartbeat }))
}

/// The name of a queue that may be in the table, which takes more than a node can be told to claim from.
pub(crate) fn stored_queue(text: &str) -> Result<(), String> {
    if text.len() > QUEUE_BYTES_MAX {
        return Err(format!("a queue’s name has at most {QUEUE_BYTES_MAX} bytes"));
    }
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err("a queue’s name is not empty and has no control characters".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_held_back_from_a_second_to_a_day() {
        for (text, millis) in [("1s", 1_000), ("1500ms", 1_500), ("24h", 86_400_000)] {
            assert_eq!(slow_down(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for text in ["999ms", "0s", "86400001ms", "1000001us"] {
            assert!(slow_down(text).unwrap_err().contains("at most 1s to 24h"), "{text}");
        }
        assert!(slow_down("soon").is_err());
    }
}
