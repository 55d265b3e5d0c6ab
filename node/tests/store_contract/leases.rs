//! Promises about leases: the jobs of the dead run again in time, those of the living never do, whatever the
//! clock does.

use std::time::Duration;

use turnwise_engine::{Token, TurnKind};
use turnwise_node::job::{EndOutcome, JobFate, JobState, NewJob};
use turnwise_node::store::{CheckIn, NodeReport, Queues, Registration, Store};

use crate::member::{Member, end_of, enqueue, id, ids, job, job_at, state};
use crate::world::{NOON, SECOND, World};

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

pub(crate) async fn a_clock_set_back_keeps_no_job_of_a_node_that_left<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let b = Member::register(&w, 2).await;
    let held = enqueue(&a.store, job()).await;
    a.beat().await;
    // It does not wait for its job, which runs again once its lease is over.
    b.claim_one(1).await;
    b.store.deregister(b.id).await.unwrap();
    let back = NOON - 3_600 * SECOND;
    w.set_clock(back).await;
    assert!(!a.beat().await.done, "the slot of before");
    for second in 1..=3 {
        w.set_clock(back + second * SECOND).await;
        let beat = a.beat_for(second, 5).await;
        assert!(beat.done && beat.jobs.is_empty());
    }
    w.set_clock(back + 4 * SECOND).await;
    assert_eq!(ids(&a.beat_for(4, 5).await.jobs), [held]);
}

pub(crate) async fn an_outage_after_a_clock_was_set_back_kills_nobody<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let mut b = Member::register(&w, 2).await;
    let mut dead = Member::register(&w, 3).await;
    let mut gone = Member::register(&w, 4).await;
    enqueue(&a.store, job()).await;
    let held = a.claim_one(1).await;
    let again = enqueue(&a.store, job()).await;
    assert_eq!(dead.claim_one(1).await.id, again);
    assert!(b.beat().await.done);
    // Three check in on the new clock before anybody beats on it. One leaves then.
    let back = NOON - 3_600 * SECOND;
    w.set_clock(back).await;
    for member in [&mut a, &mut dead, &mut gone] {
        assert!(!member.read().await.lost);
    }
    gone.store.deregister(gone.id).await.unwrap();
    // A minute without the database.
    w.set_clock(back + 60 * SECOND).await;
    let beat = b.beat_for(1, 5).await;
    assert!(beat.done && beat.jobs.is_empty(), "a job of a surviving node was rescued");
    assert_eq!(a.renew().await, CheckIn::Alive);
    assert_eq!(state(&a.store, held.id).await, JobState::Running);
    assert_eq!(a.end(&held, JobFate::Succeeded).await, EndOutcome::Ended);
    let lease =
        format!("SELECT {} FROM turnwise.nodes WHERE id = '{}'", W::micros("lease_until"), gone.id);
    assert_eq!(w.number(&lease).await, Some(back + 2_500_000), "one that left stays gone");
    // One that did die meanwhile is found a lease later.
    for second in 61..=62 {
        w.set_clock(back + second * SECOND).await;
        assert!(b.beat_for(second, 5).await.jobs.is_empty());
    }
    w.set_clock(back + 63 * SECOND).await;
    assert_eq!(ids(&b.beat_for(63, 5).await.jobs), [again]);
}

pub(crate) async fn an_outage_that_outlasts_a_step_back_kills_nobody<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let mut b = Member::register(&w, 2).await;
    enqueue(&a.store, job()).await;
    let held = a.claim_one(1).await;
    assert!(b.beat().await.done);
    w.set_clock(NOON - 10 * SECOND).await;
    assert!(!a.read().await.lost);
    // By the first beat the clock has come to the time of the last one again, and to more.
    w.set_clock(NOON + 5 * SECOND).await;
    let beat = b.beat_for(1, 5).await;
    assert!(beat.done && beat.jobs.is_empty(), "a job of a surviving node was rescued");
    assert_eq!(a.renew().await, CheckIn::Alive);
    assert_eq!(a.end(&held, JobFate::Succeeded).await, EndOutcome::Ended);
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
