//! The clock of the server that SQLite does not have: a value, so that tests and simulations can set it.

use std::time::{SystemTime, UNIX_EPOCH};

use turnwise_engine::{ServerIdentity, ServerInstant};

/// The clock that slots, leases and due times are taken from. It may step.
pub trait ServerClock: Send + Sync {
    /// The instant that it shows.
    fn now(&self) -> ServerInstant;

    /// Whose clock it is: of another server from now on when it changes.
    fn identity(&self) -> ServerIdentity {
        ServerIdentity::default()
    }
}

/// The host's realtime clock, which all processes on one file share.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemServerClock;

impl ServerClock for SystemServerClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that a simulator replaces")]
    fn now(&self) -> ServerInstant {
        let nanos = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_nanos()).unwrap_or(i64::MAX),
        };
        ServerInstant::from_nanos(nanos)
    }
}
