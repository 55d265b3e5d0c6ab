//! Decides how old a count may be before the database is asked again: any number of pages cost no more than one.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// Something that was read a moment ago.
#[derive(Debug)]
pub(crate) struct Cached<T> {
    /// How old it may be.
    age_max: Duration,
    last: Mutex<Option<(Arc<T>, Instant)>>,
}

impl<T> Cached<T> {
    pub(crate) fn new(age_max: Duration) -> Self {
        Self { age_max, last: Mutex::default() }
    }

    /// What was read last, or what is read now when that is too old. Those who ask meanwhile wait for the one answer.
    pub(crate) async fn get<E, F>(&self, read: impl FnOnce() -> F) -> Result<Arc<T>, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let mut last = self.last.lock().await;
        if let Some((value, at)) = &*last
            && at.elapsed() < self.age_max
        {
            return Ok(Arc::clone(value));
        }
        let value = Arc::new(read().await?);
        *last = Some((Arc::clone(&value), Instant::now()));
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_read_again_when_it_is_too_old_and_after_a_failure() {
        let cached = Cached::new(Duration::from_secs(60));
        let failed: Result<Arc<u8>, &str> = cached.get(|| async { Err("no") }).await;
        assert_eq!(failed, Err("no"));
        for number in [1, 2] {
            let got = cached.get(|| async move { Ok::<u8, &str>(number) }).await;
            assert_eq!(got, Ok(Arc::new(1)));
        }
        let cached = Cached::new(Duration::ZERO);
        for number in [1, 2] {
            let got = cached.get(|| async move { Ok::<u8, &str>(number) }).await;
            assert_eq!(got, Ok(Arc::new(number)));
        }
    }
}
