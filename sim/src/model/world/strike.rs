//! Decides which faults may come just before an event, and what each does to the farm.

use turnwise_engine::{Fate, Input, Sabotage};

use super::super::Farm;
use super::super::fault::Fault;
use super::{Event, MILLI, NOTICED_AFTER, What, World};

impl<S: Sabotage> World<S> {
    /// The faults that make a difference just before `event`, which is due next.
    ///
    /// A fault is offered only before the first event that can tell it from the same fault a moment earlier:
    /// what happens to a node, before the events of that node; what happens to the server, before an arrival;
    /// what happens to a message, before its own arrival. A node may come up before any event.
    pub(in super::super) fn offers(&self, farm: &Farm, event: Event) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.nodes.len() < farm.nodes_in_all() {
            faults.push(Fault::Join);
        }
        match event {
            Event::Request { node, .. } => {
                self.offer_to_request(farm, node, &mut faults);
                self.offer_to_server(farm, &mut faults);
            }
            Event::Answer { node, .. } => {
                faults.push(Fault::LoseAnswer { node });
                faults.push(Fault::Break { node, executed: true });
                let late = |millis: &u32| Fault::LateAnswer { node, millis: *millis };
                faults.extend(farm.delays.iter().map(late));
                faults.push(Fault::Restart);
                self.offer_to_node(farm, node, true, &mut faults);
            }
            Event::Wake(node) => {
                let waits = self.nodes[usize::from(node)].awaited.is_some();
                self.offer_to_node(farm, node, waits, &mut faults);
            }
            Event::Broken { node, .. } => self.offer_to_node(farm, node, false, &mut faults),
            Event::Resume(node) => faults.push(Fault::Crash { node, request_lost: false }),
            Event::Grid => {}
        }
        faults.retain(|fault| farm.allows(fault.kind()));
        faults
    }

    fn offer_to_request(&self, farm: &Farm, node: u8, faults: &mut Vec<Fault>) {
        faults.push(Fault::LoseRequest { node });
        faults.extend(farm.delays.iter().map(|millis| Fault::Late { node, millis: *millis }));
        if self.nodes[usize::from(node)].engine.is_some() {
            faults.push(Fault::Crash { node, request_lost: true });
            faults.push(Fault::Break { node, executed: false });
        }
    }

    fn offer_to_server(&self, farm: &Farm, faults: &mut Vec<Fault>) {
        faults.extend(farm.steps.iter().map(|millis| Fault::Step { millis: *millis }));
        for millis in &farm.outages {
            faults.push(Fault::Outage { millis: *millis, refuses: false });
            faults.push(Fault::Outage { millis: *millis, refuses: true });
        }
        faults.push(Fault::Restart);
        let lost = 1..=self.past.len() as u8;
        faults.extend(lost.map(|statements| Fault::Failover { statements }));
    }

    fn offer_to_node(&self, farm: &Farm, node: u8, waits: bool, faults: &mut Vec<Fault>) {
        let state = &self.nodes[usize::from(node)];
        if state.engine.is_none() {
            return;
        }
        faults.push(Fault::Crash { node, request_lost: false });
        if !state.leaving {
            faults.push(Fault::Leave { node });
        }
        if state.paused_until.is_some() {
            return;
        }
        for millis in &farm.pauses {
            faults.push(Fault::Pause { node, millis: *millis, timer_first: false });
            if waits {
                faults.push(Fault::Pause { node, millis: *millis, timer_first: true });
            }
            faults.push(Fault::Sleep { node, millis: *millis });
        }
    }

    /// Put a fault in just before the next event.
    pub(in super::super) fn strike(&mut self, farm: &Farm, fault: Fault, grid: &[u32]) {
        if let Some((at, _)) = self.next(grid) {
            self.now = at;
        }
        let live = self.live();
        match fault {
            Fault::Join => self.start(farm),
            Fault::Leave { node } => {
                self.nodes[usize::from(node)].leaving = true;
                self.input(farm, node, Input::Leave);
                self.see_who_is_left();
            }
            Fault::Crash { node, request_lost } => {
                if request_lost {
                    self.lose(node, true);
                }
                self.end(node);
            }
            Fault::LoseRequest { node } => self.lose(node, true),
            Fault::LoseAnswer { node } => self.lose(node, false),
            Fault::Late { node, millis } => self.hold_up(node, true, millis),
            Fault::LateAnswer { node, millis } => self.hold_up(node, false, millis),
            Fault::Break { node, executed } => self.break_one(node, !executed),
            Fault::Pause { node, millis, timer_first } => self.pause(node, millis, timer_first),
            Fault::Sleep { node, millis } => {
                self.pause(node, millis, false);
                self.nodes[usize::from(node)].ahead -= u64::from(millis) * MILLI;
            }
            Fault::Step { millis } => self.step += i64::from(millis) * MILLI as i64,
            Fault::Outage { millis, refuses } => {
                self.out_until = self.now + u64::from(millis) * MILLI;
                self.out_refuses = refuses;
            }
            Fault::Restart => self.other_server(),
            Fault::Failover { statements } => {
                let kept = self.past.len().saturating_sub(usize::from(statements));
                if let Some(row) = self.past.get(kept) {
                    self.row = row.clone();
                }
                self.past.truncate(kept);
                self.watch.history_is_lost(&self.row);
                self.other_server();
            }
        }
        self.watch.struck(self.now, fault, live, &self.row);
    }

    /// The first message of `node` that is due: a request, or something for the node.
    fn first(&self, node: u8, request: bool) -> Option<usize> {
        let found = self.wire.iter().enumerate().filter(|(_, message)| {
            message.node == node && matches!(message.what, What::Request { .. }) == request
        });
        found.min_by_key(|(_, message)| message.at).map(|(index, _)| index)
    }

    fn lose(&mut self, node: u8, request: bool) {
        if let Some(index) = self.first(node, request) {
            self.wire.remove(index);
        }
    }

    fn hold_up(&mut self, node: u8, request: bool, millis: u32) {
        if let Some(index) = self.first(node, request) {
            self.wire[index].at = self.now + u64::from(millis) * MILLI;
        }
    }

    fn break_one(&mut self, node: u8, request: bool) {
        if let Some(index) = self.first(node, request) {
            let message = self.wire.remove(index);
            let at = self.now + NOTICED_AFTER;
            self.tell(node, message.request, at, What::Broken(Fate::Unknown));
        }
    }

    fn pause(&mut self, node: u8, millis: u32, timer_first: bool) {
        let node = &mut self.nodes[usize::from(node)];
        node.paused_until = Some(self.now + u64::from(millis) * MILLI);
        node.timer_first = timer_first;
    }

    fn other_server(&mut self) {
        self.server += 1;
        let at = self.now + NOTICED_AFTER;
        for message in std::mem::take(&mut self.wire) {
            self.tell(message.node, message.request, at, What::Broken(Fate::Unknown));
        }
    }
}
