//! Decides which scenarios real processes can express: what can be done to them from outside.

use crate::scenario::{Fault, Planned, Scenario, Shift, Span};

/// The most nodes: each is a process on this machine.
const NODES_MAX: usize = 32;
/// The shortest period, in milliseconds: relays are exact to a millisecond, and this machine has other things to do.
const PERIOD_MIN: u32 = 200;

/// The scenario on a database with a standby: where the server was restarted, the standby takes over, at least once.
pub fn with_failovers(mut scenario: Scenario) -> Scenario {
    let failover = |lasts| Fault::Failover { lasts, loses: Span::ZERO, clock: Shift(0) };
    for planned in &mut scenario.faults {
        if let Fault::ServerRestart { lasts } = planned.fault {
            planned.fault = failover(lasts);
        }
    }
    if !scenario.faults.iter().any(|planned| matches!(planned.fault, Fault::Failover { .. })) {
        let lasts = Span(2 * scenario.period.as_nanos() as u64);
        let middle = Planned { at: Span(scenario.duration.0 / 2), fault: failover(lasts) };
        scenario.faults.push(middle);
        scenario.faults.sort_by_key(|planned| planned.at);
    }
    scenario
}

/// What of a scenario real processes cannot express, and why; none: they can. `replica`: there is a standby.
pub fn misfit(scenario: &Scenario, replica: bool) -> Option<String> {
    if scenario.nodes.len() > NODES_MAX {
        return Some(format!(
            "{} nodes: each is a process of its own here, up to {NODES_MAX}; the cluster and the lab take more",
            scenario.nodes.len()
        ));
    }
    if scenario.period.as_millis() < PERIOD_MIN {
        return Some(format!(
            "a period of {}: roads are exact to a millisecond here, so that a period is at least {PERIOD_MIN} ms; the lab takes shorter ones",
            scenario.period
        ));
    }
    if !scenario.retention.is_forever() {
        return Some(
            "retention: its judge reads what the database has kept; the cluster removes ended jobs"
                .to_owned(),
        );
    }
    if !scenario.orders.are_none() {
        return Some(
            "orders: its judge knows of no keys, cancellations and pauses; the cluster's does"
                .to_owned(),
        );
    }
    for (number, node) in scenario.nodes.iter().enumerate() {
        if node.there.duplicate_ppm + node.back.duplicate_ppm > 0 {
            return Some(format!(
                "nodes[{number}]: duplicate_ppm: the nodes' connections are TCP, which delivers once"
            ));
        }
    }
    scenario.faults.iter().enumerate().find_map(|(number, planned)| {
        let why = misfit_fault(planned.fault, replica)?;
        Some(format!("faults[{number}] ({}): {why}; the simulated tiers can", planned.fault.name()))
    })
}

fn misfit_fault(fault: Fault, replica: bool) -> Option<&'static str> {
    Some(match fault {
        Fault::Freeze { .. } => "the kernel's clock cannot be stopped with a process",
        Fault::Stall { .. }
        | Fault::StallWork { .. }
        | Fault::HoldChange { .. }
        | Fault::LoseChange { .. } => "from outside one statement looks like another",
        Fault::LoseRequest { .. } | Fault::LoseWork { .. } => {
            "from outside one statement looks like another; a lost answer is lost with its connection (lose_answer)"
        }
        Fault::Errors { .. } | Fault::Deadlock { .. } => "a real server has errors of its own only",
        Fault::ServerStep { .. } | Fault::ServerSlew { .. } => {
            "the server's clock is this machine's, which is not to be set"
        }
        Fault::Period { .. } => "its judge counts in one period",
        Fault::Failover { .. } if !replica => "there is one server (--replica makes two)",
        Fault::Failover { loses, clock, .. } if loses != Span::ZERO || clock != Shift(0) => {
            "the standby has all that was acknowledged, and both servers have this machine's clock (loses and clock are zero)"
        }
        _ => return None,
    })
}
