//! What the program `turnwise` prints and with which code it ends, on a SQLite file.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A folder to work in, and a clean environment.
struct Place {
    folder: TempDir,
    variables: Vec<(&'static str, String)>,
}

/// What a run of the program left.
#[derive(Debug)]
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Place {
    fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    /// With the schema in `turnwise.db`.
    fn migrated() -> Self {
        let place = Self::empty();
        place.run(&["migrate"]).ok();
        place
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    fn command(&self, words: &[&str]) -> Command {
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

    fn run(&self, words: &[&str]) -> Ran {
        Ran::of(self.command(words).stdin(Stdio::null()).output().unwrap())
    }

    fn run_with_stdin(&self, words: &[&str], stdin: &[u8]) -> Ran {
        let mut command = self.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // The program may refuse before it has read all.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        Ran::of(child.wait_with_output().unwrap())
    }

    fn enqueue(&self, words: &[&str]) -> String {
        let words: Vec<_> = ["enqueue"].iter().chain(words).copied().collect();
        self.run(&words).ok().trim().to_owned()
    }

    fn show(&self, id: &str) -> Value {
        self.run(&["jobs", "show", id, "--json"]).json()
    }

    fn list(&self, words: &[&str]) -> Vec<Value> {
        let words: Vec<_> = ["jobs", "list", "--json"].iter().chain(words).copied().collect();
        self.run(&words).json().as_array().unwrap().clone()
    }
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn ok(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""), "{self:?}");
        self.stdout
    }

    #[track_caller]
    fn json(self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// It ended with this code and said each of these on stderr.
    #[track_caller]
    fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in {self:?}");
        }
    }
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn sorted<const N: usize>(mut names: [&str; N]) -> Vec<&str> {
    names.sort_unstable();
    names.to_vec()
}

fn id_of(value: &Value) -> &str {
    value["id"].as_str().unwrap()
}

/// A PostgreSQL URL at which nothing listens.
fn away() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("postgres://user:secret@127.0.0.1:{port}/app")
}

const NOBODY: &str = "01936c5e-7d1a-7cc3-98c4-dc0c0c07398f";
const JOB_KEYS: [&str; 13] = [
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
];

#[test]
fn migrate_applies_what_is_missing_and_says_so() {
    let place = Place::empty();
    let applied = place.run(&["migrate", "--json"]).json();
    assert!(!applied["applied"].as_array().unwrap().is_empty(), "{applied}");
    assert_eq!(place.run(&["migrate", "--json"]).json(), serde_json::json!({ "applied": [] }));
    assert_eq!(place.run(&["migrate"]).ok(), "the schema is complete: nothing to apply\n");
}

#[test]
fn without_the_schema_nothing_else_works() {
    let place = Place::empty();
    for words in [
        &["jobs", "list"][..],
        &["jobs", "show", NOBODY],
        &["jobs", "retry", NOBODY],
        &["jobs", "cancel", NOBODY],
        &["enqueue", "/x"],
        &["nodes"],
        &["period"],
        &["run", "--no-migrate", "--listen", "off"],
    ] {
        place.run(words).fails(78, &["turnwise migrate"]);
    }
}

#[test]
fn a_job_is_shown_as_it_was_enqueued() {
    let place = Place::migrated();
    let id = place.enqueue(&[
        "/jobs/tidy?id=7",
        "--queue",
        "mail",
        "--method",
        "put",
        "--header",
        "X-Tenant: seven",
        "--body",
        "{}",
        "--priority",
        "-5",
        "--max-attempts",
        "3",
        "--at",
        "2199-01-01T01:00:00+01:00",
        "--deadline",
        "90s",
    ]);
    let job = place.show(&id);
    assert_eq!(keys(&job), {
        let mut all = JOB_KEYS.to_vec();
        all.extend(["attempts", "attempts_in_all"]);
        all.sort_unstable();
        all
    });
    for (key, value) in [
        ("id", Value::from(id.as_str())),
        ("queue", "mail".into()),
        ("method", "PUT".into()),
        ("url", "/jobs/tidy?id=7".into()),
        ("state", "scheduled".into()),
        ("priority", (-5).into()),
        ("attempt", 0.into()),
        ("max_attempts", 3.into()),
        ("scheduled_at", "2199-01-01T00:00:00.000000Z".into()),
        ("finished_at", Value::Null),
        ("node", Value::Null),
        ("attempts", Value::Array(Vec::new())),
    ] {
        assert_eq!(job[key], value, "{key}");
    }
    let created = job["created_at"].as_str().unwrap();
    assert!(created.len() == 27 && created.ends_with('Z'), "{created}");
    let text = place.run(&["jobs", "show", &id]).ok();
    assert!(text.contains("call       PUT /jobs/tidy?id=7\n"), "{text}");
}

#[test]
fn enqueue_prints_the_id() {
    let place = Place::migrated();
    let answer = place.run(&["enqueue", "/x", "--json"]).json();
    assert_eq!(keys(&answer), ["enqueued", "id"]);
    assert_eq!(place.show(id_of(&answer))["state"], "ready");
    let later = place.enqueue(&["https://api.example/v1", "--in", "1h"]);
    assert_eq!(place.show(&later)["state"], "scheduled");
}

#[test]
fn a_body_comes_from_a_file_or_from_stdin_within_its_limit() {
    let place = Place::migrated();
    place.write("body", "from a file");
    place.run(&["enqueue", "/x", "--body-file", "body"]).ok();
    place.run_with_stdin(&["enqueue", "/x", "--body-file", "-"], b"from stdin").ok();
    let whole = vec![b'x'; 256 * 1024];
    place.run_with_stdin(&["enqueue", "/x", "--body-file", "-"], &whole).ok();
    let over = vec![b'x'; 256 * 1024 + 1];
    place.run_with_stdin(&["enqueue", "/x", "--body-file", "-"], &over).fails(2, &["256 KiB"]);
    place.run(&["enqueue", "/x", "--body-file", "nowhere"]).fails(1, &["nowhere"]);
    assert_eq!(place.list(&[]).len(), 3);
}

#[test]
fn what_can_never_run_is_not_enqueued() {
    let place = Place::migrated();
    for words in [
        &["no-slash"][..],
        &["//other.example/x"],
        &["ftp://a/x"],
        &["http://user:pw@a/x"],
        &["/x", "--method", "BREW"],
        &["/x", "--header", "no colon"],
        &["/x", "--header", "Host: evil"],
        &["/x", "--header", "Webhook-Id: forged"],
        &["/x", "--header", "a: 1", "--header", "A: 2"],
        &["/x", "--priority", "101"],
        &["/x", "--max-attempts", "0"],
        &["/x", "--deadline", "25h"],
        &["/x", "--deadline", "0s"],
        &["/x", "--in", "soon"],
        &["/x", "--at", "tomorrow"],
        &["/x", "--at", "2999-01-01T00:00:00Z"],
        &["/x", "--in", "1h", "--at", "2199-01-01T00:00:00Z"],
        &["/x", "--body", "a", "--body-file", "b"],
        &["/x", "--queue", "a b"],
        &[],
    ] {
        let words: Vec<_> = ["enqueue"].iter().chain(words).copied().collect();
        place.run(&words).fails(2, &[]);
    }
    assert_eq!(place.list(&[]), Vec::<Value>::new());
}

#[test]
fn jobs_are_listed_newest_first_by_state_queue_and_page() {
    let place = Place::migrated();
    let ids = [
        place.enqueue(&["/1"]),
        place.enqueue(&["/2", "--queue", "mail", "--in", "1h"]),
        place.enqueue(&["/3", "--queue", "mail"]),
    ];
    let urls = |words: &[&str]| {
        let jobs = place.list(words);
        jobs.iter().map(|job| job["url"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(urls(&[]), ["/3", "/2", "/1"]);
    assert_eq!(urls(&["--queue", "mail"]), ["/3", "/2"]);
    assert_eq!(urls(&["--state", "scheduled"]), ["/2"]);
    assert_eq!(urls(&["--state", "ready", "--queue", "mail"]), ["/3"]);
    assert_eq!(urls(&["--limit", "1"]), ["/3"]);
    assert_eq!(urls(&["--limit", "2", "--before", &ids[2]]), ["/2", "/1"]);
    assert_eq!(keys(&place.list(&[])[0]), sorted(JOB_KEYS));
    let table = place.run(&["jobs", "list"]).ok();
    assert!(table.starts_with("ID ") && table.lines().count() == 4, "{table}");
    assert!(!table.contains('\u{1b}'), "{table}");
    assert_eq!(place.run(&["jobs", "list", "--state", "dead"]).ok(), "no jobs\n");
}

#[test]
fn all_jobs_of_a_state_and_a_queue_are_cancelled_and_retried() {
    let place = Place::migrated();
    let mail = place.enqueue(&["/x", "--queue", "mail", "--in", "1h"]);
    let other = place.enqueue(&["/x", "--in", "1h"]);
    let all = ["--all", "--state", "scheduled", "--queue", "mail"];
    let words = |deed: &'static str| [&["jobs", deed][..], &all].concat();
    let answer = place.run(&[&words("cancel")[..], &["--json"]].concat()).json();
    assert_eq!(answer, serde_json::json!({ "altered": 1 }));
    assert_eq!(place.show(&mail)["state"], "cancelled");
    assert_eq!(place.show(&other)["state"], "scheduled");
    assert!(place.run(&words("cancel")).ok().starts_with("0 jobs"));
    let text = place.run(&["jobs", "retry", "--all", "--state", "cancelled"]).ok();
    assert_eq!(text, "1 jobs will run now\n");
    assert_eq!(place.show(&mail)["state"], "ready");
    for (words, code, says) in [
        (&["jobs", "retry", "--all"][..], 2, "--state"),
        (&["jobs", "retry", "--state", "dead", NOBODY], 2, "--all"),
        (&["jobs", "retry", "--all", "--state", "dead", NOBODY], 2, "cannot be used with"),
        (&["jobs", "retry", "--all", "--state", "succeeded"], 2, "are not retried"),
        (&["jobs", "cancel"], 2, "<ID>"),
    ] {
        place.run(words).fails(code, &[says]);
    }
}

#[test]
fn ended_jobs_are_removed_by_hand_and_no_others() {
    let place = Place::migrated();
    let (cancelled, waits) = (place.enqueue(&["/x"]), place.enqueue(&["/x", "--in", "1h"]));
    place.run(&["jobs", "cancel", &cancelled]).ok();
    let prune = ["jobs", "prune", "--older-than"];
    let words = |more: &[&'static str]| [&prune[..], more].concat();
    assert_eq!(place.run(&words(&["1h"])).ok(), "0 jobs were removed\n");
    assert_eq!(place.run(&words(&["0s", "--state", "dead"])).ok(), "0 jobs were removed\n");
    let answer = place.run(&words(&["0s", "--state", "dead", "--state", "cancelled", "--json"]));
    assert_eq!(answer.json(), serde_json::json!({ "removed": 1 }));
    let gone = place.run(&["jobs", "show", &cancelled]);
    gone.fails(1, &["there is no job", "was removed", "24h", "30 days", "--keep-dead"]);
    assert_eq!(place.show(&waits)["state"], "scheduled");
    assert_eq!(place.run(&words(&["0s"])).ok(), "0 jobs were removed\n");
    for (words, says) in [
        (&["jobs", "prune"][..], "--older-than"),
        (&words(&["soon"]), "soon"),
        (&words(&["11y"]), "10y"),
        (&words(&["1h", "--state", "running"]), "running"),
    ] {
        place.run(words).fails(2, &[says]);
    }
}

#[test]
fn a_unique_key_leads_to_the_job_that_has_it() {
    let place = Place::migrated();
    let first = place.enqueue(&["/x", "--unique-key", "digest:ada", "--unique-for", "1h"]);
    let again = ["enqueue", "/x", "--unique-key", "digest:ada", "--json"];
    let told = |id: &str, enqueued| serde_json::json!({ "id": id, "enqueued": enqueued });
    assert_eq!(place.run(&again).json(), told(&first, false));
    assert_eq!(place.show(&first)["unique_key"], "digest:ada");
    assert!(place.run(&["jobs", "show", &first]).ok().contains("unique key digest:ada"));
    // The window lasts longer than the job.
    place.run(&["jobs", "cancel", &first]).ok();
    assert_eq!(place.run(&again).json(), told(&first, false));
    let free = place.enqueue(&["/x", "--unique-key", "free"]);
    place.run(&["jobs", "cancel", &free]).ok();
    assert_ne!(place.enqueue(&["/x", "--unique-key", "free"]), free);
    let long = "k".repeat(257);
    for (words, says) in [
        (&["--unique-key", ""][..], "not empty"),
        (&["--unique-key", &long], "257 bytes"),
        (&["--unique-for", "1h"], "--unique-key"),
        (&["--unique-key", "k", "--unique-for", "0s"], "above 0"),
        (&["--unique-key", "k", "--unique-for", "400d"], "366 days"),
    ] {
        let words = [&["enqueue", "/x"][..], words].concat();
        place.run(&words).fails(2, &[says]);
    }
}

#[test]
fn queues_are_listed_paused_and_resumed() {
    let place = Place::migrated();
    assert_eq!(
        place.run(&["queues", "list"]).ok(),
        "no job waits, no queue is paused, and none says anything of its jobs\n"
    );
    place.enqueue(&["/x", "--queue", "mail"]);
    assert_eq!(
        place.run(&["queues", "pause", "mail", "empty"]).ok(),
        "mail is paused\nempty is paused\n"
    );
    place.run(&["queues", "pause", "mail"]).fails(1, &["mail is paused already"]);
    let listed = place.run(&["queues", "list", "--json"]).json();
    assert_eq!(listed["all_queues"], true);
    let names: Vec<_> = listed["queues"].as_array().unwrap().iter().map(|q| &q["queue"]).collect();
    assert_eq!(names, ["mail", "empty"]);
    assert!(listed["queues"][0]["paused_since"].is_string());
    assert_eq!(listed["queues"][0]["ready"], 1);
    assert!(place.run(&["queues", "list"]).ok().contains("PAUSED SINCE"));
    assert_eq!(place.run(&["queues", "resume", "mail"]).ok(), "mail is resumed\n");
    place.run(&["queues", "resume", "mail"]).fails(1, &["mail is not paused"]);
    place.run(&["queues", "pause", ""]).fails(2, &[]);
    let ordered = place.run(&["queues", "pause", "mail", "--json"]).json();
    assert_eq!(ordered, serde_json::json!([{ "queue": "mail", "result": "paused" }]));
}

#[test]
fn a_queue_says_what_holds_for_its_jobs() {
    let place = Place::migrated();
    let set = |words: &[&str]| place.run(&[&["queues", "set", "mail"], words].concat());
    let said = set(&["--retry-wait", "90s", "--permanent-statuses", "422,404"]).ok();
    assert!(said.contains("after 1m 30s; not after 404,422"), "{said}");
    let listed = place.run(&["queues", "list", "--json"]).json();
    let policy = &listed["queues"][0]["policy"];
    assert_eq!(
        (&policy["retry_wait_ms"], &policy["permanent_statuses"]),
        (&90_000.into(), &"404,422".into())
    );
    assert!(place.run(&["queues", "list"]).ok().contains("not after 404,422"));
    set(&["--retry-wait", "25h"]).fails(2, &["1ms to 24h"]);
    set(&["--permanent-statuses", "200"]).fails(2, &["300 to 599"]);
    assert_eq!(set(&[]).ok(), "mail says nothing of its jobs\n");
    assert_eq!(place.run(&["queues", "list", "--json"]).json()["queues"], serde_json::json!([]));
    place.run(&["enqueue", "/x", "--heartbeat", "5s"]).fails(2, &["--async"]);
    place.enqueue(&[
        "/x",
        "--async",
        "--heartbeat",
        "5s",
        "--retry-wait",
        "1s",
        "--retry-wait-max",
        "1s",
    ]);
}

#[test]
fn a_token_is_shown_once_listed_without_what_opens_and_revoked() {
    let place = Place::migrated();
    assert_eq!(place.run(&["token", "list"]).ok(), "no tokens\n");
    let token = place.run(&["token", "create", "shop", "--role", "enqueue"]).ok();
    assert!(token.starts_with("tw_") && token.trim_end().len() == 46, "{token}");
    let made = place.run(&["token", "create", "ops", "--role", "operate", "--json"]).json();
    assert_eq!((&made["name"], &made["role"]), (&"ops".into(), &"operate".into()));
    assert_ne!(made["token"], token.trim_end());
    place.run(&["token", "create", "shop", "--role", "read"]).fails(1, &["shop already"]);
    place.run(&["token", "create", "x", "--role", "admin"]).fails(2, &["operate"]);
    place.run(&["token", "create", "", "--role", "read"]).fails(2, &["1 to 100 bytes"]);
    let listed = place.run(&["token", "list", "--json"]).json();
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|token| &token["name"]).collect();
    assert_eq!(names, ["ops", "shop"]);
    let said = place.run(&["token", "list"]).ok() + &listed.to_string();
    assert!(said.contains("enqueue") && !said.contains("tw_"), "{said}");
    assert_eq!(place.run(&["token", "revoke", "shop"]).ok(), "shop is revoked\n");
    place.run(&["token", "revoke", "shop"]).fails(1, &["no token shop"]);
}

#[test]
fn schedules_are_set_listed_and_run() {
    let place = Place::migrated();
    assert_eq!(place.run(&["schedules", "list"]).ok(), "no schedules\n");
    let set =
        ["schedules", "set", "nightly", "30 2 * * *", "/jobs/tidy", "--zone", "Europe/Berlin"];
    let said = place.run(&set).ok();
    assert!(said.starts_with("nightly is set; it comes next at\n"), "{said}");
    assert_eq!(
        said.matches("02:30:00 +0").count() + said.matches("03:00:00 +02").count(),
        5,
        "{said}"
    );
    assert!(said.contains("Europe/Berlin"));
    let more = ["--queue", "cron", "--misfire", "all", "--misfire-limit", "5", "--json"];
    let again = place.run(&[&set[..], &more].concat()).json();
    assert_eq!((&again["name"], &again["new"]), (&"nightly".into(), &false.into()));
    assert_eq!(again["next"].as_array().unwrap().len(), 5);
    let listed = place.run(&["schedules", "list", "--json"]).json();
    assert_eq!((&listed[0]["queue"], &listed[0]["misfire"]), (&"cron".into(), &"all".into()));
    assert_eq!(listed[0]["last"], Value::Null);
    assert_eq!(place.run(&["schedules", "pause", "nightly"]).ok(), "nightly is paused\n");
    place.run(&["schedules", "pause", "nightly"]).fails(1, &["paused already"]);
    assert!(place.run(&["schedules", "list"]).ok().contains("paused"));
    let id = place.run(&["schedules", "run", "nightly"]).ok();
    assert_eq!(place.show(id.trim())["queue"], "cron");
    assert_eq!(place.run(&["schedules", "resume", "nightly"]).ok(), "nightly is resumed\n");
    place.run(&["schedules", "remove", "nightly"]).ok();
    for verb in ["remove", "pause", "resume", "run"] {
        place.run(&["schedules", verb, "nightly"]).fails(1, &["there is no schedule", "nightly"]);
    }
    for (words, says) in [
        (&["n", "61 * * * *", "/x"][..], "61"),
        (&["n", "0 0 30 2 *", "/x"], "never comes"),
        (&["n", "* * *", "/x"], "3 fields"),
        (&["n", "@daily", "/x", "--zone", "europe/berlin"], "did you mean Europe/Berlin"),
        (&["n", "@daily", "/x", "--zone", "Atlantis"], "IANA"),
        (&["n", "@daily", "not a path"], "not a path"),
        (&["n", "@daily", "/x", "--misfire", "never"], "never"),
        (&["n", "@daily", "/x", "--misfire-limit", "0"], "0"),
        (&["", "@daily", "/x"], "1 to 128"),
    ] {
        let words = [&["schedules", "set"][..], words].concat();
        place.run(&words).fails(2, &[says]);
    }
}

#[test]
fn a_job_is_cancelled_once_and_may_be_retried() {
    let place = Place::migrated();
    let id = place.enqueue(&["/x", "--in", "1h"]);
    let answer = place.run(&["jobs", "cancel", &id, "--json"]).json();
    assert_eq!(answer, serde_json::json!([{ "id": id, "result": "cancelled" }]));
    assert_eq!(place.show(&id)["state"], "cancelled");
    place.run(&["jobs", "cancel", &id]).fails(1, &[&id, "it has ended"]);
    let text = place.run(&["jobs", "retry", &id]).ok();
    assert_eq!(text, format!("job {id} will run now\n"));
    assert_eq!(place.show(&id)["state"], "ready");
}

#[test]
fn one_unknown_job_does_not_keep_the_others_from_being_cancelled() {
    let place = Place::migrated();
    let id = place.enqueue(&["/x"]);
    let ran = place.run(&["jobs", "cancel", NOBODY, &id]);
    ran.fails(1, &["there is no job", NOBODY]);
    assert_eq!(ran.stdout, format!("job {id} is cancelled\n"));
    assert_eq!(place.show(&id)["state"], "cancelled");
}

#[test]
fn an_unknown_job_fails_and_an_impossible_id_is_a_usage_error() {
    let place = Place::migrated();
    for verb in ["show", "retry", "cancel"] {
        place.run(&["jobs", verb, NOBODY]).fails(1, &["there is no job", NOBODY]);
        place.run(&["jobs", verb, "seven"]).fails(2, &["seven"]);
        place.run(&["jobs", verb]).fails(2, &[]);
    }
}

#[test]
fn a_farm_without_nodes_has_none_to_show() {
    let place = Place::migrated();
    assert_eq!(place.run(&["nodes", "--json"]).json(), serde_json::json!([]));
    assert_eq!(place.run(&["nodes"]).ok(), "no nodes\n");
    place.run(&["nodes", "drain", "web-1"]).fails(1, &["there is no node web-1"]);
    place.run(&["nodes", "drain"]).fails(2, &[]);
}

#[test]
fn the_period_of_a_new_farm_is_set_at_once() {
    let place = Place::migrated();
    assert_eq!(place.run(&["period"]).ok(), "the period is 1s\n");
    assert_eq!(place.run(&["period", "500ms"]).ok(), "the period is 500ms\n");
    let answer = place.run(&["period", "--json"]).json();
    assert_eq!(answer, serde_json::json!({ "period_ms": 500, "pending": null }));
    for bad in ["49ms", "11s", "1.5ms", "soon"] {
        place.run(&["period", bad]).fails(2, &[bad]);
    }
}

#[test]
fn the_period_is_changed_from_a_slot_on() {
    let place = Place::migrated();
    place.run(&["period", "2s"]).ok();
    let changed = place.run(&["period", "500ms", "--json"]).json();
    let pending = &changed["pending"];
    assert_eq!((&changed["period_ms"], &pending["period_ms"]), (&2_000.into(), &500.into()));
    assert!(pending["from_slot"].is_i64() && pending["from"].is_string(), "{changed}");
    // Asking for the same again is harmless; asking for another one must wait.
    place.run(&["period", "500ms"]).ok();
    for other in ["3s", "2s"] {
        place.run(&["period", other]).fails(1, &["500ms from slot", "Try again"]);
    }
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert_eq!(place.run(&["period"]).ok(), "the period is 500ms\n");
}

#[test]
fn a_flag_counts_before_a_variable_before_the_shared_one_before_the_file() {
    let place = Place::empty();
    for name in ["flag", "own", "shared", "file"] {
        place.run(&["migrate", "--database-url", &format!("sqlite://{name}.db")]).ok();
    }
    place.write("turnwise.toml", "database-url = \"sqlite://file.db\"\n");
    let mut place = place.with("TURNWISE_DATABASE_URL", "").with("DATABASE_URL", "");
    place.run(&["enqueue", "/file"]).ok();
    place.variables.push(("DATABASE_URL", "sqlite://shared.db".to_owned()));
    place.run(&["enqueue", "/shared"]).ok();
    place.variables.push(("TURNWISE_DATABASE_URL", "sqlite://own.db".to_owned()));
    place.run(&["enqueue", "/own"]).ok();
    place.run(&["enqueue", "/flag", "--database-url", "sqlite://flag.db"]).ok();
    for name in ["flag", "own", "shared", "file"] {
        let jobs = place.list(&["--database-url", &format!("sqlite://{name}.db")]);
        let urls: Vec<_> = jobs.iter().map(|job| job["url"].as_str().unwrap()).collect();
        assert_eq!(urls, [format!("/{name}")]);
    }
}

#[test]
fn the_file_may_be_named_and_must_then_be_there() {
    let place = Place::migrated();
    place.write("other.toml", "database-url = \"sqlite://turnwise.db\"\n");
    place.run(&["nodes", "--config", "other.toml"]).ok();
    place.run(&["nodes", "--config", "nowhere.toml"]).fails(78, &["nowhere.toml"]);
    let place = place.with("TURNWISE_CONFIG", "nowhere.toml");
    place.run(&["nodes"]).fails(78, &["nowhere.toml"]);
    place.run(&["nodes", "--config", "other.toml"]).ok();
}

#[test]
fn an_unknown_key_is_named_with_file_line_and_the_nearest_one() {
    let place = Place::migrated();
    place.write("turnwise.toml", "# this farm\ncapcity = 8\n");
    for words in [&["run"][..], &["nodes"], &["enqueue", "/x"]] {
        place.run(words).fails(78, &["turnwise.toml:2", "\"capcity\"", "\"capacity\""]);
    }
}

#[test]
fn a_bad_setting_is_named_with_where_it_came_from() {
    let place = Place::empty();
    place.run(&["run", "--period", "20ms"]).fails(78, &["--period", "20ms", "50 ms to 10 s"]);
    place.run(&["run", "--capacity", "0"]).fails(78, &["--capacity", "1 to 1000"]);
    place.run(&["run", "--target", "http://a/base"]).fails(78, &["--target", "path"]);
    place.run(&["run", "--listen", "0.0.0.0:1"]).fails(78, &["--listen"]);
    place.run(&["run", "--keep-succeeded", "30s"]).fails(78, &["--keep-succeeded", "a minute"]);
    place.run(&["run", "--keep-dead", "never"]).fails(78, &["--keep-dead", "30d", "or forever"]);
    place.write("turnwise.toml", "\nperiod = \"1min\"\n");
    place.run(&["run"]).fails(78, &["turnwise.toml:2: period", "1min"]);
    let place = place.with("TURNWISE_PERIOD", "never");
    place.run(&["run"]).fails(78, &["TURNWISE_PERIOD", "never"]);
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    let place = Place::empty();
    for words in [
        &[][..],
        &["dance"],
        &["run", "--capcity", "8"],
        &["run", "8"],
        &["jobs"],
        &["jobs", "list", "--state", "tired"],
        &["jobs", "list", "--limit", "0"],
    ] {
        place.run(words).fails(2, &[]);
    }
    place.run(&["run", "--capcity", "8"]).fails(2, &["--capacity"]);
}

#[test]
fn a_database_that_is_away_is_told_apart_and_its_password_kept() {
    let place = Place::empty().with("DATABASE_URL", &away());
    for words in [
        &["nodes"][..],
        &["migrate"],
        &["enqueue", "/x"],
        &["run", "--fail-fast", "--listen", "off"],
    ] {
        let ran = place.run(words);
        ran.fails(69, &["127.0.0.1"]);
        assert!(!ran.stderr.contains("secret"), "{ran:?}");
    }
}

#[test]
fn a_database_url_that_names_none_is_bad_configuration() {
    let place = Place::empty();
    for url in ["oracle://a/b", "turnwise.db", ""] {
        place.run(&["nodes", "--database-url", url]).fails(78, &[]);
    }
}

#[test]
fn several_databases_that_are_no_copies_of_one_are_bad_configuration() {
    let place = Place::empty();
    let cases = [
        ("postgres://u:geheim@a/d", "mysql://u:geheim@b/d", "leave one kind out"),
        ("postgres://u:geheim@a/d", "postgres://u:geheim@b/e", "a primary and its standbys"),
        ("sqlite://a.db", "sqlite://b.db", "give one URL"),
        ("postgres://u:geheim@a/d", "postgres://u:geheim@b/d?sslmod=require", "sslmod"),
    ];
    for (one, other, word) in cases {
        let ran = place.run(&["nodes", "--database-url", one, "--database-url", other]);
        ran.fails(78, &[word]);
        assert!(!ran.stderr.contains("geheim"), "{ran:?}");
        let place = Place::empty().with("DATABASE_URL", &format!("{one} {other}"));
        place.run(&["nodes"]).fails(78, &[word]);
    }
    let ran = place.run(&["nodes", "--database-url", "postgres://127.0.0.1:1,127.0.0.1:2/d"]);
    ran.fails(69, &["127.0.0.1:1/d: ", "127.0.0.1:2/d: ", "promote a standby"]);
}

#[test]
fn another_period_than_the_databases_is_refused() {
    let place = Place::migrated();
    place.run(&["period", "1s"]).ok();
    let ran = place.run(&["run", "--period", "250ms", "--listen", "off"]);
    ran.fails(78, &["1s", "250ms", "turnwise period"]);
}

#[test]
fn an_unknown_variable_is_pointed_out() {
    let place = Place::migrated().with("TURNWISE_CAPCITY", "8");
    place.run(&["period", "1s"]).ok();
    let ran = place.run(&["run", "--no-migrate", "--period", "250ms", "--listen", "off"]);
    ran.fails(78, &["TURNWISE_CAPCITY", "TURNWISE_CAPACITY"]);
}

#[test]
fn help_explains_with_examples_and_codes() {
    let place = Place::empty();
    let help = place.run(&["--help"]).ok();
    for word in ["turnwise run", "DATABASE_URL", "turnwise.toml", "78  bad configuration"] {
        assert!(help.contains(word), "{word}");
    }
    for command in ["run", "enqueue", "jobs", "nodes", "period", "migrate"] {
        assert!(place.run(&[command, "--help"]).ok().contains("Usage: turnwise"), "{command}");
    }
    assert!(place.run(&["--version"]).ok().starts_with("turnwise "));
}

#[test]
fn events_begin_with_where_things_stand_and_end_when_told() {
    let place = Place::migrated();
    let ran = place.run(&["events", "--json", "--for", "200ms"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{ran:?}");
    let wrong = place.run(&["events", "--for", "soon"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
    let missing = Place::empty().run(&["events", "--for", "200ms"]);
    assert_eq!(missing.code, 78, "{missing:?}");
}

#[test]
fn top_without_a_terminal_says_what_tells_the_same() {
    let ran = Place::migrated().run(&["top"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("needs a terminal") && ran.stderr.contains("turnwise events"));
}

#[test]
fn a_dashboard_that_others_could_reach_needs_a_token() {
    let ran = Place::migrated().run(&["run", "--listen", "0.0.0.0:0", "--fail-fast"]);
    assert_eq!(ran.code, 78, "{ran:?}");
    assert!(ran.stderr.contains("TURNWISE_LISTEN_TOKEN"), "{ran:?}");
}

#[test]
fn a_port_that_is_taken_is_said_by_its_address() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = Place::migrated().run(&["run", "--listen", &address]);
    assert_eq!(ran.code, 78, "{ran:?}");
    assert!(ran.stderr.contains(&address) && ran.stderr.contains("--listen"), "{ran:?}");
}

#[test]
fn a_new_signing_key_is_printed_and_taken() {
    let place = Place::migrated();
    let key = place.run(&["config", "new-signing-key"]).ok();
    let answer = place.run(&["config", "new-signing-key", "--json"]).json();
    let other = answer["signing_key"].as_str().unwrap();
    assert!(key.starts_with("whsec_") && key.trim_end().len() == other.len());
    assert_ne!(key.trim_end(), other);
    // An absent database is told last: the keys are good.
    let url = "postgres://127.0.0.1:1/none";
    let words = ["run", "--fail-fast", "--database-url", url, "--listen", "off", "--signing-key"];
    place.run(&[&words[..], &[other]].concat()).fails(69, &["127.0.0.1:1"]);
}

#[test]
fn a_signing_key_that_is_none_is_told_without_repeating_it() {
    let place = Place::empty().with("TURNWISE_SIGNING_KEY", "whsec_c2VjcmV0");
    let ran = place.run(&["run"]);
    ran.fails(78, &["TURNWISE_SIGNING_KEY: ", "it has 6 bytes", "turnwise config new-signing-key"]);
    assert!(!ran.stderr.contains("c2VjcmV0"), "{ran:?}");
    place.write("keys", "# mine\nwhsec_c2VjcmV0\n");
    let ran = place.run(&["run", "--signing-key", "", "--signing-key-file", "keys"]);
    ran.fails(78, &["--signing-key: no key is given"]);
    place.write("turnwise.toml", "signing-key-file = 'keys'\nsigning-key = 'whsec_c2VjcmV0'\n");
    let place = Place { variables: Vec::new(), ..place };
    place.run(&["run"]).fails(78, &["turnwise.toml:2: signing-key: "]);
    place.write("turnwise.toml", "signing-key-file = 'keys'\n");
    place.run(&["run"]).fails(78, &["turnwise.toml:1: signing-key-file: keys:2: "]);
}
