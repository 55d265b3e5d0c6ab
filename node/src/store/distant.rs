//! Decides how far away a database seems that is near: a store around a store, which waits before and after each
//! statement. For demonstrations and tests; the database itself, and the farm's other nodes, notice nothing.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use turnwise_engine::{
    Change, Claim, LocalInstant, NodeId, Period, ServerIdentity, ServerInstant, Slot, Token,
    TurnRow,
};

use super::{
    CheckIn, Claimed, DrainAnswer, Fire, Look, NodeReport, NodeView, Prune, Pruned, Queues,
    Registration, ScheduleView, Settled, Store, StoreError, TargetView, TurnReply, TurnRequest,
    Turns,
};
use crate::batch::BatchId;
use crate::clock::{BootClock, Clock};
use crate::job::{Attempts, End, EndOutcome, JobFilter, JobId, JobView, NewJob, SlowDown};

/// The longest way, there or back: farther than any patience reaches.
const WAY_MAX: Duration = Duration::from_secs(10);

/// How long a statement is on its way to the database, and its answer on the way back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Distance {
    /// From the node to the database, up to 10 s.
    there: Duration,
    /// From the database to the node, up to 10 s.
    back: Duration,
}

impl Distance {
    /// So long there and so long back, 10 s each at most.
    pub fn of(there: Duration, back: Duration) -> Self {
        Self { there: there.min(WAY_MAX), back: back.min(WAY_MAX) }
    }
}

/// `WAY` or `THERE..BACK`: `80ms` is 80 ms there and 80 ms back.
impl FromStr for Distance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (there, back) = text.split_once("..").unwrap_or((text, text));
        Ok(Self { there: way(there)?, back: way(back)? })
    }
}

fn way(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let way = humantime::parse_duration(text).map_err(|error| {
        format!(
            "{text:?} is no distance: {error}; write it as 80ms, or 20ms..60ms for there and back"
        )
    })?;
    if way > WAY_MAX {
        let most = humantime::format_duration(WAY_MAX);
        return Err(format!("{text:?} is too far: a way is {most} at most"));
    }
    Ok(way)
}

impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { there, back } = *self;
        write!(f, "{}", humantime::format_duration(there))?;
        if back != there {
            write!(f, "..{}", humantime::format_duration(back))?;
        }
        Ok(())
    }
}

/// The road to a database, whose length can be changed while it is in use. Clones are the same road.
#[derive(Clone, Debug, Default)]
pub struct Road(Arc<Mutex<Distance>>);

impl Road {
    /// A road of this length.
    pub fn new(distance: Distance) -> Self {
        Self(Arc::new(Mutex::new(distance)))
    }

    /// It has this length from the next way on.
    pub fn set(&self, distance: Distance) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = distance;
    }

    fn distance(&self) -> Distance {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There, the work, and back.
    async fn trip<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::time::sleep(self.distance().there).await;
        let done = work.await;
        tokio::time::sleep(self.distance().back).await;
        done
    }
}

/// A store at the end of a road.
#[derive(Clone, Debug)]
pub struct Distant<S> {
    store: S,
    road: Road,
}

/// The connection for the turn row, at the end of a road.
#[derive(Debug)]
pub struct DistantTurns<T> {
    turns: T,
    road: Road,
}

impl<S> Distant<S> {
    /// `store`, at the end of `road`.
    pub fn new(store: S, road: Road) -> Self {
        Self { store, road }
    }
}

impl<T: Turns> Turns for DistantTurns<T> {
    /// The stamps of the node's clock are taken at this end of the road: they see its length. The waits are as
    /// precise as a beat's, since a real road adds no milliseconds of a timer's.
    async fn execute(
        &mut self,
        request: &TurnRequest<'_>,
        clock: &(dyn Fn() -> LocalInstant + Sync),
    ) -> Result<TurnReply, StoreError> {
        let sent = clock();
        wait(self.road.distance().there).await;
        let reply = self.turns.execute(request, clock).await;
        wait(self.road.distance().back).await;
        let received = clock();
        let mut reply = reply?;
        reply.exchange.sent = sent;
        reply.exchange.received = received;
        Ok(reply)
    }
}

async fn wait(way: Duration) {
    if !way.is_zero() {
        BootClock.sleep_precisely_until(BootClock.now() + way).await;
    }
}

impl<S: Store> Store for Distant<S> {
    type Turns = DistantTurns<S::Turns>;

    async fn turns(&self) -> Result<Self::Turns, StoreError> {
        let turns = self.road.trip(self.store.turns()).await?;
        Ok(DistantTurns { turns, road: self.road.clone() })
    }

    async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        self.road.trip(self.store.migrate()).await
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        self.road.trip(self.store.check_schema()).await
    }

    async fn agree_period(&self, wanted: Option<Period>) -> Result<Period, StoreError> {
        self.road.trip(self.store.agree_period(wanted)).await
    }

    async fn register(&self, node: &Registration) -> Result<(), StoreError> {
        self.road.trip(self.store.register(node)).await
    }

    async fn deregister(&self, node: NodeId) -> Result<(), StoreError> {
        self.road.trip(self.store.deregister(node)).await
    }

    async fn drain(&self, node: NodeId) -> Result<Option<DrainAnswer>, StoreError> {
        self.road.trip(self.store.drain(node)).await
    }

    async fn tell_targets(&self, node: NodeId, targets: &[TargetView]) -> Result<(), StoreError> {
        self.road.trip(self.store.tell_targets(node, targets)).await
    }

    async fn renew(&self, node: NodeId, report: &NodeReport) -> Result<CheckIn, StoreError> {
        self.road.trip(self.store.renew(node, report)).await
    }

    async fn claim(
        &self,
        node: NodeId,
        claim: Claim,
        queues: &Queues,
        report: &NodeReport,
    ) -> Result<Claimed, StoreError> {
        self.road.trip(self.store.claim(node, claim, queues, report)).await
    }

    async fn recover(
        &self,
        node: NodeId,
        token: Token,
        report: &NodeReport,
    ) -> Result<Claimed, StoreError> {
        self.road.trip(self.store.recover(node, token, report)).await
    }

    async fn release(
        &self,
        node: NodeId,
        token: Token,
        report: &NodeReport,
    ) -> Result<CheckIn, StoreError> {
        self.road.trip(self.store.release(node, token, report)).await
    }

    async fn reconcile(
        &self,
        node: NodeId,
        holds: &[(JobId, Token)],
        last: Token,
        report: &NodeReport,
    ) -> Result<Claimed, StoreError> {
        self.road.trip(self.store.reconcile(node, holds, last, report)).await
    }

    async fn end(
        &self,
        node: NodeId,
        ends: &[End],
    ) -> Result<(Vec<EndOutcome>, CheckIn), StoreError> {
        self.road.trip(self.store.end(node, ends)).await
    }

    async fn enqueue(&self, jobs: &[NewJob]) -> Result<Vec<JobId>, StoreError> {
        self.road.trip(self.store.enqueue(jobs)).await
    }

    async fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobView>, StoreError> {
        self.road.trip(self.store.jobs(filter)).await
    }

    async fn job(&self, id: JobId) -> Result<Option<(JobView, Attempts)>, StoreError> {
        self.road.trip(self.store.job(id)).await
    }

    async fn retry(&self, id: JobId) -> Result<Option<bool>, StoreError> {
        self.road.trip(self.store.retry(id)).await
    }

    async fn secret(&self, name: &str, offered: &str) -> Result<String, StoreError> {
        self.road.trip(self.store.secret(name, offered)).await
    }

    async fn cancelled(
        &self,
        node: NodeId,
        held: &[(JobId, Token)],
    ) -> Result<Vec<(JobId, Token)>, StoreError> {
        self.road.trip(self.store.cancelled(node, held)).await
    }

    async fn cancel(&self, id: JobId) -> Result<Option<bool>, StoreError> {
        self.road.trip(self.store.cancel(id)).await
    }

    async fn due_schedules(
        &self,
        until: ServerInstant,
    ) -> Result<(ServerInstant, Vec<ScheduleView>), StoreError> {
        self.road.trip(self.store.due_schedules(until)).await
    }

    async fn fire(&self, fire: &Fire) -> Result<bool, StoreError> {
        self.road.trip(self.store.fire(fire)).await
    }

    async fn due_batches(&self, until: ServerInstant) -> Result<Vec<BatchId>, StoreError> {
        self.road.trip(self.store.due_batches(until)).await
    }

    async fn slow_down(&self, what: &SlowDown) -> Result<(), StoreError> {
        self.road.trip(self.store.slow_down(what)).await
    }

    async fn settle(&self, batches: &[BatchId]) -> Result<Settled, StoreError> {
        self.road.trip(self.store.settle(batches)).await
    }

    async fn prune(&self, prune: &Prune) -> Result<Pruned, StoreError> {
        self.road.trip(self.store.prune(prune)).await
    }

    async fn prune_audit(&self) -> Result<u32, StoreError> {
        self.road.trip(self.store.prune_audit()).await
    }

    fn apart(&self) -> Self {
        Self::new(self.store.apart(), self.road.clone())
    }

    async fn nodes(&self) -> Result<Vec<NodeView>, StoreError> {
        self.road.trip(self.store.nodes()).await
    }

    async fn look(&self) -> Result<Look, StoreError> {
        self.road.trip(self.store.look()).await
    }

    async fn stamp(&self) -> Result<(Slot, TurnRow, ServerIdentity), StoreError> {
        self.road.trip(self.store.stamp()).await
    }

    async fn change(&self, change: &Change, identity: ServerIdentity) -> Result<bool, StoreError> {
        self.road.trip(self.store.change(change, identity)).await
    }
}

#[cfg(test)]
mod tests {
    use turnwise_engine::{TurnKind, TurnStatement};

    use super::*;
    use crate::store::sqlite::SqliteStore;

    fn distance(text: &str) -> Distance {
        text.parse().unwrap()
    }

    #[test]
    fn a_distance_is_read_and_shown() {
        assert_eq!(distance("80ms").to_string(), "80ms");
        assert_eq!(distance("20ms..1s").to_string(), "20ms..1s");
        assert_eq!(distance("5ms..5ms").to_string(), "5ms");
        assert_eq!(distance("0"), Distance::default());
    }

    #[test]
    fn nonsense_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", "is no distance"),
            ("far", "is no distance"),
            ("-3ms", "is no distance"),
            ("1ms..", "is no distance"),
            ("11s", "10s at most"),
            ("1ms..1h", "10s at most"),
        ] {
            let error = text.parse::<Distance>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn an_exchange_sees_the_whole_road_and_where_it_is_longer() {
        let store = SqliteStore::open("sqlite::memory:").unwrap();
        store.migrate().await.unwrap();
        let road = Road::new(distance("5ms..40ms"));
        let mut turns = Distant::new(store, road.clone()).turns().await.unwrap();
        let statement =
            TurnStatement { node: NodeId::from_u128(7), believed: None, kind: TurnKind::Read };
        let queues = Queues::All;
        let request =
            TurnRequest { statement: &statement, queues: &queues, report: NodeReport::default() };
        let clock = || BootClock.now();
        let far = turns.execute(&request, &clock).await.unwrap().exchange;
        assert!(far.received.since(far.sent) >= Duration::from_millis(45));
        road.set(distance("30ms..0"));
        let begun = BootClock.now();
        let near = turns.execute(&request, &clock).await.unwrap().exchange;
        assert!(near.sent >= begun);
        assert!(near.received.since(near.sent) >= Duration::from_millis(30));
        // A way takes at least as long as it is said to, whatever else the machine does: t1 - t0 there, t3 - t2 back,
        // both but for the unknown offset, which is the same in both exchanges.
        let there = |exchange: &turnwise_engine::Exchange| {
            exchange.arrived.as_nanos() - exchange.sent.as_nanos() as i64
        };
        let back = |exchange: &turnwise_engine::Exchange| {
            exchange.received.as_nanos() as i64 - exchange.answered.as_nanos()
        };
        assert!(there(&far) + back(&far) >= 45_000_000);
        assert!(there(&near) + back(&near) >= 30_000_000);
    }
}
