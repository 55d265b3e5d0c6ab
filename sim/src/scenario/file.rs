//! Decides which texts are scenarios: JSON of this version whose numbers lie in their ranges.

use std::fmt;

use serde::Deserialize;

use super::{NODES_MAX, Road, Scenario, Span, VERSION};

/// A text that is no scenario, or one that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScenarioError {
    /// The line and column, where the text itself is malformed.
    pub place: Option<(usize, usize)>,
    /// What is wrong, by the name of the field.
    pub reason: String,
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, "line {line}, column {column}: {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

impl std::error::Error for ScenarioError {}

impl ScenarioError {
    fn new(reason: String) -> Self {
        Self { place: None, reason }
    }

    fn of(error: &serde_json::Error) -> Self {
        // The place is told by itself.
        let reason = error.to_string();
        let reason = reason.split(" at line ").next().unwrap_or_default().to_owned();
        Self { place: Some((error.line(), error.column())), reason }
    }
}

impl Scenario {
    /// Read a scenario from JSON.
    ///
    /// # Errors
    /// When the text is malformed (with line, column and field), of another version, or when a number is out
    /// of its range.
    pub fn from_json(text: &str) -> Result<Self, ScenarioError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } =
            serde_json::from_str(text).map_err(|error| ScenarioError::of(&error))?;
        if version != VERSION {
            return Err(ScenarioError::new(format!(
                "version: this scenario is of version {version}, and this program runs version \
                 {VERSION}; replay it with the program that wrote it"
            )));
        }
        let scenario: Self =
            serde_json::from_str(text).map_err(|error| ScenarioError::of(&error))?;
        scenario.check()?;
        Ok(scenario)
    }

    /// As JSON, for people too.
    pub fn to_json(&self) -> String {
        // Nothing in a scenario can fail to become JSON: no maps, no numbers that are none.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Whether it makes sense.
    ///
    /// # Errors
    /// The first number that is out of its range, by the name of its field.
    pub fn check(&self) -> Result<(), ScenarioError> {
        let within = |name: &str, span: Span, least: Span, most: Span| {
            if span < least || span > most {
                let reason = format!("{name}: {span} is not from {least} to {most}");
                return Err(ScenarioError::new(reason));
            }
            Ok(())
        };
        let hour = Span::from_secs(3_600);
        let year = Span::from_secs(366 * 86_400);
        within("duration", self.duration, Span::from_millis(1), year)?;
        within("database.service", self.database.service, Span::ZERO, hour)?;
        within("database.commit", self.database.commit, Span::ZERO, hour)?;
        let second = Span::from_secs(1);
        within("database.resolution", self.database.resolution, Span(1), second)?;
        if self.nodes.is_empty() || self.nodes.len() > NODES_MAX {
            let reason = format!("nodes: {} where 1 to {NODES_MAX} can be", self.nodes.len());
            return Err(ScenarioError::new(reason));
        }
        for (number, node) in self.nodes.iter().enumerate() {
            let name = |field: &str| format!("nodes[{number}].{field}");
            if !(1..=10_000).contains(&node.capacity) {
                let reason = format!("{}: {} is not 1 to 10000", name("capacity"), node.capacity);
                return Err(ScenarioError::new(reason));
            }
            if node.clock.drift_ppb.abs() > 400_000 {
                let drift = node.clock.drift_ppb;
                let reason = format!("{}: {drift} is beyond 400000", name("clock.drift_ppb"));
                return Err(ScenarioError::new(reason));
            }
            within(&name("clock.resolution"), node.clock.resolution, Span(1), second)?;
            within(&name("clock.late_wake"), node.clock.late_wake, Span::ZERO, second)?;
            within(&name("clock.shows"), node.clock.shows, Span::ZERO, Span(u64::MAX / 4))?;
            for (way, Road { base, spread, .. }) in [("there", node.there), ("back", node.back)] {
                let ten = Span::from_secs(10);
                within(&name(&format!("{way}.base")), base, Span::ZERO, ten)?;
                within(&name(&format!("{way}.spread")), spread, Span::ZERO, ten)?;
            }
        }
        if self.load.every > Span::ZERO {
            within("load.every", self.load.every, Span::from_micros(10), year)?;
            within("load.runs", self.load.runs, Span::ZERO, hour)?;
            if self.load.max_attempts == 0 {
                return Err(ScenarioError::new(
                    "load.max_attempts: 0; it must be 1 or more".into(),
                ));
            }
        }
        for (name, kept) in [
            ("retention.succeeded", self.retention.succeeded),
            ("retention.dead", self.retention.dead),
        ] {
            if let Some(kept) = kept {
                within(name, kept, second, year)?;
            }
        }
        for (number, planned) in self.faults.iter().enumerate() {
            if let Some(node) = planned.fault.node()
                && node as usize >= self.nodes.len()
            {
                return Err(ScenarioError::new(format!(
                    "faults[{number}].fault.node: there is no node {node}; the last is {}",
                    self.nodes.len() - 1
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::swarm;

    #[test]
    fn a_scenario_survives_its_file() {
        for seed in 0..200 {
            let scenario = swarm(seed);
            assert_eq!(Scenario::from_json(&scenario.to_json()), Ok(scenario));
        }
    }

    #[test]
    fn a_malformed_scenario_is_refused_by_line_and_field() {
        let json = swarm(1).to_json();
        let error = Scenario::from_json(&json.replace("\"duration\"", "\"durability\""));
        let error = error.unwrap_err();
        assert!(error.place.is_some_and(|(line, _)| line > 1), "{error}");
        assert!(error.reason.contains("durability"), "{error}");
        let error = Scenario::from_json(&json.replace("\"version\": 1", "\"version\": 9"));
        assert!(error.unwrap_err().to_string().contains("version 9"));
        let mut scenario = swarm(1);
        scenario.nodes[0].clock.drift_ppb = 1_000_000;
        assert!(scenario.check().unwrap_err().reason.contains("nodes[0].clock.drift_ppb"));
        assert!(Scenario::from_json("{").unwrap_err().place.is_some());
    }
}
