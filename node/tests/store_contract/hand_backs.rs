//! Promises about jobs that go back to the queue unspent: given back, not received, or left behind by a
//! history that was lost; ten times and no more.

use std::collections::BTreeSet;

use turnwise_engine::Token;
use turnwise_node::job::{EndOutcome, JobFate, JobId, JobState, NewJob};
use turnwise_node::store::{CheckIn, NodeReport, Store};

use crate::member::{Member, enqueue, id, ids, job, job_at, state};
use crate::world::{NOON, SECOND, World};

pub(crate) async fn a_job_goes_back_ten_times_and_no_more<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let id = enqueue(&a.store, NewJob { max_attempts: 2, ..job() }).await;
    for backs in 0..10 {
        let claimed = a.claim_one(i64::from(backs) + 1).await;
        assert_eq!((claimed.attempt, claimed.hand_backs), (1, backs));
        assert_eq!(a.end(&claimed, JobFate::HandBack).await, EndOutcome::Ended);
    }
    for (attempt, ends) in [(1, JobState::Ready), (2, JobState::Dead)] {
        let claimed = a.claim_one(10 + i64::from(attempt)).await;
        assert_eq!((claimed.attempt, claimed.hand_backs), (attempt, 10));
        assert_eq!(a.end(&claimed, JobFate::HandBack).await, EndOutcome::Ended);
        assert_eq!(a.end(&claimed, JobFate::HandBack).await, EndOutcome::AlreadyEnded);
        let (view, attempts) = a.store.job(id).await.unwrap().unwrap();
        assert_eq!((view.state, view.attempt), (ends, attempt), "the attempt is spent");
        assert_eq!(attempts.len(), 10 + attempt as usize);
        assert_eq!(view.finished_at.is_some(), ends == JobState::Dead);
    }
    // A person's retry begins anew.
    assert_eq!(a.store.retry(id).await.unwrap(), Some(true));
    let claimed = a.claim_one(20).await;
    assert_eq!((claimed.attempt, claimed.hand_backs), (3, 0));
}

pub(crate) async fn a_claim_that_cannot_be_received_is_released<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let b = Member::register(&w, 2).await;
    let report = NodeReport::default();
    let one = enqueue(&a.store, job()).await;
    let last = enqueue(&a.store, NewJob { max_attempts: 1, ..job() }).await;
    let cancelled = enqueue(&a.store, job()).await;
    a.beat().await;
    // What the node has received stays its own.
    let kept = enqueue(&a.store, job_at(NOON - SECOND)).await;
    assert_eq!(a.claim_one(1).await.id, kept);
    assert_eq!(a.claim(2, 5).await.len(), 3);
    a.store.cancel(cancelled).await.unwrap();
    w.set_clock(NOON + SECOND).await;
    assert_eq!(a.store.release(a.id, Token(2), &report).await.unwrap(), CheckIn::Alive);
    let due = |row: &turnwise_node::job::JobView| (row.state, row.attempt, row.scheduled_at);
    for id in [one, last] {
        let (view, attempts) = a.store.job(id).await.unwrap().unwrap();
        let noon = turnwise_engine::ServerInstant::from_micros(NOON);
        assert_eq!(due(&view), (JobState::Ready, 0, noon), "as if it had not been claimed");
        assert!(view.last_error.unwrap().contains("could not receive"));
        assert_eq!((attempts.len(), attempts[0].attempt), (1, 1));
        assert_eq!(attempts[0].finished_at.unwrap().as_micros(), NOON + SECOND);
    }
    assert_eq!(state(&a.store, cancelled).await, JobState::Cancelled);
    assert_eq!(state(&a.store, kept).await, JobState::Running);
    // The token is barred, for a beat and for a claim; and the release was a check-in.
    for barred in [1, 2] {
        assert!(a.claim(barred, 5).await.is_empty(), "token {barred} is barred");
        assert!(a.beat_for(barred, 5).await.jobs.is_empty());
        w.set_clock(NOON + 2 * SECOND).await;
    }
    assert_eq!(a.store.release(a.id, Token(2), &report).await.unwrap(), CheckIn::Alive);
    let taken = b.claim(1, 5).await;
    assert_eq!(ids(&taken), [one, last], "anybody may claim them");
    assert_eq!((taken[0].attempt, taken[0].hand_backs), (1, 1));
    for job in &taken {
        b.end(job, JobFate::HandBack).await;
    }
    // Ten times without spending an attempt; then each costs one, to the last.
    for token in 10..18 {
        assert_eq!(ids(&a.claim(token, 5).await), [one, last], "hand-backs are free");
        a.store.release(a.id, Token(token), &report).await.unwrap();
    }
    for (token, attempt) in [(18, 1), (19, 2)] {
        let claimed = a.claim(token, 5).await;
        let first = &claimed[0];
        assert_eq!((first.id, first.attempt, first.hand_backs), (one, attempt, 10));
        a.store.release(a.id, Token(token), &report).await.unwrap();
        let (view, attempts) = a.store.job(last).await.unwrap().unwrap();
        assert_eq!((view.state, view.attempt), (JobState::Dead, 1));
        assert!(view.finished_at.is_some());
        assert_eq!(attempts.len(), 11);
    }
    let (view, attempts) = a.store.job(one).await.unwrap().unwrap();
    assert_eq!((view.state, view.attempt, attempts.len()), (JobState::Ready, 2, 12));
    assert_eq!(attempts.last().unwrap().attempt, 2);
    assert_eq!(b.store.release(id(77), Token(1), &report).await.unwrap(), CheckIn::Lost);
}

/// The end of a job is lost with the server that recorded it: as if it had never been.
async fn lose_end<W: World>(w: &W, job: JobId) {
    w.run(&format!(
        "DELETE FROM turnwise.attempts WHERE job = '{job}';
         UPDATE turnwise.jobs SET
            state = 'running', finished_at = NULL, last_status = NULL, last_error = NULL
         WHERE id = '{job}'"
    ))
    .await;
}

pub(crate) async fn what_a_lost_history_left_behind_runs_again<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let b = Member::register(&w, 2).await;
    let report = NodeReport::default();
    let mut token = 0;
    let mut claimed = Vec::new();
    for max_attempts in [20, 1, 20, 20, 20, 20] {
        enqueue(&a.store, NewJob { max_attempts, ..job() }).await;
        token += 1;
        claimed.push(a.claim_one(token).await);
    }
    let [ended, last, cancelled, kept, done, unseen] = &claimed[..] else { panic!("six jobs") };
    let others = enqueue(&a.store, job()).await;
    assert_eq!(b.claim_one(1).await.id, others);
    for job in [ended, last, cancelled] {
        assert_eq!(a.end(job, JobFate::Succeeded).await, EndOutcome::Ended);
        lose_end(&w, job.id).await;
    }
    a.store.cancel(cancelled.id).await.unwrap();
    // Two that the node still holds; the end of one comes to the new server just before the list does.
    assert_eq!(a.end(done, JobFate::Succeeded).await, EndOutcome::Ended);
    let nowhere = JobId::generate();
    let holds = [kept.id, done.id, nowhere]
        .map(|id| (id, claimed.iter().find(|job| job.id == id).map_or(Token(1), |job| job.token)));
    w.run("UPDATE turnwise.nodes SET token_floor = 0").await;
    w.set_clock(NOON + SECOND).await;
    for time in 1..=2 {
        let back = a.store.reconcile(a.id, &holds, Token(6), &report).await.unwrap();
        assert_eq!((back.jobs.len(), back.check_in), (0, CheckIn::Alive));
        for job in [ended, last, unseen] {
            let (view, attempts) = a.store.job(job.id).await.unwrap().unwrap();
            assert_eq!((view.state, view.attempt), (JobState::Ready, 0), "not spent");
            assert_eq!(view.scheduled_at, job.scheduled_at);
            assert!(view.last_error.unwrap().contains("does not know how this attempt ended"));
            assert_eq!((attempts.len(), attempts[0].attempt), (1, 1), "said {time} times");
            assert_eq!(attempts[0].finished_at.unwrap().as_micros(), NOON + SECOND);
        }
        assert_eq!(state(&a.store, cancelled.id).await, JobState::Cancelled);
        assert_eq!(state(&a.store, kept.id).await, JobState::Running, "what it runs stays its own");
        assert_eq!(state(&a.store, done.id).await, JobState::Succeeded, "ended is ended");
        assert_eq!(state(&a.store, others).await, JobState::Running, "another node's");
        assert!(a.store.job(nowhere).await.unwrap().is_none());
    }
    let lease =
        format!("SELECT {} FROM turnwise.nodes WHERE id = '{}'", W::micros("lease_until"), a.id);
    assert_eq!(w.number(&lease).await, Some(NOON + 7 * SECOND / 2), "it renews the lease");
    // A claim that is still on its way, of a token that the new server had not barred, comes too late; nor is
    // there anything to recover.
    for barred in [1, 6] {
        assert!(a.claim(barred, 5).await.is_empty(), "token {barred} is barred");
        w.set_clock(NOON + (1 + barred) * SECOND).await;
        let beat = a.beat_for(barred, 5).await;
        assert!(beat.done && beat.jobs.is_empty());
    }
    assert!(a.store.recover(a.id, Token(6), &report).await.unwrap().jobs.is_empty());
    assert_eq!(a.end(kept, JobFate::Succeeded).await, EndOutcome::Ended);
    let again = a.claim(7, 5).await;
    let due: BTreeSet<_> = [ended.id, last.id, unseen.id].into();
    assert_eq!(again.iter().map(|job| job.id).collect::<BTreeSet<_>>(), due);
    assert!(again.iter().all(|job| (job.attempt, job.hand_backs) == (1, 1)));
    // The list of before comes late, once more: what was claimed since is none of its business.
    a.store.reconcile(a.id, &holds, Token(6), &report).await.unwrap();
    for job in &again {
        assert_eq!(state(&a.store, job.id).await, JobState::Running);
    }
    // To hold a job is to hold this claim of it.
    let holds = [(ended.id, ended.token), (last.id, Token(7))];
    a.store.reconcile(a.id, &holds, Token(7), &report).await.unwrap();
    let states = [state(&a.store, ended.id).await, state(&a.store, last.id).await];
    assert_eq!(states, [JobState::Ready, JobState::Running]);
    let lost = a.store.reconcile(id(77), &[], Token(1), &report).await.unwrap();
    assert_eq!((lost.jobs.len(), lost.check_in), (0, CheckIn::Lost));
}

pub(crate) async fn a_lost_history_is_free_ten_times_and_no_more<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let id = enqueue(&a.store, NewJob { max_attempts: 2, ..job() }).await;
    let report = NodeReport::default();
    for backs in 0..10 {
        let claimed = a.claim_one(i64::from(backs) + 1).await;
        assert_eq!((claimed.attempt, claimed.hand_backs), (1, backs));
        a.store.reconcile(a.id, &[], claimed.token, &report).await.unwrap();
    }
    for (attempt, ends) in [(1, JobState::Ready), (2, JobState::Dead)] {
        let claimed = a.claim_one(10 + i64::from(attempt)).await;
        assert_eq!((claimed.attempt, claimed.hand_backs), (attempt, 10));
        a.store.reconcile(a.id, &[], claimed.token, &report).await.unwrap();
        let (view, attempts) = a.store.job(id).await.unwrap().unwrap();
        assert_eq!((view.state, view.attempt), (ends, attempt), "the attempt is spent");
        assert_eq!(attempts.len(), 10 + attempt as usize);
        assert_eq!(view.finished_at.is_some(), ends == JobState::Dead);
    }
}
