//! Decides when a connection is used again: at most so many at once, and only one whose last statement came to its end;
//! and how many wait for work: one, and those that were needed a short while ago. Opens none itself, so that the
//! opener's error is what the caller sees.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// All but one of the connections are closed when they had no work for so long.
const SURPLUS_KEPT: Duration = Duration::from_secs(10);

/// Connections that wait for work.
#[derive(Debug)]
pub(super) struct Connections<C> {
    idle: Arc<Mutex<Idle<C>>>,
    places: Arc<Semaphore>,
}

/// Those that wait for work, the last used one last.
#[derive(Debug)]
struct Idle<C> {
    waiting: Vec<(C, Instant)>,
    /// Somebody looks after those that are too many.
    is_watched: bool,
}

impl<C> Idle<C> {
    /// Take those out that had no work for [`SURPLUS_KEPT`], and leave one.
    fn surplus(&mut self) -> Vec<(C, Instant)> {
        let most = self.waiting.len().saturating_sub(1);
        let old = |(_, since): &(C, Instant)| since.elapsed() >= SURPLUS_KEPT;
        let count = self.waiting.iter().take(most).take_while(|waiting| old(waiting)).count();
        self.waiting.drain(..count).collect()
    }
}

fn lock<C>(idle: &Mutex<Idle<C>>) -> MutexGuard<'_, Idle<C>> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<C> Connections<C> {
    pub(super) fn new(max: u32) -> Self {
        let places = Semaphore::new(max.max(1) as usize);
        let idle = Idle { waiting: Vec::new(), is_watched: false };
        Self { idle: Arc::new(Mutex::new(idle)), places: Arc::new(places) }
    }

    /// Close those that wait for work.
    pub(super) fn rest(&self) {
        lock(&self.idle).waiting.clear();
    }

    /// A place among the few, when one is free.
    pub(super) async fn place(&self) -> Place<C> {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.places).acquire_owned().await.ok();
        Place { permit, idle: Arc::clone(&self.idle) }
    }
}

/// The right to hold one connection.
#[derive(Debug)]
pub(super) struct Place<C> {
    permit: Option<OwnedSemaphorePermit>,
    idle: Arc<Mutex<Idle<C>>>,
}

impl<C> Place<C> {
    /// A connection that was used before, if any waits.
    pub(super) fn used(&self) -> Option<C> {
        lock(&self.idle).waiting.pop().map(|(connection, _)| connection)
    }

    pub(super) fn hold(self, connection: C) -> Lent<C> {
        Lent { connection, place: self }
    }
}

/// A connection in use. Dropped, it is closed: whoever gave up in the middle of a statement must not hand
/// its rest to the next one.
#[derive(Debug)]
pub(super) struct Lent<C> {
    connection: C,
    place: Place<C>,
}

impl<C: Send + 'static> Lent<C> {
    /// The connection is fit for the next.
    pub(super) fn give_back(self) {
        let Self { connection, place } = self;
        let wants_watch = {
            let mut idle = lock(&place.idle);
            idle.waiting.push((connection, Instant::now()));
            let wants_watch = idle.waiting.len() > 1 && !idle.is_watched;
            idle.is_watched |= wants_watch;
            wants_watch
        };
        if wants_watch {
            watch(&place.idle);
        }
        drop(place.permit);
    }
}

/// Close in time what is too much. (Nobody may come for a connection for a long while.)
fn watch<C: Send + 'static>(idle: &Arc<Mutex<Idle<C>>>) {
    let Ok(runtime) = Handle::try_current() else {
        lock(idle).is_watched = false;
        return;
    };
    let idle: Weak<_> = Arc::downgrade(idle);
    runtime.spawn(async move {
        loop {
            tokio::time::sleep(SURPLUS_KEPT).await;
            let Some(idle) = idle.upgrade() else { return };
            let surplus = lock(&idle).surplus();
            drop(surplus);
            let mut idle = lock(&idle);
            if idle.waiting.len() <= 1 {
                idle.is_watched = false;
                return;
            }
        }
    });
}

impl<C> Deref for Lent<C> {
    type Target = C;
    fn deref(&self) -> &C {
        &self.connection
    }
}

impl<C> DerefMut for Lent<C> {
    fn deref_mut(&mut self) -> &mut C {
        &mut self.connection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many wait for work.
    fn waiting(connections: &Connections<u32>) -> usize {
        lock(&connections.idle).waiting.len()
    }

    /// Use so many at once, opened or used before.
    async fn used(connections: &Connections<u32>, count: u32) {
        let mut lent = Vec::new();
        for number in 0..count {
            let place = connections.place().await;
            let connection = place.used().unwrap_or(number);
            lent.push(place.hold(connection));
        }
        lent.into_iter().for_each(Lent::give_back);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_needed_under_load_is_closed_when_it_is_over() {
        let connections = Connections::new(3);
        used(&connections, 3).await;
        assert_eq!(waiting(&connections), 3);
        // One is enough from now on, and never rests for long.
        for _ in 0..8 {
            tokio::time::sleep(SURPLUS_KEPT / 3).await;
            used(&connections, 1).await;
        }
        assert_eq!(waiting(&connections), 1);
        used(&connections, 2).await;
        tokio::time::sleep(SURPLUS_KEPT * 3).await;
        assert_eq!(waiting(&connections), 1, "the last one stays, however long nobody comes");
        used(&connections, 2).await;
        connections.rest();
        assert_eq!(waiting(&connections), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_needed_again_and_again_is_kept() {
        let connections = Connections::new(2);
        for _ in 0..20 {
            used(&connections, 2).await;
            tokio::time::sleep(SURPLUS_KEPT / 2).await;
            assert_eq!(waiting(&connections), 2);
        }
    }

    #[tokio::test]
    async fn no_more_are_lent_than_there_are_places() {
        let connections = Connections::<u32>::new(1);
        let lent = connections.place().await.hold(1);
        let other = futures_util::FutureExt::now_or_never(connections.place());
        assert!(other.is_none());
        drop(lent);
        assert!(connections.place().await.used().is_none(), "what was dropped is closed");
    }
}
