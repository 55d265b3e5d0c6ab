//! Decides nothing: bugs in the shell and the store. The cluster always runs them with these rules; as long as
//! nothing is planted, they are the product's.

use std::cell::Cell;

use turnwise_node::sabotage::{Bug, Sabotage};

use super::Plantable;
use crate::report::Report;
use crate::scenario::{Fault, Scenario};
use crate::tier::Tier;

thread_local! {
    static BUG: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// The rules with the bug that this thread has planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlantedInShell;

impl Sabotage for PlantedInShell {
    fn plants(bug: Bug) -> bool {
        BUG.get() == Some(bug)
    }
}

impl Plantable for Bug {
    const ALL: &'static [Self] = Bug::ALL;
    const TIER: Tier = Tier::Cluster;

    fn name(self) -> &'static str {
        self.as_str()
    }

    fn rule(self) -> &'static str {
        self.describe()
    }

    fn is_touched_by(self, scenario: &Scenario) -> bool {
        let removes = !scenario.retention.is_forever();
        let has =
            |wanted: fn(Fault) -> bool| scenario.faults.iter().any(|planned| wanted(planned.fault));
        match self {
            Self::AgeIsIgnored | Self::NothingIsPruned | Self::PruneTakesWhatRuns => removes,
            Self::MoreIsNotTold => scenario.load.jobs_a_claim > 0,
            Self::CancelIsNotHeard => scenario.orders.cancelled_ppm > 0,
            Self::UniqueKeyIsForgotten => scenario.orders.keyed_ppm > 0,
            Self::ConcurrencyIsIgnored => scenario.orders.concurrency > 0,
            Self::ElsewhereTakesNoPlace => {
                scenario.orders.concurrency > 0 && scenario.orders.asynchronous_ppm > 0
            }
            Self::KeyIsIgnored => scenario.orders.concurrency_per_key > 0,
            Self::SlowDownIsIgnored => scenario.orders.slow_down > 0,
            Self::RateIsForgotten => scenario.orders.rate > 0,
            Self::BatchForgetsWhatRuns
            | Self::BatchFailureIsSuccess
            | Self::NoBatchIsLookedAt
            | Self::BatchIsLookedAtByEndsAlone
            | Self::WaitingIsNotPutOff => scenario.orders.batches_every.0 > 0,
            Self::PauseIsIgnored => scenario.orders.pauses_every.0 > 0,
            Self::NothingIsFired
            | Self::NextTimeIsPassedOver
            | Self::TimesAreFiredLate
            | Self::FiringHasNoJob => scenario.orders.schedules > 0,
            Self::StepMakesOlder => removes && has(sets_clock_forward),
            Self::ReconcileIsARenewal | Self::ListLacksClaims => {
                has(|fault| matches!(fault, Fault::Failover { .. }))
            }
            Self::RefusalIsNotTold | Self::TargetStaysAway => {
                has(|fault| matches!(fault, Fault::TargetDown { .. }))
            }
            Self::LeaveIsNotSaid | Self::DrainDoesNotWait | Self::DrainDropsJobs => {
                has(|fault| matches!(fault, Fault::Drain { .. } | Fault::Deploy { .. }))
            }
            Self::OutageCountsForLeases => has(|fault| {
                matches!(
                    fault,
                    Fault::Outage { .. } | Fault::ServerRestart { .. } | Fault::Failover { .. }
                )
            }),
            _ => true,
        }
    }

    fn plant(bug: Option<Self>) {
        BUG.set(bug);
    }

    fn run(scenario: &Scenario) -> Report {
        Tier::Cluster.run(scenario, false)
    }
}

fn sets_clock_forward(fault: Fault) -> bool {
    match fault {
        Fault::ServerStep { by } | Fault::Failover { clock: by, .. } => by.0 > 0,
        _ => false,
    }
}
