//! Decides what becomes of an order whose sender goes away: what was begun is brought to its end all the same, so that nothing
//! is half done, and the connection to the database is whole.

use std::future::Future;

use super::problem::{Kind, Problem};
use super::v1::Shared;
use crate::audit::{Order, Touched};
use crate::store::StoreError;
use crate::watch::{ANSWER_TIMEOUT, within};

/// What comes of an order, waited for as long as people wait for the database. When it was carried out, that is kept.
pub(super) async fn to_its_end<T: Touched + Send + Sync + 'static>(
    api: &Shared,
    order: Order,
    call: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, Problem> {
    let store = api.store().clone();
    let done =
        to_any_end(async move { order.carry_out(&store, within(ANSWER_TIMEOUT, call)).await });
    Ok(done.await??)
}

/// The same for what has a limit of its own.
pub(super) async fn to_any_end<T: Send + 'static>(
    order: impl Future<Output = T> + Send + 'static,
) -> Result<T, Problem> {
    tokio::spawn(order).await.map_err(|error| {
        let remedy = "It is not known whether it was done; the log of the node tells more";
        Problem::new(Kind::Database, format!("the node failed at it: {error}"), remedy)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn an_order_goes_on_though_nobody_waits_for_it() {
        let (go, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (on, told) = (Arc::clone(&go), Arc::clone(&done));
        let mut waiting = Box::pin(to_any_end(async move {
            on.notified().await;
            told.notify_one();
        }));
        assert!((&mut waiting).now_or_never().is_none(), "it was begun");
        drop(waiting);
        go.notify_one();
        done.notified().await;
    }
}
