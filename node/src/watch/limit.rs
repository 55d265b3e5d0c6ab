//! Decides how long people wait for the database. A road that swallows packets says nothing for a quarter of an hour, and
//! holds the one connection as long: what takes longer than this is broken off, and said to have failed.

use std::future::Future;
use std::time::Duration;

use turnwise_engine::Fate;

use crate::store::StoreError;

/// How long a page, a button or a look waits for the database.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What the store answers, or an error after `limit`. What was asked for may have been done all the same.
pub(crate) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::Unreachable {
            database: "the URL that was given".to_owned(),
            reason: format!("no answer within {} s", limit.as_secs()),
            fate: Fate::Unknown,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_is_never_answered_fails_and_others_pass() {
        let never = within(Duration::from_millis(5), std::future::pending::<Result<(), _>>()).await;
        assert!(matches!(never, Err(StoreError::Unreachable { fate: Fate::Unknown, .. })));
        let answered = within(Duration::from_secs(60), async { Ok(7) }).await;
        assert_eq!(answered.ok(), Some(7));
    }
}
