//! A folder in which the program is run, and what a run leaves. Decides nothing.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A folder to work in, and a clean environment.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
    pub(crate) variables: Vec<(&'static str, String)>,
}

/// What a run of the program left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    pub(crate) fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    /// With the schema in `turnwise.db`.
    pub(crate) fn migrated() -> Self {
        let place = Self::empty();
        place.run(&["migrate"]).ok();
        place
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnwise"));
        command.args(words).current_dir(self.path());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("TURNWISE_") || name == "DATABASE_URL" {
                command.env_remove(name);
            }
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Ran {
        Ran::of(self.command(words).stdin(Stdio::null()).output().unwrap())
    }

    pub(crate) fn run_with_stdin(&self, words: &[&str], stdin: &[u8]) -> Ran {
        let mut command = self.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // The program may refuse before it has read all.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        Ran::of(child.wait_with_output().unwrap())
    }

    pub(crate) fn enqueue(&self, words: &[&str]) -> String {
        let words: Vec<_> = ["enqueue"].iter().chain(words).copied().collect();
        self.run(&words).ok().trim().to_owned()
    }

    pub(crate) fn show(&self, id: &str) -> Value {
        self.run(&["jobs", "show", id, "--json"]).json()
    }

    pub(crate) fn list(&self, words: &[&str]) -> Vec<Value> {
        let words: Vec<_> = ["jobs", "list", "--json"].iter().chain(words).copied().collect();
        self.run(&words).json().as_array().unwrap().clone()
    }
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""), "{self:?}");
        self.stdout
    }

    #[track_caller]
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// It ended with this code and said each of these on stderr.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in {self:?}");
        }
    }
}

pub(crate) fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

pub(crate) fn sorted<const N: usize>(mut names: [&str; N]) -> Vec<&str> {
    names.sort_unstable();
    names.to_vec()
}

pub(crate) fn id_of(value: &Value) -> &str {
    value["id"].as_str().unwrap()
}

/// A PostgreSQL URL at which nothing listens.
pub(crate) fn away() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("postgres://user:secret@127.0.0.1:{port}/app")
}

pub(crate) const NOBODY: &str = "01936c5e-7d1a-7cc3-98c4-dc0c0c07398f";
pub(crate) const JOB_KEYS: [&str; 15] = [
    "id",
    "queue",
    "method",
    "url",
    "state",
    "priority",
    "attempt",
    "max_attempts",
    "scheduled_at",
    "created_at",
    "finished_at",
    "node",
    "unique_key",
    "concurrency_key",
    "parent",
];
