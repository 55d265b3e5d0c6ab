//! Promises about what is done to many jobs at once.

use std::time::Duration;

use turnwise_node::job::{Asynchronous, JobFate, JobFilter, JobId, JobState, NewJob};
use turnwise_node::store::{BATCH, Bulk, Deed, Store};

use crate::member::{Member, enqueue, job};
use crate::world::{NOON, SECOND, World};

async fn state<S: Store>(store: &S, id: JobId) -> JobState {
    store.job(id).await.unwrap().unwrap().0.state
}

/// A dead job of this queue.
async fn dead<S: Store>(a: &Member<S>, token: i64, queue: &str) -> JobId {
    let id = enqueue(&a.store, NewJob { queue: queue.into(), max_attempts: 1, ..job() }).await;
    let claimed = a.claim_one(token).await;
    a.end(&claimed, JobFate::Dead).await;
    id
}

pub(crate) async fn all_that_a_filter_finds_are_altered_and_no_others<W>(w: W)
where
    W: World,
    W::Store: Bulk,
{
    let a = Member::register(&w, 1).await;
    let mail = [dead(&a, 1, "mail").await, dead(&a, 2, "mail").await];
    let other = dead(&a, 3, "other").await;
    let of = |state, queue: Option<&str>| JobFilter {
        state: Some(state),
        queue: queue.map(str::to_owned),
        ..JobFilter::default()
    };
    let filter = of(JobState::Dead, Some("mail"));
    let count = a.store.matching(Deed::Retry, &filter, 10).await.unwrap();
    assert_eq!((count.jobs, count.and_more), (2, false));
    let count = a.store.matching(Deed::Retry, &filter, 1).await.unwrap();
    assert_eq!((count.jobs, count.and_more), (1, true));
    let done = a.store.alter_all(Deed::Retry, &filter, 10).await;
    assert!(done.broken_off.is_none() && !done.and_more, "{done:?}");
    assert_eq!(done.jobs, 2);
    for id in mail {
        let view = a.store.job(id).await.unwrap().unwrap().0;
        assert_eq!((view.state, view.max_attempts, view.finished_at), (JobState::Ready, 2, None));
    }
    assert_eq!(state(&a.store, other).await, JobState::Dead);
    // By their ids: what cannot be done to one is done to the others.
    let running = a.claim_one(4).await.id;
    let waiting = mail.into_iter().find(|id| *id != running).unwrap();
    let ids = [running, waiting, other, JobId::generate()];
    assert_eq!(a.store.alter(Deed::Cancel, &ids).await.unwrap(), 2);
    assert_eq!(state(&a.store, running).await, JobState::Running);
    assert_eq!(state(&a.store, waiting).await, JobState::Cancelled);
    assert_eq!(state(&a.store, other).await, JobState::Dead);
    assert_eq!(a.store.alter(Deed::Retry, &ids).await.unwrap(), 2, "one runs, one is unknown");
    assert_eq!(a.store.alter(Deed::Retry, &[]).await.unwrap(), 0);
    let done = a.store.alter_all(Deed::Retry, &of(JobState::Succeeded, None), 10).await;
    assert_eq!((done.jobs, done.and_more), (0, false), "there is no such job");
}

pub(crate) async fn many_are_altered_a_batch_at_a_time_up_to_a_limit<W>(w: W)
where
    W: World,
    W::Store: Bulk,
{
    let store = w.store();
    let jobs: Vec<NewJob> = (0..2 * BATCH + 7).map(|_| job()).collect();
    for some in jobs.chunks(200) {
        store.enqueue(some).await.unwrap();
    }
    let filter = JobFilter { state: Some(JobState::Ready), ..JobFilter::default() };
    let done = store.alter_all(Deed::Cancel, &filter, BATCH + 3).await;
    assert_eq!((done.jobs, done.and_more), (BATCH + 3, true), "{done:?}");
    assert_eq!(state(&store, jobs[0].id).await, JobState::Ready, "the newest first");
    let done = store.alter_all(Deed::Cancel, &filter, 10_000).await;
    assert_eq!((done.jobs, done.and_more), (BATCH + 4, false), "{done:?}");
    let cancelled = JobFilter { state: Some(JobState::Cancelled), ..JobFilter::default() };
    let count = store.matching(Deed::Retry, &cancelled, 10_000).await.unwrap();
    assert_eq!((count.jobs, count.and_more), (2 * BATCH + 7, false));
}

pub(crate) async fn what_goes_on_elsewhere_says_that_it_was_cancelled<W>(w: W)
where
    W: World,
    W::Store: Bulk,
{
    let a = Member::register(&w, 1).await;
    let asynchronous = Some(Asynchronous::default());
    let elsewhere = enqueue(&a.store, NewJob { asynchronous, ..job() }).await;
    let claimed = a.claim_one(1).await;
    a.end(&claimed, JobFate::Await(Duration::from_secs(10))).await;
    let failed = enqueue(&a.store, job()).await;
    let claimed = a.claim_one(2).await;
    a.end(&claimed, JobFate::Retry(Duration::from_secs(10))).await;
    let waiting = enqueue(&a.store, job()).await;
    w.set_clock(NOON + SECOND).await;
    let ids = [elsewhere, failed, waiting];
    assert_eq!(a.store.alter(Deed::Retry, &ids[..1]).await.unwrap(), 0, "it runs");
    assert_eq!(a.store.alter(Deed::Cancel, &ids).await.unwrap(), 3);
    for id in ids {
        let (view, attempts) = a.store.job(id).await.unwrap().unwrap();
        assert_eq!(view.state, JobState::Cancelled);
        let errors: Vec<_> = attempts.iter().map(|attempt| attempt.error.as_deref()).collect();
        let ended: Vec<_> = attempts.iter().map(|a| a.finished_at.unwrap().as_micros()).collect();
        if id == elsewhere {
            assert!(errors.len() == 1 && errors[0].unwrap().contains("cancelled"), "{errors:?}");
            assert!(view.last_error.unwrap().contains("cancelled"));
            assert_eq!(ended, [NOON + SECOND]);
        } else if id == failed {
            assert_eq!((errors, ended), (vec![Some("it said no")], vec![NOON]), "as it was");
        } else {
            assert!(errors.is_empty() && view.last_error.is_none());
        }
    }
}
