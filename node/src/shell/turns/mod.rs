//! The task that owns the engine and the beat's connection: carries what the engine wants to the
//! database and what happens to the engine. Decides nothing that the engine could decide.
//!
//! - here: when the engine is woken, and where what it wants goes;
//! - `channels`: what this task and those around it say to each other;
//! - `line`: the beat's connection, and the statement on it;
//! - `answers`: what the engine is told of answers, and which of their jobs are run;
//! - `pulse`: what others may know of the engine.

mod answers;
mod channels;
mod line;
mod pulse;

use std::marker::PhantomData;
use std::sync::Arc;

use tokio::sync::watch;
use turnwise_engine::{
    Input, LocalInstant, Note, Output, Period, Reason, RequestId, ServerInstant, TurnKind,
    WorkStatement,
};

pub(crate) use self::channels::{Asked, Channels, Order, Told};
use self::line::{Answered, CONNECT_TIMEOUT_MAX, CONNECT_TIMEOUT_MIN, Line, Unconnected, Waiting};
pub use self::pulse::Pulse;
use super::holds::Holds;
use super::journal::Recorded;
use super::lead::Lead;
use super::life::Stage;
use super::notes::NoteLog;
use super::observer::{self, Nobody};
use super::patience::Patience;
use super::retention::Cue;
use super::schedules::{self, Horizon};
use crate::clock::Clock;
use crate::store::{Queues, Store};

/// Why the task ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TurnsEnd {
    /// The farm declared the node lost.
    Lost,
    /// Nobody wants its inputs any more.
    Stopped,
}

/// The engine's task.
pub(crate) struct TurnsTask<C: Clock, S: Store, T: Stage> {
    clock: C,
    store: S,
    stage: PhantomData<T>,
    engine: Recorded,
    queues: watch::Receiver<Queues>,
    holds: Holds,
    channels: Channels,
    line: Line<S::Turns>,
    /// The statement on the jobs that the engine waits for.
    asked: Option<RequestId>,
    /// How much earlier than planned the engine is woken for a beat.
    lead: Lead,
    /// How long the next try to connect may take.
    patience: Patience,
    drain_asked: bool,
    trouble: Option<String>,
    log: NoteLog,
    observer: observer::Told,
    cue: Cue,
    horizon: Horizon,
    /// When a schedule is to be fired next, as the last answer told, and when it was told.
    next_schedule: Option<(ServerInstant, ServerInstant)>,
    /// A clock was set, or another server answers, and schedules have not been looked at since.
    clock_was_set: bool,
}

/// What the task woke up for.
enum Event<T> {
    Told(Option<Told>),
    /// The beat that is planned for this instant is to be sent.
    Due(LocalInstant),
    Connected(Result<T, Unconnected>),
    Answered(RequestId, Box<Answered<T>>),
}

impl<C: Clock, S: Store, T: Stage> TurnsTask<C, S, T> {
    pub(crate) fn new(
        clock: C,
        store: S,
        engine: Recorded,
        queues: watch::Receiver<Queues>,
        holds: Holds,
        channels: Channels,
    ) -> Self {
        let log = NoteLog::new(engine.id());
        Self {
            clock,
            store,
            stage: PhantomData,
            engine,
            queues,
            holds,
            channels,
            line: Line::Down,
            asked: None,
            lead: Lead::default(),
            patience: Patience::new(CONNECT_TIMEOUT_MIN, CONNECT_TIMEOUT_MAX),
            drain_asked: false,
            trouble: None,
            log,
            observer: Arc::new(Nobody),
            cue: Cue::default(),
            horizon: watch::channel(None).0,
            next_schedule: None,
            clock_was_set: false,
        }
    }

    /// Tell this one what happens.
    pub(crate) fn watched_by(self, observer: observer::Told) -> Self {
        Self { observer, ..self }
    }

    /// Give this cue.
    pub(crate) fn giving(self, cue: Cue) -> Self {
        Self { cue, ..self }
    }

    /// Tell this one up to when schedules are to be fired.
    pub(crate) fn firing(self, horizon: Horizon) -> Self {
        Self { horizon, ..self }
    }

    pub(crate) async fn run(mut self) -> TurnsEnd {
        let end = self.carry().await;
        self.engine.end();
        end
    }

    async fn carry(&mut self) -> TurnsEnd {
        self.engine.handle_input(self.clock.now(), Input::Wake);
        loop {
            while let Some(output) = self.engine.poll_output() {
                if self.carry_out(output) {
                    return TurnsEnd::Lost;
                }
            }
            self.lead.is_over();
            self.publish();
            match self.next_event().await {
                Event::Due(at) => self.due(at),
                Event::Told(Some(told)) => self.told(told),
                Event::Told(None) => return TurnsEnd::Stopped,
                Event::Connected(connection) => self.connected(connection),
                Event::Answered(request, answered) => self.answered(request, *answered),
            }
        }
    }

    async fn next_event(&mut self) -> Event<S::Turns> {
        let timeout = self.engine.poll_timeout();
        let (clock, lead) = (&self.clock, &self.lead);
        let wake = async {
            match timeout {
                Some((at, Reason::Beat)) => {
                    clock.sleep_nearly_until(lead.before(at)).await;
                    Event::Due(at)
                }
                Some((at, _)) => {
                    clock.sleep_until(at).await;
                    Event::Told(Some(Input::Wake.into()))
                }
                None => std::future::pending().await,
            }
        };
        let line = &mut self.line;
        let database = async {
            match line {
                Line::Down | Line::Ready(_) => std::future::pending().await,
                Line::Connecting(connecting, _) => Event::Connected(connecting.as_mut().await),
                Line::Busy(request, in_flight) => {
                    let answered = in_flight.as_mut().await;
                    Event::Answered(*request, Box::new(answered))
                }
            }
        };
        tokio::select! {
            biased;
            event = database => event,
            told = self.channels.inputs.recv() => Event::Told(told),
            event = wake => event,
        }
    }

    /// It is time for the beat that is planned for `at`: a little earlier than that, by what sending takes.
    fn due(&mut self, at: LocalInstant) {
        self.lead.woken(at);
        self.engine.handle_input(self.clock.now().max(at), Input::Wake);
    }

    /// Do what the engine wants; true when it is finished.
    fn carry_out(&mut self, output: Output) -> bool {
        match output {
            Output::Turn { request, statement, due, not_after } => {
                if let TurnKind::Beat { claim: Some(claim) } = &statement.kind {
                    self.holds.asked(claim.token);
                }
                self.log.sending(&statement, due, self.clock.now());
                self.send(Waiting { request, statement, not_after });
            }
            Output::Work { request, statement, not_after } => {
                if let WorkStatement::Claim(claim) = &statement {
                    self.holds.asked(claim.token);
                }
                self.asked = Some(request);
                let (report, held) = (self.report(), self.holds.list());
                let asked = Asked { request, statement, not_after, report, held };
                self.order(Order::Statement(asked));
            }
            Output::Abandon(request) => self.abandon(request),
            Output::Retire(_) => return true,
            Output::Note(note) => {
                let period = self.engine.row().map_or(Period::DEFAULT, |row| row.cadence.period);
                self.log.note(&note, period);
                self.observer.noted(&note);
                self.clock_was_set |= matches!(note, Note::ClockStep | Note::ServerChanged);
                if let (Note::Beat { slot, accepted: true, .. }, Some(row)) =
                    (&note, self.engine.row())
                {
                    self.cue.beaten(*slot, row);
                    if std::mem::take(&mut self.clock_was_set) {
                        self.horizon.send_replace(Some(schedules::Due::Anew));
                    } else if let Some((at, next)) = self.next_schedule.take() {
                        schedules::beaten(&self.horizon, at, Some(next), period);
                    }
                }
            }
        }
        false
    }

    fn order(&self, order: Order) {
        // Without a receiver the node is about to stop, and this task with it.
        let _ = self.channels.orders.send(order);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use turnwise_engine::journal::{Header, VERSION};
    use turnwise_engine::{Claim, NodeId, Token};

    use super::*;
    use crate::clock::BootClock;
    use crate::job::{ClaimedJob, JobId};
    use crate::shell::PreciseThread;
    use crate::store::sqlite::SqliteStore;

    pub(super) fn job() -> ClaimedJob {
        ClaimedJob {
            id: JobId::generate(),
            token: Token(1),
            queue: "default".to_owned(),
            method: "POST".to_owned(),
            url: "/x".to_owned(),
            headers: None,
            body: None,
            body_bytes: 0,
            attempt: 1,
            max_attempts: 20,
            hand_backs: 0,
            deadline_ms: 1,
            scheduled_at: ServerInstant::from_micros(0),
            particulars: Default::default(),
        }
    }

    pub(super) fn header() -> Header {
        Header {
            version: VERSION,
            id: NodeId::from_u128(1),
            capacity: 4,
            seed: 1,
            now: LocalInstant::from_nanos(1),
            node: "n".to_owned(),
        }
    }

    #[test]
    fn a_statement_carries_what_is_held_as_it_is_asked_for() {
        let (_, inputs) = mpsc::unbounded_channel();
        let (orders, mut orders_out) = mpsc::unbounded_channel();
        let channels = Channels { inputs, orders, pulse: watch::channel(Pulse::default()).0 };
        let store = SqliteStore::open("sqlite::memory:").unwrap();
        let (queues, holds) = (watch::channel(Queues::All).1, Holds::default());
        let engine = Recorded::new(header(), None);
        let mut task = TurnsTask::<_, _, PreciseThread>::new(
            BootClock,
            store,
            engine,
            queues,
            holds.clone(),
            channels,
        );
        let not_after = LocalInstant::from_nanos(u64::MAX);
        let mut ask = |request, statement| {
            let request = RequestId(request);
            task.carry_out(Output::Work { request, statement, not_after });
        };
        holds.took(&[job()]);
        ask(1, WorkStatement::Claim(Claim { token: Token(7), limit: 1 }));
        ask(2, WorkStatement::Reconcile);
        holds.asked(Token(8));
        holds.took(&[job()]);
        ask(3, WorkStatement::Reconcile);
        let orders = std::iter::from_fn(|| orders_out.try_recv().ok());
        let held = orders.filter_map(|order| match order {
            Order::Statement(Asked { statement: WorkStatement::Reconcile, held, .. }) => {
                Some((held.jobs.len(), held.last))
            }
            _ => None,
        });
        assert_eq!(held.collect::<Vec<_>>(), [(1, Token(7)), (2, Token(8))]);
    }
}
