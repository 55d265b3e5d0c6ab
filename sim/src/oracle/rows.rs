//! Decides what one event may cost, be the farm idle or busy: the table of bounds.
//!
//! | event | slots missed | doubled |
//! |---|---|---|
//! | join, leave | 0 | 0 |
//! | crash; `k` at once | 1; `k` | 0 |
//! | answer lost | 0 (one node alone: 1) | 0 |
//! | request lost, or a slot late | 1 (one node alone: 2) | 1 |
//! | broken connection, another route, target away, answer about jobs lost | 0 | 0 |
//! | outage | the outage, then 2; of eight slots and longer, 3 | 0 |
//! | server's clock forward by `k` slots | 0 (one node alone: 1) | `k`, at most one of each node |
//! | back by one slot, two slots | 1, 2 | one of each node |
//! | back by more | 0 | 0 |
//!
//! An outage may end just behind a read that is given more time than usual, two periods after eight failures. Where periods are
//! short, it is not slots that count but how long a statement is waited for: a tenth of a second usually, one second after a few
//! failures, five at most after very many. Whether a clock is set by `k` slots or by one more is a matter of chance
//! where it is set by nearly `k` slots and a half: beats fall on either side of the border between two slots then, and one of
//! each node may be refused and leave a slot empty, until all have learned where the boundaries are.

use super::Mark;
use super::ring::Disturbance;
use crate::scenario::Fault;

/// After so many failures in a row a read is given more time ...
const FEW: u64 = 4;
/// ... and after so many one of so many is given up to five seconds.
const VERY_MANY: u64 = 64;
/// A statement that fails takes so long at least.
const FAILURE: u64 = 100_000_000;

/// Something that happened to a farm that was whole, and nothing else until it was whole again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub(super) what: Disturbance,
    /// How many of it, at one time.
    pub(super) count: u32,
    /// Nodes that were up before it.
    pub(super) before: usize,
    /// The most that were up.
    pub(super) living: usize,
}

/// What an event may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowed {
    pub(super) missed: u64,
    pub(super) doubled: u64,
    /// In periods.
    pub(super) gap: u64,
    /// Reads by those who were there before. None: as many as they like.
    pub(super) reads: Option<u64>,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    Join,
    Leave,
    Crash,
    Crashes,
    AnswerLost,
    RequestLost,
    Nothing,
    Outage,
    Forward,
    BackByLittle,
    Back,
}

impl Row {
    /// That it was judged, without jobs and with them.
    pub(super) fn mark(self, busy: bool) -> Mark {
        let (idle, with_jobs) = match self {
            Self::Join => (Mark::JudgedJoin, Mark::JudgedJoinBusy),
            Self::Leave => (Mark::JudgedLeave, Mark::JudgedLeaveBusy),
            Self::Crash => (Mark::JudgedCrash, Mark::JudgedCrashBusy),
            Self::Crashes => (Mark::JudgedCrashes, Mark::JudgedCrashesBusy),
            Self::AnswerLost => (Mark::JudgedAnswerLost, Mark::JudgedAnswerLostBusy),
            Self::RequestLost => (Mark::JudgedRequestLost, Mark::JudgedRequestLostBusy),
            Self::Nothing => (Mark::JudgedNothing, Mark::JudgedNothingBusy),
            Self::Outage => (Mark::JudgedOutage, Mark::JudgedOutageBusy),
            Self::Forward => (Mark::JudgedForward, Mark::JudgedForwardBusy),
            Self::BackByLittle => (Mark::JudgedBackByLittle, Mark::JudgedBackByLittleBusy),
            Self::Back => (Mark::JudgedBack, Mark::JudgedBackBusy),
        };
        if busy { with_jobs } else { idle }
    }
}

/// The row of an event, in a farm that polls every `period` nanoseconds. None: it has none.
pub(super) fn row(event: &Event, period: u64) -> Option<(Row, Allowed)> {
    let alone = event.living == 1;
    // A statement is waited for for 100 ms at least, which is a slot more where periods are shorter.
    let short = u64::from(period < 200_000_000);
    let costs = |row, missed, doubled| {
        Some((row, Allowed { missed, doubled, gap: missed + 1, reads: None }))
    };
    // What nobody needs to read the row for, but the one that it is about.
    let quiet =
        |row, missed| Some((row, Allowed { missed, doubled: 0, gap: missed + 1, reads: Some(0) }));
    match event.what {
        Disturbance::Join if event.before > 0 => quiet(Row::Join, 0),
        Disturbance::Crash if event.living > event.count as usize => match event.count {
            1 => quiet(Row::Crash, 1),
            several => costs(Row::Crashes, u64::from(several), 0),
        },
        Disturbance::Late | Disturbance::Lost => {
            costs(Row::RequestLost, if alone { 2 + short } else { 1 }, 1)
        }
        Disturbance::Fault(fault) => match fault {
            Fault::Drain { .. } if event.living >= 2 => quiet(Row::Leave, 0),
            Fault::Reset { .. }
            | Fault::Route { .. }
            | Fault::TargetDown { .. }
            | Fault::LoseWork { .. } => costs(Row::Nothing, 0, 0),
            Fault::LoseAnswer { .. } => costs(Row::AnswerLost, u64::from(alone) * (1 + short), 0),
            Fault::LoseRequest { .. } | Fault::Stall { .. } => {
                costs(Row::RequestLost, if alone { 2 + short } else { 1 }, 1)
            }
            Fault::Outage { lasts } => {
                let out = lasts.0.div_ceil(period);
                // One fails in a slot, or in so long where slots are shorter.
                let failures = lasts.0 / period.max(FAILURE);
                let waited = match failures {
                    0..FEW => 0,
                    FEW..VERY_MANY => 1_000_000_000_u64,
                    VERY_MANY.. => 5_000_000_000,
                };
                let after = waited.div_ceil(period).max(2 + short + u64::from(out >= 8));
                costs(Row::Outage, out + after, 0)
            }
            Fault::ServerStep { by } => Some(step(by.0, event.living as u64, period)),
            _ => None,
        },
        _ => None,
    }
}

/// What it costs to set the server's clock.
fn step(by: i64, living: u64, period: u64) -> (Row, Allowed) {
    let size = by.unsigned_abs();
    let slots = (size + period / 2) / period;
    let (row, missed, doubled) = match (by > 0, slots) {
        // Who is alone must read before its next turn, which may have come by then.
        (true, _) => (Row::Forward, u64::from(living == 1), slots.min(living)),
        (false, 0) => (Row::BackByLittle, 0, 0),
        (false, 1..=2) => (Row::BackByLittle, slots, living),
        (false, _) => (Row::Back, 0, 0),
    };
    let from_half = (size % period).abs_diff(period / 2);
    let by_chance = if from_half < period * 3 / 20 { living } else { 0 };
    let (missed, doubled) = (missed + by_chance, doubled + by_chance);
    // The boundaries move by up to half a period besides.
    (row, Allowed { missed, doubled, gap: (missed + 2).min(4), reads: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Shift, Span};

    const SECOND: u64 = 1_000_000_000;

    fn of(what: Disturbance, living: usize) -> (Row, u64, u64) {
        let event = Event { what, count: 1, before: living, living };
        let (row, allowed) = row(&event, SECOND).unwrap();
        (row, allowed.missed, allowed.doubled)
    }

    fn step_of(millis: i64, living: usize) -> (Row, u64, u64) {
        let by = Shift(millis * 1_000_000);
        of(Disturbance::Fault(Fault::ServerStep { by }), living)
    }

    #[test]
    fn a_step_forward_doubles_as_many_as_it_skips_and_one_of_each_node_at_most() {
        assert_eq!(step_of(200, 5), (Row::Forward, 0, 0));
        assert_eq!(step_of(3_000, 1), (Row::Forward, 1, 1));
        assert_eq!(step_of(3_000, 5), (Row::Forward, 0, 3));
        assert_eq!(step_of(3_600_000, 5), (Row::Forward, 0, 5));
        assert_eq!(step_of(3_500, 5), (Row::Forward, 5, 9), "by chance");
    }

    #[test]
    fn a_step_back_by_one_or_two_costs_as_many_and_by_more_nothing() {
        assert_eq!(step_of(-200, 5), (Row::BackByLittle, 0, 0));
        assert_eq!(step_of(-1_000, 5), (Row::BackByLittle, 1, 5));
        assert_eq!(step_of(-2_100, 5), (Row::BackByLittle, 2, 5));
        assert_eq!(step_of(-3_000, 5), (Row::Back, 0, 0));
        assert_eq!(step_of(-3_600_000, 5), (Row::Back, 0, 0));
    }

    #[test]
    fn an_outage_costs_itself_and_two_slots() {
        let outage =
            |millis| Disturbance::Fault(Fault::Outage { lasts: Span::from_millis(millis) });
        assert_eq!(of(outage(1_500), 3), (Row::Outage, 4, 0));
        assert_eq!(of(outage(60_000), 1), (Row::Outage, 63, 0));
    }
}
