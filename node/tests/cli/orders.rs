//! What is ordered of queues, schedules and tokens.

use serde_json::Value;

use crate::place::Place;

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
    assert_eq!(said, "mail: retries after 1m 30s; no retries after 404,422\n");
    let listed = place.run(&["queues", "list", "--json"]).json();
    let policy = &listed["queues"][0]["policy"];
    assert_eq!(
        (&policy["retry_wait_ms"], &policy["permanent_statuses"]),
        (&90_000.into(), &"404,422".into())
    );
    assert!(place.run(&["queues", "list"]).ok().contains("no retries after 404,422"));
    let said = set(&["--concurrency", "5", "--rate", "100/m", "--burst", "10"]).ok();
    assert_eq!(said, "mail: 5 at once; 100 in 1m, 10 at a time\n");
    let listed = place.run(&["queues", "list", "--json"]).json();
    let policy = &listed["queues"][0]["policy"];
    assert_eq!(policy["concurrency"], 5);
    let rate = serde_json::json!({ "jobs": 100, "per_ms": 60_000, "burst": 10 });
    assert_eq!((&policy["rate"], &policy["retry_wait_ms"]), (&rate, &Value::Null));
    let said = set(&["--concurrency-per-key", "2", "--slow-down", "10m"]).ok();
    assert_eq!(said, "mail: 2 at once of each key; held back for up to 10m when a target asks\n");
    let listed = place.run(&["queues", "list", "--json"]).json();
    let policy = &listed["queues"][0]["policy"];
    assert_eq!(
        (&policy["concurrency_per_key"], &policy["slow_down_ms"], &policy["concurrency"]),
        (&2.into(), &600_000.into(), &Value::Null)
    );
    assert_eq!(listed["queues"][0]["held_back_until"], Value::Null, "no target has asked");
    let text = place.run(&["queues", "list"]).ok();
    assert!(text.contains("HELD BACK UNTIL") && text.contains("2 at once of each key"), "{text}");
    set(&["--concurrency", "0"]).fails(2, &["1..=1000000"]);
    set(&["--concurrency-per-key", "0"]).fails(2, &["1..=1000000"]);
    set(&["--concurrency-per-key", "1000001"]).fails(2, &["1..=1000000"]);
    set(&["--slow-down", "999ms"]).fails(2, &["1s to 24h"]);
    set(&["--slow-down", "25h"]).fails(2, &["1s to 24h"]);
    set(&["--slow-down", "long"]).fails(2, &["is no duration"]);
    set(&["--rate", "100"]).fails(2, &["is no rate", "10/s"]);
    set(&["--burst", "5"]).fails(2, &["--rate"]);
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
fn what_was_ordered_by_commands_is_shown() {
    let place = Place::migrated();
    assert_eq!(place.run(&["audit"]).ok(), "nothing was ordered\n");
    let id = place.enqueue(&["/x", "--queue", "mail"]);
    place.enqueue(&["/x", "--queue", "mail"]);
    place.run(&["jobs", "cancel", &id]).ok();
    place.run(&["jobs", "cancel", &id]).fails(1, &[]);
    place.run(&["jobs", "retry", &id]).ok();
    place.run(&["jobs", "cancel", "--all", "--state", "ready", "--queue", "mail"]).ok();
    place.run(&["jobs", "retry", "--all", "--state", "dead"]).ok();
    place.run(&["jobs", "prune", "--older-than", "0s", "--state", "cancelled"]).ok();
    place.run(&["queues", "pause", "a", "b"]).ok();
    place.run(&["queues", "resume", "b"]).ok();
    place.run(&["queues", "set", "a", "--retry-wait", "1s"]).ok();
    place.run(&["schedules", "set", "s", "@daily", "/x"]).ok();
    place.run(&["schedules", "pause", "s"]).ok();
    place.run(&["schedules", "resume", "s"]).ok();
    place.run(&["schedules", "run", "s"]).ok();
    place.run(&["schedules", "remove", "s"]).ok();
    let token = place.run(&["token", "create", "shop", "--role", "enqueue"]).ok();
    place.run(&["token", "create", "shop", "--role", "enqueue"]).fails(1, &[]);
    place.run(&["token", "revoke", "shop"]).ok();
    place.run(&["period", "2s"]).ok();
    place.run(&["period", "500ms"]).ok();
    let entries = place.run(&["audit", "--json"]).json();
    let entries = entries.as_array().unwrap();
    let word = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
    let told = entries.iter().rev().map(|entry| {
        (word(entry, "action"), word(entry, "subject"), entry["affected"].as_i64().unwrap())
    });
    let told: Vec<_> = told.collect();
    let expected = [
        ("job.cancel", id.as_str(), 1),
        ("job.retry", &id, 1),
        ("jobs.cancel", "state=ready queue=mail", 2),
        ("jobs.prune", "state=cancelled older-than=0s", 2),
        ("queue.pause", "a", 1),
        ("queue.pause", "b", 1),
        ("queue.resume", "b", 1),
        ("queue.set", "a", 1),
        ("schedule.set", "s", 1),
        ("schedule.pause", "s", 1),
        ("schedule.resume", "s", 1),
        ("schedule.run", "s", 1),
        ("schedule.remove", "s", 1),
        ("token.make", "shop (enqueue)", 1),
        ("token.revoke", "shop", 1),
        ("period.change", "500ms", 1),
    ];
    let expected: Vec<_> =
        expected.map(|(what, of, many)| (what.to_owned(), of.to_owned(), many)).into();
    assert_eq!(told, expected);
    for entry in entries {
        assert!(word(entry, "actor").starts_with("cli:"), "{entry}");
        assert_eq!(word(entry, "role"), "database");
    }
    let text = place.run(&["audit", "--limit", "2"]).ok();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.contains("WHO") && text.contains("period.change"), "{text}");
    assert!(!place.run(&["audit"]).ok().contains(token.trim_end()), "a token stands nowhere");
    let before = entries[14]["id"].to_string();
    let first = place.run(&["audit", "--json", "--before", &before]).json();
    assert_eq!(first.as_array().unwrap().len(), 1);
    place.run(&["audit", "--limit", "0"]).fails(2, &[]);
    place.run(&["token", "create", "cli:root", "--role", "read"]).fails(2, &["another name"]);
    place.run(&["token", "create", "dashboard", "--role", "read"]).fails(2, &["another name"]);
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
    let more = ["--queue", "cron", "--concurrency-key", "k", "--misfire", "all"];
    let more = [&set[..], &more, &["--misfire-limit", "5", "--json"]].concat();
    let again = place.run(&more).json();
    assert_eq!((&again["name"], &again["new"]), (&"nightly".into(), &false.into()));
    assert_eq!(again["next"].as_array().unwrap().len(), 5);
    let listed = place.run(&["schedules", "list", "--json"]).json();
    assert_eq!((&listed[0]["queue"], &listed[0]["misfire"]), (&"cron".into(), &"all".into()));
    assert_eq!(listed[0]["last"], Value::Null);
    assert_eq!(place.run(&["schedules", "pause", "nightly"]).ok(), "nightly is paused\n");
    place.run(&["schedules", "pause", "nightly"]).fails(1, &["paused already"]);
    assert!(place.run(&["schedules", "list"]).ok().contains("paused"));
    let id = place.run(&["schedules", "run", "nightly"]).ok();
    let job = place.show(id.trim());
    assert_eq!((&job["queue"], &job["concurrency_key"]), (&"cron".into(), &"k".into()));
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
