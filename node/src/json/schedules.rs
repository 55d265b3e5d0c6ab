//! Schedules, with their next times.

use serde::Serialize;
use turnwise_engine::ServerInstant;
use utoipa::ToSchema;

use crate::rfc3339;
use crate::store::{ScheduleView, limit_of};

/// So many times to come are shown.
const TIMES_SHOWN: usize = 5;

/// A schedule.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Schedule)]
pub(crate) struct ScheduleLine<'a> {
    /// Its name.
    name: &'a str,
    /// The cron expression.
    cron: &'a str,
    /// The time zone of the expression.
    zone: &'a str,
    /// What becomes of times that were missed: `skip`, `once` or `all`.
    misfire: &'static str,
    /// With `all`: for the latest so many at most.
    misfire_limit: i64,
    /// The lane of its jobs.
    queue: &'a str,
    /// The HTTP method of its jobs.
    method: &'a str,
    /// The path or URL of its jobs.
    url: &'a str,
    /// Since when it is paused (RFC 3339, the database's clock); null: it is not.
    #[schema(format = DateTime)]
    paused_since: Option<String>,
    /// The next five times; none while it is paused or cannot be read.
    next: Vec<String>,
    /// The last time that was fired.
    #[schema(format = DateTime)]
    last: Option<String>,
    /// How many times were passed over, since nobody looked when they came.
    skipped: u64,
    /// Why nothing is fired.
    error: Option<&'a str>,
}

impl<'a> ScheduleLine<'a> {
    /// As of `now`.
    pub(crate) fn new(schedule: &'a ScheduleView, now: ServerInstant) -> Self {
        Self {
            name: &schedule.name,
            cron: &schedule.cron,
            zone: &schedule.zone,
            misfire: schedule.misfire.as_str(),
            misfire_limit: limit_of(schedule.misfire),
            queue: &schedule.queue,
            method: &schedule.method,
            url: &schedule.url,
            paused_since: schedule.paused_since.map(rfc3339::format),
            next: next(schedule, now),
            last: schedule.last_at.map(rfc3339::format),
            skipped: schedule.skipped,
            error: schedule.error.as_deref(),
        }
    }
}

/// The times to come, unless it fires nothing.
fn next(schedule: &ScheduleView, now: ServerInstant) -> Vec<String> {
    let fires = schedule.paused_since.is_none() && schedule.error.is_none();
    let cron = schedule.parsed().ok().filter(|_| fires);
    cron.map_or_else(Vec::new, |cron| times(cron.next_times(now.as_micros(), TIMES_SHOWN)))
}

/// A schedule that was set.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ScheduleSet<'a> {
    /// Its name.
    name: &'a str,
    /// Whether there was none of that name.
    new: bool,
    /// The next times that its expression names (RFC 3339, the database's clock).
    next: Vec<String>,
}

impl<'a> ScheduleSet<'a> {
    /// `next` in microseconds since the Unix epoch.
    pub(crate) fn new(name: &'a str, new: bool, next: &[i64]) -> Self {
        Self { name, new, next: times(next.iter().copied()) }
    }
}

fn times(times: impl IntoIterator<Item = i64>) -> Vec<String> {
    times.into_iter().map(|at| rfc3339::format(ServerInstant::from_micros(at))).collect()
}
