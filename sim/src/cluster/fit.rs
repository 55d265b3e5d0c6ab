//! Decides which scenarios this tier can express: its network moves in whole milliseconds and carries TCP.

use turnwise_engine::Period;

use crate::scenario::{Fault, Road, Scenario, Span};

/// The network's step.
const STEP: u64 = 1_000_000;
/// The most nodes: each is a whole process.
const NODES_MAX: usize = 200;
/// The shortest period, in milliseconds: a tenth of a slot is some steps of the network.
const PERIOD_MIN: u32 = 200;

/// What of a scenario this tier cannot express, and why; none: it can.
pub fn misfit(scenario: &Scenario) -> Option<String> {
    if scenario.nodes.len() > NODES_MAX {
        return Some(format!(
            "{} nodes: the cluster runs a whole process for each and takes up to {NODES_MAX}; the lab takes more",
            scenario.nodes.len()
        ));
    }
    if scenario.period.as_millis() < PERIOD_MIN {
        return Some(format!(
            "a period of {}: the cluster's network moves in steps of 1 ms, so that a period is at least {PERIOD_MIN} ms here; the lab takes shorter ones",
            scenario.period
        ));
    }
    for (number, planned) in scenario.faults.iter().enumerate() {
        if let Fault::Period { to } = planned.fault
            && to.as_millis() < PERIOD_MIN
        {
            return Some(format!(
                "faults[{number}].to: a period of {to}: it is at least {PERIOD_MIN} ms here"
            ));
        }
    }
    for (number, node) in scenario.nodes.iter().enumerate() {
        for (name, road) in [("there", &node.there), ("back", &node.back)] {
            if let Some(why) = misfit_road(road) {
                return Some(format!("nodes[{number}].{name}: {why}"));
            }
        }
    }
    None
}

fn misfit_road(road: &Road) -> Option<String> {
    if road.duplicate_ppm > 0 {
        return Some(
            "duplicate_ppm: the nodes' connections are TCP, which delivers once".to_owned(),
        );
    }
    if road.base.0 < STEP {
        return Some(format!("base {}: the cluster's network takes 1 ms at least", road.base));
    }
    None
}

/// The scenario as near to it as this tier can express.
pub fn fit(mut scenario: Scenario) -> Scenario {
    let up = |span: Span| Span(span.0.max(STEP).next_multiple_of(STEP));
    for node in &mut scenario.nodes {
        for road in [&mut node.there, &mut node.back] {
            road.base = up(road.base);
            road.duplicate_ppm = 0;
        }
    }
    for planned in &mut scenario.faults {
        match &mut planned.fault {
            Fault::Route { there, back, .. } => (*there, *back) = (up(*there), up(*back)),
            Fault::Period { to } => {
                let millis = to.as_millis().max(PERIOD_MIN);
                *to = Period::from_millis(millis).unwrap_or(*to);
            }
            _ => {}
        }
    }
    scenario
}
