//! Promises about jobs: claims, ends, recovery, rescue.

use std::collections::BTreeSet;
use std::time::Duration;

use turnwise_engine::{Token, TurnKind};
use turnwise_node::job::{
    ClaimedJob, EndOutcome, JobFate, JobFilter, JobId, JobState, NewJob, When,
};
use turnwise_node::store::{CheckIn, NodeReport, Queues, Registration, Store, StoreError};

use crate::member::{Dice, Member, end_of, enqueue, id, ids, job, job_at, only};
use crate::world::{NOON, SECOND, World};

async fn state<S: Store>(store: &S, id: JobId) -> JobState {
    store.job(id).await.unwrap().unwrap().0.state
}

pub(crate) async fn claims_take_what_is_due_in_order<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let later = enqueue(&a.store, job_at(NOON + 1)).await;
    let third = enqueue(&a.store, job_at(NOON - 10 * SECOND)).await;
    let second = enqueue(&a.store, NewJob { priority: 3, ..job_at(NOON) }).await;
    let first = enqueue(&a.store, job_at(NOON - 60 * SECOND)).await;
    let fourth = enqueue(&a.store, NewJob { priority: -5, ..job_at(NOON - 55 * SECOND) }).await;
    let fifth = enqueue(&a.store, job_at(NOON)).await;
    let mail = NewJob { queue: "mail".into(), priority: 100, ..job_at(NOON - SECOND) };
    let mail = enqueue(&a.store, mail).await;
    let twice = only(&["default", "nothing", "default"]);
    assert_eq!(ids(&a.claim_from(1, 2, &twice).await), [first, second]);
    let rest = a.claim_from(2, 10, &twice).await;
    assert_eq!(ids(&rest), [third, fourth, fifth], "each point counts as ten seconds of waiting");
    assert!(a.claim_from(3, 10, &twice).await.is_empty());
    assert!(a.claim_from(4, 10, &only(&[])).await.is_empty(), "no queue at all");
    let all = a.claim(5, 10).await;
    assert_eq!(ids(&all), [mail]);
    assert_eq!((all[0].attempt, all[0].token, all[0].queue.as_str()), (1, Token(5), "mail"));
    w.set_clock(NOON + 1).await;
    assert_eq!(ids(&a.claim(6, 10).await), [later]);
}

pub(crate) async fn claims_agree_with_a_plain_sort<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let mut dice = Dice(9);
    let mut model = Vec::new();
    for _ in 0..120 {
        let queue = format!("q{}", dice.between(1, 3));
        let priority = if dice.one_in(3) { dice.between(-100, 100) } else { dice.between(-1, 1) };
        let at = NOON + dice.between(-1_500, 300) * SECOND + dice.between(0, 999_999);
        let new = NewJob { queue: queue.clone(), priority: priority as i16, ..job_at(at) };
        model.push((at - priority * 10 * SECOND, at, queue, new.id));
        enqueue(&a.store, new).await;
    }
    model.sort();
    let mut token = 0;
    loop {
        token += 1;
        let limit = dice.between(1, 9) as usize;
        let queues = match dice.between(1, 3) {
            1 => only(&["q1", "q3"]),
            2 => Queues::AllBut(["q2".to_owned(), "q9".to_owned()].into()),
            _ => Queues::All,
        };
        let got = ids(&a.claim_from(token, limit as u32, &queues).await);
        let due = |queue: &String| queues == Queues::All || queue != "q2";
        let expected: Vec<_> = model
            .iter()
            .filter(|(_, at, queue, _)| *at <= NOON && due(queue))
            .map(|(.., id)| *id)
            .take(limit)
            .collect();
        assert_eq!(got, expected, "claim {token} of {limit} from {queues:?}");
        model.retain(|(.., id)| !got.contains(id));
        if got.is_empty() && queues == Queues::All {
            break;
        }
    }
    assert!(model.iter().all(|(_, at, ..)| *at > NOON));
}

pub(crate) async fn queues_that_are_left_out_wait<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let mut jobs = Vec::new();
    for queue in ["a", "b", "c", "a"] {
        let new = NewJob { queue: queue.into(), ..job_at(NOON + jobs.len() as i64 - 10) };
        jobs.push(enqueue(&a.store, new).await);
    }
    let but = |queues: &[&str]| Queues::AllBut(queues.iter().map(ToString::to_string).collect());
    let claim = Some(turnwise_engine::Claim { token: Token(1), limit: 9 });
    let kind = TurnKind::Beat { claim };
    let beat = a.send_for(None, kind, &but(&["a", "c", "none"])).await;
    assert_eq!(ids(&beat.jobs), [jobs[1]]);
    assert!(a.claim_from(2, 9, &but(&["a", "b", "c"])).await.is_empty());
    assert_eq!(ids(&a.claim_from(3, 9, &but(&["c"])).await), [jobs[0], jobs[3]]);
    assert_eq!(ids(&a.claim_from(4, 9, &but(&[])).await), [jobs[2]]);
}

pub(crate) async fn no_job_is_claimed_twice<W: World>(w: W) {
    let store = w.store();
    let jobs: Vec<_> = (0..200)
        .map(|number| NewJob {
            priority: (number % 3) as i16,
            queue: format!("q{}", number % 2),
            ..job()
        })
        .collect();
    store.enqueue(&jobs).await.unwrap();
    let mut tasks = Vec::new();
    for number in 1..=8 {
        let member = Member::register(&w, number).await;
        tasks.push(tokio::spawn(async move {
            let mut mine: Vec<ClaimedJob> = Vec::new();
            let mut dry = 0;
            for token in 1.. {
                let got = member.claim(token, 7).await;
                dry = if got.is_empty() { dry + 1 } else { 0 };
                if dry > 3 {
                    break;
                }
                mine.extend(got);
            }
            mine
        }));
    }
    let mut seen = BTreeSet::new();
    for task in tasks {
        for job in task.await.unwrap() {
            assert_eq!(job.attempt, 1);
            assert!(seen.insert(job.id), "{} was claimed twice", job.id);
        }
    }
    assert_eq!(seen.len(), 200);
}

pub(crate) async fn a_beat_claims_what_is_due_on_its_boundary<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let on_boundary = enqueue(&a.store, job_at(NOON)).await;
    let after = enqueue(&a.store, job_at(NOON + 1_000)).await;
    w.set_clock(NOON - 3_000).await;
    assert!(a.claim(1, 5).await.is_empty(), "outside the turn nothing is early");
    assert_eq!(ids(&a.beat_for(2, 5).await.jobs), [on_boundary], "3 ms early");
    w.set_clock(NOON + SECOND - 6_000).await;
    let next = enqueue(&a.store, job_at(NOON + SECOND)).await;
    assert_eq!(ids(&a.beat_for(3, 5).await.jobs), [after], "never more than 5 ms early");
    w.set_clock(NOON + 2 * SECOND + 400_000).await;
    let soon = enqueue(&a.store, job_at(NOON + 2 * SECOND + 401_000)).await;
    assert_eq!(ids(&a.beat_for(4, 5).await.jobs), [next], "after the boundary nothing is early");
    w.set_clock(NOON + 3 * SECOND).await;
    assert_eq!(ids(&a.beat_for(5, 5).await.jobs), [soon]);
}

pub(crate) async fn a_barred_claim_never_commits<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let b = Member::register(&w, 2).await;
    let taken = enqueue(&a.store, job()).await;
    let others = enqueue(&a.store, job_at(NOON + SECOND)).await;
    let report = NodeReport::default();
    // Its answer is lost on the way.
    assert_eq!(a.claim(7, 1).await.len(), 1);
    let back = a.store.recover(a.id, Token(7), &report).await.unwrap();
    assert_eq!((ids(&back.jobs), back.check_in), (vec![taken], CheckIn::Alive));
    assert_eq!(back.jobs[0].attempt, 1);
    let again = a.store.recover(a.id, Token(7), &report).await.unwrap();
    assert_eq!(ids(&again.jobs), [taken], "recovering again is harmless");
    assert!(a.store.recover(a.id, Token(3), &report).await.unwrap().jobs.is_empty());
    w.set_clock(NOON + SECOND).await;
    for barred in [3, 7] {
        assert!(a.claim(barred, 5).await.is_empty(), "token {barred} is barred");
    }
    let beat = a.beat_for(7, 5).await;
    assert!(beat.done && beat.jobs.is_empty(), "a beat with a barred token claims nothing");
    assert_eq!(ids(&b.claim(1, 5).await), [others], "a bar is for one node");
    let free = enqueue(&a.store, job()).await;
    assert_eq!(ids(&a.claim(8, 5).await), [free]);
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

pub(crate) async fn a_row_that_cannot_be_read_ends_dead_and_fails_nobody<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let dead = "SELECT count(*) FROM turnwise.jobs
                WHERE state = 'dead' AND finished_at IS NOT NULL AND last_error LIKE '%cannot be read%'";
    let attempts = "SELECT count(*) FROM turnwise.attempts WHERE error LIKE '%cannot be read%'";
    for way in 1..=3 {
        let bad = enqueue(&a.store, job()).await;
        let good = [enqueue(&a.store, job()).await, enqueue(&a.store, job()).await];
        let jobs = match way {
            1 => {
                w.spoil(bad).await;
                a.claim(way, 5).await
            }
            2 => {
                w.spoil(bad).await;
                a.beat_for(way, 5).await.jobs
            }
            _ => {
                // Spoilt under way.
                assert_eq!(a.claim(way, 5).await.len(), 3);
                w.spoil(bad).await;
                a.store.recover(a.id, Token(way), &NodeReport::default()).await.unwrap().jobs
            }
        };
        assert_eq!(jobs.iter().map(|job| job.id).collect::<BTreeSet<_>>(), good.into());
        assert_eq!(w.number(dead).await, Some(way), "dead, with the reason");
        assert_eq!(w.number(attempts).await, Some(way), "and an attempt");
        for job in &jobs {
            assert_eq!(a.end(job, JobFate::Succeeded).await, EndOutcome::Ended);
        }
        let filter = JobFilter { limit: 99, ..JobFilter::default() };
        let listed = a.store.jobs(&filter).await.unwrap().len() as i64;
        assert_eq!(listed, 2 * way, "a list shows what can be read");
    }
}

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

pub(crate) async fn a_dead_nodes_jobs_run_again<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let mut b = Member::register(&w, 2).await;
    let again = enqueue(&a.store, job()).await;
    let last = enqueue(&a.store, NewJob { max_attempts: 1, ..job() }).await;
    let cancelled = enqueue(&a.store, job()).await;
    a.beat().await;
    let held = a.claim(1, 3).await;
    assert_eq!(held.len(), 3);
    a.store.cancel(cancelled).await.unwrap();
    // The other node beats each slot; the lease ends after 2.5 s.
    for second in 1..=2 {
        w.set_clock(NOON + second * SECOND).await;
        let beat = b.beat_for(second, 5).await;
        assert!(beat.done && beat.jobs.is_empty(), "rescued too early, after {second} s");
    }
    w.set_clock(NOON + 3 * SECOND).await;
    let rescued = b.beat_for(3, 5).await;
    assert_eq!(ids(&rescued.jobs), [again], "the very beat that finds it claims it");
    assert_eq!(rescued.jobs[0].attempt, 2, "the lost attempt is spent");
    let (view, attempts) = a.store.job(last).await.unwrap().unwrap();
    assert_eq!((view.state, view.last_error.as_deref()), (JobState::Dead, Some("node lost")));
    assert_eq!(attempts[0].error.as_deref(), Some("node lost"));
    assert_eq!(attempts[0].finished_at.unwrap().as_micros(), NOON + 3 * SECOND);
    assert_eq!(state(&a.store, cancelled).await, JobState::Cancelled);
    let (_, attempts) = a.store.job(again).await.unwrap().unwrap();
    assert_eq!((attempts.len(), attempts[1].node), (2, b.id));

    // The node that was lost is told so, whatever it asks, and changes nothing.
    let report = NodeReport::default();
    assert_eq!(a.renew().await, CheckIn::Lost);
    let claim = turnwise_engine::Claim { token: Token(5), limit: 1 };
    let more = enqueue(&a.store, job()).await;
    let refused = a.store.claim(a.id, claim, &Queues::All, &report).await.unwrap();
    assert_eq!((refused.jobs.len(), refused.check_in), (0, CheckIn::Lost));
    let refused = a.store.recover(a.id, Token(1), &report).await.unwrap();
    assert_eq!((refused.jobs.len(), refused.check_in), (0, CheckIn::Lost));
    let ends: Vec<_> = held.iter().map(|job| end_of(job, JobFate::Succeeded)).collect();
    let (outcomes, check_in) = a.store.end(a.id, &ends).await.unwrap();
    assert_eq!((outcomes, check_in), (vec![EndOutcome::Stale; 3], CheckIn::Lost));
    assert_eq!(a.store.look().await.unwrap().stale_ends, 3);
    w.set_clock(NOON + 4 * SECOND).await;
    let beat = a.beat_for(6, 5).await;
    assert!(beat.done && beat.lost && beat.jobs.is_empty(), "a lost node's beat claims nothing");
    assert!(a.read().await.lost);
    let stranger = b.store.renew(id(77), &report).await.unwrap();
    assert_eq!(stranger, CheckIn::Lost, "a node that is not known");
    assert_eq!(state(&a.store, more).await, JobState::Ready);
    assert_eq!(state(&a.store, again).await, JobState::Running);

    // Not even under the same id again.
    let node = Registration { id: a.id, name: "node-1".into(), capacity: 1 };
    a.store.register(&node).await.unwrap();
    let end = end_of(&held[0], JobFate::Succeeded);
    assert_eq!(a.end_as(&end).await, EndOutcome::Stale, "an attempt that was given up for lost");
}

pub(crate) async fn a_job_of_an_unknown_node_is_rescued<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let b = Member::register(&w, 2).await;
    let orphan = enqueue(&a.store, job()).await;
    b.claim_one(1).await;
    w.run(&format!("DELETE FROM turnwise.nodes WHERE id = '{}'", b.id)).await;
    let beat = a.beat_for(1, 1).await;
    assert_eq!(ids(&beat.jobs), [orphan]);
    assert_eq!(beat.jobs[0].attempt, 2);
}

pub(crate) async fn a_node_that_renews_keeps_its_jobs<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let mut b = Member::register(&w, 2).await;
    enqueue(&a.store, job()).await;
    a.claim_one(1).await;
    for second in 1..20 {
        w.set_clock(NOON + second * SECOND).await;
        if second % 2 == 0 {
            assert_eq!(a.renew().await, CheckIn::Alive);
        }
        assert!(b.beat_for(second, 5).await.jobs.is_empty());
    }
    // An idle node may be silent for as long as it likes.
    let mut idle = Member::register(&w, 3).await;
    for second in 20..40 {
        w.set_clock(NOON + second * SECOND).await;
        a.renew().await;
        b.beat().await;
    }
    assert!(!idle.read().await.lost);
}

pub(crate) async fn an_outage_kills_nobody<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let b = Member::register(&w, 2).await;
    let held = enqueue(&a.store, job()).await;
    a.beat().await;
    b.claim_one(1).await;
    // A minute without the database.
    w.set_clock(NOON + 60 * SECOND).await;
    let beat = a.beat_for(1, 5).await;
    assert!(beat.done && beat.jobs.is_empty(), "a job of a surviving node was rescued");
    assert_eq!(b.renew().await, CheckIn::Alive);
    // One that did die meanwhile is found a lease later.
    for second in 61..=62 {
        w.set_clock(NOON + second * SECOND).await;
        assert!(a.beat_for(second, 5).await.jobs.is_empty());
    }
    w.set_clock(NOON + 63 * SECOND).await;
    assert_eq!(ids(&a.beat_for(63, 5).await.jobs), [held]);
}

pub(crate) async fn a_missed_slot_kills_nobody<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let b = Member::register(&w, 2).await;
    let held = enqueue(&a.store, job_at(NOON - 10 * SECOND)).await;
    // Its last check-in is as long ago as a living node lets it be: a third of the lease.
    w.set_clock(NOON - 833_000).await;
    assert_eq!(b.claim_one(1).await.id, held);
    w.set_clock(NOON).await;
    assert!(a.beat().await.done);
    // The database is away for nearly two slots.
    w.set_clock(NOON + 2 * SECOND).await;
    let beat = a.beat_for(1, 5).await;
    assert!(beat.done && beat.jobs.is_empty(), "a job of a surviving node was rescued");
    w.set_clock(NOON + 2 * SECOND + 500_000).await;
    assert_eq!(b.renew().await, CheckIn::Alive);
    w.set_clock(NOON + 3 * SECOND).await;
    assert!(a.beat_for(2, 5).await.jobs.is_empty());
    assert_eq!(state(&a.store, held).await, JobState::Running);
}

pub(crate) async fn a_dead_nodes_jobs_run_again_in_time_whichever_slot_is_missed<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let (mut begin, mut number, mut latest) = (NOON, 1, 0);
    for missed in 1..=5 {
        for tenth in 0..10 {
            (begin, number) = (begin + 20 * SECOND, number + 1);
            w.set_clock(begin).await;
            a.beat().await;
            // It checks in for the last time and is dead at once.
            let died = begin + tenth * SECOND / 10;
            w.set_clock(died).await;
            let b = Member::register(&w, number).await;
            let job = enqueue(&a.store, job_at(died)).await;
            assert_eq!(b.claim_one(1).await.id, job);
            let mut again = None;
            for slot in (1..9).filter(|slot| *slot != missed) {
                w.set_clock(begin + slot * SECOND).await;
                let jobs = a.beat_for(begin + slot, 5).await.jobs;
                if ids(&jobs) == [job] {
                    a.end(&jobs[0], JobFate::Succeeded).await;
                    again = again.or(Some(begin + slot * SECOND - died));
                }
            }
            let again = again.expect("its job never ran again");
            assert!(again >= 2_500_000, "after {again} us: before the lease was out");
            assert!(again <= 4_500_000, "after {again} us, slot {missed} missed");
            latest = latest.max(again);
        }
    }
    println!("    the latest: {latest} us after the death");
}

pub(crate) async fn a_clock_set_forward_kills_nobody<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let b = Member::register(&w, 2).await;
    enqueue(&a.store, job()).await;
    a.beat().await;
    b.claim_one(1).await;
    w.set_clock(NOON + 3_700 * SECOND).await;
    // A node that starts now sweeps nobody away.
    let c = Member::register(&w, 3).await;
    assert!(a.beat_for(1, 5).await.jobs.is_empty());
    assert_eq!(b.renew().await, CheckIn::Alive);
    assert_eq!(c.renew().await, CheckIn::Alive);
    assert_eq!(w.number("SELECT count(*) FROM turnwise.nodes").await, Some(3));
}

pub(crate) async fn a_clock_set_back_makes_nothing_wait<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let b = Member::register(&w, 2).await;
    let due = enqueue(&a.store, job()).await;
    let retried = enqueue(&a.store, job()).await;
    let planned = enqueue(&a.store, job_at(NOON + 60 * SECOND)).await;
    a.beat().await;
    let claimed = b.claim(1, 2).await;
    let of = |id| claimed.iter().find(|job| job.id == id).unwrap();
    b.end(of(due), JobFate::HandBack).await;
    b.end(of(retried), JobFate::Retry(Duration::from_secs(15))).await;
    let running = enqueue(&a.store, job_at(NOON - SECOND)).await;
    assert_eq!(b.claim_one(2).await.id, running);

    let back = NOON - 3_600 * SECOND;
    w.set_clock(back).await;
    let beat = a.send(None, TurnKind::Beat { claim: None }).await;
    assert_eq!(beat.now.0, NOON / SECOND, "the slot of before");
    assert!(!beat.done);
    w.set_clock(back + SECOND).await;
    let beat = a.beat_for(1, 5).await;
    assert!(beat.done);
    assert_eq!(ids(&beat.jobs), [due], "what was due is due");
    let (view, _) = a.store.job(retried).await.unwrap().unwrap();
    assert_eq!(view.state, JobState::Retrying);
    let wait = view.scheduled_at.as_micros() - (back + SECOND);
    assert_eq!(wait, 15 * SECOND, "a wait stays as long as it was");
    let (view, _) = a.store.job(planned).await.unwrap().unwrap();
    assert_eq!(view.scheduled_at.as_micros(), NOON + 60 * SECOND, "a time stays a time");
    let lease = W::micros("lease_until");
    let longest = w.number(&format!("SELECT max({lease}) FROM turnwise.nodes")).await;
    assert_eq!(longest, Some(back + SECOND + 2_500_000), "no lease of an hour");
    // And a node that dies now is found in time.
    for second in 2..=3 {
        w.set_clock(back + second * SECOND).await;
        assert!(a.beat_for(second, 5).await.jobs.is_empty());
    }
    w.set_clock(back + 4 * SECOND).await;
    assert_eq!(ids(&a.beat_for(9, 5).await.jobs), [running]);
}

pub(crate) async fn enqueueing_again_changes_nothing<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let new = NewJob {
        queue: "mail".into(),
        method: "PUT".into(),
        url: "/a?b=c".into(),
        headers: vec![("x-one".into(), "1".into()), ("x-two".into(), "zwei ü".into())],
        body: Some(vec![0, 255, 7]),
        when: When::In(Duration::from_millis(2_500)),
        priority: -7,
        max_attempts: 3,
        deadline: Duration::from_secs(9),
        ..job()
    };
    let other = NewJob { url: "/other".into(), ..new.clone() };
    a.store.enqueue(std::slice::from_ref(&new)).await.unwrap();
    a.store.enqueue(&[other.clone(), job(), other]).await.unwrap();
    a.store.enqueue(&[]).await.unwrap();
    assert_eq!(w.number("SELECT count(*) FROM turnwise.jobs").await, Some(2));
    let (view, attempts) = a.store.job(new.id).await.unwrap().unwrap();
    assert_eq!((view.url.as_str(), view.state), ("/a?b=c", JobState::Scheduled));
    assert_eq!(view.scheduled_at.as_micros(), NOON + 2_500_000);
    assert_eq!(view.created_at.as_micros(), NOON);
    assert!(attempts.is_empty());
    w.set_clock(NOON + 2_500_000).await;
    let claimed = a.claim_from(1, 5, &only(&["mail"])).await.remove(0);
    assert_eq!((claimed.method.as_str(), claimed.body.as_deref()), ("PUT", Some(&[0, 255, 7][..])));
    assert_eq!((claimed.max_attempts, claimed.deadline_ms, claimed.body_bytes), (3, 9_000, 3));
    let headers: serde_json::Value = serde_json::from_str(&claimed.headers.unwrap()).unwrap();
    assert_eq!(headers, serde_json::json!({"x-one": "1", "x-two": "zwei ü"}));
}

pub(crate) async fn all_jobs_of_an_enqueue_or_none<W: World>(w: W) {
    let store = w.store();
    let bad = NewJob { priority: 101, ..job() };
    assert!(store.enqueue(&[job(), bad, job()]).await.is_err());
    assert_eq!(w.number("SELECT count(*) FROM turnwise.jobs").await, Some(0));
}

pub(crate) async fn a_plain_insert_is_enough<W: World>(w: W) {
    w.let_clock_go().await;
    let a = Member::register(&w, 1).await;
    w.run("INSERT INTO turnwise.jobs (url) VALUES ('/jobs/x')").await;
    w.run("BEGIN; INSERT INTO turnwise.jobs (url) VALUES ('/never'); ROLLBACK").await;
    let id: JobId = w.text("SELECT id FROM turnwise.jobs").await.unwrap().parse().unwrap();
    assert_eq!(id.0.get_version_num(), 7);
    assert_eq!(id.0.get_variant(), uuid::Variant::RFC4122);
    let time = id.0.get_timestamp().unwrap().to_unix().0;
    let host = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(time.abs_diff(host.as_secs()) < 60);
    let claimed = a.claim_one(1).await;
    assert_eq!((claimed.id, claimed.url.as_str()), (id, "/jobs/x"));
    assert_eq!((claimed.method.as_str(), claimed.queue.as_str()), ("POST", "default"));
    assert_eq!((claimed.max_attempts, claimed.deadline_ms), (20, 600_000));
    assert_eq!((claimed.headers, claimed.body, claimed.body_bytes), (None, None, 0));
}

pub(crate) async fn a_poisoned_row_fails_nobody<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let at = W::instant(NOON);
    let huge = W::bytes(300_000);
    let most = W::bytes(262_144);
    w.run(&format!(
        "INSERT INTO turnwise.jobs (url, method, headers, body, queue, scheduled_at) VALUES
            ('', 'FRÖMMEL /', '[1, {{\"a\": null}}]', {huge}, 'Ümlaut \"queue\"', {at}),
            ('no url at all', '', '\"text\"', {most}, '', {at}),
            ('/ok', 'POST', NULL, NULL, 'default', {at})"
    ))
    .await;
    let jobs = a.claim(1, 10).await;
    assert_eq!(jobs.len(), 3);
    let of = |url: &str| jobs.iter().find(|job| job.url == url).unwrap();
    assert_eq!((of("").body_bytes, of("").body.is_none()), (300_000, true));
    assert_eq!(of("").method, "FRÖMMEL /");
    assert_eq!(of("no url at all").body.as_ref().unwrap().len(), 262_144);
    assert_eq!(of("/ok").headers, None);
    let ends: Vec<_> = jobs.iter().map(|job| end_of(job, JobFate::Dead)).collect();
    let (outcomes, _) = a.store.end(a.id, &ends).await.unwrap();
    assert_eq!(outcomes, [EndOutcome::Ended; 3]);
}

pub(crate) async fn columns_have_limits<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    // By plain SQL.
    let umlauts = |bytes: usize| "ü".repeat(bytes / 2);
    // A JSON object as PostgreSQL writes it.
    let headers = |bytes: usize| format!("{{\"x\": \"{}\"}}", "y".repeat(bytes - 9));
    let table = [
        ("queue", umlauts(128), umlauts(130)),
        ("method", umlauts(32), umlauts(34)),
        ("url", umlauts(8_192), umlauts(8_194)),
        ("headers", headers(32_768), headers(32_769)),
    ];
    for (column, longest, longer) in table {
        let insert = |value: String| {
            let (columns, values) = match column {
                "url" => ("url", format!("'{value}'")),
                _ => (column, format!("'/ok', '{value}'")),
            };
            let columns =
                if column == "url" { columns.to_owned() } else { format!("url, {columns}") };
            format!("INSERT INTO turnwise.jobs ({columns}) VALUES ({values})")
        };
        w.run(&insert(longest)).await;
        let said = w.refused(&insert(longer)).await.expect(column);
        assert!(said.contains(&format!("{column}_ha")), "{column}: {said}");
    }
    assert_eq!(w.number("SELECT count(*) FROM turnwise.jobs").await, Some(4));

    // By the store: all within, and each beyond, by name and before anything is sent.
    let value = "y".repeat(32_768 - 9);
    let most = NewJob {
        queue: "q".repeat(128),
        method: "M".repeat(32),
        url: "/".repeat(8_192),
        headers: vec![("x".into(), value.clone())],
        body: Some(vec![0; 262_144]),
        ..job_at(NOON - SECOND)
    };
    enqueue(&a.store, most.clone()).await;
    let beyond = [
        ("queue", NewJob { queue: "q".repeat(129), ..most.clone() }),
        ("method", NewJob { method: "M".repeat(33), ..most.clone() }),
        ("URL", NewJob { url: "/".repeat(8_193), ..most.clone() }),
        ("headers", NewJob { headers: vec![("x".into(), value + "y")], ..most.clone() }),
        ("body", NewJob { body: Some(vec![0; 262_145]), ..most.clone() }),
    ];
    for (name, new) in beyond {
        let new = NewJob { id: JobId::generate(), ..new };
        let id = new.id.to_string();
        let error = a.store.enqueue(&[job(), new]).await.unwrap_err();
        assert!(matches!(&error, StoreError::TooLong { what, .. } if *what == name), "{error}");
        assert!(error.to_string().contains(&id) && !error.is_transient(), "{error}");
        assert_eq!(error.fate(), turnwise_engine::Fate::NotSent);
    }
    assert_eq!(w.number("SELECT count(*) FROM turnwise.jobs").await, Some(5));
    let claimed = a.claim_from(1, 9, &only(&[&most.queue])).await;
    assert_eq!(claimed[0].body.as_ref().map(Vec::len), Some(262_144));
}

pub(crate) async fn gone_nodes_are_forgotten<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let b = Member::register(&w, 2).await;
    b.store.deregister(b.id).await.unwrap();
    for second in 0..5 {
        w.set_clock(NOON + second * SECOND).await;
        a.beat().await;
    }
    w.set_clock(NOON + 3_500 * SECOND).await;
    a.beat().await;
    Member::register(&w, 3).await;
    assert_eq!(w.number("SELECT count(*) FROM turnwise.nodes").await, Some(3), "not yet an hour");
    w.set_clock(NOON + 7_200 * SECOND).await;
    a.beat().await;
    let node = Registration { id: id(4), name: "node-4".into(), capacity: 1 };
    a.store.register(&node).await.unwrap();
    a.store.register(&node).await.unwrap();
    let left = "SELECT count(*) FROM turnwise.nodes WHERE state <> 'live'";
    assert_eq!(w.number(left).await, Some(0));
    assert_eq!(w.number("SELECT count(*) FROM turnwise.nodes").await, Some(3), "1, 3 and 4");
}
