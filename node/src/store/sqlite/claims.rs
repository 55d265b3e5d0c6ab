//! Claims: which jobs a node takes, and which it took when the answer was lost. A row that cannot be read ends here, so
//! that it holds up nobody. Each function runs inside a transaction of the caller's.

use std::collections::BTreeMap;

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use turnwise_engine::{Claim, Kept, NodeId, ServerInstant, Token};

use super::nodes::{Known, check_in, pass_by};
use super::queues::is_held_back;
use super::{keys, known, limits, period, text};
use crate::job::{BODY_BYTES_MAX, ClaimedJob};
use crate::sabotage::{Bug, Sabotage};
use crate::store::claim_bytes;
use crate::store::errors::Trouble;
use crate::store::limits::{Room, Within};
use crate::store::rows::{self, Unreadable, json};
use crate::store::{CheckIn, Claimed, NodeReport, Queues};

/// What a point of priority is worth, in microseconds of waiting.
pub(super) const PRIORITY_US: i64 = 10_000_000;

/// What few jobs say, as JSON; NULL: nothing. What they do not say themselves is their queue's to say.
macro_rules! particulars {
    () => {
        "CASE WHEN coalesce(retry_wait_ms, retry_wait_max_ms, asynchronous, schedule, batch, parent) IS NOT NULL
                OR attempt > 1 AND last_status IS NOT NULL
                OR queue IN (SELECT q.name FROM turnwise_queues q
                    WHERE coalesce(q.retry_wait_ms, q.retry_wait_max_ms, q.permanent_statuses, q.slow_down_ms) IS NOT NULL)
            THEN json_object(
                'retry_wait_ms', coalesce(retry_wait_ms,
                    (SELECT q.retry_wait_ms FROM turnwise_queues q WHERE q.name = queue)),
                'retry_wait_max_ms', coalesce(retry_wait_max_ms,
                    (SELECT q.retry_wait_max_ms FROM turnwise_queues q WHERE q.name = queue)),
                'permanent', (SELECT q.permanent_statuses FROM turnwise_queues q WHERE q.name = queue),
                'slow_down_ms', (SELECT q.slow_down_ms FROM turnwise_queues q WHERE q.name = queue),
                'asynchronous', asynchronous, 'heartbeat_ms', heartbeat_ms, 'schedule', schedule,
                'batch', batch, 'parent', parent, 'previous_status', iif(attempt > 1, last_status, NULL)) END"
    };
}

pub(super) use particulars;

/// A job that is due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    /// Its time, less what its priority takes off it.
    place: i64,
    rowid: i64,
    queue: Vec<u8>,
}

/// Jobs that were claimed.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) jobs: Vec<ClaimedJob>,
    /// There may be more that are due than were taken.
    pub(super) more: bool,
    /// What was left behind because of a limit.
    pub(super) kept: Kept,
}

pub(super) async fn renew(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    node: NodeId,
    report: &NodeReport,
) -> Result<Option<Known>, Trouble> {
    let period = period(connection).await?;
    check_in(connection, node, at, period, Some(report)).await
}

pub(super) async fn claim<B: Sabotage>(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    node: NodeId,
    claim: Claim,
    queues: &Queues,
    report: &NodeReport,
    bytes_max: usize,
) -> Result<Claimed, Trouble> {
    let period = period(connection).await?;
    let row = pass_by(connection, node, at, period, Some(report)).await?;
    let Taken { jobs, more, kept } = match row {
        Some(row) if claim.token.0 >= row.lowest => {
            take::<B>(connection, node, claim, queues, (at, at), bytes_max).await?
        }
        _ => Taken::default(),
    };
    Ok(Claimed { jobs, more, kept, check_in: known(row.is_some()) })
}

/// Claim jobs that are due at `due`, the longest waiting first, where each point of priority counts as ten
/// seconds of waiting; as many as their bodies come to so many bytes. Looks at the head of each lane (queue and priority)
/// and at nothing else; of a queue that has limits, no more are taken than there is room.
pub(super) async fn take<B: Sabotage>(
    connection: &mut SqliteConnection,
    node: NodeId,
    claim: Claim,
    queues: &Queues,
    (due, at): (ServerInstant, ServerInstant),
    bytes_max: usize,
) -> Result<Taken, Trouble> {
    let only = queues.only().map(|queues| json(&queues)).transpose()?;
    let except = json(&queues.except())?;
    let lanes: Vec<(Vec<u8>, i64)> = sqlx::query_as(concat!(
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
            EXCEPT
            SELECT name FROM turnwise_queues WHERE paused_at IS NOT NULL AND NOT ?3
            EXCEPT
            SELECT q.name FROM turnwise_queues q WHERE ",
        is_held_back!("?4"),
        "
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
    ))
    .bind(only)
    .bind(except)
    .bind(B::plants(Bug::PauseIsIgnored))
    .bind(at.as_micros())
    .fetch_all(&mut *connection)
    .await?;
    let rooms = match lanes.is_empty() {
        true => BTreeMap::new(),
        false => limits::rooms::<B>(connection, (due, at)).await?,
    };
    let mut heads: Vec<Head> = Vec::new();
    let mut keyed: BTreeMap<Vec<u8>, Vec<i64>> = BTreeMap::new();
    for (queue, priority) in lanes {
        if rooms.get(&queue).is_some_and(|room| room.per_key().is_some()) {
            keyed.entry(queue).or_default().push(priority);
            continue;
        }
        // One more than may be taken: whether there is one matters.
        let room = rooms.get(&queue).map_or(u32::MAX, Room::jobs);
        let limit = i64::from(claim.limit.min(room.saturating_add(1)));
        let lane: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT scheduled_at - priority * ?1, rowid FROM turnwise_jobs
             WHERE state = 'queued' AND queue = CAST(?2 AS TEXT) AND priority = ?3
                AND scheduled_at <= ?4
             ORDER BY scheduled_at LIMIT ?5",
        )
        .bind(PRIORITY_US)
        .bind(queue.as_slice())
        .bind(priority)
        .bind(due.as_micros())
        .bind(limit)
        .fetch_all(&mut *connection)
        .await?;
        heads.extend(lane.into_iter().map(|(place, rowid)| Head {
            place,
            rowid,
            queue: queue.clone(),
        }));
    }
    let mut within = Within::new(rooms.clone());
    for (queue, priorities) in keyed {
        let Some(room) = rooms.get(&queue) else { continue };
        let lanes = (queue.as_slice(), priorities.as_slice());
        let found = keys::within::<B>(connection, lanes, room, due, claim.limit).await?;
        let head = |(place, rowid)| Head { place, rowid, queue: queue.clone() };
        heads.extend(found.jobs.into_iter().map(head));
        if found.others_are_free {
            within.may_refuse(queue.clone());
        }
        if found.others_wait {
            within.refuses_keys(queue);
        }
    }
    if heads.is_empty() {
        return Ok(Taken { kept: within.took(std::iter::empty()).kept, ..Taken::default() });
    }
    heads.sort_unstable();
    heads.retain(|head| within.admits(&head.queue));
    heads.truncate(claim.limit as usize);
    let mut place: Vec<i64> = heads.iter().map(|head| head.rowid).collect();
    // Of a body only the length is read.
    let lengths: BTreeMap<i64, i64> = sqlx::query_as(
        "SELECT rowid, coalesce(octet_length(body), 0) FROM turnwise_jobs
         WHERE rowid IN (SELECT value FROM json_each(?1))",
    )
    .bind(json(&place)?)
    .fetch_all(&mut *connection)
    .await?
    .into_iter()
    .collect();
    let length = |rowid| lengths.get(rowid).map_or(0, |bytes| usize::try_from(*bytes).unwrap_or(0));
    place.truncate(claim_bytes::fitting(place.iter().map(length), bytes_max));
    let more = place.len() < heads.len() || heads.len() >= claim.limit as usize;
    let mut taken = sqlx::query(concat!(
        "UPDATE turnwise_jobs SET
            state = 'running', node = ?1, token = ?2, started_at = ?3, attempt = attempt + 1,
            awaits_since = NULL, progress = NULL, progress_note = NULL
         WHERE rowid IN (SELECT value FROM json_each(?4))
         RETURNING id, token, queue, method, url, headers,
            CASE WHEN length(CAST(body AS BLOB)) <= ?5 THEN CAST(body AS BLOB) END,
            coalesce(length(CAST(body AS BLOB)), 0), attempt, max_attempts, hand_backs, deadline_ms,
            scheduled_at, rowid, ",
        particulars!()
    ))
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
    let entry = within.took(heads.iter().take(place.len()).map(|head| &head.queue));
    limits::enter::<B>(connection, &entry).await?;
    let (jobs, kept) = (readable(connection, at, &taken).await?, entry.kept);
    Ok(Taken { jobs, more, kept })
}

/// The jobs of claimed rows, with the rowid behind what a claim returns. One that cannot be read ends dead.
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

pub(super) fn claimed_job(row: &SqliteRow) -> Result<ClaimedJob, Trouble> {
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
        text(row, 14)?,
    ))
}

pub(super) async fn recover(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    node: NodeId,
    token: Token,
    report: &NodeReport,
) -> Result<Claimed, Trouble> {
    if renew(connection, at, node, report).await?.is_none() {
        return Ok(Claimed { check_in: CheckIn::Lost, ..Claimed::default() });
    }
    bar(connection, node, token).await?;
    let running = sqlx::query(concat!(
        "SELECT id, token, queue, method, url, headers,
            CASE WHEN length(CAST(body AS BLOB)) <= ?1 THEN CAST(body AS BLOB) END,
            coalesce(length(CAST(body AS BLOB)), 0), attempt, max_attempts, hand_backs, deadline_ms,
            scheduled_at, rowid, ",
        particulars!(),
        " FROM turnwise_jobs WHERE state = 'running' AND node = ?2 AND token = ?3
         ORDER BY scheduled_at - priority * ?4, rowid"
    ))
    .bind(BODY_BYTES_MAX as i64)
    .bind(node.to_string())
    .bind(token.0)
    .bind(PRIORITY_US)
    .fetch_all(&mut *connection)
    .await?;
    let jobs = readable(connection, at, &running).await?;
    Ok(Claimed { jobs, ..Claimed::default() })
}

/// No claim with this token or an earlier one may take anything from now on.
pub(super) async fn bar(
    connection: &mut SqliteConnection,
    node: NodeId,
    token: Token,
) -> Result<(), Trouble> {
    sqlx::query("UPDATE turnwise_nodes SET token_floor = max(token_floor, ?2) WHERE id = ?1")
        .bind(node.to_string())
        .bind(token.0.saturating_add(1))
        .execute(connection)
        .await?;
    Ok(())
}
