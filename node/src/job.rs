//! What a job is, on its way from the person who enqueues it to the node that runs it and back. Decides
//! nothing about turns; the limits that a job must keep are here.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use turnwise_engine::{NodeId, ServerInstant, Token};
use uuid::Uuid;

use crate::batch::{After, BatchId, HELD_UNTIL_US};
pub use crate::keys::{ConcurrencyKey, KEY_BYTES_MAX, KeyError, UniqueKey};

/// The largest body of a request, in bytes.
pub const BODY_BYTES_MAX: usize = 256 * 1024;
/// The longest name of a queue in the table, in bytes.
pub const QUEUE_BYTES_MAX: usize = 128;
/// The longest method in the table, in bytes.
pub const METHOD_BYTES_MAX: usize = 32;
/// The longest path or URL, in bytes.
pub const URL_BYTES_MAX: usize = 8 * 1024;
/// The longest text of all headers in the table, a JSON object as PostgreSQL writes it, in bytes.
pub const HEADERS_BYTES_MAX: usize = 32 * 1024;
/// The longest window of a unique key: 366 days.
pub const UNIQUE_WINDOW_MAX: Duration = Duration::from_secs(366 * 86_400);
/// The most of an answer's body that is read, in bytes.
pub const ANSWER_BYTES_READ_MAX: usize = 64 * 1024;
/// The most of an answer's body that is kept, in bytes.
pub const ANSWER_BYTES_KEPT_MAX: usize = 8 * 1024;
/// How often a job may be given back without spending an attempt.
pub const HAND_BACKS_MAX: u32 = 10;
/// The queue of a job that names none.
pub const DEFAULT_QUEUE: &str = "default";
/// Attempts of a job that says nothing about it.
pub const DEFAULT_MAX_ATTEMPTS: u32 = 20;
/// The wait after the first failed attempt, before jitter, where neither the job nor its queue says otherwise.
pub const RETRY_WAIT: Duration = Duration::from_secs(15);
/// The longest wait between attempts, whatever the job, its queue, the jitter and the target say.
pub const RETRY_WAIT_MAX: Duration = Duration::from_secs(24 * 3_600);
/// The shortest wait that may be asked for.
pub const RETRY_WAIT_MIN: Duration = Duration::from_millis(1);
/// The shortest bound of how long a queue is held back when a target asks for it.
pub const SLOW_DOWN_MIN: Duration = Duration::from_secs(1);
/// The longest bound of how long a queue is held back when a target asks for it.
pub const SLOW_DOWN_MAX: Duration = Duration::from_secs(24 * 3_600);
/// The shortest time within which a heartbeat may be asked for: the farm looks once a period.
pub const HEARTBEAT_MIN: Duration = Duration::from_secs(1);
/// The longest time within which a heartbeat may be asked for.
pub const HEARTBEAT_MAX: Duration = Duration::from_secs(24 * 3_600);
/// The longest note of a progress, in bytes.
pub const PROGRESS_NOTE_BYTES_MAX: usize = 1_024;
/// How long a call may take, from the connect to the end of the answer, unless the job says otherwise.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(600);

/// A job's id. The target sees it as `webhook-id`, the same on every attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub Uuid);

impl JobId {
    /// A new id (UUID version 7, so that ids sort by their time).
    #[expect(
        clippy::disallowed_methods,
        reason = "who enqueues makes the id; a simulator makes its own"
    )]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl JobId {
    /// The id of the job that a schedule inserts for one of its times, in microseconds since the Unix epoch: the same whoever
    /// inserts it. (UUID version 7 of that time, whose random part is a hash of the name and the time: FNV-1a, 128 bits.)
    pub fn of_schedule(schedule: &str, at_us: i64) -> Self {
        let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        for byte in schedule.bytes().chain(at_us.to_be_bytes()) {
            hash =
                (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
        let millis = u64::try_from(at_us / 1_000).unwrap_or(0);
        let mut chance = [0; 10];
        chance.copy_from_slice(&hash.to_be_bytes()[6..]);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &chance).into_uuid())
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// When a job is due. Relative times are resolved against the server's clock, by the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At once.
    Now,
    /// So long from now.
    In(Duration),
    /// At an instant of server time.
    At(ServerInstant),
}

/// A job to be enqueued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    /// Its id, made beforehand so that an enqueue whose answer was lost can be repeated.
    pub id: JobId,
    /// Its lane.
    pub queue: String,
    /// The HTTP method, upper case.
    pub method: String,
    /// A path (`/jobs/tidy?id=7`) for the executing node's own target, or a full URL.
    pub url: String,
    /// Headers in the order in which they are sent.
    pub headers: Vec<(String, String)>,
    /// The request's body.
    pub body: Option<Vec<u8>>,
    /// When it is due.
    pub when: When,
    /// Higher is sooner: from -100 to 100. Each point counts as ten seconds of waiting.
    pub priority: i16,
    /// How many attempts it has, at least 1.
    pub max_attempts: u32,
    /// How long one attempt may take.
    pub deadline: Duration,
    /// What there may be one job of at a time.
    pub unique: Option<Unique>,
    /// How long it waits between attempts.
    pub retry: Retry,
    /// It may answer 202 and go on elsewhere; none: an answer of 202 is its end.
    pub asynchronous: Option<Asynchronous>,
    /// Of the jobs of its queue with the same key no more run at once than the queue says.
    pub concurrency_key: Option<ConcurrencyKey>,
    /// The job that has enqueued it, if one has. Whether there is such a job is not looked at.
    pub parent: Option<JobId>,
    /// The batch that it belongs to.
    pub batch: Option<BatchId>,
    /// It runs when this batch has ended, and not before; `when` is [`When::Now`] then.
    pub after: Option<After>,
}

impl NewJob {
    /// A job for `url` with the defaults.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            id: JobId::generate(),
            queue: DEFAULT_QUEUE.to_owned(),
            method: "POST".to_owned(),
            url: url.into(),
            headers: Vec::new(),
            body: None,
            when: When::Now,
            priority: 0,
            max_attempts: DEFAULT_MAX_ATTEMPTS,
            deadline: DEFAULT_DEADLINE,
            unique: None,
            retry: Retry::default(),
            asynchronous: None,
            concurrency_key: None,
            parent: None,
            batch: None,
            after: None,
        }
    }
}

/// How long a job waits between attempts, as far as it says so itself; what it does not say its queue does, and then
/// [`RETRY_WAIT`] and [`RETRY_WAIT_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retry {
    /// After the first failed attempt; each further wait is twice the one before. From [`RETRY_WAIT_MIN`] to
    /// [`RETRY_WAIT_MAX`].
    pub wait: Option<Duration>,
    /// No wait is longer. With the same as `wait` all are alike.
    pub wait_max: Option<Duration>,
}

/// What a job says that may go on after its call was answered with 202.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asynchronous {
    /// So long after the answer, or after the last heartbeat, the attempt is given up unless something is heard of it. From
    /// [`HEARTBEAT_MIN`] to [`HEARTBEAT_MAX`]. None: it need not be heard of before the deadline, which counts from the
    /// beginning of the attempt.
    pub heartbeat: Option<Duration>,
}

/// What few jobs say, as it stands in the table: nothing in it has been checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Particulars {
    /// The wait after the first failed attempt, in milliseconds: the job's, or else its queue's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_wait_ms: Option<i64>,
    /// The longest wait between attempts, in milliseconds: the job's, or else its queue's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_wait_max_ms: Option<i64>,
    /// Statuses after which a job of this queue is not tried again, separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permanent: Option<String>,
    /// Not zero: it may answer 202 and go on elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asynchronous: Option<i64>,
    /// How long it may go on without a heartbeat, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_ms: Option<i64>,
    /// The schedule that has inserted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The batch that it belongs to, a UUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    /// The status of the answer to the attempt before this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_status: Option<i64>,
    /// The job that has enqueued it, a UUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Its concurrency key. A claim does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency_key: Option<String>,
    /// For how long its queue is held back at most when the target asks for it, in milliseconds: what its queue says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_down_ms: Option<i64>,
}

/// Milliseconds of a time, as they are stored.
pub(crate) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

impl Particulars {
    /// What a job says when it is enqueued; none when that is nothing.
    pub fn of(job: &NewJob) -> Option<Self> {
        let particulars = Self {
            retry_wait_ms: job.retry.wait.map(millis),
            retry_wait_max_ms: job.retry.wait_max.map(millis),
            asynchronous: job.asynchronous.map(|_| 1),
            heartbeat_ms: job
                .asynchronous
                .and_then(|asynchronous| asynchronous.heartbeat)
                .map(millis),
            parent: job.parent.map(|parent| parent.to_string()),
            concurrency_key: job.concurrency_key.as_ref().map(|key| key.as_str().to_owned()),
            ..Self::default()
        };
        (particulars != Self::default()).then_some(particulars)
    }

    /// The batch that it belongs to.
    pub fn batch_id(&self) -> Option<BatchId> {
        self.batch.as_deref()?.parse().ok()
    }

    /// The job that has enqueued it.
    pub fn parent_id(&self) -> Option<JobId> {
        self.parent.as_deref()?.parse().ok()
    }

    /// Whether the job may answer 202 and go on elsewhere.
    pub fn is_asynchronous(&self) -> bool {
        self.asynchronous.is_some_and(|asynchronous| asynchronous != 0)
    }

    /// Within which time it must be heard of, when it says one.
    pub fn heartbeat(&self) -> Option<Duration> {
        let millis = u64::try_from(self.heartbeat_ms?).ok()?;
        Some(Duration::from_millis(millis).clamp(HEARTBEAT_MIN, HEARTBEAT_MAX))
    }

    /// The wait after the first failed attempt, and the longest. What is out of range is taken for the nearest that is in it.
    pub fn waits(&self) -> (Duration, Duration) {
        let wait = |millis: Option<i64>, otherwise| match millis {
            None => otherwise,
            Some(millis) => Duration::from_millis(u64::try_from(millis).unwrap_or(0))
                .clamp(RETRY_WAIT_MIN, RETRY_WAIT_MAX),
        };
        (wait(self.retry_wait_ms, RETRY_WAIT), wait(self.retry_wait_max_ms, RETRY_WAIT_MAX))
    }

    /// How long its queue is held back at most when the target asks for it; none: it is not.
    pub fn slow_down(&self) -> Option<Duration> {
        let millis = u64::try_from(self.slow_down_ms?).unwrap_or(0);
        Some(Duration::from_millis(millis).clamp(SLOW_DOWN_MIN, SLOW_DOWN_MAX))
    }

    /// Whether its queue says that an answer with this status is final.
    pub fn is_permanent(&self, status: u16) -> bool {
        let listed = self.permanent.as_deref().unwrap_or_default();
        listed.split(',').any(|listed| listed.trim().parse() == Ok(status))
    }
}

/// How far a running attempt has come, as it says itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// From 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// In words, at most [`PROGRESS_NOTE_BYTES_MAX`] bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What a job holds alone: from when it is enqueued until it has ended and the window has passed, whichever comes later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unique {
    /// Whatever names it, the same for all queues.
    pub key: UniqueKey,
    /// So long from the enqueue no other job gets the key, though this one may have ended; none: it is free with the end.
    /// At most [`UNIQUE_WINDOW_MAX`].
    pub window: Option<Duration>,
}

/// A job that this node has claimed: it must run it, or give it back. As it stands in the table, which
/// anyone may have written: nothing in it has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedJob {
    /// Its id.
    pub id: JobId,
    /// The claim that took it. With the node's id this is the fencing token.
    pub token: Token,
    /// Its lane.
    pub queue: String,
    /// The HTTP method.
    pub method: String,
    /// A path or a full URL.
    pub url: String,
    /// The headers column: a JSON object of strings, or whatever stands there.
    pub headers: Option<String>,
    /// The body; none when there is none or when it is over [`BODY_BYTES_MAX`], which `body_bytes` tells.
    /// Clones share it.
    pub body: Option<Bytes>,
    /// The length of the body as stored.
    pub body_bytes: u64,
    /// The number of this attempt, from 1.
    pub attempt: u32,
    /// How many attempts it has.
    pub max_attempts: u32,
    /// How often it was given back without spending an attempt.
    pub hand_backs: u32,
    /// How long one attempt may take, in milliseconds.
    pub deadline_ms: i64,
    /// When it was due.
    pub scheduled_at: ServerInstant,
    /// What few jobs say.
    pub particulars: Particulars,
}

/// What became of one attempt: what the node tells the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Which job.
    pub job: JobId,
    /// The claim that took it.
    pub token: Token,
    /// The number of the attempt.
    pub attempt: u32,
    /// What happens to the job.
    pub fate: JobFate,
    /// The status of the answer, if one came.
    pub status: Option<u16>,
    /// Why it failed, in words.
    pub error: Option<String>,
    /// The kept part of the answer's body, at most [`ANSWER_BYTES_KEPT_MAX`] bytes.
    pub answer: Option<Vec<u8>>,
    /// The batch of the job, which may end with it.
    pub batch: Option<BatchId>,
    /// Its target asks that less is sent, and its queue heeds that.
    pub slow_down: Option<SlowDown>,
}

/// A queue of which no job is to be claimed for a while, since a target asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowDown {
    /// Which one.
    pub queue: String,
    /// For how long, from when that is recorded.
    pub wait: Duration,
}

/// What happens to a job after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobFate {
    /// It is done.
    Succeeded,
    /// It runs again, not before this long from now.
    Retry(Duration),
    /// It is given up.
    Dead,
    /// It goes on elsewhere, and is heard of within this long, or else runs again.
    Await(Duration),
    /// It goes back as if this attempt had not been, and may run again at once. One that went back
    /// [`HAND_BACKS_MAX`] times already spends the attempt, and is dead when that was the last.
    HandBack,
}

/// What the store made of an [`End`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndOutcome {
    /// It is recorded.
    Ended,
    /// It had been recorded before: the answer to the first try was lost.
    AlreadyEnded,
    /// The job is not this claim's any more; nothing was changed.
    Stale,
}

/// The state of a job as people see it. Stored are only `queued, running, succeeded, dead, cancelled`; the
/// others are read off time and attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Queued, never tried, not due yet.
    Scheduled,
    /// Queued and due.
    Ready,
    /// A node runs it.
    Running,
    /// Done.
    Succeeded,
    /// Queued after a failed attempt, not due yet.
    Retrying,
    /// Given up.
    Dead,
    /// Cancelled by a person.
    Cancelled,
}

impl JobState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Scheduled,
        Self::Ready,
        Self::Running,
        Self::Succeeded,
        Self::Retrying,
        Self::Dead,
        Self::Cancelled,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Retrying => "retrying",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A job as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// Its lane.
    pub queue: String,
    /// The HTTP method.
    pub method: String,
    /// A path or a full URL.
    pub url: String,
    /// Its state, as of the server's clock at the reading.
    pub state: JobState,
    /// Its priority.
    pub priority: i16,
    /// Attempts begun, those given back not counted.
    pub attempt: u32,
    /// How many attempts it has.
    pub max_attempts: u32,
    /// When it is or was due.
    pub scheduled_at: ServerInstant,
    /// When it was enqueued.
    pub created_at: ServerInstant,
    /// When it ended.
    pub finished_at: Option<ServerInstant>,
    /// The node that runs it, or ran it last.
    pub node: Option<NodeId>,
    /// The status of the last answer.
    pub last_status: Option<u16>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// The unique key that it holds, or would if another asked for it now.
    pub unique_key: Option<String>,
    /// Its call was answered with 202 at this time, and it goes on elsewhere.
    pub awaits_since: Option<ServerInstant>,
    /// How far it has come, as it says itself.
    pub progress: Option<Progress>,
    /// What few jobs say, but for what its queue says.
    pub particulars: Particulars,
    /// The batch that it waits for.
    pub after: Option<BatchId>,
}

impl JobView {
    /// When it is or was due; none while it waits for a batch, and of one that was cancelled then: no time is known.
    pub fn due_at(&self) -> Option<ServerInstant> {
        (self.scheduled_at.as_micros() < HELD_UNTIL_US).then_some(self.scheduled_at)
    }

    /// Whether it waits for the batch [`JobView::after`] still.
    pub fn waits_for_batch(&self) -> bool {
        self.state == JobState::Scheduled && self.after.is_some() && self.due_at().is_none()
    }
}

/// One attempt as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptView {
    /// Its number; given-back ones share theirs with the one that follows.
    pub attempt: u32,
    /// Who ran it.
    pub node: NodeId,
    /// When it was claimed.
    pub started_at: ServerInstant,
    /// When its end was recorded; none while it runs.
    pub finished_at: Option<ServerInstant>,
    /// The status of the answer, if one came.
    pub status: Option<u16>,
    /// Why it failed.
    pub error: Option<String>,
    /// The kept part of the answer's body.
    pub answer: Option<Vec<u8>>,
}

/// The newest attempts at a job, oldest first; one that runs is the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Those that are shown.
    pub newest: Vec<AttemptView>,
    /// How many there are in all, those that are not shown and one that runs among them.
    pub in_all: u64,
}

impl std::ops::Deref for Attempts {
    type Target = [AttemptView];

    fn deref(&self) -> &[AttemptView] {
        &self.newest
    }
}

#[cfg(test)]
impl JobView {
    /// A job of which nothing else is known, for tests to say what they are about.
    pub(crate) fn of_a_test() -> Self {
        let at = ServerInstant::from_micros(1);
        Self {
            id: JobId(Uuid::from_u128(7)),
            queue: "mail".to_owned(),
            method: "POST".to_owned(),
            url: "/x".to_owned(),
            state: JobState::Ready,
            priority: 0,
            attempt: 0,
            max_attempts: DEFAULT_MAX_ATTEMPTS,
            scheduled_at: at,
            created_at: at,
            finished_at: None,
            node: None,
            last_status: None,
            last_error: None,
            unique_key: None,
            awaits_since: None,
            progress: None,
            particulars: Particulars::default(),
            after: None,
        }
    }
}

#[cfg(test)]
impl AttemptView {
    /// The first attempt at a job, which runs on this node, for tests to say what they are about.
    pub(crate) fn of_a_test(node: NodeId) -> Self {
        let started_at = ServerInstant::from_micros(1);
        Self {
            attempt: 1,
            node,
            started_at,
            finished_at: None,
            status: None,
            error: None,
            answer: None,
        }
    }
}

/// Which jobs to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Only in this state.
    pub state: Option<JobState>,
    /// Only of this lane.
    pub queue: Option<String>,
    /// Only of this batch.
    pub batch: Option<BatchId>,
    /// At most so many, newest first.
    pub limit: u32,
    /// Only those with an id below this one: the next page.
    pub before: Option<JobId>,
    /// Only those with this id or one above it: how far to look.
    pub from: Option<JobId>,
}
