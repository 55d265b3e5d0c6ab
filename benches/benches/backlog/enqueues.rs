//! Decides how enqueueing is measured: 10,000 jobs at once, by the store and by the plain INSERT of an application, each
//! on a connection that stands.

use std::time::{Duration, Instant};

use serde::Serialize;
use turnwise_benches::real::figures::Runs;
use turnwise_benches::real::place::Place;
use turnwise_benches::real::processor::load;
use turnwise_benches::real::server::Kind;
use turnwise_benches::real::session::Session;
use turnwise_node::job::NewJob;
use turnwise_node::store::{AnyStore, Store};

const JOBS: u32 = 10_000;
const RUNS: u32 = 7;

/// In milliseconds, of seven runs after one that does not count.
#[derive(Serialize)]
pub(crate) struct Enqueues {
    database: Kind,
    by_the_store: Runs,
    by_plain_sql: Runs,
    load: String,
}

impl Enqueues {
    pub(crate) fn measure(database: Kind) -> Self {
        let place = Place::start(database.into());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (mut stored, mut plain) = (Vec::new(), Vec::new());
        runtime.block_on(async {
            let store = AnyStore::connect(&place.url(), 1).unwrap();
            store.migrate().await.unwrap();
            let mut session = Session::open(database, &place.url()).await;
            let sql = place.insert(JOBS);
            for _ in 0..=RUNS {
                let jobs: Vec<_> =
                    (0..JOBS).map(|job| NewJob::new(format!("/jobs/{job}"))).collect();
                let sent = Instant::now();
                store.enqueue(&jobs).await.unwrap();
                stored.push(sent.elapsed());
                let sent = Instant::now();
                session.run(&sql).await;
                plain.push(sent.elapsed());
            }
        });
        let (by_the_store, by_plain_sql) = (runs(&stored), runs(&plain));
        Self { database, by_the_store, by_plain_sql, load: load() }
    }

    pub(crate) fn show(&self) {
        let ms = |Runs { median, min, max }| format!("{median:.0} ms ({min:.0} to {max:.0})");
        println!(
            "{:?}: {JOBS} jobs enqueued at once by the store in {}, by plain SQL in {}",
            self.database,
            ms(self.by_the_store),
            ms(self.by_plain_sql)
        );
    }
}

fn runs(times: &[Duration]) -> Runs {
    Runs::of(times[1..].iter().map(|time| time.as_secs_f64() * 1e3)).unwrap()
}
