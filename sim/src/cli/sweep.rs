//! `turnwise-sim sweep`: many seeds, side by side on all cores.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::options::Farm;
use super::shrink::make_smaller;
use super::{Outcome, keep, show};
use crate::oracle::Marks;
use crate::report::Report;
use crate::scenario::Scenario;
use crate::tier::Tier;

/// Run many seeds, on all cores, and stop at the first few violations.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  turnwise-sim sweep --seeds 0..100000 --swarm
  turnwise-sim sweep --tier cluster --seeds 0..300 --swarm
  turnwise-sim sweep --seeds 0..200 --nodes 3 --crash-rate 1/60s --jobs-rate 5/s")]
pub(super) struct Arguments {
    /// The seeds, from the first up to but not including the last
    #[arg(long, value_name = "FROM..TO", value_parser = seeds)]
    seeds: Range<u64>,

    /// Draw the farm, its roads and a random choice of the kinds of faults from each seed. Without it, the options
    /// describe the farm, and each seed draws its nodes and its faults from them, as --seed does for one run
    #[arg(long)]
    swarm: bool,

    /// What runs the scenarios
    #[arg(long, value_enum, default_value_t)]
    tier: Tier,

    #[command(flatten)]
    farm: Farm,

    /// How many threads; all cores unless given
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: Option<u32>,

    /// Make the first scenario with a violation smaller, as the command shrink does
    #[arg(long)]
    shrink: bool,

    /// Do not fail when something that should happen in some run never did
    #[arg(long)]
    allow_unreached: bool,

    /// Answer as JSON
    #[arg(long)]
    json: bool,
}

/// So many failing scenarios are shown and kept.
const KEPT: usize = 5;
/// After so many a thread stops.
const ENOUGH: usize = 20;

#[derive(Default)]
struct Sum {
    marks: Marks,
    sim_seconds: f64,
    beats: u64,
    missed: u64,
    doubled: u64,
    checks: u64,
    jobs: u64,
    /// Every seed's hash, added up: the same for the same seeds, whatever the threads did.
    hash: u64,
    failed: Vec<(u64, Scenario, Report)>,
    failures: u64,
    /// A seed whose scenario cannot be run, and why.
    refused: Option<(u64, String)>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a run takes is told beside it, and decides nothing"
)]
pub(super) fn run_command(arguments: &Arguments) -> Outcome {
    // Whatever is wrong with the options is mostly wrong with those of the first seed.
    scenario_of(arguments, arguments.seeds.start)?;
    let started = std::time::Instant::now();
    let sum = sweep(arguments);
    let wall = started.elapsed().as_secs_f64();
    if let Some((seed, error)) = &sum.refused {
        if sum.failures == 0 {
            return Err(format!("seed {seed}: {error}"));
        }
        // What was found before it is told all the same.
        eprintln!("seed {seed}: {error}");
    }
    let runs = arguments.seeds.end - arguments.seeds.start;
    let mut missing = if arguments.swarm { sum.marks.missing() } else { Vec::new() };
    missing.retain(|mark| !arguments.tier.never_reaches().contains(mark));
    if arguments.json {
        let marks: serde_json::Map<_, _> = crate::oracle::Mark::ALL
            .iter()
            .map(|mark| (mark.as_str().to_owned(), json!(sum.marks.count(*mark))))
            .collect();
        let failed: Vec<_> = sum
            .failed
            .iter()
            .map(|(_, _, report)| report.to_json(arguments.tier.as_str()))
            .collect();
        let value = json!({
            "tier": arguments.tier, "seeds": runs, "failures": sum.failures, "failed": failed,
            "sim_seconds": sum.sim_seconds, "wall_seconds": wall, "beats": sum.beats,
            "missed": sum.missed, "doubled": sum.doubled, "interval_checks": sum.checks,
            "jobs": sum.jobs, "marks": marks, "trace_hash": format!("{:016x}", sum.hash),
        });
        println!("{value}");
    } else {
        println!("  {runs} seeds, {} with violations", sum.failures);
        println!(
            "  {:.0} simulated hours in {wall:.1} s, {} beats, {} missed, {} doubled, {} jobs",
            sum.sim_seconds / 3_600.0,
            sum.beats,
            sum.missed,
            sum.doubled,
            sum.jobs
        );
        println!("  {} checks of the interval; all traces hash to {:016x}", sum.checks, sum.hash);
        println!("  how often each thing that should happen somewhere did:");
        print!("{}", show::marks(&sum.marks));
    }
    let mut words = Vec::new();
    for (seed, scenario, report) in &sum.failed {
        let path = keep(scenario, &format!("{}-seed-{seed}", arguments.tier))?;
        if let (Some(violation), false) = (report.violations.first(), arguments.json) {
            println!("  seed {seed}: {}: {}", violation.invariant.as_str(), violation.detail);
        }
        words.push(match arguments.tier {
            Tier::Lab => format!("replay it with: turnwise-sim replay {}", path.display()),
            tier => {
                format!("replay it with: turnwise-sim replay --tier {tier} {}", path.display())
            }
        });
    }
    if let (true, Some((seed, scenario, _))) = (arguments.shrink, sum.failed.first()) {
        let name = format!("turnwise-{}-seed-{seed}.small.json", arguments.tier);
        let path = std::env::temp_dir().join(name);
        words.extend(make_smaller(scenario, arguments.tier, &path)?);
    }
    if !words.is_empty() {
        return Ok(Some(words.join("\n")));
    }
    if !missing.is_empty() && !arguments.allow_unreached {
        let missing: Vec<_> = missing.iter().map(|mark| mark.as_str()).collect();
        return Ok(Some(format!(
            "never reached: {}; run more seeds, or pass --allow-unreached",
            missing.join(", ")
        )));
    }
    Ok(None)
}

/// What is run for a seed.
fn scenario_of(arguments: &Arguments, seed: u64) -> Result<Scenario, String> {
    let tier = arguments.tier;
    if arguments.swarm {
        return Ok(tier.swarm(seed));
    }
    let scenario = arguments.farm.scenario_of(seed, tier)?;
    match tier.misfit(&scenario) {
        Some(misfit) => Err(format!("the {tier} cannot run this: {misfit}")),
        None => Ok(scenario),
    }
}

fn sweep(arguments: &Arguments) -> Sum {
    let seeds = arguments.seeds.clone();
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    let threads = arguments.threads.unwrap_or(cores);
    let bar = progress(seeds.end - seeds.start);
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut mine = Sum::default();
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let scenario = match scenario_of(arguments, seed) {
                        Ok(scenario) => scenario,
                        Err(error) => {
                            mine.refused = Some((seed, error));
                            stop.store(true, Ordering::Relaxed);
                            break;
                        }
                    };
                    if let Some(found) = mine.take(arguments.tier, seed, scenario) {
                        // A long sweep may be stopped before it tells what it found.
                        bar.suspend(|| eprintln!("seed {seed}: {found}"));
                    }
                    bar.inc(1);
                    if mine.failed.len() >= ENOUGH {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
                if let Ok(mut sum) = sum.lock() {
                    sum.add(mine);
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut sum = sum.into_inner().unwrap_or_default();
    sum.failed.sort_by_key(|(seed, _, _)| *seed);
    sum.failed.truncate(KEPT);
    sum
}

impl Sum {
    /// Run a scenario; what was found in it first, if anything was.
    fn take(&mut self, tier: Tier, seed: u64, scenario: Scenario) -> Option<String> {
        let report = tier.run(&scenario, false);
        self.marks.add(&report.marks);
        self.sim_seconds += report.sim_seconds;
        self.beats += report.beats;
        self.missed += report.missed;
        self.doubled += report.doubled;
        self.checks += report.interval.0;
        self.jobs += report.jobs.enqueued;
        self.hash = self.hash.wrapping_add(report.trace_hash);
        if report.violated == 0 {
            return None;
        }
        let first = report.violations.first();
        let found = first.map(|first| format!("{}: {}", first.invariant.as_str(), first.detail));
        self.failures += 1;
        self.failed.push((seed, scenario, report));
        Some(found.unwrap_or_default())
    }

    fn add(&mut self, other: Self) {
        self.marks.add(&other.marks);
        self.sim_seconds += other.sim_seconds;
        self.beats += other.beats;
        self.missed += other.missed;
        self.doubled += other.doubled;
        self.checks += other.checks;
        self.jobs += other.jobs;
        self.hash = self.hash.wrapping_add(other.hash);
        self.failures += other.failures;
        self.failed.extend(other.failed);
        self.refused = self.refused.take().or(other.refused);
    }
}

fn progress(runs: u64) -> ProgressBar {
    let bar = ProgressBar::new(runs);
    let style = "{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("{text:?} is no range of seeds such as 0..100000");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let range = from.parse().map_err(|_| wrong())?..to.parse().map_err(|_| wrong())?;
    if range.start >= range.end {
        return Err(format!("{text:?} holds no seed"));
    }
    Ok(range)
}
