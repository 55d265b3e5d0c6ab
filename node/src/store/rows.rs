//! Turns columns into values and values into columns, the same way for every database. Decides nothing:
//! what cannot be read is reported as corrupt.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use turnwise_engine::{
    Cadence, Epoch, NextPeriod, NodeId, Period, Roster, ServerInstant, Slot, Token, TurnRow,
};

use super::errors::Trouble;
use super::views::{ATTEMPTS_SHOWN, BeatView, RunView};
use super::{Look, NodeView, StoreError, TARGETS_BYTES_MAX, TargetView};
use crate::job::{
    AttemptView, Attempts, BODY_BYTES_MAX, ClaimedJob, HEADERS_BYTES_MAX, JobFate, JobId, JobState,
    JobView, METHOD_BYTES_MAX, NewJob, Particulars, Progress, QUEUE_BYTES_MAX, URL_BYTES_MAX,
};
use crate::rfc3339;

/// No wait is longer than this: a hundred years, in microseconds.
const WAIT_US_MAX: i64 = 100 * 366 * 86_400 * 1_000_000;

/// The columns of the turn row that make up a [`TurnRow`].
#[derive(Clone, Debug)]
pub(super) struct TurnColumns {
    pub(super) epoch: i64,
    pub(super) high: i64,
    pub(super) slot: i64,
    pub(super) previous: i64,
    pub(super) bias: i64,
    pub(super) period_ms: i64,
    pub(super) next_period_ms: Option<i64>,
    pub(super) next_period_from: Option<i64>,
    pub(super) versions: String,
    pub(super) deputies: String,
    pub(super) marks: String,
}

impl TurnColumns {
    pub(super) fn of(row: &TurnRow) -> Result<Self, Trouble> {
        Ok(Self {
            epoch: row.epoch.0,
            high: row.high.0,
            slot: row.slot.0,
            previous: row.previous.0,
            bias: row.cadence.bias,
            period_ms: i64::from(row.cadence.period.as_millis()),
            next_period_ms: row.cadence.next.map(|next| i64::from(next.period.as_millis())),
            next_period_from: row.cadence.next.map(|next| next.from.0),
            versions: json(&row.roster.versions)?,
            deputies: json(&row.roster.deputies)?,
            marks: json(&row.marks)?,
        })
    }

    pub(super) fn into_row(self) -> Result<TurnRow, Trouble> {
        let next = match (self.next_period_from, self.next_period_ms) {
            (Some(from), Some(millis)) => {
                Some(NextPeriod { from: Slot(from), period: period(millis)? })
            }
            _ => None,
        };
        Ok(TurnRow {
            epoch: Epoch(self.epoch),
            high: Slot(self.high),
            slot: Slot(self.slot),
            previous: Slot(self.previous),
            cadence: Cadence { period: period(self.period_ms)?, bias: self.bias, next },
            roster: Roster {
                versions: parsed("turn.versions", &self.versions)?,
                deputies: parsed("turn.deputies", &self.deputies)?,
            },
            marks: parsed("turn.marks", &self.marks)?,
        })
    }
}

/// A claimed job as the statements of both databases return it.
pub(super) type ClaimedColumns = (
    String,
    i64,
    String,
    String,
    String,
    Option<String>,
    Option<Vec<u8>>,
    i64,
    i64,
    i64,
    i64,
    i64,
    i64,
    Option<String>,
);

pub(super) fn claimed_job(columns: ClaimedColumns) -> Result<ClaimedJob, Trouble> {
    let (id, token, queue, method, url, headers, body, bytes, attempt, ..) = columns;
    let (.., most, backs, deadline, at, said) = columns;
    Ok(ClaimedJob {
        id: job_id(&id)?,
        token: Token(token),
        queue,
        method,
        url,
        headers,
        body: body.map(Bytes::from),
        body_bytes: u64::try_from(bytes).unwrap_or(0),
        attempt: count(attempt),
        max_attempts: count(most),
        hand_backs: count(backs),
        deadline_ms: deadline,
        scheduled_at: ServerInstant::from_micros(at),
        particulars: said
            .map_or(Ok(Particulars::default()), |said| parsed("what the job says", &said))?,
    })
}

/// A claimed row that cannot be read: what is needed to end it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unreadable<I> {
    /// The row, by whatever can be read of it.
    pub(super) id: I,
    /// What is wrong with it, for its job's error.
    pub(super) error: String,
}

impl<I: fmt::Display> Unreadable<I> {
    pub(super) fn new(id: I, trouble: &Trouble) -> Self {
        let error = format!("never called: its row cannot be read: {trouble}");
        tracing::error!(job = %id, "{error}; it is ended as dead");
        Self { id, error }
    }
}

/// Why jobs were given back that could not be received.
pub(super) const NOT_RECEIVED: &str =
    "given back: the node could not receive it from the database (a slow network, or a large body)";

/// Why jobs were given back after another server took over.
pub(super) const END_UNKNOWN: &str =
    "given back: the database server that took over does not know how this attempt ended";

/// A job as the lists of all databases return it; the last column but one is the server's clock, and the last what few jobs say
/// ([`SeldomSaid`]), as JSON.
pub(super) type JobColumns = (
    String,
    String,
    String,
    String,
    String,
    i64,
    i64,
    i64,
    i64,
    i64,
    Option<i64>,
    Option<String>,
    Option<i64>,
    Option<String>,
    i64,
    Option<String>,
);

pub(super) fn job_view(columns: JobColumns) -> Result<JobView, Trouble> {
    let (
        id,
        queue,
        method,
        url,
        stored,
        priority,
        attempt,
        max_attempts,
        scheduled_at,
        created_at,
        finished_at,
        node,
        last_status,
        last_error,
        now,
        seldom,
    ) = columns;
    let seldom: SeldomSaid =
        seldom.map_or(Ok(SeldomSaid::default()), |seldom| parsed("what the job says", &seldom))?;
    let awaits_since = seldom.awaits_since.filter(|_| stored == "queued");
    let state = match awaits_since {
        Some(_) => JobState::Running,
        None => job_state(&id, &stored, scheduled_at <= now, attempt)?,
    };
    Ok(JobView {
        id: job_id(&id)?,
        queue,
        method,
        url,
        state,
        priority: i16::try_from(priority).unwrap_or(0),
        attempt: count(attempt),
        max_attempts: count(max_attempts),
        scheduled_at: ServerInstant::from_micros(scheduled_at),
        created_at: ServerInstant::from_micros(created_at),
        finished_at: finished_at.map(ServerInstant::from_micros),
        node: node.and_then(|node| node.parse().ok()),
        last_status: status(last_status),
        last_error,
        unique_key: seldom.unique_key,
        awaits_since: awaits_since.map(ServerInstant::from_micros),
        progress: seldom.progress.filter(|progress| *progress != Progress::default()),
        particulars: seldom.particulars,
        after: seldom.after.and_then(|after| after.parse().ok()),
    })
}

/// The state of a job as people see it, unless it goes on elsewhere.
pub(super) fn job_state(
    id: &str,
    stored: &str,
    is_due: bool,
    attempt: i64,
) -> Result<JobState, Trouble> {
    Ok(match stored {
        "queued" if is_due => JobState::Ready,
        "queued" if attempt == 0 => JobState::Scheduled,
        "queued" => JobState::Retrying,
        "running" => JobState::Running,
        "succeeded" => JobState::Succeeded,
        "dead" => JobState::Dead,
        "cancelled" => JobState::Cancelled,
        other => return Err(Trouble::corrupt(format!("the job {id} in the state {other:?}"))),
    })
}

/// What few jobs say, as a list of jobs reads it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SeldomSaid {
    unique_key: Option<String>,
    /// In microseconds since the Unix epoch.
    awaits_since: Option<i64>,
    progress: Option<Progress>,
    /// The batch that it waits for.
    after: Option<String>,
    #[serde(flatten)]
    particulars: Particulars,
}

/// Those of the jobs that can be read: one bad row must not hide the others from whoever looks for it.
pub(super) fn readable_views(
    views: impl Iterator<Item = (Option<String>, Result<JobView, Trouble>)>,
) -> Vec<JobView> {
    views
        .filter_map(|(id, view)| match view {
            Ok(view) => Some(view),
            Err(trouble) => {
                let id = id.unwrap_or_default();
                tracing::warn!("the job {id:?} is left out: its row cannot be read: {trouble}");
                None
            }
        })
        .collect()
}

/// An attempt as all databases return it; the one that runs has no end. The last column is how many have ended, those that
/// are not among these rows included.
pub(super) type AttemptColumns =
    (i64, String, i64, Option<i64>, Option<i64>, Option<String>, Option<Vec<u8>>, i64);

/// The attempts in rows that are in their order.
pub(super) fn attempts(
    rows: impl Iterator<Item = Result<AttemptColumns, sqlx::Error>>,
) -> Result<Attempts, Trouble> {
    let mut attempts = Attempts::default();
    for row in rows {
        let columns = row?;
        let ended = u64::try_from(columns.7).unwrap_or(0);
        let view = attempt_view(columns)?;
        attempts.in_all = ended + u64::from(view.finished_at.is_none());
        attempts.newest.push(view);
    }
    let most = ATTEMPTS_SHOWN as usize;
    attempts.newest.drain(..attempts.newest.len().saturating_sub(most));
    Ok(attempts)
}

fn attempt_view(columns: AttemptColumns) -> Result<AttemptView, Trouble> {
    let (attempt, node, started_at, finished_at, answer_status, error, answer, _) = columns;
    Ok(AttemptView {
        attempt: count(attempt),
        node: node_id(&node)?,
        started_at: ServerInstant::from_micros(started_at),
        finished_at: finished_at.map(ServerInstant::from_micros),
        status: status(answer_status),
        error,
        answer,
    })
}

/// A job with its attempts, as people see it: of one that goes on elsewhere the last attempt goes on, whatever its row says for
/// the case that nothing is heard any more.
pub(super) fn shown(job: JobView, mut attempts: Attempts) -> (JobView, Attempts) {
    if job.awaits_since.is_some()
        && let Some(last) = attempts.newest.last_mut()
    {
        (last.finished_at, last.error) = (None, None);
    }
    (job, attempts)
}

/// A node as all databases return it: id, name, state, lease_until, last_check_in, capacity, running, offset, its error,
/// transit, whether it was asked to drain, targets.
pub(super) type NodeColumns = (
    String,
    String,
    String,
    i64,
    i64,
    i64,
    i64,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    bool,
    Option<String>,
);

/// The nodes in turn order, those out of the ring last.
pub(super) fn node_views(nodes: Vec<NodeColumns>, look: &Look) -> Result<Vec<NodeView>, Trouble> {
    let slot = look.row.clone().stamp(look.clock, None, None);
    let ring = look.row.roster.last().map_or(&[][..], |version| &version.ring);
    let mut views = Vec::with_capacity(nodes.len());
    for columns in nodes {
        let (id, name, stored, lease_until, seen, capacity, running, offset, error, transit, ..) =
            columns.clone();
        let (.., drain_asked, targets) = columns;
        let id = node_id(&id)?;
        let rank = ring.iter().position(|member| *member == id);
        let lapsed = lease_until < look.clock.as_micros()
            && look.row.marks.get(&id).is_none_or(|mark| mark.until < slot);
        let state = match stored.as_str() {
            "left" | "lost" => stored,
            _ if lapsed => "silent".to_owned(),
            _ if drain_asked => "draining".to_owned(),
            _ if rank.is_none() => "joining".to_owned(),
            _ => "live".to_owned(),
        };
        views.push(NodeView {
            id,
            name,
            state,
            offset_us: offset,
            offset_error_us: error,
            transit_us: transit,
            rank: rank.and_then(|rank| u32::try_from(rank).ok()),
            epoch: look.row.epoch.0,
            capacity: count(capacity),
            running: count(running),
            last_check_in: rfc3339::format(ServerInstant::from_micros(seen)),
            targets: targets_read(targets.as_deref()),
            lease_until: ServerInstant::from_micros(lease_until),
        });
    }
    views.sort_by(|a, b| {
        let place = |view: &NodeView| (view.rank.is_none(), view.rank);
        place(a).cmp(&place(b)).then_with(|| a.name.cmp(&b.name)).then_with(|| a.id.cmp(&b.id))
    });
    Ok(views)
}

/// Targets as they are stored; those that answer give way when it is too much.
pub(super) fn targets_json(targets: &[TargetView]) -> Result<String, Trouble> {
    let mut kept: Vec<&TargetView> = targets.iter().collect();
    kept.sort_by_key(|target| target.answers);
    loop {
        let text = json(&kept)?;
        if text.len() <= TARGETS_BYTES_MAX {
            return Ok(text);
        }
        kept.pop();
    }
}

/// Targets as they stand in a row, which anybody may have written: what cannot be read is none.
fn targets_read(stored: Option<&str>) -> Vec<TargetView> {
    stored.and_then(|stored| serde_json::from_str(stored).ok()).unwrap_or_default()
}

/// A beat as all databases return it.
pub(super) type BeatColumns = (i64, String, i64, i64);

pub(super) fn beat_views(beats: Vec<BeatColumns>) -> Result<Vec<BeatView>, Trouble> {
    let beat = |(slot, node, arrived_at, claimed): BeatColumns| {
        Ok(BeatView {
            slot: Slot(slot),
            node: node_id(&node)?,
            arrived_at: ServerInstant::from_micros(arrived_at),
            claimed: count(claimed),
        })
    };
    beats.into_iter().map(beat).collect()
}

/// An attempt as all databases return it, for a picture of many: job, queue, URL, node, attempt, begin, end, failed.
pub(super) type RunColumns = (String, String, String, String, i64, i64, Option<i64>, bool);

pub(super) fn run_view(columns: RunColumns) -> Result<RunView, Trouble> {
    let (job, queue, url, node, attempt, started_at, finished_at, failed) = columns;
    Ok(RunView {
        job: job_id(&job)?,
        queue,
        url,
        node: node_id(&node)?,
        attempt: count(attempt),
        started_at: ServerInstant::from_micros(started_at),
        finished_at: finished_at.map(ServerInstant::from_micros),
        failed,
    })
}

/// The word for a fate in the statement that ends attempts, and its wait in microseconds.
pub(super) fn fate_word(fate: JobFate) -> (&'static str, i64) {
    match fate {
        JobFate::Succeeded => ("succeeded", 0),
        JobFate::Retry(wait) => ("retry", micros(wait)),
        JobFate::Dead => ("dead", 0),
        JobFate::Await(wait) => ("await", micros(wait)),
        JobFate::HandBack => ("back", 0),
    }
}

/// Microseconds of a wait, at most a hundred years.
pub(super) fn micros(wait: Duration) -> i64 {
    i64::try_from(wait.as_micros()).unwrap_or(i64::MAX).min(WAIT_US_MAX)
}

/// Headers as the JSON object that is stored; none for no headers. A name that comes twice keeps its
/// last value.
pub(super) fn headers_json(headers: &[(String, String)]) -> Option<String> {
    if headers.is_empty() {
        return None;
    }
    let object: serde_json::Map<String, serde_json::Value> =
        headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    Some(serde_json::Value::Object(object).to_string())
}

/// Whether the table takes these jobs, as far as lengths go.
pub(super) fn check_lengths(jobs: &[NewJob]) -> Result<(), StoreError> {
    const REMEDY: &str = "Send a reference to it in place of the thing itself";
    jobs.iter().try_for_each(|job| {
        // PostgreSQL writes a space behind each colon and each comma.
        let headers =
            headers_json(&job.headers).map_or(0, |json| json.len() + 2 * job.headers.len() - 1);
        let parts = [
            ("queue", job.queue.len(), QUEUE_BYTES_MAX, "Choose a shorter name"),
            ("method", job.method.len(), METHOD_BYTES_MAX, "Write it as POST"),
            ("URL", job.url.len(), URL_BYTES_MAX, "Send the rest in the body"),
            ("headers", headers, HEADERS_BYTES_MAX, "Send the rest in the body"),
            ("body", job.body.as_ref().map_or(0, Vec::len), BODY_BYTES_MAX, REMEDY),
        ];
        match parts.into_iter().find(|(_, bytes, most, _)| bytes > most) {
            None => Ok(()),
            Some((what, bytes, most, remedy)) => {
                Err(StoreError::TooLong { id: job.id, what, bytes, most, remedy })
            }
        }
    })
}

/// Those of the jobs that run under the very claims that are held.
pub(super) fn those_held(
    found: Vec<(String, i64)>,
    held: &[(JobId, Token)],
) -> Result<Vec<(JobId, Token)>, Trouble> {
    let mut those = Vec::with_capacity(found.len());
    for (id, token) in found {
        those.push((job_id(&id)?, Token(token)));
    }
    those.retain(|job| held.contains(job));
    Ok(those)
}

/// The text without NUL characters, which PostgreSQL does not store.
pub(super) fn storable(text: Option<&str>) -> Option<String> {
    text.map(|text| text.replace('\0', "\u{fffd}"))
}

pub(super) fn json(value: &impl Serialize) -> Result<String, Trouble> {
    serde_json::to_string(value).map_err(|e| Trouble::corrupt(e.to_string()))
}

pub(super) fn period(millis: i64) -> Result<Period, Trouble> {
    u32::try_from(millis)
        .ok()
        .and_then(|millis| Period::from_millis(millis).ok())
        .ok_or_else(|| Trouble::corrupt(format!("a period of {millis} ms")))
}

/// A count as stored, which anyone may have written; negative ones are none.
fn count(stored: i64) -> u32 {
    u32::try_from(stored.max(0)).unwrap_or(u32::MAX)
}

fn status(stored: Option<i64>) -> Option<u16> {
    stored.and_then(|status| u16::try_from(status).ok())
}

pub(super) fn job_id(text: &str) -> Result<JobId, Trouble> {
    text.parse().map_err(|_| Trouble::corrupt(format!("the job id {text:?}")))
}

pub(super) fn node_id(text: &str) -> Result<NodeId, Trouble> {
    text.parse().map_err(|_| Trouble::corrupt(format!("the node id {text:?}")))
}

fn parsed<T: DeserializeOwned>(column: &str, text: &str) -> Result<T, Trouble> {
    serde_json::from_str(text).map_err(|e| Trouble::corrupt(format!("{column} = {text}: {e}")))
}
