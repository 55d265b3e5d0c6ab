//! Decides nothing: bugs in the engine and the turn row.

use std::cell::Cell;

use turnwise_engine::{Bug, Engine, Sabotage};

use super::Plantable;
use crate::lab::run_with;
use crate::report::Report;
use crate::scenario::Scenario;
use crate::tier::Tier;

thread_local! {
    static BUG: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// The rules with the bug that this thread has planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlantedInEngine;

impl Sabotage for PlantedInEngine {
    fn plants(bug: Bug) -> bool {
        BUG.get() == Some(bug)
    }
}

impl Plantable for Bug {
    const ALL: &'static [Self] = Bug::ALL;
    const TIER: Tier = Tier::Lab;

    fn name(self) -> &'static str {
        self.as_str()
    }

    fn rule(self) -> &'static str {
        self.describe()
    }

    fn plant(bug: Option<Self>) {
        BUG.set(bug);
    }

    fn run(scenario: &Scenario) -> Report {
        run_with::<Engine<PlantedInEngine>>(scenario, false)
    }
}
