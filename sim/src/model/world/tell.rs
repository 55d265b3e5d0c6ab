//! Decides nothing: the events of a path and its rings, in words.

use turnwise_engine::{NodeId, Sabotage, TurnKind, TurnStatement};

use super::super::fault::name;
use super::{Event, What, World};

impl<S: Sabotage> World<S> {
    /// What is about to happen, for people.
    pub(in super::super) fn describe(&self, event: Event) -> String {
        match event {
            Event::Resume(node) => format!("{} goes on", name(node)),
            Event::Request { node, index } => match &self.wire[index].what {
                What::Request { statement, .. } => {
                    format!("{}'s {} arrives", name(node), statement_name(statement))
                }
                _ => String::new(),
            },
            Event::Answer { node, index } => match &self.wire[index].what {
                What::Answer(answer) => format!(
                    "{} is answered: slot {}, {}",
                    name(node),
                    answer.now,
                    if answer.done { "done" } else { "not done" }
                ),
                _ => String::new(),
            },
            Event::Broken { node, .. } => format!("{}'s connection breaks", name(node)),
            Event::Wake(node) => {
                let reason = self.nodes[usize::from(node)]
                    .engine
                    .as_ref()
                    .and_then(|engine| engine.poll_timeout())
                    .map_or_else(String::new, |(_, reason)| reason.to_string());
                format!("{} wakes: {reason}", name(node))
            }
            Event::Grid => "a moment between".to_owned(),
        }
    }

    /// The ring and the offices, for people.
    pub(in super::super) fn describe_row(&self) -> String {
        let letter = |id: &NodeId| {
            let number = self.nodes.iter().position(|node| node.id == *id);
            number.map_or('?', |number| name(number as u8))
        };
        let versions = self.row.roster.versions.iter().map(|version| {
            let ring: String = version.ring.iter().map(letter).collect();
            format!("{ring} from {}", version.from)
        });
        let offices = self.row.roster.deputies.iter().map(|office| {
            let (of, deputy) = (letter(&office.of), letter(&office.deputy));
            format!("{deputy} for {of} in {}..{}", office.from, office.end)
        });
        versions.chain(offices).collect::<Vec<_>>().join(", ")
    }
}

fn statement_name(statement: &TurnStatement) -> String {
    match &statement.kind {
        TurnKind::Read => "read".to_owned(),
        TurnKind::Beat { .. } => {
            format!("beat for {}", statement.believed.map_or(0, |slot| slot.0))
        }
        TurnKind::Change { change, .. } => change.kind.as_str().to_owned(),
    }
}
