//! A real MariaDB server. MariaDB should not run as root: whoever does, has it run as the user `mysql`, else `nobody`.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::folder::{self, Folder, Kind, free_port, succeed};

/// How long the server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

const KIND: Kind = Kind {
    letters: "my",
    name: "MariaDB",
    users: ["mysql", "nobody"],
    pid_file: "pid",
    end: "KILL",
};

/// A server with its data.
pub struct MariaDb {
    folder: Folder,
    port: u16,
    options: Vec<String>,
    server: Mutex<Option<Child>>,
}

impl MariaDb {
    /// A new server, whose user `root` needs no password.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further options.
    pub fn start_with(options: &[&str]) -> Self {
        Self::in_folder(Folder::new(&KIND), options)
    }

    /// The same on a disk of its own that has so many megabytes ([`MariaDb::fill_disk`]). Only root can have that.
    pub fn start_on_disk_of(megabytes: u32, options: &[&str]) -> Self {
        Self::in_folder(Folder::on_disk_of(&KIND, megabytes), options)
    }

    /// Fill its disk to the last byte.
    pub fn fill_disk(&self) {
        self.folder.fill_disk();
    }

    /// Make room on its disk again, and start the server if it ended for want of it.
    pub fn free_disk(&self) {
        self.folder.free_disk();
        let ended = self.server().as_mut().is_some_and(|child| child.try_wait().unwrap().is_some());
        if ended {
            self.restart();
        }
    }

    fn in_folder(folder: Folder, options: &[&str]) -> Self {
        let server = Self {
            folder,
            port: free_port(),
            options: options.iter().map(ToString::to_string).collect(),
            server: Mutex::default(),
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
        let path = |name: &str| self.folder.join(name).display().to_string();
        let mut mariadbd = self.program("mariadbd");
        mariadbd.arg("--no-defaults").arg(self.data()).args([
            format!("--socket={}", path("socket")),
            format!("--pid-file={}", path("pid")),
            format!("--tmpdir={}", self.folder.path().display()),
            format!("--port={}", self.port),
            "--bind-address=127.0.0.1".to_owned(),
            "--skip-name-resolve".to_owned(),
            "--innodb-buffer-pool-size=64M".to_owned(),
            // What was committed outlives the server's process, if not the machine.
            "--innodb-flush-log-at-trx-commit=2".to_owned(),
            "--max-connections=300".to_owned(),
        ]);
        let mut child = self.folder.serve(mariadbd.args(&self.options));
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
        let mut command = self.folder.command(program(name));
        command.env_remove("MYSQL_HOST");
        command
    }

    /// What the server has written.
    pub fn log(&self) -> String {
        self.folder.log()
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// A program of the server's.
fn program(name: &str) -> PathBuf {
    folder::program(name, &["/usr/sbin", "/usr/local/sbin", "/usr/libexec"]).unwrap_or_else(|| {
        panic!(
            "these tests need MariaDB's server programs, and {name} is missing: install them (Debian: \
             apt-get install mariadb-server) or put their folder on the PATH"
        )
    })
}
