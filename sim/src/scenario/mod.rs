//! What is simulated: one value that says it all, and that both tiers run.
//!
//! - `span`: how lengths of time are written;
//! - `options`: the scenario that a user's options describe (`--skew 900ms --latency 1ms..80ms`);
//! - `swarm`: the scenario of a seed, with a random choice of the kinds of faults; `pairs`: or with two that make each other worse;
//! - `file`: the scenario that stands in a text; `check`: the range of each number; `place`: where in the text it stands.
//!
//! A scenario is kept as JSON. It names its version; another version is refused, since the same text would
//! mean another run. Chance is drawn from streams that are named after what they are for (the road of node 3,
//! the clock of node 1), so that one more message does not shift every later draw.

mod check;
mod file;
mod options;
mod pairs;
mod place;
mod span;
mod swarm;

use serde::{Deserialize, Serialize};
use turnwise_engine::Period;

pub use file::ScenarioError;
pub use options::{Every, Options, Range};
pub use span::{Shift, Span, SpanError};
pub use swarm::{swarm, swarm_of_processes};

/// The version of the format, and of what a scenario means.
pub const VERSION: u32 = 1;
/// The most nodes, restarts not counted.
pub const NODES_MAX: usize = 2_000;
/// The most faults.
pub const FAULTS_MAX: usize = 1_000_000;

/// What is simulated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// [`VERSION`].
    pub version: u32,
    /// The seed of all chance.
    pub seed: u64,
    /// The time between polls, in milliseconds.
    pub period: Period,
    /// How long is simulated.
    pub duration: Span,
    /// The database.
    pub database: Database,
    /// The nodes, numbered from 0.
    pub nodes: Vec<Node>,
    /// The jobs.
    pub load: Load,
    /// How long ended jobs are kept.
    #[serde(default, skip_serializing_if = "Retention::is_forever")]
    pub retention: Retention,
    /// What apps and people order beside that.
    #[serde(default, skip_serializing_if = "Orders::are_none")]
    pub orders: Orders,
    /// What goes wrong, and when.
    pub faults: Vec<Planned>,
}

/// The database, its server's clock and what it takes to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// From the first stamp to the last.
    pub service: Span,
    /// What a commit that must be durable takes, after the last stamp.
    pub commit: Span,
    /// The resolution of the stamps.
    pub resolution: Span,
}

/// A node: when it comes up, its clock and its roads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// When it comes up.
    pub start: Span,
    /// How many jobs it runs at once.
    pub capacity: u32,
    /// Its clock.
    pub clock: LocalClock,
    /// The way to the database.
    pub there: Road,
    /// The way back.
    pub back: Road,
}

/// A node's monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalClock {
    /// What it shows at the start.
    pub shows: Span,
    /// How much too fast it runs, in parts per billion; at most 400,000 either way.
    pub drift_ppb: i64,
    /// How its rate wanders: the standard deviation of its change over a second, in parts per billion.
    pub wander_ppb: u32,
    /// Its resolution.
    pub resolution: Span,
    /// How late a wake-up is, on average.
    pub late_wake: Span,
}

/// One way between a node and the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Road {
    /// The shortest time that it takes.
    pub base: Span,
    /// What queues add, on average (a gamma of shape 2).
    pub spread: Span,
    /// How many of a million messages meet with a long queue: ten times the spread, heavy-tailed.
    pub tail_ppm: u32,
    /// How many of a million wait for a retransmission: 200 ms and more.
    pub spike_ppm: u32,
    /// How many of a million are lost, with their connection's silence.
    pub loss_ppm: u32,
    /// How many of a million arrive twice.
    pub duplicate_ppm: u32,
}

/// The jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// The mean time between two jobs; zero: none.
    pub every: Span,
    /// When the last one is enqueued.
    pub until: Span,
    /// How long one runs, on average.
    pub runs: Span,
    /// How many of a million attempts fail.
    pub fails_ppm: u32,
    /// How often one is tried.
    pub max_attempts: u32,
    /// How many jobs one claim brings at most, whatever it asks for, as though their bodies filled it: its answer says
    /// that there are more. Zero: as many as it asks for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub jobs_a_claim: u32,
}

/// How long ended jobs are kept, in tiers whose nodes remove them: shorter than anybody may say, since a run is short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Those that succeeded or were cancelled; none: for ever.
    pub succeeded: Option<Span>,
    /// Those that were given up; none: for ever.
    pub dead: Option<Span>,
}

/// What apps and people order of jobs and queues, in the tier that has a store to order it from. The lab has `concurrency` and
/// `rate` alone, of two queues with a quarter of the jobs each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Orders {
    /// How many of a million jobs are enqueued with a unique key, one of a few.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub keyed_ppm: u32,
    /// How many of a million jobs are cancelled soon after, wherever they are then.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cancelled_ppm: u32,
    /// The mean time between two pauses of a second queue, in which a third of the jobs are then; zero: there is none.
    #[serde(default, skip_serializing_if = "Span::is_zero")]
    pub pauses_every: Span,
    /// How many schedules there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub schedules: u32,
    /// How many of a million jobs may go on elsewhere after an answer of 202.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub asynchronous_ppm: u32,
    /// The mean time between two batches that an app makes, of a few jobs each; zero: there are none.
    #[serde(default, skip_serializing_if = "Span::is_zero")]
    pub batches_every: Span,
    /// So many jobs of a queue, in which half of them are then, run at once; zero: any number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub concurrency: u32,
    /// So many jobs of that queue with the same concurrency key, one of a few, run at once; zero: any number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub concurrency_per_key: u32,
    /// For so many seconds that queue is held back at most when a target asks for it; zero: it takes no notice.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub slow_down: u32,
    /// So many of that queue are claimed a second, and as many at once after a while without; zero: any number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rate: u32,
}

impl Orders {
    /// Whether a queue has limits.
    pub fn has_limits(&self) -> bool {
        self.concurrency > 0 || self.concurrency_per_key > 0 || self.rate > 0 || self.slow_down > 0
    }
}

/// A fault and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planned {
    /// When, from the start.
    pub at: Span,
    /// What.
    pub fault: Fault,
}

/// What can go wrong, or simply happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// The node leaves in good order.
    Drain {
        /// Which.
        node: u32,
    },
    /// The node's process is killed, or its machine loses power.
    Kill {
        /// Which.
        node: u32,
    },
    /// The node's process is killed and comes back, knowing nothing.
    Restart {
        /// Which.
        node: u32,
        /// After how long.
        after: Span,
    },
    /// The node stops; its clock goes on, and what reaches it waits.
    Pause {
        /// Which.
        node: u32,
        /// For how long.
        lasts: Span,
    },
    /// The node stops and its clock with it, as no clock should that the engine is given.
    Freeze {
        /// Which.
        node: u32,
        /// For how long.
        lasts: Span,
    },
    /// The next statement leaves so much after it was decided.
    Stall {
        /// Whose.
        node: u32,
        /// How much later.
        lasts: Span,
    },
    /// The next change of the roster waits on its way for so long.
    HoldChange {
        /// Whose.
        node: u32,
        /// How much longer it is on its way.
        lasts: Span,
    },
    /// The answer to the next change of the roster is lost.
    LoseChange {
        /// Whose.
        node: u32,
    },
    /// The next statement on the turn row is lost on its way.
    LoseRequest {
        /// Whose.
        node: u32,
    },
    /// The answer to the next statement on the turn row is lost.
    LoseAnswer {
        /// Whose.
        node: u32,
    },
    /// The answer to the next statement on the jobs is lost.
    LoseWork {
        /// Whose.
        node: u32,
    },
    /// The next statement on the jobs waits for a lock for a second, and then the database undoes it; in the cluster, at once.
    Deadlock {
        /// Whose.
        node: u32,
    },
    /// The next statement on the jobs leaves so much after it was decided; in the cluster it is so much longer on its way.
    StallWork {
        /// Whose.
        node: u32,
        /// How much later.
        lasts: Span,
    },
    /// The connection breaks: the next statement on the turn row fails at once, unexecuted.
    Reset {
        /// Whose.
        node: u32,
    },
    /// The database answers every statement of this node with an error.
    Errors {
        /// Whose.
        node: u32,
        /// For how long.
        lasts: Span,
    },
    /// Nothing gets from the node to the database.
    CutThere {
        /// Which.
        node: u32,
        /// For how long.
        lasts: Span,
    },
    /// Nothing gets from the database to the node.
    CutBack {
        /// Which.
        node: u32,
        /// For how long.
        lasts: Span,
    },
    /// What is on the way between the node and the database waits, and arrives at the end.
    Hold {
        /// Which.
        node: u32,
        /// For how long.
        lasts: Span,
    },
    /// The queues on the node's roads grow to so many times their usual length.
    Congestion {
        /// Whose.
        node: u32,
        /// For how long.
        lasts: Span,
        /// By what factor.
        factor: u32,
    },
    /// The node's roads take another route: each way has another base from now on.
    Route {
        /// Whose.
        node: u32,
        /// The way there.
        there: Span,
        /// The way back.
        back: Span,
    },
    /// The node's target refuses connections.
    TargetDown {
        /// Whose.
        node: u32,
        /// For how long.
        lasts: Span,
    },
    /// The server's clock is set forward or back.
    ServerStep {
        /// By how much.
        by: Shift,
    },
    /// The server's clock runs faster or slower for a while.
    ServerSlew {
        /// By how many parts per million.
        ppm: i32,
        /// For how long.
        lasts: Span,
    },
    /// The database answers nothing.
    Outage {
        /// For how long.
        lasts: Span,
    },
    /// The database is restarted: connections break, its identity is another one.
    ServerRestart {
        /// How long it is away.
        lasts: Span,
    },
    /// Another server takes over, with another clock and without the last commits.
    Failover {
        /// How long nobody answers.
        lasts: Span,
        /// How much of the last commits is lost.
        loses: Span,
        /// How far its clock is from the old one.
        clock: Shift,
    },
    /// A new version is rolled out: each node that is up leaves in good order and comes back under a new id, one
    /// after the other.
    Deploy {
        /// From the first to the last that is told to leave.
        lasts: Span,
    },
    /// The period is changed, as `turnwise period` does it: it holds a round later.
    Period {
        /// What it will be.
        to: Period,
    },
    /// Each statement takes so much longer.
    Slow {
        /// How much.
        by: Span,
        /// For how long.
        lasts: Span,
    },
}

impl Fault {
    /// The word for its kind.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Drain { .. } => "drain",
            Self::Kill { .. } => "kill",
            Self::Restart { .. } => "restart",
            Self::Pause { .. } => "pause",
            Self::Freeze { .. } => "freeze",
            Self::Stall { .. } => "stall",
            Self::HoldChange { .. } => "hold_change",
            Self::LoseChange { .. } => "lose_change",
            Self::LoseRequest { .. } => "lose_request",
            Self::LoseAnswer { .. } => "lose_answer",
            Self::LoseWork { .. } => "lose_work",
            Self::Deadlock { .. } => "deadlock",
            Self::StallWork { .. } => "stall_work",
            Self::Reset { .. } => "reset",
            Self::Errors { .. } => "errors",
            Self::CutThere { .. } => "cut_there",
            Self::CutBack { .. } => "cut_back",
            Self::Hold { .. } => "hold",
            Self::Congestion { .. } => "congestion",
            Self::Route { .. } => "route",
            Self::TargetDown { .. } => "target_down",
            Self::ServerStep { .. } => "server_step",
            Self::ServerSlew { .. } => "server_slew",
            Self::Outage { .. } => "outage",
            Self::ServerRestart { .. } => "server_restart",
            Self::Failover { .. } => "failover",
            Self::Deploy { .. } => "deploy",
            Self::Period { .. } => "period",
            Self::Slow { .. } => "slow",
        }
    }

    /// The node that it happens to; none: the database, or all nodes.
    pub const fn node(&self) -> Option<u32> {
        match *self {
            Self::Drain { node }
            | Self::Kill { node }
            | Self::Restart { node, .. }
            | Self::Pause { node, .. }
            | Self::Freeze { node, .. }
            | Self::Stall { node, .. }
            | Self::HoldChange { node, .. }
            | Self::LoseChange { node }
            | Self::LoseRequest { node }
            | Self::LoseAnswer { node }
            | Self::LoseWork { node }
            | Self::Deadlock { node }
            | Self::StallWork { node, .. }
            | Self::Reset { node }
            | Self::Errors { node, .. }
            | Self::CutThere { node, .. }
            | Self::CutBack { node, .. }
            | Self::Hold { node, .. }
            | Self::Congestion { node, .. }
            | Self::Route { node, .. }
            | Self::TargetDown { node, .. } => Some(node),
            Self::ServerStep { .. }
            | Self::ServerSlew { .. }
            | Self::Outage { .. }
            | Self::ServerRestart { .. }
            | Self::Failover { .. }
            | Self::Deploy { .. }
            | Self::Period { .. }
            | Self::Slow { .. } => None,
        }
    }

    /// How long it lasts by itself; zero: it happens in an instant.
    pub const fn lasts(&self) -> Span {
        match *self {
            Self::Restart { after: lasts, .. }
            | Self::Pause { lasts, .. }
            | Self::Freeze { lasts, .. }
            | Self::Stall { lasts, .. }
            | Self::StallWork { lasts, .. }
            | Self::HoldChange { lasts, .. }
            | Self::Errors { lasts, .. }
            | Self::CutThere { lasts, .. }
            | Self::CutBack { lasts, .. }
            | Self::Hold { lasts, .. }
            | Self::Congestion { lasts, .. }
            | Self::TargetDown { lasts, .. }
            | Self::ServerSlew { lasts, .. }
            | Self::Outage { lasts }
            | Self::ServerRestart { lasts }
            | Self::Failover { lasts, .. }
            | Self::Deploy { lasts }
            | Self::Slow { lasts, .. } => lasts,
            _ => Span::ZERO,
        }
    }
}

impl Default for Database {
    fn default() -> Self {
        Self {
            service: Span::from_micros(40),
            commit: Span::from_millis(1),
            resolution: Span::from_micros(1),
        }
    }
}

impl Default for LocalClock {
    fn default() -> Self {
        Self {
            shows: Span::from_secs(5_000),
            drift_ppb: 0,
            wander_ppb: 0,
            resolution: Span(1),
            late_wake: Span::ZERO,
        }
    }
}

impl Default for Road {
    fn default() -> Self {
        Self {
            base: Span::from_millis(1),
            spread: Span::from_micros(20),
            tail_ppm: 0,
            spike_ppm: 0,
            loss_ppm: 0,
            duplicate_ppm: 0,
        }
    }
}

impl Default for Node {
    fn default() -> Self {
        Self {
            start: Span::ZERO,
            capacity: 8,
            clock: LocalClock::default(),
            there: Road::default(),
            back: Road::default(),
        }
    }
}

impl Default for Load {
    fn default() -> Self {
        Self {
            every: Span::ZERO,
            until: Span::ZERO,
            runs: Span::from_millis(200),
            fails_ppm: 0,
            max_attempts: 20,
            jobs_a_claim: 0,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Retention {
    /// Whether nothing is removed.
    pub fn is_forever(&self) -> bool {
        *self == Self::default()
    }

    /// The shortest time that anything is kept, in nanoseconds.
    pub(crate) fn shortest(&self) -> u64 {
        self.succeeded.into_iter().chain(self.dead).map(|kept| kept.0).min().unwrap_or(0)
    }
}

impl Orders {
    /// Whether nothing is ordered.
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }
}

impl Scenario {
    /// A calm farm of `nodes` with default roads and no load.
    pub fn calm(seed: u64, nodes: u32, duration: Span) -> Self {
        Self {
            version: VERSION,
            seed,
            period: Period::DEFAULT,
            duration,
            database: Database::default(),
            nodes: vec![Node::default(); nodes as usize],
            load: Load::default(),
            retention: Retention::default(),
            orders: Orders::default(),
            faults: Vec::new(),
        }
    }

    /// Whether the period is changed in it.
    pub fn changes_period(&self) -> bool {
        self.faults.iter().any(|planned| matches!(planned.fault, Fault::Period { .. }))
    }

    /// The longest period that may be in force in it.
    pub fn longest_period(&self) -> Period {
        let later = self.faults.iter().filter_map(|planned| match planned.fault {
            Fault::Period { to } => Some(to),
            _ => None,
        });
        later.fold(self.period, Ord::max)
    }

    /// How long a lease may last in it, in nanoseconds.
    pub(crate) fn longest_lease(&self) -> u64 {
        turnwise_engine::lease(self.longest_period()).as_nanos() as u64
    }
}
