//! Limits of queues: what runs of each that has one, as a claim finds it, and what the claim enters.

use std::collections::BTreeMap;

use sqlx::Row;
use sqlx::mysql::MySqlConnection;
use turnwise_engine::ServerInstant;

use super::literals::{instant, text};
use super::{micros_of, rows_of};
use crate::store::errors::Trouble;
use crate::store::limits::{Entry, Limits, Room};

/// What may be taken at `at` of these queues, which have limits; their jobs that go on elsewhere run until they are due at `due`.
/// Their rows are locked until the end of the transaction. A queue that another claim holds right now is closed to this one:
/// whoever waited here would hold up the turn.
pub(super) async fn rooms(
    connection: &mut MySqlConnection,
    names: &[&String],
    (due, at): (ServerInstant, ServerInstant),
) -> Result<BTreeMap<String, Room>, Trouble> {
    let listed: Vec<String> = names.iter().map(|name| text(name)).collect();
    let which =
        format!("turnwise_queues q FORCE INDEX (PRIMARY) WHERE q.name IN ({})", listed.join(", "));
    // Two statements, which go out together: the second sees what was committed before the locks were given.
    let sql = format!(
        "SELECT q.name, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM {which} ORDER BY q.name FOR UPDATE SKIP LOCKED;
         SELECT q.name, (SELECT COUNT(*) FROM turnwise_jobs j FORCE INDEX (turnwise_jobs_queued)
                WHERE j.state = 'running' AND j.queue = q.name)
            + (SELECT COUNT(*) FROM turnwise_jobs j FORCE INDEX (turnwise_jobs_given_up)
                WHERE j.given_up = 'elsewhere' AND j.queue = q.name AND j.scheduled_at > {}
                    AND j.awaits_since >= j.started_at),
            q.concurrency, q.concurrency_per_key, q.rate_jobs, q.rate_per_ms, q.rate_burst, {} FROM {which}",
        instant(due.as_micros()),
        micros_of!("q.rate_full_at")
    );
    let mut rooms: BTreeMap<String, Room> =
        names.iter().map(|name| ((*name).clone(), Room::CLOSED)).collect();
    let mut held = Vec::new();
    for row in rows_of(connection, sql).await? {
        let name: String = row.try_get(0)?;
        let Some(running) = row.try_get(1)? else {
            held.push(name);
            continue;
        };
        if held.contains(&name) {
            let columns = (
                row.try_get(2)?,
                row.try_get(3)?,
                row.try_get(4)?,
                row.try_get(5)?,
                row.try_get(6)?,
            );
            let room = Room::new(Limits::read(columns), running, row.try_get(7)?, at);
            rooms.insert(name, room);
        }
    }
    Ok(rooms)
}

/// What stores what a claim took of the queues that have a rate.
pub(super) fn entered(entry: &Entry<String>) -> Vec<String> {
    let full = entry.full_at_us.iter();
    full.map(|(name, full_at_us)| {
        format!(
            "UPDATE turnwise_queues SET rate_full_at = {} WHERE name = {}",
            instant(*full_at_us),
            text(name)
        )
    })
    .collect()
}
