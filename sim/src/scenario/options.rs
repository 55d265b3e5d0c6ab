//! Decides which scenario a user's options describe.

use std::fmt;
use std::str::FromStr;

use turnwise_engine::Period;

use super::{
    Database, FAULTS_MAX, Fault, Load, LocalClock, Node, Orders, Planned, Retention, Road,
    Scenario, Shift, Span, SpanError, VERSION,
};
use crate::random::Stream;

/// A range of lengths of time: `1ms..80ms`, or one of them for both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The least.
    pub least: Span,
    /// The most.
    pub most: Span,
}

impl FromStr for Range {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let (least, most) = text.split_once("..").unwrap_or((text, text));
        let range = Self { least: least.parse()?, most: most.parse()? };
        if range.least > range.most {
            return Err(SpanError::new(format!("{text:?}: its first end is beyond its last")));
        }
        Ok(range)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.least, self.most)
    }
}

/// How often something happens on average: `1/60s`, `20/s`, `0` for never. Kept as the mean time between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Every(pub Span);

impl FromStr for Every {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        if text.trim() == "0" {
            return Ok(Self(Span::ZERO));
        }
        let wrong = || SpanError::new(format!("{text:?} is no rate such as 1/60s or 20/s"));
        let (count, time) = text.split_once('/').ok_or_else(wrong)?;
        let count: f64 = count.trim().parse().map_err(|_| wrong())?;
        let time = time.trim();
        // "20/s" is twenty in one second.
        let alone = time.starts_with(|c: char| c.is_alphabetic());
        let Span(nanos) = if alone { format!("1{time}").parse()? } else { time.parse::<Span>()? };
        if !(count > 0.0 && count <= 1e6) || nanos == 0 {
            return Err(SpanError::new(format!(
                "{text:?}: a rate has a count from 0 to a million and a time above zero"
            )));
        }
        Ok(Self(Span(((nanos as f64 / count) as u64).max(1))))
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == Span::ZERO { f.write_str("0") } else { write!(f, "1/{}", self.0) }
    }
}

/// What a user chooses.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// How many nodes.
    pub nodes: u32,
    /// The time between polls.
    pub period: Period,
    /// How far the nodes' clocks are from each other.
    pub skew: Span,
    /// How wrong their rates are, at most, in parts per million.
    pub drift_ppm: f64,
    /// How their rates wander: the standard deviation of their change over a second, in parts per billion.
    pub wander_ppb: u32,
    /// Their resolution.
    pub resolution: Span,
    /// How late a node wakes up, on average.
    pub late_wake: Span,
    /// The shortest way to the database and back, drawn once a node.
    pub latency: Range,
    /// The nodes that draw it from a range of their own, by their numbers.
    pub node_latency: Vec<(u32, Range)>,
    /// What queues add to each way, on average.
    pub jitter: Span,
    /// How unevenly the ways are shared, -1 to 1: the way there is `1 + asymmetry` times the latency.
    pub asymmetry: f64,
    /// Of a million messages, so many meet with a long queue: ten times the jitter, heavy-tailed.
    pub tail_ppm: u32,
    /// Of a million messages, so many wait for a retransmission: 200 ms and more.
    pub spike_ppm: u32,
    /// Of a million messages, so many are lost.
    pub loss_ppm: u32,
    /// Of a million messages, so many arrive twice.
    pub duplicate_ppm: u32,
    /// How often a node is killed; it comes back after 2 to 30 periods.
    pub crashes: Every,
    /// How often a node stops for up to ten periods.
    pub pauses: Every,
    /// How often a node is cut off, in one or both directions, for up to ten periods.
    pub partitions: Every,
    /// How often the database restarts, hangs, or is slow.
    pub database_faults: Every,
    /// Steps of the server's clock, and when.
    pub steps: Vec<(Shift, Span)>,
    /// How often a job is enqueued.
    pub jobs: Every,
    /// How long ended jobs are kept.
    pub retention: Retention,
    /// What apps and people order beside that.
    pub orders: Orders,
    /// How long is simulated.
    pub duration: Span,
    /// The seed.
    pub seed: u64,
}

impl Options {
    /// The scenario.
    pub fn scenario(&self) -> Scenario {
        let mut draw = Stream::new(self.seed, "options");
        let nodes = (0..self.nodes).map(|number| self.node(number, &mut draw)).collect();
        let mut scenario = Scenario {
            version: VERSION,
            seed: self.seed,
            period: self.period,
            duration: self.duration,
            database: Database::default(),
            nodes,
            load: Load {
                every: self.jobs.0,
                until: Span(self.duration.0.saturating_sub(self.period.as_nanos() as u64 * 30)),
                ..Load::default()
            },
            retention: self.retention,
            orders: self.orders,
            faults: Vec::new(),
        };
        for (by, at) in &self.steps {
            scenario.faults.push(Planned { at: *at, fault: Fault::ServerStep { by: *by } });
        }
        let crash = |node, random: &mut Stream, unit: u64| Fault::Restart {
            node,
            after: Span(2 * unit + random.below(28 * unit)),
        };
        let pause = |node, random: &mut Stream, unit: u64| Fault::Pause {
            node,
            lasts: Span(random.below(10 * unit)),
        };
        let partition = |node, random: &mut Stream, unit: u64| {
            let lasts = Span(random.below(10 * unit));
            match random.below(3) {
                0 => Fault::CutThere { node, lasts },
                1 => Fault::CutBack { node, lasts },
                _ => Fault::Hold { node, lasts },
            }
        };
        let database = |_, random: &mut Stream, unit: u64| {
            let lasts = Span(random.below(10 * unit));
            match random.below(3) {
                0 => Fault::Outage { lasts },
                1 => Fault::ServerRestart { lasts },
                _ => Fault::Slow { by: Span(random.below(unit / 2)), lasts },
            }
        };
        self.sprinkle(&mut scenario, "crashes", self.crashes, crash);
        self.sprinkle(&mut scenario, "pauses", self.pauses, pause);
        self.sprinkle(&mut scenario, "partitions", self.partitions, partition);
        self.sprinkle(&mut scenario, "database faults", self.database_faults, database);
        scenario.faults.sort_by_key(|planned| planned.at);
        scenario
    }

    fn node(&self, number: u32, draw: &mut Stream) -> Node {
        let own = self.node_latency.iter().find(|(node, _)| *node == number);
        // One draw from either range: all that is drawn later stays what it is.
        let Range { least, most } = own.map_or(self.latency, |(_, range)| *range);
        let latency = least.0 + draw.below((most.0 - least.0).saturating_add(1));
        let way = |share: f64| Road {
            base: Span((latency as f64 * share) as u64),
            spread: self.jitter,
            tail_ppm: self.tail_ppm,
            spike_ppm: self.spike_ppm,
            loss_ppm: self.loss_ppm,
            duplicate_ppm: self.duplicate_ppm,
        };
        let drift = (2.0 * draw.uniform() - 1.0) * self.drift_ppm * 1e3;
        let shows = Span::from_secs(5_000).0 + draw.below(2 * self.skew.0 + 1) - self.skew.0;
        Node {
            start: Span(draw.below(self.period.as_nanos() as u64)),
            clock: LocalClock {
                shows: Span(shows),
                drift_ppb: drift as i64,
                wander_ppb: self.wander_ppb,
                resolution: self.resolution,
                late_wake: self.late_wake,
            },
            there: way(1.0 + self.asymmetry),
            back: way(1.0 - self.asymmetry),
            ..Node::default()
        }
    }

    /// Faults of one kind over the whole run but its last thirty periods; no more than show that there are too many.
    fn sprinkle(
        &self,
        scenario: &mut Scenario,
        name: &str,
        every: Every,
        fault: impl Fn(u32, &mut Stream, u64) -> Fault,
    ) {
        let Every(Span(mean)) = every;
        if mean == 0 {
            return;
        }
        let mut random = Stream::new(self.seed, name);
        let unit = self.period.as_nanos() as u64;
        let mut at = 0.0;
        while scenario.faults.len() <= FAULTS_MAX {
            at += -(mean as f64) * random.ln_uniform();
            if at >= self.duration.0.saturating_sub(30 * unit) as f64 {
                return;
            }
            let node = random.below(u64::from(self.nodes)) as u32;
            let fault = fault(node, &mut random, unit);
            scenario.faults.push(Planned { at: Span(at as u64), fault });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_ranges_are_read() {
        assert_eq!("1/60s".parse(), Ok(Every(Span::from_secs(60))));
        assert_eq!("20/s".parse(), Ok(Every(Span::from_millis(50))));
        assert_eq!("0".parse(), Ok(Every(Span::ZERO)));
        assert!("20".parse::<Every>().is_err());
        assert!("0/s".parse::<Every>().is_err());
        let range: Range = "1ms..80ms".parse().unwrap();
        assert_eq!((range.least, range.most), (Span::from_millis(1), Span::from_millis(80)));
        assert!("80ms..1ms".parse::<Range>().is_err());
        assert!("-1ms..80ms".parse::<Range>().unwrap_err().to_string().contains("negative"));
    }

    fn options() -> Options {
        Options {
            nodes: 3,
            period: Period::DEFAULT,
            skew: Span::from_millis(900),
            drift_ppm: 400.0,
            wander_ppb: 7,
            resolution: Span::from_millis(1),
            late_wake: Span::from_micros(30),
            latency: Range { least: Span::from_millis(1), most: Span::from_millis(80) },
            node_latency: Vec::new(),
            jitter: Span::from_micros(200),
            asymmetry: 0.0,
            tail_ppm: 1,
            spike_ppm: 2,
            loss_ppm: 3,
            duplicate_ppm: 4,
            crashes: Every(Span::from_secs(10)),
            pauses: Every::default(),
            partitions: Every::default(),
            database_faults: Every::default(),
            steps: vec![(Shift::from_millis(-1), Span::from_secs(90))],
            jobs: Every::default(),
            retention: Retention::default(),
            orders: Orders::default(),
            duration: Span::from_secs(600),
            seed: 1,
        }
    }

    #[test]
    fn every_node_has_the_clock_and_the_roads_that_were_asked_for() {
        let scenario = options().scenario();
        assert_eq!(scenario.check(), Ok(()));
        for Node { clock, there, back, .. } in scenario.nodes {
            assert_eq!((clock.wander_ppb, clock.late_wake), (7, Span::from_micros(30)));
            assert_eq!(clock.resolution, Span::from_millis(1));
            for road in [there, back] {
                let Road { tail_ppm, spike_ppm, loss_ppm, duplicate_ppm, .. } = road;
                assert_eq!((tail_ppm, spike_ppm, loss_ppm, duplicate_ppm), (1, 2, 3, 4));
            }
        }
    }

    #[test]
    fn a_node_with_ways_of_its_own_leaves_all_else_as_it_is() {
        let own = Range { least: Span::from_millis(300), most: Span::from_millis(400) };
        let without = options().scenario();
        let with = Options { node_latency: vec![(1, own)], ..options() }.scenario();
        assert_eq!(with.check(), Ok(()));
        assert_ne!(with, without);
        let Node { there, back, .. } = with.nodes[1];
        for road in [there, back] {
            assert!(road.base >= own.least && road.base <= own.most, "{}", road.base);
        }
        let Node { there, back, .. } = without.nodes[1];
        let mut back_again = with;
        back_again.nodes[1] = Node { there, back, ..back_again.nodes[1] };
        assert_eq!(back_again, without);
    }

    #[test]
    fn the_ways_of_one_node_are_shared_as_unevenly_as_those_of_all() {
        let millis = Span::from_millis;
        let own = Range { least: millis(300), most: millis(300) };
        let uneven = Options { asymmetry: 0.25, node_latency: vec![(2, own)], ..options() };
        let Node { there, back, .. } = uneven.scenario().nodes[2];
        assert_eq!((there.base, back.base), (millis(375), millis(225)));
    }

    #[test]
    fn each_seed_has_faults_of_its_own() {
        let faults = |seed| Options { seed, ..options() }.scenario().faults;
        assert_eq!(faults(1), faults(1));
        assert_ne!(faults(1), faults(2));
        let kinds = |seed| faults(seed).iter().filter(|fault| fault.fault.node().is_some()).count();
        assert!(kinds(1) > 10 && kinds(2) > 10);
    }

    #[test]
    fn too_many_faults_are_refused_and_not_planned_for_ever() {
        let often = Options { crashes: Every(Span(1)), pauses: Every(Span(1)), ..options() };
        let error = often.scenario().check().unwrap_err();
        assert_eq!(error.field.as_deref(), Some("faults"), "{error}");
    }
}
