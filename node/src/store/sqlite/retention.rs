//! Ended jobs that are old enough: found through their index, and removed by their keys. Whoever else writes waits
//! meanwhile, as SQLite has it: so little is removed at once.

use sqlx::Row;
use sqlx::sqlite::SqliteConnection;
use turnwise_engine::ServerInstant;

use crate::sabotage::{Bug, Sabotage};
use crate::store::errors::Trouble;
use crate::store::retention::BATCHES_AT_ONCE;
use crate::store::rows::{json, micros};
use crate::store::{Prune, Pruned};

/// So many rows, of jobs and of their attempts, are removed at once; or one job with all of its own.
const ROWS_MAX: i64 = 500;

const OLD: &str = "SELECT rowid, finished_at, 1 + attempt + hand_backs FROM turnwise_jobs
    WHERE state = ?1 AND finished_at >= ?2 AND finished_at <= ?3
        AND (unique_until IS NULL OR unique_until <= ?5)
        AND (batch IS NULL OR batch NOT IN (SELECT b.id FROM turnwise_batches b WHERE b.state IN ('open', 'sealed')))
    ORDER BY finished_at LIMIT ?4";
/// A bug that can be planted: what has not ended counts as ended long ago.
const OLD_OR_RUNNING: &str = "SELECT rowid, coalesce(finished_at, ?2), 1 FROM turnwise_jobs
    WHERE state IN (?1, 'running') AND coalesce(finished_at, ?2) >= ?2 AND coalesce(finished_at, ?2) <= ?3
        AND (unique_until IS NULL OR unique_until <= ?5)
        AND (batch IS NULL OR batch NOT IN (SELECT b.id FROM turnwise_batches b WHERE b.state IN ('open', 'sealed')))
    ORDER BY finished_at LIMIT ?4";

pub(super) async fn prune<B: Sabotage>(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    prune: &Prune,
) -> Result<Pruned, Trouble> {
    let sql = if B::plants(Bug::PruneTakesWhatRuns) { OLD_OR_RUNNING } else { OLD };
    let (mut rowids, mut gone, mut rows) = (Vec::new(), Vec::new(), 0);
    let mut is_full = false;
    for old in prune.olds() {
        let left = prune.most().saturating_sub(gone.len() as u32);
        let found = sqlx::query(sql)
            .bind(old.ended.as_str())
            .bind(old.from.as_micros())
            .bind(at.as_micros().saturating_sub(micros(old.age)))
            .bind(left)
            .bind(at.as_micros())
            .fetch_all(&mut *connection)
            .await?;
        for row in &found {
            rows += row.try_get::<i64, _>(2)?;
            is_full = rows > ROWS_MAX && !gone.is_empty();
            if is_full {
                break;
            }
            rowids.push(row.try_get(0)?);
            gone.push((old.ended, ServerInstant::from_micros(row.try_get(1)?)));
        }
        is_full |= gone.len() as u32 >= prune.most();
        if is_full {
            break;
        }
    }
    remove(connection, &rowids).await?;
    let batches = remove_batches(connection, at, prune).await?;
    Ok(prune.removed(&gone, is_full).with_batches(prune, batches))
}

/// Remove ended batches that are old enough and have no job, whatever became of those, with what is left of jobs that waited for
/// them: how many.
async fn remove_batches(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    prune: &Prune,
) -> Result<usize, Trouble> {
    let mut batches: Vec<String> = Vec::new();
    for old in prune.olds() {
        let found: Vec<String> = sqlx::query_scalar(
            "SELECT b.id FROM (
                SELECT id FROM turnwise_batches WHERE state = ?1 AND ended_at <= ?2
                ORDER BY ended_at LIMIT ?3
             ) b
             WHERE NOT EXISTS (SELECT 1 FROM turnwise_jobs j WHERE j.batch = b.id)",
        )
        .bind(old.ended.of_batch().as_str())
        .bind(at.as_micros().saturating_sub(micros(old.age)))
        .bind(BATCHES_AT_ONCE)
        .fetch_all(&mut *connection)
        .await?;
        batches.extend(found);
    }
    if batches.is_empty() {
        return Ok(0);
    }
    let ids = json(&batches)?;
    for sql in [
        "DELETE FROM turnwise_waits WHERE batch IN (SELECT value FROM json_each(?))
            AND NOT EXISTS (SELECT 1 FROM turnwise_jobs j WHERE j.id = turnwise_waits.job)",
        "DELETE FROM turnwise_batches WHERE id IN (SELECT value FROM json_each(?))",
    ] {
        sqlx::query(sql).bind(&ids).execute(&mut *connection).await?;
    }
    Ok(batches.len())
}

async fn remove(connection: &mut SqliteConnection, rowids: &[i64]) -> Result<(), Trouble> {
    if rowids.is_empty() {
        return Ok(());
    }
    let rowids: Vec<String> = rowids.iter().map(i64::to_string).collect();
    let rowids = format!("[{}]", rowids.join(","));
    let batches: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT batch FROM turnwise_jobs
         WHERE rowid IN (SELECT value FROM json_each(?)) AND batch IS NOT NULL",
    )
    .bind(&rowids)
    .fetch_all(&mut *connection)
    .await?;
    for sql in [
        "DELETE FROM turnwise_waits WHERE job IN (
            SELECT id FROM turnwise_jobs WHERE rowid IN (SELECT value FROM json_each(?)))",
        "DELETE FROM turnwise_attempts WHERE job IN (
            SELECT id FROM turnwise_jobs WHERE rowid IN (SELECT value FROM json_each(?)))",
        "DELETE FROM turnwise_jobs WHERE rowid IN (SELECT value FROM json_each(?))",
    ] {
        sqlx::query(sql).bind(&rowids).execute(&mut *connection).await?;
    }
    if !batches.is_empty() {
        // One that has ended goes with the last of its jobs.
        sqlx::query(
            "DELETE FROM turnwise_batches WHERE id IN (SELECT value FROM json_each(?))
                AND NOT EXISTS (SELECT 1 FROM turnwise_jobs j WHERE j.batch = turnwise_batches.id)",
        )
        .bind(json(&batches)?)
        .execute(connection)
        .await?;
    }
    Ok(())
}
