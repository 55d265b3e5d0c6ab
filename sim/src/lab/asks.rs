//! Decides whether a node asks for jobs as soon as it can: keeps what the answers to its claims have told it, and what it has not
//! asked for since.

use turnwise_engine::{Kept, LocalInstant};

use super::{Driver, Lab};
use crate::oracle::Invariant;

/// A node that knows of more jobs asks for them within so long, and so many times its mean lateness.
const ASKS_WITHIN: u64 = 50_000_000;
const LATE_WAKES: u64 = 30;
/// So long after it gave up a statement on the jobs a node may wait before it tries again.
pub(super) const RETRIED_WITHIN: u64 = 500_000_000;
/// A node keeps in mind the next times of so many queues; whoever asks for the first of them is told of the others.
const RATES_MAX: usize = 4;

/// What a node was told, and when it could ask.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// There may be more jobs that are due.
    more: bool,
    /// There is room for another as soon as one has ended ...
    when_one_ends: bool,
    /// ... and one has, since the last claim left.
    ended: Option<LocalInstant>,
    /// When queues give out their next jobs, the earliest first.
    rates: Vec<LocalInstant>,
    /// Since when nothing keeps it from asking.
    able_since: Option<u64>,
}

/// A claim under way, and what it asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asking {
    limit: u32,
    ended: Option<LocalInstant>,
    rate: Option<LocalInstant>,
    /// Another answer has told of more since it left: its own takes none of that back, whichever is the newer.
    overtaken: bool,
}

impl Asking {
    pub(super) fn overtake(&mut self) {
        self.overtaken = true;
    }
}

impl Told {
    /// A claim leaves.
    pub(super) fn asks(&mut self, now: LocalInstant, limit: u32) -> Asking {
        let come = self.rates.partition_point(|at| *at <= now);
        let rate = self.rates.drain(..come).next_back();
        Asking { limit, ended: std::mem::take(&mut self.ended), rate, overtaken: false }
    }

    /// It was answered at `now`.
    pub(super) fn answered(
        &mut self,
        now: LocalInstant,
        asking: Asking,
        (claimed, more): (u32, bool),
        kept: Kept,
    ) {
        if !asking.overtaken {
            (self.more, self.when_one_ends) = (false, false);
        }
        self.more |= more || claimed >= asking.limit;
        self.when_one_ends |= kept.until_one_ends;
        self.rate_at(kept.rate_wait.map(|wait| now + wait));
    }

    /// It has surely done nothing.
    pub(super) fn came_to_nothing(&mut self, asking: Asking) {
        self.ended = asking.ended.or(self.ended);
        self.rate_at(asking.rate);
    }

    /// A claim that was lost has been put right: what it asked about is not known.
    pub(super) fn was_put_right(&mut self) {
        self.more = true;
    }

    pub(super) fn one_ended(&mut self, now: LocalInstant) {
        self.ended.get_or_insert(now);
    }

    /// Whether it was told of more than it has asked for since.
    pub(super) fn knows_of_more(&self) -> bool {
        self.more || self.when_one_ends
    }

    fn rate_at(&mut self, at: Option<LocalInstant>) {
        if let Some(at) = at {
            let place = self.rates.partition_point(|other| *other < at);
            self.rates.insert(place, at);
            self.rates.dedup();
            self.rates.truncate(RATES_MAX);
        }
    }

    /// For how long it has had something to ask about: none when it has nothing.
    fn has_wished_for(&self, now: LocalInstant) -> Option<u64> {
        if self.more {
            return Some(u64::MAX);
        }
        let ended = self.ended.filter(|_| self.when_one_ends);
        let since = ended.into_iter().chain(self.rates.first().copied()).min();
        Some(now.nanos_from(since.filter(|since| *since <= now)?) as u64)
    }

    /// For how long it could have asked at the true time `now`, when its clock shows `local`.
    fn could_have_asked_for(&self, now: u64, local: LocalInstant) -> Option<u64> {
        let able = now.saturating_sub(self.able_since?);
        Some(able.min(self.has_wished_for(local)?))
    }
}

impl<D: Driver> Lab<'_, D> {
    /// Who knows of more jobs and could run some asks for them without being woken by anything else.
    pub(super) fn check_drains(&mut self, number: u32) {
        let now = self.now;
        let host = &mut self.hosts[number as usize];
        let local = host.clock.read(now);
        let Some(life) = &host.life else { return };
        let late = LATE_WAKES * host.plan.clock.late_wake.0;
        let Some(waited) = life.told.could_have_asked_for(now, local) else { return };
        let promised = D::PROMISES && life.machine.promises(Invariant::Drains);
        if waited > ASKS_WITHIN + late && self.oracle.ring.is_calm(now) && promised {
            let (id, waited) = (life.number, waited / 1_000_000);
            self.violated(Invariant::Drains, || {
                format!("life {id}, told of more jobs and with places free, has not asked for {waited} ms")
            });
        }
    }

    /// Note since when a node could ask for more.
    pub(super) fn note_whether_it_could_ask(&mut self, number: u32) {
        let now = self.now;
        let host = &mut self.hosts[number as usize];
        let (capacity, paused) = (host.plan.capacity, host.is_paused(now));
        let Some(life) = &mut host.life else { return };
        let waits = life.turn_awaited.is_some() || life.work_awaited.is_some() || paused;
        let retries = life.may_wait_to_retry(now);
        let able = life.holds() < capacity
            && life.target_told
            && !life.draining
            && !waits
            && !retries
            && life.machine.held().is_some();
        life.told.able_since = able.then(|| life.told.able_since.unwrap_or(now));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(nanos: u64) -> LocalInstant {
        LocalInstant::from_nanos(nanos)
    }

    fn able() -> Told {
        Told { able_since: Some(100), ..Told::default() }
    }

    fn told_of(until_one_ends: bool, rate_wait: Option<u64>) -> Told {
        let mut told = able();
        let asking = told.asks(at(100), 8);
        let kept = Kept { until_one_ends, rate_wait: rate_wait.map(Duration::from_nanos) };
        told.answered(at(100), asking, (1, false), kept);
        told
    }

    /// For how long it could have asked, where both clocks show the same.
    fn waits(told: &Told, now: u64) -> Option<u64> {
        told.could_have_asked_for(now, at(now))
    }

    #[test]
    fn whoever_brought_all_that_it_asked_for_asks_again_at_once() {
        let mut told = able();
        assert_eq!(waits(&told, 150), None);
        let asking = told.asks(at(100), 8);
        told.answered(at(100), asking, (8, false), Kept::default());
        assert_eq!(waits(&told, 150), Some(50));
    }

    #[test]
    fn an_older_answer_takes_nothing_back() {
        let mut told = able();
        let (newer, mut older) = (told.asks(at(100), 8), told.asks(at(100), 8));
        told.answered(at(110), newer, (8, false), Kept::default());
        assert!(told.knows_of_more());
        older.overtake();
        told.answered(at(120), older, (0, false), Kept::default());
        assert_eq!(waits(&told, 150), Some(50));
    }

    #[test]
    fn an_end_makes_room_where_the_answer_said_so() {
        let mut told = told_of(true, None);
        assert_eq!(waits(&told, 150), None);
        told.one_ended(at(130));
        assert_eq!(waits(&told, 150), Some(20));
        let asking = told.asks(at(200), 8);
        assert_eq!(waits(&told, 250), None, "it has asked");
        told.came_to_nothing(asking);
        assert_eq!(waits(&told, 250), Some(120));
        let mut told = told_of(false, None);
        told.one_ended(at(130));
        assert_eq!(waits(&told, 150), None);
    }

    #[test]
    fn a_queue_that_gives_out_its_next_job_later_is_asked_then() {
        let mut told = told_of(false, Some(600));
        told.rate_at(Some(at(500)));
        assert_eq!(waits(&told, 450), None);
        assert_eq!(waits(&told, 520), Some(20));
        let asking = told.asks(at(600), 8);
        assert_eq!(waits(&told, 650), None);
        assert_eq!(waits(&told, 750), Some(50));
        told.came_to_nothing(asking);
        assert_eq!(waits(&told, 750), Some(250));
    }
}
