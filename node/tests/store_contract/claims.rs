//! Promises about claims: what is due, in which order, once; and what a barred claim or a row that cannot be
//! read does to them.

use std::collections::BTreeSet;

use turnwise_engine::{Claim, Token, TurnKind};
use turnwise_node::job::{BODY_BYTES_MAX, ClaimedJob, EndOutcome, JobFate, JobFilter, NewJob};
use turnwise_node::store::{CheckIn, NodeReport, Queues, Store};

use crate::member::{Dice, Member, enqueue, ids, job, job_at, only};
use crate::world::{NOON, SECOND, World};

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
    let claim = Some(Claim { token: Token(1), limit: 9 });
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

pub(crate) async fn a_claim_is_bounded_in_bytes_and_says_so<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let large = || NewJob { body: Some(vec![b'x'; BODY_BYTES_MAX]), ..job_at(NOON - SECOND) };
    a.store.enqueue(&(0..45).map(|_| large()).collect::<Vec<_>>()).await.unwrap();
    let claim = async |token, limit| {
        let claim = Claim { token: Token(token), limit };
        let report = NodeReport::default();
        let claimed = a.store.claim(a.id, claim, &Queues::All, &report).await.unwrap();
        assert!(claimed.jobs.iter().all(|job| job.body.as_ref().unwrap().len() == BODY_BYTES_MAX));
        (claimed.jobs.len(), claimed.more)
    };
    // Eight MiB, a single one however little is asked for, and the rest.
    assert_eq!(claim(1, 100).await, (32, true));
    assert_eq!(claim(2, 1).await, (1, true));
    assert_eq!(claim(3, 7).await, (7, true));
    let beat = a.beat_for(4, 100).await;
    assert_eq!((beat.jobs.len(), beat.more), (4, true), "one MiB while the turn row is locked");
    assert_eq!(a.claim(5, 100).await.len(), 1);
    assert!(!a.beat_for(6, 100).await.more);
}
