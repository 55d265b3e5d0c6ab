//! Promises about how many jobs of a queue run at once, and how many are claimed in a time.

use std::time::Duration;

use tokio::task::JoinSet;
use turnwise_engine::{Claim, Kept, Token};
use turnwise_node::job::{Asynchronous, ClaimedJob, JobFate, NewJob};
use turnwise_node::store::{
    Callbacks, Claimed, Limits, NodeReport, QueueOrders, QueuePolicy, Queues, Rate, Store, Word,
};

use crate::member::{Member, end_of, enqueue, ids, job, only};
use crate::world::{NOON, SECOND, World};

const MILLI: i64 = SECOND / 1_000;

fn mail() -> NewJob {
    NewJob { queue: "mail".to_owned(), ..job() }
}

async fn limit<S: QueueOrders>(store: &S, concurrency: Option<u32>, rate: Option<Rate>) {
    let limits = Limits { concurrency, rate, ..Limits::default() };
    store.put_policy("mail", &QueuePolicy { limits, ..QueuePolicy::default() }).await.unwrap();
}

async fn claim<S: Store>(a: &Member<S>, token: i64) -> Claimed {
    let claim = Claim { token: Token(token), limit: 10 };
    a.store.claim(a.id, claim, &Queues::All, &NodeReport::default()).await.unwrap()
}

const UNTIL_ONE_ENDS: Kept = Kept { until_one_ends: true, rate_wait: None };

fn rate_wait(millis: u64) -> Kept {
    Kept { until_one_ends: false, rate_wait: Some(Duration::from_millis(millis)) }
}

pub(crate) async fn no_more_run_at_once_than_their_queue_allows<W: World>(w: W) {
    let (mut a, b) = (Member::register(&w, 1).await, Member::register(&w, 2).await);
    limit(&a.store, Some(2), None).await;
    let slow = enqueue(&a.store, NewJob { priority: -5, ..mail() }).await;
    let first = enqueue(&a.store, mail()).await;
    let free = enqueue(&a.store, job()).await;
    let urgent = enqueue(&a.store, NewJob { priority: 5, ..mail() }).await;
    w.set_clock(NOON + SECOND).await;
    let reply = a.beat_for(1, 10).await;
    let claimed = ids(&reply.jobs);
    assert_eq!((claimed.len(), claimed[0]), (3, urgent));
    assert!(claimed.contains(&first) && claimed.contains(&free), "in the order in which they wait");
    assert_eq!((reply.kept, reply.more), (UNTIL_ONE_ENDS, false));
    // For every node and every claim, whatever queues it asks for.
    let (none, again) = (claim(&b, 1).await, claim(&a, 2).await);
    assert_eq!((none.jobs.len(), none.kept), (0, UNTIL_ONE_ENDS));
    assert_eq!((again.jobs.len(), again.kept), (0, UNTIL_ONE_ENDS));
    assert_eq!(b.claim_from(2, 10, &only(&["mail"])).await, []);
    // However it ends, there is room for one.
    let mail: Vec<&ClaimedJob> = reply.jobs.iter().filter(|job| job.queue == "mail").collect();
    let retry = JobFate::Retry(Duration::from_secs(60));
    a.end(mail[0], retry).await;
    let next = claim(&b, 3).await;
    assert_eq!(ids(&next.jobs), [slow]);
    // The limit of a queue that has no due job left keeps nothing back; a store may ask once too often.
    a.end(mail[1], JobFate::Succeeded).await;
    assert!(claim(&b, 4).await.kept.is_nothing());
    // Taken away, it keeps nothing back either; lowered, it lets go on what runs.
    let more: Vec<_> = (0..3).map(|_| mail_and(&a.store)).collect();
    for enqueued in more {
        enqueued.await;
    }
    limit(&a.store, Some(1), None).await;
    assert_eq!(claim(&a, 3).await.jobs, [], "one runs still");
    limit(&a.store, None, None).await;
    assert_eq!(claim(&a, 4).await.jobs.len(), 3);
}

async fn mail_and<S: Store>(store: &S) {
    enqueue(store, mail()).await;
}

pub(crate) async fn a_dead_nodes_jobs_give_their_places_back<W: World>(w: W) {
    let (mut a, b) = (Member::register(&w, 1).await, Member::register(&w, 2).await);
    limit(&a.store, Some(1), None).await;
    enqueue(&a.store, mail()).await;
    enqueue(&a.store, mail()).await;
    assert_eq!(claim(&b, 1).await.jobs.len(), 1);
    w.set_clock(NOON + SECOND).await;
    assert_eq!(a.beat_for(1, 10).await.jobs, []);
    let mut again = 0;
    for second in 2..9 {
        w.set_clock(NOON + second * SECOND).await;
        again += a.beat_for(second, 10).await.jobs.len();
    }
    assert_eq!(again, 1, "one place, one job");
}

pub(crate) async fn a_job_that_goes_on_elsewhere_keeps_its_place<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    limit(&a.store, Some(1), None).await;
    let asynchronous = Some(Asynchronous::default());
    let first = enqueue(&a.store, NewJob { asynchronous, ..mail() }).await;
    let claimed = a.claim_one(1).await;
    assert_eq!(claimed.id, first);
    let mut end = end_of(&claimed, JobFate::Await(Duration::from_secs(10)));
    end.status = Some(202);
    a.end_as(&end).await;
    w.set_clock(NOON + SECOND).await;
    let second = enqueue(&a.store, mail()).await;
    let none = claim(&a, 2).await;
    assert_eq!((none.jobs.len(), none.kept), (0, UNTIL_ONE_ENDS));
    // Not heard of in time it is due, and takes no place but its own.
    w.set_clock(NOON + 10 * SECOND).await;
    let next = claim(&a, 3).await;
    assert_eq!(next.jobs.len(), 1);
    let other = if next.jobs[0].id == first { second } else { first };
    a.end(&next.jobs[0], JobFate::Succeeded).await;
    let last = claim(&a, 4).await;
    assert_eq!(ids(&last.jobs), [other]);
    if other == first {
        let done = Word::Ended { fate: JobFate::Succeeded, error: None, answer: None };
        assert!(!a.store.hear(first, (a.id, claimed.token), &done).await.unwrap(), "too late");
    }
}

pub(crate) async fn of_many_who_claim_at_once_none_gets_too_many<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let rate = Rate { burst: 30, .."30/24h".parse().unwrap() };
    limit(&a.store, Some(3), Some(rate)).await;
    for _ in 0..40 {
        enqueue(&a.store, mail()).await;
    }
    let mut members = Vec::new();
    for number in 2..6 {
        members.push(Member::register(&w, number).await);
    }
    let mut done = 0;
    for token in 1..80 {
        let mut claims = JoinSet::new();
        for member in std::mem::take(&mut members) {
            claims.spawn(async move {
                let jobs = claim(&member, token).await.jobs;
                (member, jobs)
            });
        }
        let mut running = Vec::new();
        while let Some(claimed) = claims.join_next().await {
            let (member, jobs) = claimed.unwrap();
            running.extend(jobs.into_iter().map(|job| (member.id, job)));
            members.push(member);
        }
        assert!(running.len() <= 3, "{} at once", running.len());
        done += running.len();
        for (node, job) in &running {
            let member = members.iter().find(|member| member.id == *node).unwrap();
            member.end(job, JobFate::Succeeded).await;
        }
        members.sort_by_key(|member| member.id);
    }
    assert_eq!(done, 30, "as many as the rate gives out, and none of them is lost");
}

pub(crate) async fn a_rate_gives_out_its_burst_and_then_one_after_the_other<W: World>(w: W) {
    let (a, b) = (Member::register(&w, 1).await, Member::register(&w, 2).await);
    let rate = Rate { burst: 3, .."10/s".parse().unwrap() };
    limit(&a.store, None, Some(rate)).await;
    for _ in 0..7 {
        enqueue(&a.store, mail()).await;
    }
    let first = claim(&a, 1).await;
    assert_eq!((first.jobs.len(), first.kept), (3, rate_wait(100)));
    // Only who took the last one is told.
    let none = claim(&b, 1).await;
    assert_eq!((none.jobs.len(), none.kept), (0, Kept::default()));
    // That they have ended gives nothing back.
    for job in &first.jobs {
        a.end(job, JobFate::Succeeded).await;
    }
    w.set_clock(NOON + 99 * MILLI).await;
    assert_eq!(claim(&a, 2).await.jobs, []);
    w.set_clock(NOON + 150 * MILLI).await;
    let next = claim(&b, 2).await;
    assert_eq!((next.jobs.len(), next.kept), (1, rate_wait(50)));
    w.set_clock(NOON + 200 * MILLI).await;
    assert_eq!(claim(&a, 3).await.jobs.len(), 1);
    // After a rest the burst is whole again, and no more than that. What is left does not fill it.
    w.set_clock(NOON + 3_600 * SECOND).await;
    let last = claim(&a, 4).await;
    assert_eq!((last.jobs.len(), last.kept), (2, Kept::default()));
}

pub(crate) async fn a_clock_that_is_set_back_stops_no_rate<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    limit(&a.store, None, Some(Rate { burst: 2, .."10/s".parse().unwrap() })).await;
    for _ in 0..5 {
        enqueue(&a.store, mail()).await;
    }
    w.set_clock(NOON + SECOND).await;
    assert_eq!(a.beat_for(1, 10).await.jobs.len(), 2);
    let back = NOON - 3_600 * SECOND;
    w.set_clock(back).await;
    a.beat().await;
    w.set_clock(back + SECOND).await;
    // What was due stays due; the bucket is empty, for as long as it takes to fill.
    let reply = a.beat_for(2, 10).await;
    assert_eq!((reply.done, reply.jobs.len()), (true, 0));
    w.set_clock(back + SECOND + 100 * MILLI).await;
    assert_eq!(claim(&a, 3).await.jobs.len(), 1);
    w.set_clock(back + 2 * SECOND).await;
    assert_eq!(a.beat_for(4, 10).await.jobs.len(), 2);
}

pub(crate) async fn limits_that_cannot_be_are_refused<W: World>(w: W) {
    for (column, value) in [
        ("concurrency", "0"),
        ("concurrency", "-3"),
        ("concurrency", "1000001"),
        ("concurrency_per_key", "0"),
        ("slow_down_ms", "999"),
        ("slow_down_ms", "86400001"),
        ("rate_jobs", "0"),
        ("rate_per_ms", "0"),
        ("rate_per_ms", "86400001"),
        ("rate_burst", "0"),
    ] {
        let sql = format!("INSERT INTO turnwise.queues (name, {column}) VALUES ('mail', {value})");
        assert!(w.refused(&sql).await.is_some(), "{column} = {value}");
    }
    // Half a rate is none.
    w.run("INSERT INTO turnwise.queues (name, rate_jobs) VALUES ('mail', 1)").await;
    w.run("INSERT INTO turnwise.queues (name, rate_per_ms, rate_burst) VALUES ('other', 1000, 1)")
        .await;
    let a = Member::register(&w, 1).await;
    for _ in 0..3 {
        enqueue(&a.store, mail()).await;
    }
    assert_eq!(claim(&a, 1).await.jobs.len(), 3);
}

/// A claim that waited for another would hold up the turn.
#[allow(dead_code, reason = "not every store has two sessions that could hold it")]
pub(crate) async fn a_queue_that_somebody_holds_keeps_no_other_waiting<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    limit(&a.store, Some(2), None).await;
    enqueue(&a.store, mail()).await;
    let free = enqueue(&a.store, job()).await;
    w.set_clock(NOON + SECOND).await;
    w.run("BEGIN; UPDATE turnwise.queues SET concurrency = 2 WHERE name = 'mail'").await;
    let reply = tokio::time::timeout(Duration::from_secs(20), a.beat_for(1, 10)).await.unwrap();
    w.run("ROLLBACK").await;
    assert_eq!((ids(&reply.jobs), reply.kept), (vec![free], UNTIL_ONE_ENDS));
    assert_eq!(claim(&a, 2).await.jobs.len(), 1);
}
