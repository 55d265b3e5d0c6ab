//! Many jobs at once, as a person asks for it: all that a filter finds run again, or are cancelled. Decides how many are
//! looked for and altered at a time, so that no beat and no app waits for long, however many there are.

use std::future::Future;
use std::time::Duration;

use super::views::{Capped, Views};
use super::{JobsPage, StoreError};
use crate::audit::Action;
use crate::job::{JobFilter, JobId, JobState};

/// So many jobs are altered by one statement.
pub const BATCH: u32 = 500;
/// Between two statements the beats have their way.
const APART: Duration = Duration::from_millis(20);
/// So many pages are looked through for jobs to be altered before the search is broken off.
const PAGES_MAX: u32 = 10_000;
/// So many pages are looked through to count jobs: somebody waits for the number.
const PAGES_COUNTED_MAX: u32 = 50;

/// What is done to many jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// They run now, as [`super::Store::retry`] has it.
    Retry,
    /// They are cancelled, as [`super::Store::cancel`] has it.
    Cancel,
}

impl Deed {
    /// What it is in the audit.
    pub(crate) fn action(self) -> Action {
        match self {
            Self::Retry => Action::JobsRetry,
            Self::Cancel => Action::JobsCancel,
        }
    }

    /// Whether it makes sense for jobs in this state. One that is ready runs by itself.
    pub fn is_for(self, state: JobState) -> bool {
        let waits = matches!(state, JobState::Scheduled | JobState::Retrying);
        let is_given_up = matches!(state, JobState::Dead | JobState::Cancelled);
        match self {
            Self::Retry => waits || is_given_up,
            Self::Cancel => waits || matches!(state, JobState::Ready | JobState::Running),
        }
    }
}

/// What became of many jobs.
#[derive(Debug)]
pub struct Altered {
    /// So many were altered.
    pub jobs: u32,
    /// There may be more.
    pub and_more: bool,
    /// Why it was broken off, where the database failed: what was altered before stays so.
    pub broken_off: Option<StoreError>,
}

/// What can be done to many jobs at once.
pub trait Bulk: Views {
    /// Alter those of these jobs, at most [`BATCH`], whose state allows it: how many. One that somebody else is altering
    /// just now is passed over, and none is waited for.
    fn alter(
        &self,
        deed: Deed,
        jobs: &[JobId],
    ) -> impl Future<Output = Result<u32, StoreError>> + Send;

    /// How many jobs a deed would touch, counted up to `most`, and as far as a count goes that somebody waits for.
    fn matching(
        &self,
        deed: Deed,
        filter: &JobFilter,
        most: u32,
    ) -> impl Future<Output = Result<Capped, StoreError>> + Send {
        async move {
            let (mut jobs, mut filter) = (0_u32, of_a_batch(filter));
            for _ in 0..PAGES_COUNTED_MAX {
                let page = self.page(&filter).await?;
                jobs = jobs.saturating_add(touched(deed, &page).len() as u32);
                filter.before = page.next;
                if page.next.is_none() || jobs > most {
                    return Ok(Capped::new(i64::from(jobs), most));
                }
            }
            Ok(Capped { jobs: jobs.min(most), and_more: true })
        }
    }

    /// Alter at most `most` of the jobs that a filter finds, the newest first, a batch at a time.
    fn alter_all(
        &self,
        deed: Deed,
        filter: &JobFilter,
        most: u32,
    ) -> impl Future<Output = Altered> + Send {
        async move {
            let (mut jobs, mut filter) = (0_u32, of_a_batch(filter));
            for _ in 0..PAGES_MAX {
                let next = match self.alter_page(deed, &filter, most - jobs).await {
                    Ok((altered, next)) => {
                        jobs += altered;
                        next
                    }
                    Err(error) => return Altered { jobs, and_more: true, broken_off: Some(error) },
                };
                if next.is_none() || jobs >= most {
                    return Altered { jobs, and_more: next.is_some(), broken_off: None };
                }
                filter.before = next;
                tokio::time::sleep(APART).await;
            }
            Altered { jobs, and_more: true, broken_off: None }
        }
    }

    /// Alter at most `most` jobs of a page: how many, and what to go on with.
    fn alter_page(
        &self,
        deed: Deed,
        filter: &JobFilter,
        most: u32,
    ) -> impl Future<Output = Result<(u32, Option<JobId>), StoreError>> + Send {
        async move {
            let page = self.page(filter).await?;
            let mut found = touched(deed, &page);
            let is_cut = found.len() > most as usize;
            found.truncate(most as usize);
            let altered = if found.is_empty() { 0 } else { self.alter(deed, &found).await? };
            Ok((altered, if is_cut { found.last().copied() } else { page.next }))
        }
    }
}

fn of_a_batch(filter: &JobFilter) -> JobFilter {
    JobFilter { limit: BATCH, before: None, ..filter.clone() }
}

fn touched(deed: Deed, page: &JobsPage) -> Vec<JobId> {
    page.jobs.iter().filter(|job| deed.is_for(job.state)).map(|job| job.id).collect()
}
