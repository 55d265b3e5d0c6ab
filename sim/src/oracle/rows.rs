//! Decides what one event may cost, be the farm idle or busy: the table of bounds.
//!
//! | event | slots missed | doubled |
//! |---|---|---|
//! | join, leave | 0 | 0 |
//! | crash; `k` at once | 1; `k` | 0 |
//! | answer lost | 0 (one node alone: 1) | 0 |
//! | request lost, or a slot late | 1 (one node alone: 2) | 1 |
//! | broken connection, another route, target away; a statement on the jobs late, undone, or its answer lost | 0 | 0 |
//! | outage | the outage, then 2; of eight slots and longer, 3 | 0 |
//! | server's clock forward by `k` slots | 0 (one node alone: 1) | `k`, at most one of each node |
//! | back by one slot, two slots | 1, 2 | one of each node |
//! | back by more | 0 | 0 |
//! | crash, and another crash later: it may be the deputy | 3 | 0 |
//! | crash, and another leaves: either may be whom the other named | 2 | 0 |
//! | of two, one stands still and is removed, and the remover dies | 6, and those of the standstill | 1 |
//! | everyone dead, one comes | polls within 4 slots, then 1 | 0 |
//! | the same, sooner than the length of the ring and two slots | polls within 3 slots and that length, then that length | 0 |
//!
//! An answer that was long under way makes its node patient for eight exchanges: it waits twice as long, five seconds at most. The
//! slots that pass meanwhile count too.
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
/// In no case is a statement waited for longer.
const PATIENCE_MOST: u64 = 5_000_000_000;
/// A statement that fails takes so long at least.
const FAILURE: u64 = 100_000_000;

/// Something that was done to the farm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) what: Disturbance,
    /// In nanoseconds.
    pub(super) at: u64,
    /// When it ended.
    pub(super) until: u64,
}

/// All that happened to a farm that was whole, until it was whole again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course<'a> {
    pub(super) done: &'a [Done],
    /// Nodes that were up before it.
    pub(super) before: usize,
    /// The most that were up.
    pub(super) living: usize,
    /// The longest ring.
    pub(super) largest: usize,
    /// How long nobody had beaten when somebody came where nobody was left, in nanoseconds.
    pub(super) silence: Option<u64>,
    /// How long the slowest of the last eight answers of each node had taken before it, in nanoseconds.
    pub(super) slowest: u64,
    /// A node that lives was removed.
    pub(super) removed: bool,
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
    /// In so many nanoseconds whoever comes where nobody was left has its first beat accepted.
    pub(super) silent: Option<u64>,
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
    CrashAfterCrash,
    CrashAndLeave,
    RemoverDies,
    Return,
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
            Self::CrashAfterCrash => (Mark::JudgedCrashAfterCrash, Mark::JudgedCrashAfterCrashBusy),
            Self::CrashAndLeave => (Mark::JudgedCrashAndLeave, Mark::JudgedCrashAndLeaveBusy),
            Self::RemoverDies => (Mark::JudgedRemoverDies, Mark::JudgedRemoverDiesBusy),
            Self::Return => (Mark::JudgedReturn, Mark::JudgedReturnBusy),
        };
        if busy { with_jobs } else { idle }
    }
}

/// The row of what happened, in a farm that polls every `period` nanoseconds. None: it has none.
pub(super) fn row(course: &Course<'_>, period: u64) -> Option<(Row, Allowed)> {
    match course.done {
        [only] => single(only.what, course, period),
        [first, ..] if course.silence.is_none() => several(*first, course, period),
        // Whoever comes first comes alone; all others are dead.
        [dead @ .., Done { what: Disturbance::Join, .. }] if dead.iter().all(is_death) => {
            Some(whoever_comes(course, period))
        }
        _ => None,
    }
}

fn is_death(done: &Done) -> bool {
    matches!(done.what, Disturbance::Crash | Disturbance::Fault(Fault::Restart { .. }))
}

fn costs(row: Row, missed: u64, doubled: u64) -> Option<(Row, Allowed)> {
    Some((row, Allowed { missed, doubled, gap: missed + 1, reads: None, silent: None }))
}

/// One comes where nobody is left. While the last reads of the dead may license them it joins their ring, and then finds that
/// all have died at once. Slots are counted from the one in which its first statement arrives, which may have begun half a
/// period ago; and it costs one more when its change arrives in the slot behind the one in which it was decided.
fn whoever_comes(course: &Course<'_>, period: u64) -> (Row, Allowed) {
    let ring = course.largest as u64;
    let lapsed = course.silence.is_some_and(|silence| silence >= (ring + 2) * period);
    let (missed, slots) = if lapsed { (1, 4) } else { (ring.max(1), ring + 3) };
    let silent = Some(slots * period + period * 3 / 2);
    (Row::Return, Allowed { missed, doubled: 0, gap: missed + 1, reads: None, silent })
}

/// Several events at once, or soon after each other.
fn several(first: Done, course: &Course<'_>, period: u64) -> Option<(Row, Allowed)> {
    let crashes = course.done.iter().all(|done| done.what == Disturbance::Crash);
    let count = course.done.len();
    if crashes && course.done.iter().all(|done| done.at == first.at) {
        // Several that die in one instant are judged together.
        let some_live = course.living > count;
        return some_live.then(|| costs(Row::Crashes, count as u64, 0)).flatten();
    }
    let [_, second] = *course.done else { return None };
    let drain = |done: Done| matches!(done.what, Disturbance::Fault(Fault::Drain { .. }));
    let crash = |done: Done| done.what == Disturbance::Crash;
    match first.what {
        Disturbance::Crash if crashes && course.living >= 3 => costs(Row::CrashAfterCrash, 3, 0),
        _ if course.living >= 3
            && (drain(first) && crash(second) || crash(first) && drain(second)) =>
        {
            costs(Row::CrashAndLeave, 2, 0)
        }
        Disturbance::Fault(Fault::Pause { .. })
            if course.living == 2 && course.removed && crash(second) =>
        {
            let standstill = first.until.saturating_sub(first.at).div_ceil(period);
            costs(Row::RemoverDies, 6 + standstill, 1)
        }
        _ => None,
    }
}

fn single(what: Disturbance, course: &Course<'_>, period: u64) -> Option<(Row, Allowed)> {
    let alone = course.living == 1;
    // A read is waited for for 100 ms at least, which is a slot more where periods are shorter.
    let short = u64::from(period < 200_000_000);
    let behind = behind(course.slowest, period);
    // A beat is given up in time for its read, whatever the period.
    let lost = if alone { behind.max(1) } else { 0 };
    // What nobody needs to read the row for, but the one that it is about.
    let quiet = |row, missed| {
        let gap = missed + 1;
        Some((row, Allowed { missed, doubled: 0, gap, reads: Some(0), silent: None }))
    };
    match what {
        Disturbance::Join if course.before > 0 => quiet(Row::Join, 0),
        Disturbance::Join if course.silence.is_some() => Some(whoever_comes(course, period)),
        Disturbance::Crash if course.living > 1 => quiet(Row::Crash, 1),
        Disturbance::Late | Disturbance::Lost => costs(Row::RequestLost, 1 + lost, 1),
        Disturbance::Fault(fault) => match fault {
            Fault::Drain { .. } if course.living >= 2 => quiet(Row::Leave, 0),
            Fault::Reset { .. }
            | Fault::Route { .. }
            | Fault::TargetDown { .. }
            | Fault::LoseWork { .. }
            | Fault::Deadlock { .. }
            | Fault::StallWork { .. } => costs(Row::Nothing, 0, 0),
            Fault::LoseAnswer { .. } => {
                // Of several a node has one turn in that time, and then it is removed.
                let own_turns = (behind / course.living.max(1) as u64).min(1);
                costs(Row::AnswerLost, if alone { lost } else { own_turns }, 0)
            }
            Fault::LoseRequest { .. } | Fault::Stall { .. } => costs(Row::RequestLost, 1 + lost, 1),
            Fault::Outage { lasts } => {
                let out = lasts.0.div_ceil(period);
                let waited = waited(lasts.0, period);
                let after = waited.div_ceil(period).max(2 + short + u64::from(out >= 8));
                costs(Row::Outage, out + after, 0)
            }
            Fault::ServerStep { by } => Some(step(by.0, course.living as u64, period)),
            _ => None,
        },
        _ => None,
    }
}

/// For how long a statement is waited for where the slowest of the last answers took so long, if that is longer than usual.
pub(super) fn patience(slowest: u64) -> u64 {
    slowest.saturating_mul(2).min(PATIENCE_MOST)
}

/// How many slots pass from a lost beat to the read behind it, for that patience: the read is put off by up to a fifth of a
/// period, may be a quarter late, and a slot begins half a period before its boundary.
fn behind(slowest: u64, period: u64) -> u64 {
    (patience(slowest) + period / 5 + period / 4 + period / 2) / period
}

/// For how long a read that left just before the end of a silence may yet be waited for.
pub(super) fn waited(silence: u64, period: u64) -> u64 {
    // One fails in a slot, or in so long where slots are shorter.
    match silence / period.max(FAILURE) {
        0..FEW => 0,
        FEW..VERY_MANY => 1_000_000_000,
        VERY_MANY.. => PATIENCE_MOST,
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
    (row, Allowed { missed, doubled, gap: (missed + 2).min(4), reads: None, silent: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Shift, Span};

    const SECOND: u64 = 1_000_000_000;

    fn of(what: Disturbance, living: usize) -> (Row, u64, u64) {
        all_of(&[(what, 0, 0)], living)
    }

    /// Each with its begin and its end, in seconds.
    fn all_of(done: &[(Disturbance, u64, u64)], living: usize) -> (Row, u64, u64) {
        let done: Vec<_> = done
            .iter()
            .map(|(what, at, until)| Done { what: *what, at: at * SECOND, until: until * SECOND })
            .collect();
        let course = Course {
            done: &done,
            before: living,
            living,
            largest: living,
            silence: None,
            slowest: 0,
            removed: true,
        };
        let (row, allowed) = row(&course, SECOND).unwrap();
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

    #[test]
    fn an_answer_that_was_long_under_way_makes_patient() {
        let lost = |fault, living, slowest| {
            let done = [Done { what: Disturbance::Fault(fault), at: 0, until: 0 }];
            let (before, largest) = (living, living);
            let course = Course {
                done: &done,
                before,
                living,
                largest,
                silence: None,
                slowest,
                removed: false,
            };
            row(&course, SECOND).unwrap().1.missed
        };
        let (request, answer) = (Fault::LoseRequest { node: 0 }, Fault::LoseAnswer { node: 0 });
        let costs =
            |living, slowest| (lost(request, living, slowest), lost(answer, living, slowest));
        for usual in [0, SECOND * 3 / 10, SECOND / 2] {
            assert_eq!((costs(1, usual), costs(2, usual)), ((2, 1), (1, 0)), "{usual}");
        }
        assert_eq!((costs(1, SECOND * 3 / 2), costs(2, SECOND * 3 / 2)), ((4, 3), (1, 1)));
        assert_eq!(costs(1, 60 * SECOND), (6, 5));
    }

    #[test]
    fn two_that_go_one_after_the_other_may_be_each_others_deputy() {
        let crash = Disturbance::Crash;
        let drain = Disturbance::Fault(Fault::Drain { node: 0 });
        assert_eq!(all_of(&[(crash, 1, 1), (crash, 1, 1)], 5), (Row::Crashes, 2, 0));
        assert_eq!(all_of(&[(crash, 1, 1), (crash, 3, 3)], 5), (Row::CrashAfterCrash, 3, 0));
        assert_eq!(all_of(&[(crash, 1, 1), (drain, 3, 3)], 5), (Row::CrashAndLeave, 2, 0));
        assert_eq!(all_of(&[(drain, 1, 1), (crash, 3, 3)], 3), (Row::CrashAndLeave, 2, 0));
        let pause = Disturbance::Fault(Fault::Pause { node: 0, lasts: Span::from_secs(2) });
        assert_eq!(all_of(&[(pause, 1, 3), (crash, 4, 4)], 2), (Row::RemoverDies, 8, 1));
    }

    #[test]
    fn whoever_comes_where_nobody_is_waits_until_the_dead_have_lapsed() {
        let done = [Disturbance::Crash, Disturbance::Crash, Disturbance::Join].map(|what| Done {
            what,
            at: 0,
            until: 0,
        });
        let silent = |silence| {
            let course = Course {
                done: &done,
                before: 2,
                living: 2,
                largest: 8,
                silence,
                slowest: 0,
                removed: false,
            };
            let (row, allowed) = row(&course, SECOND)?;
            assert_eq!(row, Row::Return);
            allowed.silent
        };
        assert_eq!(silent(Some(9 * SECOND)), Some(12 * SECOND + SECOND / 2));
        assert_eq!(silent(Some(10 * SECOND)), Some(5 * SECOND + SECOND / 2));
        assert_eq!(silent(None), None, "others lived");
    }
}
