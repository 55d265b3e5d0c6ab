//! Finds the lanes that have jobs which are due, at the price of one probe of the index a lane, however many jobs wait.
//!
//! Neither server can be told to go from one queue to the next in its index: a query that could do it (a loose scan, a
//! recursion) is carried out so or by reading everything, as the statistics of the table have it. A probe whose bounds
//! are literals cannot be got wrong. So a node remembers the lanes that it has met and asks, for each of them, which
//! lane comes next; only a lane that is new to it costs a further statement, once.
//!
//! While a session holds an old view, a probe walks over the entries of all jobs that were claimed since: then only the
//! lanes that were met are asked, each from its mark on (`store/marks`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::Row;
use sqlx::mysql::MySqlConnection;
use turnwise_engine::ServerInstant;

use super::literals::{from_hex, instant, text};
use super::{micros_of, rows_of};
use crate::clock::{BootClock, Clock};
use crate::store::errors::Trouble;
use crate::store::marks::{Lane, Look, Mark, Marks, Sight};

/// How much later than the clock a lane's first job may be due to be worth a look, in microseconds: what a beat may be
/// early.
const EARLY_MICROS: i64 = 5_000;

/// The lanes that were met, and how far each was seen emptied.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    marks: Mutex<Marks>,
    clock: BootClock,
}

/// A lane that has jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) lane: Lane,
    /// Its first job is due, or nearly.
    pub(super) is_due: bool,
    /// When that is, in microseconds since the Unix epoch.
    pub(super) first_us: i64,
}

/// The lanes that a look found to have jobs, and how long it took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) heads: Vec<Head>,
    /// The queues that have limits.
    pub(super) limited: BTreeSet<String>,
    took: Duration,
}

impl Lanes {
    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a claim that is made now is to look.
    pub(super) fn look(&self) -> Look {
        self.marks().look(self.clock.now())
    }

    /// A look from the beginning of every lane.
    pub(super) fn full_look(&self) -> Look {
        self.look().in_full()
    }

    /// Jobs were put back with the times that they had.
    pub(super) fn forget(&self) {
        self.marks().forget();
    }

    /// A claim was committed that found these lanes and took jobs from them up to these marks.
    pub(super) fn saw(
        &self,
        look: &Look,
        found: Found,
        mut taken: BTreeMap<Lane, Mark>,
        due: ServerInstant,
    ) {
        let mark = |Head { lane, first_us, .. }: Head| {
            let mark = taken.remove(&lane).unwrap_or(Mark::before(first_us));
            (lane, mark)
        };
        let lanes = found.heads.into_iter().map(mark).collect();
        let sight = Sight { lanes, due, took: found.took };
        // The lanes that a claim leaves out are looked at all the same.
        self.marks().saw(look, sight, |_| true, self.clock.now());
    }

    /// The lanes that have jobs, from what the [`probes`] of a look came to. Those that are new are asked what follows
    /// them.
    pub(super) async fn found(
        &self,
        connection: &mut MySqlConnection,
        look: &Look,
        listed: &str,
        clock: &str,
    ) -> Result<Found, Trouble> {
        let met: BTreeSet<Lane> = look.lanes.iter().map(|(lane, _)| lane.clone()).collect();
        let (mut found, mut seen) = (Found::default(), BTreeSet::new());
        let mut listed = listed.to_owned();
        loop {
            let Listed { heads, took, limited } = read(&listed);
            found.took += took;
            found.limited =
                limited.split(',').filter_map(from_hex).filter(|name| !name.is_empty()).collect();
            let mut strangers = Vec::new();
            for head in parsed(heads) {
                if !seen.insert(head.lane.clone()) {
                    continue;
                }
                if look.is_full && !met.contains(&head.lane) {
                    strangers.push(head.lane.clone());
                }
                found.heads.push(head);
            }
            if strangers.is_empty() {
                return Ok(found);
            }
            let next: Vec<String> = strangers.iter().map(|lane| next(Some(lane), clock)).collect();
            let row = rows_of(connection, format!("SELECT {}", listing(&next))).await?;
            listed = row.first().map_or(Ok(String::new()), |row| row.try_get(0))?;
        }
    }
}

/// An SQL expression for the lanes that have jobs: a text. A full look asks for the first lane and for those that follow
/// each of those that were met; the lanes that were met need not be those of the look.
pub(super) fn probes(look: &Look, clock: &str) -> String {
    let met = look.lanes.iter();
    let probes: Vec<String> = match look.is_full {
        true => {
            let after = std::iter::once(None).chain(met.map(|(lane, _)| Some(lane)));
            after.map(|lane| next(lane, clock)).collect()
        }
        false => met.map(|(lane, mark)| from(lane, *mark, clock)).collect(),
    };
    listing(&probes)
}

/// What the probes came to, between the server's clock before and behind them.
fn listing(probes: &[String]) -> String {
    let stamp = micros_of!("SYSDATE(6)");
    let probes = if probes.is_empty() { "NULL".to_owned() } else { probes.join(", ") };
    format!("CONCAT_WS(';', {stamp}, CONCAT_WS(',', {probes}), {stamp}, {LIMITED})")
}

/// The names of the queues that have limits, in hexadecimal digits.
const LIMITED: &str = "(SELECT GROUP_CONCAT(HEX(q.name)) FROM turnwise_queues q
    WHERE q.concurrency IS NOT NULL OR q.concurrency_per_key IS NOT NULL OR q.rate_jobs IS NOT NULL)";

/// What the server lists.
struct Listed<'a> {
    heads: &'a str,
    /// How long it took to find them.
    took: Duration,
    limited: &'a str,
}

fn read(listed: &str) -> Listed<'_> {
    let mut parts = listed.split(';');
    let (begun, heads, ended) = (parts.next(), parts.next(), parts.next());
    let micros = |part: Option<&str>| part.and_then(|part| part.parse::<i64>().ok());
    let took = micros(ended).zip(micros(begun)).map_or(0, |(ended, begun)| ended - begun);
    Listed {
        heads: heads.unwrap_or_default(),
        took: Duration::from_micros(u64::try_from(took).unwrap_or(0)),
        limited: parts.next().unwrap_or_default(),
    }
}

/// The first job of all that match, as a lane with its queue in hexadecimal digits.
fn first(condition: &str, order: &str, clock: &str) -> String {
    format!(
        "(SELECT CONCAT_WS(':', HEX(j.queue), j.priority,
            j.scheduled_at <= {clock} + INTERVAL {EARLY_MICROS} MICROSECOND, {})
         FROM turnwise_jobs j FORCE INDEX (turnwise_jobs_queued)
         WHERE j.state = 'queued'{condition} ORDER BY {order} LIMIT 1)",
        micros_of!("j.scheduled_at")
    )
}

/// The lane that follows `lane`, or the first. Null when there is none.
fn next(lane: Option<&Lane>, clock: &str) -> String {
    const ALL: &str = "j.queue, j.priority, j.scheduled_at";
    let Some(Lane { queue, priority }) = lane else { return first("", ALL, clock) };
    let queue = text(queue);
    format!(
        "COALESCE({}, {})",
        first(
            &format!(" AND j.queue = {queue} AND j.priority > {priority}"),
            "j.priority, j.scheduled_at",
            clock
        ),
        first(&format!(" AND j.queue > {queue}"), ALL, clock)
    )
}

/// The lane, when it has a job behind its mark. (Written so that the index is entered at the mark.)
fn from(Lane { queue, priority }: &Lane, mark: Mark, clock: &str) -> String {
    let at = instant(mark.at_us);
    let behind = match mark.after {
        None => format!("j.scheduled_at >= {at}"),
        Some(job) => {
            format!("(j.scheduled_at > {at} OR j.scheduled_at = {at} AND j.id > '{job}')")
        }
    };
    let condition =
        format!(" AND j.queue = {} AND j.priority = {priority} AND {behind}", text(queue));
    first(&condition, "j.scheduled_at, j.id", clock)
}

/// An SQL query for the lane that follows `lane`, or the first.
pub(super) fn query(lane: Option<&Lane>, clock: &str) -> String {
    format!("SELECT {}", next(lane, clock))
}

/// The lanes in a text.
pub(super) fn parsed(listed: &str) -> impl Iterator<Item = Head> {
    listed.split(',').filter_map(|part| {
        let mut parts = part.split(':');
        let (queue, priority) = (from_hex(parts.next()?)?, parts.next()?.parse().ok()?);
        let (due, first_us) = (parts.next()?, parts.next()?.parse().ok()?);
        Some(Head { lane: Lane { queue, priority }, is_due: due == "1", first_us })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_read_as_the_server_lists_them() {
        let Listed { heads, took, limited } = read("1000;6D61696C:-3:1:7,:0:0:-9;1250;6D61696C");
        let lanes: Vec<_> = parsed(heads)
            .map(|head| (head.lane.queue, head.lane.priority, head.is_due, head.first_us))
            .collect();
        assert_eq!(lanes, [("mail".to_owned(), -3, true, 7), (String::new(), 0, false, -9)]);
        assert_eq!((took, limited), (Duration::from_micros(250), "6D61696C"));
        assert_eq!(parsed("").count(), 0);
    }

    #[test]
    fn a_clock_that_was_set_back_while_it_was_looked_took_no_time() {
        for listed in ["1000;;900", ""] {
            let Listed { heads, took, limited } = read(listed);
            assert_eq!((heads, took, limited), ("", Duration::ZERO, ""));
        }
    }
}
