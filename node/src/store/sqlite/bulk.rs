//! Many jobs at once: one statement for a batch of them.

use sqlx::sqlite::SqliteConnection;
use turnwise_engine::ServerInstant;

use super::jobs::{can_be_retried, cancel_all, retry_set};
use super::{SqliteStore, Trouble};
use crate::job::JobId;
use crate::sabotage::Sabotage;
use crate::store::StoreError;
use crate::store::bulk::{Bulk, Deed};
use crate::store::rows::json;

impl<B: Sabotage> Bulk for SqliteStore<B> {
    async fn alter(&self, deed: Deed, jobs: &[JobId]) -> Result<u32, StoreError> {
        let mut connection = self.begin().await?;
        let done = match deed {
            Deed::Retry => retry_all(&mut connection, self.now(), jobs).await,
            Deed::Cancel => cancel_all(&mut connection, self.now(), jobs).await,
        };
        let done = self.settle(connection, done).await?;
        Ok(u32::try_from(done).unwrap_or(u32::MAX))
    }
}

async fn retry_all(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    jobs: &[JobId],
) -> Result<u64, Trouble> {
    let done = sqlx::query(concat!(
        "UPDATE turnwise_jobs SET ",
        retry_set!(),
        " WHERE id IN (SELECT value FROM json_each(?1)) AND ",
        can_be_retried!()
    ))
    .bind(json(&jobs)?)
    .bind(at.as_micros())
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
