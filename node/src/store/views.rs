//! What people look at: beats, runs, counts, pages. Decides how far a look may go: none reads more than a bounded number
//! of rows, however many jobs there are, and what was not counted to its end says so.

use std::future::Future;

use serde::{Deserialize, Serialize};
use turnwise_engine::{NodeId, ServerInstant, Slot};
use utoipa::ToSchema;

use super::{Store, StoreError};
use crate::job::{JobFilter, JobId, JobState, JobView};

/// So many jobs of one kind are counted, and no more.
pub const COUNTED_MAX: u32 = 10_000;
/// Among so many jobs, the newest of those in question, a page is looked for.
pub const LOOKED_THROUGH_MAX: u32 = 10_000;
/// So many ended attempts of a job are shown, the newest.
pub const ATTEMPTS_SHOWN: u32 = 100;
/// Of so many jobs, the newest, the ended attempts are shown.
pub const RECENT_JOBS: u32 = 1_000;
/// Jobs of so many lanes (of one queue and one priority) are counted.
pub(super) const LANES_COUNTED_MAX: i64 = 32;

/// Looks at a database that change nothing.
pub trait Views: Store {
    /// The accepted beats of the slots after `after`, oldest first, at most `limit`.
    fn beats(
        &self,
        after: Slot,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<BeatView>, StoreError>> + Send;

    /// The attempts that run now, and those of the newest [`RECENT_JOBS`] jobs that began at `since` or later and have
    /// ended. At most `limit` of each kind, in no order.
    fn runs(
        &self,
        since: ServerInstant,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<RunView>, StoreError>> + Send;

    /// How many jobs there are of each kind, none counted further than `most`.
    fn tally(&self, most: u32) -> impl Future<Output = Result<Tally, StoreError>> + Send;

    /// The id of the job that is the last of `jobs` when they are looked through from the newest with an id below
    /// `before` on; none when there are fewer.
    fn floor(
        &self,
        before: Option<JobId>,
        jobs: u32,
    ) -> impl Future<Output = Result<Option<JobId>, StoreError>> + Send;

    /// A page of jobs, newest first. Where no index leads to the jobs that the filter wants, only
    /// [`LOOKED_THROUGH_MAX`] jobs are looked through for them.
    fn page(
        &self,
        filter: &JobFilter,
    ) -> impl Future<Output = Result<JobsPage, StoreError>> + Send {
        async move {
            let mut filter = filter.clone();
            let has_index = filter.batch.is_some()
                || match filter.state {
                    Some(JobState::Running) => true,
                    None | Some(JobState::Dead | JobState::Cancelled) => filter.queue.is_none(),
                    Some(JobState::Scheduled | JobState::Ready | JobState::Retrying) => {
                        let tally = self.tally(LOOKED_THROUGH_MAX).await?;
                        let queued =
                            tally.queues.iter().map(|queue| queue.ready.jobs + queue.later.jobs);
                        // What was not counted may be any number, and those that go on elsewhere stand among the others.
                        tally.all_queues
                            && queued.sum::<u32>() + tally.running.jobs < LOOKED_THROUGH_MAX
                    }
                    Some(JobState::Succeeded) => false,
                };
            if !has_index {
                filter.from = self.floor(filter.before, LOOKED_THROUGH_MAX).await?;
            }
            let jobs = self.jobs(&filter).await?;
            let is_full = jobs.len() >= filter.limit as usize;
            let next = if is_full { jobs.last().map(|job| job.id) } else { filter.from };
            Ok(JobsPage { jobs, next, searched_all: filter.from.is_none() || is_full })
        }
    }
}

/// A node as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Node)]
pub struct NodeView {
    /// Its id.
    #[schema(value_type = String, format = Uuid)]
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// `live`, `joining` (not in the ring yet), `draining` (asked to leave), `silent` (its lease and its turn have
    /// passed), `left` or `lost`.
    pub state: String,
    /// Server time minus the node's wall clock, in microseconds.
    pub offset_us: Option<i64>,
    /// How far from the truth that may be, in microseconds.
    pub offset_error_us: Option<i64>,
    /// The way to the database, in microseconds.
    pub transit_us: Option<i64>,
    /// Its place in the ring, from 0; none when it is out of it.
    pub rank: Option<u32>,
    /// The number of the roster's content.
    pub epoch: i64,
    /// How many jobs it runs at once.
    pub capacity: u32,
    /// Jobs that it holds, as it said last.
    pub running: u32,
    /// When it last proved that it lives (RFC 3339, server time).
    pub last_check_in: String,
    /// The web apps that it calls jobs on, as it knew them when that changed last; none before it has looked, and none
    /// from binaries that do not tell.
    pub targets: Vec<TargetView>,
    /// Until when it may run jobs without another check-in.
    #[serde(skip)]
    #[schema(ignore)]
    pub lease_until: ServerInstant,
}

#[cfg(test)]
impl NodeView {
    /// A node that lives and of which nothing else is known, for tests to say what they are about.
    pub(crate) fn of_a_test(id: NodeId, name: &str) -> Self {
        Self {
            id,
            name: name.to_owned(),
            state: "live".to_owned(),
            offset_us: None,
            offset_error_us: None,
            transit_us: None,
            rank: None,
            epoch: 0,
            capacity: 1,
            running: 0,
            last_check_in: crate::rfc3339::format(ServerInstant::from_micros(0)),
            targets: Vec::new(),
            lease_until: ServerInstant::from_micros(0),
        }
    }
}

/// The most bytes of JSON that a node writes of its targets.
pub const TARGETS_BYTES_MAX: usize = 4_096;

/// A web app that a node calls jobs on, as the node knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Target)]
pub struct TargetView {
    /// Scheme, host and port.
    pub origin: String,
    /// Whether it takes connections.
    pub answers: bool,
    /// Since when (RFC 3339, server time).
    pub since: String,
}

/// An accepted beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeatView {
    /// Its slot.
    pub slot: Slot,
    /// Whose.
    pub node: NodeId,
    /// When it arrived, by the server's clock.
    pub arrived_at: ServerInstant,
    /// How many jobs it claimed.
    pub claimed: u32,
}

/// An attempt, as it is drawn over time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunView {
    /// The job.
    pub job: JobId,
    /// Its lane.
    pub queue: String,
    /// The beginning of its path or URL, at most 200 characters.
    pub url: String,
    /// Who runs or ran it.
    pub node: NodeId,
    /// The number of the attempt.
    pub attempt: u32,
    /// When it was claimed.
    pub started_at: ServerInstant,
    /// When its end was recorded; none while it runs.
    pub finished_at: Option<ServerInstant>,
    /// Whether it failed; false while it runs.
    pub failed: bool,
}

/// A number that was not counted beyond a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Capped {
    /// So many, or more.
    pub jobs: u32,
    /// There are more.
    pub and_more: bool,
}

impl Capped {
    /// What a count came to that went no further than one beyond `most`.
    pub(super) fn new(counted: i64, most: u32) -> Self {
        let counted = u32::try_from(counted.max(0)).unwrap_or(u32::MAX);
        Self { jobs: counted.min(most), and_more: counted > most }
    }

    pub(super) fn add(&mut self, other: Self, most: u32) {
        let sum = self.jobs.saturating_add(other.jobs);
        self.and_more |= other.and_more || sum > most;
        self.jobs = sum.min(most);
    }
}

impl std::fmt::Display for Capped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.jobs, if self.and_more { "+" } else { "" })
    }
}

/// What waits in a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QueueView {
    /// Its name.
    pub queue: String,
    /// Jobs that are due.
    pub ready: Capped,
    /// Jobs that are not due yet: scheduled, or to be tried again. Those that go on elsewhere are in neither.
    pub later: Capped,
    /// How long the oldest job that is due has been due, in microseconds; none when none is.
    pub oldest_us: Option<i64>,
}

/// How many jobs there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// What waits, by queue; queues without a waiting job are not among them. Of a farm with very many lanes only
    /// some are counted, which `all_queues` tells.
    pub queues: Vec<QueueView>,
    /// These are all the queues.
    pub all_queues: bool,
    /// Jobs that run, on a node or elsewhere.
    pub running: Capped,
    /// Jobs that were given up.
    pub dead: Capped,
    /// Jobs that a person cancelled.
    pub cancelled: Capped,
}

impl Tally {
    /// Jobs that are due, of all queues that were counted.
    pub fn ready(&self) -> Capped {
        self.sum(|queue| queue.ready)
    }

    /// Jobs that are not due yet, of all queues that were counted.
    pub fn later(&self) -> Capped {
        self.sum(|queue| queue.later)
    }

    fn sum(&self, part: impl Fn(&QueueView) -> Capped) -> Capped {
        let mut sum = Capped { jobs: 0, and_more: !self.all_queues };
        for queue in &self.queues {
            sum.add(part(queue), COUNTED_MAX);
        }
        sum
    }

    /// The counts of the lanes, in their order, put together by queue.
    pub(super) fn count_lane(&mut self, lane: QueueView, most: u32) {
        if lane.ready.jobs + lane.later.jobs == 0 {
            return;
        }
        match self.queues.last_mut() {
            Some(last) if last.queue == lane.queue => {
                last.ready.add(lane.ready, most);
                last.later.add(lane.later, most);
                last.oldest_us = last.oldest_us.max(lane.oldest_us);
            }
            _ => self.queues.push(lane),
        }
    }
}

/// How many jobs go on elsewhere, by queue, priority and whether they are due: they stand among those that wait, and run.
#[derive(Debug, Default)]
pub(super) struct Elsewhere(Vec<(String, i64, bool, i64)>);

impl Elsewhere {
    pub(super) fn add(&mut self, queue: String, priority: i64, is_due: bool, jobs: i64) {
        self.0.push((queue, priority, is_due, jobs));
    }

    /// How many of a lane are due, and how many are not.
    pub(super) fn of(&self, queue: &str, priority: i64) -> (i64, i64) {
        let of = |due: bool| {
            let those = self.0.iter().filter(|(name, number, is_due, _)| {
                (name.as_str(), *number, *is_due) == (queue, priority, due)
            });
            those.map(|(.., jobs)| jobs).sum()
        };
        (of(true), of(false))
    }

    pub(super) fn in_all(&self) -> i64 {
        self.0.iter().map(|(.., jobs)| jobs).sum()
    }
}

/// Jobs, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobsPage {
    /// The jobs.
    pub jobs: Vec<JobView>,
    /// What to go on with, as [`JobFilter::before`]; none when this is the end.
    pub next: Option<JobId>,
    /// False when the search was broken off: between the last of these jobs and `next` there is none.
    pub searched_all: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_says_when_it_was_broken_off() {
        assert_eq!(Capped::new(7, 10).to_string(), "7");
        assert_eq!(Capped::new(10, 10).to_string(), "10");
        assert_eq!(Capped::new(11, 10).to_string(), "10+");
        assert_eq!(Capped::new(-1, 10).to_string(), "0");
    }

    #[test]
    fn lanes_of_a_queue_are_one() {
        let lane = |queue: &str, ready, later, oldest_us| QueueView {
            queue: queue.to_owned(),
            ready: Capped::new(ready, 10),
            later: Capped::new(later, 10),
            oldest_us,
        };
        let mut tally = Tally { all_queues: true, ..Tally::default() };
        tally.count_lane(lane("a", 6, 0, Some(5)), 10);
        tally.count_lane(lane("a", 6, 1, None), 10);
        tally.count_lane(lane("b", 1, 2, Some(9)), 10);
        assert_eq!(tally.queues.len(), 2);
        assert_eq!(tally.queues[0].ready, Capped { jobs: 10, and_more: true });
        assert_eq!((tally.queues[0].later.jobs, tally.queues[0].oldest_us), (1, Some(5)));
        assert_eq!(tally.ready().to_string(), "11+");
        assert_eq!(tally.later().to_string(), "3");
        tally.all_queues = false;
        assert_eq!(tally.later().to_string(), "3+");
    }
}
