//! Decides which texts are scenarios: JSON of this version that makes sense.

use std::fmt;

use serde::Deserialize;

use super::place::place;
use super::{Scenario, VERSION};

/// A text that is no scenario, or one that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScenarioError {
    /// The line and column in the text; none: it was not read from one.
    pub place: Option<(usize, usize)>,
    /// The path of the field whose value makes no sense, such as `faults[3].fault.ppm`; none: the text is malformed.
    pub field: Option<String>,
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
    /// What is wrong with the value of a field.
    pub(super) fn at(field: impl fmt::Display, reason: &str) -> Self {
        let field = field.to_string();
        Self { place: None, reason: format!("{field}: {reason}"), field: Some(field) }
    }

    /// The same, with the place of the field in the text that it was read from.
    fn within(mut self, text: &str) -> Self {
        self.place = self.field.as_deref().and_then(|field| place(text, field));
        self
    }

    fn of(error: &serde_json::Error) -> Self {
        // The place is told by itself.
        let reason = error.to_string();
        let reason = reason.split(" at line ").next().unwrap_or_default().to_owned();
        Self { place: Some((error.line(), error.column())), field: None, reason }
    }
}

impl Scenario {
    /// Read a scenario from JSON.
    ///
    /// # Errors
    /// When the text is malformed, of another version, or when a number is out of its range: with line, column and
    /// field.
    pub fn from_json(text: &str) -> Result<Self, ScenarioError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } =
            serde_json::from_str(text).map_err(|error| ScenarioError::of(&error))?;
        if version != VERSION {
            let reason = format!(
                "this scenario is of version {version}, and this program runs version {VERSION}; replay it with \
                 the program that wrote it"
            );
            return Err(ScenarioError::at("version", &reason).within(text));
        }
        let scenario: Self =
            serde_json::from_str(text).map_err(|error| ScenarioError::of(&error))?;
        scenario.check().map_err(|error| error.within(text))?;
        Ok(scenario)
    }

    /// As JSON, for people too.
    pub fn to_json(&self) -> String {
        // Nothing in a scenario can fail to become JSON: no maps, no numbers that are none.
        serde_json::to_string_pretty(self).unwrap_or_default()
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
        assert!(Scenario::from_json("{").unwrap_err().place.is_some());
    }

    #[test]
    fn a_scenario_of_another_version_is_refused_by_line() {
        let json = swarm(1).to_json();
        let error = Scenario::from_json(&json.replace("\"version\": 1", "\"version\": 9"));
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("line 2, column 14: version: "), "{error}");
        assert!(error.contains("version 9"), "{error}");
    }

    #[test]
    fn a_number_out_of_its_range_is_refused_by_line_and_field() {
        let mut scenario = swarm(1);
        let Some(node) = scenario.nodes.last_mut() else { return };
        node.clock.drift_ppb = 1_234_567;
        let field = format!("nodes[{}].clock.drift_ppb", scenario.nodes.len() - 1);
        let text = scenario.to_json();
        let line = text.lines().position(|line| line.contains("1234567")).unwrap() + 1;
        let error = Scenario::from_json(&text).unwrap_err();
        assert_eq!(error.field.as_deref(), Some(field.as_str()), "{error}");
        assert_eq!(error.place.map(|(line, _)| line), Some(line), "{error}");
        let said = error.to_string();
        assert!(said.starts_with(&format!("line {line}, column ")), "{said}");
        assert!(said.contains("1234567 is not from -400000 to 400000"), "{said}");
    }
}
