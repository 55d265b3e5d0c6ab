//! What a claim costs on PostgreSQL: while another session keeps an old snapshot open, so that nothing that was claimed can
//! be taken out of the index of what waits.

use sqlx::{Connection, Executor, PgConnection};
use turnwise_node::job::JobFate;
use turnwise_node::store::Store;

use super::member::{Member, end_of};
use super::postgres::Postgres;
use super::world::{NOON, SECOND, World};

/// Jobs that are claimed and ended under the snapshot.
const CLAIMED: usize = 20_000;

pub(crate) async fn claims_do_not_walk_over_what_was_claimed_under_an_old_snapshot(w: Postgres) {
    w.run("CREATE EXTENSION pg_stat_statements").await;
    let a = Member::register(&w, 1).await;
    let now = Postgres::instant(NOON);
    w.run(&format!(
        "INSERT INTO turnwise.jobs (url, scheduled_at, created_at, queued_at)
         SELECT '/ok', {now} - n * interval '10 ms', {now}, {now} FROM generate_series(1, 30000) n"
    ))
    .await;
    w.set_clock(NOON + SECOND).await;
    let mut app = PgConnection::connect(&w.url()).await.unwrap();
    app.execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    app.execute("SELECT count(*) FROM turnwise.jobs").await.unwrap();
    for token in 1.. {
        let jobs = a.claim(token, 500).await;
        let ends: Vec<_> = jobs.iter().map(|job| end_of(job, JobFate::Succeeded)).collect();
        a.store.end(a.id, &ends).await.unwrap();
        if token as usize * 500 >= CLAIMED {
            break;
        }
    }
    w.run("SELECT pg_stat_statements_reset()").await;
    for token in 1_000..1_040 {
        assert_eq!(a.claim(token, 1).await.len(), 1);
    }
    w.run(&format!(
        "SELECT looked_us AS from_the_beginning FROM turnwise.jobs_claim(
            '{}', 2000, 1, 1, NULL, '{{}}', NULL, NULL, NULL, 0, NULL, NULL, NULL)",
        a.id
    ))
    .await;
    app.execute("ROLLBACK").await.unwrap();
    let pages = async |of: &str| {
        w.number(&format!(
            "SELECT (shared_blks_hit + shared_blks_read) / calls FROM pg_stat_statements s
             JOIN pg_database d ON d.oid = s.dbid AND d.datname = current_database()
             WHERE query LIKE '%{of}%' AND query NOT LIKE '%pg_stat%'"
        ))
        .await
        .unwrap()
    };
    let (claim, full) = (pages("jobs_claim(%text::uuid").await, pages("from_the_beginning").await);
    println!("    pages that a claim looked at: {claim}, from the beginning: {full}");
    // Of forty claims one or two look from the beginning.
    assert!(claim * 4 < full, "a claim looked at {claim} pages, from the beginning at {full}");
}

/// The planner's estimates of a claim are far from the truth; a claim that is compiled by them takes most of a second.
pub(crate) async fn nothing_is_compiled_for_a_claim_or_an_end(w: Postgres) {
    w.store().check_schema().await.unwrap();
    let compiled = w
        .text(
            "SELECT string_agg(p.oid::regprocedure::text, ', ') FROM pg_proc p
             WHERE p.pronamespace = 'turnwise'::regnamespace
                AND p.proname IN ('take', 'take_from', 'lanes', 'rescue', 'jobs_end', 'jobs_finish')
                AND NOT coalesce('jit=off' = ANY (p.proconfig), false)",
        )
        .await;
    assert_eq!(compiled, None);
}
