//! Claims from a queue that bounds how many jobs of a concurrency key run at once: which of its jobs may be taken. Runs inside a
//! transaction of the caller's.

use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteConnection;
use turnwise_engine::ServerInstant;

use super::claims::PRIORITY_US;
use crate::sabotage::{Bug, Sabotage};
use crate::store::errors::Trouble;
use crate::store::limits::{FIRST_KEYS_MAX, Room, WALKED_MAX};

/// Jobs of a queue that may be taken.
#[derive(Debug, Default)]
pub(super) struct WithinKeys {
    /// The place and the row of each, in their order.
    pub(super) jobs: Vec<(i64, i64)>,
    /// There are others that are due, and whose keys are taken.
    pub(super) others_wait: bool,
}

/// The jobs of these lanes (a queue and its priorities) that may be taken as far as their keys go, no more than there is room in the
/// queue, and `limit`. Each lane is walked from its beginning. Where that leads to no end, the first job of each key is looked up.
pub(super) async fn within<B: Sabotage>(
    connection: &mut SqliteConnection,
    (queue, priorities): (&[u8], &[i64]),
    room: &Room,
    due: ServerInstant,
    limit: u32,
) -> Result<WithinKeys, Trouble> {
    let Some(per_key) = room.per_key() else { return Ok(WithinKeys::default()) };
    let limit = limit.min(room.jobs());
    let walk: Vec<String> = priorities.iter().map(|priority| walked(*priority)).collect();
    let mut found =
        ask::<B>(connection, queue, &walk.join(" UNION ALL "), (due, per_key, limit)).await?;
    let is_deep = found.seen >= WALKED_MAX;
    if is_deep && (found.jobs.len() as u32) < limit {
        let heads: Vec<String> =
            priorities.iter().map(|priority| first_of_keys(*priority)).collect();
        let seen = walk.iter().chain(&heads).map(String::as_str).collect::<Vec<_>>();
        found = ask::<B>(connection, queue, &seen.join(" UNION "), (due, per_key, limit)).await?;
    }
    Ok(WithinKeys { jobs: found.jobs, others_wait: found.seen > found.allowed })
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

/// The first job of each key of a lane.
fn first_of_keys(priority: i64) -> String {
    let lane = format!(
        "FROM turnwise_jobs j INDEXED BY turnwise_jobs_keyed
            WHERE j.state = 'queued' AND j.queue = CAST(?1 AS TEXT) AND j.priority = {priority}"
    );
    format!(
        "SELECT f.rowid, f.scheduled_at - f.priority * {PRIORITY_US}, f.concurrency_key FROM (
            WITH RECURSIVE known (key) AS (
                SELECT * FROM (SELECT j.concurrency_key {lane} AND j.concurrency_key IS NOT NULL
                    ORDER BY j.concurrency_key LIMIT 1)
                UNION ALL
                SELECT (SELECT j.concurrency_key {lane} AND j.concurrency_key > k.key
                    ORDER BY j.concurrency_key LIMIT 1)
                FROM known k WHERE k.key IS NOT NULL
                LIMIT {FIRST_KEYS_MAX})
            SELECT (SELECT j.rowid {lane} AND j.concurrency_key = k.key AND j.scheduled_at <= ?2
                ORDER BY j.scheduled_at LIMIT 1) AS job
            FROM known k WHERE k.key IS NOT NULL) h
         JOIN turnwise_jobs f ON f.rowid = h.job"
    )
}

struct Found {
    jobs: Vec<(i64, i64)>,
    /// So many were looked at.
    seen: u32,
    /// Of so many of them the keys are free.
    allowed: u32,
}

/// Of the jobs that are `seen` those which may be taken.
async fn ask<B: Sabotage>(
    connection: &mut SqliteConnection,
    queue: &[u8],
    seen: &str,
    (due, per_key, limit): (ServerInstant, u32, u32),
) -> Result<Found, Trouble> {
    // (What goes on elsewhere runs until it is due.)
    let query = format!(
        "WITH seen (job, place, key) AS MATERIALIZED ({seen}),
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
         LEFT JOIN allowed a ORDER BY a.place, a.job LIMIT ?4"
    );
    let rows: Vec<(Option<i64>, Option<i64>, u32, u32)> = sqlx::query_as(AssertSqlSafe(query))
        .bind(queue)
        .bind(due.as_micros())
        .bind(i64::from(per_key))
        .bind(i64::from(limit))
        .bind(B::plants(Bug::KeyIsIgnored))
        .fetch_all(connection)
        .await?;
    let (seen, allowed) = rows.first().map_or((0, 0), |row| (row.2, row.3));
    let jobs = rows.into_iter().filter_map(|(place, job, ..)| place.zip(job)).collect();
    Ok(Found { jobs, seen, allowed })
}
