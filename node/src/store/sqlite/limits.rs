//! Limits of queues: what runs of each that has one, as a claim finds it, and what the claim enters. Each function runs inside
//! a transaction of the caller's.

use std::collections::BTreeMap;

use sqlx::sqlite::SqliteConnection;
use turnwise_engine::ServerInstant;

use crate::sabotage::{Bug, Sabotage};
use crate::store::errors::Trouble;
use crate::store::limits::{Entry, Limits, Room};

/// What may be taken at `at` of the queues that have limits; their jobs that go on elsewhere run until they are due at `due`.
pub(super) async fn rooms<B: Sabotage>(
    connection: &mut SqliteConnection,
    (due, at): (ServerInstant, ServerInstant),
) -> Result<BTreeMap<Vec<u8>, Room>, Trouble> {
    type Row = (
        Vec<u8>,
        Option<i64>,
        Option<i64>,
        Option<i64>,
        Option<i64>,
        Option<i64>,
        Option<i64>,
        i64,
    );
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT CAST(q.name AS BLOB), q.concurrency, q.concurrency_per_key, q.rate_jobs, q.rate_per_ms, q.rate_burst, q.rate_full_at,
            CASE WHEN q.concurrency IS NULL THEN 0 ELSE
                (SELECT count(*) FROM turnwise_jobs j INDEXED BY turnwise_jobs_running
                    WHERE j.state = 'running' AND j.queue = q.name)
                + (SELECT count(*) FROM turnwise_jobs j INDEXED BY turnwise_jobs_awaiting
                    WHERE j.awaits_since IS NOT NULL AND j.state = 'queued' AND j.queue = q.name
                        AND j.scheduled_at > ?1 AND j.awaits_since >= j.started_at AND NOT ?2)
            END
         FROM turnwise_queues q
         WHERE q.concurrency IS NOT NULL OR q.concurrency_per_key IS NOT NULL OR q.rate_jobs IS NOT NULL",
    )
    .bind(due.as_micros())
    .bind(B::plants(Bug::ElsewhereTakesNoPlace))
    .fetch_all(&mut *connection)
    .await?;
    let room = |(name, concurrency, per_key, jobs, per, burst, full_at, running): Row| {
        let mut limits = Limits::read((concurrency, per_key, jobs, per, burst));
        if B::plants(Bug::ConcurrencyIsIgnored) {
            limits.concurrency = None;
        }
        (name, Room::new(limits, running, full_at, at))
    };
    Ok(rows.into_iter().map(room).collect())
}

/// Store what a claim took of the queues that have a rate.
pub(super) async fn enter<B: Sabotage>(
    connection: &mut SqliteConnection,
    entry: &Entry<Vec<u8>>,
) -> Result<(), Trouble> {
    if B::plants(Bug::RateIsForgotten) {
        return Ok(());
    }
    for (name, full_at_us) in &entry.full_at_us {
        sqlx::query("UPDATE turnwise_queues SET rate_full_at = ?2 WHERE name = CAST(?1 AS TEXT)")
            .bind(name.as_slice())
            .bind(full_at_us)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
