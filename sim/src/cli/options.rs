//! Decides which options describe a farm, for every command that runs one.

use clap::{Args, ValueEnum};
use turnwise_engine::Period;

use crate::cluster::fit;
use crate::scenario::{Every, Options, Orders, Range, Retention, Scenario, Shift, Span, SpanError};
use crate::tier::Tier;

/// The farm.
#[derive(Args, Debug)]
pub(super) struct Farm {
    /// How many nodes, 1 to 2000
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=2000))]
    nodes: u32,

    /// The time between polls, 50ms to 10s
    #[arg(long, default_value = "1s", value_parser = period)]
    period: Period,

    /// How far the nodes' clocks are from each other, up to 4000s
    #[arg(long, value_name = "TIME", default_value = "900ms", value_parser = skew)]
    skew: Span,

    /// How fast the nodes' clocks drift, at most; up to 400ppm
    #[arg(long, value_name = "PPM", default_value = "50ppm", value_parser = drift)]
    drift: f64,

    /// How the rates of the nodes' clocks wander: the standard deviation of their change over a second, up to 10000ppb;
    /// in the lab and the cluster
    #[arg(long, value_name = "PPB", default_value = "0ppb", value_parser = ppb)]
    wander: u32,

    /// The resolution of the nodes' clocks, 1ns to 1s; in the lab and the cluster
    #[arg(long, value_name = "TIME", default_value = "1ns", value_parser = resolution)]
    clock_resolution: Span,

    /// How late a node wakes up, on average, up to 1s; in the lab and the cluster
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = late)]
    late_wake: Span,

    /// The way to the database and the way back; each node draws its own from this range
    #[arg(long, value_name = "LEAST..MOST", default_value = "1ms..80ms")]
    latency: Range,

    /// The ways of one node, in place of what it would draw, such as 2=300ms..400ms; nodes count from 0; may be repeated
    #[arg(long, value_name = "NODE=LEAST..MOST", value_parser = node_latency)]
    node_latency: Vec<(u32, Range)>,

    /// What queues add to each way, on average
    #[arg(long, value_name = "TIME", default_value = "200us")]
    jitter: Span,

    /// How unevenly the ways are shared: 0.2 makes the way there 20 % longer and the way back 20 % shorter
    #[arg(long, value_name = "-1..1", default_value_t = 0.0, allow_negative_numbers = true, value_parser = share)]
    asymmetry: f64,

    /// How many of a million messages meet with a long queue: ten times the jitter, heavy-tailed, such as 20000ppm
    #[arg(long, value_name = "PPM", default_value = "0ppm", value_parser = ppm)]
    tail: f64,

    /// How many of a million messages wait for a retransmission, of 200 ms and more, such as 1000ppm
    #[arg(long, value_name = "PPM", default_value = "0ppm", value_parser = ppm)]
    spikes: f64,

    /// How many of a million messages are lost
    #[arg(long, value_name = "PPM", default_value = "0ppm", value_parser = ppm)]
    loss: f64,

    /// How many of a million messages to the turn row arrive twice, such as 1000ppm; in the lab
    #[arg(long, value_name = "PPM", default_value = "0ppm", value_parser = ppm)]
    duplicates: f64,

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

    /// How many jobs of a queue run at once, from 1; 0: any number. Half of the jobs are in it then; in the lab in two such queues
    #[arg(long, value_name = "JOBS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    queue_concurrency: u32,

    /// How many jobs of that queue with the same concurrency key, one of a few, run at once, from 1; 0: any number; in the cluster
    #[arg(long, value_name = "JOBS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    queue_concurrency_per_key: u32,

    /// For how many seconds that queue is held back at most when a target asks for it, from 1; 0: it takes no notice; in the cluster
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=86_400))]
    queue_slow_down: u32,

    /// How many jobs of that queue are claimed a second, from 1; 0: any number
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

impl Design {
    /// Whether it can take turns in this tier.
    pub(super) fn check_in(self, tier: Tier) -> Result<(), String> {
        match (self, tier) {
            (Self::Original, Tier::Cluster) => Err(format!(
                "--clock original: the original design is a stand-in for the engine alone, and the {tier} runs the \
                 node's own shell, with the engine in it; run it in the lab, by turnwise-sim lab or --tier lab"
            )),
            _ => Ok(()),
        }
    }
}

impl Farm {
    /// Its scenario, with its own seed.
    pub(super) fn scenario(&self) -> Result<Scenario, String> {
        self.drawn(self.seed)
    }

    /// Its scenario in a tier, as near to the options as the tier can express.
    pub(super) fn scenario_in(&self, tier: Tier) -> Result<Scenario, String> {
        self.scenario_of(self.seed, tier)
    }

    /// The same with another seed, from which the nodes and the faults are drawn.
    pub(super) fn scenario_of(&self, seed: u64, tier: Tier) -> Result<Scenario, String> {
        let scenario = self.drawn(seed)?;
        match tier {
            Tier::Lab => Ok(scenario),
            Tier::Cluster if self.duplicates > 0.0 => Err(format!(
                "the {tier} cannot run this: --duplicates: the nodes' connections are TCP, which delivers once; the \
                 lab can"
            )),
            Tier::Cluster => Ok(fit(scenario)),
        }
    }

    /// The first option that says what real processes cannot be given; none: there is none.
    pub(super) fn of_simulated_clocks(&self) -> Option<&'static str> {
        let all = [
            ("--wander", self.wander > 0),
            ("--clock-resolution", self.clock_resolution > Span(1)),
            ("--late-wake", self.late_wake > Span::ZERO),
        ];
        all.into_iter().find(|(_, is_given)| *is_given).map(|(name, _)| name)
    }

    /// Whether each node that has a latency of its own is there, and has one.
    fn check_node_latency(&self) -> Result<(), String> {
        for (place, (node, range)) in self.node_latency.iter().enumerate() {
            if *node >= self.nodes {
                let last = self.nodes - 1;
                return Err(format!(
                    "--node-latency {node}={range}: there is no node {node}; the last is {last}: name another, or \
                     add nodes by --nodes"
                ));
            }
            if self.node_latency[..place].iter().any(|(other, _)| other == node) {
                return Err(format!(
                    "--node-latency {node}={range}: node {node} has a range already; leave one of the two out"
                ));
            }
        }
        Ok(())
    }

    fn drawn(&self, seed: u64) -> Result<Scenario, String> {
        self.check_node_latency()?;
        let options = Options {
            nodes: self.nodes,
            period: self.period,
            skew: self.skew,
            drift_ppm: self.drift,
            wander_ppb: self.wander,
            resolution: self.clock_resolution,
            late_wake: self.late_wake,
            latency: self.latency,
            node_latency: self.node_latency.clone(),
            jitter: self.jitter,
            asymmetry: self.asymmetry,
            tail_ppm: self.tail as u32,
            spike_ppm: self.spikes as u32,
            loss_ppm: self.loss as u32,
            duplicate_ppm: self.duplicates as u32,
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
            seed,
        };
        let scenario = options.scenario();
        scenario.check().map_err(|error| {
            match error.field.as_deref().and_then(|field| self.option_of(field)) {
                Some(option) => format!("{option}: {error}"),
                None => error.to_string(),
            }
        })?;
        Ok(scenario)
    }

    /// The option that a field of the scenario comes from.
    fn option_of(&self, field: &str) -> Option<&'static str> {
        let (of, name) = field.rsplit_once("].").unwrap_or(("", field));
        let is_its_own = |(node, _): &(u32, Range)| of == format!("nodes[{node}");
        Some(match name {
            "there.base" | "back.base" if self.node_latency.iter().any(is_its_own) => {
                "--node-latency"
            }
            "there.base" | "back.base" => "--latency",
            "there.spread" | "back.spread" => "--jitter",
            "at" | "fault.by" => "--step",
            "faults" => "--crash-rate, --pause-rate, --partition-rate, --db-fault-rate, --step",
            "load.every" => "--jobs-rate",
            "retention.succeeded" => "--keep-succeeded",
            "retention.dead" => "--keep-dead",
            "orders.pauses_every" => "--queue-pause-rate",
            "orders.batches_every" => "--batch-rate",
            "duration" => "--duration",
            _ => return None,
        })
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

fn drift(text: &str) -> Result<f64, String> {
    let value = ppm(text)?;
    if value > 400.0 {
        return Err(format!("{text:?} is not from 0 to 400 ppm"));
    }
    Ok(value)
}

fn ppb(text: &str) -> Result<u32, String> {
    let number = text.trim().trim_end_matches("ppb").trim();
    let value: u32 = number
        .parse()
        .map_err(|_| format!("{text:?} is no number of parts per billion such as 50ppb"))?;
    if value > 10_000 {
        return Err(format!("{text:?} is not from 0 to 10000 ppb"));
    }
    Ok(value)
}

fn skew(text: &str) -> Result<Span, String> {
    within(text, Span::ZERO, Span::from_secs(4_000), "0 to 4000s")
}

fn resolution(text: &str) -> Result<Span, String> {
    within(text, Span(1), Span::from_secs(1), "1ns to 1s")
}

fn late(text: &str) -> Result<Span, String> {
    within(text, Span::ZERO, Span::from_secs(1), "0 to 1s")
}

/// A length of time that lies between two others, which are told as `range`.
fn within(text: &str, least: Span, most: Span, range: &str) -> Result<Span, String> {
    let span: Span = text.parse().map_err(|error: SpanError| error.to_string())?;
    if span < least || span > most {
        return Err(format!("{text:?} is not from {range}"));
    }
    Ok(span)
}

fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if !(-1.0..=1.0).contains(&value) {
        return Err(format!("{text:?} is not from -1 to 1"));
    }
    Ok(value)
}

fn node_latency(text: &str) -> Result<(u32, Range), String> {
    let (node, range) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} does not say which node: write it as 2=300ms..400ms"))?;
    let number: u32 = node.trim().parse().map_err(|_| {
        format!("{node:?} is no number of a node: they count from 0, as in 2=300ms..400ms")
    })?;
    let range: Range = range.parse().map_err(|error: SpanError| error.to_string())?;
    Ok((number, range))
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
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Arguments {
        #[command(flatten)]
        farm: Farm,
    }

    fn farm(options: &[&str]) -> Farm {
        Arguments::try_parse_from([&["sim"][..], options].concat()).unwrap().farm
    }

    #[test]
    fn each_seed_has_faults_of_its_own() {
        let farm = farm(&["--crash-rate", "1/20s", "--seed", "3"]);
        let of = |seed| farm.drawn(seed).unwrap();
        assert_eq!(farm.scenario().unwrap(), of(3));
        assert!(of(3).faults.len() > 5 && of(4).faults.len() > 5);
        assert_ne!(of(3).faults, of(4).faults);
    }

    #[test]
    fn a_number_that_is_out_of_its_range_is_refused_by_its_option() {
        for (options, option) in [
            (["--duration", "2y"], "--duration: "),
            (["--latency", "11s"], "--latency: nodes[0].there.base: "),
            (["--jitter", "11s"], "--jitter: nodes[0].there.spread: "),
            (["--jobs-rate", "1000/1us"], "--jobs-rate: load.every: "),
            (["--crash-rate", "1/1ns"], "--crash-rate"),
            (["--step", "1h@11m"], "--step: faults[0].at: "),
            (["--step", "11y@1m"], "--step: faults[0].fault.by: "),
            (["--keep-dead", "1ms"], "--keep-dead: "),
            (["--batch-rate", "1/1us"], "--batch-rate: "),
        ] {
            let error = farm(&options).scenario().unwrap_err();
            assert!(error.starts_with(option), "{options:?}: {error}");
        }
    }

    #[test]
    fn a_node_with_ways_of_its_own_is_there_and_named_once() {
        let own = Range { least: Span::from_millis(300), most: Span::from_millis(400) };
        let two = farm(&["--node-latency", "4=300ms..400ms", "--node-latency", "0=2ms"]);
        assert_eq!(two.node_latency[0], (4, own));
        let (with, without) = (two.scenario().unwrap(), farm(&[]).scenario().unwrap());
        let base = |scenario: &Scenario, node: usize| scenario.nodes[node].there.base;
        assert!(base(&with, 4) >= own.least && base(&with, 4) <= own.most);
        assert_eq!(base(&with, 0), Span::from_millis(2));
        assert_eq!(with.nodes[1..4], without.nodes[1..4]);
        let error = farm(&["--nodes", "2", "--node-latency", "2=5ms"]).scenario().unwrap_err();
        for word in ["--node-latency", "no node 2", "the last is 1", "--nodes"] {
            assert!(error.contains(word), "{error}");
        }
        let twice = farm(&["--node-latency", "1=5ms", "--node-latency", "1=6ms"]);
        let error = twice.scenario().unwrap_err();
        assert!(error.starts_with("--node-latency 1=6ms..6ms: node 1 has"), "{error}");
        for (options, option) in [
            (["--latency", "5ms", "--node-latency", "1=11s"], "--node-latency: nodes[1]."),
            (["--latency", "11s", "--node-latency", "1=5ms"], "--latency: nodes[0]."),
        ] {
            let error = farm(&options).scenario().unwrap_err();
            assert!(error.starts_with(option), "{options:?}: {error}");
        }
    }

    #[test]
    fn the_original_design_is_refused_where_the_shell_runs() {
        for tier in [Tier::Lab, Tier::Cluster] {
            assert_eq!(Design::Transit.check_in(tier), Ok(()));
        }
        assert_eq!(Design::Original.check_in(Tier::Lab), Ok(()));
        let error = Design::Original.check_in(Tier::Cluster).unwrap_err();
        for word in ["--clock original", "the node's own shell", "--tier lab"] {
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn what_a_tier_cannot_express_is_refused_and_not_left_out() {
        let twice = farm(&["--duplicates", "5ppm"]);
        assert!(twice.scenario_in(Tier::Lab).is_ok());
        assert!(twice.scenario_in(Tier::Cluster).unwrap_err().contains("--duplicates"));
        assert!(farm(&["--tail", "5ppm"]).scenario_in(Tier::Cluster).is_ok());
        assert_eq!(farm(&["--wander", "1ppb"]).of_simulated_clocks(), Some("--wander"));
        assert_eq!(farm(&["--spikes", "1ppm"]).of_simulated_clocks(), None);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        assert!(period("10ms").unwrap_err().contains("50 ms"));
        assert!(ppm("-3ppm").unwrap_err().contains("0 to"));
        assert!(drift("401").unwrap_err().contains("0 to 400 ppm"));
        assert!(ppb("10001ppb").unwrap_err().contains("0 to 10000 ppb"));
        assert!(ppb("often").unwrap_err().contains("50ppb"));
        assert!(skew("2h").unwrap_err().contains("0 to 4000s"));
        assert!(resolution("0").unwrap_err().contains("1ns to 1s"));
        assert!(late("-1ms").unwrap_err().contains("negative"));
        assert!(share("1.5").unwrap_err().contains("-1 to 1"));
        assert!(node_latency("5ms").unwrap_err().contains("which node"));
        assert!(node_latency("one=5ms").unwrap_err().contains("count from 0"));
        assert!(node_latency("1=9ms..5ms").unwrap_err().contains("first end"));
        assert!(step("1h").unwrap_err().contains("when"));
        assert_eq!(step("-1h@90s"), Ok((Shift(-3_600_000_000_000), Span::from_secs(90))));
    }
}
