//! Statements on the jobs: recover, release, reconcile, enqueue, and what people ask and order. Claims and ends have files
//! of their own.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{FromRow, Row};
use turnwise_engine::{NodeId, Token};

use super::claims::{SEEN_COLUMNS, last_of};
use super::ends::bury;
use super::statement::{Statement, Wire};
use super::turns::{JOB_COLUMNS, claimed};
use super::{PgStore, check_in, integer};
use crate::batch::Need;
use crate::job::{Attempts, JobFilter, JobId, JobState, JobView, NewJob, Particulars, When};
use crate::store::batches;
use crate::store::ends::CANCELLED_ELSEWHERE;
use crate::store::errors::Trouble;
use crate::store::rows::{
    self, AttemptColumns, END_UNKNOWN, JobColumns, NOT_RECEIVED, headers_json, micros,
};
use crate::store::{ATTEMPTS_SHOWN, CheckIn, Claimed, InTransactionError, NodeReport, StoreError};

const VIEW_COLUMNS: &str =
    "SELECT j.id::text, j.queue, j.method, j.url, j.state, j.priority::bigint,
    j.attempt::bigint, j.max_attempts::bigint, turnwise.micros(j.scheduled_at),
    turnwise.micros(j.created_at), turnwise.micros(j.finished_at), j.node::text,
    j.last_status::bigint, j.last_error, turnwise.micros(c.now),
    CASE WHEN j.unique_key IS NOT NULL OR j.awaits_since IS NOT NULL OR j.progress IS NOT NULL
            OR j.progress_note IS NOT NULL OR j.retry_wait_ms IS NOT NULL OR j.retry_wait_max_ms IS NOT NULL
            OR j.asynchronous IS NOT NULL OR j.schedule IS NOT NULL OR j.batch IS NOT NULL
            OR j.concurrency_key IS NOT NULL OR j.parent IS NOT NULL
            OR j.scheduled_at = timestamptz '2260-01-01 00:00:00+00'
        THEN jsonb_build_object('unique_key', j.unique_key, 'awaits_since', turnwise.micros(j.awaits_since),
            'progress', jsonb_build_object('percent', j.progress, 'note', j.progress_note),
            'retry_wait_ms', j.retry_wait_ms, 'retry_wait_max_ms', j.retry_wait_max_ms,
            'asynchronous', j.asynchronous::integer, 'heartbeat_ms', j.heartbeat_ms, 'schedule', j.schedule, 'batch', j.batch,
            'concurrency_key', j.concurrency_key, 'parent', j.parent,
            'after', CASE WHEN j.state = 'queued' AND j.scheduled_at = timestamptz '2260-01-01 00:00:00+00'
                THEN (SELECT w.batch FROM turnwise.waits w WHERE w.job = j.id) END)::text
        END
    FROM (SELECT turnwise.clock() AS now OFFSET 0) c, ";

/// Whether a job's row `j` is the record of its last attempt: it succeeded, and no older binary wrote a row of `attempts`.
pub(super) const IS_ITS_LAST_ATTEMPT: &str = "(j.state = 'succeeded' AND NOT EXISTS (
    SELECT FROM turnwise.attempts o WHERE o.job = j.id AND o.node = j.node AND o.token = j.token))";

/// The jobs `j` that run, on a node or elsewhere.
const RUNNING: &str = "turnwise.jobs_that_run() j";

/// What becomes of a job `j` that is to run now; `h` holds the time.
macro_rules! retry_set {
    () => {
        "state = 'queued', scheduled_at = least(j.scheduled_at, h.now), queued_at = h.now,
                    max_attempts = greatest(j.max_attempts, j.attempt + 1),
                    hand_backs = 0, cancel_requested = false, finished_at = NULL, awaits_since = NULL"
    };
}
pub(super) use retry_set;

/// What becomes of a job `j` that is cancelled; `h` holds the time, and `$2` is what one says that goes on elsewhere.
macro_rules! cancel_set {
    () => {
        "state = CASE WHEN j.state = 'queued' THEN 'cancelled' ELSE j.state END,
                    finished_at = CASE WHEN j.state = 'queued' THEN h.now END,
                    last_error = CASE WHEN j.state = 'queued' AND j.awaits_since IS NOT NULL
                        THEN $2 ELSE j.last_error END,
                    cancel_requested = true"
    };
}
pub(super) use cancel_set;

/// What an update returns that cancels jobs `j`, as `done`; and then what tells the attempts of those that go on elsewhere.
macro_rules! told_of_attempts {
    () => {
        " RETURNING j.id, j.node, j.token, j.state = 'cancelled' AND j.awaits_since IS NOT NULL AS was_elsewhere),
             of_attempts AS (
                UPDATE turnwise.attempts a SET finished_at = h.now, error = $2
                FROM here h, done d
                WHERE d.was_elsewhere AND a.job = d.id AND a.node = d.node AND a.token = d.token)"
    };
}
pub(super) use told_of_attempts;

impl PgStore {
    pub(super) async fn recover_jobs(
        &self,
        node: NodeId,
        token: Token,
        report: &NodeReport,
    ) -> Result<Claimed, StoreError> {
        let statement = Statement::of(
            "SELECT * FROM turnwise.jobs_recovered(
                $1::text::uuid, $2::bigint, $3::integer, $4::bigint, $5::bigint, $6::bigint)",
        )
        .bind(node.to_string())
        .bind(token.0)
        .bind(integer(report.running))
        .bind(report.offset_us)
        .bind(report.offset_error_us)
        .bind(report.transit_us);
        let rows = self.ask(statement).await?;
        let read = || {
            let (last, rows) = last_of(&rows)?;
            let (jobs, unreadable, _) = claimed(rows)?;
            Ok((jobs, unreadable, last.try_get(JOB_COLUMNS + SEEN_COLUMNS)?))
        };
        let (jobs, unreadable, lost) = read().map_err(|trouble: Trouble| self.trouble(trouble))?;
        if !unreadable.is_empty() {
            self.ask(bury(node, &unreadable)).await?;
        }
        Ok(Claimed { jobs, check_in: check_in(lost), ..Claimed::default() })
    }

    pub(super) async fn release_jobs(
        &self,
        node: NodeId,
        token: Token,
        report: &NodeReport,
    ) -> Result<CheckIn, StoreError> {
        let statement = Statement::of(
            "SELECT turnwise.jobs_release(
                $1::text::uuid, $2::bigint, $3::text, $4::integer, $5::bigint, $6::bigint, $7::bigint)",
        )
        .bind(node.to_string())
        .bind(token.0)
        .bind(NOT_RECEIVED)
        .bind(integer(report.running))
        .bind(report.offset_us)
        .bind(report.offset_error_us)
        .bind(report.transit_us);
        let (lost,) = self.ask_for_one(statement).await?;
        self.put_back();
        Ok(check_in(lost))
    }

    pub(super) async fn reconcile_jobs(
        &self,
        node: NodeId,
        holds: &[(JobId, Token)],
        last: Token,
        report: &NodeReport,
    ) -> Result<Claimed, StoreError> {
        let statement = Statement::of(
            "SELECT turnwise.jobs_reconcile(
                $1::text::uuid, $2::text[], $3::bigint[], $4::bigint, $5::text,
                $6::integer, $7::bigint, $8::bigint, $9::bigint)",
        )
        .bind(node.to_string())
        .bind(holds.iter().map(|(job, _)| job.to_string()).collect::<Vec<_>>())
        .bind(holds.iter().map(|(_, token)| token.0).collect::<Vec<_>>())
        .bind(last.0)
        .bind(END_UNKNOWN)
        .bind(integer(report.running))
        .bind(report.offset_us)
        .bind(report.offset_error_us)
        .bind(report.transit_us);
        let rows = self.ask_on(self.new_connection().await?, statement).await?;
        let lost = rows.first().ok_or(sqlx::Error::RowNotFound).and_then(|row| row.try_get(0));
        let check_in = check_in(lost.map_err(|error| self.trouble(error.into()))?);
        self.put_back();
        Ok(Claimed { check_in, ..Claimed::default() })
    }

    pub(super) async fn enqueue_jobs(&self, jobs: &[NewJob]) -> Result<Vec<JobId>, StoreError> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        rows::check_lengths(jobs)?;
        batches::check_times(jobs)?;
        let (ids,): (Vec<String>,) = self.ask_for_one(enqueue(jobs)).await?;
        let ids: Result<Vec<JobId>, _> = ids.iter().map(|id| rows::job_id(id)).collect();
        ids.map_err(|trouble| self.trouble(trouble))
    }

    pub(super) async fn list_jobs(&self, filter: &JobFilter) -> Result<Vec<JobView>, StoreError> {
        // Each is an argument whether it is wanted or not, so that their numbers are what they are.
        let queue = if filter.queue.is_some() { " AND j.queue = $1" } else { "" };
        let before = if filter.before.is_some() { " AND j.id < $2::text::uuid" } else { "" };
        // By the index of batches alone: the newest job of all is not where one of a batch is looked for.
        let batch = if filter.batch.is_some() { " AND j.batch = $5::text::uuid" } else { "" };
        let state = state_condition(filter.state);
        let text = if filter.from.is_some() {
            // The ids say where to look. OFFSET 0 keeps the state out of that: an index of all the jobs of a state
            // looks dear or cheap by what the planner believes of their number, and would be read to its end.
            format!(
                "{VIEW_COLUMNS}(SELECT * FROM turnwise.jobs j WHERE j.id >= $3::text::uuid{before}{batch}
                    ORDER BY j.id DESC OFFSET 0) j
                 WHERE {state}{queue} ORDER BY j.id DESC LIMIT $4"
            )
        } else {
            let (jobs, state) = match filter.state {
                // By the index of each kind: they are few.
                Some(JobState::Running) => (RUNNING, "true"),
                _ => ("turnwise.jobs j", state),
            };
            format!(
                "{VIEW_COLUMNS}{jobs} WHERE {state}{queue}{before}{batch}
                 ORDER BY j.id DESC LIMIT $4"
            )
        };
        let statement = Statement::of(text)
            .bind(filter.queue.clone())
            .bind(filter.before.map(|before| before.to_string()))
            .bind(filter.from.map(|from| from.to_string()))
            .bind(i64::from(filter.limit))
            .bind(filter.batch.map(|batch| batch.to_string()));
        let found = self.ask(statement).await?;
        let view = |row: &PgRow| rows::job_view(JobColumns::from_row(row)?);
        let id = |row: &PgRow| row.try_get(0).ok();
        Ok(rows::readable_views(found.iter().map(|row| (id(row), view(row)))))
    }

    pub(super) async fn show_job(
        &self,
        id: JobId,
    ) -> Result<Option<(JobView, Attempts)>, StoreError> {
        let statement =
            Statement::of(format!("{VIEW_COLUMNS}turnwise.jobs j WHERE j.id = $1::text::uuid"));
        let found = self.ask(statement.bind(id.to_string())).await?;
        let Some(job) = found.first() else { return Ok(None) };
        let job = JobColumns::from_row(job).map_err(|error| self.trouble(error.into()))?;
        let job = rows::job_view(job).map_err(|trouble| self.trouble(trouble))?;
        let statement = Statement::of(format!(
            "SELECT a.*, (SELECT count(*) FROM turnwise.attempts WHERE job = $1::text::uuid)
                + (SELECT count(*) FROM turnwise.jobs j WHERE j.id = $1::text::uuid AND {succeeded})
             FROM (
                (SELECT attempt::bigint, node::text, turnwise.micros(started_at),
                    turnwise.micros(finished_at), status::bigint, error, answer
                 FROM turnwise.attempts e WHERE job = $1::text::uuid
                 ORDER BY e.attempt DESC, e.finished_at DESC LIMIT $2)
                UNION ALL
                SELECT attempt, node::text, turnwise.micros(started_at),
                    turnwise.micros(finished_at),
                    CASE WHEN state <> 'running' THEN last_status END,
                    CASE WHEN state <> 'running' THEN last_error END, answer
                FROM turnwise.jobs j
                WHERE j.id = $1::text::uuid AND (state = 'running' OR {succeeded})) a
             ORDER BY 1, 4 NULLS LAST",
            succeeded = IS_ITS_LAST_ATTEMPT
        ))
        .bind(id.to_string())
        .bind(i64::from(ATTEMPTS_SHOWN));
        let attempts = self.ask(statement).await?;
        let attempts = rows::attempts(attempts.iter().map(AttemptColumns::from_row));
        let attempts = attempts.map_err(|trouble| self.trouble(trouble))?;
        Ok(Some(rows::shown(job, attempts)))
    }

    pub(super) async fn retry_job(&self, id: JobId) -> Result<Option<bool>, StoreError> {
        self.alter_job(
            id,
            concat!(
                "WITH here AS MATERIALIZED (SELECT turnwise.clock() AS now), done AS (
                UPDATE turnwise.jobs j SET ",
                retry_set!(),
                " FROM here h
                WHERE j.id = $1::text::uuid
                    AND (j.state = 'queued' AND j.awaits_since IS NULL OR j.state IN ('dead', 'cancelled'))
                RETURNING 1)
             SELECT EXISTS (SELECT FROM done),
                EXISTS (SELECT FROM turnwise.jobs WHERE id = $1::text::uuid)"
            ),
            None,
        )
        .await
    }

    pub(super) async fn cancelled_jobs(
        &self,
        node: NodeId,
        held: &[(JobId, Token)],
    ) -> Result<Vec<(JobId, Token)>, StoreError> {
        let statement = Statement::of(
            "SELECT j.id::text, j.token FROM turnwise.jobs j
             WHERE j.id = ANY ($1::text[]::uuid[])
                AND (j.state = 'running' AND j.node = $2::text::uuid AND j.cancel_requested) IS TRUE",
        )
        .bind(held.iter().map(|(job, _)| job.to_string()).collect::<Vec<_>>())
        .bind(node.to_string());
        let found = self.ask(statement).await?;
        let found: Result<Vec<_>, _> = found.iter().map(<(String, i64)>::from_row).collect();
        found
            .map_err(Trouble::from)
            .and_then(|found| rows::those_held(found, held))
            .map_err(|trouble| self.trouble(trouble))
    }

    pub(super) async fn cancel_job(&self, id: JobId) -> Result<Option<bool>, StoreError> {
        self.alter_job(
            id,
            concat!(
                "WITH here AS MATERIALIZED (SELECT turnwise.clock() AS now), done AS (
                UPDATE turnwise.jobs j SET ",
                cancel_set!(),
                " FROM here h
                WHERE j.id = $1::text::uuid AND j.state IN ('queued', 'running')",
                told_of_attempts!(),
                " SELECT EXISTS (SELECT FROM done),
                EXISTS (SELECT FROM turnwise.jobs WHERE id = $1::text::uuid)"
            ),
            Some(CANCELLED_ELSEWHERE),
        )
        .await
    }

    /// Run a statement that alters one job, and says whether it did and whether there is such a job. `says`: its second argument.
    async fn alter_job(
        &self,
        id: JobId,
        sql: &'static str,
        says: Option<&str>,
    ) -> Result<Option<bool>, StoreError> {
        let statement = Statement::of(sql).bind(id.to_string());
        let statement = match says {
            Some(says) => statement.bind(says.to_owned()),
            None => statement,
        };
        let (done, exists): (bool, bool) = self.ask_for_one(statement).await?;
        Ok(exists.then_some(done))
    }
}

/// Enqueue jobs by a connection of the app's, in its transaction; their ids, as [`Store::enqueue`](crate::store::Store::enqueue)
/// has it. The connection talks to the server itself, not to a pooler that keeps no prepared statements.
///
/// # Errors
///
/// A part of a job is too long, and nothing was sent; or what the database said.
pub async fn enqueue_in(
    connection: &mut PgConnection,
    jobs: &[NewJob],
) -> Result<Vec<JobId>, InTransactionError> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    rows::check_lengths(jobs)?;
    batches::check_times(jobs)?;
    let statement = enqueue(jobs);
    let found = statement.ready(Wire::Prepared)?.rows(connection).await?;
    let ids: Vec<String> = found.first().ok_or(sqlx::Error::RowNotFound)?.try_get(0)?;
    let ids: Result<Vec<JobId>, Trouble> = ids.iter().map(|id| rows::job_id(id)).collect();
    Ok(ids?)
}

/// The arguments of a function that enqueues jobs, `$1` first.
macro_rules! job_arguments {
    () => {
        "$1::text[]::uuid[], $2::text[], $3::text[], $4::text[], $5::text[]::jsonb[], $6::bytea[],
            $7::smallint[]::integer[], $8::bigint[], $9::bigint[], $10::integer[], $11::bigint[],
            $12::text[], $13::bigint[], $14::text[]::jsonb[]"
    };
}
pub(super) use job_arguments;

/// Those that follow where jobs belong to batches or wait for them.
macro_rules! batch_arguments {
    () => {
        "$15::text[]::uuid[], $16::text[]::uuid[], $17::bigint[]::integer[]::boolean[]"
    };
}
pub(super) use batch_arguments;

/// What enqueues jobs, and answers their ids.
fn enqueue(jobs: &[NewJob]) -> Statement {
    if jobs.iter().any(|job| job.batch.is_some() || job.after.is_some()) {
        let text = concat!(
            "SELECT turnwise.jobs_enqueue_in(",
            job_arguments!(),
            ", ",
            batch_arguments!(),
            ")"
        );
        return bind_batches(bind_jobs(Statement::of(text), jobs), jobs);
    }
    bind_jobs(Statement::of(concat!("SELECT turnwise.jobs_enqueue(", job_arguments!(), ")")), jobs)
}

/// The statement with jobs as its first arguments.
pub(super) fn bind_jobs(statement: Statement, jobs: &[NewJob]) -> Statement {
    let (mut at, mut wait) = (Vec::new(), Vec::new());
    for job in jobs {
        let (job_at, job_wait) = match job.when {
            When::Now => (None, 0),
            When::In(duration) => (None, micros(duration)),
            When::At(instant) => (Some(instant.as_micros()), 0),
        };
        at.push(job_at);
        wait.push(job_wait);
    }
    let unique = |job: &NewJob| job.unique.as_ref().map(|unique| unique.key.as_str().to_owned());
    let window = |job: &NewJob| job.unique.as_ref().and_then(|unique| unique.window).map(micros);
    let said = |job: &NewJob| {
        let said = Particulars::of(job)?;
        serde_json::to_string(&said).ok()
    };
    statement
        .bind(jobs.iter().map(|job| job.id.to_string()).collect::<Vec<_>>())
        .bind(jobs.iter().map(|job| job.queue.as_str()).collect::<Vec<_>>())
        .bind(jobs.iter().map(|job| job.method.as_str()).collect::<Vec<_>>())
        .bind(jobs.iter().map(|job| job.url.as_str()).collect::<Vec<_>>())
        .bind(jobs.iter().map(|job| headers_json(&job.headers)).collect::<Vec<_>>())
        .bind(jobs.iter().map(|job| job.body.as_deref()).collect::<Vec<_>>())
        .bind(jobs.iter().map(|job| job.priority).collect::<Vec<_>>())
        .bind(at)
        .bind(wait)
        .bind(jobs.iter().map(|job| integer(job.max_attempts)).collect::<Vec<_>>())
        .bind(jobs.iter().map(deadline_ms).collect::<Vec<_>>())
        .bind(jobs.iter().map(unique).collect::<Vec<_>>())
        .bind(jobs.iter().map(window).collect::<Vec<_>>())
        .bind(jobs.iter().map(said).collect::<Vec<_>>())
}

/// And with their batches and what they wait for as the next ones.
pub(super) fn bind_batches(statement: Statement, jobs: &[NewJob]) -> Statement {
    let batch = |job: &NewJob| job.batch.map(|batch| batch.to_string());
    let after = |job: &NewJob| job.after.map(|after| after.batch.to_string());
    let need = |job: &NewJob| job.after.map(|after| i64::from(after.need == Need::Success));
    statement
        .bind(jobs.iter().map(batch).collect::<Vec<_>>())
        .bind(jobs.iter().map(after).collect::<Vec<_>>())
        .bind(jobs.iter().map(need).collect::<Vec<_>>())
}

fn state_condition(state: Option<JobState>) -> &'static str {
    match state {
        None => "true",
        Some(JobState::Ready) => {
            "j.state = 'queued' AND j.scheduled_at <= c.now AND j.awaits_since IS NULL"
        }
        Some(JobState::Scheduled) => {
            "j.state = 'queued' AND j.scheduled_at > c.now AND j.attempt = 0"
        }
        Some(JobState::Retrying) => {
            "j.state = 'queued' AND j.scheduled_at > c.now AND j.attempt > 0 AND j.awaits_since IS NULL"
        }
        Some(JobState::Running) => {
            "(j.state = 'running' OR j.state = 'queued' AND j.awaits_since IS NOT NULL)"
        }
        Some(JobState::Succeeded) => "j.state = 'succeeded'",
        Some(JobState::Dead) => "j.state = 'dead'",
        Some(JobState::Cancelled) => "j.state = 'cancelled'",
    }
}

fn deadline_ms(job: &NewJob) -> i64 {
    i64::try_from(job.deadline.as_millis()).unwrap_or(i64::MAX).max(1)
}
