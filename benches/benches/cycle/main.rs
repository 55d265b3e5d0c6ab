//! A node that claims, runs and finishes a number of jobs, with nothing that differs from run to run: the whole shell on one
//! thread, the production store on a SQLite database in memory, a caller that calls nobody, and a clock that moves only
//! when everybody waits. What it costs is counted in instructions: `scripts/instructions`, docs/throughput.md.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up has ended")]

mod at_once;
mod still;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use clap::Parser;
use tokio::sync::watch;
use turnwise_benches::real::nodes::{AtOnce, Manner, Threads, config};
use turnwise_engine::{NodeId, Note, Period};
use turnwise_node::caller::Targets;
use turnwise_node::config::CAPACITY_MAX;
use turnwise_node::job::{JobFate, JobState, NewJob, When};
use turnwise_node::shell::{self, Leaves, LifeEnd, Observer, Pulse, Reached, StopHandle, stop};
use turnwise_node::store::sqlite::SqliteStore;
use turnwise_node::store::{NodeReport, Store};

use at_once::AtOnceStore;
use still::{OneThread, StillClock};

/// A node that claims, runs and finishes a number of jobs: to be run where instructions are counted
#[derive(Parser)]
struct Options {
    /// How many jobs there are
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    jobs: u32,
    /// How many of them are run; the others are not due. Two runs with the same --jobs differ by the jobs that are run
    /// alone
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    due: u32,
    /// How many jobs the node runs at once
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(CAPACITY_MAX)))]
    capacity: u32,
    /// Look at every job afterwards; that costs instructions too
    #[arg(long)]
    check: bool,
    /// What `cargo bench` says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    // `cargo test` runs benches too, to see that they start.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let options = Options::parse();
    assert!(options.due <= options.jobs, "--due is at most --jobs");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(run(&options));
    println!("{} of {} jobs run", options.due, options.jobs);
}

async fn run(options: &Options) {
    let clock = StillClock::start();
    let store = SqliteStore::open_with_clock("sqlite::memory:", Arc::new(clock)).unwrap();
    let store = AtOnceStore(store);
    store.migrate().await.unwrap();
    store.agree_period(Some(Period::DEFAULT)).await.unwrap();
    let jobs: Vec<_> = (0..options.jobs).map(|number| job(number, options.due)).collect();
    store.enqueue(&jobs).await.unwrap();
    let manner = Manner {
        capacity: options.capacity,
        targets: Targets::parse(&["http://127.0.0.1:1"]).unwrap(),
        caller: |_: &Targets| AtOnce,
        threads: Threads::One,
        beats: false,
    };
    let config = config("sqlite::memory:", 0, &manner);
    let leaves =
        Leaves { clock, store: store.clone(), caller: AtOnce, chance: [7; 16], callbacks: None };
    let (handle, stop) = stop();
    let counter = Counter { rest: AtomicU32::new(options.due), handle };
    let observer: Arc<dyn Observer> = Arc::new(counter);
    let pulse = watch::channel(Pulse::default()).0;
    let end = shell::run_observed(&leaves, &OneThread, &config, &pulse, None, &observer, stop);
    assert_eq!(end.await.unwrap(), LifeEnd::Stopped, "every job has ended before the node leaves");
    if options.check {
        for (number, job) in (0..).zip(&jobs) {
            let (view, attempts) = store.job(job.id).await.unwrap().unwrap();
            let is_due = number < options.due;
            let state = if is_due { JobState::Succeeded } else { JobState::Scheduled };
            assert_eq!((view.state, attempts.in_all), (state, u64::from(is_due)));
        }
    }
}

fn job(number: u32, due: u32) -> NewJob {
    let later = When::In(Duration::from_secs(1_000_000));
    NewJob {
        when: if number < due { When::Now } else { later },
        ..NewJob::new(format!("/jobs/{number}"))
    }
}

/// Has the node stop when all jobs have been tried.
struct Counter {
    rest: AtomicU32,
    handle: StopHandle,
}

impl Observer for Counter {
    fn noted(&self, _: &Note) {}

    fn reported(&self, _: &NodeReport) {}

    fn turn_answered(&self, _: Option<Duration>) {}

    fn targets_known(&self, _: NodeId, _: &[Reached]) {
        // With nothing to do it is done.
        if self.rest.load(Ordering::Relaxed) == 0 {
            self.handle.ask();
        }
    }

    fn attempted(&self, _: &str, _: JobFate, _: Duration) {
        if self.rest.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.handle.ask();
        }
    }
}
