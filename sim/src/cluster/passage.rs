//! Decides what becomes of a request on its way to the database and of its answer on its way back: the roads of
//! the scenario, and the faults that befall one message.

use super::farm::{Host, World};
use super::mail::{HOP, What, Work};
use crate::oracle::{Disturbance, Mark};
use crate::scenario::{Fault, Span};
use crate::sometimes;
use crate::world::Roads;

/// A request that was handed to the network.
pub(super) enum Posted {
    /// Its frame is to be written.
    As(u64),
    /// It never arrives, and nobody says so.
    Lost,
    /// The connection breaks under it.
    Reset,
}

/// A request that arrives.
pub(super) enum Arrived {
    /// The database does it.
    Work(Work),
    /// The database refuses it.
    Refused,
    /// The database does not hear it.
    Unheard,
}

impl World {
    /// A request leaves a node.
    pub(super) fn post(&mut self, number: u32, what: What, work: Work) -> Posted {
        let now = self.now;
        if !matches!(what, What::Hello | What::Life) {
            self.statements += 1;
        }
        let host = self.host(number);
        if what.is_turn() && std::mem::take(&mut host.next.reset) {
            self.disturbed(now, Disturbance::Fault(Fault::Reset { node: number }));
            return Posted::Reset;
        }
        let hold = match what {
            What::Change => std::mem::take(&mut host.next.hold_change),
            What::Work => std::mem::take(&mut host.next.stall_work),
            _ => 0,
        };
        let lost = what.is_turn() && std::mem::take(&mut host.next.lose_request);
        if hold > 0 {
            let (node, lasts) = (number, Span(hold));
            let fault = match what {
                What::Work => Fault::StallWork { node, lasts },
                _ => Fault::HoldChange { node, lasts },
            };
            self.disturbed(now + hold, Disturbance::Fault(fault));
        }
        if lost {
            self.disturbed(now, Disturbance::Fault(Fault::LoseRequest { node: number }));
            return Posted::Lost;
        }
        let host = self.host(number);
        let roads = host.roads(what);
        let calm = roads.there.cut_until <= now && roads.there.crowd <= 1;
        let passage = roads.there.pass(now);
        self.chance(number, what, calm, passage.extra, passage.arrives.is_none());
        match passage.arrives {
            // A road that is cut is cut in the network: the frame goes into it and does not come out.
            None if calm => Posted::Lost,
            arrives => {
                let arrives = arrives.unwrap_or(now) + hold;
                Posted::As(self.mail.post(number, what, arrives, work))
            }
        }
    }

    /// What chance alone did to a message on the turn row.
    fn chance(&mut self, number: u32, what: What, calm: bool, extra: u64, lost: bool) {
        if !calm || !what.is_turn() {
            return;
        }
        if lost {
            self.accident(number, Disturbance::Lost);
        } else if extra > self.period / 4 {
            self.accident(number, Disturbance::Late);
        }
    }

    fn accident(&mut self, number: u32, what: Disturbance) {
        self.disturbed(self.now + self.period, what);
        let lease = self.scenario.longest_lease();
        let until = self.now + 2 * lease + 2 * self.period;
        let host = self.host(number);
        host.excused_until = host.excused_until.max(until);
    }

    /// When a request arrives whose frame has come; none: it was never posted.
    pub(super) fn arrives(&mut self, parcel: u64) -> Option<u64> {
        self.mail.parcel(parcel).map(|parcel| parcel.arrives)
    }

    /// A request arrives.
    pub(super) fn arrived(&mut self, number: u64) -> Arrived {
        let now = self.now;
        if self.out_until > now {
            return Arrived::Unheard;
        }
        let Some(parcel) = self.mail.parcel(number) else { return Arrived::Unheard };
        let host = parcel.host;
        let (what, host) = (parcel.what, &mut self.hosts[host as usize]);
        let undone = matches!(what, What::Work) && std::mem::take(&mut host.next.deadlock);
        if host.errors_until > now || undone {
            parcel.refused = true;
            let node = parcel.host;
            if undone {
                self.oracle.marks.reach(Mark::StatementUndone);
                self.disturbed(now, Disturbance::Fault(Fault::Deadlock { node }));
            }
            return Arrived::Refused;
        }
        parcel.work.take().map_or(Arrived::Unheard, Arrived::Work)
    }

    /// A request was done: when the frame of its answer is to be written; none: never.
    pub(super) fn answered(&mut self, number: u64, durable: bool) -> Option<u64> {
        let now = self.now;
        let commit = if durable { self.scenario.database.commit.0 } else { 0 };
        let served = now + self.scenario.database.service.0 + commit + self.slow;
        let parcel = self.mail.parcel(number)?;
        let (number, what) = (parcel.host, parcel.what);
        let host = self.host(number);
        let roads = host.roads(what);
        let calm = roads.back.cut_until <= now && roads.back.crowd <= 1;
        let passage = roads.back.pass(served);
        let lost = match what {
            What::Turn | What::Change if std::mem::take(&mut host.next.lose_answer) => {
                Some(Fault::LoseAnswer { node: number })
            }
            What::Change if std::mem::take(&mut host.next.lose_change) => {
                Some(Fault::LoseChange { node: number })
            }
            What::Work if std::mem::take(&mut host.next.lose_work) => {
                Some(Fault::LoseWork { node: number })
            }
            _ => None,
        };
        if let Some(fault) = lost {
            self.disturbed(now, Disturbance::Fault(fault));
            return None;
        }
        self.chance(number, what, calm, passage.extra, passage.arrives.is_none());
        match passage.arrives {
            None if calm => None,
            arrives => Some(arrives.unwrap_or(served).saturating_sub(HOP)),
        }
    }

    /// An answer came whose request nobody waits for any more.
    pub(super) fn unwanted(&mut self) {
        sometimes!(self.oracle.marks, Mark::LateAnswer, true);
    }
}

impl Host {
    fn roads(&mut self, what: What) -> &mut Roads {
        if what.is_turn() { &mut self.turn } else { &mut self.work }
    }
}
