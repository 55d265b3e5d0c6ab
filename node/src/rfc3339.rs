//! Decides how an instant of server time is written: RFC 3339, UTC, whole microseconds.

use chrono::{DateTime, SecondsFormat, Utc};
use turnwise_engine::ServerInstant;

/// `2026-11-24T05:10:00.000250Z`. Always that long, so that it sorts; an instant that no calendar has is
/// written as the nearest one that it has.
pub fn format(instant: ServerInstant) -> String {
    let micros = instant.as_micros();
    let nearest = if micros < 0 { DateTime::<Utc>::MIN_UTC } else { DateTime::<Utc>::MAX_UTC };
    let date = DateTime::from_timestamp_micros(micros).unwrap_or(nearest);
    date.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// An instant from RFC 3339 with any offset from UTC; what is finer than a microsecond is cut off. None
/// when it is no such text, or not within the years 1678 to 2261, those of a [`ServerInstant`].
pub fn parse(text: &str) -> Option<ServerInstant> {
    let micros = DateTime::parse_from_rfc3339(text).ok()?.timestamp_micros();
    let instant = ServerInstant::from_micros(micros);
    (instant.as_micros() == micros).then_some(instant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_in_utc_with_microseconds() {
        let instant = ServerInstant::from_micros(1_700_000_000_000_250);
        assert_eq!(format(instant), "2023-11-14T22:13:20.000250Z");
        assert_eq!(format(ServerInstant::from_micros(-1)), "1969-12-31T23:59:59.999999Z");
    }

    #[test]
    fn any_offset_is_read() {
        let instant = parse("2023-11-14T23:13:20.000250+01:00").unwrap();
        assert_eq!(format(instant), "2023-11-14T22:13:20.000250Z");
        assert_eq!(parse("2023-11-14"), None);
        assert_eq!(parse("tomorrow"), None);
        assert_eq!(parse("2999-01-01T00:00:00Z"), None);
        assert_eq!(parse("0001-01-01T00:00:00Z"), None);
    }
}
