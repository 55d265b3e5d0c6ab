//! Decides how claims are measured: by the statements of the production store on one connection, a hundred jobs each,
//! each job ended before the next claim.

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use turnwise_benches::real::figures::Spread;
use turnwise_benches::real::place::Place;
use turnwise_benches::real::processor::load;
use turnwise_benches::real::server::Kind;
use turnwise_benches::real::session::Session;
use turnwise_engine::{Claim, NodeId, Period, Token};
use turnwise_node::job::{ClaimedJob, End, EndOutcome, JobFate, NewJob};
use turnwise_node::store::{AnyStore, NodeReport, Queues, Registration, Store};

use crate::{Case, Options, fill};

/// How many jobs a claim takes.
const JOBS: u32 = 100;
/// So many claims go by before they count.
const WARM_UP: u32 = 10;

/// One outcome, or one a minute. `empty`: the median of a claim from an empty table, 0 when this is that.
pub(crate) fn measure(
    options: &Options,
    database: Kind,
    case: Case,
    empty: f64,
) -> Vec<crate::Outcome> {
    let place = Place::start(database.into());
    let mut node = Node::register(&place.url());
    let jobs = fill(options, &place, database, case);
    let outcome = |minute: Option<u32>, times: &Times| {
        let claim = spread(&times.claims);
        let to_empty = if empty == 0.0 { 1.0 } else { claim.p50 / empty };
        crate::Outcome {
            database,
            case,
            minute,
            jobs,
            claim,
            ends: spread(&times.ends),
            to_empty,
            load: load(),
        }
    };
    let enqueues = case != Case::Ready;
    for _ in 0..WARM_UP {
        node.round(enqueues, &mut Times::default());
    }
    if case != Case::Snapshot {
        let mut times = Times::default();
        for _ in 0..options.claims {
            node.round(enqueues, &mut times);
        }
        return vec![outcome(None, &times)];
    }
    let mut session = node.runtime.block_on(Session::open(database, &place.url()));
    node.runtime.block_on(session.hold_snapshot());
    let mut outcomes = Vec::new();
    for minute in 1..=options.minutes {
        let times = node.a_minute(options.rate);
        outcomes.push(outcome(Some(minute), &times));
        let short = times.claims.len() as f64 / f64::from(60 * options.rate / JOBS);
        if short < 0.98 {
            eprintln!(
                "minute {minute}: the rate is not reached, only {:.0} % of it",
                short * 100.0
            );
        }
    }
    outcomes
}

/// Fill the table; how many jobs it has then.
fn fill(options: &Options, place: &Place, database: Kind, case: Case) -> u64 {
    let scaled = |jobs: f64| (jobs * options.scale) as u64;
    match case {
        Case::Ready => {
            // What is claimed must not be what ends the measurement.
            let jobs = scaled(1e6).max(u64::from((options.claims + WARM_UP) * JOBS));
            fill::ready(place, database, jobs);
            jobs
        }
        Case::Finished => {
            fill::finished(place, database, scaled(1e7));
            scaled(1e7)
        }
        Case::Empty | Case::Snapshot | Case::Enqueue => 0,
    }
}

#[derive(Default)]
struct Times {
    claims: Vec<Duration>,
    ends: Vec<Duration>,
}

/// A node without its shell: what it asks of its store.
struct Node {
    runtime: Runtime,
    store: AnyStore,
    id: NodeId,
    token: i64,
}

impl Node {
    fn register(url: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = AnyStore::connect(url, 1).unwrap();
        let id = NodeId::from_u128(1);
        runtime.block_on(async {
            store.migrate().await.unwrap();
            store.agree_period(Some(Period::DEFAULT)).await.unwrap();
            let registration = Registration { id, name: "node".to_owned(), capacity: JOBS };
            store.register(&registration).await.unwrap();
        });
        Self { runtime, store, id, token: 0 }
    }

    /// Claim a hundred jobs and end them, after enqueueing as many.
    fn round(&mut self, enqueues: bool, times: &mut Times) {
        if enqueues {
            let jobs: Vec<_> = (0..JOBS).map(|job| NewJob::new(format!("/jobs/{job}"))).collect();
            self.runtime.block_on(self.store.enqueue(&jobs)).unwrap();
        }
        self.token += 1;
        let claim = Claim { token: Token(self.token), limit: JOBS };
        let (queues, report) = (Queues::All, NodeReport::default());
        let sent = Instant::now();
        let claimed = self.runtime.block_on(self.store.claim(self.id, claim, &queues, &report));
        times.claims.push(sent.elapsed());
        let jobs = claimed.unwrap().jobs;
        assert_eq!(jobs.len(), JOBS as usize, "a claim is full");
        let ends: Vec<_> = jobs.iter().map(succeeded).collect();
        let sent = Instant::now();
        let ended = self.runtime.block_on(self.store.end(self.id, &ends));
        times.ends.push(sent.elapsed());
        let outcomes = ended.unwrap().0;
        assert!(outcomes.iter().all(|outcome| *outcome == EndOutcome::Ended), "each job is ended");
    }

    /// Rounds for a minute, so many jobs a second, or as many as there is time for.
    fn a_minute(&mut self, rate: u32) -> Times {
        let (begun, mut times) = (Instant::now(), Times::default());
        let each = Duration::from_secs(1) * JOBS / rate;
        let mut due = Duration::ZERO;
        while begun.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
            self.round(true, &mut times);
            due += each;
        }
        times
    }
}

fn succeeded(job: &ClaimedJob) -> End {
    End {
        job: job.id,
        token: job.token,
        attempt: job.attempt,
        fate: JobFate::Succeeded,
        status: Some(200),
        error: None,
        answer: None,
        batch: None,
        slow_down: None,
    }
}

fn spread(times: &[Duration]) -> Spread {
    Spread::of_nanos(times.iter().map(|time| time.as_nanos() as i64))
}
