//! Promises about what comes into the table: by a node, by plain SQL, within limits and beyond them.

use std::time::Duration;

use turnwise_node::job::{EndOutcome, JobFate, JobId, JobState, NewJob, When};
use turnwise_node::store::{Store, StoreError};

use crate::member::{Member, end_of, enqueue, job, job_at, only};
use crate::world::{NOON, SECOND, World};

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
    // The id tells the time of the row: the host's own clock may be set in between.
    let created = W::micros("created_at");
    let created = w.number(&format!("SELECT {created} FROM turnwise.jobs")).await.unwrap();
    let (seconds, nanos) = id.0.get_timestamp().unwrap().to_unix();
    let time = i64::try_from(seconds).unwrap() * 1_000_000 + i64::from(nanos / 1_000);
    assert!(time.abs_diff(created) < 1_000_000, "{id} is of {time}, its row of {created}");
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
    assert_eq!(claimed[0].body.as_deref().map(<[u8]>::len), Some(262_144));
}
