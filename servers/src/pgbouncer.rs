//! A real PgBouncer in transaction mode before a PostgreSQL: each transaction of a client goes to another session of the
//! server, in turn, so that whoever counts on keeping one is found out. PgBouncer refuses to run as root, as PostgreSQL
//! does.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::folder::{self, Folder, Kind, free_port};
use crate::postgres::Cluster;

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

const KIND: Kind = Kind {
    letters: "pb",
    name: "PgBouncer",
    users: ["postgres", "nobody"],
    pid_file: "pid",
    end: "KILL",
};

/// A pooler.
pub struct PgBouncer {
    folder: Folder,
    port: u16,
    pooler: Child,
}

impl PgBouncer {
    /// Before all databases of `cluster`, as its superuser, whoever asks.
    pub fn start(cluster: &Cluster) -> Self {
        let (folder, port) = (Folder::new(&KIND), free_port());
        let settings = folder.join("pgbouncer.ini");
        fs::write(&settings, Self::settings(cluster, port, &folder.join("pid"))).unwrap();
        folder.own(&settings);
        let pooler = folder.serve(folder.command(program()).arg(&settings));
        let mut started = Self { folder, port, pooler };
        started.wait();
        started
    }

    fn settings(cluster: &Cluster, port: u16, pid: &Path) -> String {
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
            let log = self.folder.log();
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
    }
}

fn program() -> PathBuf {
    folder::program("pgbouncer", &["/usr/sbin"]).expect(
        "these tests need PgBouncer: install it (Debian: apt-get install pgbouncer) or put it on the PATH",
    )
}
