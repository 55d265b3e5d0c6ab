//! Decides which buttons the dashboard shows in a demo. What they do is the farm's: the same as the lines that are
//! typed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::sync::mpsc;

use super::command::{Which, deed_of};
use super::farm::{Condition, Farm, View};
use crate::dashboard::{Action, Controls};
use crate::rfc3339;
use crate::store::{Distance, NodeView};

/// The farm, as the terminal and the pages share it.
pub(crate) type SharedFarm = Arc<Mutex<Farm>>;

/// The farm, for the moment of one deed or look.
pub(crate) fn lock(farm: &SharedFarm) -> MutexGuard<'_, Farm> {
    farm.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The buttons.
pub(crate) struct Buttons {
    pub(crate) farm: SharedFarm,
    /// The terminal is told what was done.
    pub(crate) said: mpsc::UnboundedSender<String>,
}

/// The node of the demo that this row is about; none when it is another's, or of an earlier life of one that runs.
fn which(node: &NodeView) -> Option<Which> {
    let is_letter = node.name.len() == 1 && node.name.bytes().all(|b| b.is_ascii_uppercase());
    is_letter.then(|| node.name.parse().ok()).flatten()
}

/// The row of a node that was started again stays, under another id: it was never heard of since.
fn is_of_an_earlier_life(node: &NodeView, view: &View) -> bool {
    let Some(since) = view.since else { return false };
    let is_over = matches!(node.state.as_str(), "lost" | "left");
    is_over || rfc3339::parse(&node.last_check_in).is_some_and(|heard| heard < since)
}

fn action(name: impl Into<String>, label: impl Into<String>, hint: &str) -> Action {
    Action { name: name.into(), label: label.into(), hint: hint.to_owned() }
}

impl Controls for Buttons {
    fn for_node(&self, node: &NodeView) -> Vec<Action> {
        let Some(which) = which(node) else { return Vec::new() };
        let Some(view) = lock(&self.farm).look(which) else { return Vec::new() };
        if is_of_an_earlier_life(node, &view) {
            return Vec::new();
        }
        let kill = action("kill", "Kill", "As a power cut would: SIGKILL");
        match view.condition {
            Condition::Running => vec![
                kill,
                action("stall", "Stall", "Stop it where it is, as a machine that hangs: SIGSTOP"),
                action(
                    "skew +5s",
                    "Skew +5 s",
                    "Its clock leaps forward by five seconds, as after a suspend",
                ),
                farther_or_nearer(view.distance),
            ],
            Condition::Stalled => {
                vec![action("revive", "Revive", "Let it go on where it stands: SIGCONT"), kill]
            }
            Condition::Dead => {
                vec![action("revive", "Revive", "Start it again, as another process")]
            }
        }
    }

    fn for_farm(&self) -> Vec<Action> {
        vec![action("add", "Add a node", "One more node comes up and joins the ring")]
    }

    fn perform<'a>(
        &'a self,
        action: &'a str,
        node: Option<&'a NodeView>,
    ) -> BoxFuture<'a, Result<String, String>> {
        let done = self.do_it(action, node);
        if let Ok(said) = &done {
            let _ = self.said.send(format!("on the page: {said}"));
        }
        async { done }.boxed()
    }
}

impl Buttons {
    fn do_it(&self, action: &str, node: Option<&NodeView>) -> Result<String, String> {
        let mut farm = lock(&self.farm);
        let Some(node) = node else {
            return match action {
                "add" => farm.add(),
                _ => Err(format!(
                    "there is nothing called {action:?} that could be done to the farm"
                )),
            };
        };
        let deed = deed_of(action)?;
        let Some(which) = which(node) else {
            return Err(format!("{:?} is no node of this demo", node.name));
        };
        if let Some(view) = farm.look(which)
            && is_of_an_earlier_life(node, &view)
        {
            return Err(format!(
                "this {which} is of an earlier life; it runs again under another id"
            ));
        }
        farm.obey(which, deed)
    }
}

fn farther_or_nearer(distance: Distance) -> Action {
    let far = "80ms".parse().is_ok_and(|far: Distance| far == distance);
    if far {
        action("delay 1ms", "Bring near", "The database is 1 ms away, each way")
    } else {
        action("delay 80ms", "Delay 80 ms", "The database is 80 ms away, each way")
    }
}
