//! Statements on the jobs: claim, rescue, recover, end, enqueue, and what people ask and order. Each runs
//! inside a transaction of the caller's.

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite};
use turnwise_engine::{Claim, NodeId, ServerInstant, Token};

use super::{check_in, known, period};
use crate::job::{
    AttemptView, BODY_BYTES_MAX, ClaimedJob, End, EndOutcome, HAND_BACKS_MAX, JobFate, JobFilter,
    JobId, JobState, JobView, NewJob, When,
};
use crate::sabotage::{Bug, Sabotage};
use crate::store::errors::Trouble;
use crate::store::rows::{
    self, AttemptColumns, END_UNKNOWN, NOT_RECEIVED, Unreadable, fate_word, headers_json, json,
    micros, storable,
};
use crate::store::{CheckIn, Claimed, NodeReport, Queues};

/// What a point of priority is worth, in microseconds of waiting.
const PRIORITY_US: i64 = 10_000_000;
/// How many jobs of lost nodes a beat frees.
const RESCUED_MAX: i64 = 1_000;
/// The error of an attempt whose node was lost.
const NODE_LOST: &str = "node lost";

pub(super) async fn renew(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    node: NodeId,
    report: &NodeReport,
) -> Result<Option<i64>, Trouble> {
    let period = period(connection).await?;
    check_in(connection, node, at, period, Some(report)).await
}

pub(super) async fn claim(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    node: NodeId,
    claim: Claim,
    queues: &Queues,
    report: &NodeReport,
) -> Result<Claimed, Trouble> {
    let lowest = renew(connection, at, node, report).await?;
    let jobs = match lowest {
        Some(lowest) if claim.token.0 >= lowest => {
            take(connection, node, claim, queues, at, at).await?
        }
        _ => Vec::new(),
    };
    Ok(Claimed { jobs, check_in: known(lowest.is_some()) })
}

/// Claim jobs that are due at `due`, the longest waiting first, where each point of priority counts as ten
/// seconds of waiting. Looks at the head of each lane (queue and priority) and at nothing else.
pub(super) async fn take(
    connection: &mut SqliteConnection,
    node: NodeId,
    claim: Claim,
    queues: &Queues,
    due: ServerInstant,
    at: ServerInstant,
) -> Result<Vec<ClaimedJob>, Trouble> {
    let only = queues.only().map(|queues| json(&queues)).transpose()?;
    let except = json(&queues.except())?;
    let lanes: Vec<(Vec<u8>, i64)> = sqlx::query_as(
        "WITH RECURSIVE queue (name) AS (
            SELECT * FROM (SELECT queue FROM turnwise_jobs
                WHERE state = 'queued' AND ?1 IS NULL ORDER BY queue LIMIT 1)
            UNION ALL
            SELECT (SELECT j.queue FROM turnwise_jobs j
                WHERE j.state = 'queued' AND j.queue > q.name ORDER BY j.queue LIMIT 1)
            FROM queue q WHERE q.name IS NOT NULL
         ), wanted (name) AS (
            SELECT name FROM queue
            WHERE name IS NOT NULL AND name NOT IN (SELECT value FROM json_each(?2))
            UNION
            SELECT value FROM json_each(?1) WHERE ?1 IS NOT NULL
         ), lane (queue, priority) AS (
            SELECT w.name, (SELECT j.priority FROM turnwise_jobs j
                WHERE j.state = 'queued' AND j.queue = w.name ORDER BY j.priority LIMIT 1)
            FROM wanted w
            UNION ALL
            SELECT l.queue, (SELECT j.priority FROM turnwise_jobs j
                WHERE j.state = 'queued' AND j.queue = l.queue AND j.priority > l.priority
                ORDER BY j.priority LIMIT 1)
            FROM lane l WHERE l.priority IS NOT NULL
         )
         SELECT CAST(queue AS BLOB), priority FROM lane WHERE priority IS NOT NULL",
    )
    .bind(only)
    .bind(except)
    .fetch_all(&mut *connection)
    .await?;
    let limit = i64::from(claim.limit);
    // (claim time, rowid): the time plus what the priority takes off it.
    let mut heads: Vec<(i64, i64)> = Vec::new();
    for (queue, priority) in lanes {
        let lane: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT scheduled_at - priority * ?1, rowid FROM turnwise_jobs
             WHERE state = 'queued' AND queue = CAST(?2 AS TEXT) AND priority = ?3
                AND scheduled_at <= ?4
             ORDER BY scheduled_at LIMIT ?5",
        )
        .bind(PRIORITY_US)
        .bind(queue)
        .bind(priority)
        .bind(due.as_micros())
        .bind(limit)
        .fetch_all(&mut *connection)
        .await?;
        heads.extend(lane);
    }
    if heads.is_empty() {
        return Ok(Vec::new());
    }
    heads.sort_unstable();
    heads.truncate(claim.limit as usize);
    let place: Vec<i64> = heads.iter().map(|(_, rowid)| *rowid).collect();
    let mut taken = sqlx::query(
        "UPDATE turnwise_jobs SET
            state = 'running', node = ?1, token = ?2, started_at = ?3, attempt = attempt + 1
         WHERE rowid IN (SELECT value FROM json_each(?4))
         RETURNING id, token, queue, method, url, headers,
            CASE WHEN length(CAST(body AS BLOB)) <= ?5 THEN CAST(body AS BLOB) END,
            coalesce(length(CAST(body AS BLOB)), 0), attempt, max_attempts, hand_backs, deadline_ms,
            scheduled_at, rowid",
    )
    .bind(node.to_string())
    .bind(claim.token.0)
    .bind(at.as_micros())
    .bind(json(&place)?)
    .bind(BODY_BYTES_MAX as i64)
    .fetch_all(&mut *connection)
    .await?;
    let position = |row: &SqliteRow| {
        let rowid: Option<i64> = row.try_get(13).ok();
        place.iter().position(|taken| Some(*taken) == rowid)
    };
    taken.sort_by_key(position);
    readable(connection, at, &taken).await
}

/// The jobs of claimed rows, whose last column is the rowid. One that cannot be read ends dead.
async fn readable(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    rows: &[SqliteRow],
) -> Result<Vec<ClaimedJob>, Trouble> {
    let mut jobs = Vec::with_capacity(rows.len());
    for row in rows {
        match claimed_job(row) {
            Ok(job) => jobs.push(job),
            Err(trouble) => {
                bury(connection, at, Unreadable::new(row.try_get::<i64, _>(13)?, &trouble)).await?;
            }
        }
    }
    Ok(jobs)
}

/// End a running job by its row, whatever stands in it.
async fn bury(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    row: Unreadable<i64>,
) -> Result<(), Trouble> {
    for statement in [
        "INSERT OR IGNORE INTO turnwise_attempts
            (job, node, token, attempt, started_at, finished_at, error)
         SELECT id, node, token, attempt, started_at, ?1, ?2 FROM turnwise_jobs WHERE rowid = ?3",
        "UPDATE turnwise_jobs SET
            state = 'dead', finished_at = ?1, last_status = NULL, last_error = ?2
         WHERE rowid = ?3 AND state = 'running'",
    ] {
        sqlx::query(statement)
            .bind(at.as_micros())
            .bind(&row.error)
            .bind(row.id)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

fn claimed_job(row: &SqliteRow) -> Result<ClaimedJob, Trouble> {
    rows::claimed_job((
        text(row, 0)?.unwrap_or_default(),
        row.try_get(1)?,
        text(row, 2)?.unwrap_or_default(),
        text(row, 3)?.unwrap_or_default(),
        text(row, 4)?.unwrap_or_default(),
        text(row, 5)?,
        row.try_get(6)?,
        row.try_get(7)?,
        row.try_get(8)?,
        row.try_get(9)?,
        row.try_get(10)?,
        row.try_get(11)?,
        row.try_get(12)?,
    ))
}

/// A text as SQLite keeps it, which need not be UTF-8: one bad row must not fail the others.
pub(super) fn text(row: &SqliteRow, at: usize) -> Result<Option<String>, Trouble> {
    let bytes: Option<Vec<u8>> = row.try_get(at)?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// Declare lost the nodes that hold jobs and whose lease has run out, and free up to a thousand jobs of
/// lost and unknown nodes.
pub(super) async fn rescue<B: Sabotage>(
    connection: &mut SqliteConnection,
    at: ServerInstant,
) -> Result<(), Trouble> {
    let now = at.as_micros();
    if B::plants(Bug::NobodyIsRescued) {
        return Ok(());
    }
    sqlx::query(
        "UPDATE turnwise_nodes SET state = 'lost'
         WHERE state <> 'lost' AND lease_until < ? AND EXISTS (
            SELECT 1 FROM turnwise_jobs j WHERE j.state = 'running' AND j.node = turnwise_nodes.id)",
    )
    .bind(now)
    .execute(&mut *connection)
    .await?;
    let orphans: Vec<i64> = sqlx::query_scalar(
        "SELECT rowid FROM turnwise_jobs
         WHERE state = 'running'
            AND node NOT IN (SELECT id FROM turnwise_nodes WHERE state <> 'lost')
         LIMIT ?",
    )
    .bind(RESCUED_MAX)
    .fetch_all(&mut *connection)
    .await?;
    if orphans.is_empty() {
        return Ok(());
    }
    let orphans = json(&orphans)?;
    sqlx::query(
        "INSERT OR IGNORE INTO turnwise_attempts
            (job, node, token, attempt, started_at, finished_at, error)
         SELECT id, node, token, attempt, started_at, ?1, ?2 FROM turnwise_jobs
         WHERE rowid IN (SELECT value FROM json_each(?3))",
    )
    .bind(now)
    .bind(NODE_LOST)
    .bind(&orphans)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "UPDATE turnwise_jobs SET
            state = CASE
                WHEN cancel_requested THEN 'cancelled'
                WHEN attempt >= max_attempts THEN 'dead'
                ELSE 'queued' END,
            finished_at = CASE WHEN cancel_requested OR attempt >= max_attempts THEN ?1 END,
            scheduled_at = min(scheduled_at, ?1), queued_at = ?1, last_status = NULL, last_error = ?2
         WHERE rowid IN (SELECT value FROM json_each(?3))",
    )
    .bind(now)
    .bind(NODE_LOST)
    .bind(&orphans)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn recover(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    node: NodeId,
    token: Token,
    report: &NodeReport,
) -> Result<Claimed, Trouble> {
    if renew(connection, at, node, report).await?.is_none() {
        return Ok(Claimed { jobs: Vec::new(), check_in: CheckIn::Lost });
    }
    bar(connection, node, token).await?;
    let running = sqlx::query(
        "SELECT id, token, queue, method, url, headers,
            CASE WHEN length(CAST(body AS BLOB)) <= ?1 THEN CAST(body AS BLOB) END,
            coalesce(length(CAST(body AS BLOB)), 0), attempt, max_attempts, hand_backs, deadline_ms,
            scheduled_at, rowid
         FROM turnwise_jobs WHERE state = 'running' AND node = ?2 AND token = ?3
         ORDER BY scheduled_at - priority * ?4, rowid",
    )
    .bind(BODY_BYTES_MAX as i64)
    .bind(node.to_string())
    .bind(token.0)
    .bind(PRIORITY_US)
    .fetch_all(&mut *connection)
    .await?;
    let jobs = readable(connection, at, &running).await?;
    Ok(Claimed { jobs, check_in: CheckIn::Alive })
}

/// No claim with this token or an earlier one may take anything from now on.
async fn bar(connection: &mut SqliteConnection, node: NodeId, token: Token) -> Result<(), Trouble> {
    sqlx::query("UPDATE turnwise_nodes SET token_floor = max(token_floor, ?2) WHERE id = ?1")
        .bind(node.to_string())
        .bind(token.0.saturating_add(1))
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn release(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    node: NodeId,
    token: Token,
    report: &NodeReport,
) -> Result<CheckIn, Trouble> {
    if renew(connection, at, node, report).await?.is_none() {
        return Ok(CheckIn::Lost);
    }
    bar(connection, node, token).await?;
    let held: Vec<i64> = sqlx::query_scalar(
        "SELECT rowid FROM turnwise_jobs WHERE state = 'running' AND node = ?1 AND token = ?2",
    )
    .bind(node.to_string())
    .bind(token.0)
    .fetch_all(&mut *connection)
    .await?;
    put_back(connection, at, &held, NOT_RECEIVED).await?;
    Ok(CheckIn::Alive)
}

pub(super) async fn reconcile(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    node: NodeId,
    holds: &[(JobId, Token)],
    last: Token,
    report: &NodeReport,
) -> Result<Claimed, Trouble> {
    if renew(connection, at, node, report).await?.is_none() {
        return Ok(Claimed { jobs: Vec::new(), check_in: CheckIn::Lost });
    }
    bar(connection, node, last).await?;
    let holds: Vec<_> = holds.iter().map(|(job, token)| (job, token.0)).collect();
    let unknown: Vec<i64> = sqlx::query_scalar(
        "SELECT rowid FROM turnwise_jobs
         WHERE state = 'running' AND node = ?1 AND token <= ?2 AND (id, token) NOT IN (
            SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?3))",
    )
    .bind(node.to_string())
    .bind(last.0)
    .bind(json(&holds)?)
    .fetch_all(&mut *connection)
    .await?;
    put_back(connection, at, &unknown, END_UNKNOWN).await?;
    Ok(Claimed { jobs: Vec::new(), check_in: CheckIn::Alive })
}

/// Put running jobs, by their rows, back into the queue: the attempt not spent, up to ten hand-backs.
async fn put_back(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    running: &[i64],
    reason: &str,
) -> Result<(), Trouble> {
    for statement in [
        "INSERT OR IGNORE INTO turnwise_attempts
            (job, node, token, attempt, started_at, finished_at, error)
         SELECT id, node, token, attempt, started_at, ?2, ?3 FROM turnwise_jobs
         WHERE rowid IN (SELECT value FROM json_each(?1))",
        // The most hand-backs is `job::HAND_BACKS_MAX`.
        "UPDATE turnwise_jobs SET
            state = CASE
                WHEN cancel_requested THEN 'cancelled'
                WHEN hand_backs >= 10 AND attempt >= max_attempts THEN 'dead'
                ELSE 'queued' END,
            finished_at = CASE
                WHEN cancel_requested OR hand_backs >= 10 AND attempt >= max_attempts THEN ?2 END,
            attempt = CASE WHEN hand_backs >= 10 THEN attempt ELSE max(attempt - 1, 0) END,
            hand_backs = CASE WHEN hand_backs >= 10 THEN hand_backs ELSE hand_backs + 1 END,
            queued_at = ?2, last_status = NULL, last_error = ?3
         WHERE rowid IN (SELECT value FROM json_each(?1))",
    ] {
        sqlx::query(statement)
            .bind(json(&running)?)
            .bind(at.as_micros())
            .bind(reason)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

pub(super) async fn end<B: Sabotage>(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    node: NodeId,
    ends: &[End],
) -> Result<(Vec<EndOutcome>, CheckIn), Trouble> {
    let period = period(connection).await?;
    let alive = check_in(connection, node, at, period, None).await?.is_some();
    let mut outcomes = Vec::with_capacity(ends.len());
    for end in ends {
        outcomes.push(match alive {
            true => end_one::<B>(connection, at, node, end).await?,
            false if B::plants(Bug::EndIgnoresClaim) => {
                end_one::<B>(connection, at, node, end).await?
            }
            false => EndOutcome::Stale,
        });
    }
    let stale = outcomes.iter().filter(|outcome| **outcome == EndOutcome::Stale).count();
    if stale > 0 {
        sqlx::query("UPDATE turnwise_turn SET stale_ends = stale_ends + ? WHERE id = 1")
            .bind(i64::try_from(stale).unwrap_or(i64::MAX))
            .execute(connection)
            .await?;
    }
    Ok((outcomes, known(alive)))
}

/// What giving a job back comes to: it spends the attempt when it went back too often.
async fn hand_back(connection: &mut SqliteConnection, job: &str) -> Result<&'static str, Trouble> {
    let tries: Option<(i64, bool)> =
        sqlx::query_as("SELECT hand_backs, attempt < max_attempts FROM turnwise_jobs WHERE id = ?")
            .bind(job)
            .fetch_optional(connection)
            .await?;
    Ok(match tries {
        Some((hand_backs, true)) if hand_backs >= i64::from(HAND_BACKS_MAX) => "retry",
        Some((hand_backs, false)) if hand_backs >= i64::from(HAND_BACKS_MAX) => "dead",
        _ => "back",
    })
}

async fn end_one<B: Sabotage>(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    node: NodeId,
    end: &End,
) -> Result<EndOutcome, Trouble> {
    let (job, mut node, mut token) = (end.job.to_string(), node.to_string(), end.token.0);
    if B::plants(Bug::EndIgnoresClaim) {
        let claim = "SELECT coalesce(node, ''), coalesce(token, 0) FROM turnwise_jobs WHERE id = ?";
        let claim = sqlx::query_as(claim).bind(&job).fetch_optional(&mut *connection).await?;
        (node, token) = claim.unwrap_or((node, token));
    }
    let (fate, wait) = match end.fate {
        JobFate::HandBack => (hand_back(connection, &job).await?, 0),
        fate => fate_word(fate),
    };
    let status = end.status.map(i64::from);
    let error = storable(end.error.as_deref());
    let written = sqlx::query(
        "INSERT OR IGNORE INTO turnwise_attempts
            (job, node, token, attempt, started_at, finished_at, status, error, answer)
         SELECT id, node, token, attempt, started_at, ?4, ?5, ?6, ?7 FROM turnwise_jobs
         WHERE id = ?1 AND state = 'running' AND node = ?2 AND token = ?3",
    )
    .bind(&job)
    .bind(&node)
    .bind(token)
    .bind(at.as_micros())
    .bind(status)
    .bind(&error)
    .bind(end.answer.as_deref())
    .execute(&mut *connection)
    .await?;
    let ended = sqlx::query(
        "UPDATE turnwise_jobs SET
            state = CASE
                WHEN ?4 IN ('succeeded', 'dead') THEN ?4
                WHEN cancel_requested THEN 'cancelled'
                ELSE 'queued' END,
            finished_at = CASE WHEN ?4 IN ('succeeded', 'dead') OR cancel_requested THEN ?5 END,
            scheduled_at = CASE
                WHEN ?4 = 'retry' AND NOT cancel_requested THEN ?5 + ?6 ELSE scheduled_at END,
            queued_at = CASE WHEN ?4 IN ('retry', 'back') THEN ?5 ELSE queued_at END,
            attempt = CASE WHEN ?4 = 'back' THEN max(attempt - 1, 0) ELSE attempt END,
            hand_backs = CASE WHEN ?4 = 'back' THEN hand_backs + 1 ELSE hand_backs END,
            last_status = ?7, last_error = ?8
         WHERE id = ?1 AND state = 'running' AND node = ?2 AND token = ?3",
    )
    .bind(&job)
    .bind(&node)
    .bind(token)
    .bind(fate)
    .bind(at.as_micros())
    .bind(wait)
    .bind(status)
    .bind(&error)
    .execute(&mut *connection)
    .await?;
    if written.rows_affected() + ended.rows_affected() > 0 {
        return Ok(EndOutcome::Ended);
    }
    let before: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM turnwise_attempts
         WHERE job = ? AND node = ? AND token = ? AND error IS NOT ?",
    )
    .bind(&job)
    .bind(&node)
    .bind(end.token.0)
    .bind(NODE_LOST)
    .fetch_one(connection)
    .await?;
    Ok(if before > 0 { EndOutcome::AlreadyEnded } else { EndOutcome::Stale })
}

pub(super) async fn enqueue(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    jobs: &[NewJob],
) -> Result<(), Trouble> {
    let now = at.as_micros();
    for job in jobs {
        let scheduled_at = match job.when {
            When::Now => now,
            When::In(wait) => now.saturating_add(micros(wait)),
            When::At(instant) => instant.as_micros(),
        };
        sqlx::query(
            "INSERT INTO turnwise_jobs
                (id, queue, method, url, headers, body, priority, scheduled_at, created_at, queued_at,
                max_attempts, deadline_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9, ?10, ?11)
             ON CONFLICT (id) DO NOTHING",
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
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// The columns of a job for people; the last is the clock, bound first.
const JOB_COLUMNS: &str = "SELECT id, queue, method, url, state, priority, attempt, max_attempts,
    scheduled_at, created_at, finished_at, node, last_status, last_error, c.now
    FROM turnwise_jobs, (SELECT ";

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
    ))
}

pub(super) async fn list(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    filter: &JobFilter,
) -> Result<Vec<JobView>, Trouble> {
    let mut query = QueryBuilder::<Sqlite>::new(JOB_COLUMNS);
    query.push_bind(at.as_micros()).push(" AS now) c WHERE ").push(state_condition(filter.state));
    if let Some(queue) = &filter.queue {
        query.push(" AND queue = ").push_bind(queue);
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
) -> Result<Option<(JobView, Vec<AttemptView>)>, Trouble> {
    let mut query = QueryBuilder::<Sqlite>::new(JOB_COLUMNS);
    query.push_bind(at.as_micros()).push(" AS now) c WHERE id = ").push_bind(id.to_string());
    let Some(row) = query.build().fetch_optional(&mut *connection).await? else { return Ok(None) };
    let job = job_view(&row)?;
    let attempts: Vec<AttemptColumns> = sqlx::query_as(
        "SELECT attempt, node, started_at, finished_at, status, error, answer
         FROM turnwise_attempts WHERE job = ?1
         UNION ALL
         SELECT attempt, node, started_at, NULL, NULL, NULL, NULL
         FROM turnwise_jobs WHERE id = ?1 AND state = 'running'
         ORDER BY attempt, finished_at NULLS LAST",
    )
    .bind(id.to_string())
    .fetch_all(connection)
    .await?;
    let attempts = attempts.into_iter().map(rows::attempt_view).collect::<Result<_, _>>()?;
    Ok(Some((job, attempts)))
}

fn state_condition(state: Option<JobState>) -> &'static str {
    match state {
        None => "1",
        Some(JobState::Ready) => "state = 'queued' AND scheduled_at <= c.now",
        Some(JobState::Scheduled) => "state = 'queued' AND scheduled_at > c.now AND attempt = 0",
        Some(JobState::Retrying) => "state = 'queued' AND scheduled_at > c.now AND attempt > 0",
        Some(JobState::Running) => "state = 'running'",
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
            hand_backs = 0, cancel_requested = 0, finished_at = NULL"
    };
}
pub(super) use retry_set;

/// What becomes of a job that is cancelled; `?2` is the time.
macro_rules! cancel_set {
    () => {
        "finished_at = CASE WHEN state = 'queued' THEN ?2 END,
            state = CASE WHEN state = 'queued' THEN 'cancelled' ELSE state END,
            cancel_requested = 1"
    };
}
pub(super) use cancel_set;

pub(super) async fn retry(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    id: JobId,
) -> Result<Option<bool>, Trouble> {
    let done = sqlx::query(concat!(
        "UPDATE turnwise_jobs SET ",
        retry_set!(),
        " WHERE id = ?1 AND state IN ('queued', 'dead', 'cancelled')"
    ))
    .bind(id.to_string())
    .bind(at.as_micros())
    .execute(&mut *connection)
    .await?;
    outcome(connection, id, done.rows_affected()).await
}

pub(super) async fn cancel(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    id: JobId,
) -> Result<Option<bool>, Trouble> {
    let done = sqlx::query(concat!(
        "UPDATE turnwise_jobs SET ",
        cancel_set!(),
        " WHERE id = ?1 AND state IN ('queued', 'running')"
    ))
    .bind(id.to_string())
    .bind(at.as_micros())
    .execute(&mut *connection)
    .await?;
    outcome(connection, id, done.rows_affected()).await
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
