//! The contract of the clocks, on those of real machines: the one that runs in production, and the one that is
//! wrong on purpose.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![allow(
    clippy::disallowed_methods,
    reason = "both arms are tried, and the real one takes real time"
)]

#[path = "clock_contract/promises.rs"]
mod promises;

use promises::promises;
use turnwise_node::clock::{BootClock, WrongClock};

macro_rules! boot {
    ($($promise:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $promise() {
                promises::$promise(BootClock).await;
            }
        )*
    };
}
promises!(boot);

mod wrong {
    use super::{WrongClock, promises};

    macro_rules! wrong {
        ($($promise:ident),* $(,)?) => {
            $(
                #[tokio::test]
                async fn $promise() {
                    let clock = "900ms,-700.5ppm,40ms@10ms,3s@300ms";
                    promises::$promise(clock.parse::<WrongClock>().unwrap()).await;
                }
            )*
        };
    }
    promises::promises!(wrong);
}
