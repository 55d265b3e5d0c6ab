//! Decides how a node's process comes up and goes, and when it comes back.

use turnwise_engine::journal::{Header, VERSION};
use turnwise_engine::{Deputy, Input};

use super::events::What;
use super::host::{Life, id_of};
use super::{Driver, Lab};
use crate::oracle::{Disturbance, Mark};
use crate::report::Seen;
use crate::sometimes;
use crate::world::Mishaps;

/// A node that was declared lost comes back after so long.
pub(super) const REBIRTH: u64 = 50_000_000;
/// A node that left for a new version comes up with it after so long.
const DEPLOYED: u64 = 500_000_000;

impl<D: Driver> Lab<'_, D> {
    pub(super) fn start(&mut self, number: u32) {
        let now = self.now;
        if self.out_until > now {
            // It cannot register yet.
            let later = self.out_until + REBIRTH;
            self.push(later, What::Start(number));
            return;
        }
        let host = &mut self.hosts[number as usize];
        if host.life.is_some() {
            return;
        }
        if host.is_paused(now) {
            // Its machine stands still.
            let later = host.paused_until;
            self.push(later, What::Start(number));
            return;
        }
        let life = self.lives.len() as u32;
        self.lives.push(number);
        self.born.push(now);
        self.staying.push(true);
        let local = host.clock.read(now);
        let (id, capacity, seed) = (id_of(life), host.plan.capacity, host.seeds.bits());
        let machine = D::new(id, capacity, seed, local);
        if let Some(journals) = &mut self.journals {
            let node = format!("node-{number}");
            let header = Header { version: VERSION, id, capacity, seed, now: local, node };
            journals.begin(life, number, header);
        }
        let timeline = self.database.identity.timeline;
        host.life = Some(Life::new(life, machine, now, timeline));
        self.oracle.clock.reborn(now, number);
        self.database.register(id_of(life), self.server.stamp(now));
        self.disturbed(now, Disturbance::Join);
        self.count_living();
        self.seen(number, Seen::Up);
        let down = self.hosts[number as usize].target_down_until > now;
        if down {
            self.tell_target(number, false);
        }
        self.input(number, Input::Wake);
    }

    /// The process of a node is no more.
    pub(super) fn stop(&mut self, number: u32, seen: Seen) {
        if seen == Seen::Killed {
            self.note_who_dies(number);
        }
        let host = &mut self.hosts[number as usize];
        let Some(life) = host.life.take() else { return };
        // What was to befall its next statement dies with its connections.
        host.next = Mishaps::default();
        for (job, _) in &life.running {
            self.oracle.jobs.stops(*job, life.number);
        }
        self.staying[life.number as usize] = false;
        if std::mem::take(&mut host.deployed) && seen == Seen::Left {
            self.push(self.now + DEPLOYED, What::Start(number));
        }
        self.count_living();
        self.seen(number, seen);
        self.end_journal(life.number, seen == Seen::Killed);
    }

    /// Whether it is one whose death costs more than its own turn.
    fn note_who_dies(&mut self, number: u32) {
        let Some(life) = &self.hosts[number as usize].life else { return };
        let row = &self.database.row;
        let deputy = |office: &Deputy| office.deputy == life.id && row.slot < office.end;
        sometimes!(self.oracle.marks, Mark::DeputyDied, row.roster.deputies.iter().any(deputy));
        let mut others = self.hosts.iter().filter_map(|host| host.life.as_ref());
        let waits = |other: &Life<D>| other.removed && !row.roster.is_member(other.id);
        let alone = self.staying.iter().filter(|staying| **staying).count() == 2;
        sometimes!(self.oracle.marks, Mark::RemoverDied, alone && others.any(waits));
    }

    pub(super) fn count_living(&mut self) {
        let living = self.staying.iter().filter(|staying| **staying).count();
        self.oracle.ring.living(living);
    }

    /// A node that has left stops when it holds nothing any more, and knows it.
    pub(super) fn stop_if_done(&mut self, number: u32) {
        let life = self.hosts[number as usize].life.as_ref();
        let knows = |life: &Life<D>| life.machine.held() == Some(0) || !D::PROMISES;
        if life.is_some_and(|life| life.left && life.holds() == 0 && knows(life)) {
            self.departs(number);
            self.stop(number, Seen::Left);
        }
    }
}
