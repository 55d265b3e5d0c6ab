//! Decides what becomes of the beat's connection and of the statement that is to go on it: when another is made, how
//! long that may take, and that what has become late is not sent.

use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::time::Duration;

use turnwise_engine::{Fate, Input, LocalInstant, RequestId, TurnStatement};

use super::super::life::Stage;
use super::{Order, TurnsTask};
use crate::clock::Clock;
use crate::sabotage::{Bug, Sabotage};
use crate::store::{Store, StoreError, TurnReply, TurnRequest, Turns};

/// How long making the beat's connection ready may take at first: connecting, logging in, preparing. What is lost
/// on the way there may be lost for good, and each slot that is waited through is missed: so most tries are soon
/// given up, and only some may take longer, up to [`CONNECT_TIMEOUT_MAX`]
/// ([`Patience`](super::super::patience::Patience)).
pub(super) const CONNECT_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// The longest that it may take.
pub(super) const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(10);

type InFlight<T> = Pin<Box<dyn Future<Output = Answered<T>> + Send>>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, Unconnected>> + Send>>;

/// What came of a statement.
pub(super) struct Answered<T> {
    /// Its connection.
    pub(super) turns: T,
    pub(super) reply: Result<TurnReply, StoreError>,
    /// When it could go, if it came to that.
    pub(super) ready: Option<LocalInstant>,
}

/// Why there is no connection.
pub(super) struct Unconnected {
    error: StoreError,
    /// It took too long.
    timed_out: bool,
}

/// The beat's connection.
pub(super) enum Line<T> {
    /// None, and nobody is making one.
    Down,
    /// One is being made; a statement may be waiting for it.
    Connecting(Connecting<T>, Option<Waiting>),
    /// Ready for a statement.
    Ready(T),
    /// A statement is on its way.
    Busy(RequestId, InFlight<T>),
}

pub(super) struct Waiting {
    pub(super) request: RequestId,
    pub(super) statement: TurnStatement,
    pub(super) not_after: LocalInstant,
}

impl<C: Clock, S: Store, T: Stage> TurnsTask<C, S, T> {
    pub(super) fn send(&mut self, waiting: Waiting) {
        match std::mem::replace(&mut self.line, Line::Down) {
            Line::Ready(turns) => {
                self.put_on_line(turns, waiting);
            }
            Line::Down => self.line = Line::Connecting(self.connect(), Some(waiting)),
            Line::Connecting(connecting, earlier) => {
                self.line = Line::Connecting(connecting, Some(waiting));
                if let Some(earlier) = earlier {
                    self.not_sent(earlier.request);
                }
            }
            Line::Busy(other, in_flight) => {
                // The engine has one statement on the turn row in flight; it gave `other` up.
                drop((other, in_flight));
                self.line = Line::Connecting(self.connect(), Some(waiting));
            }
        }
    }

    fn put_on_line(&mut self, mut turns: S::Turns, waiting: Waiting) {
        let Waiting { request, statement, not_after } = waiting;
        if self.clock.now() > not_after && !T::Bugs::plants(Bug::EffectIsSentLate) {
            self.line = Line::Ready(turns);
            self.not_sent(request);
            return;
        }
        let clock = self.clock.clone();
        let queues = self.queues.borrow().clone();
        let report = self.report();
        self.observer.reported(&report);
        let hold = self.lead.sends(request);
        let in_flight = async move {
            let ready = OnceLock::new();
            // The first stamp is the last thing before the statement goes: there it is held until it is due.
            let stamp = || {
                if let (Some(until), Ok(())) = (hold, ready.set(clock.now())) {
                    clock.spin_until(until);
                }
                clock.now()
            };
            let request = TurnRequest { statement: &statement, queues: &queues, report };
            let reply = turns.execute(&request, &stamp).await;
            Answered { turns, reply, ready: ready.into_inner() }
        };
        self.line = Line::Busy(request, Box::pin(in_flight));
    }

    pub(super) fn abandon(&mut self, request: RequestId) {
        match &mut self.line {
            Line::Busy(busy, _) if *busy == request => {
                self.trouble = Some("the database did not answer in time".to_owned());
                self.line = Line::Connecting(self.connect(), None);
            }
            Line::Connecting(_, waiting)
                if waiting.as_ref().is_some_and(|waiting| waiting.request == request) =>
            {
                self.trouble = Some("no connection to the database yet".to_owned());
                *waiting = None;
            }
            _ => {
                self.asked.take_if(|asked| *asked == request);
                self.order(Order::Abandon(request));
            }
        }
    }

    pub(super) fn connected(&mut self, connection: Result<S::Turns, Unconnected>) {
        let waiting = match std::mem::replace(&mut self.line, Line::Down) {
            Line::Connecting(_, waiting) => waiting,
            _ => None,
        };
        if connection.is_ok() {
            self.patience.rewarded();
        }
        match (connection, waiting) {
            (Ok(turns), Some(waiting)) => self.put_on_line(turns, waiting),
            (Ok(turns), None) => self.line = Line::Ready(turns),
            (Err(Unconnected { error, timed_out }), waiting) => {
                if timed_out {
                    self.patience.spent();
                }
                self.log.unreachable(&error);
                self.trouble = Some(error.to_string());
                if let Some(waiting) = waiting {
                    self.not_sent(waiting.request);
                }
            }
        }
    }

    fn not_sent(&mut self, request: RequestId) {
        let input = Input::Failed { request, fate: Fate::NotSent };
        self.engine.handle_input(self.clock.now(), input);
    }

    pub(super) fn connect(&self) -> Connecting<S::Turns> {
        let (store, patience) = (self.store.clone(), self.patience.now());
        Box::pin(async move {
            let connecting = tokio::time::timeout(patience, store.turns());
            match connecting.await {
                Ok(Ok(turns)) => Ok(turns),
                Ok(Err(error)) => Err(Unconnected { error, timed_out: false }),
                Err(_) => {
                    let error = StoreError::Unreachable {
                        database: "its URL".to_owned(),
                        reason: format!("no connection within {} s", patience.as_secs()),
                        fate: Fate::NotSent,
                    };
                    Err(Unconnected { error, timed_out: true })
                }
            }
        })
    }
}
