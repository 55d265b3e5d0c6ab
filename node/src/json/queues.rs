//! Queues: what waits in each, and which are paused or held back.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::rfc3339;
use crate::store::{PausedQueue, QueuePolicy, SlowedQueue, Tally};

/// A queue that has waiting jobs, is paused or held back, or says something of its jobs.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Queue)]
pub(crate) struct QueueLine {
    /// Its name.
    pub(crate) queue: String,
    /// Since when it is paused (RFC 3339, the database's clock); null: it is not.
    #[schema(format = DateTime)]
    pub(crate) paused_since: Option<String>,
    /// Until when none of its jobs is claimed, since a target asks for it (RFC 3339, the database's clock); null: they are.
    #[schema(format = DateTime)]
    pub(crate) held_back_until: Option<String>,
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
    /// What it says of its jobs where they do not say it themselves; left out when that is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<PolicyLine>,
}

/// What a queue says of its jobs.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = QueuePolicy)]
pub(crate) struct PolicyLine {
    /// The wait after the first failed attempt, in milliseconds.
    pub(crate) retry_wait_ms: Option<u64>,
    /// The longest wait between attempts, in milliseconds.
    pub(crate) retry_wait_max_ms: Option<u64>,
    /// Statuses of answers after which a job is not tried again, separated by commas.
    pub(crate) permanent_statuses: String,
    /// So many jobs run at once, on all nodes together; null: any number.
    pub(crate) concurrency: Option<u32>,
    /// So many jobs with the same concurrency key run at once, on all nodes together; null: any number.
    pub(crate) concurrency_per_key: Option<u32>,
    /// So many jobs are claimed in a time; null: any number.
    pub(crate) rate: Option<RateLine>,
    /// When a target asks for it, no job is claimed for so many milliseconds at most; null: only the job itself waits.
    pub(crate) slow_down_ms: Option<u64>,
}

/// How many jobs of a queue are claimed in a time.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = QueueRate)]
pub(crate) struct RateLine {
    /// So many.
    pub(crate) jobs: u32,
    /// In so many milliseconds.
    pub(crate) per_ms: u64,
    /// So many of them at once after a time without any.
    pub(crate) burst: u32,
}

impl PolicyLine {
    /// What is said, in words; none: nothing.
    pub(crate) fn words(&self) -> Option<String> {
        let time = |millis| humantime::format_duration(Duration::from_millis(millis)).to_string();
        let wait = self.retry_wait_ms.map(|millis| format!("retries after {}", time(millis)));
        let most =
            self.retry_wait_max_ms.map(|millis| format!("retries after up to {}", time(millis)));
        let never = Some(&self.permanent_statuses).filter(|statuses| !statuses.is_empty());
        let never = never.map(|statuses| format!("no retries after {statuses}"));
        let at_once = self.concurrency.map(|jobs| format!("{jobs} at once"));
        let per_key = self.concurrency_per_key.map(|jobs| format!("{jobs} at once of each key"));
        let rate = self.rate.as_ref().map(|rate| {
            let burst = match rate.burst == rate.jobs {
                true => String::new(),
                false => format!(", {} at a time", rate.burst),
            };
            format!("{} in {}{burst}", rate.jobs, time(rate.per_ms))
        });
        let slow = |millis| format!("held back for up to {} when a target asks", time(millis));
        let slow = self.slow_down_ms.map(slow);
        let said = [at_once, per_key, rate, slow, wait, most, never];
        let said: Vec<String> = said.into_iter().flatten().collect();
        (!said.is_empty()).then(|| said.join("; "))
    }

    pub(crate) fn new(policy: &QueuePolicy) -> Self {
        let millis = |wait: Duration| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Self {
            retry_wait_ms: policy.retry.wait.map(millis),
            retry_wait_max_ms: policy.retry.wait_max.map(millis),
            permanent_statuses: policy.permanent.to_string(),
            concurrency: policy.limits.concurrency,
            concurrency_per_key: policy.limits.concurrency_per_key,
            rate: policy.limits.rate.map(|rate| RateLine {
                jobs: rate.jobs,
                per_ms: millis(rate.per),
                burst: rate.burst,
            }),
            slow_down_ms: policy.slow_down.map(millis),
        }
    }
}

/// Queues.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Queues)]
pub(crate) struct QueueLines {
    /// Those that have waiting jobs, are paused or held back, or say something of their jobs.
    pub(crate) queues: Vec<QueueLine>,
    /// These are all of them; false in a farm with very many, of which only some are counted.
    pub(crate) all_queues: bool,
}

impl QueueLine {
    /// A queue in which nothing waits.
    fn empty(queue: &str) -> Self {
        Self {
            queue: queue.to_owned(),
            paused_since: None,
            held_back_until: None,
            ready: 0,
            more_ready: false,
            later: 0,
            more_later: false,
            oldest_ready_us: None,
            policy: None,
        }
    }
}

impl QueueLines {
    /// Those with jobs first, each once, though it is paused or held back.
    pub(crate) fn new(
        tally: &Tally,
        mut paused: Vec<PausedQueue>,
        slowed: &[SlowedQueue],
        policies: &[(String, QueuePolicy)],
    ) -> Self {
        let mut queues = Vec::new();
        for queue in &tally.queues {
            let place = paused.iter().position(|paused| paused.queue == queue.queue);
            let since = place.map(|place| rfc3339::format(paused.remove(place).since));
            queues.push(QueueLine {
                queue: queue.queue.clone(),
                paused_since: since,
                held_back_until: None,
                ready: queue.ready.jobs,
                more_ready: queue.ready.and_more,
                later: queue.later.jobs,
                more_later: queue.later.and_more,
                oldest_ready_us: queue.oldest_us,
                policy: None,
            });
        }
        queues.extend(paused.into_iter().map(|paused| QueueLine {
            queue: paused.queue,
            paused_since: Some(rfc3339::format(paused.since)),
            ..QueueLine::empty("")
        }));
        for slowed in slowed {
            let until = rfc3339::format(slowed.until);
            line_of(&mut queues, &slowed.queue).held_back_until = Some(until);
        }
        for (name, policy) in policies {
            line_of(&mut queues, name).policy = Some(PolicyLine::new(policy));
        }
        Self { queues, all_queues: tally.all_queues }
    }
}

/// The line of a queue: a new one at the end, if it has none yet.
fn line_of<'a>(queues: &'a mut Vec<QueueLine>, name: &str) -> &'a mut QueueLine {
    let place = queues.iter().position(|line| line.queue == name).unwrap_or(queues.len());
    if place == queues.len() {
        queues.push(QueueLine::empty(name));
    }
    &mut queues[place]
}

#[cfg(test)]
mod tests {
    use turnwise_engine::ServerInstant;

    use super::*;
    use crate::store::{Capped, Limits, QueueView};

    #[test]
    fn a_queue_that_is_paused_or_held_back_is_listed_with_or_without_jobs() {
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
        let slowed = ["mail", "slow"].map(|queue| SlowedQueue {
            queue: queue.to_owned(),
            until: ServerInstant::from_micros(60_000_000),
        });
        let policy = QueuePolicy { permanent: "404".parse().unwrap(), ..QueuePolicy::default() };
        let policies = [("strict".to_owned(), policy)];
        let lines = QueueLines::new(&tally, paused.to_vec(), &slowed, &policies);
        let since = r#""paused_since":"1970-01-01T00:00:00.000000Z","held_back_until":"#;
        let until = r#""1970-01-01T00:01:00.000000Z""#;
        assert_eq!(
            serde_json::to_string(&lines).unwrap(),
            [
                r#"{"queues":[{"queue":"mail","#,
                since,
                until,
                r#","ready":10000,"more_ready":true,"later":0,"more_later":false,"oldest_ready_us":90500000},"#,
                r#"{"queue":"empty","#,
                since,
                r#"null,"ready":0,"more_ready":false,"later":0,"more_later":false,"oldest_ready_us":null},"#,
                r#"{"queue":"slow","paused_since":null,"held_back_until":"#,
                until,
                r#","ready":0,"more_ready":false,"later":0,"more_later":false,"oldest_ready_us":null},"#,
                r#"{"queue":"strict","paused_since":null,"held_back_until":null,"#,
                r#""ready":0,"more_ready":false,"later":0,"more_later":false,"#,
                r#""oldest_ready_us":null,"policy":{"retry_wait_ms":null,"retry_wait_max_ms":null,"#,
                r#""permanent_statuses":"404","concurrency":null,"concurrency_per_key":null,"rate":null,"#,
                r#""slow_down_ms":null}}],"#,
                r#""all_queues":true}"#,
            ]
            .concat()
        );
    }

    #[test]
    fn what_a_queue_says_is_told_in_words() {
        let words = |policy: &QueuePolicy| PolicyLine::new(policy).words();
        assert_eq!(words(&QueuePolicy::default()), None);
        let limits = Limits {
            concurrency: Some(5),
            concurrency_per_key: Some(1),
            rate: Some("100/m".parse().unwrap()),
        };
        let slow_down = Some(Duration::from_secs(600));
        let all = words(&QueuePolicy { limits, slow_down, ..QueuePolicy::default() }).unwrap();
        let told: Vec<&str> = all.split("; ").collect();
        let slow = "held back for up to 10m when a target asks";
        assert_eq!(told, ["5 at once", "1 at once of each key", "100 in 1m", slow]);
    }
}
