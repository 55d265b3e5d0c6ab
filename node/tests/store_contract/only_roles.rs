//! What a role may do on PostgreSQL after the owner of the tables has said `turnwise.grant_…`, and nothing besides.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use turnwise_node::job::{JobFate, JobFilter, JobState, NewJob, Unique};
use turnwise_node::store::postgres::PgStore;
use turnwise_node::store::{QueueOrders, Queues, Registration, Schedules, Store, Views};

use crate::member::{self, Member, job};
use crate::postgres::Postgres;
use crate::world::{NOON, SECOND, World};

/// A role of this database's own: the names are the whole server's.
async fn role(w: &Postgres, name: &str) -> String {
    let role = format!("{}_{name}", w.name());
    w.run(&format!("CREATE ROLE {role} LOGIN PASSWORD 'p'")).await;
    role
}

fn url(w: &Postgres, role: &str) -> String {
    w.url().replace("postgres@", &format!("{role}:p@"))
}

/// A session of a role.
struct As(PgConnection);

impl As {
    async fn of(w: &Postgres, role: &str) -> Self {
        Self(PgConnection::connect(&url(w, role)).await.unwrap())
    }

    async fn run(&mut self, sql: &str) {
        self.0.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.unwrap();
    }

    async fn text(&mut self, sql: &str) -> String {
        self.0.fetch_one(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.unwrap().get(0)
    }

    /// It may not: its privileges refuse it, and nothing else does.
    async fn is_refused(&mut self, sql: &str) {
        let done = self.0.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await;
        let Err(sqlx::Error::Database(error)) = done else { panic!("{sql}: {done:?}") };
        assert_eq!(error.code().as_deref(), Some("42501"), "{sql}: {error}");
    }
}

/// What a query finds, a line each.
async fn lines(w: &Postgres, sql: &str) -> Vec<String> {
    let found = w.text(&format!("SELECT string_agg(x::text, E'\\n') FROM ({sql}) q (x)")).await;
    found.map(|found| found.lines().map(str::to_owned).collect()).unwrap_or_default()
}

const TABLES: &str = "SELECT relname FROM pg_class
    WHERE relnamespace = 'turnwise'::regnamespace AND relkind IN ('r', 'p', 'v')";

/// Every function but these, called with nulls.
async fn calls_of_all_but(w: &Postgres, names: &str) -> Vec<String> {
    let calls = format!(
        "SELECT format('%I(%s)', p.proname, (SELECT coalesce(string_agg('NULL::' || format_type(t.oid, NULL), ', '
                ORDER BY t.place), '') FROM unnest(p.proargtypes) WITH ORDINALITY t (oid, place)))
         FROM pg_proc p WHERE p.pronamespace = 'turnwise'::regnamespace AND p.proname NOT IN ({names})"
    );
    lines(w, &calls).await
}

async fn writes_nothing(session: &mut As, tables: &[String]) {
    for table in tables {
        session.is_refused(&format!("INSERT INTO turnwise.{table} DEFAULT VALUES")).await;
        session.is_refused(&format!("DELETE FROM turnwise.{table} WHERE false")).await;
        session.is_refused(&format!("TRUNCATE turnwise.{table}")).await;
    }
    session.is_refused("UPDATE turnwise.jobs SET url = '/other' WHERE false").await;
    session.is_refused("UPDATE turnwise.turn SET refused = 0 WHERE false").await;
    session.is_refused("CREATE TABLE turnwise.mine ()").await;
}

pub(crate) async fn who_may_enqueue_does_nothing_else(w: Postgres) {
    let shop = role(&w, "shop").await;
    w.run(&format!("SELECT turnwise.grant_enqueue('{shop}')")).await;
    let mut shop = As::of(&w, &shop).await;
    shop.run("CREATE TEMP TABLE orders (number integer)").await;
    // In its own transaction, as whoever may insert.
    shop.run("BEGIN; INSERT INTO orders VALUES (1); SELECT turnwise.enqueue('/gone'); ROLLBACK")
        .await;
    shop.run("BEGIN; INSERT INTO orders VALUES (1); SELECT turnwise.enqueue('/kept', queue => 'mail'); COMMIT")
        .await;
    let keyed = "SELECT turnwise.enqueue('/keyed', '{\"a\": 1}', unique_key => 'k', unique_for => '1 hour')::text";
    let first = shop.text(keyed).await;
    assert_eq!(shop.text(keyed).await, first);
    let many = "SELECT string_agg(id::text, ' ') FROM turnwise.enqueue_many(
        '[{\"url\": \"/again\", \"unique_key\": \"k\"}, {\"url\": \"/plain\"}]') id";
    assert!(shop.text(many).await.starts_with(&first));
    // Whatever it has made of the same names.
    shop.run("CREATE TEMP TABLE jobs (url text); SET search_path = pg_temp, public").await;
    shop.run("SELECT turnwise.enqueue('/path')").await;
    let urls = "SELECT string_agg(url, ' ' ORDER BY url) FROM turnwise.jobs";
    assert_eq!(w.text(urls).await.as_deref(), Some("/kept /keyed /path /plain"));
    // A key that is free is taken from the job that had it.
    w.run("UPDATE turnwise.jobs SET state = 'cancelled', finished_at = turnwise.clock(), unique_until = NULL").await;
    assert_ne!(shop.text(keyed).await, first);

    let tables = lines(&w, TABLES).await;
    assert!(tables.len() >= 11, "{tables:?}");
    for table in &tables {
        shop.is_refused(&format!("SELECT FROM turnwise.{table}")).await;
        shop.is_refused(&format!("SELECT FROM turnwise.{table} FOR UPDATE")).await;
    }
    writes_nothing(&mut shop, &tables).await;
    let calls = calls_of_all_but(&w, "'enqueue', 'enqueue_many'").await;
    assert!(calls.len() > 50, "{calls:?}");
    for call in &calls {
        shop.is_refused(&format!("SELECT turnwise.{call}")).await;
    }
}

/// Roles that could enqueue, call functions or insert before still can, and nobody else can more than before.
pub(crate) async fn to_close_functions_takes_nothing_from_who_had_it(w: Postgres) {
    let (old, looker, writer) =
        (role(&w, "old").await, role(&w, "looker").await, role(&w, "writer").await);
    w.run(&format!(
        "GRANT SELECT ON public.test_clock TO PUBLIC; GRANT USAGE ON SCHEMA turnwise TO {old}, {looker};
         GRANT INSERT, SELECT, UPDATE ON turnwise.jobs TO {old}; GRANT SELECT ON turnwise.jobs TO {looker};
         GRANT pg_write_all_data TO {writer}"
    ))
    .await;
    let insert = "INSERT INTO turnwise.jobs (url) VALUES ('/inserted')";
    let call = "SELECT turnwise.enqueue('/called')";
    let (mut old, mut looker, mut writer) =
        (As::of(&w, &old).await, As::of(&w, &looker).await, As::of(&w, &writer).await);
    let (shop, reader) = (role(&w, "shop").await, role(&w, "reader").await);
    let again = format!(
        "SELECT turnwise.grant_read('{reader}'); SELECT turnwise.grant_enqueue('{shop}');
         -- As a later migration would.
         DROP FUNCTION turnwise.checked_url; CREATE FUNCTION turnwise.checked_url(url text) RETURNS text
             LANGUAGE sql AS 'SELECT $1';
         CREATE FUNCTION turnwise.enqueue(url text, \"from\" point) RETURNS uuid
             LANGUAGE sql AS 'SELECT turnwise.enqueue(url)';
         SELECT turnwise.close_functions(true)"
    );
    for step in ["SELECT turnwise.close_functions(true)", again.as_str()] {
        w.run(step).await;
        for session in [&mut old, &mut writer] {
            session.run(insert).await;
        }
        old.run(call).await;
        assert!(looker.text("SELECT turnwise.clock()::text FROM turnwise.jobs").await.len() > 4);
        looker.is_refused(call).await;
    }
    let mut reader = As::of(&w, &reader).await;
    assert_eq!(reader.text("SELECT turnwise.checked_url('/a')").await, "/a");
    reader.is_refused("SELECT turnwise.enqueue('/a', '(1,2)'::point)").await;
    let mut shop = As::of(&w, &shop).await;
    shop.run("SELECT turnwise.enqueue('/a', \"from\" => '(1,2)'::point)").await;
    shop.is_refused("SELECT turnwise.checked_url('/a')").await;
    let closed = "SELECT count(*) FROM pg_proc p WHERE p.pronamespace = 'turnwise'::regnamespace
        AND has_function_privilege('public', p.oid, 'EXECUTE')";
    assert_eq!(w.number(closed).await, Some(0));
}

pub(crate) async fn a_node_may_do_what_nodes_do(w: Postgres) {
    let name = role(&w, "node").await;
    w.run(&format!(
        "GRANT SELECT ON public.test_clock TO {name}; SELECT turnwise.grant_node('{name}')"
    ))
    .await;
    // Whatever is closed afterwards.
    let shop = role(&w, "shop").await;
    w.run(&format!("SELECT turnwise.grant_enqueue('{shop}')")).await;
    let store = PgStore::open(&url(&w, &name), 1).unwrap();
    assert!(store.migrate().await.unwrap().is_empty());
    store.check_schema().await.unwrap();
    store.agree_period(None).await.unwrap();
    let node = Registration { id: member::id(1), name: "n".to_owned(), capacity: 8 };
    store.register(&node).await.unwrap();
    let turns = store.turns().await.unwrap().into();
    let mut a = Member { id: node.id, store, turns };
    let keyed =
        NewJob { unique: Some(Unique { key: "k".parse().unwrap(), window: None }), ..job() };
    a.store.enqueue(&[job(), job(), keyed]).await.unwrap();
    w.set_clock(NOON + SECOND).await;
    let mut claimed = a.beat_for(1, 1).await.jobs;
    claimed.extend(a.claim(2, 2).await);
    assert_eq!(claimed.len(), 3);
    a.end(&claimed[0], JobFate::Succeeded).await;
    a.end(&claimed[1], JobFate::Dead).await;
    a.end(&claimed[2], JobFate::Retry(std::time::Duration::from_secs(1))).await;
    assert_eq!(a.store.retry(claimed[1].id).await.unwrap(), Some(true));
    a.store.secret("callback", "s").await.unwrap();
    a.store.pause("default").await.unwrap();
    a.store.due_schedules(turnwise_engine::ServerInstant::from_micros(NOON)).await.unwrap();
    a.renew().await;
    a.store.deregister(a.id).await.unwrap();
    // It makes no token and no schema.
    let mut session = As::of(&w, &name).await;
    session.is_refused("INSERT INTO turnwise.tokens DEFAULT VALUES").await;
    session.is_refused("UPDATE turnwise.tokens SET role = 'operate' WHERE false").await;
    session.is_refused("DELETE FROM turnwise.migrations WHERE false").await;
    session.is_refused("UPDATE turnwise.secrets SET value = '' WHERE false").await;
    session.is_refused("CREATE TABLE turnwise.mine ()").await;
    session.is_refused(&format!("SELECT turnwise.grant_node('{name}')")).await;
}

pub(crate) async fn who_may_read_changes_nothing_and_sees_no_secret(w: Postgres) {
    let mut a = Member::register(&w, 1).await;
    let ids = a.store.enqueue(&[job(), job()]).await.unwrap();
    w.set_clock(NOON + SECOND).await;
    let claimed = a.beat_for(1, 1).await.jobs;
    a.end(&claimed[0], JobFate::Dead).await;
    w.run("INSERT INTO turnwise.secrets VALUES ('callback', 's')").await;
    w.run("INSERT INTO turnwise.tokens VALUES ('t', 'read', repeat('0', 64), turnwise.clock())")
        .await;

    let name = role(&w, "reader").await;
    w.run(&format!(
        "GRANT SELECT ON public.test_clock TO {name}; SELECT turnwise.grant_read('{name}')"
    ))
    .await;
    let store = PgStore::open(&url(&w, &name), 1).unwrap();
    store.check_schema().await.unwrap();
    let some = JobFilter { limit: 10, ..JobFilter::default() };
    assert_eq!(store.jobs(&some).await.unwrap().len(), 2);
    for id in ids {
        let (job, attempts) = store.job(id).await.unwrap().unwrap();
        assert_eq!(attempts.newest.len(), usize::from(job.state == JobState::Dead));
    }
    assert_eq!(store.nodes().await.unwrap().len(), 1);
    store.look().await.unwrap();
    store.tally(10).await.unwrap();
    store.beats(turnwise_engine::Slot(0), 10).await.unwrap();
    store.runs(turnwise_engine::ServerInstant::from_micros(0), 10).await.unwrap();
    store.page(&JobFilter::default()).await.unwrap();
    store.policies().await.unwrap();
    store.paused().await.unwrap();
    store.schedules().await.unwrap();
    assert!(store.enqueue(&[job()]).await.is_err());
    let claim = turnwise_engine::Claim { token: turnwise_engine::Token(9), limit: 1 };
    assert!(store.claim(a.id, claim, &Queues::All, &Default::default()).await.is_err());

    let mut reader = As::of(&w, &name).await;
    let tables = lines(&w, TABLES).await;
    writes_nothing(&mut reader, &tables).await;
    for call in
        ["SELECT turnwise.enqueue('/x')", "SELECT turnwise.enqueue_many('[{\"url\": \"/x\"}]')"]
    {
        reader.is_refused(call).await;
        let shop = format!("{}_shop", w.name());
        w.run(&format!(
            "DO $$ BEGIN IF to_regrole('{shop}') IS NULL THEN CREATE ROLE {shop}; END IF; END $$;
             SELECT turnwise.grant_enqueue('{shop}'); SELECT turnwise.grant_read('{name}')"
        ))
        .await;
        reader.is_refused(call).await;
    }
    for table in tables.iter().filter(|table| !["secrets", "tokens"].contains(&table.as_str())) {
        reader.run(&format!("SELECT FROM turnwise.{table}")).await;
    }
    assert_eq!(reader.text("SELECT name FROM turnwise.tokens").await, "t");
    reader.is_refused("SELECT hash FROM turnwise.tokens").await;
    reader.is_refused("SELECT * FROM turnwise.tokens").await;
    reader.is_refused("SELECT value FROM turnwise.secrets").await;
}

pub(crate) async fn a_grant_that_cannot_be_says_why_and_one_is_taken_back(w: Postgres) {
    for (call, reason) in [
        ("grant_enqueue('public')", "there is no role \"public\""),
        ("grant_node('nobody of that name')", "there is no role \"nobody of that name\""),
    ] {
        let said = w.refused(&format!("SELECT turnwise.{call}")).await.expect(call);
        assert!(said.contains(reason), "{call}: {said}");
    }
    let shop = role(&w, "shop").await;
    w.run(&format!("GRANT USAGE ON SCHEMA turnwise TO {shop}")).await;
    let mut session = As::of(&w, &shop).await;
    session.is_refused(&format!("SELECT turnwise.grant_enqueue('{shop}')")).await;
    w.run("GRANT USAGE ON SCHEMA turnwise TO PUBLIC").await;
    let said = w.refused(&format!("SELECT turnwise.grant_enqueue('{shop}')")).await;
    assert!(said.is_some_and(|said| said.contains("open to everybody")));
    w.run("REVOKE USAGE ON SCHEMA turnwise FROM PUBLIC").await;
    for grant in ["grant_enqueue", "grant_node", "grant_read", "revoke_all"] {
        w.run(&format!("SELECT turnwise.{grant}('{shop}')")).await;
    }
    session.is_refused("SELECT turnwise.enqueue('/x')").await;
    session.is_refused("SELECT name FROM turnwise.tokens").await;
    drop(session);
    w.run(&format!("DROP ROLE {shop}")).await;
}
