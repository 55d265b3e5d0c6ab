//! What people look at. Each look is one reading statement; none reads more rows than it says.

use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row};
use turnwise_engine::{ServerInstant, Slot};

use super::PgStore;
use super::jobs::IS_ITS_LAST_ATTEMPT;
use super::statement::Statement;
use crate::job::JobId;
use crate::store::StoreError;
use crate::store::errors::Trouble;
use crate::store::rows::{self, RunColumns};
use crate::store::views::{
    BeatView, Capped, LANES_COUNTED_MAX, QueueView, RECENT_JOBS, RunView, Tally, Views,
};

/// Each lane's counts, then one row without a queue: running, dead, cancelled, and the number of lanes found.
const TALLY: &str = "
    WITH RECURSIVE here AS MATERIALIZED (SELECT turnwise.clock() AS now),
    elsewhere AS MATERIALIZED (
        SELECT e.queue, e.priority, count(*) FILTER (WHERE e.scheduled_at <= h.now) AS due,
            count(*) FILTER (WHERE e.scheduled_at > h.now) AS later
        FROM turnwise.jobs_elsewhere($1) e CROSS JOIN here h
        GROUP BY e.queue, e.priority
    ),
    lane (queue, priority, number) AS (
        (SELECT j.queue, j.priority, 1 FROM turnwise.jobs j
            WHERE j.state = 'queued' ORDER BY j.queue, j.priority LIMIT 1)
        UNION ALL
        SELECT n.queue, n.priority, l.number + 1
        FROM lane l CROSS JOIN LATERAL (
            (SELECT j.queue, j.priority FROM turnwise.jobs j
                WHERE j.state = 'queued' AND j.queue = l.queue AND j.priority > l.priority
                ORDER BY j.priority LIMIT 1)
            UNION ALL
            (SELECT j.queue, j.priority FROM turnwise.jobs j
                WHERE j.state = 'queued' AND j.queue > l.queue
                ORDER BY j.queue, j.priority LIMIT 1)
            LIMIT 1
        ) n
        WHERE l.number <= $2
    )
    SELECT l.queue,
        (SELECT count(*) FROM (SELECT FROM turnwise.jobs j WHERE j.state = 'queued'
            AND j.queue = l.queue AND j.priority = l.priority AND j.scheduled_at <= h.now
            LIMIT $1 + coalesce(e.due, 0)) c) - coalesce(e.due, 0),
        (SELECT count(*) FROM (SELECT FROM turnwise.jobs j WHERE j.state = 'queued'
            AND j.queue = l.queue AND j.priority = l.priority AND j.scheduled_at > h.now
            LIMIT $1 + coalesce(e.later, 0)) c) - coalesce(e.later, 0),
        (SELECT turnwise.micros(h.now) - turnwise.micros(j.scheduled_at) FROM turnwise.jobs j
            WHERE j.state = 'queued' AND j.queue = l.queue AND j.priority = l.priority
                AND j.scheduled_at <= h.now AND j.awaits_since IS NULL ORDER BY j.scheduled_at LIMIT 1),
        NULL::bigint, l.number::bigint
    FROM lane l CROSS JOIN here h LEFT JOIN elsewhere e ON e.queue = l.queue AND e.priority = l.priority
    WHERE l.number <= $2
    UNION ALL
    SELECT NULL,
        (SELECT count(*) FROM (SELECT FROM turnwise.jobs j WHERE j.state = 'running' LIMIT $1) c)
            + (SELECT coalesce(sum(e.due + e.later), 0)::bigint FROM elsewhere e),
        (SELECT count(*) FROM (SELECT FROM turnwise.jobs j WHERE j.state = 'dead' LIMIT $1) c),
        (SELECT count(*) FROM (SELECT FROM turnwise.jobs j WHERE j.state = 'cancelled' LIMIT $1) c),
        (SELECT max(l.number)::bigint FROM lane l), 0
    ORDER BY 6";

impl Views for PgStore {
    async fn beats(&self, after: Slot, limit: u32) -> Result<Vec<BeatView>, StoreError> {
        let statement = Statement::of(
            "SELECT slot, node::text, turnwise.micros(arrived_at), claimed::bigint
             FROM turnwise.beats WHERE slot > $1 ORDER BY slot LIMIT $2",
        )
        .bind(after.0)
        .bind(i64::from(limit));
        let found = self.ask(statement).await?;
        let found: Result<Vec<_>, _> = found.iter().map(FromRow::from_row).collect();
        let found = found.map_err(|error| self.trouble(error.into()))?;
        rows::beat_views(found).map_err(|trouble| self.trouble(trouble))
    }

    async fn runs(&self, since: ServerInstant, limit: u32) -> Result<Vec<RunView>, StoreError> {
        let statement = Statement::of(format!(
            "(SELECT j.id::text, j.queue, left(j.url, 200), j.node::text, j.attempt::bigint,
                turnwise.micros(j.started_at), NULL::bigint, false
             FROM turnwise.jobs j WHERE j.state = 'running' LIMIT $3)
             UNION ALL
             (SELECT j.id::text, j.queue, left(j.url, 200), a.node::text, a.attempt::bigint,
                turnwise.micros(a.started_at), turnwise.micros(a.finished_at), a.failed
             FROM (SELECT * FROM turnwise.jobs ORDER BY id DESC LIMIT $2) j
             CROSS JOIN LATERAL (
                (SELECT node, attempt, started_at, finished_at, error IS NOT NULL AS failed
                FROM turnwise.attempts WHERE job = j.id OFFSET 0)
                UNION ALL
                SELECT j.node, j.attempt, j.started_at, j.finished_at, false
                WHERE {IS_ITS_LAST_ATTEMPT}) a
             WHERE a.started_at >= turnwise.instant($1) LIMIT $3)"
        ))
        .bind(since.as_micros())
        .bind(i64::from(RECENT_JOBS))
        .bind(i64::from(limit));
        let found = self.ask(statement).await?;
        // A row that cannot be read hides no other.
        let run = |row: &PgRow| rows::run_view(RunColumns::from_row(row).ok()?).ok();
        Ok(found.iter().filter_map(run).collect())
    }

    async fn tally(&self, most: u32) -> Result<Tally, StoreError> {
        let statement = Statement::of(TALLY)
            .bind(i64::from(most) + 1)
            .bind(i32::try_from(LANES_COUNTED_MAX).unwrap_or(i32::MAX));
        let found = self.ask(statement).await?;
        let tally = tally(&found, most).map_err(Trouble::from);
        tally.map_err(|trouble| self.trouble(trouble))
    }

    async fn floor(&self, before: Option<JobId>, jobs: u32) -> Result<Option<JobId>, StoreError> {
        // `j.id`: by the name alone it would be sorted by the text, all of it.
        let statement = match before {
            Some(_) => Statement::of(
                "SELECT j.id::text FROM turnwise.jobs j WHERE j.id < $2::text::uuid
                 ORDER BY j.id DESC LIMIT 1 OFFSET $1",
            ),
            None => Statement::of(
                "SELECT j.id::text FROM turnwise.jobs j ORDER BY j.id DESC LIMIT 1 OFFSET $1",
            ),
        };
        let statement = statement.bind(i64::from(jobs.max(1)) - 1);
        let statement = match before {
            Some(before) => statement.bind(Some(before.to_string())),
            None => statement,
        };
        let found = self.ask(statement).await?;
        let id = found.first().map(|row| row.try_get::<String, _>(0)).transpose();
        let id = id.map_err(|error| self.trouble(error.into()))?;
        Ok(id.and_then(|id| id.parse().ok()))
    }
}

fn tally(found: &[PgRow], most: u32) -> Result<Tally, sqlx::Error> {
    let mut tally = Tally::default();
    for row in found {
        let count = |at| -> Result<Capped, sqlx::Error> {
            Ok(Capped::new(row.try_get::<Option<i64>, _>(at)?.unwrap_or(0), most))
        };
        match row.try_get::<Option<String>, _>(0)? {
            None => {
                (tally.running, tally.dead, tally.cancelled) = (count(1)?, count(2)?, count(3)?);
                let lanes: Option<i64> = row.try_get(4)?;
                tally.all_queues = lanes.unwrap_or(0) <= LANES_COUNTED_MAX;
            }
            Some(queue) => {
                let (ready, later) = (count(1)?, count(2)?);
                let lane = QueueView { queue, ready, later, oldest_us: row.try_get(3)? };
                tally.count_lane(lane, most);
            }
        }
    }
    Ok(tally)
}
