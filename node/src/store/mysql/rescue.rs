//! Jobs that go back into the queue without an end: those of lost nodes, those of claims that nobody heard of, and those
//! that were due before the clock was set back. Decides what each becomes, from what was read under its lock.

use std::collections::BTreeSet;

use sqlx::Row;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use turnwise_engine::{NodeId, ServerInstant, Token};

use super::held::bar;
use super::literals::{self, instant, list, text};
use super::session::Session;
use super::{MySqlStore, rows_of};
use crate::job::{HAND_BACKS_MAX, JobId};
use crate::store::connections::Lent;
use crate::store::errors::Trouble;
use crate::store::outages::{APART_US, length};
use crate::store::rows::{END_UNKNOWN, NOT_RECEIVED};
use crate::store::servers::Line;
use crate::store::{CheckIn, Claimed, NodeReport, StoreError};

/// How many jobs of lost nodes a beat frees.
const RESCUED_MAX: i64 = 1_000;
/// The error of an attempt whose node was lost.
pub(super) const NODE_LOST: &str = "node lost";

/// What writes the attempts of running jobs that end now without an answer.
pub(super) fn attempts_of(which: &str, at: &str, error: &str) -> String {
    format!(
        "INSERT INTO turnwise_attempts (job, node, token, attempt, started_at, finished_at, error)
         SELECT j.id, j.node, j.token, j.attempt, j.started_at, {at}, {error}
         FROM turnwise_jobs j FORCE INDEX (PRIMARY) WHERE {which}
         ON DUPLICATE KEY UPDATE job = turnwise_attempts.job"
    )
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

/// Put off, by the length of an outage, the times by which jobs that go on elsewhere are to be heard of, and their deadlines. What was heard of since is
/// put off by what has passed since then. (The clock may have been set meanwhile, forward and back too.) What somebody holds is
/// passed over: the turn row is locked, and must not wait.
pub(super) async fn put_off(
    connection: &mut MySqlConnection,
    from: ServerInstant,
    to: ServerInstant,
) -> Result<(), Trouble> {
    let away = length(from, to);
    let (from, at) = (instant(from.as_micros()), instant(to.as_micros()));
    // The columns are set one after the other, each by what those before it have become.
    let follows = format!("away_until BETWEEN {from} - INTERVAL {APART_US} MICROSECOND AND {from}");
    rows_of(
        connection,
        format!(
            "UPDATE turnwise_turn SET
                away_us = {away} + IF({follows}, COALESCE(away_us, 0), 0),
                away_from = IF({follows}, COALESCE(away_from, {from}), {from}), away_until = {at}
             WHERE id = 1"
        ),
    )
    .await?;
    // The limit keeps the server from making one query of the two, which would lock what it looks at.
    let elsewhere = rows_of(
        connection,
        format!(
            "SELECT j.id FROM (
                SELECT id FROM turnwise_jobs FORCE INDEX (turnwise_jobs_given_up)
                WHERE given_up = 'elsewhere' LIMIT 1000000000
             ) l STRAIGHT_JOIN turnwise_jobs j FORCE INDEX (PRIMARY) ON j.id = l.id
             WHERE j.given_up = 'elsewhere' AND j.scheduled_at >= {from}
             FOR UPDATE SKIP LOCKED"
        ),
    )
    .await?;
    for some in ids(&elsewhere)?.chunks(1_000) {
        // The columns are set one after the other, each by what those before it have become.
        rows_of(
            connection,
            format!(
                "UPDATE turnwise_jobs FORCE INDEX (PRIMARY) SET
                    scheduled_at = TIMESTAMPADD(MICROSECOND,
                        TIMESTAMPDIFF(MICROSECOND, GREATEST(queued_at, {from}), {at}), scheduled_at),
                    awaits_until = TIMESTAMPADD(MICROSECOND,
                        TIMESTAMPDIFF(MICROSECOND, GREATEST(awaits_since, {from}), {at}), awaits_until),
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

impl MySqlStore {
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
        Ok(Claimed { check_in, ..Claimed::default() })
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
        if !back.is_empty() {
            self.inner.lanes.forget();
        }
        Ok(CheckIn::Alive)
    }
}
