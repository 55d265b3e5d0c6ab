//! Decides how old a count may be before the database is asked again: any number of pages cost no more than one, also
//! while the database does not answer.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::store::StoreError;

/// How long a failure is told to all who ask. Without that, each would wait for one of its own.
const FAILURE_AGE: Duration = Duration::from_secs(1);

/// Something that was read a moment ago, or that could not be read.
#[derive(Debug)]
pub(crate) struct Cached<T, E = StoreError> {
    /// How old it may be.
    age_max: Duration,
    /// How old a failure may be.
    failure_age_max: Duration,
    last: Mutex<Option<Read<T, E>>>,
}

/// What came of reading, and when.
type Read<T, E> = (Result<Arc<T>, E>, Instant);

impl<T, E: Clone> Cached<T, E> {
    pub(crate) fn new(age_max: Duration) -> Self {
        Self { age_max, failure_age_max: FAILURE_AGE, last: Mutex::default() }
    }

    /// What was read last, or what is read now when that is too old. Those who ask meanwhile wait for the one answer, and
    /// for the one failure.
    pub(crate) async fn get<F>(&self, read: impl FnOnce() -> F) -> Result<Arc<T>, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let mut last = self.last.lock().await;
        if let Some((result, at)) = &*last
            && at.elapsed() < if result.is_ok() { self.age_max } else { self.failure_age_max }
        {
            return result.clone();
        }
        let result = read().await.map(Arc::new);
        *last = Some((result.clone(), Instant::now()));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::within;

    const LONG: Duration = Duration::from_secs(60);

    fn cached(age_max: Duration, failure_age_max: Duration) -> Cached<u8, &'static str> {
        Cached { age_max, failure_age_max, last: Mutex::default() }
    }

    #[tokio::test]
    async fn it_is_read_again_when_it_is_too_old_and_so_is_a_failure() {
        let kept = cached(LONG, Duration::ZERO);
        assert_eq!(kept.get(|| async { Err("no") }).await, Err("no"));
        for number in [1, 2] {
            assert_eq!(kept.get(|| async move { Ok(number) }).await, Ok(Arc::new(1)));
        }
        let not_kept = cached(Duration::ZERO, LONG);
        for number in [1, 2] {
            assert_eq!(not_kept.get(|| async move { Ok(number) }).await, Ok(Arc::new(number)));
        }
        assert_eq!(not_kept.get(|| async { Err("no") }).await, Err("no"));
        assert_eq!(not_kept.get(|| async { Ok(3) }).await, Err("no"), "a failure is shared");
    }

    #[tokio::test]
    async fn those_who_wait_for_a_database_that_never_answers_share_one_failure() {
        let kept: Cached<u8> =
            Cached { age_max: LONG, failure_age_max: LONG, last: Mutex::default() };
        let asked = std::sync::atomic::AtomicU32::new(0);
        let get = || {
            kept.get(|| {
                asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                within(Duration::from_millis(20), std::future::pending())
            })
        };
        let (one, other, third) = tokio::join!(get(), get(), get());
        assert!(one.is_err() && other.is_err() && third.is_err());
        assert_eq!(asked.into_inner(), 1);
    }
}
