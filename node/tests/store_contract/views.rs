//! Promises about what people see and order: lists, retry, cancel, the schema, the period.

use turnwise_engine::{Change, Period, ServerInstant, Slot};
use turnwise_node::job::{AttemptView, JobFate, JobFilter, JobId, JobState, NewJob};
use turnwise_node::store::{ATTEMPTS_SHOWN, NodeReport, Store, StoreError, Views};

use crate::member::{Member, enqueue, job, job_at};
use crate::world::{NOON, SECOND, World};

/// One job in each state; their ids in the order of [`JobState::ALL`].
async fn one_in_each_state<W: World>(w: &W, a: &Member<W::Store>) -> Vec<JobId> {
    let scheduled = enqueue(&a.store, job_at(NOON + 5 * SECOND)).await;
    let mut ids = vec![scheduled];
    let mut ended = Vec::new();
    for (token, fate) in [
        (1, Some(JobFate::Succeeded)),
        (2, Some(JobFate::Retry(std::time::Duration::from_secs(30)))),
        (3, Some(JobFate::Dead)),
        (4, None),
    ] {
        ended.push(enqueue(&a.store, job()).await);
        let claimed = a.claim_one(token).await;
        if let Some(fate) = fate {
            a.end(&claimed, fate).await;
        }
    }
    let ready = enqueue(&a.store, job()).await;
    let cancelled = enqueue(&a.store, job()).await;
    assert_eq!(a.store.cancel(cancelled).await.unwrap(), Some(true));
    ids.extend([ready, ended[3], ended[0], ended[1], ended[2], cancelled]);
    w.set_clock(NOON + SECOND).await;
    ids
}

pub(crate) async fn jobs_are_listed_by_state_queue_and_page<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let ids = one_in_each_state(&w, &a).await;
    for (state, id) in JobState::ALL.into_iter().zip(&ids) {
        let filter = JobFilter { state: Some(state), limit: 10, ..JobFilter::default() };
        let found = a.store.jobs(&filter).await.unwrap();
        assert_eq!(found.iter().map(|job| job.id).collect::<Vec<_>>(), [*id], "{state:?}");
        assert_eq!(found[0].state, state);
        assert_eq!(a.store.job(*id).await.unwrap().unwrap().0, found[0]);
    }
    let all = a.store.jobs(&JobFilter { limit: 50, ..JobFilter::default() }).await.unwrap();
    assert_eq!(all.len(), 7);
    assert!(all.is_sorted_by(|newer, older| newer.id > older.id), "newest first");
    let mut pages = Vec::new();
    let mut filter = JobFilter { limit: 3, ..JobFilter::default() };
    loop {
        let page = a.store.jobs(&filter).await.unwrap();
        let Some(last) = page.last() else { break };
        filter.before = Some(last.id);
        pages.extend(page);
    }
    assert_eq!(pages, all);
    let mail = enqueue(&a.store, NewJob { queue: "mail".into(), ..job() }).await;
    let filter = JobFilter { queue: Some("mail".into()), limit: 9, ..JobFilter::default() };
    let found = a.store.jobs(&filter).await.unwrap();
    assert_eq!(found.iter().map(|job| job.id).collect::<Vec<_>>(), [mail]);
    assert_eq!(a.store.job(JobId::generate()).await.unwrap(), None);
}

pub(crate) async fn a_running_attempt_is_the_last<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let one = enqueue(&a.store, job()).await;
    let claimed = a.claim_one(1).await;
    a.end(&claimed, JobFate::Retry(std::time::Duration::ZERO)).await;
    w.set_clock(NOON + 7).await;
    a.claim_one(2).await;
    let (view, attempts) = a.store.job(one).await.unwrap().unwrap();
    assert_eq!((view.state, view.node, view.finished_at), (JobState::Running, Some(a.id), None));
    assert_eq!(attempts.len(), 2);
    assert_eq!((attempts[0].attempt, attempts[0].finished_at.is_some()), (1, true));
    assert_eq!((attempts[1].attempt, attempts[1].finished_at), (2, None));
    assert_eq!(attempts[1].started_at, ServerInstant::from_micros(NOON + 7));
}

pub(crate) async fn the_newest_attempts_are_shown_and_all_are_counted<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let id = enqueue(&a.store, job()).await;
    let other = enqueue(&a.store, job()).await;
    let (_, none) = a.store.job(id).await.unwrap().unwrap();
    assert_eq!((none.len(), none.in_all), (0, 0));
    let most = ATTEMPTS_SHOWN as usize;
    let (at, all) = (W::instant(NOON), most + 50);
    let row = |number| format!("('{id}', '{}', {number}, {number}, {at}, {at}, 500)", a.id);
    let rows: Vec<String> = (1..=all).map(row).collect();
    w.run(&format!(
        "INSERT INTO turnwise.attempts (job, node, token, attempt, started_at, finished_at, status) VALUES {}",
        rows.join(", ")
    ))
    .await;
    let (_, ended) = a.store.job(id).await.unwrap().unwrap();
    let numbers = |attempts: &[AttemptView]| {
        let numbers = attempts.iter().map(|attempt| attempt.attempt as usize);
        numbers.collect::<Vec<_>>()
    };
    assert_eq!(numbers(&ended), (51..=all).collect::<Vec<_>>());
    assert_eq!(ended.in_all, all as u64);
    // One that runs is the newest of all.
    w.run(&format!("UPDATE turnwise.jobs SET attempt = {all} WHERE id = '{id}'")).await;
    w.run(&format!("UPDATE turnwise.jobs SET state = 'succeeded' WHERE id = '{other}'")).await;
    assert_eq!(a.claim_one(1_000).await.id, id);
    let (_, running) = a.store.job(id).await.unwrap().unwrap();
    assert_eq!(numbers(&running), (52..=all + 1).collect::<Vec<_>>());
    assert_eq!((running.in_all, running[most - 1].finished_at), (all as u64 + 1, None));
}

pub(crate) async fn retry_makes_it_run_now<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let ids = one_in_each_state(&w, &a).await;
    let allowed = [true, true, false, false, true, true, true];
    for ((state, id), allowed) in JobState::ALL.into_iter().zip(&ids).zip(allowed) {
        assert_eq!(a.store.retry(*id).await.unwrap(), Some(allowed), "{state:?}");
        let after = a.store.job(*id).await.unwrap().unwrap().0;
        let expected = if allowed { JobState::Ready } else { state };
        assert_eq!(after.state, expected, "{state:?}");
        assert!(!allowed || after.finished_at.is_none());
    }
    assert_eq!(a.store.retry(JobId::generate()).await.unwrap(), None);
    let jobs = a.claim(50, 10).await;
    assert_eq!(jobs.len(), 5);

    // Out of attempts: one more.
    let last = enqueue(&a.store, NewJob { max_attempts: 1, ..job() }).await;
    let claimed = a.claim_one(60).await;
    a.end(&claimed, JobFate::Dead).await;
    assert_eq!(a.store.retry(last).await.unwrap(), Some(true));
    let claimed = a.claim_one(61).await;
    assert_eq!((claimed.id, claimed.attempt, claimed.max_attempts), (last, 2, 2));
}

pub(crate) async fn cancel_stops_what_has_not_ended<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let ids = one_in_each_state(&w, &a).await;
    let allowed = [true, true, true, false, true, false, false];
    for ((state, id), allowed) in JobState::ALL.into_iter().zip(&ids).zip(allowed) {
        assert_eq!(a.store.cancel(*id).await.unwrap(), Some(allowed), "{state:?}");
        let after = a.store.job(*id).await.unwrap().unwrap().0.state;
        let expected = match state {
            JobState::Running => JobState::Running,
            _ if allowed => JobState::Cancelled,
            other => other,
        };
        assert_eq!(after, expected, "{state:?}");
    }
    assert_eq!(a.store.cancel(JobId::generate()).await.unwrap(), None);
    assert!(a.claim(50, 10).await.is_empty());
}

pub(crate) async fn nodes_are_shown_in_turn_order<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let mut b = Member::register(&w, 2).await;
    let mut c = Member::register(&w, 3).await;
    let d = Member::register(&w, 4).await;
    for member in [&mut b, &mut a] {
        let seen = member.read().await;
        let join = Change::join(&seen.row, member.id, seen.now).unwrap();
        assert!(member.change(join).await.done);
    }
    d.store.deregister(d.id).await.unwrap();
    let report = NodeReport {
        offset_us: Some(-5),
        offset_error_us: Some(9),
        transit_us: Some(3),
        running: 2,
    };
    a.store.renew(a.id, &report).await.unwrap();
    let nodes = a.store.nodes().await.unwrap();
    let ring = &a.store.look().await.unwrap().row.roster.last().unwrap().ring.clone();
    let shown: Vec<_> =
        nodes.iter().map(|node| (node.id, node.rank, node.state.as_str())).collect();
    assert_eq!(
        shown,
        [
            (ring[0], Some(0), "live"),
            (ring[1], Some(1), "live"),
            (c.id, None, "joining"),
            (d.id, None, "left"),
        ]
    );
    let view = nodes.iter().find(|node| node.id == a.id).unwrap();
    assert_eq!(
        (view.offset_us, view.offset_error_us, view.transit_us),
        (Some(-5), Some(9), Some(3))
    );
    assert_eq!((view.running, view.capacity, view.name.as_str()), (2, 8, "node-1"));
    assert_eq!((view.epoch, view.last_check_in.as_str()), (2, "2027-01-15T08:00:00.000000Z"));

    // Silent: the lease is over and the turn has passed. Lost: it held jobs.
    enqueue(&c.store, job()).await;
    c.claim_one(1).await;
    c.beat().await;
    for second in 1..=30 {
        w.set_clock(NOON + second * SECOND).await;
        a.beat().await;
    }
    let nodes = a.store.nodes().await.unwrap();
    let state = |id| nodes.iter().find(|node| node.id == id).unwrap().state.as_str();
    assert_eq!((state(a.id), state(b.id), state(c.id)), ("live", "silent", "lost"));
}

pub(crate) async fn ten_migrate_at_once<W: World>(w: W) {
    let missing = w.store().check_schema().await;
    assert!(matches!(missing, Err(StoreError::SchemaMissing { .. })), "{missing:?}");
    let missing = w.store().look().await;
    assert!(matches!(missing, Err(StoreError::SchemaMissing { .. })), "{missing:?}");
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let store = w.store();
            tokio::spawn(async move {
                let applied = store.migrate().await.unwrap();
                store.check_schema().await.unwrap();
                applied.len()
            })
        })
        .collect();
    let mut applied = Vec::new();
    for task in tasks {
        applied.push(task.await.unwrap());
    }
    applied.sort_unstable();
    assert_eq!(applied[..9], [0; 9], "each step was applied once");
    assert!(applied[9] > 0);
    assert!(w.store().migrate().await.unwrap().is_empty());
}

pub(crate) async fn a_schema_for_newer_binaries_is_left_alone<W: World>(w: W) {
    let insert = "INSERT INTO turnwise.migrations (version, name, least_binary, applied_at)";
    let at = W::instant(NOON);
    w.run(&format!("{insert} VALUES (500, '0500_additive', '0.0.1', {at})")).await;
    w.store().check_schema().await.unwrap();
    w.store().migrate().await.unwrap();
    w.run(&format!("{insert} VALUES (501, '0501_breaking', '99.1.0', {at})")).await;
    for refused in [w.store().check_schema().await, w.store().migrate().await.map(|_| ())] {
        let Err(StoreError::SchemaTooNew { least, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(least, "99.1.0");
    }
}

pub(crate) async fn ten_agree_on_one_period<W: World>(w: W) {
    w.store().migrate().await.unwrap();
    assert_eq!(w.store().look().await.unwrap().row.cadence.period, Period::DEFAULT);
    let tasks: Vec<_> = (1..=10)
        .map(|number| {
            let store = w.store();
            tokio::spawn(async move {
                let wanted = Period::from_millis(100 * number).unwrap();
                (wanted, store.agree_period(Some(wanted)).await)
            })
        })
        .collect();
    let mut agreed = Vec::new();
    let mut refused = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            (wanted, Ok(period)) => {
                assert_eq!(period, wanted);
                agreed.push(period);
            }
            (_, Err(StoreError::OtherPeriod { has, .. })) => refused.push(has),
            (_, Err(other)) => panic!("{other}"),
        }
    }
    assert_eq!(agreed.len(), 1);
    assert_eq!(refused, [agreed[0]; 9]);
    assert_eq!(w.store().agree_period(None).await.unwrap(), agreed[0]);
}

pub(crate) async fn beats_are_shown_from_a_slot_on<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let mut b = Member::register(&w, 2).await;
    enqueue(&a.store, job()).await;
    let mut slots = Vec::new();
    for second in 0..6 {
        w.set_clock(NOON + second * SECOND + 400).await;
        let (beats, limit) = if second == 3 { (&mut b, 9) } else { (&mut a, 0) };
        slots.push(beats.beat_for(second + 1, limit).await.now);
    }
    let beats = a.store.beats(slots[1], 3).await.unwrap();
    assert_eq!(beats.iter().map(|beat| beat.slot).collect::<Vec<_>>(), slots[2..5]);
    assert_eq!((beats[0].node, beats[0].claimed), (a.id, 0));
    assert_eq!((beats[1].node, beats[1].claimed), (b.id, 1));
    assert_eq!(a.store.beats(Slot(0), 100).await.unwrap().len(), 6);
    assert!(a.store.beats(slots[5], 100).await.unwrap().is_empty());
}

pub(crate) async fn what_runs_and_what_ran_is_shown<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let long = NewJob { queue: "mail".into(), url: format!("/{}", "x".repeat(300)), ..job() };
    let first = enqueue(&a.store, long).await;
    let claimed = a.claim_one(1).await;
    w.set_clock(NOON + SECOND).await;
    a.end(&claimed, JobFate::Retry(std::time::Duration::ZERO)).await;
    w.set_clock(NOON + 2 * SECOND).await;
    a.claim_one(2).await;
    let runs = a.store.runs(ServerInstant::from_micros(NOON), 100).await.unwrap();
    assert_eq!(runs.len(), 2);
    let ended = runs.iter().find(|run| run.finished_at.is_some()).unwrap();
    assert_eq!((ended.job, ended.node, ended.attempt, ended.failed), (first, a.id, 1, true));
    assert_eq!(ended.started_at.as_micros(), NOON);
    assert_eq!(ended.finished_at.unwrap().as_micros(), NOON + SECOND);
    assert_eq!((ended.queue.as_str(), ended.url.len()), ("mail", 200));
    let running = runs.iter().find(|run| run.finished_at.is_none()).unwrap();
    assert_eq!((running.attempt, running.failed), (2, false));
    assert_eq!(running.started_at.as_micros(), NOON + 2 * SECOND);
    // What began before is not shown, what runs always is.
    let later = a.store.runs(ServerInstant::from_micros(NOON + 5 * SECOND), 100).await.unwrap();
    assert_eq!(later, std::slice::from_ref(running));
}

pub(crate) async fn counts_end_at_their_limit<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    one_in_each_state(&w, &a).await;
    for (queue, priority, seconds) in [("mail", 0, -9), ("mail", 5, -3), ("mail", -2, 60)] {
        let at = job_at(NOON + SECOND + seconds * SECOND);
        enqueue(&a.store, NewJob { queue: queue.into(), priority, ..at }).await;
    }
    let tally = a.store.tally(100).await.unwrap();
    let shown: Vec<_> = tally
        .queues
        .iter()
        .map(|q| (q.queue.as_str(), q.ready.jobs, q.later.jobs, q.oldest_us))
        .collect();
    assert_eq!(shown, [("default", 1, 2, Some(SECOND)), ("mail", 2, 1, Some(9 * SECOND))]);
    assert_eq!((tally.running.jobs, tally.dead.jobs, tally.cancelled.jobs), (1, 1, 1));
    assert!(tally.all_queues && !tally.dead.and_more);
    let tally = a.store.tally(1).await.unwrap();
    let mail = tally.queues.iter().find(|queue| queue.queue == "mail").unwrap();
    assert_eq!((mail.ready.to_string(), mail.later.to_string()), ("1+".into(), "1".into()));
    // More lanes than are counted.
    let at = W::instant(NOON);
    let lanes: Vec<String> =
        (0..50).map(|n| format!("('/ok', 'lane-{n}', {at}, {at}, {at})")).collect();
    w.run(&format!(
        "INSERT INTO turnwise.jobs (url, queue, scheduled_at, created_at, queued_at) VALUES {}",
        lanes.join(", ")
    ))
    .await;
    let tally = a.store.tally(100).await.unwrap();
    assert!(!tally.all_queues && tally.ready().and_more);
    assert!(tally.queues.len() >= 20);
}

pub(crate) async fn a_page_is_looked_for_among_so_many<W: World>(w: W) {
    let a = Member::register(&w, 1).await;
    let ids = one_in_each_state(&w, &a).await;
    let mut all = ids.clone();
    all.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(a.store.floor(None, 1).await.unwrap(), Some(all[0]));
    assert_eq!(a.store.floor(None, 7).await.unwrap(), Some(all[6]));
    assert_eq!(a.store.floor(None, 8).await.unwrap(), None);
    assert_eq!(a.store.floor(Some(all[2]), 2).await.unwrap(), Some(all[4]));
    // A filter keeps to the jobs from there on.
    let filter =
        JobFilter { from: Some(all[4]), before: Some(all[1]), limit: 9, ..JobFilter::default() };
    let found = a.store.jobs(&filter).await.unwrap();
    assert_eq!(found.iter().map(|job| job.id).collect::<Vec<_>>(), all[2..5]);
    for (state, id) in JobState::ALL.into_iter().zip(&ids) {
        let filter = JobFilter { state: Some(state), limit: 1, ..JobFilter::default() };
        let page = a.store.page(&filter).await.unwrap();
        assert_eq!(page.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [*id], "{state:?}");
        let rest = JobFilter { before: page.next, ..filter };
        let rest = a.store.page(&rest).await.unwrap();
        assert!(rest.jobs.is_empty() && rest.next.is_none() && rest.searched_all, "{state:?}");
    }
}
