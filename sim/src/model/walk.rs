//! Decides which paths there are: where a fault may still come, when a path is at its end, and how it is told.
//!
//! Time is part of the state, so the states form a graph without circles, and it has an end: the first fault
//! comes within the first [`Farm::first_slots`] slots of a settled ring, each further one until the ring has been
//! calm for a round. After the last fault nothing is left to choose, and the rest is run in one go.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use stateright::{Model, Property};
use turnwise_engine::Sabotage;

use super::fault::{Fault, Kind};
use super::watch::{Broken, Moment, Rule, Spent};
use super::world::{Event, SLOT, World};
use super::{Cost, Farm};

/// A search for paths that break a rule, in the shape that `stateright` walks.
pub(super) struct Search<S: Sabotage> {
    farm: Farm,
    /// What the costliest paths of each mixture of kinds cost.
    worst: Mutex<BTreeMap<Vec<Kind>, Cost>>,
    sabotage: PhantomData<S>,
}

/// Where a path is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State<S: Sabotage>(At<S>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum At<S: Sabotage> {
    /// Just before an event, with so many faults left.
    Live(Box<World<S>>, u8),
    /// At the end.
    Over { broken: Option<Broken>, spent: Vec<Spent> },
}

/// A step of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    /// The next event happens.
    GoOn,
    /// A fault happens just before it.
    Strike(Fault),
}

impl<S: Sabotage + Send + Sync> Model for Search<S> {
    type State = State<S>;
    type Action = Step;

    fn init_states(&self) -> Vec<Self::State> {
        vec![State(At::Live(Box::new(self.settled()), self.farm.faults))]
    }

    fn actions(&self, state: &Self::State, actions: &mut Vec<Self::Action>) {
        let At::Live(world, _) = &state.0 else {
            return;
        };
        actions.push(Step::GoOn);
        if let Some((at, event)) = world.next(self.moments(world))
            && self.is_open(world, at)
        {
            actions.extend(world.offers(&self.farm, event).into_iter().map(Step::Strike));
        }
    }

    fn next_state(&self, state: &Self::State, step: Self::Action) -> Option<Self::State> {
        let At::Live(world, left) = &state.0 else {
            return None;
        };
        let mut world = world.clone();
        match step {
            Step::Strike(fault) => {
                self.strike(&mut world, fault);
                return Some(State(At::Live(world, left.saturating_sub(1))));
            }
            Step::GoOn => {
                let next = world.next(self.moments(&world));
                if next.is_some_and(|(at, _)| self.is_open(&world, at))
                    && self.goes_on(&mut world, None)
                {
                    return Some(State(At::Live(world, *left)));
                }
                self.run_to_end(&mut world, None);
            }
        }
        let World { watch, .. } = *world;
        Some(State(At::Over { broken: watch.broken, spent: watch.spent }))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! hold {
            ($($rule:ident),+) => {
                vec![$(Property::always(Rule::$rule.as_str(), |_, state: &State<S>| {
                    state.broken() != Some(Rule::$rule)
                })),+]
            };
        }
        hold![
            SlotsIncrease,
            OneNodeASlot,
            WithinBounds,
            Settled,
            NobodyRemoved,
            TimersEnd,
            AskedInTime,
            NoPanic
        ]
    }
}

impl<S: Sabotage> State<S> {
    fn broken(&self) -> Option<Rule> {
        let broken = match &self.0 {
            At::Live(world, _) => &world.watch.broken,
            At::Over { broken, .. } => broken,
        };
        broken.as_ref().map(|broken| broken.rule)
    }
}

impl<S: Sabotage> Search<S> {
    pub(super) fn new(farm: Farm) -> Self {
        Self { farm, worst: Mutex::default(), sabotage: PhantomData }
    }

    /// What the costliest paths so far cost, for each mixture of kinds.
    pub(super) fn worst(&self) -> BTreeMap<Vec<Kind>, Cost> {
        self.worst.lock().map(|worst| worst.clone()).unwrap_or_default()
    }

    /// Walk one path: each fault with the number of the event that it comes just before. Returns the rule that
    /// is broken, if any, and the path in words.
    pub(super) fn replay(&self, faults: &[(u32, Fault)]) -> (Option<Broken>, String) {
        let mut world = self.settled();
        let mut told = String::new();
        for (event, fault) in faults {
            while world.events < *event && self.goes_on(&mut world, Some(&mut told)) {}
            let _ = writeln!(told, "* before event {}: {fault}", world.events);
            self.strike(&mut world, *fault);
        }
        self.run_to_end(&mut world, Some(&mut told));
        (world.watch.broken, told)
    }

    /// A path in words, and as input of [`Search::replay`].
    pub(super) fn tell(&self, steps: &[Step]) -> String {
        let mut world = self.settled();
        let mut faults = Vec::new();
        for step in steps {
            match step {
                Step::GoOn => {
                    self.goes_on(&mut world, None);
                }
                Step::Strike(fault) => {
                    faults.push((world.events, *fault));
                    self.strike(&mut world, *fault);
                }
            }
        }
        let (broken, told) = self.replay(&faults);
        let broken = broken.map_or_else(String::new, |broken| broken.to_string());
        format!("{told}{broken}\nreplay(&{faults:?})")
    }

    /// A farm whose members have taken turns for a while, at the edge between two slots.
    fn settled(&self) -> World<S> {
        let mut world = World::new();
        for _ in 0..self.farm.members {
            world.start(&self.farm);
            let next = world.now + SLOT / 3;
            self.run_until(&mut world, next);
        }
        if self.farm.members > 0 {
            let edge = (u64::from(self.farm.members) * 12 + 2) * SLOT + SLOT / 2;
            self.run_until(&mut world, edge);
        }
        let now = world.now;
        world.events = 0;
        if self.farm.dead {
            for node in 0..self.farm.members {
                world.strike(&self.farm, Fault::Crash { node, request_lost: false }, &[]);
            }
        }
        world.begin(&self.farm, now);
        world
    }

    fn run_until(&self, world: &mut World<S>, end: u64) {
        while world.next(&[]).is_some_and(|(at, _)| at < end) {
            world.advance(&self.farm, &[]);
        }
        world.now = end;
    }

    /// The moments of the grid, while there may be use for them.
    fn moments(&self, world: &World<S>) -> &[u32] {
        let joins = self.farm.allows(Kind::Join) && world.nodes.len() < self.farm.nodes_in_all();
        if joins && self.spent(world) < usize::from(self.farm.faults) {
            &self.farm.grid
        } else {
            &[]
        }
    }

    /// How many faults there have been, the death of the members at the start not counted.
    fn spent(&self, world: &World<S>) -> usize {
        let dead = if self.farm.dead { usize::from(self.farm.members) } else { 0 };
        world.watch.spent.len().saturating_sub(dead)
    }

    /// Whether a fault may still come just before the next event, which is due at `at`.
    fn is_open(&self, world: &World<S>, at: u64) -> bool {
        let watch = &world.watch;
        if self.spent(world) >= usize::from(self.farm.faults) || watch.broken.is_some() {
            return false;
        }
        match self.spent(world) {
            0 => at < watch.begun_at + u64::from(self.farm.first_slots) * SLOT,
            _ => at < watch.open_until(),
        }
    }

    /// A fault, just before the next event.
    fn strike(&self, world: &mut World<S>, fault: Fault) {
        let moments = self.moments(world);
        let struck = catch_unwind(AssertUnwindSafe(|| world.strike(&self.farm, fault, moments)));
        if struck.is_err() {
            world.watch.panicked(world.now);
        }
    }

    /// One event. False when the path has come to its end.
    fn goes_on(&self, world: &mut World<S>, mut told: Option<&mut String>) -> bool {
        let moments = self.moments(world);
        let Some((at, event)) = world.next(moments) else {
            return false;
        };
        if let (Some(told), true) = (&mut told, event != Event::Grid) {
            let _ = write!(told, "  {:>4} {}: ", world.events, Moment(at));
            let _ = writeln!(told, "{}", world.describe(event));
        }
        let before = world.row.epoch;
        let went = catch_unwind(AssertUnwindSafe(|| world.advance(&self.farm, moments)));
        if let (Some(told), true) = (told, world.row.epoch != before) {
            let _ = writeln!(told, "       the ring: {}", world.describe_row());
        }
        if went.is_err() {
            world.watch.panicked(world.now);
        }
        world.watch.broken.is_none()
    }

    /// What is left after the last fault, up to the end of the time in which the ring must be whole again and
    /// a round after that.
    fn run_to_end(&self, world: &mut World<S>, mut told: Option<&mut String>) {
        loop {
            let up = world.up() as i64;
            let round = (up + 2).unsigned_abs() * SLOT;
            let end = world.watch.settled_by(up) + round;
            if world.next(&[]).is_none_or(|(at, _)| at > end) {
                world.judge(end);
                break;
            }
            if !self.goes_on(world, told.as_deref_mut()) {
                return;
            }
        }
        self.note(world);
    }

    fn note(&self, world: &World<S>) {
        let watch = &world.watch;
        let dead = watch.spent.len() - self.spent(world);
        let spent = watch.spent.iter().skip(dead);
        let mut kinds: Vec<_> = spent.map(|spent| spent.fault.kind()).collect();
        kinds.sort_unstable();
        if let Ok(mut worst) = self.worst.lock() {
            let cost = worst.entry(kinds).or_default();
            cost.paths += 1;
            cost.missed = cost.missed.max(watch.missed);
            cost.doubled = cost.doubled.max(watch.doubled);
            cost.waited = cost.waited.max(watch.waited);
            cost.unsettled = cost.unsettled.max(watch.unsettled());
        }
    }
}
