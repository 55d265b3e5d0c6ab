//! Promises about unique keys: who holds one, for how long, and what whoever comes second is told.

use std::time::Duration;

use turnwise_node::job::{JobFate, JobId, JobState, NewJob, Unique};
use turnwise_node::store::{Ended, Prune, Store};

use crate::member::{Member, job, state};
use crate::world::{NOON, SECOND, World};

fn unique(key: &str, window: Option<u64>) -> NewJob {
    let window = window.map(Duration::from_secs);
    NewJob { unique: Some(Unique { key: key.parse().unwrap(), window }), ..job() }
}

async fn enqueue<S: Store>(store: &S, new: &NewJob) -> JobId {
    store.enqueue(std::slice::from_ref(new)).await.unwrap()[0]
}

pub(crate) async fn a_unique_key_is_held_until_the_job_has_ended<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let first = unique("digest:7", None);
    assert_eq!(enqueue(&a.store, &first).await, first.id);
    // Waiting, running, and waiting for its next attempt.
    assert_eq!(enqueue(&a.store, &unique("digest:7", None)).await, first.id);
    let claimed = a.claim_one(1).await;
    assert_eq!(enqueue(&a.store, &unique("digest:7", Some(60))).await, first.id);
    a.end(&claimed, JobFate::Retry(Duration::ZERO)).await;
    assert_eq!(enqueue(&a.store, &unique("digest:7", None)).await, first.id);
    assert_eq!(w.number("SELECT count(*) FROM turnwise.jobs").await, Some(1));
    let claimed = a.claim_one(2).await;
    a.end(&claimed, JobFate::Succeeded).await;
    let key = |id| {
        let store = a.store.clone();
        async move { store.job(id).await.unwrap().unwrap().0.unique_key }
    };
    assert_eq!(key(first.id).await.as_deref(), Some("digest:7"));
    let second = unique("digest:7", None);
    assert_eq!(enqueue(&a.store, &second).await, second.id);
    assert_eq!(key(second.id).await.as_deref(), Some("digest:7"));
    assert_eq!(key(first.id).await, None, "whoever has a key has it alone");
    assert_eq!(w.number("SELECT count(*) FROM turnwise.jobs").await, Some(2));
}

pub(crate) async fn a_unique_key_is_held_through_its_window<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let first = unique("hourly", Some(3_600));
    enqueue(&a.store, &first).await;
    let claimed = a.claim_one(1).await;
    a.end(&claimed, JobFate::Dead).await;
    w.set_clock(NOON + 3_599 * SECOND).await;
    assert_eq!(enqueue(&a.store, &unique("hourly", None)).await, first.id);
    // A job that is to remember its key for so long is not removed before.
    let all = Prune::older_than(Ended::ALL.map(|ended| (ended, Duration::ZERO)), 100);
    assert_eq!(a.store.prune(&all).await.unwrap().jobs, 0);
    w.set_clock(NOON + 3_600 * SECOND).await;
    let second = unique("hourly", Some(60));
    assert_eq!(enqueue(&a.store, &second).await, second.id);
    assert_eq!(a.store.prune(&all).await.unwrap().jobs, 1);
    // Nor is a job that runs longer than its window robbed of its key.
    let claimed = a.claim_one(2).await;
    w.set_clock(NOON + 5_000 * SECOND).await;
    assert_eq!(enqueue(&a.store, &unique("hourly", None)).await, second.id);
    a.renew().await;
    a.end(&claimed, JobFate::Succeeded).await;
    let third = unique("hourly", None);
    assert_eq!(enqueue(&a.store, &third).await, third.id);
}

pub(crate) async fn a_clock_that_is_set_back_lengthens_windows_and_nothing_else<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let (plain, hourly) = (unique("plain", None), unique("hourly", Some(3_600)));
    for new in [&plain, &hourly] {
        enqueue(&a.store, new).await;
        assert_eq!(a.store.cancel(new.id).await.unwrap(), Some(true));
    }
    w.set_clock(NOON - 60 * SECOND).await;
    // The job lies in the future, and has ended: its key is free.
    let second = unique("plain", None);
    assert_eq!(enqueue(&a.store, &second).await, second.id);
    assert_eq!(enqueue(&a.store, &unique("hourly", None)).await, hourly.id);
    w.set_clock(NOON + 3_600 * SECOND).await;
    let third = unique("hourly", None);
    assert_eq!(enqueue(&a.store, &third).await, third.id);
    assert_eq!(a.store.cancel(third.id).await.unwrap(), Some(true));
    // Whoever has lost its key does not get it back with the time.
    w.set_clock(NOON).await;
    let fourth = unique("hourly", None);
    assert_eq!(enqueue(&a.store, &fourth).await, fourth.id);
}

pub(crate) async fn a_job_that_has_lost_its_key_may_run_again<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let (first, second) = (unique("k", None), unique("k", None));
    enqueue(&a.store, &first).await;
    assert_eq!(a.store.cancel(first.id).await.unwrap(), Some(true));
    // It still has it: whoever enqueues then finds it waiting.
    assert_eq!(a.store.retry(first.id).await.unwrap(), Some(true));
    assert_eq!(enqueue(&a.store, &second).await, first.id);
    assert_eq!(a.store.cancel(first.id).await.unwrap(), Some(true));
    assert_eq!(enqueue(&a.store, &second).await, second.id);
    assert_eq!(a.store.retry(first.id).await.unwrap(), Some(true));
    assert_eq!(state(&a.store, first.id).await, JobState::Ready);
    assert_eq!(a.claim(1, 9).await.len(), 2);
}

pub(crate) async fn an_enqueue_with_a_key_can_be_repeated<W: World>(w: W) {
    let store = w.store();
    let new = unique("once", Some(60));
    assert_eq!(enqueue(&store, &new).await, new.id);
    // Its answer was lost.
    assert_eq!(enqueue(&store, &new).await, new.id);
    assert_eq!(store.cancel(new.id).await.unwrap(), Some(true));
    w.set_clock(NOON + 3_600 * SECOND).await;
    assert_eq!(enqueue(&store, &new).await, new.id, "the id is known, whatever the key");
    assert_eq!(w.number("SELECT count(*) FROM turnwise.jobs").await, Some(1));
}

pub(crate) async fn many_jobs_with_and_without_keys_have_their_ids_in_order<W: World>(w: W) {
    let store = w.store();
    let held = unique("b", None);
    enqueue(&store, &held).await;
    // Compared byte by byte: neither case nor spaces are passed over.
    let [a, b, again, c] = ["a", "b", "a", "b "].map(|key| unique(key, None));
    let (plain, other) = (job(), job());
    let jobs = [b, plain.clone(), a.clone(), again, c.clone(), other.clone(), unique("A", None)];
    let ids = store.enqueue(&jobs).await.unwrap();
    assert_eq!(ids[..6], [held.id, plain.id, a.id, a.id, c.id, other.id]);
    assert_eq!(ids[6], jobs[6].id);
    assert_eq!(w.number("SELECT count(*) FROM turnwise.jobs").await, Some(6));
    assert_eq!(store.enqueue(&[]).await.unwrap(), []);
}

pub(crate) async fn of_many_who_come_at_once_one_gets_the_key<W: World>(w: W) {
    let stores: Vec<_> = (0..6).map(|_| w.store()).collect();
    for round in 0..5 {
        let (one, other) = (format!("one {round}"), format!("other {round}"));
        let tasks: Vec<_> = stores
            .iter()
            .enumerate()
            .map(|(number, store)| {
                let mut jobs = vec![unique(&one, None), unique(&other, None)];
                if number % 2 == 1 {
                    jobs.reverse();
                }
                let store = store.clone();
                tokio::spawn(async move {
                    let mut ids = store.enqueue(&jobs).await.unwrap();
                    if number % 2 == 1 {
                        ids.reverse();
                    }
                    ids
                })
            })
            .collect();
        let mut seen = Vec::new();
        for task in tasks {
            seen.push(task.await.unwrap());
        }
        assert!(seen.iter().all(|ids| *ids == seen[0]), "{seen:?}");
        let rows = w.number("SELECT count(*) FROM turnwise.jobs").await;
        assert_eq!(rows, Some(2 * (round + 1)));
    }
}

pub(crate) async fn plain_sql_can_take_a_key_too<W: World>(w: W) {
    let store = w.store();
    w.run("INSERT INTO turnwise.jobs (url, unique_key) VALUES ('/a', 'plain')").await;
    let said =
        w.refused("INSERT INTO turnwise.jobs (url, unique_key) VALUES ('/b', 'plain')").await;
    assert!(said.expect("it is taken").contains("unique_key"));
    let holder: JobId = w.text("SELECT id FROM turnwise.jobs").await.unwrap().parse().unwrap();
    assert_eq!(enqueue(&store, &unique("plain", None)).await, holder);
    let long = "k".repeat(257);
    let insert = format!("INSERT INTO turnwise.jobs (url, unique_key) VALUES ('/c', '{long}')");
    assert!(w.refused(&insert).await.expect("it is too long").contains("unique_key"));
}
