//! Decides what of the engine's doings is worth a line in the log, and at which level.

use std::collections::BTreeSet;

use turnwise_engine::{ChangeKind, LocalInstant, NodeId, Note, Period, TurnKind, TurnStatement};

use super::aim::{Aim, Verdict};
use crate::store::StoreError;

/// So many different errors are remembered as said.
const SAID_MAX: usize = 16;

/// Says what is wrong with the database and will not pass by itself: each thing once, until the database has
/// answered well.
#[derive(Debug, Default)]
pub(crate) struct LastingLog {
    said: BTreeSet<String>,
}

impl LastingLog {
    /// Something failed; whether that is lasting, and so said here.
    pub(crate) fn failed(&mut self, what: &str, error: &StoreError) -> bool {
        if error.is_transient() {
            return false;
        }
        if self.said.len() < SAID_MAX && self.said.insert(error.to_string()) {
            tracing::error!("{what}: {error}. Until then it is tried again and again");
        }
        true
    }

    /// It was done.
    pub(crate) fn succeeded(&mut self) {
        self.said.clear();
    }
}

/// The log of one node's engine.
pub(crate) struct NoteLog {
    node: NodeId,
    failures: u32,
    lasting: LastingLog,
    aim: Aim,
}

impl NoteLog {
    pub(crate) fn new(node: NodeId) -> Self {
        Self { node, failures: 0, lasting: LastingLog::default(), aim: Aim::default() }
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

    /// The engine noted something, in a farm of this period.
    pub(crate) fn note(&mut self, note: &Note, period: Period) {
        match self.aim.noted(note, period) {
            Some(Verdict::Wide { wide, of }) => tracing::warn!(
                "{wide} of this node's last {of} beats arrived more than a quarter of the period from their boundary: \
                 its road to the database, or this machine, is too unsteady for a period of {} ms. Look after the \
                 network, or choose a longer one with turnwise period",
                period.as_millis()
            ),
            Some(Verdict::Mended) => tracing::info!("beats arrive near their boundaries again"),
            None => {}
        }
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

    /// The database could not be asked. Said at the first time and then ever less often; once, when it is not
    /// a matter of waiting.
    pub(crate) fn unreachable(&mut self, error: &StoreError) {
        self.failures += 1;
        let is_lasting = self.lasting.failed("no turn can be taken", error);
        if !is_lasting && self.failures.is_power_of_two() {
            tracing::warn!(tries = self.failures, "{error}");
        }
    }

    /// The database answered.
    pub(crate) fn reachable(&mut self) {
        if self.failures > 0 {
            tracing::info!(after_tries = self.failures, "the database answers again");
        }
        self.failures = 0;
        self.lasting.succeeded();
    }
}

#[cfg(test)]
mod tests {
    use turnwise_engine::Fate;

    use super::*;

    #[test]
    fn a_lasting_error_is_said_once_until_it_is_mended() {
        let database = || "d".to_owned();
        let refused = StoreError::Refused {
            database: database(),
            reason: "no".to_owned(),
            remedy: "Ask".to_owned(),
        };
        let away = StoreError::Unreachable {
            database: database(),
            reason: "away".to_owned(),
            fate: Fate::Unknown,
        };
        let mut log = LastingLog::default();
        assert!(!log.failed("x", &away) && log.said.is_empty());
        assert!(log.failed("x", &refused) && log.failed("x", &refused));
        assert_eq!(log.said.len(), 1);
        log.succeeded();
        assert!(log.said.is_empty(), "it is said again");
        for number in 0..100 {
            let reason = number.to_string();
            log.failed("x", &StoreError::Failed { database: database(), reason, may_pass: false });
        }
        assert_eq!(log.said.len(), SAID_MAX);
    }
}
