//! Many jobs at once: one statement for a batch of them.

use super::jobs::{cancel_set, retry_set};
use super::{SqliteStore, Trouble};
use crate::job::JobId;
use crate::sabotage::Sabotage;
use crate::store::StoreError;
use crate::store::bulk::{Bulk, Deed};

impl<B: Sabotage> Bulk for SqliteStore<B> {
    async fn alter(&self, deed: Deed, jobs: &[JobId]) -> Result<u32, StoreError> {
        let sql = match deed {
            Deed::Retry => concat!(
                "UPDATE turnwise_jobs SET ",
                retry_set!(),
                " WHERE id IN (SELECT value FROM json_each(?1))
                    AND (state = 'queued' AND awaits_since IS NULL OR state IN ('dead', 'cancelled'))"
            ),
            Deed::Cancel => concat!(
                "UPDATE turnwise_jobs SET ",
                cancel_set!(),
                " WHERE id IN (SELECT value FROM json_each(?1)) AND state IN ('queued', 'running')"
            ),
        };
        let ids: Vec<String> = jobs.iter().map(|job| format!("\"{job}\"")).collect();
        let mut connection = self.begin().await?;
        let done = sqlx::query(sql)
            .bind(format!("[{}]", ids.join(",")))
            .bind(self.now().as_micros())
            .execute(&mut *connection)
            .await
            .map_err(Trouble::from);
        let done = self.settle(connection, done).await?;
        Ok(u32::try_from(done.rows_affected()).unwrap_or(u32::MAX))
    }
}
