//! Schedules: which are due, and the firing of their times, each once. A row is compared and set under its lock.

use sqlx::FromRow;
use sqlx::mysql::MySqlRow;
use turnwise_engine::ServerInstant;

use super::literals::{bytes_or_null, instant, number_or_null, text, text_or_null};
use super::{MySqlStore, inserts, micros_of};
use crate::job::Particulars;
use crate::store::StoreError;
use crate::store::errors::Trouble;
use crate::store::rows::headers_json;
use crate::store::schedules::{
    self, Columns, DUE_AT_ONCE, Fire, NewSchedule, ScheduleView, Schedules, limit_of,
};

/// An SQL expression for the earliest time that is to be fired, or at which a batch is to be looked at, in microseconds. What is
/// missing counts as the last time that there is.
pub(super) const NEXT: &str = concat!(
    "NULLIF(LEAST(COALESCE((SELECT ",
    micros_of!("MIN(s.due_at)"),
    " FROM turnwise_schedules s WHERE s.due_at IS NOT NULL), 9223372036854775807),
        COALESCE((SELECT ",
    micros_of!("b.look_at"),
    " FROM turnwise_batches b FORCE INDEX (turnwise_batches_look)
            WHERE b.look_at IS NOT NULL ORDER BY b.look_at LIMIT 1), 9223372036854775807)), 9223372036854775807)"
);

/// What is not known when a row is inserted: an instant, or none.
fn instant_or_null(micros: Option<i64>) -> String {
    micros.map_or_else(|| "NULL".to_owned(), instant)
}

fn select(rest: &str) -> String {
    format!(
        "SELECT name, cron, zone, misfire, misfire_limit, queue, method, url, {}, {}, {}, skipped, error, revision
         FROM turnwise_schedules {rest}",
        micros_of!("paused_at"),
        micros_of!("next_at"),
        micros_of!("last_at"),
    )
}

fn view(row: &MySqlRow) -> Result<ScheduleView, Trouble> {
    Ok(schedules::view(Columns::from_row(row)?))
}

impl MySqlStore {
    pub(super) async fn list_due_schedules(
        &self,
        until: ServerInstant,
    ) -> Result<(ServerInstant, Vec<ScheduleView>), StoreError> {
        let found = self
            .run(select(&format!(
                "WHERE due_at <= {} ORDER BY due_at LIMIT {DUE_AT_ONCE}",
                instant(until.as_micros())
            )))
            .await?;
        let now = self.run(format!("SELECT {}", self.now())).await?;
        let now: i64 = self.column(self.one(&now)?, 0)?;
        let views: Result<Vec<_>, _> = found.iter().map(view).collect();
        let views = views.map_err(|trouble| self.trouble(trouble))?;
        Ok((ServerInstant::from_micros(now), views))
    }

    pub(super) async fn fire_schedule(&self, fire: &Fire) -> Result<bool, StoreError> {
        let name = text(&fire.schedule);
        let times: Vec<String> = fire.times.iter().map(|(at, _)| instant(*at)).collect();
        let known = match times.is_empty() {
            true => String::new(),
            false => format!(
                "; SELECT {} FROM turnwise_firings WHERE schedule = {name} AND at IN ({})",
                micros_of!("at"),
                times.join(", ")
            ),
        };
        let read = format!(
            "SELECT revision, paused_at IS NOT NULL, {} FROM turnwise_schedules WHERE name = {name}
             FOR UPDATE SKIP LOCKED",
            self.now()
        );
        let (mut session, found) = self.begin(self.session().await?, &read).await?;
        let Some(row) = found.first() else {
            self.commit(session, Vec::new()).await?;
            return Ok(false);
        };
        let (revision, paused): (i64, bool) = (self.column(row, 0)?, self.column(row, 1)?);
        let now: i64 = self.column(row, 2)?;
        if revision != fire.revision || paused && !fire.forced {
            self.commit(session, Vec::new()).await?;
            return Ok(false);
        }
        let mut fired = Vec::new();
        if !known.is_empty() {
            for row in self.ask(&mut session, known.trim_start_matches("; ").to_owned()).await? {
                fired.push(self.column::<i64>(&row, 0)?);
            }
        }
        let new = || fire.times.iter().filter(|(at, _)| !fired.contains(at));
        let last = fire.times.last().map_or_else(|| "last_at".to_owned(), |(at, _)| instant(*at));
        let mut writes = vec![format!(
            "UPDATE turnwise_schedules SET revision = revision + 1, next_at = {}, last_at = {last},
                skipped = skipped + {}, error = {}
             WHERE name = {name}",
            instant_or_null(fire.next),
            fire.skipped,
            text_or_null(fire.error.as_deref()),
        )];
        writes.extend(inserts(
            "INSERT INTO turnwise_firings (schedule, at, job) VALUES ",
            new().map(|(at, job)| format!("({name}, {}, '{job}')", instant(*at))),
            "",
        ));
        writes.extend(new().map(|(at, job)| {
            format!(
                "INSERT INTO turnwise_jobs
                    (id, queue, method, url, headers, body, priority, scheduled_at, created_at, queued_at,
                    max_attempts, deadline_ms, retry_wait_ms, retry_wait_max_ms, asynchronous, heartbeat_ms, schedule,
                    concurrency_key)
                 SELECT '{job}', s.queue, s.method, s.url, s.headers, s.body, s.priority, {}, {now}, {now},
                    s.max_attempts, s.deadline_ms, s.retry_wait_ms, s.retry_wait_max_ms, s.asynchronous,
                    s.heartbeat_ms, s.name, s.concurrency_key
                 FROM turnwise_schedules s WHERE s.name = {name}
                 ON DUPLICATE KEY UPDATE id = turnwise_jobs.id",
                instant(*at),
                now = instant(now)
            )
        }));
        // What was fired long ago is not computed again.
        writes.push(format!(
            "DELETE FROM turnwise_firings WHERE schedule = {name} AND at < {} - INTERVAL 7 DAY",
            instant(now)
        ));
        self.commit(session, writes).await?;
        Ok(true)
    }
}

impl Schedules for MySqlStore {
    async fn schedules(&self) -> Result<Vec<ScheduleView>, StoreError> {
        let found = self.run(select("ORDER BY name")).await?;
        found.iter().map(view).collect::<Result<_, _>>().map_err(|trouble| self.trouble(trouble))
    }

    async fn put_schedule(
        &self,
        schedule: &NewSchedule,
        next: Option<i64>,
    ) -> Result<bool, StoreError> {
        let (name, job) = (text(&schedule.name), &schedule.job);
        let said = Particulars::of(job).unwrap_or_default();
        let read = format!("SELECT 1 FROM turnwise_schedules WHERE name = {name} FOR UPDATE");
        let (session, found) = self.begin(self.session().await?, &read).await?;
        let values = [
            ("cron", text(&schedule.cron)),
            ("zone", text(&schedule.zone)),
            ("misfire", text(schedule.misfire.as_str())),
            ("misfire_limit", limit_of(schedule.misfire).to_string()),
            ("queue", text(&job.queue)),
            ("method", text(&job.method)),
            ("url", text(&job.url)),
            ("headers", text_or_null(headers_json(&job.headers).as_deref())),
            ("body", bytes_or_null(job.body.as_deref())),
            ("priority", job.priority.to_string()),
            ("max_attempts", job.max_attempts.to_string()),
            (
                "deadline_ms",
                i64::try_from(job.deadline.as_millis()).unwrap_or(i64::MAX).max(1).to_string(),
            ),
            ("next_at", instant_or_null(next)),
            ("retry_wait_ms", number_or_null(said.retry_wait_ms)),
            ("retry_wait_max_ms", number_or_null(said.retry_wait_max_ms)),
            ("asynchronous", number_or_null(said.asynchronous)),
            ("heartbeat_ms", number_or_null(said.heartbeat_ms)),
            ("concurrency_key", bytes_or_null(said.concurrency_key.as_deref().map(str::as_bytes))),
        ];
        let columns: Vec<&str> = values.iter().map(|(column, _)| *column).collect();
        let new: Vec<&str> = values.iter().map(|(_, value)| value.as_str()).collect();
        let set: Vec<String> =
            values.iter().map(|(column, value)| format!("{column} = {value}")).collect();
        let write = format!(
            "INSERT INTO turnwise_schedules (name, revision, {}) VALUES ({name}, 1, {})
             ON DUPLICATE KEY UPDATE revision = revision + 1, error = NULL, {}",
            columns.join(", "),
            new.join(", "),
            set.join(", ")
        );
        self.commit(session, vec![write]).await?;
        Ok(found.is_empty())
    }

    async fn remove_schedule(&self, name: &str) -> Result<bool, StoreError> {
        let name = text(name);
        let read = format!("SELECT 1 FROM turnwise_schedules WHERE name = {name} FOR UPDATE");
        let (session, found) = self.begin(self.session().await?, &read).await?;
        let writes = ["schedules WHERE name", "firings WHERE schedule"]
            .map(|table| format!("DELETE FROM turnwise_{table} = {name}"));
        self.commit(session, writes.to_vec()).await?;
        Ok(!found.is_empty())
    }

    async fn pause_schedule(
        &self,
        name: &str,
        pause: bool,
        next: Option<i64>,
    ) -> Result<bool, StoreError> {
        let name = text(name);
        let read = format!(
            "SELECT paused_at IS NOT NULL, {} FROM turnwise_schedules WHERE name = {name} FOR UPDATE",
            self.now()
        );
        let (session, found) = self.begin(self.session().await?, &read).await?;
        let Some(row) = found.first() else {
            self.commit(session, Vec::new()).await?;
            return Ok(false);
        };
        let (was_paused, now): (bool, i64) = (self.column(row, 0)?, self.column(row, 1)?);
        let write = format!(
            "UPDATE turnwise_schedules SET revision = revision + 1, error = {}, paused_at = {}, next_at = {}
             WHERE name = {name}",
            if pause { "error" } else { "NULL" },
            instant_or_null(pause.then_some(now)),
            instant_or_null(next)
        );
        self.commit(session, if was_paused == pause { Vec::new() } else { vec![write] }).await?;
        Ok(was_paused != pause)
    }
}
