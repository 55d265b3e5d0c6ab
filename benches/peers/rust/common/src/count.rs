//! Counts completions of jobs that do nothing, for the harness: how many, how many different ones, when the first and
//! the last.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::now;

/// How often the harness is told.
const INTERVAL: Duration = Duration::from_millis(100);

/// The count of one process; clones share it.
#[derive(Clone, Debug)]
pub struct Count(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    seen: Vec<AtomicBool>,
    count: AtomicUsize,
    distinct: AtomicUsize,
    first: AtomicU64,
    last: AtomicU64,
}

impl Count {
    /// A count of so many jobs, which a thread of its own reports on standard output.
    pub fn reported(jobs: usize) -> Self {
        let count = Self(Arc::new(Inner {
            seen: (0..jobs).map(|_| AtomicBool::new(false)).collect(),
            count: AtomicUsize::new(0),
            distinct: AtomicUsize::new(0),
            first: AtomicU64::new(u64::MAX),
            last: AtomicU64::new(0),
        }));
        let reporter = count.clone();
        thread::spawn(move || {
            loop {
                thread::sleep(INTERVAL);
                println!("{}", reporter.report());
            }
        });
        count
    }

    /// This job has been run.
    pub fn done(&self, job: usize) {
        let now = now();
        self.0.first.fetch_min(now, Ordering::Relaxed);
        self.0.last.fetch_max(now, Ordering::Relaxed);
        if self.0.seen.get(job).is_some_and(|seen| !seen.swap(true, Ordering::Relaxed)) {
            self.0.distinct.fetch_add(1, Ordering::Relaxed);
        }
        self.0.count.fetch_add(1, Ordering::Release);
    }

    /// As JSON.
    fn report(&self) -> String {
        let count = self.0.count.load(Ordering::Acquire);
        let distinct = self.0.distinct.load(Ordering::Relaxed);
        let first = if count == 0 { 0 } else { self.0.first.load(Ordering::Relaxed) };
        let last = self.0.last.load(Ordering::Relaxed);
        format!(r#"{{"count":{count},"distinct":{distinct},"first":{first},"last":{last}}}"#)
    }
}
