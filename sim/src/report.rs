//! Decides nothing: what a run amounts to, as people and machines read it, and the picture of what happened.

use serde_json::{Value, json};
use turnwise_engine::{ChangeKind, Output, TurnKind, TurnRow, WorkStatement};

use crate::oracle::{JobsTally, Marks, Oracle, Violation};
use crate::scenario::{Fault, Scenario};

/// What a run amounts to.
#[derive(Clone, Debug)]
pub struct Report {
    /// The scenario's seed.
    pub seed: u64,
    /// How many nodes the scenario has.
    pub nodes: usize,
    /// Slots from the first accepted beat to the last.
    pub slots: u64,
    /// Accepted beats.
    pub beats: u64,
    /// Slots between them without a beat.
    pub missed: u64,
    /// Beats that reached the database for a slot beyond its first.
    pub doubled: u64,
    /// The longest time between accepted beats, in nanoseconds.
    pub max_gap: u64,
    /// How far beats arrived from their boundary, in calm.
    pub arrival: Spread,
    /// How far the offset was from the truth, in calm.
    pub offset: Spread,
    /// The sizes of the arrival errors, sorted, in nanoseconds.
    pub arrivals: Vec<u64>,
    /// Checks of the interval, and of those how often the truth lay outside.
    pub interval: (u64, u64),
    /// The jobs.
    pub jobs: JobsTally,
    /// Statements of all kinds.
    pub statements: u64,
    /// The first violations.
    pub violations: Vec<Violation>,
    /// All of them, counted.
    pub violated: u64,
    /// The time that was simulated, in seconds.
    pub sim_seconds: f64,
    /// The time that it took, in seconds.
    pub wall_seconds: f64,
    /// The hash of all that happened.
    pub trace_hash: u64,
    /// What was reached.
    pub marks: Marks,
    /// The row at the end.
    pub row: TurnRow,
    /// What happened, if it was wanted.
    pub picture: Option<Picture>,
}

/// Sizes of errors, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// The median.
    pub p50: u64,
    /// The 99th percentile.
    pub p99: u64,
    /// The largest.
    pub max: u64,
}

/// What happened in a run, for a plot.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The time between polls, in nanoseconds.
    pub period: u64,
    /// How many hosts.
    pub hosts: u32,
    /// What happened, in order: when (ns), to which host (`u32::MAX`: the database), what.
    pub seen: Vec<(u64, u32, Seen)>,
}

/// Something that a plot shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The node came up.
    Up,
    /// Its process was killed.
    Killed,
    /// It left in good order.
    Left,
    /// It was declared lost.
    Lost,
    /// A fault.
    Fault(Fault),
    /// A beat reached the database.
    Beat {
        /// Into which slot it fell.
        slot: i64,
        /// Whether the fence let it in.
        accepted: bool,
        /// How far from the boundary, in nanoseconds.
        error: i64,
        /// How many jobs it claimed.
        claimed: u32,
        /// Whether it came in place of the ring's own owner.
        deputy: bool,
    },
    /// The node heard an answer, and believes it knows the server's clock. Of real processes nobody knows the truth.
    Offset {
        /// How far from the truth is what it believes, in nanoseconds.
        error: i64,
        /// The least and the most that it says is possible, from the truth, in nanoseconds; none: it claims nothing.
        claimed: Option<(i64, i64)>,
    },
    /// A job runs.
    Runs {
        /// Which.
        job: u64,
        /// For how long, in nanoseconds.
        lasts: u64,
    },
    /// The node sent a statement.
    Sent(Sort),
    /// The node heard that its change of the roster has committed.
    Changed {
        /// Which kind.
        kind: ChangeKind,
        /// The first slot of the newest version.
        from: i64,
    },
}

impl Seen {
    /// What a node guesses of an offset, what it claims it to lie between, and what it is, in nanoseconds.
    pub(crate) fn offset(guess: i64, claimed: Option<(i64, i64)>, truth: i64) -> Self {
        let error = |offset: i64| offset.saturating_sub(truth);
        Self::Offset {
            error: error(guess),
            claimed: claimed.map(|(low, high)| (error(low), error(high))),
        }
    }
}

/// Statements, by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sort {
    /// Polls of the queue.
    Beat,
    /// Reads of the turn row.
    Read,
    /// Changes of the roster.
    Change,
    /// Renewals of a lease, and nothing else.
    Renewal,
    /// Claims outside the turn, and what puts lost ones right.
    Claim,
    /// Ends of jobs.
    End,
}

impl Sort {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Beat, Self::Read, Self::Change, Self::Renewal, Self::Claim, Self::End];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Beat => "beats",
            Self::Read => "reads",
            Self::Change => "changes",
            Self::Renewal => "renewals",
            Self::Claim => "claims",
            Self::End => "ends",
        }
    }

    /// What the engine asks for.
    pub(super) fn of(output: &Output) -> Option<Self> {
        Some(match output {
            Output::Turn { statement, .. } => match statement.kind {
                TurnKind::Read => Self::Read,
                TurnKind::Beat { .. } => Self::Beat,
                TurnKind::Change { .. } => Self::Change,
            },
            Output::Work { statement: WorkStatement::Renew, .. } => Self::Renewal,
            Output::Work { .. } => Self::Claim,
            _ => return None,
        })
    }
}

impl Picture {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            period: scenario.period.as_nanos() as u64,
            hosts: scenario.nodes.len() as u32,
            seen: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, at: u64, host: u32, seen: Seen) {
        self.seen.push((at, host, seen));
    }
}

impl Spread {
    /// Of sorted sizes.
    pub fn of(sorted: &[u64]) -> Self {
        let at = |share: f64| {
            let index = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
            sorted.get(index).copied().unwrap_or(0)
        };
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }

    fn json(self) -> Value {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        json!({"p50": micros(self.p50), "p99": micros(self.p99), "max": micros(self.max)})
    }
}

impl Report {
    /// Of a run of `scenario` that is over and judged.
    pub(crate) fn new(
        scenario: &Scenario,
        oracle: Oracle,
        row: TurnRow,
        statements: u64,
        trace_hash: u64,
        picture: Option<Picture>,
    ) -> Self {
        let ring = oracle.ring.tally();
        let sizes = |errors: &[i64]| {
            let mut sizes: Vec<_> = errors.iter().map(|error| error.unsigned_abs()).collect();
            sizes.sort_unstable();
            sizes
        };
        let arrivals = sizes(&ring.errors);
        let clock = &oracle.clock;
        Self {
            seed: scenario.seed,
            nodes: scenario.nodes.len(),
            slots: ring.slots,
            beats: ring.beats,
            missed: ring.missed,
            doubled: ring.doubled,
            max_gap: ring.max_gap,
            arrival: Spread::of(&arrivals),
            offset: Spread::of(&sizes(&clock.errors)),
            arrivals,
            interval: (clock.checks, clock.outside),
            jobs: oracle.jobs.tally,
            statements,
            violated: oracle.violations.count,
            violations: oracle.violations.first,
            sim_seconds: scenario.duration.as_secs_f64(),
            wall_seconds: 0.0,
            trace_hash,
            marks: oracle.marks,
            row,
            picture,
        }
    }

    /// As JSON, as the design fixes it.
    pub fn to_json(&self, tier: &str) -> Value {
        json!({
            "seed": self.seed,
            "tier": tier,
            "nodes": self.nodes,
            "slots": self.slots,
            "beats": self.beats,
            "missed": self.missed,
            "doubled": self.doubled,
            "max_gap_us": self.max_gap / 1_000,
            "arrival_us": self.arrival.json(),
            "offset_error_us": self.offset.json(),
            "interval_violations": self.interval.1,
            "jobs": {
                "enqueued": self.jobs.enqueued,
                "succeeded": self.jobs.succeeded,
                "dead": self.jobs.dead,
                "lost": self.jobs.lost,
                "overlapped": self.jobs.overlapped,
            },
            "statements_per_second": self.statements as f64 / self.sim_seconds,
            "violations": self.violations,
            "sim_seconds": self.sim_seconds,
            "wall_seconds": self.wall_seconds,
            "trace_hash": format!("{:016x}", self.trace_hash),
        })
    }
}
