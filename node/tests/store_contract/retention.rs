//! Promises about the removal of ended jobs: what goes, what stays, how much at once, and that nobody waits for it.

use std::time::Duration;

use turnwise_node::job::{ClaimedJob, JobFate, JobId, NewJob};
use turnwise_node::store::{Ended, PRUNED_AT_ONCE_MAX, Prune, Pruned, Store};

use crate::member::{Member, enqueue, job, job_at};
use crate::world::{NOON, SECOND, World};

const HOUR: i64 = 3_600 * SECOND;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// All ended jobs that are older than that.
fn all(age: Duration) -> Prune {
    Prune::older_than(Ended::ALL.map(|ended| (ended, age)), PRUNED_AT_ONCE_MAX)
}

async fn is_there<S: Store>(store: &S, id: JobId) -> bool {
    store.job(id).await.unwrap().is_some()
}

/// A job that has ended like this.
async fn ended<S: Store>(a: &Member<S>, token: i64, fate: JobFate) -> JobId {
    let id = enqueue(&a.store, NewJob { max_attempts: 2, ..job() }).await;
    let claimed = a.claim_one(token).await;
    a.end(&claimed, fate).await;
    id
}

async fn cancelled<S: Store>(a: &Member<S>) -> JobId {
    let id = enqueue(&a.store, job()).await;
    assert_eq!(a.store.cancel(id).await.unwrap(), Some(true));
    id
}

/// Plain SQL that inserts so many jobs which ended one microsecond after the other, with an attempt each.
async fn insert_ended<W: World>(w: &W, state: &str, count: u32, since: i64) {
    for first in (0..count).step_by(500) {
        let (mut jobs, mut attempts) = (Vec::new(), Vec::new());
        for number in first..count.min(first + 500) {
            let id = JobId::generate();
            let at = W::instant(since + i64::from(number));
            jobs.push(format!("('{id}', '/ok', '{state}', 1, {at})"));
            attempts.push(format!("('{id}', '{id}', 1, 1, {at}, {at})"));
        }
        w.run(&format!(
            "INSERT INTO turnwise.jobs (id, url, state, attempt, finished_at) VALUES {}",
            jobs.join(", ")
        ))
        .await;
        w.run(&format!(
            "INSERT INTO turnwise.attempts (job, node, token, attempt, started_at, finished_at) VALUES {}",
            attempts.join(", ")
        ))
        .await;
    }
}

pub(crate) async fn only_what_has_ended_and_is_old_enough_is_removed<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let succeeded = ended(&a, 1, JobFate::Succeeded).await;
    let dead = ended(&a, 2, JobFate::Dead).await;
    let cancelled = cancelled(&a).await;
    let retrying = ended(&a, 3, JobFate::Retry(seconds(1))).await;
    let running = enqueue(&a.store, job()).await;
    assert_eq!(a.claim_one(4).await.id, running);
    let ready = enqueue(&a.store, job()).await;
    let scheduled = enqueue(&a.store, job_at(NOON + 1_000 * HOUR)).await;

    w.set_clock(NOON + 60 * SECOND - 1).await;
    let none = Pruned { jobs: 0, next: None };
    assert_eq!(a.store.prune(&all(seconds(60))).await.unwrap(), none, "a microsecond is left");
    w.set_clock(NOON + 60 * SECOND).await;
    let dead_alone = Prune::older_than([(Ended::Dead, seconds(60))], 10);
    assert_eq!(a.store.prune(&dead_alone).await.unwrap().jobs, 1);
    assert!(!is_there(&a.store, dead).await && is_there(&a.store, cancelled).await);
    let ages = [(Ended::Succeeded, seconds(60)), (Ended::Cancelled, seconds(61))];
    let pruned = a.store.prune(&Prune::older_than(ages, 10)).await.unwrap();
    assert_eq!(pruned, Pruned { jobs: 1, next: None });
    assert!(!is_there(&a.store, succeeded).await && is_there(&a.store, cancelled).await);
    assert_eq!(a.store.prune(&all(seconds(60))).await.unwrap().jobs, 1);
    assert!(!is_there(&a.store, cancelled).await);

    // Whatever the clock does, what has not ended stays.
    let rest = [retrying, running, ready, scheduled];
    for micros in [NOON + 100_000 * HOUR, NOON - HOUR] {
        w.set_clock(micros).await;
        assert_eq!(a.store.prune(&all(Duration::ZERO)).await.unwrap(), none);
    }
    for id in rest {
        assert!(is_there(&a.store, id).await, "{id}");
    }
    assert_eq!(a.store.prune(&Prune::older_than([], 10)).await.unwrap(), none);
}

pub(crate) async fn a_job_that_was_given_another_try_is_not_old<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let id = ended(&a, 1, JobFate::Dead).await;
    w.set_clock(NOON + HOUR).await;
    assert_eq!(a.store.retry(id).await.unwrap(), Some(true));
    assert_eq!(a.store.prune(&all(seconds(60))).await.unwrap().jobs, 0);
    let claimed = a.claim_one(2).await;
    assert_eq!(a.store.prune(&all(seconds(60))).await.unwrap().jobs, 0);
    a.end(&claimed, JobFate::Succeeded).await;
    assert_eq!(a.store.prune(&all(seconds(60))).await.unwrap().jobs, 0, "it has just ended");
    w.set_clock(NOON + HOUR + 60 * SECOND).await;
    assert_eq!(a.store.prune(&all(seconds(60))).await.unwrap().jobs, 1);
}

pub(crate) async fn attempts_go_with_their_jobs<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let twice = enqueue(&a.store, NewJob { max_attempts: 2, ..job() }).await;
    for (token, fate) in [(1, JobFate::Retry(Duration::ZERO)), (2, JobFate::Dead)] {
        let claimed: ClaimedJob = a.claim_one(token).await;
        assert_eq!(claimed.id, twice);
        a.end(&claimed, fate).await;
    }
    let waits = ended(&a, 3, JobFate::Retry(seconds(9_999))).await;
    let count = "SELECT count(*) FROM turnwise.attempts";
    assert_eq!(w.number(count).await, Some(3));
    w.set_clock(NOON + SECOND).await;
    assert_eq!(a.store.prune(&all(seconds(1))).await.unwrap().jobs, 1);
    let of_waiting = format!("{count} WHERE job = '{waits}'");
    assert_eq!((w.number(count).await, w.number(&of_waiting).await), (Some(1), Some(1)));
}

pub(crate) async fn a_removal_is_bounded_and_repeated_ones_drain<W: World>(w: W) {
    let store = w.store();
    insert_ended(&w, "dead", 3, NOON).await;
    insert_ended(&w, "succeeded", 2_500, NOON).await;
    insert_ended(&w, "succeeded", 40, NOON + HOUR).await;
    w.set_clock(NOON + HOUR).await;
    let count = "SELECT count(*) FROM turnwise.jobs";

    // The longest ended first.
    let two = Prune::older_than([(Ended::Succeeded, seconds(60))], 2);
    let pruned = store.prune(&two).await.unwrap();
    assert_eq!((pruned.jobs, pruned.next.is_some()), (2, true));
    let oldest = "SELECT min(finished_at) AS at FROM turnwise.jobs WHERE state = 'succeeded'";
    let oldest = format!("SELECT {} FROM ({oldest}) o", W::micros("o.at"));
    assert_eq!(w.number(&oldest).await, Some(NOON + 2));

    let (mut next, mut jobs, mut calls) = (Some(all(seconds(60))), 2, 0);
    while let Some(prune) = next {
        let pruned = store.prune(&prune).await.unwrap();
        assert!(pruned.jobs <= PRUNED_AT_ONCE_MAX, "{pruned:?}");
        assert!(pruned.next.is_none() || pruned.jobs > 0, "it would never end");
        jobs += pruned.jobs;
        calls += 1;
        next = pruned.next;
    }
    assert_eq!(jobs, 2_503);
    assert!(calls >= 3, "{calls} statements");
    assert_eq!(w.number(count).await, Some(40), "those that have just ended");
    assert_eq!(w.number("SELECT count(*) FROM turnwise.attempts").await, Some(40));
}

/// What is removed while nodes claim, end and beat disturbs none of them, and takes nothing that is theirs.
pub(crate) async fn a_removal_disturbs_nobody_at_work<W: World>(w: W) {
    w.let_clock_go().await;
    let mut a = Member::register(&w, 1).await;
    let b = w.store();
    insert_ended(&w, "succeeded", 1_500, NOON - 100_000 * HOUR).await;
    let (mut mine, mut removed, mut next) = (0, 0, None);
    for round in 1..=30 {
        let jobs: Vec<_> = (0..4).map(|_| job()).collect();
        a.store.enqueue(&jobs).await.unwrap();
        let prune = next.unwrap_or_else(|| all(seconds(100)));
        let work = async {
            a.beat().await;
            let claimed = a.claim(round, 4).await;
            for job in &claimed {
                a.end(job, JobFate::Succeeded).await;
            }
            claimed.len()
        };
        let (claimed, pruned) = tokio::join!(work, b.prune(&prune));
        let pruned = pruned.unwrap();
        (mine, removed, next) = (mine + claimed, removed + pruned.jobs, pruned.next);
    }
    assert_eq!((mine, removed), (120, 1_500));
    assert_eq!(w.number("SELECT count(*) FROM turnwise.jobs").await, Some(120));
}

/// Where single rows are locked: neither an app that holds one, nor a beat or a check-in that is at work, holds it up.
#[allow(dead_code, reason = "not every test crate has such a database")]
pub(crate) async fn a_removal_waits_for_nobody<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let held = ended(&a, 1, JobFate::Succeeded).await;
    let free = ended(&a, 2, JobFate::Succeeded).await;
    w.set_clock(NOON + HOUR).await;
    w.run("BEGIN").await;
    w.run(&format!("UPDATE turnwise.jobs SET url = '/new' WHERE id = '{held}'")).await;
    w.run("UPDATE turnwise.turn SET refused = refused").await;
    w.run("UPDATE turnwise.nodes SET running = running").await;
    let one = Prune::older_than([(Ended::Succeeded, seconds(60))], 1);
    let pruned = tokio::time::timeout(seconds(5), a.store.prune(&one)).await;
    let pruned = pruned.expect("it waited for somebody").unwrap();
    assert_eq!(pruned.jobs, 1, "though one before it is held");
    assert!(!is_there(&a.store, free).await && is_there(&a.store, held).await);
    let pruned = a.store.prune(&pruned.next.unwrap()).await.unwrap();
    assert_eq!(pruned, Pruned { jobs: 0, next: None });
    w.run("ROLLBACK").await;
    assert_eq!(a.store.prune(&all(seconds(60))).await.unwrap().jobs, 1, "another time");
}

/// Whoever asks for a store apart has a connection that no other statement waits for.
pub(crate) async fn a_store_apart_is_the_same_database<W: World>(w: W) {
    let store = w.store();
    let id = enqueue(&store, job()).await;
    let apart = store.apart();
    assert!(is_there(&apart, id).await);
    let other = enqueue(&apart, job()).await;
    drop(apart);
    assert!(is_there(&store, other).await);
}
