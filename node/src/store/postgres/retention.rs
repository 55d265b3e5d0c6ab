//! Ended jobs that are old enough: one statement finds, locks and removes them. Rows that others have locked are passed
//! over, and nothing else is locked.

use sqlx::Row;
use sqlx::postgres::PgRow;
use turnwise_engine::ServerInstant;

use super::PgStore;
use super::statement::Statement;
use crate::store::errors::Trouble;
use crate::store::retention::BATCHES_AT_ONCE;
use crate::store::rows::micros;
use crate::store::{Ended, Prune, Pruned, StoreError};

/// The rows are found through the index of ended jobs, one state after the other until there are enough. By arrays of ids,
/// since no estimate of their number is near the truth. The commit waits for no disk: what a crash brings back is removed
/// again.
///
/// A batch goes with the last of its jobs. Where that was not seen (of two removals at once each saw what the other removed), and where
/// there was never a job, it is found through the index of ended batches.
const PRUNE: &str = "WITH here AS MATERIALIZED (
        SELECT turnwise.clock() AS now, set_config('synchronous_commit', 'off', true)
    ), these AS MATERIALIZED (
        SELECT old.state, ended.id, ended.finished_at, ended.batch
        FROM here h
        CROSS JOIN unnest($1::text[], $2::bigint[], $3::bigint[]) old (state, age, since)
        CROSS JOIN LATERAL (
            SELECT j.id, j.finished_at, j.batch FROM turnwise.jobs j
            WHERE j.state = old.state AND j.finished_at >= turnwise.instant(old.since)
                AND j.finished_at <= h.now - old.age * interval '1 microsecond'
                AND (j.unique_until IS NULL OR j.unique_until <= h.now)
                AND (j.batch IS NULL OR EXISTS (
                    SELECT FROM turnwise.batches b WHERE b.id = j.batch AND b.state NOT IN ('open', 'sealed')))
            ORDER BY j.finished_at LIMIT $4 FOR UPDATE SKIP LOCKED
        ) ended
        LIMIT $4
    ), ids AS MATERIALIZED (
        SELECT coalesce(array_agg(t.id), '{}') AS jobs,
            coalesce(array_agg(DISTINCT t.batch) FILTER (WHERE t.batch IS NOT NULL), '{}') AS batches
        FROM these t
    ), batches AS (
        DELETE FROM turnwise.batches d WHERE d.id IN (
            SELECT b.id FROM turnwise.batches b WHERE b.id = ANY ((SELECT i.batches FROM ids i)::uuid[])
                AND NOT EXISTS (
                    SELECT FROM turnwise.jobs j
                    WHERE j.batch = b.id AND j.id <> ALL ((SELECT i.jobs FROM ids i)::uuid[]))
            FOR UPDATE SKIP LOCKED)
    ), waits AS (
        DELETE FROM turnwise.waits w WHERE w.job = ANY ((SELECT i.jobs FROM ids i)::uuid[])
    ), attempts AS (
        DELETE FROM turnwise.attempts a WHERE a.job = ANY ((SELECT i.jobs FROM ids i)::uuid[])
    ), jobs AS (
        DELETE FROM turnwise.jobs j WHERE j.id = ANY ((SELECT i.jobs FROM ids i)::uuid[])
    ), empty AS MATERIALIZED (
        SELECT array_agg(ended.id) AS batches
        FROM here h
        CROSS JOIN unnest($5::text[], $2::bigint[]) old (state, age)
        CROSS JOIN LATERAL (
            SELECT b.id FROM turnwise.batches b
            WHERE b.state = old.state AND b.ended_at <= h.now - old.age * interval '1 microsecond'
            ORDER BY b.ended_at LIMIT $6
        ) ended
        WHERE (SELECT j.id FROM turnwise.jobs j WHERE j.batch = ended.id LIMIT 1) IS NULL
    ), left_waits AS (
        DELETE FROM turnwise.waits w WHERE w.batch = ANY ((SELECT e.batches FROM empty e)::uuid[])
            AND (SELECT j.id FROM turnwise.jobs j WHERE j.id = w.job) IS NULL
    ), gone AS (
        DELETE FROM turnwise.batches d WHERE d.id IN (
            SELECT b.id FROM turnwise.batches b WHERE b.id = ANY ((SELECT e.batches FROM empty e)::uuid[])
            FOR UPDATE SKIP LOCKED)
        RETURNING d.id
    )
    SELECT t.state, turnwise.micros(t.finished_at) FROM these t
    UNION ALL SELECT 'batch', 0 FROM gone g";

impl PgStore {
    pub(super) async fn prune_jobs(&self, prune: &Prune) -> Result<Pruned, StoreError> {
        let olds = prune.olds();
        let statement = Statement::of(PRUNE)
            .bind(olds.iter().map(|old| old.ended.as_str()).collect::<Vec<_>>())
            .bind(olds.iter().map(|old| micros(old.age)).collect::<Vec<_>>())
            .bind(olds.iter().map(|old| old.from.as_micros()).collect::<Vec<_>>())
            .bind(i64::from(prune.most()))
            .bind(olds.iter().map(|old| old.ended.of_batch().as_str()).collect::<Vec<_>>())
            .bind(i64::from(BATCHES_AT_ONCE));
        let found = self.ask(statement).await?;
        let (batches, gone): (Vec<&PgRow>, Vec<&PgRow>) =
            found.iter().partition(|row| is_batch(row));
        let gone: Result<Vec<_>, Trouble> = gone.into_iter().map(ended).collect();
        let gone = gone.map_err(|trouble| self.trouble(trouble))?;
        let pruned = prune.removed(&gone, gone.len() >= prune.most() as usize);
        Ok(pruned.with_batches(prune, batches.len()))
    }
}

fn is_batch(row: &PgRow) -> bool {
    row.try_get::<&str, _>(0).is_ok_and(|word| word == "batch")
}

fn ended(row: &PgRow) -> Result<(Ended, ServerInstant), Trouble> {
    let word: &str = row.try_get(0)?;
    let ended = Ended::named(word)
        .ok_or_else(|| Trouble::corrupt(format!("an ended job in the state {word:?}")))?;
    Ok((ended, ServerInstant::from_micros(row.try_get(1)?)))
}
