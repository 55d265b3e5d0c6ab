//! Claims from a queue that bounds how many jobs of a concurrency key run at once: which of its jobs may be taken. Runs inside a
//! transaction of the caller's.

use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteConnection;
use turnwise_engine::ServerInstant;

use super::claims::PRIORITY_US;
use crate::sabotage::{Bug, Sabotage};
use crate::store::errors::Trouble;
use crate::store::limits::{FIRST_KEYS_MAX, Room, WALKED_MAX};
use crate::store::rows::json;

/// Jobs of a queue that may be taken.
#[derive(Debug, Default)]
pub(super) struct WithinKeys {
    /// The place and the row of each, in their order.
    pub(super) jobs: Vec<(i64, i64)>,
    /// There are others that are due, and whose keys are taken.
    pub(super) others_wait: bool,
    /// There are others that are due, and whose keys are free.
    pub(super) others_are_free: bool,
}

/// The jobs of these lanes (a queue and its priorities) that may be taken as far as their keys go, no more than there is room in the
/// queue, and `limit`. Each lane is walked from its beginning. Where that finds too few, and there may be more, the first job of each key
/// is looked up.
pub(super) async fn within<B: Sabotage>(
    connection: &mut SqliteConnection,
    (queue, priorities): (&[u8], &[i64]),
    room: &Room,
    due: ServerInstant,
    limit: u32,
) -> Result<WithinKeys, Trouble> {
    let Some(per_key) = room.per_key() else { return Ok(WithinKeys::default()) };
    let most = (per_key, limit.min(room.jobs()));
    let lanes = (queue, priorities);
    let mut found = ask::<B>(connection, lanes, &[], due, most).await?;
    if found.seen >= WALKED_MAX && found.allowed < most.1 {
        let first = first_of_keys(connection, lanes, due).await?;
        found = ask::<B>(connection, lanes, &first, due, most).await?;
    }
    Ok(WithinKeys {
        others_wait: found.seen > found.allowed,
        others_are_free: found.allowed as usize > found.jobs.len(),
        jobs: found.jobs,
    })
}

/// The first jobs of a lane, in their order.
fn walked(priority: i64) -> String {
    format!(
        "SELECT * FROM (SELECT rowid AS job, scheduled_at - priority * {PRIORITY_US} AS place, concurrency_key AS key
            FROM turnwise_jobs INDEXED BY turnwise_jobs_queued
            WHERE state = 'queued' AND queue = CAST(?1 AS TEXT) AND priority = {priority} AND scheduled_at <= ?2
            ORDER BY scheduled_at LIMIT {WALKED_MAX})"
    )
}

/// The first jobs of keys of these lanes, as rows, of up to so many keys of a lane; they begin behind the key that the last claim came to,
/// so that each has its turn.
async fn first_of_keys(
    connection: &mut SqliteConnection,
    (queue, priorities): (&[u8], &[i64]),
    due: ServerInstant,
) -> Result<Vec<i64>, Trouble> {
    let from: Option<Option<Vec<u8>>> = sqlx::query_scalar(
        "SELECT CAST(keys_from AS BLOB) FROM turnwise_queues WHERE name = CAST(?1 AS TEXT)",
    )
    .bind(queue)
    .fetch_optional(&mut *connection)
    .await?;
    let from = from.flatten().unwrap_or_default();
    let (mut first, mut reached) = (Vec::new(), None::<Vec<u8>>);
    for priority in priorities {
        let keys: Vec<(Vec<u8>, Option<i64>)> = sqlx::query_as(
            "WITH RECURSIVE known (key) AS (
                SELECT CAST(?3 AS TEXT)
                UNION ALL
                SELECT (SELECT j.concurrency_key FROM turnwise_jobs j INDEXED BY turnwise_jobs_keyed
                    WHERE j.state = 'queued' AND j.queue = CAST(?1 AS TEXT) AND j.priority = ?2
                        AND j.concurrency_key > k.key
                    ORDER BY j.concurrency_key LIMIT 1)
                FROM known k WHERE k.key IS NOT NULL
                LIMIT ?5)
             SELECT CAST(k.key AS BLOB), (SELECT j.rowid FROM turnwise_jobs j INDEXED BY turnwise_jobs_keyed
                WHERE j.state = 'queued' AND j.queue = CAST(?1 AS TEXT) AND j.priority = ?2
                    AND j.concurrency_key = k.key AND j.scheduled_at <= ?4
                ORDER BY j.scheduled_at LIMIT 1)
             FROM known k WHERE k.key IS NOT NULL ORDER BY k.key",
        )
        .bind(queue)
        .bind(priority)
        .bind(from.as_slice())
        .bind(due.as_micros())
        .bind(i64::from(FIRST_KEYS_MAX) + 1)
        .fetch_all(&mut *connection)
        .await?;
        // (The first is where they begin.)
        if keys.len() > FIRST_KEYS_MAX as usize
            && let Some((last, _)) = keys.last()
            && reached.as_ref().is_none_or(|reached| last < reached)
        {
            reached = Some(last.clone());
        }
        first.extend(keys.into_iter().skip(1).filter_map(|(_, job)| job));
    }
    sqlx::query(
        "UPDATE turnwise_queues SET keys_from = CAST(?2 AS TEXT) WHERE name = CAST(?1 AS TEXT)",
    )
    .bind(queue)
    .bind(reached)
    .execute(connection)
    .await?;
    Ok(first)
}

struct Found {
    jobs: Vec<(i64, i64)>,
    /// So many were looked at.
    seen: u32,
    /// Of so many of them the keys are free.
    allowed: u32,
}

/// Of the jobs that a walk of these lanes sees, and of the `others`, those which may be taken: so many of a key, and so many.
async fn ask<B: Sabotage>(
    connection: &mut SqliteConnection,
    (queue, priorities): (&[u8], &[i64]),
    others: &[i64],
    due: ServerInstant,
    (per_key, limit): (u32, u32),
) -> Result<Found, Trouble> {
    let walk: Vec<String> = priorities.iter().map(|priority| walked(*priority)).collect();
    // (What goes on elsewhere runs until it is due.)
    let query = format!(
        "WITH seen (job, place, key) AS MATERIALIZED ({}
            UNION
            SELECT j.rowid, j.scheduled_at - j.priority * {PRIORITY_US}, j.concurrency_key
            FROM json_each(?6) o CROSS JOIN turnwise_jobs j ON j.rowid = o.value),
         running (key, jobs) AS MATERIALIZED (
            SELECT key, count(*) FROM (
                SELECT j.concurrency_key AS key FROM turnwise_jobs j INDEXED BY turnwise_jobs_running
                WHERE j.state = 'running' AND j.queue = CAST(?1 AS TEXT) AND j.concurrency_key IS NOT NULL
                UNION ALL
                SELECT j.concurrency_key FROM turnwise_jobs j INDEXED BY turnwise_jobs_awaiting
                WHERE j.awaits_since IS NOT NULL AND j.state = 'queued' AND j.queue = CAST(?1 AS TEXT)
                    AND j.concurrency_key IS NOT NULL AND j.scheduled_at > ?2 AND j.awaits_since >= j.started_at)
            GROUP BY key),
         allowed (job, place) AS MATERIALIZED (
            SELECT n.job, n.place FROM (
                SELECT s.job, s.place, s.key, row_number() OVER (PARTITION BY s.key ORDER BY s.place, s.job) AS number
                FROM seen s) n
            LEFT JOIN running r ON r.key = n.key
            WHERE n.key IS NULL OR ?5 OR n.number <= ?3 - coalesce(r.jobs, 0))
         SELECT a.place, a.job, c.seen, c.allowed
         FROM (SELECT (SELECT count(*) FROM seen) AS seen, (SELECT count(*) FROM allowed) AS allowed) c
         LEFT JOIN allowed a ORDER BY a.place, a.job LIMIT ?4",
        walk.join(" UNION ALL ")
    );
    let rows: Vec<(Option<i64>, Option<i64>, u32, u32)> = sqlx::query_as(AssertSqlSafe(query))
        .bind(queue)
        .bind(due.as_micros())
        .bind(i64::from(per_key))
        .bind(i64::from(limit))
        .bind(B::plants(Bug::KeyIsIgnored))
        .bind(json(&others)?)
        .fetch_all(connection)
        .await?;
    let (seen, allowed) = rows.first().map_or((0, 0), |row| (row.2, row.3));
    let jobs = rows.into_iter().filter_map(|(place, job, ..)| place.zip(job)).collect();
    Ok(Found { jobs, seen, allowed })
}
