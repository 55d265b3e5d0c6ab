//! What people look at. Each look is a few reading statements; none reads more rows than it says.

use sqlx::FromRow;
use sqlx::mysql::MySqlRow;
use turnwise_engine::{ServerInstant, Slot};

use super::jobs::HOLDS_AN_ATTEMPT;
use super::lanes;
use super::literals::{instant, text};
use super::{MySqlStore, micros_of};
use crate::job::JobId;
use crate::store::StoreError;
use crate::store::errors::Trouble;
use crate::store::marks::Lane;
use crate::store::rows::{self, RunColumns};
use crate::store::views::{
    BeatView, Capped, Elsewhere, LANES_COUNTED_MAX, QueueView, RECENT_JOBS, RunView, Tally, Views,
};

impl Views for MySqlStore {
    async fn beats(&self, after: Slot, limit: u32) -> Result<Vec<BeatView>, StoreError> {
        let arrived = micros_of!("arrived_at");
        let found = self
            .run(format!(
                "SELECT slot, node, {arrived}, claimed FROM turnwise_beats
                 WHERE slot > {} ORDER BY slot LIMIT {limit}",
                after.0
            ))
            .await?;
        let beats: Result<Vec<_>, sqlx::Error> = found.iter().map(FromRow::from_row).collect();
        let beats = beats.map_err(Trouble::from).and_then(rows::beat_views);
        beats.map_err(|trouble| self.trouble(trouble))
    }

    async fn runs(&self, since: ServerInstant, limit: u32) -> Result<Vec<RunView>, StoreError> {
        // STRAIGHT_JOIN: the tables are read in this order.
        let newest = format!(
            "FROM (SELECT id, queue, url, state, node, token, attempt, started_at, finished_at, last_error
                FROM turnwise_jobs FORCE INDEX (PRIMARY) ORDER BY id DESC LIMIT {RECENT_JOBS}) j"
        );
        let found = self
            .run(format!(
                "(SELECT id, queue, LEFT(url, 200), node, attempt, {running_since}, NULL, FALSE
                 FROM turnwise_jobs FORCE INDEX (turnwise_jobs_running)
                 WHERE state = 'running' LIMIT {limit})
                 UNION ALL
                 (SELECT * FROM (
                    (SELECT j.id, j.queue, LEFT(j.url, 200), a.node, a.attempt, {started}, {finished},
                        a.error IS NOT NULL
                     {newest} STRAIGHT_JOIN turnwise_attempts a ON a.job = j.id
                     WHERE a.started_at >= {since} LIMIT {limit})
                    UNION ALL
                    (SELECT j.id, j.queue, LEFT(j.url, 200), j.node, j.attempt, {own_started}, {own_finished},
                        j.last_error IS NOT NULL
                     {newest}
                     WHERE j.state = 'succeeded' AND j.started_at >= {since} AND {HOLDS_AN_ATTEMPT}
                     LIMIT {limit})) e LIMIT {limit})",
                running_since = micros_of!("started_at"),
                started = micros_of!("a.started_at"),
                finished = micros_of!("a.finished_at"),
                own_started = micros_of!("j.started_at"),
                own_finished = micros_of!("j.finished_at"),
                since = instant(since.as_micros()),
            ))
            .await?;
        // A row that cannot be read hides no other.
        let run = |row: &MySqlRow| rows::run_view(RunColumns::from_row(row).ok()?).ok();
        Ok(found.iter().filter_map(run).collect())
    }

    async fn tally(&self, most: u32) -> Result<Tally, StoreError> {
        let limit = i64::from(most) + 1;
        let mut tally = Tally { all_queues: true, ..Tally::default() };
        let mut lane: Option<Lane> = None;
        let mut lanes_found = 0;
        let elsewhere = self.elsewhere(limit).await?;
        while let Some(next) = self.lane_after(lane.as_ref()).await? {
            lanes_found += 1;
            if lanes_found > LANES_COUNTED_MAX {
                tally.all_queues = false;
                break;
            }
            let there = elsewhere.of(&next.queue, next.priority);
            tally.count_lane(self.counted(&next, there, limit, most).await?, most);
            lane = Some(next);
        }
        let of = |state: &str| {
            format!(
                "(SELECT COUNT(*) FROM (SELECT 1 FROM turnwise_jobs FORCE INDEX (turnwise_jobs_running)
                 WHERE state = '{state}' LIMIT {limit}) c)"
            )
        };
        let sql = format!("SELECT {}, {}, {}", of("running"), of("dead"), of("cancelled"));
        let found = self.run(sql).await?;
        let row = self.one(&found)?;
        let count = |at| Ok::<_, StoreError>(Capped::new(self.column(row, at)?, most));
        (tally.running, tally.dead, tally.cancelled) = (count(0)?, count(1)?, count(2)?);
        tally.running.add(Capped::new(elsewhere.in_all(), most), most);
        Ok(tally)
    }

    async fn floor(&self, before: Option<JobId>, jobs: u32) -> Result<Option<JobId>, StoreError> {
        let below = before.map_or(String::new(), |before| format!("WHERE id < '{before}'"));
        let found = self
            .run(format!(
                "SELECT id FROM turnwise_jobs FORCE INDEX (PRIMARY) {below}
                 ORDER BY id DESC LIMIT 1 OFFSET {}",
                jobs.max(1) - 1
            ))
            .await?;
        let id: Option<String> = found.first().map(|row| self.column(row, 0)).transpose()?;
        Ok(id.and_then(|id| id.parse().ok()))
    }
}

impl MySqlStore {
    async fn lane_after(&self, lane: Option<&Lane>) -> Result<Option<Lane>, StoreError> {
        let found = self.run(lanes::query(lane, &self.inner.clock)).await?;
        let listed: Option<String> = self.column(self.one(&found)?, 0)?;
        Ok(listed.and_then(|listed| lanes::parsed(&listed).next()).map(|head| head.lane))
    }

    /// Those that go on elsewhere, at most `limit`.
    async fn elsewhere(&self, limit: i64) -> Result<Elsewhere, StoreError> {
        let found = self
            .run(format!(
                "SELECT j.queue, j.priority, j.scheduled_at <= {}, COUNT(*) FROM (
                    SELECT id FROM turnwise_jobs FORCE INDEX (turnwise_jobs_given_up)
                    WHERE given_up = 'elsewhere' LIMIT {limit}
                 ) e STRAIGHT_JOIN turnwise_jobs j FORCE INDEX (PRIMARY) ON j.id = e.id
                 GROUP BY 1, 2, 3",
                self.inner.clock,
            ))
            .await?;
        let mut elsewhere = Elsewhere::default();
        for row in &found {
            let is_due = self.column::<i64>(row, 2)? != 0;
            elsewhere.add(self.column(row, 0)?, self.column(row, 1)?, is_due, self.column(row, 3)?);
        }
        Ok(elsewhere)
    }

    /// Of a lane, so many of whose jobs, due and not, go on elsewhere.
    async fn counted(
        &self,
        lane: &Lane,
        (due_there, later_there): (i64, i64),
        limit: i64,
        most: u32,
    ) -> Result<QueueView, StoreError> {
        let which = |condition: &str| {
            format!(
                "FROM turnwise_jobs j FORCE INDEX (turnwise_jobs_queued) WHERE j.state = 'queued'
                    AND j.queue = {} AND j.priority = {} AND j.scheduled_at {condition} @turnwise_now",
                text(&lane.queue),
                lane.priority
            )
        };
        let count = |condition: &str, there: i64| {
            let which = which(condition);
            format!("(SELECT COUNT(*) FROM (SELECT 1 {which} LIMIT {}) c)", limit + there)
        };
        // A variable of the session is one instant for all of it, and no function that an index cannot use.
        let found = self
            .run(format!(
                "SET @turnwise_now = CAST({clock} AS DATETIME(6));
                 SELECT {}, {}, (SELECT TIMESTAMPDIFF(MICROSECOND, j.scheduled_at, @turnwise_now) {}
                    AND j.given_up IS NULL ORDER BY j.scheduled_at LIMIT 1)",
                count("<=", due_there),
                count(">", later_there),
                which("<="),
                clock = self.inner.clock,
            ))
            .await?;
        let row = self.one(&found)?;
        let ready = Capped::new(self.column::<i64>(row, 0)? - due_there, most);
        let later = Capped::new(self.column::<i64>(row, 1)? - later_there, most);
        let oldest_us: Option<i64> = self.column(row, 2)?;
        Ok(QueueView { queue: lane.queue.clone(), ready, later, oldest_us })
    }
}
