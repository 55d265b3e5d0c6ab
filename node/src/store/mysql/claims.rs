//! Claims: which jobs a node takes, and which it took when the answer was lost. A row that cannot be read ends here, so
//! that it holds up nobody.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sqlx::Row;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use turnwise_engine::{Claim, Kept, NodeId, ServerInstant, Token};

use super::held::bar;
use super::lanes::{self, Found, Head};
use super::literals::{self, instant, text};
use super::queues::is_held_back;
use super::rescue::attempts_of;
use super::{MySqlStore, keys, limits, micros_of, rows_of};
use crate::job::{BODY_BYTES_MAX, ClaimedJob};
use crate::store::claim_bytes::{self, CLAIM_BYTES_MAX};
use crate::store::errors::Trouble;
use crate::store::limits::Within;
use crate::store::marks::{Lane, Mark};
use crate::store::rows::{self, Unreadable};
use crate::store::servers::Line;
use crate::store::{CheckIn, Claimed, NodeReport, Queues, StoreError};

/// What a point of priority is worth, in seconds of waiting.
pub(super) const PRIORITY_SECONDS: i64 = 10;
/// How many jobs beyond those that it may take a claim looks at, for those that others have locked.
const SPARE: u32 = 256;

impl Queues {
    fn have(&self, lane: &Lane) -> bool {
        match self {
            Self::All => true,
            Self::Only(queues) => queues.contains(&lane.queue),
            Self::AllBut(queues) => !queues.contains(&lane.queue),
        }
    }
}

/// A claimed job's columns, `attempt` and `token` as given, without a body that is longer than `body_max`.
pub(super) fn claimed_columns(token: &str, attempt: &str, body_max: usize) -> String {
    format!(
        "j.id, {token}, j.queue, j.method, j.url, j.headers,
         IF(OCTET_LENGTH(j.body) <= {body_max}, j.body, NULL),
         COALESCE(OCTET_LENGTH(j.body), 0), {attempt}, j.max_attempts, j.hand_backs, j.deadline_ms, {}, {}",
        micros_of!("j.scheduled_at"),
        particulars(attempt)
    )
}

/// What few jobs say, as JSON; NULL: nothing. What they do not say themselves is their queue's to say. The status in the row is that of
/// the attempt before this one when this one is being claimed, or runs.
fn particulars(attempt: &str) -> String {
    let previous = format!(
        "IF({attempt} > 1 AND (j.state = 'running' OR {attempt} > j.attempt), j.last_status, NULL)"
    );
    format!(
        "CONVERT(IF(
            COALESCE(j.retry_wait_ms, j.retry_wait_max_ms, j.asynchronous, j.schedule, j.batch, j.parent, {previous}) IS NOT NULL
            OR EXISTS (
                SELECT 1 FROM turnwise_queues q WHERE q.name = j.queue
                    AND COALESCE(q.retry_wait_ms, q.retry_wait_max_ms, q.permanent_statuses, q.slow_down_ms) IS NOT NULL),
            JSON_OBJECT(
                'retry_wait_ms', COALESCE(j.retry_wait_ms,
                    (SELECT q.retry_wait_ms FROM turnwise_queues q WHERE q.name = j.queue)),
                'retry_wait_max_ms', COALESCE(j.retry_wait_max_ms,
                    (SELECT q.retry_wait_max_ms FROM turnwise_queues q WHERE q.name = j.queue)),
                'permanent', (SELECT q.permanent_statuses FROM turnwise_queues q WHERE q.name = j.queue),
                'slow_down_ms', (SELECT q.slow_down_ms FROM turnwise_queues q WHERE q.name = j.queue),
                'asynchronous', j.asynchronous, 'heartbeat_ms', j.heartbeat_ms, 'schedule', j.schedule,
                'batch', j.batch, 'parent', j.parent, 'previous_status', {previous}),
            NULL) USING utf8mb4)"
    )
}

/// Jobs that are locked for a claim, and what is to be written of them.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) jobs: Vec<ClaimedJob>,
    unreadable: Vec<Unreadable<String>>,
    claim: Option<(NodeId, Token, ServerInstant)>,
    /// How far each lane was taken.
    pub(super) reached: BTreeMap<Lane, Mark>,
    /// There may be more that are due than were taken.
    pub(super) more: bool,
    /// What was left behind because of a limit.
    pub(super) kept: Kept,
    /// What is to be stored of the limits.
    pub(super) entered: Vec<String>,
}

impl Taken {
    /// How many rows were claimed, whatever stands in them.
    pub(super) fn count(&self) -> usize {
        self.jobs.len() + self.unreadable.len()
    }

    /// What marks them as claimed, in an update of other rows: a table to join and what to set.
    pub(super) fn mark(&self) -> Option<(String, String)> {
        let (node, token, at) = self.claim.filter(|_| self.count() > 0)?;
        let ids: Vec<String> = self.jobs.iter().map(|job| format!("'{}'", job.id)).collect();
        let bad = self.unreadable.iter().map(|row| text(&row.id));
        let ids: Vec<String> = ids.into_iter().chain(bad).collect();
        let join = format!(
            " LEFT JOIN turnwise_jobs j FORCE INDEX (PRIMARY) ON j.id IN ({})",
            ids.join(", ")
        );
        let set = format!(
            "j.state = 'running', j.node = '{node}', j.token = {}, j.started_at = {},
             j.attempt = j.attempt + 1, j.awaits_since = NULL, j.progress = NULL, j.progress_note = NULL",
            token.0,
            instant(at.as_micros())
        );
        Some((join, set))
    }

    /// What marks them, by itself.
    fn marked(&self) -> Option<String> {
        self.mark().map(|(join, set)| {
            let (table, which) = join.trim_start_matches(" LEFT JOIN ").split_once(" ON ")?;
            Some(format!("UPDATE {table} SET {set} WHERE {which}"))
        })?
    }

    /// What ends those that cannot be read, once they are claimed.
    pub(super) fn buried(&self, at: ServerInstant) -> Vec<String> {
        self.unreadable.iter().flat_map(|row| bury(row, at)).collect()
    }
}

/// What ends a running job by its row, whatever stands in it.
fn bury(row: &Unreadable<String>, at: ServerInstant) -> [String; 2] {
    let (id, error, at) = (text(&row.id), text(&row.error), instant(at.as_micros()));
    [
        attempts_of(&format!("j.id = {id}"), &at, &error),
        format!(
            "UPDATE turnwise_jobs SET
                state = 'dead', finished_at = {at}, last_status = NULL, last_error = {error}
             WHERE id = {id} AND state = 'running'"
        ),
    ]
}

/// Lock up to as many jobs as the claim may take that are due at `due`, the longest waiting first, where each point of
/// priority counts as ten seconds of waiting. Looks at the heads of the given lanes without a lock, and then locks them
/// one after the other until it has enough. What others hold is passed over.
///
/// Of a queue that has limits no more are taken than there is room. Their bodies come to no more than `bytes_max`. Which rows the server will lock is not known before, so it sends with them
/// only bodies that fit however many there are; longer ones are asked for when the rows are there, of those that are taken.
pub(super) async fn take(
    connection: &mut MySqlConnection,
    node: NodeId,
    claim: Claim,
    queues: &Queues,
    found: &Found,
    (due, at): (ServerInstant, ServerInstant),
    bytes_max: usize,
) -> Result<Taken, Trouble> {
    let heads: Vec<&Head> =
        found.heads.iter().filter(|head| head.is_due && queues.have(&head.lane)).collect();
    if heads.is_empty() || claim.limit == 0 {
        return Ok(Taken::default());
    }
    let limited: BTreeSet<&String> = heads.iter().map(|head| &head.lane.queue).collect();
    let limited: Vec<&String> =
        limited.into_iter().filter(|queue| found.limited.contains(*queue)).collect();
    let rooms = match limited.is_empty() {
        true => BTreeMap::new(),
        false => limits::rooms(connection, &limited, (due, at)).await?,
    };
    let mut within = Within::new(rooms.clone());
    limited.into_iter().for_each(|queue| within.may_refuse(queue.clone()));
    let due = instant(due.as_micros());
    let look = claim.limit.saturating_add(SPARE);
    let held_back = is_held_back(&instant(at.as_micros()));
    let is_barred = |queue: &str| {
        format!(
            "EXISTS (SELECT 1 FROM turnwise_queues q WHERE q.name = {} AND (q.paused_at IS NOT NULL OR {held_back}))",
            text(queue)
        )
    };
    // From the first on that was seen there: what lies before it may be long.
    let head = |Head { lane, first_us, .. }: &Head| {
        format!(
            "(SELECT id, scheduled_at - INTERVAL {} SECOND AS place
                  FROM turnwise_jobs FORCE INDEX (turnwise_jobs_queued)
                  WHERE state = 'queued' AND queue = {} AND priority = {}
                    AND scheduled_at BETWEEN {} AND {due} AND NOT {}
                  ORDER BY scheduled_at, id LIMIT {look})",
            lane.priority * PRIORITY_SECONDS,
            text(&lane.queue),
            lane.priority,
            instant(*first_us),
            is_barred(&lane.queue)
        )
    };
    let (free, bound): (Vec<&Head>, Vec<&Head>) =
        heads.into_iter().partition(|head| !rooms.contains_key(&head.lane.queue));
    let mut sources: Vec<String> = free.into_iter().map(head).collect();
    let mut entered = Vec::new();
    for (number, (queue, room)) in rooms.iter().enumerate() {
        let lanes = bound.iter().copied().filter(|head| head.lane.queue == *queue);
        if room.per_key().is_some() {
            let (lanes, is_barred): (Vec<&Head>, _) = (lanes.collect(), is_barred(queue));
            let times = (due.as_str(), is_barred.as_str());
            let found = keys::within(connection, &lanes, room, times, claim.limit).await?;
            if found.others_wait {
                within.refuses_keys(queue.clone());
            }
            sources.extend(of_ids(&found.ids));
            entered.extend(found.entered);
            continue;
        }
        let lanes: Vec<String> = lanes.map(head).collect();
        if room.jobs() > 0 {
            sources.push(format!(
                "(SELECT q{number}.id, q{number}.place FROM ({}) q{number} ORDER BY q{number}.place, q{number}.id LIMIT {})",
                lanes.join(" UNION ALL "),
                room.jobs().min(look)
            ));
        }
    }
    if sources.is_empty() {
        let entry = within.took(std::iter::empty());
        return Ok(Taken {
            kept: entry.kept,
            entered: entered.into_iter().chain(limits::entered(&entry)).collect(),
            ..Taken::default()
        });
    }
    let with_the_row = (bytes_max / claim.limit as usize).min(BODY_BYTES_MAX);
    let columns = claimed_columns(&claim.token.0.to_string(), "j.attempt + 1", with_the_row);
    let mut rows = rows_of(
        connection,
        format!(
            "SELECT {columns}, j.priority FROM ({}) h STRAIGHT_JOIN turnwise_jobs j FORCE INDEX (PRIMARY) ON j.id = h.id
             WHERE j.state = 'queued' ORDER BY h.place, h.id LIMIT {} FOR UPDATE SKIP LOCKED",
            sources.join(" UNION ALL "),
            claim.limit
        ),
    )
    .await?;
    let is_full = rows.len() >= claim.limit as usize;
    let fitting = claim_bytes::fitting(rows.iter().map(body_bytes), bytes_max);
    // What is locked and not taken is free again with the commit.
    let more = is_full || fitting < rows.len();
    rows.truncate(fitting);
    let (mut jobs, unreadable) = sifted(&rows)?;
    fetch_long_bodies(connection, &mut jobs).await?;
    // They are in the order of each lane.
    let reached: Vec<(Lane, Mark)> = rows.iter().filter_map(|row| reached(row).ok()).collect();
    let entry = within.took(reached.iter().map(|(lane, _)| &lane.queue));
    let by_keys = |queue: &String| rooms.get(queue).is_some_and(|room| room.per_key().is_some());
    Ok(Taken {
        jobs,
        unreadable,
        claim: Some((node, claim.token, at)),
        // (A lane of which jobs wait for their keys is looked at from where it began.)
        reached: reached.into_iter().filter(|(lane, _)| !by_keys(&lane.queue)).collect(),
        more,
        kept: entry.kept,
        entered: entered.into_iter().chain(limits::entered(&entry)).collect(),
    })
}

/// These jobs and their places, as a source of a claim; none when there are none.
fn of_ids(ids: &[String]) -> Option<String> {
    let quoted: Vec<String> = ids.iter().map(|id| text(id)).collect();
    (!ids.is_empty()).then(|| {
        format!(
            "(SELECT id, scheduled_at - INTERVAL (priority * {PRIORITY_SECONDS}) SECOND AS place
              FROM turnwise_jobs FORCE INDEX (PRIMARY) WHERE id IN ({}))",
            quoted.join(", ")
        )
    })
}

/// How long a row's body is, whether it was sent or not.
fn body_bytes(row: &MySqlRow) -> usize {
    row.try_get::<i64, _>(7).map_or(0, |bytes| usize::try_from(bytes).unwrap_or(0))
}

/// The bodies that did not come with their rows and are not too long. The rows are locked.
async fn fetch_long_bodies(
    connection: &mut MySqlConnection,
    jobs: &mut [ClaimedJob],
) -> Result<(), Trouble> {
    let lacks = |job: &ClaimedJob| {
        job.body.is_none() && (1..=BODY_BYTES_MAX as u64).contains(&job.body_bytes)
    };
    let ids: Vec<String> =
        jobs.iter().filter(|job| lacks(job)).map(|job| format!("'{}'", job.id)).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let rows = rows_of(
        connection,
        format!("SELECT id, body FROM turnwise_jobs WHERE id IN ({}) FOR UPDATE", ids.join(", ")),
    )
    .await?;
    let mut bodies = BTreeMap::new();
    for row in rows {
        let body: Option<Vec<u8>> = row.try_get(1)?;
        bodies.insert(rows::job_id(row.try_get(0)?)?, body);
    }
    for job in jobs.iter_mut().filter(|job| lacks(job)) {
        job.body = bodies.remove(&job.id).flatten().map(Bytes::from);
    }
    Ok(())
}

/// The lane of a row that was taken, and the place in it.
fn reached(row: &MySqlRow) -> Result<(Lane, Mark), Trouble> {
    let lane = Lane { queue: row.try_get(2)?, priority: row.try_get(14)? };
    Ok((lane, Mark::behind(row.try_get(12)?, rows::job_id(row.try_get(0)?)?)))
}

/// The jobs in these rows, and the rows that cannot be read.
fn sifted(rows: &[MySqlRow]) -> Result<(Vec<ClaimedJob>, Vec<Unreadable<String>>), Trouble> {
    let (mut jobs, mut unreadable) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in rows {
        match claimed_job(row) {
            Ok(job) => jobs.push(job),
            Err(trouble) => unreadable.push(Unreadable::new(row.try_get(0)?, &trouble)),
        }
    }
    Ok((jobs, unreadable))
}

pub(super) fn claimed_job(row: &MySqlRow) -> Result<ClaimedJob, Trouble> {
    rows::claimed_job((
        row.try_get(0)?,
        row.try_get(1)?,
        row.try_get(2)?,
        row.try_get(3)?,
        row.try_get(4)?,
        row.try_get(5)?,
        row.try_get(6)?,
        row.try_get(7)?,
        row.try_get(8)?,
        row.try_get(9)?,
        row.try_get(10)?,
        row.try_get(11)?,
        row.try_get(12)?,
        row.try_get(13)?,
    ))
}

impl MySqlStore {
    pub(super) async fn claim_jobs(
        &self,
        node: NodeId,
        claim: Claim,
        queues: &Queues,
        report: &NodeReport,
    ) -> Result<Claimed, StoreError> {
        let clock = &self.inner.clock;
        let look = self.inner.lanes.look();
        let more = format!("SELECT {}", lanes::probes(&look, clock));
        let (mut session, head) = self.locked(self.session().await?, node, &more).await?;
        let Some(head) = head else { return self.lost(session).await };
        let (mut taken, mut found) = (Taken::default(), None);
        if claim.token.0 >= head.lowest {
            let listed: String = self.column(self.one(&head.rows)?, 0)?;
            let Line { session, bond } = &mut *session;
            let connection = &mut session.connection;
            let taking = async {
                let times = (head.at, head.at);
                let lanes = self.inner.lanes.found(connection, &look, &listed, clock).await?;
                let taken =
                    take(connection, node, claim, queues, &lanes, times, CLAIM_BYTES_MAX).await?;
                Ok::<_, Trouble>((taken, Some(lanes)))
            };
            let taking = bond.carry(taking).await;
            (taken, found) = taking.map_err(|trouble| self.trouble(trouble))?;
        }
        let mut statements = Vec::new();
        if head.wants_check_in {
            statements.push(head.renewed(node, Some(report), &[]));
        }
        statements.extend(taken.marked());
        statements.append(&mut taken.entered);
        statements.extend(taken.buried(head.at));
        self.commit(session, statements).await?;
        if let Some(found) = found {
            self.inner.lanes.saw(&look, found, taken.reached, head.at);
        }
        Ok(Claimed {
            jobs: taken.jobs,
            more: taken.more,
            kept: taken.kept,
            check_in: CheckIn::Alive,
        })
    }

    pub(super) async fn recover_jobs(
        &self,
        node: NodeId,
        token: Token,
        report: &NodeReport,
    ) -> Result<Claimed, StoreError> {
        // No lock: nobody but this node ends them while it lives.
        let more = format!(
            "SELECT {} FROM turnwise_jobs j FORCE INDEX (turnwise_jobs_running)
             WHERE j.state = 'running' AND j.node = {} AND j.token = {}
             ORDER BY j.scheduled_at - INTERVAL (j.priority * {PRIORITY_SECONDS}) SECOND, j.id",
            claimed_columns("j.token", "j.attempt", BODY_BYTES_MAX),
            literals::node(node),
            token.0
        );
        let (session, head) = self.locked(self.session().await?, node, &more).await?;
        let Some(head) = head else { return self.lost(session).await };
        let (jobs, unreadable) = sifted(&head.rows).map_err(|trouble| self.trouble(trouble))?;
        let mut statements = vec![head.renewed(node, Some(report), &[bar(token)])];
        statements.extend(unreadable.iter().flat_map(|row| bury(row, head.at)));
        self.commit(session, statements).await?;
        Ok(Claimed { jobs, ..Claimed::default() })
    }
}
