//! Ends of attempts: each by itself, by the claim that it names alone. Decides what an ended job becomes. Each function runs
//! inside a transaction of the caller's.

use sqlx::sqlite::SqliteConnection;
use turnwise_engine::{NodeId, ServerInstant};

use super::nodes::check_in;
use super::rescue::NODE_LOST;
use super::{known, period};
use crate::job::{End, EndOutcome, HAND_BACKS_MAX, JobFate};
use crate::sabotage::{Bug, Sabotage};
use crate::store::CheckIn;
use crate::store::errors::Trouble;
use crate::store::rows::{fate_word, storable};

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
