//! What the harness asks for: the verb as the argument, the rest in the environment.

use std::env;

use crate::Failure;

/// What is to be done.
pub enum Verb {
    /// Create the schema.
    Setup,
    /// Enqueue the jobs 0 to [`Order::jobs`] − 1.
    Fill,
    /// Enqueue a job for each number read from standard input, and print the instant at which it was committed.
    Trickle,
    /// Run jobs until told to stop.
    Work,
}

/// How the contestant is set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// As somebody has it who sets nothing.
    Defaults,
    /// As its documents recommend for many small jobs.
    Fast,
}

/// What the harness asks for.
pub struct Order {
    /// What is to be done.
    pub verb: Verb,
    /// The database's URL.
    pub database: String,
    /// The target's origin, or none for jobs that do nothing.
    pub target: Option<String>,
    /// How many jobs there are.
    pub jobs: usize,
    /// How the contestant is set.
    pub setting: Setting,
}

impl Order {
    /// Read it.
    ///
    /// # Errors
    ///
    /// When something is missing or not understood: its name is in the message.
    pub fn read() -> Result<Self, Failure> {
        let verb = match env::args().nth(1).as_deref() {
            Some("setup") => Verb::Setup,
            Some("fill") => Verb::Fill,
            Some("trickle") => Verb::Trickle,
            Some("work") => Verb::Work,
            other => {
                return Err(format!("{other:?} is no verb: setup, fill, trickle or work").into());
            }
        };
        let setting = match env::var("PEER_SETTING").as_deref() {
            Ok("fast") => Setting::Fast,
            Ok("defaults") | Err(_) => Setting::Defaults,
            Ok(other) => {
                return Err(format!("PEER_SETTING={other} is neither defaults nor fast").into());
            }
        };
        Ok(Self {
            verb,
            database: env::var("DATABASE_URL").map_err(|error| format!("DATABASE_URL: {error}"))?,
            target: env::var("PEER_TARGET").ok().filter(|target| !target.is_empty()),
            jobs: env::var("PEER_JOBS").unwrap_or_default().parse().unwrap_or(0),
            setting,
        })
    }
}
