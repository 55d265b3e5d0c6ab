//! Batches: what their jobs begin as, which of them have ended, and what people order and see of them. A row is compared and set under
//! its lock; the rows of batches are locked before those of jobs, and in the order of their ids.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{FromRow, Row};
use turnwise_engine::ServerInstant;

use super::jobs::{self, ENQUEUE_TRIES, there, was_undone};
use super::literals::{instant, text, text_or_null};
use super::{MySqlStore, held_until, micros_of, rows_of};
use crate::batch::{
    After, BatchCounts, BatchId, BatchRefusal, BatchState, BatchView, FOLLOWERS_SHOWN, Follower,
    Need, NewBatch,
};
use crate::job::{JobId, NewJob, When};
use crate::store::batches::{
    self, BATCH_CANCELLED, BATCHES_SHOWN_MAX, Batches, LOOK_EVERY, LOOK_EVERY_MOST, OF_ITS_AGE,
    SETTLED_AT_ONCE, SealAnswer, Settled, WAITED_IN_VAIN,
};
use crate::store::errors::Trouble;
use crate::store::{StoreError, rows};

/// So many jobs are named by one statement.
const JOBS_AT_ONCE: usize = 1_000;

/// Ids, as what stands behind `IN`; never empty, since SQL knows no empty list.
fn quoted<T: Display>(ids: impl IntoIterator<Item = T>) -> String {
    let ids: Vec<String> = ids.into_iter().map(|id| format!("'{id}'")).collect();
    if ids.is_empty() { "(NULL)".to_owned() } else { format!("({})", ids.join(", ")) }
}

/// The batches that jobs name, which are locked.
#[derive(Debug, Default)]
pub(super) struct Named(BTreeMap<BatchId, BatchState>);

/// How a job begins that waits for a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// It waits.
    Held,
    /// The batch has ended as it needs: it is due.
    Due,
    /// It waits in vain, for this reason.
    InVain(&'static str),
}

impl Named {
    /// None of the jobs belongs to a batch or waits for one.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn begin(&self, after: &After) -> Begin {
        let state = self.0.get(&after.batch).copied().unwrap_or(BatchState::Open);
        match batches::in_vain(after.need, state) {
            _ if state.goes_on() => Begin::Held,
            Some(why) => Begin::InVain(why),
            None => Begin::Due,
        }
    }

    /// The state of a batch that jobs name.
    fn state(&self, batch: BatchId) -> Result<BatchState, BatchRefusal> {
        self.0.get(&batch).copied().ok_or(BatchRefusal::Unknown(batch))
    }

    /// What notes which of these jobs wait, behind what inserts them at `now`. One that was not inserted, since there is one with its
    /// id or its key, is found out by when it was enqueued and as what.
    pub(super) fn waits(&self, jobs: &[NewJob], now: i64) -> Vec<String> {
        let mut alike: BTreeMap<(BatchId, bool), (Begin, Vec<JobId>)> = BTreeMap::new();
        for (job, after) in jobs.iter().filter_map(|job| Some((job, job.after.as_ref()?))) {
            let of = (after.batch, after.need == Need::Success);
            alike.entry(of).or_insert((self.begin(after), Vec::new())).1.push(job.id);
        }
        let now = instant(now);
        let mut statements = Vec::new();
        for ((batch, on_success), (begin, ids)) in alike {
            let (state, at) = match begin {
                Begin::Held => ("queued", held_until!()),
                Begin::Due => ("queued", now.as_str()),
                Begin::InVain(_) => ("cancelled", now.as_str()),
            };
            statements.extend(ids.chunks(JOBS_AT_ONCE).map(|some| {
                format!(
                    "INSERT INTO turnwise_waits (job, batch, on_success)
                     SELECT j.id, '{batch}', {} FROM turnwise_jobs j FORCE INDEX (PRIMARY)
                     WHERE j.id IN {} AND j.created_at = {now} AND j.scheduled_at = {at} AND j.state = '{state}'
                     ON DUPLICATE KEY UPDATE job = turnwise_waits.job",
                    u8::from(on_success),
                    quoted(some)
                )
            }));
        }
        statements
    }
}

/// Lock the batches that these jobs name until the end of the transaction, so that none of them ends meanwhile, and see whether the
/// jobs do. Where none names any, nothing is sent.
pub(super) async fn named(
    connection: &mut MySqlConnection,
    jobs: &[NewJob],
) -> Result<Named, Trouble> {
    let after = |job: &NewJob| job.after.map(|after| after.batch);
    let ids = jobs.iter().flat_map(|job| [job.batch, after(job)]).flatten();
    let ids: BTreeSet<BatchId> = ids.collect();
    if ids.is_empty() {
        return Ok(Named::default());
    }
    // Those that are there already stay as they are, though their batches may have ended.
    let of_batches = jobs.iter().filter(|job| job.batch.is_some() || job.after.is_some());
    let sql = format!(
        "SELECT id FROM turnwise_jobs FORCE INDEX (PRIMARY) WHERE id IN {}",
        quoted(of_batches.map(|job| job.id))
    );
    let mut there = BTreeSet::new();
    for row in rows_of(&mut *connection, sql).await? {
        there.insert(rows::job_id(row.try_get(0)?)?);
    }
    let jobs: Vec<&NewJob> = jobs.iter().filter(|job| !there.contains(&job.id)).collect();
    if jobs.iter().any(|job| job.after.is_some() && job.when != When::Now) {
        return Err(BatchRefusal::TwoTimes.into());
    }
    // Two who enqueue jobs each of which would wait for the other come one after the other.
    let any_of_both = jobs.iter().any(|job| job.batch.is_some() && job.after.is_some());
    let how = if any_of_both { "FOR UPDATE" } else { "LOCK IN SHARE MODE" };
    let named = Named(states(connection, &ids, how).await?);
    let mut pairs = Vec::new();
    for job in &jobs {
        let after = after(job).map(|after| Ok::<_, Trouble>((after, named.state(after)?)));
        let after = after.transpose()?;
        let Some(own) = job.batch else { continue };
        let state = named.state(own)?;
        if !state.goes_on() {
            return Err(BatchRefusal::Ended(own, state).into());
        }
        pairs.extend(after.filter(|(_, state)| state.goes_on()).map(|(after, _)| (own, after)));
    }
    refuse_cycles(connection, &pairs).await?;
    Ok(named)
}

/// The states of batches, which are locked, by their keys alone: a plan that reads others would lock them.
async fn states(
    connection: &mut MySqlConnection,
    ids: &BTreeSet<BatchId>,
    how: &str,
) -> Result<BTreeMap<BatchId, BatchState>, Trouble> {
    let sql = format!(
        "SELECT b.id, b.state FROM turnwise_batches b FORCE INDEX (PRIMARY)
         WHERE b.id IN {} ORDER BY b.id {how}",
        quoted(ids)
    );
    let state = |row: &MySqlRow| {
        let batch = batches::id(row.try_get(0)?)?;
        Ok((batch, batches::state(batch, row.try_get(1)?)?))
    };
    rows_of(connection, sql).await?.iter().map(state).collect()
}

/// See that no job of a batch, the first of each pair, waits for one, the second, that waits for the first itself. Who waits for a
/// batch is found from there on: those are few, however many jobs the batches have.
async fn refuse_cycles(
    connection: &mut MySqlConnection,
    pairs: &[(BatchId, BatchId)],
) -> Result<(), Trouble> {
    if let Some((own, after)) = pairs.iter().find(|(own, after)| own == after) {
        return Err(BatchRefusal::Cycle(*own, *after).into());
    }
    // The batches that wait for a batch, those among these jobs first.
    let mut waiting: BTreeMap<BatchId, BTreeSet<BatchId>> = BTreeMap::new();
    for (own, after) in pairs {
        waiting.entry(*after).or_default().insert(*own);
    }
    let mut next: BTreeSet<BatchId> = pairs.iter().map(|(own, _)| *own).collect();
    let mut asked = BTreeSet::new();
    while !next.is_empty() {
        let sql = format!(
            "SELECT DISTINCT w.batch, j.batch FROM turnwise_waits w FORCE INDEX (turnwise_waits_batch)
             STRAIGHT_JOIN turnwise_jobs j FORCE INDEX (PRIMARY) ON j.id = w.job
             WHERE w.batch IN {} AND j.batch IS NOT NULL AND j.state = 'queued'",
            quoted(&next)
        );
        asked.append(&mut next);
        for row in rows_of(connection, sql).await? {
            let (batch, by) = (batches::id(row.try_get(0)?)?, batches::id(row.try_get(1)?)?);
            waiting.entry(batch).or_default().insert(by);
        }
        let met: BTreeSet<BatchId> = waiting.values().flatten().copied().collect();
        let new: BTreeSet<BatchId> = met.difference(&asked).copied().collect();
        if new.is_empty() {
            break;
        }
        // Locked too: of several who close a circle together one sees the others' parts of it.
        for (batch, state) in states(connection, &new, "LOCK IN SHARE MODE").await? {
            if state.goes_on() {
                next.insert(batch);
            }
        }
        // Nobody waits for one that has ended.
        asked.extend(new.difference(&next).copied());
    }
    for (own, after) in pairs {
        let (mut seen, mut left) = (BTreeSet::from([*own]), vec![*own]);
        while let Some(batch) = left.pop() {
            for by in waiting.get(&batch).into_iter().flatten() {
                if by == after {
                    return Err(BatchRefusal::Cycle(*own, *after).into());
                }
                if seen.insert(*by) {
                    left.push(*by);
                }
            }
        }
    }
    Ok(())
}

/// Reads the jobs that wait for a batch still.
fn held_by(batch: BatchId) -> String {
    format!(
        "SELECT w.job, w.on_success, j.batch FROM turnwise_waits w FORCE INDEX (turnwise_waits_batch)
         STRAIGHT_JOIN turnwise_jobs j FORCE INDEX (PRIMARY) ON j.id = w.job
         WHERE w.batch = '{batch}' AND j.state = 'queued' AND j.scheduled_at = {}
         ORDER BY w.job",
        held_until!()
    )
}

/// Locks those of these jobs that nobody else has locked, and reads them.
fn free(jobs: &[String]) -> String {
    format!(
        "SELECT j.id FROM turnwise_jobs j FORCE INDEX (PRIMARY)
         WHERE j.id IN {} ORDER BY j.id FOR UPDATE SKIP LOCKED",
        quoted(jobs)
    )
}

/// What sets this in those of these jobs that wait still. By their keys alone: a plan that reads others would lock them.
fn no_longer_held(jobs: &[String], set: &str) -> Vec<String> {
    let some = |some: &[String]| {
        format!(
            "UPDATE turnwise_jobs FORCE INDEX (PRIMARY) SET {set}
             WHERE id IN {} AND state = 'queued' AND scheduled_at = {}",
            quoted(some),
            held_until!()
        )
    };
    jobs.chunks(JOBS_AT_ONCE).map(some).collect()
}

/// Sets a job cancelled, for this reason.
fn cancelled(error: &str, now: &str) -> String {
    format!("state = 'cancelled', finished_at = {now}, last_error = {}", text(error))
}

/// What writes the row of a new batch. One that is sealed is looked at at once: it may have no jobs.
fn new_row(id: BatchId, name: Option<&str>, is_sealed: bool, now: i64) -> String {
    let now = instant(now);
    let (state, look_at) = match is_sealed {
        true => (BatchState::Sealed, now.as_str()),
        false => (BatchState::Open, "NULL"),
    };
    format!(
        "INSERT INTO turnwise_batches (id, name, state, created_at, look_at)
         VALUES ('{id}', {}, '{state}', {now}, {look_at})",
        text_or_null(name)
    )
}

/// Reads a batch and the clock, and locks it.
fn locked(batch: BatchId, now: &str, how: &str) -> String {
    format!(
        "SELECT b.state, {now}, {} FROM turnwise_batches b FORCE INDEX (PRIMARY)
         WHERE b.id = '{batch}' {how}",
        micros_of!("b.created_at")
    )
}

/// Reads the batches that are due at `now`, in two statements.
fn due(now: ServerInstant, until: ServerInstant) -> String {
    let (upto, ahead) = batches::due(now, until);
    let now = instant(now.as_micros());
    let age = format!("TIMESTAMPDIFF(MICROSECOND, created_at, {now})");
    let (least, most) = (LOOK_EVERY.as_micros(), LOOK_EVERY_MOST.as_micros());
    format!(
        "SELECT id FROM turnwise_batches FORCE INDEX (turnwise_batches_look)
         WHERE look_at <= {} ORDER BY look_at LIMIT {SETTLED_AT_ONCE};
         SELECT id FROM turnwise_batches FORCE INDEX (turnwise_batches_look)
         WHERE look_at > {} AND look_at > TIMESTAMPADD(MICROSECOND,
            LEAST(GREATEST({age} DIV {OF_ITS_AGE}, {least}), {most}), {now})
         ORDER BY look_at LIMIT {SETTLED_AT_ONCE}",
        instant(upto),
        instant(ahead)
    )
}

/// Whether a row could not be inserted since another has its key: somebody has made it meanwhile.
fn is_there(error: &StoreError) -> bool {
    matches!(error, StoreError::Failed { reason, .. } if reason.contains("(1062)"))
}

fn follower(row: &MySqlRow) -> Result<Follower, Trouble> {
    let (id, state): (String, String) = (row.try_get(0)?, row.try_get(2)?);
    let (is_due, on_success): (i64, i64) = (row.try_get(4)?, row.try_get(5)?);
    let (url, attempt) = (row.try_get(1)?, row.try_get(3)?);
    batches::follower(&id, url, &state, attempt, is_due != 0, on_success != 0)
}

impl MySqlStore {
    pub(super) async fn due(&self, until: ServerInstant) -> Result<Vec<BatchId>, StoreError> {
        // By itself: an index is searched by values alone, and this clock is none before it has been read.
        let now = self.run(format!("SELECT {}", self.now())).await?;
        let now = ServerInstant::from_micros(self.column(self.one(&now)?, 0)?);
        let mut found = self.run(due(now, until)).await?;
        found.truncate(SETTLED_AT_ONCE as usize);
        let ids = found.iter().map(|row| batches::id(row.try_get(0)?));
        ids.collect::<Result<_, _>>().map_err(|trouble| self.trouble(trouble))
    }

    /// Each batch by itself, so that no more than one is held at a time.
    pub(super) async fn settle_batches(&self, of: &[BatchId]) -> Result<Settled, StoreError> {
        let mut settled = Settled::default();
        for batch in of {
            match self.settle_one(*batch, &mut settled).await {
                // Somebody holds what waits for it.
                Err(error) if was_undone(&error) => {
                    tracing::debug!(%error, %batch, "a batch is to be looked at again");
                    settled.again.push(*batch);
                }
                done => done?,
            }
        }
        Ok(settled)
    }

    async fn settle_one(&self, batch: BatchId, settled: &mut Settled) -> Result<(), StoreError> {
        let read = locked(batch, &self.now(), "FOR UPDATE SKIP LOCKED");
        let (mut session, found) = self.begin(self.session().await?, &read).await?;
        let Some(row) = found.first() else {
            let there = format!("SELECT 1 FROM turnwise_batches WHERE id = '{batch}'");
            let there = self.ask(&mut session, there).await?;
            self.commit(session, Vec::new()).await?;
            if !there.is_empty() {
                settled.again.push(batch);
            }
            return Ok(());
        };
        if self.column::<String>(row, 0)? != BatchState::Sealed.as_str() {
            return self.commit(session, Vec::new()).await;
        }
        let (now, created_at): (i64, i64) = (self.column(row, 1)?, self.column(row, 2)?);
        // A statement of its own: it sees what was committed before the lock was given.
        let goes_on = format!(
            "SELECT 1 FROM turnwise_jobs FORCE INDEX (turnwise_jobs_batch)
             WHERE batch = '{batch}' AND batch_state IN ('queued', 'running') LIMIT 1"
        );
        let of_batch = format!("WHERE id = '{batch}'");
        if !self.ask(&mut session, goes_on).await?.is_empty() {
            let at = ServerInstant::from_micros(now);
            let write = format!(
                "UPDATE turnwise_batches SET look_at = {} {of_batch}
                    AND (look_at < {} OR look_at > {0})",
                instant(batches::next_look(at, created_at)),
                instant(batches::soon(at))
            );
            return self.commit(session, vec![write]).await;
        }
        let counted = self.ask(&mut session, counted(&[batch])).await?;
        let counts = self.counts_of(&counted)?.remove(&batch).unwrap_or_default();
        if counts.queued + counts.running > 0 {
            // One was given another try in between.
            settled.again.push(batch);
            return self.commit(session, Vec::new()).await;
        }
        let state = batches::end_of(&counts);
        let (mut due, mut in_vain, mut again) = (Vec::new(), Vec::new(), Vec::new());
        for row in self.ask(&mut session, held_by(batch)).await? {
            let job: String = self.column(&row, 0)?;
            let need = if self.column::<i64>(&row, 1)? != 0 { Need::Success } else { Need::End };
            if batches::in_vain(need, state).is_some() {
                in_vain.push(job);
                let own = self.column::<Option<String>>(&row, 2)?;
                again.extend(own.and_then(|own| batches::id(&own).ok()));
            } else {
                due.push(job);
            }
        }
        for jobs in [&in_vain, &due] {
            for some in jobs.chunks(JOBS_AT_ONCE) {
                if self.ask(&mut session, free(some)).await?.len() < some.len() {
                    // Somebody holds one of them, and is not waited for.
                    settled.again.push(batch);
                    return self.commit(session, Vec::new()).await;
                }
            }
        }
        let now = instant(now);
        let mut writes = vec![format!(
            "UPDATE turnwise_batches SET state = '{state}', ended_at = {now}, look_at = NULL,
                succeeded = {}, dead = {}, cancelled = {} {of_batch}",
            counts.succeeded, counts.dead, counts.cancelled
        )];
        writes.append(&mut no_longer_held(&in_vain, &cancelled(WAITED_IN_VAIN, &now)));
        let set = format!("scheduled_at = {now}, queued_at = {now}");
        writes.append(&mut no_longer_held(&due, &set));
        self.commit(session, writes).await?;
        if !due.is_empty() {
            self.inner.lanes.forget();
        }
        settled.ended.push((batch, state));
        settled.again.append(&mut again);
        Ok(())
    }

    /// Make a batch and enqueue its jobs, once.
    async fn make_once(&self, batch: &NewBatch, jobs: &[NewJob]) -> Result<Vec<JobId>, StoreError> {
        let read = format!(
            "SELECT {}; SELECT b.id FROM turnwise_batches b FORCE INDEX (PRIMARY)
             WHERE b.id = '{}' FOR UPDATE",
            self.now(),
            batch.id
        );
        let (mut session, found) = self.begin(self.session().await?, &read).await?;
        let now: i64 = self.column(self.one(&found)?, 0)?;
        if found.len() == 1 {
            let row = new_row(batch.id, batch.name.as_deref(), batch.is_sealed, now);
            self.write(&mut session, vec![row]).await?;
            return self.insert_jobs(session, jobs, now).await;
        }
        let found = match jobs.is_empty() {
            true => Vec::new(),
            false => self.ask(&mut session, there(jobs)).await?,
        };
        self.commit(session, Vec::new()).await?;
        let ids = jobs::ids(jobs, &found).map_err(|trouble| self.trouble(trouble))?;
        let mut known = BTreeSet::new();
        for row in &found {
            known.insert(self.column::<String>(row, 0)?);
        }
        // The answer to the first time was lost.
        match ids.iter().all(|id| known.contains(&id.to_string())) {
            true => Ok(ids),
            false => Err(StoreError::Batch(BatchRefusal::Exists(batch.id))),
        }
    }

    /// Enqueue a job that waits for others, once.
    async fn enqueue_after_once(
        &self,
        job: &NewJob,
        jobs: &BTreeSet<JobId>,
        need: Need,
    ) -> Result<(BatchId, JobId), StoreError> {
        let read = format!(
            "SELECT {}; SELECT j.id, j.batch FROM turnwise_jobs j FORCE INDEX (PRIMARY)
             WHERE j.id IN {} ORDER BY j.id FOR UPDATE",
            self.now(),
            quoted(jobs)
        );
        let (mut session, found) = self.begin(self.session().await?, &read).await?;
        let (first, found) = found.split_first().ok_or_else(|| self.nothing())?;
        let now: i64 = self.column(first, 0)?;
        let before = format!("SELECT batch FROM turnwise_waits WHERE job = '{}'", job.id);
        if let Some(row) = self.ask(&mut session, before).await?.first() {
            // Again, since an answer was lost.
            let batch = batches::id(&self.column::<String>(row, 0)?);
            self.commit(session, Vec::new()).await?;
            return Ok((batch.map_err(|trouble| self.trouble(trouble))?, job.id));
        }
        let mut of = BTreeMap::new();
        for row in found {
            let id = rows::job_id(self.column(row, 0)?);
            let batch =
                self.column::<Option<String>>(row, 1)?.map(|of| batches::id(&of)).transpose();
            let id = id.map_err(|trouble| self.trouble(trouble))?;
            of.insert(id, batch.map_err(|trouble| self.trouble(trouble))?);
        }
        let common = match batches::common(jobs, &of) {
            Ok(common) => common,
            Err(refusal) => {
                self.roll_back(session).await;
                return Err(StoreError::Batch(refusal));
            }
        };
        let batch = match common {
            None => {
                let batch = BatchId::before(job.id);
                let own = format!(
                    "UPDATE turnwise_jobs FORCE INDEX (PRIMARY) SET batch = '{batch}' WHERE id IN {}",
                    quoted(jobs)
                );
                self.write(&mut session, vec![new_row(batch, None, true, now), own]).await?;
                batch
            }
            Some((batch, member)) => {
                let count = format!(
                    "SELECT COUNT(*) FROM (SELECT 1 FROM turnwise_jobs FORCE INDEX (turnwise_jobs_batch)
                     WHERE batch = '{batch}' LIMIT {}) c",
                    jobs.len() + 1
                );
                let found = self.ask(&mut session, count).await?;
                let count: i64 = self.column(self.one(&found)?, 0)?;
                if usize::try_from(count) != Ok(jobs.len()) {
                    self.roll_back(session).await;
                    return Err(StoreError::Batch(BatchRefusal::OfAnother(member, batch)));
                }
                let state = locked(batch, &self.now(), "LOCK IN SHARE MODE");
                let found = self.ask(&mut session, state).await?;
                let state = batches::state(batch, &self.column::<String>(self.one(&found)?, 0)?);
                let state = state.map_err(|trouble| self.trouble(trouble))?;
                let counted = self.ask(&mut session, counted(&[batch])).await?;
                let counts = self.counts_of(&counted)?.remove(&batch).unwrap_or_default();
                if state.has_run_out() && !batches::still_holds(state, &counts) {
                    self.roll_back(session).await;
                    return Err(StoreError::Batch(BatchRefusal::TriedAgain(batch, state)));
                }
                batch
            }
        };
        let job = NewJob { after: Some(After { batch, need }), ..job.clone() };
        let ids = self.insert_jobs(session, std::slice::from_ref(&job), now).await?;
        Ok((batch, ids.first().copied().unwrap_or(job.id)))
    }

    /// Batches without those that wait for them.
    async fn listed(&self, rest: &str) -> Result<Vec<BatchView>, StoreError> {
        let found = self
            .run(format!(
                "SELECT id, name, state, {}, {}, succeeded, dead, cancelled
                 FROM turnwise_batches FORCE INDEX (PRIMARY) {rest}",
                micros_of!("created_at"),
                micros_of!("ended_at")
            ))
            .await?;
        let columns: Result<Vec<batches::Columns>, sqlx::Error> =
            found.iter().map(FromRow::from_row).collect();
        let columns = columns.map_err(|error| self.trouble(error.into()))?;
        let without = batches::without_counts(&columns);
        let without = without.map_err(|trouble| self.trouble(trouble))?;
        let live = match without.is_empty() {
            true => BTreeMap::new(),
            false => self.counts_of(&self.run(counted(&without)).await?)?,
        };
        let views = columns.into_iter().map(|columns| batches::view(columns, &live));
        views.collect::<Result<_, _>>().map_err(|trouble| self.trouble(trouble))
    }

    /// What was counted of batches.
    fn counts_of(
        &self,
        counted: &[MySqlRow],
    ) -> Result<BTreeMap<BatchId, BatchCounts>, StoreError> {
        let rows: Result<Vec<(String, String, i64)>, sqlx::Error> =
            counted.iter().map(FromRow::from_row).collect();
        let counts = rows.map_err(Trouble::from).and_then(batches::counts);
        counts.map_err(|trouble| self.trouble(trouble))
    }
}

/// Counts the jobs of batches by their states.
fn counted(of: &[BatchId]) -> String {
    format!(
        "SELECT batch, batch_state, COUNT(*) FROM turnwise_jobs FORCE INDEX (turnwise_jobs_batch)
         WHERE batch IN {} GROUP BY batch, batch_state",
        quoted(of)
    )
}

impl Batches for MySqlStore {
    async fn make_batch(&self, batch: &NewBatch) -> Result<Vec<JobId>, StoreError> {
        batches::check(batch)?;
        let jobs = batch.all_jobs();
        let mut tries = 1;
        loop {
            match self.make_once(batch, &jobs).await {
                Err(error) if tries < ENQUEUE_TRIES && (was_undone(&error) || is_there(&error)) => {
                    tries += 1;
                }
                done => return done,
            }
        }
    }

    async fn enqueue_after(
        &self,
        job: &NewJob,
        jobs: &[JobId],
        need: Need,
    ) -> Result<(BatchId, JobId), StoreError> {
        rows::check_lengths(std::slice::from_ref(job))?;
        let jobs = batches::waited_for(jobs)?;
        let mut tries = 1;
        loop {
            match self.enqueue_after_once(job, &jobs, need).await {
                Err(error) if tries < ENQUEUE_TRIES && was_undone(&error) => tries += 1,
                done => return done,
            }
        }
    }

    async fn seal(&self, batch: BatchId) -> Result<SealAnswer, StoreError> {
        let read = locked(batch, &self.now(), "FOR UPDATE");
        let (session, found) = self.begin(self.session().await?, &read).await?;
        let Some(row) = found.first() else {
            self.commit(session, Vec::new()).await?;
            return Ok(SealAnswer::Unknown);
        };
        let state = batches::state(batch, &self.column::<String>(row, 0)?);
        let state = state.map_err(|trouble| self.trouble(trouble))?;
        if state != BatchState::Open {
            self.commit(session, Vec::new()).await?;
            return Ok(SealAnswer::Before(state));
        }
        let write = format!(
            "UPDATE turnwise_batches SET state = '{}', look_at = {} WHERE id = '{batch}'",
            BatchState::Sealed,
            instant(self.column(row, 1)?)
        );
        self.commit(session, vec![write]).await?;
        Ok(SealAnswer::Sealed)
    }

    async fn cancel_batch(&self, batch: BatchId) -> Result<Option<bool>, StoreError> {
        let read = locked(batch, &self.now(), "FOR UPDATE");
        let (mut session, found) = self.begin(self.session().await?, &read).await?;
        let Some(row) = found.first() else {
            self.commit(session, Vec::new()).await?;
            return Ok(None);
        };
        let state = batches::state(batch, &self.column::<String>(row, 0)?);
        let state = state.map_err(|trouble| self.trouble(trouble))?;
        let now = instant(self.column(row, 1)?);
        if !state.goes_on() {
            self.commit(session, Vec::new()).await?;
            return Ok(Some(state == BatchState::Cancelled));
        }
        let mut held: Vec<String> = Vec::new();
        for row in self.ask(&mut session, held_by(batch)).await? {
            held.push(self.column(&row, 0)?);
        }
        let mut writes = vec![format!(
            "UPDATE turnwise_batches SET state = '{}', ended_at = {now}, look_at = NULL WHERE id = '{batch}'",
            BatchState::Cancelled
        )];
        let set = format!("{}, cancel_requested = 1", cancelled(BATCH_CANCELLED, &now));
        writes.append(&mut no_longer_held(&held, &set));
        self.commit(session, writes).await?;
        Ok(Some(true))
    }

    async fn batches(
        &self,
        before: Option<BatchId>,
        limit: u32,
    ) -> Result<Vec<BatchView>, StoreError> {
        let below = before.map_or(String::new(), |before| format!("WHERE id < '{before}'"));
        self.listed(&format!("{below} ORDER BY id DESC LIMIT {}", limit.min(BATCHES_SHOWN_MAX)))
            .await
    }

    async fn batch(&self, batch: BatchId) -> Result<Option<BatchView>, StoreError> {
        let Some(mut view) = self.listed(&format!("WHERE id = '{batch}'")).await?.pop() else {
            return Ok(None);
        };
        let found = self
            .run(format!(
                "SELECT j.id, j.url, j.state, j.attempt, CAST(j.scheduled_at <= {} AS SIGNED),
                    CAST(w.on_success AS SIGNED)
                 FROM turnwise_waits w FORCE INDEX (turnwise_waits_batch)
                 STRAIGHT_JOIN turnwise_jobs j FORCE INDEX (PRIMARY) ON j.id = w.job
                 WHERE w.batch = '{batch}' ORDER BY w.job LIMIT {FOLLOWERS_SHOWN}",
                self.inner.clock
            ))
            .await?;
        let followers = found.iter().map(follower).collect::<Result<_, _>>();
        view.followers = followers.map_err(|trouble| self.trouble(trouble))?;
        Ok(Some(view))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::HELD_UNTIL_US;

    #[test]
    fn the_time_until_which_jobs_are_held_is_written_as_every_other() {
        assert_eq!(instant(HELD_UNTIL_US), held_until!());
    }

    #[test]
    fn a_job_begins_as_the_batch_that_it_waits_for_has_ended() {
        use BatchState::{Cancelled, Failed, Open, Sealed, Succeeded};
        let batch = BatchId(uuid::Uuid::from_u128(7));
        let begins =
            |state, need| Named(BTreeMap::from([(batch, state)])).begin(&After { batch, need });
        for need in [Need::Success, Need::End] {
            assert_eq!((begins(Open, need), begins(Sealed, need)), (Begin::Held, Begin::Held));
            assert_eq!(begins(Succeeded, need), Begin::Due);
            assert_eq!(begins(Cancelled, need), Begin::InVain(BATCH_CANCELLED));
        }
        assert_eq!(begins(Failed, Need::End), Begin::Due);
        assert_eq!(begins(Failed, Need::Success), Begin::InVain(WAITED_IN_VAIN));
    }
}
