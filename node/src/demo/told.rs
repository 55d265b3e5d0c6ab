//! Decides which events of the farm the demo's terminal tells, and how: every slot as a mark, the rest in words.

use std::time::Duration;

use super::terminal::{Mark, Screen};
use crate::watch::{By, Event, Weight, What};

/// The most marks for one gap.
const GAP_MARKS_MAX: i64 = 5;

/// Tell an event, so long after the beginning.
pub(crate) fn tell(screen: &mut Screen, at: Duration, event: &Event) {
    let marks = marks(&event.what);
    // Before the first beat there is nobody who could miss a slot.
    if !screen.has_begun() && !marks.is_empty() && marks.iter().all(|mark| *mark == Mark::Missed) {
        return;
    }
    for mark in marks {
        screen.mark(mark);
    }
    if event.what.weight() > Weight::Routine {
        screen.tell(at, &event.what.words());
    }
}

fn marks(what: &What) -> Vec<Mark> {
    match what {
        What::Beat { who, by: By::Deputy { .. }, .. } => vec![Mark::StandIn(letter(&who.name))],
        What::Beat { who, .. } => vec![Mark::Beat(letter(&who.name))],
        What::Missed { .. } => vec![Mark::Missed],
        What::Gap { slots, .. } => {
            let marks = usize::try_from((*slots).clamp(1, GAP_MARKS_MAX)).unwrap_or(1);
            vec![Mark::Missed; marks]
        }
        _ => Vec::new(),
    }
}

/// The first character of a name: a node of the demo has no other.
fn letter(name: &str) -> String {
    name.chars().take(1).filter(|c| !c.is_control()).collect()
}
