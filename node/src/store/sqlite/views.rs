//! What people look at. Each look is a few reading statements; none reads more rows than it says.

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use turnwise_engine::{ServerInstant, Slot};

use super::callbacks::goes_on_elsewhere;
use super::jobs::holds_an_attempt;
use super::text;
use super::{SqliteStore, Trouble};
use crate::job::JobId;
use crate::sabotage::Sabotage;
use crate::store::StoreError;
use crate::store::rows::{self, RunColumns};
use crate::store::views::{
    BeatView, Capped, Elsewhere, LANES_COUNTED_MAX, QueueView, RECENT_JOBS, RunView, Tally, Views,
};

impl<B: Sabotage> Views for SqliteStore<B> {
    async fn beats(&self, after: Slot, limit: u32) -> Result<Vec<BeatView>, StoreError> {
        let mut connection = self.connection().await?;
        let found = sqlx::query_as(
            "SELECT slot, node, arrived_at, claimed FROM turnwise_beats
             WHERE slot > ? ORDER BY slot LIMIT ?",
        )
        .bind(after.0)
        .bind(i64::from(limit))
        .fetch_all(&mut *connection)
        .await;
        connection.give_back();
        let found = found.map_err(Trouble::from).and_then(rows::beat_views);
        found.map_err(|trouble| self.trouble(trouble))
    }

    async fn runs(&self, since: ServerInstant, limit: u32) -> Result<Vec<RunView>, StoreError> {
        let mut connection = self.connection().await?;
        let found = runs(&mut connection, since, limit).await;
        connection.give_back();
        found.map_err(|trouble| self.trouble(trouble))
    }

    async fn tally(&self, most: u32) -> Result<Tally, StoreError> {
        let mut connection = self.connection().await?;
        let found = tally(&mut connection, self.now(), most).await;
        connection.give_back();
        found.map_err(|trouble| self.trouble(trouble))
    }

    async fn floor(&self, before: Option<JobId>, jobs: u32) -> Result<Option<JobId>, StoreError> {
        let mut connection = self.connection().await?;
        let found: Result<Option<String>, sqlx::Error> = sqlx::query_scalar(
            "SELECT id FROM turnwise_jobs WHERE id < coalesce(?, 'g') ORDER BY id DESC LIMIT 1 OFFSET ?",
        )
        .bind(before.map(|id| id.to_string()))
        .bind(i64::from(jobs.max(1)) - 1)
        .fetch_optional(&mut *connection)
        .await;
        connection.give_back();
        let found = found.map_err(|error| self.trouble(error.into()))?;
        Ok(found.and_then(|id| id.parse().ok()))
    }
}

async fn runs(
    connection: &mut SqliteConnection,
    since: ServerInstant,
    limit: u32,
) -> Result<Vec<RunView>, Trouble> {
    let run = |row: &SqliteRow| -> Result<RunView, Trouble> {
        let columns: RunColumns = (
            text(row, 0)?.unwrap_or_default(),
            text(row, 1)?.unwrap_or_default(),
            text(row, 2)?.unwrap_or_default(),
            text(row, 3)?.unwrap_or_default(),
            row.try_get(4)?,
            row.try_get(5)?,
            row.try_get(6)?,
            row.try_get(7)?,
        );
        rows::run_view(columns)
    };
    let running = sqlx::query(
        "SELECT id, queue, substr(url, 1, 200), node, attempt, started_at, NULL, 0
         FROM turnwise_jobs WHERE state = 'running' LIMIT ?",
    )
    .bind(i64::from(limit))
    .fetch_all(&mut *connection)
    .await?;
    // CROSS JOIN: SQLite reads the tables in this order.
    let ended = sqlx::query(concat!(
        "WITH newest AS MATERIALIZED (
            SELECT id, queue, substr(url, 1, 200) AS url, state, node, token, attempt, started_at, finished_at,
                last_error
            FROM turnwise_jobs ORDER BY id DESC LIMIT ?2)
         SELECT j.id, j.queue, j.url, a.node, a.attempt, a.started_at, a.finished_at, a.error IS NOT NULL
         FROM newest j CROSS JOIN turnwise_attempts a
         WHERE a.job = j.id AND a.started_at >= ?1
         UNION ALL
         SELECT j.id, j.queue, j.url, j.node, j.attempt, j.started_at, j.finished_at, j.last_error IS NOT NULL
         FROM newest j WHERE j.state = 'succeeded' AND j.started_at >= ?1 AND ",
        holds_an_attempt!(),
        " LIMIT ?3"
    ))
    .bind(since.as_micros())
    .bind(i64::from(RECENT_JOBS))
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    // A row that cannot be read hides no other.
    Ok(running.iter().chain(&ended).filter_map(|row| run(row).ok()).collect())
}

async fn tally(
    connection: &mut SqliteConnection,
    now: ServerInstant,
    most: u32,
) -> Result<Tally, Trouble> {
    let lanes: Vec<(Vec<u8>, i64)> = sqlx::query_as(
        "WITH RECURSIVE lane (queue, priority) AS (
            SELECT * FROM (SELECT queue, priority FROM turnwise_jobs
                WHERE state = 'queued' ORDER BY queue, priority LIMIT 1)
            UNION ALL
            SELECT n.queue, n.priority FROM lane l, turnwise_jobs n
            WHERE n.rowid = coalesce(
                (SELECT j.rowid FROM turnwise_jobs j WHERE j.state = 'queued'
                    AND j.queue = l.queue AND j.priority > l.priority
                    ORDER BY j.priority LIMIT 1),
                (SELECT j.rowid FROM turnwise_jobs j WHERE j.state = 'queued'
                    AND j.queue > l.queue ORDER BY j.queue, j.priority LIMIT 1))
            LIMIT ?
         )
         SELECT CAST(queue AS BLOB), priority FROM lane",
    )
    .bind(LANES_COUNTED_MAX + 1)
    .fetch_all(&mut *connection)
    .await?;
    let lanes_max = usize::try_from(LANES_COUNTED_MAX).unwrap_or(usize::MAX);
    let mut tally = Tally { all_queues: lanes.len() <= lanes_max, ..Tally::default() };
    let elsewhere = elsewhere(connection, now, most).await?;
    for (queue, priority) in lanes.into_iter().take(lanes_max) {
        let name = String::from_utf8_lossy(&queue).into_owned();
        let (due_there, later_there) = elsewhere.of(&name, priority);
        let (ready, later, oldest): (i64, i64, Option<i64>) = sqlx::query_as(concat!(
            "SELECT
                (SELECT count(*) FROM (SELECT 1 FROM turnwise_jobs WHERE state = 'queued'
                    AND queue = CAST(?1 AS TEXT) AND priority = ?2 AND scheduled_at <= ?3 LIMIT ?4 + ?5)),
                (SELECT count(*) FROM (SELECT 1 FROM turnwise_jobs WHERE state = 'queued'
                    AND queue = CAST(?1 AS TEXT) AND priority = ?2 AND scheduled_at > ?3 LIMIT ?4 + ?6)),
                (SELECT scheduled_at FROM turnwise_jobs WHERE state = 'queued'
                    AND queue = CAST(?1 AS TEXT) AND priority = ?2 AND scheduled_at <= ?3 AND NOT ",
            goes_on_elsewhere!(),
            " ORDER BY scheduled_at LIMIT 1)"
        ))
        .bind(&queue)
        .bind(priority)
        .bind(now.as_micros())
        .bind(i64::from(most) + 1)
        .bind(due_there)
        .bind(later_there)
        .fetch_one(&mut *connection)
        .await?;
        let lane = QueueView {
            queue: name,
            ready: Capped::new(ready - due_there, most),
            later: Capped::new(later - later_there, most),
            oldest_us: oldest.map(|oldest| now.as_micros() - oldest),
        };
        tally.count_lane(lane, most);
    }
    for (state, count) in [
        ("running", &mut tally.running),
        ("dead", &mut tally.dead),
        ("cancelled", &mut tally.cancelled),
    ] {
        // The state stands in the text: an index for some states is of use only where they are named.
        let sql = format!(
            "SELECT count(*) FROM (SELECT 1 FROM turnwise_jobs WHERE state = '{state}' LIMIT ?)"
        );
        let counted: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .bind(i64::from(most) + 1)
            .fetch_one(&mut *connection)
            .await?;
        *count = Capped::new(counted, most);
    }
    tally.running.add(Capped::new(elsewhere.in_all(), most), most);
    Ok(tally)
}

/// Those that go on elsewhere, at most one more than `most`.
async fn elsewhere(
    connection: &mut SqliteConnection,
    now: ServerInstant,
    most: u32,
) -> Result<Elsewhere, Trouble> {
    let found: Vec<(Vec<u8>, i64, bool, i64)> = sqlx::query_as(concat!(
        "SELECT CAST(queue AS BLOB), priority, is_due, count(*) FROM (
            SELECT queue, priority, scheduled_at <= ?1 AS is_due FROM turnwise_jobs
            WHERE awaits_since IS NOT NULL AND +state = 'queued' AND ",
        goes_on_elsewhere!(),
        " LIMIT ?2)
         GROUP BY queue, priority, is_due"
    ))
    .bind(now.as_micros())
    .bind(i64::from(most) + 1)
    .fetch_all(connection)
    .await?;
    let mut elsewhere = Elsewhere::default();
    for (queue, priority, is_due, jobs) in found {
        elsewhere.add(String::from_utf8_lossy(&queue).into_owned(), priority, is_due, jobs);
    }
    Ok(elsewhere)
}
