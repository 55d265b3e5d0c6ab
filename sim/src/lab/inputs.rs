//! Decides what follows when a node's machine is told something: what it asks for is done, what it says of itself is judged, and
//! it is woken when it wants to be.

use turnwise_engine::journal::Entry;
use turnwise_engine::{Input, LocalInstant, Output, Reason};

use super::events::{Leaving, What};
use super::host::Host;
use super::lives::REBIRTH;
use super::{Driver, Lab};
use crate::oracle::{Disturbance, Invariant, Mark};
use crate::report::{Seen, Sort};
use crate::scenario::Span;

/// A machine may wake at one and the same instant so often in a row, and no oftener.
const SAME_INSTANT_MAX: u32 = 100;

impl<D: Driver> Lab<'_, D> {
    /// Hand something to a node's machine and do what it asks for.
    pub(super) fn input(&mut self, number: u32, input: Input) {
        let now = self.now;
        let host = &mut self.hosts[number as usize];
        let Some(life) = &mut host.life else { return };
        let local = host.clock.read(now);
        if let Some(journals) = &mut self.journals {
            journals.add(life.number, || Entry::Input { at: local, input: input.clone() });
        }
        life.machine.handle_input(local, input);
        self.check_drains(number);
        while let Some(output) = self.next_output(number) {
            self.output(number, local, output);
        }
        self.check_counts(number);
        self.check_status(number, local);
        self.note_whether_it_could_ask(number);
        self.schedule_wake(number);
        self.stop_if_done(number);
    }

    /// What a node's machine asks for next.
    fn next_output(&mut self, number: u32) -> Option<Output> {
        let life = self.hosts[number as usize].life.as_mut()?;
        let output = life.machine.poll_output()?;
        if let Some(journals) = &mut self.journals {
            journals.add(life.number, || Entry::Output(output.clone()));
        }
        Some(output)
    }

    fn schedule_wake(&mut self, number: u32) {
        let now = self.now;
        let host = &mut self.hosts[number as usize];
        let Some(life) = &mut host.life else { return };
        life.wake += 1;
        let (wake, id) = (life.wake, life.number);
        let Some((at, reason)) = life.machine.poll_timeout() else { return };
        if life.same_instant.0 == at && at <= host.clock.read(now) {
            life.same_instant.1 += 1;
            if life.same_instant.1 == SAME_INSTANT_MAX {
                self.violated(Invariant::Bounded, || {
                    format!("life {id} arms a timer for the same instant for ever: {reason}")
                });
            }
            if life_over(&mut self.hosts[number as usize]) {
                return;
            }
        } else {
            life.same_instant = (at, 0);
        }
        let host = &mut self.hosts[number as usize];
        let mut at = host.clock.when(at, now);
        if host.plan.clock.late_wake > Span::ZERO && reason != Reason::TurnPatience {
            let late = host.plan.clock.late_wake.0 as f64;
            at += (-late * host.seeds.ln_uniform()) as u64;
        }
        self.push(at, What::Wake { life: id, number: wake });
    }

    fn output(&mut self, number: u32, local: LocalInstant, output: Output) {
        if let Some(sort) = Sort::of(&output) {
            self.seen(number, Seen::Sent(sort));
        }
        match output {
            Output::Turn { request, statement, not_after, .. } => {
                self.turn_asked(number, local, Leaving { request, statement, not_after });
            }
            Output::Work { request, statement, not_after } => {
                self.work_asked(number, local, request, statement, not_after);
            }
            Output::Abandon(request) => {
                if let Some(life) = &mut self.hosts[number as usize].life {
                    life.awaits_no_more(request, self.now);
                }
            }
            Output::Retire(_) => {
                self.oracle.marks.reach(Mark::CameBackLost);
                self.disturbed(self.now, Disturbance::Reborn);
                self.stop(number, Seen::Lost);
                self.push(self.now + REBIRTH, What::Reborn(number));
            }
            Output::Note(note) => self.noted(number, &note),
        }
    }
}

/// A machine that wakes for ever at one instant would hang the lab: its process is taken away.
fn life_over<D>(host: &mut Host<D>) -> bool {
    match &host.life {
        Some(life) if life.same_instant.1 > 2 * SAME_INSTANT_MAX => {
            host.life = None;
            true
        }
        _ => false,
    }
}
