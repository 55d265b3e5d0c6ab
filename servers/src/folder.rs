//! A server's place and its guard: a folder of its own, whom it runs as, and what removes both server and folder when
//! whoever started them is gone.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// Kills the server and removes its folder when its standard input closes, which it does when the process that
/// started it ends. A process that is not this server keeps its life: the number may be another's by then.
/// Arguments: the folder, the file in it whose first line is the server's number, the signal that ends all of the
/// server's processes.
const WATCHDOG: &str = r#"
cat > /dev/null
pid=$(head -n 1 "$1/$2" 2> /dev/null)
name() { cat "/proc/$pid/cmdline" || ps -o command= -p "$pid"; }
if [ -n "$pid" ] && name 2> /dev/null | grep -qaF "$1"; then
    kill "-$3" "$pid"
    for i in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$pid" 2> /dev/null || break; sleep 0.1; done
    kill -KILL "$pid" 2> /dev/null
fi
umount "$1" 2> /dev/null
rm -rf "$1"
"#;

/// What kind of server a folder is for.
pub(crate) struct Kind {
    /// Two letters in the folder's name.
    pub(crate) letters: &'static str,
    /// What it is called.
    pub(crate) name: &'static str,
    /// Whom it runs as when its starter is root: the first of these that exists.
    pub(crate) users: [&'static str; 2],
    /// The file in the folder whose first line is the server's number.
    pub(crate) pid_file: &'static str,
    /// The signal that ends all of its processes.
    pub(crate) end: &'static str,
}

/// A folder for one server; gone with this value, and the server with it.
pub(crate) struct Folder {
    path: PathBuf,
    user: Option<(u32, u32)>,
    /// Open as long as this process lives.
    watchdog: Option<(Child, ChildStdin)>,
}

impl Folder {
    /// A new folder among the temporary files, guarded from now on.
    pub(crate) fn new(kind: &Kind) -> Self {
        Self::made(kind, None)
    }

    /// The same on a disk of its own that has so many megabytes: a file system in memory, which only root may mount.
    pub(crate) fn on_disk_of(kind: &Kind, megabytes: u32) -> Self {
        Self::made(kind, Some(megabytes))
    }

    fn made(kind: &Kind, megabytes: Option<u32>) -> Self {
        let name = format!("turnwise-{}-{}", kind.letters, uuid::Uuid::new_v4());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        if let Some(megabytes) = megabytes {
            let size = format!("size={megabytes}m");
            succeed(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        let user = user(&path, kind);
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(&path)
            .args([kind.pid_file, kind.end])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let lifeline = watchdog.stdin.take().unwrap();
        let folder = Self { path, user, watchdog: Some((watchdog, lifeline)) };
        folder.own(&folder.path);
        folder
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where something of the server's is.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Make a file the server's own.
    pub(crate) fn own(&self, file: &Path) {
        if let Some((uid, gid)) = self.user {
            chown(file, Some(uid), Some(gid)).unwrap();
        }
    }

    /// A command that runs as the server does, in its folder: its user may not be able to enter the folder that the
    /// tests run in.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.current_dir(&self.path).env("LC_ALL", "C").stdin(Stdio::null());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Start the server: what it writes goes to the log, and signals to the group of its starter do not reach it.
    pub(crate) fn serve(&self, server: &mut Command) -> Child {
        let log = File::options().create(true).append(true).open(self.join("log")).unwrap();
        server.stdout(log.try_clone().unwrap()).stderr(log).process_group(0).spawn().unwrap()
    }

    /// Fill the disk to its last byte.
    pub(crate) fn fill_disk(&self) {
        let mut ballast = File::options().create(true).append(true).open(self.ballast()).unwrap();
        let mut block: &[u8] = &[0; 1 << 16];
        // Less and less, since the last page may be free in part.
        while !block.is_empty() {
            match ballast.write(block) {
                Ok(written) if written == block.len() => {}
                _ => block = &block[..block.len() / 2],
            }
        }
    }

    /// Make room on it again.
    pub(crate) fn free_disk(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.join("ballast")
    }

    /// What the server has written.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.join("log")).unwrap_or_default()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some((mut watchdog, lifeline)) = self.watchdog.take() {
            drop(lifeline);
            let _ = watchdog.wait();
        }
    }
}

/// Whom the server runs as, when that is not who starts it: uid and gid.
fn user(folder: &Path, kind: &Kind) -> Option<(u32, u32)> {
    if fs::metadata(folder).unwrap().uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let found = kind.users.into_iter().find_map(|name| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    let [first, second] = kind.users;
    let none =
        format!("{} does not run as root, and there is no user `{first}` or `{second}`", kind.name);
    Some(found.expect(&none))
}

/// A port of loopback that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Run a command to its end, which must be a good one: what it printed.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A program of one of these folders, or of the PATH before them.
pub(crate) fn program(name: &str, folders: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(folders.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.exists())
}
