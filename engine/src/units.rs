//! The quantities of the protocol, each a type of its own, so that local time, server time, slots and
//! epochs cannot be mixed. Decides nothing.

use core::fmt;
use core::ops::{Add, Sub};
use core::str::FromStr;
use core::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An instant on this node's own monotonic clock, in nanoseconds since an epoch that nobody knows.
///
/// The clock must keep running while the machine is suspended (`CLOCK_BOOTTIME` on Linux), so that a
/// node that slept does not wake with a view that it believes to be fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LocalInstant(u64);

impl LocalInstant {
    /// An instant from its nanoseconds.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This instant, `nanos` later (earlier when negative); stops at the ends of the range.
    pub const fn offset(self, nanos: i64) -> Self {
        Self(self.0.saturating_add_signed(nanos))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Signed nanoseconds from `other` to this.
    pub const fn nanos_from(self, other: Self) -> i64 {
        self.0.wrapping_sub(other.0) as i64
    }
}

impl Add<Duration> for LocalInstant {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(nanos(by) as u64))
    }
}

/// An instant on the database server's clock, in nanoseconds since the Unix epoch: the only clock that
/// any stored timestamp comes from. It may step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServerInstant(i64);

impl ServerInstant {
    /// An instant from nanoseconds since the Unix epoch.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// An instant from microseconds since the Unix epoch, the unit in which the stores keep time.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros.saturating_mul(1_000))
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Whole microseconds since the Unix epoch, rounded down.
    pub const fn as_micros(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// This instant, `nanos` later (earlier when negative).
    pub const fn offset(self, nanos: i64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// Signed nanoseconds from `other` to this.
    pub const fn nanos_from(self, other: Self) -> i64 {
        self.0.saturating_sub(other.0)
    }
}

/// Nanoseconds of a duration, at most `i64::MAX`.
pub(crate) fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// The number of a slot: the period-long interval of server time centred on its boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(pub i64);

impl Add<i64> for Slot {
    type Output = Self;
    fn add(self, by: i64) -> Self {
        Self(self.0.saturating_add(by))
    }
}

impl Sub<i64> for Slot {
    type Output = Self;
    fn sub(self, by: i64) -> Self {
        Self(self.0.saturating_sub(by))
    }
}

impl Sub for Slot {
    type Output = i64;
    fn sub(self, other: Self) -> i64 {
        self.0.saturating_sub(other.0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of the roster's content: grows by one with every change.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub i64);

/// One running process of the node. A process that was declared lost comes back under a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(Uuid);

impl NodeId {
    /// A node's identity from a UUID.
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// An identity from a number: for tests and simulations, where names must not vary.
    pub const fn from_u128(number: u128) -> Self {
        Self(Uuid::from_u128(number))
    }

    /// The UUID.
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for NodeId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// The number that a node gives to one of its claims. Together with the node's id it is the fencing
/// token written on each job that the claim took; it grows by one a claim and is never used again.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Token(pub i64);

/// The time between polls of the whole farm, in whole milliseconds, from 50 ms to 10 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Period(u32);

/// The reason why a duration cannot be a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeriodError;

impl fmt::Display for PeriodError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a period is a whole number of milliseconds from 50 ms to 10 s")
    }
}

impl core::error::Error for PeriodError {}

impl Period {
    /// One second.
    pub const DEFAULT: Self = Self(1_000);

    /// A period from milliseconds, 50 to 10 000.
    pub const fn from_millis(millis: u32) -> Result<Self, PeriodError> {
        if millis < 50 || millis > 10_000 {
            return Err(PeriodError);
        }
        Ok(Self(millis))
    }

    /// Whole milliseconds.
    pub const fn as_millis(self) -> u32 {
        self.0
    }

    /// Nanoseconds.
    pub const fn as_nanos(self) -> i64 {
        self.0 as i64 * 1_000_000
    }

    /// As a duration.
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0 as u64)
    }
}

impl TryFrom<u32> for Period {
    type Error = PeriodError;
    fn try_from(millis: u32) -> Result<Self, PeriodError> {
        Self::from_millis(millis)
    }
}

impl From<Period> for u32 {
    fn from(period: Period) -> u32 {
        period.0
    }
}

impl TryFrom<Duration> for Period {
    type Error = PeriodError;
    fn try_from(duration: Duration) -> Result<Self, PeriodError> {
        if !duration.subsec_nanos().is_multiple_of(1_000_000) {
            return Err(PeriodError);
        }
        let millis = u32::try_from(duration.as_millis()).map_err(|_| PeriodError)?;
        Self::from_millis(millis)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1_000) {
            write!(f, "{}s", self.0 / 1_000)
        } else {
            write!(f, "{}ms", self.0)
        }
    }
}
