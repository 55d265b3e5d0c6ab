//! Decides what is looked at, and how a row of it reads.

use std::time::Duration;

use serde_json::{Value, json};

use turnwise_benches::real::server::Kind;

use crate::farm::Farm;

/// What has become of the farm since the sample before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// Slots since the sample before, and how many of them had no beat.
    pub(crate) slots: i64,
    pub(crate) missed: i64,
    /// The newest slot.
    pub(crate) newest: i64,
    /// How long a job waited to be called, in milliseconds, and how many jobs were.
    pub(crate) wait_p50: f64,
    pub(crate) wait_p99: f64,
    pub(crate) called: usize,
    /// How long a beat takes at the server, on average, in microseconds; PostgreSQL alone.
    pub(crate) beat_us: f64,
    /// The statistics that this is the difference of: beats, and their time in milliseconds.
    pub(crate) beats_so_far: (f64, f64),
    /// The largest node's resident memory, in KiB.
    pub(crate) resident: u64,
    /// The largest node's open files.
    pub(crate) files: usize,
    /// Connections of the server.
    pub(crate) connections: i64,
    /// Rows in `beats`.
    pub(crate) beat_rows: i64,
    /// Bytes of the turn row's table and of the jobs and attempts, and the dead rows in the first; MariaDB keeps its old
    /// versions elsewhere: there it is the length of its list of them.
    pub(crate) turn_bytes: i64,
    pub(crate) job_bytes: i64,
    pub(crate) dead: i64,
}

impl Sample {
    pub(crate) const HEADING: &str = "  slots missed |  called wait p50    p99 |   beat | memory files | conn. |  beats   turn    dead     jobs
                     |             ms     ms |     us |    KiB       |       |   rows    KiB    rows      KiB";

    pub(crate) async fn take(farm: &mut Farm, before: Option<&Self>) -> Self {
        let mut sample = Self::default();
        let waited = std::mem::take(&mut farm.waits.lock().unwrap().waited);
        sample.wait(waited);
        for node in &farm.nodes {
            let process = format!("/proc/{}", node.id());
            sample.resident = sample.resident.max(resident(&process));
            let files = std::fs::read_dir(format!("{process}/fd")).map_or(0, Iterator::count);
            sample.files = sample.files.max(files);
        }
        match farm.kind() {
            Kind::Postgres => sample.look_at_postgres(farm),
            Kind::Mariadb => sample.look_at_mariadb(farm),
        }
        let from = before.map_or(0, |before| before.newest);
        sample.count_beats(farm, from);
        if let Some(before) = before {
            let (beats, time) = (
                sample.beats_so_far.0 - before.beats_so_far.0,
                sample.beats_so_far.1 - before.beats_so_far.1,
            );
            sample.beat_us = time / beats.max(1.0) * 1e3;
        } else {
            sample.beat_us = sample.beats_so_far.1 / sample.beats_so_far.0.max(1.0) * 1e3;
        }
        sample
    }

    fn wait(&mut self, mut waited: Vec<Duration>) {
        waited.sort_unstable();
        self.called = waited.len();
        let at = |share: f64| {
            let place = (waited.len().saturating_sub(1) as f64 * share).round() as usize;
            waited.get(place).map_or(f64::NAN, |wait| wait.as_secs_f64() * 1e3)
        };
        (self.wait_p50, self.wait_p99) = (at(0.5), at(0.99));
    }

    fn look_at_postgres(&mut self, farm: &Farm) {
        let number = |text: &str| farm.sql(text).parse().unwrap_or(-1);
        self.connections =
            number("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'");
        self.turn_bytes = number("SELECT pg_total_relation_size('turnwise.turn')");
        self.dead = number(
            "SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables
             WHERE schemaname = 'turnwise' AND relname IN ('turn', 'nodes')",
        );
        self.job_bytes = number(
            "SELECT pg_total_relation_size('turnwise.jobs') + pg_total_relation_size('turnwise.attempts')",
        );
        let beats = farm.sql(
            "SELECT sum(calls), sum(total_exec_time) FROM pg_stat_statements
             WHERE query LIKE 'SELECT%FROM turnwise.turn_beat(%'",
        );
        let mut beats = beats.split('|').map(|column| column.parse().unwrap_or(0.0));
        self.beats_so_far = (beats.next().unwrap_or(0.0), beats.next().unwrap_or(0.0));
    }

    fn look_at_mariadb(&mut self, farm: &Farm) {
        let number = |text: &str| farm.sql(text).parse().unwrap_or(-1);
        let bytes = |tables: &str| {
            number(&format!(
                "SELECT CAST(SUM(data_length + index_length) AS SIGNED) FROM information_schema.tables
                 WHERE table_schema = 'jobs' AND table_name IN ({tables})"
            ))
        };
        self.connections = number("SELECT count(*) FROM information_schema.processlist");
        self.turn_bytes = bytes("'turnwise_turn'");
        self.job_bytes = bytes("'turnwise_jobs', 'turnwise_attempts'");
        self.dead = number(
            "SELECT count FROM information_schema.innodb_metrics WHERE name = 'trx_rseg_history_len'",
        );
    }

    fn count_beats(&mut self, farm: &Farm, from: i64) {
        let table = match farm.kind() {
            Kind::Postgres => "turnwise.beats",
            Kind::Mariadb => "turnwise_beats",
        };
        let row = farm.sql(&format!(
            "SELECT sum(CASE WHEN slot > {from} THEN 1 ELSE 0 END), min(slot), max(slot), count(*) FROM {table}"
        ));
        let mut row = row.split(['|', '\t']).map(|column| column.parse().unwrap_or(0));
        let mut next = || row.next().unwrap_or(0);
        let (beats, first, last, rows) = (next(), next(), next(), next());
        self.newest = last;
        self.slots = if from == 0 { last - first + 1 } else { last - from };
        self.missed = self.slots - beats;
        self.beat_rows = rows;
    }

    pub(crate) fn row(&self) -> String {
        format!(
            "{:7} {:6} | {:7} {:8.1} {:6.1} | {:6.0} | {:6} {:5} | {:5} | {:6} {:6} {:7} {:8}",
            self.slots,
            self.missed,
            self.called,
            self.wait_p50,
            self.wait_p99,
            self.beat_us,
            self.resident,
            self.files,
            self.connections,
            self.beat_rows,
            self.turn_bytes / 1024,
            self.dead,
            self.job_bytes / 1024
        )
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "slots": self.slots, "missed": self.missed, "called": self.called,
            "wait_p50_ms": self.wait_p50, "wait_p99_ms": self.wait_p99, "beat_us": self.beat_us,
            "resident_kib": self.resident, "files": self.files, "connections": self.connections,
            "beat_rows": self.beat_rows, "turn_bytes": self.turn_bytes, "dead_rows": self.dead,
            "job_bytes": self.job_bytes,
        })
    }
}

/// In KiB.
fn resident(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
