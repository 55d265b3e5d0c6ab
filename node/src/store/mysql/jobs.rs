//! What apps and people ask and order of jobs: enqueue, list, show, retry, cancel. Decides what a job may be ordered to
//! become, from what was read under its lock.

use std::collections::BTreeMap;

use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{FromRow, Row};
use turnwise_engine::{NodeId, Token};

use super::batches::{self, Begin, Named};
use super::callbacks::cancelled_elsewhere;
use super::literals::{self, bytes, bytes_or_null, instant, number_or_null, text, text_or_null};
use super::session::Session;
use super::{MySqlStore, held_until, inserts, micros_of, rows_of};
use crate::batch::HELD_UNTIL_US;
use crate::job::{Attempts, JobFilter, JobId, JobState, JobView, NewJob, Particulars, When};
use crate::store::connections::Lent;
use crate::store::errors::Trouble;
use crate::store::rows::{self, AttemptColumns, JobColumns, headers_json, micros};
use crate::store::servers::Line;
use crate::store::{ATTEMPTS_SHOWN, InTransactionError, StoreError};

/// Whether a job waits for a batch.
macro_rules! is_held {
    () => {
        concat!("j.scheduled_at = ", held_until!(), " AND j.state = 'queued'")
    };
}

/// What few jobs say, as a list of jobs has it; NULL: nothing.
const SELDOM_SAID: &str = concat!(
    "CONVERT(IF(COALESCE(j.unique_key, j.awaits_since, j.progress, j.progress_note, j.retry_wait_ms,
        j.retry_wait_max_ms, j.asynchronous, j.schedule, j.batch, j.concurrency_key, j.parent) IS NULL AND NOT (",
    is_held!(),
    "), NULL,
    JSON_OBJECT('unique_key', CONVERT(j.unique_key USING utf8mb4), 'awaits_since', ",
    micros_of!("IF(j.given_up = 'elsewhere', j.awaits_since, NULL)"),
    ", 'progress', JSON_OBJECT('percent', GREATEST(LEAST(j.progress, 100), 0), 'note', j.progress_note),
        'retry_wait_ms', j.retry_wait_ms, 'retry_wait_max_ms', j.retry_wait_max_ms, 'asynchronous', j.asynchronous,
        'heartbeat_ms', j.heartbeat_ms, 'schedule', j.schedule, 'batch', j.batch,
        'concurrency_key', CONVERT(j.concurrency_key USING utf8mb4), 'parent', j.parent,
        'after', IF(",
    is_held!(),
    ", (SELECT w.batch FROM turnwise_waits w WHERE w.job = j.id), NULL))) USING utf8mb4)"
);

/// The jobs `j` that run, on a node or elsewhere.
const RUNNING: &str = "(SELECT id FROM turnwise_jobs FORCE INDEX (turnwise_jobs_running) WHERE state = 'running'
        UNION ALL SELECT id FROM turnwise_jobs FORCE INDEX (turnwise_jobs_given_up) WHERE given_up = 'elsewhere') r
    STRAIGHT_JOIN turnwise_jobs j FORCE INDEX (PRIMARY) ON j.id = r.id";

/// How often jobs are inserted at most when the server undoes it and says that it may pass.
pub(super) const ENQUEUE_TRIES: u32 = 10;

impl MySqlStore {
    pub(super) async fn enqueue_jobs(&self, jobs: &[NewJob]) -> Result<Vec<JobId>, StoreError> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        rows::check_lengths(jobs)?;
        // Two who insert the same key at once can each hold a lock that the other waits for, whatever the order: InnoDB then
        // undoes one of them.
        let mut tries = 1;
        loop {
            match self.enqueue_once(jobs).await {
                Err(error) if tries < ENQUEUE_TRIES && was_undone(&error) => {
                    tries += 1;
                }
                done => return done,
            }
        }
    }

    async fn enqueue_once(&self, jobs: &[NewJob]) -> Result<Vec<JobId>, StoreError> {
        let clock = format!("SELECT {}", self.now());
        let (session, found) = self.begin(self.session().await?, &clock).await?;
        let now: i64 = self.column(self.one(&found)?, 0)?;
        self.insert_jobs(session, jobs, now).await
    }

    /// End a transaction by inserting jobs, enqueued at `now`; their ids. Where their batches do not do, it is undone.
    pub(super) async fn insert_jobs(
        &self,
        mut session: Lent<Line<Session>>,
        jobs: &[NewJob],
        now: i64,
    ) -> Result<Vec<JobId>, StoreError> {
        let named = {
            let Line { session, bond } = &mut *session;
            bond.carry(batches::named(&mut session.connection, jobs)).await
        };
        let named = match named {
            Err(Trouble::Batch(refusal)) => {
                self.roll_back(session).await;
                return Err(StoreError::Batch(refusal));
            }
            named => named.map_err(|trouble| self.trouble(trouble))?,
        };
        let Inserts { mut statements, holders } = Inserts::of(jobs, &named, now);
        let mut found = Vec::new();
        if let Some(holders) = holders {
            self.write(&mut session, std::mem::take(&mut statements)).await?;
            found = self.ask(&mut session, holders).await?;
        }
        self.commit(session, statements).await?;
        ids(jobs, &found).map_err(|trouble| self.trouble(trouble))
    }

    pub(super) async fn list_jobs(&self, filter: &JobFilter) -> Result<Vec<JobView>, StoreError> {
        let mut which = state_condition(filter.state).to_owned();
        if let Some(queue) = &filter.queue {
            which.push_str(&format!(" AND j.queue = {}", text(queue)));
        }
        if let Some(batch) = filter.batch {
            which.push_str(&format!(" AND j.batch = '{batch}'{}", of_batch(filter.state)));
        }
        if let Some(before) = filter.before {
            which.push_str(&format!(" AND j.id < '{before}'"));
        }
        if let Some(from) = filter.from {
            which.push_str(&format!(" AND j.id >= '{from}'"));
        }
        // Two indexes begin with that column; the other is in the order of the ends.
        let by = match filter.state {
            _ if filter.batch.is_some() && filter.from.is_none() => {
                "turnwise_jobs j FORCE INDEX (turnwise_jobs_batch)"
            }
            Some(JobState::Dead | JobState::Cancelled) => {
                "turnwise_jobs j FORCE INDEX (turnwise_jobs_given_up)"
            }
            // By the index of each kind: they are few.
            Some(JobState::Running) if filter.from.is_none() => RUNNING,
            _ => "turnwise_jobs j",
        };
        let found = self.run(self.views(by, &which, filter.limit)).await?;
        let view = |row: &MySqlRow| rows::job_view(JobColumns::from_row(row)?);
        let id = |row: &MySqlRow| row.try_get(0).ok();
        Ok(rows::readable_views(found.iter().map(|row| (id(row), view(row)))))
    }

    /// Jobs for people, the newest first.
    fn views(&self, by: &str, which: &str, limit: u32) -> String {
        format!(
            "SELECT j.id, j.queue, j.method, j.url, j.state, j.priority, j.attempt, j.max_attempts, {}, {}, {},
                j.node, j.last_status, j.last_error, {}, {}
             FROM (SELECT {} AS now LIMIT 1) c, {by}
             WHERE {which} ORDER BY j.id DESC LIMIT {limit}",
            micros_of!("j.scheduled_at"),
            micros_of!("j.created_at"),
            micros_of!("j.finished_at"),
            micros_of!("c.now"),
            SELDOM_SAID,
            self.inner.clock,
        )
    }

    pub(super) async fn show_job(
        &self,
        id: JobId,
    ) -> Result<Option<(JobView, Attempts)>, StoreError> {
        let found = self.run(self.views("turnwise_jobs j", &format!("j.id = '{id}'"), 1)).await?;
        let Some(row) = found.first() else { return Ok(None) };
        let job = JobColumns::from_row(row).map_err(Trouble::from).and_then(rows::job_view);
        let job = job.map_err(|trouble| self.trouble(trouble))?;
        let attempts = self.run(attempts(id)).await?;
        let attempts = rows::attempts(attempts.iter().map(AttemptColumns::from_row));
        let attempts = attempts.map_err(|trouble| self.trouble(trouble))?;
        Ok(Some(rows::shown(job, attempts)))
    }

    pub(super) async fn retry_job(&self, id: JobId) -> Result<Option<bool>, StoreError> {
        // One that goes on elsewhere is in none of these states.
        self.alter_job(id, &["queued", "dead", "cancelled"], |which, now, _| retries(which, now))
            .await
    }

    pub(super) async fn cancelled_jobs(
        &self,
        node: NodeId,
        held: &[(JobId, Token)],
    ) -> Result<Vec<(JobId, Token)>, StoreError> {
        if held.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<String> = held.iter().map(|(job, _)| format!("'{job}'")).collect();
        let found = self.run(format!(
            "SELECT id, token FROM turnwise_jobs FORCE INDEX (PRIMARY)
             WHERE id IN ({}) AND state = 'running' AND node = {} AND cancel_requested",
            ids.join(", "),
            literals::node(node)
        ));
        let found = found.await?;
        let found: Result<Vec<_>, _> = found.iter().map(<(String, i64)>::from_row).collect();
        found
            .map_err(Trouble::from)
            .and_then(|found| rows::those_held(found, held))
            .map_err(|trouble| self.trouble(trouble))
    }

    pub(super) async fn cancel_job(&self, id: JobId) -> Result<Option<bool>, StoreError> {
        self.alter_job(id, &["queued", "running", "elsewhere"], cancels).await
    }

    /// Alter one job, unless its state forbids it; whether it did. None when there is no such job.
    async fn alter_job(
        &self,
        id: JobId,
        allowed: &[&str],
        writes: impl Fn(&str, &str, bool) -> Vec<String> + Send,
    ) -> Result<Option<bool>, StoreError> {
        let read = format!(
            "SELECT {}, {} FROM turnwise_jobs j WHERE j.id = '{id}' FOR UPDATE",
            STATE,
            self.now()
        );
        let (session, found) = self.begin(self.session().await?, &read).await?;
        let Some(row) = found.first() else {
            self.commit(session, Vec::new()).await?;
            return Ok(None);
        };
        let state: String = self.column(row, 0)?;
        let now = instant(self.column(row, 1)?);
        let allowed = allowed.contains(&state.as_str());
        let writes = match allowed {
            true => writes(&format!("id = '{id}'"), &now, state == ELSEWHERE),
            false => Vec::new(),
        };
        self.commit(session, writes).await?;
        self.inner.lanes.forget();
        Ok(Some(allowed))
    }
}

/// Which jobs, in a table `j`, hold an attempt in their own row: one that runs, or that succeeded. An older binary has
/// written a row for the latter.
pub(super) const HOLDS_AN_ATTEMPT: &str = "(j.state = 'running'
    OR j.state = 'succeeded' AND j.node IS NOT NULL AND j.started_at IS NOT NULL AND j.finished_at IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM turnwise_attempts o
            WHERE o.job = j.id AND o.node = j.node AND o.token = j.token))";

/// Reads the newest attempts at a job, oldest first.
fn attempts(id: JobId) -> String {
    let (started, finished) = (micros_of!("started_at"), micros_of!("finished_at"));
    format!(
        "SELECT a.attempt, a.node, a.started, a.finished, a.status, a.error, a.answer, a.ended
         FROM (
            (SELECT attempt, node, {started} AS started, {finished} AS finished, status, error, answer,
                (SELECT COUNT(*) FROM turnwise_attempts WHERE job = '{id}') AS ended, FALSE AS is_the_last
             FROM turnwise_attempts WHERE job = '{id}'
             ORDER BY attempt DESC, finished_at DESC LIMIT {ATTEMPTS_SHOWN})
            UNION ALL
            SELECT attempt, node, {started}, IF(state = 'running', NULL, {finished}),
                IF(state = 'running', NULL, last_status), IF(state = 'running', NULL, last_error),
                IF(state = 'running', NULL, answer),
                (SELECT COUNT(*) FROM turnwise_attempts WHERE job = '{id}') + (state = 'succeeded'), TRUE
            FROM turnwise_jobs j WHERE id = '{id}' AND {HOLDS_AN_ATTEMPT}) a
         ORDER BY a.is_the_last, a.attempt, a.finished"
    )
}

/// The state of a job that is to be altered: of one that goes on elsewhere a word of its own.
pub(super) const STATE: &str = "COALESCE(j.given_up, j.state)";

/// That word.
pub(super) const ELSEWHERE: &str = "elsewhere";

/// What has these jobs, which are locked, run now.
pub(super) fn retries(which: &str, now: &str) -> Vec<String> {
    // By their keys alone: a plan that reads others would lock them.
    vec![format!(
        "UPDATE turnwise_jobs FORCE INDEX (PRIMARY) SET
            state = 'queued', scheduled_at = LEAST(scheduled_at, {now}), queued_at = {now},
            max_attempts = GREATEST(max_attempts, attempt + 1),
            hand_backs = 0, cancel_requested = 0, finished_at = NULL, awaits_since = NULL
         WHERE {which}"
    )]
}

/// What cancels these jobs, which are locked. The columns are set one after the other, each by what those before it have
/// become.
pub(super) fn cancels(which: &str, now: &str, any_elsewhere: bool) -> Vec<String> {
    let told = any_elsewhere.then(|| cancelled_elsewhere(which, now));
    let cancel = format!(
        "UPDATE turnwise_jobs FORCE INDEX (PRIMARY) SET
            finished_at = CASE WHEN state = 'queued' THEN {now} END,
            state = CASE WHEN state = 'queued' THEN 'cancelled' ELSE state END,
            cancel_requested = 1
         WHERE {which}"
    );
    told.into_iter().flatten().chain([cancel]).collect()
}

/// Whether the server undid a transaction for another one's sake: a deadlock, or a lock that was waited for for too long.
pub(super) fn was_undone(error: &StoreError) -> bool {
    match error {
        StoreError::Failed { may_pass, .. } => *may_pass,
        StoreError::Unreachable { reason, .. } => reason.contains("(1205)"),
        _ => false,
    }
}

/// The columns of jobs that are enqueued.
macro_rules! new_rows {
    ($of_batches:literal) => {
        concat!(
            "INSERT INTO turnwise_jobs
                (id, queue, method, url, headers, body, priority, scheduled_at, created_at,
                queued_at, max_attempts, deadline_ms, unique_key, unique_until, retry_wait_ms, retry_wait_max_ms,
                asynchronous, heartbeat_ms, concurrency_key, parent",
            $of_batches,
            ") VALUES "
        )
    };
}

/// What inserts jobs none of which names a batch.
const NEW_ROWS: &str = new_rows!("");
/// The same where any does.
const NEW_ROWS_OF_BATCHES: &str = new_rows!(", batch, state, finished_at, last_error");

/// What enqueues jobs.
struct Inserts {
    statements: Vec<String>,
    /// Reads who holds their keys, when they have any. What was passed over is locked by then: it holds its key until the
    /// commit.
    holders: Option<String>,
}

impl Inserts {
    fn of(jobs: &[NewJob], named: &Named, now: i64) -> Self {
        // Those with a key in the order of their keys, so that two who enqueue the same keys wait for each other one way
        // round.
        let mut rows: Vec<&NewJob> = jobs.iter().collect();
        rows.sort_by_key(|job| job.unique.as_ref().map(|unique| &unique.key));
        let keyed: Vec<&NewJob> = rows.iter().copied().filter(|job| job.unique.is_some()).collect();
        let mut statements: Vec<String> = keyed.iter().filter_map(|job| free(job, now)).collect();
        let insert = match named.is_empty() {
            true => NEW_ROWS,
            false => NEW_ROWS_OF_BATCHES,
        };
        statements.extend(inserts(
            insert,
            rows.into_iter().map(|job| new_row(job, named, now)),
            // An id or a key that exists already, and no other error, is passed over.
            " ON DUPLICATE KEY UPDATE id = turnwise_jobs.id",
        ));
        statements.append(&mut named.waits(jobs, now));
        let holders = (!keyed.is_empty()).then(|| holders_of(&keyed));
        Self { statements, holders }
    }
}

/// The ids of jobs that were enqueued, or of those which hold their keys: the rows that were found.
pub(super) fn ids(jobs: &[NewJob], found: &[MySqlRow]) -> Result<Vec<JobId>, Trouble> {
    let mut holders: BTreeMap<JobId, Option<Vec<u8>>> = BTreeMap::new();
    for row in found {
        let id: String = row.try_get(0)?;
        holders.insert(rows::job_id(&id)?, row.try_get(1)?);
    }
    let of_key: BTreeMap<&[u8], JobId> =
        holders.iter().filter_map(|(id, key)| Some((key.as_deref()?, *id))).collect();
    let id = |job: &NewJob| match &job.unique {
        Some(unique) if !holders.contains_key(&job.id) => {
            of_key.get(unique.key.as_str().as_bytes()).copied().unwrap_or(job.id)
        }
        _ => job.id,
    };
    Ok(jobs.iter().map(id).collect())
}

/// Enqueue jobs by a connection of the app's, in its transaction; their ids, as [`Store::enqueue`](crate::store::Store::enqueue)
/// has it.
///
/// # Errors
///
/// A part of a job is too long, or its batch does not do, and nothing was written; or what the database said.
pub async fn enqueue_in(
    connection: &mut MySqlConnection,
    jobs: &[NewJob],
) -> Result<Vec<JobId>, InTransactionError> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    rows::check_lengths(jobs)?;
    let clock = concat!("SELECT ", micros_of!("UTC_TIMESTAMP(6)"));
    let now: i64 = sqlx::query_scalar(clock).fetch_one(&mut *connection).await?;
    let named = batches::named(connection, jobs).await?;
    let Inserts { statements, holders } = Inserts::of(jobs, &named, now);
    for statement in statements {
        rows_of(connection, statement).await?;
    }
    let found = match holders {
        Some(holders) => rows_of(connection, holders).await?,
        None => Vec::new(),
    };
    Ok(ids(jobs, &found)?)
}

/// The values of a new job's row, enqueued at `now`, in microseconds.
fn new_row(job: &NewJob, named: &Named, now: i64) -> String {
    let begin = job.after.as_ref().map_or(Begin::Due, |after| named.begin(after));
    let scheduled_at = match job.when {
        _ if begin == Begin::Held => HELD_UNTIL_US,
        When::Now => now,
        When::In(wait) => now.saturating_add(micros(wait)),
        When::At(instant) => instant.as_micros(),
    };
    let window = job.unique.as_ref().and_then(|unique| unique.window);
    let until = window.map(|window| instant(now.saturating_add(micros(window))));
    let now = instant(now);
    let key = job.unique.as_ref().map(|unique| unique.key.as_str().as_bytes());
    let said = Particulars::of(job).unwrap_or_default();
    let of_batches = match (named.is_empty(), begin) {
        (true, _) => String::new(),
        (false, Begin::Held | Begin::Due) => {
            format!(", {}, 'queued', NULL, NULL", batch_or_null(job))
        }
        (false, Begin::InVain(error)) => {
            format!(", {}, 'cancelled', {now}, {}", batch_or_null(job), text(error))
        }
    };
    format!(
        "('{}', {}, {}, {}, {}, {}, {}, {}, {now}, {now}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}{of_batches})",
        job.id,
        text(&job.queue),
        text(&job.method),
        text(&job.url),
        text_or_null(headers_json(&job.headers).as_deref()),
        bytes_or_null(job.body.as_deref()),
        job.priority,
        instant(scheduled_at),
        job.max_attempts,
        i64::try_from(job.deadline.as_millis()).unwrap_or(i64::MAX).max(1),
        bytes_or_null(key),
        until.unwrap_or_else(|| "NULL".to_owned()),
        number_or_null(said.retry_wait_ms),
        number_or_null(said.retry_wait_max_ms),
        number_or_null(said.asynchronous),
        number_or_null(said.heartbeat_ms),
        bytes_or_null(said.concurrency_key.as_deref().map(str::as_bytes)),
        text_or_null(said.parent.as_deref()),
    )
}

/// The batch of a new job, or none.
fn batch_or_null(job: &NewJob) -> String {
    job.batch.map_or_else(|| "NULL".to_owned(), |batch| format!("'{batch}'"))
}

/// What takes the key of a new job away from a job that has ended and whose window has passed.
fn free(job: &NewJob, now: i64) -> Option<String> {
    let key = bytes(job.unique.as_ref()?.key.as_str().as_bytes());
    Some(format!(
        "UPDATE turnwise_jobs FORCE INDEX (turnwise_jobs_unique_key)
         SET unique_key = NULL, unique_until = NULL
         WHERE unique_key = {key} AND id <> '{}' AND state IN ('succeeded', 'dead', 'cancelled')
            AND (unique_until IS NULL OR unique_until <= {})",
        job.id,
        instant(now)
    ))
}

/// Reads the jobs that there are with the ids or the keys of these, at least one.
pub(super) fn there(jobs: &[NewJob]) -> String {
    let keyed: Vec<&NewJob> = jobs.iter().filter(|job| job.unique.is_some()).collect();
    let ids: Vec<String> = jobs.iter().map(|job| format!("'{}'", job.id)).collect();
    let by_id = format!(
        "SELECT id, unique_key FROM turnwise_jobs FORCE INDEX (PRIMARY) WHERE id IN ({})",
        ids.join(", ")
    );
    match keyed.is_empty() {
        true => by_id,
        false => format!("{by_id} UNION {}", holders_of(&keyed)),
    }
}

/// Reads the jobs that there are with these ids or these keys.
fn holders_of(keyed: &[&NewJob]) -> String {
    let ids: Vec<String> = keyed.iter().map(|job| format!("'{}'", job.id)).collect();
    let keys = keyed.iter().filter_map(|job| job.unique.as_ref());
    let keys: Vec<String> = keys.map(|unique| bytes(unique.key.as_str().as_bytes())).collect();
    format!(
        "SELECT id, unique_key FROM turnwise_jobs WHERE id IN ({})
         UNION SELECT id, unique_key FROM turnwise_jobs WHERE unique_key IN ({})",
        ids.join(", "),
        keys.join(", ")
    )
}

/// What the index of batches can tell of a state.
fn of_batch(state: Option<JobState>) -> &'static str {
    match state {
        None => "",
        Some(JobState::Ready | JobState::Scheduled | JobState::Retrying) => {
            " AND j.batch_state = 'queued'"
        }
        // Those that go on elsewhere stand as queued.
        Some(JobState::Running) => " AND j.batch_state IN ('queued', 'running')",
        Some(JobState::Succeeded) => " AND j.batch_state = 'succeeded'",
        Some(JobState::Dead) => " AND j.batch_state = 'dead'",
        Some(JobState::Cancelled) => " AND j.batch_state = 'cancelled'",
    }
}

fn state_condition(state: Option<JobState>) -> &'static str {
    match state {
        None => "TRUE",
        Some(JobState::Ready) => {
            "j.state = 'queued' AND j.scheduled_at <= c.now AND j.given_up IS NULL"
        }
        Some(JobState::Scheduled) => {
            "j.state = 'queued' AND j.scheduled_at > c.now AND j.attempt = 0"
        }
        Some(JobState::Retrying) => {
            "j.state = 'queued' AND j.scheduled_at > c.now AND j.attempt > 0 AND j.given_up IS NULL"
        }
        Some(JobState::Running) => "(j.state = 'running' OR j.given_up = 'elsewhere')",
        Some(JobState::Succeeded) => "j.state = 'succeeded'",
        Some(JobState::Dead) => "j.given_up = 'dead'",
        Some(JobState::Cancelled) => "j.given_up = 'cancelled'",
    }
}
