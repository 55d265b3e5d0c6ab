//! What stands in the table before anything is measured: written by plain SQL, in the states that nodes leave. Decides
//! nothing.

use turnwise_benches::real::place::Place;
use turnwise_benches::real::server::Kind;

/// So many rows are written in one transaction.
const BATCH: u64 = 100_000;

/// Jobs that are due, in 8 queues and 5 priorities.
pub(crate) fn ready(place: &Place, kind: Kind, jobs: u64) {
    for (first, last) in batches(jobs) {
        place.sql(&match kind {
            Kind::Postgres => format!(
                "INSERT INTO turnwise.jobs (url, queue, priority)
                 SELECT '/jobs/' || g, 'queue-' || g % 8, g / 8 % 5 - 2
                 FROM generate_series({first}, {last}) g"
            ),
            Kind::Mariadb => format!(
                "INSERT INTO turnwise_jobs (url, queue, priority)
                 SELECT concat('/jobs/', seq), concat('queue-', seq % 8), CAST(seq DIV 8 % 5 AS SIGNED) - 2
                 FROM seq_{first}_to_{last}"
            ),
        });
    }
}

/// Jobs that have succeeded at their first attempt; and the table as it is once the server has been through
/// it, as it has in a farm that has run so many.
pub(crate) fn finished(place: &Place, kind: Kind, jobs: u64) {
    for (first, last) in batches(jobs) {
        let node = uuid::Uuid::new_v4();
        match kind {
            Kind::Postgres => {
                place.sql(&format!(
                    "INSERT INTO turnwise.jobs
                         (url, state, attempt, node, token, started_at, finished_at, last_status)
                     SELECT '/jobs/' || g, 'succeeded', 1, '{node}', 1, turnwise.clock(), turnwise.clock(), 200
                     FROM generate_series({first}, {last}) g"
                ));
            }
            Kind::Mariadb => {
                place.sql(&format!(
                    "INSERT INTO turnwise_jobs
                         (url, state, attempt, node, token, started_at, finished_at, last_status)
                     SELECT concat('/jobs/', seq), 'succeeded', 1, '{node}', 1, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), 200
                     FROM seq_{first}_to_{last}"
                ));
            }
        }
    }
    match kind {
        Kind::Postgres => {
            place.sql("VACUUM (ANALYZE) turnwise.jobs");
            place.sql("CHECKPOINT");
        }
        Kind::Mariadb => {
            place.sql("ANALYZE TABLE turnwise_jobs");
        }
    }
}

fn batches(jobs: u64) -> impl Iterator<Item = (u64, u64)> {
    (1..=jobs).step_by(BATCH as usize).map(move |first| (first, jobs.min(first + BATCH - 1)))
}
