//! Decides what is kept of the journals of lives, and judges each when its life is over: a new machine, told the same, must ask
//! for the same.

use std::collections::BTreeMap;

use turnwise_engine::journal::{Entry, Header};

use super::{Driver, Lab};
use crate::oracle::Invariant;

/// Where nobody wants the journals they are judged up to so many entries a life: a run of days takes no more room than one of
/// an hour.
const JUDGED_MAX: usize = 32_768;

/// The journal of one life, as `turnwise run --journal` writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// Which life, from 0 in the order in which they began.
    pub life: u32,
    /// Of which node of the scenario.
    pub node: u32,
    /// What its engine was made from.
    pub header: Header,
    /// What it was told and asked for. Without an end the node was killed, or lived on when the run was over.
    pub entries: Vec<Entry>,
}

/// The journals of a run.
pub(super) struct Journals {
    /// Of the lives that go on.
    open: BTreeMap<u32, Journal>,
    /// Of those that are over, if anybody wants them.
    over: Option<Vec<Journal>>,
}

impl Journals {
    /// None yet. `wanted`: they are handed out in the end, and whole.
    pub(super) fn new(wanted: bool) -> Self {
        Self { open: BTreeMap::new(), over: wanted.then(Vec::new) }
    }

    /// A life begins.
    pub(super) fn begin(&mut self, life: u32, node: u32, header: Header) {
        self.open.insert(life, Journal { life, node, header, entries: Vec::new() });
    }

    /// What comes next in a life.
    pub(super) fn add(&mut self, life: u32, entry: impl FnOnce() -> Entry) {
        let Some(Journal { entries, .. }) = self.open.get_mut(&life) else { return };
        if self.over.is_some() || entries.len() < JUDGED_MAX {
            entries.push(entry());
        } else if entries.len() == JUDGED_MAX {
            entries.push(Entry::BrokenOff);
        }
    }

    /// All that were wanted, in the order in which their lives began.
    pub(super) fn handed_out(self) -> Vec<Journal> {
        let mut all = self.over.unwrap_or_default();
        all.sort_by_key(|journal| journal.life);
        all
    }
}

impl<D: Driver> Lab<'_, D> {
    /// A life is over. One that was killed has no end in its journal.
    pub(super) fn end_journal(&mut self, life: u32, killed: bool) {
        let Some(journals) = &mut self.journals else { return };
        if !killed {
            journals.add(life, || Entry::End);
        }
        if let Some(journal) = journals.open.remove(&life) {
            self.judge_journal(journal);
        }
    }

    /// The run is over, whoever lives.
    pub(super) fn end_journals(&mut self) {
        let Some(journals) = &mut self.journals else { return };
        for journal in std::mem::take(&mut journals.open).into_values() {
            self.judge_journal(journal);
        }
    }

    fn judge_journal(&mut self, journal: Journal) {
        if let Some(over) = self.journals.as_mut().and_then(|journals| journals.over.as_mut()) {
            over.push(journal.clone());
        }
        let Journal { life, header, entries, .. } = journal;
        if let Err(difference) = D::replay(&header, entries) {
            self.violated(Invariant::Replay, || {
                format!("a new engine, told what life {life} was told: {difference}")
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use turnwise_engine::journal::VERSION;
    use turnwise_engine::{Input, LocalInstant};

    use super::super::host::id_of;
    use super::*;

    /// The entries of a life in which so much happened.
    fn kept(wanted: bool, happened: usize) -> Vec<Entry> {
        let mut journals = Journals::new(wanted);
        let now = LocalInstant::from_nanos(1);
        let (version, id, node) = (VERSION, id_of(3), "node-0".to_owned());
        journals.begin(3, 0, Header { version, id, capacity: 1, seed: 1, now, node });
        for _ in 0..happened {
            journals.add(3, || Entry::Input { at: now, input: Input::Wake });
        }
        journals.open.remove(&3).unwrap().entries
    }

    #[test]
    fn a_long_journal_that_nobody_wants_breaks_off_and_says_so() {
        assert_eq!(kept(true, JUDGED_MAX + 9).len(), JUDGED_MAX + 9);
        assert!(!kept(false, JUDGED_MAX).contains(&Entry::BrokenOff));
        let broken = kept(false, JUDGED_MAX + 9);
        assert_eq!(broken.len(), JUDGED_MAX + 1);
        assert_eq!(broken.last(), Some(&Entry::BrokenOff));
    }
}
