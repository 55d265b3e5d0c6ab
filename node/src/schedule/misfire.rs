//! Decides which times of a schedule insert a job at a look at it, and which are passed over because they were
//! missed.

use std::fmt;
use std::str::FromStr;

use super::cron::Cron;

/// How long ago a time must be to count as missed, in microseconds: more than a minute, as in Quartz. What is
/// shorter, such as a node's death until the others have noticed, delays jobs and drops none.
pub const MISSED_AFTER: i64 = 60_000_000;
/// The most missed times that [`Misfire::All`] may fire.
pub const LIMIT_MAX: u32 = 1_000;
/// How far ahead of now times are fired at most, in microseconds: an hour. What is after it fires at a later look.
pub const AHEAD_MAX: i64 = 3_600_000_000;
/// So far are skipped times counted, and no further.
pub const SKIPPED_MAX: u64 = 1_000;

/// What becomes of missed times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Misfire {
    /// None of them fires.
    Skip,
    /// The latest of them fires.
    #[default]
    Once,
    /// The latest `limit` of them fire.
    All {
        /// How many, from 1 to [`LIMIT_MAX`]; what is outside counts as the nearest.
        limit: u32,
    },
}

/// Why there is no such [`Misfire`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MisfireError {
    /// No such word.
    #[error("there is no misfire policy {0:?}; give skip, once or all")]
    Unknown(String),
    /// A limit that is too small or too large.
    #[error("a misfire limit of {0} is not within 1 and {LIMIT_MAX}")]
    Limit(u32),
}

impl Misfire {
    /// The word for it. It does not tell the limit.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Once => "once",
            Self::All { .. } => "all",
        }
    }

    /// The same with this limit, which is checked even where there is nothing to limit.
    ///
    /// # Errors
    ///
    /// The limit is not within 1 and [`LIMIT_MAX`].
    pub fn with_limit(self, limit: u32) -> Result<Self, MisfireError> {
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(MisfireError::Limit(limit));
        }
        Ok(match self {
            Self::All { .. } => Self::All { limit },
            other => other,
        })
    }

    /// How many missed times fire at most.
    fn fires(self) -> usize {
        match self {
            Self::Skip => 0,
            Self::Once => 1,
            Self::All { limit } => limit.clamp(1, LIMIT_MAX) as usize,
        }
    }
}

impl fmt::Display for Misfire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Misfire {
    type Err = MisfireError;

    /// `skip`, `once` or `all`, the last with the limit [`LIMIT_MAX`].
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "skip" => Ok(Self::Skip),
            "once" => Ok(Self::Once),
            "all" => Ok(Self::All { limit: LIMIT_MAX }),
            _ => Err(MisfireError::Unknown(text.to_owned())),
        }
    }
}

/// What a look at a schedule came to. Times are microseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firing {
    /// The times that fire, earliest first.
    pub times: Vec<i64>,
    /// How many missed times do not fire; [`SKIPPED_MAX`] stands for that many or more.
    pub skipped: u64,
    /// The first time that has neither fired nor been skipped; none when there is no further one.
    pub next: Option<i64>,
}

/// What fires at `now`, when `next_at` is the first time not fired yet, whether the expression names it or not,
/// and times up to `horizon` fire ahead. A horizon before `now` counts as `now`, one more than [`AHEAD_MAX`]
/// after it as that. All are microseconds since the Unix epoch.
///
/// A time more than [`MISSED_AFTER`] before `now` was missed. Of those, `misfire` says which fire; all others
/// fire. The work does not grow with the number of missed times.
pub fn due(cron: &Cron, next_at: i64, now: i64, horizon: i64, misfire: Misfire) -> Firing {
    let times = Times { cron, next_at };
    let horizon = horizon.clamp(now, now.saturating_add(AHEAD_MAX));
    let edge = now.saturating_sub(MISSED_AFTER);

    let mut fired = times.latest_before(edge, misfire.fires());
    let skipped_before = fired.first().copied().unwrap_or(edge);
    let skipped = times.within(next_at, skipped_before).take(SKIPPED_MAX as usize).count() as u64;
    fired.extend(times.from(edge).take_while(|time| *time <= horizon));

    let next = if next_at > horizon { Some(next_at) } else { cron.next_after(horizon) };
    Firing { times: fired, skipped, next }
}

/// The times that have not fired yet.
struct Times<'a> {
    cron: &'a Cron,
    next_at: i64,
}

impl Times<'_> {
    /// Those at `start` or later, in order.
    fn from(&self, start: i64) -> impl Iterator<Item = i64> {
        let first = if start <= self.next_at {
            Some(self.next_at)
        } else {
            self.cron.next_after(start - 1)
        };
        std::iter::successors(first, |time| self.cron.next_after(*time))
    }

    /// Those at `start` or later and before `end`.
    fn within(&self, start: i64, end: i64) -> impl Iterator<Item = i64> {
        self.from(start).take_while(move |time| *time < end)
    }

    /// The latest `count` of those before `edge`, in order; fewer when there are fewer. Bisects for the latest
    /// second from which on there are so many.
    fn latest_before(&self, edge: i64, count: usize) -> Vec<i64> {
        let Some(last) = count.checked_sub(1) else {
            return Vec::new();
        };
        let micros = |second: i64| second.saturating_mul(1_000_000);
        let (mut enough, mut too_few) =
            (self.next_at.div_euclid(1_000_000), edge.div_euclid(1_000_000) + 1);
        while too_few - enough > 1 {
            let middle = enough + (too_few - enough) / 2;
            if self.within(micros(middle), edge).nth(last).is_some() {
                enough = middle;
            } else {
                too_few = middle;
            }
        }
        self.within(micros(enough), edge).collect()
    }
}

#[cfg(test)]
mod tests {
    use rand_core::{Rng, SeedableRng};
    use rand_pcg::Pcg64Mcg;

    use super::*;

    const SECOND: i64 = 1_000_000;
    const MINUTE: i64 = 60 * SECOND;
    const DAY: i64 = 24 * 60 * MINUTE;
    /// 2026-06-01T00:00:00Z.
    const NOW: i64 = 1_780_272_000 * SECOND;

    #[test]
    fn what_is_due_fires_and_what_comes_is_told() {
        let firing = due(&cron("* * * * *"), NOW, NOW, NOW, Misfire::Skip);
        assert_eq!(firing, Firing { times: vec![NOW], skipped: 0, next: Some(NOW + MINUTE) });
        let firing = due(&cron("* * * * *"), NOW + MINUTE, NOW, NOW, Misfire::Skip);
        assert_eq!(firing, Firing { times: vec![], skipped: 0, next: Some(NOW + MINUTE) });
    }

    #[test]
    fn times_up_to_the_horizon_fire_ahead() {
        let firing = due(&cron("*/2 * * * * *"), NOW, NOW, NOW + 4 * SECOND, Misfire::Skip);
        assert_eq!(firing.times, [NOW, NOW + 2 * SECOND, NOW + 4 * SECOND]);
        assert_eq!(firing.next, Some(NOW + 6 * SECOND));
    }

    #[test]
    fn a_horizon_in_the_past_is_now_and_one_too_far_is_cut() {
        let firing = due(&cron("* * * * *"), NOW, NOW, NOW - DAY, Misfire::Skip);
        assert_eq!(firing.times, [NOW]);
        let firing = due(&cron("* * * * *"), NOW, NOW, i64::MAX, Misfire::Skip);
        assert_eq!(firing.times.len(), 61);
        assert_eq!(firing.next, Some(NOW + AHEAD_MAX + MINUTE));
    }

    #[test]
    fn the_next_time_is_taken_as_given() {
        let odd = NOW - 7 * SECOND - 3;
        let firing = due(&cron("@hourly"), odd, NOW, NOW, Misfire::Skip);
        assert_eq!(firing.times, [odd, NOW]);
        let firing = due(&cron("@hourly"), NOW + 3, NOW, NOW, Misfire::Skip);
        assert_eq!(firing, Firing { times: vec![], skipped: 0, next: Some(NOW + 3) });
        let firing = due(&cron("@daily"), odd - DAY, NOW - 1, NOW - 1, Misfire::All { limit: 9 });
        assert_eq!(firing.times, [odd - DAY, NOW - DAY]);
    }

    #[test]
    fn a_time_is_missed_only_when_it_is_more_than_a_minute_ago() {
        let (hourly, hour) = (cron("@hourly"), NOW);
        let at_the_edge =
            due(&hourly, hour, hour + MISSED_AFTER, hour + MISSED_AFTER, Misfire::Skip);
        assert_eq!((at_the_edge.times, at_the_edge.skipped), (vec![hour], 0));
        let now = hour + MISSED_AFTER + 1;
        let behind_it = due(&hourly, hour, now, now, Misfire::Skip);
        assert_eq!((behind_it.times, behind_it.skipped), (vec![], 1));
        assert_eq!(behind_it.next, Some(hour + 60 * MINUTE));
    }

    #[test]
    fn of_the_missed_times_the_policy_says_which_fire() {
        let now = NOW + 30 * MINUTE;
        let hour = |ago: i64| NOW - ago * 60 * MINUTE;
        let after = |misfire| {
            let firing = due(&cron("@hourly"), hour(4), now, now, misfire);
            assert_eq!(firing.next, Some(hour(-1)));
            (firing.times, firing.skipped)
        };
        assert_eq!(after(Misfire::Skip), (vec![], 5));
        assert_eq!(after(Misfire::Once), (vec![hour(0)], 4));
        assert_eq!(after(Misfire::All { limit: 2 }), (vec![hour(1), hour(0)], 3));
        let all = vec![hour(4), hour(3), hour(2), hour(1), hour(0)];
        assert_eq!(after(Misfire::All { limit: 5 }), (all.clone(), 0));
        assert_eq!(after(Misfire::All { limit: 6 }), (all, 0));
    }

    #[test]
    fn times_that_were_not_missed_fire_beside_one_that_was() {
        let firing = due(&cron("* * * * *"), NOW - 9 * MINUTE, NOW + 1, NOW + 1, Misfire::Once);
        assert_eq!(firing.times, [NOW - MINUTE, NOW]);
        assert_eq!(firing.skipped, 8);
        let firing = due(&cron("* * * * *"), NOW - 9 * MINUTE, NOW, NOW, Misfire::Once);
        assert_eq!(firing.times, [NOW - 2 * MINUTE, NOW - MINUTE, NOW]);
    }

    #[test]
    fn a_year_without_a_look_at_an_every_second_schedule_is_no_work() {
        let every_second = cron("* * * * * *");
        let after = |misfire| due(&every_second, NOW - 365 * DAY, NOW, NOW, misfire);
        let oldest = |fired: i64| NOW - MISSED_AFTER - fired * SECOND;
        for (misfire, missed) in
            [(Misfire::Skip, 0), (Misfire::Once, 1), (Misfire::All { limit: LIMIT_MAX }, 1_000)]
        {
            let firing = after(misfire);
            let expected: Vec<i64> =
                (0..=missed + 60).map(|n| oldest(missed) + n * SECOND).collect();
            assert_eq!(firing.times, expected, "{misfire}");
            assert_eq!(firing.skipped, SKIPPED_MAX);
            assert_eq!(firing.next, Some(NOW + SECOND));
        }
    }

    #[test]
    fn the_latest_missed_time_is_found_where_they_come_in_bursts() {
        let bursts = cron("* * * * JAN *");
        let end_of_january = 1_769_904_000 * SECOND;
        let firing = due(&bursts, NOW - 3 * 365 * DAY, NOW, NOW, Misfire::All { limit: 2 });
        assert_eq!(firing.times, [end_of_january - 2 * SECOND, end_of_january - SECOND]);
    }

    #[test]
    fn no_instant_is_too_far() {
        let every_second = cron("* * * * * *");
        let far = [i64::MIN, i64::MIN + 1, i64::MIN / 1_000, 0, i64::MAX / 1_000, i64::MAX];
        for next_at in far {
            for now in far {
                for horizon in far {
                    let firing =
                        due(&every_second, next_at, now, horizon, Misfire::All { limit: 3 });
                    assert!(firing.times.is_sorted() && firing.times.len() <= 3_664);
                }
            }
        }
    }

    #[test]
    fn looks_a_minute_apart_fire_every_time_once() {
        for expression in ["* * * * * *", "*/7 * * * * *", "* * * * *", "30 */2 * * *"] {
            let (cron, mut random) = (cron(expression), Pcg64Mcg::seed_from_u64(7));
            let (mut now, mut next, mut fired) = (NOW, NOW, Vec::new());
            for _ in 0..200 {
                let horizon = now + up_to(&mut random, 5 * SECOND);
                let firing = due(&cron, next, now, horizon, Misfire::Skip);
                fired.extend(firing.times);
                assert_eq!(firing.skipped, 0);
                next = firing.next.unwrap();
                now += up_to(&mut random, MISSED_AFTER);
            }
            let expected: Vec<i64> =
                cron.times_after(NOW - 1).take_while(|time| *time < next).collect();
            // The first look takes its time as given.
            let given = usize::from(expected.first() != Some(&NOW));
            assert_eq!(fired[given..], expected, "{expression}");
        }
    }

    #[test]
    fn looks_at_any_distance_fire_no_time_twice_and_account_for_all() {
        for misfire in [Misfire::Skip, Misfire::Once, Misfire::All { limit: 3 }] {
            let (cron, mut random) = (cron("*/5 * * * *"), Pcg64Mcg::seed_from_u64(7));
            let (mut now, mut next, mut fired, mut skipped) = (NOW, NOW, Vec::new(), 0);
            for _ in 0..200 {
                let firing = due(&cron, next, now, now, misfire);
                fired.extend(firing.times);
                skipped += firing.skipped;
                next = firing.next.unwrap();
                now += up_to(&mut random, 30 * MINUTE);
            }
            assert!(fired.is_sorted_by(|one, other| one < other));
            let all = cron.times_after(NOW - 1).take_while(|time| *time < next).count();
            assert_eq!(fired.len() + skipped as usize, all);
        }
    }

    #[test]
    fn a_policy_is_written_as_a_word() {
        for word in ["skip", "once", "all"] {
            assert_eq!(word.parse::<Misfire>().unwrap().to_string(), word);
        }
        assert_eq!(Misfire::default(), Misfire::Once);
        assert_eq!(
            "some".parse::<Misfire>().unwrap_err().to_string(),
            "there is no misfire policy \"some\"; give skip, once or all"
        );
    }

    #[test]
    fn a_limit_is_checked() {
        let all = Misfire::All { limit: LIMIT_MAX };
        assert_eq!(all.with_limit(5), Ok(Misfire::All { limit: 5 }));
        assert_eq!(Misfire::Once.with_limit(5), Ok(Misfire::Once));
        for limit in [0, LIMIT_MAX + 1] {
            assert_eq!(all.with_limit(limit), Err(MisfireError::Limit(limit)));
        }
    }

    fn cron(expression: &str) -> Cron {
        Cron::parse(expression, "UTC").unwrap()
    }

    fn up_to(random: &mut Pcg64Mcg, most: i64) -> i64 {
        (random.next_u64() % (most as u64 + 1)) as i64
    }
}
