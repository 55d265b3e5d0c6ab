//! Decides how a node is tampered with, for demonstrations and for tests of whole farms: a clock that is wrong, a
//! database that is far, and lines on its standard input that change both while it runs. The node itself is
//! production's: only these two leaves differ.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;

use crate::clock::{BootClock, MachineClock, WrongClock};
use crate::shell::StopHandle;
use crate::store::{Distance, Road};

/// What is wrong with a node on purpose: in production, nothing.
#[derive(Clone, Debug, Default)]
pub struct Tampering {
    clock: Option<WrongClock>,
    /// The road to the database; none: it is where it is.
    pub(crate) road: Option<Road>,
    /// Whether lines on the standard input change both.
    has_commands: bool,
}

impl Tampering {
    /// A node with this clock, this far from its database. With commands both can be changed, though nothing is wrong
    /// with them at first.
    pub fn new(clock: Option<WrongClock>, distance: Option<Distance>, has_commands: bool) -> Self {
        let clock = clock.or_else(|| has_commands.then(WrongClock::right));
        let distance = distance.or_else(|| has_commands.then(Distance::default));
        Self { clock, road: distance.map(Road::new), has_commands }
    }

    /// The node's clock.
    pub(crate) fn clock(&self) -> MachineClock {
        match &self.clock {
            Some(clock) => {
                tracing::warn!("this node's clock is wrong on purpose (--test-clock)");
                MachineClock::Wrong(clock.clone())
            }
            None => MachineClock::Boot(BootClock),
        }
    }

    /// Do as the standard input says from now on, if this node does that at all. Where it ends, the node is asked to
    /// stop; where whoever started this process dies, the process dies too, even one that is stopped by a signal.
    pub(crate) fn listen(&self, stop: StopHandle) -> Result<(), String> {
        if !self.has_commands {
            return Ok(());
        }
        let (Some(clock), Some(road)) = (self.clock.clone(), self.road.clone()) else {
            return Ok(());
        };
        prctl::set_pdeathsig(Signal::SIGKILL)
            .map_err(|error| format!("this process cannot be bound to its parent: {error}"))?;
        let input = std::io::stdin().as_fd().try_clone_to_owned();
        let input = input.and_then(pipe::Receiver::from_owned_fd).map_err(|error| {
            format!("--test-commands: the standard input cannot be used: {error}; give it a pipe")
        })?;
        tokio::spawn(async move {
            let mut lines = BufReader::new(input).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                match line.parse() {
                    Ok(Command::Leap(by)) => clock.leap(by),
                    Ok(Command::Move(distance)) => road.set(distance),
                    Err(error) => tracing::warn!("{error}"),
                }
            }
            stop.ask();
        });
        Ok(())
    }
}

/// What a line on the standard input says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    /// `clock +5s`: the clock leaps forward.
    Leap(Duration),
    /// `distance 80ms`, `distance 20ms..60ms`: the database is so far away from now on.
    Move(Distance),
}

impl std::str::FromStr for Command {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        match line.split_once(' ') {
            Some(("clock", by)) => leap(by).map(Self::Leap),
            Some(("distance", distance)) => distance.parse().map(Self::Move),
            _ => Err(format!("{line:?} is no command: there are `clock +5s` and `distance 80ms`")),
        }
    }
}

/// The longest leap of a clock.
const LEAP_MAX: Duration = Duration::from_secs(24 * 3_600);

/// A leap of a clock from text such as `+5s`, or what is wrong with it.
pub(crate) fn leap(text: &str) -> Result<Duration, String> {
    if text.starts_with('-') {
        return Err(format!(
            "{text:?}: a node's own clock never goes back, it only leaps forward, as after a suspend; write +5s"
        ));
    }
    let by =
        humantime::parse_duration(text.strip_prefix('+').unwrap_or(text)).map_err(|error| {
            format!("{text:?} is no leap of a clock: {error}; write it as +5s or +900ms")
        })?;
    if by.is_zero() || by > LEAP_MAX {
        let most = humantime::format_duration(LEAP_MAX);
        return Err(format!("{text:?}: a clock leaps by more than nothing and at most {most}"));
    }
    Ok(by)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_understood_or_refused_by_name() {
        assert_eq!("clock +5s".parse(), Ok(Command::Leap(Duration::from_secs(5))));
        assert_eq!("clock 20ms".parse(), Ok(Command::Leap(Duration::from_millis(20))));
        assert_eq!("distance 1ms..2ms".parse(), Ok(Command::Move("1ms..2ms".parse().unwrap())));
        for (line, reason) in [
            ("", "is no command"),
            ("clock", "is no command"),
            ("kill +5s", "is no command"),
            ("clock -5s", "never goes back"),
            ("clock 0s", "more than nothing"),
            ("clock +25h", "at most 1day"),
            ("clock +5", "no leap"),
            ("distance far", "no distance"),
        ] {
            let error = line.parse::<Command>().unwrap_err();
            assert!(error.contains(reason), "{line}: {error}");
        }
    }

    #[test]
    fn a_node_in_production_is_not_tampered_with() {
        let none = Tampering::new(None, None, false);
        assert!(matches!(none.clock(), MachineClock::Boot(_)));
        assert!(none.road.is_none());
        let changeable = Tampering::new(None, None, true);
        assert!(matches!(changeable.clock(), MachineClock::Wrong(_)));
        assert!(changeable.road.is_some());
    }
}
