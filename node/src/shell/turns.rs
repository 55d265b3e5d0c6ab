//! The task that owns the engine and the beat's connection: carries what the engine wants to the
//! database and what happens to the engine. Decides nothing that the engine could decide.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use turnwise_engine::{
    Fate, Input, LocalInstant, Note, Output, Period, Reason, RequestId, ServerInstant, Status,
    TurnAnswer, TurnKind, TurnStatement, WorkStatement,
};

use super::holds::{Held, Holds};
use super::journal::Recorded;
use super::lead::Lead;
use super::life::Stage;
use super::notes::NoteLog;
use super::observer::{self, Nobody};
use super::patience::Patience;
use super::retention::Cue;
use super::schedules::{self, Horizon};
use crate::clock::Clock;
use crate::job::ClaimedJob;
use crate::sabotage::{Bug, Sabotage};
use crate::store::{NodeReport, Queues, Store, StoreError, TurnReply, TurnRequest, Turns};

/// How long making the beat's connection ready may take at first: connecting, logging in, preparing. What is lost
/// on the way there may be lost for good, and each slot that is waited through is missed: so most tries are soon
/// given up, and only some may take longer, up to [`CONNECT_TIMEOUT_MAX`] ([`Patience`]).
const CONNECT_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// The longest that it may take.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(10);

/// What the engine's task tells the task that does the work.
#[derive(Debug)]
pub(crate) enum Order {
    /// Send a statement on the jobs.
    Statement(Asked),
    /// Give the statement up.
    Abandon(RequestId),
    /// Jobs that this node has claimed.
    Run(Vec<ClaimedJob>),
}

/// A statement on the jobs with all that goes along.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) request: RequestId,
    pub(crate) statement: WorkStatement,
    pub(crate) not_after: LocalInstant,
    pub(crate) report: NodeReport,
    /// What the node holds as the statement is asked for: when it is sent, the node may hold more, under later
    /// claims.
    pub(crate) held: Held,
}

/// What the engine is told, and the jobs that came with it.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) input: Input,
    pub(crate) jobs: Vec<ClaimedJob>,
}

impl From<Input> for Told {
    fn from(input: Input) -> Self {
        Self { input, jobs: Vec::new() }
    }
}

/// What everybody may know of the engine, as of its last input.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    /// Server time minus local time, in nanoseconds; none before the first exchange.
    pub offset: Option<i64>,
    /// The node is in the newest ring.
    pub in_ring: bool,
    /// The node is out of the ring for good.
    pub left: bool,
    /// Jobs held.
    pub held: u32,
    /// No claim is on its way or lost: `held` is all that this node has.
    pub settled: bool,
    /// How long a node may need to leave: the round of the longest ring, and the two slots that a change takes.
    pub round: Duration,
    /// Somebody asked the node to drain, by its row in the table.
    pub drain_asked: bool,
    /// Why the last statement on the turn row failed; none when it was answered.
    pub trouble: Option<String>,
}

/// Why the task ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TurnsEnd {
    /// The farm declared the node lost.
    Lost,
    /// Nobody wants its inputs any more.
    Stopped,
}

/// The ends of the channels that the task talks through.
///
/// The channels are not bounded by themselves: what travels in them is bounded by the engine, which has one
/// statement of each kind in flight and no more jobs than the node's capacity.
pub(crate) struct Channels {
    pub(crate) inputs: mpsc::UnboundedReceiver<Told>,
    pub(crate) orders: mpsc::UnboundedSender<Order>,
    pub(crate) pulse: watch::Sender<Pulse>,
}

type InFlight<T> = Pin<Box<dyn Future<Output = Answered<T>> + Send>>;

/// What came of a statement.
struct Answered<T> {
    /// Its connection.
    turns: T,
    reply: Result<TurnReply, StoreError>,
    /// When it could go, if it came to that.
    ready: Option<LocalInstant>,
}
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, Unconnected>> + Send>>;

/// Why there is no connection.
struct Unconnected {
    error: StoreError,
    /// It took too long.
    timed_out: bool,
}

/// The beat's connection.
enum Line<T> {
    /// None, and nobody is making one.
    Down,
    /// One is being made; a statement may be waiting for it.
    Connecting(Connecting<T>, Option<Waiting>),
    /// Ready for a statement.
    Ready(T),
    /// A statement is on its way.
    Busy(RequestId, InFlight<T>),
}

struct Waiting {
    request: RequestId,
    statement: TurnStatement,
    not_after: LocalInstant,
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

    /// Tell the engine. Jobs are run only if it still waits for their statement: one that it has given up,
    /// just as the answer came, is recovered or released, and its jobs must not run here meanwhile.
    fn told(&mut self, told: Told) {
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

    fn send(&mut self, waiting: Waiting) {
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

    fn abandon(&mut self, request: RequestId) {
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

    fn connected(&mut self, connection: Result<S::Turns, Unconnected>) {
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

    fn answered(
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

    fn not_sent(&mut self, request: RequestId) {
        let input = Input::Failed { request, fate: Fate::NotSent };
        self.engine.handle_input(self.clock.now(), input);
    }

    fn connect(&self) -> Connecting<S::Turns> {
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

    fn order(&self, order: Order) {
        // Without a receiver the node is about to stop, and this task with it.
        let _ = self.channels.orders.send(order);
    }

    fn report(&self) -> NodeReport {
        let now = self.clock.now();
        let status = self.engine.status(now);
        let micros = |nanos: i64| nanos.div_euclid(1_000);
        let wall = self.clock.wall_micros();
        NodeReport {
            offset_us: status.offset.map(|offset| {
                micros(offset.nanos.saturating_add(now.as_nanos() as i64)).saturating_sub(wall)
            }),
            offset_error_us: status.offset.map(|offset| micros(offset.error) + 1),
            transit_us: status.way_there.map(micros),
            running: status.held,
        }
    }

    fn round(&self) -> Duration {
        let Some(row) = self.engine.row() else { return Duration::ZERO };
        let rings = row.roster.versions.iter().map(|version| version.ring.len());
        let slots = u32::try_from(rings.max().unwrap_or(0) + 2).unwrap_or(u32::MAX);
        row.cadence.period.as_duration().saturating_mul(slots)
    }

    fn publish(&self) {
        let Status { offset, rank, left, held, settled, .. } = self.engine.status(self.clock.now());
        self.channels.pulse.send_replace(Pulse {
            offset: offset.map(|offset| offset.nanos),
            in_ring: rank.is_some(),
            left,
            held,
            settled,
            round: self.round(),
            drain_asked: self.drain_asked,
            trouble: self.trouble.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use turnwise_engine::journal::{Header, VERSION};
    use turnwise_engine::{Claim, Kept, NodeId, ServerInstant, Token, WorkAnswer};

    use super::*;
    use crate::clock::BootClock;
    use crate::job::JobId;
    use crate::shell::PreciseThread;
    use crate::store::sqlite::SqliteStore;

    fn job() -> ClaimedJob {
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

    fn header() -> Header {
        Header {
            version: VERSION,
            id: NodeId::from_u128(1),
            capacity: 4,
            seed: 1,
            now: LocalInstant::from_nanos(1),
            node: "n".to_owned(),
        }
    }

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
