//! Decides which scenario a user's options describe.

use std::fmt;
use std::str::FromStr;

use turnwise_engine::Period;

use super::{
    Database, Fault, Load, LocalClock, Node, Orders, Planned, Retention, Road, Scenario, Shift,
    Span, SpanError, VERSION,
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
    /// The shortest way to the database and back, drawn once a node.
    pub latency: Range,
    /// What queues add to each way, on average.
    pub jitter: Span,
    /// How unevenly the ways are shared, -1 to 1: the way there is `1 + asymmetry` times the latency.
    pub asymmetry: f64,
    /// Of a million messages, so many are lost.
    pub loss_ppm: u32,
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
        let nodes = (0..self.nodes).map(|_| self.node(&mut draw)).collect();
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

    fn node(&self, draw: &mut Stream) -> Node {
        let Range { least, most } = self.latency;
        let latency = least.0 + draw.below(most.0 - least.0 + 1);
        let way = |share: f64| Road {
            base: Span((latency as f64 * share) as u64),
            spread: self.jitter,
            loss_ppm: self.loss_ppm,
            ..Road::default()
        };
        let drift = (2.0 * draw.uniform() - 1.0) * self.drift_ppm * 1e3;
        let shows = Span::from_secs(5_000).0 + draw.below(2 * self.skew.0 + 1) - self.skew.0;
        Node {
            start: Span(draw.below(self.period.as_nanos() as u64)),
            clock: LocalClock {
                shows: Span(shows),
                drift_ppb: drift as i64,
                ..LocalClock::default()
            },
            there: way(1.0 + self.asymmetry),
            back: way(1.0 - self.asymmetry),
            ..Node::default()
        }
    }

    /// Faults of one kind over the whole run but its last thirty periods.
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
        loop {
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
}
