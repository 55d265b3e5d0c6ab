//! What lies to a process about the time.

use std::path::PathBuf;
use std::process::Command;

/// What a node's process is started in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wrap {
    /// Nothing: it has the machine's clocks.
    None,
    /// libfaketime, with this offset in seconds.
    Faketime(&'static str),
    /// A time namespace whose monotonic clocks are so many seconds ahead.
    TimeNamespace(u32),
}

impl Wrap {
    /// The command for a program in it.
    pub(crate) fn command(self, binary: &str) -> Command {
        match self {
            Self::None => Command::new(binary),
            Self::Faketime(offset) => {
                // Not the `faketime` program: it forks, and signals would end it alone.
                let mut command = Command::new(binary);
                command.env("LD_PRELOAD", faketime_library()).env("FAKETIME", offset);
                command
            }
            Self::TimeNamespace(seconds) => {
                let seconds = seconds.to_string();
                let mut command = Command::new("unshare");
                command.args(["--time", "--boottime", &seconds, "--monotonic", &seconds, binary]);
                command
            }
        }
    }
}

pub(crate) fn faketime_library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap();
    folders
        .filter_map(|folder| Some(folder.ok()?.path().join("faketime/libfaketimeMT.so.1")))
        .find(|path| path.exists())
        .expect("libfaketime is not installed; scripts/setup installs it")
}
