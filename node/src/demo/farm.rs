//! Decides what becomes of the demo's nodes: who runs, who is stalled or dead, how wrong each one's clock is and how
//! far its database; and what to watch for after each deed. The ring is the nodes' own to mend.

use std::time::Duration;

use turnwise_engine::ServerInstant;

use super::command::{Deed, NODES_MAX, Which};
use super::process::{Nature, Process, Recipe};
use crate::store::Distance;

/// The nodes.
#[derive(Debug)]
pub(crate) struct Farm {
    recipe: Recipe,
    members: Vec<Member>,
    /// The demo ends: no process is started any more.
    is_over: bool,
}

#[derive(Debug)]
struct Member {
    nature: Nature,
    state: State,
}

#[derive(Debug)]
enum State {
    Running(Process),
    Stalled(Process),
    Dead,
}

/// How a node is, for whoever offers what can be done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// It runs.
    Running,
    /// It stands where it was stopped.
    Stalled,
    /// There is no process.
    Dead,
}

/// What there is to see of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) condition: Condition,
    /// How far its database is.
    pub(crate) distance: Distance,
    /// When its process was started, by this machine's clock, if it runs.
    pub(crate) since: Option<ServerInstant>,
}

impl Farm {
    /// None yet.
    pub(crate) fn new(recipe: Recipe) -> Self {
        Self { recipe, members: Vec::new(), is_over: false }
    }

    /// A new node comes up. What to watch for.
    pub(crate) fn add(&mut self) -> Result<String, String> {
        self.goes_on()?;
        if self.members.len() >= NODES_MAX {
            return Err(format!(
                "there are {NODES_MAX} nodes, one for each letter; that is the most"
            ));
        }
        let which = Which(self.members.len() + 1);
        let nature = nature(self.members.len());
        let process = self.recipe.start(&which.to_string(), nature)?;
        self.members.push(Member { nature, state: State::Running(process) });
        Ok(format!(
            "{which} comes up ({}). Watch: it joins the ring within a few seconds, and no slot is missed for it.",
            wrong(nature)
        ))
    }

    /// Do it. What to watch for, or why it was not done.
    pub(crate) fn obey(&mut self, which: Which, deed: Deed) -> Result<String, String> {
        self.goes_on()?;
        self.exists(which)?;
        match deed {
            Deed::Kill => self.kill(which),
            Deed::Stall => self.stall(which),
            Deed::Revive => self.revive(which),
            Deed::Skew(by) => self.skew(which, by),
            Deed::Delay(distance) => self.delay(which, distance),
        }
    }

    fn kill(&mut self, which: Which) -> Result<String, String> {
        let member = self.member(which)?;
        if matches!(member.state, State::Dead) {
            return Err(format!("{which} is dead already; `revive {which}` starts it again"));
        }
        // Dropped, it is killed.
        member.state = State::Dead;
        Ok(format!(
            "{which} is killed. Watch: its next turn passes without a beat (·); whoever beats next takes it out of the \
             ring and stands in for it until the new ring holds. Its jobs run again within 5 s."
        ))
    }

    fn stall(&mut self, which: Which) -> Result<String, String> {
        let member = self.member(which)?;
        member.state = match std::mem::replace(&mut member.state, State::Dead) {
            State::Running(process) => {
                process.stall();
                State::Stalled(process)
            }
            State::Stalled(process) => {
                member.state = State::Stalled(process);
                return Err(format!("{which} is stalled already; `revive {which}` lets it go on"));
            }
            State::Dead => {
                return Err(format!("{which} is dead; `revive {which}` starts it again"));
            }
        };
        Ok(format!(
            "{which} is stalled. Watch: to the others it is as good as dead; they close the gap in the same way. \
             `revive {which}` lets it go on."
        ))
    }

    fn revive(&mut self, which: Which) -> Result<String, String> {
        let recipe = self.recipe.clone();
        let member = self.member(which)?;
        let (state, said) = match std::mem::replace(&mut member.state, State::Dead) {
            State::Running(process) => {
                member.state = State::Running(process);
                return Err(format!("{which} runs; there is nothing to revive"));
            }
            State::Stalled(process) => {
                process.go_on();
                let said = "goes on where it stood. Watch: it learns that it was taken out of the ring, and joins again; \
                     ends of jobs that it comes too late with change nothing.";
                (State::Running(process), said)
            }
            State::Dead => {
                let process = recipe.start(&which.to_string(), member.nature)?;
                let said = "is started again, as another process. Watch: it joins the ring within a few seconds.";
                (State::Running(process), said)
            }
        };
        member.state = state;
        Ok(format!("{which} {said}"))
    }

    fn skew(&mut self, which: Which, by: Duration) -> Result<String, String> {
        let by_text = humantime::format_duration(by);
        self.tell(which, &format!("clock +{by_text}"))?;
        let member = self.member(which)?;
        member.nature.ahead = member.nature.ahead.saturating_add(by);
        Ok(format!(
            "{which}'s clock leaps {by_text} ahead. Watch: with its next exchange it knows that something leapt, and \
             learns the time anew. A turn that it slept through may be missed; no slot has two beats."
        ))
    }

    fn delay(&mut self, which: Which, distance: Distance) -> Result<String, String> {
        self.tell(which, &format!("distance {distance}"))?;
        self.member(which)?.nature.distance = distance;
        Ok(format!(
            "the database is now {distance} away from {which}. Watch: a beat or two are off by what the way has changed \
             (if that is more than half a second, they fall into another's slot); then they land on the second again, \
             since it sends them so much earlier."
        ))
    }

    /// Change what is wrong with a node that can hear it.
    fn tell(&mut self, which: Which, line: &str) -> Result<(), String> {
        match &mut self.member(which)?.state {
            State::Running(process) => process.tell(line).map_err(|error| {
                format!("{which} cannot be told: {error}; it may have ended just now")
            }),
            State::Stalled(_) => {
                Err(format!("{which} is stalled and hears nothing; `revive {which}` lets it go on"))
            }
            State::Dead => Err(format!("{which} is dead; `revive {which}` starts it again")),
        }
    }

    /// The nodes that have ended by themselves since, in words.
    pub(crate) fn find_ended(&mut self) -> Vec<String> {
        let mut found = Vec::new();
        for (index, member) in self.members.iter_mut().enumerate() {
            let State::Running(process) = &mut member.state else { continue };
            let Some(status) = process.ended() else { continue };
            member.state = State::Dead;
            let which = Which(index + 1);
            let last = self.recipe.last_words(&which.to_string());
            found.push(format!("{which} ended by itself ({status}): {last}"));
        }
        found
    }

    /// How the nodes are, a line for each.
    pub(crate) fn describe(&self) -> Vec<String> {
        let line = |(index, member): (usize, &Member)| {
            let state = match condition(&member.state) {
                Condition::Running => "runs",
                Condition::Stalled => "stalled",
                Condition::Dead => "dead",
            };
            format!("{:>2} {}  {state:<8} {}", index + 1, Which(index + 1), wrong(member.nature))
        };
        self.members.iter().enumerate().map(line).collect()
    }

    /// How a node is; none when there is no such node.
    pub(crate) fn look(&self, which: Which) -> Option<View> {
        let member = self.members.get(which.0.checked_sub(1)?)?;
        let since = match &member.state {
            State::Running(process) => Some(process.began()),
            State::Stalled(_) | State::Dead => None,
        };
        Some(View { condition: condition(&member.state), distance: member.nature.distance, since })
    }

    /// Ask every node to stop. From now on nothing else can be done: a page may still be open in a browser.
    pub(crate) fn ask_to_stop(&mut self) {
        self.is_over = true;
        for member in &self.members {
            if let State::Running(process) | State::Stalled(process) = &member.state {
                process.ask_to_stop();
            }
        }
    }

    /// Whether every node has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.members.iter_mut().all(|member| match &mut member.state {
            State::Running(process) | State::Stalled(process) => process.ended().is_some(),
            State::Dead => true,
        })
    }

    /// Kill whoever is left.
    pub(crate) fn clear(&mut self) {
        self.members.clear();
    }

    fn goes_on(&self) -> Result<(), String> {
        if self.is_over { Err("the demo is ending".to_owned()) } else { Ok(()) }
    }

    fn exists(&self, which: Which) -> Result<(), String> {
        if self.look(which).is_some() {
            return Ok(());
        }
        let last = Which(self.members.len());
        Err(format!(
            "there is no node {} ({which}); there are {} nodes, A to {last}, and `add` brings up another",
            which.0,
            self.members.len()
        ))
    }

    fn member(&mut self, which: Which) -> Result<&mut Member, String> {
        let index = which.0.wrapping_sub(1);
        self.members.get_mut(index).ok_or_else(|| format!("there is no node {which}"))
    }
}

fn condition(state: &State) -> Condition {
    match state {
        State::Running(_) => Condition::Running,
        State::Stalled(_) => Condition::Stalled,
        State::Dead => Condition::Dead,
    }
}

/// What is wrong with the node with this index: the first three are near, farther and far; those that come later get
/// some of each.
fn nature(index: usize) -> Nature {
    const NATURES: [(u64, i32, u64, u64); 5] = [
        (900, 30, 1, 1),
        (3_200, -80, 20, 35),
        (7_500, 150, 70, 60),
        (1_700, -20, 5, 5),
        (5_400, 60, 40, 15),
    ];
    let (ahead, drift_ppm, there, back) = NATURES[index % NATURES.len()];
    let [there, back] = [there, back].map(Duration::from_millis);
    Nature { ahead: Duration::from_millis(ahead), drift_ppm, distance: Distance::of(there, back) }
}

/// What is wrong with a node, in words.
fn wrong(nature: Nature) -> String {
    let Nature { ahead, drift_ppm, distance } = nature;
    let ahead = humantime::format_duration(ahead);
    let rate = if drift_ppm < 0 { "too slow" } else { "too fast" };
    format!("clock {ahead} ahead and {} ppm {rate}, database {distance} away", drift_ppm.abs())
}
