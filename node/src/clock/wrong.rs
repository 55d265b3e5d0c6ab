//! Decides how a clock is wrong on purpose: by an offset, by its rate, and by leaps, as those of real machines are
//! that were suspended or moved. It only goes forward: that much every monotonic clock keeps.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use turnwise_engine::LocalInstant;

use super::{BootClock, Clock};

/// The most that a rate may be wrong, in parts per billion: what the engine is promised (500 ppm), and as much again.
const DRIFT_PPB_MAX: i64 = 1_000_000;

/// When a clock leaps, in nanoseconds after it began, and how far; in order of time.
type Leaps = Vec<(u64, u64)>;

/// The kernel's clock, made wrong. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct WrongClock {
    right: BootClock,
    /// What the right one showed when this one began.
    began: u64,
    /// What this one showed then.
    shown: u64,
    /// How much too fast it is.
    drift_ppb: i64,
    leaps: Arc<watch::Sender<Leaps>>,
}

impl WrongClock {
    /// One that is not wrong yet.
    pub fn right() -> Self {
        Self::new(0, 0, Leaps::new())
    }

    fn new(offset: u64, drift_ppb: i64, leaps: Leaps) -> Self {
        let right = BootClock;
        let began = right.now().as_nanos();
        let leaps = Arc::new(watch::Sender::new(leaps));
        Self { right, began, shown: began.saturating_add(offset), drift_ppb, leaps }
    }

    /// Leap forward, now.
    pub fn leap(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.leaps.send_modify(|leaps| {
            leaps.push((self.right.now().as_nanos().saturating_sub(self.began), by));
            leaps.sort_unstable();
        });
    }

    /// What it shows when the right clock shows `right`.
    fn at(&self, right: u64) -> u64 {
        let since = right.saturating_sub(self.began);
        let leaps = self.leaps.borrow();
        let past = leaps.iter().filter(|(at, _)| *at <= since).map(|(_, by)| *by);
        past.fold(self.shown + self.by_rate(since), u64::saturating_add)
    }

    /// How far it gets, by its rate, while the right one gets this far.
    fn by_rate(&self, since: u64) -> u64 {
        let wide = i128::from(since) * i128::from(1_000_000_000 + self.drift_ppb);
        u64::try_from(wide / 1_000_000_000).unwrap_or(u64::MAX)
    }

    /// What the right clock shows when this one first shows `until` or more.
    fn when(&self, until: u64, leaps: &Leaps) -> u64 {
        let mut leapt = 0;
        for (at, by) in leaps {
            if self.shown + self.by_rate(*at) + leapt >= until {
                break;
            }
            leapt += by;
            if self.shown + self.by_rate(*at) + leapt >= until {
                return self.began + at;
            }
        }
        let rest = i128::from(until.saturating_sub(self.shown + leapt));
        let rate = i128::from(1_000_000_000 + self.drift_ppb);
        // Rounded up, and one more for what `by_rate` rounds down.
        let since = (rest * 1_000_000_000 + rate - 1) / rate + 1;
        self.began.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

impl Clock for WrongClock {
    fn now(&self) -> LocalInstant {
        LocalInstant::from_nanos(self.at(self.right.now().as_nanos()))
    }

    /// As wrong as the other.
    fn wall_micros(&self) -> i64 {
        let right = self.right.now().as_nanos();
        let ahead = i128::from(self.at(right)) - i128::from(right);
        let ahead = i64::try_from(ahead / 1_000).unwrap_or(i64::MAX);
        self.right.wall_micros().saturating_add(ahead)
    }

    async fn sleep_until(&self, until: LocalInstant) {
        self.sleep_by(until, |right| self.right.sleep_until(right)).await;
    }

    async fn sleep_nearly_until(&self, until: LocalInstant) {
        self.sleep_by(until, |right| self.right.sleep_nearly_until(right)).await;
    }
}

impl WrongClock {
    /// Wait until `until` by sleeping on the right clock, whatever leaps are added meanwhile.
    async fn sleep_by<F: Future<Output = ()>>(
        &self,
        until: LocalInstant,
        sleep: impl Fn(LocalInstant) -> F,
    ) {
        let mut leaps = self.leaps.subscribe();
        loop {
            let when = self.when(until.as_nanos(), &leaps.borrow_and_update());
            tokio::select! {
                biased;
                () = sleep(LocalInstant::from_nanos(when)) => return,
                // The sender is this clock's own.
                _ = leaps.changed() => {}
            }
        }
    }
}

/// `OFFSET[,DRIFT][,LEAP@WHEN]...`: `900ms,-80ppm,3s@40s` is a clock that shows 900 ms more than the kernel's, goes too
/// slowly by 80 parts in a million, and leaps forward by three seconds when the process is 40 seconds old.
impl FromStr for WrongClock {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',').map(str::trim);
        let offset = nanos(parts.next().unwrap_or_default())?;
        let mut drift_ppb = 0;
        let mut leaps = Vec::new();
        for part in parts {
            if let Some((by, at)) = part.split_once('@') {
                leaps.push((nanos(at)?, nanos(by)?));
            } else {
                drift_ppb = drift(part)?;
            }
        }
        leaps.sort_unstable();
        Ok(Self::new(offset, drift_ppb, leaps))
    }
}

fn nanos(text: &str) -> Result<u64, String> {
    if text == "0" {
        return Ok(0);
    }
    let time: Duration = humantime::parse_duration(text).map_err(|error| {
        format!("{text:?} is no length of time: {error}; write it as 900ms or 3s; a clock only leaps forward")
    })?;
    u64::try_from(time.as_nanos()).map_err(|_| format!("{text:?} is too long"))
}

fn drift(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is neither a rate such as -80ppm nor a leap such as 3s@40s");
    let ppm: f64 =
        text.strip_suffix("ppm").ok_or_else(wrong)?.trim().parse().map_err(|_| wrong())?;
    let ppb = (ppm * 1_000.0).round();
    if ppb.is_nan() || ppb.abs() > DRIFT_PPB_MAX as f64 {
        return Err(format!("{text:?}: a rate is wrong by at most {} ppm", DRIFT_PPB_MAX / 1_000));
    }
    Ok(ppb as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(text: &str) -> WrongClock {
        text.parse().unwrap()
    }

    #[test]
    fn it_is_as_wrong_as_it_is_said_to_be() {
        let clock = clock("900ms,-80ppm,3s@40s");
        let at = |seconds: u64| clock.at(clock.began + seconds * 1_000_000_000) - clock.began;
        assert_eq!(at(0), 900_000_000);
        assert_eq!(at(10), 10_900_000_000 - 800_000);
        assert_eq!(at(40), 43_900_000_000 - 3_200_000);
    }

    #[test]
    fn an_instant_is_found_again_also_across_leaps() {
        let clock = clock("1s,123.457ppm,3s@40s,2s@41s");
        for nanos in (0..100_000_000_000).step_by(777_777_777) {
            let until = clock.shown + nanos;
            let when = clock.when(until, &clock.leaps.borrow());
            assert!(clock.at(when) >= until, "{nanos}: too early");
            assert!(when <= clock.began + 3 || clock.at(when - 3) < until, "{nanos}: too late");
        }
    }

    #[tokio::test]
    async fn a_leap_ends_the_waits_that_it_leaps_over() {
        let clock = clock("900ms");
        let before = clock.now();
        let until = before + Duration::from_secs(3_600);
        let sleeper = clock.clone();
        let waits = tokio::spawn(async move {
            sleeper.sleep_until(until).await;
            sleeper.sleep_nearly_until(until).await;
        });
        tokio::task::yield_now().await;
        clock.leap(Duration::from_secs(3_599));
        assert!(clock.now() >= before + Duration::from_secs(3_599));
        assert!(!waits.is_finished());
        clock.leap(Duration::from_secs(1));
        tokio::time::timeout(Duration::from_secs(60), waits).await.unwrap().unwrap();
        assert!(clock.now() >= until);
    }

    #[test]
    fn its_wall_clock_is_as_wrong() {
        let clock = clock("1h");
        clock.leap(Duration::from_secs(3_600));
        let before = clock.right.wall_micros();
        let shown = clock.wall_micros();
        let after = clock.right.wall_micros();
        let two_hours = 7_200 * 1_000_000;
        assert!((before + two_hours - 1..=after + two_hours).contains(&shown));
    }

    #[test]
    fn nonsense_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", "no length of time"),
            ("soon", "no length of time"),
            ("-3s", "only leaps forward"),
            ("0,fast", "neither a rate"),
            ("0,5000ppm", "at most 1000 ppm"),
            ("0,NaNppm", "at most 1000 ppm"),
            ("0,-1s@3s", "only leaps forward"),
        ] {
            let error = text.parse::<WrongClock>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
