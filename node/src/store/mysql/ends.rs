//! Ends of attempts: each by itself, by the claim that it names alone. Decides how they are read and written; what an ended
//! job becomes is decided beside the stores, from what was read under its lock.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row;
use sqlx::mysql::MySqlRow;
use turnwise_engine::{NodeId, ServerInstant};

use super::callbacks::{OUTAGES, outages};
use super::literals::{self, bytes_or_null, instant, number_or_null, text, text_or_null};
use super::rescue::NODE_LOST;
use super::{MySqlStore, check_in, inserts, micros_of, parted};
use crate::job::{End, EndOutcome, JobId};
use crate::store::ends::{Batch, Ended, Running};
use crate::store::errors::Trouble;
use crate::store::{CheckIn, StoreError};
use crate::store::{check_ins, rows};

impl MySqlStore {
    pub(super) async fn end_jobs(
        &self,
        node: NodeId,
        ends: &[End],
    ) -> Result<(Vec<EndOutcome>, CheckIn), StoreError> {
        let sql = format!("{}; {}", self.seen(node), running(node, ends));
        let sql = sql.trim_end_matches("; ");
        let (mut session, rows) = self.begin(self.session().await?, sql).await?;
        let (first, rows) = rows.split_first().ok_or_else(|| self.nothing())?;
        let at = ServerInstant::from_micros(self.column(first, 0)?);
        let check_in = self.check_in_of(node, first, at)?;
        let running = found(rows).map_err(|trouble| self.trouble(trouble))?;
        let outages = outages(first, 4).map_err(|trouble| self.trouble(trouble))?;
        let batch = Batch::new(ends, running, at, &outages);
        let unknown = batch.unknown();
        let before = match unknown.is_empty() {
            true => BTreeSet::new(),
            false => {
                let found = self.ask(&mut session, ended_before(node, &unknown)).await?;
                claims(&found).map_err(|trouble| self.trouble(trouble))?
            }
        };
        let mut statements = attempts(node, at, &batch.ended);
        statements.append(&mut jobs(&batch.ended));
        let (check_in, renewed) = check_in;
        if let Some(renewed) = renewed {
            // By itself: the rows of jobs are never locked before a node's.
            statements.extend(["COMMIT".to_owned(), renewed]);
        }
        self.commit(session, statements).await?;
        if batch.ended.iter().any(Ended::is_put_back) {
            self.inner.lanes.forget();
        }
        let outcomes = batch.outcomes(&before);
        let stale = outcomes.iter().filter(|outcome| **outcome == EndOutcome::Stale).count();
        self.count_stale(stale).await;
        Ok((outcomes, check_in))
    }

    /// Reads the clock, the period and the row of a node, which is not locked.
    ///
    /// The rows of the jobs decide what an end comes to. Whoever takes a job away from its node (a rescue, a
    /// reconciliation, a release) changes its row, under a lock on it. An end that has locked the row before a rescue
    /// ends its attempt by the claim that it still has, and the rescue passes over what is locked; one that waited for
    /// the rescue's lock finds that the job runs no more, or in another's hands, and is stale.
    fn seen(&self, node: NodeId) -> String {
        format!(
            "SELECT {}, coalesce(t.period_ms, 1000), {}, {}, {OUTAGES}
             FROM turnwise_turn t LEFT JOIN turnwise_nodes n ON n.id = {} AND n.state <> 'lost'
             WHERE t.id = 1",
            self.now(),
            micros_of!("n.last_check_in"),
            micros_of!("n.lease_until"),
            literals::node(node)
        )
    }

    /// Whether the node in this row is known, and what writes its check-in, when it is worth it. One that somebody else
    /// has written meanwhile stands.
    fn check_in_of(
        &self,
        node: NodeId,
        row: &MySqlRow,
        at: ServerInstant,
    ) -> Result<(CheckIn, Option<String>), StoreError> {
        let period = rows::period(self.column(row, 1)?);
        let period = period.map_err(|trouble| self.trouble(trouble))?;
        let (last, lease): (Option<i64>, Option<i64>) =
            (self.column(row, 2)?, self.column(row, 3)?);
        let Some((last, lease)) = last.zip(lease) else { return Ok((CheckIn::Lost, None)) };
        let renewed = check_ins::is_worth_writing(at, period, last, lease).then(|| {
            format!(
                "UPDATE turnwise_nodes n SET {} WHERE n.id = {} AND n.state <> 'lost' AND n.last_check_in = {}",
                check_in(at, period, None),
                literals::node(node),
                instant(last)
            )
        });
        Ok((CheckIn::Alive, renewed))
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
}

fn list(jobs: &BTreeSet<JobId>) -> String {
    let ids: Vec<String> = jobs.iter().map(|job| format!("'{job}'")).collect();
    ids.join(", ")
}

/// Reads, and locks, those of the jobs that run under the node.
fn running(node: NodeId, ends: &[End]) -> String {
    if ends.is_empty() {
        return String::new();
    }
    format!(
        "SELECT j.id, j.token, j.attempt, j.max_attempts, j.hand_backs, j.cancel_requested, {}, j.deadline_ms
         FROM turnwise_jobs j FORCE INDEX (PRIMARY)
         WHERE j.id IN ({}) AND j.state = 'running' AND j.node = {} FOR UPDATE",
        micros_of!("j.started_at"),
        list(&ends.iter().map(|end| end.job).collect()),
        literals::node(node)
    )
}

fn found(rows: &[MySqlRow]) -> Result<BTreeMap<JobId, Running>, Trouble> {
    let job = |row: &MySqlRow| {
        let running = Running {
            token: row.try_get(1)?,
            attempt: row.try_get(2)?,
            max_attempts: row.try_get(3)?,
            hand_backs: row.try_get(4)?,
            is_cancelled: row.try_get::<i64, _>(5)? != 0,
            started_at: row.try_get(6)?,
            deadline_ms: row.try_get(7)?,
        };
        Ok((rows::job_id(row.try_get(0)?)?, running))
    };
    rows.iter().map(job).collect()
}

/// Reads the claims of the node under which these jobs have ended.
fn ended_before(node: NodeId, jobs: &BTreeSet<JobId>) -> String {
    let (ids, node) = (list(jobs), literals::node(node));
    format!(
        "SELECT j.id, j.token FROM turnwise_jobs j FORCE INDEX (PRIMARY)
         WHERE j.id IN ({ids}) AND j.node = {node} AND j.state = 'succeeded'
         UNION ALL
         SELECT a.job, a.token FROM turnwise_attempts a FORCE INDEX (PRIMARY)
         WHERE a.job IN ({ids}) AND a.node = {node} AND NOT (a.error <=> {})",
        text(NODE_LOST)
    )
}

fn claims(rows: &[MySqlRow]) -> Result<BTreeSet<(JobId, i64)>, Trouble> {
    rows.iter().map(|row| Ok((rows::job_id(row.try_get(0)?)?, row.try_get(1)?))).collect()
}

/// Writes the attempts that have rows of their own.
fn attempts(node: NodeId, at: ServerInstant, ended: &[Ended<'_>]) -> Vec<String> {
    let row = |ended: &Ended<'_>| {
        format!(
            "('{}', '{node}', {}, {}, {}, {}, {}, {}, {})",
            ended.job,
            ended.found.token,
            ended.ended_attempt(),
            instant(ended.found.started_at),
            instant(at.as_micros()),
            number_or_null(ended.status),
            text_or_null(ended.error.as_deref()),
            bytes_or_null(ended.answer),
        )
    };
    inserts(
        "INSERT INTO turnwise_attempts
            (job, node, token, attempt, started_at, finished_at, status, error, answer) VALUES ",
        ended.iter().filter(|ended| !ended.is_the_last()).map(row),
        " ON DUPLICATE KEY UPDATE job = turnwise_attempts.job",
    )
}

/// Writes the jobs, which are locked, all in one statement: hardly two end alike, since each has its answer or its wait.
fn jobs(ended: &[Ended<'_>]) -> Vec<String> {
    let instant_or_null = |at: Option<i64>| at.map_or("NULL".to_owned(), instant);
    let row = |ended: &Ended<'_>| {
        format!(
            "SELECT '{}', '{}', {}, {}, {}, {}, {}, {}, {}, {}, {}, {}",
            ended.job,
            ended.state,
            instant_or_null(ended.finished_at),
            instant_or_null(ended.queued_at),
            instant_or_null(ended.scheduled_at),
            ended.attempt,
            ended.hand_backs,
            number_or_null(ended.status),
            text_or_null(ended.job_error()),
            bytes_or_null(ended.answer.filter(|_| ended.is_the_last())),
            instant_or_null(ended.awaits_since),
            instant_or_null(ended.awaits_until),
        )
    };
    // The first row names the columns, and is none.
    parted(
        "UPDATE (
            SELECT NULL AS id, NULL AS state, NULL AS finished_at, NULL AS queued_at, NULL AS scheduled_at,
                NULL AS attempt, NULL AS hand_backs, NULL AS status, NULL AS error, NULL AS answer,
                NULL AS awaits_since, NULL AS awaits_until
            FROM DUAL WHERE FALSE UNION ALL ",
        " UNION ALL ",
        ended.iter().map(row),
        ") e STRAIGHT_JOIN turnwise_jobs j FORCE INDEX (PRIMARY) ON j.id = e.id SET
            j.state = e.state, j.finished_at = e.finished_at,
            j.queued_at = COALESCE(e.queued_at, j.queued_at),
            j.scheduled_at = COALESCE(e.scheduled_at, j.scheduled_at),
            j.attempt = e.attempt, j.hand_backs = e.hand_backs,
            j.last_status = e.status, j.last_error = e.error, j.answer = e.answer,
            j.awaits_since = e.awaits_since, j.awaits_until = e.awaits_until",
    )
}
