//! Promises about jobs that go on after their call was answered: who may say how, and what becomes of them.

use std::time::Duration;

use turnwise_engine::{NodeId, Token};
use turnwise_node::job::{
    Asynchronous, ClaimedJob, EndOutcome, JobFate, JobFilter, JobId, JobState, NewJob, Progress,
};
use turnwise_node::store::{Callbacks, CheckIn, Store, Views, Word};

use crate::member::{Member, end_of, enqueue, ids, job, state};
use crate::world::{NOON, SECOND, World};

const AWAIT: JobFate = JobFate::Await(Duration::from_secs(10));

fn asynchronous() -> NewJob {
    NewJob { asynchronous: Some(Asynchronous::default()), ..job() }
}

/// Claim the one job that is due, and record that it was accepted.
async fn accepted<S: Store>(a: &Member<S>, token: i64) -> ClaimedJob {
    let claimed = a.claim_one(token).await;
    accept(a, &claimed).await;
    claimed
}

async fn accept<S: Store>(a: &Member<S>, claimed: &ClaimedJob) {
    let mut end = end_of(claimed, AWAIT);
    (end.status, end.answer) = (Some(202), None);
    end.error = Some("accepted".to_owned());
    assert_eq!(a.end_as(&end).await, EndOutcome::Ended);
}

fn ended(fate: JobFate) -> Word {
    let error = (fate != JobFate::Succeeded).then(|| "it broke".to_owned());
    Word::Ended { fate, error, answer: Some(b"done".to_vec()) }
}

fn alive(seconds: u64, progress: Progress) -> Word {
    Word::Alive { within: Duration::from_secs(seconds), progress }
}

async fn hear<S: Callbacks>(a: &Member<S>, job: &ClaimedJob, word: &Word) -> bool {
    a.store.hear(job.id, (a.id, job.token), word).await.unwrap()
}

pub(crate) async fn a_job_that_was_accepted_goes_on_elsewhere<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let id = enqueue(&a.store, asynchronous()).await;
    w.set_clock(NOON + SECOND).await;
    let claimed = a.claim_one(1).await;
    w.set_clock(NOON + 2 * SECOND).await;
    accept(&a, &claimed).await;
    let (view, attempts) = a.store.job(id).await.unwrap().unwrap();
    assert_eq!((view.state, view.attempt), (JobState::Running, 1));
    assert_eq!(view.awaits_since.unwrap().as_micros(), NOON + 2 * SECOND);
    assert_eq!(view.scheduled_at.as_micros(), NOON + 12 * SECOND, "heard of by then");
    assert_eq!((view.last_status, view.last_error), (Some(202), None));
    assert_eq!(view.finished_at, None);
    assert_eq!((attempts.len(), attempts.in_all), (1, 1));
    assert_eq!((attempts[0].finished_at, attempts[0].error.as_deref()), (None, None), "it goes on");
    assert_eq!(attempts[0].started_at.as_micros(), NOON + SECOND);
    // It is listed with those that run, and with no other.
    for state in JobState::ALL {
        let filter = JobFilter { state: Some(state), limit: 5, ..JobFilter::default() };
        let found: Vec<JobId> = a.store.jobs(&filter).await.unwrap().iter().map(|j| j.id).collect();
        assert_eq!(found, if state == JobState::Running { vec![id] } else { vec![] }, "{state:?}");
    }
    assert_eq!(a.claim(2, 5).await, [], "it is not due");
    assert_eq!(a.store.retry(id).await.unwrap(), Some(false), "it runs");
    // That the answer was lost and the end is said again changes nothing.
    assert_eq!(a.end(&claimed, AWAIT).await, EndOutcome::AlreadyEnded);
    assert_eq!(state(&a.store, id).await, JobState::Running);
}

pub(crate) async fn nothing_heard_in_time_is_the_next_attempt<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let id = enqueue(&a.store, NewJob { max_attempts: 2, ..asynchronous() }).await;
    let first = accepted(&a, 1).await;
    w.set_clock(NOON + 9 * SECOND).await;
    assert_eq!(a.renew().await, CheckIn::Alive);
    assert_eq!(a.claim(2, 5).await, []);
    w.set_clock(NOON + 10 * SECOND).await;
    let second = a.claim_one(3).await;
    assert_eq!((second.id, second.attempt), (id, 2));
    let (view, attempts) = a.store.job(id).await.unwrap().unwrap();
    assert_eq!((view.state, view.awaits_since), (JobState::Running, None));
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts[0].error.as_deref(), Some("accepted"), "what was true if nothing came");
    assert!(attempts[0].finished_at.is_some());
    assert!(!hear(&a, &first, &ended(JobFate::Succeeded)).await, "too late");
    // The last one too: it is claimed once more, beyond its last attempt, and has not had that.
    accept(&a, &second).await;
    w.set_clock(NOON + 20 * SECOND).await;
    let beyond = a.claim_one(4).await;
    assert_eq!((beyond.attempt, beyond.max_attempts), (3, 2));
    assert_eq!(a.end(&beyond, JobFate::Dead).await, EndOutcome::Ended);
    let (view, attempts) = a.store.job(id).await.unwrap().unwrap();
    assert_eq!((view.state, view.attempt), (JobState::Dead, 2));
    let numbers: Vec<_> = attempts.iter().map(|attempt| attempt.attempt).collect();
    assert_eq!(numbers, [1, 2, 2]);
}

pub(crate) async fn who_calls_back_says_how_it_ended<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let good = enqueue(&a.store, asynchronous()).await;
    let claimed = accepted(&a, 1).await;
    w.set_clock(NOON + 3 * SECOND).await;
    let last = a.store.last_attempt(good).await.unwrap().unwrap();
    assert_eq!((last.node, last.job.token, last.job.attempt), (a.id, claimed.token, 1));
    assert!(last.goes_on && last.job.particulars.is_asynchronous());
    assert!(hear(&a, &claimed, &ended(JobFate::Succeeded)).await);
    let (view, attempts) = a.store.job(good).await.unwrap().unwrap();
    assert_eq!((view.state, view.last_status), (JobState::Succeeded, Some(202)));
    assert_eq!((view.last_error, view.awaits_since), (None, None));
    assert_eq!(view.finished_at.unwrap().as_micros(), NOON + 3 * SECOND);
    assert_eq!((attempts.len(), attempts.in_all), (1, 1));
    assert_eq!(attempts[0].answer.as_deref(), Some(&b"done"[..]));
    assert_eq!(attempts[0].error, None);
    assert!(!hear(&a, &claimed, &ended(JobFate::Dead)).await, "said once");
    let last = a.store.last_attempt(good).await.unwrap().unwrap();
    assert_eq!((last.goes_on, last.state.as_str()), (false, "succeeded"));

    let again = enqueue(&a.store, asynchronous()).await;
    let claimed = accepted(&a, 2).await;
    assert!(hear(&a, &claimed, &ended(JobFate::Retry(Duration::from_secs(15)))).await);
    let (view, attempts) = a.store.job(again).await.unwrap().unwrap();
    assert_eq!((view.state, view.attempt), (JobState::Retrying, 1));
    assert_eq!(view.scheduled_at.as_micros(), NOON + 18 * SECOND);
    assert_eq!(view.last_error.as_deref(), Some("it broke"));
    assert_eq!(attempts.len(), 1);
    assert_eq!((attempts[0].status, attempts[0].error.as_deref()), (Some(202), Some("it broke")));
    w.set_clock(NOON + 18 * SECOND).await;
    let claimed = accepted(&a, 3).await;
    assert_eq!(claimed.attempt, 2);
    assert!(hear(&a, &claimed, &ended(JobFate::Dead)).await);
    assert_eq!(state(&a.store, again).await, JobState::Dead);
    assert_eq!(a.store.retry(again).await.unwrap(), Some(true), "as any that was given up");
    assert_eq!(ids(&a.claim(4, 5).await), [again]);
}

pub(crate) async fn who_calls_back_may_come_before_the_answer<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    for (token, fate, becomes) in [
        (1, JobFate::Succeeded, JobState::Succeeded),
        (2, JobFate::Retry(Duration::from_secs(15)), JobState::Retrying),
        (3, JobFate::Dead, JobState::Dead),
    ] {
        let id = enqueue(&a.store, asynchronous()).await;
        let claimed = a.claim_one(token).await;
        assert!(hear(&a, &claimed, &alive(5, Progress::default())).await);
        assert!(hear(&a, &claimed, &ended(fate)).await);
        // The node has its answer only now, whatever it is.
        assert_eq!(a.end(&claimed, AWAIT).await, EndOutcome::AlreadyEnded);
        let failed = JobFate::Retry(Duration::ZERO);
        assert_eq!(a.end(&claimed, failed).await, EndOutcome::AlreadyEnded);
        let (view, attempts) = a.store.job(id).await.unwrap().unwrap();
        assert_eq!((view.state, attempts.len()), (becomes, 1), "{fate:?}");
        assert_eq!(attempts[0].status, None, "no answer had come");
    }
}

pub(crate) async fn who_is_not_asked_any_more_changes_nothing<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let id = enqueue(&a.store, asynchronous()).await;
    assert_eq!(a.store.last_attempt(id).await.unwrap(), None, "never claimed");
    assert_eq!(a.store.last_attempt(JobId::generate()).await.unwrap(), None);
    let claimed = accepted(&a, 1).await;
    for (node, token) in [(NodeId::from_u128(2), claimed.token), (a.id, Token(9))] {
        let heard = a.store.hear(id, (node, token), &ended(JobFate::Succeeded)).await.unwrap();
        assert!(!heard, "another claim's");
        assert!(!a.store.hear(id, (node, token), &alive(60, Progress::default())).await.unwrap());
    }
    let (view, _) = a.store.job(id).await.unwrap().unwrap();
    assert_eq!(
        (view.state, view.scheduled_at.as_micros()),
        (JobState::Running, NOON + 10 * SECOND)
    );
    // A job that waits for another try is nobody's.
    assert!(hear(&a, &claimed, &ended(JobFate::Retry(Duration::from_secs(5)))).await);
    assert!(!hear(&a, &claimed, &ended(JobFate::Succeeded)).await);
    assert_eq!(state(&a.store, id).await, JobState::Retrying);
}

pub(crate) async fn a_heartbeat_says_how_far_it_is_and_puts_off_the_end<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let deadline = Duration::from_secs(30);
    let id = enqueue(&a.store, NewJob { deadline, ..asynchronous() }).await;
    let claimed = accepted(&a, 1).await;
    w.set_clock(NOON + 8 * SECOND).await;
    let half = Progress { percent: Some(50), note: Some("half, \u{fffd} ☃".to_owned()) };
    assert!(hear(&a, &claimed, &alive(10, half.clone())).await);
    let (view, _) = a.store.job(id).await.unwrap().unwrap();
    assert_eq!((view.progress, view.scheduled_at.as_micros()), (Some(half), NOON + 18 * SECOND));
    w.set_clock(NOON + 15 * SECOND).await;
    let more = Progress { percent: Some(75), note: None };
    assert!(hear(&a, &claimed, &alive(10, more)).await);
    let (view, _) = a.store.job(id).await.unwrap().unwrap();
    let progress = view.progress.unwrap();
    assert_eq!((progress.percent, progress.note.unwrap().starts_with("half")), (Some(75), true));
    // Not beyond the deadline, which counts from the beginning of the attempt.
    w.set_clock(NOON + 25 * SECOND).await;
    assert!(hear(&a, &claimed, &alive(10, Progress::default())).await);
    let (view, _) = a.store.job(id).await.unwrap().unwrap();
    assert_eq!(view.scheduled_at.as_micros(), NOON + 30 * SECOND);
    // The next attempt begins with nothing.
    w.set_clock(NOON + 30 * SECOND).await;
    let next = a.claim_one(2).await;
    assert_eq!((next.id, next.attempt), (id, 2));
    assert_eq!(a.store.job(id).await.unwrap().unwrap().0.progress, None);
}

pub(crate) async fn a_job_that_goes_on_elsewhere_belongs_to_no_node<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let mut b = Member::register(&w, 2).await;
    b.beat().await;
    let id = enqueue(&a.store, asynchronous()).await;
    let claimed = accepted(&a, 1).await;
    // Its node takes nothing of it back, however it looks for what it holds.
    let recovered = a.store.recover(a.id, Token(1), &Default::default()).await.unwrap();
    assert_eq!(recovered.jobs, []);
    a.store.release(a.id, Token(1), &Default::default()).await.unwrap();
    a.store.reconcile(a.id, &[], Token(1), &Default::default()).await.unwrap();
    a.store.deregister(a.id).await.unwrap();
    // And when it is gone, nobody rescues the job.
    for second in 1..=8 {
        w.set_clock(NOON + second * SECOND).await;
        assert_eq!(b.beat_for(second, 5).await.jobs, []);
    }
    let (view, _) = b.store.job(id).await.unwrap().unwrap();
    assert_eq!((view.state, view.attempt), (JobState::Running, 1));
    assert!(b.store.hear(id, (a.id, claimed.token), &ended(JobFate::Succeeded)).await.unwrap());
    assert_eq!(state(&b.store, id).await, JobState::Succeeded);
}

pub(crate) async fn an_outage_counts_for_no_heartbeat<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    a.beat().await;
    let id = enqueue(&a.store, asynchronous()).await;
    let claimed = accepted(&a, 1).await;
    w.set_clock(NOON + SECOND).await;
    a.beat().await;
    // Nobody reaches the database for half a minute.
    w.set_clock(NOON + 31 * SECOND).await;
    assert_eq!(a.beat_for(2, 5).await.jobs, []);
    let (view, _) = a.store.job(id).await.unwrap().unwrap();
    assert_eq!(
        (view.state, view.scheduled_at.as_micros()),
        (JobState::Running, NOON + 40 * SECOND)
    );
    assert!(hear(&a, &claimed, &alive(10, Progress::default())).await);
    // One that was heard of in between is put off from then on.
    w.set_clock(NOON + 51 * SECOND).await;
    assert!(hear(&a, &claimed, &alive(10, Progress::default())).await);
    w.set_clock(NOON + 61 * SECOND).await;
    assert_eq!(a.beat_for(3, 5).await.jobs, []);
    let (view, _) = a.store.job(id).await.unwrap().unwrap();
    assert_eq!(view.scheduled_at.as_micros(), NOON + 71 * SECOND);
    // What nobody hears of then is tried again.
    for second in 62..=71 {
        w.set_clock(NOON + second * SECOND).await;
        let jobs = a.beat_for(second, 5).await.jobs;
        assert_eq!(jobs.len(), usize::from(second == 71), "second {second}");
    }
}

/// Until when the job is to be heard of, in seconds after noon.
async fn heard_by<S: Store>(a: &Member<S>, id: JobId) -> i64 {
    let (view, _) = a.store.job(id).await.unwrap().unwrap();
    assert_eq!(view.state, JobState::Running);
    (view.scheduled_at.as_micros() - NOON) / SECOND
}

pub(crate) async fn an_outage_counts_for_no_deadline<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    a.beat().await;
    let deadline = Duration::from_secs(20);
    let id = enqueue(&a.store, NewJob { deadline, ..asynchronous() }).await;
    let claimed = accepted(&a, 1).await;
    w.set_clock(NOON + SECOND).await;
    a.beat().await;
    // Nobody beats for half a minute. A word that comes before the first beat knows it.
    w.set_clock(NOON + 30 * SECOND).await;
    assert!(hear(&a, &claimed, &alive(10, Progress::default())).await);
    assert_eq!(heard_by(&a, id).await, 40);
    w.set_clock(NOON + 31 * SECOND).await;
    assert_eq!(a.beat_for(2, 5).await.jobs, []);
    assert_eq!(heard_by(&a, id).await, 41);
    for (second, until) in [(38, 48), (45, 50)] {
        while a.store.look().await.unwrap().clock.as_micros() < NOON + second * SECOND {
            let clock = a.store.look().await.unwrap().clock.as_micros();
            w.set_clock(clock + SECOND).await;
            assert_eq!(a.beat_for(clock / SECOND, 5).await.jobs, []);
        }
        assert!(hear(&a, &claimed, &alive(10, Progress::default())).await);
        assert_eq!(heard_by(&a, id).await, until, "said at {second}");
    }
    // Twenty seconds in all, without the outage.
    for second in 46..=50 {
        w.set_clock(NOON + second * SECOND).await;
        let jobs = a.beat_for(NOON + second, 5).await.jobs;
        assert_eq!(jobs.len(), usize::from(second == 50), "second {second}");
    }
}

pub(crate) async fn one_whose_acceptance_comes_after_an_outage_has_time_left<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    a.beat().await;
    let deadline = Duration::from_secs(15);
    for _ in 0..3 {
        enqueue(&a.store, NewJob { deadline, ..asynchronous() }).await;
    }
    let claimed = a.claim(1, 3).await;
    w.set_clock(NOON + SECOND).await;
    a.beat().await;
    // Nobody reaches the database for half a minute. One is recorded before the first beat,
    w.set_clock(NOON + 30 * SECOND).await;
    accept(&a, &claimed[0]).await;
    assert_eq!(heard_by(&a, claimed[0].id).await, 40);
    w.set_clock(NOON + 31 * SECOND).await;
    assert_eq!(a.beat_for(2, 5).await.jobs, []);
    // one after it; and after that a slot is missed.
    accept(&a, &claimed[1]).await;
    assert_eq!(heard_by(&a, claimed[1].id).await, 41);
    w.set_clock(NOON + 33 * SECOND).await;
    assert_eq!(a.beat_for(3, 5).await.jobs, []);
    let mut end = end_of(&claimed[2], JobFate::Await(deadline));
    end.status = Some(202);
    assert_eq!(a.end_as(&end).await, EndOutcome::Ended);
    assert_eq!(heard_by(&a, claimed[2].id).await, 15 + 30 + 2);
}

pub(crate) async fn what_an_older_binary_claims_does_not_go_on_elsewhere<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    a.beat().await;
    let id = enqueue(&a.store, NewJob { max_attempts: 9, ..asynchronous() }).await;
    let claimed = accepted(&a, 1).await;
    w.set_clock(NOON + 11 * SECOND).await;
    // It claims the job when it is due, knows nothing of the columns, and its call fails.
    w.run(&format!(
        "UPDATE turnwise.jobs SET attempt = 2, token = 7, started_at = {}, scheduled_at = {}, queued_at = {}
         WHERE id = '{id}'",
        W::instant(NOON + 10 * SECOND),
        W::instant(NOON + 20 * SECOND),
        W::instant(NOON + 11 * SECOND),
    ))
    .await;
    let (view, _) = a.store.job(id).await.unwrap().unwrap();
    assert_eq!((view.state, view.awaits_since), (JobState::Retrying, None));
    let last = a.store.last_attempt(id).await.unwrap().unwrap();
    assert!(!last.goes_on);
    assert!(
        !hear(&a, &ClaimedJob { token: Token(7), ..claimed }, &ended(JobFate::Succeeded)).await
    );
    for (state, found) in [(JobState::Running, 0), (JobState::Retrying, 1)] {
        let filter = JobFilter { state: Some(state), limit: 5, ..JobFilter::default() };
        assert_eq!(a.store.jobs(&filter).await.unwrap().len(), found, "{state:?}");
    }
    let tally = a.store.tally(10).await.unwrap();
    assert_eq!((tally.running.jobs, tally.later().jobs), (0, 1));
    // No outage puts it off, and a person may have it run at once.
    w.set_clock(NOON + 18 * SECOND).await;
    a.beat().await;
    let (view, _) = a.store.job(id).await.unwrap().unwrap();
    assert_eq!(view.scheduled_at.as_micros(), NOON + 20 * SECOND);
    assert_eq!(a.store.retry(id).await.unwrap(), Some(true));
    assert_eq!(ids(&a.claim(8, 5).await), [id]);
}

pub(crate) async fn a_clock_set_back_before_the_answer_ends_no_job_elsewhere<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    a.beat().await;
    let id = enqueue(&a.store, asynchronous()).await;
    let claimed = a.claim_one(1).await;
    w.set_clock(NOON - 60 * SECOND).await;
    a.beat().await;
    accept(&a, &claimed).await;
    assert_eq!(heard_by(&a, id).await, -50);
    assert!(hear(&a, &claimed, &ended(JobFate::Succeeded)).await);
    assert_eq!(state(&a.store, id).await, JobState::Succeeded);
}

pub(crate) async fn what_goes_on_elsewhere_is_counted_with_what_runs<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let alone = NewJob { queue: "alone".to_owned(), ..asynchronous() };
    for (token, job) in [(1, alone), (2, asynchronous()), (3, asynchronous())] {
        enqueue(&a.store, job).await;
        accepted(&a, token).await;
    }
    for at in [NOON + SECOND, NOON + 2 * SECOND, NOON + 30 * SECOND] {
        enqueue(&a.store, crate::member::job_at(at)).await;
    }
    w.set_clock(NOON + 3 * SECOND).await;
    // One of the three that go on has been silent for long enough.
    w.run(&format!(
        "UPDATE turnwise.jobs SET scheduled_at = {} WHERE queue = 'default' AND token = 3",
        W::instant(NOON)
    ))
    .await;
    for most in [2, 100] {
        let tally = a.store.tally(most).await.unwrap();
        let waiting: Vec<_> = tally.queues.iter().collect();
        assert_eq!(waiting.len(), 1, "nothing waits in the other queue");
        let queue = waiting[0];
        assert_eq!((queue.ready.to_string(), queue.later.to_string()), ("2".into(), "1".into()));
        assert_eq!(queue.oldest_us, Some(2 * SECOND));
        assert_eq!(tally.running.to_string(), if most == 2 { "2+" } else { "3" });
    }
}

pub(crate) async fn a_job_that_goes_on_elsewhere_is_cancelled_at_once<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let id = enqueue(&a.store, asynchronous()).await;
    let claimed = accepted(&a, 1).await;
    w.set_clock(NOON + SECOND).await;
    assert_eq!(a.store.cancel(id).await.unwrap(), Some(true));
    assert_eq!(state(&a.store, id).await, JobState::Cancelled);
    // Its attempt ended now, and for that.
    let (view, attempts) = a.store.job(id).await.unwrap().unwrap();
    assert!(view.last_error.unwrap().contains("cancelled"));
    assert_eq!(attempts.len(), 1);
    assert!(attempts[0].error.as_deref().unwrap().contains("cancelled"));
    assert_eq!(attempts[0].finished_at.unwrap().as_micros(), NOON + SECOND);
    assert!(!hear(&a, &claimed, &alive(10, Progress::default())).await, "it hears of it so");
    assert!(!hear(&a, &claimed, &ended(JobFate::Succeeded)).await);
    assert_eq!(state(&a.store, id).await, JobState::Cancelled);
    // Given another try it is as new.
    assert_eq!(a.store.retry(id).await.unwrap(), Some(true));
    let (view, _) = a.store.job(id).await.unwrap().unwrap();
    assert_eq!((view.state, view.awaits_since), (JobState::Ready, None));
    let claimed = a.claim_one(2).await;

    // One that is cancelled during its call, and accepted then, goes on no more.
    assert_eq!(a.store.cancel(id).await.unwrap(), Some(true));
    accept(&a, &claimed).await;
    let (view, attempts) = a.store.job(id).await.unwrap().unwrap();
    assert_eq!(view.state, JobState::Cancelled);
    assert!(view.last_error.unwrap().contains("cancelled"));
    let errors: Vec<_> = attempts.iter().filter_map(|attempt| attempt.error.as_deref()).collect();
    assert_eq!(errors.len(), 2);
    assert!(errors.iter().all(|error| error.contains("cancelled")), "{errors:?}");
    assert!(!hear(&a, &claimed, &alive(10, Progress::default())).await);
}

pub(crate) async fn nodes_share_a_secret<W: World>(w: W) {
    let (a, b) = (w.store(), w.store());
    let first = a.secret("callback", "one").await.unwrap();
    assert_eq!(first, "one");
    assert_eq!(b.secret("callback", "two").await.unwrap(), "one");
    assert_eq!(b.secret("another", "two").await.unwrap(), "two");
    // Of many who offer one at once all get the same.
    let mut offers = tokio::task::JoinSet::new();
    for number in 0..8 {
        let store = w.store();
        offers.spawn(async move { store.secret("raced", &format!("{number}")).await.unwrap() });
    }
    let kept = offers.join_all().await;
    assert!(kept.iter().all(|secret| *secret == kept[0]), "{kept:?}");
}
