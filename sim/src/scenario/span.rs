//! Decides how lengths of time are written in scenarios and options: `80ms`, `1h 30m`, `-200us`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A length of time in nanoseconds, up to some 584 years.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub u64);

/// A length of time in nanoseconds, forward or back.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Shift(pub i64);

/// A text that is no length of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanError(String);

impl fmt::Display for SpanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SpanError {}

impl SpanError {
    pub(super) fn new(reason: String) -> Self {
        Self(reason)
    }
}

impl Span {
    /// No time.
    pub const ZERO: Self = Self(0);

    /// Whether it is none.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
    pub(crate) fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }

    /// From whole milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }

    /// From whole microseconds.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros * 1_000)
    }

    /// From whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1_000_000_000)
    }

    /// In seconds.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let text = text.trim();
        if text == "0" {
            return Ok(Self(0));
        }
        if text.starts_with('-') {
            return Err(SpanError(format!("{text:?} is negative; it must be a length of time")));
        }
        let duration = humantime::parse_duration(text).map_err(|error| {
            SpanError(format!("{text:?} is no length of time such as 1s or 80ms: {error}"))
        })?;
        u64::try_from(duration.as_nanos())
            .map(Self)
            .map_err(|_| SpanError(format!("{text:?} is longer than 584 years")))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(Duration::from_nanos(self.0)).fmt(f)
    }
}

impl TryFrom<String> for Span {
    type Error = SpanError;
    fn try_from(text: String) -> Result<Self, SpanError> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

impl Shift {
    /// From milliseconds.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis * 1_000_000)
    }
}

impl FromStr for Shift {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let text = text.trim();
        let (sign, length) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        let Span(nanos) = length.parse()?;
        let nanos = i64::try_from(nanos)
            .map_err(|_| SpanError(format!("{text:?} is longer than 292 years")))?;
        Ok(Self(sign * nanos))
    }
}

impl fmt::Display for Shift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{}", Span(self.0.unsigned_abs()))
    }
}

impl TryFrom<String> for Shift {
    type Error = SpanError;
    fn try_from(text: String) -> Result<Self, SpanError> {
        text.parse()
    }
}

impl From<Shift> for String {
    fn from(shift: Shift) -> Self {
        shift.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_survive_their_text() {
        for nanos in [0, 1, 80_000_000, 5_400_000_000_000, 1_000_000_001] {
            assert_eq!(Span(nanos).to_string().parse(), Ok(Span(nanos)));
            let back = Shift(-(nanos as i64));
            assert_eq!(back.to_string().parse(), Ok(back));
        }
        assert!("-5ms".parse::<Span>().unwrap_err().to_string().contains("negative"));
        assert!("5 apples".parse::<Span>().is_err());
    }
}
