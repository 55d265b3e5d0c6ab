//! What the program `turnwise` prints and with which code it ends, on a SQLite file.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

mod batches;
mod jobs;
mod orders;
mod place;
mod settings;

use crate::place::{NOBODY, Place};

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
        &["batches", "list"],
        &["enqueue", "/x"],
        &["nodes"],
        &["period"],
        &["run", "--no-migrate", "--listen", "off"],
    ] {
        place.run(words).fails(78, &["turnwise migrate"]);
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
