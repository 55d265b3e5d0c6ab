//! Schedules as the stores keep them: what a row says, what of it is fired at a look, and what people order. Which times an
//! expression names is decided in `crate::schedule`; here, that each is fired once, by whoever comes first.

use std::future::Future;

use turnwise_engine::ServerInstant;

use super::{Store, StoreError};
use crate::job::{JobId, NewJob};
use crate::schedule::{Cron, CronError, LIMIT_MAX, Misfire, due};

/// So many schedules are looked at, at once.
pub const DUE_AT_ONCE: u32 = 100;
/// So many times of one schedule are fired at once; the rest follows.
pub const FIRED_AT_ONCE: usize = 100;
/// A schedule that cannot be read is looked at again after so long, in microseconds.
const AGAIN_US: i64 = 3_600_000_000;
/// Times are fired at most so far ahead, in microseconds: two of the longest periods.
const AHEAD_US: i64 = 20_000_000;
/// The longest name of a schedule, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// The name of a schedule, or what is wrong with it.
pub(crate) fn parse_schedule_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(format!("a schedule’s name has from 1 to {NAME_BYTES_MAX} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err("a schedule’s name has no control characters".to_owned());
    }
    Ok(text.to_owned())
}

/// A schedule as it stands in the table, which anyone may have written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleView {
    /// Its name.
    pub name: String,
    /// The cron expression.
    pub cron: String,
    /// The time zone of the expression.
    pub zone: String,
    /// What becomes of times that were missed.
    pub misfire: Misfire,
    /// The lane of its jobs.
    pub queue: String,
    /// The HTTP method of its jobs.
    pub method: String,
    /// The path or URL of its jobs.
    pub url: String,
    /// Since when nothing is fired.
    pub paused_since: Option<ServerInstant>,
    /// The first time that has not been fired; times are fired a little ahead. None: there is none. On a row that no node
    /// has looked at, any.
    pub next_at: Option<ServerInstant>,
    /// The last time that was fired.
    pub last_at: Option<ServerInstant>,
    /// How many times were passed over, since nobody looked when they came.
    pub skipped: u64,
    /// Why nothing is fired.
    pub error: Option<String>,
    /// Counts the changes of the row; 0: no node has looked at it yet.
    pub revision: i64,
}

impl ScheduleView {
    /// The expression, in its zone.
    ///
    /// # Errors
    ///
    /// Why the row says none.
    pub fn parsed(&self) -> Result<Cron, CronError> {
        Cron::parse(&self.cron, &self.zone)
    }

    /// What is to be fired of it at `now`, of times up to `horizon`. A row that nobody has looked at fires nothing yet.
    pub fn fire(&self, now: ServerInstant, horizon: ServerInstant) -> Fire {
        let nothing = Fire {
            schedule: self.name.clone(),
            revision: self.revision,
            times: Vec::new(),
            next: None,
            skipped: 0,
            error: None,
            forced: false,
        };
        let now = now.as_micros();
        match (self.parsed(), self.next_at) {
            (Err(error), _) => {
                // Another version of the program may know the zone.
                Fire { error: Some(error.to_string()), next: now.checked_add(AGAIN_US), ..nothing }
            }
            (Ok(cron), Some(next)) if self.revision > 0 && self.error.is_none() => {
                let firing = due(&cron, next.as_micros(), now, horizon.as_micros(), self.misfire);
                let rest = firing.times.get(FIRED_AT_ONCE).copied();
                let times = firing.times.iter().take(FIRED_AT_ONCE).map(|at| self.time(*at));
                Fire {
                    times: times.collect(),
                    next: rest.or(firing.next),
                    skipped: firing.skipped,
                    ..nothing
                }
            }
            (Ok(cron), _) => Fire { next: cron.next_after(now), ..nothing },
        }
    }

    /// To fire it at `now`, whatever its times are, and though it is paused.
    pub fn fire_now(&self, now: ServerInstant) -> Fire {
        Fire {
            schedule: self.name.clone(),
            revision: self.revision,
            times: vec![self.time(now.as_micros())],
            next: self.next_time(now),
            skipped: 0,
            error: self.error.clone(),
            forced: true,
        }
    }

    /// The first time that has not been fired, of a row that no node has looked at the first one after `now`.
    pub fn next_time(&self, now: ServerInstant) -> Option<i64> {
        match self.revision {
            0 => self.parsed().ok()?.next_after(now.as_micros()),
            _ => self.next_at.map(ServerInstant::as_micros),
        }
    }

    /// To wait for its next time by a clock that shows `now`, if it waits for a later one.
    pub fn realigned(&self, now: ServerInstant) -> Option<Fire> {
        let now = now.as_micros();
        // What was fired ahead need not be fired again.
        let ahead = self.last_at.map(ServerInstant::as_micros);
        let ahead = ahead.filter(|last| (now..=now.saturating_add(AHEAD_US)).contains(last));
        let next = self.parsed().ok()?.next_after(ahead.unwrap_or(now))?;
        let waits = self.next_at.is_some_and(|at| at.as_micros() > next) && self.error.is_none();
        waits.then(|| Fire {
            schedule: self.name.clone(),
            revision: self.revision,
            times: Vec::new(),
            next: Some(next),
            skipped: 0,
            error: None,
            forced: false,
        })
    }

    fn time(&self, at: i64) -> (i64, JobId) {
        (at, JobId::of_schedule(&self.name, at))
    }
}

/// Times of a schedule that are to be fired, if it is still as it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fire {
    /// Its name.
    pub schedule: String,
    /// What its row was looked at with.
    pub revision: i64,
    /// The times, in microseconds since the Unix epoch, earliest first, and the job of each.
    pub times: Vec<(i64, JobId)>,
    /// The first time after them; none: there is none.
    pub next: Option<i64>,
    /// How many times are passed over with that.
    pub skipped: u64,
    /// Why nothing is fired.
    pub error: Option<String>,
    /// Though it is paused.
    pub forced: bool,
}

/// A schedule as people set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSchedule {
    /// Its name, from 1 to [`NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// The cron expression.
    pub cron: String,
    /// The time zone of the expression.
    pub zone: String,
    /// What becomes of times that were missed.
    pub misfire: Misfire,
    /// The job of each time, whose id, time and unique key do not count.
    pub job: NewJob,
}

/// What people order of schedules.
pub trait Schedules: Store {
    /// All of them, by name.
    fn schedules(&self) -> impl Future<Output = Result<Vec<ScheduleView>, StoreError>> + Send;

    /// Set a schedule, a new one or in the place of one with its name, whose pause stays: its first time is `next`. Whether it
    /// is new.
    fn put_schedule(
        &self,
        schedule: &NewSchedule,
        next: Option<i64>,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Remove a schedule; jobs that it has inserted stay. False when there is none.
    fn remove_schedule(&self, name: &str) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Pause it or go on with it; then its first time is `next`, and what came meanwhile is passed over without being counted.
    /// False when it is so already, or there is none.
    fn pause_schedule(
        &self,
        name: &str,
        pause: bool,
        next: Option<i64>,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;
}

/// The columns of a schedule, in the order in which all databases return them; instants in microseconds.
pub(super) type Columns = (
    String,
    String,
    String,
    String,
    i64,
    String,
    String,
    String,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    i64,
    Option<String>,
    i64,
);

pub(super) fn view(columns: Columns) -> ScheduleView {
    let (
        name,
        cron,
        zone,
        misfire,
        limit,
        queue,
        method,
        url,
        paused,
        next,
        last,
        skipped,
        error,
        revision,
    ) = columns;
    // What the table refuses may have passed by it all the same: it fires as one that says nothing.
    let limit = u32::try_from(limit).unwrap_or(1).clamp(1, LIMIT_MAX);
    let misfire = misfire.trim().parse::<Misfire>().and_then(|misfire| misfire.with_limit(limit));
    let misfire = misfire.unwrap_or_default();
    let instant = ServerInstant::from_micros;
    ScheduleView {
        name,
        cron,
        zone,
        misfire,
        queue,
        method,
        url,
        paused_since: paused.map(instant),
        next_at: next.map(instant),
        last_at: last.map(instant),
        skipped: u64::try_from(skipped).unwrap_or(0),
        error,
        revision,
    }
}

/// The limit of a misfire policy, as it is stored.
pub fn limit_of(misfire: Misfire) -> i64 {
    match misfire {
        Misfire::All { limit } => i64::from(limit),
        Misfire::Skip | Misfire::Once => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn schedule(cron: &str, revision: i64, next: i64) -> ScheduleView {
        view((
            "s".to_owned(),
            cron.to_owned(),
            "UTC".to_owned(),
            "once".to_owned(),
            1,
            "default".to_owned(),
            "POST".to_owned(),
            "/x".to_owned(),
            None,
            Some(next),
            None,
            0,
            None,
            revision,
        ))
    }

    fn fire(schedule: &ScheduleView, now: i64) -> Fire {
        let at = ServerInstant::from_micros;
        schedule.fire(at(now), at(now + 2 * SECOND))
    }

    #[test]
    fn a_new_row_fires_nothing_before_its_first_time() {
        let fired = fire(&schedule("* * * * *", 0, 0), 61 * SECOND);
        assert_eq!((fired.times, fired.next, fired.error), (vec![], Some(120 * SECOND), None));
    }

    #[test]
    fn what_comes_within_the_horizon_is_fired_under_one_id() {
        let every = schedule("* * * * * *", 3, 100 * SECOND);
        let fired = fire(&every, 99 * SECOND);
        let times: Vec<_> = fired.times.iter().map(|(at, _)| *at / SECOND).collect();
        assert_eq!((times, fired.next), (vec![100, 101], Some(102 * SECOND)));
        assert_eq!(fired.times[1].1, JobId::of_schedule("s", 101 * SECOND));
        assert_ne!(fired.times[0].1, fired.times[1].1);
        assert_ne!(fired.times[1].1, JobId::of_schedule("t", 101 * SECOND));
        assert_eq!(fired.revision, 3);
    }

    #[test]
    fn what_cannot_be_read_is_said_and_stops() {
        let fired = fire(&schedule("61 * * * *", 1, 0), SECOND);
        assert!(fired.error.unwrap().contains("61"));
        assert_eq!((fired.times, fired.next), (vec![], Some(3_601 * SECOND)));
        // Mended, it goes on with its next time, and fires none of those in between.
        let mended = ScheduleView { error: Some("no".to_owned()), ..schedule("* * * * *", 2, 0) };
        let fired = fire(&mended, 61 * SECOND);
        assert_eq!((fired.times, fired.next, fired.error), (vec![], Some(120 * SECOND), None));
    }

    #[test]
    fn many_times_are_fired_a_few_at_once() {
        let all = ScheduleView {
            misfire: Misfire::All { limit: 1_000 },
            ..schedule("* * * * * *", 1, SECOND)
        };
        let fired = fire(&all, 500 * SECOND);
        assert_eq!((fired.times.len(), fired.next), (100, Some(101 * SECOND)));
    }

    #[test]
    fn a_row_that_nobody_has_looked_at_is_run_without_what_came_before() {
        let new = schedule("* * * * *", 0, 0);
        let at = ServerInstant::from_micros;
        assert_eq!(new.fire_now(at(61 * SECOND)).next, Some(120 * SECOND));
        let known = schedule("* * * * *", 1, 60 * SECOND);
        assert_eq!(known.fire_now(at(61 * SECOND)).next, Some(60 * SECOND));
    }

    #[test]
    fn a_clock_that_was_set_back_brings_the_next_time_nearer() {
        let at = ServerInstant::from_micros;
        let waits = schedule("* * * * *", 4, 3_600 * SECOND);
        let fire = waits.realigned(at(61 * SECOND)).unwrap();
        assert_eq!((fire.times, fire.next, fire.revision), (vec![], Some(120 * SECOND), 4));
        assert_eq!(schedule("* * * * *", 4, 120 * SECOND).realigned(at(61 * SECOND)), None);
        // One that was fired ahead waits for the time after it.
        let ahead = |last: i64, next: i64| ScheduleView {
            last_at: Some(at(last * SECOND)),
            ..schedule("* * * * *", 4, next * SECOND)
        };
        assert_eq!(ahead(120, 180).realigned(at(119 * SECOND)), None);
        assert_eq!(ahead(120, 3_600).realigned(at(119 * SECOND)).unwrap().next, Some(180 * SECOND));
        assert_eq!(
            ahead(3_540, 3_600).realigned(at(61 * SECOND)).unwrap().next,
            Some(120 * SECOND)
        );
    }
}
