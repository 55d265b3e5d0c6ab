//! Promises about what few jobs say: how they are tried again, whether they may go on elsewhere, who inserted them.

use std::time::Duration;

use turnwise_engine::ServerInstant;
use turnwise_node::job::{
    Asynchronous, JobFate, NewJob, Particulars, RETRY_WAIT_MAX, RETRY_WAIT_MIN, Retry, When,
};
use turnwise_node::schedule::Misfire;
use turnwise_node::store::{
    Limits, NewSchedule, QueueOrders, QueuePolicy, Schedules, Store, Views,
};

use crate::member::{Member, enqueue, job};
use crate::world::{NOON, SECOND, World};

const SECONDS: fn(u64) -> Option<Duration> = |seconds| Some(Duration::from_secs(seconds));

pub(crate) async fn a_job_says_how_it_is_tried_again<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let retry = Retry { wait: SECONDS(2), wait_max: SECONDS(60) };
    let asynchronous = Some(Asynchronous { heartbeat: SECONDS(7) });
    let said = enqueue(&a.store, NewJob { retry, asynchronous, ..job() }).await;
    let claimed = a.claim_one(1).await;
    let expected = Particulars {
        retry_wait_ms: Some(2_000),
        retry_wait_max_ms: Some(60_000),
        asynchronous: Some(1),
        heartbeat_ms: Some(7_000),
        ..Particulars::default()
    };
    assert_eq!((claimed.id, &claimed.particulars), (said, &expected));
    let (view, _) = a.store.job(said).await.unwrap().unwrap();
    assert_eq!(view.particulars, expected);
    // A claim whose answer was lost says the same.
    let token = claimed.token;
    let recovered = a.store.recover(a.id, token, &Default::default()).await.unwrap();
    assert_eq!(recovered.jobs[0].particulars, expected);
    // With a unique key, and by a beat.
    let unique = Some(turnwise_node::job::Unique { key: "k".parse().unwrap(), window: None });
    let concurrency_key = "c".parse().ok();
    let parent = Some(said);
    let keyed = enqueue(&a.store, NewJob { unique, retry, concurrency_key, parent, ..job() }).await;
    let (view, _) = a.store.job(keyed).await.unwrap().unwrap();
    assert_eq!(view.particulars.parent_id(), parent);
    assert_eq!(view.particulars.concurrency_key.as_deref(), Some("c"));
    w.set_clock(NOON + SECOND).await;
    let mut a = a;
    let jobs = a.beat_for(9, 5).await.jobs;
    assert_eq!(jobs[0].particulars.retry_wait_max_ms, Some(60_000));
    assert_eq!(jobs[0].particulars.parent_id(), parent);
    // Who has enqueued it is said by itself too.
    let child = enqueue(&a.store, NewJob { parent, ..job() }).await;
    let claimed = a.claim_one(8).await;
    assert_eq!((claimed.id, claimed.particulars.parent_id()), (child, parent));
    let recovered = a.store.recover(a.id, claimed.token, &Default::default()).await.unwrap();
    assert_eq!(recovered.jobs[0].particulars.parent_id(), parent);
    // Most say nothing.
    let silent = enqueue(&a.store, job()).await;
    assert_eq!(a.claim_one(12).await.particulars, Particulars::default());
    assert_eq!(a.store.job(silent).await.unwrap().unwrap().0.particulars, Particulars::default());
}

pub(crate) async fn a_queue_says_what_its_jobs_do_not<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let of = |queue: &str| NewJob { queue: queue.to_owned(), ..job() };
    let policy = QueuePolicy {
        retry: Retry { wait: SECONDS(1), wait_max: SECONDS(5) },
        permanent: "404,422".parse().unwrap(),
        limits: Limits {
            concurrency: Some(7),
            concurrency_per_key: Some(3),
            rate: Some("90/m".parse().unwrap()),
        },
        slow_down: SECONDS(30),
    };
    a.store.put_policy("mail", &policy).await.unwrap();
    a.store.put_policy("a", &QueuePolicy::default()).await.unwrap();
    assert_eq!(a.store.policies().await.unwrap(), [("mail".to_owned(), policy.clone())]);
    assert_eq!(a.store.paused().await.unwrap(), [], "that pauses nothing");

    enqueue(&a.store, of("mail")).await;
    let said = a.claim_one(1).await.particulars;
    assert_eq!((said.retry_wait_ms, said.retry_wait_max_ms), (Some(1_000), Some(5_000)));
    assert!(said.is_permanent(404) && said.is_permanent(422) && !said.is_permanent(500));
    let own = Retry { wait: SECONDS(9), wait_max: None };
    enqueue(&a.store, NewJob { retry: own, ..of("mail") }).await;
    let said = a.claim_one(2).await.particulars;
    assert_eq!(said.waits(), (Duration::from_secs(9), Duration::from_secs(5)), "its own first");
    enqueue(&a.store, of("default")).await;
    assert_eq!(a.claim_one(3).await.particulars, Particulars::default(), "another queue's");
    // A list of jobs says what they say themselves.
    let listed = a.store.page(&Default::default()).await.unwrap();
    assert!(listed.jobs.iter().all(|job| job.particulars.permanent.is_none()));

    a.store.put_policy("mail", &QueuePolicy::default()).await.unwrap();
    assert_eq!(a.store.policies().await.unwrap(), []);
    enqueue(&a.store, of("mail")).await;
    assert_eq!(a.claim_one(4).await.particulars, Particulars::default());
    assert!(a.store.put_policy(&"q".repeat(129), &policy).await.is_err());
}

pub(crate) async fn what_cannot_be_said_is_refused_or_taken_for_the_nearest<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    // An app may write anything that the table takes.
    for (column, value) in [
        ("retry_wait_ms", "0"),
        ("retry_wait_ms", "-5"),
        ("retry_wait_max_ms", "99999999999"),
        ("heartbeat_ms", "1"),
    ] {
        let sql = format!("INSERT INTO turnwise.jobs (url, {column}) VALUES ('/ok', {value})");
        if w.refused(&sql).await.is_none() {
            let claimed = a.claim_one(1).await;
            let (wait, wait_max) = claimed.particulars.waits();
            assert!((RETRY_WAIT_MIN..=RETRY_WAIT_MAX).contains(&wait), "{column} = {value}");
            assert!((RETRY_WAIT_MIN..=RETRY_WAIT_MAX).contains(&wait_max), "{column} = {value}");
            a.end(&claimed, JobFate::Succeeded).await;
        }
    }
    w.run(
        "INSERT INTO turnwise.queues (name, permanent_statuses) VALUES ('default', 'all, 404 ,')",
    )
    .await;
    enqueue(&a.store, job()).await;
    let said = a.claim_one(2).await.particulars;
    assert!(said.is_permanent(404) && !said.is_permanent(500));
}

pub(crate) async fn a_schedules_jobs_say_what_it_says<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let retry = Retry { wait: SECONDS(3), wait_max: SECONDS(3) };
    let asynchronous = Some(Asynchronous { heartbeat: SECONDS(4) });
    let schedule = NewSchedule {
        name: "nightly".to_owned(),
        cron: "* * * * * *".to_owned(),
        zone: "UTC".to_owned(),
        misfire: Misfire::Once,
        job: NewJob {
            retry,
            asynchronous,
            concurrency_key: "one at a time".parse().ok(),
            when: When::Now,
            ..job()
        },
    };
    a.store.put_schedule(&schedule, Some(NOON)).await.unwrap();
    let (now, due) = a.store.due_schedules(ServerInstant::from_micros(NOON)).await.unwrap();
    assert!(a.store.fire(&due[0].fire(now, now)).await.unwrap());
    let claimed = a.claim_one(1).await;
    let expected = Particulars {
        retry_wait_ms: Some(3_000),
        retry_wait_max_ms: Some(3_000),
        asynchronous: Some(1),
        heartbeat_ms: Some(4_000),
        schedule: Some("nightly".to_owned()),
        ..Particulars::default()
    };
    assert_eq!(claimed.particulars, expected);
    let concurrency_key = Some("one at a time".to_owned());
    let expected = Particulars { concurrency_key, ..expected };
    assert_eq!(a.store.job(claimed.id).await.unwrap().unwrap().0.particulars, expected);
    // Set anew, it says the new.
    let quiet = NewSchedule { job: job(), ..schedule };
    a.store.put_schedule(&quiet, Some(NOON + SECOND)).await.unwrap();
    w.set_clock(NOON + SECOND).await;
    let (now, due) =
        a.store.due_schedules(ServerInstant::from_micros(NOON + SECOND)).await.unwrap();
    assert!(a.store.fire(&due[0].fire(now, now)).await.unwrap());
    let said = a.claim_one(2).await.particulars;
    let schedule = Some("nightly".to_owned());
    assert_eq!(said, Particulars { schedule, ..Particulars::default() });
}
