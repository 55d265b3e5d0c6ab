//! Many jobs at once: a reading statement that locks a batch of them, and one that writes. Rows that others have locked
//! are passed over: an app that holds one delays nobody.

use super::MySqlStore;
use super::jobs::{ELSEWHERE, STATE, cancels, retries};
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
            "SELECT j.id, {}, {STATE} FROM turnwise_jobs j FORCE INDEX (PRIMARY)
             WHERE j.id IN ({}) AND {STATE} IN ({states}) FOR UPDATE SKIP LOCKED",
            self.now(),
            quoted(jobs.iter().map(JobId::to_string)),
        );
        let (session, found) = self.begin(self.session().await?, &read).await?;
        let (mut ids, mut any_elsewhere) = (Vec::with_capacity(found.len()), false);
        for row in &found {
            ids.push(self.column::<String>(row, 0)?);
            any_elsewhere |= self.column::<String>(row, 2)? == ELSEWHERE;
        }
        let mut writes = Vec::new();
        if let Some(row) = found.first() {
            let now = instant(self.column(row, 1)?);
            let which = format!("id IN ({})", quoted(ids.iter().cloned()));
            writes = match deed {
                Deed::Retry => retries(&which, &now),
                Deed::Cancel => cancels(&which, &now, any_elsewhere),
            };
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
