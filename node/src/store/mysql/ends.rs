//! Ends of attempts: each by itself, by the claim that it names alone. Decides what an ended job becomes.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row;
use sqlx::mysql::MySqlRow;
use turnwise_engine::{NodeId, ServerInstant};

use super::literals::{self, bytes_or_null, instant, number_or_null, text, text_or_null};
use super::rescue::NODE_LOST;
use super::{MySqlStore, inserts, micros_of};
use crate::job::{End, EndOutcome, HAND_BACKS_MAX, JobFate};
use crate::store::errors::Trouble;
use crate::store::rows::{micros, storable};
use crate::store::{CheckIn, StoreError};

impl MySqlStore {
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
