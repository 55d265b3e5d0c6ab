//! Jobs: enqueued, shown, listed, cancelled, retried, removed.

use serde_json::Value;

use crate::place::{JOB_KEYS, NOBODY, Place, id_of, keys, sorted};

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
        all.extend(["attempts", "attempts_in_all", "request"]);
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
fn what_opens_something_is_not_shown_and_what_is_stored_stays() {
    let place = Place::migrated();
    let body = r#"{"to":"ada","Card":{"no":4711}}"#;
    let id = place.enqueue(&[
        "/x",
        "--header",
        "Authorization: Bearer s3cret",
        "--header",
        "X-Tenant: seven",
        "--body",
        body,
    ]);
    let plain = place.show(&id);
    assert_eq!(plain["request"]["headers"]["Authorization"], "[redacted]");
    assert_eq!(plain["request"]["headers"]["X-Tenant"], "seven");
    assert_eq!(
        (&plain["request"]["body"], &plain["request"]["body_bytes"]),
        (&body.into(), &31.into())
    );
    let flags = ["--redact-key", "card", "--redact-header", "x-tenant"];
    let text = place.run(&[&["jobs", "show", &id], &flags[..]].concat()).ok();
    for told in
        ["Authorization: [redacted]", "X-Tenant: [redacted]", r#"{"to":"ada","Card":"[redacted]"}"#]
    {
        assert!(text.contains(told), "{told}: {text}");
    }
    // From the file, as every setting.
    place.write("turnwise.toml", "redact-key = ['CARD']\nredact-header = 'X-Tenant'\n");
    let shown = place.show(&id);
    assert_eq!(shown["request"]["body"], r#"{"to":"ada","Card":"[redacted]"}"#);
    assert_eq!(shown["request"]["headers"]["X-Tenant"], "[redacted]");
    let wrong = place.run(&["jobs", "show", &id, "--redact-header", "a b"]);
    wrong.fails(78, &["--redact-header", "a b"]);
    place.write("turnwise.toml", "");
    assert_eq!(place.show(&id), plain, "what is stored is as it was");
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
fn a_concurrency_key_is_of_as_many_jobs_as_want_it() {
    let place = Place::migrated();
    let words = ["/x", "--queue", "sync", "--concurrency-key", "customer:7"];
    let (first, second) = (place.enqueue(&words), place.enqueue(&words));
    assert_ne!(first, second);
    for id in [&first, &second] {
        assert_eq!(place.show(id)["concurrency_key"], "customer:7");
    }
    assert!(place.run(&["jobs", "show", &first]).ok().contains("concurrency key customer:7\n"));
    assert_eq!(place.list(&[])[0]["concurrency_key"], "customer:7");
    assert_eq!(place.show(&place.enqueue(&["/x"]))["concurrency_key"], Value::Null);
    let longest = "k".repeat(256);
    let id = place.enqueue(&["/x", "--concurrency-key", &longest]);
    assert_eq!(place.show(&id)["concurrency_key"], longest.as_str());
    let long = "k".repeat(257);
    for (key, says) in [("", "not empty"), (long.as_str(), "257 bytes")] {
        let ran = place.run(&["enqueue", "/x", "--concurrency-key", key]);
        ran.fails(2, &["concurrency key", says]);
    }
}

#[test]
fn a_job_says_which_job_has_enqueued_it() {
    let place = Place::migrated();
    let parent = place.enqueue(&["/jobs/import"]);
    let id = place.enqueue(&["/jobs/part", "--parent", &parent.to_uppercase()]);
    assert_eq!(place.show(&id)["parent"], parent.as_str());
    assert_eq!(place.list(&[])[0]["parent"], parent.as_str());
    let text = place.run(&["jobs", "show", &id]).ok();
    assert!(text.contains(&format!("\nparent     {parent}\n")), "{text}");
    assert_eq!(place.show(&parent)["parent"], Value::Null);
    assert!(!place.run(&["jobs", "show", &parent]).ok().contains("parent"));
    // Whether there is such a job is not looked at.
    assert_eq!(place.show(&place.enqueue(&["/x", "--parent", NOBODY]))["parent"], NOBODY);
    place.run(&["enqueue", "/x", "--parent", "7"]).fails(2, &["--parent", "7"]);
    let set = ["schedules", "set", "s", "@daily", "/x", "--parent", NOBODY];
    place.run(&set).fails(2, &["--parent"]);
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
