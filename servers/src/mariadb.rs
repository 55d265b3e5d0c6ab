//! A real MariaDB server. MariaDB should not run as root: whoever does, has it run as the user `mysql`, else `nobody`.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long the server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// Kills the server and removes its folder when its standard input closes, which it does when the test
/// process ends. A process that is not this server keeps its life: the number may be another's by then.
pub(crate) const WATCHDOG: &str = r#"
cat > /dev/null
pid=$(head -n 1 "$1/pid" 2> /dev/null)
name() { cat "/proc/$pid/cmdline" || ps -o command= -p "$pid"; }
if [ -n "$pid" ] && name 2> /dev/null | grep -qaF "$1"; then
    kill -KILL "$pid" 2> /dev/null
fi
rm -rf "$1"
"#;

/// A server with its data.
pub struct MariaDb {
    folder: PathBuf,
    port: u16,
    user: Option<(u32, u32)>,
    options: Vec<String>,
    server: Mutex<Option<Child>>,
    /// Open as long as this process lives.
    watchdog: Option<(Child, ChildStdin)>,
}

impl MariaDb {
    /// A new server, whose user `root` needs no password.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further options.
    pub fn start_with(options: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("turnwise-my-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        let user = user(&folder);
        if let Some((uid, gid)) = user {
            chown(&folder, Some(uid), Some(gid)).unwrap();
        }
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let lifeline = watchdog.stdin.take().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Self {
            folder,
            port,
            user,
            options: options.iter().map(ToString::to_string).collect(),
            server: Mutex::default(),
            watchdog: Some((watchdog, lifeline)),
        };
        server.init();
        server.launch();
        server
    }

    /// The URL of a database.
    pub fn url_of(&self, database: &str) -> String {
        format!("mysql://root@127.0.0.1:{}/{database}", self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Run SQL as `root`; its answer, without headings.
    pub fn sql(&self, sql: &str) -> String {
        let mut client = self.program("mariadb");
        client.args(["--no-defaults", "-u", "root", "--batch", "--skip-column-names", "-S"]);
        client.arg(self.folder.join("socket")).args(["-e", sql]);
        succeed(&mut client).trim_end().to_owned()
    }

    /// Kill the server, as a power cut would.
    pub fn kill9(&self) {
        let mut server = self.server();
        let Some(mut child) = server.take() else { return };
        let _ = kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGKILL);
        child.wait().unwrap();
    }

    /// Stop the server where it is: connections stand, and nobody answers.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Let it go on.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = self.server().as_ref() {
            let _ = kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal);
        }
    }

    /// Start the server again, after it was killed.
    pub fn restart(&self) {
        self.kill9();
        self.launch();
    }

    fn server(&self) -> MutexGuard<'_, Option<Child>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn data(&self) -> String {
        format!("--datadir={}", self.folder.join("data").display())
    }

    fn init(&self) {
        let mut init = self.program("mariadb-install-db");
        init.arg("--no-defaults").arg(self.data()).args([
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
        ]);
        succeed(&mut init);
    }

    fn launch(&self) {
        let log = File::options().create(true).append(true).open(self.log_file()).unwrap();
        let path = |name: &str| self.folder.join(name).display().to_string();
        let mut mariadbd = self.program("mariadbd");
        mariadbd.arg("--no-defaults").arg(self.data()).args([
            format!("--socket={}", path("socket")),
            format!("--pid-file={}", path("pid")),
            format!("--tmpdir={}", self.folder.display()),
            format!("--port={}", self.port),
            "--bind-address=127.0.0.1".to_owned(),
            "--skip-name-resolve".to_owned(),
            "--innodb-buffer-pool-size=64M".to_owned(),
            // What was committed outlives the server's process, if not the machine.
            "--innodb-flush-log-at-trx-commit=2".to_owned(),
            "--max-connections=300".to_owned(),
        ]);
        mariadbd.args(&self.options).stdin(Stdio::null());
        mariadbd.stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        let mut child = mariadbd.spawn().unwrap();
        let begun = Instant::now();
        while !self.answers() {
            let exited = child.try_wait().unwrap();
            assert!(exited.is_none(), "MariaDB did not start: {}", self.log());
            assert!(begun.elapsed() < PATIENCE, "MariaDB does not get ready: {}", self.log());
            sleep(Duration::from_millis(20));
        }
        *self.server() = Some(child);
    }

    fn answers(&self) -> bool {
        let mut client = self.program("mariadb");
        client.args(["--no-defaults", "-u", "root", "-e", "DO 1", "-S"]);
        client.arg(self.folder.join("socket")).stdout(Stdio::null()).stderr(Stdio::null());
        client.status().is_ok_and(|status| status.success())
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(program(name));
        // The user of the server may not be able to enter the folder that the tests run in.
        command.current_dir(&self.folder).env("LC_ALL", "C").env_remove("MYSQL_HOST");
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// What the server has written.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.kill9();
        if let Some((mut watchdog, lifeline)) = self.watchdog.take() {
            drop(lifeline);
            let _ = watchdog.wait();
        }
    }
}

/// A program of the server's.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/usr/libexec"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.exists())
        .unwrap_or_else(|| {
            panic!(
                "these tests need MariaDB's server programs, and {name} is missing: install them (Debian: \
                 apt-get install mariadb-server) or put their folder on the PATH"
            )
        })
}

/// Whom the server runs as, when that is not who runs the tests: uid and gid.
fn user(folder: &std::path::Path) -> Option<(u32, u32)> {
    if fs::metadata(folder).unwrap().uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let found = ["mysql", "nobody"].into_iter().find_map(|name| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    Some(found.expect("MariaDB should not run as root, and there is no user `mysql` or `nobody`"))
}

fn succeed(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
