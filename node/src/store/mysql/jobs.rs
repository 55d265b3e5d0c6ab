//! Statements on the jobs: claim, rescue, recover, end, enqueue, and what people ask and order. What a row becomes is
//! decided here, from what was read under its lock.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{FromRow, Row};
use turnwise_engine::{Claim, NodeId, Period, ServerInstant, Token};

use super::lanes::Lane;
use super::literals::{self, bytes_or_null, instant, list, number_or_null, text, text_or_null};
use super::session::Session;
use super::{MySqlStore, PACKET_BYTES_MAX, check_in, micros_of, rows_of};
use crate::job::{
    AttemptView, BODY_BYTES_MAX, ClaimedJob, End, EndOutcome, HAND_BACKS_MAX, JobFate, JobFilter,
    JobId, JobState, JobView, NewJob, When,
};
use crate::store::connections::Lent;
use crate::store::errors::Trouble;
use crate::store::rows::{
    self, AttemptColumns, END_UNKNOWN, JobColumns, NOT_RECEIVED, Unreadable, headers_json, micros,
    storable,
};
use crate::store::servers::Line;
use crate::store::{CheckIn, Claimed, NodeReport, Queues, StoreError};

/// What a point of priority is worth, in seconds of waiting.
const PRIORITY_SECONDS: i64 = 10;
/// How many jobs beyond those that it may take a claim looks at, for those that others have locked.
const SPARE: u32 = 256;
/// How many jobs of lost nodes a beat frees.
const RESCUED_MAX: i64 = 1_000;
/// The error of an attempt whose node was lost.
const NODE_LOST: &str = "node lost";

impl Queues {
    fn have(&self, lane: &Lane) -> bool {
        match self {
            Self::All => true,
            Self::Only(queues) => queues.contains(&lane.queue),
            Self::AllBut(queues) => !queues.contains(&lane.queue),
        }
    }
}

/// A claimed job's columns, `attempt` and `token` as given.
fn claimed_columns(token: &str, attempt: &str) -> String {
    format!(
        "j.id, {token}, j.queue, j.method, j.url, j.headers,
         IF(OCTET_LENGTH(j.body) <= {BODY_BYTES_MAX}, j.body, NULL),
         COALESCE(OCTET_LENGTH(j.body), 0), {attempt}, j.max_attempts, j.hand_backs, j.deadline_ms, {}",
        micros_of!("j.scheduled_at")
    )
}

/// Jobs that are locked for a claim, and what is to be written of them.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) jobs: Vec<ClaimedJob>,
    unreadable: Vec<Unreadable<String>>,
    claim: Option<(NodeId, Token, ServerInstant)>,
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
             j.attempt = j.attempt + 1",
            token.0,
            instant(at.as_micros())
        );
        Some((join, set))
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

/// What writes the attempts of running jobs that end now without an answer.
fn attempts_of(which: &str, at: &str, error: &str) -> String {
    format!(
        "INSERT INTO turnwise_attempts (job, node, token, attempt, started_at, finished_at, error)
         SELECT j.id, j.node, j.token, j.attempt, j.started_at, {at}, {error}
         FROM turnwise_jobs j FORCE INDEX (PRIMARY) WHERE {which}
         ON DUPLICATE KEY UPDATE job = turnwise_attempts.job"
    )
}

/// Lock up to as many jobs as the claim may take that are due at `due`, the longest waiting first, where each point of
/// priority counts as ten seconds of waiting. Looks at the heads of the given lanes without a lock, and then locks them
/// one after the other until it has enough: no more rows than are taken. What others hold is passed over.
pub(super) async fn take(
    connection: &mut MySqlConnection,
    node: NodeId,
    claim: Claim,
    queues: &Queues,
    lanes: &[Lane],
    due: ServerInstant,
    at: ServerInstant,
) -> Result<Taken, Trouble> {
    let due = instant(due.as_micros());
    let look = claim.limit.saturating_add(SPARE);
    let heads: Vec<String> = lanes
        .iter()
        .filter(|lane| queues.have(lane))
        .map(|lane| {
            format!(
                "(SELECT id, scheduled_at - INTERVAL {} SECOND AS place
                  FROM turnwise_jobs FORCE INDEX (turnwise_jobs_queued)
                  WHERE state = 'queued' AND queue = {} AND priority = {} AND scheduled_at <= {due}
                  ORDER BY scheduled_at, id LIMIT {look})",
                lane.priority * PRIORITY_SECONDS,
                text(&lane.queue),
                lane.priority
            )
        })
        .collect();
    if heads.is_empty() || claim.limit == 0 {
        return Ok(Taken::default());
    }
    let columns = claimed_columns(&claim.token.0.to_string(), "j.attempt + 1");
    let found = rows_of(
        connection,
        format!(
            "SELECT {columns} FROM ({}) h STRAIGHT_JOIN turnwise_jobs j FORCE INDEX (PRIMARY) ON j.id = h.id
             WHERE j.state = 'queued' ORDER BY h.place, h.id LIMIT {} FOR UPDATE SKIP LOCKED",
            heads.join(" UNION ALL "),
            claim.limit
        ),
    )
    .await?;
    let (jobs, unreadable) = sifted(&found)?;
    Ok(Taken { jobs, unreadable, claim: Some((node, claim.token, at)) })
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

fn claimed_job(row: &MySqlRow) -> Result<ClaimedJob, Trouble> {
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
    ))
}

/// The clock was set back to `at`: what was due then is due now, and a wait stays as long as it was. What an app holds
/// is passed over.
pub(super) async fn step_back(
    connection: &mut MySqlConnection,
    at: ServerInstant,
) -> Result<(), Trouble> {
    let at = instant(at.as_micros());
    // The limit keeps the server from making one query of the two, which would lock what it looks at.
    let later = rows_of(
        connection,
        format!(
            "SELECT j.id FROM (
                SELECT id FROM turnwise_jobs WHERE state = 'queued' AND queued_at > {at} LIMIT 1000000000
             ) l STRAIGHT_JOIN turnwise_jobs j FORCE INDEX (PRIMARY) ON j.id = l.id
             WHERE j.state = 'queued' AND j.queued_at > {at} FOR UPDATE SKIP LOCKED"
        ),
    )
    .await?;
    for some in ids(&later)?.chunks(1_000) {
        // The columns are set one after the other, each by what those before it have become.
        rows_of(
            connection,
            format!(
                "UPDATE turnwise_jobs FORCE INDEX (PRIMARY) SET
                    scheduled_at = CASE
                        WHEN attempt > 0
                        THEN TIMESTAMPADD(MICROSECOND, TIMESTAMPDIFF(MICROSECOND, queued_at, {at}), scheduled_at)
                        WHEN scheduled_at <= queued_at THEN LEAST(scheduled_at, {at})
                        ELSE scheduled_at END,
                    queued_at = {at}
                 WHERE id IN {}",
                list(some.iter().map(String::as_str))
            ),
        )
        .await?;
    }
    Ok(())
}

fn ids(rows: &[MySqlRow]) -> Result<Vec<String>, Trouble> {
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Declare lost those of the nodes whose lease has run out, and free up to a thousand jobs of lost and unknown nodes
/// among them. Whether any was freed.
pub(super) async fn rescue(
    connection: &mut MySqlConnection,
    at: ServerInstant,
    holders: &[String],
) -> Result<bool, Trouble> {
    let at = instant(at.as_micros());
    let suspects = list(holders.iter().map(String::as_str));
    let alive = rows_of(
        connection,
        format!(
            "UPDATE turnwise_nodes FORCE INDEX (PRIMARY) SET state = 'lost'
             WHERE id IN {suspects} AND state <> 'lost' AND lease_until < {at};
             SELECT id FROM turnwise_nodes WHERE id IN {suspects} AND state <> 'lost'"
        ),
    )
    .await?;
    let alive: BTreeSet<String> = ids(&alive)?.into_iter().collect();
    let dead: Vec<&str> =
        holders.iter().map(String::as_str).filter(|node| !alive.contains(*node)).collect();
    if dead.is_empty() {
        return Ok(false);
    }
    let orphans = rows_of(
        connection,
        format!(
            "SELECT j.id FROM turnwise_jobs j FORCE INDEX (turnwise_jobs_running)
             WHERE j.state = 'running' AND j.node IN {} LIMIT {RESCUED_MAX} FOR UPDATE SKIP LOCKED",
            list(dead)
        ),
    )
    .await?;
    if orphans.is_empty() {
        return Ok(false);
    }
    let orphans = ids(&orphans)?;
    let orphans = list(orphans.iter().map(String::as_str));
    let error = text(NODE_LOST);
    rows_of(connection, attempts_of(&format!("j.id IN {orphans}"), &at, &error)).await?;
    rows_of(
        connection,
        format!(
            "UPDATE turnwise_jobs FORCE INDEX (PRIMARY) SET
                state = CASE
                    WHEN cancel_requested THEN 'cancelled'
                    WHEN attempt >= max_attempts THEN 'dead'
                    ELSE 'queued' END,
                finished_at = CASE WHEN cancel_requested OR attempt >= max_attempts THEN {at} END,
                scheduled_at = LEAST(scheduled_at, {at}), queued_at = {at},
                last_status = NULL, last_error = {error}
             WHERE id IN {orphans}"
        ),
    )
    .await?;
    Ok(true)
}

/// What an operation of a node finds: its row is locked.
pub(super) struct Locked {
    at: ServerInstant,
    period: Period,
    /// The lowest token that may still claim.
    lowest: i64,
    /// What the operation asked for besides.
    rows: Vec<MySqlRow>,
}

impl Locked {
    /// What renews the lease, and sets more in the node's row, called `n`.
    pub(super) fn renewed(
        &self,
        node: NodeId,
        report: Option<&NodeReport>,
        more: &[String],
    ) -> String {
        let mut set = check_in(self.at, self.period, report);
        for more in more {
            set.push_str(&format!(", {more}"));
        }
        format!("UPDATE turnwise_nodes n SET {set} WHERE n.id = {}", literals::node(node))
    }
}

/// No claim with this token or an earlier one may take anything from now on.
fn bar(token: Token) -> String {
    format!("n.token_floor = GREATEST(n.token_floor, {})", token.0.saturating_add(1))
}

impl MySqlStore {
    /// Begin a transaction by locking the row of a node, and ask `more` within it. None when the node is not known or was
    /// declared lost: there is no lock then.
    pub(super) async fn locked(
        &self,
        session: Lent<Line<Session>>,
        node: NodeId,
        more: &str,
    ) -> Result<(Lent<Line<Session>>, Option<Locked>), StoreError> {
        let sql = format!(
            "SELECT {}, (SELECT coalesce(t.period_ms, 1000) FROM turnwise_turn t WHERE t.id = 1),
                n.token_floor, 'node', 'is', 'here'
             FROM turnwise_nodes n WHERE n.id = {} AND n.state <> 'lost' FOR UPDATE; {more}",
            self.now(),
            literals::node(node)
        );
        let (session, mut found) = self.begin(session, sql.trim_end_matches("; ")).await?;
        let is_here = |row: &MySqlRow| row.try_get::<String, _>(5).is_ok_and(|word| word == "here");
        if !found.first().is_some_and(is_here) {
            return Ok((session, None));
        }
        let first = found.remove(0);
        let locked = Locked {
            at: ServerInstant::from_micros(self.column(&first, 0)?),
            period: rows::period(self.column(&first, 1)?)
                .map_err(|trouble| self.trouble(trouble))?,
            lowest: self.column(&first, 2)?,
            rows: found,
        };
        Ok((session, Some(locked)))
    }

    pub(super) async fn claim_jobs(
        &self,
        node: NodeId,
        claim: Claim,
        queues: &Queues,
        report: &NodeReport,
    ) -> Result<Claimed, StoreError> {
        let clock = &self.inner.clock;
        let more = format!("SELECT {}", self.inner.lanes.probes(clock));
        let (mut session, head) = self.locked(self.session().await?, node, &more).await?;
        let Some(head) = head else { return self.lost(session).await };
        let mut taken = Taken::default();
        if claim.token.0 >= head.lowest {
            let listed: String = self.column(self.one(&head.rows)?, 0)?;
            let Line { session, bond } = &mut *session;
            let connection = &mut session.connection;
            let taking = async {
                let lanes = self.inner.lanes.due(connection, &listed, clock).await?;
                take(connection, node, claim, queues, &lanes, head.at, head.at).await
            };
            taken = bond.carry(taking).await.map_err(|trouble| self.trouble(trouble))?;
        }
        let mut tables = "turnwise_nodes n".to_owned();
        let mut set = check_in(head.at, head.period, Some(report));
        if let Some((join, mark)) = taken.mark() {
            tables.push_str(&join);
            set.push_str(&format!(", {mark}"));
        }
        let update = format!("UPDATE {tables} SET {set} WHERE n.id = {}", literals::node(node));
        let mut statements = vec![update];
        statements.extend(taken.buried(head.at));
        self.commit(session, statements).await?;
        Ok(Claimed { jobs: taken.jobs, check_in: CheckIn::Alive })
    }

    /// End the transaction of a node that is not known.
    async fn lost(&self, session: Lent<Line<Session>>) -> Result<Claimed, StoreError> {
        self.commit(session, Vec::new()).await?;
        Ok(Claimed { jobs: Vec::new(), check_in: CheckIn::Lost })
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
            claimed_columns("j.token", "j.attempt"),
            literals::node(node),
            token.0
        );
        let (session, head) = self.locked(self.session().await?, node, &more).await?;
        let Some(head) = head else { return self.lost(session).await };
        let (jobs, unreadable) = sifted(&head.rows).map_err(|trouble| self.trouble(trouble))?;
        let mut statements = vec![head.renewed(node, Some(report), &[bar(token)])];
        statements.extend(unreadable.iter().flat_map(|row| bury(row, head.at)));
        self.commit(session, statements).await?;
        Ok(Claimed { jobs, check_in: CheckIn::Alive })
    }

    pub(super) async fn release_jobs(
        &self,
        node: NodeId,
        token: Token,
        report: &NodeReport,
    ) -> Result<CheckIn, StoreError> {
        let holds = |_: &str, held: i64| held != token.0;
        let session = self.session().await?;
        self.put_back(session, node, token, &holds, NOT_RECEIVED, report).await
    }

    pub(super) async fn reconcile_jobs(
        &self,
        node: NodeId,
        holds: &[(JobId, Token)],
        last: Token,
        report: &NodeReport,
    ) -> Result<Claimed, StoreError> {
        let held: BTreeSet<(String, i64)> =
            holds.iter().map(|(job, token)| (job.to_string(), token.0)).collect();
        let holds = |job: &str, token: i64| held.contains(&(job.to_owned(), token));
        let session = self.new_session().await?;
        let check_in = self.put_back(session, node, last, &holds, END_UNKNOWN, report).await?;
        Ok(Claimed { jobs: Vec::new(), check_in })
    }

    /// Bar a token and all before it, and put the jobs that run under the node and such a token, but for those that it
    /// `holds`, back into the queue: the attempt not spent, up to ten hand-backs.
    async fn put_back(
        &self,
        session: Lent<Line<Session>>,
        node: NodeId,
        last: Token,
        holds: &(dyn Fn(&str, i64) -> bool + Sync),
        reason: &str,
        report: &NodeReport,
    ) -> Result<CheckIn, StoreError> {
        let more = format!(
            "SELECT j.id, j.token FROM turnwise_jobs j FORCE INDEX (turnwise_jobs_running)
             WHERE j.state = 'running' AND j.node = {} AND j.token <= {} FOR UPDATE",
            literals::node(node),
            last.0
        );
        let (session, head) = self.locked(session, node, &more).await?;
        let Some(head) = head else {
            return self.lost(session).await.map(|claimed| claimed.check_in);
        };
        let mut back = Vec::new();
        for row in &head.rows {
            let id: String = self.column(row, 0)?;
            if !holds(&id, self.column(row, 1)?) {
                back.push(id);
            }
        }
        let mut statements = vec![head.renewed(node, Some(report), &[bar(last)])];
        for some in back.chunks(1_000) {
            let some = list(some.iter().map(String::as_str));
            let (at, reason) = (instant(head.at.as_micros()), text(reason));
            statements.push(attempts_of(&format!("j.id IN {some}"), &at, &reason));
            // The columns are set one after the other, each by what those before it have become.
            statements.push(format!(
                "UPDATE turnwise_jobs FORCE INDEX (PRIMARY) SET
                    state = CASE
                        WHEN cancel_requested THEN 'cancelled'
                        WHEN hand_backs >= {HAND_BACKS_MAX} AND attempt >= max_attempts THEN 'dead'
                        ELSE 'queued' END,
                    finished_at = CASE
                        WHEN cancel_requested OR hand_backs >= {HAND_BACKS_MAX} AND attempt >= max_attempts
                        THEN {at} END,
                    attempt = CASE
                        WHEN hand_backs >= {HAND_BACKS_MAX} THEN attempt ELSE GREATEST(attempt - 1, 0) END,
                    hand_backs = CASE
                        WHEN hand_backs >= {HAND_BACKS_MAX} THEN hand_backs ELSE hand_backs + 1 END,
                    queued_at = {at}, last_status = NULL, last_error = {reason}
                 WHERE id IN {some}"
            ));
        }
        self.commit(session, statements).await?;
        Ok(CheckIn::Alive)
    }

    pub(super) async fn end_jobs(
        &self,
        node: NodeId,
        ends: &[End],
    ) -> Result<(Vec<EndOutcome>, CheckIn), StoreError> {
        let more = if ends.is_empty() { String::new() } else { ending(node, ends) };
        let (session, head) = self.locked(self.session().await?, node, &more).await?;
        let Some(head) = head else {
            self.commit(session, Vec::new()).await?;
            self.count_stale(ends.len()).await;
            return Ok((vec![EndOutcome::Stale; ends.len()], CheckIn::Lost));
        };
        let mut ended = Ended::new(node, head.at);
        ended.read(&head.rows).map_err(|trouble| self.trouble(trouble))?;
        let outcomes: Vec<EndOutcome> = ends.iter().map(|end| ended.end(end)).collect();
        let mut statements = vec![head.renewed(node, None, &[])];
        statements.append(&mut ended.statements());
        self.commit(session, statements).await?;
        let stale = outcomes.iter().filter(|outcome| **outcome == EndOutcome::Stale).count();
        self.count_stale(stale).await;
        Ok((outcomes, CheckIn::Alive))
    }

    /// A statement of its own, since the turn row is never locked after a node's. The ends stand without it, so its
    /// failure is only told.
    async fn count_stale(&self, stale: usize) {
        if stale == 0 {
            return;
        }
        let counted = self
            .run(format!("UPDATE turnwise_turn SET stale_ends = stale_ends + {stale} WHERE id = 1"))
            .await;
        if let Err(error) = counted {
            tracing::warn!(%error, stale, "stale ends were not counted");
        }
    }

    pub(super) async fn enqueue_jobs(&self, jobs: &[NewJob]) -> Result<(), StoreError> {
        if jobs.is_empty() {
            return Ok(());
        }
        rows::check_lengths(jobs)?;
        let clock = format!("SELECT {}", self.now());
        let (session, found) = self.begin(self.session().await?, &clock).await?;
        let now: i64 = self.column(self.one(&found)?, 0)?;
        let rows = jobs.iter().map(|job| new_row(job, now));
        let statements = inserts(
            "INSERT INTO turnwise_jobs
                (id, queue, method, url, headers, body, priority, scheduled_at, created_at,
                queued_at, max_attempts, deadline_ms) VALUES ",
            rows,
            // An id that exists already, and no other error, is passed over.
            " ON DUPLICATE KEY UPDATE id = turnwise_jobs.id",
        );
        self.commit(session, statements).await
    }

    pub(super) async fn list_jobs(&self, filter: &JobFilter) -> Result<Vec<JobView>, StoreError> {
        let mut which = state_condition(filter.state).to_owned();
        if let Some(queue) = &filter.queue {
            which.push_str(&format!(" AND j.queue = {}", text(queue)));
        }
        if let Some(before) = filter.before {
            which.push_str(&format!(" AND j.id < '{before}'"));
        }
        if let Some(from) = filter.from {
            which.push_str(&format!(" AND j.id >= '{from}'"));
        }
        let found = self.run(self.views(&which, filter.limit)).await?;
        let view = |row: &MySqlRow| rows::job_view(JobColumns::from_row(row)?);
        let id = |row: &MySqlRow| row.try_get(0).ok();
        Ok(rows::readable_views(found.iter().map(|row| (id(row), view(row)))))
    }

    /// Jobs for people, the newest first.
    fn views(&self, which: &str, limit: u32) -> String {
        format!(
            "SELECT j.id, j.queue, j.method, j.url, j.state, j.priority, j.attempt, j.max_attempts, {}, {}, {},
                j.node, j.last_status, j.last_error, {}
             FROM (SELECT {} AS now LIMIT 1) c, turnwise_jobs j
             WHERE {which} ORDER BY j.id DESC LIMIT {limit}",
            micros_of!("j.scheduled_at"),
            micros_of!("j.created_at"),
            micros_of!("j.finished_at"),
            micros_of!("c.now"),
            self.inner.clock,
        )
    }

    pub(super) async fn show_job(
        &self,
        id: JobId,
    ) -> Result<Option<(JobView, Vec<AttemptView>)>, StoreError> {
        let found = self.run(self.views(&format!("j.id = '{id}'"), 1)).await?;
        let Some(row) = found.first() else { return Ok(None) };
        let job = JobColumns::from_row(row).map_err(Trouble::from).and_then(rows::job_view);
        let job = job.map_err(|trouble| self.trouble(trouble))?;
        let attempts = self
            .run(format!(
                "SELECT attempt, node, {started}, {finished} AS finished, status, error, answer
                 FROM turnwise_attempts WHERE job = '{id}'
                 UNION ALL
                 SELECT attempt, node, {started}, NULL, NULL, NULL, NULL
                 FROM turnwise_jobs WHERE id = '{id}' AND state = 'running'
                 ORDER BY attempt, finished IS NULL, finished",
                started = micros_of!("started_at"),
                finished = micros_of!("finished_at"),
            ))
            .await?;
        let attempts: Result<Vec<_>, Trouble> =
            attempts.iter().map(|row| rows::attempt_view(AttemptColumns::from_row(row)?)).collect();
        let attempts = attempts.map_err(|trouble| self.trouble(trouble))?;
        Ok(Some((job, attempts)))
    }

    pub(super) async fn retry_job(&self, id: JobId) -> Result<Option<bool>, StoreError> {
        self.alter_job(id, &["queued", "dead", "cancelled"], retry_set).await
    }

    pub(super) async fn cancel_job(&self, id: JobId) -> Result<Option<bool>, StoreError> {
        self.alter_job(id, &["queued", "running"], cancel_set).await
    }

    /// Alter one job, unless its state forbids it; whether it did. None when there is no such job.
    async fn alter_job(
        &self,
        id: JobId,
        allowed: &[&str],
        set: impl Fn(&str) -> String + Send,
    ) -> Result<Option<bool>, StoreError> {
        let read = format!(
            "SELECT j.state, {} FROM turnwise_jobs j WHERE j.id = '{id}' FOR UPDATE",
            self.now()
        );
        let (session, found) = self.begin(self.session().await?, &read).await?;
        let Some(row) = found.first() else {
            self.commit(session, Vec::new()).await?;
            return Ok(None);
        };
        let state: String = self.column(row, 0)?;
        let now = instant(self.column(row, 1)?);
        let allowed = allowed.contains(&state.as_str());
        let update = format!("UPDATE turnwise_jobs SET {} WHERE id = '{id}'", set(&now));
        self.commit(session, if allowed { vec![update] } else { Vec::new() }).await?;
        Ok(Some(allowed))
    }
}

/// What becomes of a job that is to run now.
pub(super) fn retry_set(now: &str) -> String {
    format!(
        "state = 'queued', scheduled_at = LEAST(scheduled_at, {now}), queued_at = {now},
         max_attempts = GREATEST(max_attempts, attempt + 1),
         hand_backs = 0, cancel_requested = 0, finished_at = NULL"
    )
}

/// What becomes of a job that is cancelled. The columns are set one after the other, each by what those before it have
/// become.
pub(super) fn cancel_set(now: &str) -> String {
    format!(
        "finished_at = CASE WHEN state = 'queued' THEN {now} END,
         state = CASE WHEN state = 'queued' THEN 'cancelled' ELSE state END,
         cancel_requested = 1"
    )
}

/// The values of a new job's row, enqueued at `now`, in microseconds.
fn new_row(job: &NewJob, now: i64) -> String {
    let scheduled_at = match job.when {
        When::Now => now,
        When::In(wait) => now.saturating_add(micros(wait)),
        When::At(instant) => instant.as_micros(),
    };
    let now = instant(now);
    format!(
        "('{}', {}, {}, {}, {}, {}, {}, {}, {now}, {now}, {}, {})",
        job.id,
        text(&job.queue),
        text(&job.method),
        text(&job.url),
        text_or_null(headers_json(&job.headers).as_deref()),
        bytes_or_null(job.body.as_deref()),
        job.priority,
        instant(scheduled_at),
        job.max_attempts,
        i64::try_from(job.deadline.as_millis()).unwrap_or(i64::MAX).max(1),
    )
}

/// Statements that insert these rows, none of them much longer than a packet may be.
fn inserts(insert: &str, rows: impl Iterator<Item = String>, behind: &str) -> Vec<String> {
    let (mut statements, mut values) = (Vec::new(), String::new());
    let full = |values: &mut String| format!("{insert}{}{behind}", std::mem::take(values));
    for row in rows {
        if !values.is_empty() && values.len() + row.len() > PACKET_BYTES_MAX / 2 {
            statements.push(full(&mut values));
        }
        if !values.is_empty() {
            values.push_str(", ");
        }
        values.push_str(&row);
    }
    if !values.is_empty() {
        statements.push(full(&mut values));
    }
    statements
}

/// Reads, and locks, what ends are about: the jobs that run under the node, and then the ends that were recorded before.
fn ending(node: NodeId, ends: &[End]) -> String {
    let ids: BTreeSet<String> = ends.iter().map(|end| format!("'{}'", end.job)).collect();
    let ids = ids.into_iter().collect::<Vec<_>>().join(", ");
    let node = literals::node(node);
    format!(
        "SELECT j.id, j.token, j.attempt, j.max_attempts, j.hand_backs, j.cancel_requested, {}
         FROM turnwise_jobs j FORCE INDEX (PRIMARY)
         WHERE j.id IN ({ids}) AND j.state = 'running' AND j.node = {node} FOR UPDATE;
         SELECT a.job, a.token FROM turnwise_attempts a FORCE INDEX (PRIMARY)
         WHERE a.job IN ({ids}) AND a.node = {node} AND NOT (a.error <=> {})",
        micros_of!("j.started_at"),
        text(NODE_LOST)
    )
}

/// A job that runs, as its end finds it.
struct Running {
    token: i64,
    attempt: i64,
    max_attempts: i64,
    hand_backs: i64,
    is_cancelled: bool,
    started_at: i64,
}

/// Ends, each by itself, and what is to be written of them.
struct Ended {
    node: NodeId,
    at: ServerInstant,
    running: BTreeMap<String, Running>,
    before: BTreeSet<(String, i64)>,
    attempts: Vec<String>,
    /// What is set in which jobs: many end alike.
    jobs: BTreeMap<String, Vec<String>>,
}

impl Ended {
    fn new(node: NodeId, at: ServerInstant) -> Self {
        Self {
            node,
            at,
            running: BTreeMap::new(),
            before: BTreeSet::new(),
            attempts: Vec::new(),
            jobs: BTreeMap::new(),
        }
    }

    fn read(&mut self, rows: &[MySqlRow]) -> Result<(), Trouble> {
        for row in rows {
            let (id, token) = (row.try_get(0)?, row.try_get(1)?);
            if row.len() == 2 {
                self.before.insert((id, token));
                continue;
            }
            let running = Running {
                token,
                attempt: row.try_get(2)?,
                max_attempts: row.try_get(3)?,
                hand_backs: row.try_get(4)?,
                is_cancelled: row.try_get::<i64, _>(5)? != 0,
                started_at: row.try_get(6)?,
            };
            self.running.insert(id, running);
        }
        Ok(())
    }

    fn end(&mut self, end: &End) -> EndOutcome {
        let key = (end.job.to_string(), end.token.0);
        if self.running.get(&key.0).is_some_and(|job| job.token == end.token.0)
            && let Some(job) = self.running.remove(&key.0)
        {
            self.write(end, &job);
            self.before.insert(key);
            return EndOutcome::Ended;
        }
        if self.before.contains(&key) { EndOutcome::AlreadyEnded } else { EndOutcome::Stale }
    }

    fn write(&mut self, end: &End, job: &Running) {
        let (node, at) = (self.node, instant(self.at.as_micros()));
        let status = number_or_null(end.status.map(i64::from));
        let error = text_or_null(storable(end.error.as_deref()).as_deref());
        let id = end.job.to_string();
        self.attempts.push(format!(
            "('{id}', '{node}', {}, {}, {}, {at}, {status}, {error}, {})",
            job.token,
            job.attempt,
            instant(job.started_at),
            bytes_or_null(end.answer.as_deref()),
        ));
        let most = i64::from(HAND_BACKS_MAX);
        let fate = match end.fate {
            JobFate::HandBack if job.hand_backs < most => JobFate::HandBack,
            JobFate::HandBack if job.attempt < job.max_attempts => {
                JobFate::Retry(std::time::Duration::ZERO)
            }
            JobFate::HandBack => JobFate::Dead,
            fate => fate,
        };
        let mut set = format!("last_status = {status}, last_error = {error}");
        let state = match fate {
            JobFate::Succeeded => "succeeded",
            JobFate::Dead => "dead",
            _ if job.is_cancelled => "cancelled",
            _ => "queued",
        };
        set.push_str(&format!(", state = '{state}'"));
        if state != "queued" {
            set.push_str(&format!(", finished_at = {at}"));
        }
        match fate {
            JobFate::Retry(wait) => {
                set.push_str(&format!(", queued_at = {at}"));
                if !job.is_cancelled {
                    let due = instant(self.at.as_micros().saturating_add(micros(wait)));
                    set.push_str(&format!(", scheduled_at = {due}"));
                }
            }
            JobFate::HandBack => set.push_str(&format!(
                ", queued_at = {at}, attempt = GREATEST(attempt - 1, 0), hand_backs = hand_backs + 1"
            )),
            JobFate::Succeeded | JobFate::Dead => {}
        }
        self.jobs.entry(set).or_default().push(format!("'{id}'"));
    }

    fn statements(self) -> Vec<String> {
        let mut statements = inserts(
            "INSERT INTO turnwise_attempts
                (job, node, token, attempt, started_at, finished_at, status, error, answer) VALUES ",
            self.attempts.into_iter(),
            " ON DUPLICATE KEY UPDATE job = turnwise_attempts.job",
        );
        for (set, ids) in self.jobs {
            statements.push(format!(
                "UPDATE turnwise_jobs FORCE INDEX (PRIMARY) SET {set} WHERE id IN ({})",
                ids.join(", ")
            ));
        }
        statements
    }
}

fn state_condition(state: Option<JobState>) -> &'static str {
    match state {
        None => "TRUE",
        Some(JobState::Ready) => "j.state = 'queued' AND j.scheduled_at <= c.now",
        Some(JobState::Scheduled) => {
            "j.state = 'queued' AND j.scheduled_at > c.now AND j.attempt = 0"
        }
        Some(JobState::Retrying) => {
            "j.state = 'queued' AND j.scheduled_at > c.now AND j.attempt > 0"
        }
        Some(JobState::Running) => "j.state = 'running'",
        Some(JobState::Succeeded) => "j.state = 'succeeded'",
        Some(JobState::Dead) => "j.state = 'dead'",
        Some(JobState::Cancelled) => "j.state = 'cancelled'",
    }
}
