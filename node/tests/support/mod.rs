//! What several test crates share: a web app to be called.

#[allow(unused, reason = "each test crate uses a part of it")]
pub(crate) mod target;
