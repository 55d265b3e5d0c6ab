//! Decides how long ended jobs are kept: what may be said of it, and how often a farm looks for those that are too old.

use std::fmt;
use std::time::Duration;

use crate::store::Ended;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// How long jobs that succeeded, or that a person cancelled, are kept unless somebody says otherwise.
pub const DEFAULT_KEEP_SUCCEEDED: Duration = DAY;
/// How long jobs that were given up are kept unless somebody says otherwise.
pub const DEFAULT_KEEP_DEAD: Duration = Duration::from_secs(30 * 24 * 3_600);
/// The shortest time that ended jobs are kept.
pub const KEEP_MIN: Duration = MINUTE;
/// The longest: ten years of 365.25 days.
pub const KEEP_MAX: Duration = Duration::from_secs(10 * 31_557_600);

/// The word for no end.
const FOREVER: &str = "forever";
/// So often within the shortest time for which something is kept, jobs that are too old are looked for.
const LOOKS: u32 = 60;
/// But not more often than this, nor more rarely than [`LOOK_EVERY_MAX`].
const LOOK_EVERY_MIN: Duration = MINUTE;
/// See [`LOOK_EVERY_MIN`].
const LOOK_EVERY_MAX: Duration = Duration::from_secs(5 * 60);

/// How long ended jobs are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Those that succeeded or were cancelled.
    pub succeeded: Keep,
    /// Those that were given up.
    pub dead: Keep,
}

/// How long something is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// So long, and then it is removed.
    For(Duration),
    /// It is never removed.
    Forever,
}

impl Default for Retention {
    fn default() -> Self {
        Self { succeeded: Keep::For(DEFAULT_KEEP_SUCCEEDED), dead: Keep::For(DEFAULT_KEEP_DEAD) }
    }
}

impl Retention {
    /// Everything is kept.
    pub const FOREVER: Self = Self { succeeded: Keep::Forever, dead: Keep::Forever };

    /// How old jobs may become; of a kind that is kept for ever there is none.
    pub fn ages(&self) -> impl Iterator<Item = (Ended, Duration)> {
        let keeps = [
            (Ended::Dead, self.dead),
            (Ended::Cancelled, self.succeeded),
            (Ended::Succeeded, self.succeeded),
        ];
        keeps.into_iter().filter_map(|(ended, keep)| match keep {
            Keep::For(age) => Some((ended, age)),
            Keep::Forever => None,
        })
    }

    /// How often the farm looks for jobs that are too old; none: never.
    pub fn look_every(&self) -> Option<Duration> {
        let shortest = self.ages().map(|(_, age)| age).min()?;
        // A simulation keeps jobs for less than anybody may say.
        let least = LOOK_EVERY_MIN.min(shortest);
        Some((shortest / LOOKS).clamp(least, LOOK_EVERY_MAX))
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forever => f.write_str(FOREVER),
            Self::For(DAY) => f.write_str("24h"),
            // Not as a month, which is a twelfth of a year.
            Self::For(time) if *time > DAY && time.as_secs().is_multiple_of(DAY.as_secs()) => {
                write!(f, "{} days", time.as_secs() / DAY.as_secs())
            }
            Self::For(time) => write!(f, "{}", humantime::format_duration(*time)),
        }
    }
}

/// A time to keep jobs for from text such as `24h` or `30d`, or `forever`; or what is wrong with it.
pub(super) fn parse_keep(text: &str) -> Result<Keep, String> {
    if text.eq_ignore_ascii_case(FOREVER) {
        return Ok(Keep::Forever);
    }
    let time = parse_age(text).map_err(|error| format!("{error}, or forever"))?;
    if time < KEEP_MIN {
        return Err(format!(
            "{text:?} is too short: ended jobs are kept for a minute at least, so that people can see them"
        ));
    }
    Ok(Keep::For(time))
}

/// How long ago from text such as `0s` or `7d`, up to [`KEEP_MAX`]; or what is wrong with it.
pub fn parse_age(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| {
        format!("{text:?} is no time: {error}; write it as 90m, 24h, 30d or 1y")
    })?;
    if time > KEEP_MAX {
        return Err(format!("{text:?} is too long: write at most 10y"));
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_from_a_minute_to_ten_years_are_taken_and_no_end() {
        for (text, seconds) in
            [("1m", 60), ("24h", 86_400), ("1h 30m", 5_400), ("10y", 315_576_000)]
        {
            assert_eq!(parse_keep(text), Ok(Keep::For(Duration::from_secs(seconds))), "{text}");
        }
        assert_eq!(parse_keep("forever"), Ok(Keep::Forever));
        assert_eq!(parse_keep("Forever"), Ok(Keep::Forever));
        for (text, word) in [
            ("59s", "a minute"),
            ("0s", "a minute"),
            ("10y 1s", "10y, or forever"),
            ("30", "30d"),
            ("-1d", "30d"),
            ("", "30d"),
            ("never", "forever"),
        ] {
            let error = parse_keep(text).unwrap_err();
            assert!(error.starts_with(&format!("{text:?}")) && error.contains(word), "{error}");
        }
    }

    #[test]
    fn times_are_shown_as_people_write_them() {
        let shown = |seconds| Keep::For(Duration::from_secs(seconds)).to_string();
        assert_eq!(shown(86_400), "24h");
        assert_eq!(shown(30 * 86_400), "30 days");
        assert_eq!(shown(5_400), "1h 30m");
        assert_eq!(Keep::Forever.to_string(), "forever");
    }

    #[test]
    fn it_is_looked_for_once_in_one_to_five_minutes() {
        let every = |succeeded, dead| {
            let keep = |seconds: u64| match seconds {
                0 => Keep::Forever,
                _ => Keep::For(Duration::from_secs(seconds)),
            };
            let retention = Retention { succeeded: keep(succeeded), dead: keep(dead) };
            retention.look_every().map(|every| every.as_secs())
        };
        assert_eq!(Retention::default().look_every(), Some(LOOK_EVERY_MAX));
        assert_eq!(every(60, 0), Some(60));
        assert_eq!(every(0, 3_600), Some(60));
        assert_eq!(every(7_200, 86_400), Some(120));
        assert_eq!(every(5, 0), Some(5), "a simulation");
        assert_eq!(every(0, 0), None);
    }

    #[test]
    fn what_was_cancelled_is_kept_as_what_succeeded() {
        let retention = Retention { dead: Keep::Forever, ..Retention::default() };
        let ages: Vec<_> = retention.ages().collect();
        assert_eq!(ages, [(Ended::Cancelled, DAY), (Ended::Succeeded, DAY)]);
        assert_eq!(Retention::FOREVER.ages().count(), 0);
    }
}
