//! Decides the scenario of a seed: a random choice of the kinds of faults (swarm testing: Groce et al.,
//! ISSTA 2012), of sizes and of roads, with a calm start and a calm end by which everything can be judged.

use turnwise_engine::Period;

use super::pairs::one_after_the_other;
use super::{
    Database, Fault, Load, LocalClock, Node, Orders, Planned, Retention, Road, Scenario, Shift,
    Span, VERSION,
};
use crate::random::Stream;

/// How many kinds of faults there are.
const KINDS: u64 = 25;
/// A change makes the period at most so many times as long.
const LONGER: u64 = 3;

/// How long a run is, in periods: faults begin after `calm`, and happen within `faulty`.
#[derive(Clone, Copy)]
struct Course {
    calm: u64,
    faulty: u64,
}

/// The scenario of a seed.
pub fn swarm(seed: u64) -> Scenario {
    let mut random = Stream::new(seed, "swarm");
    let period = [1_000, 1_000, 1_000, 2_000, 500, 100][random.below(6) as usize];
    // Nearly all of the farms that people run are small; what is rare in them is common here.
    let count = match random.below(12) {
        0 => 1,
        1..=2 => 2,
        3..=4 => 3,
        5..=9 => 3 + random.below(5),
        _ => 8 + random.below(12),
    } as u32;
    let mut scenario = drawn(seed, random, period, count, Course { calm: 40, faulty: 60 });
    hindered_work(&mut scenario);
    let unheard = unheard_before_drains(seed, u64::from(period) * 1_000_000, &scenario.faults);
    scenario.faults.extend(unheard);
    one_after_the_other(&mut scenario);
    scenario.faults.sort_by_key(|planned| planned.at);
    let longer = longer_outages(seed, &mut scenario.faults);
    scenario.duration.0 += longer;
    let spoilt = spoilt_roads(seed);
    for node in &mut scenario.nodes {
        for road in [&mut node.there, &mut node.back] {
            (road.loss_ppm, road.duplicate_ppm, road.spike_ppm) = spoilt;
        }
    }
    if scenario.load.every > Span::ZERO {
        scenario.orders = limits(seed);
    }
    scenario
}

/// The scenario of a seed for whole processes, which take longer to simulate than engines: fewer of them, for
/// about a minute.
pub fn swarm_of_processes(seed: u64) -> Scenario {
    let mut random = Stream::new(seed, "swarm of processes");
    let period = [1_000, 1_000, 500, 200][random.below(4) as usize];
    let count = match random.below(8) {
        0 => 1,
        1 => 2,
        2..=4 => 3,
        _ => 4 + random.below(3),
    } as u32;
    let mut scenario = drawn(seed, random, period, count, Course { calm: 20, faulty: 20 });
    let mut random = Stream::new(seed, "load of processes");
    if scenario.load.every == Span::ZERO && random.below(3) > 0 {
        scenario.load.every = Span::from_millis(100 + random.below(900));
        scenario.load.until = Span(50 * u64::from(period) * 1_000_000);
        scenario.duration.0 += 20_000_000_000;
    }
    scenario.retention = short_retention(seed);
    if scenario.load.every > Span::ZERO {
        scenario.orders = orders(seed);
    }
    hindered_work(&mut scenario);
    // What is running when a node dies, drains or is declared lost is what there is to lose.
    if random.below(2) == 0 {
        scenario.load.runs = Span::from_millis(1_000 + random.below(3_000));
        scenario.load.every = scenario.load.every.max(Span::from_millis(700));
    }
    // A third of the runs keep the few faults that were drawn, which may be judged alone.
    if random.below(3) > 0 {
        let unit = u64::from(period) * 1_000_000;
        scenario.faults.extend(hard_on_jobs(seed, unit, count));
        scenario.faults.sort_by_key(|planned| planned.at);
    }
    scenario
}

/// In half of the runs ended jobs are removed while the run lasts; in some those that were given up stay.
fn short_retention(seed: u64) -> Retention {
    // A stream of its own: what other seeds draw stays as it is.
    let mut random = Stream::new(seed, "retention");
    let wanted = random.below(2) == 0;
    let kept = |random: &mut Stream| Span::from_millis(1_000 + random.below(29_000));
    let (succeeded, dead) = (kept(&mut random), kept(&mut random));
    let forever = random.below(4) == 0;
    if !wanted {
        return Retention::default();
    }
    Retention { succeeded: Some(succeeded), dead: (!forever).then_some(dead) }
}

/// Half of the outages last for up to a minute; by so many nanoseconds more in all.
fn longer_outages(seed: u64, faults: &mut [Planned]) -> u64 {
    let mut random = Stream::new(seed, "swarm outages");
    let mut longer = 0;
    for planned in faults {
        if let Fault::Outage { lasts } = &mut planned.fault
            && random.below(2) == 0
        {
            let before = lasts.0;
            lasts.0 = lasts.0.max(1_000_000_000 + random.below(59_000_000_000));
            longer += lasts.0 - before;
        }
    }
    longer
}

/// A third of those that leave do not know what their last claims came to: the answers are lost.
fn unheard_before_drains(seed: u64, unit: u64, faults: &[Planned]) -> Vec<Planned> {
    let mut random = Stream::new(seed, "swarm drains");
    let mut unheard = Vec::new();
    for planned in faults {
        let Fault::Drain { node } = planned.fault else { continue };
        let (wanted, before) = (random.below(3) == 0, random.below(2 * unit));
        if wanted {
            let at = Span(planned.at.0.saturating_sub(before));
            unheard.push(Planned { at, fault: Fault::LoseAnswer { node } });
            unheard.push(Planned { at, fault: Fault::LoseWork { node } });
        }
    }
    unheard
}

/// In a twelfth of the runs each: roads that lose a message now and then, or double it, or hold it up for long. Whatever they do
/// disturbs the ring, which is then seldom calm.
fn spoilt_roads(seed: u64) -> (u32, u32, u32) {
    let mut random = Stream::new(seed, "swarm roads");
    let mut some = || {
        let (wanted, ppm) = (random.below(12) == 0, 100 + random.below(3_000));
        if wanted { ppm as u32 } else { 0 }
    };
    (some(), some(), some())
}

/// In a third of the runs each: queues that have a limit of what runs at once, and of what is claimed in a time.
fn limits(seed: u64) -> Orders {
    let mut random = Stream::new(seed, "swarm limits");
    let mut some = |most: u64| {
        let (wanted, many) = (random.below(3) == 0, 1 + random.below(most));
        if wanted { many as u32 } else { 0 }
    };
    let (concurrency, rate) = (some(4), some(6));
    Orders { concurrency, rate, ..Orders::default() }
}

/// In a third of the runs each: unique keys, cancelled jobs, a queue that is paused now and then, schedules, jobs that go on elsewhere, a queue that has a
/// limit of what runs at once, in all and of one key, and of what is claimed in a time, and that heeds targets which ask for less.
fn orders(seed: u64) -> Orders {
    let mut random = Stream::new(seed, "swarm orders");
    let mut some = |most: u64| {
        let (wanted, many) = (random.below(3) == 0, most / 8 + random.below(most));
        if wanted { many } else { 0 }
    };
    let (keyed_ppm, cancelled_ppm) = (some(800_000) as u32, some(400_000) as u32);
    let pauses_every = Span(some(10_000_000_000));
    let schedules = some(8).min(3) as u32;
    let asynchronous_ppm = some(800_000) as u32;
    let concurrency = some(4) as u32;
    let rate = some(6) as u32;
    let batches_every = Span(some(6_000_000_000));
    let concurrency_per_key = some(3) as u32;
    let slow_down = some(8) as u32;
    Orders {
        keyed_ppm,
        cancelled_ppm,
        pauses_every,
        schedules,
        asynchronous_ppm,
        batches_every,
        concurrency,
        concurrency_per_key,
        slow_down,
        rate,
    }
}

/// In an eighth of the runs with jobs the database undoes some statements on them, or they leave late.
fn hindered_work(scenario: &mut Scenario) {
    // A stream of its own: what other seeds draw stays as it is.
    let mut random = Stream::new(scenario.seed, "swarm hindered work");
    if random.below(8) > 0 || scenario.load.every == Span::ZERO {
        return;
    }
    let unit = scenario.period.as_nanos() as u64;
    let (count, until) = (scenario.nodes.len() as u64, scenario.load.until.0);
    for _ in 0..1 + random.below(4) {
        let node = random.below(count) as u32;
        let at = Span((20 * unit + random.below(30 * unit)).min(until));
        let lasts = Span(random.below(2 * unit));
        let fault = match random.below(2) {
            0 => Fault::Deadlock { node },
            _ => Fault::StallWork { node, lasts },
        };
        scenario.faults.push(Planned { at, fault });
    }
    scenario.faults.sort_by_key(|planned| planned.at);
}

/// In a quarter of the runs a claim brings one to four jobs at most.
fn narrow_claims(seed: u64) -> u32 {
    let mut random = Stream::new(seed, "narrow claims");
    if random.below(4) == 0 { 1 + random.below(4) as u32 } else { 0 }
}

/// What is hard on whoever holds jobs: lost answers, nodes that leave, stand still for longer than their lease, or
/// die, a server that takes over with an older state.
fn hard_on_jobs(seed: u64, unit: u64, count: u32) -> Vec<Planned> {
    let mut random = Stream::new(seed, "hard on jobs");
    let mut faults = Vec::new();
    for kind in [0, 1, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 9] {
        let (wanted, node) = (random.below(3) == 0, random.below(u64::from(count)) as u32);
        let at = Span((20 + random.below(20)) * unit + random.below(unit));
        let long = Span(3_000_000_000 + random.below(5_000_000_000));
        let short = Span(random.below(2_000_000_000));
        let fault = match kind {
            0 => Fault::Drain { node },
            1 => Fault::LoseWork { node },
            2 => Fault::LoseAnswer { node },
            3 => Fault::Pause { node, lasts: long },
            4 => Fault::Restart { node, after: long },
            5 => Fault::TargetDown { node, lasts: long },
            6 => Fault::CutBack { node, lasts: long },
            7 => Fault::Outage { lasts: short },
            9 => Fault::Stall { node, lasts: short },
            _ => Fault::Failover { lasts: short, loses: Span(short.0 / 2), clock: Shift(0) },
        };
        if wanted {
            faults.push(Planned { at, fault });
        }
    }
    faults
}

fn drawn(seed: u64, random: Stream, period: u32, count: u32, course: Course) -> Scenario {
    let unit = u64::from(period) * 1_000_000;
    let mut swarm = Swarm { random, unit, count, course };
    let database = swarm.database();
    let roads = swarm.random.below(4);
    let clocks = swarm.random.below(4);
    let mut nodes: Vec<Node> = (0..count).map(|_| swarm.node(roads, clocks)).collect();
    for node in nodes.iter_mut().skip(1) {
        // Some come while the others work.
        if swarm.random.below(10) == 0 {
            node.start = Span((course.calm + swarm.random.below(course.faulty)) * unit);
        }
    }
    let mut load = swarm.load();
    if load.every > Span::ZERO {
        load.jobs_a_claim = narrow_claims(seed);
    }
    let mut faults = swarm.faults();
    if faults.is_empty() {
        faults.extend(deploy(seed, unit, course));
    }
    let changed = other_period(seed, period, course);
    faults.extend(changed);
    faults.sort_by_key(|planned| planned.at);
    let last = faults
        .iter()
        .map(|planned: &Planned| planned.at.0 + planned.fault.lasts().0)
        .chain(nodes.iter().map(|node| node.start.0))
        .max()
        .unwrap_or(0)
        .max((course.calm + course.faulty) * unit);
    // By then the ring has settled, and what was enqueued can have ended.
    let settled = (4 * u64::from(count) + 20) * unit * changed.map_or(1, |_| LONGER);
    let jobs_end = if load.every == Span::ZERO { 0 } else { 20_000_000_000 };
    Scenario {
        version: VERSION,
        seed,
        period: Period::from_millis(period).unwrap_or(Period::DEFAULT),
        duration: Span(last + settled + jobs_end),
        database,
        nodes,
        load,
        retention: Retention::default(),
        orders: Orders::default(),
        faults,
    }
}

/// Half of the runs in which nothing would go wrong have a new version rolled out, within a minute at a period of a
/// second.
fn deploy(seed: u64, unit: u64, course: Course) -> Option<Planned> {
    // A stream of its own: what other seeds draw stays as it is.
    let mut random = Stream::new(seed, "swarm deploys");
    let at = Span(course.calm * unit + random.below(course.faulty / 2 * unit));
    let lasts = Span(1 + random.below(60 * unit));
    (random.below(2) == 0).then_some(Planned { at, fault: Fault::Deploy { lasts } })
}

/// In one run of six the period is changed, to half of it or up to [`LONGER`] times as much.
fn other_period(seed: u64, period: u32, course: Course) -> Option<Planned> {
    // A stream of its own: what other seeds draw stays as it is.
    let mut random = Stream::new(seed, "swarm periods");
    let wanted = random.below(6) == 0;
    let unit = u64::from(period) * 1_000_000;
    let at = Span((course.calm + random.below(course.faulty)) * unit + random.below(unit));
    let millis = period / 2 + random.below(u64::from(period) * 2 + u64::from(period) / 2) as u32;
    let to = Period::from_millis(millis.clamp(50, 10_000)).ok()?;
    wanted.then_some(Planned { at, fault: Fault::Period { to } })
}

struct Swarm {
    random: Stream,
    /// A period in nanoseconds.
    unit: u64,
    count: u32,
    course: Course,
}

impl Swarm {
    fn database(&mut self) -> Database {
        Database {
            service: Span(20_000 + self.random.below(300_000)),
            commit: Span(self.random.below(8_000_000)),
            resolution: match self.random.below(4) {
                0 => Span::from_millis(1),
                1 => Span(1),
                _ => Span::from_micros(1),
            },
        }
    }

    fn node(&mut self, roads: u64, clocks: u64) -> Node {
        // The longest road is well within a period, as `doctor` asks for.
        let longest = (self.unit / 12).min(80_000_000);
        let road = |random: &mut Stream| Road {
            base: Span(match roads {
                0 => 100_000 + random.below(1_000_000),
                _ => 100_000 + random.below(longest),
            }),
            spread: Span(match roads {
                3 => random.below(longest / 20),
                _ => random.below(200_000),
            }),
            tail_ppm: if roads == 2 { random.below(20_000) as u32 } else { 0 },
            ..Road::default()
        };
        let (there, back) = (road(&mut self.random), road(&mut self.random));
        let clock = LocalClock {
            shows: Span(self.random.below(100_000_000_000_000)),
            drift_ppb: match clocks {
                0 => 0,
                1 => self.random.below(20_000) as i64 - 10_000,
                _ => self.random.below(400_000) as i64 - 200_000,
            },
            wander_ppb: if clocks == 3 { self.random.below(50) as u32 } else { 3 },
            resolution: match self.random.below(8) {
                0 => Span::from_micros(100),
                1 => Span::from_micros(1),
                _ => Span(1),
            },
            late_wake: Span(match self.random.below(4) {
                0 => self.random.below(2_000_000),
                _ => self.random.below(20_000),
            }),
        };
        let start = Span(self.random.below(2 * self.unit));
        Node { start, capacity: 1 + self.random.below(12) as u32, clock, there, back }
    }

    fn load(&mut self) -> Load {
        if self.random.below(3) == 0 {
            return Load::default();
        }
        // Two thirds of what the farm could do, at most.
        let runs = 1_000_000 + self.random.below(self.unit.min(1_000_000_000));
        let every =
            (runs / u64::from(self.count)).max(self.unit / 10) + self.random.below(self.unit);
        Load {
            every: Span(every),
            until: Span((self.course.calm + self.course.faulty + 10) * self.unit),
            runs: Span(runs),
            fails_ppm: self.random.below(200_000) as u32,
            max_attempts: 3 + self.random.below(20) as u32,
            jobs_a_claim: 0,
        }
    }

    fn faults(&mut self) -> Vec<Planned> {
        let kinds = self.random.bits() & self.random.bits();
        // Half of the runs have one fault alone, which is judged by its row of the table of bounds.
        let most = if self.random.below(2) == 0 { 1 } else { 1 + self.random.below(8) };
        let mut faults = Vec::new();
        for _ in 0..8 * most {
            let kind = self.random.below(KINDS);
            if kinds & (1 << kind) == 0 {
                continue;
            }
            let Course { calm, faulty } = self.course;
            let at = Span(calm * self.unit + self.random.below(faulty * self.unit));
            let fault = self.fault(kind);
            faults.push(Planned { at, fault });
            self.more_of_it(at, fault, &mut faults);
            if faults.len() as u64 >= most {
                break;
            }
        }
        faults.sort_by_key(|planned| planned.at);
        faults
    }

    /// Misfortunes that come together: several that die at once; a change on its way while others come and go.
    fn more_of_it(&mut self, at: Span, fault: Fault, faults: &mut Vec<Planned>) {
        let others = |random: &mut Stream, count: u32| random.below(u64::from(count)) as u32;
        match fault {
            Fault::Kill { node } if self.random.below(2) == 0 => {
                let other = others(&mut self.random, self.count);
                if other != node {
                    faults.push(Planned { at, fault: Fault::Kill { node: other } });
                }
            }
            Fault::HoldChange { node, .. } | Fault::LoseChange { node } => {
                // There must be a change: somebody that missed its turn, or the node itself that leaves.
                let other = others(&mut self.random, self.count);
                let lasts = Span(2 * self.unit + self.random.below(4 * self.unit));
                let cause = match self.random.below(3) {
                    0 => Fault::Drain { node },
                    1 => Fault::Pause { node: other, lasts },
                    _ => Fault::Restart { node, after: lasts },
                };
                faults.push(Planned { at, fault: cause });
            }
            _ => {}
        }
    }

    fn fault(&mut self, kind: u64) -> Fault {
        let node = self.random.below(u64::from(self.count)) as u32;
        let lasts = Span(1 + self.random.below(12 * self.unit));
        match kind {
            0 => Fault::Drain { node },
            1 => Fault::Kill { node },
            2 => Fault::Restart { node, after: lasts },
            3 => Fault::Pause { node, lasts },
            4 => Fault::Freeze { node, lasts },
            5 => Fault::Stall { node, lasts: Span(self.random.below(self.unit)) },
            6 => Fault::LoseRequest { node },
            7 => Fault::LoseAnswer { node },
            8 => Fault::LoseWork { node },
            9 => Fault::Reset { node },
            10 => Fault::Errors { node, lasts },
            11 => Fault::CutThere { node, lasts },
            12 => Fault::CutBack { node, lasts },
            13 => Fault::Hold { node, lasts },
            14 => Fault::Congestion { node, lasts, factor: 2 + self.random.below(20) as u32 },
            15 => {
                let longest = (self.unit / 12).min(80_000_000);
                let there = Span(100_000 + self.random.below(longest));
                let back = Span(100_000 + self.random.below(longest));
                Fault::Route { node, there, back }
            }
            16 => Fault::TargetDown { node, lasts },
            17 => Fault::ServerStep { by: self.step() },
            18 => {
                let ppm = self.random.below(900) as i32 - 450;
                Fault::ServerSlew { ppm, lasts: Span(lasts.0 + self.unit) }
            }
            19 => Fault::Outage { lasts },
            20 => Fault::ServerRestart { lasts },
            21 => {
                let loses = Span(self.random.below(3 * self.unit));
                Fault::Failover { lasts, loses, clock: self.step() }
            }
            22 => Fault::HoldChange { node, lasts: Span(self.random.below(6 * self.unit)) },
            23 => Fault::LoseChange { node },
            _ => Fault::Slow { by: Span(self.random.below(self.unit / 4)), lasts },
        }
    }

    fn step(&mut self) -> Shift {
        let size = match self.random.below(4) {
            0 => self.random.below(self.unit / 2),
            1 => self.random.below(5 * self.unit),
            2 => self.random.below(60_000_000_000),
            _ => 3_600_000_000_000,
        } as i64;
        Shift(if self.random.below(2) == 0 { size } else { -size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_of_fault_is_drawn() {
        let drawn: BTreeSet<_> = (0..2_000)
            .flat_map(|seed| swarm(seed).faults)
            .map(|planned| planned.fault.name())
            .collect();
        // A deploy, a change of the period and what hinders statements on the jobs are not drawn among the others.
        assert_eq!(drawn.len() as u64, KINDS + 4);
    }

    #[test]
    fn every_scenario_makes_sense() {
        for seed in 0..2_000 {
            swarm(seed).check().unwrap();
        }
    }
}
