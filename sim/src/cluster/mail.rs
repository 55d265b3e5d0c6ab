//! Decides how a request gets to the database and its answer back: a frame on a simulated connection is the
//! number of a parcel, and what is in the parcel never becomes text. The way there and the way back are the
//! scenario's roads, each with its own length; the network itself takes a millisecond of them.

use std::any::Any;
use std::collections::BTreeMap;

use super::database::Session;

/// The name of the database's machine.
pub(super) const DATABASE: &str = "database";
/// Its port.
pub(super) const PORT: u16 = 5432;
/// What the simulated network takes to carry a frame.
pub(super) const HOP: u64 = 1_000_000;

/// What the database is to do. It comes to its end without waiting for anything that is simulated.
pub(super) type Work = Box<dyn FnOnce(&mut Session) -> Answer + Send>;
/// What comes of it.
pub(super) type Answer = Box<dyn Any + Send>;

/// What is on its way to the database or back.
#[derive(Default)]
pub(super) struct Mail {
    parcels: BTreeMap<u64, Parcel>,
    posted: u64,
}

/// A request, then its answer.
pub(super) struct Parcel {
    /// Whose.
    pub(super) host: u32,
    pub(super) what: What,
    /// When the request arrives.
    pub(super) arrives: u64,
    pub(super) work: Option<Work>,
    pub(super) answer: Option<Answer>,
    /// The node's own copy of the server refuses it.
    pub(super) refused: bool,
}

/// What a request is, for the roads and the faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A connection is made ready.
    Hello,
    /// A statement on the turn row.
    Turn,
    /// A change of the roster.
    Change,
    /// A statement on the jobs.
    Work,
    /// What is done at the start and the end of a life.
    Life,
}

impl What {
    /// It uses the road of the connection that is kept for the turn row.
    pub(super) fn is_turn(self) -> bool {
        matches!(self, Self::Turn | Self::Change)
    }
}

impl Mail {
    pub(super) fn post(&mut self, host: u32, what: What, arrives: u64, work: Work) -> u64 {
        self.posted += 1;
        let parcel = Parcel { host, what, arrives, work: Some(work), answer: None, refused: false };
        self.parcels.insert(self.posted, parcel);
        self.posted
    }

    pub(super) fn parcel(&mut self, number: u64) -> Option<&mut Parcel> {
        self.parcels.get_mut(&number)
    }

    pub(super) fn take(&mut self, number: u64) -> Option<Parcel> {
        self.parcels.remove(&number)
    }
}
