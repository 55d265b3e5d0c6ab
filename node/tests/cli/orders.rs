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
    set(&["--concurrency", "0"]).fails(2, &["1..=1000000"]);
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
