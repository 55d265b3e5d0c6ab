//! Claims from a queue that bounds how many jobs of a concurrency key run at once: which of its jobs may be taken.

use sqlx::Row;
use sqlx::mysql::MySqlConnection;

use super::claims::PRIORITY_SECONDS;
use super::lanes::Head;
use super::literals::{bytes, bytes_from_hex, instant, text};
use super::rows_of;
use crate::store::errors::Trouble;
use crate::store::limits::{Room, WALKED_MAX};

/// Where all jobs that were walked wait for their keys, so many keys that are taken are passed over to find others.
const TAKEN_KEYS_MAX: u32 = 256;
/// And behind each of them at most so many jobs are looked at.
const BEHIND_A_KEY_MAX: u32 = 64;

/// Jobs of a queue that may be taken.
#[derive(Debug, Default)]
pub(super) struct WithinKeys {
    /// Their ids, in their order.
    pub(super) ids: Vec<String>,
    /// There are others that are due, and whose keys are taken.
    pub(super) others_wait: bool,
    /// So many were looked at.
    seen: u32,
}

/// The jobs of these lanes, all of one queue, that may be taken as far as their keys go, no more than there is room in the queue, and
/// `limit`. Each lane is walked from its beginning. Where that leads to no end, jobs of other keys are looked up. `due` is written as
/// SQL; so is `unless`, which bars a job.
pub(super) async fn within(
    connection: &mut MySqlConnection,
    lanes: &[&Head],
    room: &Room,
    (due, unless): (&str, &str),
    limit: u32,
) -> Result<WithinKeys, Trouble> {
    let (Some(per_key), Some(first)) = (room.per_key(), lanes.first()) else {
        return Ok(WithinKeys::default());
    };
    let limit = limit.min(room.jobs());
    let running = running(&text(&first.lane.queue), due);
    let walk: Vec<String> = lanes.iter().map(|lane| walked(lane, due, unless)).collect();
    let found = ask(connection, &walk.join(" UNION ALL "), &running, per_key, limit).await?;
    if found.seen < WALKED_MAX || found.ids.len() as u32 >= limit {
        return Ok(found);
    }
    let taken = format!(
        "SELECT HEX(r.k) FROM ({running}) r WHERE r.jobs >= {per_key} ORDER BY r.k LIMIT {TAKEN_KEYS_MAX}"
    );
    let mut keys: Vec<Vec<u8>> = Vec::new();
    for row in rows_of(connection, taken).await? {
        keys.extend(bytes_from_hex(row.try_get(0)?));
    }
    let between = lanes.iter().flat_map(|lane| between(lane, &keys, (due, unless), limit));
    let seen: Vec<String> = walk.iter().cloned().chain(between).collect();
    ask(connection, &seen.join(" UNION "), &running, per_key, limit).await
}

/// How many jobs of each key of a queue run; what goes on elsewhere does until it is due.
fn running(queue: &str, due: &str) -> String {
    format!(
        "SELECT b.k, COUNT(*) AS jobs FROM (
            SELECT j.concurrency_key AS k FROM turnwise_jobs j FORCE INDEX (turnwise_jobs_queued)
            WHERE j.state = 'running' AND j.queue = {queue} AND j.concurrency_key IS NOT NULL
            UNION ALL
            SELECT j.concurrency_key FROM turnwise_jobs j FORCE INDEX (turnwise_jobs_given_up)
            WHERE j.given_up = 'elsewhere' AND j.queue = {queue} AND j.concurrency_key IS NOT NULL
                AND j.scheduled_at > {due} AND j.awaits_since >= j.started_at) b
         GROUP BY b.k"
    )
}

/// The id, the place and the key of a lane's jobs, which an index leads to.
fn columns(lane: &Head, index: &str) -> String {
    let (queue, priority) = (text(&lane.lane.queue), lane.lane.priority);
    format!(
        "SELECT id, scheduled_at - INTERVAL {} SECOND AS place, concurrency_key AS k
         FROM turnwise_jobs FORCE INDEX ({index})
         WHERE state = 'queued' AND queue = {queue} AND priority = {priority}",
        priority * PRIORITY_SECONDS
    )
}

/// The first jobs of a lane, in their order.
fn walked(lane: &Head, due: &str, unless: &str) -> String {
    format!(
        "({} AND scheduled_at BETWEEN {} AND {due} AND NOT {unless} ORDER BY scheduled_at, id LIMIT {WALKED_MAX})",
        columns(lane, "turnwise_jobs_queued"),
        instant(lane.first_us)
    )
}

/// Jobs of a lane by their keys, before each of these keys, which are in their order, and behind the last.
fn between(lane: &Head, keys: &[Vec<u8>], (due, unless): (&str, &str), limit: u32) -> Vec<String> {
    let lower = std::iter::once(None).chain(keys.iter().map(Some));
    let upper = keys.iter().map(Some).chain(std::iter::once(None));
    let bounds = lower.zip(upper).map(|(lower, upper)| {
        let lower = lower.map_or_else(
            || "queued_key IS NOT NULL".to_owned(),
            |key| format!("queued_key > {}", bytes(key)),
        );
        let upper =
            upper.map_or_else(String::new, |key| format!(" AND queued_key < {}", bytes(key)));
        format!("{lower}{upper}")
    });
    let columns = columns(lane, "turnwise_jobs_keyed");
    let most = limit.min(BEHIND_A_KEY_MAX);
    bounds
        .map(|bounds| {
            format!(
                "({columns} AND {bounds} AND scheduled_at <= {due} AND NOT {unless}
                  ORDER BY queued_key, scheduled_at LIMIT {most})"
            )
        })
        .collect()
}

/// Of the jobs that are `seen` those which may be taken.
async fn ask(
    connection: &mut MySqlConnection,
    seen: &str,
    running: &str,
    per_key: u32,
    limit: u32,
) -> Result<WithinKeys, Trouble> {
    // (Where there is none, the others are told of all the same.)
    let query = format!(
        "SELECT a.id, a.is_allowed, CAST(a.seen AS SIGNED), CAST(SUM(a.is_allowed) OVER () AS SIGNED) FROM (
            SELECT s.id, s.place, COUNT(*) OVER () AS seen,
                IF(s.k IS NULL OR ROW_NUMBER() OVER (PARTITION BY s.k ORDER BY s.place, s.id)
                    <= {per_key} - COALESCE(r.jobs, 0), 1, 0) AS is_allowed
            FROM ({seen}) s LEFT JOIN ({running}) r ON r.k = s.k) a
         ORDER BY a.is_allowed DESC, a.place, a.id LIMIT {}",
        limit.max(1)
    );
    let mut found = WithinKeys::default();
    for row in rows_of(connection, query).await? {
        let (seen, allowed): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
        found.seen = u32::try_from(seen).unwrap_or(u32::MAX);
        found.others_wait = seen > allowed;
        if row.try_get::<i64, _>(1)? == 1 {
            found.ids.push(row.try_get(0)?);
        }
    }
    Ok(found)
}
