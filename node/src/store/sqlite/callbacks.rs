//! What is heard of attempts from elsewhere, and the secret by which callbacks are known.

use sqlx::Row;
use sqlx::sqlite::SqliteConnection;
use turnwise_engine::{NodeId, ServerInstant, Token};

use super::claims::{claimed_job, particulars};
use super::{SqliteStore, Trouble, text};
use crate::job::JobId;
use crate::sabotage::{Bug, Sabotage};
use crate::store::StoreError;
use crate::store::callbacks::{Callbacks, Change, Found, LastAttempt, Word};
use crate::store::outages::{APART_US, Outages, length};
use crate::store::rows;

/// The secret of this name, which is `offered` when there is none yet.
pub(super) async fn secret(
    connection: &mut SqliteConnection,
    name: &str,
    offered: &str,
) -> Result<String, Trouble> {
    sqlx::query("INSERT OR IGNORE INTO turnwise_secrets (name, value) VALUES (?1, ?2)")
        .bind(name)
        .bind(offered)
        .execute(&mut *connection)
        .await?;
    let kept = sqlx::query_scalar("SELECT value FROM turnwise_secrets WHERE name = ?1")
        .bind(name)
        .fetch_one(connection)
        .await?;
    Ok(kept)
}

/// Whether a job that stands as queued goes on elsewhere: it was accepted after it was claimed. (A binary that does not know of it
/// claims it and leaves the column as it was.)
macro_rules! goes_on_elsewhere {
    () => {
        "coalesce(awaits_since >= started_at, 0)"
    };
}
pub(super) use goes_on_elsewhere;

/// What the turn row knows of outages.
pub(super) async fn outages(connection: &mut SqliteConnection) -> Result<Outages, Trouble> {
    type Columns = (Option<i64>, Option<i64>, Option<i64>, Option<i64>, i64);
    let (beaten_at, from, until, in_all, period): Columns = sqlx::query_as(
        "SELECT beaten_at, away_from, away_until, away_us, coalesce(period_ms, 1000) FROM turnwise_turn WHERE id = 1",
    )
    .fetch_one(connection)
    .await?;
    let last = from.zip(until).zip(in_all).map(|((from, until), all)| (from, until, all));
    Ok(Outages { beaten_at, last, period: rows::period(period)? })
}

/// Nobody beat between these two: what jobs that go on elsewhere have left to be heard of, and of their deadlines, is as long as it
/// was, but for the time before a word that came meanwhile. (By then the clock may have been set, forward and back too.)
pub(super) async fn put_off(
    connection: &mut SqliteConnection,
    from: ServerInstant,
    to: ServerInstant,
) -> Result<(), Trouble> {
    sqlx::query(
        "UPDATE turnwise_turn SET
            away_us = ?3 + iif(away_until BETWEEN ?1 - ?4 AND ?1, coalesce(away_us, 0), 0),
            away_from = iif(away_until BETWEEN ?1 - ?4 AND ?1, coalesce(away_from, ?1), ?1), away_until = ?2
         WHERE id = 1",
    )
    .bind(from.as_micros())
    .bind(to.as_micros())
    .bind(length(from, to))
    .bind(APART_US)
    .execute(&mut *connection)
    .await?;
    sqlx::query(concat!(
        "UPDATE turnwise_jobs SET
            queued_at = ?2, scheduled_at = scheduled_at + (?2 - max(?1, queued_at)),
            awaits_until = awaits_until + (?2 - max(?1, awaits_since))
         WHERE awaits_since IS NOT NULL AND +state = 'queued' AND scheduled_at >= ?1 AND ",
        goes_on_elsewhere!()
    ))
    .bind(from.as_micros())
    .bind(to.as_micros())
    .execute(connection)
    .await?;
    Ok(())
}

impl<B: Sabotage> Callbacks for SqliteStore<B> {
    async fn last_attempt(&self, job: JobId) -> Result<Option<LastAttempt>, StoreError> {
        let mut connection = self.connection().await?;
        let found = last_attempt(&mut connection, job).await;
        connection.give_back();
        found.map_err(|trouble| self.trouble(trouble))
    }

    async fn hear(
        &self,
        job: JobId,
        claim: (NodeId, Token),
        word: &Word,
    ) -> Result<bool, StoreError> {
        let mut connection = self.begin().await?;
        let done = hear::<B>(&mut connection, self.now(), job, claim, word).await;
        self.settle(connection, done).await
    }
}

async fn last_attempt(
    connection: &mut SqliteConnection,
    job: JobId,
) -> Result<Option<LastAttempt>, Trouble> {
    let found = sqlx::query(concat!(
        "SELECT id, token, queue, method, url, NULL, NULL, 0, attempt, max_attempts, hand_backs, deadline_ms,
            scheduled_at, rowid, ",
        particulars!(),
        ", node, state, state = 'running' OR state = 'queued' AND ",
        goes_on_elsewhere!(),
        " FROM turnwise_jobs WHERE id = ?1 AND node IS NOT NULL AND token IS NOT NULL"
    ))
    .bind(job.to_string())
    .fetch_optional(connection)
    .await?;
    let Some(row) = found else { return Ok(None) };
    Ok(Some(LastAttempt {
        job: claimed_job(&row)?,
        node: rows::node_id(&text(&row, 15)?.unwrap_or_default())?,
        state: text(&row, 16)?.unwrap_or_default(),
        goes_on: row.try_get(17)?,
    }))
}

async fn hear<B: Sabotage>(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    job: JobId,
    (node, token): (NodeId, Token),
    word: &Word,
) -> Result<bool, Trouble> {
    type Columns = (bool, bool, i64, i64, i64, Option<i64>, Option<i64>, Option<i64>);
    let found: Option<Columns> = sqlx::query_as(concat!(
        "SELECT state = 'queued', cancel_requested, started_at, scheduled_at, deadline_ms, last_status, awaits_since,
            awaits_until
         FROM turnwise_jobs
         WHERE id = ?1 AND (node = ?2 AND token = ?3 OR ?4)
            AND (state = 'running' OR state = 'queued' AND ",
        goes_on_elsewhere!(),
        ")"
    ))
    .bind(job.to_string())
    .bind(node.to_string())
    .bind(token.0)
    .bind(B::plants(Bug::CallbackIgnoresClaim))
    .fetch_optional(&mut *connection)
    .await?;
    let Some(found) = found else { return Ok(false) };
    let (is_elsewhere, is_cancelled, started_at, scheduled_at, deadline_ms, last_status, ..) =
        found;
    let found = Found {
        is_elsewhere,
        is_cancelled,
        started_at,
        scheduled_at,
        deadline_ms,
        last_status,
        awaits_since: found.6,
        awaits_until: found.7,
    };
    let outages = outages(connection).await?;
    match Change::new(found, word, at, &outages) {
        Change::GoesOn { queued_at, scheduled_at, progress } => {
            let scheduled_at = scheduled_at.filter(|_| !B::plants(Bug::HeartbeatPutsOffNothing));
            sqlx::query(
                "UPDATE turnwise_jobs SET progress = coalesce(?2, progress), progress_note = coalesce(?3, progress_note),
                    queued_at = coalesce(?4, queued_at), scheduled_at = coalesce(?5, scheduled_at)
                 WHERE id = ?1",
            )
            .bind(job.to_string())
            .bind(progress.percent)
            .bind(rows::storable(progress.note.as_deref()))
            .bind(queued_at)
            .bind(scheduled_at)
            .execute(connection)
            .await?;
        }
        Change::Ended { state, finished_at, queued_at, scheduled_at, status, error, answer } => {
            let is_the_last = state == "succeeded";
            if is_the_last {
                sqlx::query(
                    "DELETE FROM turnwise_attempts WHERE (job, node, token) = (
                        SELECT id, node, token FROM turnwise_jobs WHERE id = ?1)",
                )
                .bind(job.to_string())
                .execute(&mut *connection)
                .await?;
            } else {
                sqlx::query(
                    "INSERT INTO turnwise_attempts
                        (job, node, token, attempt, started_at, finished_at, status, error, answer)
                     SELECT id, node, token, attempt, started_at, ?2, ?3, ?4, ?5 FROM turnwise_jobs WHERE id = ?1
                     ON CONFLICT (job, node, token) DO UPDATE SET
                        finished_at = excluded.finished_at, error = excluded.error, answer = excluded.answer",
                )
                .bind(job.to_string())
                .bind(at.as_micros())
                .bind(status)
                .bind(&error)
                .bind(answer)
                .execute(&mut *connection)
                .await?;
            }
            sqlx::query(
                "UPDATE turnwise_jobs SET state = ?2, finished_at = ?3, queued_at = ?4,
                    scheduled_at = coalesce(?5, scheduled_at), last_status = ?6, last_error = ?7, answer = ?8,
                    awaits_since = NULL
                 WHERE id = ?1",
            )
            .bind(job.to_string())
            .bind(state)
            .bind(finished_at)
            .bind(queued_at)
            .bind(scheduled_at)
            .bind(status)
            .bind(&error)
            .bind(answer.filter(|_| is_the_last))
            .execute(connection)
            .await?;
        }
    }
    Ok(true)
}
