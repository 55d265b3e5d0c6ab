//! Ended jobs that are old enough: a reading statement for each state, which finds them through their index and locks
//! them, and then those that remove them by their keys. Rows that others have locked are passed over.

use sqlx::Row;
use sqlx::mysql::MySqlRow;
use turnwise_engine::ServerInstant;

use super::literals::{instant, list, text};
use super::{MySqlStore, micros_of, parted};
use crate::store::errors::Trouble;
use crate::store::retention::Old;
use crate::store::rows::micros;
use crate::store::{Ended, Prune, Pruned, StoreError};

impl MySqlStore {
    pub(super) async fn prune_jobs(&self, prune: &Prune) -> Result<Pruned, StoreError> {
        if prune.olds().is_empty() {
            return Ok(prune.removed(&[], false));
        }
        // By itself: an index is searched by values alone, and this clock is none before it has been read.
        let now = self.run(format!("SELECT {}", self.now())).await?;
        let now = self.column(self.one(&now)?, 0)?;
        let reads = prune.olds().iter().map(|old| old_enough(old, now, prune.most()));
        let reads = reads.collect::<Vec<_>>().join("; ");
        let (session, mut found) = self.begin(self.session().await?, &reads).await?;
        let is_full = found.len() >= prune.most() as usize;
        found.truncate(prune.most() as usize);
        let mut ids: Vec<String> = Vec::with_capacity(found.len());
        let mut gone = Vec::with_capacity(found.len());
        for row in &found {
            ids.push(self.column(row, 0)?);
            gone.push(ended(row).map_err(|trouble| self.trouble(trouble))?);
        }
        let mut writes = attempts_removed(&ids);
        if !ids.is_empty() {
            // By their keys alone: a plan that reads others would lock them.
            writes.push(format!(
                "DELETE j FROM turnwise_jobs j FORCE INDEX (PRIMARY) WHERE j.id IN {}",
                list(ids.iter().map(String::as_str))
            ));
        }
        self.commit(session, writes).await?;
        Ok(prune.removed(&gone, is_full))
    }
}

/// Removes the attempts at these jobs, of one job after the other: by a list of jobs the whole table would be read where no statistics
/// have been taken since it grew.
fn attempts_removed(jobs: &[String]) -> Vec<String> {
    parted(
        "DELETE a FROM (SELECT NULL AS job FROM DUAL WHERE FALSE UNION ALL ",
        " UNION ALL ",
        jobs.iter().map(|job| format!("SELECT {}", text(job))),
        ") l STRAIGHT_JOIN turnwise_attempts a FORCE INDEX (PRIMARY) ON a.job = l.job",
    )
}

/// Reads, and locks, jobs that are to be removed.
fn old_enough(old: &Old, now: i64, most: u32) -> String {
    let given_up = match old.ended {
        Ended::Succeeded => "j.given_up IS NULL".to_owned(),
        ended => format!("j.given_up = '{}'", ended.as_str()),
    };
    let until = now.saturating_sub(micros(old.age));
    format!(
        "SELECT j.id, j.state, {} FROM turnwise_jobs j FORCE INDEX (turnwise_jobs_ended)
         WHERE {given_up} AND j.finished_at >= {} AND j.finished_at <= {} AND j.state = '{}'
            AND (j.unique_until IS NULL OR j.unique_until <= {})
         ORDER BY j.finished_at LIMIT {most} FOR UPDATE SKIP LOCKED",
        micros_of!("j.finished_at"),
        instant(old.from.as_micros()),
        instant(until),
        old.ended.as_str(),
        instant(now)
    )
}

fn ended(row: &MySqlRow) -> Result<(Ended, ServerInstant), Trouble> {
    let word: &str = row.try_get(1)?;
    let ended = Ended::named(word)
        .ok_or_else(|| Trouble::corrupt(format!("an ended job in the state {word:?}")))?;
    Ok((ended, ServerInstant::from_micros(row.try_get(2)?)))
}
