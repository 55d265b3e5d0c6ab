//! The judge of both tiers: the invariants, held against what truly happened.
//!
//! - `ring`: slots, turns, gaps, and that the ring is whole again soon after; `rows`: what each event may cost;
//! - `clock`: the interval holds the truth, steps are found, beats arrive where they were aimed;
//! - `jobs`: no job lost, none at two places at once, leases kept, tokens never used twice, counts true;
//! - `marks`: what must have happened somewhere.
//!
//! The simulator tells the judge everything that happens, in true time, and what it does to the farm
//! (a [`Disturbance`]); the judge decides what that excuses.

mod clock;
mod jobs;
mod marks;
mod ring;
mod rows;

use serde::{Deserialize, Serialize};
use turnwise_engine::{Cadence, Period};

pub use clock::ClockJudge;
pub use jobs::{JobsJudge, JobsTally};
pub use marks::{Mark, Marks};
pub use ring::{Arrival, Disturbance, RingJudge, Tally};

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Invariant {
    /// At most one beat is accepted a slot, and accepted slots strictly increase.
    SlotsIncrease,
    /// The true offset lies in the interval that the engine claims.
    IntervalHolds,
    /// A step beyond the spread is found and recovered from within three exchanges.
    StepsAreFound,
    /// No two nodes take the turn of one slot.
    TurnsExclusive,
    /// Beats arrive as near to their boundary as the road's own noise lets them.
    Accuracy,
    /// In calm: one beat a slot, each by its owner, nothing refused.
    Calm,
    /// An event alone costs no more than its row of the table of bounds.
    Bounds,
    /// After faults cease the ring is whole again in time, with every living node in it.
    Recovery,
    /// An idle farm sends one statement a period.
    IdleStatements,
    /// Nothing floods the database: statements, timers and queues are bounded.
    Bounded,
    /// Every job that was enqueued ends.
    NoJobLost,
    /// An ended job is kept as long as was said.
    Retention,
    /// No job runs at two places at once unless the lease of one has run out.
    NoOverlap,
    /// A node that lives and is heard keeps its lease.
    LeaseKept,
    /// What a node counts and notes is true.
    Accounting,
    /// A node claims only what it may: within its capacity, while its target is there and it stays.
    ClaimsAllowed,
    /// A node that knows of more jobs and could run some asks for them at once, not at its next turn.
    Drains,
    /// At most one job holds a unique key, and whoever asks for one that is free gets it.
    UniqueKeys,
    /// A job that was cancelled does not run: not at all when it waited, and not on when it ran.
    Cancels,
    /// Nothing is claimed from a queue that is paused.
    Pauses,
    /// Of a queue no more jobs run at once, and none are claimed sooner, than it allows.
    Limits,
    /// A schedule fires each of its times once, and, when all is well, before it comes.
    Schedules,
    /// A batch ends once, when all its jobs have ended and soon after, and what waits for it runs then and not before.
    Batches,
    /// A job that goes on elsewhere is not tried again while it is heard of, and none but its last attempt is believed.
    Callbacks,
    /// An engine that is told what the node's engine was told asks for the same.
    Replay,
    /// No task of a process panics.
    NoPanic,
}

impl Invariant {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::SlotsIncrease,
        Self::IntervalHolds,
        Self::StepsAreFound,
        Self::TurnsExclusive,
        Self::Accuracy,
        Self::Calm,
        Self::Bounds,
        Self::Recovery,
        Self::IdleStatements,
        Self::Bounded,
        Self::NoJobLost,
        Self::Retention,
        Self::NoOverlap,
        Self::LeaseKept,
        Self::Accounting,
        Self::ClaimsAllowed,
        Self::Drains,
        Self::UniqueKeys,
        Self::Cancels,
        Self::Pauses,
        Self::Limits,
        Self::Schedules,
        Self::Batches,
        Self::Callbacks,
        Self::Replay,
        Self::NoPanic,
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SlotsIncrease => "slots_increase",
            Self::IntervalHolds => "interval_holds",
            Self::StepsAreFound => "steps_are_found",
            Self::TurnsExclusive => "turns_exclusive",
            Self::Accuracy => "accuracy",
            Self::Calm => "calm",
            Self::Bounds => "bounds",
            Self::Recovery => "recovery",
            Self::IdleStatements => "idle_statements",
            Self::Bounded => "bounded",
            Self::NoJobLost => "no_job_lost",
            Self::Retention => "retention",
            Self::NoOverlap => "no_overlap",
            Self::LeaseKept => "lease_kept",
            Self::Accounting => "accounting",
            Self::ClaimsAllowed => "claims_allowed",
            Self::Drains => "drains",
            Self::UniqueKeys => "unique_keys",
            Self::Cancels => "cancels",
            Self::Pauses => "pauses",
            Self::Limits => "limits",
            Self::Schedules => "schedules",
            Self::Batches => "batches",
            Self::Callbacks => "callbacks",
            Self::Replay => "replay",
            Self::NoPanic => "no_panic",
        }
    }
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// When, in microseconds since the start.
    pub at_us: u64,
    /// What happened.
    pub detail: String,
}

/// The violations of a run. Only the first few are kept; all are counted.
#[derive(Clone, Debug, Default)]
pub struct Violations {
    /// The first.
    pub first: Vec<Violation>,
    /// All.
    pub count: u64,
}

/// How many are kept.
const KEPT: usize = 20;

impl Violations {
    pub(crate) fn add(&mut self, at: u64, invariant: Invariant, detail: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < KEPT {
            self.first.push(Violation { invariant, at_us: at / 1_000, detail: detail() });
        }
    }
}

/// The judge.
#[derive(Clone, Debug)]
pub struct Oracle {
    /// Of turns.
    pub ring: RingJudge,
    /// Of clocks.
    pub clock: ClockJudge,
    /// Of jobs.
    pub jobs: JobsJudge,
    /// What was reached.
    pub marks: Marks,
    /// What was found.
    pub violations: Violations,
}

impl Oracle {
    /// A judge of a farm that polls every `period` nanoseconds. `busy`: there are jobs.
    pub fn new(period: u64, busy: bool) -> Self {
        Self {
            ring: RingJudge::new(period, busy),
            clock: ClockJudge::default(),
            jobs: JobsJudge::default(),
            marks: Marks::default(),
            violations: Violations::default(),
        }
    }

    /// How slots lie on the server's time by the row that was just read.
    pub fn period_is(&mut self, now: u64, cadence: &Cadence) {
        let nanos = |period: Period| period.as_nanos() as u64;
        let next = cadence.next.map(|next| nanos(next.period));
        if self.ring.period_is(now, nanos(cadence.period), next) {
            self.marks.reach(Mark::PeriodChanged);
        }
    }
}
