//! Schedules: cron entries that insert jobs. A schedule is a cron expression in a time zone, a job to insert at each
//! of its times, and what to do about times that came while nobody looked.
//!
//! - `cron`: which times an expression names, across daylight saving;
//! - `misfire`: which of the times since the last look insert a job, and which are passed over.
//!
//! No clock is read, and the same arguments give the same times on every node. That two nodes do not both insert the
//! job of one time is not decided here.
//!
//! All times are microseconds of server time since the Unix epoch.

mod cron;
mod misfire;

pub use self::cron::{Cron, CronError, EXPRESSION_BYTES_MAX};
pub use self::misfire::{
    AHEAD_MAX, Firing, LIMIT_MAX, MISSED_AFTER, Misfire, MisfireError, SKIPPED_MAX, due,
};
