//! Queues: what waits in each, and which are paused.

use serde::Serialize;
use utoipa::ToSchema;

use crate::rfc3339;
use crate::store::{PausedQueue, Tally};

/// A queue that has waiting jobs or is paused.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Queue)]
pub(crate) struct QueueLine {
    /// Its name.
    pub(crate) queue: String,
    /// Since when it is paused (RFC 3339, the database's clock); null: it is not.
    #[schema(format = DateTime)]
    pub(crate) paused_since: Option<String>,
    /// Jobs that are due, counted up to 10000.
    pub(crate) ready: u32,
    /// There are more than were counted.
    pub(crate) more_ready: bool,
    /// Jobs that are not due yet, counted up to 10000.
    pub(crate) later: u32,
    /// There are more than were counted.
    pub(crate) more_later: bool,
    /// How long the oldest job that is due has been due, in microseconds; null when none is.
    pub(crate) oldest_ready_us: Option<i64>,
}

/// Queues.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Queues)]
pub(crate) struct QueueLines {
    /// Those that have waiting jobs or are paused.
    pub(crate) queues: Vec<QueueLine>,
    /// These are all of them; false in a farm with very many, of which only some are counted.
    pub(crate) all_queues: bool,
}

impl QueueLines {
    /// Those with jobs first, each once, though it is paused.
    pub(crate) fn new(tally: &Tally, mut paused: Vec<PausedQueue>) -> Self {
        let mut queues = Vec::new();
        for queue in &tally.queues {
            let place = paused.iter().position(|paused| paused.queue == queue.queue);
            let since = place.map(|place| rfc3339::format(paused.remove(place).since));
            queues.push(QueueLine {
                queue: queue.queue.clone(),
                paused_since: since,
                ready: queue.ready.jobs,
                more_ready: queue.ready.and_more,
                later: queue.later.jobs,
                more_later: queue.later.and_more,
                oldest_ready_us: queue.oldest_us,
            });
        }
        queues.extend(paused.into_iter().map(|paused| QueueLine {
            queue: paused.queue,
            paused_since: Some(rfc3339::format(paused.since)),
            ready: 0,
            more_ready: false,
            later: 0,
            more_later: false,
            oldest_ready_us: None,
        }));
        Self { queues, all_queues: tally.all_queues }
    }
}

#[cfg(test)]
mod tests {
    use turnwise_engine::ServerInstant;

    use super::*;
    use crate::store::{Capped, QueueView};

    #[test]
    fn a_paused_queue_is_listed_with_or_without_jobs() {
        let waits = QueueView {
            queue: "mail".to_owned(),
            ready: Capped { jobs: 10_000, and_more: true },
            later: Capped::default(),
            oldest_us: Some(90_500_000),
        };
        let tally = Tally { queues: vec![waits], all_queues: true, ..Tally::default() };
        let paused = ["empty", "mail"].map(|queue| PausedQueue {
            queue: queue.to_owned(),
            since: ServerInstant::from_micros(0),
        });
        let lines = QueueLines::new(&tally, paused.to_vec());
        let since = r#""paused_since":"1970-01-01T00:00:00.000000Z""#;
        assert_eq!(
            serde_json::to_string(&lines).unwrap(),
            [
                r#"{"queues":[{"queue":"mail","#,
                since,
                r#","ready":10000,"more_ready":true,"later":0,"more_later":false,"oldest_ready_us":90500000},"#,
                r#"{"queue":"empty","#,
                since,
                r#","ready":0,"more_ready":false,"later":0,"more_later":false,"oldest_ready_us":null}],"#,
                r#""all_queues":true}"#,
            ]
            .concat()
        );
    }
}
