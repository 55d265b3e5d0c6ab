//! A farm of real nodes: starting them, stopping them, and asking the database what they did.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection, Row};

use tempfile::{NamedTempFile, TempDir};

use crate::database::{Database, Kind};
use crate::support::target::Target;
use crate::wrap::{Wrap, faketime_library};
use turnwise_servers::postgres::Cluster;
use turnwise_servers::replicated::{Replicated, Replication};

/// One row of `beats`.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "shown when a test fails")]
pub(crate) struct Beat {
    pub(crate) slot: i64,
    pub(crate) node: String,
    pub(crate) arrived_at: String,
}

/// One attempt at a job.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) started_micros: i64,
    pub(crate) error: Option<String>,
}

/// The farm. Its nodes die and its database is removed with it.
pub(crate) struct Farm {
    nodes: BTreeMap<String, Child>,
    database: Database,
    target: String,
    logs: TempDir,
    clock: Option<NamedTempFile>,
}

impl Farm {
    pub(crate) async fn start(target: &Target) -> Self {
        Self::start_of(Kind::Postgres, target).await
    }

    /// A farm on a server of this kind.
    pub(crate) async fn start_of(kind: Kind, target: &Target) -> Self {
        Self::start_on(Database::start(kind), target, None).await
    }

    /// A farm on a server of this kind that has a disk of its own, of so many megabytes.
    pub(crate) async fn start_on_disk_of(kind: Kind, megabytes: u32, target: &Target) -> Self {
        Self::start_on(Database::start_on_disk_of(kind, megabytes), target, None).await
    }

    /// A farm on a primary and its standby.
    pub(crate) async fn start_replicated(target: &Target, replication: Replication) -> Self {
        let pair = Replicated::start(replication);
        Self::start_on(Database::Replicated(pair), target, None).await
    }

    /// A farm whose database server has a clock that [`Farm::set_server_clock`] sets.
    pub(crate) async fn start_with_settable_clock(target: &Target) -> Self {
        let file =
            tempfile::Builder::new().permissions(Permissions::from_mode(0o644)).tempfile().unwrap();
        std::fs::write(file.path(), "+0").unwrap();
        let (library, path) = (faketime_library(), file.path().to_str().unwrap().to_owned());
        let cluster = Cluster::start_with(&[
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("FAKETIME_TIMESTAMP_FILE", &path),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]);
        Self::start_on(Database::Alone(cluster), target, Some(file)).await
    }

    async fn start_on(database: Database, target: &Target, clock: Option<NamedTempFile>) -> Self {
        let logs = tempfile::tempdir().unwrap();
        let farm = Self { nodes: BTreeMap::new(), database, target: target.origin(), logs, clock };
        let (code, said) = farm.turnwise(&["migrate"]);
        assert_eq!(code, Some(0), "{said}");
        if let Database::Alone(_) | Database::Replicated(_) = farm.database {
            farm.execute("create extension if not exists pg_stat_statements").await;
        }
        farm
    }

    /// Start a node.
    pub(crate) fn node(&mut self, name: &str, wrap: Wrap) {
        let urls = self.database.urls();
        self.node_on(name, wrap, &urls);
    }

    /// Start a node that is told of these servers.
    pub(crate) fn node_on(&mut self, name: &str, wrap: Wrap, urls: &str) {
        self.node_told(name, wrap, urls, &[]);
    }

    /// Start a node with these words on its command line.
    pub(crate) fn node_with(&mut self, name: &str, words: &[&str]) {
        let urls = self.database.urls();
        self.node_told(name, Wrap::None, &urls, words);
    }

    fn node_told(&mut self, name: &str, wrap: Wrap, urls: &str, words: &[&str]) {
        let mut command = wrap.command(env!("CARGO_BIN_EXE_turnwise"));
        command
            .args(["run", "--name", name, "--listen", "127.0.0.1:0", "--target", &self.target])
            .args(words)
            .env("DATABASE_URL", urls)
            .env("TURNWISE_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log(name));
        self.nodes.insert(name.to_owned(), command.spawn().unwrap());
    }

    /// Start a command that goes on; what it prints is what it [`said`](Self::said).
    pub(crate) fn start_command(&mut self, name: &str, args: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnwise"));
        command
            .args(args)
            .env("DATABASE_URL", self.database.urls())
            .stdin(Stdio::null())
            .stdout(self.log(name))
            .stderr(self.log(name));
        self.nodes.insert(name.to_owned(), command.spawn().unwrap());
    }

    /// A page of a node's dashboard: the status line and all that follows.
    pub(crate) fn page(&self, name: &str, path: &str) -> String {
        let said = self.said(name);
        let address = said.split("the dashboard is at http://").nth(1).unwrap();
        let address = address.split('/').next().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Where a node's log goes: shown when the test fails.
    fn log(&self, name: &str) -> File {
        let path = self.logs.path().join(name);
        OpenOptions::new().create(true).append(true).open(path).unwrap()
    }

    /// Send a signal to a node.
    pub(crate) fn signal(&self, name: &str, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.nodes[name].id()).unwrap());
        kill(pid, signal).unwrap();
    }

    /// SIGTERM, and wait for the end.
    pub(crate) async fn stop(&mut self, name: &str) -> ExitStatus {
        self.signal(name, Signal::SIGTERM);
        let mut child = self.nodes.remove(name).unwrap();
        tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap()
    }

    /// Wait for the end of a node that nobody signals.
    pub(crate) async fn ended(&mut self, name: &str) -> ExitStatus {
        let mut child = self.nodes.remove(name).unwrap();
        for _ in 0..600 {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        panic!("the node {name} does not end");
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, name: &str) {
        let mut child = self.nodes.remove(name).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGKILL, and the jobs that the node held then.
    pub(crate) async fn kill_holding(&mut self, name: &str) -> Vec<String> {
        let id = format!("select {{}} from turnwise.nodes where name = '{name}'");
        let id = self.column("id", &id).await.remove(0);
        self.kill(name);
        let jobs =
            format!("select {{}} from turnwise.jobs where state = 'running' and node = '{id}'");
        self.column("id", &jobs).await
    }

    /// The servers.
    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// The server that takes writes.
    pub(crate) fn server(&self) -> &Cluster {
        self.database.primary()
    }

    /// The two servers of a farm on a primary and its standby.
    pub(crate) fn pair(&self) -> &Replicated {
        match &self.database {
            Database::Replicated(pair) => pair,
            _ => panic!("this farm has one server"),
        }
    }

    pub(crate) fn crash_database(&mut self) {
        self.database.kill9();
    }

    pub(crate) async fn restart_database(&mut self) {
        self.database.restart();
    }

    /// Crash the database, keep a copy of it, and start it again.
    pub(crate) fn keep_copy_of_database(&mut self) {
        self.database.primary().keep_copy();
    }

    /// Crash the database. The copy takes over, with another history.
    pub(crate) fn fail_over_to_copy(&mut self) {
        self.database.primary().fail_over_to_copy();
    }

    /// Set the server's clock to the true time and so many seconds.
    pub(crate) fn set_server_clock(&self, seconds: i32) {
        let file = self.clock.as_ref().unwrap().path();
        std::fs::write(file, format!("{seconds:+}")).unwrap();
    }

    /// Everything that a node has logged.
    pub(crate) fn said(&self, name: &str) -> String {
        std::fs::read_to_string(self.logs.path().join(name)).unwrap_or_default()
    }

    /// The database's URL for another role of the server.
    pub(crate) fn url_as(&self, role: &str) -> String {
        self.database.primary().url().replace("postgres@", &format!("{role}@"))
    }

    /// Run the binary to its end: exit code and all that it said.
    pub(crate) fn turnwise(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_turnwise"))
            .args(args)
            .env("DATABASE_URL", self.database.urls())
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    /// The same for a command that should end by itself but might run for ever.
    pub(crate) fn run_to_end(&self, args: &[&str]) -> (Option<i32>, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_turnwise"))
            .args(args)
            .env("DATABASE_URL", self.database.urls())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let since = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if since.elapsed() > Duration::from_secs(20) {
                child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Wait until the newest ring has so many nodes and is in force.
    pub(crate) async fn until_ring_has(&self, nodes: i64) {
        self.until("the ring has its nodes", Duration::from_secs(60), async |farm| {
            // As many nodes, from a slot that has come.
            let newest = match &farm.database {
                Database::Mariadb(_) => {
                    "select json_length(versions, '$[last].ring') from turnwise.turn
                     where json_value(versions, '$[last].from') <= slot"
                }
                _ => {
                    "select jsonb_array_length(versions -> -1 -> 'ring')::bigint from turnwise.turn
                     where (versions -> -1 ->> 'from')::bigint <= slot"
                }
            };
            farm.numbers(newest).await == [nodes]
        })
        .await;
    }

    /// Wait until something holds.
    pub(crate) async fn until(
        &self,
        what: &str,
        within: Duration,
        holds: impl AsyncFn(&Self) -> bool,
    ) {
        let since = Instant::now();
        while !holds(self).await {
            if since.elapsed() >= within {
                let turn = self.column("versions", "select {} from turnwise.turn").await;
                let jobs = "select {} from turnwise.jobs group by state";
                let jobs = self.column("concat(state, ' ', count(*), ' ', max(last_error))", jobs);
                panic!("not within {within:?}: {what}\n{turn:?}\n{:?}", jobs.await);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Wait until no job is left to be run.
    pub(crate) async fn until_all_have_ended(&self) {
        self.until("every job has ended", Duration::from_secs(120), async |farm| {
            farm.count("state in ('queued', 'running')").await == 0
        })
        .await;
    }

    /// Wait until so many more beats have been accepted.
    pub(crate) async fn slots_pass(&self, slots: i64) {
        let until = self.last_slot().await + slots;
        self.until(
            "beats go on",
            Duration::from_secs(10 + 4 * slots.unsigned_abs()),
            async |farm| farm.last_slot().await >= until,
        )
        .await;
    }

    pub(crate) async fn last_slot(&self) -> i64 {
        self.number("select slot from turnwise.turn").await
    }

    /// The ids of the nodes in the newest ring, sorted.
    pub(crate) async fn ring(&self) -> Vec<String> {
        let sql = "select jsonb_array_elements_text(versions -> -1 -> 'ring') from turnwise.turn order by 1";
        self.query(sql).await.iter().map(|row| row.get(0)).collect()
    }

    pub(crate) async fn refused(&self) -> i64 {
        self.number("select refused from turnwise.turn").await
    }

    /// The slot of the last beat and the calls of the beat statement, right after a beat: the next is far. MariaDB counts
    /// no calls of one statement alone.
    pub(crate) async fn beats_and_calls(&self) -> (i64, Option<i64>) {
        self.slots_pass(1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        if let Database::Mariadb(_) = self.database {
            return (self.last_slot().await, None);
        }
        let sql = "select (select slot from turnwise.turn),
                          (select coalesce(sum(calls), 0)::bigint from pg_stat_statements
                           where query like '%turn_beat(%' and query not like '%pg_stat_statements%')";
        let row = &self.query(sql).await[0];
        (row.get(0), Some(row.get(1)))
    }

    pub(crate) async fn beats_since(&self, after: i64) -> Vec<Beat> {
        self.beats_between(after, i64::MAX).await
    }

    /// The beats in `(after, until]`.
    pub(crate) async fn beats_between(&self, after: i64, until: i64) -> Vec<Beat> {
        let sql = format!(
            "select {{}} from turnwise.beats where slot > {after} and slot <= {until} order by slot"
        );
        let beat = |row: &String| {
            let mut columns = row.splitn(3, ' ').map(str::to_owned);
            let mut next = || columns.next().unwrap();
            Beat { slot: next().parse().unwrap(), node: next(), arrived_at: next() }
        };
        self.column("concat(slot, ' ', node, ' ', arrived_at)", &sql)
            .await
            .iter()
            .map(beat)
            .collect()
    }

    /// Slots after `slot` without a beat, up to the last beat.
    pub(crate) async fn missed_since(&self, slot: i64) -> i64 {
        let beats = self.beats_since(slot).await;
        beats.last().map_or(0, |last| last.slot - slot - beats.len() as i64)
    }

    pub(crate) async fn enqueue(&self, jobs: u32, path: &str) {
        let series = match &self.database {
            Database::Mariadb(_) => format!("seq_1_to_{jobs}"),
            _ => format!("generate_series(1, {jobs})"),
        };
        let sql = format!("insert into turnwise.jobs (url) select '{path}' from {series}");
        self.numbers(&sql).await;
    }

    pub(crate) async fn count(&self, which: &str) -> i64 {
        self.number(&format!("select count(*) from turnwise.jobs where {which}")).await
    }

    pub(crate) async fn running_on(&self, name: &str) -> i64 {
        let sql = format!(
            "select count(*) from turnwise.jobs j join turnwise.nodes n on n.id = j.node
             where j.state = 'running' and n.name = '{name}'"
        );
        self.number(&sql).await
    }

    pub(crate) async fn now_micros(&self) -> i64 {
        let now = match &self.database {
            Database::Mariadb(_) => "utc_timestamp(6)",
            _ => "clock_timestamp()",
        };
        self.number(&format!("select {}", self.database.micros(now))).await
    }

    pub(crate) async fn attempts(&self, job: &str) -> Vec<Attempt> {
        let columns =
            format!("concat({}, '|', coalesce(error, ''))", self.database.micros("started_at"));
        // The one that succeeded stands in its job's row.
        let sql = format!(
            "select {{}} from (
                select started_at, error from turnwise.attempts where job = '{job}'
                union all
                select started_at, null from turnwise.jobs where id = '{job}' and state = 'succeeded') a
             order by started_at"
        );
        let attempt = |row: &String| {
            let (started, error) = row.split_once('|').unwrap();
            let error = (!error.is_empty()).then(|| error.to_owned());
            Attempt { started_micros: started.parse().unwrap(), error }
        };
        self.column(&columns, &sql).await.iter().map(attempt).collect()
    }

    pub(crate) async fn state_and_error(&self, job: &str) -> (String, Option<String>) {
        let sql = format!("select state, last_error from turnwise.jobs where id = '{job}'");
        let row = &self.query(&sql).await[0];
        (row.get(0), row.get(1))
    }

    pub(crate) async fn query_text(&self, sql: &str) -> String {
        self.query(sql).await[0].get::<Option<String>, _>(0).unwrap_or_default()
    }

    pub(crate) async fn execute(&self, sql: &str) {
        self.query(sql).await;
    }

    /// The one number that this comes to, on either kind of server.
    async fn number(&self, sql: &str) -> i64 {
        let numbers = self.numbers(sql).await;
        assert_eq!(numbers.len(), 1, "{sql}: {numbers:?}");
        numbers[0]
    }

    async fn numbers(&self, sql: &str) -> Vec<i64> {
        match &self.database {
            Database::Mariadb(_) => {
                let lines = self.database.mariadb_lines(sql);
                lines.iter().map(|line| line.parse().unwrap()).collect()
            }
            _ => self.query(sql).await.iter().map(|row| row.get(0)).collect(),
        }
    }

    /// What stands in one column, as text, on either kind of server; `{}` in the statement is where it goes.
    async fn column(&self, column: &str, sql: &str) -> Vec<String> {
        match &self.database {
            Database::Mariadb(_) => self.database.mariadb_lines(&sql.replace("{}", column)),
            _ => {
                let sql = sql.replace("{}", &format!("({column})::text"));
                let text = |row: &PgRow| row.get::<Option<String>, _>(0).unwrap_or_default();
                self.query(&sql).await.iter().map(text).collect()
            }
        }
    }

    async fn query(&self, sql: &str) -> Vec<PgRow> {
        let mut connection = PgConnection::connect(&self.database.primary().url()).await.unwrap();
        let rows =
            sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        rows
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for entry in std::fs::read_dir(self.logs.path()).unwrap().flatten() {
                let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
                eprintln!("--- the log of {}\n{log}", entry.file_name().display());
            }
        }
        for child in self.nodes.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
