//! A connection beside those that claims, ends and renewals need, for what must hold up none of them: opened when it is
//! needed, closed when it was not for a while. Decides nothing else.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::Store;

/// It is closed when nobody has asked for it for so long.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(10);

/// The connection, shared by the tasks that use it one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Aside<S> {
    store: S,
    kept: Arc<Mutex<Option<(S, Instant)>>>,
}

impl<S: Store> Aside<S> {
    pub(crate) fn of(store: S) -> Self {
        Self { store, kept: Arc::default() }
    }

    /// The database, by that connection.
    pub(crate) fn store(&self) -> S {
        let mut kept = self.kept();
        let (store, used) = kept.get_or_insert_with(|| (self.store.apart(), Instant::now()));
        *used = Instant::now();
        store.clone()
    }

    /// Close it, if nobody has asked for it for a while.
    pub(crate) fn rest(&self) {
        self.kept().take_if(|(_, used)| used.elapsed() >= KEPT_FOR);
    }

    fn kept(&self) -> MutexGuard<'_, Option<(S, Instant)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
