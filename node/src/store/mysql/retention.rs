//! Ended jobs that are old enough: a reading statement for each state, which finds them through their index and locks
//! them, and then those that remove them by their keys. Rows that others have locked are passed over. A batch goes with the last
//! of its jobs.

use std::collections::BTreeSet;

use sqlx::Row;
use sqlx::mysql::MySqlRow;
use turnwise_engine::ServerInstant;

use super::literals::{instant, list, text};
use super::session::Session;
use super::{MySqlStore, micros_of, parted};
use crate::store::connections::Lent;
use crate::store::errors::Trouble;
use crate::store::retention::{BATCHES_AT_ONCE, Old};
use crate::store::rows::micros;
use crate::store::servers::Line;
use crate::store::{Ended, Prune, Pruned, StoreError};

/// How many jobs beyond those that it may remove a statement looks at, for those that others have locked.
const SPARE: u32 = 256;

impl MySqlStore {
    pub(super) async fn prune_jobs(&self, prune: &Prune) -> Result<Pruned, StoreError> {
        if prune.olds().is_empty() {
            return Ok(prune.removed(&[], false));
        }
        // By itself: an index is searched by values alone, and this clock is none before it has been read.
        let here = format!("SELECT {}, EXISTS (SELECT 1 FROM turnwise_batches)", self.now());
        let here = self.run(here).await?;
        let here = self.one(&here)?;
        let (now, any_batches): (i64, i64) = (self.column(here, 0)?, self.column(here, 1)?);
        let any_batches = any_batches != 0;
        let reads = prune.olds().iter().map(|old| old_enough(old, now, prune.most(), any_batches));
        let reads = reads.collect::<Vec<_>>().join("; ");
        let (mut session, mut found) = self.begin(self.session().await?, &reads).await?;
        let is_full = found.len() >= prune.most() as usize;
        found.truncate(prune.most() as usize);
        let mut ids: Vec<String> = Vec::with_capacity(found.len());
        let mut gone = Vec::with_capacity(found.len());
        let mut batches: BTreeSet<String> = BTreeSet::new();
        for row in &found {
            ids.push(self.column(row, 0)?);
            batches.extend(self.column::<Option<String>>(row, 3)?);
            gone.push(ended(row).map_err(|trouble| self.trouble(trouble))?);
        }
        let mut writes = removed_of("attempts", &ids);
        if any_batches {
            writes.append(&mut removed_of("waits", &ids));
        }
        if !ids.is_empty() {
            // By their keys alone: a plan that reads others would lock them.
            writes.push(format!(
                "DELETE j FROM turnwise_jobs j FORCE INDEX (PRIMARY) WHERE j.id IN {}",
                list(ids.iter().map(String::as_str))
            ));
        }
        let mut removed = 0;
        if any_batches {
            self.write(&mut session, std::mem::take(&mut writes)).await?;
            let mut reads: Vec<String> =
                prune.olds().iter().map(|old| old_and_empty(old, now)).collect();
            reads.extend((!batches.is_empty()).then(|| ended_and_empty(&batches)));
            (removed, writes) = self.empty_batches(&mut session, &reads).await?;
        }
        self.commit(session, writes).await?;
        Ok(prune.removed(&gone, is_full).with_batches(prune, removed))
    }

    /// How many batches without jobs these statements read, and what removes them, with what is left of jobs that waited for them.
    async fn empty_batches(
        &self,
        session: &mut Lent<Line<Session>>,
        reads: &[String],
    ) -> Result<(usize, Vec<String>), StoreError> {
        let mut empty: BTreeSet<String> = BTreeSet::new();
        for row in self.ask(session, reads.join("; ")).await? {
            empty.insert(self.column(&row, 0)?);
        }
        if empty.is_empty() {
            return Ok((0, Vec::new()));
        }
        let mut jobs: Vec<String> = Vec::new();
        for row in self.ask(session, waits_of_nobody(&empty)).await? {
            jobs.push(self.column(&row, 0)?);
        }
        let mut writes = removed_of("waits", &jobs);
        writes.push(format!(
            "DELETE b FROM turnwise_batches b FORCE INDEX (PRIMARY) WHERE b.id IN {}",
            list(empty.iter().map(String::as_str))
        ));
        Ok((empty.len(), writes))
    }
}

/// Reads those of these batches that have ended and have no job any more. By itself: a statement that writes would lock the jobs that
/// it looks at.
fn ended_and_empty(batches: &BTreeSet<String>) -> String {
    format!(
        "SELECT b.id FROM turnwise_batches b FORCE INDEX (PRIMARY)
         WHERE b.id IN {} AND b.state NOT IN ('open', 'sealed')
            AND (SELECT j.id FROM turnwise_jobs j FORCE INDEX (turnwise_jobs_batch)
                WHERE j.batch = b.id LIMIT 1) IS NULL",
        list(batches.iter().map(String::as_str))
    )
}

/// Reads, and locks, batches that ended so long ago and have no job, whatever became of those: of the oldest some, each looked at
/// before any is locked.
fn old_and_empty(old: &Old, now: i64) -> String {
    format!(
        "SELECT b.id FROM (
            SELECT b.id FROM turnwise_batches b FORCE INDEX (turnwise_batches_ended)
            WHERE b.state = '{}' AND b.ended_at <= {} ORDER BY b.ended_at LIMIT {BATCHES_AT_ONCE}
         ) l STRAIGHT_JOIN turnwise_batches b FORCE INDEX (PRIMARY) ON b.id = l.id
         WHERE (SELECT j.id FROM turnwise_jobs j FORCE INDEX (turnwise_jobs_batch)
            WHERE j.batch = l.id LIMIT 1) IS NULL
         FOR UPDATE SKIP LOCKED",
        old.ended.of_batch(),
        instant(now.saturating_sub(micros(old.age)))
    )
}

/// Reads the jobs that waited for these batches and are no more.
fn waits_of_nobody(batches: &BTreeSet<String>) -> String {
    format!(
        "SELECT w.job FROM turnwise_waits w FORCE INDEX (turnwise_waits_batch)
         WHERE w.batch IN {} AND (SELECT j.id FROM turnwise_jobs j FORCE INDEX (PRIMARY)
            WHERE j.id = w.job) IS NULL",
        list(batches.iter().map(String::as_str))
    )
}

/// Removes the rows of a table that belong to these jobs, of one job after the other: by a list of jobs the whole table would be read
/// where no statistics have been taken since it grew.
fn removed_of(table: &str, jobs: &[String]) -> Vec<String> {
    let behind =
        format!(") l STRAIGHT_JOIN turnwise_{table} a FORCE INDEX (PRIMARY) ON a.job = l.job");
    parted(
        "DELETE a FROM (SELECT NULL AS job FROM DUAL WHERE FALSE UNION ALL ",
        " UNION ALL ",
        jobs.iter().map(|job| format!("SELECT {}", text(job))),
        &behind,
    )
}

/// Reads, and locks, jobs that are to be removed, and none that stays since its batch goes on: where there are batches, jobs are looked
/// at before any is locked. (The limit keeps the server from making one query of the two.)
fn old_enough(old: &Old, now: i64, most: u32, any_batches: bool) -> String {
    let given_up = match old.ended {
        Ended::Succeeded => "j.given_up IS NULL".to_owned(),
        ended => format!("j.given_up = '{}'", ended.as_str()),
    };
    let until = now.saturating_sub(micros(old.age));
    let which = format!(
        "j.finished_at >= {} AND j.finished_at <= {} AND j.state = '{}'
            AND (j.unique_until IS NULL OR j.unique_until <= {})",
        instant(old.from.as_micros()),
        instant(until),
        old.ended.as_str(),
        instant(now)
    );
    if !any_batches {
        return format!(
            "SELECT j.id, j.state, {}, j.batch FROM turnwise_jobs j FORCE INDEX (turnwise_jobs_ended)
             WHERE {given_up} AND {which} AND j.batch IS NULL
             ORDER BY j.finished_at LIMIT {most} FOR UPDATE SKIP LOCKED",
            micros_of!("j.finished_at")
        );
    }
    format!(
        "SELECT j.id, j.state, {}, j.batch FROM (
            SELECT j.id, j.finished_at, j.batch FROM turnwise_jobs j FORCE INDEX (turnwise_jobs_ended)
            WHERE {given_up} AND {which} AND (j.batch IS NULL OR COALESCE(
                (SELECT b.state FROM turnwise_batches b WHERE b.id = j.batch), '') NOT IN ('open', 'sealed'))
            ORDER BY j.finished_at LIMIT {}
         ) l STRAIGHT_JOIN turnwise_jobs j FORCE INDEX (PRIMARY) ON j.id = l.id
         WHERE {which} AND j.batch <=> l.batch ORDER BY l.finished_at, l.id LIMIT {most} FOR UPDATE SKIP LOCKED",
        micros_of!("j.finished_at"),
        most.saturating_add(SPARE)
    )
}

fn ended(row: &MySqlRow) -> Result<(Ended, ServerInstant), Trouble> {
    let word: &str = row.try_get(1)?;
    let ended = Ended::named(word)
        .ok_or_else(|| Trouble::corrupt(format!("an ended job in the state {word:?}")))?;
    Ok((ended, ServerInstant::from_micros(row.try_get(2)?)))
}
