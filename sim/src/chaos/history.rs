//! Decides nothing: what was done to the farm and what was seen of it, in true time since the start. The judge reads
//! it when all is over.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use turnwise_engine::{NodeId, ServerInstant};
use turnwise_node::store::Look;

use crate::scenario::Fault;

/// Something that happened.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// A process was started.
    Up(u32),
    /// It was killed.
    Killed(u32),
    /// It was told to stop.
    Told(u32),
    /// It ended by itself: how.
    Ended(u32, String),
    /// A fault of the scenario began; whether whoever it happens to was there.
    Fault(Fault, bool),
    /// What was to befall the next message did.
    Befell(Fault),
    /// This very machine stood still for so long, until now.
    MachineStalled(Duration),
    /// A job was enqueued.
    Enqueued(u64),
    /// A web app began to serve a call.
    Begun(Call),
    /// It serves it no more; whether it did what it was asked to.
    Over(Call, bool),
    /// The turn row.
    Row(Box<Look>),
    /// The nodes that the database knows: who, by what name, in what state.
    Nodes(Vec<(NodeId, String, String)>),
}

/// A call of a job at the web app of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Call {
    /// Whose web app.
    pub(super) host: u32,
    pub(super) job: u64,
    /// Which call this is of all.
    pub(super) number: u64,
}

/// The history, shared by all that writes it.
#[derive(Clone, Debug)]
pub(super) struct History {
    began: Instant,
    /// What the wall clock of this machine, which is the servers', showed then, in microseconds since the Unix epoch.
    shown: i64,
    events: Arc<Mutex<Vec<(u64, Event)>>>,
}

impl History {
    pub(super) fn begin() -> Self {
        let shown = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            began: Instant::now(),
            shown: shown.map_or(0, |shown| shown.as_micros() as i64),
            events: Arc::default(),
        }
    }

    /// True time since the start, in nanoseconds.
    pub(super) fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// The same as an instant to wait for.
    pub(super) fn instant(&self, at: u64) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.began + Duration::from_nanos(at))
    }

    /// When, since the start, a server showed this.
    pub(super) fn at_stamp(&self, stamp: ServerInstant) -> u64 {
        let micros = stamp.as_nanos() / 1_000 - self.shown;
        u64::try_from(micros).unwrap_or(0) * 1_000
    }

    /// What the servers' clock showed then, in microseconds since the Unix epoch.
    #[cfg(test)]
    pub(super) fn stamp_at(&self, at: u64) -> i64 {
        self.shown + (at / 1_000) as i64
    }

    pub(super) fn write(&self, event: Event) {
        self.write_at(self.now(), event);
    }

    pub(super) fn write_at(&self, at: u64, event: Event) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push((at, event));
    }

    /// All of it so far, in order of time.
    pub(super) fn read(&self) -> Vec<(u64, Event)> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner).clone();
        events.sort_by_key(|(at, _)| *at);
        events
    }
}
