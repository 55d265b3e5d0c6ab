//! The contract of the clocks, on the one that runs in production.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![allow(
    clippy::disallowed_methods,
    reason = "both arms are tried, and the real one takes real time"
)]

#[path = "clock_contract/promises.rs"]
mod promises;

use promises::promises;
use turnwise_node::clock::BootClock;

macro_rules! each {
    ($($promise:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $promise() {
                promises::$promise(BootClock).await;
            }
        )*
    };
}
promises!(each);
