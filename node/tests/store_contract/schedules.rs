//! Promises about schedules: set, listed and paused by people, and each of their times fired once.

use turnwise_engine::ServerInstant;
use turnwise_node::job::{JobId, JobState, NewJob};
use turnwise_node::schedule::Misfire;
use turnwise_node::store::{Fire, NewSchedule, ScheduleView, Schedules, Store};

use crate::member::{Member, ids, job, state};
use crate::world::{NOON, SECOND, World};

fn at(micros: i64) -> ServerInstant {
    ServerInstant::from_micros(micros)
}

fn every_ten_seconds(name: &str) -> NewSchedule {
    let job = NewJob {
        queue: "cron".to_owned(),
        method: "PUT".to_owned(),
        url: "/tick?x=ü".to_owned(),
        headers: vec![("x-one".to_owned(), "1".to_owned())],
        body: Some(vec![0, 255, 7]),
        priority: -3,
        max_attempts: 4,
        ..job()
    };
    let (cron, zone) = ("*/10 * * * * *".to_owned(), "Europe/Berlin".to_owned());
    let misfire = Misfire::All { limit: 7 };
    NewSchedule { name: name.to_owned(), cron, zone, misfire, job }
}

async fn only_one<S: Schedules>(store: &S) -> ScheduleView {
    let mut all = store.schedules().await.unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

/// What is to be fired, as a node finds it.
async fn found<S: Schedules>(store: &S, until: i64) -> Vec<Fire> {
    let (now, due) = store.due_schedules(at(until)).await.unwrap();
    due.iter().map(|schedule| schedule.fire(now, at(until))).collect()
}

pub(crate) async fn a_schedule_is_set_changed_and_removed<W: World>(w: W) {
    let store = w.store();
    assert_eq!(store.schedules().await.unwrap(), []);
    let mut new = every_ten_seconds("tick ü");
    assert!(store.put_schedule(&new, Some(NOON + 10 * SECOND)).await.unwrap());
    let view = only_one(&store).await;
    assert_eq!((view.name.as_str(), view.cron.as_str()), ("tick ü", "*/10 * * * * *"));
    assert_eq!((view.zone.as_str(), view.misfire), ("Europe/Berlin", new.misfire));
    assert_eq!((view.queue.as_str(), view.method.as_str()), ("cron", "PUT"));
    assert_eq!((view.url.as_str(), view.next_at), ("/tick?x=ü", Some(at(NOON + 10 * SECOND))));
    assert_eq!((view.last_at, view.paused_since, view.error), (None, None, None));
    new.cron = "@daily".to_owned();
    new.misfire = Misfire::Skip;
    assert!(!store.put_schedule(&new, None).await.unwrap(), "it was there before");
    let changed = only_one(&store).await;
    assert_eq!((changed.cron.as_str(), changed.next_at), ("@daily", None));
    assert_eq!(changed.misfire, Misfire::Skip);
    assert!(changed.revision > view.revision);
    assert!(store.remove_schedule("tick ü").await.unwrap());
    assert!(!store.remove_schedule("tick ü").await.unwrap());
    assert_eq!(store.schedules().await.unwrap(), []);
}

pub(crate) async fn each_time_of_a_schedule_is_fired_once<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let (store, other) = (a.store.clone(), w.store());
    assert_eq!(a.beat().await.next_schedule, None);
    store.put_schedule(&every_ten_seconds("tick"), Some(NOON + 10 * SECOND)).await.unwrap();
    w.set_clock(NOON + SECOND).await;
    assert_eq!(a.beat().await.next_schedule, Some(at(NOON + 10 * SECOND)));
    assert_eq!(found(&store, NOON + 9 * SECOND).await, []);
    // Two nodes find the same; one fires it.
    w.set_clock(NOON + 9 * SECOND).await;
    let fire = found(&store, NOON + 21 * SECOND).await.remove(0);
    let late = found(&other, NOON + 21 * SECOND).await.remove(0);
    let times: Vec<i64> = fire.times.iter().map(|(at, _)| (at - NOON) / SECOND).collect();
    assert_eq!((times, fire.next), (vec![10, 20], Some(NOON + 30 * SECOND)));
    assert!(store.fire(&fire).await.unwrap());
    assert!(!other.fire(&late).await.unwrap(), "somebody has fired it");
    assert_eq!(w.number("SELECT count(*) FROM turnwise.jobs").await, Some(2));
    let view = only_one(&store).await;
    assert_eq!(
        (view.next_at, view.last_at),
        (Some(at(NOON + 30 * SECOND)), Some(at(NOON + 20 * SECOND)))
    );
    // Its jobs wait for their time, and are what was said.
    let first = fire.times[0].1;
    assert_eq!(first, JobId::of_schedule("tick", NOON + 10 * SECOND));
    assert_eq!(state(&store, first).await, JobState::Scheduled);
    assert_eq!(a.beat_for(1, 9).await.jobs, []);
    w.set_clock(NOON + 10 * SECOND).await;
    let jobs = a.beat_for(2, 9).await.jobs;
    assert_eq!(ids(&jobs), [first]);
    assert_eq!((jobs[0].method.as_str(), jobs[0].url.as_str()), ("PUT", "/tick?x=ü"));
    assert_eq!((jobs[0].queue.as_str(), jobs[0].body.as_deref()), ("cron", Some(&[0, 255, 7][..])));
    assert_eq!((jobs[0].max_attempts, jobs[0].scheduled_at), (4, at(NOON + 10 * SECOND)));
    let headers: serde_json::Value =
        serde_json::from_str(jobs[0].headers.as_ref().unwrap()).unwrap();
    assert_eq!(headers, serde_json::json!({"x-one": "1"}));
    // Set anew, it comes to a time that has been fired, and does not fire it again.
    store.put_schedule(&every_ten_seconds("tick"), Some(NOON + 20 * SECOND)).await.unwrap();
    let again = found(&store, NOON + 31 * SECOND).await.remove(0);
    assert_eq!(again.times.len(), 2);
    assert!(store.fire(&again).await.unwrap());
    assert_eq!(w.number("SELECT count(*) FROM turnwise.jobs").await, Some(3));
}

pub(crate) async fn of_many_who_fire_at_once_one_does<W: World>(w: W) {
    let store = w.store();
    store.put_schedule(&every_ten_seconds("tick"), Some(NOON)).await.unwrap();
    let fire = found(&store, NOON + 40 * SECOND).await.remove(0);
    assert_eq!(fire.times.len(), 5);
    let tasks: Vec<_> = (0..6)
        .map(|_| {
            let (store, fire) = (w.store(), fire.clone());
            tokio::spawn(async move { store.fire(&fire).await.unwrap() })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        done += u32::from(task.await.unwrap());
    }
    assert_eq!(done, 1);
    assert_eq!(w.number("SELECT count(*) FROM turnwise.jobs").await, Some(5));
}

pub(crate) async fn a_paused_schedule_fires_when_a_person_says_so<W: World>(w: W) {
    let mut a = Member::register(&w, 1).await;
    let store = a.store.clone();
    store.put_schedule(&every_ten_seconds("tick"), Some(NOON)).await.unwrap();
    let fire = found(&store, NOON).await.remove(0);
    assert!(store.pause_schedule("tick", true, Some(NOON)).await.unwrap());
    assert!(!store.pause_schedule("tick", true, Some(NOON)).await.unwrap());
    assert!(!store.pause_schedule("none", true, None).await.unwrap());
    assert!(!store.fire(&fire).await.unwrap(), "it was paused meanwhile");
    assert_eq!(found(&store, NOON + 60 * SECOND).await, []);
    w.set_clock(NOON + SECOND).await;
    assert_eq!(a.beat().await.next_schedule, None);
    assert_eq!(only_one(&store).await.paused_since, Some(at(NOON)));
    let now = only_one(&store).await.fire_now(at(NOON + SECOND));
    assert!(store.fire(&now).await.unwrap());
    assert_eq!(state(&store, now.times[0].1).await, JobState::Ready);
    let view = only_one(&store).await;
    assert_eq!((view.paused_since, view.next_at), (Some(at(NOON)), Some(at(NOON))));
    assert!(store.pause_schedule("tick", false, Some(NOON + 70 * SECOND)).await.unwrap());
    assert!(!store.pause_schedule("tick", false, None).await.unwrap());
    w.set_clock(NOON + 2 * SECOND).await;
    assert_eq!(a.beat().await.next_schedule, Some(at(NOON + 70 * SECOND)));
    assert_eq!(w.number("SELECT count(*) FROM turnwise.jobs").await, Some(1));
}

pub(crate) async fn a_schedule_by_plain_sql_begins_with_its_next_time<W: World>(w: W) {
    let store = w.store();
    w.run("INSERT INTO turnwise.schedules (name, cron, url) VALUES ('good', '*/5 * * * * *', '/a'), ('bad', '99 * * * *', '/b')").await;
    w.run("INSERT INTO turnwise.schedules (name, cron, url, zone) VALUES ('lost', '@daily', '/c', 'Atlantis')").await;
    for (column, value) in
        [("name", "''"), ("misfire", "'never'"), ("misfire_limit", "0"), ("priority", "101")]
    {
        let insert = match column {
            "name" => format!(
                "INSERT INTO turnwise.schedules (name, cron, url) VALUES ({value}, '@daily', '/')"
            ),
            _ => format!(
                "INSERT INTO turnwise.schedules (name, cron, url, {column}) VALUES ('x', '@daily', '/', {value})"
            ),
        };
        assert!(w.refused(&insert).await.is_some(), "{insert}");
    }
    for fire in found(&store, NOON + SECOND).await {
        assert!(store.fire(&fire).await.unwrap());
    }
    let all = store.schedules().await.unwrap();
    let [bad, good, lost] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((good.next_at, good.error.as_deref()), (Some(at(NOON + 5 * SECOND)), None));
    assert!(bad.error.as_deref().unwrap().contains("99"), "{bad:?}");
    assert!(lost.error.as_deref().unwrap().contains("Atlantis"), "{lost:?}");
    let later = Some(at(NOON + 3_600 * SECOND));
    assert_eq!(
        (bad.next_at, lost.next_at),
        (later, later),
        "they are looked at again, but not soon"
    );
    assert_eq!(w.number("SELECT count(*) FROM turnwise.jobs").await, Some(0));
    let fire = found(&store, NOON + 5 * SECOND).await;
    assert_eq!(fire.len(), 1);
    assert!(store.fire(&fire[0]).await.unwrap());
    assert_eq!(w.number("SELECT count(*) FROM turnwise.jobs").await, Some(1));
    // Mended by plain SQL, it is looked at at once.
    w.run("UPDATE turnwise.schedules SET cron = '@hourly', revision = 0 WHERE name = 'bad'").await;
    let mut a = Member::register(&w, 1).await;
    assert!(a.beat().await.next_schedule.is_some_and(|next| next.as_micros() <= NOON));
    let fire = found(&store, NOON + SECOND).await;
    assert_eq!((fire.len(), fire[0].schedule.as_str()), (1, "bad"));
    assert!(store.fire(&fire[0]).await.unwrap());
    let mended = store.schedules().await.unwrap().remove(0);
    assert_eq!((mended.next_at, mended.error), (later, None));
}

pub(crate) async fn a_clock_that_was_set_back_keeps_no_schedule_waiting<W: World>(w: W) {
    let store = w.store();
    store.put_schedule(&every_ten_seconds("tick"), Some(NOON + 86_400 * SECOND)).await.unwrap();
    let (now, all) = store.due_schedules(at(i64::MAX / 1_000)).await.unwrap();
    let fire = all[0].realigned(now).unwrap();
    assert!(store.fire(&fire).await.unwrap());
    let view = only_one(&store).await;
    assert_eq!((view.next_at, view.last_at), (Some(at(NOON + 10 * SECOND)), None));
    assert_eq!(w.number("SELECT count(*) FROM turnwise.jobs").await, Some(0));
}

pub(crate) async fn a_schedule_that_somebody_holds_keeps_no_other_waiting<W: World>(w: W) {
    let store = w.store();
    for name in ["a", "b"] {
        store.put_schedule(&every_ten_seconds(name), Some(NOON)).await.unwrap();
    }
    let fires = found(&store, NOON).await;
    let other = w.store();
    let first = fires[0].clone();
    let both = tokio::join!(other.fire(&first), store.fire(&fires[1]));
    assert_eq!((both.0.unwrap(), both.1.unwrap()), (true, true));
    assert_eq!(w.number("SELECT count(*) FROM turnwise.jobs").await, Some(2));
}
