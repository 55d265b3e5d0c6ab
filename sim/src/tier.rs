//! Decides what runs a scenario: the lab or the cluster. Both are judged by the same judge.

use serde::{Deserialize, Serialize};

use crate::oracle::Mark;
use crate::report::Report;
use crate::scenario::{Scenario, swarm, swarm_of_processes};
use crate::{cluster, lab};

/// What runs a scenario.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Engines alone, driven by discrete events at nanosecond resolution
    #[default]
    Lab,
    /// The production shell on a simulated network, at a resolution of 1 ms
    Cluster,
}

impl Tier {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lab => "lab",
            Self::Cluster => "cluster",
        }
    }

    /// What of the scenario it cannot express, and why; none: it can.
    pub fn misfit(self, scenario: &Scenario) -> Option<String> {
        match self {
            Self::Lab => None,
            Self::Cluster => cluster::misfit(scenario),
        }
    }

    /// What does not happen in its swarm, or is not seen by its judge: the other tier shows it.
    pub const fn never_reaches(self) -> &'static [Mark] {
        match self {
            Self::Lab => lab::NEVER_REACHES,
            Self::Cluster => cluster::NEVER_REACHES,
        }
    }

    /// Run a scenario that fits.
    pub fn run(self, scenario: &Scenario, picture: bool) -> Report {
        match self {
            Self::Lab => lab::run_with::<lab::Product>(scenario, picture),
            Self::Cluster => cluster::run(scenario, picture),
        }
    }

    /// The scenario of a seed: a random choice of the kinds of faults, of sizes and of roads.
    pub fn swarm(self, seed: u64) -> Scenario {
        match self {
            Self::Lab => swarm(seed),
            Self::Cluster => cluster::fit(swarm_of_processes(seed)),
        }
    }
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
