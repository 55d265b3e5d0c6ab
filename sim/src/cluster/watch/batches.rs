//! Decides what is told of batches: that each ends once, when all its jobs have ended and soon after, as they did, that what waits
//! for it runs then and not before, and that a job that runs may add others to its batch.

use std::collections::BTreeMap;

use turnwise_node::batch::{BatchId, BatchState};
use turnwise_node::job::{JobState, JobView};
use turnwise_node::store::{Settled, Store, StoreError};

use super::orders::has_ended;
use crate::cluster::database::{Database, at_once};
use crate::cluster::farm::World;
use crate::oracle::{Invariant, Mark};
use crate::sometimes;
use crate::world::{id_of, job_of};

/// What the judge knows of a batch.
#[derive(Clone, Debug, Default)]
pub(in crate::cluster) struct Known {
    /// Its own jobs.
    pub(in crate::cluster) jobs: Vec<u64>,
    /// What waits for its success, and for its end.
    pub(in crate::cluster) success: u64,
    pub(in crate::cluster) complete: u64,
    /// Since when it is sealed.
    pub(in crate::cluster) sealed_at: Option<u64>,
    /// How it ended.
    pub(in crate::cluster) ended: Option<BatchState>,
}

/// The batches of a run.
pub(in crate::cluster) type All = BTreeMap<BatchId, Known>;

/// The batches of a run are numbered from here.
const FIRST_BATCH: u64 = 1 << 40;

/// The id of the batch of this number.
pub(in crate::cluster) fn batch_id(number: u64) -> BatchId {
    BatchId(id_of(FIRST_BATCH + number).0)
}

impl World {
    /// An app made a batch.
    pub(in crate::cluster) fn made_batch(&mut self, batch: BatchId, known: Known) {
        let now = self.now;
        for job in known.jobs.iter().chain([&known.success, &known.complete]) {
            self.oracle.jobs.enqueued(now, *job);
        }
        self.trace([16, known.jobs.len() as u64, 0]);
        self.orders.told.batches.insert(batch, known);
    }

    /// A person sealed it.
    pub(in crate::cluster) fn sealed(&mut self, batch: BatchId) {
        let now = self.now;
        if let Some(known) = self.orders.told.batches.get_mut(&batch) {
            known.sealed_at = Some(now);
        }
    }

    /// The batch that a job belongs to.
    pub(in crate::cluster) fn batch_of(&self, job: u64) -> Option<BatchId> {
        let of = |(_, known): &(&BatchId, &Known)| known.jobs.contains(&job);
        self.orders.told.batches.iter().find(of).map(|(batch, _)| *batch)
    }

    /// A job that a web app is working at wanted to add another, of this number, to its batch. `is_running`: it runs, as the
    /// database has it.
    pub(in crate::cluster) fn extended(
        &mut self,
        batch: BatchId,
        job: u64,
        added: u64,
        done: &Result<Vec<turnwise_node::job::JobId>, StoreError>,
        is_running: bool,
    ) {
        let now = self.now;
        self.trace([17, job, added]);
        match done {
            Ok(_) => {
                self.oracle.marks.reach(Mark::BatchExtended);
                self.oracle.jobs.enqueued(now, added);
                if let Some(known) = self.orders.told.batches.get_mut(&batch) {
                    known.jobs.push(added);
                }
            }
            Err(error) if is_running && !self.sets_clocks() => {
                let cancelled = self.orders.told.batches.get(&batch);
                if cancelled.is_none_or(|known| known.ended != Some(BatchState::Cancelled)) {
                    self.violated(Invariant::Batches, || {
                        format!("job {job} runs and cannot add to its batch: {error}")
                    });
                }
            }
            Err(_) => {}
        }
    }

    /// The database ended these batches. `store` is what it holds now.
    pub(in crate::cluster) fn settled(&mut self, store: &Database, settled: &Settled) {
        for (batch, ended) in &settled.ended {
            self.trace([18, *ended as u64, 0]);
            let Some(known) = self.orders.told.batches.get_mut(batch) else { continue };
            let before = known.ended.replace(*ended);
            let (known, number) = (known.clone(), job_of(turnwise_node::job::JobId(batch.0)));
            let number = number - FIRST_BATCH;
            if before.is_some() {
                self.violated(Invariant::Batches, || format!("batch {number} ends a second time"));
            }
            let states: Vec<(u64, JobState)> = known
                .jobs
                .iter()
                .filter_map(|job| {
                    let view = at_once(store.job(id_of(*job))).ok().flatten()?;
                    Some((*job, view.0.state))
                })
                .collect();
            let open = states.iter().find(|(_, state)| !is_over(*state));
            if let Some((job, state)) = open {
                self.violated(Invariant::Batches, || {
                    format!("batch {number} ends while job {job} is {}", state.as_str())
                });
            }
            let all_well = states.iter().all(|(_, state)| *state == JobState::Succeeded);
            let of = known.jobs.len();
            if open.is_none()
                && (states.len() != of || all_well != (*ended == BatchState::Succeeded))
            {
                self.violated(Invariant::Batches, || {
                    format!("batch {number} of {of} jobs, {states:?}, is said to have {ended}")
                });
            }
            sometimes!(self.oracle.marks, Mark::BatchSucceeded, all_well);
            sometimes!(self.oracle.marks, Mark::BatchFailed, !all_well);
            self.follow(store, &known);
        }
    }

    /// What waited for a batch does so no more: what is cancelled for that is over.
    fn follow(&mut self, store: &Database, known: &Known) {
        for job in [known.success, known.complete] {
            let view = at_once(store.job(id_of(job))).ok().flatten();
            if view.is_some_and(|(view, _)| view.state == JobState::Cancelled)
                && self.oracle.jobs.enqueued_at(job).is_some()
            {
                self.cancelled(job, JobState::Cancelled);
            }
        }
    }

    /// A person cancelled a batch.
    pub(in crate::cluster) fn cancelled_batch(&mut self, store: &Database, batch: BatchId) {
        self.oracle.marks.reach(Mark::BatchCancelled);
        let Some(known) = self.orders.told.batches.get_mut(&batch) else { return };
        known.ended = Some(BatchState::Cancelled);
        let known = known.clone();
        self.follow(store, &known);
    }

    /// The database gave out this job: what waits for a batch has waited.
    pub(super) fn has_waited(&mut self, job: u64) {
        let waits = self.orders.told.batches.values().find_map(|known| {
            let needs_success = job == known.success;
            let in_vain = match known.ended {
                None | Some(BatchState::Cancelled) => true,
                Some(ended) => needs_success && ended != BatchState::Succeeded,
            };
            (needs_success || job == known.complete).then_some((in_vain, known.ended))
        });
        if let Some((true, ended)) = waits {
            self.violated(Invariant::Batches, || {
                let ended = ended.map_or("goes on", BatchState::as_str);
                format!("job {job} is claimed though the batch that it waits for {ended}")
            });
        }
    }

    /// Whether this job is kept for its batch's sake.
    pub(super) fn is_of_a_batch_that_goes_on(&self, job: u64) -> bool {
        let goes_on = |known: &Known| known.ended.is_none() && known.jobs.contains(&job);
        self.orders.told.batches.values().any(goes_on)
    }

    /// The run is over: a sealed batch whose jobs ended a while ago has ended.
    pub(super) fn check_batches(&mut self, jobs: &[JobView], grace: u64) {
        let nobody = !self.lives.iter().any(|life| life.staying && life.born + grace < self.now);
        let is_out = self.out_until + grace >= self.now || !self.oracle.ring.is_calm(self.now);
        let stormy = self.hosts.iter().any(|host| host.storm_until + grace >= self.now);
        if nobody || is_out || stormy || self.sets_clocks() {
            return;
        }
        let shown = self.server.look().0.exact(self.now.saturating_sub(grace));
        let state: BTreeMap<u64, &JobView> = jobs.iter().map(|job| (job_of(job.id), job)).collect();
        let is_old = |job: &u64| {
            let ended = |job: &&&JobView| has_ended(job);
            let view = state.get(job).filter(ended);
            view.is_some_and(|job| job.finished_at.is_some_and(|finished| finished < shown))
        };
        let forgotten = self.orders.told.batches.iter().find(|(_, known)| {
            let is_sealed = known.sealed_at.is_some_and(|sealed| sealed + grace < self.now);
            is_sealed && known.ended.is_none() && known.jobs.iter().all(is_old)
        });
        if let Some((batch, known)) = forgotten {
            let (number, of) =
                (job_of(turnwise_node::job::JobId(batch.0)) - FIRST_BATCH, known.jobs.len());
            self.violated(Invariant::Batches, || {
                format!("batch {number} has not ended, though its {of} jobs did long ago")
            });
        }
    }
}

fn is_over(state: JobState) -> bool {
    matches!(state, JobState::Succeeded | JobState::Dead | JobState::Cancelled)
}
