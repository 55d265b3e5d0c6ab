//! The secret that the nodes of a database share, as this process knows it. Decides what becomes of it when the database has
//! another one, or none any more: a server that took over may have lost it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use turnwise_engine::{NodeId, Token};

use super::Key;
use crate::job::JobId;
use crate::store::{Store, StoreError};

/// Under which name it stands in the database.
const NAME: &str = "callback";

/// The secret; all clones know the same.
#[derive(Clone)]
pub struct Secret(Arc<Mutex<Known>>);

struct Known {
    /// What the database has, as far as is known, and what it is offered where it has none: no other process offers the same,
    /// and nobody can guess it.
    secret: String,
    /// Once it was looked up.
    key: Option<Key>,
    /// Of the one before: the URLs that were made with it are still known here.
    before: Option<Key>,
    looked_up: Option<Instant>,
    was_used: bool,
}

/// The secret is not shown.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// The secret of a process that offers this one to its database.
    pub fn offering(secret: String) -> Self {
        let known = Known { secret, key: None, before: None, looked_up: None, was_used: false };
        Self(Arc::new(Mutex::new(known)))
    }

    /// Look it up. Where the database has none (any more), what is known here becomes it.
    ///
    /// # Errors
    ///
    /// What the database said.
    pub async fn look_up<S: Store>(&self, store: &S) -> Result<(), StoreError> {
        let offered = self.known().secret.clone();
        let kept = store.secret(NAME, &offered).await?;
        let mut known = self.known();
        known.looked_up = Some(Instant::now());
        if known.key.is_none() || known.secret != kept {
            if known.key.is_some() {
                tracing::warn!(
                    "the database has another secret for callbacks than before: it was changed, or a server that took \
                     over has lost it; other nodes no longer know the URLs that were made with the old one"
                );
                known.before = known.key.take();
            }
            known.key = Key::of(&kept);
            known.secret = kept;
        }
        Ok(())
    }

    /// By which URLs are made; none before it was looked up, and where it is empty.
    pub(crate) fn key(&self) -> Option<Key> {
        let mut known = self.known();
        known.was_used = true;
        known.key.clone()
    }

    /// Whether somebody has asked for the key since this was asked last.
    pub(crate) fn was_used(&self) -> bool {
        std::mem::take(&mut self.known().was_used)
    }

    /// Whether it was looked up so short a time ago.
    pub(super) fn was_looked_up_within(&self, time: Duration) -> bool {
        self.known().looked_up.is_some_and(|at| at.elapsed() < time)
    }

    /// Whether there is a key to know proofs by.
    pub(super) fn is_known(&self) -> bool {
        self.known().key.is_some()
    }

    /// Whether `proof` is that of the attempt under this claim.
    pub(super) fn opens(&self, proof: &str, job: JobId, claim: (NodeId, Token)) -> bool {
        let known = self.known();
        let keys = [&known.key, &known.before];
        keys.into_iter().flatten().any(|key| key.opens(proof, job, claim))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::store::sqlite::SqliteStore;

    const CLAIM: (NodeId, Token) = (NodeId::from_u128(3), Token(4));

    async fn store() -> SqliteStore {
        let store = SqliteStore::open("sqlite::memory:").unwrap();
        store.migrate().await.unwrap();
        store
    }

    fn proof(secret: &Secret, job: JobId) -> String {
        let url = secret.key().unwrap().url("http://b", job, CLAIM);
        url.rsplit_once('/').unwrap().1.to_owned()
    }

    #[tokio::test]
    async fn nodes_know_each_others_proofs() {
        let store = store().await;
        let [a, b] = ["a", "b"].map(|offered| Secret::offering(offered.to_owned()));
        assert!(a.key().is_none() && !a.is_known() && !a.was_looked_up_within(Duration::MAX));
        a.look_up(&store).await.unwrap();
        b.look_up(&store).await.unwrap();
        assert!(b.was_looked_up_within(Duration::MAX) && !b.was_looked_up_within(Duration::ZERO));
        let job = JobId(Uuid::from_u128(1));
        assert!(b.opens(&proof(&a, job), job, CLAIM));
        assert!(!b.opens(&proof(&a, job), JobId(Uuid::from_u128(2)), CLAIM));
    }

    #[tokio::test]
    async fn what_a_server_has_lost_is_offered_to_it_again() {
        let [before, after] = [store().await, store().await];
        let [a, late] = ["a", "late"].map(|offered| Secret::offering(offered.to_owned()));
        let b = Secret::offering("b".to_owned());
        a.look_up(&before).await.unwrap();
        b.look_up(&before).await.unwrap();
        b.look_up(&after).await.unwrap();
        late.look_up(&after).await.unwrap();
        let job = JobId(Uuid::from_u128(1));
        assert!(late.opens(&proof(&a, job), job, CLAIM));
    }

    #[tokio::test]
    async fn another_one_is_taken_over_and_the_old_one_remembered() {
        let [before, after] = [store().await, store().await];
        let [a, new] = ["a", "new"].map(|offered| Secret::offering(offered.to_owned()));
        a.look_up(&before).await.unwrap();
        new.look_up(&after).await.unwrap();
        let job = JobId(Uuid::from_u128(1));
        let old = proof(&a, job);
        assert!(!a.opens(&proof(&new, job), job, CLAIM));
        a.look_up(&after).await.unwrap();
        assert!(a.opens(&proof(&new, job), job, CLAIM) && a.opens(&old, job, CLAIM));
        assert!(new.opens(&proof(&a, job), job, CLAIM));
    }
}
