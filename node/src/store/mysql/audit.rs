//! Who ordered what: a row for each entry.

use sqlx::{FromRow, Row};

use super::literals::{instant, number_or_null, text};
use super::{MySqlStore, micros_of};
use crate::audit::Entry;
use crate::store::StoreError;
use crate::store::audit::{
    AUDIT_ENQUEUES_MAX, AUDIT_PRUNED_AT_ONCE, AUDIT_SHOWN_MAX, Audit, Columns, EntryView, KEPT_US,
    views,
};

impl Audit for MySqlStore {
    async fn keep(&self, entry: &Entry) -> Result<i64, StoreError> {
        let found = self.run(format!(
            "INSERT INTO turnwise_audit (at, actor, role, action, subject, affected)
             VALUES ({}, {}, {}, {}, {}, {}); SELECT CAST(LAST_INSERT_ID() AS SIGNED)",
            self.inner.clock,
            text(entry.actor()),
            text(entry.role()),
            text(entry.action().as_str()),
            text(entry.subject()),
            number_or_null(entry.affected()),
        ));
        let found = found.await?;
        self.column(self.one(&found)?, 0)
    }

    async fn entries(&self, before: Option<i64>, limit: u32) -> Result<Vec<EntryView>, StoreError> {
        let found = self.run(format!(
            "SELECT id, {}, actor, role, action, subject, affected FROM turnwise_audit
             WHERE id < {} ORDER BY id DESC LIMIT {}",
            micros_of!("at"),
            before.unwrap_or(i64::MAX),
            limit.min(AUDIT_SHOWN_MAX)
        ));
        let found = found.await?;
        views(found.iter().map(Columns::from_row)).map_err(|trouble| self.trouble(trouble))
    }
}

impl MySqlStore {
    /// What is to go is looked for first, and removed by its keys: a plan that reads others would lock them.
    pub(super) async fn prune_entries(&self) -> Result<u32, StoreError> {
        let most = AUDIT_PRUNED_AT_ONCE;
        let now = self.run(format!("SELECT {}", self.now())).await?;
        let now: i64 = self.column(self.one(&now)?, 0)?;
        let found = self.run(format!(
            "SELECT e.id FROM (SELECT id, at FROM turnwise_audit ORDER BY id LIMIT {most}) e WHERE e.at < {}
             UNION
             SELECT e.id FROM (SELECT id FROM turnwise_audit WHERE action = 'job.enqueue'
                AND id <= (SELECT MAX(id) FROM turnwise_audit) - {AUDIT_ENQUEUES_MAX} ORDER BY id LIMIT {most}) e",
            instant(now.saturating_sub(KEPT_US))
        ));
        let ids: Result<Vec<i64>, _> = found.await?.iter().map(|row| row.try_get(0)).collect();
        let ids = ids.map_err(|error| self.trouble(error.into()))?;
        if ids.is_empty() {
            return Ok(0);
        }
        let listed: Vec<String> = ids.iter().map(i64::to_string).collect();
        self.run(format!("DELETE FROM turnwise_audit WHERE id IN ({})", listed.join(", "))).await?;
        Ok(u32::try_from(ids.len()).unwrap_or(u32::MAX))
    }
}
