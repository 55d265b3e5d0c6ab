//! Decides what of the engine's doings is worth a line in the log, and at which level.

use turnwise_engine::{ChangeKind, LocalInstant, NodeId, Note, TurnKind, TurnStatement};

use crate::store::StoreError;

/// The log of one node's engine.
pub(crate) struct NoteLog {
    node: NodeId,
    failures: u32,
}

impl NoteLog {
    pub(crate) fn new(node: NodeId) -> Self {
        Self { node, failures: 0 }
    }

    pub(crate) fn sending(&self, statement: &TurnStatement, due: LocalInstant, now: LocalInstant) {
        let what = match &statement.kind {
            TurnKind::Read => "read",
            TurnKind::Beat { .. } => "beat",
            TurnKind::Change { change, .. } => change.kind.as_str(),
        };
        tracing::trace!(
            what,
            slot = statement.believed.map(|slot| slot.0),
            late_us = now.nanos_from(due) / 1_000,
            "sending"
        );
    }

    pub(crate) fn note(&self, note: &Note) {
        match note {
            Note::Beat { slot, accepted: true, arrival_error, claimed } => tracing::debug!(
                slot = slot.0,
                arrival_us = arrival_error.map(|nanos| nanos / 1_000),
                claimed,
                "beat"
            ),
            Note::Beat { slot, accepted: false, .. } => {
                tracing::info!(slot = slot.0, "beat refused: its slot has had one");
            }
            Note::TurnSkipped { slot } => {
                tracing::warn!(slot = slot.0, "a turn of this node passed without a beat");
            }
            Note::Changed { kind: ChangeKind::Remove, victims } => {
                let victims: Vec<_> = victims.iter().map(ToString::to_string).collect();
                tracing::warn!(
                    nodes = victims.join(" "),
                    "removed nodes that missed their turns; standing in for them"
                );
            }
            Note::Changed { kind, .. } => {
                tracing::info!(change = kind.as_str(), node = %self.node, "the ring changed");
            }
            Note::Left => tracing::info!(node = %self.node, "out of the ring"),
            Note::ClockStep => tracing::warn!("a clock stepped; measuring it anew"),
            Note::ServerChanged => {
                tracing::warn!("another database server answers; starting afresh");
            }
            Note::Unanswered { failures } => {
                tracing::debug!(failures, "a statement on the turn row was not answered");
            }
            other => tracing::debug!(?other),
        }
    }

    /// The database could not be asked. Said at the first time and then ever less often.
    pub(crate) fn unreachable(&mut self, error: &StoreError) {
        self.failures += 1;
        if self.failures.is_power_of_two() {
            tracing::warn!(tries = self.failures, "{error}");
        }
    }

    /// The database answered.
    pub(crate) fn reachable(&mut self) {
        if self.failures > 0 {
            tracing::info!(after_tries = self.failures, "the database answers again");
        }
        self.failures = 0;
    }
}
