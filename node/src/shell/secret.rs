//! Looks whether the database still has the secret by which callbacks are known, and the same. Decides how often: a node that has sent
//! no URL since it looked last asks nothing.

use std::time::Duration;

use super::aside::Aside;
use crate::callback::Secret;
use crate::store::Store;

/// How often it is looked up, while it is used.
pub(crate) const LOOK_UP_EVERY: Duration = Duration::from_secs(60);
/// A question that is not answered is asked again with the next.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(5);

/// The task that looks.
pub(crate) struct SecretTask<S> {
    pub(crate) aside: Aside<S>,
    pub(crate) secret: Secret,
    pub(crate) every: Duration,
}

impl<S: Store> SecretTask<S> {
    pub(crate) async fn run(self) {
        loop {
            tokio::time::sleep(self.every).await;
            if !self.secret.was_used() {
                continue;
            }
            let store = self.aside.store();
            match tokio::time::timeout(LOOK_UP_TIMEOUT, self.secret.look_up(&store)).await {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(error)) => {
                    tracing::debug!(
                        "it is not known whether callbacks have the same secret: {error}"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::SqliteStore;

    /// What the database has after a while, which had none when the task began.
    async fn kept(is_used: bool) -> String {
        let [lost, store] = [(); 2].map(|()| SqliteStore::open("sqlite::memory:").unwrap());
        lost.migrate().await.unwrap();
        store.migrate().await.unwrap();
        let secret = Secret::offering("known".to_owned());
        secret.look_up(&lost).await.unwrap();
        let every = Duration::from_millis(1);
        let aside = Aside::of(store.clone());
        let task = tokio::spawn(SecretTask { aside, secret: secret.clone(), every }.run());
        for _ in 0..100 {
            if is_used {
                assert!(secret.key().is_some());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        task.abort();
        store.secret("callback", "another").await.unwrap()
    }

    #[tokio::test]
    async fn a_secret_that_is_gone_is_offered_again_by_who_uses_it() {
        assert_eq!(kept(true).await, "known");
        assert_eq!(kept(false).await, "another");
    }
}
