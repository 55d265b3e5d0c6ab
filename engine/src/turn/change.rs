//! What a change of the roster is: what it writes, and on what condition. Decides nothing: it is computed
//! in `edits` and committed or not in `row`.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::roster::Roster;
use crate::cadence::NextPeriod;
use crate::units::{Epoch, NodeId, Slot};

/// A compare-and-set on the turn row. It commits if the epoch is still `epoch`, the statement's slot is
/// not after `latest`, each victim's last read is as it was seen, and, for a takeover, all others lapsed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Change {
    /// What it is for.
    pub kind: ChangeKind,
    /// The epoch that it was computed from.
    pub epoch: Epoch,
    /// The slot that it was computed with: it must not commit after it.
    pub latest: Slot,
    /// Nodes to be removed, each with the slot of its last read as seen (none: it had no mark).
    pub victims: Vec<(NodeId, Option<Slot>)>,
    /// Commit only if nobody but the sender can act any more.
    pub takeover: bool,
    /// Remove the sender's own mark: it leaves.
    pub forgets_sender: bool,
    /// The roster to be written.
    pub roster: Roster,
    /// The change of the period to be written: the pending one, unless this change publishes one.
    pub next_period: Option<NextPeriod>,
}

/// Why the roster changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ChangeKind {
    /// A node takes its place in the ring.
    Join,
    /// Nodes that missed their turns are removed; the sender stands in for them.
    Remove,
    /// The sender leaves; the owner of the next slot stands in for it.
    Leave,
    /// Everybody else is gone: the sender starts the ring anew.
    Takeover,
    /// The period changes; nobody joins or leaves.
    Period,
}

impl ChangeKind {
    /// The word for it, in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Remove => "remove",
            Self::Leave => "leave",
            Self::Takeover => "takeover",
            Self::Period => "period",
        }
    }
}
