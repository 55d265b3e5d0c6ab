//! The commands as people type them: what they answer, their exit codes, and how they refuse nonsense.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use turnwise_engine::journal::{Entry, Header};
use turnwise_engine::{Input, LocalInstant, NodeId};

fn sim(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_turnwise-sim");
    Command::new(program).args(arguments).output().unwrap()
}

fn json(arguments: &[&str]) -> Value {
    let output = sim(arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn refused(arguments: &[&str], code: i32, words: &[&str]) {
    let output = sim(arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    for word in words {
        assert!(error.contains(word), "{arguments:?} does not say {word:?}: {error}");
    }
}

fn file(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// A scenario that no engine can serve: every statement takes longer than a slot, and yet nothing disturbs it.
fn hopeless() -> PathBuf {
    let mut scenario: Value = {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hopeless-start.json");
        let write = path.to_str().unwrap();
        let options = ["lab", "--nodes", "3", "--duration", "2m", "--write", write];
        assert!(sim(&options).status.success());
        serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap()
    };
    for node in scenario["nodes"].as_array_mut().unwrap() {
        node["there"]["base"] = "1s 700ms".into();
    }
    let fault = serde_json::json!({"at": "70s", "fault": {"kind": "lose_work", "node": 1}});
    scenario["faults"] = Value::Array(vec![fault]);
    file("hopeless.json", &scenario.to_string())
}

#[test]
fn a_lab_answers_with_the_report_that_is_promised() {
    let report = json(&["lab", "--duration", "2m", "--seed", "7", "--jobs-rate", "2/s", "--json"]);
    assert_eq!(report["seed"], 7);
    assert_eq!(report["tier"], "lab");
    assert_eq!(report["missed"], 0);
    assert_eq!(report["violations"], Value::Array(Vec::new()));
    for field in
        ["nodes", "slots", "beats", "doubled", "max_gap_us", "interval_violations", "sim_seconds"]
    {
        assert!(report[field].is_number(), "{field}: {report}");
    }
    for field in ["p50", "p99", "max"] {
        assert!(report["arrival_us"][field].is_number(), "{field}");
        assert!(report["offset_error_us"][field].is_number(), "{field}");
    }
    for field in ["enqueued", "succeeded", "dead", "lost", "overlapped"] {
        assert!(report["jobs"][field].is_number(), "{field}");
    }
    assert!(report["statements_per_second"].as_f64().unwrap() > 1.0);
    assert_eq!(report["trace_hash"].as_str().unwrap().len(), 16);
}

#[test]
fn the_original_design_runs_on_the_same_scenario() {
    let options = ["lab", "--duration", "10m", "--latency", "1ms..80ms", "--seed", "7", "--json"];
    let ours = json(&options);
    let theirs = json(&[&options[..], &["--clock", "original"]].concat());
    let p50 = |report: &Value| report["arrival_us"]["p50"].as_f64().unwrap();
    assert!(p50(&theirs) > 50.0 * p50(&ours), "{} and {}", p50(&ours), p50(&theirs));
}

#[test]
fn a_scenario_is_written_and_replayed_to_the_same_hash() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("written.json");
    let write = path.to_str().unwrap();
    let options = ["--crash-rate", "1/20s", "--pause-rate", "1/30s", "--duration", "5m"];
    let first = json(&[&["lab", "--write", write, "--json"], &options[..]].concat());
    let again = json(&["replay", write, "--json"]);
    assert_eq!(first["trace_hash"], again["trace_hash"]);
    let picture = path.with_extension("svg");
    let plotted = sim(&["plot", write, "--write", picture.to_str().unwrap()]);
    assert!(plotted.status.success());
    let svg = std::fs::read_to_string(picture).unwrap();
    assert!(svg.contains("<svg") && svg.contains("node 4") && svg.matches("<circle").count() > 300);
}

#[test]
fn a_violation_ends_with_1_and_says_how_to_replay_and_shrink_it() {
    let path = hopeless();
    let path = path.to_str().unwrap();
    refused(&["replay", path], 1, &["turnwise-sim shrink", path]);
    let smaller = Path::new(path).with_extension("small.json");
    let output = sim(&["shrink", path]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("turnwise-sim replay"), "{said}");
    let small: Value = serde_json::from_str(&std::fs::read_to_string(&smaller).unwrap()).unwrap();
    assert_eq!(small["faults"], Value::Array(Vec::new()), "its fault has nothing to do with it");
    refused(&["replay", smaller.to_str().unwrap()], 1, &["turnwise-sim shrink"]);
}

#[test]
fn a_run_is_decided_by_its_seed_alone() {
    let output = sim(&["meta", "--seeds", "60"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn nonsense_is_refused_with_its_name_and_a_reason() {
    refused(&["lab", "--nodes", "0"], 2, &["--nodes", "1..=2000"]);
    refused(&["lab", "--latency=-1ms..5ms"], 2, &["--latency", "negative"]);
    refused(&["lab", "--latency", "9ms..5ms"], 2, &["--latency", "first end"]);
    refused(&["lab", "--node-latency", "5ms"], 2, &["--node-latency", "which node"]);
    refused(&["lab", "--node-latency", "7=5ms"], 1, &["--node-latency 7", "last is 4", "--nodes"]);
    refused(&["lab", "--period", "20ms"], 2, &["--period", "50 ms to 10 s"]);
    refused(&["lab", "--crash-rate", "often"], 2, &["--crash-rate", "1/60s"]);
    refused(&["lab", "--drift", "900ppm"], 2, &["--drift", "0 to 400 ppm"]);
    refused(&["lab", "--wander", "1ppm"], 2, &["--wander", "50ppb"]);
    refused(&["lab", "--clock-resolution", "2s"], 2, &["--clock-resolution", "1ns to 1s"]);
    refused(&["lab", "--late-wake", "2s"], 2, &["--late-wake", "0 to 1s"]);
    refused(&["lab", "--skew", "2h"], 2, &["--skew", "4000s"]);
    refused(&["lab", "--step", "1h"], 2, &["--step", "when"]);
    refused(&["lab", "--step", "1h@1h"], 1, &["--step", "faults[0].at", "after the end", "10m"]);
    refused(&["cluster", "--duplicates", "5ppm"], 1, &["--duplicates", "TCP", "lab"]);
    refused(&["chaos", "--late-wake", "5ms"], 1, &["--late-wake", "real processes"]);
    let sweep = ["sweep", "--seeds", "0..9", "--tier", "cluster", "--duplicates", "5ppm"];
    refused(&sweep, 1, &["--duplicates", "TCP"]);
    refused(&["sweep", "--seeds", "9..3"], 2, &["--seeds", "no seed"]);
    refused(&["sabotage", "--bug", "unheard-of"], 2, &["unheard-of", "step-is-ignored"]);
    refused(&["sabotage", "--bug", "id-is-kept"], 1, &["lab", "id-is-kept"]);
    refused(&["cluster", "--period", "50ms"], 1, &["period", "200 ms", "lab"]);
    refused(&["replay", "/nowhere.json"], 1, &["/nowhere.json", "cannot be read"]);
}

#[test]
fn a_cluster_answers_with_the_same_report() {
    let options = ["cluster", "--nodes", "2", "--duration", "60s", "--jobs-rate", "2/s", "--json"];
    let report = json(&options);
    assert_eq!(report["tier"], "cluster");
    assert_eq!(report["missed"], 0);
    assert!(report["jobs"]["enqueued"].as_u64() > Some(10), "{report}");
}

#[test]
fn a_cluster_is_drawn_too() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("drawn.json");
    let write = path.to_str().unwrap();
    let options = ["cluster", "--nodes", "2", "--duration", "40s", "--write", write];
    assert!(sim(&options).status.success());
    let plotted = sim(&["plot", "--tier", "cluster", write]);
    assert!(plotted.status.success(), "{}", String::from_utf8_lossy(&plotted.stderr));
    let svg = std::fs::read_to_string(path.with_extension("svg")).unwrap();
    assert!(svg.contains("<svg") && svg.contains("node 1") && svg.contains("offset: microseconds"));
    // Each empty beat is blue, in its lane and below.
    assert!(svg.matches("fill=\"#2678B2\"").count() > 40);
}

#[test]
fn the_original_design_is_refused_where_whole_nodes_run() {
    let words = ["--clock original", "stand-in for the engine", "own shell", "--tier lab"];
    refused(&["cluster", "--clock", "original"], 1, &words);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("original.json");
    let write = path.to_str().unwrap();
    assert!(sim(&["lab", "--duration", "1m", "--write", write]).status.success());
    for command in ["plot", "replay"] {
        refused(&[command, "--tier", "cluster", "--clock", "original", write], 1, &words);
    }
    assert!(sim(&["plot", "--clock", "original", write]).status.success());
    let ran = sim(&["cluster", "--clock", "transit", "--nodes", "1", "--duration", "30s"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// The journal of an engine that reads, gets no answer, and reads again.
fn journal() -> Vec<String> {
    let header = Header {
        version: turnwise_engine::journal::VERSION,
        id: NodeId::from_u128(7),
        capacity: 4,
        seed: 3,
        now: LocalInstant::from_nanos(1_000),
        node: "desk".to_owned(),
    };
    let mut engine = header.engine();
    let mut lines = vec![serde_json::to_string(&header).unwrap()];
    let mut at = header.now;
    for _ in 0..4 {
        let entry = Entry::Input { at, input: Input::Wake };
        lines.push(serde_json::to_string(&entry).unwrap());
        engine.handle_input(at, Input::Wake);
        while let Some(output) = engine.poll_output() {
            lines.push(serde_json::to_string(&Entry::Output(output)).unwrap());
        }
        at = engine.poll_timeout().unwrap().0;
    }
    lines.push(serde_json::to_string(&Entry::End).unwrap());
    lines
}

#[test]
fn a_journal_is_told_to_a_new_engine_and_compared() {
    let lines = journal();
    let path = file("whole.journal", &lines.join("\n"));
    let summary = json(&["replay", path.to_str().unwrap(), "--json"]);
    assert_eq!((summary["inputs"].as_u64(), summary["ended"].as_bool()), (Some(4), Some(true)));
    assert!(summary["outputs"].as_u64().unwrap() >= 4, "{summary}");
    // An output that the engine would not give, and a line that is none.
    let other = lines.join("\n").replacen("\"request\":2", "\"request\":9", 1);
    let path = file("other.journal", &other);
    refused(&["replay", path.to_str().unwrap()], 1, &["differs", "RequestId(9)"]);
    let path = file("broken.journal", &lines.join("\n").replacen("Wake", "Woke", 1));
    refused(&["replay", path.to_str().unwrap()], 1, &["line 2", "Woke"]);
}

#[test]
fn a_malformed_scenario_is_refused_by_line_and_field() {
    let path = file("malformed.json", "{\n  \"version\": 1,\n  \"sead\": 3\n}");
    refused(&["replay", path.to_str().unwrap()], 1, &["line 3", "sead"]);
    let path = file("older.json", "{\"version\": 0}");
    refused(&["replay", path.to_str().unwrap()], 1, &["version 0", "version 1"]);
    refused(&["replay", path.to_str().unwrap()], 1, &["line 1, column 13"]);
    let path = file("broken.json", "{\"version\": ");
    refused(&["shrink", path.to_str().unwrap()], 1, &["line 1"]);
}

#[test]
fn a_number_out_of_its_range_is_refused_by_line_and_field() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("within.json");
    let write = path.to_str().unwrap();
    let options = ["lab", "--step", "1h@10s", "--duration", "1m", "--write", write];
    assert!(sim(&options).status.success());
    let text = std::fs::read_to_string(&path).unwrap();
    let by = "\"by\": \"1h\"";
    let line = text.lines().position(|line| line.contains(by)).unwrap() + 1;
    let line = format!("line {line}, column ");
    for by_other in ["250y", "-250y"] {
        let path = file("beyond.json", &text.replace(by, &format!("\"by\": \"{by_other}\"")));
        let words = [line.as_str(), "faults[0].fault.by: ", "250years", "from -10years to 10years"];
        refused(&["replay", path.to_str().unwrap()], 1, &words);
    }
    let path = file("beyond.json", &text.replacen("loss_ppm\": 0", "loss_ppm\": 4294967295", 1));
    let words = ["line ", "nodes[0].there.loss_ppm: 4294967295 of a million", "0 to 1000000"];
    refused(&["replay", path.to_str().unwrap()], 1, &words);
}

#[test]
fn a_seed_of_a_sweep_is_the_same_run_as_a_lab_of_that_seed() {
    let options = ["--crash-rate", "1/20s", "--duration", "2m", "--latency", "1ms..40ms", "--json"];
    for seed in [3_u64, 4] {
        let seeds = format!("{seed}..{}", seed + 1);
        let swept = json(&[&["sweep", "--seeds", &seeds], &options[..]].concat());
        let ran = json(&[&["lab", "--seed", &seed.to_string()], &options[..]].concat());
        assert_eq!(swept["trace_hash"], ran["trace_hash"], "{seed}");
    }
}

#[test]
fn a_sweep_makes_the_first_that_fails_smaller() {
    let options = ["--nodes", "3", "--latency", "1700ms", "--duration", "2m", "--shrink"];
    let output = sim(&[&["sweep", "--seeds", "5..7"], &options[..]].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("turnwise-lab-seed-5.small.json"), "{said}");
    let smaller = std::env::temp_dir().join("turnwise-lab-seed-5.small.json");
    refused(&["replay", smaller.to_str().unwrap()], 1, &["turnwise-sim shrink"]);
}

#[test]
fn the_scale_tells_each_event_of_each_size() {
    let rows = json(&["scale", "--nodes", "2,5", "--seeds", "2", "--json"]);
    let rows = rows.as_array().unwrap();
    let events: Vec<_> = rows.iter().map(|row| row["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["join", "crash", "drain"].repeat(4));
    for row in rows {
        let crash = row["event"] == "crash";
        assert_eq!(row["missed"]["worst"].as_f64(), Some(f64::from(u8::from(crash))), "{row}");
        assert!(row["times"]["ring_s"]["median"].as_f64().unwrap() > 0.0, "{row}");
        assert_eq!((&row["runs"], &row["violations"]), (&2.into(), &0.into()));
    }
    refused(&["scale", "--nodes", "1"], 2, &["1 is not in 2..=1999"]);
}
