//! Who ordered what.

use serde::Serialize;
use utoipa::ToSchema;

use crate::rfc3339;
use crate::store::EntryView;

/// An entry of the audit.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub(crate) struct EntryLine<'a> {
    /// Its number: later ones are greater.
    id: i64,
    /// When it was written, right after what was ordered (RFC 3339, the database's clock).
    #[schema(format = DateTime)]
    at: String,
    /// Who: the name of a token, `listen-token` for that of the configuration, `dashboard` for somebody in a browser, `api` for a
    /// program where no token is asked for, `cli:` and the user of the operating system for a command.
    actor: &'a str,
    /// What that opens: `enqueue`, `operate`, or `database` for a command.
    role: &'a str,
    /// What: `job.enqueue`, `job.retry`, `job.cancel`, `jobs.retry`, `jobs.cancel`, `jobs.prune`, `queue.pause`, `queue.resume`,
    /// `queue.set`, `batch.make`, `batch.seal`, `batch.cancel`, `schedule.set`, `schedule.remove`, `schedule.pause`, `schedule.resume`, `schedule.run`, `node.drain`,
    /// `period.change`, `token.make` or `token.revoke`.
    action: &'a str,
    /// Of what: an id, a name, or a filter.
    subject: &'a str,
    /// Of how many; null: the database's answer was lost, and it may have been carried out.
    affected: Option<i64>,
}

impl<'a> EntryLine<'a> {
    pub(crate) fn new(entry: &'a EntryView) -> Self {
        let EntryView { id, at, actor, role, action, subject, affected } = entry;
        let at = rfc3339::format(*at);
        Self { id: *id, at, actor, role, action, subject, affected: *affected }
    }
}

#[cfg(test)]
mod tests {
    use turnwise_engine::ServerInstant;

    use super::*;

    #[test]
    fn the_json_of_an_entry_is_as_promised() {
        let entry = EntryView {
            id: 7,
            at: ServerInstant::from_micros(1),
            actor: "shop".to_owned(),
            role: "operate".to_owned(),
            action: "queue.pause".to_owned(),
            subject: "mail".to_owned(),
            affected: None,
        };
        let text = serde_json::to_string(&EntryLine::new(&entry)).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"id":7,"at":"1970-01-01T00:00:00.000001Z","actor":"shop","role":"operate","#,
                r#""action":"queue.pause","subject":"mail","affected":null}"#
            )
        );
    }
}
