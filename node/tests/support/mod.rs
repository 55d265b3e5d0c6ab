//! What several test crates share: a real PostgreSQL and a web app to be called.

pub(crate) mod postgres;
#[allow(unused, reason = "each test crate uses a part of it")]
pub(crate) mod target;
