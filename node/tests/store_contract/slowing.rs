//! Promises about queues that are held back since a target asks for it.

use std::time::Duration;

use turnwise_engine::ServerInstant;
use turnwise_node::job::{NewJob, SlowDown};
use turnwise_node::store::{QueueOrders, QueuePolicy, SlowedQueue, Store};

use crate::member::{Member, enqueue, ids, job};
use crate::world::{NOON, SECOND, World};

fn mail() -> NewJob {
    NewJob { queue: "mail".to_owned(), ..job() }
}

async fn heed<S: QueueOrders>(store: &S, seconds: Option<u64>) {
    let slow_down = seconds.map(Duration::from_secs);
    store.put_policy("mail", &QueuePolicy { slow_down, ..QueuePolicy::default() }).await.unwrap();
}

async fn slow_down<S: Store>(store: &S, queue: &str, seconds: u64) {
    let what = SlowDown { queue: queue.to_owned(), wait: Duration::from_secs(seconds) };
    store.slow_down(&what).await.unwrap();
}

async fn held_back<S: QueueOrders>(store: &S) -> Vec<(String, i64)> {
    let until = |SlowedQueue { queue, until }: SlowedQueue| {
        let until: ServerInstant = until;
        (queue, (until.as_micros() - NOON) / SECOND)
    };
    store.slowed().await.unwrap().into_iter().map(until).collect()
}

pub(crate) async fn a_queue_that_is_held_back_gives_out_nothing<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    w.set_clock(NOON).await;
    heed(&a.store, Some(3)).await;
    let first = enqueue(&a.store, mail()).await;
    let claimed = a.claim_one(1).await;
    assert_eq!(claimed.id, first);
    assert_eq!(claimed.particulars.slow_down(), Some(Duration::from_secs(3)));
    slow_down(&a.store, "mail", 2).await;
    assert_eq!(held_back(&a.store).await, [("mail".to_owned(), 2)]);
    let (waits, free) = (enqueue(&a.store, mail()).await, enqueue(&a.store, job()).await);
    w.set_clock(NOON + SECOND).await;
    let reply = a.beat_for(2, 10).await;
    assert_eq!(ids(&reply.jobs), [free], "others pass by");
    assert!(reply.kept.is_nothing(), "the next turn comes by itself");
    assert_eq!(a.claim(3, 10).await, []);
    // One that asks for less time changes nothing; more puts it off, as far as is allowed.
    slow_down(&a.store, "mail", 0).await;
    assert_eq!(held_back(&a.store).await, [("mail".to_owned(), 2)]);
    slow_down(&a.store, "mail", 3_600).await;
    assert_eq!(held_back(&a.store).await, [("mail".to_owned(), 4)]);
    for second in 2..4 {
        w.set_clock(NOON + second * SECOND).await;
        assert_eq!(a.beat_for(2 + second, 10).await.jobs, []);
    }
    w.set_clock(NOON + 4 * SECOND).await;
    assert_eq!(held_back(&a.store).await, []);
    assert_eq!(ids(&a.beat_for(9, 10).await.jobs), [waits]);
}

pub(crate) async fn only_a_queue_that_heeds_its_targets_is_held_back<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    w.set_clock(NOON).await;
    let other = enqueue(&a.store, job()).await;
    for queue in ["mail", "default"] {
        slow_down(&a.store, queue, 60).await;
    }
    assert_eq!(held_back(&a.store).await, []);
    let claimed = a.claim_one(1).await;
    assert_eq!((claimed.id, claimed.particulars.slow_down()), (other, None));
    // A policy without it lets the queue go on.
    heed(&a.store, Some(60)).await;
    slow_down(&a.store, "mail", 60).await;
    let waits = enqueue(&a.store, mail()).await;
    assert_eq!(a.claim(2, 10).await, []);
    heed(&a.store, None).await;
    assert_eq!(held_back(&a.store).await, []);
    assert_eq!(ids(&a.claim(3, 10).await), [waits]);
    // And when it heeds them again, it is not held back by what was asked before.
    heed(&a.store, Some(60)).await;
    assert_eq!(held_back(&a.store).await, []);
}

pub(crate) async fn a_clock_that_is_set_back_holds_no_queue_back<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    heed(&a.store, Some(10)).await;
    w.set_clock(NOON + 3_600 * SECOND).await;
    a.beat().await;
    slow_down(&a.store, "mail", 10).await;
    let waits = enqueue(&a.store, mail()).await;
    assert_eq!(a.claim(1, 10).await, []);
    w.set_clock(NOON).await;
    assert_eq!(held_back(&a.store).await, []);
    a.beat().await;
    w.set_clock(NOON + SECOND).await;
    assert_eq!(ids(&a.beat_for(2, 10).await.jobs), [waits]);
    // And it can be held back again.
    slow_down(&a.store, "mail", 5).await;
    assert_eq!(held_back(&a.store).await, [("mail".to_owned(), 6)]);
}
