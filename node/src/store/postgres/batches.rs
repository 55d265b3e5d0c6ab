//! Batches: made, sealed, cancelled, and looked at for whether they have ended, by functions of the schema.

use std::collections::BTreeMap;

use sqlx::postgres::{PgDatabaseError, PgRow};
use sqlx::{FromRow, Row};
use turnwise_engine::ServerInstant;

use super::PgStore;
use super::jobs::{batch_arguments, bind_batches, bind_jobs, job_arguments};
use super::statement::Statement;
use crate::batch::{
    BatchCounts, BatchId, BatchRefusal, BatchState, BatchView, FOLLOWERS_SHOWN, Follower, Need,
    NewBatch,
};
use crate::job::{JobId, NewJob};
use crate::store::StoreError;
use crate::store::batches::{self, Batches, SETTLED_AT_ONCE, SealAnswer, Settled};
use crate::store::errors::Trouble;
use crate::store::rows;

/// What the schema refuses, by its SQLSTATE and its detail; none: it is another error.
pub(super) fn refusal(error: &sqlx::Error) -> Option<BatchRefusal> {
    let error = error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?;
    read_refusal(error.code(), error.detail()?)
}

fn read_refusal(code: &str, detail: &str) -> Option<BatchRefusal> {
    let mut words = detail.split(' ');
    let (first, second) = (words.next()?, words.next());
    let batch = |word: &str| word.parse::<BatchId>().ok();
    let job = |word: &str| word.parse::<JobId>().ok();
    Some(match code {
        "TWB01" => BatchRefusal::Unknown(batch(first)?),
        "TWB02" => BatchRefusal::Ended(batch(first)?, BatchState::named(second?)?),
        "TWB03" => BatchRefusal::Cycle(batch(first)?, batch(second?)?),
        "TWB04" => BatchRefusal::NoJob(job(first)?),
        "TWB05" => BatchRefusal::OfAnother(job(first)?, batch(second?)?),
        "TWB07" => BatchRefusal::TriedAgain(batch(first)?, BatchState::named(second?)?),
        "TWB06" => BatchRefusal::Exists(batch(first)?),
        _ => return None,
    })
}

const COLUMNS: &str =
    "SELECT b.id::text, b.name, b.state, turnwise.micros(b.created_at), turnwise.micros(b.ended_at),
        b.succeeded, b.dead, b.cancelled
     FROM turnwise.batches b ";

/// As [`batches::due`] has it, with the times that `turnwise.batch_settle` writes down.
const DUE: &str = "SELECT d.id::text
    FROM (SELECT turnwise.clock() AS now OFFSET 0) c CROSS JOIN LATERAL (
        (SELECT b.id, b.look_at FROM turnwise.batches b
        WHERE b.look_at IS NOT NULL
            AND b.look_at <= CASE WHEN $3 THEN c.now + interval '2.5 s' ELSE turnwise.instant($1) END
        ORDER BY b.look_at LIMIT $2)
        UNION ALL
        (SELECT b.id, b.look_at FROM turnwise.batches b
        WHERE b.look_at IS NOT NULL
            AND b.look_at > c.now + CASE WHEN $3 THEN interval '5 s' ELSE interval '60 s' END
            AND b.look_at > c.now + least(greatest((c.now - b.created_at) / 20, interval '5 s'), interval '60 s')
        ORDER BY b.look_at LIMIT $2)
    ) d
    ORDER BY d.look_at LIMIT $2";

impl PgStore {
    pub(super) async fn list_due_batches(
        &self,
        until: ServerInstant,
    ) -> Result<Vec<BatchId>, StoreError> {
        let statement = Statement::of(DUE)
            .bind(until.as_micros())
            .bind(i64::from(SETTLED_AT_ONCE))
            .bind(batches::is_anew(until));
        let found = self.ask(statement).await?;
        let id = |row: &PgRow| batches::id(row.try_get(0)?);
        found.iter().map(id).collect::<Result<_, _>>().map_err(|trouble| self.trouble(trouble))
    }

    pub(super) async fn settle_batches(&self, of: &[BatchId]) -> Result<Settled, StoreError> {
        let statement = Statement::of(
            "SELECT s.batch, s.ended FROM turnwise.batches_settle($1::text[]::uuid[]) s",
        )
        .bind(of.iter().map(BatchId::to_string).collect::<Vec<_>>());
        let found = self.ask(statement).await?;
        let read = || {
            let mut settled = Settled::default();
            for row in &found {
                let (id, ended) = <(String, Option<String>)>::from_row(row)?;
                let batch = batches::id(&id)?;
                match ended {
                    Some(word) => settled.ended.push((batch, batches::state(batch, &word)?)),
                    None => settled.again.push(batch),
                }
            }
            Ok(settled)
        };
        read().map_err(|trouble: Trouble| self.trouble(trouble))
    }

    /// The live counts of these batches.
    async fn counts(&self, of: &[BatchId]) -> Result<BTreeMap<BatchId, BatchCounts>, StoreError> {
        if of.is_empty() {
            return Ok(BTreeMap::new());
        }
        let statement = Statement::of(
            "SELECT j.batch::text, j.state, count(*) FROM turnwise.jobs j
             WHERE j.batch IS NOT NULL AND j.batch = ANY ($1::text[]::uuid[]) GROUP BY j.batch, j.state",
        )
        .bind(of.iter().map(BatchId::to_string).collect::<Vec<_>>());
        let found = self.ask(statement).await?;
        let counted: Result<Vec<(String, String, i64)>, sqlx::Error> =
            found.iter().map(FromRow::from_row).collect();
        let counted = counted.map_err(Trouble::from).and_then(batches::counts);
        counted.map_err(|trouble| self.trouble(trouble))
    }

    async fn batch_views(&self, statement: Statement) -> Result<Vec<BatchView>, StoreError> {
        let found = self.ask(statement).await?;
        let columns: Result<Vec<batches::Columns>, sqlx::Error> =
            found.iter().map(FromRow::from_row).collect();
        let columns = columns.map_err(|error| self.trouble(error.into()))?;
        let without = batches::without_counts(&columns);
        let live = self.counts(&without.map_err(|trouble| self.trouble(trouble))?).await?;
        let views = columns.into_iter().map(|columns| batches::view(columns, &live));
        views.collect::<Result<_, _>>().map_err(|trouble| self.trouble(trouble))
    }

    /// The state that a batch had before this was done to it.
    async fn order_batch(
        &self,
        sql: &'static str,
        batch: BatchId,
    ) -> Result<Option<BatchState>, StoreError> {
        let statement = Statement::of(sql).bind(batch.to_string());
        let (before,): (Option<String>,) = self.ask_for_one(statement).await?;
        let before = before.map(|word| batches::state(batch, &word)).transpose();
        before.map_err(|trouble| self.trouble(trouble))
    }
}

impl Batches for PgStore {
    async fn make_batch(&self, batch: &NewBatch) -> Result<Vec<JobId>, StoreError> {
        batches::check(batch)?;
        let jobs = batch.all_jobs();
        let statement = Statement::of(concat!(
            "SELECT turnwise.batch_make($18::text::uuid, $19, $20, ",
            job_arguments!(),
            ", ",
            batch_arguments!(),
            ")"
        ));
        let statement = bind_batches(bind_jobs(statement, &jobs), &jobs)
            .bind(batch.id.to_string())
            .bind(batch.name.clone())
            .bind(batch.is_sealed);
        let (ids,): (Vec<String>,) = self.ask_for_one(statement).await?;
        let ids: Result<Vec<JobId>, _> = ids.iter().map(|id| rows::job_id(id)).collect();
        ids.map_err(|trouble| self.trouble(trouble))
    }

    async fn enqueue_after(
        &self,
        job: &NewJob,
        jobs: &[JobId],
        need: Need,
    ) -> Result<(BatchId, JobId), StoreError> {
        let job = std::slice::from_ref(job);
        rows::check_lengths(job)?;
        let waited = batches::waited_for(jobs)?;
        let statement = Statement::of(concat!(
            "SELECT turnwise.jobs_enqueue_after($15::text[]::uuid[], $16, $17::text::uuid, $18::text::uuid, ",
            job_arguments!(),
            ")"
        ));
        let statement = bind_jobs(statement, job)
            .bind(waited.iter().map(JobId::to_string).collect::<Vec<_>>())
            .bind(need == Need::Success)
            .bind(job[0].batch.map(|batch| batch.to_string()))
            .bind(BatchId::before(job[0].id).to_string());
        let (ids,): (Vec<String>,) = self.ask_for_one(statement).await?;
        let read = || match ids.as_slice() {
            [batch, job] => Ok((batches::id(batch)?, rows::job_id(job)?)),
            _ => Err(Trouble::corrupt("no batch and no job".to_owned())),
        };
        read().map_err(|trouble| self.trouble(trouble))
    }

    async fn seal(&self, batch: BatchId) -> Result<SealAnswer, StoreError> {
        let seal = "SELECT turnwise.batch_sealed($1::text::uuid)";
        Ok(match self.order_batch(seal, batch).await? {
            None => SealAnswer::Unknown,
            Some(BatchState::Open) => SealAnswer::Sealed,
            Some(before) => SealAnswer::Before(before),
        })
    }

    async fn cancel_batch(&self, batch: BatchId) -> Result<Option<bool>, StoreError> {
        let cancel = "SELECT turnwise.batch_cancel($1::text::uuid)";
        let before = self.order_batch(cancel, batch).await?;
        Ok(before.map(|before| before.goes_on() || before == BatchState::Cancelled))
    }

    async fn batches(
        &self,
        before: Option<BatchId>,
        limit: u32,
    ) -> Result<Vec<BatchView>, StoreError> {
        let text = match before {
            None => format!("{COLUMNS} ORDER BY b.id DESC LIMIT $2"),
            Some(_) => {
                format!("{COLUMNS} WHERE b.id < $1::text::uuid ORDER BY b.id DESC LIMIT $2")
            }
        };
        let statement = Statement::of(text)
            .bind(before.map(|before| before.to_string()))
            .bind(i64::from(limit));
        self.batch_views(statement).await
    }

    async fn batch(&self, batch: BatchId) -> Result<Option<BatchView>, StoreError> {
        let statement = Statement::of(format!("{COLUMNS} WHERE b.id = $1::text::uuid"));
        let views = self.batch_views(statement.bind(batch.to_string())).await?;
        let Some(mut view) = views.into_iter().next() else { return Ok(None) };
        let statement = Statement::of(
            "SELECT j.id::text, j.url, j.state, j.attempt::bigint, j.scheduled_at <= c.now, w.on_success
             FROM (SELECT turnwise.clock() AS now OFFSET 0) c,
                turnwise.waits w JOIN turnwise.jobs j ON j.id = w.job
             WHERE w.batch = $1::text::uuid ORDER BY w.job LIMIT $2",
        )
        .bind(batch.to_string())
        .bind(i64::from(FOLLOWERS_SHOWN));
        let found = self.ask(statement).await?;
        let follower = |row: &PgRow| -> Result<Follower, Trouble> {
            let (id, state): (String, String) = (row.try_get(0)?, row.try_get(2)?);
            let (attempt, is_due, on_success) = (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
            batches::follower(&id, row.try_get(1)?, &state, attempt, is_due, on_success)
        };
        let followers = found.iter().map(follower).collect::<Result<_, _>>();
        view.followers = followers.map_err(|trouble| self.trouble(trouble))?;
        Ok(Some(view))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::batches::{BATCH_CANCELLED, WAITED_IN_VAIN};
    use crate::store::migrate::POSTGRES;

    #[test]
    fn what_is_said_of_a_job_that_waited_in_vain_is_what_the_other_databases_say() {
        let function = "FUNCTION turnwise.jobs_wait_in_vain(";
        let mut newest_first = POSTGRES.iter().rev();
        let (_, rest) = newest_first.find_map(|step| step.sql.split_once(function)).unwrap();
        let (body, _) = rest.split_once("\n$$").unwrap();
        for word in [BATCH_CANCELLED, WAITED_IN_VAIN] {
            assert!(body.contains(&format!("'{word}'")), "{word}: {body}");
        }
    }

    #[test]
    fn what_the_schema_refuses_is_read_by_its_code() {
        let id = "01890000-0000-7000-8000-000000000001";
        let (batch, job) = (id.parse().unwrap(), id.parse().unwrap());
        let read = |code, detail: &str| read_refusal(code, detail);
        assert_eq!(read("TWB01", id), Some(BatchRefusal::Unknown(batch)));
        let ended = read("TWB02", &format!("{id} failed"));
        assert_eq!(ended, Some(BatchRefusal::Ended(batch, BatchState::Failed)));
        let other = read("TWB05", &format!("{id} {id}"));
        assert_eq!(other, Some(BatchRefusal::OfAnother(job, batch)));
        assert_eq!(read("TWB02", id), None);
        assert_eq!(read("23505", id), None);
    }
}
