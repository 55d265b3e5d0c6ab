//! Batches: made from lines, shown, sealed, cancelled; jobs that wait for one, or for other jobs.

use crate::place::{NOBODY, Place, id_of};

const TWO: &str =
    "{\"url\":\"/a\"}\n\n{\"url\":\"/b\",\"queue\":\"mail\",\"concurrency_key\":\"k\"}\n";

#[test]
fn a_batch_is_made_shown_sealed_once_and_cancelled() {
    let place = Place::migrated();
    assert_eq!(place.run(&["batches", "list"]).ok(), "no batches\n");
    place.write("jobs.ndjson", TWO);
    let add = ["batches", "add", "jobs.ndjson", "--name", "import", "--open", "--json"];
    let made = place.run(&[&add[..], &["--on-success", "/done"]].concat()).json();
    let id = id_of(&made);
    assert_eq!(made["jobs"].as_array().unwrap().len(), 2, "{made}");
    assert_eq!(place.show(made["jobs"][1].as_str().unwrap())["concurrency_key"], "k");
    let more = place.enqueue(&["/c", "--batch", id]);
    assert_eq!(place.show(&more)["batch"], id);
    assert_eq!(place.list(&["--batch", id]).len(), 3);
    let shown = place.run(&["batches", "show", id, "--json"]).json();
    assert_eq!((&shown["state"], &shown["counts"]["jobs"]), (&"open".into(), &3.into()));
    assert_eq!(shown["followers"][0]["on"], "success");
    let said = place.run(&["batches", "show", id]).ok();
    for word in ["name       import", "0 of 3", "/done", "/c"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(place.run(&["batches", "list"]).ok().contains("0 of 3"));
    let done = made["on_success"].as_str().unwrap();
    let waits = place.show(done);
    assert_eq!((&waits["scheduled_at"], &waits["after"]), (&().into(), &id.into()));
    assert!(place.run(&["jobs", "show", done]).ok().contains(&format!("waits for  batch {id}")));
    assert!(place.run(&["jobs", "list"]).ok().contains(&format!("after batch {id}")));
    let sealed = place.run(&["batches", "seal", id]).ok();
    assert_eq!(sealed, format!("the batch {id} is sealed\n"));
    place.run(&["batches", "seal", id]).fails(1, &["is sealed already"]);
    let cancelled = place.run(&["batches", "cancel", id, "--json"]).json();
    assert_eq!(cancelled, serde_json::json!({"id": id, "result": "cancelled", "jobs": 3}));
    assert_eq!(place.run(&["batches", "show", id, "--json"]).json()["state"], "cancelled");
    assert_eq!(place.show(done)["state"], "cancelled");
    place.run(&["batches", "seal", id]).fails(1, &["has ended: cancelled"]);
    place.run(&["enqueue", "/d", "--batch", id]).fails(1, &["has ended"]);
    let entries = place.run(&["audit", "--json"]).json();
    let actions: Vec<_> = entries.as_array().unwrap().iter().map(|e| &e["action"]).collect();
    assert_eq!(actions, ["batch.cancel", "batch.seal", "batch.make"]);
}

#[test]
fn a_batch_without_jobs_ends_at_once_and_a_wrong_one_is_not_made() {
    let place = Place::migrated();
    let id = place.run_with_stdin(&["batches", "add", "-"], b"").ok().trim().to_owned();
    assert_eq!(place.run(&["batches", "show", &id, "--json"]).json()["state"], "succeeded");
    place.run(&["batches", "cancel", &id]).fails(1, &["has ended: succeeded"]);
    for verb in ["show", "seal", "cancel"] {
        place.run(&["batches", verb, NOBODY]).fails(1, &["there is no batch", NOBODY]);
        place.run(&["batches", verb, "7"]).fails(2, &[]);
    }
    place.write("wrong.ndjson", "{\"url\":\"/a\"}\n{\"url\":\"/b\",\"queue\":\"\"}\n");
    let wrong = place.run(&["batches", "add", "wrong.ndjson"]);
    wrong.fails(2, &["wrong.ndjson: line 2: queue"]);
    place.run(&["batches", "add", "none.ndjson"]).fails(1, &["none.ndjson"]);
    place.run(&["batches", "add"]).fails(2, &["FILE"]);
    place.run(&["batches", "add", "--open", "--name", ""]).fails(2, &["not empty"]);
    assert_eq!(place.list(&[]).len(), 0, "all or nothing");
    // The same again changes nothing.
    place.write("jobs.ndjson", TWO);
    let add = ["batches", "add", "jobs.ndjson", "--id", NOBODY, "--json"];
    let first = place.run(&add).json();
    assert_eq!(place.run(&add).json(), first);
    assert_eq!(place.list(&[]).len(), 2);
}

#[test]
fn a_job_waits_for_other_jobs_or_for_one_batch() {
    let place = Place::migrated();
    let (a, b) = (place.enqueue(&["/a"]), place.enqueue(&["/b"]));
    let after = place.enqueue(&["/c", "--after", &a, "--after", &b, "--after-end"]);
    let batch = place.show(&a)["batch"].as_str().unwrap().to_owned();
    assert_eq!(place.show(&after)["after"], batch.as_str());
    let shown = place.run(&["batches", "show", &batch, "--json"]).json();
    assert_eq!((&shown["state"], &shown["followers"][0]["on"]), (&"sealed".into(), &"end".into()));
    let too = place.enqueue(&["/d", "--after", &batch, "--unique-key", "k"]);
    assert_eq!(place.show(&too)["after"], batch.as_str());
    // What waits for one that waits, waits for that one.
    let last = place.enqueue(&["/e", "--after", &too]);
    assert_eq!(place.show(&last)["after"], place.show(&too)["batch"]);
    assert_ne!(place.show(&last)["after"], batch.as_str());
    for (words, says) in [
        (&["--after", &a, "--in", "1h"][..], "--in"),
        (&["--after", &b, "--unique-key", "l"], "unique key"),
        (&["--after", &a, "--after", &batch], "is a batch"),
        (&["--after-end"], "--after"),
    ] {
        place.run(&[&["enqueue", "/x"][..], words].concat()).fails(2, &[says]);
    }
    place.run(&["enqueue", "/x", "--after", NOBODY]).fails(1, &["there is no job", NOBODY]);
    place.run(&["enqueue", "/x", "--batch", NOBODY]).fails(1, &["there is no batch", NOBODY]);
    place.run(&["jobs", "cancel", &a, &b]).ok();
    // No node looks here: the batch goes on.
    assert_eq!(place.run(&["batches", "show", &batch, "--json"]).json()["state"], "sealed");
}
