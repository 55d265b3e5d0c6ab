//! A node as the promises see it: an id, a store and a connection for the turn row. Decides nothing.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;
use turnwise_engine::{
    Change, Claim, LocalInstant, NodeId, ServerIdentity, Slot, Token, TurnKind, TurnStatement,
};
use turnwise_node::job::{ClaimedJob, End, EndOutcome, JobFate, JobId, JobState, NewJob, When};
use turnwise_node::store::{
    CheckIn, NodeReport, Queues, Registration, Store, StoreError, TurnReply, TurnRequest, Turns,
};

use crate::world::World;

/// A node that is registered.
pub(crate) struct Member<S: Store> {
    pub(crate) id: NodeId,
    pub(crate) store: S,
    /// Never contended: the mutex is for the promises that share a node between tasks.
    pub(crate) turns: Mutex<S::Turns>,
}

pub(crate) fn id(number: u128) -> NodeId {
    NodeId::from_u128(number)
}

impl<S: Store> Member<S> {
    /// Register a node, with a store of its own.
    pub(crate) async fn register<W: World<Store = S>>(world: &W, number: u128) -> Self {
        let store = world.store();
        let name = format!("node-{number}");
        let node = Registration { id: id(number), name, capacity: 8 };
        store.register(&node).await.unwrap();
        let turns = store.turns().await.unwrap().into();
        Self { id: id(number), store, turns }
    }

    /// A statement on the turn row.
    pub(crate) async fn send(&mut self, believed: Option<Slot>, kind: TurnKind) -> TurnReply {
        self.send_for(believed, kind, &Queues::All).await
    }

    pub(crate) async fn send_for(
        &mut self,
        believed: Option<Slot>,
        kind: TurnKind,
        queues: &Queues,
    ) -> TurnReply {
        let statement = TurnStatement { node: self.id, believed, kind };
        let request = TurnRequest { statement: &statement, queues, report: NodeReport::default() };
        self.turns.get_mut().unwrap().execute(&request, &local_clock).await.unwrap()
    }

    pub(crate) async fn read(&mut self) -> TurnReply {
        self.send(None, TurnKind::Read).await
    }

    /// A beat that claims nothing.
    pub(crate) async fn beat(&mut self) -> TurnReply {
        self.send(None, TurnKind::Beat { claim: None }).await
    }

    /// A beat that may fail.
    #[allow(dead_code, reason = "not every test crate breaks one")]
    pub(crate) async fn try_beat(&mut self) -> Result<TurnReply, StoreError> {
        let kind = TurnKind::Beat { claim: None };
        let statement = TurnStatement { node: self.id, believed: None, kind };
        let (queues, report) = (&Queues::All, NodeReport::default());
        let request = TurnRequest { statement: &statement, queues, report };
        self.turns.get_mut().unwrap().execute(&request, &local_clock).await
    }

    /// A beat that claims up to `limit` jobs.
    pub(crate) async fn beat_for(&mut self, token: i64, limit: u32) -> TurnReply {
        let claim = Some(Claim { token: Token(token), limit });
        self.send(None, TurnKind::Beat { claim }).await
    }

    pub(crate) async fn change(&mut self, change: Change) -> TurnReply {
        let identity = self.read().await.identity;
        self.change_on(change, identity).await
    }

    pub(crate) async fn change_on(
        &mut self,
        change: Change,
        identity: ServerIdentity,
    ) -> TurnReply {
        self.send(None, TurnKind::Change { change, identity }).await
    }

    /// Claim outside the turn.
    pub(crate) async fn claim(&self, token: i64, limit: u32) -> Vec<ClaimedJob> {
        self.claim_from(token, limit, &Queues::All).await
    }

    pub(crate) async fn claim_from(
        &self,
        token: i64,
        limit: u32,
        queues: &Queues,
    ) -> Vec<ClaimedJob> {
        let claim = Claim { token: Token(token), limit };
        let claimed =
            self.store.claim(self.id, claim, queues, &NodeReport::default()).await.unwrap();
        assert_eq!(claimed.check_in, CheckIn::Alive);
        claimed.jobs
    }

    /// Claim one job, which must be there.
    pub(crate) async fn claim_one(&self, token: i64) -> ClaimedJob {
        let mut jobs = self.claim(token, 1).await;
        assert_eq!(jobs.len(), 1, "no job to claim");
        jobs.remove(0)
    }

    pub(crate) async fn end(&self, job: &ClaimedJob, fate: JobFate) -> EndOutcome {
        self.end_as(&end_of(job, fate)).await
    }

    pub(crate) async fn end_as(&self, end: &End) -> EndOutcome {
        let (outcomes, _) = self.store.end(self.id, std::slice::from_ref(end)).await.unwrap();
        assert_eq!(outcomes.len(), 1);
        outcomes[0]
    }

    pub(crate) async fn renew(&self) -> CheckIn {
        self.store.renew(self.id, &NodeReport::default()).await.unwrap()
    }
}

pub(crate) fn end_of(job: &ClaimedJob, fate: JobFate) -> End {
    End {
        job: job.id,
        token: job.token,
        attempt: job.attempt,
        fate,
        status: Some(500),
        error: Some("it said no".to_owned()),
        answer: Some(b"no".to_vec()),
        batch: job.particulars.batch_id(),
        slow_down: None,
    }
}

/// A job for `/ok`, due at once.
pub(crate) fn job() -> NewJob {
    NewJob::new("/ok")
}

pub(crate) fn job_at(micros: i64) -> NewJob {
    NewJob { when: When::At(turnwise_engine::ServerInstant::from_micros(micros)), ..job() }
}

/// Enqueue one job; its id.
pub(crate) async fn enqueue<S: Store>(store: &S, job: NewJob) -> JobId {
    let id = job.id;
    store.enqueue(&[job]).await.unwrap();
    id
}

pub(crate) async fn state<S: Store>(store: &S, id: JobId) -> JobState {
    store.job(id).await.unwrap().unwrap().0.state
}

pub(crate) fn only(queues: &[&str]) -> Queues {
    Queues::Only(queues.iter().map(ToString::to_string).collect())
}

pub(crate) fn ids(jobs: &[ClaimedJob]) -> Vec<JobId> {
    jobs.iter().map(|job| job.id).collect()
}

/// The clock of the machine that asks, which under a simulation is the simulated one.
pub(crate) fn local_clock() -> LocalInstant {
    static BEGUN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let since: Duration = BEGUN.get_or_init(Instant::now).elapsed();
    LocalInstant::from_nanos(since.as_nanos() as u64 + 1)
}

/// Numbers that look random and are the same on every run (splitmix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + (self.roll() % (high - low + 1) as u64) as i64
    }

    pub(crate) fn one_in(&mut self, chances: i64) -> bool {
        self.between(1, chances) == 1
    }
}
