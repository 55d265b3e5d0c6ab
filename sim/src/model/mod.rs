//! Decides nothing of its own: an exhaustive search over small farms of engines for a path of faults that
//! breaks a promise. `stateright` walks; the farm is `world`'s, the paths are `walk`'s, the promises are
//! `watch`'s and `bounds`'s.
//!
//! Where the lab asks what many random farms do, this asks whether *any* path of at most so many faults, each put
//! in at any event, breaks a rule. The engines are the product's own, not a model of them.
//! `docs/model.md` says what was searched and what is left out.

pub mod bounds;
mod fault;
mod walk;
mod watch;
mod world;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};
use turnwise_engine::{Sabotage, Sound};

pub use fault::{Fault, Kind};
pub use watch::{Broken, Rule, Spent};

use walk::Search;
use world::MILLI;

/// Which farms and which faults are searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Farm {
    /// Nodes that take turns at the start.
    pub members: u8,
    /// They all crash just before the first fault may come; that counts for none.
    pub dead: bool,
    /// Nodes that may come up, each a fault of the kind join.
    pub joiners: u8,
    /// At most so many faults in a path.
    pub faults: u8,
    /// Of these kinds.
    pub kinds: Vec<Kind>,
    /// The first fault comes within so many slots.
    pub first_slots: u8,
    /// The way to the database, in milliseconds; each node's is one longer than that of the one before it.
    pub there: u32,
    /// The way back, in milliseconds, likewise.
    pub back: u32,
    /// How long nodes stand still, in milliseconds.
    pub pauses: Vec<u32>,
    /// By how much messages are held up, in milliseconds.
    pub delays: Vec<u32>,
    /// By how much the server's clock is set, in milliseconds.
    pub steps: Vec<i32>,
    /// How long outages last, in milliseconds.
    pub outages: Vec<u32>,
    /// Where in each slot a node may come up, besides before every event: milliseconds after the boundary, from 0
    /// to 999.
    pub grid: Vec<u32>,
    /// The seed of the engines' jitter.
    pub seed: u64,
    /// Judge only what must hold however long the ways are: not what faults cost, nor how soon it is over.
    pub only_safety: bool,
}

/// What paths cost at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// How many paths there were.
    pub paths: u64,
    /// Slots without an accepted beat.
    pub missed: u32,
    /// Beats that the fence refused.
    pub doubled: u32,
    /// Slots until the first beat of a node that came up where nobody was.
    pub waited: u32,
    /// Slots from the end of the last fault to the last thing that a calm ring does not do.
    pub unsettled: u32,
}

/// What a search amounts to.
#[derive(Debug)]
pub struct Found {
    /// States generated, repeats included.
    pub states: usize,
    /// Different states.
    pub unique: usize,
    /// Steps of the longest path.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// The costliest paths of each mixture of kinds.
    pub worst: BTreeMap<Vec<Kind>, Cost>,
    /// For each rule that is broken a path that breaks it, in words, its last line as input of [`Farm::replay`].
    pub broken: BTreeMap<&'static str, String>,
}

impl Farm {
    /// A farm of `members` that take turns and `joiners` that may come, for paths of at most `faults` faults of
    /// all kinds that the protocol promises bounds for.
    pub fn new(members: u8, joiners: u8, faults: u8) -> Self {
        Self {
            members,
            dead: false,
            joiners,
            faults,
            kinds: Kind::promised(),
            first_slots: members.max(1),
            there: 10,
            back: 10,
            pauses: vec![300, 1_000, 2_500, 5_000],
            // Into the next slot and answered in time; and between the next beat and the removal that follows it.
            delays: vec![600, 1_005],
            steps: vec![1_000, 3_000, 9_000, -1_000, -3_000, -9_000],
            outages: vec![1_000, 2_500, 5_000],
            // After the beats, before and after the edge of the slot, before the beats.
            grid: vec![100, 470, 520, 900],
            seed: 1,
            only_safety: false,
        }
    }

    /// The same with other kinds of faults.
    #[must_use]
    pub fn with_kinds(self, kinds: &[Kind]) -> Self {
        Self { kinds: kinds.to_vec(), ..self }
    }

    /// The same with all members dead at the start, and the first fault within `slots` slots.
    #[must_use]
    pub fn of_the_dead(self, slots: u8) -> Self {
        Self { dead: true, first_slots: slots, ..self }
    }

    /// Search all paths, with `threads` threads, until none is left or one breaks a rule.
    pub fn search(self, threads: usize) -> Found {
        self.search_with::<Sound>(threads)
    }

    /// [`Farm::search`] with the bugs that `S` plants in the engine.
    #[expect(
        clippy::disallowed_methods,
        reason = "how long a search takes is told beside it, and decides nothing"
    )]
    pub fn search_with<S: Sabotage + Send + Sync>(self, threads: usize) -> Found {
        let began = Instant::now();
        let checker = Search::<S>::new(self)
            .checker()
            .threads(threads)
            .finish_when(HasDiscoveries::AnyFailures)
            .spawn_dfs()
            .join();
        let took = began.elapsed();
        let search = checker.model();
        let broken = checker.discoveries().into_iter().map(|(rule, path)| {
            let steps = path.into_actions();
            (rule, search.tell(&steps))
        });
        Found {
            states: checker.state_count(),
            unique: checker.unique_state_count(),
            depth: checker.max_depth(),
            took,
            worst: search.worst(),
            broken: broken.collect(),
        }
    }

    /// Walk one path: each fault with the number of the event that it comes just before. Returns the rule that
    /// is broken, if any, and the path in words.
    pub fn replay(self, faults: &[(u32, Fault)]) -> (Option<Broken>, String) {
        Search::<Sound>::new(self).replay(faults)
    }

    fn allows(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }

    fn nodes_in_all(&self) -> usize {
        usize::from(self.members) + usize::from(self.joiners)
    }

    /// The way of `node` to the server, in nanoseconds.
    fn way_there(&self, node: u8) -> u64 {
        (u64::from(self.there) + u64::from(node)) * MILLI
    }

    /// The way of `node` back from the server, in nanoseconds.
    fn way_back(&self, node: u8) -> u64 {
        (u64::from(self.back) + u64::from(node)) * MILLI
    }
}

impl Found {
    /// The costliest path of all, number by number.
    pub fn costliest(&self) -> Cost {
        self.worst.values().fold(Cost::default(), |all, cost| Cost {
            paths: all.paths + cost.paths,
            missed: all.missed.max(cost.missed),
            doubled: all.doubled.max(cost.doubled),
            waited: all.waited.max(cost.waited),
            unsettled: all.unsettled.max(cost.unsettled),
        })
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cost = self.costliest();
        writeln!(
            f,
            "{} states, {} different, {} paths, longest {} steps, {:.1} s",
            self.states,
            self.unique,
            cost.paths,
            self.depth,
            self.took.as_secs_f64()
        )?;
        for (rule, path) in &self.broken {
            writeln!(f, "broken: {rule}\n{path}")?;
        }
        Ok(())
    }
}
