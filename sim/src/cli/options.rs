//! Decides which options describe a farm, for every command that runs one.

use clap::{Args, ValueEnum};
use turnwise_engine::Period;

use crate::scenario::{Every, Options, Orders, Range, Retention, Scenario, Shift, Span};

/// The farm.
#[derive(Args, Debug)]
pub(super) struct Farm {
    /// How many nodes, 1 to 2000
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=2000))]
    nodes: u32,

    /// The time between polls, 50ms to 10s
    #[arg(long, default_value = "1s", value_parser = period)]
    period: Period,

    /// How far the nodes' clocks are from each other
    #[arg(long, value_name = "TIME", default_value = "900ms")]
    skew: Span,

    /// How fast the nodes' clocks drift, at most; up to 400ppm
    #[arg(long, value_name = "PPM", default_value = "50ppm", value_parser = ppm)]
    drift: f64,

    /// The way to the database and the way back; each node draws its own from this range
    #[arg(long, value_name = "LEAST..MOST", default_value = "1ms..80ms")]
    latency: Range,

    /// What queues add to each way, on average
    #[arg(long, value_name = "TIME", default_value = "200us")]
    jitter: Span,

    /// How unevenly the ways are shared: 0.2 makes the way there 20 % longer and the way back 20 % shorter
    #[arg(long, value_name = "-1..1", default_value_t = 0.0, allow_negative_numbers = true, value_parser = share)]
    asymmetry: f64,

    /// How many of a million messages are lost
    #[arg(long, value_name = "PPM", default_value = "0ppm", value_parser = ppm)]
    loss: f64,

    /// How often a node is killed, such as 1/60s; it comes back after 2 to 30 periods
    #[arg(long, value_name = "RATE", default_value = "0")]
    crash_rate: Every,

    /// How often a node stops for up to ten periods
    #[arg(long, value_name = "RATE", default_value = "0")]
    pause_rate: Every,

    /// How often a node is cut off, there, back or both, for up to ten periods
    #[arg(long, value_name = "RATE", default_value = "0")]
    partition_rate: Every,

    /// How often the database is away, restarts or is slow, for up to ten periods
    #[arg(long, value_name = "RATE", default_value = "0")]
    db_fault_rate: Every,

    /// Set the server's clock: how far, and when, such as -1h@90s; may be repeated
    #[arg(long, value_name = "TIME@WHEN", allow_hyphen_values = true, value_parser = step)]
    step: Vec<(Shift, Span)>,

    /// How often a job is enqueued, such as 20/s
    #[arg(long, value_name = "RATE", default_value = "0")]
    jobs_rate: Every,

    /// How long jobs that succeeded are kept, from 1s [default: for ever]; in the cluster
    #[arg(long, value_name = "TIME")]
    keep_succeeded: Option<Span>,

    /// How long jobs that were given up are kept, from 1s [default: for ever]; in the cluster
    #[arg(long, value_name = "TIME")]
    keep_dead: Option<Span>,

    /// How many jobs are enqueued with one of a few unique keys, such as 200000ppm; in the cluster
    #[arg(long, value_name = "PPM", default_value = "0", value_parser = ppm)]
    keyed: f64,

    /// How many jobs are cancelled soon after, wherever they are then, such as 100000ppm; in the cluster
    #[arg(long, value_name = "PPM", default_value = "0", value_parser = ppm)]
    cancelled: f64,

    /// How often a second queue, with a third of the jobs, is paused for up to 6 s, such as 1/20s; in the cluster
    #[arg(long, value_name = "RATE", default_value = "0")]
    queue_pause_rate: Every,

    /// How many jobs may go on elsewhere after an answer of 202, such as 200000ppm; in the cluster
    #[arg(long, value_name = "PPM", default_value = "0", value_parser = ppm)]
    asynchronous: f64,

    /// How often an app makes a batch of a few jobs, with jobs that wait for it, as in 1/5s; 0: never; in the cluster
    #[arg(long, value_name = "RATE", default_value = "0")]
    batch_rate: Every,

    /// How many jobs of a queue, in which half of them are then, run at once, from 1; 0: any number; in the cluster
    #[arg(long, value_name = "JOBS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    queue_concurrency: u32,

    /// How many jobs of that queue with the same concurrency key, one of a few, run at once, from 1; 0: any number; in the cluster
    #[arg(long, value_name = "JOBS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    queue_concurrency_per_key: u32,

    /// For how many seconds that queue is held back at most when a target asks for it, from 1; 0: it takes no notice; in the cluster
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=86_400))]
    queue_slow_down: u32,

    /// How many jobs of that queue are claimed a second, from 1; 0: any number; in the cluster
    #[arg(long, value_name = "JOBS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    queue_rate: u32,

    /// How many schedules there are, of different intervals of a few seconds; in the cluster
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=3))]
    schedules: u32,

    /// How long is simulated
    #[arg(long, value_name = "TIME", default_value = "10m")]
    duration: Span,

    /// The seed of all chance
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Which design takes turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Design {
    /// The engine of Turnwise
    #[default]
    Transit,
    /// The original design: a 10 ms timer, one sample of the server's time plus half the round trip, and the
    /// slot modulo the number of live machines
    Original,
}

impl Farm {
    pub(super) fn scenario(&self) -> Result<Scenario, String> {
        let options = Options {
            nodes: self.nodes,
            period: self.period,
            skew: self.skew,
            drift_ppm: self.drift,
            latency: self.latency,
            jitter: self.jitter,
            asymmetry: self.asymmetry,
            loss_ppm: self.loss as u32,
            crashes: self.crash_rate,
            pauses: self.pause_rate,
            partitions: self.partition_rate,
            database_faults: self.db_fault_rate,
            steps: self.step.clone(),
            jobs: self.jobs_rate,
            retention: Retention { succeeded: self.keep_succeeded, dead: self.keep_dead },
            orders: Orders {
                keyed_ppm: self.keyed as u32,
                cancelled_ppm: self.cancelled as u32,
                pauses_every: self.queue_pause_rate.0,
                schedules: self.schedules,
                asynchronous_ppm: self.asynchronous as u32,
                batches_every: self.batch_rate.0,
                concurrency: self.queue_concurrency,
                concurrency_per_key: self.queue_concurrency_per_key,
                slow_down: self.queue_slow_down,
                rate: self.queue_rate,
            },
            duration: self.duration,
            seed: self.seed,
        };
        if self.skew > Span::from_secs(4_000) {
            return Err(format!("--skew {}: it must be at most 4000 s", self.skew));
        }
        let scenario = options.scenario();
        scenario.check().map_err(|error| error.to_string())?;
        Ok(scenario)
    }
}

fn period(text: &str) -> Result<Period, String> {
    let Span(nanos) = text.parse().map_err(|error| format!("{error}"))?;
    Period::try_from(std::time::Duration::from_nanos(nanos)).map_err(|error| error.to_string())
}

fn ppm(text: &str) -> Result<f64, String> {
    let number = text.trim().trim_end_matches("ppm").trim();
    let value: f64 = number
        .parse()
        .map_err(|_| format!("{text:?} is no number of parts per million such as 50ppm"))?;
    if !(0.0..=1e6).contains(&value) {
        return Err(format!("{text:?} is not from 0 to 1000000 ppm"));
    }
    Ok(value)
}

fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if !(-1.0..=1.0).contains(&value) {
        return Err(format!("{text:?} is not from -1 to 1"));
    }
    Ok(value)
}

fn step(text: &str) -> Result<(Shift, Span), String> {
    let (by, at) = text
        .split_once('@')
        .ok_or_else(|| format!("{text:?} does not say when: write it as -1h@90s"))?;
    let by = by.parse().map_err(|error| format!("{error}"))?;
    let at = at.parse().map_err(|error| format!("{error}"))?;
    Ok((by, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_by_name() {
        assert!(period("10ms").unwrap_err().contains("50 ms"));
        assert!(ppm("-3ppm").unwrap_err().contains("0 to"));
        assert!(share("1.5").unwrap_err().contains("-1 to 1"));
        assert!(step("1h").unwrap_err().contains("when"));
        assert_eq!(step("-1h@90s"), Ok((Shift(-3_600_000_000_000), Span::from_secs(90))));
    }
}
