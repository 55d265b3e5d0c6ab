//! Promises about ends: each attempt ends once, as it was told, each by itself.

use std::time::Duration;

use turnwise_engine::Token;
use turnwise_node::job::{EndOutcome, JobFate, JobId, JobState};
use turnwise_node::store::{CheckIn, Store, Views};

use crate::member::{Member, end_of, enqueue, job, state};
use crate::world::{NOON, SECOND, World};

pub(crate) async fn an_attempt_ends_once<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let b = Member::register(&w, 2).await;
    let good = enqueue(&a.store, job()).await;
    let claimed = a.claim_one(1).await;
    let mut end = end_of(&claimed, JobFate::Succeeded);
    end.status = Some(200);
    end.error = None;
    w.set_clock(NOON + 5).await;
    assert_eq!(b.end_as(&end).await, EndOutcome::Stale, "another node");
    let other = turnwise_node::job::End { token: Token(9), ..end.clone() };
    assert_eq!(a.end_as(&other).await, EndOutcome::Stale, "another claim");
    assert_eq!(a.store.look().await.unwrap().stale_ends, 2);
    assert_eq!(a.end_as(&end).await, EndOutcome::Ended);
    assert_eq!(a.end_as(&end).await, EndOutcome::AlreadyEnded, "said twice");
    assert_eq!(a.store.look().await.unwrap().stale_ends, 2, "which is no stale end");
    let (view, attempts) = a.store.job(good).await.unwrap().unwrap();
    assert_eq!((view.state, view.attempt, view.last_status), (JobState::Succeeded, 1, Some(200)));
    assert_eq!(view.finished_at.unwrap().as_micros(), NOON + 5);
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].answer.as_deref(), Some(&b"no"[..]));
    assert_eq!(attempts[0].started_at.as_micros(), NOON);
    assert_eq!(attempts[0].finished_at.unwrap().as_micros(), NOON + 5);
    assert_eq!((attempts[0].node, attempts[0].status), (a.id, Some(200)));

    let nowhere = turnwise_node::job::End { job: JobId::generate(), ..end };
    assert_eq!(a.end_as(&nowhere).await, EndOutcome::Stale, "no such job");
}

pub(crate) async fn each_fate_is_recorded<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    // Again, later.
    let again = enqueue(&a.store, job()).await;
    let claimed = a.claim_one(1).await;
    let wait = JobFate::Retry(Duration::from_secs(15));
    assert_eq!(a.end(&claimed, wait).await, EndOutcome::Ended);
    let (view, _) = a.store.job(again).await.unwrap().unwrap();
    assert_eq!((view.state, view.attempt), (JobState::Retrying, 1));
    assert_eq!(view.scheduled_at.as_micros(), NOON + 15 * SECOND);
    assert_eq!(view.last_error.as_deref(), Some("it said no"));
    assert!(a.claim(2, 5).await.is_empty(), "before its time");
    w.set_clock(NOON + 15 * SECOND).await;
    assert_eq!(state(&a.store, again).await, JobState::Ready);
    let claimed = a.claim_one(3).await;
    assert_eq!(claimed.attempt, 2);
    // Given up.
    assert_eq!(a.end(&claimed, JobFate::Dead).await, EndOutcome::Ended);
    let (view, attempts) = a.store.job(again).await.unwrap().unwrap();
    assert_eq!((view.state, view.last_status), (JobState::Dead, Some(500)));
    assert!(view.finished_at.is_some());
    assert_eq!(attempts.iter().map(|attempt| attempt.attempt).collect::<Vec<_>>(), [1, 2]);

    // Given back: as if the attempt had not been.
    let back = enqueue(&a.store, job()).await;
    let claimed = a.claim_one(4).await;
    assert_eq!(a.end(&claimed, JobFate::HandBack).await, EndOutcome::Ended);
    let claimed = a.claim_one(5).await;
    assert_eq!((claimed.id, claimed.attempt, claimed.hand_backs), (back, 1, 1));
    let (_, attempts) = a.store.job(back).await.unwrap().unwrap();
    assert_eq!(attempts.len(), 2, "given back, and running");
    assert!(attempts.iter().all(|attempt| attempt.attempt == 1));
    assert_eq!(attempts[1].finished_at, None);

    // Cancelled while it ran: not again after this attempt, however it ended short of success.
    for (token, fate) in [(10, wait), (20, JobFate::HandBack)] {
        let one = enqueue(&a.store, job()).await;
        let claimed = a.claim_one(token).await;
        assert_eq!(claimed.id, one);
        assert_eq!(a.store.cancel(one).await.unwrap(), Some(true));
        assert_eq!(state(&a.store, one).await, JobState::Running);
        assert_eq!(a.end(&claimed, fate).await, EndOutcome::Ended);
        let (view, _) = a.store.job(one).await.unwrap().unwrap();
        assert_eq!(view.state, JobState::Cancelled, "{fate:?}");
        assert!(view.finished_at.is_some());
    }
    for (token, fate, ends) in
        [(30, JobFate::Succeeded, JobState::Succeeded), (40, JobFate::Dead, JobState::Dead)]
    {
        let one = enqueue(&a.store, job()).await;
        let claimed = a.claim_one(token).await;
        a.store.cancel(one).await.unwrap();
        assert_eq!(a.end(&claimed, fate).await, EndOutcome::Ended);
        assert_eq!(state(&a.store, one).await, ends);
    }
}

pub(crate) async fn ends_of_a_batch_are_each_their_own<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let jobs: Vec<_> = (0..4).map(|_| job()).collect();
    a.store.enqueue(&jobs).await.unwrap();
    let claimed = a.claim(1, 4).await;
    let mut stale = end_of(&claimed[1], JobFate::Succeeded);
    stale.token = Token(99);
    let mut nul = end_of(&claimed[2], JobFate::Dead);
    nul.error = Some("a\0b".to_owned());
    let ends = [
        end_of(&claimed[0], JobFate::Succeeded),
        stale,
        nul,
        end_of(&claimed[0], JobFate::Dead),
        end_of(&claimed[3], JobFate::Retry(Duration::MAX)),
    ];
    use EndOutcome::{AlreadyEnded, Ended, Stale};
    let (outcomes, check_in) = a.store.end(a.id, &ends).await.unwrap();
    assert_eq!(outcomes, [Ended, Stale, Ended, AlreadyEnded, Ended]);
    assert_eq!(check_in, CheckIn::Alive);
    assert_eq!(state(&a.store, claimed[0].id).await, JobState::Succeeded, "the first counts");
    assert_eq!(state(&a.store, claimed[1].id).await, JobState::Running);
    assert_eq!(state(&a.store, claimed[2].id).await, JobState::Dead);
    assert_eq!(state(&a.store, claimed[3].id).await, JobState::Retrying);
}

pub(crate) async fn an_attempt_that_succeeded_stands_in_its_jobs_row<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let id = enqueue(&a.store, job()).await;
    let failed = a.claim_one(1).await;
    a.end(&failed, JobFate::Retry(Duration::ZERO)).await;
    w.set_clock(NOON + SECOND).await;
    let claimed = a.claim_one(2).await;
    w.set_clock(NOON + 2 * SECOND).await;
    let mut end = end_of(&claimed, JobFate::Succeeded);
    (end.status, end.error, end.answer) = (Some(201), None, Some(b"done".to_vec()));
    assert_eq!(a.end_as(&end).await, EndOutcome::Ended);
    let rows = "SELECT count(*) FROM turnwise.attempts";
    assert_eq!(w.number(rows).await, Some(1), "the one that failed");
    // A binary of before has written a row for it, too. It is shown once all the same.
    let (from, to) = (W::instant(NOON + SECOND), W::instant(NOON + 2 * SECOND));
    let of_before = format!(
        "INSERT INTO turnwise.attempts (job, node, token, attempt, started_at, finished_at, status)
         VALUES ('{id}', '{}', 2, 2, {from}, {to}, 201)",
        a.id
    );
    for written in [false, true] {
        if written {
            w.run(&of_before).await;
        }
        let (view, attempts) = a.store.job(id).await.unwrap().unwrap();
        assert_eq!((view.state, view.last_status), (JobState::Succeeded, Some(201)));
        assert_eq!((attempts.len(), attempts.in_all), (2, 2));
        assert_eq!((attempts[0].attempt, attempts[0].error.as_deref()), (1, Some("it said no")));
        let last = &attempts[1];
        assert_eq!((last.attempt, last.node, last.status), (2, a.id, Some(201)));
        assert_eq!(last.error, None);
        let times = (last.started_at.as_micros(), last.finished_at.unwrap().as_micros());
        assert_eq!(times, (NOON + SECOND, NOON + 2 * SECOND));
        assert_eq!(last.answer.as_deref(), (!written).then_some(&b"done"[..]));
        let since = turnwise_engine::ServerInstant::from_micros(NOON);
        let mut runs = a.store.runs(since, 100).await.unwrap();
        runs.sort_by_key(|run| run.started_at);
        let runs: Vec<_> =
            runs.iter().map(|run| (run.attempt, run.failed, run.finished_at.is_some())).collect();
        assert_eq!(runs, [(1, true, true), (2, false, true)]);
        assert_eq!(a.store.runs(since, 1).await.unwrap().len(), 1);
        assert_eq!(a.end_as(&end).await, EndOutcome::AlreadyEnded, "said twice");
        let other = turnwise_node::job::End { token: Token(9), ..end.clone() };
        assert_eq!(a.end_as(&other).await, EndOutcome::Stale, "another claim");
    }
}

pub(crate) async fn who_holds_a_cancelled_job_hears_of_it<W: World>(w: W) {
    let (a, b) = (Member::register(&w, 1).await, Member::register(&w, 2).await);
    for _ in 0..3 {
        enqueue(&a.store, job()).await;
    }
    let jobs = a.claim(5, 3).await;
    let held: Vec<_> = jobs.iter().map(|job| (job.id, job.token)).collect();
    assert_eq!(a.store.cancelled(a.id, &held).await.unwrap(), []);
    assert_eq!(a.store.cancelled(a.id, &[]).await.unwrap(), []);
    for job in &jobs[..2] {
        assert_eq!(a.store.cancel(job.id).await.unwrap(), Some(true));
    }
    let mut told = a.store.cancelled(a.id, &held).await.unwrap();
    told.sort();
    let mut cancelled = held[..2].to_vec();
    cancelled.sort();
    assert_eq!(told, cancelled);
    // Not another node, nor under another claim, nor of jobs that are not asked for.
    assert_eq!(b.store.cancelled(b.id, &held).await.unwrap(), []);
    assert_eq!(a.store.cancelled(a.id, &[(held[0].0, Token(4))]).await.unwrap(), []);
    assert_eq!(a.store.cancelled(a.id, &held[1..]).await.unwrap(), [held[1]]);
    // The call is dropped: the job is not tried again.
    let end = turnwise_node::caller::cancelled().into_end(&jobs[0]);
    assert_eq!(a.end_as(&end).await, EndOutcome::Ended);
    assert_eq!(state(&a.store, jobs[0].id).await, JobState::Cancelled);
    assert_eq!(a.store.cancelled(a.id, &held).await.unwrap(), [held[1]]);
    let (_, attempts) = a.store.job(jobs[0].id).await.unwrap().unwrap();
    assert!(attempts[0].error.as_deref().unwrap().contains("cancelled while it ran"));
}
