//! Decides whether what a node says of itself is true: it is what people see of it, and what its shell goes by when it drains.

use turnwise_engine::{LocalInstant, Status, WorkStatement};

use super::{Driver, Lab};
use crate::oracle::Invariant;

impl<D: Driver> Lab<'_, D> {
    /// It has just been told something.
    pub(super) fn check_status(&mut self, number: u32, local: LocalInstant) {
        let Some(life) = &self.hosts[number as usize].life else { return };
        let (id, Some(status)) = (life.number, life.machine.status(local)) else { return };
        let wrong = self.wrong_in(number, &status);
        if let Some(wrong) = wrong {
            self.violated(Invariant::Accounting, || {
                format!("life {id} says of itself {status:?}, but {wrong}")
            });
        }
    }

    fn wrong_in(&self, number: u32, status: &Status) -> Option<&'static str> {
        let host = &self.hosts[number as usize];
        let life = host.life.as_ref()?;
        let by_beat = life.turn_awaited.is_some() && life.turn_asks.is_some();
        let beside = life.work_awaited.is_some()
            && life.work_asks.is_some_and(|(statement, _)| {
                !matches!(statement, WorkStatement::Renew | WorkStatement::Reconcile)
            });
        if status.settled && (by_beat || beside) {
            return Some("a claim is on its way");
        }
        if status.left != life.left {
            return Some("whether it has left is not so");
        }
        if !self.oracle.ring.is_calm(self.now) || life.draining {
            return None;
        }
        if status.offset.is_none() || status.way_there.is_none() {
            return Some("in calm it knows the server's time, and the way there");
        }
        let row = &self.database.row;
        let ring = row.roster.last().map_or(&[][..], |last| &last.ring[..]);
        // Which place it has, it knows as of its last turn.
        if status.rank.is_some() != ring.contains(&life.id) {
            return Some("whether it is in the ring is not so");
        }
        let slot = row.cadence.slot_at(self.server.exact(self.now));
        if status.slot.is_none_or(|believed| (believed - slot).abs() > 1) {
            return Some("it is another slot");
        }
        None
    }
}
