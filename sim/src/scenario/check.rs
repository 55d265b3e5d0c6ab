//! Decides which scenarios make sense: the range of each of their numbers. Within these no clock of a run reaches the
//! end of its numbers, and every run comes to an end.

use std::fmt::Display;

use super::{
    Database, FAULTS_MAX, Fault, LocalClock, NODES_MAX, Node, Orders, Retention, Road, Scenario,
    ScenarioError, Shift, Span,
};

const MILLISECOND: Span = Span::from_millis(1);
const SECOND: Span = Span::from_secs(1);
const HOUR: Span = Span::from_secs(3_600);
const YEAR: Span = Span::from_secs(31_557_600);
/// No way between a node and the database takes longer, without its queues.
const WAY_MAX: Span = Span::from_secs(10);
/// No fault lasts longer.
const LASTS_MAX: Span = Span::from_secs(30 * 86_400);
/// What a node's clock shows at the start, at most.
const SHOWS_MAX: Span = Span(100 * YEAR.0);
/// A node's clock is not faster or slower than this, in parts per billion.
const DRIFT_MAX: i64 = 400_000;
/// Its rate wanders by no more, in parts per billion.
const WANDER_MAX: u32 = 10_000;
/// The server's clock is not set by more at once, forward or back, in nanoseconds.
const SHIFT_MAX: i64 = 10 * YEAR.0 as i64;
/// Nor by more in all: it shows a time between 1976 and 2078.
const SHIFTS_MAX: u64 = 50 * YEAR.0;
/// It is not slewed by more than a tenth, in parts per million.
const SLEW_MAX: i32 = 100_000;
/// Queues grow to no more than so many times their usual length.
const FACTOR_MAX: u32 = 1_000;
/// The shortest mean time between two jobs.
const JOBS_EVERY_MIN: Span = Span::from_micros(10);

impl Scenario {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// The first number that is out of its range, by the name of its field.
    pub fn check(&self) -> Result<(), ScenarioError> {
        within("duration", self.duration, MILLISECOND, YEAR)?;
        let Database { service, commit, resolution } = self.database;
        within("database.service", service, Span::ZERO, HOUR)?;
        within("database.commit", commit, Span::ZERO, HOUR)?;
        within("database.resolution", resolution, Span(1), SECOND)?;
        if self.nodes.is_empty() || self.nodes.len() > NODES_MAX {
            let count = self.nodes.len();
            let reason =
                format!("{count} where 1 to {NODES_MAX} can be; add some, or leave some out");
            return Err(ScenarioError::at("nodes", &reason));
        }
        for (number, node) in self.nodes.iter().enumerate() {
            let name = format!("nodes[{number}]");
            check_node(&name, node)?;
        }
        self.check_load()?;
        let Retention { succeeded, dead } = self.retention;
        for (name, kept) in [("retention.succeeded", succeeded), ("retention.dead", dead)] {
            if let Some(kept) = kept {
                within(name, kept, SECOND, YEAR)?;
            }
        }
        check_orders(&self.orders)?;
        self.check_faults()
    }

    fn check_load(&self) -> Result<(), ScenarioError> {
        let load = self.load;
        if load.every > Span::ZERO {
            within("load.every", load.every, JOBS_EVERY_MIN, YEAR)?;
        }
        within("load.until", load.until, Span::ZERO, YEAR)?;
        within("load.runs", load.runs, Span::ZERO, HOUR)?;
        of_a_million("load.fails_ppm", load.fails_ppm)?;
        within("load.max_attempts", load.max_attempts, 1, 1_000)?;
        within("load.jobs_a_claim", load.jobs_a_claim, 0, 10_000)
    }

    fn check_faults(&self) -> Result<(), ScenarioError> {
        let (count, nodes) = (self.faults.len(), self.nodes.len());
        if count > FAULTS_MAX {
            let reason = format!("{count} where up to {FAULTS_MAX} can be; leave some out");
            return Err(ScenarioError::at("faults", &reason));
        }
        let mut shifted = 0;
        for (number, planned) in self.faults.iter().enumerate() {
            let (at, end) = (planned.at, self.duration);
            if at > end {
                // It would never happen.
                let reason = format!(
                    "{at} is after the end of the run, which lasts {end}; choose an earlier time, or a longer duration"
                );
                return Err(ScenarioError::at(format_args!("faults[{number}].at"), &reason));
            }
            let name = format!("faults[{number}].fault");
            check_fault(&name, planned.fault, nodes)?;
            let (field, Shift(by)) = match planned.fault {
                Fault::ServerStep { by } => ("by", by),
                Fault::Failover { clock, .. } => ("clock", clock),
                _ => continue,
            };
            // Each is within its range, and so is the sum before it: this one is within 64 bits.
            shifted += by.unsigned_abs();
            if shifted > SHIFTS_MAX {
                let reason = format!(
                    "with those before it the server's clock is set by {} in all, forward and back, where {} can \
                     be; set it by less",
                    Span(shifted),
                    Span(SHIFTS_MAX)
                );
                return Err(ScenarioError::at(format_args!("{name}.{field}"), &reason));
            }
        }
        Ok(())
    }
}

fn check_node(name: &str, node: &Node) -> Result<(), ScenarioError> {
    within(format_args!("{name}.start"), node.start, Span::ZERO, YEAR)?;
    within(format_args!("{name}.capacity"), node.capacity, 1, 10_000)?;
    let LocalClock { shows, drift_ppb, wander_ppb, resolution, late_wake } = node.clock;
    within(format_args!("{name}.clock.shows"), shows, Span::ZERO, SHOWS_MAX)?;
    within(format_args!("{name}.clock.drift_ppb"), drift_ppb, -DRIFT_MAX, DRIFT_MAX)?;
    within(format_args!("{name}.clock.wander_ppb"), wander_ppb, 0, WANDER_MAX)?;
    within(format_args!("{name}.clock.resolution"), resolution, Span(1), SECOND)?;
    within(format_args!("{name}.clock.late_wake"), late_wake, Span::ZERO, SECOND)?;
    for (way, road) in [("there", node.there), ("back", node.back)] {
        let Road { base, spread, tail_ppm, spike_ppm, loss_ppm, duplicate_ppm } = road;
        within(format_args!("{name}.{way}.base"), base, Span::ZERO, WAY_MAX)?;
        within(format_args!("{name}.{way}.spread"), spread, Span::ZERO, WAY_MAX)?;
        of_a_million(format_args!("{name}.{way}.tail_ppm"), tail_ppm)?;
        of_a_million(format_args!("{name}.{way}.spike_ppm"), spike_ppm)?;
        of_a_million(format_args!("{name}.{way}.loss_ppm"), loss_ppm)?;
        of_a_million(format_args!("{name}.{way}.duplicate_ppm"), duplicate_ppm)?;
    }
    Ok(())
}

fn check_orders(orders: &Orders) -> Result<(), ScenarioError> {
    of_a_million("orders.keyed_ppm", orders.keyed_ppm)?;
    of_a_million("orders.cancelled_ppm", orders.cancelled_ppm)?;
    of_a_million("orders.asynchronous_ppm", orders.asynchronous_ppm)?;
    for (name, every) in [
        ("orders.pauses_every", orders.pauses_every),
        ("orders.batches_every", orders.batches_every),
    ] {
        if every > Span::ZERO {
            within(name, every, MILLISECOND, YEAR)?;
        }
    }
    for (name, count, most) in [
        ("orders.schedules", orders.schedules, 3),
        ("orders.concurrency", orders.concurrency, 1_000_000),
        ("orders.concurrency_per_key", orders.concurrency_per_key, 1_000_000),
        ("orders.slow_down", orders.slow_down, 86_400),
        ("orders.rate", orders.rate, 1_000_000),
    ] {
        within(name, count, 0, most)?;
    }
    Ok(())
}

fn check_fault(name: &str, fault: Fault, nodes: usize) -> Result<(), ScenarioError> {
    if let Some(node) = fault.node()
        && node as usize >= nodes
    {
        let last = nodes - 1;
        let reason =
            format!("there is no node {node}; the last is {last}: name another, or add nodes");
        return Err(ScenarioError::at(format_args!("{name}.node"), &reason));
    }
    let lasts = if matches!(fault, Fault::Restart { .. }) { "after" } else { "lasts" };
    within(format_args!("{name}.{lasts}"), fault.lasts(), Span::ZERO, LASTS_MAX)?;
    let shift = |field: &str, by: Shift| {
        within(format_args!("{name}.{field}"), by, Shift(-SHIFT_MAX), Shift(SHIFT_MAX))
    };
    match fault {
        Fault::Congestion { factor, .. } => {
            within(format_args!("{name}.factor"), factor, 1, FACTOR_MAX)
        }
        Fault::Route { there, back, .. } => {
            within(format_args!("{name}.there"), there, Span::ZERO, WAY_MAX)?;
            within(format_args!("{name}.back"), back, Span::ZERO, WAY_MAX)
        }
        Fault::ServerStep { by } => shift("by", by),
        Fault::ServerSlew { ppm, .. } => {
            within(format_args!("{name}.ppm"), ppm, -SLEW_MAX, SLEW_MAX)
        }
        Fault::Failover { loses, clock, .. } => {
            within(format_args!("{name}.loses"), loses, Span::ZERO, LASTS_MAX)?;
            shift("clock", clock)
        }
        Fault::Slow { by, .. } => within(format_args!("{name}.by"), by, Span::ZERO, HOUR),
        _ => Ok(()),
    }
}

/// A value that lies between two others, or is one of them.
fn within<T: Copy + PartialOrd + Display>(
    field: impl Display,
    value: T,
    least: T,
    most: T,
) -> Result<(), ScenarioError> {
    if value < least || value > most {
        let reason = format!("{value} is not from {least} to {most}; choose one between the two");
        return Err(ScenarioError::at(field, &reason));
    }
    Ok(())
}

/// So many of a million.
fn of_a_million(field: impl Display, count: u32) -> Result<(), ScenarioError> {
    if count > 1_000_000 {
        let reason = format!("{count} of a million; it must be from 0 to 1000000");
        return Err(ScenarioError::at(field, &reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Planned, swarm_of_processes};

    /// Three nodes for a minute, and one fault.
    fn with(fault: Fault) -> Scenario {
        let faults = vec![Planned { at: Span::from_secs(30), fault }];
        Scenario { faults, ..Scenario::calm(1, 3, Span::from_secs(60)) }
    }

    /// The scenario is refused by the name of this field.
    fn refused(scenario: &Scenario, field: &str) {
        let error = scenario.check().expect_err(field);
        assert_eq!(error.field.as_deref(), Some(field), "{error}");
        assert!(error.reason.starts_with(&format!("{field}: ")), "{error}");
        assert_eq!(error.place, None, "{error}");
    }

    /// What is changed of a calm farm is refused by the name of this field.
    fn changed(field: &str, change: impl Fn(&mut Scenario)) {
        let mut scenario = with(Fault::Drain { node: 0 });
        assert_eq!(scenario.check(), Ok(()));
        change(&mut scenario);
        refused(&scenario, field);
    }

    #[test]
    fn each_number_has_a_range() {
        const TOO_MANY: u32 = 1_000_001;
        changed("duration", |s| s.duration = Span(999_999));
        changed("duration", |s| s.duration = Span(YEAR.0 + 1));
        changed("database.service", |s| s.database.service = Span(HOUR.0 + 1));
        changed("database.commit", |s| s.database.commit = Span(HOUR.0 + 1));
        changed("database.resolution", |s| s.database.resolution = Span::ZERO);
        changed("nodes", |s| s.nodes.clear());
        changed("nodes", |s| s.nodes = vec![Node::default(); NODES_MAX + 1]);
        changed("nodes[1].start", |s| s.nodes[1].start = Span(YEAR.0 + 1));
        changed("nodes[2].capacity", |s| s.nodes[2].capacity = 0);
        changed("nodes[0].clock.shows", |s| s.nodes[0].clock.shows = Span(SHOWS_MAX.0 + 1));
        changed("nodes[0].clock.drift_ppb", |s| s.nodes[0].clock.drift_ppb = DRIFT_MAX + 1);
        changed("nodes[0].clock.drift_ppb", |s| s.nodes[0].clock.drift_ppb = i64::MIN);
        changed("nodes[0].clock.wander_ppb", |s| s.nodes[0].clock.wander_ppb = WANDER_MAX + 1);
        changed("nodes[0].clock.resolution", |s| s.nodes[0].clock.resolution = Span::ZERO);
        changed("nodes[0].clock.late_wake", |s| s.nodes[0].clock.late_wake = Span(SECOND.0 + 1));
        changed("nodes[0].there.base", |s| s.nodes[0].there.base = Span(WAY_MAX.0 + 1));
        changed("nodes[0].back.spread", |s| s.nodes[0].back.spread = Span(WAY_MAX.0 + 1));
        changed("nodes[0].there.tail_ppm", |s| s.nodes[0].there.tail_ppm = TOO_MANY);
        changed("nodes[0].back.spike_ppm", |s| s.nodes[0].back.spike_ppm = TOO_MANY);
        changed("nodes[0].there.loss_ppm", |s| s.nodes[0].there.loss_ppm = u32::MAX);
        changed("nodes[0].back.duplicate_ppm", |s| s.nodes[0].back.duplicate_ppm = TOO_MANY);
        changed("load.every", |s| s.load.every = Span(1));
        changed("load.until", |s| s.load.until = Span(YEAR.0 + 1));
        changed("load.runs", |s| s.load.runs = Span(HOUR.0 + 1));
        changed("load.fails_ppm", |s| s.load.fails_ppm = TOO_MANY);
        changed("load.max_attempts", |s| s.load.max_attempts = 0);
        changed("load.jobs_a_claim", |s| s.load.jobs_a_claim = 10_001);
        changed("retention.succeeded", |s| s.retention.succeeded = Some(Span::ZERO));
        changed("retention.dead", |s| s.retention.dead = Some(Span(YEAR.0 + 1)));
        changed("orders.keyed_ppm", |s| s.orders.keyed_ppm = TOO_MANY);
        changed("orders.cancelled_ppm", |s| s.orders.cancelled_ppm = TOO_MANY);
        changed("orders.asynchronous_ppm", |s| s.orders.asynchronous_ppm = TOO_MANY);
        changed("orders.pauses_every", |s| s.orders.pauses_every = Span(1));
        changed("orders.batches_every", |s| s.orders.batches_every = Span(1));
        changed("orders.schedules", |s| s.orders.schedules = 4);
        changed("orders.concurrency", |s| s.orders.concurrency = TOO_MANY);
        changed("orders.concurrency_per_key", |s| s.orders.concurrency_per_key = TOO_MANY);
        changed("orders.slow_down", |s| s.orders.slow_down = 86_401);
        changed("orders.rate", |s| s.orders.rate = TOO_MANY);
        changed("faults[0].at", |s| s.faults[0].at = Span(s.duration.0 + 1));
        changed("faults", |s| s.faults = vec![s.faults[0]; FAULTS_MAX + 1]);
    }

    #[test]
    fn each_number_of_a_fault_has_a_range() {
        let long = Span(LASTS_MAX.0 + 1);
        let (lasts, factor) = (SECOND, FACTOR_MAX + 1);
        let (far, near) = (Span(WAY_MAX.0 + 1), MILLISECOND);
        for (field, fault) in [
            ("node", Fault::Kill { node: 3 }),
            ("after", Fault::Restart { node: 0, after: long }),
            ("lasts", Fault::Pause { node: 0, lasts: long }),
            ("lasts", Fault::Stall { node: 0, lasts: long }),
            ("lasts", Fault::Deploy { lasts: long }),
            ("factor", Fault::Congestion { node: 0, lasts, factor }),
            ("factor", Fault::Congestion { node: 0, lasts, factor: 0 }),
            ("there", Fault::Route { node: 0, there: far, back: near }),
            ("back", Fault::Route { node: 0, there: near, back: far }),
            ("by", Fault::ServerStep { by: Shift(SHIFT_MAX + 1) }),
            ("by", Fault::ServerStep { by: Shift(i64::MIN) }),
            ("ppm", Fault::ServerSlew { ppm: 2_000_000_000, lasts }),
            ("ppm", Fault::ServerSlew { ppm: -SLEW_MAX - 1, lasts }),
            ("lasts", Fault::Failover { lasts: long, loses: lasts, clock: Shift(0) }),
            ("loses", Fault::Failover { lasts, loses: long, clock: Shift(0) }),
            ("clock", Fault::Failover { lasts, loses: lasts, clock: Shift(-SHIFT_MAX - 1) }),
            ("by", Fault::Slow { by: Span(HOUR.0 + 1), lasts }),
        ] {
            refused(&with(fault), &format!("faults[0].fault.{field}"));
        }
    }

    #[test]
    fn the_servers_clock_is_set_so_far_in_all_and_no_farther() {
        let mut scenario = with(Fault::ServerStep { by: Shift(SHIFT_MAX) });
        scenario.faults = [scenario.faults[0]].repeat(5);
        assert_eq!(scenario.check(), Ok(()));
        let (lasts, clock) = (SECOND, Shift(-1));
        let fault = Fault::Failover { lasts, loses: lasts, clock };
        scenario.faults.push(Planned { at: lasts, fault });
        refused(&scenario, "faults[5].fault.clock");
    }

    #[test]
    fn every_scenario_of_processes_makes_sense() {
        for seed in 0..500 {
            swarm_of_processes(seed).check().unwrap();
        }
    }
}
