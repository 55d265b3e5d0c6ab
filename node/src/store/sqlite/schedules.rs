//! Schedules: which are due, and the firing of their times, each once. The functions run inside a transaction of the caller's.

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use turnwise_engine::ServerInstant;

use super::{SqliteStore, Trouble, text};
use crate::job::Particulars;
use crate::sabotage::{Bug, Sabotage};
use crate::store::StoreError;
use crate::store::rows::headers_json;
use crate::store::schedules::{
    self, Columns, DUE_AT_ONCE, Fire, NewSchedule, ScheduleView, Schedules, limit_of,
};

/// So long are firings remembered, in microseconds: a week.
const REMEMBERED_US: i64 = 7 * 86_400_000_000;

macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT name, cron, zone, misfire, misfire_limit, queue, method, url, paused_at, next_at, last_at,
            skipped, error, revision FROM turnwise_schedules ", $rest)
    };
}

fn view(row: &SqliteRow) -> Result<ScheduleView, Trouble> {
    let words = |at| Ok::<_, Trouble>(text(row, at)?.unwrap_or_default());
    let columns: Columns = (
        words(0)?,
        words(1)?,
        words(2)?,
        words(3)?,
        row.try_get(4)?,
        words(5)?,
        words(6)?,
        words(7)?,
        row.try_get(8)?,
        row.try_get(9)?,
        row.try_get(10)?,
        row.try_get(11)?,
        text(row, 12)?,
        row.try_get(13)?,
    );
    Ok(schedules::view(columns))
}

/// The earliest time that is to be fired, or that a batch is to be looked at.
pub(super) async fn next(
    connection: &mut SqliteConnection,
) -> Result<Option<ServerInstant>, Trouble> {
    let next: Option<i64> = sqlx::query_scalar(
        "SELECT CASE WHEN EXISTS (SELECT 1 FROM turnwise_schedules WHERE revision = 0 AND paused_at IS NULL) THEN 0
            ELSE (SELECT min(at) FROM (
                SELECT min(next_at) AS at FROM turnwise_schedules WHERE next_at IS NOT NULL AND paused_at IS NULL
                UNION ALL SELECT min(look_at) FROM turnwise_batches WHERE look_at IS NOT NULL)) END",
    )
    .fetch_one(connection)
    .await?;
    Ok(next.map(ServerInstant::from_micros))
}

pub(super) async fn due(
    connection: &mut SqliteConnection,
    until: ServerInstant,
) -> Result<Vec<ScheduleView>, Trouble> {
    let found = sqlx::query(select!(
        "WHERE (revision = 0 OR next_at <= ?1) AND paused_at IS NULL ORDER BY revision > 0, next_at LIMIT ?2"
    ))
        .bind(until.as_micros())
        .bind(DUE_AT_ONCE)
        .fetch_all(connection)
        .await?;
    found.iter().map(view).collect()
}

pub(super) async fn fire<B: Sabotage>(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    fire: &Fire,
) -> Result<bool, Trouble> {
    let last = fire.times.last().map(|(at, _)| *at);
    let done = sqlx::query(
        "UPDATE turnwise_schedules SET revision = revision + 1, next_at = ?3, last_at = coalesce(?4, last_at),
            skipped = skipped + ?5, error = ?6
         WHERE name = ?1 AND revision = ?2 AND (?7 OR paused_at IS NULL)",
    )
    .bind(&fire.schedule)
    .bind(fire.revision)
    .bind(fire.next)
    .bind(last)
    .bind(i64::try_from(fire.skipped).unwrap_or(i64::MAX))
    .bind(&fire.error)
    .bind(fire.forced)
    .execute(&mut *connection)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    for (time, job) in &fire.times {
        let fired = sqlx::query(
            "INSERT OR IGNORE INTO turnwise_firings (schedule, at, job) VALUES (?1, ?2, ?3)",
        )
        .bind(&fire.schedule)
        .bind(time)
        .bind(job.to_string())
        .execute(&mut *connection)
        .await?;
        if fired.rows_affected() == 0 || B::plants(Bug::FiringHasNoJob) {
            continue;
        }
        sqlx::query(
            "INSERT INTO turnwise_jobs
                (id, queue, method, url, headers, body, priority, scheduled_at, created_at, queued_at,
                max_attempts, deadline_ms, retry_wait_ms, retry_wait_max_ms, asynchronous, heartbeat_ms, schedule,
                concurrency_key)
             SELECT ?1, queue, method, url, headers, body, priority, ?2, ?3, ?3, max_attempts, deadline_ms,
                retry_wait_ms, retry_wait_max_ms, asynchronous, heartbeat_ms, name, concurrency_key
             FROM turnwise_schedules WHERE name = ?4
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(job.to_string())
        .bind(time)
        .bind(at.as_micros())
        .bind(&fire.schedule)
        .execute(&mut *connection)
        .await?;
    }
    // What was fired long ago is not computed again.
    sqlx::query("DELETE FROM turnwise_firings WHERE schedule = ?1 AND at < ?2")
        .bind(&fire.schedule)
        .bind(at.as_micros().saturating_sub(REMEMBERED_US))
        .execute(connection)
        .await?;
    Ok(true)
}

impl<B: Sabotage> Schedules for SqliteStore<B> {
    async fn schedules(&self) -> Result<Vec<ScheduleView>, StoreError> {
        let mut connection = self.connection().await?;
        let found = sqlx::query(select!("ORDER BY name")).fetch_all(&mut *connection).await;
        connection.give_back();
        let found = found.map_err(|error| self.trouble(error.into()))?;
        found.iter().map(view).collect::<Result<_, _>>().map_err(|trouble| self.trouble(trouble))
    }

    async fn put_schedule(
        &self,
        schedule: &NewSchedule,
        next: Option<i64>,
    ) -> Result<bool, StoreError> {
        let mut connection = self.begin().await?;
        let done = put(&mut connection, self.now(), schedule, next).await;
        self.settle(connection, done).await
    }

    async fn remove_schedule(&self, name: &str) -> Result<bool, StoreError> {
        let mut connection = self.begin().await?;
        let done = remove(&mut connection, name).await;
        self.settle(connection, done).await
    }

    async fn pause_schedule(
        &self,
        name: &str,
        pause: bool,
        next: Option<i64>,
    ) -> Result<bool, StoreError> {
        let mut connection = self.begin().await?;
        let done = sqlx::query(
            "UPDATE turnwise_schedules SET revision = revision + 1, paused_at = iif(?2, ?3, NULL), next_at = ?4,
                error = iif(?2, error, NULL)
             WHERE name = ?1 AND (paused_at IS NULL) = ?2",
        )
        .bind(name)
        .bind(pause)
        .bind(self.now().as_micros())
        .bind(next)
        .execute(&mut *connection)
        .await
        .map_err(Trouble::from);
        Ok(self.settle(connection, done).await?.rows_affected() > 0)
    }
}

async fn remove(connection: &mut SqliteConnection, name: &str) -> Result<bool, Trouble> {
    sqlx::query("DELETE FROM turnwise_firings WHERE schedule = ?1")
        .bind(name)
        .execute(&mut *connection)
        .await?;
    let done = sqlx::query("DELETE FROM turnwise_schedules WHERE name = ?1")
        .bind(name)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

async fn put(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    schedule: &NewSchedule,
    next: Option<i64>,
) -> Result<bool, Trouble> {
    let there: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM turnwise_schedules WHERE name = ?1)")
            .bind(&schedule.name)
            .fetch_one(&mut *connection)
            .await?;
    let job = &schedule.job;
    let said = Particulars::of(job).unwrap_or_default();
    sqlx::query(
        "INSERT INTO turnwise_schedules
            (name, cron, zone, misfire, misfire_limit, queue, method, url, headers, body, priority,
            max_attempts, deadline_ms, created_at, revision, next_at, retry_wait_ms, retry_wait_max_ms,
            asynchronous, heartbeat_ms, concurrency_key)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, 1, ?15, ?16, ?17, ?18, ?19, ?20)
         ON CONFLICT (name) DO UPDATE SET
            cron = ?2, zone = ?3, misfire = ?4, misfire_limit = ?5, queue = ?6, method = ?7, url = ?8,
            headers = ?9, body = ?10, priority = ?11, max_attempts = ?12, deadline_ms = ?13,
            revision = revision + 1, next_at = ?15, error = NULL,
            retry_wait_ms = ?16, retry_wait_max_ms = ?17, asynchronous = ?18, heartbeat_ms = ?19,
            concurrency_key = ?20",
    )
    .bind(&schedule.name)
    .bind(&schedule.cron)
    .bind(&schedule.zone)
    .bind(schedule.misfire.as_str())
    .bind(limit_of(schedule.misfire))
    .bind(&job.queue)
    .bind(&job.method)
    .bind(&job.url)
    .bind(headers_json(&job.headers))
    .bind(job.body.as_deref())
    .bind(job.priority)
    .bind(i64::from(job.max_attempts))
    .bind(i64::try_from(job.deadline.as_millis()).unwrap_or(i64::MAX).max(1))
    .bind(at.as_micros())
    .bind(next)
    .bind(said.retry_wait_ms)
    .bind(said.retry_wait_max_ms)
    .bind(said.asynchronous)
    .bind(said.heartbeat_ms)
    .bind(said.concurrency_key)
    .execute(connection)
    .await?;
    Ok(!there)
}
