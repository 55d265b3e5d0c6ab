//! Decides which jobs of an answer are run: those of a statement that the engine still waits for, and not before it has
//! counted them.

use turnwise_engine::{Input, RequestId, TurnAnswer};

use super::super::life::Stage;
use super::line::{Answered, Line};
use super::{Order, Told, TurnsTask};
use crate::clock::Clock;
use crate::sabotage::{Bug, Sabotage};
use crate::store::Store;

impl<C: Clock, S: Store, T: Stage> TurnsTask<C, S, T> {
    /// Tell the engine. Jobs are run only if it still waits for their statement: one that it has given up,
    /// just as the answer came, is recovered or released, and its jobs must not run here meanwhile.
    pub(super) fn told(&mut self, told: Told) {
        let Told { mut input, jobs } = told;
        if T::Bugs::plants(Bug::AnswerIsMismatched)
            && let (Input::WorkAnswer(answer), Some(asked)) = (&mut input, self.asked)
        {
            answer.request = asked;
        }
        let answered = match &input {
            Input::WorkAnswer(answer) => Some(answer.request),
            Input::Failed { request, .. } => Some(*request),
            _ => None,
        };
        let is_wanted = answered.is_some() && self.asked == answered;
        if is_wanted {
            self.asked = None;
            self.holds.took(&jobs);
        }
        // The engine counts the jobs before the first of them can end.
        self.engine.handle_input(self.clock.now(), input);
        if is_wanted && !jobs.is_empty() {
            self.order(Order::Run(jobs));
        }
    }

    pub(super) fn answered(
        &mut self,
        request: RequestId,
        Answered { turns, reply, ready }: Answered<S::Turns>,
    ) {
        let now = self.clock.now();
        if let Some(ready) = ready {
            self.lead.ready(request, ready);
        }
        match reply {
            Ok(mut reply) => {
                self.line = Line::Ready(turns);
                self.trouble = None;
                self.drain_asked |= reply.drain_asked;
                self.next_schedule =
                    reply.next_schedule.map(|next| (reply.exchange.answered, next));
                self.log.reachable();
                self.observer
                    .turn_answered(Some(reply.exchange.received.since(reply.exchange.sent)));
                let claimed = u32::try_from(reply.jobs.len()).unwrap_or(u32::MAX);
                let answer = TurnAnswer {
                    request,
                    exchange: Some(reply.exchange),
                    identity: reply.identity,
                    now: reply.now,
                    done: reply.done,
                    row: reply.row,
                    claimed,
                    more: reply.more && !T::Bugs::plants(Bug::MoreIsNotTold),
                    kept: reply.kept,
                    lost: reply.lost && !T::Bugs::plants(Bug::LossIsNotTold),
                };
                if T::Bugs::plants(Bug::OnlyFirstJobRuns) {
                    reply.jobs.truncate(1);
                }
                if !T::Bugs::plants(Bug::ListLacksClaims) {
                    self.holds.took(&reply.jobs);
                }
                // The engine counts the jobs before the first of them can end.
                self.engine.handle_input(now, Input::TurnAnswer(Box::new(answer)));
                if !reply.jobs.is_empty() {
                    self.order(Order::Run(reply.jobs));
                }
            }
            Err(error) => {
                drop(turns);
                self.log.unreachable(&error);
                self.observer.turn_answered(None);
                let fate = error.fate();
                self.trouble = Some(error.to_string());
                self.line = Line::Connecting(self.connect(), None);
                self.engine.handle_input(now, Input::Failed { request, fate });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, watch};
    use turnwise_engine::{Kept, LocalInstant, Output, WorkAnswer, WorkStatement};

    use super::super::tests::{header, job};
    use super::super::{Channels, Pulse};
    use super::*;
    use crate::clock::BootClock;
    use crate::shell::PreciseThread;
    use crate::shell::holds::Holds;
    use crate::shell::journal::Recorded;
    use crate::store::Queues;
    use crate::store::sqlite::SqliteStore;

    fn answer(request: RequestId) -> Told {
        let answer = WorkAnswer {
            request,
            sent: LocalInstant::from_nanos(1),
            claimed: 1,
            more: false,
            kept: Kept::default(),
            lost: false,
        };
        Told { input: Input::WorkAnswer(answer), jobs: vec![job()] }
    }

    #[test]
    fn jobs_of_a_statement_that_was_given_up_are_not_run() {
        let (_, inputs) = mpsc::unbounded_channel();
        let (orders, mut orders_out) = mpsc::unbounded_channel();
        let channels = Channels { inputs, orders, pulse: watch::channel(Pulse::default()).0 };
        let store = SqliteStore::open("sqlite::memory:").unwrap();
        let engine = Recorded::new(header(), None);
        let (queues, holds) = (watch::channel(Queues::All).1, Holds::default());
        let mut task = TurnsTask::<_, _, PreciseThread>::new(
            BootClock,
            store,
            engine,
            queues,
            holds.clone(),
            channels,
        );
        let mut runs = || {
            let orders = std::iter::from_fn(|| orders_out.try_recv().ok());
            orders.filter(|order| matches!(order, Order::Run(_))).count()
        };
        let ask = |request| Output::Work {
            request: RequestId(request),
            statement: WorkStatement::Renew,
            not_after: LocalInstant::from_nanos(u64::MAX),
        };
        task.carry_out(ask(1));
        task.told(answer(RequestId(1)));
        assert_eq!(runs(), 1);
        assert_eq!(holds.list().jobs.len(), 1);
        task.told(answer(RequestId(1)));
        assert_eq!(runs(), 0, "said twice");
        task.carry_out(ask(2));
        task.carry_out(Output::Abandon(RequestId(2)));
        task.told(answer(RequestId(2)));
        assert_eq!(runs(), 0, "given up");
        assert_eq!(holds.list().jobs.len(), 1, "what is not run is not held");
    }
}
