//! Finds the lanes that have jobs which are due, at the price of one probe of the index a lane, however many jobs wait.
//!
//! Neither server can be told to go from one queue to the next in its index: a query that could do it (a loose scan, a
//! recursion) is carried out so or by reading everything, as the statistics of the table have it. A probe whose bounds
//! are literals cannot be got wrong. So a node remembers the lanes that it has met and asks, for each of them, which
//! lane comes next; only a lane that is new to it costs a further statement, once.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sqlx::Row;
use sqlx::mysql::MySqlConnection;

use super::literals::{from_hex, text};
use super::rows_of;
use crate::store::errors::Trouble;

/// How much later than the clock a lane's first job may be due to be worth a look, in microseconds: what a beat may be
/// early.
const EARLY_MICROS: i64 = 5_000;
/// How many lanes are remembered that have no job just now.
const EMPTY_MAX: usize = 128;

/// Jobs of one queue and priority, due in the order of their times.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lane {
    pub(super) queue: String,
    pub(super) priority: i64,
}

/// The lanes that were met.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    met: Mutex<BTreeSet<Lane>>,
}

impl Lanes {
    fn met(&self) -> MutexGuard<'_, BTreeSet<Lane>> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An SQL expression for the lanes that follow each of those that were met, and the first: a text.
    pub(super) fn probes(&self, clock: &str) -> String {
        let met = self.met();
        probes(std::iter::once(None).chain(met.iter().map(Some)), clock)
    }

    /// The lanes that are due, from what the expression came to. Those that are new are asked what follows them.
    pub(super) async fn due(
        &self,
        connection: &mut MySqlConnection,
        listed: &str,
        clock: &str,
    ) -> Result<Vec<Lane>, Trouble> {
        let met = self.met().clone();
        let mut due = Vec::new();
        let mut found = BTreeSet::new();
        let mut listed = listed.to_owned();
        loop {
            let mut strangers = Vec::new();
            for (lane, is_due) in parsed(&listed) {
                if !found.insert(lane.clone()) {
                    continue;
                }
                if !met.contains(&lane) {
                    strangers.push(lane.clone());
                }
                if is_due {
                    due.push(lane);
                }
            }
            if strangers.is_empty() {
                break;
            }
            let next = format!("SELECT {}", probes(strangers.iter().map(Some), clock));
            let row = rows_of(connection, next).await?;
            listed = row.first().map_or(Ok(String::new()), |row| row.try_get(0))?;
        }
        self.remember(found);
        Ok(due)
    }

    fn remember(&self, found: BTreeSet<Lane>) {
        let mut met = self.met();
        if met.len() > found.len() + EMPTY_MAX {
            met.clear();
        }
        met.extend(found);
    }
}

fn probes<'a>(after: impl Iterator<Item = Option<&'a Lane>>, clock: &str) -> String {
    let probes: Vec<String> = after.map(|lane| next(lane, clock)).collect();
    format!("CONCAT_WS(',', {})", probes.join(", "))
}

/// The lane that follows `lane`, or the first: its queue in hexadecimal digits, its priority, and whether its first job
/// is due. Null when there is none.
pub(super) fn next(lane: Option<&Lane>, clock: &str) -> String {
    let first = |condition: &str, order: &str| {
        format!(
            "(SELECT CONCAT(HEX(j.queue), ':', j.priority, ':',
                j.scheduled_at <= {clock} + INTERVAL {EARLY_MICROS} MICROSECOND)
             FROM turnwise_jobs j FORCE INDEX (turnwise_jobs_queued)
             WHERE j.state = 'queued'{condition} ORDER BY {order} LIMIT 1)"
        )
    };
    const ALL: &str = "j.queue, j.priority, j.scheduled_at";
    let Some(Lane { queue, priority }) = lane else { return first("", ALL) };
    let queue = text(queue);
    format!(
        "COALESCE({}, {})",
        first(
            &format!(" AND j.queue = {queue} AND j.priority > {priority}"),
            "j.priority, j.scheduled_at"
        ),
        first(&format!(" AND j.queue > {queue}"), ALL)
    )
}

/// The lanes in a text, and whether each is due.
pub(super) fn parsed(listed: &str) -> impl Iterator<Item = (Lane, bool)> {
    listed.split(',').filter_map(|part| {
        let mut parts = part.split(':');
        let (queue, priority, due) = (parts.next()?, parts.next()?, parts.next()?);
        Some((Lane { queue: from_hex(queue)?, priority: priority.parse().ok()? }, due == "1"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(queue: &str, priority: i64) -> Lane {
        Lane { queue: queue.to_owned(), priority }
    }

    #[test]
    fn lanes_are_read_as_the_server_lists_them() {
        let lanes: Vec<_> = parsed("6D61696C:-3:1,:0:0").collect();
        assert_eq!(lanes, [(lane("mail", -3), true), (lane("", 0), false)]);
        assert_eq!(parsed("").count(), 0);
    }

    #[test]
    fn lanes_without_jobs_are_forgotten_when_there_are_many() {
        let lanes = Lanes::default();
        for number in 0..1_000 {
            lanes.remember([lane("q", number)].into());
            assert!(lanes.met().len() <= EMPTY_MAX + 2);
            assert!(lanes.met().contains(&lane("q", number)));
        }
    }
}
