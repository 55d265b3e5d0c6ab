//! Decides which job the JSON of a request means, and which of its fields cannot be. The names of the fields are those of the
//! table's columns and of the command's flags.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::problem::{Fault, Kind, Problem};
use crate::batch::{After, BatchId, Need};
use crate::config;
use crate::job::{ConcurrencyKey, JobId, NewJob, Retry, Unique, UniqueKey, When};
use crate::job_fields::{self, ATTEMPTS_MAX, PRIORITY_MAX};

/// So many jobs are enqueued by one array, all or none.
pub(super) const ARRAY_JOBS_MAX: usize = 500;

/// A job to be enqueued.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewJob)]
pub(super) struct JobRequest {
    /// Its id, a UUID, so that enqueueing it again is harmless; a new one unless it is given.
    pub(super) id: Option<Uuid>,
    /// A path for the executing node's own target, beginning with `/`, or a full URL of an origin that the nodes allow. Up to
    /// 8192 bytes.
    #[schema(required = true, value_type = String, max_length = 8192, pattern = r"^(/|https?://)[^ \\\x00-\x1f\x7f-\x9f]*$", example = "/jobs/tidy?id=7")]
    pub(super) url: Option<String>,
    /// The lane; `default` unless it is given. Up to 100 bytes.
    #[schema(max_length = 100, pattern = r"^[^\s,=\x00-\x1f\x7f-\x9f]+$")]
    pub(super) queue: Option<String>,
    /// The HTTP method of its calls; `POST` unless it is given.
    pub(super) method: Option<String>,
    /// Headers of its calls, up to 64 with 16384 bytes.
    #[serde(default)]
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    pub(super) headers: Headers,
    /// The body of its calls, a text of up to 262144 bytes; one of `body`, `json` and `body_base64`.
    pub(super) body: Option<String>,
    /// The body of its calls, any JSON but null, which is sent as it stands here.
    #[schema(value_type = Option<serde_json::Value>)]
    pub(super) json: Option<Box<RawValue>>,
    /// The body of its calls, any bytes, in base64 (RFC 4648, section 4).
    pub(super) body_base64: Option<String>,
    /// Not before so long from now, by the database's clock: `90s`, `10m`, `2h`, up to ten years. One of `in` and
    /// `scheduled_at`; at once unless one is given.
    pub(super) r#in: Option<String>,
    /// Not before this instant, by the database's clock (RFC 3339).
    #[schema(format = DateTime)]
    pub(super) scheduled_at: Option<String>,
    /// From -100 to 100; higher is sooner, each point as ten seconds of waiting. 0 unless it is given.
    #[schema(minimum = -100, maximum = 100)]
    pub(super) priority: Option<i64>,
    /// How often it is tried at most, from 1 to 1000; 20 unless it is given.
    #[schema(minimum = 1, maximum = 1000)]
    pub(super) max_attempts: Option<i64>,
    /// How long one attempt may take, from `1ms` to `24h`; `10m` unless it is given.
    pub(super) deadline: Option<String>,
    /// What there may be one job of at a time, up to 256 bytes.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\x00]*$")]
    pub(super) unique_key: Option<String>,
    /// Hold the key so long from now, though the job may end sooner: `10m`, `24h`, up to 366 days.
    pub(super) unique_for: Option<String>,
    /// How long it waits after its first failed attempt, from `1ms` to `24h`; each further wait is twice as long. Its queue's
    /// unless it is given, or else `15s`.
    pub(super) retry_wait: Option<String>,
    /// No wait is longer than this, from `1ms` to `24h`. Its queue's unless it is given, or else `24h`.
    pub(super) retry_wait_max: Option<String>,
    /// An answer of 202 is not its end: it goes on until its target calls back, at the URL in the header `Turnwise-Callback`.
    pub(super) asynchronous: Option<bool>,
    /// Then it must be heard of so often, or it is tried again; from `1s` to `24h`. Once, before its deadline, unless it is
    /// given.
    pub(super) heartbeat: Option<String>,
    /// Of the jobs of its queue with the same key no more run at once than the queue says; up to 256 bytes.
    #[schema(min_length = 1, max_length = 256, pattern = r"^[^\x00]*$")]
    pub(super) concurrency_key: Option<String>,
    /// The job that has enqueued it, a UUID. It is shown, and sent along in the header `Turnwise-Parent`; whether there is such a
    /// job is not looked at.
    pub(super) parent: Option<Uuid>,
    /// The batch that it belongs to, a UUID.
    pub(super) batch: Option<Uuid>,
    /// It runs when this batch has ended, and not at a time.
    pub(super) after: Option<AfterRequest>,
}

/// What a job waits for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = After)]
pub(super) struct AfterRequest {
    /// The batch, a UUID.
    pub(super) batch: Uuid,
    /// How it must end; `success` unless it is given.
    pub(super) on: Option<On>,
}

/// How a batch must end for a job that waits for it.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum On {
    /// All its jobs succeeded; otherwise the job is cancelled.
    Success,
    /// However its jobs ended, unless the batch was cancelled.
    End,
}

impl AfterRequest {
    fn after(&self) -> After {
        let need = match self.on {
            None | Some(On::Success) => Need::Success,
            Some(On::End) => Need::End,
        };
        After { batch: BatchId(self.batch), need }
    }
}

impl JobRequest {
    /// The job, with `id` unless it brings its own; or all that is wrong with it.
    pub(super) fn job(self, id: impl FnOnce() -> JobId) -> Result<NewJob, Problem> {
        let mut faults = Faults::default();
        let url = faults.required("url", self.url, job_fields::url);
        let when = match (self.r#in, self.scheduled_at) {
            (Some(_), Some(_)) => faults.add("scheduled_at", "give this or `in`, not both"),
            (Some(delay), None) => {
                faults.check("in", Some(delay), |text: &str| job_fields::delay(text).map(When::In))
            }
            (None, at) => faults
                .check("scheduled_at", at, |text: &str| job_fields::instant(text).map(When::At)),
        };
        let after = self.after.as_ref().map(AfterRequest::after);
        if after.is_some() && when.is_some() {
            let say = "it runs when the batch has ended: leave out `in` and `scheduled_at`";
            faults.add::<()>("after", say);
        }
        let window = faults.check("unique_for", self.unique_for, job_fields::window);
        let key = faults.check("unique_key", self.unique_key, |text: &str| {
            text.parse::<UniqueKey>().map_err(|error| error.to_string())
        });
        if window.is_some() && key.is_none() {
            faults.add::<()>("unique_for", "it is of a `unique_key`; give one, or leave this out");
        }
        let queue = faults.check("queue", self.queue, config::parse_queue);
        let method = faults.check("method", self.method, job_fields::method);
        let headers = faults.headers(self.headers);
        let body = faults.body(self.body, self.json, self.body_base64);
        let priority = faults.check("priority", self.priority, |given: &i64| priority(*given));
        let attempts =
            faults.check("max_attempts", self.max_attempts, |given: &i64| attempts(*given));
        let deadline = faults.check("deadline", self.deadline, job_fields::deadline);
        let retry = Retry {
            wait: faults.check("retry_wait", self.retry_wait, job_fields::retry_wait),
            wait_max: faults.check("retry_wait_max", self.retry_wait_max, job_fields::retry_wait),
        };
        let heartbeat = faults.check("heartbeat", self.heartbeat, job_fields::heartbeat);
        let is_asynchronous = self.asynchronous.unwrap_or(false);
        let asynchronous = match job_fields::asynchronous(is_asynchronous, heartbeat) {
            Ok(asynchronous) => asynchronous,
            Err(reason) => faults.add("heartbeat", reason),
        };
        let concurrency_key =
            faults.check("concurrency_key", self.concurrency_key, |text: &str| {
                text.parse::<ConcurrencyKey>().map_err(|error| error.to_string())
            });
        let url = faults.done(url)?;
        let default = NewJob::new(url);
        Ok(NewJob {
            id: self.id.map_or_else(id, JobId),
            queue: queue.unwrap_or(default.queue),
            method: method.unwrap_or(default.method),
            headers,
            body,
            when: when.unwrap_or(default.when),
            priority: priority.unwrap_or(default.priority),
            max_attempts: attempts.unwrap_or(default.max_attempts),
            deadline: deadline.unwrap_or(default.deadline),
            unique: key.map(|key| Unique { key, window }),
            url: default.url,
            retry,
            asynchronous,
            concurrency_key,
            parent: self.parent.map(JobId),
            batch: self.batch.map(BatchId),
            after,
        })
    }
}

fn priority(given: i64) -> Result<i16, String> {
    let priority = i16::try_from(given).ok();
    let priority =
        priority.filter(|priority| priority.unsigned_abs() <= PRIORITY_MAX.unsigned_abs());
    priority.ok_or_else(|| format!("{given} is not within -{PRIORITY_MAX} and {PRIORITY_MAX}"))
}

fn attempts(given: i64) -> Result<u32, String> {
    let attempts = u32::try_from(given).ok().filter(|given| (1..=ATTEMPTS_MAX).contains(given));
    attempts.ok_or_else(|| format!("{given} is not within 1 and {ATTEMPTS_MAX}"))
}

/// What is wrong with the fields so far.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    /// One more.
    pub(super) fn add<T>(&mut self, field: &str, reason: impl Into<String>) -> Option<T> {
        self.0.push(Fault::new(field, reason));
        None
    }

    /// What a field says, if it is given and can be.
    pub(super) fn check<G, T, U: ?Sized>(
        &mut self,
        field: &str,
        given: Option<G>,
        parse: impl FnOnce(&U) -> Result<T, String>,
    ) -> Option<T>
    where
        G: std::borrow::Borrow<U>,
    {
        match parse(given?.borrow()) {
            Ok(value) => Some(value),
            Err(reason) => self.add(field, reason),
        }
    }

    /// What a field says that must be given.
    pub(super) fn required<T>(
        &mut self,
        field: &str,
        given: Option<String>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if given.is_none() {
            return self.add(field, "it is missing");
        }
        self.check(field, given, parse)
    }

    fn headers(&mut self, given: Headers) -> Vec<(String, String)> {
        let mut headers = Vec::with_capacity(given.0.len());
        for (name, value) in given.0 {
            match job_fields::header(&name, &value) {
                Ok(header) => headers.push(header),
                Err(reason) => {
                    self.add::<()>(&format!("headers.{name}"), reason);
                }
            }
        }
        if let Err(reason) = job_fields::headers(&headers) {
            self.add::<()>("headers", reason);
        }
        headers
    }

    fn body(
        &mut self,
        text: Option<String>,
        json: Option<Box<RawValue>>,
        base64: Option<String>,
    ) -> Option<Vec<u8>> {
        let (field, bytes) = match (text, json, base64) {
            (None, None, None) => return None,
            (Some(text), None, None) => ("body", text.into_bytes()),
            (None, Some(json), None) => ("json", json.get().as_bytes().to_vec()),
            (None, None, Some(base64)) => match STANDARD.decode(&base64) {
                Ok(bytes) => ("body_base64", bytes),
                Err(error) => {
                    return self.add("body_base64", format!("it is not base64: {error}"));
                }
            },
            _ => {
                return self
                    .add("body", "give one of `body`, `json` and `body_base64`, not several");
            }
        };
        match job_fields::body_bytes(bytes.len()) {
            Ok(()) => Some(bytes),
            Err(reason) => self.add(field, reason),
        }
    }

    /// What another check came to, its faults among these.
    pub(super) fn also<T>(&mut self, checked: Result<T, Problem>) -> Option<T> {
        checked.map_err(|problem| self.0.extend(problem.into_faults())).ok()
    }

    /// The value, if nothing is wrong; it is there then.
    pub(super) fn done<T>(self, value: Option<T>) -> Result<T, Problem> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(Problem::faults(Kind::Invalid, self.0)),
        }
    }
}

/// Headers in their order, those that are given twice too: that is told, and not passed over.
#[derive(Debug, Default)]
pub(super) struct Headers(pub(super) Vec<(String, String)>);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Headers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_unit<E>(self) -> Result<Headers, E> {
                Ok(Headers::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
                let mut headers = Vec::new();
                while let Some(header) = map.next_entry()? {
                    headers.push(header);
                }
                Ok(Headers(headers))
            }
        }

        deserializer.deserialize_any(InOrder)
    }
}

/// Jobs of an array, no more than may be.
#[derive(Debug)]
pub(super) struct JobRequests(pub(super) Vec<JobRequest>);

impl<'de> Deserialize<'de> for JobRequests {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AtMost;

        impl<'de> Visitor<'de> for AtMost {
            type Value = JobRequests;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of jobs")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<JobRequests, A::Error> {
                let mut jobs = Vec::new();
                while let Some(job) = seq.next_element()? {
                    if jobs.len() == ARRAY_JOBS_MAX {
                        return Err(serde::de::Error::custom(format_args!(
                            "an array has at most {ARRAY_JOBS_MAX} jobs; send more of them as lines \
                             (application/x-ndjson), or in several requests"
                        )));
                    }
                    jobs.push(job);
                }
                Ok(JobRequests(jobs))
            }
        }

        deserializer.deserialize_seq(AtMost)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::super::bodies::json;
    use super::*;
    use crate::job::Asynchronous;

    fn job(text: &str) -> Result<NewJob, Problem> {
        json::<JobRequest>(text.as_bytes())?.job(|| JobId(Uuid::from_u128(7)))
    }

    #[test]
    fn what_is_left_out_is_as_everywhere_else() {
        let id = JobId(Uuid::from_u128(7));
        assert_eq!(job(r#"{"url":"/x"}"#).unwrap(), NewJob { id, ..NewJob::new("/x") });
    }

    #[test]
    fn every_field_is_taken() {
        let job = job(
            r#"{"id":"00000000-0000-0000-0000-000000000009","url":"https://a.example/x","queue":"mail","method":"put",
            "headers":{"X-B":"2","X-A":"1"},"json":{"b": 1,  "a": [2.50]},"in":"10m","priority":-100,
            "max_attempts":1000,"deadline":"1500ms","unique_key":"k","unique_for":"24h","retry_wait":"2s",
            "retry_wait_max":"1h","asynchronous":true,"heartbeat":"30s","concurrency_key":"customer:7",
            "parent":"00000000-0000-0000-0000-00000000000A","batch":"00000000-0000-0000-0000-00000000000b"}"#,
        )
        .unwrap();
        let second = Duration::from_secs(1);
        assert_eq!(
            job,
            NewJob {
                id: JobId(Uuid::from_u128(9)),
                queue: "mail".to_owned(),
                method: "PUT".to_owned(),
                headers: vec![
                    ("X-B".to_owned(), "2".to_owned()),
                    ("X-A".to_owned(), "1".to_owned())
                ],
                // Byte by byte as it was sent.
                body: Some(br#"{"b": 1,  "a": [2.50]}"#.to_vec()),
                when: When::In(600 * second),
                priority: -100,
                max_attempts: 1_000,
                deadline: Duration::from_millis(1_500),
                unique: Some(Unique { key: "k".parse().unwrap(), window: Some(86_400 * second) }),
                retry: Retry { wait: Some(2 * second), wait_max: Some(3_600 * second) },
                asynchronous: Some(Asynchronous { heartbeat: Some(30 * second) }),
                concurrency_key: Some("customer:7".parse().unwrap()),
                parent: Some(JobId(Uuid::from_u128(10))),
                batch: Some(BatchId(Uuid::from_u128(11))),
                ..NewJob::new("https://a.example/x")
            }
        );
    }

    #[test]
    fn a_job_waits_for_the_success_of_a_batch_unless_it_says_otherwise() {
        let after = |on: &str| {
            let id = "00000000-0000-0000-0000-00000000000b";
            job(&format!(r#"{{"url":"/x","after":{{"batch":"{id}"{on}}}}}"#)).unwrap().after
        };
        let need = |need| Some(After { batch: BatchId(Uuid::from_u128(11)), need });
        assert_eq!(after(""), need(Need::Success));
        assert_eq!(after(r#","on":"success""#), need(Need::Success));
        assert_eq!(after(r#","on":"end""#), need(Need::End));
    }

    #[test]
    fn a_body_is_given_in_one_of_three_ways() {
        let body = |text: &str| job(text).unwrap().body;
        assert_eq!(body(r#"{"url":"/x","body":"ä"}"#), Some("ä".into()));
        assert_eq!(body(r#"{"url":"/x","body_base64":"AP8="}"#), Some(vec![0, 255]));
        assert_eq!(body(r#"{"url":"/x","json":null}"#), None);
        assert_eq!(body(r#"{"url":"/x","json":false}"#), Some("false".into()));
    }

    #[test]
    fn all_that_is_wrong_is_told_by_its_name() {
        let told = |text: &str| format!("{:?}", job(text).unwrap_err());
        for (text, field, reason) in [
            ("{}", "url", "missing"),
            (r#"{"url":"x"}"#, "url", "neither a path"),
            (r#"{"url":7}"#, "url", "invalid type"),
            (r#"{"url":"/x","uniqe_key":"k"}"#, "uniqe_key", "unknown field"),
            (r#"{"url":"/x","url":"/y"}"#, "body", "duplicate field `url`"),
            (r#"{"url":"/x","id":"7"}"#, "id", "UUID"),
            (r#"{"url":"/x","queue":"a b"}"#, "queue", "no space"),
            (r#"{"url":"/x","method":"TRACE"}"#, "method", "not one of"),
            (r#"{"url":"/x","headers":{"Host":"x"}}"#, "headers.Host", "leave it out"),
            (r#"{"url":"/x","headers":{"a":"x","A":"y"}}"#, "headers", "twice"),
            (r#"{"url":"/x","headers":{"a":1}}"#, "headers.a", "expected a string"),
            (r#"{"url":"/x","headers":[]}"#, "headers", "an object of texts"),
            (r#"{"url":"/x","body":"a","json":1}"#, "body", "not several"),
            (r#"{"url":"/x","body_base64":"%"}"#, "body_base64", "not base64"),
            (
                r#"{"url":"/x","in":"1s","scheduled_at":"2027-01-01T00:00:00Z"}"#,
                "scheduled_at",
                "not both",
            ),
            (r#"{"url":"/x","in":"11y"}"#, "in", "ten years"),
            (r#"{"url":"/x","scheduled_at":"tomorrow"}"#, "scheduled_at", "2027-01-31"),
            (r#"{"url":"/x","priority":101}"#, "priority", "within -100 and 100"),
            (r#"{"url":"/x","max_attempts":0}"#, "max_attempts", "within 1 and 1000"),
            (r#"{"url":"/x","deadline":"25h"}"#, "deadline", "24 h"),
            (r#"{"url":"/x","unique_key":""}"#, "unique_key", "not empty"),
            (r#"{"url":"/x","concurrency_key":""}"#, "concurrency_key", "not empty"),
            (r#"{"url":"/x","concurrency_key":"a\u0000b"}"#, "concurrency_key", "no NUL"),
            (r#"{"url":"/x","retry_wait":"25h"}"#, "retry_wait", "from 1ms to 24h"),
            (r#"{"url":"/x","retry_wait_max":"1us"}"#, "retry_wait_max", "whole number"),
            (r#"{"url":"/x","asynchronous":true,"heartbeat":"1ms"}"#, "heartbeat", "from 1s"),
            (r#"{"url":"/x","heartbeat":"9s"}"#, "heartbeat", "asynchronous"),
            (r#"{"url":"/x","unique_for":"1h"}"#, "unique_for", "give one"),
            (r#"{"url":"/x","parent":"7"}"#, "parent", "UUID"),
            (r#"{"url":"/x","batch":"7"}"#, "batch", "UUID"),
            (r#"{"url":"/x","after":{}}"#, "after", "missing field `batch`"),
            (
                r#"{"url":"/x","in":"1s","after":{"batch":"00000000-0000-0000-0000-000000000009"}}"#,
                "after",
                "leave out `in`",
            ),
            (r#"{"url":"/x","unique_key":"k","unique_for":"367days"}"#, "unique_for", "366 days"),
        ] {
            let told = told(text);
            assert!(told.contains(&format!("field: \"{field}\"")), "{text}: {told}");
            assert!(told.contains(reason), "{text}: {told}");
        }
        let both = told(r#"{"url":"x","priority":999}"#);
        assert!(both.contains("\"url\"") && both.contains("\"priority\""), "{both}");
    }

    #[test]
    fn an_array_has_so_many_jobs_and_no_more() {
        let of = |jobs: usize| {
            let text = format!("[{}]", vec![r#"{"url":"/x"}"#; jobs].join(","));
            json::<JobRequests>(text.as_bytes())
        };
        assert_eq!(of(ARRAY_JOBS_MAX).unwrap().0.len(), ARRAY_JOBS_MAX);
        let told = format!("{:?}", of(ARRAY_JOBS_MAX + 1).unwrap_err());
        assert!(told.contains("at most 500 jobs"), "{told}");
    }
}
