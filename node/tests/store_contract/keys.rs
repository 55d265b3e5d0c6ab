//! Promises about how many jobs of a concurrency key run at once.

use std::time::Duration;

use tokio::task::JoinSet;
use turnwise_engine::{Claim, Kept, Token};
use turnwise_node::job::{Asynchronous, JobFate, JobId, NewJob, When};
use turnwise_node::store::{
    Claimed, Limits, NodeReport, QueueOrders, QueuePolicy, Queues, Rate, Store, StoreError,
};

use crate::member::{Member, end_of, enqueue, ids, job};
use crate::world::{NOON, SECOND, World};

fn of_key(key: &str) -> NewJob {
    NewJob { queue: "mail".to_owned(), concurrency_key: key.parse().ok(), ..job() }
}

async fn limit<S: QueueOrders>(store: &S, concurrency: Option<u32>, per_key: Option<u32>) {
    let limits = Limits { concurrency, concurrency_per_key: per_key, rate: None };
    store.put_policy("mail", &QueuePolicy { limits, ..QueuePolicy::default() }).await.unwrap();
}

async fn claim<S: Store>(a: &Member<S>, token: i64, limit: u32) -> Claimed {
    let claim = Claim { token: Token(token), limit };
    a.store.claim(a.id, claim, &Queues::All, &NodeReport::default()).await.unwrap()
}

async fn key_of<S: Store>(store: &S, id: JobId) -> Option<String> {
    store.job(id).await.unwrap().unwrap().0.particulars.concurrency_key
}

const UNTIL_ONE_ENDS: Kept = Kept { until_one_ends: true, rate_wait: None };

pub(crate) async fn only_so_many_jobs_of_a_key_run_at_once<W: World>(w: W) {
    let (mut a, b) = (Member::register(&w, 1).await, Member::register(&w, 2).await);
    limit(&a.store, None, Some(2)).await;
    let of_ada = [
        enqueue(&a.store, NewJob { priority: -5, ..of_key("ada") }).await,
        enqueue(&a.store, of_key("ada")).await,
        enqueue(&a.store, NewJob { priority: 5, ..of_key("ada") }).await,
    ];
    assert_eq!(key_of(&a.store, of_ada[0]).await.as_deref(), Some("ada"));
    w.set_clock(NOON + SECOND).await;
    let reply = a.beat_for(1, 10).await;
    assert_eq!(ids(&reply.jobs), [of_ada[2], of_ada[1]], "in the order in which they wait");
    assert_eq!((reply.kept, reply.more), (UNTIL_ONE_ENDS, false));
    // For every node and every claim.
    assert_eq!(claim(&b, 1, 10).await.jobs, []);
    // However it ends, there is room for one.
    a.end(&reply.jobs[0], JobFate::Retry(Duration::from_secs(60))).await;
    let next = claim(&b, 2, 10).await;
    assert_eq!(ids(&next.jobs), [of_ada[0]]);
    a.end(&reply.jobs[1], JobFate::Succeeded).await;
    assert!(claim(&b, 3, 10).await.kept.is_nothing());
    // The same key means nothing in another queue, and none is said of jobs without one.
    for queue in ["mail", "other"] {
        for _ in 0..4 {
            let concurrency_key = "eve".parse().ok().filter(|_| queue == "other");
            enqueue(&a.store, NewJob { queue: queue.to_owned(), concurrency_key, ..job() }).await;
        }
    }
    assert_eq!(claim(&b, 4, 10).await.jobs.len(), 8);
    // Taken away, the limit keeps nothing back; lowered, it lets go on what runs.
    for _ in 0..3 {
        enqueue(&a.store, of_key("ada")).await;
    }
    limit(&a.store, None, Some(1)).await;
    assert_eq!(claim(&b, 5, 10).await.jobs, [], "one runs still");
    limit(&a.store, None, None).await;
    assert_eq!(claim(&b, 6, 10).await.jobs.len(), 3);
}

pub(crate) async fn a_key_that_is_taken_holds_up_no_other<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    limit(&a.store, Some(4), Some(1)).await;
    let mut expected = Vec::new();
    for key in ["ada", "ada", "ada", "bob", "bob", "ada", "ciu"] {
        let id = enqueue(&a.store, of_key(key)).await;
        if expected.iter().all(|(_, other)| *other != key) {
            expected.push((id, key));
        }
        w.set_clock(NOON + SECOND).await;
    }
    let plain = enqueue(&a.store, NewJob { queue: "mail".to_owned(), ..job() }).await;
    w.set_clock(NOON + 2 * SECOND).await;
    let claimed = claim(&a, 1, 10).await;
    let mut wanted: Vec<JobId> = expected.into_iter().map(|(id, _)| id).chain([plain]).collect();
    let mut got = ids(&claimed.jobs);
    wanted.sort_unstable();
    got.sort_unstable();
    assert_eq!(got, wanted, "the first of each key");
    assert_eq!(claimed.kept, UNTIL_ONE_ENDS);
    // The queue's own limit holds as well: it has four places.
    enqueue(&a.store, of_key("dan")).await;
    assert_eq!(claim(&a, 2, 10).await.jobs, []);
    let ada = claimed.jobs.iter().find(|job| job.id == wanted[0]).unwrap();
    a.end(ada, JobFate::Succeeded).await;
    assert_eq!(claim(&a, 3, 10).await.jobs.len(), 1);
}

pub(crate) async fn a_job_of_a_key_that_goes_on_elsewhere_keeps_its_place<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    limit(&a.store, None, Some(1)).await;
    let asynchronous = Some(Asynchronous::default());
    enqueue(&a.store, NewJob { asynchronous, ..of_key("ada") }).await;
    let claimed = a.claim_one(1).await;
    let mut end = end_of(&claimed, JobFate::Await(Duration::from_secs(10)));
    end.status = Some(202);
    a.end_as(&end).await;
    enqueue(&a.store, of_key("ada")).await;
    w.set_clock(NOON + SECOND).await;
    assert_eq!(claim(&a, 2, 10).await.jobs, []);
    w.set_clock(NOON + 11 * SECOND).await;
    assert_eq!(claim(&a, 3, 10).await.jobs.len(), 1, "it was not heard of");
}

pub(crate) async fn a_deep_backlog_of_one_key_holds_up_no_other<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    limit(&a.store, None, Some(1)).await;
    let deep: Vec<NewJob> = (0..1_050).map(|_| of_key("ada")).collect();
    for jobs in deep.chunks(525) {
        a.store.enqueue(jobs).await.unwrap();
    }
    assert_eq!(claim(&a, 1, 10).await.jobs.len(), 1);
    w.set_clock(NOON + SECOND).await;
    assert_eq!(claim(&a, 2, 10).await.jobs, []);
    let mut others = Vec::new();
    for key in ["Bob", "eve", "0"] {
        others.push(enqueue(&a.store, of_key(key)).await);
        enqueue(&a.store, of_key(key)).await;
    }
    w.set_clock(NOON + 2 * SECOND).await;
    let claimed = claim(&a, 3, 10).await;
    let mut got = ids(&claimed.jobs);
    got.sort_unstable();
    others.sort_unstable();
    assert_eq!(got, others, "the first of each other key");
    assert_eq!(claimed.kept, UNTIL_ONE_ENDS);
    // No more than are asked for.
    for job in &claimed.jobs {
        a.end(job, JobFate::Succeeded).await;
    }
    assert_eq!(claim(&a, 4, 2).await.jobs.len(), 2);
}

pub(crate) async fn of_many_who_claim_at_once_no_key_gets_too_many<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    limit(&a.store, None, Some(1)).await;
    for number in 0..24 {
        enqueue(&a.store, of_key(&format!("key {}", number % 3))).await;
    }
    let mut members = Vec::new();
    for number in 2..6 {
        members.push(Member::register(&w, number).await);
    }
    let mut done = 0;
    for token in 1..60 {
        let mut claims = JoinSet::new();
        for member in std::mem::take(&mut members) {
            claims.spawn(async move {
                let jobs = claim(&member, token, 10).await.jobs;
                (member, jobs)
            });
        }
        let mut running = Vec::new();
        while let Some(claimed) = claims.join_next().await {
            let (member, jobs) = claimed.unwrap();
            running.extend(jobs.into_iter().map(|job| (member.id, job)));
            members.push(member);
        }
        let mut keys = Vec::new();
        for (_, job) in &running {
            keys.push(key_of(&a.store, job.id).await);
        }
        keys.sort_unstable();
        let many = keys.len();
        keys.dedup();
        assert_eq!(keys.len(), many, "two of one key at once");
        done += many;
        for (node, job) in &running {
            let member = members.iter().find(|member| member.id == *node).unwrap();
            member.end(job, JobFate::Succeeded).await;
        }
        members.sort_by_key(|member| member.id);
    }
    assert_eq!(done, 24, "none is lost");
}

pub(crate) async fn a_concurrency_key_is_of_any_text_up_to_256_bytes<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    limit(&a.store, None, Some(1)).await;
    for key in ["", "a\0b", &"k".repeat(257)] {
        assert!(key.parse::<turnwise_node::job::ConcurrencyKey>().is_err());
    }
    // Keys that are alike are not the same.
    let keys = ["a", "A", "a ", "ä", "a'b\\", "{\"k\": 1}", &"é".repeat(128)];
    for key in keys {
        let id = enqueue(&a.store, of_key(key)).await;
        assert_eq!(key_of(&a.store, id).await.as_deref(), Some(key));
    }
    assert_eq!(claim(&a, 1, 10).await.jobs.len(), keys.len());
    for key in keys {
        enqueue(&a.store, of_key(key)).await;
    }
    assert_eq!(claim(&a, 2, 10).await.jobs, []);
    // Plain SQL names a key too; one that is too long is refused.
    w.run("INSERT INTO turnwise.jobs (url, queue, concurrency_key) VALUES ('/p', 'mail', 'b')")
        .await;
    assert_eq!(claim(&a, 3, 10).await.jobs.len(), 1);
    let long = "k".repeat(257);
    let sql = format!("INSERT INTO turnwise.jobs (url, concurrency_key) VALUES ('/p', '{long}')");
    assert!(w.refused(&sql).await.is_some_and(|said| said.contains("concurrency_key")));
    // A job with that id that is there already stays as it is.
    let again = NewJob { id: JobId::generate(), ..of_key("first") };
    a.store.enqueue(std::slice::from_ref(&again)).await.unwrap();
    let other = NewJob { concurrency_key: "second".parse().ok(), ..again.clone() };
    let done: Result<_, StoreError> = a.store.enqueue(&[other]).await;
    assert_eq!(done.unwrap(), [again.id]);
    assert_eq!(key_of(&a.store, again.id).await.as_deref(), Some("first"));
}

/// So many jobs of a key that one of them has: more than a claim walks.
async fn deep<S: Store>(a: &Member<S>, key: &str) {
    let jobs: Vec<NewJob> = (0..1_050).map(|_| of_key(key)).collect();
    for jobs in jobs.chunks(525) {
        a.store.enqueue(jobs).await.unwrap();
    }
    assert_eq!(claim(a, 1, 1).await.jobs.len(), 1);
}

pub(crate) async fn a_key_is_found_behind_another_beside_a_busy_queue<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    limit(&a.store, None, Some(1)).await;
    deep(&a, "ada").await;
    w.set_clock(NOON + SECOND).await;
    let bob = enqueue(&a.store, of_key("bob")).await;
    w.set_clock(NOON + 2 * SECOND).await;
    let busy: Vec<NewJob> = (0..40).map(|_| job()).collect();
    a.store.enqueue(&busy).await.unwrap();
    let claimed = claim(&a, 2, 10).await;
    assert_eq!(claimed.jobs.len(), 10);
    assert_eq!(claimed.jobs[0].id, bob, "it waits for longest");
}

pub(crate) async fn of_many_keys_the_one_that_waits_for_longest_comes_first<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    limit(&a.store, Some(2), Some(1)).await;
    deep(&a, "k").await;
    w.set_clock(NOON + SECOND).await;
    let oldest = enqueue(&a.store, of_key("z")).await;
    w.set_clock(NOON + 2 * SECOND).await;
    for key in ["b", "a", "a", "a"] {
        enqueue(&a.store, of_key(key)).await;
    }
    let claimed = claim(&a, 2, 10).await;
    assert_eq!(ids(&claimed.jobs), [oldest]);
    assert_eq!(claimed.kept, UNTIL_ONE_ENDS);
}

pub(crate) async fn keys_of_which_nothing_is_due_hide_no_other<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    limit(&a.store, None, Some(1)).await;
    deep(&a, "k").await;
    let tomorrow = When::In(Duration::from_secs(86_400));
    let later: Vec<NewJob> = (0..1_100)
        .map(|number| NewJob { when: tomorrow, ..of_key(&format!("later {number:04}")) })
        .collect();
    for jobs in later.chunks(550) {
        a.store.enqueue(jobs).await.unwrap();
    }
    let first = enqueue(&a.store, of_key("a")).await;
    let last = enqueue(&a.store, of_key("z")).await;
    let (mut found, mut token) = (Vec::new(), 2);
    while found.len() < 2 && token < 24 {
        found.extend(ids(&claim(&a, token, 10).await.jobs));
        token += 1;
    }
    found.sort_unstable();
    assert_eq!(found, [first, last], "after {token} claims");
    // And begins again: what comes to an early key is found too.
    let again = enqueue(&a.store, of_key("b")).await;
    let mut found = Vec::new();
    while found.is_empty() && token < 48 {
        found.extend(ids(&claim(&a, token, 10).await.jobs));
        token += 1;
    }
    assert_eq!(found, [again]);
}

pub(crate) async fn what_other_limits_keep_back_of_a_queue_with_keys_is_told<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    limit(&a.store, Some(2), Some(1)).await;
    for number in 0..6 {
        enqueue(&a.store, of_key(&format!("key {number}"))).await;
    }
    let claimed = claim(&a, 1, 10).await;
    assert_eq!((claimed.jobs.len(), claimed.kept), (2, UNTIL_ONE_ENDS));
    let rate = Some(Rate { burst: 2, .."2/s".parse().unwrap() });
    let limits = Limits { concurrency: None, concurrency_per_key: Some(1), rate };
    a.store.put_policy("mail", &QueuePolicy { limits, ..QueuePolicy::default() }).await.unwrap();
    let claimed = claim(&a, 2, 10).await;
    assert_eq!(claimed.jobs.len(), 2);
    assert!(claimed.kept.rate_wait.is_some(), "{:?}", claimed.kept);
    // A queue that is paused keeps nothing back.
    w.set_clock(NOON + 60 * SECOND).await;
    let b = Member::register(&w, 2).await;
    enqueue(&a.store, of_key("key 0")).await;
    assert!(a.store.pause("mail").await.unwrap());
    let free = enqueue(&a.store, job()).await;
    let claimed = claim(&b, 1, 10).await;
    assert_eq!(ids(&claimed.jobs), [free]);
    assert!(claimed.kept.is_nothing(), "{:?}", claimed.kept);
}

/// A claim that took a list of jobs which others hold would come back with nothing.
#[allow(dead_code, reason = "not every store has two sessions that could hold one")]
pub(crate) async fn what_somebody_holds_beside_keys_is_passed_over<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    limit(&a.store, None, Some(1)).await;
    let keyed = enqueue(&a.store, of_key("ada")).await;
    let held = enqueue(&a.store, job()).await;
    let mut expected = vec![keyed];
    for _ in 0..2 {
        w.set_clock(NOON + SECOND).await;
        expected.push(enqueue(&a.store, job()).await);
    }
    w.run(&format!("BEGIN; UPDATE turnwise.jobs SET deadline_ms = 7 WHERE id = '{held}'")).await;
    let claimed = claim(&a, 1, 3).await;
    w.run("ROLLBACK").await;
    let mut got = ids(&claimed.jobs);
    got.sort_unstable();
    expected.sort_unstable();
    assert_eq!(got, expected);
}
