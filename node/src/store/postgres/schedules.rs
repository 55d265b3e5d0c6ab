//! Schedules: which are due, and the firing of their times, each once. A function of the schema compares and sets.

use sqlx::FromRow;
use sqlx::postgres::PgRow;
use turnwise_engine::ServerInstant;

use super::statement::Statement;
use super::{PgStore, integer};
use crate::job::{JobId, Particulars};
use crate::store::StoreError;
use crate::store::errors::Trouble;
use crate::store::rows::headers_json;
use crate::store::schedules::{
    self, Columns, DUE_AT_ONCE, Fire, NewSchedule, ScheduleView, Schedules, limit_of,
};

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT s.name, s.cron, s.zone, s.misfire, s.misfire_limit::bigint, s.queue, s.method, s.url,
                turnwise.micros(s.paused_at), turnwise.micros(s.next_at), turnwise.micros(s.last_at),
                s.skipped, s.error, s.revision
             FROM turnwise.schedules s ",
            $rest
        )
    };
}

fn view(row: &PgRow) -> Result<ScheduleView, Trouble> {
    Ok(schedules::view(Columns::from_row(row)?))
}

impl PgStore {
    pub(super) async fn list_due_schedules(
        &self,
        until: ServerInstant,
    ) -> Result<(ServerInstant, Vec<ScheduleView>), StoreError> {
        let statement = Statement::of(select!(
            "WHERE (s.revision = 0 OR s.next_at <= turnwise.instant($1)) AND s.paused_at IS NULL
             ORDER BY s.revision > 0, s.next_at LIMIT $2"
        ))
        .bind(until.as_micros())
        .bind(i64::from(DUE_AT_ONCE));
        let found = self.ask(statement).await?;
        let clock = Statement::of("SELECT turnwise.micros(turnwise.clock())");
        let (now,): (i64,) = self.ask_for_one(clock).await?;
        let views: Result<Vec<_>, _> = found.iter().map(view).collect();
        let views = views.map_err(|trouble| self.trouble(trouble))?;
        Ok((ServerInstant::from_micros(now), views))
    }

    pub(super) async fn fire_schedule(&self, fire: &Fire) -> Result<bool, StoreError> {
        let jobs = fire.times.iter().map(|(_, job)| job);
        let statement = Statement::of(
            "SELECT turnwise.schedule_fire($1, $2, $3, $4::text[]::uuid[], $5, $6, $7, $8)",
        )
        .bind(fire.schedule.clone())
        .bind(fire.revision)
        .bind(fire.times.iter().map(|(at, _)| *at).collect::<Vec<_>>())
        .bind(jobs.map(JobId::to_string).collect::<Vec<_>>())
        .bind(fire.next)
        .bind(i64::try_from(fire.skipped).unwrap_or(i64::MAX))
        .bind(fire.error.clone())
        .bind(fire.forced);
        let (done,) = self.ask_for_one(statement).await?;
        Ok(done)
    }
}

impl Schedules for PgStore {
    async fn schedules(&self) -> Result<Vec<ScheduleView>, StoreError> {
        let found = self.ask(Statement::of(select!("ORDER BY s.name COLLATE \"C\""))).await?;
        found.iter().map(view).collect::<Result<_, _>>().map_err(|trouble| self.trouble(trouble))
    }

    async fn put_schedule(
        &self,
        schedule: &NewSchedule,
        next: Option<i64>,
    ) -> Result<bool, StoreError> {
        let job = &schedule.job;
        let said = Particulars::of(job).unwrap_or_default();
        // The row was inserted, and not updated, when no other transaction has deleted or locked it.
        let statement = Statement::of(
            "INSERT INTO turnwise.schedules AS s
                (name, cron, zone, misfire, misfire_limit, queue, method, url, headers, body, priority,
                max_attempts, deadline_ms, revision, next_at, retry_wait_ms, retry_wait_max_ms, asynchronous,
                heartbeat_ms, concurrency_key)
             VALUES ($1, $2, $3, $4, $5::bigint::integer, $6, $7, $8, $9::text::jsonb, ($10::bytea[])[1],
                $11::bigint::smallint, $12, $13, 1,
                turnwise.instant($14), $15, $16, $17::bigint <> 0, $18, $19)
             ON CONFLICT (name) DO UPDATE SET
                cron = excluded.cron, zone = excluded.zone, misfire = excluded.misfire,
                misfire_limit = excluded.misfire_limit, queue = excluded.queue, method = excluded.method,
                url = excluded.url, headers = excluded.headers, body = excluded.body,
                priority = excluded.priority, max_attempts = excluded.max_attempts,
                deadline_ms = excluded.deadline_ms, revision = s.revision + 1, next_at = excluded.next_at,
                error = NULL, retry_wait_ms = excluded.retry_wait_ms,
                retry_wait_max_ms = excluded.retry_wait_max_ms, asynchronous = excluded.asynchronous,
                heartbeat_ms = excluded.heartbeat_ms, concurrency_key = excluded.concurrency_key
             RETURNING s.xmax = 0",
        )
        .bind(schedule.name.clone())
        .bind(schedule.cron.clone())
        .bind(schedule.zone.clone())
        .bind(schedule.misfire.as_str())
        .bind(limit_of(schedule.misfire))
        .bind(job.queue.clone())
        .bind(job.method.clone())
        .bind(job.url.clone())
        .bind(headers_json(&job.headers))
        .bind(vec![job.body.as_deref()])
        .bind(i64::from(job.priority))
        .bind(integer(job.max_attempts))
        .bind(i64::try_from(job.deadline.as_millis()).unwrap_or(i64::MAX).max(1))
        .bind(next)
        .bind(said.retry_wait_ms)
        .bind(said.retry_wait_max_ms)
        .bind(said.asynchronous)
        .bind(said.heartbeat_ms)
        .bind(said.concurrency_key);
        let (new,) = self.ask_for_one(statement).await?;
        Ok(new)
    }

    async fn remove_schedule(&self, name: &str) -> Result<bool, StoreError> {
        let statement = Statement::of(
            "WITH firings AS (DELETE FROM turnwise.firings WHERE schedule = $1)
             DELETE FROM turnwise.schedules WHERE name = $1 RETURNING name",
        );
        Ok(!self.ask(statement.bind(name.to_owned())).await?.is_empty())
    }

    async fn pause_schedule(
        &self,
        name: &str,
        pause: bool,
        next: Option<i64>,
    ) -> Result<bool, StoreError> {
        let statement = Statement::of(
            "UPDATE turnwise.schedules SET revision = revision + 1,
                paused_at = CASE WHEN $2 THEN turnwise.clock() END, next_at = turnwise.instant($3),
                error = CASE WHEN $2 THEN error END
             WHERE name = $1 AND (paused_at IS NULL) = $2 RETURNING name",
        )
        .bind(name.to_owned())
        .bind(pause)
        .bind(next);
        Ok(!self.ask(statement).await?.is_empty())
    }
}
