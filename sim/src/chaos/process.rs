//! A node as a real process: the program itself, with a clock that is wrong, its own road to the database, and a
//! journal. Decides its flags; what happens to it is the plan's.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::scenario::{LocalClock, Node};

/// How long a draining node waits for its jobs.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// How a node is started, as often as it takes.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    /// The program.
    pub(super) program: PathBuf,
    /// Where its journals and its log go.
    pub(super) folder: PathBuf,
    pub(super) host: u32,
    pub(super) plan: Node,
    /// The servers of its database, by its own road.
    pub(super) database: Vec<String>,
    /// Its web app.
    pub(super) target: String,
    /// How often it was started.
    pub(super) starts: u32,
}

/// A running node.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
}

impl Recipe {
    /// The node's name: the judge knows it by that.
    pub(super) fn name(host: u32) -> String {
        format!("node-{host}")
    }

    pub(super) fn start(&mut self) -> Result<Process, String> {
        self.starts += 1;
        let name = Self::name(self.host);
        let journal = self.folder.join(format!("{name}.{}.journal", self.starts));
        let log = self.folder.join(format!("{name}.log"));
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|error| format!("{} cannot be written: {error}", log.display()))?;
        let mut command = bound_to_this_process(&self.program);
        for (variable, _) in std::env::vars_os() {
            let text = variable.to_string_lossy();
            if text.starts_with("TURNWISE_") || text == "DATABASE_URL" {
                command.env_remove(&variable);
            }
        }
        command
            .arg("run")
            .args(self.database.iter().flat_map(|url| ["--database-url", url]))
            .args(["--target", &self.target])
            .args(["--name", &name])
            .args(["--listen", "off"])
            .args(["--capacity", &self.plan.capacity.to_string()])
            .args(["--drain-timeout", &format!("{}s", DRAIN_TIMEOUT.as_secs())])
            .args(["--test-clock", &wrong(&self.plan.clock)])
            .arg("--journal")
            .arg(&journal)
            .env("RUST_BACKTRACE", "1")
            // No file of settings is to be found by chance.
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.spawn().map_err(|error| {
            format!(
                "{} cannot be started: {error}. Build it with cargo build -p turnwise-node, or name it with --program",
                self.program.display()
            )
        })?;
        Ok(Process { child })
    }
}

/// The command for a program that is killed when this process ends, even if it is killed itself; where `setpriv`
/// (util-linux) is not installed, only when it ends in good order.
fn bound_to_this_process(program: &Path) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|folder| folder.join("setpriv").exists()) {
        return Command::new(program);
    }
    // It becomes the program, under the same number.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// The flag for this clock.
fn wrong(clock: &LocalClock) -> String {
    format!("{}ns,{}ppm", clock.shows.0, clock.drift_ppb as f64 / 1_000.0)
}

impl Process {
    fn signal(&self, signal: Signal) {
        if let Ok(number) = i32::try_from(self.child.id()) {
            // It may have ended just now.
            let _ = kill(Pid::from_raw(number), signal);
        }
    }

    /// Tell it to stop in good order.
    pub(super) fn tell(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Stop it where it is.
    pub(super) fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Let it go on.
    pub(super) fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// As a power cut would.
    pub(super) fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

/// Nothing is left running, whatever becomes of this process's own course.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The journals in a folder, in order of their names.
pub(super) fn journals(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "journal"))
        .collect();
    found.sort();
    found
}
