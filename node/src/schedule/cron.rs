//! Decides at which times a cron expression comes, in its time zone.
//!
//! Five fields (minute, hour, day of the month, month, day of the week), or six with the second first; or one of
//! `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly` and `@annually`. Of two restricted day fields either is
//! enough; a `+` before the day of the week (`0 9 1-7 * +MON`) asks for both. `L` is the last day of the month,
//! `15W` the working day nearest to the 15th, `MON#2` the second Monday, `FRIL` the last Friday.
//!
//! # Daylight saving
//!
//! An expression with a `*` or a step from it (`*/10`) as second, minute or hour is an *interval*; every other
//! one names *fixed times* (`30 2 * * *`, `0 8,20 * * *`). Vixie cron draws the line at the same place.
//!
//! | the clock goes | fixed times | intervals |
//! |---|---|---|
//! | forward: a time does not exist | at the first instant after the gap, together | not |
//! | back: a time exists twice | once, at the earlier | at both |
//!
//! So a daily job runs once a day on every day, and an hourly one every hour. `*/10 2 * * *` is an interval within
//! one hour: it does not come when that hour is skipped, and comes twice as often when it is repeated.
//!
//! The rules of the zones are those of the IANA database that the binary was built with; they end with 2099. Two
//! binaries may differ where the rules were changed in between.

use chrono::{DateTime, TimeZone};
use chrono_tz::{GapInfo, TZ_VARIANTS, Tz};
use croner::parser::{CronParser, Seconds, Year};

/// The longest cron expression, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 256;

/// The earliest and the latest time that is looked for, those of a `ServerInstant`, in 1677 and 2262.
const FIRST: i64 = i64::MIN / 1_000;
const LAST: i64 = i64::MAX / 1_000;
/// From where it is tried whether an expression ever comes: 2000-01-01. Days and weekdays repeat every 400 years,
/// and 29 February falls on each weekday within 40.
const TRIED_FROM: i64 = 946_684_800_000_000;
/// How much of an unknown zone's name an error repeats, in characters.
const ZONE_SHOWN_MAX: usize = 64;

/// Why there is no [`Cron`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// The expression is too long.
    #[error("the cron expression has {0} bytes; the most is {EXPRESSION_BYTES_MAX}")]
    TooLong(usize),
    /// The expression cannot be read.
    #[error("the cron expression {expression:?} cannot be read: {reason}")]
    Malformed {
        /// As it was given.
        expression: String,
        /// What is wrong with it, and what to write.
        reason: String,
    },
    /// No such time zone.
    #[error("there is no time zone {zone:?}; {}", nearest.map_or_else(
        || "give an IANA name such as Europe/Berlin, or UTC".to_owned(),
        |name| format!("did you mean {name}?"),
    ))]
    UnknownZone {
        /// As it was given, cut off after 64 characters.
        zone: String,
        /// The zone that may have been meant.
        nearest: Option<&'static str>,
    },
    /// The expression can be read, but no day fits it.
    #[error(
        "the cron expression {0:?} never comes: no day from 2000 to 2262 fits it; name a day that its month has"
    )]
    Never(String),
}

/// A cron expression in its time zone, for which there is at least one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    pattern: croner::Cron,
    zone: Tz,
    fixed: bool,
}

impl Cron {
    /// The expression in the zone, an IANA name (`Europe/Berlin`) or `UTC`.
    ///
    /// # Errors
    ///
    /// Why the expression or the zone is none.
    pub fn parse(expression: &str, zone: &str) -> Result<Self, CronError> {
        if expression.len() > EXPRESSION_BYTES_MAX {
            return Err(CronError::TooLong(expression.len()));
        }
        let pattern = read(expression)
            .map_err(|reason| CronError::Malformed { expression: expression.to_owned(), reason })?;
        let zone = zone.parse().map_err(|_| CronError::UnknownZone {
            zone: zone.chars().take(ZONE_SHOWN_MAX).collect(),
            nearest: nearest_zone(zone),
        })?;
        let times = &pattern.pattern;
        let fixed =
            ![&times.seconds, &times.minutes, &times.hours].iter().any(|field| field.from_wildcard);
        let cron = Self { pattern, zone, fixed };
        match cron.next_after(TRIED_FROM) {
            Some(_) => Ok(cron),
            None => Err(CronError::Never(expression.to_owned())),
        }
    }

    /// The name of the time zone.
    pub fn zone(&self) -> &'static str {
        self.zone.name()
    }

    /// How the clocks of the zone show a time, in microseconds since the Unix epoch: `2026-03-29 03:00:00 +02:00`. None outside of
    /// the range of [`Cron::next_after`].
    pub fn local(&self, at: i64) -> Option<String> {
        let at = DateTime::from_timestamp_micros(at)?.with_timezone(&self.zone);
        Some(at.format("%Y-%m-%d %H:%M:%S %:z").to_string())
    }

    /// The first time strictly after `after`, both in microseconds since the Unix epoch. From before September
    /// 1677 it is the first one since then; none when the next is after April 2262.
    pub fn next_after(&self, after: i64) -> Option<i64> {
        if after >= LAST {
            return None;
        }
        let seconds = after.max(FIRST).div_euclid(1_000_000);
        let after = DateTime::from_timestamp(seconds, 0)?.with_timezone(&self.zone);
        let next = if self.fixed {
            self.next_fixed(&after)?
        } else {
            self.pattern.find_next_occurrence(&after, false).ok()?
        };
        Some(next.timestamp_micros()).filter(|next| *next <= LAST)
    }

    /// The times strictly after `after`, in order, as [`Cron::next_after`] gives them.
    pub fn times_after(&self, after: i64) -> impl Iterator<Item = i64> {
        std::iter::successors(self.next_after(after), |time| self.next_after(*time))
    }

    /// The first `count` times strictly after `after`; fewer when there are fewer.
    pub fn next_times(&self, after: i64, count: usize) -> Vec<i64> {
        self.times_after(after).take(count).collect()
    }

    /// Goes through the readings of the wall clock that fit. A later reading never means an earlier instant, so none
    /// up to the reading at `after` can mean an instant after it.
    fn next_fixed(&self, after: &DateTime<Tz>) -> Option<DateTime<Tz>> {
        let mut reading = after.naive_local();
        loop {
            reading = self.pattern.find_next_occurrence(&reading, false).ok()?;
            let instant = (self.zone.from_local_datetime(&reading).earliest())
                .or_else(|| GapInfo::new(&reading, &self.zone)?.end);
            if instant.as_ref() > Some(after) {
                return instant;
            }
        }
    }
}

/// What may stand in one field.
struct Field {
    name: &'static str,
    values: &'static str,
    words: &'static [&'static str],
}

const FIELDS: [Field; 6] = [
    Field { name: "second", values: "0 to 59", words: &[] },
    Field { name: "minute", values: "0 to 59", words: &[] },
    Field { name: "hour", values: "0 to 23", words: &[] },
    Field {
        name: "day of the month",
        values: "1 to 31, L for the last, 15W for the working day nearest to the 15th",
        words: &["L", "W", "LW"],
    },
    Field {
        name: "month",
        values: "1 to 12 or JAN to DEC",
        words: &[
            "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
        ],
    },
    Field {
        name: "day of the week",
        values: "0 to 7 (0 and 7 are Sunday) or SUN to SAT, MON#2 for the second Monday, MONL for the last",
        words: &[
            "SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", "L", "SUNL", "MONL", "TUEL", "WEDL",
            "THUL", "FRIL", "SATL",
        ],
    },
];

/// The expression, or what is wrong with it. Stricter than croner, which takes a field that names nothing (`,`),
/// and `MON` as a month.
fn read(expression: &str) -> Result<croner::Cron, String> {
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    let expression = expression.trim();
    if expression.starts_with('@') {
        return parser.parse(expression).map_err(|_| {
            "the shorthands are @hourly, @daily, @weekly, @monthly, @yearly and @annually"
                .to_owned()
        });
    }
    let fields: Vec<&str> = expression.split_whitespace().collect();
    if !(5..=6).contains(&fields.len()) {
        return Err(format!(
            "it has {} fields; give five (minute, hour, day of the month, month, day of the week), or six \
             with the second first",
            fields.len()
        ));
    }
    for (position, text) in (FIELDS.len() - fields.len()..).zip(&fields) {
        let field = &FIELDS[position];
        let mut words =
            text.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
        let mut alone = ["*"; FIELDS.len()];
        alone[position] = text;
        if !words.all(|word| field.words.iter().any(|known| known.eq_ignore_ascii_case(word)))
            || text.split(',').any(str::is_empty)
            || parser.parse(&alone.join(" ")).is_err()
        {
            return Err(format!(
                "the {} cannot be {text:?}; give {}, or *, and of those lists (1,2), ranges (1-5) and \
                 steps (*/2, 1-5/2)",
                field.name, field.values
            ));
        }
    }
    parser.parse(expression).map_err(|error| error.to_string())
}

/// The zone whose name, or its last part, differs from `zone` only in capitals and in blanks for underscores.
/// `Etc/GMT+2` is not offered for `GMT+2`: it is two hours *behind* UTC.
fn nearest_zone(zone: &str) -> Option<&'static str> {
    let zone = zone.trim().replace(' ', "_");
    let names = || TZ_VARIANTS.iter().map(|known| known.name());
    let is_city = |name: &str| {
        let city = name.rsplit_once('/').filter(|(area, _)| *area != "Etc");
        city.is_some_and(|(_, city)| city.eq_ignore_ascii_case(&zone))
    };
    names()
        .find(|name| name.eq_ignore_ascii_case(&zone))
        .or_else(|| names().find(|name| is_city(name)))
}

#[cfg(test)]
mod tests {
    use rand_core::{Rng, SeedableRng};
    use rand_pcg::Pcg64Mcg;

    use super::*;

    #[test]
    fn five_fields_begin_with_the_minute_and_six_with_the_second() {
        let five = times("30 2 * * *", "UTC", "2026-01-01T00:00:00Z", 2);
        assert_eq!(five, ["2026-01-01 02:30:00 +0000", "2026-01-02 02:30:00 +0000"]);
        let six = times("*/20 30 2 * * *", "UTC", "2026-01-01T02:30:00Z", 3);
        assert_eq!(
            six,
            ["2026-01-01 02:30:20 +0000", "2026-01-01 02:30:40 +0000", "2026-01-02 02:30:00 +0000"]
        );
    }

    #[test]
    fn names_shorthands_and_special_days_are_understood() {
        for (expression, next) in [
            ("0 0 * jan Mon-fri", "2026-01-01"),
            ("0 0 * * SUN", "2026-01-04"),
            ("0 0 * * 7", "2026-01-04"),
            ("0 0 L * *", "2026-01-31"),
            ("0 0 LW 2 *", "2026-02-27"),
            ("0 0 31W 1 *", "2026-01-30"),
            ("0 0 ? * TUE#2", "2026-01-13"),
            ("0 0 * * FRIL", "2026-01-30"),
            ("0 0 13 * FRI", "2026-01-02"),
            ("0 0 13 * +FRI", "2026-02-13"),
            ("0 0 29 2 *", "2028-02-29"),
            ("@daily", "2026-01-01"),
            (" @Weekly ", "2026-01-04"),
            ("@monthly", "2026-01-01"),
            ("@yearly", "2026-01-01"),
        ] {
            let found = times(expression, "UTC", "2025-12-31T23:59:59Z", 1);
            assert_eq!(found, [format!("{next} 00:00:00 +0000")], "{expression}");
        }
        assert_eq!(
            times("@hourly", "UTC", "2026-01-01T00:00:00Z", 1),
            ["2026-01-01 01:00:00 +0000"]
        );
    }

    #[test]
    fn the_next_time_is_strictly_after() {
        let daily = cron("@daily", "UTC");
        let (midnight, day) = (1_780_272_000_000_000, 86_400_000_000);
        assert_eq!(daily.next_after(midnight - 1), Some(midnight));
        assert_eq!(daily.next_after(midnight), Some(midnight + day));
        assert_eq!(daily.next_after(midnight + 1), Some(midnight + day));
        assert_eq!(daily.next_after(-1), Some(0));
    }

    #[test]
    fn a_fixed_time_in_a_gap_comes_at_its_end() {
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00+01:00", 3),
            ["2026-03-28 02:30:00 +0100", "2026-03-29 03:00:00 +0200", "2026-03-30 02:30:00 +0200"]
        );
        assert_eq!(
            times("30 2 * * *", "America/New_York", "2026-03-08T00:00:00-05:00", 2),
            ["2026-03-08 03:00:00 -0400", "2026-03-09 02:30:00 -0400"]
        );
        assert_eq!(
            times("15 2 * * *", "Australia/Lord_Howe", "2026-10-04T00:00:00+10:30", 2),
            ["2026-10-04 02:30:00 +1100", "2026-10-05 02:15:00 +1100"]
        );
        assert_eq!(
            times("0 1 * * *", "Antarctica/Troll", "2026-03-29T00:00:00+00:00", 2),
            ["2026-03-29 03:00:00 +0200", "2026-03-30 01:00:00 +0200"]
        );
    }

    #[test]
    fn several_fixed_times_in_a_gap_come_once_with_the_one_at_its_end() {
        assert_eq!(
            times("0,30 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00:00+01:00", 3),
            ["2026-03-29 03:00:00 +0200", "2026-03-29 03:30:00 +0200", "2026-03-30 02:00:00 +0200"]
        );
    }

    #[test]
    fn a_fixed_time_that_exists_twice_comes_at_the_earlier() {
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", "2026-10-25T00:00:00+02:00", 2),
            ["2026-10-25 02:30:00 +0200", "2026-10-26 02:30:00 +0100"]
        );
        assert_eq!(
            times("0,30 1 * * *", "America/New_York", "2026-11-01T00:00:00-04:00", 3),
            ["2026-11-01 01:00:00 -0400", "2026-11-01 01:30:00 -0400", "2026-11-02 01:00:00 -0500"]
        );
        assert_eq!(
            times("45 1 * * *", "Australia/Lord_Howe", "2026-04-05T00:00:00+11:00", 2),
            ["2026-04-05 01:45:00 +1100", "2026-04-06 01:45:00 +1030"]
        );
        let between_the_two = "2026-10-25T02:10:00+01:00";
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", between_the_two, 1),
            ["2026-10-26 02:30:00 +0100"]
        );
    }

    #[test]
    fn an_interval_leaves_a_gap_out() {
        assert_eq!(
            times("*/20 * * * *", "Europe/Berlin", "2026-03-29T01:30:00+01:00", 3),
            ["2026-03-29 01:40:00 +0100", "2026-03-29 03:00:00 +0200", "2026-03-29 03:20:00 +0200"]
        );
        assert_eq!(
            times("*/20 2 * * *", "Europe/Berlin", "2026-03-29T00:00:00+01:00", 1),
            ["2026-03-30 02:00:00 +0200"]
        );
        assert_eq!(
            times("@hourly", "America/New_York", "2026-03-08T00:30:00-05:00", 2),
            ["2026-03-08 01:00:00 -0500", "2026-03-08 03:00:00 -0400"]
        );
        assert_eq!(
            times("*/10 * * * *", "Australia/Lord_Howe", "2026-10-04T01:45:00+10:30", 2),
            ["2026-10-04 01:50:00 +1030", "2026-10-04 02:30:00 +1100"]
        );
    }

    #[test]
    fn an_interval_comes_in_both_of_two_equal_hours() {
        assert_eq!(
            times("*/30 * * * *", "Europe/Berlin", "2026-10-25T02:00:00+02:00", 4),
            [
                "2026-10-25 02:30:00 +0200",
                "2026-10-25 02:00:00 +0100",
                "2026-10-25 02:30:00 +0100",
                "2026-10-25 03:00:00 +0100",
            ]
        );
        assert_eq!(
            times("@hourly", "America/New_York", "2026-11-01T00:00:00-04:00", 3),
            ["2026-11-01 01:00:00 -0400", "2026-11-01 01:00:00 -0500", "2026-11-01 02:00:00 -0500"]
        );
        assert_eq!(
            times("*/15 * * * *", "Australia/Lord_Howe", "2026-04-05T01:40:00+11:00", 4),
            [
                "2026-04-05 01:45:00 +1100",
                "2026-04-05 01:30:00 +1030",
                "2026-04-05 01:45:00 +1030",
                "2026-04-05 02:00:00 +1030",
            ]
        );
    }

    #[test]
    fn an_odd_offset_is_kept() {
        let found = times("0 9 * * *", "Asia/Kathmandu", "2026-06-01T00:00:00Z", 1);
        assert_eq!(found, ["2026-06-01 09:00:00 +0545"]);
    }

    #[test]
    fn a_day_that_a_zone_leaves_out_is_a_gap() {
        let before = "2011-12-29T12:00:00-10:00";
        assert_eq!(
            times("30 2 * * *", "Pacific/Apia", before, 2),
            ["2011-12-31 00:00:00 +1400", "2011-12-31 02:30:00 +1400"]
        );
        assert_eq!(
            times("30 2 30 * *", "Pacific/Apia", before, 2),
            ["2011-12-31 00:00:00 +1400", "2012-01-30 02:30:00 +1400"]
        );
        assert_eq!(
            times("0 */8 * * *", "Pacific/Apia", before, 3),
            ["2011-12-29 16:00:00 -1000", "2011-12-31 00:00:00 +1400", "2011-12-31 08:00:00 +1400"]
        );
    }

    #[test]
    fn what_cannot_be_read_is_told_with_what_to_write() {
        for (expression, reason) in [
            (
                "* * * *",
                "it has 4 fields; give five (minute, hour, day of the month, month, day of the week)",
            ),
            ("", "it has 0 fields"),
            ("* * * * * * 2026", "it has 7 fields"),
            ("61 * * * *", "the minute cannot be \"61\"; give 0 to 59, or *"),
            ("61 * * * * *", "the second cannot be \"61\""),
            ("* 9-25 * * *", "the hour cannot be \"9-25\"; give 0 to 23"),
            (
                "0 0 1,,2 * *",
                "the day of the month cannot be \"1,,2\"; give 1 to 31, L for the last",
            ),
            ("0 0 * Mon *", "the month cannot be \"Mon\"; give 1 to 12 or JAN to DEC"),
            ("0 0 * * FRI-MON", "the day of the week cannot be \"FRI-MON\"; give 0 to 7"),
            ("*/0 * * * *", "the minute cannot be \"*/0\""),
            ("@reboot", "the shorthands are @hourly,"),
        ] {
            let told = Cron::parse(expression, "UTC").unwrap_err().to_string();
            let expected = format!("the cron expression {expression:?} cannot be read: {reason}");
            assert!(told.starts_with(&expected), "{told}");
        }
        let long = Cron::parse(&"*".repeat(EXPRESSION_BYTES_MAX + 1), "UTC").unwrap_err();
        assert_eq!(long.to_string(), "the cron expression has 257 bytes; the most is 256");
    }

    #[test]
    fn what_never_comes_is_refused() {
        for expression in ["0 0 30 2 *", "0 0 31 4,6 *", "* * * * L"] {
            let never = CronError::Never(expression.to_owned());
            assert_eq!(Cron::parse(expression, "Europe/Berlin"), Err(never));
        }
    }

    #[test]
    fn an_unknown_zone_is_told_with_the_nearest() {
        for (zone, hint) in [
            ("europe/berlin", "did you mean Europe/Berlin?"),
            ("Berlin", "did you mean Europe/Berlin?"),
            ("New York", "did you mean America/New_York?"),
            ("utc", "did you mean UTC?"),
            ("GMT+2", "give an IANA name such as Europe/Berlin, or UTC"),
            ("+02:00", "give an IANA name such as Europe/Berlin, or UTC"),
            ("", "give an IANA name such as Europe/Berlin, or UTC"),
        ] {
            let told = Cron::parse("@daily", zone).unwrap_err().to_string();
            assert_eq!(told, format!("there is no time zone {zone:?}; {hint}"));
        }
    }

    #[test]
    fn whatever_is_given_nothing_panics_and_times_only_go_forward() {
        const PIECES: [&str; 29] = [
            "*/7",
            "*/99",
            "0",
            "1-5",
            "5-1",
            "3,17",
            "29",
            "31",
            "L",
            "LW",
            "15W",
            "W",
            "#",
            "MON",
            "fri#5",
            "5#L",
            "JAN",
            "1-9/2",
            "+",
            "+TUE",
            "?",
            "@daily",
            "-",
            "/",
            ",",
            "ß",
            "\0",
            "99999999999",
            " ",
        ];
        const INSTANTS: [i64; 9] =
            [i64::MIN, i64::MIN + 1, FIRST - 1, FIRST, 0, LAST - 1, LAST, i64::MAX - 1, i64::MAX];
        let mut random = Pcg64Mcg::seed_from_u64(7);
        let mut parsed = 0;
        for _ in 0..1_000 {
            let mut below = |count: usize| (random.next_u64() % count as u64) as usize;
            let separator = [" ", " ", " ", ""][below(4)];
            let mut piece = || if below(3) > 0 { "*" } else { PIECES[below(PIECES.len())] };
            let fields: Vec<&str> = (0..6).map(|_| piece()).collect();
            let zone = TZ_VARIANTS[below(TZ_VARIANTS.len())].name();
            let Ok(cron) = Cron::parse(&fields.join(separator), zone) else {
                continue;
            };
            parsed += 1;
            let chosen = INSTANTS[below(INSTANTS.len())];
            for after in [chosen, random.next_u64() as i64, random.next_u64() as i64 / 1_000] {
                let next = cron.next_times(after, 3);
                assert!(
                    next.first().is_none_or(|first| *first > after),
                    "{fields:?} {zone} {after}"
                );
                assert!(next.is_sorted_by(|one, other| one < other), "{fields:?} {zone} {after}");
            }
        }
        assert!(parsed > 50, "{parsed}");
    }

    #[test]
    fn no_text_panics() {
        let mut random = Pcg64Mcg::seed_from_u64(7);
        for _ in 0..20_000 {
            let length = random.next_u64() % 24;
            let text: String =
                (0..length).filter_map(|_| char::from_u32(random.next_u32() % 400)).collect();
            let _ = Cron::parse(&text, &text);
            let _ = Cron::parse(&format!("{text} * * * *"), "UTC");
        }
    }

    fn cron(expression: &str, zone: &str) -> Cron {
        Cron::parse(expression, zone).unwrap()
    }

    /// The next times in local time with the offset from UTC.
    fn times(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let after = DateTime::parse_from_rfc3339(after).unwrap().timestamp_micros();
        let local = |time| {
            DateTime::from_timestamp_micros(time)
                .unwrap()
                .with_timezone(&zone.parse::<Tz>().unwrap())
        };
        let times = cron(expression, zone).next_times(after, count);
        times.into_iter().map(|time| local(time).format("%F %T %z").to_string()).collect()
    }
}
