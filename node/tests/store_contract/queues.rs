//! Promises about what people order of queues.

use turnwise_node::job::{JobFate, NewJob};
use turnwise_node::store::{QueueOrders, Queues};

use crate::member::{Member, enqueue, ids, job, only};
use crate::world::{NOON, SECOND, World};

fn of(queue: &str) -> NewJob {
    NewJob { queue: queue.to_owned(), ..job() }
}

pub(crate) async fn nothing_is_claimed_from_a_paused_queue<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let store = a.store.clone();
    let waits = enqueue(&store, of("mail")).await;
    let goes = enqueue(&store, of("default")).await;
    assert!(store.pause("mail").await.unwrap());
    assert!(!store.pause("mail").await.unwrap(), "it is paused already");
    w.set_clock(NOON + SECOND).await;
    let reply = a.beat_for(1, 10).await;
    assert_eq!((ids(&reply.jobs), reply.more), (vec![goes], false));
    // Jobs that are enqueued meanwhile, other priorities, and nodes that ask for that queue alone.
    enqueue(&store, NewJob { priority: 7, ..of("mail") }).await;
    assert_eq!(a.claim_from(2, 10, &only(&["mail"])).await, []);
    assert_eq!(a.claim_from(3, 10, &Queues::All).await, []);
    let paused = store.paused().await.unwrap();
    assert_eq!(paused.len(), 1);
    assert_eq!((paused[0].queue.as_str(), paused[0].since.as_micros()), ("mail", NOON));
    assert!(store.resume("mail").await.unwrap());
    assert!(!store.resume("mail").await.unwrap(), "it is not paused any more");
    assert!(!store.resume("never heard of").await.unwrap());
    assert_eq!(store.paused().await.unwrap(), []);
    w.set_clock(NOON + 2 * SECOND).await;
    let jobs = a.beat_for(4, 10).await.jobs;
    assert_eq!(jobs.len(), 2);
    assert!(ids(&jobs).contains(&waits));
}

pub(crate) async fn what_runs_when_its_queue_is_paused_goes_on<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let id = enqueue(&a.store, of("mail")).await;
    let claimed = a.claim_one(1).await;
    a.store.pause("mail").await.unwrap();
    // A retry waits like any other job.
    a.end(&claimed, JobFate::Retry(std::time::Duration::ZERO)).await;
    assert_eq!(a.claim(2, 10).await, []);
    a.store.resume("mail").await.unwrap();
    assert_eq!(ids(&a.claim(3, 10).await), [id]);
}

pub(crate) async fn queues_are_paused_each_by_itself<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    for queue in ["b", "a", "ü \"q\"", "c"] {
        enqueue(&a.store, of(queue)).await;
    }
    for queue in ["ü \"q\"", "b", "empty"] {
        assert!(a.store.pause(queue).await.unwrap(), "{queue}");
    }
    let names: Vec<_> = a.store.paused().await.unwrap().into_iter().map(|p| p.queue).collect();
    assert_eq!(names, ["b", "empty", "ü \"q\""]);
    let mut claimed: Vec<_> = a.claim(1, 10).await.into_iter().map(|job| job.queue).collect();
    claimed.sort();
    assert_eq!(claimed, ["a", "c"]);
    assert!(a.store.pause(&"q".repeat(129)).await.is_err());
    a.store.resume("b").await.unwrap();
    let claimed: Vec<_> = a.claim(2, 10).await.into_iter().map(|job| job.queue).collect();
    assert_eq!(claimed, ["b"]);
}
