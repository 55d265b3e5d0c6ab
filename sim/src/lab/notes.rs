//! Decides what is made of a machine's notes: whether they are true, and what the judge and the picture are told.

use turnwise_engine::{NodeId, Note};

use super::host::life_of;
use super::{Driver, Lab};
use crate::oracle::{Invariant, Mark, Oracle};
use crate::report::Seen;
use crate::sometimes;

impl<D: Driver> Lab<'_, D> {
    pub(super) fn noted(&mut self, number: u32, note: &Note) {
        let now = self.now;
        let marks = &mut self.oracle.marks;
        let Some(life) = &mut self.hosts[number as usize].life else { return };
        match note {
            Note::Beat { slot, arrival_error, .. } => {
                let told = *arrival_error;
                let (truth, id) = (life.beat_error, life.number);
                if told.is_some_and(|told| told != truth) {
                    self.violated(Invariant::Accounting, || {
                        format!("life {id} notes {told:?} for its beat in {slot}, {truth} is true")
                    });
                }
            }
            Note::TurnSkipped { slot } => {
                let (twice, id) = (life.skipped == *slot, life.number);
                let sent = life.beat_left == *slot;
                life.skipped = life.skipped.max(*slot);
                marks.reach(Mark::Skipped);
                if twice && D::PROMISES {
                    self.violated(Invariant::Accounting, || {
                        format!("life {id} notes twice that it skipped {slot}")
                    });
                }
                if sent && D::PROMISES {
                    self.violated(Invariant::Accounting, || {
                        format!("life {id} notes that it skipped {slot}, for which its beat left")
                    });
                }
            }
            Note::Changed { kind, victims } => {
                use turnwise_engine::ChangeKind::{Join, Leave, Remove, Takeover};
                sometimes!(marks, Mark::Joined, *kind == Join);
                sometimes!(marks, Mark::CameBack, *kind == Join && life.removed);
                sometimes!(marks, Mark::Left, *kind == Leave);
                sometimes!(marks, Mark::Removed, *kind == Remove);
                sometimes!(marks, Mark::RemovedSeveral, victims.len() > 1);
                sometimes!(marks, Mark::TookOver, *kind == Takeover);
                let from = self.database.row.roster.last().map_or(0, |last| last.from.0);
                self.seen(number, Seen::Changed { kind: *kind, from });
                self.removed(victims);
            }
            Note::Left => {
                life.left = true;
                let busy = life.holds() > 0;
                sometimes!(marks, Mark::DrainedWhileBusy, busy);
                self.oracle.ring.extend(now);
            }
            Note::ClockStep => {
                let Oracle { ring, clock, marks, violations, .. } = &mut self.oracle;
                if clock.proved(number, marks) {
                    ring.step_proven(now, marks, violations);
                }
            }
            Note::ServerChanged => {
                marks.reach(Mark::ServerChanged);
                self.oracle.clock.forgot(number);
            }
            _ => {}
        }
    }

    fn removed(&mut self, victims: &[NodeId]) {
        for victim in victims {
            let life = life_of(*victim);
            let host = self.lives[life as usize];
            if let Some(life) = &mut self.hosts[host as usize].life
                && life.id == *victim
            {
                life.removed = true;
                self.oracle.marks.reach(Mark::RemovedAlive);
                let number = life.number;
                let Oracle { ring, violations, .. } = &mut self.oracle;
                if D::PROMISES {
                    ring.removed_alive(self.now, number, violations);
                }
            }
        }
    }
}
