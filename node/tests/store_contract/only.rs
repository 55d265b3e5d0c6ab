//! What only one of the databases can promise: what a statement costs, what survives a crash, and what
//! its errors mean.

use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};
use turnwise_engine::Fate;
use turnwise_node::job::{EndOutcome, JobFate, JobFilter, JobState, When};
use turnwise_node::store::postgres::PgStore;
use turnwise_node::store::sqlite::SqliteStore;
use turnwise_node::store::{AnyStore, CheckIn, Ended, Prune, Store, StoreError, Views};

use crate::member::{Member, end_of, enqueue, ids, job, job_at};
use crate::postgres::{Postgres, cluster};
use crate::sqlite::Sqlite;
use crate::world::{NOON, SECOND, World};

/// How long ended jobs are kept in what is tried here.
const HOUR: Duration = Duration::from_secs(3_600);

pub(crate) async fn an_idle_beat_is_one_statement(w: Postgres) {
    w.run("CREATE EXTENSION pg_stat_statements").await;
    let mut a = Member::register(&w, 1).await;
    a.beat().await;
    w.run("SELECT pg_stat_statements_reset()").await;
    for beat in 1..=20 {
        w.set_clock(NOON + beat * SECOND).await;
        assert!(a.beat().await.done);
    }
    let calls = |like: &str| {
        format!(
            "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements s
             JOIN pg_database d ON d.oid = s.dbid AND d.datname = current_database()
             WHERE query {like}"
        )
    };
    let beats = w.number(&calls("LIKE '%turnwise.turn_beat%'")).await;
    assert_eq!(beats, Some(20), "calls of the beat");
    let others = calls(
        "NOT LIKE '%turn_beat%' AND query NOT LIKE '%test_clock%' AND query NOT LIKE '%pg_stat%'",
    );
    assert_eq!(w.number(&others).await, Some(0), "any other statement");
}

pub(crate) async fn an_idle_beat_does_not_wait_for_the_disk(w: Postgres) {
    cluster().psql("ALTER SYSTEM SET wal_writer_delay = '10s'");
    cluster().psql("ALTER SYSTEM SET autovacuum = off");
    cluster().psql("SELECT pg_reload_conf()");
    let mut a = Member::register(&w, 1).await;
    let mut beat = 0;
    let mut syncs = Vec::new();
    for claims in [false, true] {
        // A session tells what it did when it ends.
        cluster().psql("CHECKPOINT");
        tokio::time::sleep(Duration::from_millis(200)).await;
        let before: i64 = cluster().psql("SELECT wal_sync FROM pg_stat_wal").parse().unwrap();
        a.turns = a.store.turns().await.unwrap().into();
        for _ in 0..50 {
            beat += 1;
            w.set_clock(NOON + beat * SECOND).await;
            if claims {
                w.run(&format!(
                    "INSERT INTO turnwise.jobs (url, scheduled_at) VALUES ('/ok', {})",
                    Postgres::instant(NOON)
                ))
                .await;
            }
            let reply = a.beat_for(beat, 1).await;
            assert!(reply.done);
            assert_eq!(reply.jobs.len(), usize::from(claims));
        }
        a.turns = a.store.turns().await.unwrap().into();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let after: i64 = cluster().psql("SELECT wal_sync FROM pg_stat_wal").parse().unwrap();
        syncs.push(after - before);
    }
    println!("    disk syncs in 50 idle beats: {}, in 50 that claim: {}", syncs[0], syncs[1]);
    assert!(syncs[0] <= 5, "{} disk syncs in 50 idle beats", syncs[0]);
    assert!(syncs[1] >= 50, "{} disk syncs in 50 beats that claim", syncs[1]);
}

pub(crate) async fn a_crash_of_the_server_loses_nothing_acknowledged(w: Postgres) {
    let mut a = Member::register(&w, 1).await;
    let first = a.read().await.identity;
    for _ in 0..3 {
        enqueue(&a.store, job()).await;
    }
    let beaten = a.beat_for(1, 1).await.jobs;
    let claimed = a.claim(2, 1).await;
    assert_eq!((beaten.len(), claimed.len()), (1, 1));
    assert_eq!(a.end(&beaten[0], JobFate::Succeeded).await, EndOutcome::Ended);
    cluster().kill9();
    let broken = a.store.look().await;
    assert!(matches!(broken, Err(StoreError::Unreachable { .. })), "{broken:?}");
    let begun = Instant::now();
    let away = a.store.look().await;
    assert!(matches!(away, Err(StoreError::Unreachable { fate: Fate::NotSent, .. })), "{away:?}");
    assert!(begun.elapsed() < Duration::from_secs(6));
    cluster().restart();
    w.reconnect().await;
    let report = Default::default();
    let back = a.store.recover(a.id, claimed[0].token, &report).await.unwrap();
    assert_eq!(ids(&back.jobs), ids(&claimed), "the claim outlived the crash");
    assert_eq!(a.end(&claimed[0], JobFate::Succeeded).await, EndOutcome::Ended);
    assert_eq!(a.end(&beaten[0], JobFate::Succeeded).await, EndOutcome::AlreadyEnded);
    let filter = JobFilter { limit: 9, ..JobFilter::default() };
    let left = a.store.jobs(&filter).await.unwrap();
    let states: Vec<_> = left.iter().map(|job| job.state).collect();
    assert_eq!(states.iter().filter(|state| **state == JobState::Succeeded).count(), 2);
    assert_eq!(states.iter().filter(|state| **state == JobState::Ready).count(), 1);
    a.turns = a.store.turns().await.unwrap().into();
    let second = a.read().await.identity;
    assert_ne!(first.started, second.started, "another start is another server");
    assert_eq!(first.timeline, second.timeline);
    let (_, row, _) = a.store.stamp().await.unwrap();
    let change = turnwise_engine::Change::takeover(&row, a.id, row.high);
    assert!(!a.store.change(&change, first).await.unwrap(), "on what was seen before the crash");
    assert!(a.store.change(&change, second).await.unwrap());
}

pub(crate) async fn a_row_that_an_app_holds_delays_nobody(w: Postgres) {
    let mut a = Member::register(&w, 1).await;
    let b = Member::register(&w, 2).await;
    let held = enqueue(&a.store, job_at(NOON - SECOND)).await;
    let running = enqueue(&a.store, job_at(NOON - 2 * SECOND)).await;
    let free = enqueue(&a.store, job()).await;
    a.beat().await;
    assert_eq!(b.claim_one(1).await.id, running);
    let mut app = PgConnection::connect(&w.url()).await.unwrap();
    app.execute("BEGIN").await.unwrap();
    sqlx::query(
        "UPDATE turnwise.jobs SET url = '/new' WHERE id IN ($1::text::uuid, $2::text::uuid)",
    )
    .bind(held.to_string())
    .bind(running.to_string())
    .execute(&mut app)
    .await
    .unwrap();
    // Neither the claim, nor the rescue, nor the step back waits for it.
    let beat = async {
        w.set_clock(NOON + SECOND).await;
        assert_eq!(ids(&a.beat_for(1, 5).await.jobs), [free]);
        for second in 2..=3 {
            w.set_clock(NOON + second * SECOND).await;
            a.beat().await;
        }
        w.set_clock(NOON - 60 * SECOND).await;
        a.beat().await;
        w.set_clock(NOON - 59 * SECOND).await;
        assert!(a.beat().await.done);
    };
    tokio::time::timeout(Duration::from_secs(5), beat).await.expect("a beat waited for an app");
    app.execute("ROLLBACK").await.unwrap();
}

pub(crate) async fn a_claim_reads_the_head_of_the_queue(w: Postgres) {
    w.run("CREATE EXTENSION pg_stat_statements").await;
    let mut a = Member::register(&w, 1).await;
    // The plans are made while there is nothing.
    a.beat_for(1, 10).await;
    assert!(a.claim(2, 10).await.is_empty());
    let now = Postgres::instant(NOON);
    w.run(&format!(
        "INSERT INTO turnwise.jobs (url, state, scheduled_at, created_at, queued_at, priority)
         SELECT '/ok', CASE n % 3 WHEN 0 THEN 'succeeded' ELSE 'queued' END,
            {now} + (n - 30000) * interval '10 ms' * (n % 3), {now}, {now}, n % 2
         FROM generate_series(1, 60000) n"
    ))
    .await;
    w.run("SELECT pg_stat_statements_reset()").await;
    w.set_clock(NOON + SECOND).await;
    assert_eq!(a.beat_for(3, 10).await.jobs.len(), 10);
    assert_eq!(a.claim(4, 10).await.len(), 10);
    for statement in ["turn_beat", "jobs_claim"] {
        let pages = w
            .number(&format!(
                "SELECT shared_blks_hit + shared_blks_read FROM pg_stat_statements s
                 JOIN pg_database d ON d.oid = s.dbid AND d.datname = current_database()
                 WHERE query LIKE '%turnwise.{statement}%'"
            ))
            .await
            .unwrap();
        println!("    pages that {statement} looked at: {pages}");
        assert!(pages < 600, "{statement} looked at {pages} pages");
    }
}

/// What people look at must cost the same however many jobs there are.
pub(crate) async fn looks_read_a_bounded_number_of_pages(w: Postgres) {
    w.run("CREATE EXTENSION pg_stat_statements").await;
    let store = w.store();
    let now = Postgres::instant(NOON);
    // The plans are made while there is nothing.
    let looks = async || {
        store.tally(100).await.unwrap();
        store.runs(turnwise_engine::ServerInstant::from_micros(NOON), 100).await.unwrap();
        store.beats(turnwise_engine::Slot(149_000), 100).await.unwrap();
        for state in [JobState::Dead, JobState::Cancelled, JobState::Running, JobState::Retrying] {
            let filter = JobFilter { state: Some(state), limit: 50, ..JobFilter::default() };
            assert!(store.page(&filter).await.unwrap().jobs.len() <= 1, "{state:?}");
        }
        for state in [None, Some(JobState::Succeeded)] {
            let many = JobFilter { state, limit: 50, ..JobFilter::default() };
            store.page(&many).await.unwrap();
        }
        let queue = Some("q0".to_owned());
        let of_queue =
            JobFilter { state: Some(JobState::Ready), queue, limit: 50, ..JobFilter::default() };
        store.page(&of_queue).await.unwrap();
    };
    looks().await;
    w.run(&format!(
        "INSERT INTO turnwise.jobs (url, state, scheduled_at, created_at, queued_at, priority, queue)
         SELECT '/ok', CASE n % 2 WHEN 0 THEN 'succeeded' ELSE 'queued' END,
            {now} + (n % 5 - 2) * interval '1 min', {now}, {now}, n % 2, 'q' || n % 3
         FROM generate_series(1, 150000) n;
         -- More lanes than are counted, those with hardly a job first.
         INSERT INTO turnwise.jobs (url, scheduled_at, queue)
         SELECT '/ok', {now}, 'a' || n FROM generate_series(1, 40) n;
         INSERT INTO turnwise.jobs (url, state, scheduled_at) VALUES ('/dead', 'dead', {now});
         INSERT INTO turnwise.attempts (job, node, token, attempt, started_at, finished_at)
         SELECT id, gen_random_uuid(), 1, 1, {now}, {now} FROM turnwise.jobs WHERE state = 'succeeded';
         INSERT INTO turnwise.beats SELECT n, gen_random_uuid(), {now}, 0 FROM generate_series(1, 150000) n;"
    ))
    .await;
    w.run("SELECT pg_stat_statements_reset()").await;
    looks().await;
    let worst = w
        .text(
            "SELECT (shared_blks_hit + shared_blks_read) / calls || ' pages: ' || left(query, 60)
             FROM pg_stat_statements s
             JOIN pg_database d ON d.oid = s.dbid AND d.datname = current_database()
             ORDER BY (shared_blks_hit + shared_blks_read) / calls DESC LIMIT 1",
        )
        .await
        .unwrap();
    println!("    the dearest look: {}", worst.replace('\n', " "));
    let pages: u64 = worst.split(' ').next().unwrap().parse().unwrap();
    // A thousand jobs with their attempts, or an index entry for each of ten thousand jobs with what can be seen of
    // them: but never the 150,000, nor the tens of thousands that wait in one queue.
    assert!(pages < 9_000, "{worst}");
}

/// Among many that are to stay: the next to go are found without a look at the others, and that there is none too.
pub(crate) async fn a_removal_reads_what_it_removes(w: Postgres) {
    w.run("CREATE EXTENSION pg_stat_statements").await;
    let store = w.store();
    let prune = |most| Prune::older_than(Ended::ALL.map(|ended| (ended, HOUR)), most);
    // The plan is made while there is nothing.
    assert_eq!(store.prune(&prune(100)).await.unwrap().jobs, 0);
    let now = Postgres::instant(NOON);
    w.run(&format!(
        "INSERT INTO turnwise.jobs (url, state, scheduled_at, finished_at)
         SELECT '/ok', (ARRAY['succeeded', 'dead', 'cancelled', 'queued'])[1 + n % 4], {now},
            CASE WHEN n % 4 < 3 THEN {now} - interval '1 day' * (n <= 1600)::integer END
         FROM generate_series(1, 60000) n;
         INSERT INTO turnwise.attempts (job, node, token, attempt, started_at, finished_at)
         SELECT id, gen_random_uuid(), 1, 1, {now}, {now} FROM turnwise.jobs"
    ))
    .await;
    for (most, removed) in [(100, 100), (1_000, 1_000), (1_000, 100), (1_000, 0)] {
        w.run("SELECT pg_stat_statements_reset()").await;
        assert_eq!(store.prune(&prune(most)).await.unwrap().jobs, removed);
        let pages = w
            .number(
                "SELECT shared_blks_hit + shared_blks_read FROM pg_stat_statements s
                 JOIN pg_database d ON d.oid = s.dbid AND d.datname = current_database()
                 WHERE query LIKE '%DELETE FROM turnwise.attempts%'",
            )
            .await
            .unwrap();
        println!("    pages looked at for {removed} jobs: {pages}");
        assert!(pages <= 60 + 15 * i64::from(removed), "{pages} pages for {removed} jobs");
    }
    assert_eq!(w.number("SELECT count(*) FROM turnwise.jobs").await, Some(58_800));
}

pub(crate) async fn a_removal_does_not_wait_for_the_disk(w: Postgres) {
    cluster().psql("ALTER SYSTEM SET wal_writer_delay = '10s'");
    cluster().psql("ALTER SYSTEM SET autovacuum = off");
    cluster().psql("SELECT pg_reload_conf()");
    let now = Postgres::instant(NOON);
    w.run(&format!(
        "INSERT INTO turnwise.jobs (url, state, finished_at)
         SELECT '/ok', 'succeeded', {now} FROM generate_series(1, 50)"
    ))
    .await;
    let store = w.store();
    w.set_clock(NOON + 7_200 * SECOND).await;
    store.look().await.unwrap();
    // A session tells what it did when it ends.
    cluster().psql("CHECKPOINT");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before: i64 = cluster().psql("SELECT wal_sync FROM pg_stat_wal").parse().unwrap();
    let apart = store.apart();
    for _ in 0..50 {
        let one = Prune::older_than([(Ended::Succeeded, HOUR)], 1);
        assert_eq!(apart.prune(&one).await.unwrap().jobs, 1);
    }
    drop(apart);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let after: i64 = cluster().psql("SELECT wal_sync FROM pg_stat_wal").parse().unwrap();
    println!("    disk syncs in 50 removals: {}", after - before);
    assert!(after - before <= 5, "{} disk syncs in 50 removals", after - before);
}

pub(crate) async fn times_without_end_are_far_away(w: Postgres) {
    let a = Member::register(&w, 1).await;
    w.run(
        "INSERT INTO turnwise.jobs (url, scheduled_at) VALUES
            ('/never', 'infinity'), ('/always', '-infinity'), ('/far', '294276-01-01')",
    )
    .await;
    let jobs = a.claim(1, 5).await;
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0].url, "/always");
    a.end(&jobs[0], JobFate::HandBack).await;
    let filter = JobFilter { limit: 9, ..JobFilter::default() };
    assert_eq!(a.store.jobs(&filter).await.unwrap().len(), 3);
    let ends = turnwise_engine::ServerInstant::from_nanos(i64::MAX);
    enqueue(&a.store, turnwise_node::job::NewJob { when: When::At(ends), ..job() }).await;
}

pub(crate) async fn errors_say_what_to_do(w: Postgres) {
    cluster().psql("CREATE ROLE app LOGIN PASSWORD 'right'");
    let port = cluster().port();
    let url = |user: &str, database: &str| format!("postgres://{user}@127.0.0.1:{port}/{database}");
    let look = |url: String| async move {
        let begun = Instant::now();
        let error = PgStore::open(&url, 1).unwrap().look().await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(6));
        assert!(!error.to_string().contains("wrong"), "{error}");
        println!("    {error}");
        error
    };
    let wrong = look(url("app:wrong", "postgres")).await;
    assert!(matches!(&wrong, StoreError::Refused { remedy, .. } if remedy.contains("password")));
    assert_eq!(wrong.fate(), Fate::NotSent);
    let none = look(url("postgres", "nowhere")).await;
    assert!(matches!(&none, StoreError::Refused { remedy, .. } if remedy.contains("Create")));
    let denied = look(w.url().replace("postgres@", "app:right@")).await;
    assert!(matches!(&denied, StoreError::Refused { .. }), "{denied:?}");
    w.run("GRANT USAGE ON SCHEMA turnwise TO app").await;
    let denied = look(w.url().replace("postgres@", "app:right@")).await;
    assert!(
        matches!(&denied, StoreError::Refused { remedy, .. } if remedy.contains("turnwise.grant_node('app')"))
    );
    assert!(!denied.is_transient());
    // Somebody altered the schema.
    let altered = Postgres::fresh().await;
    let mut a = Member::register(&altered, 1).await;
    altered.run("ALTER TABLE turnwise.beats ALTER COLUMN claimed TYPE json USING NULL").await;
    let error = a.try_beat().await.unwrap_err();
    println!("    {error}");
    assert!(matches!(&error, StoreError::Refused { remedy, .. } if remedy.contains("altered")));
    altered.run("DROP FUNCTION turnwise.node_renew").await;
    let error = a.store.renew(a.id, &Default::default()).await.unwrap_err();
    println!("    {error}");
    assert!(matches!(&error, StoreError::SchemaMissing { .. }) && !error.is_transient());
    let bare = Postgres::empty().await;
    let bare = look(bare.url()).await;
    assert!(matches!(&bare, StoreError::SchemaMissing { .. }), "{bare:?}");
    let closed = look("postgres://postgres@127.0.0.1:1/postgres".to_owned()).await;
    let StoreError::Unreachable { reason, fate, .. } = &closed else { panic!("{closed:?}") };
    assert!(reason.contains("refused") && *fate == Fate::NotSent);
    assert!(closed.is_transient());
    let nowhere = look("postgres://postgres@no-such-host.invalid/postgres".to_owned()).await;
    assert!(matches!(&nowhere, StoreError::Unreachable { .. }), "{nowhere:?}");

    for bad in ["mssql://u:secret@h/d", "postgres://u:secret@h:x/d", "turnwise.db", ""] {
        let error = AnyStore::connect(bad, 1).unwrap_err();
        println!("    {error}");
        assert!(matches!(&error, StoreError::BadUrl { .. }), "{error:?}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    // A session that is ended from outside may have done its work.
    let store = w.store();
    store.look().await.unwrap();
    w.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()")
        .await;
    let broken = store.look().await.unwrap_err();
    assert!(matches!(&broken, StoreError::Unreachable { fate: Fate::Unknown, .. }), "{broken:?}");
    store.look().await.unwrap();
}

pub(crate) async fn a_missing_privilege_is_named_by_its_grant(w: Postgres) {
    w.run("CREATE ROLE clerk LOGIN PASSWORD 'clerk'").await;
    w.run("REVOKE ALL ON ALL FUNCTIONS IN SCHEMA turnwise FROM PUBLIC").await;
    w.run("GRANT SELECT ON public.test_clock TO clerk").await;
    let url = w.url().replace("postgres@", "clerk:clerk@");
    let all_of_it = async || -> Result<(), StoreError> {
        let store = PgStore::open(&url, 1)?;
        store.check_schema().await?;
        store.agree_period(None).await?;
        let node = turnwise_node::store::Registration {
            id: crate::member::id(1),
            name: "n".into(),
            capacity: 1,
        };
        store.register(&node).await?;
        store.enqueue(&[job()]).await?;
        let claim = turnwise_engine::Claim { token: turnwise_engine::Token(1), limit: 1 };
        let (queues, report) = Default::default();
        let claimed = store.claim(node.id, claim, &queues, &report).await?;
        store.end(node.id, &[end_of(&claimed.jobs[0], JobFate::Succeeded)]).await?;
        store.stamp().await.map(|_| ())
    };
    // Do as it says, until it has nothing to say.
    let mut grants = Vec::new();
    while let Err(error) = all_of_it().await {
        println!("    {error}");
        let StoreError::Refused { remedy, .. } = error else { panic!("{error:?}") };
        let (_, grant) = remedy.split_once("run: ").expect("no grant is named");
        assert!(!grants.contains(&grant.to_owned()), "it does not help: {grant}");
        w.run(grant).await;
        grants.push(grant.to_owned());
    }
    assert_eq!(grants.len(), 3, "{grants:?}");
    // For the schema itself, where there is none yet.
    let empty = Postgres::empty().await;
    let url = empty.url().replace("postgres@", "clerk:clerk@");
    let error = PgStore::open(&url, 1).unwrap().migrate().await.unwrap_err();
    println!("    {error}");
    let said = error.to_string();
    let (_, grant) = said.split_once("run: ").expect("no grant is named");
    empty.run(grant).await;
    PgStore::open(&url, 1).unwrap().migrate().await.unwrap();
}

pub(crate) async fn another_encoding_is_refused(w: Postgres) {
    cluster().psql("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
    let store = PgStore::open(&cluster().url_of("latin"), 1).unwrap();
    for refused in [store.migrate().await.map(|_| ()), store.check_schema().await] {
        let error = refused.unwrap_err();
        println!("    {error}");
        assert!(matches!(&error, StoreError::Refused { .. }), "{error:?}");
        let said = error.to_string();
        assert!(said.contains("LATIN1") && said.contains("ENCODING 'UTF8'"), "{said}");
        assert!(!error.is_transient(), "waiting mends nothing");
        assert_eq!(turnwise_node::exit::of_store(&error), turnwise_node::exit::BAD_CONFIGURATION);
    }
    assert!(w.store().check_schema().await.is_ok());
}

/// Who has only looked holds no connection afterwards.
pub(crate) async fn one_who_rests_holds_no_connection(w: Postgres) {
    let store = AnyStore::connect(&w.url(), 1).unwrap();
    let held = "SELECT count(*) FROM pg_stat_activity
        WHERE application_name = 'turnwise' AND datname = current_database()";
    let before = w.number(held).await;
    store.look().await.unwrap();
    assert_eq!(w.number(held).await, before.map(|held| held + 1));
    store.rest();
    let until = Instant::now() + Duration::from_secs(30);
    while w.number(held).await != before {
        assert!(Instant::now() < until, "the server still has its connection");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    store.look().await.unwrap();
}

pub(crate) async fn few_connections_are_held(w: Postgres) {
    let store = PgStore::open(&w.url(), 2).unwrap();
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.look().await.unwrap() })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let sessions = w
        .number(
            "SELECT count(*) FROM pg_stat_activity
             WHERE application_name = 'turnwise' AND datname = current_database()",
        )
        .await;
    assert_eq!(sessions, Some(2));
}

pub(crate) async fn a_reconciliation_takes_a_new_connection(w: Postgres) {
    let store = PgStore::open(&w.url(), 2).unwrap();
    // Both of the store's connections have been in use.
    let _ = tokio::join!(store.look(), store.look());
    let sessions = "SELECT pid FROM pg_stat_activity
                    WHERE application_name = 'turnwise' AND datname = current_database()";
    let old = w.text(&format!("SELECT string_agg(pid::text, ', ') FROM ({sessions}) s")).await;
    let old = old.expect("the store has a connection");
    let (holds, last) = ([], turnwise_engine::Token(1));
    store.reconcile(crate::member::id(1), &holds, last, &Default::default()).await.unwrap();
    let left = format!("SELECT count(*) FROM ({sessions}) s WHERE pid IN ({old})");
    let begun = Instant::now();
    while w.number(&left).await != Some(0) {
        assert!(begun.elapsed() < Duration::from_secs(20), "connections of before are kept");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let now = w.number(&format!("SELECT count(*) FROM ({sessions}) s")).await;
    assert_eq!(now, Some(1), "the new one is kept");
}

pub(crate) async fn files_that_will_not_do_are_named(w: Sqlite) {
    let folder = w.folder();
    std::fs::write(folder.join("letter.db"), "Dear Sir or Madam, this is a letter.".repeat(50))
        .unwrap();
    let look = |url: String| async move {
        let error = SqliteStore::open(&url).unwrap().look().await.unwrap_err();
        println!("    {error}");
        error
    };
    let letter = look(format!("sqlite://{}/letter.db", folder.display())).await;
    assert!(matches!(&letter, StoreError::Refused { .. }), "{letter:?}");
    let nowhere = look(format!("sqlite://{}/no/such/folder/t.db", folder.display())).await;
    assert!(matches!(&nowhere, StoreError::Refused { .. }), "{nowhere:?}");
    let new = look(format!("sqlite://{}/new.db", folder.display())).await;
    assert!(matches!(&new, StoreError::SchemaMissing { .. }), "{new:?}");
    for bad in ["sqlite:", "sqlite://", "sqlite://x.db?mode=odd"] {
        assert!(matches!(SqliteStore::open(bad), Err(StoreError::BadUrl { .. })), "{bad}");
    }
}

pub(crate) async fn a_database_in_memory_is_shared_by_its_store(w: Sqlite) {
    drop(w);
    let store = SqliteStore::open("sqlite::memory:").unwrap();
    store.migrate().await.unwrap();
    store.agree_period(None).await.unwrap();
    let mut turns = [store.turns().await.unwrap(), store.clone().turns().await.unwrap()];
    let one = enqueue(&store, job()).await;
    let id = crate::member::id(1);
    let node = turnwise_node::store::Registration { id, name: "m".into(), capacity: 1 };
    store.register(&node).await.unwrap();
    let kind = turnwise_engine::TurnKind::Beat {
        claim: Some(turnwise_engine::Claim { token: turnwise_engine::Token(1), limit: 1 }),
    };
    let statement = turnwise_engine::TurnStatement { node: id, believed: None, kind };
    let report = Default::default();
    let request = turnwise_node::store::TurnRequest {
        statement: &statement,
        queues: &Default::default(),
        report,
    };
    let mut claimed = Vec::new();
    for turns in &mut turns {
        use turnwise_node::store::Turns;
        claimed.extend(turns.execute(&request, &crate::member::local_clock).await.unwrap().jobs);
    }
    assert_eq!(ids(&claimed), [one]);
    let other = SqliteStore::open("sqlite::memory:").unwrap();
    assert!(matches!(other.look().await, Err(StoreError::SchemaMissing { .. })), "one each");
}

pub(crate) async fn a_writer_is_waited_for_and_then_told(w: Sqlite) {
    let a = Member::register(&w, 1).await;
    w.run("BEGIN IMMEDIATE").await;
    let store = a.store.clone();
    let waiting = tokio::spawn(async move { enqueue(&store, job()).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    assert_eq!(a.store.turns().await.map(|_| ()).ok(), Some(()), "readers do not wait");
    w.run("COMMIT").await;
    waiting.await.unwrap();
    w.run("BEGIN IMMEDIATE").await;
    let error = a.store.enqueue(&[job()]).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    w.run("ROLLBACK").await;
    a.store.enqueue(&[job()]).await.unwrap();
    assert_eq!(a.renew().await, CheckIn::Alive);
}

pub(crate) async fn text_that_is_none_fails_nobody(w: Sqlite) {
    let a = Member::register(&w, 1).await;
    w.run(&format!(
        "INSERT INTO turnwise.jobs (url, method, queue, headers, body, scheduled_at) VALUES
            (CAST(x'2fff' AS TEXT), CAST(x'ff' AS TEXT), CAST(x'fe' AS TEXT), CAST(x'fd' AS TEXT),
             'text', {NOON}),
            ('/ok', 'POST', 'default', NULL, 7, {NOON})"
    ))
    .await;
    let jobs = a.claim(1, 5).await;
    assert_eq!(jobs.len(), 2);
    let bodies: Vec<_> = jobs.iter().map(|job| job.body.clone().unwrap()).collect();
    assert!(bodies.iter().any(|body| *body == "text") && bodies.iter().any(|body| *body == "7"));
    let ends: Vec<_> = jobs.iter().map(|job| end_of(job, JobFate::Dead)).collect();
    a.store.end(a.id, &ends).await.unwrap();
    let filter = JobFilter { limit: 9, ..JobFilter::default() };
    assert_eq!(a.store.jobs(&filter).await.unwrap().len(), 2);
}
