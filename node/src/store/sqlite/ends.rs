//! Ends of attempts: each by itself, by the claim that it names alone. Decides how they are read and written, a few
//! statements for all of them; what an ended job becomes is decided beside the stores. Each function runs inside a
//! transaction of the caller's.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::sqlite::SqliteConnection;
use turnwise_engine::{NodeId, ServerInstant, Token};

use super::callbacks::outages;
use super::nodes::pass_by;
use super::rescue::NODE_LOST;
use super::{known, period};
use crate::job::{End, EndOutcome, JobId};
use crate::sabotage::{Bug, Sabotage};
use crate::store::CheckIn;
use crate::store::ends::{Batch, Ended, Running, any_awaits};
use crate::store::errors::Trouble;
use crate::store::outages::Outages;
use crate::store::rows::{self, json};

pub(super) async fn end<B: Sabotage>(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    node: NodeId,
    ends: &[End],
) -> Result<(Vec<EndOutcome>, CheckIn), Trouble> {
    let period = period(connection).await?;
    let alive = pass_by(connection, node, at, period, None).await?.is_some();
    let outcomes = match alive || B::plants(Bug::EndIgnoresClaim) {
        true => record::<B>(connection, at, node, ends).await?,
        false => vec![EndOutcome::Stale; ends.len()],
    };
    let stale = outcomes.iter().filter(|outcome| **outcome == EndOutcome::Stale).count();
    if stale > 0 {
        sqlx::query("UPDATE turnwise_turn SET stale_ends = stale_ends + ? WHERE id = 1")
            .bind(i64::try_from(stale).unwrap_or(i64::MAX))
            .execute(connection)
            .await?;
    }
    Ok((outcomes, known(alive)))
}

async fn record<B: Sabotage>(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    node: NodeId,
    ends: &[End],
) -> Result<Vec<EndOutcome>, Trouble> {
    if ends.is_empty() {
        return Ok(Vec::new());
    }
    let jobs = ends.iter().map(|end| end.job).collect();
    let running = running::<B>(connection, node, &jobs).await?;
    let mut ends = ends.to_vec();
    if B::plants(Bug::EndIgnoresClaim) {
        for end in &mut ends {
            end.token = running.get(&end.job).map_or(end.token, |job| Token(job.token));
        }
    }
    let outages = match any_awaits(&ends) {
        true => outages(connection).await?,
        false => Outages::default(),
    };
    let batch = Batch::new(&ends, running, at, &outages);
    let unknown = batch.unknown();
    let before = match unknown.is_empty() {
        true => BTreeSet::new(),
        false => ended_before(connection, node, &unknown).await?,
    };
    write_attempts(connection, at, &batch.ended).await?;
    let (plain, others) = batch.ended.iter().partition(|ended| is_plain(ended));
    write_plain(connection, at, plain).await?;
    write_jobs(connection, &others).await?;
    Ok(batch.outcomes(&before))
}

fn ids(jobs: &BTreeSet<JobId>) -> Result<String, Trouble> {
    json(&jobs.iter().collect::<Vec<_>>())
}

/// Those of the jobs that run under the node.
async fn running<B: Sabotage>(
    connection: &mut SqliteConnection,
    node: NodeId,
    jobs: &BTreeSet<JobId>,
) -> Result<BTreeMap<JobId, Running>, Trouble> {
    type Columns = (String, i64, i64, i64, i64, bool, i64, i64);
    let found: Vec<Columns> = sqlx::query_as(
        "SELECT id, token, attempt, max_attempts, hand_backs, cancel_requested, started_at, deadline_ms
         FROM turnwise_jobs
         WHERE id IN (SELECT value FROM json_each(?1)) AND +state = 'running' AND (+node = ?2 OR ?3)",
    )
    .bind(ids(jobs)?)
    .bind(node.to_string())
    .bind(B::plants(Bug::EndIgnoresClaim))
    .fetch_all(connection)
    .await?;
    let job = |columns: Columns| {
        let (id, token, attempt, max_attempts, hand_backs, is_cancelled, started_at, deadline_ms) =
            columns;
        let running = Running {
            token,
            attempt,
            max_attempts,
            hand_backs,
            is_cancelled,
            deadline_ms,
            started_at,
        };
        Ok((rows::job_id(&id)?, running))
    };
    found.into_iter().map(job).collect()
}

/// The claims of the node under which these jobs have ended.
async fn ended_before(
    connection: &mut SqliteConnection,
    node: NodeId,
    jobs: &BTreeSet<JobId>,
) -> Result<BTreeSet<(JobId, i64)>, Trouble> {
    let found: Vec<(String, i64)> = sqlx::query_as(
        "SELECT id, token FROM turnwise_jobs
         WHERE id IN (SELECT value FROM json_each(?1)) AND node = ?2 AND state = 'succeeded'
         UNION ALL
         SELECT job, token FROM turnwise_attempts
         WHERE job IN (SELECT value FROM json_each(?1)) AND node = ?2 AND error IS NOT ?3",
    )
    .bind(ids(jobs)?)
    .bind(node.to_string())
    .bind(NODE_LOST)
    .fetch_all(connection)
    .await?;
    found.into_iter().map(|(id, token)| Ok((rows::job_id(&id)?, token))).collect()
}

/// Answers one behind the other, and where in them each is: JSON holds no bytes.
#[derive(Default)]
struct Answers {
    bytes: Vec<u8>,
}

impl Answers {
    /// The place of the first byte, from 1, and how many there are; none for no answer.
    fn add(&mut self, answer: Option<&[u8]>) -> (Option<usize>, usize) {
        let Some(answer) = answer else { return (None, 0) };
        let first = self.bytes.len() + 1;
        self.bytes.extend_from_slice(answer);
        (Some(first), answer.len())
    }
}

/// Write the attempts that have rows of their own.
async fn write_attempts(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    ended: &[Ended<'_>],
) -> Result<(), Trouble> {
    let mut answers = Answers::default();
    let rows: Vec<_> = ended
        .iter()
        .filter(|ended| !ended.is_the_last())
        .map(|ended| {
            let attempt = (ended.status, &ended.error, answers.add(ended.answer));
            (ended.job, ended.ended_attempt(), attempt)
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT OR IGNORE INTO turnwise_attempts
            (job, node, token, attempt, started_at, finished_at, status, error, answer)
         SELECT j.id, j.node, j.token, e.value ->> 1, j.started_at, ?2, e.value ->> '$[2][0]', e.value ->> '$[2][1]',
            substr(?3, e.value ->> '$[2][2][0]', e.value ->> '$[2][2][1]')
         FROM json_each(?1) e CROSS JOIN turnwise_jobs j ON j.id = e.value ->> 0",
    )
    .bind(json(&rows)?)
    .bind(at.as_micros())
    .bind(answers.bytes)
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether the job succeeded and there is nothing to keep but the status: then it is like others.
fn is_plain(ended: &Ended<'_>) -> bool {
    let Ended { state, error, answer, .. } = ended;
    *state == "succeeded" && error.is_none() && answer.is_none()
}

/// Jobs that differ in nothing but their status, a statement for each status: to take a row of values out of JSON costs nearly a
/// quarter of all that a job costs.
async fn write_plain(
    connection: &mut SqliteConnection,
    at: ServerInstant,
    ended: Vec<&Ended<'_>>,
) -> Result<(), Trouble> {
    let mut by_status: BTreeMap<Option<i64>, Vec<JobId>> = BTreeMap::new();
    for ended in ended {
        by_status.entry(ended.status).or_default().push(ended.job);
    }
    for (status, jobs) in by_status {
        sqlx::query(
            "UPDATE turnwise_jobs SET
                state = 'succeeded', finished_at = ?2, last_status = ?3, last_error = NULL, answer = NULL
             WHERE id IN (SELECT value FROM json_each(?1))",
        )
        .bind(json(&jobs)?)
        .bind(at.as_micros())
        .bind(status)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

async fn write_jobs(
    connection: &mut SqliteConnection,
    ended: &[&Ended<'_>],
) -> Result<(), Trouble> {
    let mut answers = Answers::default();
    let rows: Vec<_> = ended
        .iter()
        .map(|ended| {
            (
                (ended.job, ended.state, ended.finished_at, ended.queued_at, ended.scheduled_at),
                (
                    ended.attempt,
                    ended.hand_backs,
                    ended.status,
                    ended.job_error(),
                    (ended.awaits_since, ended.awaits_until),
                ),
                answers.add(ended.answer.filter(|_| ended.is_the_last())),
            )
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE turnwise_jobs SET
            state = e.value ->> '$[0][1]',
            finished_at = e.value ->> '$[0][2]',
            queued_at = coalesce(e.value ->> '$[0][3]', queued_at),
            scheduled_at = coalesce(e.value ->> '$[0][4]', scheduled_at),
            attempt = e.value ->> '$[1][0]',
            hand_backs = e.value ->> '$[1][1]',
            last_status = e.value ->> '$[1][2]',
            last_error = e.value ->> '$[1][3]',
            awaits_since = e.value ->> '$[1][4][0]',
            awaits_until = e.value ->> '$[1][4][1]',
            answer = substr(?2, e.value ->> '$[2][0]', e.value ->> '$[2][1]')
         FROM json_each(?1) e WHERE turnwise_jobs.id = e.value ->> '$[0][0]'",
    )
    .bind(json(&rows)?)
    .bind(answers.bytes)
    .execute(connection)
    .await?;
    Ok(())
}
