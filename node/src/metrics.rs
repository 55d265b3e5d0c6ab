//! What this node did, in numbers for Prometheus (OpenMetrics 1.0). Decides which numbers there are and how many series
//! they may make; the shell tells what happens, the database how deep the queues are.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use turnwise_engine::{NodeId, Note};

use crate::job::JobFate;
use crate::shell::{Observer, Reached};
use crate::store::{NodeReport, Tally};

/// Queues that have series of their own; those beyond are counted together.
const QUEUES_MAX: usize = 50;
/// The queue of those beyond.
const OTHER_QUEUES: &str = "(other)";
/// From 10 us to half a second: how far a beat was from its boundary.
const ARRIVAL_BUCKETS: [f64; 10] = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.5];
/// From 100 us to 10 s: how long a statement took.
const STATEMENT_BUCKETS: [f64; 10] = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 10.0];
/// From a millisecond to ten minutes: how long a job took.
const JOB_BUCKETS: [f64; 12] =
    [1e-3, 5e-3, 2e-2, 5e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 120.0, 600.0];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BeatLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobLabels {
    queue: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    queue: String,
}

/// The numbers.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    beats: Family<BeatLabels, Counter>,
    arrival: Histogram,
    statements: Histogram,
    failures: Counter,
    offset: Gauge<f64, AtomicU64>,
    offset_error: Gauge<f64, AtomicU64>,
    transit: Gauge<f64, AtomicU64>,
    held: Gauge,
    jobs: Family<JobLabels, Counter>,
    took: Histogram,
    ready: Family<QueueLabels, Gauge>,
    oldest: Family<QueueLabels, Gauge<f64, AtomicU64>>,
    waiting: Known,
    dead: Known,
    queues: Mutex<BTreeSet<String>>,
    /// Held while what the database holds is set and written: two scrapes at once would clear each other's series.
    writing: Mutex<()>,
}

/// A number that is only there while it is known: an old one would pass for what is the case now.
#[derive(Clone, Debug, Default)]
struct Known(Arc<Mutex<Option<i64>>>);

impl Known {
    fn set(&self, value: Option<i64>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }

    fn get(&self) -> Option<i64> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EncodeMetric for Known {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.get().map_or(Ok(()), |value| encoder.encode_gauge(&value))
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }

    fn is_empty(&self) -> bool {
        self.get().is_none()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("turnwise"),
            beats: Family::default(),
            arrival: Histogram::new(ARRIVAL_BUCKETS),
            statements: Histogram::new(STATEMENT_BUCKETS),
            failures: Counter::default(),
            offset: Gauge::default(),
            offset_error: Gauge::default(),
            transit: Gauge::default(),
            held: Gauge::default(),
            jobs: Family::default(),
            took: Histogram::new(JOB_BUCKETS),
            ready: Family::default(),
            oldest: Family::default(),
            waiting: Known::default(),
            dead: Known::default(),
            queues: Mutex::default(),
            writing: Mutex::default(),
        };
        metrics.register_own();
        metrics.register_queues();
        metrics
    }
}

impl Metrics {
    /// What this node did.
    fn register_own(&mut self) {
        let r = &mut self.registry;
        r.register("beats", "Beats of this node: accepted without or with claimed jobs, refused by the fence, or turns that passed and none was sent", self.beats.clone());
        r.register_with_unit(
            "beat_arrival_error",
            "How far from the boundary of its slot a beat arrived, early or late",
            Unit::Seconds,
            self.arrival.clone(),
        );
        r.register_with_unit(
            "turn_statement",
            "How long a statement on the turn row took, there and back",
            Unit::Seconds,
            self.statements.clone(),
        );
        r.register(
            "turn_statement_failures",
            "Statements on the turn row that failed",
            self.failures.clone(),
        );
        r.register_with_unit(
            "clock_offset",
            "The database's clock minus this node's wall clock",
            Unit::Seconds,
            self.offset.clone(),
        );
        r.register_with_unit(
            "clock_offset_error",
            "How far from the truth the offset may be",
            Unit::Seconds,
            self.offset_error.clone(),
        );
        r.register_with_unit(
            "transit",
            "The way from this node to the database",
            Unit::Seconds,
            self.transit.clone(),
        );
        r.register("jobs_held", "Jobs that this node holds", self.held.clone());
        r.register(
            "jobs",
            "Attempts that ended on this node, by queue and by what became of the job",
            self.jobs.clone(),
        );
        r.register_with_unit(
            "job_duration",
            "How long attempts took",
            Unit::Seconds,
            self.took.clone(),
        );
    }

    /// What the database holds: the same on every node.
    fn register_queues(&mut self) {
        let r = &mut self.registry;
        r.register(
            "queue_ready_jobs",
            "Jobs that are due, by queue, counted up to a limit",
            self.ready.clone(),
        );
        r.register_with_unit(
            "queue_oldest_ready",
            "How long the oldest job that is due has been due",
            Unit::Seconds,
            self.oldest.clone(),
        );
        r.register(
            "waiting_jobs",
            "Jobs that are not due yet, counted up to a limit",
            self.waiting.clone(),
        );
        r.register(
            "dead_jobs",
            "Jobs that were given up, counted up to a limit",
            self.dead.clone(),
        );
    }

    /// All numbers, as text. `tally`: what the database holds; where it could not be asked, none of its numbers is
    /// there.
    pub fn text(&self, tally: Option<&Tally>) -> String {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.ready.clear();
        self.oldest.clear();
        if let Some(tally) = tally {
            for queue in tally.queues.iter().take(QUEUES_MAX) {
                let labels = QueueLabels { queue: queue.queue.clone() };
                let oldest = queue.oldest_us.unwrap_or(0) as f64 / 1e6;
                self.ready.get_or_create(&labels).set(i64::from(queue.ready.jobs));
                self.oldest.get_or_create(&labels).set(oldest);
            }
        }
        self.waiting.set(tally.map(|tally| i64::from(tally.later().jobs)));
        self.dead.set(tally.map(|tally| i64::from(tally.dead.jobs)));
        let mut out = String::new();
        if let Err(error) = text::encode(&mut out, &self.registry) {
            tracing::error!("the metrics cannot be written: {error}");
        }
        out
    }

    /// The queue's own name, or that of all others when there are too many.
    fn queue(&self, queue: &str) -> String {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if queues.contains(queue) || queues.len() < QUEUES_MAX && queues.insert(queue.to_owned()) {
            queue.to_owned()
        } else {
            OTHER_QUEUES.to_owned()
        }
    }
}

impl Observer for Metrics {
    fn noted(&self, note: &Note) {
        let outcome = match note {
            Note::Beat { accepted: false, .. } => "refused",
            Note::Beat { claimed: 0, .. } => "empty",
            Note::Beat { .. } => "claimed",
            Note::TurnSkipped { .. } => "skipped",
            _ => return,
        };
        self.beats.get_or_create(&BeatLabels { outcome }).inc();
        if let Note::Beat { arrival_error: Some(nanos), .. } = note {
            self.arrival.observe(nanos.unsigned_abs() as f64 / 1e9);
        }
    }

    fn reported(&self, report: &NodeReport) {
        let seconds = |micros: i64| micros as f64 / 1e6;
        if let (Some(offset), Some(error)) = (report.offset_us, report.offset_error_us) {
            self.offset.set(seconds(offset));
            self.offset_error.set(seconds(error));
        }
        if let Some(transit) = report.transit_us {
            self.transit.set(seconds(transit));
        }
        self.held.set(i64::from(report.running));
    }

    fn turn_answered(&self, after: Option<Duration>) {
        match after {
            Some(after) => self.statements.observe(after.as_secs_f64()),
            None => drop(self.failures.inc()),
        }
    }

    fn targets_known(&self, _: NodeId, _: &[Reached]) {}

    fn attempted(&self, queue: &str, fate: JobFate, took: Duration) {
        let outcome = match fate {
            JobFate::Succeeded => "succeeded",
            JobFate::Retry(_) => "retried",
            JobFate::Dead => "dead",
            JobFate::Await(_) => "accepted",
            JobFate::HandBack => "handed_back",
        };
        self.jobs.get_or_create(&JobLabels { queue: self.queue(queue), outcome }).inc();
        self.took.observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use turnwise_engine::Slot;

    use super::*;
    use crate::store::{Capped, QueueView};

    fn beat(accepted: bool, claimed: u32) -> Note {
        Note::Beat { slot: Slot(1), accepted, arrival_error: Some(-20_000), claimed }
    }

    #[test]
    fn what_is_told_is_counted() {
        let metrics = Metrics::default();
        for note in [beat(true, 0), beat(true, 3), beat(true, 1), beat(false, 0)] {
            metrics.noted(&note);
        }
        metrics.noted(&Note::TurnSkipped { slot: Slot(2) });
        metrics.noted(&Note::Left);
        metrics.attempted("mail", JobFate::Succeeded, Duration::from_millis(40));
        metrics.turn_answered(Some(Duration::from_micros(250)));
        metrics.turn_answered(None);
        metrics.reported(&NodeReport {
            offset_us: Some(-1_500_000),
            offset_error_us: Some(20),
            transit_us: Some(300),
            running: 2,
        });
        let text = metrics.text(None);
        for line in [
            "turnwise_beats_total{outcome=\"empty\"} 1",
            "turnwise_beats_total{outcome=\"claimed\"} 2",
            "turnwise_beats_total{outcome=\"refused\"} 1",
            "turnwise_beats_total{outcome=\"skipped\"} 1",
            "turnwise_beat_arrival_error_seconds_bucket{le=\"0.00003\"} 4",
            "turnwise_beat_arrival_error_seconds_count 4",
            "turnwise_clock_offset_seconds -1.5",
            "turnwise_jobs_total{queue=\"mail\",outcome=\"succeeded\"} 1",
            "turnwise_turn_statement_failures_total 1",
            "turnwise_jobs_held 2",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn queues_make_so_many_series_and_no_more() {
        let metrics = Metrics::default();
        for number in 0..1_000 {
            metrics.attempted(&format!("q{number}\"\n"), JobFate::Dead, Duration::ZERO);
        }
        let text = metrics.text(None);
        let series = text.lines().filter(|line| line.starts_with("turnwise_jobs_total"));
        assert_eq!(series.count(), QUEUES_MAX + 1);
        assert!(text.contains("{queue=\"(other)\",outcome=\"dead\"} 950"), "{text}");
    }

    #[test]
    fn depths_are_as_of_the_last_count() {
        let metrics = Metrics::default();
        let (ready, later) = (Capped { jobs: 7, and_more: true }, Capped::default());
        let view = QueueView { queue: "a".to_owned(), ready, later, oldest_us: Some(1_500_000) };
        let tally = Tally { queues: vec![view], all_queues: true, ..Tally::default() };
        let text = metrics.text(Some(&tally));
        assert!(text.contains("turnwise_queue_ready_jobs{queue=\"a\"} 7"), "{text}");
        assert!(text.contains("turnwise_queue_oldest_ready_seconds{queue=\"a\"} 1.5"), "{text}");
        assert!(
            !metrics.text(Some(&Tally::default())).contains("queue=\"a\""),
            "a queue that is empty is gone"
        );
    }

    fn many_queues() -> Tally {
        let (ready, later) = (Capped { jobs: 7, and_more: false }, Capped::default());
        let view =
            |number| QueueView { queue: format!("q{number}"), ready, later, oldest_us: None };
        let queues = (0..QUEUES_MAX).map(view).collect();
        Tally { queues, all_queues: true, ..Tally::default() }
    }

    #[test]
    fn what_the_database_was_not_asked_for_is_absent_and_not_old() {
        let metrics = Metrics::default();
        let names = ["queue_ready_jobs", "queue_oldest_ready", "waiting_jobs", "dead_jobs"];
        let has = |text: &str, name: &str| {
            text.lines().any(|line| line.starts_with(&format!("turnwise_{name}")))
        };
        let text = metrics.text(Some(&many_queues()));
        assert!(names.iter().all(|name| has(&text, name)), "{text}");
        assert!(text.contains("turnwise_dead_jobs 0"), "{text}");
        let text = metrics.text(None);
        assert!(!names.iter().any(|name| has(&text, name)), "{text}");
    }

    #[test]
    fn scrapes_at_once_each_have_every_series() {
        let (metrics, tally) = (Metrics::default(), many_queues());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let text = metrics.text(Some(&tally));
                        let series = text.matches("turnwise_queue_ready_jobs{").count();
                        assert_eq!(series, QUEUES_MAX, "{text}");
                    }
                });
            }
        });
    }
}
