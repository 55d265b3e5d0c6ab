//! Who ordered what, as the stores keep it. What is an order, and who gives it, is `crate::audit`'s to decide; here, how much of
//! it is kept: for [`AUDIT_KEPT`], and of enqueues those among the newest [`AUDIT_ENQUEUES_MAX`] entries alone, so that they
//! cannot drive out the rest.

use std::future::Future;
use std::time::Duration;

use turnwise_engine::ServerInstant;

use super::errors::Trouble;
use super::{Store, StoreError};
use crate::audit::Entry;

/// So long entries are kept: 90 days.
pub const AUDIT_KEPT: Duration = Duration::from_secs(90 * 24 * 3_600);
/// An entry of an enqueue goes when so many entries have come after it.
pub const AUDIT_ENQUEUES_MAX: u32 = 100_000;
/// So many entries are removed at once, of each kind.
pub const AUDIT_PRUNED_AT_ONCE: u32 = 1_000;
/// So many entries are shown at once.
pub const AUDIT_SHOWN_MAX: u32 = 1_000;
/// With each entry whose number is a multiple of this, those that are too many or too old are removed, where no node does.
const PRUNED_EVERY: i64 = 256;

/// An entry as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryView {
    /// Its number: later ones are greater.
    pub id: i64,
    /// When it was written, by the server's clock.
    pub at: ServerInstant,
    /// Who ordered it.
    pub actor: String,
    /// What that opened.
    pub role: String,
    /// What was ordered; another version of the program may know more words.
    pub action: String,
    /// Of what.
    pub subject: String,
    /// How many it touched; none: the database's answer was lost, and it may have been carried out.
    pub affected: Option<i64>,
}

/// What is kept of orders.
pub trait Audit: Store {
    /// Keep an entry, at the server's time; its number.
    fn keep(&self, entry: &Entry) -> impl Future<Output = Result<i64, StoreError>> + Send;

    /// Entries, newest first, at most `limit` and at most [`AUDIT_SHOWN_MAX`]: those with a number below `before`.
    fn entries(
        &self,
        before: Option<i64>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<EntryView>, StoreError>> + Send;

    /// Keep an entry, and now and then remove old ones, so that they are bounded though no node removes anything.
    fn keep_bounded(&self, entry: &Entry) -> impl Future<Output = Result<(), StoreError>> + Send {
        async move {
            let id = self.keep(entry).await?;
            if id % PRUNED_EVERY == 0 {
                self.prune_audit().await?;
            }
            Ok(())
        }
    }
}

/// [`AUDIT_KEPT`] in microseconds, for SQL.
pub(super) const KEPT_US: i64 = AUDIT_KEPT.as_micros() as i64;

/// The columns of an entry: number, instant in microseconds, actor, role, action, subject, how many.
pub(super) type Columns = (i64, i64, String, String, String, String, Option<i64>);

pub(super) fn views(
    rows: impl IntoIterator<Item = Result<Columns, sqlx::Error>>,
) -> Result<Vec<EntryView>, Trouble> {
    let view = |(id, at, actor, role, action, subject, affected): Columns| EntryView {
        id,
        at: ServerInstant::from_micros(at),
        actor,
        role,
        action,
        subject,
        affected,
    };
    rows.into_iter().map(|row| Ok(view(row?))).collect()
}
