//! Who ordered what: a row for each entry.

use sqlx::FromRow;

use super::PgStore;
use super::statement::Statement;
use crate::audit::Entry;
use crate::store::StoreError;
use crate::store::audit::{
    AUDIT_ENQUEUES_MAX, AUDIT_PRUNED_AT_ONCE, AUDIT_SHOWN_MAX, Audit, Columns, EntryView, KEPT_US,
    views,
};

/// The oldest rows are looked at by their numbers, which are in the order of their times; the commit waits for no disk.
const PRUNE: &str = "WITH here AS MATERIALIZED (
        SELECT turnwise.clock() AS now, set_config('synchronous_commit', 'off', true)
    ), these AS MATERIALIZED (
        SELECT e.id FROM here h CROSS JOIN LATERAL (
            SELECT a.id, a.at FROM turnwise.audit a ORDER BY a.id LIMIT $3) e
        WHERE e.at < h.now - $1 * interval '1 microsecond'
        UNION
        SELECT e.id FROM (
            SELECT a.id FROM turnwise.audit a
            WHERE a.action = 'job.enqueue' AND a.id <= (SELECT max(id) FROM turnwise.audit) - $2
            ORDER BY a.id LIMIT $3) e
    ), gone AS (
        DELETE FROM turnwise.audit a WHERE a.id IN (SELECT t.id FROM these t) RETURNING 1
    )
    SELECT count(*) FROM gone";

impl Audit for PgStore {
    async fn keep(&self, entry: &Entry) -> Result<i64, StoreError> {
        let statement = Statement::of(
            "INSERT INTO turnwise.audit (at, actor, role, action, subject, affected)
             VALUES (turnwise.clock(), $1, $2, $3, $4, $5) RETURNING id",
        )
        .bind(entry.actor().to_owned())
        .bind(entry.role())
        .bind(entry.action().as_str())
        .bind(entry.subject().to_owned())
        .bind(entry.affected());
        let (id,): (i64,) = self.ask_for_one(statement).await?;
        Ok(id)
    }

    async fn entries(&self, before: Option<i64>, limit: u32) -> Result<Vec<EntryView>, StoreError> {
        let statement = Statement::of(
            "SELECT a.id, turnwise.micros(a.at), a.actor, a.role, a.action, a.subject, a.affected
             FROM turnwise.audit a WHERE a.id < $1 ORDER BY a.id DESC LIMIT $2",
        )
        .bind(before.unwrap_or(i64::MAX))
        .bind(i64::from(limit.min(AUDIT_SHOWN_MAX)));
        let found = self.ask(statement).await?;
        views(found.iter().map(Columns::from_row)).map_err(|trouble| self.trouble(trouble))
    }
}

impl PgStore {
    pub(super) async fn prune_entries(&self) -> Result<u32, StoreError> {
        let statement = Statement::of(PRUNE)
            .bind(KEPT_US)
            .bind(i64::from(AUDIT_ENQUEUES_MAX))
            .bind(i64::from(AUDIT_PRUNED_AT_ONCE));
        let (gone,): (i64,) = self.ask_for_one(statement).await?;
        Ok(u32::try_from(gone).unwrap_or(u32::MAX))
    }
}
