//! The demo as people run it: real processes that take turns, are killed and come back, and of which nothing is left.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use sqlx::{Connection, Row, SqliteConnection};
use tempfile::TempDir;

/// Long enough for any machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A demo that runs, in a world of its own.
struct Demo {
    child: Child,
    place: TempDir,
}

/// One accepted beat.
#[derive(Debug, PartialEq, Eq)]
struct Beat {
    slot: i64,
    name: String,
}

impl Demo {
    /// Start one whose database stays.
    fn start(words: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), words)
    }

    fn start_in(place: TempDir, words: &[&str]) -> Self {
        let temporary = place.path().join("tmp");
        std::fs::create_dir_all(&temporary).unwrap();
        let log =
            File::options().create(true).append(true).open(place.path().join("said")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnwise"));
        command
            .args(["demo", "--listen", "127.0.0.1:0", "--no-browser"])
            .args(words)
            .env("TMPDIR", &temporary)
            // Neither is the demo's.
            .env("DATABASE_URL", "postgres://nowhere.invalid/none")
            .env("TURNWISE_CAPACITY", "nonsense")
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        Self { child: command.spawn().unwrap(), place }
    }

    fn temporary(&self) -> std::path::PathBuf {
        self.place.path().join("tmp")
    }

    /// Everything that it has said.
    fn said(&self) -> String {
        std::fs::read_to_string(self.place.path().join("said")).unwrap()
    }

    /// Where the dashboard is: `127.0.0.1:40123`.
    fn address(&self) -> String {
        let said = self.said();
        let url = said.split_whitespace().find(|word| word.starts_with("http://127.0.0.1:"));
        url.unwrap().trim_start_matches("http://").trim_end_matches('/').to_owned()
    }

    /// Ask for a page as a browser without JavaScript does: the whole answer.
    fn get(&self, path: &str) -> String {
        ask(&self.address(), &format!("GET {path} HTTP/1.1\r\n"), "")
    }

    /// Press a button, and see the page that follows.
    fn press(&self, path: &str, action: &str) -> String {
        let origin = format!("Origin: http://{}\r\n", self.address());
        let answer = self.post(path, action, &origin);
        let place = answer.lines().find_map(|line| line.strip_prefix("location: "));
        self.get(place.unwrap_or_else(|| panic!("{answer}")))
    }

    fn post(&self, path: &str, action: &str, header: &str) -> String {
        let form = format!("action={}&back=/nodes", action.replace('+', "%2B").replace(' ', "+"));
        let length = form.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n{header}"
        );
        ask(&self.address(), &head, &form)
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    async fn until(&mut self, what: &str, mut holds: impl AsyncFnMut(&Self) -> bool) {
        let since = Instant::now();
        while !holds(self).await {
            let ended = self.child.try_wait().unwrap();
            assert!(
                since.elapsed() < PATIENCE && ended.is_none(),
                "{what} did not come true ({ended:?}):\n{}",
                self.said()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn until_said(&mut self, text: &str) {
        self.until(text, async |demo| demo.said().contains(text)).await;
    }

    /// Wait until nodes of these names alternate: two rounds without a gap.
    async fn until_turns_of(&mut self, names: &[&str]) {
        let database = self.place.path().join("demo.db");
        let rounds = 2 * names.len();
        self.until(&format!("turns of {names:?}"), async |_| {
            let beats = last_beats(&database, rounds).await;
            let of = beats.iter().map(|beat| beat.name.as_str()).collect::<BTreeSet<_>>();
            let alternate =
                (names.len()..beats.len()).all(|i| beats[i].name == beats[i - names.len()].name);
            let gapless = beats.windows(2).all(|pair| pair[1].slot == pair[0].slot + 1);
            beats.len() == rounds && of.iter().eq(names.iter()) && alternate && gapless
        })
        .await;
    }

    fn ended(mut self) -> (ExitStatus, Self) {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, self);
            }
            assert!(since.elapsed() < PATIENCE, "it does not end:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Nothing of it is left.
    fn assert_nothing_left(&self) {
        assert_eq!(processes_in(&self.temporary()), Vec::<u32>::new(), "processes");
        let files: Vec<_> = std::fs::read_dir(self.temporary()).unwrap().collect();
        assert!(files.is_empty(), "{files:?}");
    }
}

/// Its nodes die with it, however this test ends.
impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn last_beats(database: &Path, beats: usize) -> Vec<Beat> {
    // It comes with the demo.
    let Ok(mut connection) =
        SqliteConnection::connect(&format!("sqlite://{}?mode=rw", database.display())).await
    else {
        return Vec::new();
    };
    let sql = "SELECT slot, name FROM turnwise_beats JOIN turnwise_nodes ON id = node ORDER BY slot DESC LIMIT ?";
    let rows = sqlx::query(sql).bind(beats as i64).fetch_all(&mut connection).await;
    let beat = |row: &sqlx::sqlite::SqliteRow| Beat { slot: row.get(0), name: row.get(1) };
    let mut beats: Vec<_> = rows.unwrap_or_default().iter().map(beat).collect();
    beats.reverse();
    beats
}

fn ask(address: &str, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("{head}Host: {address}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The id of the newest node of this name.
async fn newest(database: &Path, name: &str) -> String {
    let mut connection =
        SqliteConnection::connect(&format!("sqlite://{}", database.display())).await.unwrap();
    sqlx::query_scalar(
        "SELECT id FROM turnwise_nodes WHERE name = ? ORDER BY started_at DESC LIMIT 1",
    )
    .bind(name)
    .fetch_one(&mut connection)
    .await
    .unwrap()
}

/// The nodes whose settings lie in this folder.
fn processes_in(folder: &Path) -> Vec<u32> {
    let wanted = format!("TURNWISE_CONFIG={}", folder.display()).into_bytes();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let is_of_it = |process: &u32| {
        let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(&wanted))
    };
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(is_of_it).collect()
}

/// The URL of a database beside the demo's temporary folder: it stays.
fn database_in(place: &TempDir) -> String {
    format!("sqlite://{}", place.path().join("demo.db").display())
}

#[tokio::test]
async fn the_nodes_take_turns_close_a_gap_and_take_back_who_returns() {
    let place = tempfile::tempdir().unwrap();
    let url = database_in(&place);
    let mut demo = Demo::start_in(place, &["--database-url", &url, "--for", "10m"]);
    demo.until_turns_of(&["A", "B", "C"]).await;
    assert_eq!(processes_in(&demo.temporary()).len(), 3);

    demo.type_line("kill 2");
    demo.until_said("B is killed").await;
    assert_eq!(processes_in(&demo.temporary()).len(), 2);
    demo.until_turns_of(&["A", "C"]).await;
    demo.until_said("B is taken out").await;
    demo.type_line("kill 2");
    demo.until_said("No: B is dead already").await;
    demo.type_line("revive 2");
    demo.until_turns_of(&["A", "B", "C"]).await;

    demo.type_line("stall 3");
    demo.until_turns_of(&["A", "B"]).await;
    demo.type_line("stall 3");
    demo.until_said("No: C is stalled already").await;
    demo.type_line("skew 3 +1s");
    demo.until_said("No: C is stalled and hears nothing").await;
    demo.type_line("revive 3");
    demo.type_line("revive 3");
    demo.until_said("No: C runs; there is nothing to revive").await;
    demo.type_line("skew 1 +5s");
    demo.type_line("delay 2 60ms..40ms");
    demo.type_line("add");
    demo.until_turns_of(&["A", "B", "C", "D"]).await;

    demo.type_line("kill 9");
    demo.until_said("No: there is no node 9 (I); there are 4 nodes, A to D").await;
    demo.type_line("dance 2");
    demo.until_said("No: there is no command \"dance\"").await;
    demo.type_line("nodes");
    demo.until_said("database 60ms..40ms away").await;
    demo.type_line("quit");
    let (status, demo) = demo.ended();
    assert_eq!(status.code(), Some(0), "{}", demo.said());
    demo.assert_nothing_left();
}

#[tokio::test]
async fn buttons_do_what_typed_lines_do_without_javascript() {
    let place = tempfile::tempdir().unwrap();
    let (url, database) = (database_in(&place), place.path().join("demo.db"));
    let mut demo = Demo::start_in(place, &["--database-url", &url, "--nodes", "2"]);
    demo.until_turns_of(&["A", "B"]).await;
    let b = newest(&database, "B").await;
    let button = format!("/nodes/{b}/do");
    assert!(demo.get("/nodes").contains(&button), "{}", demo.get("/nodes"));
    assert!(demo.get("/").contains(&button), "{}", demo.get("/"));

    let elsewhere = demo.post(&button, "kill", "Origin: http://elsewhere.example\r\n");
    assert!(elsewhere.starts_with("HTTP/1.1 403"), "{elsewhere}");
    assert_eq!(processes_in(&demo.temporary()).len(), 2);

    let page = demo.press(&button, "delay 80ms");
    assert!(page.contains("80ms away from B") && page.contains("Bring near"), "{page}");
    assert!(demo.press(&button, "skew +5s").contains("leaps 5s ahead"));
    assert!(demo.press(&button, "stall").contains("B is stalled"));
    assert!(demo.press(&button, "stall").contains("B is stalled already"));
    assert!(demo.press(&button, "revive").contains("B goes on"));
    assert!(demo.press(&button, "explode").contains("nothing called"));
    assert!(demo.press("/farm/do", "add").contains("C comes up"));
    demo.until_turns_of(&["A", "B", "C"]).await;

    let b = newest(&database, "B").await;
    let button = format!("/nodes/{b}/do");
    assert!(demo.press(&button, "kill").contains("B is killed"));
    demo.until_said("on the page: B is killed").await;
    demo.until_turns_of(&["A", "C"]).await;
    for page in ["/", "/nodes"] {
        assert!(demo.get(page).contains("Revive"), "{page}: {}", demo.get(page));
    }
    assert!(demo.press(&button, "revive").contains("B is started again"));
    demo.until_turns_of(&["A", "B", "C"]).await;
    assert!(demo.press(&button, "kill").contains("of an earlier life"));
}

#[tokio::test]
async fn it_ends_by_itself_and_leaves_nothing() {
    let demo = Demo::start(&["--for", "4s", "--nodes", "2", "--jobs-rate", "50/s"]);
    let (status, demo) = demo.ended();
    assert_eq!(status.code(), Some(0), "{}", demo.said());
    demo.assert_nothing_left();
    assert!(demo.said().contains("2 nodes, each a process of its own"), "{}", demo.said());
}

#[tokio::test]
async fn a_signal_ends_it_in_good_order_also_while_a_node_is_stalled() {
    let mut demo = Demo::start(&[]);
    demo.until_said("the ring is").await;
    demo.type_line("stall 1");
    demo.until_said("A is stalled").await;
    let process = nix::unistd::Pid::from_raw(demo.child.id() as i32);
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGINT).unwrap();
    let (status, demo) = demo.ended();
    assert_eq!(status.code(), Some(0), "{}", demo.said());
    demo.assert_nothing_left();
}

#[tokio::test]
async fn the_nodes_die_with_a_demo_that_is_killed_and_the_next_one_tidies_up() {
    let mut demo = Demo::start(&[]);
    demo.until_said("the ring is").await;
    demo.type_line("stall 2");
    demo.until_said("B is stalled").await;
    assert_eq!(processes_in(&demo.temporary()).len(), 3);
    demo.child.kill().unwrap();
    demo.child.wait().unwrap();
    let since = Instant::now();
    while !processes_in(&demo.temporary()).is_empty() {
        assert!(since.elapsed() < PATIENCE, "a node outlives its demo");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(std::fs::read_dir(demo.temporary()).unwrap().count(), 1);

    let place = std::mem::replace(&mut demo.place, tempfile::tempdir().unwrap());
    let (status, next) = Demo::start_in(place, &["--for", "1s"]).ended();
    assert_eq!(status.code(), Some(0), "{}", next.said());
    next.assert_nothing_left();
}

#[tokio::test]
async fn a_database_in_which_a_farm_lives_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let url = database_in(&place);
    let mut demo = Demo::start_in(place, &["--database-url", &url]);
    demo.until_turns_of(&["A", "B", "C"]).await;
    let (status, other) = Demo::start(&["--database-url", &url]).ended();
    assert_eq!(status.code(), Some(78), "{}", other.said());
    assert!(other.said().contains("3 living nodes of another farm"), "{}", other.said());
    other.assert_nothing_left();
    demo.until_turns_of(&["A", "B", "C"]).await;
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_started() {
    for (words, said) in [
        (&["--nodes", "0"][..], "from 1 to 26 nodes"),
        (&["--nodes", "27"], "from 1 to 26 nodes"),
        (&["--jobs-rate", "lots"], "write it as 5/s"),
        (&["--for", "0s"], "more time than none"),
        (&["--for", "soon"], "no duration"),
        (&["--listen", "0.0.0.0:7171"], "can kill its nodes"),
        (&["--listen", "7171"], "127.0.0.1:7171"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_turnwise"))
            .arg("demo")
            .args(words)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {error}");
        assert!(error.contains(said), "{words:?}: {error}");
    }
}
