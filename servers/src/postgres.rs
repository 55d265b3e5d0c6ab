//! A real PostgreSQL server. PostgreSQL refuses to run as root: whoever does, has it run as the user `postgres`,
//! else `nobody`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::folder::{Folder, Kind, free_port, succeed};

/// How long the server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

const KIND: Kind = Kind {
    letters: "pg",
    name: "PostgreSQL",
    users: ["postgres", "nobody"],
    pid_file: "data/postmaster.pid",
    // At once, and its children with it.
    end: "QUIT",
};

/// A server with its data.
pub struct Cluster {
    programs: PathBuf,
    folder: Folder,
    port: u16,
    environment: Vec<(String, String)>,
    server: Mutex<Option<Child>>,
}

impl Cluster {
    /// A new cluster with an empty database `postgres`, whose superuser `postgres` needs no password on
    /// loopback. Everybody else does.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with these environment variables for the server: to lie to it about the time.
    pub fn start_with(environment: &[(&str, &str)]) -> Self {
        let cluster = Self::without_data(environment);
        cluster.init();
        cluster.launch();
        cluster
    }

    /// The same on a disk of its own that has so many megabytes ([`Cluster::fill_disk`]). Only root can have that.
    pub fn start_on_disk_of(megabytes: u32) -> Self {
        let cluster = Self::in_folder(Folder::on_disk_of(&KIND, megabytes), &[]);
        cluster.init();
        cluster.launch();
        cluster
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

    /// A folder and a port for a server that has no data yet.
    pub(crate) fn without_data(environment: &[(&str, &str)]) -> Self {
        Self::in_folder(Folder::new(&KIND), environment)
    }

    fn in_folder(folder: Folder, environment: &[(&str, &str)]) -> Self {
        Self {
            programs: programs(),
            folder,
            port: free_port(),
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            server: Mutex::default(),
        }
    }

    /// Become a standby of `primary`, with its data in place of what was here, and follow it.
    pub(crate) fn follow(&self, primary: &Self, name: &str) {
        self.kill9();
        let data = self.data();
        let _ = fs::remove_dir_all(&data);
        let primary =
            format!("host=127.0.0.1 port={} user=postgres application_name={name}", primary.port);
        let mut backup = self.program("pg_basebackup");
        backup
            .arg("-D")
            .arg(&data)
            .args(["-R", "-X", "stream", "-c", "fast", "-N", "-d", &primary]);
        succeed(&mut backup);
        append(&data.join("postgresql.conf"), &self.own_settings());
        // A primary that is back after a crash is not to wait for long for its standby.
        append(&data.join("postgresql.conf"), "wal_retrieve_retry_interval = '200ms'\n");
        self.launch();
    }

    /// Take over: a server that follows nobody any more, with a history of its own from here on.
    pub(crate) fn promote(&self) {
        assert_eq!(self.psql("SELECT pg_promote(true, 60)"), "t", "no promotion: {}", self.log());
    }

    /// Offer TLS from now on, with this certificate and its key (PEM).
    pub fn use_tls(&self, certificate: &str, key: &str) {
        for (name, content) in [("server.crt", certificate), ("server.key", key)] {
            let file = self.data().join(name);
            fs::write(&file, content).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            self.folder.own(&file);
        }
        self.psql("ALTER SYSTEM SET ssl = on");
        self.restart();
    }

    /// The URL of the database `postgres`.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The URL of a database.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Run SQL in the database `postgres`; its answer, unaligned, without headings.
    pub fn psql(&self, sql: &str) -> String {
        self.psql_in("postgres", sql)
    }

    /// Run SQL in a database.
    pub fn psql_in(&self, database: &str, sql: &str) -> String {
        let mut psql = self.program("psql");
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "postgres",
            "-d",
            database,
        ])
        .args(["-c", sql, "-p", &self.port.to_string(), "-h"])
        .arg(self.folder.path());
        succeed(&mut psql).trim_end().to_owned()
    }

    /// Stop the server: running statements are aborted, what was committed is kept.
    pub fn stop(&self) {
        let mut server = self.server();
        let Some(mut child) = server.take() else { return };
        let _ = kill(pid(&child), Signal::SIGINT);
        assert!(ended(&mut child), "PostgreSQL did not stop: {}", self.log());
    }

    /// Kill the server and all of its processes, as a power cut would.
    pub fn kill9(&self) {
        let mut server = self.server();
        let Some(mut child) = server.take() else { return };
        // It is not to make another process between the look and the blow.
        let _ = kill(pid(&child), Signal::SIGSTOP);
        let children = children(child.id());
        let _ = kill(pid(&child), Signal::SIGKILL);
        for process in &children {
            let _ = kill(Pid::from_raw(*process), Signal::SIGKILL);
        }
        assert!(ended(&mut child), "PostgreSQL outlived SIGKILL");
        // A new server does not start while a process of the old one holds its memory.
        let begun = Instant::now();
        while children.iter().any(|process| runs(*process)) && begun.elapsed() < PATIENCE {
            sleep(Duration::from_millis(5));
        }
    }

    /// Stop all of the server's processes where they are: connections stand, and nobody answers.
    pub fn pause(&self) {
        self.signal_all(Signal::SIGSTOP);
    }

    /// Let them go on.
    pub fn resume(&self) {
        self.signal_all(Signal::SIGCONT);
    }

    fn signal_all(&self, signal: Signal) {
        let server = self.server();
        let Some(child) = server.as_ref() else { return };
        // The first of them makes the others.
        let _ = kill(pid(child), signal);
        for process in children(child.id()) {
            let _ = kill(Pid::from_raw(process), signal);
        }
    }

    /// Start the server again, stopping it first if it runs.
    pub fn restart(&self) {
        self.stop();
        self.launch();
    }

    /// Crash the server, keep a copy of what it had written, and start it again.
    pub fn keep_copy(&self) {
        self.kill9();
        succeed(Command::new("cp").arg("-a").arg(self.data()).arg(self.copy()));
        self.launch();
    }

    /// Crash the server for good. The copy takes over as a promoted standby does: with a history of its own, and
    /// without anything that was committed since it was made.
    pub fn fail_over_to_copy(&self) {
        self.kill9();
        let data = self.data();
        fs::remove_dir_all(&data).unwrap();
        fs::rename(self.copy(), &data).unwrap();
        fs::remove_file(data.join("postmaster.pid")).unwrap();
        append(&data.join("postgresql.conf"), "restore_command = 'false'\n");
        let signal = data.join("recovery.signal");
        fs::write(&signal, "").unwrap();
        self.folder.own(&signal);
        self.launch();
        let begun = Instant::now();
        while self.psql("SELECT pg_is_in_recovery()") != "f" {
            assert!(begun.elapsed() < PATIENCE, "the copy was not promoted: {}", self.log());
            sleep(Duration::from_millis(20));
        }
    }

    fn copy(&self) -> PathBuf {
        self.folder.join("copy")
    }

    fn server(&self) -> MutexGuard<'_, Option<Child>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn init(&self) {
        let data = self.data();
        let mut initdb = self.program("initdb");
        initdb.arg("-D").arg(&data).args([
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--locale=C",
            "--auth=trust",
            "--no-sync",
        ]);
        succeed(&mut initdb);
        // After a crash the file system is synced once, and not each file of a hundred databases.
        let settings = "listen_addresses = '127.0.0.1'\n\
             max_connections = 300\n\
             recovery_init_sync_method = syncfs\n\
             shared_preload_libraries = 'pg_stat_statements'\n\
             logging_collector = off\n";
        append(&data.join("postgresql.conf"), settings);
        append(&data.join("postgresql.conf"), &self.own_settings());
        fs::write(
            data.join("pg_hba.conf"),
            "local all all trust\n\
             host all postgres 127.0.0.1/32 trust\n\
             host replication postgres 127.0.0.1/32 trust\n\
             host all all 127.0.0.1/32 scram-sha-256\n",
        )
        .unwrap();
    }

    /// Where it is reached: no other server's, though its data may be a copy.
    fn own_settings(&self) -> String {
        let socket = self.folder.path().display();
        format!("unix_socket_directories = '{socket}'\nport = {}\n", self.port)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn launch(&self) {
        let data = self.data();
        let mut postgres = self.program("postgres");
        postgres.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let mut child = self.folder.serve(postgres.arg("-D").arg(&data));
        let begun = Instant::now();
        loop {
            let state = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
            let ours = state.lines().next() == Some(child.id().to_string().as_str());
            let takes_connections = |line: &str| matches!(line.trim(), "ready" | "standby");
            if ours && state.lines().last().is_some_and(takes_connections) {
                break;
            }
            let exited = child.try_wait().unwrap();
            assert!(exited.is_none(), "PostgreSQL did not start: {}", self.log());
            assert!(begun.elapsed() < PATIENCE, "PostgreSQL does not get ready: {}", self.log());
            sleep(Duration::from_millis(5));
        }
        *self.server() = Some(child);
    }

    fn program(&self, name: &str) -> Command {
        let mut command = self.folder.command(self.programs.join(name));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG")) {
            command.env_remove(name);
        }
        command
    }

    /// What the server has written.
    pub fn log(&self) -> String {
        self.folder.log()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// The folder of the server's programs.
fn programs() -> PathBuf {
    let mut folders = Vec::new();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        folders.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    let mut installed: Vec<_> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .collect();
    installed.sort_by_key(|folder| {
        let version = folder.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        std::cmp::Reverse(version.and_then(|version| version.parse::<u32>().ok()))
    });
    folders.extend(installed);
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    folders
        .into_iter()
        .find(|folder| ["initdb", "postgres", "psql", "pg_basebackup"].iter().all(|name| folder.join(name).exists()))
        .expect(
            "these tests need PostgreSQL's server programs (initdb, postgres, psql, pg_basebackup): install them \
             (Debian: apt-get install postgresql) or put their folder on the PATH",
        )
}

fn append(file: &Path, text: &str) {
    let mut content = fs::read_to_string(file).unwrap();
    content.push_str(text);
    fs::write(file, content).unwrap();
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

fn ended(child: &mut Child) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        sleep(Duration::from_millis(5));
    }
    false
}

/// The processes that `parent` started.
fn children(parent: u32) -> Vec<i32> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(number) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        // pid (name) state ppid …; the name may hold anything.
        let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
        if after.split_whitespace().nth(1) == Some(parent.to_string().as_str()) {
            found.push(number);
        }
    }
    found
}

fn runs(process: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    !matches!(after.split_whitespace().next(), None | Some("Z" | "X"))
}
