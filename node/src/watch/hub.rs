//! Decides when to look at the database, and tells all who watch: one reader for any number of them, and none while
//! there is nobody.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::{Instant, sleep};
use turnwise_engine::{ServerInstant, Slot};

use super::event::{Event, What};
use super::farm::{Farm, Sight};
use super::limit::{ANSWER_TIMEOUT, within};
use super::slots::SLOTS_KEPT;
use crate::redact::Redaction;
use crate::store::{AnyStore, Store, StoreError, Views};

/// So long after a boundary a beat has arrived, where nothing is wrong.
const AFTER_BOUNDARY: Duration = Duration::from_millis(30);
/// A beat that has not been seen is looked for again after so long: with the way to the screen it must stay below a
/// quarter of a second.
const AGAIN: Duration = Duration::from_millis(80);
/// No two looks are nearer than this, however short the period.
const APART_MIN: Duration = Duration::from_millis(40);
/// The first wait after a failure; it doubles up to [`WAIT_MAX`].
const WAIT_MIN: Duration = Duration::from_millis(500);
/// The longest wait after a failure.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// The most beats that one look asks for.
const BEATS_MAX: u32 = 2_000;
/// So many looks wait for a watcher that is slow; it misses what is older.
const BEHIND_MAX: usize = 64;

/// What a look brought.
#[derive(Clone, Debug)]
pub struct News {
    /// What happened. May be nothing.
    pub events: Arc<[Event]>,
    /// Where things stand, as of the last answer; none before the first.
    pub farm: Option<Arc<Farm>>,
    /// The database answered.
    pub answers: bool,
}

/// The one reader of a database, shared by all who watch it in this process.
#[derive(Clone, Debug)]
pub struct Hub {
    inner: Arc<Inner>,
    redaction: Redaction,
}

#[derive(Debug)]
struct Inner {
    store: AnyStore,
    begun: Instant,
    news: broadcast::Sender<News>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_reading: bool,
    /// The last sight, and when it was got.
    farm: Option<(Arc<Farm>, Instant)>,
}

/// The news, one after the other, for one who watches.
#[derive(Debug)]
pub struct Feed {
    news: broadcast::Receiver<News>,
}

impl Feed {
    /// The next news. One who was too slow goes on with what is there; its picture is complete all the same.
    pub async fn next(&mut self) -> Option<News> {
        loop {
            match self.news.recv().await {
                Ok(news) => return Some(news),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

impl From<AnyStore> for Hub {
    fn from(store: AnyStore) -> Self {
        Self::new(store)
    }
}

impl Hub {
    /// A reader of this database. It looks when somebody watches.
    pub fn new(store: AnyStore) -> Self {
        let news = broadcast::Sender::new(BEHIND_MAX);
        let inner = Inner { store, begun: Instant::now(), news, state: Mutex::default() };
        Self { inner: Arc::new(inner), redaction: Redaction::default() }
    }

    /// The same reader, whose readers show no values of these.
    #[must_use]
    pub fn redacting(self, redaction: Redaction) -> Self {
        Self { redaction, ..self }
    }

    /// Whose values are not to be shown.
    pub fn redaction(&self) -> &Redaction {
        &self.redaction
    }

    /// Watch, until the feed is dropped.
    pub fn watch(&self) -> Feed {
        let mut state = self.inner.state();
        let feed = Feed { news: self.inner.news.subscribe() };
        if !std::mem::replace(&mut state.is_reading, true) {
            tokio::spawn(Arc::clone(&self.inner).read());
        }
        feed
    }

    /// Where things stand: as of the last look while somebody watches, of a look that is made now otherwise.
    pub async fn farm(&self) -> Result<Arc<Farm>, StoreError> {
        if let Some(farm) = self.inner.fresh() {
            return Ok(farm);
        }
        let (farm, _) = within(ANSWER_TIMEOUT, self.inner.look(None)).await?;
        let farm = Arc::new(farm);
        self.inner.keep(&farm);
        Ok(farm)
    }

    /// The server's clock now, as far as the farm's last look tells.
    pub fn clock(&self, farm: &Farm) -> ServerInstant {
        let sight = farm.sight();
        let since = self.inner.begun.elapsed().saturating_sub(sight.answered);
        sight.look.clock.offset(nanos(since))
    }

    /// The database that it looks at.
    pub fn store(&self) -> &AnyStore {
        &self.inner.store
    }

    /// Whether it looks at the database by itself just now.
    pub fn is_reading(&self) -> bool {
        self.inner.state().is_reading
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last sight, unless it is too old to be shown.
    fn fresh(&self) -> Option<Arc<Farm>> {
        let state = self.state();
        let (farm, at) = state.farm.as_ref()?;
        // Watched, it is as new as can be; a page that is loaded by itself shares its look with those of the same moment.
        let age_max = match state.is_reading {
            true => farm.cadence().period.as_duration() + 2 * AGAIN,
            false => APART_MIN,
        };
        (at.elapsed() <= age_max).then(|| Arc::clone(farm))
    }

    /// Keep a look that a page made for itself, for those of the same moment. One who reads keeps what it has seen
    /// itself: a look by itself knows nothing of what happened before.
    fn keep(&self, farm: &Arc<Farm>) {
        let mut state = self.state();
        if !state.is_reading {
            state.farm = Some((Arc::clone(farm), Instant::now()));
        }
    }

    /// Look again and again, until nobody watches.
    async fn read(self: Arc<Self>) {
        let mut farm: Option<Farm> = None;
        let mut failures = 0;
        loop {
            let (events, wait) = match within(ANSWER_TIMEOUT, self.look(farm.as_ref())).await {
                Ok((seen, mut events)) => {
                    if std::mem::take(&mut failures) > 0 {
                        let at = events.first().and_then(|event| event.at.clone());
                        events.insert(0, Event { at, what: What::Answers });
                    }
                    let wait = until_next(&seen);
                    farm = Some(seen);
                    (events, wait)
                }
                Err(error) => (failed(&mut failures, error.to_string()), waited(failures)),
            };
            let shared = farm.clone().map(Arc::new);
            if let Some(farm) = &shared
                && failures == 0
            {
                self.state().farm = Some((Arc::clone(farm), Instant::now()));
            }
            // Nobody there to hear it is noticed below.
            let _ = self.news.send(News {
                events: events.into(),
                farm: shared,
                answers: failures == 0,
            });
            tokio::select! {
                biased;
                () = self.news.closed() => {}
                () = sleep(wait) => {}
            }
            let mut state = self.state();
            if self.news.receiver_count() == 0 {
                state.is_reading = false;
                // A database has few connections: one that nobody needs is given back.
                self.store.rest();
                return;
            }
        }
    }

    /// One look. `before` is what the last one came to.
    async fn look(&self, before: Option<&Farm>) -> Result<(Farm, Vec<Event>), StoreError> {
        let asked = Instant::now();
        let look = self.store.look().await?;
        let (answered, took) = (self.begun.elapsed(), asked.elapsed());
        let after = match before {
            Some(farm) if farm.newest_beat() > Slot(i64::MIN) => farm.newest_beat(),
            _ => look.row.slot - SLOTS_KEPT,
        };
        let beats = self.store.beats(after, BEATS_MAX).await?;
        let nodes = self.store.nodes().await?;
        let sight = Sight { look, beats, nodes, answered, took };
        Ok(match before {
            None => Farm::begin(&sight),
            Some(farm) => {
                let mut farm = farm.clone();
                let events = farm.see(&sight);
                (farm, events)
            }
        })
    }
}

/// The first failure is told, the others are waited through.
fn failed(failures: &mut u32, reason: String) -> Vec<Event> {
    *failures += 1;
    match failures {
        1 => vec![Event { at: None, what: What::Unreachable { reason } }],
        _ => Vec::new(),
    }
}

fn waited(failures: u32) -> Duration {
    WAIT_MIN.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(WAIT_MAX)
}

/// How long to wait for what can be seen next.
fn until_next(farm: &Farm) -> Duration {
    let sight = farm.sight();
    let clock = sight.look.clock;
    let slot = farm.slot_at(clock);
    // The beat of this slot, or of the next when it has been seen.
    let awaited = if farm.newest_beat() >= slot { farm.newest_beat() + 1 } else { slot };
    let arrival = farm.cadence().boundary(awaited).offset(nanos(AFTER_BOUNDARY));
    let verdict = farm.next_verdict(awaited).map(|over| over.offset(nanos(AFTER_BOUNDARY)));
    let next = verdict.map_or(arrival, |verdict| verdict.min(arrival));
    let ahead = next.nanos_from(clock);
    let wait = match u64::try_from(ahead) {
        Ok(ahead) => Duration::from_nanos(ahead),
        Err(_) => until_again(ahead.unsigned_abs(), farm.cadence().period.as_duration()),
    };
    // A clock that was set makes no wait longer than the next look would be.
    let longest = farm.cadence().period.as_duration() + AGAIN;
    wait.clamp(APART_MIN, longest)
}

/// How long to wait for what should have been seen so many nanoseconds ago: the longer it is overdue, the less often, and
/// in the end a few times a period.
fn until_again(overdue_nanos: u64, period: Duration) -> Duration {
    Duration::from_nanos(overdue_nanos / 4).min(period / 4).max(AGAIN)
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use turnwise_engine::{Period, TurnRow};

    use super::*;
    use crate::store::Look;

    fn farm() -> Arc<Farm> {
        let row = TurnRow::new(Period::DEFAULT);
        let look = Look { row, clock: ServerInstant::from_micros(0), refused: 0, stale_ends: 0 };
        let (answered, took) = (Duration::ZERO, Duration::ZERO);
        Arc::new(Farm::begin(&Sight { look, beats: vec![], nodes: vec![], answered, took }).0)
    }

    #[tokio::test]
    async fn a_page_s_own_look_takes_no_place_of_what_a_reader_has_seen() {
        let hub = Hub::new(AnyStore::connect("sqlite://nowhere.db", 1).unwrap());
        let kept = || hub.inner.state().farm.as_ref().map(|(farm, _)| Arc::clone(farm));
        let (watched, own) = (farm(), farm());
        *hub.inner.state() =
            State { is_reading: true, farm: Some((Arc::clone(&watched), Instant::now())) };
        hub.inner.keep(&own);
        assert!(Arc::ptr_eq(&kept().unwrap(), &watched));
        hub.inner.state().is_reading = false;
        hub.inner.keep(&own);
        assert!(Arc::ptr_eq(&kept().unwrap(), &own), "where nobody reads it is kept");
    }

    #[test]
    fn what_stays_away_is_looked_for_less_and_less_often() {
        let again = |overdue_ms: u64, period_ms| {
            until_again(overdue_ms * 1_000_000, Duration::from_millis(period_ms)).as_millis()
        };
        assert_eq!([again(0, 10_000), again(320, 10_000)], [80, 80]);
        assert_eq!([again(2_000, 10_000), again(u64::MAX / 1_000_000, 10_000)], [500, 2_500]);
        assert_eq!(again(5_000, 100), 80, "never more often than what is just due");
    }
}
