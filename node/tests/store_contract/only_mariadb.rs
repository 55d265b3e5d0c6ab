//! What only MariaDB can promise, or is to be asked of it alone: what a beat costs, what holds nobody up, and what its
//! errors mean.

use std::time::{Duration, Instant};

use sqlx::Executor;
use turnwise_engine::{Fate, TurnKind, TurnStatement};
use turnwise_node::job::{EndOutcome, JobFate, JobFilter, JobState};
use turnwise_node::store::mysql::MySqlStore;
use turnwise_node::store::{
    AnyStore, Ended, NodeReport, Prune, Queues, Store, StoreError, TurnRequest, Turns, Views,
};

use crate::member::{Member, enqueue, ids, job, job_at, local_clock};
use crate::mysql::{MySql, connect, server};
use crate::world::{NOON, SECOND, World};
use turnwise_servers::mariadb::MariaDb;

/// How many requests nodes have sent to this database since the log was emptied: one for all that goes out in one
/// packet.
fn requests(w: &MySql) -> usize {
    let sql = format!(
        "SELECT count(*) FROM mysql.general_log g
         JOIN information_schema.PROCESSLIST p ON p.ID = g.thread_id
         WHERE g.command_type IN ('Query', 'Execute') AND p.DB = '{}'
            AND g.argument NOT LIKE '%test_clock SET%'",
        w.name()
    );
    server().sql(&sql).parse().unwrap()
}

/// How many statements the server has carried out, as it counts them itself.
fn statements() -> usize {
    let sql = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS
               WHERE VARIABLE_NAME = 'QUESTIONS'";
    server().sql(sql).parse().unwrap()
}

pub(crate) async fn an_idle_beat_is_three_statements_and_one_that_claims_four(w: MySql) {
    let mut a = Member::register(&w, 1).await;
    let later = format!(
        "INSERT INTO turnwise.jobs (url, scheduled_at, queue) VALUES ('/later', {}, 'later')",
        MySql::instant(NOON + 3_600 * SECOND)
    );
    w.run(&later).await;
    for _ in 0..20 {
        enqueue(&a.store, job_at(NOON + 21 * SECOND)).await;
    }
    // A lane that is new to a node costs it a statement more, once.
    assert!(a.beat_for(1, 1).await.jobs.is_empty());
    // What it costs to set the clock and to ask.
    let before = statements();
    for _ in 0..20 {
        w.set_clock(NOON).await;
    }
    let own = statements() - before;
    server().sql("SET GLOBAL log_output = 'TABLE'; SET GLOBAL general_log = ON");
    for (claims, expected, packets) in [(false, 3, 2), (true, 4, 3)] {
        server().sql("TRUNCATE mysql.general_log");
        let before = statements();
        for beat in 1..=20 {
            let beat = beat + 20 * i64::from(claims);
            w.set_clock(NOON + beat * SECOND).await;
            let reply = a.beat_for(beat, 1).await;
            assert!(reply.done);
            assert_eq!(reply.jobs.len(), usize::from(claims));
        }
        let counted = statements() - before - own;
        let sent = requests(&w);
        println!("    20 beats (claiming: {claims}): {counted} statements in {sent} round trips");
        assert_eq!((counted, sent), (20 * expected, 20 * packets), "claiming: {claims}");
    }
    server().sql("SET GLOBAL general_log = OFF");
}

pub(crate) async fn a_claim_reads_the_head_of_the_queue(w: MySql) {
    let mut a = Member::register(&w, 1).await;
    a.beat_for(1, 10).await;
    let now = MySql::instant(NOON);
    w.run(&format!(
        "INSERT INTO turnwise.jobs (url, state, scheduled_at, created_at, queued_at, priority)
         SELECT '/ok', CASE n % 3 WHEN 0 THEN 'succeeded' ELSE 'queued' END,
            {now} + INTERVAL ((n - 30000) * 10000 * (n % 3)) MICROSECOND, {now}, {now}, n % 2
         FROM (SELECT CAST(seq AS SIGNED) AS n FROM seq_1_to_60000) s"
    ))
    .await;
    let reads = || {
        let sql = "SELECT SUM(VARIABLE_VALUE) FROM information_schema.GLOBAL_STATUS
                   WHERE VARIABLE_NAME LIKE 'HANDLER\\_READ%'";
        server().sql(sql).parse::<f64>().unwrap() as i64
    };
    w.set_clock(NOON + SECOND).await;
    // To ask is to read, too.
    let (first, before) = (reads(), reads());
    let own = before - first;
    assert_eq!(a.beat_for(3, 10).await.jobs.len(), 10);
    let beaten = reads();
    assert_eq!(a.claim(4, 10).await.len(), 10);
    let claimed = reads();
    let (beat, claim) = (beaten - before - own, claimed - beaten - own);
    println!("    rows that a beat read: {beat}, a claim: {claim}");
    for rows in [beat, claim] {
        assert!((10..2_500).contains(&rows), "{rows} rows were read for 10 jobs");
    }
}

/// Jobs that were given up long ago are found without looking through what came after them.
pub(crate) async fn jobs_that_were_given_up_are_found_at_once(w: MySql) {
    let store = w.store();
    let now = MySql::instant(NOON);
    w.run(&format!(
        "INSERT INTO turnwise.jobs (url, state, scheduled_at, created_at, queued_at, node)
         SELECT '/ok', CASE WHEN n <= 5000 THEN 'dead' WHEN n <= 10000 THEN 'cancelled' ELSE 'succeeded' END,
            {now}, {now}, {now}, UUID()
         FROM (SELECT CAST(seq AS SIGNED) AS n FROM seq_1_to_60000) s"
    ))
    .await;
    let reads = || {
        let sql = "SELECT SUM(VARIABLE_VALUE) FROM information_schema.GLOBAL_STATUS
                   WHERE VARIABLE_NAME LIKE 'HANDLER\\_READ%'";
        server().sql(sql).parse::<f64>().unwrap() as i64
    };
    for state in [JobState::Dead, JobState::Cancelled] {
        let filter = JobFilter { state: Some(state), limit: 50, ..JobFilter::default() };
        // To ask is to read, too.
        let (first, before) = (reads(), reads());
        let found = store.page(&filter).await.unwrap().jobs;
        let rows = reads() - before - (before - first);
        println!("    rows that a page of {state:?} read: {rows}");
        assert_eq!(found.len(), 50);
        assert!(found.iter().all(|job| job.state == state));
        assert!((50..500).contains(&rows), "{rows} rows were read for 50 jobs that are {state:?}");
    }
}

/// Among many that are to stay: the next to go are found without a look at the others, and that there is none too.
pub(crate) async fn a_removal_reads_what_it_removes(w: MySql) {
    let store = w.store();
    let hour = Duration::from_secs(3_600);
    let prune = |most| Prune::older_than(Ended::ALL.map(|ended| (ended, hour)), most);
    let now = MySql::instant(NOON);
    w.run(&format!(
        "INSERT INTO turnwise.jobs (url, state, scheduled_at, finished_at)
         SELECT '/ok', ELT(1 + n % 4, 'succeeded', 'dead', 'cancelled', 'queued'), {now},
            IF(n % 4 < 3, {now} - INTERVAL (n <= 1600) DAY, NULL)
         FROM (SELECT CAST(seq AS SIGNED) AS n FROM seq_1_to_60000) s;
         INSERT INTO turnwise.attempts (job, node, token, attempt, started_at, finished_at)
         SELECT id, id, 1, 1, {now}, {now} FROM turnwise.jobs"
    ))
    .await;
    let reads = || {
        let sql = "SELECT SUM(VARIABLE_VALUE) FROM information_schema.GLOBAL_STATUS
                   WHERE VARIABLE_NAME LIKE 'HANDLER\\_READ%'";
        server().sql(sql).parse::<f64>().unwrap() as i64
    };
    for (most, removed) in [(100, 100), (1_000, 1_000), (1_000, 100), (1_000, 0)] {
        // To ask is to read, too.
        let (first, before) = (reads(), reads());
        assert_eq!(store.prune(&prune(most)).await.unwrap().jobs, removed);
        let rows = reads() - before - (before - first);
        println!("    rows read for {removed} jobs: {rows}");
        // Up to three times as many are looked at as may go at once, each state by itself.
        let looked = 3 * i64::from(most) + 5 * i64::from(removed);
        assert!(rows <= 60 + looked, "{rows} rows for {removed} jobs");
    }
    assert_eq!(w.number("SELECT count(*) FROM turnwise.jobs").await, Some(58_800));
}

pub(crate) async fn a_row_that_an_app_holds_delays_nobody(w: MySql) {
    let mut a = Member::register(&w, 1).await;
    let b = Member::register(&w, 2).await;
    let held = enqueue(&a.store, job_at(NOON - SECOND)).await;
    let running = enqueue(&a.store, job_at(NOON - 2 * SECOND)).await;
    let free = enqueue(&a.store, job()).await;
    a.beat().await;
    assert_eq!(b.claim_one(1).await.id, running);
    let mut app = connect(w.name()).await;
    let hold =
        format!("BEGIN; UPDATE turnwise_jobs SET url = '/new' WHERE id IN ('{held}', '{running}')");
    app.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(hold))).await.unwrap();
    // Neither the claim, nor the rescue, nor the step back waits for it.
    let beat = async {
        w.set_clock(NOON + SECOND).await;
        assert_eq!(ids(&a.beat_for(1, 1).await.jobs), [free], "even if it may take one alone");
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
    app.execute(sqlx::raw_sql("ROLLBACK")).await.unwrap();
}

pub(crate) async fn a_beat_that_is_given_up_frees_the_turn_row(w: MySql) {
    w.let_clock_go().await;
    let a = Member::register(&w, 1).await;
    let mut b = Member::register(&w, 2).await;
    let kind = TurnKind::Beat { claim: None };
    let statement = TurnStatement { node: a.id, believed: None, kind };
    let (queues, report) = (&Queues::All, NodeReport::default());
    let request = TurnRequest { statement: &statement, queues, report };
    // Each is given up one step later than the one before: some of them while they hold the lock. On a busy machine an
    // answer may be there before it is waited for: then once more.
    let mut most = 0;
    for _ in 0..5 {
        let mut given_up = 0;
        for steps in 0..12 {
            let mut turns = a.store.turns().await.unwrap();
            let beat = turns.execute(&request, &local_clock);
            given_up += i32::from(up_to(steps, beat).await.is_none());
            drop(turns);
            b.read().await;
        }
        most = most.max(given_up);
    }
    // Its first packet, and its second, are waited for.
    assert!(most > 2, "{most} beats of a row were given up");
}

/// What a future comes to, unless it is woken more often than that.
async fn up_to<F: Future>(wakes: u32, future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    let mut left = wakes;
    std::future::poll_fn(|cx| {
        if left == 0 {
            return std::task::Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

pub(crate) async fn nodes_at_work_at_once_get_no_error(w: MySql) {
    w.run("UPDATE turnwise.turn SET period_ms = 50").await;
    w.let_clock_go().await;
    let mut tasks = Vec::new();
    for number in 1..=6 {
        let mut member = Member::register(&w, number).await;
        tasks.push(tokio::spawn(async move {
            let mut done = 0;
            for round in 1..=30 {
                let jobs: Vec<_> = (0..5).map(|_| job()).collect();
                member.store.enqueue(&jobs).await.unwrap();
                let mut mine = member.beat_for(2 * round, 3).await.jobs;
                mine.extend(member.claim(2 * round + 1, 6).await);
                for (place, job) in mine.iter().enumerate() {
                    let fate = [JobFate::Succeeded, JobFate::Retry(Duration::ZERO)][place % 2];
                    assert_eq!(member.end(job, fate).await, EndOutcome::Ended);
                    done += 1;
                }
            }
            done
        }));
    }
    let mut done = 0;
    for task in tasks {
        done += task.await.unwrap();
    }
    assert!(done > 500, "{done} attempts ended");
    let ended = "SELECT (SELECT count(*) FROM turnwise.attempts)
        + (SELECT count(*) FROM turnwise.jobs WHERE state = 'succeeded')";
    assert_eq!(w.number(ended).await, Some(done));
}

pub(crate) async fn times_are_utc_whoever_writes_them(w: MySql) {
    w.let_clock_go().await;
    let a = Member::register(&w, 1).await;
    // An app that lives elsewhere, whose sql_mode lets anything pass.
    w.run("SET time_zone = '-11:00', sql_mode = ''").await;
    w.run("INSERT INTO turnwise.jobs (url) VALUES ('/now')").await;
    w.run(
        "INSERT INTO turnwise.jobs (url, scheduled_at)
         VALUES ('/soon', UTC_TIMESTAMP(6) + INTERVAL 10 MINUTE)",
    )
    .await;
    let jobs = a.claim(1, 5).await;
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0].url, "/now");
    let off = jobs[0].scheduled_at.as_micros() - crate::world::system_nanos() / 1_000;
    assert!(off.abs() < 60 * SECOND, "{off} us off the host's clock");
    // What is too long is refused all the same, not cut off.
    for (column, bytes) in [("queue", 129), ("queue", 9_000), ("method", 300), ("headers", 70_000)]
    {
        let insert = format!(
            "INSERT INTO turnwise.jobs (url, {column}) VALUES ('/x', REPEAT('q', {bytes}))"
        );
        let said = w.refused(&insert).await.expect(column);
        assert!(said.contains(&format!("{column}_ha")), "{column}: {said}");
    }
}

pub(crate) async fn errors_say_what_to_do(w: MySql) {
    server().sql("CREATE USER app@'127.0.0.1' IDENTIFIED BY 'right'");
    let port = server().port();
    let url = |user: &str, database: &str| format!("mysql://{user}@127.0.0.1:{port}/{database}");
    let look = |url: String| async move {
        let begun = Instant::now();
        let error = MySqlStore::open(&url, 1).unwrap().look().await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(6));
        assert!(!error.to_string().contains("wrong"), "{error}");
        println!("    {error}");
        error
    };
    let wrong = look(url("app:wrong", w.name())).await;
    assert!(matches!(&wrong, StoreError::Refused { remedy, .. } if remedy.contains("password")));
    assert_eq!(wrong.fate(), Fate::NotSent);
    assert_eq!(turnwise_node::exit::of_store(&wrong), turnwise_node::exit::BAD_CONFIGURATION);
    let none = look(url("root", "nowhere")).await;
    assert!(matches!(&none, StoreError::Refused { remedy, .. } if remedy.contains("Create")));
    let denied = look(url("app:right", w.name())).await;
    assert!(matches!(&denied, StoreError::Refused { remedy, .. } if remedy.contains("GRANT")));
    server().sql(&format!("GRANT SELECT ON {}.turnwise_turn TO app@'127.0.0.1'", w.name()));
    let reader = MySqlStore::open(&url("app:right", w.name()), 1).unwrap();
    let denied = reader.deregister(crate::member::id(1)).await.unwrap_err();
    println!("    {denied}");
    let StoreError::Refused { remedy, .. } = &denied else { panic!("{denied:?}") };
    let (_, grant) = remedy.split_once("run: ").expect("no grant is named");
    assert!(!denied.is_transient());
    server().sql(grant);
    reader.deregister(crate::member::id(1)).await.unwrap();
    // For the schema itself, where there is none yet.
    let empty = MySql::empty().await;
    let clerk = MySqlStore::open(&url("app:right", empty.name()), 1).unwrap();
    let denied = clerk.migrate().await.unwrap_err();
    println!("    {denied}");
    let denied = denied.to_string();
    let (_, grant) = denied.split_once("run: ").expect("no grant is named");
    server().sql(grant);
    clerk.migrate().await.unwrap();
    // Somebody altered the schema.
    let altered = MySql::fresh().await;
    let mut a = Member::register(&altered, 1).await;
    altered.run("ALTER TABLE turnwise.beats DROP COLUMN claimed").await;
    let error = a.try_beat().await.unwrap_err();
    println!("    {error}");
    assert!(matches!(&error, StoreError::SchemaMissing { .. }) && !error.is_transient());
    let bare = look(MySql::empty().await.url()).await;
    assert!(matches!(&bare, StoreError::SchemaMissing { .. }), "{bare:?}");
    let closed = look("mysql://root@127.0.0.1:1/d".to_owned()).await;
    let StoreError::Unreachable { reason, fate, .. } = &closed else { panic!("{closed:?}") };
    assert!(reason.contains("refused") && *fate == Fate::NotSent);
    assert!(closed.is_transient());
    // A replica, say.
    let store = w.store();
    store.look().await.unwrap();
    server().sql("SET GLOBAL read_only = ON");
    server().sql(&format!("GRANT ALL ON {}.* TO app@'127.0.0.1'", w.name()));
    let app = MySqlStore::open(&url("app:right", w.name()), 1).unwrap();
    let error = app.agree_period(None).await.map(|_| ()).and(app.enqueue(&[job()]).await);
    server().sql("SET GLOBAL read_only = OFF");
    let error = error.unwrap_err();
    println!("    {error}");
    assert!(error.is_transient(), "{error:?}");
    // A session that is ended from outside may have done its work.
    let sessions = format!(
        "SELECT GROUP_CONCAT(CONCAT('KILL ', ID) SEPARATOR '; ') FROM information_schema.PROCESSLIST
         WHERE DB = '{}' AND ID <> {}",
        w.name(),
        w.number("SELECT CONNECTION_ID()").await.unwrap()
    );
    server().sql(&server().sql(&sessions));
    let broken = store.look().await.unwrap_err();
    println!("    {broken}");
    assert!(matches!(&broken, StoreError::Unreachable { fate: Fate::Unknown, .. }), "{broken:?}");
    store.look().await.unwrap();
}

pub(crate) async fn a_server_that_cannot_tell_its_stamps_apart_is_refused(w: MySql) {
    drop(w);
    let server = MariaDb::start_with(&["--sysdate-is-now"]);
    server.sql("CREATE DATABASE jobs");
    let store = MySqlStore::open(&server.url_of("jobs"), 1).unwrap();
    let error = store.migrate().await.unwrap_err();
    println!("    {error}");
    assert!(error.to_string().contains("--sysdate-is-now"), "{error}");
    assert_eq!(turnwise_node::exit::of_store(&error), turnwise_node::exit::BAD_CONFIGURATION);
}

pub(crate) async fn the_server_that_takes_writes_is_found_and_found_again(w: MySql) {
    drop(w);
    let servers = [MariaDb::start(), MariaDb::start_with(&["--read-only=ON"])];
    let urls = servers.each_ref().map(|server| {
        // Root may write whatever read_only says.
        server.sql(
            "CREATE DATABASE jobs; CREATE USER app@'127.0.0.1' IDENTIFIED BY 'geheim';
             GRANT ALL ON jobs.* TO app@'127.0.0.1'",
        );
        server.url_of("jobs").replace("root@", "app:geheim@")
    });
    let jobs = |server: usize| servers[server].sql("SELECT count(*) FROM jobs.turnwise_jobs");
    let set_read_only = |server: usize, to: &str| {
        servers[server].sql(&format!("SET GLOBAL read_only = {to}"));
    };
    let alone = AnyStore::connect(&urls[1], 1).unwrap().migrate().await.unwrap_err();
    println!("    {alone}");
    let said = alone.to_string();
    assert!(alone.is_transient() && said.contains("read_only is on") && !said.contains("geheim"));
    // The schema is not replicated here: each gets its own.
    let (one, both) = (&urls[..1], &urls[..]);
    AnyStore::connect_all(one, 1).unwrap().migrate().await.unwrap();
    let store = AnyStore::connect_all(both, 1).unwrap();
    store.agree_period(None).await.unwrap();
    store.enqueue(&[job()]).await.unwrap();
    // The other one takes over.
    set_read_only(0, "ON");
    set_read_only(1, "OFF");
    AnyStore::connect(&urls[1], 1).unwrap().migrate().await.unwrap();
    let failed = store.enqueue(&[job()]).await.unwrap_err();
    assert!(failed.is_transient(), "{failed:?}");
    store.enqueue(&[job(), job()]).await.unwrap();
    assert_eq!((jobs(0), jobs(1)), ("1".to_owned(), "2".to_owned()));
    // Two that take writes cannot be told apart: whoever uses one stays there, nobody else begins.
    set_read_only(0, "OFF");
    let refused = AnyStore::connect_all(both, 1).unwrap().check_schema().await.unwrap_err();
    println!("    {refused}");
    assert!(!refused.is_transient() && refused.to_string().contains("side by side"));
    store.turns().await.unwrap();
    store.enqueue(&[job()]).await.unwrap();
    assert_eq!((jobs(0), jobs(1)), ("1".to_owned(), "3".to_owned()));
}

pub(crate) async fn few_connections_are_held(w: MySql) {
    let store = w.store_with(2);
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.look().await.unwrap() })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(sessions(&w).await.len(), 2);
}

/// The sessions with this database, but for the test's own.
async fn sessions(w: &MySql) -> Vec<i64> {
    let sql = format!(
        "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = '{}' AND ID <> {}",
        w.name(),
        w.number("SELECT CONNECTION_ID()").await.unwrap()
    );
    server().sql(&sql).lines().map(|id| id.parse().unwrap()).collect()
}

pub(crate) async fn a_reconciliation_takes_a_new_connection(w: MySql) {
    let store = w.store_with(2);
    // Both of the store's connections have been in use.
    let _ = tokio::join!(store.look(), store.look());
    let old = sessions(&w).await;
    assert!(!old.is_empty());
    let (holds, last) = ([], turnwise_engine::Token(1));
    store.reconcile(crate::member::id(1), &holds, last, &Default::default()).await.unwrap();
    let begun = Instant::now();
    while sessions(&w).await.iter().any(|id| old.contains(id)) {
        assert!(begun.elapsed() < Duration::from_secs(20), "connections of before are kept");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(sessions(&w).await.len(), 1, "the new one is kept");
}

pub(crate) async fn a_crash_of_the_server_loses_nothing_acknowledged(w: MySql) {
    let mut a = Member::register(&w, 1).await;
    let first = a.read().await.identity;
    let again = a.store.turns().await.unwrap();
    assert_eq!(
        Member { turns: again.into(), id: a.id, store: w.store() }.read().await.identity,
        first,
        "every session says the same of one server"
    );
    for _ in 0..3 {
        enqueue(&a.store, job()).await;
    }
    let beaten = a.beat_for(1, 1).await.jobs;
    let claimed = a.claim(2, 1).await;
    assert_eq!((beaten.len(), claimed.len()), (1, 1));
    assert_eq!(a.end(&beaten[0], JobFate::Succeeded).await, EndOutcome::Ended);
    server().kill9();
    let broken = a.store.look().await;
    assert!(matches!(broken, Err(StoreError::Unreachable { .. })), "{broken:?}");
    let begun = Instant::now();
    let away = a.store.look().await;
    assert!(matches!(away, Err(StoreError::Unreachable { fate: Fate::NotSent, .. })), "{away:?}");
    assert!(begun.elapsed() < Duration::from_secs(6));
    // The second in which a server starts is what tells it from the one before.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    server().restart();
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

/// While a session holds an old view, the entries of claimed jobs stay in the index.
pub(crate) async fn under_an_old_view_claims_are_quick_and_late_jobs_are_found(w: MySql) {
    let a = Member::register(&w, 1).await;
    let insert = async |count: i64, from: i64| {
        let (noon, from) = (MySql::instant(NOON), MySql::instant(from));
        w.run(&format!(
            "INSERT INTO turnwise.jobs (url, scheduled_at, created_at, queued_at)
             SELECT '/ok', {from} + INTERVAL seq MICROSECOND, {noon}, {noon} FROM seq_1_to_{count}"
        ))
        .await;
    };
    let mut token = 0;
    let mut claims = async |count: usize| {
        let mut took = Vec::new();
        for _ in 0..count {
            token += 1;
            let begun = Instant::now();
            assert_eq!(a.claim(token, 10).await.len(), 10);
            took.push(begun.elapsed());
        }
        took.sort_unstable();
        took[count / 2]
    };
    insert(400, NOON - 200 * SECOND).await;
    claims(10).await;
    let fresh = claims(30).await;
    let mut app = connect(w.name()).await;
    app.execute(sqlx::raw_sql(
        "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ;
         START TRANSACTION WITH CONSISTENT SNAPSHOT; SELECT count(*) FROM turnwise_turn",
    ))
    .await
    .unwrap();
    insert(20_000, NOON - 100 * SECOND).await;
    for state in ["running", "succeeded"] {
        w.run(&format!(
            "UPDATE turnwise.jobs SET state = '{state}', node = UUID(), token = 1, started_at = scheduled_at
             WHERE scheduled_at > {}",
            MySql::instant(NOON - 100 * SECOND)
        ))
        .await;
    }
    insert(400, NOON - 10 * SECOND).await;
    let begun = Instant::now();
    let first = claims(1).await;
    let under = claims(39).await;
    println!("    a claim: {fresh:?}; under an old view: the first {first:?}, then {under:?}");
    assert!(under < 2 * fresh + Duration::from_millis(3), "{under:?} and not {fresh:?}");
    println!("    {:?} for 40 of them", begun.elapsed());
    // One that comes late, into a lane that was emptied further on: and one in a new lane.
    let late = enqueue(&a.store, job_at(NOON - 90 * SECOND)).await;
    let new = turnwise_node::job::NewJob { queue: "new".into(), ..job() };
    let new = enqueue(&a.store, new).await;
    let begun = Instant::now();
    let mut missing = vec![late, new];
    while !missing.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(6), "{missing:?} are not found");
        token += 1;
        let found = ids(&a.claim(token, 10).await);
        missing.retain(|id| !found.contains(id));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("    late jobs are found after {:?}", begun.elapsed());
    app.execute(sqlx::raw_sql("ROLLBACK")).await.unwrap();
}
