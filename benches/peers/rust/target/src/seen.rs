//! What the target has seen since it was last told how many jobs there are.

use peers_common::now;

/// The requests of one run.
#[derive(Default)]
pub(crate) struct Seen {
    /// When each job was first requested; 0: not yet.
    stamps: Vec<u64>,
    count: usize,
    distinct: usize,
    first: u64,
    last: u64,
}

impl Seen {
    /// Forget everything; so many jobs are to come.
    pub(crate) fn of(jobs: usize) -> Self {
        Self { stamps: vec![0; jobs], ..Self::default() }
    }

    /// A request for this job came in. Requests for jobs that there are not count, but not as distinct ones.
    pub(crate) fn note(&mut self, job: usize) {
        self.count += 1;
        if let Some(stamp) = self.stamps.get_mut(job)
            && *stamp == 0
        {
            *stamp = now();
            self.distinct += 1;
            self.last = *stamp;
            if self.first == 0 {
                self.first = *stamp;
            }
        }
    }

    /// As JSON: `last` is the first request of the last new job.
    pub(crate) fn report(&self) -> String {
        let Self { count, distinct, first, last, .. } = self;
        format!(r#"{{"count":{count},"distinct":{distinct},"first":{first},"last":{last}}}"#)
    }

    /// When this job was first requested; 0: not yet.
    pub(crate) fn stamp(&self, job: usize) -> u64 {
        self.stamps.get(job).copied().unwrap_or(0)
    }
}
