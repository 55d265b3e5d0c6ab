//! Decides when a connection is used again: at most so many at once, and only one whose last statement
//! came to its end. Opens none itself, so that the opener's error is what the caller sees.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections that wait for work.
#[derive(Debug)]
pub(super) struct Connections<C> {
    idle: Arc<Mutex<Vec<C>>>,
    places: Arc<Semaphore>,
}

impl<C> Connections<C> {
    pub(super) fn new(max: u32) -> Self {
        let places = Semaphore::new(max.max(1) as usize);
        Self { idle: Arc::default(), places: Arc::new(places) }
    }

    /// Close those that wait for work.
    pub(super) fn rest(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
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
    idle: Arc<Mutex<Vec<C>>>,
}

impl<C> Place<C> {
    /// A connection that was used before, if any waits.
    pub(super) fn used(&self) -> Option<C> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
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

impl<C> Lent<C> {
    /// The connection is fit for the next.
    pub(super) fn give_back(self) {
        let Self { connection, place } = self;
        place.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        drop(place.permit);
    }
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
