//! What only a database behind a pooler in transaction mode can promise: what a beat costs there, and what is said where
//! the pooler was not named.

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Executor, Row};
use turnwise_node::job::JobFate;
use turnwise_node::store::postgres::PgStore;
use turnwise_node::store::{Store, StoreError};

use crate::member::{Member, enqueue, job};
use crate::pooled::{Pooled, pooler};
use crate::world::{NOON, SECOND, World};

/// A connection of somebody else's, through the pooler.
async fn client(database: &str) -> PgConnection {
    let options = pooler().url_of(database).parse::<PgConnectOptions>().unwrap();
    PgConnection::connect_with(&options.extra_float_digits(None)).await.unwrap()
}

/// So often the pooler has told a client of this database that the server is ready again: its round trips.
async fn round_trips(w: &Pooled) -> i64 {
    let mut console = client("pgbouncer").await;
    let rows = console.fetch_all(sqlx::raw_sql("SHOW STATS_TOTALS")).await.unwrap();
    let of_database = rows.iter().find(|row| row.get::<String, _>("database") == w.name());
    // It calls its numbers numeric, and answers in text.
    of_database.map_or(0, |row| row.get_unchecked::<String, _>("query_count").parse().unwrap())
}

pub(crate) async fn a_beat_is_one_round_trip(w: Pooled) {
    let mut a = Member::register(&w, 1).await;
    a.beat().await;
    for claims in [0, 5] {
        let before = round_trips(&w).await;
        for beat in 1..=20 {
            if claims > 0 {
                enqueue_directly(&w).await;
            }
            w.set_clock(NOON + (beat + 40 * i64::from(claims)) * SECOND).await;
            let reply = match claims {
                0 => a.beat().await,
                claims => a.beat_for(beat, claims).await,
            };
            assert!(reply.done && reply.jobs.len() == usize::from(claims > 0));
        }
        let trips = round_trips(&w).await - before;
        println!("    round trips of 20 beats that claim up to {claims}: {trips}");
        assert_eq!(trips, 20);
    }
}

/// A job that came another way than through the pooler.
async fn enqueue_directly(w: &Pooled) {
    w.run("INSERT INTO turnwise.jobs (url) VALUES ('/ok')").await;
}

pub(crate) async fn sessions_are_left_as_they_were(w: Pooled) {
    let mut a = Member::register(&w, 1).await;
    for second in 1..=6 {
        w.set_clock(NOON + second * SECOND).await;
        enqueue(&a.store, job()).await;
        a.beat().await;
        let claimed = a.claim_one(second).await;
        a.end(&claimed, JobFate::Succeeded).await;
    }
    // Whoever has these sessions next finds the settings of the server, and nothing that was prepared.
    let mut app = client(w.name()).await;
    for _ in 0..6 {
        let sql = "SELECT current_setting('jit') || ' ' || current_setting('enable_seqscan') || ' '
                || current_setting('lock_timeout') || ' ' || current_setting('synchronous_commit')
                || ' ' || (SELECT count(*) FROM pg_prepared_statements)";
        let row = app.fetch_one(sqlx::raw_sql(sql)).await.unwrap();
        assert_eq!(row.get::<String, _>(0), "on on 0 on 0");
    }
}

pub(crate) async fn a_pooler_that_was_not_named_is_refused(w: Pooled) {
    let error = PgStore::open(&w.url(), 1).unwrap().look().await.unwrap_err();
    println!("    {error}");
    assert!(!error.is_transient());
    let StoreError::Refused { remedy, .. } = error else { panic!("{error:?}") };
    assert!(remedy.contains("pooler=transaction"), "{remedy}");
}
