//! Decides nothing: what the lab asks of a machine that takes turns, so that the engine and the original
//! design run in the same farm.

use turnwise_engine::journal::{Divergence, Entry, Header, Summary, replay_as};
use turnwise_engine::{
    Config, Engine, Input, LocalInstant, NodeId, Output, Reason, Sabotage, Slot, Sound, Status,
};

use crate::oracle::Invariant;

/// A machine that takes turns, without IO.
pub trait Driver: Sized {
    /// The bugs that are planted in the database's rules when this kind of machine runs.
    type Rules: Sabotage;

    /// A machine that knows nothing.
    fn new(id: NodeId, capacity: u32, seed: u64, now: LocalInstant) -> Self;
    /// Something happened.
    fn handle_input(&mut self, now: LocalInstant, input: Input);
    /// The next thing to do.
    fn poll_output(&mut self) -> Option<Output>;
    /// When to wake it.
    fn poll_timeout(&self) -> Option<(LocalInstant, Reason)>;
    /// What it believes the offset to be: the least, the most, the best guess. None: it makes no claim.
    fn claim(&self, now: LocalInstant) -> Option<(i64, i64, i64)>;
    /// The jobs that it counts as its own; none while a claim is on its way.
    fn held(&self) -> Option<u32>;
    /// What it says of itself; none: nothing.
    fn status(&self, _: LocalInstant) -> Option<Status> {
        None
    }
    /// Its next turn, as it sees it.
    fn next_turn(&self) -> Option<Slot>;
    /// Whether the invariants of the turn protocol are promised at all.
    const PROMISES: bool;
    /// Whether this one machine promises what concerns nobody but itself, where others of its farm do: that it asks for jobs
    /// when it can ([`Invariant::Drains`]), notes the turns that it skips ([`Invariant::Accounting`]), aims well
    /// ([`Invariant::Accuracy`]).
    fn promises(&self, _: Invariant) -> bool {
        true
    }
    /// Whether a journal is kept of its lives: another one, told what it says, asks for the same.
    const KEEPS_JOURNAL: bool = false;

    /// Tell a new machine of this kind what a journal says, up to the first difference. Only of those of which one is kept.
    fn replay(_: &Header, _: Vec<Entry>) -> Result<Summary, Divergence> {
        Ok(Summary::default())
    }
}

impl<S: Sabotage> Driver for Engine<S> {
    type Rules = S;
    const PROMISES: bool = true;
    const KEEPS_JOURNAL: bool = true;

    fn new(id: NodeId, capacity: u32, seed: u64, now: LocalInstant) -> Self {
        Engine::new(id, Config { capacity }, seed, now)
    }

    fn handle_input(&mut self, now: LocalInstant, input: Input) {
        Engine::handle_input(self, now, input);
    }

    fn poll_output(&mut self) -> Option<Output> {
        Engine::poll_output(self)
    }

    fn poll_timeout(&self) -> Option<(LocalInstant, Reason)> {
        Engine::poll_timeout(self)
    }

    fn claim(&self, now: LocalInstant) -> Option<(i64, i64, i64)> {
        let (low, high) = self.clock().bounds(now)?;
        Some((low, high, self.clock().offset(now)?.nanos))
    }

    fn held(&self) -> Option<u32> {
        self.held()
    }

    fn status(&self, now: LocalInstant) -> Option<Status> {
        Some(Engine::status(self, now))
    }

    fn next_turn(&self) -> Option<Slot> {
        Engine::next_turn(self)
    }

    fn replay(header: &Header, entries: Vec<Entry>) -> Result<Summary, Divergence> {
        // With the bug that is planted here, if one is.
        replay_as::<S>(header, entries)
    }
}

/// The engine of the product.
pub type Product = Engine<Sound>;
