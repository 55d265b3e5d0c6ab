//! What people order of a schedule by its name, the same by command, on a page and over the API: decides from which time on it
//! fires then.

use turnwise_engine::ServerInstant;

use super::StoreError;
use super::schedules::{NewSchedule, ScheduleView, Schedules};
use crate::job::JobId;
use crate::schedule::{Cron, CronError};

/// So many times to come are told.
const TIMES_TOLD: usize = 5;
/// How often a schedule is fired now before somebody else who changes it all the while is blamed.
pub(crate) const TRIES: u32 = 10;

/// A schedule that was set.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SetAnswer {
    /// There was none of its name.
    pub(crate) is_new: bool,
    /// The next times that its expression names, in microseconds since the Unix epoch.
    pub(crate) times: Vec<i64>,
}

/// What became of pausing a schedule, or of going on with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PauseAnswer {
    /// It is so now.
    Done,
    /// It was so before.
    SoAlready,
    /// There is none of this name.
    Unknown,
    /// Its expression or zone cannot be read: it cannot go on.
    Unreadable(CronError),
}

/// What became of firing a schedule now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RunAnswer {
    /// This job was inserted.
    Fired(JobId),
    /// There is none of this name.
    Unknown,
    /// Somebody else changed it, [`TRIES`] times.
    Changing,
}

/// Set a schedule whose expression is `cron`. The same as before goes on where it was: a time that has come and was not fired
/// yet is not lost.
pub(crate) async fn set<S: Schedules>(
    store: &S,
    schedule: &NewSchedule,
    cron: &Cron,
) -> Result<SetAnswer, StoreError> {
    let now = store.look().await?.clock.as_micros();
    let before = found(store, &schedule.name).await?;
    let goes_on = before.filter(|known| {
        let same = (&known.cron, &known.zone) == (&schedule.cron, &schedule.zone);
        same && known.error.is_none() && known.paused_since.is_none() && known.revision > 0
    });
    let next = goes_on.and_then(|known| known.next_at).map(ServerInstant::as_micros);
    let is_new = store.put_schedule(schedule, next.or_else(|| cron.next_after(now))).await?;
    Ok(SetAnswer { is_new, times: cron.next_times(now, TIMES_TOLD) })
}

/// Pause a schedule, or go on with its next time from now.
pub(crate) async fn pause<S: Schedules>(
    store: &S,
    name: &str,
    pause: bool,
) -> Result<PauseAnswer, StoreError> {
    let Some(schedule) = found(store, name).await? else { return Ok(PauseAnswer::Unknown) };
    let now = store.look().await?.clock;
    let next = match (pause, schedule.parsed()) {
        (true, _) => schedule.next_time(now),
        (false, Ok(cron)) => cron.next_after(now.as_micros()),
        (false, Err(error)) => return Ok(PauseAnswer::Unreadable(error)),
    };
    Ok(match store.pause_schedule(name, pause, next).await? {
        true => PauseAnswer::Done,
        false => PauseAnswer::SoAlready,
    })
}

/// Insert a job of a schedule now, though it is paused.
pub(crate) async fn run<S: Schedules>(store: &S, name: &str) -> Result<RunAnswer, StoreError> {
    for _ in 0..TRIES {
        let Some(schedule) = found(store, name).await? else { return Ok(RunAnswer::Unknown) };
        let fire = schedule.fire_now(store.look().await?.clock);
        if store.fire(&fire).await?
            && let Some((_, id)) = fire.times.first()
        {
            return Ok(RunAnswer::Fired(*id));
        }
    }
    Ok(RunAnswer::Changing)
}

/// The schedule with this name.
pub(crate) async fn found<S: Schedules>(
    store: &S,
    name: &str,
) -> Result<Option<ScheduleView>, StoreError> {
    Ok(store.schedules().await?.into_iter().find(|schedule| schedule.name == name))
}
