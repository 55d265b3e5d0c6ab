//! Settings: where they come from, and what is said of those that cannot be.

use std::net::TcpListener;

use crate::place::{Place, away};

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
