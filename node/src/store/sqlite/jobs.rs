//! What apps and people ask and order of jobs: enqueue, list, show, retry, cancel. Decides what a job may be ordered to
//! become. Each function runs inside a transaction of the caller's.

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite};
use turnwise_engine::{NodeId, ServerInstant, Token};

use super::batches::{self, held_until};
use super::callbacks::goes_on_elsewhere;
use super::clock::{ServerClock, SystemServerClock};
use super::text;
use crate::job::{
    Attempts, JobFilter, JobId, JobState, JobView, NewJob, Particulars, UniqueKey, When,
};
use crate::sabotage::{Bug, Sabotage, Sound};
use crate::store::ends::CANCELLED_ELSEWHERE;
use crate::store::errors::Trouble;
use crate::store::rows::{self, AttemptColumns, headers_json, json, micros};
use crate::store::{ATTEMPTS_SHOWN, InTransactionError};

/// Which jobs, in a table `j`, hold an attempt in their own row: one that runs, or that succeeded. An older binary has
/// written a row for the latter.
macro_rules! holds_an_attempt {
    () => {
        "(j.state = 'running'
            OR j.state = 'succeeded' AND j.node IS NOT NULL AND j.started_at IS NOT NULL
                AND j.finished_at IS NOT NULL
                AND NOT EXISTS (SELECT 1 FROM turnwise_attempts o
                    WHERE o.job = j.id AND o.node = j.node AND o.token = j.token))"
    };
}
pub(super) use holds_an_attempt;

pub(super) async fn enqueue<B: Sabotage>(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    jobs: &[NewJob],
) -> Result<Vec<JobId>, Trouble> {
    let now = at.as_micros();
    let mut ids = Vec::with_capacity(jobs.len());
    for job in jobs {
        let scheduled_at = match job.when {
            When::Now => now,
            When::In(wait) => now.saturating_add(micros(wait)),
            When::At(instant) => instant.as_micros(),
        };
        if let Some(unique) = &job.unique {
            free(connection, now, job.id, &unique.key).await?;
        }
        let unique = job.unique.as_ref().filter(|_| !B::plants(Bug::UniqueKeyIsForgotten));
        let said = Particulars::of(job).unwrap_or_default();
        let waited = batches::check(connection, job).await?;
        let done = sqlx::query(
            "INSERT INTO turnwise_jobs
                (id, queue, method, url, headers, body, priority, scheduled_at, created_at, queued_at,
                max_attempts, deadline_ms, unique_key, unique_until, retry_wait_ms, retry_wait_max_ms, asynchronous,
                heartbeat_ms, batch, concurrency_key, parent)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)
             ON CONFLICT DO NOTHING",
        )
        .bind(job.id.to_string())
        .bind(&job.queue)
        .bind(&job.method)
        .bind(&job.url)
        .bind(headers_json(&job.headers))
        .bind(job.body.as_deref())
        .bind(job.priority)
        .bind(scheduled_at)
        .bind(now)
        .bind(i64::from(job.max_attempts))
        .bind(i64::try_from(job.deadline.as_millis()).unwrap_or(i64::MAX).max(1))
        .bind(unique.map(|unique| unique.key.as_str()))
        .bind(unique.and_then(|unique| unique.window).map(|window| now.saturating_add(micros(window))))
        .bind(said.retry_wait_ms)
        .bind(said.retry_wait_max_ms)
        .bind(said.asynchronous)
        .bind(said.heartbeat_ms)
        .bind(job.batch.map(|batch| batch.to_string()))
        .bind(said.concurrency_key)
        .bind(said.parent)
        .execute(&mut *connection)
        .await?;
        if let Some((after, state)) = job.after.zip(waited)
            && done.rows_affected() > 0
        {
            batches::put_off::<B>(connection, at, job.id, after, state).await?;
        }
        let holder = match unique {
            Some(_) if done.rows_affected() == 0 => there(connection, job).await?,
            _ => None,
        };
        ids.push(holder.unwrap_or(job.id));
    }
    Ok(ids)
}

/// Enqueue jobs by a connection of the app's, in its transaction; their ids, as [`Store::enqueue`](crate::store::Store::enqueue)
/// has it.
///
/// # Errors
///
/// A part of a job is too long, and nothing was sent; or what the database said.
pub async fn enqueue_in(
    connection: &mut SqliteConnection,
    jobs: &[NewJob],
) -> Result<Vec<JobId>, InTransactionError> {
    rows::check_lengths(jobs)?;
    Ok(enqueue::<Sound>(connection, SystemServerClock.now(), jobs).await?)
}

/// Take the key away from a job that has ended and whose window has passed.
async fn free(
    connection: &mut SqliteConnection,
    now: i64,
    job: JobId,
    key: &UniqueKey,
) -> Result<(), Trouble> {
    sqlx::query(
        "UPDATE turnwise_jobs SET unique_key = NULL, unique_until = NULL
         WHERE unique_key = ?1 AND id <> ?2 AND state IN ('succeeded', 'dead', 'cancelled')
            AND (unique_until IS NULL OR unique_until <= ?3)",
    )
    .bind(key.as_str())
    .bind(job.to_string())
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

/// The job with the id of this one, or that which holds its key.
pub(super) async fn there(
    connection: &mut SqliteConnection,
    job: &NewJob,
) -> Result<Option<JobId>, Trouble> {
    let id: Option<String> = sqlx::query_scalar(
        "SELECT id FROM turnwise_jobs WHERE id = ?1 OR unique_key = ?2 ORDER BY id <> ?1 LIMIT 1",
    )
    .bind(job.id.to_string())
    .bind(job.unique.as_ref().map(|unique| unique.key.as_str()))
    .fetch_optional(connection)
    .await?;
    id.map(|id| rows::job_id(&id)).transpose()
}

/// The columns of a job for people; the last but one is the clock, bound first.
const JOB_COLUMNS: &str = concat!(
    "SELECT id, queue, method, url, state, priority, attempt, max_attempts,
    scheduled_at, created_at, finished_at, node, last_status, last_error, c.now,
    CASE WHEN coalesce(unique_key, awaits_since, progress, progress_note, retry_wait_ms, retry_wait_max_ms, asynchronous,
            schedule, batch, concurrency_key, parent) IS NOT NULL OR scheduled_at = ",
    held_until!(),
    "
        THEN json_object('unique_key', unique_key, 'awaits_since', iif(awaits_since >= started_at, awaits_since, NULL),
            'progress', json_object('percent', progress, 'note', progress_note),
            'retry_wait_ms', retry_wait_ms, 'retry_wait_max_ms', retry_wait_max_ms, 'asynchronous', asynchronous,
            'heartbeat_ms', heartbeat_ms, 'schedule', schedule, 'batch', batch, 'concurrency_key', concurrency_key, 'parent', parent,
            'after', iif(state = 'queued' AND scheduled_at = ",
    held_until!(),
    ",
                (SELECT w.batch FROM turnwise_waits w WHERE w.job = id), NULL)) END
    FROM turnwise_jobs, (SELECT "
);

fn job_view(row: &SqliteRow) -> Result<JobView, Trouble> {
    rows::job_view((
        text(row, 0)?.unwrap_or_default(),
        text(row, 1)?.unwrap_or_default(),
        text(row, 2)?.unwrap_or_default(),
        text(row, 3)?.unwrap_or_default(),
        text(row, 4)?.unwrap_or_default(),
        row.try_get(5)?,
        row.try_get(6)?,
        row.try_get(7)?,
        row.try_get(8)?,
        row.try_get(9)?,
        row.try_get(10)?,
        text(row, 11)?,
        row.try_get(12)?,
        text(row, 13)?,
        row.try_get(14)?,
        text(row, 15)?,
    ))
}

pub(super) async fn list(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    filter: &JobFilter,
) -> Result<Vec<JobView>, Trouble> {
    let mut query = QueryBuilder::<Sqlite>::new(JOB_COLUMNS);
    query.push_bind(at.as_micros()).push(" AS now) c WHERE ");
    let state = state_condition(filter.state);
    // The ids say where to look. (The sign keeps the state out of the choice of an index: that of a queue's jobs would be
    // read to its end.)
    query
        .push(if filter.from.is_some() && state.starts_with("state") { "+" } else { "" })
        .push(state);
    if let Some(queue) = &filter.queue {
        query.push(" AND queue = ").push_bind(queue);
    }
    if let Some(batch) = filter.batch {
        query.push(" AND batch = ").push_bind(batch.to_string());
    }
    if let Some(before) = filter.before {
        query.push(" AND id < ").push_bind(before.to_string());
    }
    if let Some(from) = filter.from {
        query.push(" AND id >= ").push_bind(from.to_string());
    }
    query.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(filter.limit));
    let found = query.build().fetch_all(connection).await?;
    let id = |row: &SqliteRow| text(row, 0).ok().flatten();
    Ok(rows::readable_views(found.iter().map(|row| (id(row), job_view(row)))))
}

pub(super) async fn show(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    id: JobId,
) -> Result<Option<(JobView, Attempts)>, Trouble> {
    let mut query = QueryBuilder::<Sqlite>::new(JOB_COLUMNS);
    query.push_bind(at.as_micros()).push(" AS now) c WHERE id = ").push_bind(id.to_string());
    let Some(row) = query.build().fetch_optional(&mut *connection).await? else { return Ok(None) };
    let job = job_view(&row)?;
    let attempts: Vec<AttemptColumns> = sqlx::query_as(
        concat!(
            "SELECT attempt, node, started_at, finished_at, status, error, answer, ended
             FROM (
                SELECT * FROM (
                    SELECT attempt, node, started_at, finished_at, status, error, answer,
                        (SELECT count(*) FROM turnwise_attempts WHERE job = ?1) AS ended, 0 AS is_the_last
                    FROM turnwise_attempts WHERE job = ?1
                    ORDER BY attempt DESC, finished_at DESC LIMIT ?2)
                UNION ALL
                SELECT attempt, node, started_at, iif(state = 'running', NULL, finished_at),
                    iif(state = 'running', NULL, last_status), iif(state = 'running', NULL, last_error),
                    iif(state = 'running', NULL, answer),
                    (SELECT count(*) FROM turnwise_attempts WHERE job = ?1) + (state = 'succeeded'), 1
                FROM turnwise_jobs j WHERE id = ?1 AND ",
            holds_an_attempt!(),
            ") ORDER BY is_the_last, attempt, finished_at"
        ),
    )
    .bind(id.to_string())
    .bind(ATTEMPTS_SHOWN)
    .fetch_all(connection)
    .await?;
    Ok(Some(rows::shown(job, rows::attempts(attempts.into_iter().map(Ok))?)))
}

fn state_condition(state: Option<JobState>) -> &'static str {
    match state {
        None => "1",
        Some(JobState::Ready) => {
            concat!("state = 'queued' AND scheduled_at <= c.now AND NOT ", goes_on_elsewhere!())
        }
        Some(JobState::Scheduled) => "state = 'queued' AND scheduled_at > c.now AND attempt = 0",
        Some(JobState::Retrying) => concat!(
            "state = 'queued' AND scheduled_at > c.now AND attempt > 0 AND NOT ",
            goes_on_elsewhere!()
        ),
        Some(JobState::Running) => concat!(
            "id IN (SELECT id FROM turnwise_jobs WHERE state = 'running'
                UNION ALL SELECT id FROM turnwise_jobs
                WHERE awaits_since IS NOT NULL AND +state = 'queued' AND ",
            goes_on_elsewhere!(),
            ")"
        ),
        Some(JobState::Succeeded) => "state = 'succeeded'",
        Some(JobState::Dead) => "state = 'dead'",
        Some(JobState::Cancelled) => "state = 'cancelled'",
    }
}

/// What becomes of a job that is to run now; `?2` is the time.
macro_rules! retry_set {
    () => {
        "state = 'queued', scheduled_at = min(scheduled_at, ?2), queued_at = ?2,
            max_attempts = max(max_attempts, attempt + 1),
            hand_backs = 0, cancel_requested = 0, finished_at = NULL, awaits_since = NULL"
    };
}
pub(super) use retry_set;

/// Which jobs may be given another try.
macro_rules! can_be_retried {
    () => {
        concat!(
            "(state = 'queued' AND NOT ",
            crate::store::sqlite::callbacks::goes_on_elsewhere!(),
            " OR state IN ('dead', 'cancelled'))"
        )
    };
}
pub(super) use can_be_retried;

/// Cancel those of these jobs that have not ended; how many. Of one that goes on elsewhere, the attempt says so.
pub(super) async fn cancel_all(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    jobs: &[JobId],
) -> Result<u64, Trouble> {
    let jobs = json(&jobs)?;
    sqlx::query(concat!(
        "UPDATE turnwise_attempts SET finished_at = ?2, error = ?3
         WHERE (job, node, token) IN (SELECT id, node, token FROM turnwise_jobs
            WHERE id IN (SELECT value FROM json_each(?1)) AND state = 'queued' AND ",
        goes_on_elsewhere!(),
        ")"
    ))
    .bind(&jobs)
    .bind(at.as_micros())
    .bind(CANCELLED_ELSEWHERE)
    .execute(&mut *connection)
    .await?;
    let done = sqlx::query(concat!(
        "UPDATE turnwise_jobs SET
            last_error = CASE WHEN state = 'queued' AND ",
        goes_on_elsewhere!(),
        " THEN ?3 ELSE last_error END,
            finished_at = CASE WHEN state = 'queued' THEN ?2 END,
            state = CASE WHEN state = 'queued' THEN 'cancelled' ELSE state END,
            cancel_requested = 1
         WHERE id IN (SELECT value FROM json_each(?1)) AND state IN ('queued', 'running')"
    ))
    .bind(&jobs)
    .bind(at.as_micros())
    .bind(CANCELLED_ELSEWHERE)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

pub(super) async fn retry(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    id: JobId,
) -> Result<Option<bool>, Trouble> {
    let done = sqlx::query(concat!(
        "UPDATE turnwise_jobs SET ",
        retry_set!(),
        " WHERE id = ?1 AND ",
        can_be_retried!()
    ))
    .bind(id.to_string())
    .bind(at.as_micros())
    .execute(&mut *connection)
    .await?;
    outcome(connection, id, done.rows_affected()).await
}

pub(super) async fn cancelled(
    connection: &mut SqliteConnection,
    node: NodeId,
    held: &[(JobId, Token)],
) -> Result<Vec<(JobId, Token)>, Trouble> {
    let jobs: Vec<JobId> = held.iter().map(|(job, _)| *job).collect();
    let found: Vec<(String, i64)> = sqlx::query_as(
        "SELECT id, token FROM turnwise_jobs
         WHERE id IN (SELECT value FROM json_each(?1)) AND state = 'running' AND node = ?2
            AND cancel_requested",
    )
    .bind(json(&jobs)?)
    .bind(node.to_string())
    .fetch_all(connection)
    .await?;
    rows::those_held(found, held)
}

pub(super) async fn cancel(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    id: JobId,
) -> Result<Option<bool>, Trouble> {
    let done = cancel_all(connection, at, &[id]).await?;
    outcome(connection, id, done).await
}

/// Whether a job was changed; none when there is no such job.
async fn outcome(
    connection: &mut SqliteConnection,
    id: JobId,
    changed: u64,
) -> Result<Option<bool>, Trouble> {
    if changed > 0 {
        return Ok(Some(true));
    }
    let there: i64 = sqlx::query_scalar("SELECT count(*) FROM turnwise_jobs WHERE id = ?")
        .bind(id.to_string())
        .fetch_one(connection)
        .await?;
    Ok((there > 0).then_some(false))
}
