//! Batches: made, sealed, cancelled, and looked at for whether they have ended. The functions run inside a transaction of the
//! caller's.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use turnwise_engine::ServerInstant;

use super::{SqliteStore, Trouble, jobs, text};
use crate::batch::{
    After, BatchCounts, BatchId, BatchRefusal, BatchState, BatchView, FOLLOWERS_SHOWN, Follower,
    HELD_UNTIL_US, Need, NewBatch,
};
use crate::job::{JobId, NewJob, When};
use crate::sabotage::{Bug, Sabotage};
use crate::store::StoreError;
use crate::store::batches::{
    self, BATCH_CANCELLED, Batches, LOOK_EVERY, LOOK_EVERY_MOST, OF_ITS_AGE, SETTLED_AT_ONCE,
    SealAnswer, Settled, WAITED_IN_VAIN,
};
use crate::store::rows::{self, json};

/// An SQL literal for the time until which a job is put off that waits for a batch, [`HELD_UNTIL_US`].
macro_rules! held_until {
    () => {
        "9151488000000000"
    };
}
pub(super) use held_until;

/// Whether a job, in a table `j`, is put off until a batch has ended.
macro_rules! is_held {
    ($j:literal) => {
        concat!($j, "state = 'queued' AND ", $j, "scheduled_at = ", held_until!())
    };
}

async fn state(
    connection: &mut SqliteConnection,
    batch: BatchId,
) -> Result<Option<BatchState>, Trouble> {
    let found: Option<String> =
        sqlx::query_scalar("SELECT state FROM turnwise_batches WHERE id = ?1")
            .bind(batch.to_string())
            .fetch_optional(connection)
            .await?;
    found.map(|word| batches::state(batch, &word)).transpose()
}

/// Whether a job can be enqueued as far as batches go; the state of the one that it is to wait for.
pub(super) async fn check(
    connection: &mut SqliteConnection,
    job: &NewJob,
) -> Result<Option<BatchState>, Trouble> {
    if job.batch.is_none() && job.after.is_none() {
        return Ok(None);
    }
    // One that is there already stays as it is, though its batch may have ended.
    let is_there: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM turnwise_jobs WHERE id = ?1)")
            .bind(job.id.to_string())
            .fetch_one(&mut *connection)
            .await?;
    if is_there {
        return Ok(None);
    }
    if let Some(batch) = job.batch {
        match state(connection, batch).await? {
            None => return Err(BatchRefusal::Unknown(batch).into()),
            Some(state) if !state.goes_on() => {
                return Err(BatchRefusal::Ended(batch, state).into());
            }
            Some(_) => {}
        }
    }
    let Some(After { batch: after, .. }) = job.after else { return Ok(None) };
    if job.when != When::Now {
        return Err(BatchRefusal::TwoTimes.into());
    }
    let Some(state) = state(connection, after).await? else {
        return Err(BatchRefusal::Unknown(after).into());
    };
    if let Some(batch) = job.batch
        && waits_for(connection, after, batch).await?
    {
        return Err(BatchRefusal::Cycle(batch, after).into());
    }
    Ok(Some(state))
}

/// Whether a batch is another, or waits for it by a job of its own that has not ended.
async fn waits_for(
    connection: &mut SqliteConnection,
    batch: BatchId,
    other: BatchId,
) -> Result<bool, Trouble> {
    let waits = sqlx::query_scalar(
        "WITH RECURSIVE waited (batch) AS (
            SELECT ?1
            UNION
            SELECT w.batch FROM waited d
            JOIN turnwise_jobs j ON j.batch = d.batch AND j.state = 'queued'
            JOIN turnwise_waits w ON w.job = j.id
            JOIN turnwise_batches b ON b.id = w.batch AND b.state IN ('open', 'sealed'))
         SELECT EXISTS (SELECT 1 FROM waited WHERE batch = ?2)",
    )
    .bind(batch.to_string())
    .bind(other.to_string())
    .fetch_one(connection)
    .await?;
    Ok(waits)
}

/// Put off a job that was inserted just now until the batch has ended that it waits for, which is `state` by now.
pub(super) async fn put_off<B: Sabotage>(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    job: JobId,
    after: After,
    state: BatchState,
) -> Result<(), Trouble> {
    sqlx::query("INSERT INTO turnwise_waits (job, batch, on_success) VALUES (?1, ?2, ?3)")
        .bind(job.to_string())
        .bind(after.batch.to_string())
        .bind(after.need == Need::Success)
        .execute(&mut *connection)
        .await?;
    if state.goes_on() && B::plants(Bug::WaitingIsNotPutOff) {
        return Ok(());
    }
    if state.goes_on() {
        sqlx::query("UPDATE turnwise_jobs SET scheduled_at = ?2 WHERE id = ?1")
            .bind(job.to_string())
            .bind(HELD_UNTIL_US)
            .execute(connection)
            .await?;
    } else if let Some(why) = batches::in_vain(after.need, state) {
        cancel(connection, at, &[job], why).await?;
    }
    Ok(())
}

/// Cancel jobs that wait in vain.
async fn cancel(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    jobs: &[JobId],
    why: &str,
) -> Result<(), Trouble> {
    sqlx::query(
        "UPDATE turnwise_jobs SET state = 'cancelled', finished_at = ?2, last_error = ?3,
            cancel_requested = 1
         WHERE id IN (SELECT value FROM json_each(?1)) AND state = 'queued'",
    )
    .bind(json(&jobs)?)
    .bind(at.as_micros())
    .bind(why)
    .execute(connection)
    .await?;
    Ok(())
}

async fn make<B: Sabotage>(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    batch: &NewBatch,
) -> Result<Vec<JobId>, Trouble> {
    let all = batch.all_jobs();
    let made = sqlx::query(
        "INSERT INTO turnwise_batches (id, name, created_at) VALUES (?1, ?2, ?3)
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(batch.id.to_string())
    .bind(&batch.name)
    .bind(at.as_micros())
    .execute(&mut *connection)
    .await?;
    if made.rows_affected() == 0 {
        // Again, since an answer was lost: its jobs, or who holds their keys.
        let mut ids = Vec::with_capacity(all.len());
        for job in &all {
            let there = jobs::there(connection, job).await?;
            ids.push(there.ok_or(BatchRefusal::Exists(batch.id))?);
        }
        return Ok(ids);
    }
    let ids = jobs::enqueue::<B>(connection, at, &all).await?;
    if batch.is_sealed {
        seal(connection, at, batch.id).await?;
    }
    Ok(ids)
}

async fn seal(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    batch: BatchId,
) -> Result<SealAnswer, Trouble> {
    match state(connection, batch).await? {
        None => Ok(SealAnswer::Unknown),
        Some(BatchState::Open) => {
            sqlx::query("UPDATE turnwise_batches SET state = 'sealed', look_at = ?2 WHERE id = ?1")
                .bind(batch.to_string())
                .bind(at.as_micros())
                .execute(connection)
                .await?;
            Ok(SealAnswer::Sealed)
        }
        Some(state) => Ok(SealAnswer::Before(state)),
    }
}

/// The batch that these jobs are: `new`, where they are in none.
async fn batch_of(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    jobs: &BTreeSet<JobId>,
    new: BatchId,
) -> Result<BatchId, Trouble> {
    let ids = json(&jobs.iter().collect::<Vec<_>>())?;
    let found: Vec<(String, Option<String>)> = sqlx::query_as(
        "SELECT id, batch FROM turnwise_jobs WHERE id IN (SELECT value FROM json_each(?1))",
    )
    .bind(&ids)
    .fetch_all(&mut *connection)
    .await?;
    let mut of = BTreeMap::new();
    for (id, batch) in found {
        of.insert(rows::job_id(&id)?, batch.map(|batch| batches::id(&batch)).transpose()?);
    }
    let batch = match batches::common(jobs, &of)? {
        None => {
            sqlx::query(
                "INSERT INTO turnwise_batches (id, state, created_at, look_at)
                 VALUES (?1, 'sealed', ?2, ?2)",
            )
            .bind(new.to_string())
            .bind(at.as_micros())
            .execute(&mut *connection)
            .await?;
            sqlx::query(
                "UPDATE turnwise_jobs SET batch = ?2
                 WHERE id IN (SELECT value FROM json_each(?1))",
            )
            .bind(&ids)
            .bind(new.to_string())
            .execute(connection)
            .await?;
            new
        }
        Some((batch, first)) => {
            let in_all: i64 =
                sqlx::query_scalar("SELECT count(*) FROM turnwise_jobs WHERE batch = ?1")
                    .bind(batch.to_string())
                    .fetch_one(&mut *connection)
                    .await?;
            if in_all as usize != jobs.len() {
                return Err(BatchRefusal::OfAnother(first, batch).into());
            }
            let ended = state(connection, batch).await?.filter(|state| state.has_run_out());
            if let Some(ended) = ended {
                let now = counts(connection, &[batch]).await?.remove(&batch).unwrap_or_default();
                if !batches::still_holds(ended, &now) {
                    return Err(BatchRefusal::TriedAgain(batch, ended).into());
                }
            }
            batch
        }
    };
    Ok(batch)
}

/// Look at one batch: how it ended now, if it did, and those that are to be looked at because of it.
async fn settle_one<B: Sabotage>(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    batch: BatchId,
) -> Result<(Option<BatchState>, Vec<BatchId>), Trouble> {
    let created_at: Option<i64> = sqlx::query_scalar(
        "SELECT created_at FROM turnwise_batches WHERE id = ?1 AND state = 'sealed'",
    )
    .bind(batch.to_string())
    .fetch_optional(&mut *connection)
    .await?;
    let Some(created_at) = created_at else { return Ok((None, Vec::new())) };
    let unfinished: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM turnwise_jobs WHERE batch = ?1 AND state = 'queued')
            OR NOT ?2 AND EXISTS (SELECT 1 FROM turnwise_jobs WHERE batch = ?1 AND state = 'running')",
    )
    .bind(batch.to_string())
    .bind(B::plants(Bug::BatchForgetsWhatRuns))
    .fetch_one(&mut *connection)
    .await?;
    if unfinished {
        sqlx::query("UPDATE turnwise_batches SET look_at = ?2 WHERE id = ?1 AND (look_at < ?3 OR look_at > ?2)")
            .bind(batch.to_string())
            .bind(batches::next_look(at, created_at))
            .bind(batches::soon(at))
            .execute(connection)
            .await?;
        return Ok((None, Vec::new()));
    }
    let counts = counts(connection, &[batch]).await?.remove(&batch).unwrap_or_default();
    let ended = batches::end_of(&counts);
    sqlx::query(
        "UPDATE turnwise_batches SET state = ?2, ended_at = ?3, look_at = NULL,
            succeeded = ?4, dead = ?5, cancelled = ?6
         WHERE id = ?1",
    )
    .bind(batch.to_string())
    .bind(ended.as_str())
    .bind(at.as_micros())
    .bind(counts.succeeded as i64)
    .bind(counts.dead as i64)
    .bind(counts.cancelled as i64)
    .execute(&mut *connection)
    .await?;
    let mut again = Vec::new();
    if ended != BatchState::Succeeded && !B::plants(Bug::BatchFailureIsSuccess) {
        again = give_up(connection, at, batch, true, WAITED_IN_VAIN).await?;
    }
    sqlx::query(concat!(
        "UPDATE turnwise_jobs SET scheduled_at = ?2, queued_at = ?2
         WHERE id IN (SELECT job FROM turnwise_waits WHERE batch = ?1) AND ",
        is_held!("")
    ))
    .bind(batch.to_string())
    .bind(at.as_micros())
    .execute(connection)
    .await?;
    Ok((Some(ended), again))
}

/// Cancel what still waits for a batch, or only what waits for its success: the batches that are to be looked at because of it.
async fn give_up(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    batch: BatchId,
    on_success_only: bool,
    why: &str,
) -> Result<Vec<BatchId>, Trouble> {
    let found: Vec<(String, Option<String>)> = sqlx::query_as(concat!(
        "SELECT j.id, j.batch FROM turnwise_waits w JOIN turnwise_jobs j ON j.id = w.job
         WHERE w.batch = ?1 AND (w.on_success OR NOT ?2) AND ",
        is_held!("j.")
    ))
    .bind(batch.to_string())
    .bind(on_success_only)
    .fetch_all(&mut *connection)
    .await?;
    let (mut jobs, mut again) = (Vec::new(), Vec::new());
    for (job, batch) in found {
        jobs.push(rows::job_id(&job)?);
        again.extend(batch.map(|batch| batches::id(&batch)).transpose()?);
    }
    cancel(connection, at, &jobs, why).await?;
    Ok(again)
}

async fn settle<B: Sabotage>(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    batches: &[BatchId],
) -> Result<Settled, Trouble> {
    let mut settled = Settled::default();
    for batch in batches {
        let (ended, again) = settle_one::<B>(connection, at, *batch).await?;
        settled.ended.extend(ended.map(|state| (*batch, state)));
        settled.again.extend(again);
    }
    Ok(settled)
}

async fn cancel_batch(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    batch: BatchId,
) -> Result<Option<bool>, Trouble> {
    match state(connection, batch).await? {
        None => return Ok(None),
        Some(BatchState::Cancelled) => return Ok(Some(true)),
        Some(state) if !state.goes_on() => return Ok(Some(false)),
        Some(_) => {}
    }
    sqlx::query(
        "UPDATE turnwise_batches SET state = 'cancelled', ended_at = ?2, look_at = NULL WHERE id = ?1",
    )
    .bind(batch.to_string())
    .bind(at.as_micros())
    .execute(&mut *connection)
    .await?;
    give_up(connection, at, batch, false, BATCH_CANCELLED).await?;
    Ok(Some(true))
}

/// How many jobs of these batches are how far now.
async fn counts(
    connection: &mut SqliteConnection,
    of: &[BatchId],
) -> Result<BTreeMap<BatchId, BatchCounts>, Trouble> {
    let found: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT batch, state, count(*) FROM turnwise_jobs
         WHERE batch IS NOT NULL AND batch IN (SELECT value FROM json_each(?1))
         GROUP BY batch, state",
    )
    .bind(json(&of)?)
    .fetch_all(connection)
    .await?;
    batches::counts(found)
}

const COLUMNS: &str = "SELECT id, name, state, created_at, ended_at, succeeded, dead, cancelled
    FROM turnwise_batches ";

fn columns(row: &SqliteRow) -> Result<batches::Columns, Trouble> {
    Ok((
        text(row, 0)?.unwrap_or_default(),
        text(row, 1)?,
        text(row, 2)?.unwrap_or_default(),
        row.try_get(3)?,
        row.try_get(4)?,
        row.try_get(5)?,
        row.try_get(6)?,
        row.try_get(7)?,
    ))
}

async fn list(
    connection: &mut SqliteConnection,
    before: Option<BatchId>,
    limit: u32,
) -> Result<Vec<BatchView>, Trouble> {
    let found = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} WHERE ?1 IS NULL OR id < ?1 ORDER BY id DESC LIMIT ?2"
    )))
    .bind(before.map(|before| before.to_string()))
    .bind(limit)
    .fetch_all(&mut *connection)
    .await?;
    views(connection, &found).await
}

async fn views(
    connection: &mut SqliteConnection,
    found: &[SqliteRow],
) -> Result<Vec<BatchView>, Trouble> {
    let columns: Vec<batches::Columns> = found.iter().map(columns).collect::<Result<_, _>>()?;
    let live = counts(connection, &batches::without_counts(&columns)?).await?;
    columns.into_iter().map(|columns| batches::view(columns, &live)).collect()
}

async fn show(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    batch: BatchId,
) -> Result<Option<BatchView>, Trouble> {
    let found = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE id = ?1")))
        .bind(batch.to_string())
        .fetch_all(&mut *connection)
        .await?;
    let Some(mut view) = views(connection, &found).await?.pop() else { return Ok(None) };
    let followers = sqlx::query(
        "SELECT j.id, j.url, j.state, j.attempt, j.scheduled_at, w.on_success
         FROM turnwise_waits w JOIN turnwise_jobs j ON j.id = w.job
         WHERE w.batch = ?1 ORDER BY w.job LIMIT ?2",
    )
    .bind(batch.to_string())
    .bind(FOLLOWERS_SHOWN)
    .fetch_all(connection)
    .await?;
    let follower = |row: &SqliteRow| -> Result<Follower, Trouble> {
        let words = |at| Ok::<_, Trouble>(text(row, at)?.unwrap_or_default());
        let due = row.try_get::<i64, _>(4)? <= at.as_micros();
        let (id, url, state) = (words(0)?, words(1)?, words(2)?);
        batches::follower(&id, url, &state, row.try_get(3)?, due, row.try_get(5)?)
    };
    view.followers = followers.iter().map(follower).collect::<Result<_, _>>()?;
    Ok(Some(view))
}

async fn due(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    until: ServerInstant,
) -> Result<Vec<BatchId>, Trouble> {
    let (upto, ahead) = batches::due(at, until);
    let mut found: Vec<String> = sqlx::query_scalar(
        "SELECT id FROM turnwise_batches WHERE look_at IS NOT NULL AND look_at <= ?1
         ORDER BY look_at LIMIT ?2",
    )
    .bind(upto)
    .bind(SETTLED_AT_ONCE)
    .fetch_all(&mut *connection)
    .await?;
    let left = SETTLED_AT_ONCE.saturating_sub(found.len() as u32);
    let mut too_far: Vec<String> = sqlx::query_scalar(
        "SELECT id FROM turnwise_batches WHERE look_at IS NOT NULL AND look_at > ?1
            AND look_at > ?2 + min(max((?2 - created_at) / ?3, ?4), ?5)
         ORDER BY look_at LIMIT ?6",
    )
    .bind(ahead)
    .bind(at.as_micros())
    .bind(OF_ITS_AGE)
    .bind(LOOK_EVERY.as_micros() as i64)
    .bind(LOOK_EVERY_MOST.as_micros() as i64)
    .bind(left)
    .fetch_all(connection)
    .await?;
    found.append(&mut too_far);
    found.iter().map(|id| batches::id(id)).collect()
}

impl<B: Sabotage> SqliteStore<B> {
    pub(super) async fn list_due_batches(
        &self,
        until: ServerInstant,
    ) -> Result<Vec<BatchId>, StoreError> {
        let mut connection = self.connection().await?;
        let found = due(&mut connection, self.now(), until).await;
        connection.give_back();
        found.map_err(|trouble| self.trouble(trouble))
    }

    pub(super) async fn settle_batches(&self, of: &[BatchId]) -> Result<Settled, StoreError> {
        let mut connection = self.begin().await?;
        let done = settle::<B>(&mut connection, self.now(), of).await;
        self.settle(connection, done).await
    }
}

impl<B: Sabotage> Batches for SqliteStore<B> {
    async fn make_batch(&self, batch: &NewBatch) -> Result<Vec<JobId>, StoreError> {
        batches::check(batch)?;
        let mut connection = self.begin().await?;
        let done = make::<B>(&mut connection, self.now(), batch).await;
        self.settle(connection, done).await
    }

    async fn enqueue_after(
        &self,
        job: &NewJob,
        jobs: &[JobId],
        need: Need,
    ) -> Result<(BatchId, JobId), StoreError> {
        rows::check_lengths(std::slice::from_ref(job))?;
        let waited = batches::waited_for(jobs)?;
        let mut connection = self.begin().await?;
        let done = after::<B>(&mut connection, self.now(), job, &waited, need).await;
        self.settle(connection, done).await
    }

    async fn seal(&self, batch: BatchId) -> Result<SealAnswer, StoreError> {
        let mut connection = self.begin().await?;
        let done = seal(&mut connection, self.now(), batch).await;
        self.settle(connection, done).await
    }

    async fn cancel_batch(&self, batch: BatchId) -> Result<Option<bool>, StoreError> {
        let mut connection = self.begin().await?;
        let done = cancel_batch(&mut connection, self.now(), batch).await;
        self.settle(connection, done).await
    }

    async fn batches(
        &self,
        before: Option<BatchId>,
        limit: u32,
    ) -> Result<Vec<BatchView>, StoreError> {
        let mut connection = self.connection().await?;
        let found = list(&mut connection, before, limit).await;
        connection.give_back();
        found.map_err(|trouble| self.trouble(trouble))
    }

    async fn batch(&self, batch: BatchId) -> Result<Option<BatchView>, StoreError> {
        let mut connection = self.connection().await?;
        let found = show(&mut connection, self.now(), batch).await;
        connection.give_back();
        found.map_err(|trouble| self.trouble(trouble))
    }
}

async fn after<B: Sabotage>(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    job: &NewJob,
    waited: &BTreeSet<JobId>,
    need: Need,
) -> Result<(BatchId, JobId), Trouble> {
    // Again, since an answer was lost.
    let before: Option<String> =
        sqlx::query_scalar("SELECT batch FROM turnwise_waits WHERE job = ?1")
            .bind(job.id.to_string())
            .fetch_optional(&mut *connection)
            .await?;
    if let Some(batch) = before {
        return Ok((batches::id(&batch)?, job.id));
    }
    let batch = batch_of(connection, at, waited, BatchId::before(job.id)).await?;
    let job = NewJob { after: Some(After { batch, need }), ..job.clone() };
    let ids = jobs::enqueue::<B>(connection, at, &[job]).await?;
    let id = ids.first().ok_or_else(|| Trouble::corrupt("a job without an id".to_owned()))?;
    Ok((batch, *id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_until_which_jobs_are_held_is_written_as_it_is() {
        assert_eq!(held_until!(), HELD_UNTIL_US.to_string());
    }
}
