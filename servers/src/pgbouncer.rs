//! A real PgBouncer in transaction mode before a PostgreSQL: each transaction of a client goes to another session of the
//! server, in turn, so that whoever counts on keeping one is found out. PgBouncer refuses to run as root, as PostgreSQL
//! does.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::mariadb::WATCHDOG;
use crate::postgres::{Cluster, user};

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// A pooler.
pub struct PgBouncer {
    folder: PathBuf,
    port: u16,
    pooler: Child,
    /// Open as long as this process lives.
    watchdog: Option<(Child, ChildStdin)>,
}

impl PgBouncer {
    /// Before all databases of `cluster`, as its superuser, whoever asks.
    pub fn start(cluster: &Cluster) -> Self {
        let folder = std::env::temp_dir().join(format!("turnwise-pb-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        let user = user(&folder);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = folder.join("pgbouncer.ini");
        fs::write(&settings, Self::settings(cluster, port, &folder.join("pid"))).unwrap();
        if let Some((uid, gid)) = user {
            chown(&folder, Some(uid), Some(gid)).unwrap();
            chown(&settings, Some(uid), Some(gid)).unwrap();
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
        let log = File::create(folder.join("log")).unwrap();
        let mut pooler = Command::new(program());
        pooler.arg(&settings).current_dir(&folder).stdin(Stdio::null());
        pooler.stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        if let Some((uid, gid)) = user {
            pooler.uid(uid).gid(gid);
        }
        let pooler = pooler.spawn().unwrap();
        let mut started = Self { folder, port, pooler, watchdog: Some((watchdog, lifeline)) };
        started.wait();
        started
    }

    fn settings(cluster: &Cluster, port: u16, pid: &std::path::Path) -> String {
        format!(
            "[databases]\n\
             * = host=127.0.0.1 port={} user=postgres\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {port}\n\
             unix_socket_dir =\n\
             auth_type = any\n\
             pool_mode = transaction\n\
             min_pool_size = 3\n\
             server_round_robin = 1\n\
             server_idle_timeout = 5\n\
             pidfile = {}\n",
            cluster.port(),
            pid.display()
        )
    }

    fn wait(&mut self) {
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            let exited = self.pooler.try_wait().unwrap();
            assert!(exited.is_none(), "PgBouncer did not start: {log}");
            assert!(begun.elapsed() < PATIENCE, "PgBouncer does not get ready: {log}");
            sleep(Duration::from_millis(5));
        }
    }

    /// The URL of a database, through the pooler.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.pooler.kill();
        let _ = self.pooler.wait();
        if let Some((mut watchdog, lifeline)) = self.watchdog.take() {
            drop(lifeline);
            let _ = watchdog.wait();
        }
    }
}

fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join("pgbouncer"))
        .find(|program| program.exists())
        .expect(
            "these tests need PgBouncer: install it (Debian: apt-get install pgbouncer) or put it on the PATH",
        )
}
