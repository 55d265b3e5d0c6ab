//! Many jobs at once: one statement for a batch of them. Rows that others have locked are passed over: an app that holds
//! one delays nobody.

use super::PgStore;
use super::jobs::{cancel_set, retry_set, told_of_attempts};
use super::statement::Statement;
use crate::job::JobId;
use crate::store::StoreError;
use crate::store::bulk::{Bulk, Deed};
use crate::store::ends::CANCELLED_ELSEWHERE;

macro_rules! alter {
    ($set:expr, $which:literal, $told:expr) => {
        concat!(
            "WITH here AS MATERIALIZED (SELECT turnwise.clock() AS now), these AS MATERIALIZED (
                SELECT id FROM turnwise.jobs
                WHERE id = ANY ($1::text[]::uuid[]) AND (",
            $which,
            ") ORDER BY id FOR UPDATE SKIP LOCKED),
             done AS (
                UPDATE turnwise.jobs j SET ",
            $set,
            " FROM here h, these t WHERE j.id = t.id",
            $told,
            " SELECT count(*) FROM done"
        )
    };
}

impl Bulk for PgStore {
    async fn alter(&self, deed: Deed, jobs: &[JobId]) -> Result<u32, StoreError> {
        let sql = match deed {
            Deed::Retry => alter!(
                retry_set!(),
                "state = 'queued' AND awaits_since IS NULL OR state IN ('dead', 'cancelled')",
                " RETURNING 1)"
            ),
            Deed::Cancel => {
                alter!(cancel_set!(), "state IN ('queued', 'running')", told_of_attempts!())
            }
        };
        let ids: Vec<String> = jobs.iter().map(JobId::to_string).collect();
        let statement = Statement::of(sql).bind(ids);
        let statement = match deed {
            Deed::Retry => statement,
            Deed::Cancel => statement.bind(CANCELLED_ELSEWHERE.to_owned()),
        };
        let (done,): (i64,) = self.ask_for_one(statement).await?;
        Ok(u32::try_from(done).unwrap_or(u32::MAX))
    }
}
