//! Claims from a queue that bounds how many jobs of a concurrency key run at once: which of its jobs may be taken.

use sqlx::Row;
use sqlx::mysql::MySqlConnection;

use super::claims::PRIORITY_SECONDS;
use super::lanes::Head;
use super::literals::{bytes_from_hex, bytes_or_null, instant, text};
use super::rows_of;
use crate::store::errors::Trouble;
use crate::store::limits::{Room, WALKED_MAX};

/// Where too few of the jobs that were walked may be taken, the first jobs of so many keys of the queue are looked at besides: each
/// costs three statements of a packet.
const FIRST_KEYS_MAX: usize = 128;

/// Jobs of a queue that may be taken.
#[derive(Debug, Default)]
pub(super) struct WithinKeys {
    /// Their ids, in their order.
    pub(super) ids: Vec<String>,
    /// There are others that are due, and whose keys are taken.
    pub(super) others_wait: bool,
    /// What is to be stored: where the first jobs of keys are looked for next.
    pub(super) entered: Option<String>,
    /// So many were looked at.
    seen: u32,
}

/// The jobs of these lanes, all of one queue, that may be taken as far as their keys go, no more than there is room in the queue, and
/// `limit`. Each lane is walked from its beginning. Where that finds too few, and there may be more, the first jobs of keys are looked
/// up. `due` is written as SQL; so is `unless`, which bars a job.
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
    let walk = walk.join(" UNION ALL ");
    let found = ask(connection, &walk, &running, per_key, limit).await?;
    if found.seen < WALKED_MAX || found.ids.len() as u32 >= limit {
        return Ok(found);
    }
    let (ids, entered) = first_of_keys(connection, lanes, due, unless).await?;
    if ids.is_empty() {
        return Ok(WithinKeys { entered: Some(entered), ..found });
    }
    let ids: Vec<String> = ids.iter().map(|id| text(id)).collect();
    let seen = format!(
        "{walk} UNION (SELECT id, scheduled_at - INTERVAL (priority * {PRIORITY_SECONDS}) SECOND, concurrency_key
            FROM turnwise_jobs FORCE INDEX (PRIMARY) WHERE id IN ({}))",
        ids.join(", ")
    );
    let found = ask(connection, &seen, &running, per_key, limit).await?;
    Ok(WithinKeys { entered: Some(entered), ..found })
}

/// The first jobs of keys of these lanes, and what stores which key they came to: the next claim begins behind that, so that each has
/// its turn. Neither server can be told to go from one key to the next in its index (see `lanes`), but one probe after the other can, in
/// one packet, with the key in a variable of the session.
async fn first_of_keys(
    connection: &mut MySqlConnection,
    lanes: &[&Head],
    due: &str,
    unless: &str,
) -> Result<(Vec<String>, String), Trouble> {
    let Some(queue) = lanes.first().map(|lane| text(&lane.lane.queue)) else {
        return Ok((Vec::new(), String::new()));
    };
    let of_a_lane = (FIRST_KEYS_MAX / lanes.len()).max(1);
    let mut packet = vec![format!(
        "SET @turnwise_from = (SELECT COALESCE(q.keys_from, '') FROM turnwise_queues q WHERE q.name = {queue})"
    )];
    for lane in lanes.iter().take(FIRST_KEYS_MAX) {
        let which = format!(
            "FROM turnwise_jobs j FORCE INDEX (turnwise_jobs_keyed)
             WHERE j.queue = {queue} AND j.priority = {}",
            lane.lane.priority
        );
        packet.push("SET @turnwise_key = @turnwise_from".to_owned());
        for _ in 0..of_a_lane {
            // (By way of another variable: of one that the statement itself sets no bound of the index is made.)
            packet.push(format!(
                "SET @turnwise_next = (SELECT j.queued_key {which} AND j.queued_key > @turnwise_key
                    ORDER BY j.queued_key LIMIT 1)"
            ));
            packet.push("SET @turnwise_key = @turnwise_next".to_owned());
            packet.push(format!(
                "SELECT j.id, NULL {which} AND j.queued_key = @turnwise_key AND j.scheduled_at <= {due}
                    AND NOT {unless} ORDER BY j.scheduled_at LIMIT 1"
            ));
        }
        packet.push("SELECT NULL, COALESCE(HEX(@turnwise_key), '')".to_owned());
    }
    let (mut ids, mut reached): (Vec<String>, Option<Vec<u8>>) = (Vec::new(), None);
    for row in rows_of(connection, packet.join("; ")).await? {
        if let Some(id) = row.try_get(0)? {
            ids.push(id);
            continue;
        }
        // Of several lanes the one that came least far, of those that did not come to their ends.
        let last: String = row.try_get(1)?;
        let last = bytes_from_hex(&last).filter(|last| !last.is_empty());
        reached = reached.into_iter().chain(last).min();
    }
    let from = bytes_or_null(reached.as_deref());
    Ok((ids, format!("UPDATE turnwise_queues SET keys_from = {from} WHERE name = {queue}")))
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

/// The id, the place and the key of the first jobs of a lane, in their order.
fn walked(Head { lane, first_us, .. }: &Head, due: &str, unless: &str) -> String {
    format!(
        "(SELECT id, scheduled_at - INTERVAL {} SECOND AS place, concurrency_key AS k
          FROM turnwise_jobs FORCE INDEX (turnwise_jobs_queued)
          WHERE state = 'queued' AND queue = {} AND priority = {}
            AND scheduled_at BETWEEN {} AND {due} AND NOT {unless}
          ORDER BY scheduled_at, id LIMIT {WALKED_MAX})",
        lane.priority * PRIORITY_SECONDS,
        text(&lane.queue),
        lane.priority,
        instant(*first_us)
    )
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
