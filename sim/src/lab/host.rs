//! Decides nothing: a node as the lab keeps it, with its machine, its clock, its roads and its running jobs.

use std::collections::BTreeSet;

use turnwise_engine::{LocalInstant, NodeId, RequestId, Slot, Token, WorkStatement};

use super::asks::{Asking, RETRIED_WITHIN, Told};
use crate::random::Stream;
use crate::scenario;
use crate::world::{Local, Mishaps, Roads};

/// Ids of lives begin here.
const FIRST_ID: u128 = 0x1000;

/// A node of the scenario: there from its start, whatever becomes of its lives.
pub(super) struct Host<D> {
    pub(super) plan: scenario::Node,
    pub(super) clock: Local,
    pub(super) turn: Roads,
    pub(super) work: Roads,
    pub(super) life: Option<Life<D>>,
    pub(super) paused_until: u64,
    /// What is done to it explains a lapsed lease up to here.
    pub(super) excused_until: u64,
    pub(super) errors_until: u64,
    pub(super) target_down_until: u64,
    /// It comes back when it has left.
    pub(super) deployed: bool,
    pub(super) next: Mishaps,
    pub(super) seeds: Stream,
}

/// One run of the node's process, under an id of its own.
pub(super) struct Life<D> {
    pub(super) number: u32,
    pub(super) id: NodeId,
    pub(super) machine: D,
    /// The server's when it began.
    pub(super) timeline: i64,
    /// The wake-up that counts; older ones are ignored.
    pub(super) wake: u64,
    pub(super) draining: bool,
    pub(super) left: bool,
    /// Statements whose answers are awaited.
    pub(super) turn_awaited: Option<RequestId>,
    pub(super) turn_is_read: bool,
    pub(super) work_awaited: Option<RequestId>,
    /// The history of the server whose answer about turns it heard last.
    pub(super) heard_timeline: i64,
    /// When it last gave up a statement on the jobs.
    pub(super) work_given_up: Option<u64>,
    /// What the machine was told of its target.
    pub(super) target_told: bool,
    pub(super) running: BTreeSet<(u64, Token)>,
    /// Attempts that are over and whose ends are on their way.
    pub(super) ending: BTreeSet<(u64, Token)>,
    pub(super) last_beat: Slot,
    /// How long the last answers on the turn row that it waited for took, in nanoseconds.
    pub(super) round_trips: [u64; 8],
    /// The slot of the last beat that truly left.
    pub(super) beat_left: Slot,
    pub(super) skipped: Slot,
    pub(super) beat_error: i64,
    /// Wake-ups at one and the same instant, in a row.
    pub(super) same_instant: (LocalInstant, u32),
    /// Statements since the start of this window.
    pub(super) window: (u64, u32),
    pub(super) work_window: (u64, u32),
    /// What the beat that is awaited asks about; none: it claims nothing.
    pub(super) turn_asks: Option<Asking>,
    /// The statement on the jobs that is awaited, and what it asks about if it is a claim.
    pub(super) work_asks: Option<(WorkStatement, Option<Asking>)>,
    pub(super) told: Told,
    /// When it last held as much as it can.
    pub(super) full_at: u64,
    pub(super) removed: bool,
    /// Statements on the jobs since there are none.
    pub(super) idle_work: u32,
}

impl<D> Host<D> {
    pub(super) fn is_paused(&self, now: u64) -> bool {
        self.paused_until > now
    }
}

impl<D> Life<D> {
    pub(super) fn new(number: u32, machine: D, now: u64, timeline: i64) -> Self {
        Self {
            number,
            id: id_of(number),
            machine,
            timeline,
            wake: 0,
            draining: false,
            left: false,
            turn_awaited: None,
            turn_is_read: false,
            work_awaited: None,
            heard_timeline: timeline,
            work_given_up: None,
            target_told: true,
            running: BTreeSet::new(),
            ending: BTreeSet::new(),
            last_beat: Slot(i64::MIN),
            round_trips: [0; 8],
            beat_left: Slot(i64::MIN),
            skipped: Slot(i64::MIN),
            beat_error: 0,
            same_instant: (LocalInstant::from_nanos(0), 0),
            window: (now, 0),
            work_window: (now, 0),
            turn_asks: None,
            work_asks: None,
            told: Told::default(),
            full_at: now,
            removed: false,
            idle_work: 0,
        }
    }

    /// Whether it gave up a statement on the jobs so lately that it may not have tried again yet.
    pub(super) fn may_wait_to_retry(&self, now: u64) -> bool {
        self.work_given_up.is_some_and(|given_up| now <= given_up + RETRIED_WITHIN)
    }

    /// A statement has failed, or was given up.
    pub(super) fn awaits_no_more(&mut self, request: RequestId, now: u64) {
        self.turn_awaited = self.turn_awaited.filter(|awaited| *awaited != request);
        if self.work_awaited == Some(request) {
            self.work_awaited = None;
            self.work_given_up = Some(now);
        }
    }

    /// What it knows now is kept from the answers of the claims that are under way.
    pub(super) fn overtake(&mut self) {
        if self.told.knows_of_more() {
            let beside = self.work_asks.as_mut().and_then(|(_, asking)| asking.as_mut());
            self.turn_asks.as_mut().into_iter().chain(beside).for_each(Asking::overtake);
        }
    }

    /// The jobs that are truly its own: claimed, and not yet told to the machine as ended.
    pub(super) fn holds(&self) -> u32 {
        (self.running.len() + self.ending.len()) as u32
    }
}

/// The id of a life.
pub(super) fn id_of(life: u32) -> NodeId {
    NodeId::from_u128(FIRST_ID + u128::from(life))
}

/// The life of an id.
pub(super) fn life_of(id: NodeId) -> u32 {
    (id.uuid().as_u128() - FIRST_ID) as u32
}
