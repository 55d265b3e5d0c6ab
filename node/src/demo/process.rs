//! Decides how a node of the demo is run: the program itself as `turnwise run`, in a process of its own, with a clock
//! that is wrong and a database that is far. What happens to it is the farm's to say.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use turnwise_engine::ServerInstant;

use super::jobs::QUEUES;
use crate::clock::{BootClock, Clock};
use crate::store::Distance;

/// How many jobs a node runs at once.
const CAPACITY: u32 = 8;
/// How long a node waits for its jobs when the demo ends.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a good moment for a stall is looked for.
const STALL_TRIES: u32 = 100;
/// How long a process is given to stop, or to go on.
const STALL_STEP: Duration = Duration::from_millis(5);

/// What is common to all nodes.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    /// This program.
    pub(crate) program: PathBuf,
    /// Where their logs go.
    pub(crate) folder: PathBuf,
    /// The database.
    pub(crate) database: String,
    /// The sample app.
    pub(crate) target: String,
}

/// What is a node's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nature {
    /// How far its clock is ahead.
    pub(crate) ahead: Duration,
    /// By how many parts in a million its clock is too fast.
    pub(crate) drift_ppm: i32,
    /// How far it is from the database.
    pub(crate) distance: Distance,
}

/// A running node. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    began: ServerInstant,
}

impl Recipe {
    /// Start a node.
    pub(crate) fn start(&self, name: &str, nature: Nature) -> Result<Process, String> {
        let log = self.log_of(name);
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|error| format!("{} cannot be written: {error}", log.display()))?;
        let mut command = Command::new(&self.program);
        for (variable, _) in std::env::vars_os() {
            let text = variable.to_string_lossy();
            if text == "DATABASE_URL" || (text.starts_with("TURNWISE_") && text != "TURNWISE_LOG") {
                command.env_remove(&variable);
            }
        }
        command
            .arg("run")
            .args(["--target", &self.target])
            .args(["--name", name])
            .args(["--listen", "off"])
            .args(["--queues", &QUEUES.join(",")])
            .args(["--capacity", &CAPACITY.to_string()])
            .args(["--drain-timeout", &humantime::format_duration(DRAIN_TIMEOUT).to_string()])
            .args(["--test-clock", &nature.clock()])
            .args(["--test-distance", &nature.distance.to_string()])
            .arg("--test-commands")
            // A password is not to be seen by other users of the machine.
            .env("TURNWISE_DATABASE_URL", &self.database)
            // No other file of settings is to be found by chance.
            .env("TURNWISE_CONFIG", settings_in(&self.folder))
            // Ctrl-C is the demo's: it stops its nodes itself.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log);
        let began = ServerInstant::from_micros(BootClock.wall_micros());
        let child = command.spawn();
        let child = child
            .map_err(|error| format!("{} cannot be started: {error}", self.program.display()))?;
        Ok(Process { child, began })
    }

    fn log_of(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    /// The last line that the node has logged.
    pub(crate) fn last_words(&self, name: &str) -> String {
        let log = std::fs::read_to_string(self.log_of(name)).unwrap_or_default();
        let last = log.lines().rev().find(|line| !line.trim().is_empty());
        last.unwrap_or("it said nothing").to_owned()
    }
}

/// The nodes' file of settings, in which nothing stands.
pub(crate) fn settings_in(folder: &Path) -> PathBuf {
    folder.join("turnwise.toml")
}

impl Nature {
    /// As the flag for it.
    fn clock(&self) -> String {
        format!("{}ns,{}ppm", self.ahead.as_nanos(), self.drift_ppm)
    }
}

impl Process {
    /// When it was started, by this machine's clock.
    pub(crate) fn began(&self) -> ServerInstant {
        self.began
    }

    fn signal(&self, signal: Signal) {
        if let Ok(number) = i32::try_from(self.child.id()) {
            // It may have ended just now.
            let _ = kill(Pid::from_raw(number), signal);
        }
    }

    /// Tell it to stop in good order, whether it is stalled or not.
    pub(crate) fn ask_to_stop(&self) {
        self.signal(Signal::SIGTERM);
        self.signal(Signal::SIGCONT);
    }

    /// Stop it where it is: but not while it holds the lock of a SQLite file, for which all the others would have to
    /// wait as long as it is stalled. Returns within a second.
    #[expect(clippy::disallowed_methods, reason = "a moment, in a process that only demonstrates")]
    pub(crate) fn stall(&self) {
        for _ in 0..STALL_TRIES {
            self.signal(Signal::SIGSTOP);
            // It is not stopped before its last thread has got the news.
            std::thread::sleep(STALL_STEP);
            let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
            if !holds_a_lock(&locks, self.child.id()) {
                return;
            }
            self.signal(Signal::SIGCONT);
            std::thread::sleep(STALL_STEP);
        }
        self.signal(Signal::SIGSTOP);
    }

    /// Let it go on.
    pub(crate) fn go_on(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Change something that is wrong with it, by a line that `tampering` understands.
    pub(crate) fn tell(&mut self, line: &str) -> io::Result<()> {
        let input = self.child.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        input.write_all(format!("{line}\n").as_bytes())
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

/// Whether this process holds a file's lock alone, by the kernel's list (`/proc/locks`, proc_locks(5)).
fn holds_a_lock(locks: &str, process: u32) -> bool {
    locks.lines().any(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let is_held = words.get(1) != Some(&"->");
        is_held
            && words.get(3) == Some(&"WRITE")
            && words.get(4) == Some(&process.to_string().as_str())
    })
}

/// As a power cut would.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_lock_alone_is_told_from_who_shares_one_or_waits() {
        let locks = "\
1: POSIX  ADVISORY  READ  41 fe:00:1234 124 124
2: POSIX  ADVISORY  WRITE 42 fe:00:1234 120 120
2: -> POSIX  ADVISORY  WRITE 43 fe:00:1234 120 120
3: FLOCK  ADVISORY  WRITE 44 fe:00:99 0 EOF
";
        let holders = (40..=45).filter(|process| holds_a_lock(locks, *process));
        assert_eq!(holders.collect::<Vec<_>>(), [42, 44]);
    }
}
