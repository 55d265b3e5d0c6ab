//! Jobs that go back into the queue without an end: those of lost nodes and those of claims that nobody heard of. Decides
//! what each becomes. Each function runs inside a transaction of the caller's.

use sqlx::sqlite::SqliteConnection;
use turnwise_engine::{NodeId, ServerInstant, Token};

use super::claims::{bar, renew};
use crate::job::JobId;
use crate::sabotage::{Bug, Sabotage};
use crate::store::errors::Trouble;
use crate::store::rows::{END_UNKNOWN, NOT_RECEIVED, json};
use crate::store::{CheckIn, Claimed, NodeReport};

/// How many jobs of lost nodes a beat frees.
const RESCUED_MAX: i64 = 1_000;
/// The error of an attempt whose node was lost.
pub(super) const NODE_LOST: &str = "node lost";

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
        return Ok(Claimed { check_in: CheckIn::Lost, ..Claimed::default() });
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
    Ok(Claimed::default())
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
