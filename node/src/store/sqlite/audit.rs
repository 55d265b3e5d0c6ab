//! Who ordered what: a row for each entry.

use super::{SqliteStore, Trouble};
use crate::audit::Entry;
use crate::sabotage::Sabotage;
use crate::store::StoreError;
use crate::store::audit::{
    AUDIT_ENQUEUES_MAX, AUDIT_PRUNED_AT_ONCE, AUDIT_SHOWN_MAX, Audit, Columns, EntryView, KEPT_US,
    views,
};

impl<B: Sabotage> Audit for SqliteStore<B> {
    async fn keep(&self, entry: &Entry) -> Result<i64, StoreError> {
        let mut connection = self.begin().await?;
        let done = sqlx::query(
            "INSERT INTO turnwise_audit (at, actor, role, action, subject, affected) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .bind(self.now().as_micros())
        .bind(entry.actor())
        .bind(entry.role())
        .bind(entry.action().as_str())
        .bind(entry.subject())
        .bind(entry.affected())
        .execute(&mut *connection)
        .await
        .map_err(Trouble::from);
        Ok(self.settle(connection, done).await?.last_insert_rowid())
    }

    async fn entries(&self, before: Option<i64>, limit: u32) -> Result<Vec<EntryView>, StoreError> {
        let mut connection = self.connection().await?;
        let found: Result<Vec<Columns>, sqlx::Error> = sqlx::query_as(
            "SELECT id, at, actor, role, action, subject, affected FROM turnwise_audit
             WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
        )
        .bind(before.unwrap_or(i64::MAX))
        .bind(limit.min(AUDIT_SHOWN_MAX))
        .fetch_all(&mut *connection)
        .await;
        connection.give_back();
        let found = found.map_err(Trouble::from).and_then(|found| views(found.into_iter().map(Ok)));
        found.map_err(|trouble| self.trouble(trouble))
    }
}

impl<B: Sabotage> SqliteStore<B> {
    pub(super) async fn prune_entries(&self) -> Result<u32, StoreError> {
        let mut connection = self.begin().await?;
        let done = sqlx::query(
            "DELETE FROM turnwise_audit WHERE id IN (
                SELECT id FROM (SELECT id, at FROM turnwise_audit ORDER BY id LIMIT ?3) WHERE at < ?1
                UNION
                SELECT id FROM (SELECT id FROM turnwise_audit WHERE action = 'job.enqueue'
                    AND id <= (SELECT max(id) FROM turnwise_audit) - ?2 ORDER BY id LIMIT ?3))",
        )
        .bind(self.now().as_micros().saturating_sub(KEPT_US))
        .bind(AUDIT_ENQUEUES_MAX)
        .bind(AUDIT_PRUNED_AT_ONCE)
        .execute(&mut *connection)
        .await
        .map_err(Trouble::from);
        let done = self.settle(connection, done).await?;
        Ok(u32::try_from(done.rows_affected()).unwrap_or(u32::MAX))
    }
}
