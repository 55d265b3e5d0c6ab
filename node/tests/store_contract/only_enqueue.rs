//! What PostgreSQL alone offers to apps: functions that enqueue, with complaints that say what to do.

use crate::member::Member;
use crate::postgres::Postgres;
use crate::world::{NOON, SECOND, World};

pub(crate) async fn a_function_enqueues_what_it_is_given(w: Postgres) {
    w.run("SELECT turnwise.enqueue('/plain')").await;
    w.run(
        "SELECT turnwise.enqueue('/all', '{\"to\": \"é\"}', queue => 'mail', method => 'PUT',
            scheduled_at => turnwise.instant(1800000000000000), priority => -7, max_attempts => 3,
            deadline => '1.5 s', headers => '{\"x-tenant\": \"42\"}',
            id => '00000000-0000-0000-0000-0000000000aa')",
    )
    .await;
    w.run("SELECT turnwise.enqueue('/bytes', 'null', '\\x00ff', queue => NULL)").await;
    // An app that does not know whether it has enqueued a job asks again.
    w.run("SELECT turnwise.enqueue('/again', id => '00000000-0000-0000-0000-0000000000aa')").await;
    let rows = "SELECT string_agg(format('%s %s %s %s %s %s %s %s %s', url, queue, method, priority,
        max_attempts, deadline_ms, coalesce(convert_from(body, 'LATIN1'), '-'),
        coalesce(headers::text, '-'), turnwise.micros(scheduled_at) - 1800000000000000), ';' ORDER BY url)
        FROM turnwise.jobs WHERE url <> '/bytes'";
    assert_eq!(
        w.text(rows).await.as_deref(),
        Some(
            "/all mail PUT -7 3 1500 {\"to\": \"Ã©\"} {\"x-tenant\": \"42\"} 0;\
             /plain default POST 0 20 600000 - - 0"
        )
    );
    let mut a = Member::register(&w, 1).await;
    w.set_clock(NOON + SECOND).await;
    let mut claimed = a.beat_for(1, 10).await.jobs;
    claimed.sort_by(|one, other| one.url.cmp(&other.url));
    let bodies: Vec<_> = claimed.iter().map(|job| job.body.as_deref()).collect();
    assert_eq!(bodies, [Some("{\"to\": \"é\"}".as_bytes()), Some(&[0, 255][..]), None]);
}

pub(crate) async fn a_function_enqueues_many(w: Postgres) {
    let ids = "SELECT string_agg(id::text, ' ') FROM turnwise.enqueue_many('[
        {\"url\": \"/b\", \"id\": \"00000000-0000-0000-0000-0000000000bb\", \"json\": [1, null],
         \"deadline\": \"2 minutes\", \"queue\": null},
        {\"url\": \"/a\", \"id\": \"00000000-0000-0000-0000-0000000000aa\", \"body\": \"text\",
         \"priority\": 3, \"scheduled_at\": \"2030-01-01T00:00:00Z\", \"headers\": {\"x\": \"y\"}}
        ]') id";
    // In the order given, and the same when it is said again.
    for _ in 0..2 {
        assert_eq!(
            w.text(ids).await.as_deref(),
            Some("00000000-0000-0000-0000-0000000000bb 00000000-0000-0000-0000-0000000000aa")
        );
    }
    let rows = "SELECT string_agg(format('%s %s %s %s %s %s', url, queue, priority, deadline_ms,
        convert_from(body, 'UTF8'), coalesce(headers::text, '-')), ';' ORDER BY url)
        FROM turnwise.jobs";
    assert_eq!(
        w.text(rows).await.as_deref(),
        Some("/a default 3 600000 text {\"x\": \"y\"};/b default 0 120000 [1, null] -")
    );
    assert_eq!(w.number("SELECT count(*) FROM turnwise.enqueue_many('[]')").await, Some(0));
    w.run(
        "SELECT turnwise.enqueue_many(
            (SELECT jsonb_agg(jsonb_build_object('url', '/many/' || i)) FROM generate_series(1, 10000) i))",
    )
    .await;
    assert_eq!(w.number("SELECT count(*) FROM turnwise.jobs").await, Some(10_002));
}

pub(crate) async fn a_function_says_what_is_wrong_and_enqueues_nothing(w: Postgres) {
    let many = "turnwise.enqueue_many: ";
    let table = [
        ("enqueue(NULL)", "url is null"),
        ("enqueue('')", "url is empty"),
        ("enqueue('/x', '1', 'a')", "both json and body are given"),
        ("enqueue('/x', body => decode(repeat('00', 262145), 'hex'))", "the body has 262145 bytes"),
        ("enqueue('/x', headers => '[1]')", "headers are of the type array"),
        ("enqueue('/x', headers => '{\"a\": 1}')", "the header \"a\" is of the type number"),
        ("enqueue('/x', deadline => '-1 s')", "the deadline is -00:00:01"),
        ("enqueue('/x', deadline => '25 hours')", "the deadline is 25:00:00"),
        ("enqueue('/x', queue => repeat('q', 129))", "queue_has_at_most_128_bytes"),
        ("enqueue('/x', priority => 101)", "jobs_priority_check"),
        ("enqueue('/x', quue => 'mail')", "does not exist"),
        ("enqueue_many(NULL)", "the argument is of the type null"),
        ("enqueue_many('{\"url\": \"/x\"}')", "the argument is of the type object"),
        ("enqueue_many('[{\"url\": \"/x\"}, 7]')", "job 2 of 2: it is of the type number"),
        (
            "enqueue_many('[{\"url\": \"/x\"}, {\"url\": \"/x\", \"quue\": 1}]')",
            "job 2 of 2: it has a field \"quue\"",
        ),
        ("enqueue_many('[{\"url\": {}}]')", "job 1 of 1: url is of the type object"),
        ("enqueue_many('[{\"queue\": \"mail\"}]')", "job 1 of 1: url is null"),
        (
            "enqueue_many('[{\"url\": \"/x\", \"json\": 1, \"body\": \"1\"}]')",
            "job 1 of 1: both json and body are given",
        ),
        (
            "enqueue_many(jsonb_build_array(jsonb_build_object('url', '/x', 'json', repeat('a', 262143))))",
            "job 1 of 1: the body has 262145 bytes",
        ),
        (
            "enqueue_many('[{\"url\": \"/x\"}, {\"url\": \"/x\", \"priority\": \"high\"}]')",
            "job 2 of 2: invalid input syntax",
        ),
        (
            "enqueue_many('[{\"url\": \"/x\"}, {\"url\": \"/x\", \"priority\": 101}]')",
            "job 2 of 2: new row for relation \"jobs\" violates",
        ),
    ];
    for (call, reason) in table {
        let said = w.refused(&format!("SELECT turnwise.{call}")).await.expect(call);
        println!("    {said}");
        assert!(said.contains(reason), "{call}: {said}");
        assert_eq!(call.starts_with("enqueue_many"), said.contains(many), "{call}: {said}");
    }
    assert_eq!(w.number("SELECT count(*) FROM turnwise.jobs").await, Some(0));
}

pub(crate) async fn a_function_knows_unique_keys(w: Postgres) {
    let enqueue = "SELECT turnwise.enqueue('/a', unique_key => 'k', unique_for => '1 hour')::text";
    let first = w.text(enqueue).await.unwrap();
    assert_eq!(w.text(enqueue).await.as_deref(), Some(first.as_str()));
    let many = "SELECT string_agg(id::text, ' ' ORDER BY place) FROM turnwise.enqueue_many('[
        {\"url\": \"/l\", \"unique_key\": \"l\", \"unique_for\": \"2 days\"}, {\"url\": \"/plain\"},
        {\"url\": \"/k\", \"unique_key\": \"k\"}, {\"url\": \"/again\", \"unique_key\": \"l\"}
        ]') WITH ORDINALITY m (id, place)";
    let ids = w.text(many).await.unwrap();
    let ids: Vec<&str> = ids.split(' ').collect();
    assert_eq!((ids.len(), ids[2]), (4, first.as_str()));
    assert!(ids[0] == ids[3] && ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
    let rows =
        "SELECT string_agg(format('%s %s', url, extract(epoch FROM unique_until - created_at)), ';'
        ORDER BY url) FROM turnwise.jobs";
    assert_eq!(w.text(rows).await.as_deref(), Some("/a 3600.000000;/l 172800.000000;/plain "));
    for (arguments, reason) in [
        ("unique_key => ''", "unique_key is empty"),
        ("unique_for => '1 hour'", "unique_for is given without unique_key"),
        ("unique_key => 'k', unique_for => '-1 s'", "unique_for is -00:00:01"),
        ("unique_key => 'k', unique_for => '367 days'", "unique_for is 367 days"),
        ("unique_key => repeat('k', 257)", "unique_key_has_1_to_256_bytes"),
    ] {
        let said = w.refused(&format!("SELECT turnwise.enqueue('/x', {arguments})")).await;
        assert!(said.as_deref().is_some_and(|said| said.contains(reason)), "{arguments}: {said:?}");
    }
    let said =
        w.refused("SELECT turnwise.enqueue_many('[{\"url\": \"/x\", \"unique_for\": \"1 s\"}]')");
    assert!(said.await.unwrap().contains("job 1 of 1: unique_for is given without unique_key"));
}

pub(crate) async fn functions_make_batches(w: Postgres) {
    let a = Member::register(&w, 1).await;
    // In one transaction, so that somebody who looks meanwhile sees none of it.
    let batch = w
        .text(
            "SELECT turnwise.batch('[{\"url\": \"/a\"}, {\"url\": \"/b\", \"queue\": \"other\"}]',
                on_success => '{\"url\": \"/well\"}', on_complete => '{\"url\": \"/over\", \"json\": 1}',
                name => 'import', sealed => false)::text",
        )
        .await
        .unwrap();
    let added =
        format!("SELECT count(*) FROM turnwise.batch_add('{batch}', '[{{\"url\": \"/c\"}}]')");
    assert_eq!(w.number(&added).await, Some(1));
    let plain = format!("INSERT INTO turnwise.jobs (url, batch) VALUES ('/d', '{batch}')");
    w.run(&plain).await;
    w.run(&format!("SELECT turnwise.enqueue_after('{batch}', '{{\"url\": \"/last\"}}', false)"))
        .await;
    w.run(&format!("SELECT turnwise.batch_seal('{batch}')")).await;
    let again = w.refused(&format!("SELECT turnwise.batch_seal('{batch}')")).await.unwrap();
    assert!(again.contains("cannot be sealed: it is sealed already"), "{again}");
    let urls = async |claimed: Vec<turnwise_node::job::ClaimedJob>| {
        let mut urls: Vec<String> = claimed.iter().map(|job| job.url.clone()).collect();
        for job in &claimed {
            a.end(job, turnwise_node::job::JobFate::Succeeded).await;
        }
        urls.sort_unstable();
        urls
    };
    assert_eq!(urls(a.claim(1, 9).await).await, ["/a", "/b", "/c", "/d"]);
    let id = batch.parse().unwrap();
    let settled = turnwise_node::store::Store::settle(&a.store, &[id]).await.unwrap();
    assert_eq!(settled.ended.len(), 1);
    assert_eq!(urls(a.claim(2, 9).await).await, ["/last", "/over", "/well"]);
    // What has ended takes no more, by whatever way, and says so.
    let nowhere = "00000000-0000-0000-0000-0000000000aa";
    for (statement, reason) in [
        (plain, format!("the batch {batch} has ended (succeeded)")),
        (added, format!("the batch {batch} has ended (succeeded)")),
        (format!("SELECT turnwise.batch_seal('{nowhere}')"), format!("no batch {nowhere}")),
        (
            format!("SELECT turnwise.enqueue_after('{nowhere}', '{{\"url\": \"/x\"}}')"),
            format!("no batch {nowhere}"),
        ),
        ("SELECT turnwise.batch('7')".to_owned(), "the argument is of the type number".to_owned()),
        (
            "SELECT turnwise.batch('[{\"url\": 7}]')".to_owned(),
            "job 1 of 1: url is of the type number".to_owned(),
        ),
    ] {
        let said = w.refused(&statement).await.unwrap();
        assert!(said.contains(&reason), "{statement}: {said}");
    }
    assert_eq!(w.number("SELECT count(*) FROM turnwise.batches").await, Some(1));
}
