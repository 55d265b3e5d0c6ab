//! Many jobs at once: a reading statement that locks a batch of them, and one that writes. Rows that others have locked
//! are passed over: an app that holds one delays nobody.

use super::MySqlStore;
use super::jobs::{STATE, cancel_set, retry_set};
use super::literals::instant;
use crate::job::JobId;
use crate::store::StoreError;
use crate::store::bulk::{Bulk, Deed};

impl Bulk for MySqlStore {
    async fn alter(&self, deed: Deed, jobs: &[JobId]) -> Result<u32, StoreError> {
        if jobs.is_empty() {
            return Ok(0);
        }
        let states = match deed {
            Deed::Retry => "'queued', 'dead', 'cancelled'",
            Deed::Cancel => "'queued', 'running', 'elsewhere'",
        };
        let read = format!(
            "SELECT j.id, {} FROM turnwise_jobs j FORCE INDEX (PRIMARY)
             WHERE j.id IN ({}) AND {STATE} IN ({states}) FOR UPDATE SKIP LOCKED",
            self.now(),
            quoted(jobs.iter().map(JobId::to_string)),
        );
        let (session, found) = self.begin(self.session().await?, &read).await?;
        let mut ids: Vec<String> = Vec::with_capacity(found.len());
        for row in &found {
            ids.push(self.column(row, 0)?);
        }
        let mut writes = Vec::new();
        if let Some(row) = found.first() {
            let now = instant(self.column(row, 1)?);
            let set = match deed {
                Deed::Retry => retry_set(&now),
                Deed::Cancel => cancel_set(&now),
            };
            // By their keys alone: a plan that reads others would lock them.
            writes.push(format!(
                "UPDATE turnwise_jobs FORCE INDEX (PRIMARY) SET {set} WHERE id IN ({})",
                quoted(ids.iter().cloned())
            ));
        }
        self.commit(session, writes).await?;
        self.inner.lanes.forget();
        Ok(u32::try_from(ids.len()).unwrap_or(u32::MAX))
    }
}

/// Ids as the database holds them, as literals: they are hexadecimal digits and hyphens.
fn quoted(ids: impl Iterator<Item = String>) -> String {
    ids.map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ")
}
